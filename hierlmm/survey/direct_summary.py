"""Direct estimates in words: what a reader should be told, and the printed summary of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Dropped
from hierlmm.errors import listed
from hierlmm.survey.direct_results import COUNTED, NO_RECORDS, ONE_SIDED, SINGLE_UNIT, ZERO_VARIANCE, DirectEstimates
from hierlmm.survey.plan import Plan
from hierlmm.survey.text import counted, row, spread_rows, wrapped

Vector = NDArray[np.float64]
Texts = NDArray[np.str_]

ESTIMATORS = {"hajek": "Hájek", "horvitz_thompson": "Horvitz-Thompson"}
VARIANCES = {
    "with_replacement": "between primary sampling units, as if drawn with replacement",
    "fixed_size": "without replacement, fixed size (Hájek's joint inclusion probabilities)",
    "poisson": "without replacement, units drawn independently (π_kl = π_k π_l)",
}


def summary(direct: DirectEstimates) -> str:
    """Estimator and design, then the distribution of the results over areas, then notes."""
    lines = [*_asked(direct), "", *_spread(direct)]
    for note in (*left_out(direct.dropped), *direct.notes):
        lines += ["", *wrapped(note)]
    return "\n".join(line.rstrip() for line in lines)


def _asked(direct: DirectEstimates) -> Iterator[str]:
    plan = direct.plan
    yield from wrapped(
        f"Direct estimates: {plan.quantity} of {plan.variable} by {plan.area} ({ESTIMATORS[plan.estimator]})"
    )
    parts = [
        f"weights {plan.weights}" if plan.weights else "equal weights within areas",
        f"strata {plan.strata}" if plan.strata else "",
        f"clusters {plan.clusters}" if plan.clusters else "",
        "each area a stratum" if plan.areas == "strata" else "areas are domains of the sample",
        "" if plan.population is None else "population sizes known",
    ]
    yield from wrapped("  Sample: " + "; ".join(part for part in parts if part))
    yield from wrapped("  Variance: " + VARIANCES[plan.variance])


def _spread(direct: DirectEstimates) -> Iterator[str]:
    frame = direct.areas
    counts = [f"{int((direct.role == role).sum())} {role.replace('_', ' ')}" for role in np.unique(direct.role)]
    yield row(f"{len(frame)} areas, {int(direct.n.sum())} records", ["smallest", "median", "largest"])
    labels = {
        "n": "records",
        "estimate": "estimate",
        "se": "standard error",
        "cv": "coefficient of variation",
        "design_effect": "design effect",
        "effective_size": "effective sample size",
    }
    yield from spread_rows(frame, labels)
    yield "  Areas: " + ", ".join(counts)


def left_out(dropped: Dropped) -> Iterator[str]:
    """Sentences on the records that are not in the estimates."""
    if len(dropped):
        columns = dict.fromkeys(name for names in dropped.columns for name in names)
        yield (
            f"{counted(len(dropped), 'record')} left out for missing values in {listed(columns)}: rows "
            f"{listed(dropped.rows)}. The estimates are as if these had not been drawn."
        )
    if dropped.unweighted:
        yield f"{counted(len(dropped.unweighted), 'record')} of weight 0 left out: rows {listed(dropped.unweighted)}."


def direct_notes(plan: Plan, labels: pd.Index, role: Texts, value: Vector, interval: Texts) -> Iterator[str]:
    """Sentences on the areas, those without an estimate first."""
    if (none := role == NO_RECORDS).any():
        yield f"Areas without a complete record, which have no estimate: {listed(labels[none])}."
    if (single := role == SINGLE_UNIT).any():
        what = "primary sampling unit" if plan.clusters is not None or plan.areas == "domains" else "record"
        yield (
            f"The variance cannot be estimated from a single {what} (in a stratum): it is missing, and limits with "
            f"it, for areas {listed(labels[single])}."
        )
    if (full := role == COUNTED).any():
        yield (
            f"Counted in full, hence without sampling error: areas {listed(labels[full])}. In a model "
            'zero_variance="direct" keeps their estimates as they stand.'
        )
    if (zero := role == ZERO_VARIANCE).any():
        yield from _zero(plan, labels, zero, value, interval)
    if plan.quantity == "proportion" and (out := (value < 0) | (value > 1)).any():
        yield (
            "Estimated proportions outside 0 to 1, as sums of weights over population sizes may be, in areas "
            f"{listed(labels[out])}."
        )
    if (few := (interval == "") & np.isin(role, ["estimated", ZERO_VARIANCE])).any():
        yield (
            "No degrees of freedom (as many strata as primary sampling units), hence no limits, for areas "
            f"{listed(labels[few])}."
        )


def _zero(plan: Plan, labels: pd.Index, zero: NDArray[np.bool_], value: Vector, interval: Texts) -> Iterator[str]:
    ends = zero & ((value == 0) | (value == 1)) & (plan.quantity == "proportion")
    if ends.any():
        limits = "Their limits are one-sided; for" if (interval[ends] == ONE_SIDED).all() else "For"
        yield (
            f"All records are alike, a proportion of 0 or 1 with an estimated variance of 0, in areas "
            f"{listed(labels[ends])}. {limits} a model give them variances by hl.smooth_variances(...)."
        )
    if (rest := zero & ~ends).any():
        yield (
            f"The estimated variance is 0 in areas {listed(labels[rest])}: no value, or no sum over a primary sampling "
            "unit, varies there. For a model give them variances by hl.smooth_variances(...)."
        )
