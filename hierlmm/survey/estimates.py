"""Horvitz-Thompson and Hájek estimates by area, each with the terms of the sum that its variance is that of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.survey.plan import Plan
from hierlmm.survey.sample import Sample
from hierlmm.survey.sums import sums

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Per area (M,), nan where it has no record; terms (n,).

    value     the estimate
    terms     z_k whose sum over the area has the variance of the estimate
    size      Σ w, the estimated number of units; n the number of records
    variance_srs  variance of a mean of n records drawn by simple random sampling with replacement, s²/n with s² the
              weighted variance n/(n - 1) Σ w (y - ȳ)²/Σ w; on the scale of the estimate
    weighting n Σ w²/(Σ w)²: the design effect of unequal weights alone (Kish 1965)
    """

    value: Vector
    terms: Vector
    size: Vector
    n: Codes
    variance_srs: Vector
    weighting: Vector


def estimate(sample: Sample, plan: Plan) -> Estimate:
    """The estimates that the plan asks for.

    horvitz_thompson  total Σ w y; mean that over the known N. Terms w y, over N
    hajek             mean ȳ = Σ w y/Σ w, total N ȳ. Terms w (y - ȳ)/Σ w, times N: the first-order Taylor expansion of
                      the ratio (Särndal, Swensson and Wretman 1992, section 5.7)
    """
    M, w, y, area = len(sample.labels), sample.weight, sample.y, sample.area
    n = np.bincount(area, minlength=M)
    size = sums(area, w, M)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _mean(y, w, area, size, n)
        residual = y - mean[area]
        s2 = n / np.where(n > 1, n - 1, np.nan) * sums(area, w * np.square(residual), M) / size
        weighting = np.where(n > 0, n * sums(area, np.square(w / size[area]), M), np.nan)
        known = sample.population
        if plan.estimator == "hajek":
            scale = known if plan.quantity == "total" else np.ones(M)
            value, terms = scale * mean, (scale / size)[area] * w * residual
        else:
            scale = np.where(np.isfinite(known), known, size) if plan.quantity == "total" else np.ones(M)
            over = np.ones(M) if plan.quantity == "total" else known
            value, terms = sums(area, w * y, M) / over, w * y / over[area]
        srs = np.square(scale) * s2 / n
    return Estimate(
        value=np.where(n > 0, value, np.nan), terms=terms, size=size, n=n, variance_srs=srs, weighting=weighting
    )


def _mean(y: Vector, w: Vector, area: Codes, size: Vector, n: Codes) -> Vector:
    """(M,) weighted means, exact where all values of an area are equal: taken from a value of the area on."""
    origin = np.zeros(len(n))
    origin[area] = y
    return origin + sums(area, w * (y - origin[area]), len(n)) / size
