"""`triple_goal`: estimates that serve for areas, for their ranks, and for the distribution of areas at once.

Posterior means are too close together: their spread is that of the areas less what is unknown of each, so that a map
of them hides how much areas differ. Shen and Louis (1998, JRSS B 60:455-471): the distribution function with least
integrated squared error is Ḡ(t) = mean_i P(θ_i ≤ t); its quantiles at (2j − 1)/2M, given to the areas in the order
of their expected ranks, are the triple-goal estimates. Constrained estimates (Louis 1984, JASA 79:393-398; Ghosh
1992, JASA 87:533-540) stretch the means about their centre so that their variance is the expected one of the areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.ranking import First, basis_notes, check_first, joint_draws, ranked
from hierlmm.publication.text import lines_of, table

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TripleGoal:
    """Estimates for three goals.

    frame   area, estimate (the mean), se, constrained (stretched to the spread of the areas), triple_goal, rank (1 the
            `first`, of the expected ranks; equal ones share the mean of their ranks), expected_rank
    first   which area has rank 1, as in hl.ranks
    edf     probability ((2j − 1)/2M) and value (units of the estimates) of the estimated distribution of areas
    stretch by how much `constrained` stretches the estimates about their mean; nan where they are all equal
    notes   sentences that belong to the table
    """

    frame: pd.DataFrame
    first: First
    edf: pd.DataFrame
    stretch: float
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The estimates as text, at most 80 columns wide."""
        spread = {name: self.frame[name].std(ddof=0) for name in ("estimate", "constrained", "triple_goal")}
        sds = ", ".join(f"{name} {sd:.4g}" for name, sd in spread.items())
        heading = f"Triple-goal estimates, ranks with the {self.first} first"
        return "\n".join([heading, f"sd over areas: {sds}", "", *table(self.frame), *lines_of(self.notes)])

    def __repr__(self) -> str:
        return self.summary()


def triple_goal(
    result: object, *, first: First = "largest", draws: int = 10_000, seed: int | np.random.Generator | None = None
) -> TripleGoal:
    """Triple-goal and constrained estimates of the areas of a fit or posterior, or of what was made of one.

    first   which area has rank 1, that with the "largest" value or the "smallest"
    draws, seed  of the ranks for a fit, which needs a seed; a posterior has draws of its own, and these are not read

    Raises FitError for a posterior without draws and for estimates that do not exist.
    """
    check_first(first)
    estimates = estimates_of(result)
    check_count("draws", draws, "draws", 4000, least=2)
    M = len(estimates.areas)
    expected = ranked(joint_draws(estimates, draws, seed)).reshape(-1, M).mean(axis=0)
    probability = (2 * np.arange(1, M + 1) - 1) / (2 * M)
    value = distribution_quantiles(estimates, probability)
    rising = ranked(expected)
    rank, places = (rising, expected) if first == "smallest" else (M + 1 - rising, M + 1 - expected)
    stretch = constrained_stretch(estimates)
    centre = estimates.estimate.mean()
    frame = pd.DataFrame(
        {
            "area": estimates.areas,
            "estimate": estimates.estimate,
            "se": np.sqrt(estimates.mse),
            "constrained": centre + stretch * (estimates.estimate - centre),
            "triple_goal": np.interp(rising, np.arange(1, M + 1), value),
            "rank": rank,
            "expected_rank": places,
        }
    )
    edf = pd.DataFrame({"probability": probability, "value": value})
    return TripleGoal(frame=frame, first=first, edf=edf, stretch=stretch, notes=_notes(estimates, stretch))


def distribution_quantiles(estimates: AreaEstimates, probability: Vector) -> Vector:
    """Quantiles of Ḡ(t) = mean over areas of P(θ_i ≤ t): from exact distributions, else from the pooled draws."""
    if estimates.marginals is not None:
        return estimates.marginals.pooled_quantiles(probability)
    return np.asarray(np.quantile(estimates.pooled, probability))


def constrained_stretch(estimates: AreaEstimates) -> float:
    """sqrt(1 + tr[(I − 11'/M) Σ] / Σ (θ̂_i − mean)²), Σ the joint covariance matrix (Ghosh 1992)."""
    M = len(estimates.areas)
    errors = estimates.errors
    inside = float(errors.diagonal().sum() - errors.between(np.ones((1, M)))[0, 0] / M)
    spread = float(np.square(estimates.estimate - estimates.estimate.mean()).sum())
    return float(np.sqrt(1 + max(0.0, inside) / spread)) if spread > 0 else float("nan")


def _notes(estimates: AreaEstimates, stretch: float) -> tuple[str, ...]:
    flat = "All estimates are equal, so that none can be stretched: `constrained` is undefined."
    return (*((flat,) if np.isnan(stretch) else ()), *basis_notes(estimates))
