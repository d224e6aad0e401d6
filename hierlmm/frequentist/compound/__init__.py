"""Compound sampling: empirical-Bayes fits, their errors, intervals and bootstraps."""
