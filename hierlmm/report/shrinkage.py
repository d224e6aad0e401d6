"""Shrinkage and caterpillar plots: what each analysis makes of every area or level."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hierlmm.compare.results import Comparison
from hierlmm.report.appearance import (
    DIRECT,
    DIRECT_MARKER,
    FIT,
    FIT_MARKER,
    GUIDE,
    POSTERIOR,
    POSTERIOR_MARKER,
    plain,
)
from hierlmm.report.predicted import LIMIT, panel

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Distance of the two intervals of one row from its middle, in rows.
APART = 0.17


def plot_shrinkage(comparison: Comparison, *, ax: Axes, group: str = "", term: str = "", limit: int = LIMIT) -> Axes:
    """Draw each area's direct estimate, its EBLUP, its posterior mean and both 95 % intervals.

    Areas run from the most to the least precise direct estimate, so that the pull grows downwards; the small bar is
    the regression estimate they are pulled to. For a mixed model `group` and `term` name the random coefficient, and
    the picture shows fixed + random coefficients with the fixed effect they are pulled to as a line. Returns `ax`.
    """
    frame = panel(comparison, group, term, limit)
    if group:
        frame = _with_fixed(comparison, frame, group, term)
    else:
        frame = frame.sort_values("sampling_variance", kind="stable")
    row = np.arange(len(frame), dtype=np.float64)
    if group:
        fixed = float(frame["synthetic"].iloc[0])
        ax.axvline(fixed, color=DIRECT, linewidth=1, linestyle=(0, (4, 3)), label="fixed effect", zorder=0)
    else:
        ax.hlines(row, *_ends(frame, "direct", "estimate"), color=GUIDE, linewidth=2.6, zorder=1)
        ax.plot(frame["synthetic"], row, "|", color=DIRECT, markersize=7, label="regression", zorder=2)
        ax.plot(
            frame["direct"], row, DIRECT_MARKER, markerfacecolor="white", markeredgecolor=DIRECT, markersize=5,
            label="direct", zorder=3,
        )  # fmt: skip
    _both(ax, frame, row)
    _rows(ax, frame, row)
    ax.set_xlabel(plain(term) + ", fixed + random" if group else "estimate")
    ax.set_ylabel(plain(group) if group else plain(comparison.spec.random[0].factor) + ", most precise first")
    return ax


def plot_caterpillar(comparison: Comparison, *, ax: Axes, group: str = "", term: str = "", limit: int = LIMIT) -> Axes:
    """Draw both estimates of every area mean, or of the random effects `term` of `group`, sorted, with 95 % intervals.

    The fit's interval stands above the posterior's in each row. Returns `ax`.
    """
    frame = panel(comparison, group, term, limit).sort_values("estimate", ascending=False, kind="stable")
    row = np.arange(len(frame), dtype=np.float64)
    if group:
        ax.axvline(0, color=GUIDE, linewidth=1, zorder=0)
    _both(ax, frame, row)
    _rows(ax, frame, row)
    ax.set_xlabel(plain(term) + ", random effect" if group else "estimate")
    ax.set_ylabel(plain(group or comparison.spec.random[0].factor))
    return ax


def _with_fixed(comparison: Comparison, frame: pd.DataFrame, group: str, term: str) -> pd.DataFrame:
    """The rows with fixed + random coefficients in place of the random effects, and the fixed effect as synthetic."""
    table = comparison.table
    rows = table[(table["part"] == "group coefficient") & (table["group"] == group) & (table["term"] == term)]
    rows = rows.set_index("level").loc[list(frame["name"])]
    ours = cast("LMMFit", comparison.fit).group_coefficients
    ours = ours[(ours["group"] == group) & (ours["term"] == term)].set_index("level").loc[list(frame["name"])]
    fixed = comparison.fit.fixed.set_index("term")["estimate"]
    return frame.assign(
        synthetic=float(fixed.get(term, 0.0)),
        estimate=rows["estimate"].to_numpy(),
        lower=ours["lower"].to_numpy(),
        upper=ours["upper"].to_numpy(),
        posterior=rows["posterior"].to_numpy(),
        posterior_lower=rows["lower"].to_numpy(),
        posterior_upper=rows["upper"].to_numpy(),
    ).sort_values("estimate", ascending=False, kind="stable")


def _both(ax: Axes, frame: pd.DataFrame, row: NDArray[np.float64]) -> None:
    """Both points and intervals of every row."""
    for names, place, color, marker, label in (
        (("estimate", "lower", "upper"), row - APART, FIT, FIT_MARKER, "fit"),
        (("posterior", "posterior_lower", "posterior_upper"), row + APART, POSTERIOR, POSTERIOR_MARKER, "posterior"),
    ):
        middle, lower, upper = (frame[name].to_numpy() for name in names)
        ax.hlines(place, lower, upper, color=color, linewidth=1.1, alpha=0.8, zorder=4, label=f"{label}, 95 %")
        ax.plot(middle, place, marker, color=color, markersize=3.6, linestyle="none", label=label, zorder=5)


def _ends(frame: pd.DataFrame, one: str, two: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return frame[one].to_numpy(), frame[two].to_numpy()


def _rows(ax: Axes, frame: pd.DataFrame, row: NDArray[np.float64]) -> None:
    """Names down the side, the first on top, and a legend above."""
    ax.set_yticks(row, [plain(name) for name in frame["name"]])
    ax.set_ylim(len(row) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.7)
    ax.margins(x=0.02)
    handles, labels = ax.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    kept = [label for label in ("direct", "regression", "fixed effect", "fit", "posterior") if label in shown]
    ax.legend(
        [shown[label] for label in kept], kept, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(kept),
        borderaxespad=0.2, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
