"""Maximising a likelihood, adjusted or not, over the area variance A: every local maximum, with a certificate.

The score is a sum of terms that change with A on the scale of A + D_i, so a grid that is even in log(A + min D) sees
every one of them, from A = 0 to a bound beyond which the score is negative for certain (`objective.grid`). Each change
of sign from plus to minus is closed by bracketed Newton steps, and the maxima, A = 0 among them where the score there
is not positive, are compared by the criterion itself: the exact 0.0 is an answer.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import Terms, ml_constant, reml_constant, terms
from hierlmm.likelihood.area.objective import Objective, grid
from hierlmm.likelihood.area.working import Working, in_chunks, some

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]

# A score this small beside the sum of its terms' sizes is rounding error and has no sign.
NOISE = 64 * np.finfo(np.float64).eps
# Newton stops after a step this small beside A + D (beside A, with h): what is left is of the order of its square.
STEP = 1e-9
# A step that no longer shrinks is rounding error below this.
STALLED = 1e-10
# Bracketed steps allowed; halving alone needs 52 for every digit of a double.
STEPS = 80
# Largest Newton decrement, in units of the log-likelihood, of an optimum: a gain no table of likelihoods would show.
DECREMENT = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VarianceEstimate:
    """Â and the evidence that it solves what its method asks for over A >= 0.

    A            units of y squared; exactly 0.0 where the method says so
    score        ∂/∂A at Â of what is maximised, units 1/A: rounding error in the interior, <= 0 at zero. Of a method of
                 moments what is left of its equation: y'Py/(m − p) − 1 (fh), the raw estimate − Â in units of A (pr)
    multiplier   Karush-Kuhn-Tucker multiplier of A >= 0: −score at Â = 0, 0.0 in the interior
    decrement    score² over the observed information, twice the log-likelihood a further step could gain; 0.0 at zero
                 and of a method of moments
    converged    whether the decrement is below 1e-10 (always so at zero); of a method of moments, whether the equation
                 holds to 1e-10
    maxima       every local maximum that was found, increasing; Â is the highest. Of a method of moments Â alone
    evaluations  values of A at which the likelihood was evaluated
    loglik_ml, loglik_reml          both log-likelihoods at Â, all constants, nats, without h
    information_sum                 Σ w²/2 at Â, units 1/A²
    information_trace               tr(P²)/2 at Â, units 1/A²
    log_h        log h(Â) of an adjusted likelihood, what is maximised being log h + the log-likelihood; otherwise 0.0
    raw          the moment estimate before it is cut at 0 (Prasad and Rao); nan otherwise
    lifted       True where Â is positive by its adjustment alone: the likelihood itself is highest at A = 0
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
    log_h: float = 0.0
    raw: float = math.nan
    lifted: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """One end of N brackets: A (N,), the score there, and its slope (nan where it was not computed)."""

    A: Vector
    score: Vector
    slope: Vector


def maximise(objective: Objective, work: Working) -> VarianceEstimate:
    """The highest of all local maxima over A >= 0 of one response, the smaller A where two are equal."""
    points = grid(objective, work)
    scan = objective.read(points, terms(points, work), work)
    clear = np.flatnonzero(np.abs(scan.score) > NOISE * scan.size)
    downward = [
        (low, high) for low, high in itertools.pairwise(clear.tolist()) if scan.score[low] > 0 > scan.score[high]
    ]
    at_zero = objective.adjustment is None and not (clear.size and scan.score[clear[0]] > 0)
    maxima, evaluations = np.zeros(int(at_zero)), points.size
    if downward:
        left, right = (
            Ends(points[at], scan.score[at], scan.slope[at]) for at in map(list, zip(*downward, strict=True))
        )
        found, spent = roots(objective, work, left, right)
        maxima = np.concatenate([maxima, found])
        evaluations += spent
    if not maxima.size:
        # Never so by the bounds on the grid; should rounding defeat them, the certificate says "not converged".
        maxima = points[[np.argmin(scan.minus_2)]]
    return _certified(objective, maxima, work, evaluations + maxima.size)


