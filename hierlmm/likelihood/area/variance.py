"""Estimating the area variance A by REML and by ML: every local maximum, the boundary included, with a certificate.

The score of either likelihood is a sum of terms that change with A on the scale of A + D_i, so a grid that is even
in log(A + min D) sees every one of them, from A = 0 to a bound beyond which the score is negative for certain: with
R = |y − Xβ̂_OLS|²/(m − p) (over m for ML), y'P²y <= |y − Xβ̂_OLS|²/(A + D_min)² and tr P >= (m − p)/(A + D_max), so
the score is negative where (A + D_min)² > R (A + D_max). Where that holds from A = 0 on, zero is the maximum. Each
change of sign from plus to minus is then closed by bracketed Newton steps, and the maxima, A = 0 among them where
the score there is not positive, are compared by the criterion itself: the exact 0.0 is an answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import Terms, ml_constant, reml_constant, terms
from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# (score, slope) and criterion of one method, read from the terms of both.
Reader = Callable[[Terms], tuple[Vector, Vector, Vector]]

# Spacing of the grid in log(A + min D): a quarter of the width on which the score's terms change.
GRID_STEP = 0.25
# Fewest and most grid points; the most is reached only where D spans some forty orders of magnitude.
GRID_POINTS = (6, 400)
# A score this small beside the sum of its terms' sizes is rounding error and has no sign.
NOISE = 64 * np.finfo(np.float64).eps
# Newton stops at a step this small beside A + D, the resolution of A in doubles.
STEP = 1e-15
# Bracketed steps allowed; halving alone needs 52 for every digit of a double.
STEPS = 80
# Largest Newton decrement, in units of the log-likelihood, of an optimum: a gain no table of likelihoods would show.
DECREMENT = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VarianceEstimate:
    """Â and the evidence that it is the global maximum of its likelihood over A >= 0.

    A            units of y squared; exactly 0.0 where the likelihood is highest there
    score        ∂ℓ/∂A at Â, units 1/A: rounding error in the interior, <= 0 at zero
    multiplier   Karush-Kuhn-Tucker multiplier of A >= 0: −score at Â = 0, 0.0 in the interior
    decrement    score² over the observed information, twice the log-likelihood a further step could gain; 0.0 at zero
    converged    whether the decrement is below 1e-10 (always so at zero)
    maxima       every local maximum that was found, increasing; Â is the one of highest likelihood
    evaluations  values of A at which the likelihood was evaluated
    loglik_ml, loglik_reml          both log-likelihoods at Â, all constants, nats
    information_sum                 Σ w²/2 at Â, units 1/A²
    information_trace               tr(P²)/2 at Â, units 1/A²
    """

    A: float
    score: float
    multiplier: float
    decrement: float
    converged: bool
    maxima: tuple[float, ...]
    evaluations: int
    loglik_ml: float
    loglik_reml: float
    information_sum: float
    information_trace: float


def estimate_reml(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises ℓ_REML over A >= 0; y (m,), X (m, p) of full rank with p < m, D (m,) positive."""
    work = working(y, X, D)
    return _estimate(work, work.D.size - work.beta_ols.size, read_reml)


