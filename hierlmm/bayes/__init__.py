"""Priors, the exact posterior, and the compiled PyMC model."""
