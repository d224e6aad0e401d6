"""Exact tests of one random term from its independent pieces: F by projections and the locally best invariant test.

With the pieces of `components_space`, F(gamma) = [sum of w_s² / (1 + gamma mu_s) / r1] / (R / r2) has the F
distribution with (r1, r2) degrees of freedom where gamma is the variance ratio, whatever the balance of the design
and whatever the variances of the other random effects, which are projected out. It decreases in gamma, so that it
tests any ratio and inverts to an exact confidence interval.

Source: Wald (1940, 1947), Ann. Math. Stat. 11:96-100 and 18:586-589; Hartley & Rao (1967), Biometrika 54:93-108;
Seely & El-Bassiouni (1983), Ann. Stat. 11:197-201; Das & Sinha (1987), Proc. 2nd Tampere Conf., for the locally best
invariant test, which rejects for large y'M Z1 Z1'M y / y'M y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierlmm.frequentist.inference.components_space import Pieces, distinct
from hierlmm.frequentist.inference.quadraticforms import upper_tail

# Halvings of an interval of log(1 + gamma mu) until doubles can tell its ends apart no more.
HALVINGS = 200


@dataclass(frozen=True, slots=True)
class FTest:
    """F with (df1, df2) degrees of freedom; p is the upper tail against a ratio of zero, else two-sided."""

    statistic: float
    df1: int
    df2: int
    p: float


@dataclass(frozen=True, slots=True)
class InvariantTest:
    """The locally best invariant statistic and its upper tail."""

    statistic: float
    p: float


def f_statistic(found: Pieces, ratio: float = 0.0) -> float:
    """F(gamma) at gamma = `ratio`."""
    return float((found.squares / (1 + ratio * found.mu)).sum() / len(found.mu) / (found.rest / found.df))


def wald_f(found: Pieces, ratio: float = 0.0) -> FTest:
    """The exact F test of the variance ratio against `ratio`; needs r1 > 0 and r2 > 0."""
    from scipy.special import fdtr, fdtrc

    r1, r2 = len(found.mu), found.df
    F = f_statistic(found, ratio)
    p = float(fdtrc(r1, r2, F))
    return FTest(F, r1, r2, p if ratio == 0 else min(1.0, 2 * min(p, float(fdtr(r1, r2, F)))))


def ratio_interval(found: Pieces, level: float) -> tuple[float, float]:
    """Exact confidence interval of the variance ratio, ends at zero where F(0) is no larger than their quantile."""
    from scipy.special import fdtri

    r1, r2, half = len(found.mu), found.df, (1 - level) / 2
    return tuple(_solved(found, float(fdtri(r1, r2, p))) for p in (1 - half, half))  # type: ignore[return-value]


def _solved(found: Pieces, target: float) -> float:
    """gamma with F(gamma) = `target`, by bisection in log(1 + gamma mu_1); 0 where F(0) is below it."""
    if f_statistic(found) <= target:
        return 0.0
    top = float(found.mu[0])
    low, high = 0.0, 1.0
    while f_statistic(found, np.expm1(high) / top) > target:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if f_statistic(found, np.expm1(middle) / top) > target else (low, middle)
    return float(np.expm1(0.5 * (low + high)) / top)


def locally_best(found: Pieces) -> InvariantTest:
    """Locally best invariant test of gamma = 0 against small positive gamma, p by inversion of a quadratic form."""
    total = float(found.squares.sum()) + found.rest
    statistic = float(found.mu @ found.squares) / total
    mu, counts = distinct(found.mu)
    return InvariantTest(statistic, upper_tail([*(mu - statistic), -statistic], [*counts, found.df]))
