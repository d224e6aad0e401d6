"""What a reader of direct estimates should be told, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import listed
from hierlmm.survey.direct_results import NO_RECORDS, SINGLE_UNIT, ZERO_VARIANCE
from hierlmm.survey.plan import Plan

Vector = NDArray[np.float64]


def direct_notes(plan: Plan, labels: pd.Index, role: NDArray[np.str_], value: Vector, df: Vector) -> Iterator[str]:
    """Sentences on the areas, those without an estimate first."""
    if (none := role == NO_RECORDS).any():
        yield f"Areas without a complete record, which have no estimate: {listed(labels[none])}."
    if (single := role == SINGLE_UNIT).any():
        what = "primary sampling unit" if plan.clusters is not None or plan.areas == "domains" else "record"
        yield (
            f"The variance cannot be estimated from a single {what} (in a stratum): it is missing for areas "
            f"{listed(labels[single])}."
        )
    if (zero := role == ZERO_VARIANCE).any():
        yield from _zero(plan, labels, zero, value)
    if plan.quantity == "proportion" and (out := (value < 0) | (value > 1)).any():
        yield (
            "Estimated proportions outside 0 to 1, as sums of weights over population sizes may be, in areas "
            f"{listed(labels[out])}."
        )
    if (few := (df < 1) & (role == "estimated")).any():
        yield (
            "No degrees of freedom (as many strata as primary sampling units), hence no limits, for areas "
            f"{listed(labels[few])}."
        )


def _zero(plan: Plan, labels: pd.Index, zero: NDArray[np.bool_], value: Vector) -> Iterator[str]:
    ends = zero & ((value == 0) | (value == 1)) & (plan.quantity == "proportion")
    if ends.any():
        yield (
            f"All records are alike, a proportion of 0 or 1 with an estimated variance of 0, in areas "
            f"{listed(labels[ends])}. Their limits are one-sided; for a model give them variances by "
            "hl.smooth_variances(...)."
        )
    if (rest := zero & ~ends).any():
        yield (
            f"The estimated variance is 0 in areas {listed(labels[rest])}: no value varies there, or the area was "
            "counted in full. For a model give them variances by hl.smooth_variances(...), or take them as known."
        )
