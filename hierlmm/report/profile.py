"""The profile of a standard deviation with its posterior density over it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.profile import ProfileCurve
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, plain
from hierlmm.report.criteria import criterion_name
from hierlmm.report.density import sd_density

# Criterion above its minimum that is marked on the right: 3.84 bounds a 95 % interval of one parameter.
MARKED = (0.0, 0.5, 1.0, 2.0, 3.84, 10.0)
INTERVAL = 3.841458820694124
# Points up to which a curve is drawn through its signed root, which is close to a line, rather than joined up.
FEW = 40


def plot_profile(result: Comparison | AreaFit | LMMFit, curve: ProfileCurve, *, ax: Axes) -> Axes:
    """Draw the profile of one sd on one scale with its posterior density; of a fit alone, without one.

    Both are relative to their highest point. The profile is exp(-½ (criterion - minimum)); the axis on the right
    reads it as the criterion above its minimum, and the dashed line at 3.84 bounds the 95 % profile interval. Under a
    prior that is flat on this sd, in a model with one variance, the two curves are the same. Returns `ax`.
    """
    values, height = _drawn(curve)
    points, density = np.zeros(0), np.zeros(0)
    fit = result.fit if isinstance(result, Comparison) else result
    if isinstance(result, Comparison):
        points, density = sd_density(result.posterior, curve.group, curve.term)
    if points.size:
        ax.fill_between(points, density / density.max(), color=POSTERIOR, alpha=0.28, linewidth=0, label="posterior")
        ax.plot(points, density / density.max(), color=POSTERIOR, linewidth=0.9)
    ax.plot(values, height, color=FIT, linewidth=1.7, label="profile of the fit")
    ax.axhline(np.exp(-0.5 * INTERVAL), color=GUIDE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    at = float(np.interp(curve.estimate, values, height))
    ax.plot([curve.estimate], [at], "o", color=FIT, markersize=4.5, clip_on=False, zorder=6)
    right = _right(curve, points, density)
    left = min(float(curve.values[0]), right)
    ax.set_xlim(0.0 if left < 0.35 * right else left - 0.05 * (right - left), right)
    ax.set_ylim(0.0, 1.06)
    ax.set_xlabel(plain(curve.label, AXIS))
    ax.set_ylabel("relative height")
    ax.set_yticks([0.0, 0.5, 1.0])
    _criterion_axis(ax, criterion_name(fit.method))
    if points.size:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2, handletextpad=0.5)
    return ax


def _drawn(curve: ProfileCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and relative heights to draw: between few points the signed root of the criterion is taken as linear."""
    if len(curve.values) > FEW:
        return curve.values, np.exp(-0.5 * curve.criterion)
    best = int(np.argmin(curve.criterion))
    side = np.where(np.arange(len(curve.values)) < best, -1.0, 1.0)
    root = side * np.sqrt(np.maximum(curve.criterion, 0.0))
    values = np.union1d(np.linspace(curve.values[0], curve.values[-1], 40 * len(root)), curve.values)
    return values, np.exp(-0.5 * np.square(np.interp(values, curve.values, root)))


def _right(curve: ProfileCurve, points: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    """End of the axis: where both curves have become low."""
    end = float(curve.values[curve.criterion <= 8.0].max())
    if points.size:
        end = max(end, float(points[density > 0.01 * density.max()].max()))
    return end * 1.02 if end > 0 else 1.0


def _criterion_axis(ax: Axes, name: str) -> None:
    """A second scale that reads the height as the criterion above its minimum."""

    def to_criterion(height: ArrayLike) -> ArrayLike:
        return np.asarray(-2 * np.log(np.maximum(height, 1e-12)))

    def to_height(criterion: ArrayLike) -> ArrayLike:
        return np.asarray(np.exp(-0.5 * np.asarray(criterion, dtype=np.float64)))

    right = ax.secondary_yaxis("right", functions=(to_criterion, to_height))
    right.set_ylabel(f"{name} above its minimum")
    right.yaxis.set_major_locator(FixedLocator(MARKED))
    right.yaxis.set_major_formatter(FixedFormatter([f"{value:g}" for value in MARKED]))
    right.yaxis.set_minor_locator(NullLocator())
