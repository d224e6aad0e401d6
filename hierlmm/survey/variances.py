"""Design variances of sums over a sample, for many areas at once: each a formula on the terms of the sum.

An estimate that is a sum of z_k over the records of an area, as a Horvitz-Thompson total with z_k = w_k y_k is, or that
behaves like one, as a ratio with its linearised values does, has the variance of that sum. Cochran (1977, Sampling
Techniques, ch. 9A, 10), Särndal, Swensson and Wretman (1992, Model Assisted Survey Sampling, ch. 2, 3, 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.survey.sums import sums
from hierlmm.survey.units import Units

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

# A variance below this share of (Σ|z|)² is a rounding error of zero: sums of n terms are good to n units in the last
# place at worst, which is 1e-13 for a thousand.
ROUNDING = 1e-13**2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Per area (M,): the variance, how many primary sampling units hold records of it, and in how many strata."""

    variance: Vector
    units: Codes
    strata: Codes


def between_units(z: Vector, area: Codes, M: int, units: Units, keep: Vector | None = None) -> Spread:
    """V_d = Σ_h n_h/(n_h - 1) Σ_i c_i (z_dhi - B_dh)², B_dh = Σ_i c_i z_dhi / Σ_i c_i, over the n_h units of stratum h.

    z_dhi is the sum over the records of area d in unit i, 0 for a unit without any: the area need not be a stratum.

    z     (n,) terms of the sum that is the estimate
    keep  None: c = 1, units drawn with replacement (Hansen and Hurwitz 1943; for several stages the ultimate cluster
          variance). (n,) 1 - π, each record its own unit: a sample of fixed size without replacement, with the joint
          inclusion probabilities of Hájek (1964, Ann. Math. Stat. 35, 1491-1523); for equal π it is exact

    Strata of one unit contribute as `units.lonely` says.
    """
    H = len(units.count)
    of_area, of_stratum, total, c = _cells(z, area, units, keep)
    C = _stratum_sums(units, keep)
    pair, at = np.unique(of_area * H + of_stratum, return_inverse=True)
    pair_area, pair_stratum = pair // H, pair % H
    inside = sums(at, c, len(pair))
    whole = C[pair_stratum]
    B = sums(at, c * total, len(pair)) / np.where(whole > 0, whole, 1.0)
    # Units without records of the area are at 0, so at a distance B from the mean.
    squares = sums(at, c * np.square(total - B[at]), len(pair)) + np.maximum(whole - inside, 0.0) * np.square(B)
    n = units.count[pair_stratum]
    part = n / np.maximum(n - 1, 1) * squares
    part = np.where(n > 1, part, _lonely(units, pair_area, sums(at, total, len(pair)), n, M))
    variance = sums(pair_area, part, M)
    reach = sums(area, np.abs(z), M)
    variance = np.where(variance <= ROUNDING * np.square(reach), 0.0, variance)
    return Spread(
        variance=variance,
        units=np.bincount(of_area, minlength=M),
        strata=np.bincount(pair_area, minlength=M),
    )


def _cells(z: Vector, area: Codes, units: Units, keep: Vector | None) -> tuple[Codes, Codes, Vector, Vector]:
    """Sums over the records of one area in one unit: area, stratum, total and c of each such cell."""
    P = len(units.stratum)
    cells, cell = np.unique(area * P + units.unit, return_inverse=True)
    total = sums(cell, z, len(cells))
    c = np.ones(len(cells)) if keep is None else sums(cell, keep, len(cells))
    return cells // P, units.stratum[cells % P], total, c


def _stratum_sums(units: Units, keep: Vector | None) -> Vector:
    """(H,) Σ c over the units of each stratum."""
    if keep is None:
        return units.count.astype(np.float64)
    return sums(units.stratum[units.unit], keep, len(units.count))


def _lonely(units: Units, pair_area: Codes, total: Vector, n: Codes, M: int) -> Vector:
    """What a stratum of one unit adds to the variance of each area in it."""
    if units.lonely == "certainty":
        return np.zeros(len(total))
    if units.lonely == "centre":
        mean = sums(pair_area, total, M) / np.maximum(sums(pair_area, n.astype(np.float64), M), 1)
        return np.square(total - mean[pair_area])
    return np.full(len(total), np.nan)


def covariance_between_units(z: Vector, area: Codes, M: int, units: Units) -> Matrix:
    """(M, M) covariances of the sums over areas, drawn with replacement: `between_units` with products for squares.

    The matrix of unit totals is dense: meant for a few dozen areas, as post-strata are.
    """
    P, H = len(units.stratum), len(units.count)
    totals = sums(units.unit * M + area, z, P * M).reshape(P, M)
    n = units.count[units.stratum]
    mean = np.stack([sums(units.stratum, total, H) for total in totals.T], axis=1) / units.count[:, None]
    centred = (totals - mean[units.stratum]) * np.sqrt(n / np.maximum(n - 1, 1))[:, None]
    if (alone := n == 1).any():
        centred[alone] = _lonely_rows(totals, area, units)[alone]
    return np.asarray(centred.T @ centred)


def _lonely_rows(totals: Matrix, area: Codes, units: Units) -> Matrix:
    """(P, M) what units alone in their stratum add to the sums over areas in them, before squares and products."""
    P, M = totals.shape
    held = np.bincount(units.unit * M + area, minlength=P * M).reshape(P, M) > 0
    if units.lonely == "certainty":
        return np.zeros((P, M))
    if units.lonely == "centre":
        inside = np.stack([np.bincount(units.stratum, own, len(units.count)) > 0 for own in held.T], axis=1)
        return np.where(held, totals - totals.sum(axis=0) / np.maximum(units.count @ inside, 1), 0.0)
    return np.where(held, np.nan, 0.0)


def singly(z: Vector, area: Codes, M: int, keep: Vector) -> Spread:
    """V_d = Σ (1 - π_k) z_k²: units drawn independently, π_kl = π_k π_l (Poisson sampling).

    For a Horvitz-Thompson total this is Σ w(w - 1) y². Under other designs the product of the first-order
    probabilities is an approximation (Rao and Molina 2015, Small Area Estimation, section 2.3).
    """
    count = np.bincount(area, minlength=M)
    variance = sums(area, keep * np.square(z), M)
    reach = sums(area, np.abs(z), M)
    variance = np.where(variance <= ROUNDING * np.square(reach), 0.0, variance)
    return Spread(variance=variance, units=count, strata=np.minimum(count, 1))


def pooled_design_effect(n: Vector | Codes, variance: Vector, variance_srs: Vector, df: Vector) -> float:
    """Σ f n v / Σ f n v_srs over the areas with both variances and f > 0 degrees of freedom; nan where that is 0/0.

    n v estimates the design effect times the variance of a unit with f degrees of freedom. An area in which all units
    are equal adds 0 to both sums, so that leaving out zeros does not push the ratio up.
    """
    held = np.isfinite(variance) & np.isfinite(variance_srs) & (df > 0)
    weight = df[held] * n[held]
    below = float(weight @ variance_srs[held])
    return float(weight @ variance[held]) / below if below > 0 else float("nan")
