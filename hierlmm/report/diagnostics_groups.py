"""Grouped data and what a mixed model makes of them: lines of groups, fitted lines, boxes by group."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, TEXT, plain
from hierlmm.report.diagnostics_boxes import draw_boxes
from hierlmm.report.diagnostics_table import rows_of

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Groups in one picture of boxes; more are left out in the middle of their order, and the title says so.
BOXES = 60


def plot_spaghetti(fit: LMMFit, x: str, *, ax: Axes, group: str = "") -> Axes:
    """Draw the response of each level of `group` (default: the first factor) along the column `x`, one line a level.

    Rows of a level at the same x are joined at their mean. The thick line is the mean over all rows at each x, drawn
    where x has few values. Returns `ax`.
    """
    along, y = _numbers(fit, x), fit.design.y
    codes, levels, name = _group(fit, group)
    thin = 0.9 if len(levels) <= 40 else 0.5
    for g in range(len(levels)):
        places, means = _means_at(along[codes == g], y[codes == g])
        ax.plot(places, means, color=FIT, linewidth=thin, alpha=0.45, marker="o", markersize=2, markeredgewidth=0)
    handles = [
        Line2D([], [], color=FIT, linewidth=thin, marker="o", markersize=2, label=plain(f"{name} ({len(levels)})"))
    ]
    places, means = _means_at(along, y)
    if len(places) <= len(along) / 3:
        ax.plot(places, means, color=TEXT, linewidth=2.2)
        handles.append(Line2D([], [], color=TEXT, linewidth=2.2, label="mean of the rows"))
    _dress(ax, fit, x, handles)
    return ax


def plot_fitted_lines(fit: LMMFit, x: str, *, ax: Axes, group: str = "") -> Axes:
    """Draw the rows, each level's fitted line, and the line of the fixed effects alone, along the column `x`.

    Along a line only the columns change that are made of `x`: other predictors stand at their means, and the effects
    of other grouping factors at zero. With a random intercept the lines are parallel, with a random slope they are
    not. Returns `ax`.
    """
    along, y = _numbers(fit, x), fit.design.y
    codes, levels, name = _group(fit, group)
    marginal = fit.design.offset.mean() + _along(fit.design.X, fit.design.fixed, x) @ fit.beta
    conditional = marginal.copy()
    for factor, b in zip(fit.design.factors, fit.b, strict=True):
        if factor.name == name:
            conditional += (_along(factor.Z, factor.coefficients, x) * b[codes]).sum(axis=1)
    ax.plot(along, y, "o", color=GUIDE, markersize=2.4, linestyle="none", markeredgewidth=0, zorder=1)
    thin = 0.9 if len(levels) <= 40 else 0.5
    for g in range(len(levels)):
        ax.plot(*_means_at(along[codes == g], conditional[codes == g]), color=FIT, linewidth=thin, alpha=0.6, zorder=2)
    ax.plot(*_means_at(along, marginal), color=POSTERIOR, linewidth=2.4, zorder=3)
    handles = [
        Line2D([], [], color=GUIDE, marker="o", markersize=3, linestyle="none", label="data"),
        Line2D([], [], color=FIT, linewidth=thin, label=plain(f"fixed + random, by {name}", AXIS)),
        Line2D([], [], color=POSTERIOR, linewidth=2.4, label="fixed effects"),
    ]
    _dress(ax, fit, x, handles)
    return ax


def plot_group_boxes(fit: LMMFit, *, ax: Axes, group: str = "") -> Axes:
    """Draw a box of the response for each level of `group` (default: the first factor), sorted by the median.

    The dashed line is the median of all rows. Of more than 60 levels the 30 lowest and the 30 highest are shown.
    Returns `ax`.
    """
    codes, levels, name = _group(fit, group)
    y = fit.design.y
    parts = [y[codes == g] for g in range(len(levels))]
    order = np.argsort([float(np.median(part)) for part in parts], kind="stable")
    if len(order) > BOXES:
        order = np.concatenate([order[: BOXES // 2], order[-BOXES // 2 :]])
        ax.set_title(f"{BOXES} of {len(levels)} levels: the lowest and the highest", fontsize="small")
        ax.axvline(BOXES / 2 - 0.5, color=GUIDE, linewidth=1)
    ax.axhline(float(np.median(y)), color=GUIDE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    draw_boxes(ax, [parts[g] for g in order], [plain(levels[g]) for g in order])
    ax.set_xlabel(plain(f"{name}, sorted by median", AXIS))
    ax.set_ylabel(plain(fit.spec.response, AXIS))
    return ax


def _group(fit: LMMFit, group: str) -> tuple[Codes, pd.Index, str]:
    """Codes, labels and name of a grouping factor of the model or of its residuals."""
    known = {factor.name: (factor.codes, factor.levels) for factor in fit.design.factors}
    residual = fit.design.residual
    if residual is not None and residual.group:
        known.setdefault(residual.group, (residual.codes, residual.levels))
    name = group or next(iter(known), "")
    if name not in known:
        raise DesignError(
            f"`group` must be what the rows are grouped by; found {group!r}, one of {listed(known) or 'none'}."
        )
    return *known[name], name


def _numbers(fit: LMMFit, column: str) -> Array:
    """A column as numbers; the codes of its categories have no distance and are refused."""
    values = rows_of(fit, column)
    if not pd.api.types.is_numeric_dtype(values):
        raise DesignError(
            f"Lines are drawn along a numeric column; {column} holds {values.dtype}. Use plot_group_boxes, or number "
            "its categories."
        )
    return values.to_numpy(dtype=np.float64)


def _along(columns: Array, names: tuple[str, ...], x: str) -> Array:
    """Columns (n, k) with those that are not made of `x`, by their names, at their means."""
    word = re.compile(rf"(?<![\w.]){re.escape(x)}(?![\w.])")
    moves = np.array([word.search(name) is not None for name in names], dtype=bool)
    return np.where(moves, columns, columns.mean(axis=0))


def _means_at(x: Array, y: Array) -> tuple[Array, Array]:
    """Different values of x, ascending, and the mean of y at each."""
    places, at = np.unique(x, return_inverse=True)
    return places, np.bincount(at, y) / np.bincount(at)


def _dress(ax: Axes, fit: LMMFit, x: str, handles: list[Line2D]) -> None:
    ax.set_xlabel(plain(x, AXIS))
    ax.set_ylabel(plain(fit.spec.response, AXIS))
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(handles), frameon=False,
        fontsize="small", borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip
