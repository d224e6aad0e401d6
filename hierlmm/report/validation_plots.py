"""Plots of what was found without the truth: scores of models, and the area variance without each area."""

from __future__ import annotations

from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hierlmm.errors import FitError
from hierlmm.frequentist.area.influence import AreaInfluence
from hierlmm.frequentist.area.validation_results import Validation
from hierlmm.report.appearance import AXIS, DIRECT, FIT, GUIDE, POSTERIOR, SETTINGS, TEXT, plain

# Areas named in a picture: those without which the area variance changes most.
NAMED = 3
# Areas whose names stand at the axis.
LABELLED = 60


def plot_validation(validation: Validation, *, ax: Axes, by: Literal["thinning", "areas"] = "thinning") -> Axes:
    """Draw how far each model is behind the best in mean squared error. Returns `ax`.

    by  "thinning", or "areas" where these were left out

    Thin lines: two standard errors over areas, what another survey could change; thick: two Monte Carlo errors. Raises
    FitError where nothing was left out.
    """
    if by not in ("thinning", "areas") or (by == "areas" and not validation.left_out):
        raise FitError(f"`by` is 'thinning', or 'areas' where areas were left out; found {by!r}. Use one of these.")
    frame = validation.frame if by == "thinning" else validation.left_out_frame
    row = np.arange(len(frame))
    behind, se = frame["behind"].to_numpy(), frame["behind_se"].to_numpy()
    ax.axvline(0, color=GUIDE, linewidth=1, zorder=0)
    others = behind != 0
    ax.hlines(row[others], (behind - 2 * se)[others], (behind + 2 * se)[others], color=FIT, linewidth=0.9, zorder=1)
    if by == "thinning":
        mc = frame["behind_mc"].to_numpy()
        ax.hlines(row[others], (behind - 2 * mc)[others], (behind + 2 * mc)[others], color=FIT, linewidth=3.2, zorder=2,
                  alpha=0.6)  # fmt: skip
    ax.plot(behind, row, "o", color=FIT, markersize=4.5, linestyle="none", zorder=3)
    ax.set_yticks(row, [plain(name, AXIS) for name in frame["model"]])
    ax.set_ylim(len(row) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.7)
    what = "split direct estimates" if by == "thinning" else "areas left out"
    ax.set_xlabel(f"mean squared error less that of the best model, {what}")
    return ax


def validation_figure(validation: Validation) -> Figure:
    """`plot_validation` of what there is on one figure of its own canvas: thinning, and areas left out beside it."""
    kinds: list[Literal["thinning", "areas"]] = ["thinning", "areas"] if validation.left_out else ["thinning"]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(6.4 * len(kinds), 1.2 + 0.34 * len(validation.thinned)))
        FigureCanvasAgg(figure)
        for kind, ax in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
            plot_validation(validation, ax=ax, by=kind)
        figure.draw_without_rendering()
    return figure


def plot_area_influence(influence: AreaInfluence, *, ax: Axes) -> Axes:
    """Draw the area variance estimated without each area, with the one from all areas as a line. Returns `ax`.

    The areas without which it changes most are named; all of them where there are 60 or fewer.
    """
    values, units = influence.found.A, influence.units
    x = np.arange(len(values))
    ax.axhline(influence.A_hat, color=DIRECT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    ax.vlines(x, influence.A_hat, values, color=GUIDE, linewidth=1, zorder=1)
    changed = np.argsort(-np.abs(np.nan_to_num(values - influence.A_hat)), kind="stable")[:NAMED]
    far = np.isin(x, changed)
    ax.plot(x[~far], values[~far], "o", color=FIT, markersize=3.4, linestyle="none", zorder=2)
    ax.plot(x[far], values[far], "D", color=POSTERIOR, markersize=3.8, linestyle="none", zorder=3)
    if len(units) <= LABELLED:
        ax.set_xticks(x, [plain(unit) for unit in units], rotation=90, fontsize=7)
        ax.tick_params(axis="x", length=0)
    else:
        ax.set_xticks([])
        for k in changed:
            ax.annotate(plain(units[k]), (x[k], values[k]), (0, 5), textcoords="offset points", ha="center",
                        fontsize=7.5, color=TEXT)  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"{plain(influence.by)} left out")
    ax.set_ylabel("A without it")
    return ax
