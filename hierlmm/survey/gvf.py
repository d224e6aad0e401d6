"""Generalised variance functions: what they are, free of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import SpecError

Vector = NDArray[np.float64]

Correction = Literal["smearing", "lognormal", "ratio"]


@dataclass(frozen=True, slots=True)
class LogLinearGVF:
    """log variance = x'α + error, back-transformed with a correction: Wolter (2007, Variance Estimation, ch. 7).

    formula     "log(variance) ~ log(n)", any columns of the table on its right; or "log(relvariance) ~ log(estimate)"
                for the variance over the squared estimate
    correction  exp(x'α̂) estimates a median. It is multiplied by
                "smearing"   the mean of exp(residual): no distribution is supposed (Duan 1983, JASA 78, 605-610)
                "lognormal"  exp(s²/2), s² the residual variance: normal errors
                "ratio"      what makes smoothed variances (or relvariances) sum to the estimated ones, over the areas
                             fitted (Rivest and Belmonte 2000, Survey Methodology 26, 67-78)
    """

    formula: str = "log(variance) ~ log(n)"
    correction: Correction = "smearing"

    def __post_init__(self) -> None:
        if self.correction not in get_args(Correction):
            known = ", ".join(map(repr, get_args(Correction)))
            raise SpecError(f"`correction` is one of {known}; found {self.correction!r}. Use one of these.")


@dataclass(frozen=True, slots=True)
class DesignEffectGVF:
    """deff p̃(1 - p̃)/n for proportions: one design effect for all areas, and a proportion that is never 0 or 1.

    proportion     p̃: "shrunken", (n* p + k p₀)/(n* + k) with n* = n/deff, p₀ the mean over the areas weighted by n*,
                   and k pseudo-units from the variation of p between areas (beta-binomial by moments: Kleinman 1973,
                   JASA 68, 46-54; at least 1, infinite where there is no such variation); "pooled", p₀; or the name of
                   a column of synthetic proportions
    design_effect  the number; None: Σ f n v/Σ f s² over the areas, s² = n p(1 - p)/(n - 1) and f degrees of freedom
    """

    proportion: str = "shrunken"
    design_effect: float | None = None

    def __post_init__(self) -> None:
        given = self.design_effect
        if given is not None and (
            isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < np.inf
        ):
            raise SpecError(f"A design effect is a positive number; found {given!r}. Leave it out to estimate it.")


VarianceModel = LogLinearGVF | DesignEffectGVF


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raw:
    """Direct estimates of M areas: labels, and (M,) arrays; the table, and its columns of estimate, variance and n.

    counted  areas counted in full, whose variance of 0 is none of a sample
    """

    areas: pd.Index
    estimate: Vector
    variance: Vector
    n: Vector
    df: Vector
    counted: NDArray[np.bool_]
    table: pd.DataFrame
    names: tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Function:
    """A fitted function: (M,) smoothed variances, nan where it gives none; coefficients, numbers, columns, notes."""

    smoothed: Vector
    coefficients: pd.DataFrame
    diagnostics: Mapping[str, float]
    beside: Mapping[str, Vector]
    notes: tuple[str, ...]


def quoted(name: str) -> str:
    """A column's name as a formula writes it."""
    return name if name.isidentifier() else f"`{name}`"
