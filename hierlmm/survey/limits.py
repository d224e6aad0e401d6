"""Confidence limits of direct estimates: Student's t, and for proportions those of Korn and Graubard.

Korn and Graubard (1998, Survey Methodology 24, 193-201) put an effective sample size into the limits of Clopper and
Pearson (1934): n* = p(1 - p)/v, times [t_{n-1}(α/2)/t_df(α/2)]² for the degrees of freedom of v, at most n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def t_limits(value: Vector, se: Vector, df: Vector, level: float) -> tuple[Vector, Vector]:
    """value ± t_df se, nan where the degrees of freedom are below 1."""
    reach = quantile(df, (1 + level) / 2) * se
    return value - reach, value + reach


def quantile(df: Vector, p: float) -> Vector:
    """Quantile of Student's t, nan where df < 1."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(np.where(df >= 1, df, np.nan), p), dtype=np.float64)


def korn_graubard(p: Vector, variance: Vector, n: Vector, df: Vector, level: float) -> tuple[Vector, Vector]:
    """Two-sided limits of proportions p strictly between 0 and 1 with estimated variance; nan elsewhere.

    An estimated variance of 0, as of clusters of equal shares, stands for n* = n.
    """
    tail = (1 - level) / 2
    inside = (p > 0) & (p < 1) & (variance >= 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.where(inside, p * (1 - p) / variance, np.nan)
    size = np.minimum(size * _adjustment(n, df, 1 - tail), n)
    return clopper_pearson(p * size, size, tail)


def one_sided(n: Vector, design_effect: Vector, df: Vector, level: float) -> Vector:
    """Upper limit of a proportion estimated as 0: 1 - (1 - level)^(1/n*), n* = n/design effect with the adjustment.

    All of 1 - level lies on the one side that is open. The estimate itself says nothing about the effective sample
    size, so the design effect comes from elsewhere; below 1 it is taken as 1. By symmetry 1 minus it is the lower
    limit where the estimate is 1.
    """
    size = np.minimum(n / np.maximum(design_effect, 1.0) * _adjustment(n, df, level), n)
    return np.asarray(-np.expm1(np.log1p(-level) / size), dtype=np.float64)


def _adjustment(n: Vector, df: Vector, p: float) -> Vector:
    return np.square(quantile(n - 1.0, p) / quantile(df, p))


def clopper_pearson(x: Vector, n: Vector, tail: float) -> tuple[Vector, Vector]:
    """Limits of a proportion from x successes of n, neither of them whole; each tail holds at most `tail`."""
    from scipy.special import betaincinv

    lower = betaincinv(x, n - x + 1, tail)
    upper = betaincinv(x + 1, n - x, 1 - tail)
    return np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