def roots(objective: Objective, work: Working, left: Ends, right: Ends) -> tuple[Vector, int]:
    """Zeros (N,) of the score in N brackets, of one response or of N, and the number of evaluations spent.

    Newton's method on (A + c)² times the score, c a typical D: for equal D_i that is linear in A, so one step ends it.
    With h it is A (A + c)² times the score.
    """
    low, high = left.A.copy(), right.A.copy()
    c = _typical((low + high) / 2, work)
    A, last = _start(left, right, c), np.full(low.size, math.inf)
    active, spent = np.arange(low.size), 0
    adjusted = objective.adjustment is not None
    for _ in range(STEPS):
        at = A[active]
        part = work if work.y.ndim == 1 or active.size == low.size else some(work, active)
        here = objective.read(at, terms(at, part), part)
        spent += active.size
        low[active] = np.where(here.score > 0, at, low[active])
        high[active] = np.where(here.score > 0, high[active], at)
        shift = at + c[active]
        rate = here.slope + here.score * (2 / shift + (1 / at if adjusted else 0.0))
        new = at - here.score / np.where(rate < 0, rate, np.nan)
        inside = (new >= low[active]) & (new <= high[active])
        new = np.where(here.score == 0, at, np.where(inside, new, (low[active] + high[active]) / 2))
        step, scale = np.abs(new - at), at if adjusted else shift
        more = (step > STEP * scale) & ((step < last[active]) | (step > STALLED * scale))
        A[active], last[active] = new, step
        active = active[more]
        if not active.size:
            break
    return A, spent


def _typical(A: Vector, work: Working) -> Vector:
    """Mean of D weighted by w² at each of N values of A."""

    def weighted(part: Vector, of: Working) -> tuple[Vector]:
        w2 = np.square(1 / (part[:, None] + of.basis.D))
        return (w2 @ of.basis.D / w2.sum(axis=1),)

    return in_chunks(weighted, A, work)[0]


def _start(left: Ends, right: Ends, c: Vector) -> Vector:
    """Where the cubic through values and slopes of both ends, A as a function of (A + c)² score, is at zero.

    The secant where the cubic is not monotone or the slopes are not known.
    """
    a, b = left.A, right.A
    fa, fb = left.score * (a + c) ** 2, right.score * (b + c) ** 2
    ga, gb = left.slope * (a + c) ** 2 + 2 * fa / (a + c), right.slope * (b + c) ** 2 + 2 * fb / (b + c)
    t, width = fa / (fa - fb), fb - fa
    u, secant = 1 - t, a + t * (b - a)
    falling = (ga < 0) & (gb < 0)
    bend = u / np.where(falling, ga, np.nan) - t / np.where(falling, gb, np.nan)
    cubic = a * u * u * (1 + 2 * t) + b * t * t * (1 + 2 * u) + width * t * u * bend
    return np.where((cubic > a) & (cubic < b), cubic, secant)


def _certified(objective: Objective, maxima: Vector, work: Working, evaluations: int) -> VarianceEstimate:
    """The best of the local maxima, in the units of the data."""
    at = terms(maxima, work)
    here = objective.read(maxima, at, work)
    best = int(np.argmin(here.minus_2))
    A, score, slope = float(maxima[best]), float(here.score[best]), float(here.slope[best])
    scale = work.basis.scale
    decrement = score**2 / abs(slope) if A > 0 and slope else 0.0
    log_h, lifted = 0.0, False
    if objective.adjustment is not None:
        log_h = float(objective.adjustment.at(np.array([A * scale]), work.basis.D * scale)[0][0])
        lifted = maximise(Objective(objective.likelihood), work).A == 0
    return VarianceEstimate(
        A=A * scale,
        score=score / scale,
        multiplier=0.0 if A > 0 else max(0.0, -score / scale),
        decrement=decrement,
        converged=A == 0 or (decrement <= DECREMENT and slope < 0 and objective.exists(work.basis)),
        maxima=tuple(float(value) * scale for value in maxima),
        evaluations=evaluations,
        log_h=log_h,
        lifted=lifted,
        **at_one(at, best, work),
    )


def at_one(at: Terms, k: int, work: Working) -> dict[str, float]:
    """Log-likelihoods and informations at the k-th value of A, in the units of the data."""
    scale = work.basis.scale
    return {
        "loglik_ml": -(float(at.minus_2_ml[k]) + ml_constant(work)) / 2,
        "loglik_reml": -(float(at.minus_2_reml[k]) + reml_constant(work)) / 2,
        "information_sum": float(at.information_ml[k]) / scale**2,
        "information_trace": float(at.information_reml[k]) / scale**2,
    }
