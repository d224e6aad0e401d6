"""What the plots of predicted means draw: area means or random effects, one row each, from both analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit

if TYPE_CHECKING:
    from hierlmm.bayes.arearesults import AreaPosterior
    from hierlmm.bayes.lmmresults import LMMPosterior

# Rows drawn in one picture before it is cut to those where the two analyses differ most.
LIMIT = 60


def predicted(comparison: Comparison) -> pd.DataFrame:
    """One row a predicted mean, in the order of `comparison.attribution`.

    group, term                        panel: the grouping factor and coefficient ("" for areas)
    name                               the area or level
    direct, sampling_variance, synthetic  areas only, otherwise missing
    estimate, lower, upper             of the fit
    posterior, posterior_lower, posterior_upper, sd
    in_sd                              (posterior - estimate) / sd; missing where sd is 0
    """
    fit, posterior = comparison.fit, comparison.posterior
    inputs = ["direct", "sampling_variance", "synthetic"]
    if isinstance(fit, AreaFit):
        ours, theirs = fit.model_scale, cast("AreaPosterior", posterior).model_scale
        frame = ours[inputs].assign(group="", term="", name=ours["area"])
    else:
        ours, theirs = fit.random_effects, cast("LMMPosterior", posterior).random_effects
        frame = ours[["group", "term"]].assign(name=ours["level"], **dict.fromkeys(inputs, np.nan))
    sd = theirs["se"].to_numpy()
    frame = frame.assign(
        estimate=ours["estimate"],
        lower=ours["lower"],
        upper=ours["upper"],
        posterior=theirs["estimate"].to_numpy(),
        posterior_lower=theirs["lower"].to_numpy(),
        posterior_upper=theirs["upper"].to_numpy(),
        sd=sd,
    )
    divisor = np.where(sd > 0, sd, np.nan)
    return frame.assign(in_sd=(frame["posterior"] - frame["estimate"]) / divisor)


def panels(comparison: Comparison) -> list[tuple[str, str]]:
    """(group, term) of each panel in order: one for areas, one a random coefficient for mixed models."""
    frame = predicted(comparison)[["group", "term"]].drop_duplicates()
    return [(str(group), str(term)) for group, term in frame.itertuples(index=False)]


def panel(comparison: Comparison, group: str, term: str, limit: int) -> pd.DataFrame:
    """Rows of one panel; where there are more than `limit`, those with the largest differences, in their order."""
    frame = predicted(comparison)
    frame = frame[(frame["group"] == group) & (frame["term"] == term)]
    return largest(frame, frame["in_sd"], limit)


def largest(frame: pd.DataFrame, size: pd.Series, limit: int) -> pd.DataFrame:
    """At most `limit` rows, those with the largest absolute `size`, in the order of `frame`."""
    if len(frame) <= limit:
        return frame
    rank = size.abs().fillna(-1.0).to_numpy().argsort(kind="stable")[::-1][:limit]
    return frame.iloc[np.sort(rank)]


def left_out(comparison: Comparison, group: str, term: str, limit: int) -> str:
    """A sentence for the caption where a picture does not show every row, or ""."""
    frame = predicted(comparison)
    total = int(((frame["group"] == group) & (frame["term"] == term)).sum())
    if total <= limit:
        return ""
    return f"{limit} of {total} are shown: those where the two analyses differ most, in posterior sds."
