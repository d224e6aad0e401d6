"""`publish`: each estimate held against rules of publication, before and after the model.

Precision is not secrecy: suppressing an imprecise estimate is no protection of the people in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.tables import quantile, ratio
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.keyed import numbers
from hierlmm.publication.rules import CAUTION, PUBLISH, STATUSES, SUPPRESS, PublicationRules, Rules, judge
from hierlmm.publication.text import lines_of, table

Vector = NDArray[np.float64]

DEFAULT = PublicationRules()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Publication:
    """Estimates with what the rules say of them.

    frame   one row an area, in the order and with the keys of the result: area, direct, direct_cv, direct_status,
            direct_reasons, estimate, se, cv, lower, upper, width, relative_width, effective_size, degrees_of_freedom
            (nan where not given), role, status, reasons
    counts  status, direct (how many areas by their direct estimates alone), model
    rules   what was applied; level of the intervals
    notes   sentences that belong to the table
    """

    frame: pd.DataFrame
    counts: pd.DataFrame
    rules: Rules
    level: float
    notes: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """What may go out: area, estimate, se, cv, lower, upper, status; no numbers where it is "suppress"."""
        columns = ["estimate", "se", "cv", "lower", "upper"]
        out = self.frame[["area", *columns, "status"]].copy()
        out[columns] = out[columns].where(out["status"] != SUPPRESS)
        return out

    def summary(self) -> str:
        """Counts before and after the model, then the areas that are not simply published."""
        held = self.frame.loc[self.frame["status"] != PUBLISH, ["area", "estimate", "cv", "status", "reasons"]]
        held = held.assign(status=held["status"].replace(CAUTION, "caution"))
        lines = ["Rules of publication: areas by status", "", *table(self.counts)]
        lines += ["", *table(held)] if len(held) else ["", "Every area may be published."]
        return "\n".join([*lines, *lines_of(self.notes)])

    def __repr__(self) -> str:
        return self.summary()


def publish(
    result: object,
    rules: Rules = DEFAULT,
    *,
    effective_size: object = None,
    degrees_of_freedom: object = None,
    data: object = None,
    level: float = 0.95,
) -> Publication:
    """Hold the estimates of areas, and the direct estimates beside them, against rules of publication.

    result   an area-level fit or posterior, or what hl.aggregate or hl.benchmark made of one
    rules    hl.PublicationRules(...), or a function of a frame with the columns area, estimate, se, cv, lower, upper,
             width, relative_width, effective_size, degrees_of_freedom and role, that returns a status for each row. It
             is called twice: for the estimates, and for the direct estimates, nan where an area has none. Where there
             is no estimate the status is "suppress" in any case
    effective_size, degrees_of_freedom  of the direct estimates, where rules ask for them: a column of `data` (or of the
             table of the result), or a Series or mapping from area labels; 0 for areas without a sample
    level    of the intervals: of the estimates as in the result, of the direct estimates normal

    Raises DesignError for labels that do not match and for proportions outside 0 and 1, FitError for rules that are
    none, that lack what they ask for, or that return something else than statuses.
    """
    if not callable(rules):
        raise FitError(
            f"`rules` are hl.PublicationRules(...) or a function of a frame; found {type(rules).__name__}. Use one."
        )
    estimates = estimates_of(result)
    given = {"effective_size": effective_size, "degrees_of_freedom": degrees_of_freedom}
    if isinstance(rules, PublicationRules):
        for name, value in given.items():
            if getattr(rules, name) is not None and value is None:
                raise FitError(f"The rules ask for `{name}` and none was given: publish(..., {name}=column or Series).")
    size, df = (
        np.full(len(estimates.areas), np.nan) if value is None else numbers(value, name, estimates.keys, data)
        for name, value in given.items()
    )
    model = _measured(estimates, estimates.estimate, estimates.mse, *estimates.interval(level), size, df)
    variance = _known_variance(estimates)
    reach = quantile(level) * np.sqrt(variance)
    low, high = estimates.direct - reach, estimates.direct + reach
    direct = _measured(estimates, estimates.direct, variance, low, high, size, df)
    after, before = judge(rules, model), judge(rules, direct)
    frame = pd.DataFrame(
        {
            "area": estimates.areas,
            "direct": direct["estimate"],
            "direct_cv": direct["cv"],
            "direct_status": before["status"],
            "direct_reasons": before["reasons"],
            **{name: model[name] for name in model.columns[1:]},
            "status": after["status"],
            "reasons": after["reasons"],
        }
    )
    counts = pd.DataFrame(
        {
            "status": list(STATUSES),
            "direct": [int((before["status"] == status).sum()) for status in STATUSES],
            "model": [int((after["status"] == status).sum()) for status in STATUSES],
        }
    )
    return Publication(frame=frame, counts=counts, rules=rules, level=level, notes=estimates.notes)


def _known_variance(estimates: AreaEstimates) -> Vector:
    """(M,) variances of the direct estimates; nan where one of 0 is an estimate, as of a share of 0 or 1."""
    variance = estimates.direct_variance
    return np.where((variance == 0) & (estimates.role == "sampled"), np.nan, variance)


def _measured(
    estimates: AreaEstimates, estimate: Vector, mse: Vector, lower: Vector, upper: Vector, size: Vector, df: Vector
) -> pd.DataFrame:
    """The frame that rules are given."""
    return pd.DataFrame(
        {
            "area": estimates.areas,
            "estimate": estimate,
            "se": np.sqrt(mse),
            "cv": ratio(np.sqrt(mse), estimate),
            "lower": lower,
            "upper": upper,
            "width": upper - lower,
            "relative_width": ratio(upper - lower, estimate),
            "effective_size": size,
            "degrees_of_freedom": df,
            "role": estimates.role,
        }
    )
