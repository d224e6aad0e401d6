"""Boxes side by side, and names along an axis that can be read however many there are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hierlmm.report.appearance import FIT

Array = NDArray[np.float64]

# Values from which a set has a box, and up to which every one is drawn beside it rather than those beyond the whiskers.
BOXED, ALL_DRAWN = 5, 60
# Letters of all tick labels together from which they are turned.
WIDE = 45
# Heights of letters, in points: what tick labels ask for, and the smallest that can be read.
LEGIBLE, SMALLEST = 10.0, 5.0


def draw_boxes(ax: Axes, parts: list[Array], labels: list[str], *, color: str = FIT) -> None:
    """Boxes of several sets of values side by side, named below; sets of fewer than five are drawn as points only."""
    for k, part in enumerate(parts):
        if len(part) >= BOXED:
            ax.boxplot(
                [part], positions=[k], widths=0.55, showfliers=False, manage_ticks=False,
                medianprops={"color": color, "linewidth": 1.6}, boxprops={"color": "0.45"},
                whiskerprops={"color": "0.45"}, capprops={"color": "0.45"},
            )  # fmt: skip
        shown = part if len(part) <= ALL_DRAWN else part[_beyond(part)]
        spread = np.linspace(-0.14, 0.14, 7)[np.arange(len(shown)) % 7] if len(shown) > 1 else np.zeros(len(shown))
        ax.plot(k + spread, shown, "o", color=color, markersize=2.2, alpha=0.5, linestyle="none", markeredgewidth=0)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    name_ticks(ax, labels, "x")


def _beyond(part: Array) -> NDArray[np.bool_]:
    """Which values lie beyond the whiskers, 1.5 interquartile ranges from the box."""
    low, high = np.quantile(part, [0.25, 0.75])
    reach = 1.5 * (high - low)
    return np.asarray((part < low - reach) | (part > high + reach))


def name_ticks(ax: Axes, names: list[str], axis: Literal["x", "y"]) -> None:
    """Names at 0, 1, ..., as small as the room asks for; every second or third only where that is too little."""
    box = ax.get_window_extent()
    turned = axis == "x" and sum(map(len, names)) > WIDE
    room = (box.width if axis == "x" else box.height) * 72 / ax.figure.dpi / max(len(names), 1)
    step = max(1, int(np.ceil(SMALLEST / max(room, 0.1)))) if turned or axis == "y" else 1
    at = range(0, len(names), step)
    if axis == "x":
        ax.set_xticks(at, names[::step], rotation=90 if turned else 0)
    else:
        ax.set_yticks(at, names[::step])
    ax.tick_params(axis=axis, length=0)
    if (turned or axis == "y") and room * step < LEGIBLE:
        ax.tick_params(axis=axis, labelsize=max(SMALLEST, 0.85 * room * step))
