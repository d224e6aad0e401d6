"""Direct estimates and area-level covariates brought together by the labels of the areas: `join_areas`."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.survey.direct_results import DirectEstimates
from hierlmm.survey.plan import chosen
from hierlmm.survey.population import check_at_least
from hierlmm.survey.smoothing_results import SmoothedVariances
from hierlmm.survey.tables import area_labels, matched, numbers, whole_table

Codes = NDArray[np.intp]

Unsampled = Literal["error", "synthetic", "drop"]
Uncovered = Literal["error", "drop"]
Order = Literal["covariates", "direct"]

DIRECT = "the direct estimates"
COVARIATES = "the covariates"
# What `DirectEstimates` brings to the joined table.
COLUMNS = (
    "estimate", "se", "variance", "lower", "upper", "n", "df", "effective_size", "design_effect", "role",
)  # fmt: skip


def join_areas(
    direct: object,
    covariates: object,
    *,
    area: str,
    covariate_area: str | None = None,
    unsampled: Unsampled = "error",
    uncovered: Uncovered = "error",
    order: Order = "covariates",
    size: str = "n",
    population: str | None = None,
) -> pd.DataFrame:
    """One row an area with its direct estimate and its covariates, joined where the labels are equal.

    direct          `DirectEstimates`, `SmoothedVariances`, or a table with the column `area`
    covariates      table with one row an area
    area            name of the column of labels, in the result too; covariate_area its name in `covariates`, the same
                    by default
    unsampled       areas with covariates and no row in `direct`: "error"; "synthetic", a row with nothing but
                    covariates, as fay_herriot(..., unsampled="synthetic") takes them; "drop"
    uncovered       areas with a direct estimate and no row in `covariates`: "error", or "drop"
    order           whose rows and whose type of labels the result has. In the order of `direct` unsampled areas follow
    size, population  columns of the sample size in `direct` and of the number of units in `covariates`, which are
                    compared where `population` is given

    Nothing is matched by position, and nothing by likeness. Areas that were dropped or kept without an estimate are
    listed in `.attrs["joined"]` of the result. Raises DesignError for labels that stand twice or are missing, for those
    that differ from one in the other table by type, blanks or Unicode form alone, for areas without a partner, for
    columns that both tables have, and for populations smaller than the sample, naming them.
    """
    for name, value, kinds in (
        ("unsampled", unsampled, Unsampled),
        ("uncovered", uncovered, Uncovered),
        ("order", order, Order),
    ):
        chosen(name, value, kinds)
    ours, theirs = direct_table(direct, area), whole_table(covariates)
    other = area if covariate_area is None else covariate_area
    a, b = area_labels(ours, area, DIRECT), area_labels(theirs, other, COVARIATES)
    at = matched(a, b, DIRECT, COVARIATES)
    alone, unmet = at < 0, ~np.isin(np.arange(len(b)), at)
    _check_partners(a[alone], b[unmet], unsampled, uncovered)
    if alone.all():
        raise DesignError(
            f"There must be areas in both tables; of {len(a)} ({listed(a)}) none is among the {len(b)} of {COVARIATES} "
            f"({listed(b)}). Check that both name their areas in the same way."
        )
    _check_columns(ours, theirs, area, other)
    if population is not None:
        _check_sizes(ours, theirs, a, at, size, population)
    left, right = _rows(at, unmet, unsampled, order)
    if order == "covariates":
        key = theirs[other].iloc[right].reset_index(drop=True)
    else:
        key = pd.Series(b[right]) if (left < 0).any() else ours[area].iloc[left].reset_index(drop=True)
    columns = {area: key}
    columns |= {name: _taken(ours[name], left) for name in ours.columns if name != area}
    columns |= {name: theirs[name].iloc[right].reset_index(drop=True) for name in theirs.columns if name != other}
    joined = pd.DataFrame(columns)
    joined.attrs["joined"] = {
        "direct": _source(direct),
        "areas": len(joined),
        "without_estimate": tuple(b[right[left < 0]].tolist()),
        "dropped_from_direct": tuple(a[alone].tolist()),
        "dropped_from_covariates": tuple(b[unmet].tolist()) if unsampled == "drop" else (),
    }
    return joined


def direct_table(direct: object, area: str) -> pd.DataFrame:
    """The table of direct estimates with its labels in the column `area`."""
    if isinstance(direct, DirectEstimates):
        return direct.areas[["area", *COLUMNS]].rename(columns={"area": area})
    if isinstance(direct, SmoothedVariances):
        return direct.areas.drop(columns="ratio").rename(columns={"area": area})
    return whole_table(direct)


def _source(direct: object) -> str:
    if isinstance(direct, DirectEstimates):
        return f"{direct.plan.quantity} of {direct.plan.variable}"
    return "smoothed variances" if isinstance(direct, SmoothedVariances) else "a table"


def _check_partners(alone: pd.Index, unmet: pd.Index, unsampled: Unsampled, uncovered: Uncovered) -> None:
    if len(alone) and uncovered == "error":
        raise DesignError(
            f"Each area with a direct estimate must have covariates; {listed(alone)} is not among them. Add its row, "
            'or use uncovered="drop" to leave the area out.'
        )
    if len(unmet) and unsampled == "error":
        raise DesignError(
            f"Each area with covariates must have a direct estimate, unless it is said what it is; {listed(unmet)} has "
            'none. Use unsampled="synthetic" to predict it from its covariates, or "drop" to leave it out.'
        )


def _check_columns(ours: pd.DataFrame, theirs: pd.DataFrame, area: str, other: str) -> None:
    for table, where in ((ours, DIRECT), (theirs, COVARIATES)):
        if twice := list(dict.fromkeys(table.columns[table.columns.duplicated()])):
            raise DesignError(f"A column has a name of its own; {listed(twice)} stands twice in {where}. Rename it.")
    left = {name for name in ours.columns if name != area} | {area}
    right = {name for name in theirs.columns if name != other}
    if both := [name for name in theirs.columns if name in left & right]:
        raise DesignError(
            f"A column of the joined table comes from one table; both have {listed(both)}. Rename it in {COVARIATES}."
        )


def _check_sizes(
    ours: pd.DataFrame, theirs: pd.DataFrame, labels: pd.Index, at: Codes, size: str, population: str
) -> None:
    N = numbers(theirs, population, "Population sizes")[at]
    n = numbers(ours, size, "Sample sizes")
    known = (at >= 0) & np.isfinite(n) & ~np.isnan(N)
    check_at_least(N[known], n[known].astype(np.intp), labels[known])


def _rows(at: Codes, unmet: NDArray[np.bool_], unsampled: Unsampled, order: Order) -> tuple[Codes, Codes]:
    """Rows of the two tables that make up each row of the result; -1 where there is no direct estimate."""
    partner = np.full(len(unmet), -1, dtype=np.intp)
    partner[at[at >= 0]] = np.flatnonzero(at >= 0)
    alone = np.flatnonzero(unmet) if unsampled == "synthetic" else np.arange(0)
    right = np.concatenate([at[at >= 0], alone])
    right = np.sort(right) if order == "covariates" else right
    return partner[right], right


def _taken(column: pd.Series, rows: Codes) -> pd.Series:
    """The column at the rows, missing at -1."""
    if (rows >= 0).all():
        return column.iloc[rows].reset_index(drop=True)
    return column.reset_index(drop=True).reindex(np.where(rows < 0, len(column), rows)).reset_index(drop=True)
