"""Direct estimates as plain text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.design.types import Dropped
from hierlmm.errors import listed
from hierlmm.survey.text import counted, row, spread_rows, wrapped

if TYPE_CHECKING:
    from hierlmm.survey.direct_results import DirectEstimates

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
