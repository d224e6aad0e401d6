"""Estimation without a likelihood: analysis of variance, quadratic unbiased estimators, and analysis in two stages."""
