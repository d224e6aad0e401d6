"""The result of smoothing sampling variances: what was given and what is to be used, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.survey.gvf import VarianceModel

Vector = NDArray[np.float64]

# What became of an area's variance.
FITTED, PREDICTED, KEPT, UNSAMPLED = "fitted", "predicted", "kept", "unsampled"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SmoothedVariances:
    """Sampling variances of M areas; (M,) arrays in the order of the table.

    model       the variance function
    labels, estimate, n   as given
    raw         variances as given; smoothed what the function gives; variance the one to use
    role        "fitted" (in the fit of the function), "predicted" (zero, missing or absurd: the function's is used),
                "kept" (left as it was given) or "unsampled" (no direct estimate)
    replace     whether `variance` is the smoothed one in all areas that were fitted
    coefficients  of the function; diagnostics its numbers by name
    beside      more columns of `areas`: for a design effect the proportion and the effective size
    notes       sentences a reader should know
    """

    model: VarianceModel
    labels: pd.Index
    estimate: Vector
    n: Vector
    raw: Vector
    smoothed: Vector
    variance: Vector
    role: NDArray[np.str_]
    replace: Literal["all", "unusable"]
    coefficients: pd.DataFrame
    diagnostics: Mapping[str, float]
    beside: Mapping[str, Vector]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        arrays = [getattr(self, field.name) for field in fields(self)]
        for value in (*arrays, *self.beside.values()):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def areas(self) -> pd.DataFrame:
        """area, estimate, n, variance (the one to use), raw_variance, smoothed_variance, ratio of the two, role.

        For a design effect also proportion and effective_size.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self.raw > 0, self.smoothed / self.raw, np.nan)
        return pd.DataFrame(
            {
                "area": self.labels,
                "estimate": self.estimate,
                "n": self.n,
                "variance": self.variance,
                "raw_variance": self.raw,
                "smoothed_variance": self.smoothed,
                "ratio": ratio,
                "role": self.role,
                **self.beside,
            }
        )

    @property
    def r_squared(self) -> float:
        """Share of the variation of the logarithms that the function explains; nan for a design effect."""
        return self.diagnostics.get("r_squared", float("nan"))

    @property
    def ratio_of_sums(self) -> float:
        """Sum of the variances given over that of the smoothed ones, in the areas fitted: 1 where none is lost."""
        return self.diagnostics["ratio_of_sums"]

    def summary(self) -> str:
        """The function, how well it fits and what it changes, in at most 80 columns."""
        from hierlmm.survey.smoothing_summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()
