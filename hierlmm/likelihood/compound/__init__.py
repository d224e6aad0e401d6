"""Compound sampling as functions of arrays: marginal likelihoods and their maxima, moments, conjugate posteriors."""
