"""Extrema over the variance ratio gamma for many responses or directions at once: a grid, then Newton's method.

The grid is even in log gamma, so that its steps are small wherever a term 1 + gamma mu_s changes; the extremum between
its neighbours is then a root of the derivative, to rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Steps of log gamma, and how far the grid reaches beyond the eigenvalues on the side of zero and on the other.
STEP, BELOW, ABOVE = 0.4, 12.0, 25.0
NEWTON = 5
# Numbers held at once: 64 MB.
CHUNK = 8_000_000


def _grid(mu: Array) -> Array:
    """log gamma from where every gamma mu is negligible to where none is of order one."""
    return np.arange(-np.log(mu.max()) - BELOW, -np.log(mu.min()) + ABOVE, STEP)


def supremum(mu: Array, logs: Array, times: NDArray[np.intp], N: int, squares: Array, rest: Array) -> Array:
    """(B,) sup over gamma > 0 of -N log(sum of squares / (1 + gamma mu) + rest) - sum of times log(1 + gamma logs).

    mu (m,), squares (B, m), rest (B,); -inf where m = 0.
    """
    if not len(mu):
        return np.full(len(rest), -np.inf)
    x = _grid(mu)
    penalty = np.log1p(np.outer(np.exp(x), logs)) @ times
    # without logarithms: the total times exp(penalty / N) is least where the criterion is greatest
    factor = np.exp((penalty - penalty.max()) / N)
    shrink = factor / (1 + np.exp(x)[None] * mu[:, None])
    out = np.empty(len(rest))
    for here in _slices(len(rest), len(x)):
        part, left = squares[here], rest[here]
        best = np.argmin(part @ shrink + left[:, None] * factor, axis=1)
        inside = best > 0
        value = -N * np.log(part @ (shrink[:, 0] / factor[0]) + left) - penalty[0]
        value[inside] = _climb(mu, logs, times, N, part[inside], left[inside], x[best[inside]])
        out[here] = value
    return out


def _climb(mu: Array, logs: Array, times: NDArray[np.intp], N: int, squares: Array, rest: Array, start: Array) -> Array:
    """The maximum within a step of `start`, in log gamma."""
    x = start
    for turn in range(NEWTON + 1):
        g, lg = np.exp(x)[:, None] * mu, np.exp(x)[:, None] * logs
        total = (squares / (1 + g)).sum(axis=1) + rest
        if turn == NEWTON:
            break
        first = (squares * g / (1 + g) ** 2).sum(axis=1) / total
        second = (squares * g * (1 - g) / (1 + g) ** 3).sum(axis=1) / total
        slope = N * first - (lg / (1 + lg)) @ times
        curve = N * (second + first**2) - (lg / (1 + lg) ** 2) @ times
        x = np.clip(x - _step(slope, -np.abs(curve)), start - STEP, start + STEP)
    return np.asarray(-N * np.log(total) - np.log1p(lg) @ times)


def least_ratio(mu: Array, logs: Array, times: NDArray[np.intp], N: int, directions: Array, q: float) -> Array:
    """(B,) least S / R at which the statistic reaches q > 0, for directions b (B, m) that sum to one.

    The minimum over gamma of (c - 1) / (1 - c h); see `rlrt`.
    """
    x = _grid(mu)
    c = np.exp((q + np.log1p(np.outer(np.exp(x), logs)) @ times) / N)
    shrink = c / (1 + np.exp(x)[None] * mu[:, None])
    out = np.empty(len(directions))
    for here in _slices(len(directions), len(x)):
        part = directions[here]
        below = 1 - part @ shrink
        with np.errstate(divide="ignore"):
            ratio = np.where(below > 0, (c - 1) / np.where(below > 0, below, 1.0), np.inf)
        best = np.argmin(ratio, axis=1)
        grid_value = ratio[np.arange(len(part)), best]
        out[here] = np.minimum(_descend(mu, logs, times, N, part, q, x[best]), grid_value)
    return out


def _descend(mu: Array, logs: Array, times: NDArray[np.intp], N: int, b: Array, q: float, start: Array) -> Array:
    """The minimum within a step of `start`, in log gamma; inf where the point left the feasible side."""
    x = start
    for turn in range(NEWTON + 1):
        g, lg = np.exp(x)[:, None] * mu, np.exp(x)[:, None] * logs
        with np.errstate(all="ignore"):
            c = np.exp((q + np.log1p(lg) @ times) / N)
            h = (b / (1 + g)).sum(axis=1)
            below = 1 - c * h
            if turn == NEWTON:
                return np.asarray(np.where(below > 0, (c - 1) / below, np.inf))
            L1, L2 = (lg / (1 + lg)) @ times / N, (lg / (1 + lg) ** 2) @ times / N
            h1 = -(b * g / (1 + g) ** 2).sum(axis=1)
            h2 = -(b * g * (1 - g) / (1 + g) ** 3).sum(axis=1)
            up, down = c * L1 / (c - 1), c * (L1 * h + h1) / below
            curve = c * (L2 + L1**2) / (c - 1) - up**2
            curve += (c * L1 * (L1 * h + h1) + c * (L2 * h + L1 * h1 + h2)) / below + down**2
            moved = x - _step(up + down, np.abs(curve))
        x = np.where(np.isfinite(moved), np.clip(moved, start - STEP, start + STEP), x)
    return x


def _step(slope: Array, curve: Array) -> Array:
    """Newton's step, zero where the curvature is."""
    return np.asarray(np.where(curve == 0, 0.0, slope / np.where(curve == 0, 1.0, curve)))


def _slices(rows: int, width: int) -> list[slice]:
    size = max(1, CHUNK // max(width, 1))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
