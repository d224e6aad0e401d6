"""Design-based estimation from survey records: direct estimates, their variances, synthetic and composite ones."""
