"""What single rows and groups do to the fixed effects, random effects sorted, and the price of ignoring groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from hierlmm.frequentist.diagnostics.envelope import place_of
from hierlmm.frequentist.diagnostics.influence import ROW, Influence
from hierlmm.frequentist.diagnostics.type1 import TypeOneError, exact_rate
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, STEPS, TEXT, plain
from hierlmm.report.diagnostics_boxes import name_ticks

# Units named in an influence plot, and levels in a caterpillar.
NAMED, LEVELS = 5, 60
# Units up to which each has a label of its own on the axis.
LABELLED = 25
# Places at which the exact rate is drawn.
CURVE = 101
MARKERS = "osD^v<>P"


def plot_influence(influence: Influence, *, ax: Axes) -> Axes:
    """Draw Cook's distance of every row or group; those that move a fixed effect by more than `threshold` stand out.

    The largest are named with what they move, in standard errors. Returns `ax`.
    """
    cook, moved = influence.deletion.cook, influence.moved
    place = np.arange(len(cook))
    known = np.isfinite(cook)
    named = known & (moved > influence.threshold)
    ax.vlines(place[known], 0, cook[known], color=GUIDE, linewidth=0.9 if len(cook) <= 200 else 0.4, zorder=1)
    for part, color, marker in ((known & ~named, FIT, "o"), (named, POSTERIOR, "D")):
        ax.plot(place[part], cook[part], marker, color=color, markersize=3.4, linestyle="none", zorder=2)
    order = np.argsort(-np.nan_to_num(cook), kind="stable")[:NAMED]
    for k in order if len(cook) > LABELLED else ():
        side = -1 if place[k] > 0.85 * len(cook) else 1
        ax.annotate(
            plain(influence.units[k]), (float(place[k]), float(cook[k])), (4 * side, 2), textcoords="offset points",
            ha="right" if side < 0 else "left", fontsize=7.5, color=TEXT,
        )  # fmt: skip
    what = "row" if influence.by == ROW else influence.by
    if len(cook) <= LABELLED:
        name_ticks(ax, [plain(unit) for unit in influence.units], "x")
    ax.set_ylim(0, 1.12 * float(np.nan_to_num(cook).max(initial=1e-300)))
    ax.set_xlabel(plain(f"{what} left out" + ("" if len(cook) <= LABELLED else ", by position"), AXIS))
    ax.set_ylabel("Cook's distance")
    count = int(named.sum())
    ax.set_title(
        f"{count} of {len(cook)} move a fixed effect by more than {influence.threshold:.2f} se", fontsize="small"
    )
    return ax


def plot_effects(fit: LMMFit, *, ax: Axes, group: str = "", term: str = "Intercept") -> Axes:
    """Draw the predicted random effects `term` of `group` (default: the first factor), sorted, with 95 % intervals.

    The intervals are those of the prediction error, the uncertainty of the fixed effects included. Of more than 60
    levels the 30 lowest and the 30 highest are shown. Returns `ax`. Raises DesignError for an unknown group or term.
    """
    f, _ = place_of(fit, group, term)
    name = fit.design.factors[f].name
    every = fit.random_effects
    frame = every.loc[(every["group"] == name) & (every["term"] == term)].sort_values("estimate", kind="stable")
    total = len(frame)
    if total > LEVELS:
        frame = pd.concat([frame.head(LEVELS // 2), frame.tail(LEVELS // 2)])
        ax.set_title(f"{LEVELS} of {total} levels: the lowest and the highest", fontsize="small")
        ax.axhline(LEVELS / 2 - 0.5, color=GUIDE, linewidth=1)
    row = np.arange(len(frame))
    ax.axvline(0, color=GUIDE, linewidth=1, zorder=0)
    ax.hlines(row, frame["lower"], frame["upper"], color=FIT, linewidth=1.1, alpha=0.8)
    ax.plot(frame["estimate"], row, "o", color=FIT, markersize=3.6, linestyle="none")
    name_ticks(ax, [plain(level) for level in frame["level"]], "y")
    ax.set_ylim(-0.6, len(row) - 0.4)
    ax.set_xlabel(plain(f"{term}, random effect and 95 % interval", AXIS))
    ax.set_ylabel(plain(name))
    return ax


def plot_type1(result: TypeOneError, *, ax: Axes) -> Axes:
    """Draw the type I error of a t test that ignores groups against the intraclass correlation, by group size.

    Points are simulated with 95 % Monte Carlo intervals, lines exact; the dashed line is the nominal level. Returns
    `ax`.
    """
    frame, colors = result.frame, [FIT, POSTERIOR, *STEPS.values()]
    ax.axhline(result.level, color=TEXT, linewidth=1, linestyle=(0, (4, 3)))
    sizes = sorted(frame["group_size"].unique().tolist())
    for k, size in enumerate(sizes):
        part = frame[frame["group_size"] == size].sort_values("icc")
        color = colors[k % len(colors)]
        icc = np.linspace(float(part["icc"].min()), float(part["icc"].max()), CURVE)
        exact = [exact_rate(rho, int(size), int(part["groups"].iloc[0]), result.level) for rho in icc]
        ax.plot(icc, exact, color=color, linewidth=1.2)
        ax.errorbar(
            part["icc"], part["estimate"], 1.96 * part["se"], fmt=MARKERS[k % len(MARKERS)], color=color, markersize=4,
            linewidth=1, label=f"{size:g}",
        )  # fmt: skip
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("intraclass correlation")
    ax.set_ylabel("rejections of a true hypothesis")
    groups = int(frame["groups"].iloc[0])
    ax.set_title(f"t test at {100 * result.level:g} % that ignores {groups} groups per arm", fontsize="small")
    ax.legend(title="rows per group", loc="upper left", frameon=False, fontsize="small", title_fontsize="small")
    return ax
