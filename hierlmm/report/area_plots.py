"""Plots of one area-level result: estimates against direct ones, coefficients of variation, weights, and A itself.

Each takes a fit or a posterior and an `ax`, and returns the `ax`.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.report.appearance import (
    AXIS,
    DIRECT,
    DIRECT_MARKER,
    FIT,
    FIT_MARKER,
    GUIDE,
    POSTERIOR,
    POSTERIOR_MARKER,
    TEXT,
    plain,
)
from hierlmm.report.numbers import number

Array = NDArray[np.float64]
AreaResult = AreaFit | AreaPosterior

# Areas whose names or intervals a picture has room for.
NAMED_AREAS, WITH_INTERVALS = 60, 150
# Areas that a picture draws: of more, so many, even in the rank of their sampling variances.
DRAWN = 3000
# Areas that a scatter names: those that the model moves farthest, in standard errors of the direct estimate.
FARTHEST = 3
# Characters of a name inside a scatter.
SHORT = 14
# Largest over smallest value from which an axis is logarithmic.
LOGARITHMIC = 20.0


def look(result: AreaResult) -> tuple[str, str, str]:
    """Colour, marker and word of the estimates of a result."""
    if isinstance(result, AreaPosterior):
        return POSTERIOR, POSTERIOR_MARKER, "posterior mean"
    return FIT, FIT_MARKER, "EBLUP"


def in_fit(result: AreaResult) -> pd.DataFrame:
    """The rows of `areas` that are in the fit."""
    return result.areas[result.design.sampled].reset_index(drop=True)


def to_draw(result: AreaResult) -> pd.DataFrame:
    """The rows of `in_fit` in the order of their sampling variances, DRAWN of them at most."""
    frame = in_fit(result).assign(model_variance=result.design.D[result.design.sampled])
    frame = frame.sort_values("sampling_variance", kind="stable").reset_index(drop=True)
    if len(frame) <= DRAWN:
        return frame
    return frame.iloc[np.unique(np.linspace(0, len(frame) - 1, DRAWN).astype(np.intp))].reset_index(drop=True)


def plot_direct_model(result: AreaResult, *, ax: Axes) -> Axes:
    """Draw the model estimate of each sampled area against its direct estimate, with the line of equality.

    Bars are one standard error to each side: of the direct estimate, the root of its sampling variance; of the model
    estimate, the root of its mean squared error (posterior sd). There are none where there are more than 150 areas. The
    areas that the model moves farthest, in sds of their direct estimates, are named.
    """
    frame = to_draw(result)
    color, marker, word = look(result)
    x, y, sd = (frame[name].to_numpy() for name in ("direct", "estimate", "sampling_variance"))
    sd, se = np.sqrt(sd), frame["se"].to_numpy()
    few = len(frame) <= WITH_INTERVALS
    if few:
        ax.hlines(y, x - sd, x + sd, color=GUIDE, linewidth=0.7, zorder=1, label="direct ± se")
        ax.vlines(x, y - se, y + se, color=color, linewidth=0.8, alpha=0.5, zorder=2, label="model ± se")
    ax.plot(x, y, marker, color=color, markersize=3.8 if few else 2.2, linestyle="none", label=word, zorder=4,
            markeredgewidth=0, alpha=1.0 if few else 0.6)  # fmt: skip
    reach = [x - sd, x + sd, y - se, y + se] if few else [x, y]
    low, high = (float(bound(reach)) for bound in (np.min, np.max))
    room = 0.03 * (high - low) or 1.0
    ends = (low - room, high + room)
    ax.plot(ends, ends, color=TEXT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3, label="no change")
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_aspect("equal")
    # a proportion of 0 or 1 has an estimated variance of 0, and the model moves it
    pull = np.abs(x - y) / np.where(sd > 0, sd, np.min(sd, where=sd > 0, initial=np.inf))
    named: list[int] = []
    for k in np.argsort(-pull, kind="stable")[: FARTHEST if len(frame) > 2 * FARTHEST else 0]:
        label, span = plain(frame["area"].iloc[k], SHORT), ends[1] - ends[0]
        wide = 0.04 + 0.025 * len(label)
        beside = any(abs(x[k] - x[n]) < wide * span and abs(y[k] - y[n]) < 0.05 * span for n in named)
        _named(ax, label, x[k], y[k], ends[0] + wide * span, beside)
        named.append(int(k))
    ax.set_xlabel("direct estimate")
    ax.set_ylabel(f"{word} of the area mean" if word == "posterior mean" else f"model estimate ({word})")
    _legend(ax, (word, "no change", "direct ± se", "model ± se"), 2)
    return ax


def _named(ax: Axes, name: str, x: float, y: float, room: float, beside: bool) -> None:
    """The name on the outer side of the line of equality; to the left of the point only where x is beyond `room`.

    Where a name stands `beside` it already, it goes to the other end of the point.
    """
    above, left = y > x, (y > x) != beside and x > room
    label = ax.annotate(
        name, (x, y), (-5 if left else 5, 5 if above else -5), textcoords="offset points", color=TEXT,
        fontsize=7.5, ha="right" if left else "left", va="bottom" if above else "top", zorder=5,
    )  # fmt: skip
    label.set_in_layout(False)


def plot_cv(result: AreaResult, *, ax: Axes) -> Axes:
    """Draw the coefficient of variation of each sampled area before and after, the largest sampling variance last.

    Open circles: direct estimate; filled: model. Areas without one, whose estimate is 0, are left out. The axis is
    logarithmic where the values span a factor of 20 or more.
    """
    frame = to_draw(result)
    color, marker, word = look(result)
    before, after = 100 * frame["direct_cv"].to_numpy(), 100 * frame["cv"].to_numpy()
    m = int(result.design.sampled.sum())
    rank = np.arange(1, m + 1) if len(frame) == m else np.linspace(1, m, len(frame))
    named = len(frame) <= NAMED_AREAS
    grew = after > before
    ax.vlines(rank, after, before, color=np.where(grew, POSTERIOR, GUIDE).tolist(), linewidth=1.4 if named else 0.6,
              alpha=0.9, zorder=1)  # fmt: skip
    size = 4.2 if named else 2.2
    ax.plot(rank, before, DIRECT_MARKER, markerfacecolor="white", markeredgecolor=DIRECT, markersize=size,
            linestyle="none", label="direct", zorder=2)  # fmt: skip
    ax.plot(rank, after, marker, color=color, markersize=size, linestyle="none", label=word, zorder=3,
            markeredgewidth=0)  # fmt: skip
    shown = np.concatenate([before, after])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if shown.size and shown.max() > LOGARITHMIC * shown.min():
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    ax.grid(axis="y", color="0.92", linewidth=0.7)
    ax.set_xlim(0.3, m + 0.7)
    if named:
        ax.set_xticks(rank, [plain(name) for name in frame["area"]], rotation=90, fontsize=7)
        ax.tick_params(axis="x", length=0)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    factor = plain(result.spec.random[0].factor)
    order = f"{factor}, by" if named else f"rank of {factor} by"
    ax.set_xlabel(f"{order} sampling variance (smallest first)")
    ax.set_ylabel("coefficient of variation, %")
    _legend(ax, ("direct", word))
    return ax


def plot_gamma(result: AreaResult, *, ax: Axes, size: pd.Series | None = None) -> Axes:
    """Draw the weight γ on the direct estimate of each sampled area against its sampling variance, or its size.

    size  a Series by area, such as the effective sample size, to draw against in place of the sampling variance

    Against the sampling variance of a fit, on the scale of the model, the curve is A / (A + D) at the estimate of A,
    and the band at the ends of its 95 % interval: what the data leave open about every weight at once. The weights of a
    posterior are means. Raises DesignError where an area has no positive size.
    """
    frame = to_draw(result)
    color, marker, word = look(result)
    D = frame["model_variance"].to_numpy()
    x = D if size is None else _sizes(size, frame["area"])
    logarithmic = x.max() > LOGARITHMIC / 2 * x.min()
    if logarithmic:
        ax.set_xscale("log")
    if size is None and isinstance(result, AreaFit) and _plain_weights(result):
        _weights_at(result, x, ax)
    few = len(frame) <= WITH_INTERVALS
    ax.plot(x, frame["gamma"], marker, color=color, markersize=3.8 if few else 2.2, linestyle="none", label=word,
            zorder=3, markeredgewidth=0, alpha=1.0 if few else 0.6)  # fmt: skip
    if logarithmic:
        _plain_ticks(ax.xaxis)
    ax.set_ylim(-0.03, 1.03)
    scale = "" if result.spec.transformation is None else ", on the scale of the model"
    what = f"sampling variance of the direct estimate{scale}"
    ax.set_xlabel(what if size is None else plain(size.name or "size", AXIS))
    ax.set_ylabel("γ, weight on the direct estimate" if word == "EBLUP" else "E[γ | y], weight on the direct estimate")
    ax.grid(axis="y", color="0.92", linewidth=0.7)
    return ax


def _plain_weights(fit: AreaFit) -> bool:
    """Whether γ is A / (A + D), as it is where areas are independent."""
    return fit.design.proximity is None and fit.design.covariance is None


def _weights_at(fit: AreaFit, D: Array, ax: Axes) -> None:
    interval = fit.A.iloc[0]
    low_D, high_D = (float(D.min()), float(D.max())) if D.max() > D.min() else (0.9 * D[0], 1.1 * D[0])
    at = np.geomspace(low_D, high_D, 200)
    low, high = (float(interval[name]) for name in ("lower", "upper"))
    if np.isfinite([low, high]).all():
        ax.fill_between(at, low / (low + at), high / (high + at), color="0.9", linewidth=0,
                        label="95 % interval of A", zorder=0)  # fmt: skip
    ax.plot(at, fit.A_hat / (fit.A_hat + at), color=GUIDE, linewidth=1.2, label="A / (A + D)", zorder=1)
    _legend(ax, ("A / (A + D)", "95 % interval of A"))


def _sizes(size: pd.Series, areas: pd.Series) -> Array:
    """Sizes in the order of the areas, by label."""
    labelled = isinstance(size, pd.Series) and size.index.is_unique
    found = size.reindex(pd.Index(areas)) if labelled else pd.Series(np.nan, index=areas)
    values = cast("Array", pd.to_numeric(found, errors="coerce").to_numpy(dtype=np.float64))
    bad = ~(values > 0)
    if bad.any():
        raise DesignError(
            "Sizes to draw weights against are a Series with a positive number for each area in the fit, by its label; "
            f"found none for {listed(areas[bad])}. Set its index to the areas."
        )
    return values


def _plain_ticks(axis: Axis) -> None:
    """Numbers rather than powers of ten on a logarithmic axis: at 1, 2 and 5 where it is short."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(10, (1, 2, 5) if high < 500 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1)))
    axis.set_minor_formatter(NullFormatter())


def _legend(ax: Axes, order: tuple[str, ...], columns: int = 4) -> None:
    handles, labels = ax.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    kept = [label for label in order if label in shown]
    ax.legend(
        [shown[label] for label in kept], kept, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        ncols=min(columns, len(kept)), borderaxespad=0.2, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