def estimate_ml(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises ℓ_ML over A >= 0; y (m,), X (m, p) of full rank with p < m, D (m,) positive."""
    work = working(y, X, D)
    return _estimate(work, work.D.size, read_ml)


def read_reml(at: Terms) -> tuple[Vector, Vector, Vector]:
    """Score, slope and criterion of REML, working units."""
    return at.score_reml, at.slope_reml, at.minus_2_reml


def read_ml(at: Terms) -> tuple[Vector, Vector, Vector]:
    """Score, slope and criterion of ML, working units."""
    return at.score_ml, at.slope_ml, at.minus_2_ml


def _estimate(work: Working, divisor: int, read: Reader) -> VarianceEstimate:
    points = grid(work, divisor)
    scan = terms(points, work)
    score, slope, criterion = read(scan)
    clear = np.flatnonzero(np.abs(score) > NOISE * scan.size)
    evaluations = points.size
    maxima = [] if clear.size and score[clear[0]] > 0 else [0.0]
    for low, high in itertools.pairwise(clear):
        if score[low] > 0 > score[high]:
            ends = [(float(points[k]), float(score[k]), float(slope[k])) for k in (low, high)]
            root, spent = _root(work, read, ends[0], ends[1])
            maxima.append(root)
            evaluations += spent
    # Never empty by the bound on the grid; should rounding defeat it, the certificate will say "not converged".
    at_maxima = np.array(maxima or [float(points[np.argmin(criterion)])])
    return _certified(at_maxima, terms(at_maxima, work), work, read, evaluations + at_maxima.size)


def grid(work: Working, divisor: int) -> Vector:
    """0 and values of A even in log(A + min D), the last one where the score is negative for certain."""
    spread = float(work.y @ work.y) / divisor
    low, high = float(work.D.min()), float(work.D.max())
    end = (spread + math.sqrt(spread * (spread + 4 * (high - low)))) / 2 - low
    if end <= 0:
        return np.zeros(1)
    length = math.log1p(end / low)
    size = min(max(GRID_POINTS[0], math.ceil(length / GRID_STEP) + 1), GRID_POINTS[1])
    # One step beyond the bound, so that the last score is clear of zero.
    points: Vector = low * np.expm1(np.arange(size + 1) * (length / (size - 1)))
    return points


def _root(
    work: Working, read: Reader, left: tuple[float, float, float], right: tuple[float, float, float]
) -> tuple[float, int]:
    """Zero of the score between `left` and `right`, each (A, score, slope), and the number of evaluations spent.

    Newton's method on (A + c)² times the score, c a typical D: for equal D_i that is linear in A, so one step ends it.
    """
    c = _typical(work, left[0], right[0])
    low, high = left[0], right[0]
    A, last = _start(left, right, c), math.inf
    for spent in range(1, STEPS + 1):
        score, slope, _ = (float(value[0]) for value in read(terms(np.array([A]), work)))
        low, high = (A, high) if score > 0 else (low, A)
        rate = slope + 2 * score / (A + c)
        new = A - score / rate if rate < 0 else math.nan
        if not low <= new <= high:
            new = (low + high) / 2
        step = abs(new - A)
        if score == 0 or step <= STEP * (A + c) or (step >= last and step <= 1e-10 * (A + c)):
            return (A if score == 0 else new), spent
        A, last = new, step
    return A, STEPS


def _typical(work: Working, low: float, high: float) -> float:
    """Mean of D weighted by w² at the middle of a bracket."""
    w2 = np.square(1 / ((low + high) / 2 + work.D))
    return float(w2 @ work.D / w2.sum())


def _start(left: tuple[float, float, float], right: tuple[float, float, float], c: float) -> float:
    """Where the cubic through values and slopes of both ends, A as a function of (A + c)² score, is at zero."""
    (a, fa, ga), (b, fb, gb) = ((A, s * (A + c) ** 2, g * (A + c) ** 2 + 2 * s * (A + c)) for A, s, g in (left, right))
    t, width = fa / (fa - fb), fb - fa
    secant = a + t * (b - a)
    if ga >= 0 or gb >= 0:
        return secant
    u = 1 - t
    cubic = a * u * u * (1 + 2 * t) + b * t * t * (1 + 2 * u) + width * t * u * (u / ga - t / gb)
    return cubic if a < cubic < b else secant


def _certified(maxima: Vector, at: Terms, work: Working, read: Reader, evaluations: int) -> VarianceEstimate:
    """The best of the local maxima (the smaller A where two are equal), in the units of the data."""
    score, slope, criterion = read(at)
    best = int(np.argmin(criterion))
    A, gradient, curvature = float(maxima[best]), float(score[best]), float(slope[best])
    interior = A > 0
    decrement = gradient**2 / abs(curvature) if interior and curvature else 0.0
    return VarianceEstimate(
        A=A * work.scale,
        score=gradient / work.scale,
        multiplier=0.0 if interior else max(0.0, -gradient / work.scale),
        decrement=decrement,
        converged=not interior or (decrement <= DECREMENT and curvature < 0),
        maxima=tuple(float(value) * work.scale for value in maxima),
        evaluations=evaluations,
        loglik_ml=-(float(at.minus_2_ml[best]) + ml_constant(work)) / 2,
        loglik_reml=-(float(at.minus_2_reml[best]) + reml_constant(work)) / 2,
        information_sum=float(at.information_ml[best]) / work.scale**2,
        information_trace=float(at.information_reml[best]) / work.scale**2,
    )
