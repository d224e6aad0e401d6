"""The result of benchmarking: estimates that add up to totals, what that moved, and the error afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from hierlmm.bayes.results import Draws
from hierlmm.errors import FitError
from hierlmm.publication.benchmark.totals import Constraints, Of
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.text import lines_of, table

if TYPE_CHECKING:
    import xarray as xr

Method = Literal["ratio", "difference", "raking", "optimal"]
ErrorMethod = Literal["linear", "bootstrap"]

WORDS: dict[str, str] = {
    "ratio": "one factor for each group",
    "difference": "one shift for each group",
    "raking": "one factor for each group of each margin",
    "optimal": "the smallest weighted squared change",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Benchmarked:
    """Estimates of areas that add up to totals.

    frame        one row an area, in the order and with the keys of the result: area, direct, before (the estimate
                 that was benchmarked), estimate, adjustment (estimate − before), se_before, se, mse, lower, upper, cv
    checks       one row a total: margin, group, weight (Σ w), target, target_se, before (Σ w θ̂), before_se, factor
                 (target / before), difference, z (difference in its standard errors, nan where these are not known),
                 after, left (after − target)
    method, of   as asked for
    mse_by       "linear": (I − QW) Σ (I − QW)' + Q T Q', or "bootstrap"
    level        of the intervals
    constraints  the totals as matrices
    estimates    the same in the form that hl.aggregate, hl.ranks, hl.exceedance and hl.publish take
    notes        sentences that belong to the table
    """

    frame: pd.DataFrame
    checks: pd.DataFrame
    method: Method
    of: Of
    mse_by: ErrorMethod
    level: float
    constraints: Constraints
    estimates: AreaEstimates
    notes: tuple[str, ...]

    @property
    def draws(self) -> xr.DataTree:
        """The draws of a posterior, each benchmarked; variable theta. Raises FitError for a fit, which has none."""
        draws = self.estimates.draws
        if draws is None:
            raise FitError(
                "Only a posterior computed with draws has benchmarked draws; this is "
                f"{'a fit' if self.estimates.half == 'fit' else 'one without'}. Benchmark hl.posterior(spec, data)."
            )
        return Draws({"theta": (("area",), draws)}, {"area": tuple(self.estimates.areas)}).tree()

    @property
    def covariance(self) -> pd.DataFrame:
        """(M, M) covariance matrix of the errors after benchmarking, labelled; its correlations by linearisation."""
        areas = self.estimates.areas
        return pd.DataFrame(self.estimates.errors.dense(), areas, areas)

    def summary(self) -> str:
        """What was benchmarked to what, as text of at most 80 columns: the totals first, then the areas."""
        margin = ["margin"] if len(self.constraints.margins) > 1 else []
        return "\n".join(
            [
                f"Benchmarked by {self.method}: {WORDS[self.method]}",
                f"{self.of.capitalize()}s known {self._known()}; {self.estimates.source}",
                "",
                *table(self.checks[[*margin, "group", "target", "before", "before_se", "factor", "difference", "z"]]),
                "",
                *table(self.frame[["area", "direct", "before", "estimate", "adjustment", "se_before", "se"]]),
                *lines_of(self.notes),
            ]
        )

    def _known(self) -> str:
        return {"internal": "from the sample itself"}.get(self.constraints.known, self.constraints.known)

    def __repr__(self) -> str:
        return self.summary()
