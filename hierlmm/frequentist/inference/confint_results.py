"""Confidence intervals as a value, and what makes them exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.confint_text import table

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

IntervalMethod = Literal["profile", "wald", "bootstrap"]
COLUMNS = ("group", "term", "term2", "quantity", "estimate", "lower", "upper", "by")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Intervals:
    """Confidence intervals of the parameters of one fit.

    frame   group, term, term2, quantity (effect, sd, correlation, range, nugget), estimate, lower, upper, by; `by`
            says what the limits of the row rest on: "ML profile", "REML profile", "normal", "log", "atanh",
            "percentile bootstrap" ...
    notes   sentences that belong to the table
    """

    method: IntervalMethod
    level: float
    frame: pd.DataFrame
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The intervals as text, at most 80 columns wide."""
        return table(self)

    def __repr__(self) -> str:
        return self.summary()


def require_optimum(fit: LMMFit, what: str) -> None:
    """Refuse what rests on the curvature or height of a criterion that has no certified optimum."""
    from hierlmm.frequentist.lmm_results import LMMOutcome

    if fit.at is None or fit.outcome is LMMOutcome.NOT_CERTIFIED:
        raise FitError(
            f"{what} needs an optimum of the criterion; this fit has none: {fit.outcome.value} Fit a model that the "
            "data can support."
        )


def quantile(level: float) -> float:
    """The two-sided normal quantile of a level."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + 0.5 * level))
