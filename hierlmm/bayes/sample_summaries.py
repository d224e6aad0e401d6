"""Posterior summaries from the draws of Markov chains, with the Monte Carlo error of each mean."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.diagnostics import arviz_stats
from hierlmm.bayes.results import TAILS, Estimates

Array = NDArray[np.float64]


def summarise(values: Array) -> Estimates:
    """Mean, sd (divisor N - 1), equal-tailed interval and Monte Carlo standard error of each entry.

    values  (chains, draws, ...); every result has the shape that follows the first two axes. The Monte Carlo error
    is sd / sqrt(effective sample size of the mean) (Vehtari et al. 2021, Bayesian Analysis 16:667-718); it is 0 for
    an entry that is the same in every draw.
    """
    shape = values.shape[2:]
    flat = values.reshape(*values.shape[:2], math.prod(shape))
    pooled = flat.reshape(math.prod(values.shape[:2]), math.prod(shape))
    lower, upper = np.quantile(pooled, TAILS, axis=0)
    sd = pooled.std(axis=0, ddof=1)
    parts = (pooled.mean(axis=0), sd, lower, upper, _mcse(flat, sd))
    return Estimates(*(part.reshape(shape) for part in parts))


def _mcse(flat: Array, sd: Array) -> Array:
    """(k,) Monte Carlo standard errors of the means of (chains, draws, k) draws."""
    import xarray as xr

    out = np.zeros(flat.shape[-1])
    moving = sd > 0
    if moving.any():
        varied = xr.Dataset({"x": (("chain", "draw", "quantity"), flat[..., moving])})
        out[moving] = arviz_stats().mcse(varied, method="mean")["x"].values
    return out


def covariance(values: Array) -> Array:
    """(p, p) covariance matrix of the entries of (chains, draws, p) draws, divisor N - 1."""
    pooled = values.reshape(math.prod(values.shape[:2]), values.shape[2])
    away = pooled - pooled.mean(axis=0)
    return np.asarray(away.T @ away / (len(pooled) - 1))
