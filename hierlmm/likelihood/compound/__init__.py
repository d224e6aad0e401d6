"""Compound sampling as functions of arrays: marginal likelihoods, their maxima, moment estimators, conjugate posteriors."""
