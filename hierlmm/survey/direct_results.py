"""The result of direct estimation: numbers by area with their labels."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Dropped
from hierlmm.survey.plan import Plan

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]

# What an area is: its role beside "estimated".
NO_RECORDS, SINGLE_UNIT, ZERO_VARIANCE, COUNTED = "no_records", "single_unit", "zero_variance", "counted"
# The interval of a proportion of 0 or 1, and that of an area counted in full.
ONE_SIDED, POINT = "korn_graubard_one_sided", "point"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DirectEstimates:
    """Design-based estimates of M areas; (M,) arrays in the order of `labels`.

    plan        what was asked, defaults filled in
    labels      (M,) areas, sorted, categories in their own order; key type of the records
    estimate, variance   nan where there is none; `role` says why
    n, units    records and primary sampling units of the area; df degrees of freedom of the variance: units less strata
    size        sum of the weights; population the known size, nan where not given
    variance_srs  of a mean of n records drawn with replacement, on the scale of the estimate
    weighting   design effect of unequal weights alone, n Σ w²/(Σ w)² (Kish 1965)
    design_effect  variance over variance_srs, nan at 0/0; pooled_design_effect one for all areas
    lower, upper   limits of plan.level; interval their kind: "t", "korn_graubard", "korn_graubard_one_sided", "point"
                (an area counted in full) or "" (none)
    role        "estimated", "zero_variance", "counted" (in full: no sampling error), "single_unit" (no variance) or
                "no_records" (nothing)
    dropped     records left out; notes sentences a reader should know
    """

    plan: Plan
    labels: pd.Index
    estimate: Vector
    variance: Vector
    n: Codes
    units: Codes
    df: Vector
    size: Vector
    population: Vector
    variance_srs: Vector
    weighting: Vector
    design_effect: Vector
    pooled_design_effect: float
    lower: Vector
    upper: Vector
    interval: NDArray[np.str_]
    role: NDArray[np.str_]
    dropped: Dropped
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def se(self) -> Vector:
        """(M,) standard errors."""
        return np.sqrt(self.variance)

    @property
    def effective_size(self) -> Vector:
        """(M,) n over the design effect, nan where that is not positive: the size of a random sample as precise."""
        effect = np.where(self.design_effect > 0, self.design_effect, np.nan)
        return np.asarray(self.n / effect, dtype=np.float64)

    @property
    def areas(self) -> pd.DataFrame:
        """One row an area.

        area, estimate, se, variance, lower, upper, interval, cv (se/|estimate|, nan at 0), n, units, df,
        effective_size, design_effect, weighting_effect, weight_sum, population, role; as the fields of the result.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            cv = np.where(self.estimate != 0, self.se / np.abs(self.estimate), np.nan)
        return pd.DataFrame(
            {
                "area": self.labels,
                "estimate": self.estimate,
                "se": self.se,
                "variance": self.variance,
                "lower": self.lower,
                "upper": self.upper,
                "interval": self.interval,
                "cv": cv,
                "n": self.n,
                "units": self.units,
                "df": self.df,
                "effective_size": self.effective_size,
                "design_effect": self.design_effect,
                "weighting_effect": self.weighting,
                "weight_sum": self.size,
                "population": self.population,
                "role": self.role,
            }
        )

    def summary(self) -> str:
        """What was estimated and how, and the spread of the results, in at most 80 columns."""
        from hierlmm.survey.direct_summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()
