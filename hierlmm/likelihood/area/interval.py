"""Profile-likelihood interval for the area variance: zero may be its end point, and no normality of Â is assumed."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import ml_constant, reml_constant, terms
from hierlmm.likelihood.area.objective import OBJECTIVES, Objective, grid
from hierlmm.likelihood.area.variance import maximise
from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# The criterion is known to about 1e-13 of itself; a root of it is not better determined than this, relative to A + D.
STEP = 1e-13
# Bracketed steps allowed; halving alone needs 52 for every digit of a double.
STEPS = 80
# Doublings of A past the grid before the interval is called unbounded; the criterion grows as (m − p) log A.
DOUBLINGS = 1000


def likelihood_of(method: str) -> str:
    """Which likelihood, "reml" or "ml", the interval of A is of: that of the method, without h where it has one.

    Of the moment estimators and of mix it is the restricted one.
    """
    return OBJECTIVES[method].likelihood if method in OBJECTIVES else "reml"


def likelihood_interval(method: str, level: float, y: Vector, X: Matrix, D: Vector) -> tuple[float, float]:
    """Ends of {A >= 0: 2 max ℓ − 2 ℓ(A) <= χ²₁(level)}, ℓ the likelihood of the method; 0 < level < 1.

    The set is the likelihood's own: it holds the maximum of ℓ, which for REML and ML is Â. Where it has gaps its hull
    is given. The χ²₁ quantile is kept at the boundary, where it is conservative (Self and Liang 1987, JASA
    82:605-610).
    """
    objective = OBJECTIVES[likelihood_of(method)]
    work = working(y, X, D)
    limit = NormalDist().inv_cdf((1 + level) / 2) ** 2
    best = maximise(objective, work).estimate.A / work.basis.scale
    target = float(_minus_2(objective, np.array([best]), work)[0]) + limit
    lower, upper = _hull(objective, best, target, work)
    return lower * work.basis.scale, upper * work.basis.scale


def level_set(method: str, loglik: float, y: Vector, X: Matrix, D: Vector) -> tuple[float, float] | None:
    """Hull of {A >= 0: ℓ(A) >= loglik}, ℓ the likelihood of the method with all constants; None where it is empty."""
    objective = OBJECTIVES[likelihood_of(method)]
    work = working(y, X, D)
    best = maximise(objective, work).estimate.A / work.basis.scale
    constant = (ml_constant if objective.likelihood == "ml" else reml_constant)(work)
    target = -2 * loglik - constant
    if float(_minus_2(objective, np.array([best]), work)[0]) > target:
        return None
    lower, upper = _hull(objective, best, target, work)
    return lower * work.basis.scale, upper * work.basis.scale


def _hull(objective: Objective, best: float, target: float, work: Working) -> tuple[float, float]:
    points = np.union1d(_reaching(objective, target, work), best)
    inside = np.flatnonzero(_minus_2(objective, points, work) <= target)
    first, last = int(inside[0]), int(inside[-1])
    lower = 0.0 if first == 0 else _crossing(points[first], points[first - 1], target, work, objective)
    return lower, _crossing(points[last], points[last + 1], target, work, objective)


def _minus_2(objective: Objective, A: Vector, work: Working) -> Vector:
    return objective.minus_2(A, terms(A, work), work)


def _reaching(objective: Objective, target: float, work: Working) -> Vector:
    """The grid, doubled at its far end until the criterion there is above `target`."""
    points = grid(objective, work)
    extra = [max(float(points[-1]), work.basis.high)]
    for _ in range(DOUBLINGS):
        if float(_minus_2(objective, np.array(extra[-1:]), work)[0]) > target:
            break
        extra.append(2 * extra[-1])
    return np.union1d(points, extra)


def _crossing(inside: float, outside: float, target: float, work: Working, objective: Objective) -> float:
    """Where the criterion crosses `target` between a point below and one above it: bracketed Newton in log(A + c)."""
    c = work.basis.low
    low, high = float(inside), float(outside)
    A = (low + high) / 2
    for _ in range(STEPS):
        at = np.array([A])
        here = terms(at, work)
        score = float(objective.rise(at, here, work).score[0])
        excess = float(objective.minus_2(at, here, work)[0]) - target
        low, high = (A, high) if excess <= 0 else (low, A)
        move = excess / (2 * score * (A + c)) if score else math.inf
        new = (A + c) * math.exp(move) - c if abs(move) < 1 else math.nan
        if not min(low, high) <= new <= max(low, high):
            new = (low + high) / 2
        if abs(new - A) <= STEP * (A + c):
            return new
        A = new
    return A
