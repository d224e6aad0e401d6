"""The difference between the two analyses, step by step."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hierlmm.compare.results import Comparison
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, POSTERIOR_MARKER, STEP_NAMES, STEPS, TEXT, plain
from hierlmm.report.numbers import number
from hierlmm.report.predicted import LIMIT, largest, predicted


def chosen(comparison: Comparison) -> int:
    """Position in `comparison.attribution` of the largest difference in posterior sds; 0 where there is none."""
    distance = predicted(comparison)["in_sd"].abs().fillna(-1.0).to_numpy()
    return int(distance.argmax()) if distance.size else 0


def name(comparison: Comparison, row: int) -> str:
    """The predicted mean at a position of `comparison.attribution`: "area 12", "Subject 308, Days"."""
    where = predicted(comparison).iloc[row]
    if where["group"]:
        return f"{where['group']} {where['name']}, {where['term']}"
    return f"{comparison.spec.random[0].factor} {where['name']}"


def plot_waterfall(comparison: Comparison, *, ax: Axes, row: int | None = None) -> Axes:
    """Draw the way from the fit's estimate of one predicted mean to the posterior's, one bar a step.

    `row` is a position in `comparison.attribution`; by default that of the largest difference in posterior sds.
    Steps that add nothing are drawn as a line, so that it is seen that they add nothing. Returns `ax`.
    """
    position = chosen(comparison) if row is None else row
    steps = comparison.attribution.iloc[position]
    sizes = np.array([steps[step] for step in STEPS], dtype=np.float64)
    heights = [float(place) for place in range(1, len(sizes) + 1)]
    before = float(steps["start"]) + np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
    ax.barh(heights, sizes, left=before, height=0.55, color=list(STEPS.values()), edgecolor="0.3", linewidth=0.5)
    for height, start, size in zip(heights, before, sizes, strict=True):
        ax.vlines(start + size, height - 0.28, height + 1, color=GUIDE, linewidth=0.8, zorder=0)
    ax.vlines(steps["start"], 0, 1.28, color=GUIDE, linewidth=0.8, zorder=0)
    ax.plot(steps["start"], 0, "o", color=FIT, markersize=6, label="fit")
    ax.plot(steps["end"], len(sizes) + 1, POSTERIOR_MARKER, color=POSTERIOR, markersize=6, label="posterior")
    low, high = _margin(ax, [float(steps["start"]), *(before + sizes)])
    for height, start, size in zip(heights, before, sizes, strict=True):
        right = max(start, start + size)
        ax.annotate(_signed(size), (right, height), (5, 0), textcoords="offset points", va="center", color=TEXT)
    for label, place in (("start", 0.0), ("end", heights[-1] + 1)):
        value = float(steps[label])
        ax.annotate(number(value, 5), (value, place), (7, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(sizes) + 2), ["estimate of the fit", *STEP_NAMES.values(), "posterior mean"])
    ax.set_ylim(len(sizes) + 1.6, -0.6)
    ax.set_xlim(low, high)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(plain(name(comparison, position), AXIS))
    return ax


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(value, 3)


def _margin(ax: Axes, values: list[float]) -> tuple[float, float]:
    """Limits with room for the numbers on the right; a width of one where nothing moves."""
    low, high = min(values), max(values)
    width = high - low if high > low else max(abs(high), 1.0) * 1e-3
    return low - 0.12 * width, high + 0.35 * width


def plot_attribution(comparison: Comparison, *, ax: Axes, limit: int = LIMIT) -> Axes:
    """Draw the steps of every predicted mean, stacked, in posterior sds, sorted by their sum.

    Bars above zero add up to the positive steps, bars below to the negative ones; the diamond is their sum, the
    whole difference. Beyond `limit` rows those with the largest difference are drawn. Returns `ax`.
    """
    frame = predicted(comparison)
    sd = frame["sd"].where(frame["sd"] > 0)
    steps = comparison.attribution[list(STEPS)].div(sd.to_numpy(), axis=0)
    steps = steps.assign(total=frame["in_sd"].to_numpy(), name=_names(frame).to_numpy()).dropna(subset=["total"])
    steps = largest(steps, steps["total"], limit).sort_values("total", kind="stable")
    place = np.arange(len(steps))
    above, below = np.zeros(len(steps)), np.zeros(len(steps))
    for step, color in STEPS.items():
        size = steps[step].to_numpy()
        base = np.where(size >= 0, above, below)
        ax.bar(place, size, bottom=base, width=0.8, color=color, label=STEP_NAMES[step])
        above, below = above + np.maximum(size, 0), below + np.minimum(size, 0)
    ax.plot(place, steps["total"], POSTERIOR_MARKER, color=TEXT, markersize=3.2, linestyle="none", label="difference")
    ax.axhline(0, color="0.4", linewidth=0.7)
    small = 90 if len(steps) > 8 else 0
    ax.set_xticks(place, [plain(text) for text in steps["name"]], rotation=small, fontsize=7.5)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.8, len(steps) - 0.2)
    reach = 1.06 * np.array([below.min(initial=0.0), above.max(initial=0.0)])
    ax.set_ylim(*(reach if reach[1] > reach[0] else (-1.0, 1.0)))
    ax.set_xlabel(plain(", ".join(dict.fromkeys(term.factor for term in comparison.spec.random)), AXIS))
    ax.set_ylabel("posterior − fit, in posterior sds")
    ax.grid(axis="y", color="0.92", linewidth=0.7)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.3, columnspacing=1.2)
    return ax


def _names(frame: pd.DataFrame) -> pd.Series:
    """Labels short enough for an axis: of group, level and term the level and what differs between rows."""
    names = frame["name"].astype(str)
    if frame["group"].nunique() > 1:
        names = frame["group"] + " " + names
    return names + " " + frame["term"] if frame["term"].nunique() > 1 else names
