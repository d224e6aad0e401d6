"""Totals beside the areas' own sums: how far apart they are, in factors and in standard errors, and what that means."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.publication.benchmark.results import Method
from hierlmm.publication.benchmark.totals import Constraints
from hierlmm.publication.estimates.covariance import ROUNDING
from hierlmm.publication.estimates.form import AreaEstimates

Vector = NDArray[np.float64]

# Standard errors between a total and the areas' own sum from which on the two are said to disagree.
DISAGREE = 3.0


def total_checks(estimates: AreaEstimates, constraints: Constraints, before: Vector) -> pd.DataFrame:
    """The totals beside the areas' own sums, before anything is moved."""
    W, target = constraints.W, constraints.target
    own = W @ before
    spread = estimates.errors.between(W)
    gap = spread + constraints.noise
    if constraints.known == "internal":
        gap = np.full_like(spread, np.nan) if estimates.gap is None else estimates.gap.between(W)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(own != 0, target / own, np.nan)
        z = (target - own) / np.sqrt(np.maximum(np.diagonal(gap), 0.0))
    return constraints.rows.assign(
        weight=W.sum(axis=1),
        target=target,
        target_se=np.sqrt(np.diagonal(constraints.noise)),
        before=own,
        before_se=np.sqrt(np.maximum(np.diagonal(spread), 0.0)),
        factor=factor,
        difference=target - own,
        z=np.where(np.abs(target - own) <= ROUNDING * (np.abs(target) + np.abs(own)), 0.0, z),
    )


def check_units(checks: pd.DataFrame, constraints: Constraints, method: Method, largest: float) -> None:
    """Refuse totals that are far from the areas' own sums."""
    factor = checks["factor"].to_numpy()
    far = ~((factor >= 1 / largest) & (factor <= largest))
    if method in ("difference", "optimal"):
        far &= ~(np.abs(checks["z"].to_numpy()) <= DISAGREE)
    if far.any():
        names = np.array(constraints.names)
        own, target = checks["before"].to_numpy(), checks["target"].to_numpy()
        found = listed(f"{names[r]} {target[r]:.6g} against {own[r]:.6g}" for r in np.flatnonzero(far))
        raise DesignError(
            "A total must be near the sum of its areas, here within a factor of "
            f"{largest:g}; {far.sum()} of {len(far)} are not: {found}. Check the units of both (means against totals, "
            "per cent against proportions) and the weights; where both are right, give a larger `largest_factor`."
        )


def benchmark_notes(checks: pd.DataFrame, before: Vector, after: Vector, estimates: AreaEstimates) -> tuple[str, ...]:
    """Sentences on totals that contradict the areas, and on areas whose sign was turned."""
    notes = []
    apart = (checks["z"].abs() > DISAGREE).to_numpy()
    if apart.any():
        found = listed(f"{g} ({z:+.1f})" for g, z in checks.loc[apart, ["group", "z"]].itertuples(index=False))
        notes.append(
            f"Total and areas differ by more than {DISAGREE:g} standard errors in {found}: they may measure different "
            "things, or the model does not fit there. Benchmarking hides this; it does not mend it."
        )
    if (turned := (np.sign(before) * np.sign(after) < 0)).any():
        notes.append(f"The adjustment changed the sign of the estimate in {listed(estimates.areas[turned])}.")
    return tuple(notes)
