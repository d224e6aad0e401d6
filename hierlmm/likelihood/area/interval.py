"""Profile-likelihood interval for the area variance: zero may be its end point, and no normality of Â is assumed."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import terms
from hierlmm.likelihood.area.variance import Reader, grid, read_ml, read_reml
from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The criterion is known to about 1e-13 of itself; a root of it is not better determined than this, relative to A + D.
STEP = 1e-13
# Bracketed steps allowed; halving alone needs 52 for every digit of a double.
STEPS = 80
# Doublings of A past the grid before the interval is called unbounded; the criterion grows as (m − p) log A.
DOUBLINGS = 1000


def reml_interval(A_hat: float, level: float, y: Vector, X: Matrix, D: Vector) -> tuple[float, float]:
    """Ends of {A >= 0: 2 ℓ_REML(Â) − 2 ℓ_REML(A) <= χ²₁(level)}; arguments as `estimate_reml`, 0 < level < 1.

    Where the set has gaps its hull is given. The χ²₁ quantile is kept at the boundary, where it is conservative
    (Self and Liang 1987, JASA 82:605-610).
    """
    work = working(y, X, D)
    return _interval(A_hat, level, work, work.D.size - work.Q.shape[1], read_reml)


def ml_interval(A_hat: float, level: float, y: Vector, X: Matrix, D: Vector) -> tuple[float, float]:
    """Ends of {A >= 0: 2 ℓ_ML(Â) − 2 ℓ_ML(A) <= χ²₁(level)}, as `reml_interval`."""
    work = working(y, X, D)
    return _interval(A_hat, level, work, work.D.size, read_ml)


def _interval(A_hat: float, level: float, work: Working, divisor: int, read: Reader) -> tuple[float, float]:
    limit = NormalDist().inv_cdf((1 + level) / 2) ** 2
    best = A_hat / work.scale
    target = float(read(terms(np.array([best]), work))[2][0]) + limit
    points = np.union1d(_reaching(grid(work, divisor), target, work, read), best)
    inside = np.flatnonzero(read(terms(points, work))[2] <= target)
    first, last = int(inside[0]), int(inside[-1])
    lower = 0.0 if first == 0 else _crossing(points[first], points[first - 1], target, work, read)
    upper = _crossing(points[last], points[last + 1], target, work, read)
    return lower * work.scale, upper * work.scale


def _reaching(points: Vector, target: float, work: Working, read: Reader) -> Vector:
    """The grid, doubled at its far end until the criterion there is above `target`."""
    end = max(float(points[-1]), float(work.D.max()))
    extra = [end]
    for _ in range(DOUBLINGS):
        if float(read(terms(np.array(extra[-1:]), work))[2][0]) > target:
            break
        extra.append(2 * extra[-1])
    return np.union1d(points, extra)


def _crossing(inside: float, outside: float, target: float, work: Working, read: Reader) -> float:
    """Where the criterion crosses `target` between a point below and one above it: bracketed Newton in log(A + c)."""
    c = float(work.D.min())
    low, high = float(inside), float(outside)
    A = (low + high) / 2
    for _ in range(STEPS):
        score, _, criterion = (float(value[0]) for value in read(terms(np.array([A]), work)))
        excess = criterion - target
        low, high = (A, high) if excess <= 0 else (low, A)
        move = excess / (2 * score * (A + c)) if score else math.inf
        new = (A + c) * math.exp(move) - c if abs(move) < 1 else math.nan
        if not min(low, high) <= new <= max(low, high):
            new = (low + high) / 2
        if abs(new - A) <= STEP * (A + c):
            return new
        A = new
    return A
