"""Frames of an area-level result as tables to be shown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.spatial_results import SpatialAreaPosterior
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.report.area_plots import AreaResult
from hierlmm.report.numbers import MISSING, column, decimals, number
from hierlmm.report.tables import ROWS, Table

# What a reader should know about the estimate of an area, by its role.
STATUS = {"sampled": "", "direct": "sampling variance 0: direct estimate", "unsampled": "no direct estimate: synthetic"}
ABOVE = "error above the direct estimate's"


def coefficients(result: AreaResult) -> Table:
    """Coefficients with standard errors and 95 % intervals."""
    frame = result.fixed
    names = ("estimate", "se", "lower", "upper")
    cells = [
        (str(row["term"]), *(column([row[name]], decimals(row["se"]))[0] for name in names))
        for _, row in frame.iterrows()
    ]
    bayes = isinstance(result, AreaPosterior)
    columns = ("term", "mean" if bayes else "estimate", "sd" if bayes else "se", "lower", "upper")
    return Table(
        caption="Coefficients, with 95 % intervals.", groups=(), columns=columns, labels=1,
        rows=tuple(cells), total=len(frame),
    )  # fmt: skip


def variances(result: AreaResult) -> Table:
    """The variance between areas, and its root for a posterior, with 95 % intervals."""
    frame = result.A
    if isinstance(result, SpatialAreaFit | SpatialAreaPosterior):
        frame = pd.concat([frame, result.rho], ignore_index=True)
    names = {"A": "A, variance between areas", "tau": "√A", "rho": "ρ, of neighbours"}
    columns = ("estimate", "se", "lower", "upper")
    cells = [
        (names.get(str(row["term"]), str(row["term"])), *(number(row[name]) for name in columns))
        for _, row in frame.iterrows()
    ]
    bayes = isinstance(result, AreaPosterior)
    headings = ("", "mean" if bayes else "estimate", "sd" if bayes else "se", "lower", "upper")
    return Table(
        caption="Variance, with a 95 % interval.", groups=(), columns=headings, labels=1,
        rows=tuple(cells), total=len(frame),
    )  # fmt: skip


def areas(result: AreaResult) -> Table:
    """Every area before and after: estimates with errors, coefficients of variation, weight, and its status.

    Of more than 300 areas those with the largest sampling variances, and those without one.
    """
    frame = result.areas
    shown = frame
    if len(frame) > ROWS:
        order = frame["sampling_variance"].fillna(np.inf).sort_values(ascending=False, kind="stable").index[:ROWS]
        shown = frame.loc[frame.index.isin(order)]
    places = decimals(shown["se"])
    percent = [
        [f"{value}" if value == MISSING else f"{value} %" for value in column(100 * shown[name], 1)]
        for name in ("direct_cv", "cv")
    ]
    bayes = isinstance(result, AreaPosterior)
    cells = [
        [str(area) for area in shown["area"]],
        column(shown["direct"], places),
        column(np.sqrt(shown["sampling_variance"]), places),
        percent[0],
        *(column(shown[name], places) for name in ("estimate", "se", "lower", "upper")),
        percent[1],
        column(shown["gamma"], 3),
    ]
    words = [status(row) for _, row in shown.iterrows()]
    last = ("status",) if any(words) else ()
    cells += [words] if last else []
    return Table(
        caption="Area means before and after, with 95 % intervals.",
        groups=(("", 1), ("direct estimate", 3), ("posterior" if bayes else "model", 5), ("", 1 + len(last))),
        columns=(
            result.spec.random[0].factor, "estimate", "sd", "cv", "mean" if bayes else "EBLUP", "sd" if bayes else "se",
            "lower", "upper", "cv", "E[γ|y]" if bayes else "γ", *last,
        ),
        labels=1,
        rows=tuple(zip(*cells, strict=True)),
        total=len(frame),
        kept="those with the largest sampling variances or none",
        sentences=len(last),
    )  # fmt: skip


def status(row: pd.Series) -> str:
    """What the estimate of an area is where it is not the ordinary one, and whether the direct one is better."""
    words = [STATUS.get(str(row["role"]), str(row["role"]))]
    words += [ABOVE] if row["above_direct"] else []
    return "; ".join(word for word in words if word)
