"""`exceedance`: the probability that an area lies above a threshold.

Of a fit: θ_i ~ N(θ̂_i, mse_i), the parametric empirical Bayes posterior with the mean squared error for variance, so
that estimating the coefficients and the area variance widens it, to second order. Of an exact posterior: the mixture
of Gaussians over the area variance, without Monte Carlo error. Of any other posterior: the share of its draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.bootstrap.arguments import finite
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.marginals import monte_carlo_error
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.keyed import numbers
from hierlmm.publication.ranking import basis_notes
from hierlmm.publication.text import lines_of, table

Vector = NDArray[np.float64]
Side = Literal["above", "below"]

GAUSSIAN = (
    "Of a fit, an area is taken as normal about its estimate{where} with the mse for variance: given the fitted "
    "coefficients and area variance, whose estimation the mse adds to second order."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Exceedance:
    """Probabilities that areas lie beyond thresholds.

    frame  one row an area and threshold: area, threshold, estimate, se, probability, mcse (0 where it is exact)
    side   "above" or "below" the threshold
    notes  sentences that belong to the table
    """

    frame: pd.DataFrame
    side: Side
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The probabilities as text, at most 80 columns wide."""
        shown = self.frame if self.frame["mcse"].any() else self.frame.drop(columns="mcse")
        heading = f"Probability of an area {self.side} the threshold"
        return "\n".join([heading, "", *table(shown), *lines_of(self.notes)])

    def __repr__(self) -> str:
        return self.summary()


def exceedance(
    result: object, threshold: object, *, side: Side = "above", data: object = None
) -> Exceedance:
    """P(θ_i > c), or P(θ_i < c), for each area.

    result     an area-level fit or posterior, or what hl.aggregate or hl.benchmark made of one
    threshold  c, units of the estimates: a number; several numbers, each for all areas; or one for each area, as last
               year's values: a Series or mapping from area labels, or a column of `data` (or of the table of the
               result)

    Raises DesignError for thresholds that do not match the areas, FitError for estimates that do not exist.
    """
    if side not in get_args(Side):
        raise FitError(f"`side` is 'above' or 'below'; found {side!r}. Use one of these.")
    estimates = estimates_of(result)
    estimates.require(np.ones(len(estimates.areas), dtype=bool))
    parts = [_at(estimates, c, side) for c in _thresholds(threshold, estimates, data)]
    frame = pd.concat(parts, ignore_index=True)
    return Exceedance(frame=frame, side=side, notes=basis_notes(estimates, GAUSSIAN))


def _thresholds(given: object, estimates: AreaEstimates, data: object) -> list[Vector]:
    """One (M,) array of thresholds for each value asked for."""
    if isinstance(given, pd.Series | Mapping | str):
        return [numbers(given, "thresholds", estimates.keys, data)]
    several = isinstance(given, Iterable) and getattr(given, "ndim", 1) > 0
    each = list(given) if several else [given]  # type: ignore[call-overload]
    found = [float(c) for c in each if finite(c)]
    if not found or len(found) < len(each):
        raise FitError(
            "A threshold is a finite number, or several, or a Series by area; found "
            f"{listed(map(repr, each)) or 'none'}. Use for example 0.2."
        )
    return [np.full(len(estimates.areas), c) for c in found]


def _at(estimates: AreaEstimates, c: Vector, side: Side) -> pd.DataFrame:
    probability, mcse = beyond(estimates, c, 1.0 if side == "above" else -1.0)
    return pd.DataFrame(
        {
            "area": estimates.areas,
            "threshold": c,
            "estimate": estimates.estimate,
            "se": np.sqrt(estimates.mse),
            "probability": probability,
            "mcse": mcse,
        }
    )


def beyond(estimates: AreaEstimates, c: Vector, sign: float) -> tuple[Vector, Vector]:
    """P(sign (θ_i − c_i) > 0) and its Monte Carlo error, each (M,)."""
    if estimates.marginals is not None:
        return estimates.marginals.beyond(c, sign), np.zeros(c.size)
    over = (sign * (estimates.drawn - c) > 0).astype(np.float64)
    return over.reshape(-1, c.size).mean(axis=0), monte_carlo_error(over)
