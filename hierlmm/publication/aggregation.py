"""`aggregate`: larger areas as weighted sums or means of areas, with the covariance of all errors.

The error of Σ w_i θ̂_i has variance w'Σw, Σ the covariance matrix of the errors of all areas. Areas share the
estimated coefficients, so their errors are correlated, and adding variances up would give an error that is too small:
much too small for a whole country, where what is shared does not average out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.area.tables import ratio
from hierlmm.publication.estimates.covariance import Whole
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.marginals import monte_carlo_error, normal
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.keyed import Keys, group_name, groups, numbers, require_nonnegative
from hierlmm.publication.text import lines_of, table

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]
Of = Literal["mean", "total"]

# The one larger area where no groups are given.
ALL = "all areas"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Aggregates:
    """Estimates of larger areas, each a weighted sum or mean of areas.

    frame       area (the larger one), parts (areas of positive weight), weight (their sum), estimate, se, mse, lower,
                upper, cv, direct, direct_se (nan unless every part has a direct estimate); mcse for a posterior
    covariance  of the errors of the groups, labelled, units of the estimate squared
    of          "mean": Σ w θ / Σ w; "total": Σ w θ
    level       of the intervals
    estimates   the same in the form that hl.benchmark, hl.ranks, hl.exceedance and hl.publish take
    notes       sentences that belong to the table
    """

    frame: pd.DataFrame
    covariance: pd.DataFrame
    of: Of
    level: float
    estimates: AreaEstimates
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The larger areas as text, at most 80 columns wide."""
        heading = f"{self.of.capitalize()}s of larger areas; {self.estimates.source}"
        shown = self.frame.drop(columns=[c for c in ("mse", "mcse", "direct_se") if c in self.frame])
        return "\n".join([heading, "", *table(shown), *lines_of(self.notes)])

    def __repr__(self) -> str:
        return self.summary()


def aggregate(
    result: object, *, by: object = None, weights: object, of: Of = "mean", data: object = None, level: float = 0.95
) -> Aggregates:
    """Estimates of larger areas from those of their parts, areas without a direct estimate included.

    result   an area-level fit or posterior, or what hl.benchmark made of one
    by       the group of each area: a column of `data` (or of the table of the result) by name, or a Series or
             mapping from area labels to groups; None for one group of all areas
    weights  given likewise, or one number for all: population sizes or shares, 0 or more. An area of weight 0 takes
             no part
    of       "mean": Σ w θ / Σ w, so that sizes and shares come to the same; "total": Σ w θ
    data     a table with the areas in a column of the same name as in the result
    level    of the intervals: normal for a fit, equal-tailed quantiles for a posterior

    Everything is matched by label. Raises DesignError naming the areas for labels in the result or in a table only,
    for weights that are missing, negative, or add up to 0 in a group; FitError for a posterior without moments.
    """
    if of not in get_args(Of):
        raise FitError(f"`of` is 'mean' or 'total'; found {of!r}. Use one of these.")
    estimates = estimates_of(result)
    w = require_nonnegative(numbers(weights, "weights", estimates.keys, data), estimates.keys)
    codes, labels, name = grouped(by, estimates, data)
    W = weight_rows(w, codes, len(labels))
    totals = W.sum(axis=1)
    if (empty := totals == 0).any():
        raise DesignError(
            f"The weights of a group must not all be 0; they are in {listed(labels[empty])}. Leave the areas of these "
            "groups out of the result, or give them weights."
        )
    if of == "mean":
        W = W / totals[:, None]
    return _aggregates(estimates, W, totals, labels, name, of, level)


def grouped(by: object, estimates: AreaEstimates, data: object) -> tuple[Codes, pd.Index, str]:
    """Codes (M,), labels and name of the groups; one of all areas where `by` is None."""
    if by is None:
        return np.zeros(len(estimates.areas), dtype=np.intp), pd.Index([ALL]), "group"
    name = group_name(by, "group")
    return *groups(by, name, estimates.keys, data), name


def weight_rows(w: Vector, codes: Codes, count: int) -> Matrix:
    """(R, M) row r holds the weights of the areas of group r, 0 elsewhere."""
    W = np.zeros((count, len(w)))
    W[codes, np.arange(len(w))] = w
    return W


def _aggregates(
    estimates: AreaEstimates, W: Matrix, totals: Vector, labels: pd.Index, name: str, of: Of, level: float
) -> Aggregates:
    estimates.require(np.asarray((W > 0).any(axis=0)))
    sums = summed(estimates, W, Keys(name, labels))
    se = np.sqrt(sums.mse)
    lower, upper = sums.interval(level)
    frame = pd.DataFrame(
        {
            "area": labels,
            "parts": (W > 0).sum(axis=1),
            "weight": totals,
            "estimate": sums.estimate,
            "se": se,
            "mse": sums.mse,
            "lower": lower,
            "upper": upper,
            "cv": ratio(se, sums.estimate),
            "direct": sums.direct,
            "direct_se": np.sqrt(sums.direct_variance),
        }
    )
    if sums.half == "posterior":
        exact = sums.nodes is not None or sums.draws is None
        frame["mcse"] = np.zeros(len(W)) if exact else monte_carlo_error(sums.drawn)
    covariance = pd.DataFrame(sums.errors.dense(), labels, labels)
    return Aggregates(frame=frame, covariance=covariance, of=of, level=level, estimates=sums, notes=sums.notes)


def summed(estimates: AreaEstimates, W: Matrix, keys: Keys) -> AreaEstimates:
    """R weighted sums W (R, M) of estimates that exist wherever a weight is not 0, in the form of estimates."""
    estimate = W @ np.where(estimates.exists, estimates.estimate, 0.0)
    errors = Whole(estimates.errors.between(W))
    nodes = None if estimates.nodes is None else estimates.nodes.image(W)
    normal_before = estimates.marginals is not None and estimates.marginals.weight.size == 1
    direct, direct_covariance = direct_sums(estimates, W)
    return replace(
        estimates,
        keys=keys,
        estimate=estimate,
        errors=errors,
        gap=None if estimates.gap is None else Whole(estimates.gap.between(W)),
        exists=np.ones(len(W), dtype=bool),
        marginals=nodes.marginals() if nodes else normal(estimate, errors.diagonal()) if normal_before else None,
        nodes=nodes,
        bent=None,
        draws=None if estimates.draws is None else estimates.draws @ W.T,
        direct=direct,
        direct_covariance=Whole(direct_covariance),
        role=_roles(estimates.role, W),
        notes=_notes(estimates, keys.labels[np.isnan(direct)]),
    )


def _roles(role: NDArray[np.str_], W: Matrix) -> NDArray[np.str_]:
    """(R,) the role that all parts of a sum share, else sampled."""
    alike = {name: ~((W > 0) & (role != name)).any(axis=1) for name in ("unsampled", "direct")}
    return np.select(list(alike.values()), list(alike), "sampled")


def direct_sums(estimates: AreaEstimates, W: Matrix) -> tuple[Vector, Matrix]:
    """Weighted sums (R,) of the direct estimates, nan where a part has none, and their covariance matrix (R, R)."""
    missing = np.isnan(estimates.direct)
    known = np.where(missing, 0.0, estimates.direct)
    lacking = ((W > 0) & missing).any(axis=1)
    return np.where(lacking, np.nan, W @ known), estimates.direct_covariance.between(W)


def _notes(parts: AreaEstimates, lacking: pd.Index) -> tuple[str, ...]:
    if not len(lacking):
        return parts.notes
    return (f"No direct estimate beside, because a part has none: {listed(lacking)}.", *parts.notes)
