"""Maximising a likelihood, adjusted or not, over the area variance A: every local maximum, with a certificate.

The score is a sum of terms that change with A on the scale of A + D_i, so a grid that is even in log(A + min D) sees
every one of them, from A = 0 to a bound beyond which the score is negative for certain (`objective.grid`). Each change
of sign from plus to minus is started from a polynomial through the scores and slopes near it and closed by bracketed
Newton steps, and the maxima, A = 0 among them where the score there
is not positive, are compared by the criterion itself: the exact 0.0 is an answer.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import Terms, ml_constant, reml_constant, terms, terms_and_factor
from hierlmm.likelihood.area.objective import Objective, Rise, grid
from hierlmm.likelihood.area.scan import quick_scores, start
from hierlmm.likelihood.area.working import Factor, Working, in_chunks, some

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]

# A score this small beside the sum of its terms' sizes is rounding error and has no sign.
NOISE = 64 * np.finfo(np.float64).eps
# A score from cross-products is taken for its sign where it is above this beside the sum of its terms' sizes.
UNCLEAR = 1e-7
# The search ends at an A from which Newton would move less than this beside A.
SAME = 1e-13
# That of many responses ends after a move this small beside A + D (beside A, with h): what is left is of the order of
# its square.
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
class Solved:
    """An estimate and the least-squares fit there, in working units (N = 1)."""

    estimate: VarianceEstimate
    fit: Factor


@dataclass(frozen=True, slots=True, eq=False)
class Brackets:
    """N values of A (N,) with the score positive at `low` and negative at `high`, and where in between to start."""

    low: Vector
    high: Vector
    start: Vector


def maximise(objective: Objective, work: Working) -> Solved:
    """The highest of all local maxima over A >= 0 of one response, the smaller A where two are equal."""
    points = grid(objective, work)
    rise = _scan(objective, points, work)
    clear = np.flatnonzero(np.abs(rise.score) > NOISE * rise.size).tolist()
    signs = np.sign(rise.score).tolist()
    downward = [(low, high) for low, high in itertools.pairwise(clear) if signs[low] > 0 > signs[high]]
    zero = np.zeros(int(objective.adjustment is None and not (clear and signs[clear[0]] > 0)))
    if downward:
        brackets = _bracketed(objective, points, rise, downward, work)
    else:
        # Nothing is left to find beside 0. Without 0, which the bounds on the grid rule out, the certificate will say
        # "not converged".
        brackets = Brackets(*(points[:0] if zero.size else points[-1:],) * 3)
    if zero.size:
        brackets = Brackets(*(np.append(zero, part) for part in (brackets.low, brackets.high, brackets.start)))
    A, at, fit, rounds = _polished(objective, work, brackets)
    return _certified(objective, A, at, fit, work, points.size + rounds * A.size)


def _scan(objective: Objective, points: Vector, work: Working) -> Rise:
    """Score and slope on the grid, by cross-products where that is exact enough for every sign."""
    if work.basis.tame:
        rise = objective.rise(points, quick_scores(points, work), work)
        if (np.abs(rise.score) > UNCLEAR * rise.size).all():
            return rise
    return objective.rise(points, terms(points, work), work)


def _bracketed(
    objective: Objective, points: Vector, rise: Rise, downward: list[tuple[int, int]], work: Working
) -> Brackets:
    """Brackets between grid points, started from the polynomial through their neighbours in log(A + min D)."""
    c = math.sqrt(work.basis.low * work.basis.high)
    stretch = np.square(points + c)
    rate = 2 / (points + c)
    if objective.adjustment is not None:
        stretch, rate = stretch * points, rate + 1 / points
    value = stretch * rise.score
    slope = (points + work.basis.low) * stretch * (rise.slope + rise.score * rate)
    x = np.log1p(points / work.basis.low)
    lists = x.tolist(), value.tolist(), slope.tolist()
    starts = [start(*lists, low) if high == low + 1 else (lists[0][low] + lists[0][high]) / 2 for low, high in downward]
    low, high = (points[list(ends)] for ends in zip(*downward, strict=True))
    return Brackets(low, high, np.clip(work.basis.low * np.expm1(starts), low, high))


def _polished(objective: Objective, work: Working, brackets: Brackets) -> tuple[Vector, Terms, Factor, int]:
    """Zeros A (N,) of the score of one response, what was evaluated at them, and the number of rounds.

    A bracket of no width is left as it is.
    """
    A, low, high = brackets.start, brackets.low, brackets.high
    c, last = _typical(A, work), np.full(A.size, math.inf)
    for rounds in range(1, STEPS + 1):
        at, fit = terms_and_factor(A, work)
        rise = objective.rise(A, at, work)
        if (np.abs(rise.score) <= -SAME * A * rise.slope).all():
            break
        new, low, high = newton(objective, A, rise, low, high, c)
        move = np.abs(new - A)
        more = (move > SAME * A) & ((move < last) | (move > STALLED * (A + c)))
        if rounds == STEPS or not more.any():
            break
        A, last = np.where(more, new, A), move
    return A, at, fit, rounds


def newton(
    objective: Objective, A: Vector, rise: Rise, low: Vector, high: Vector, c: Vector
) -> tuple[Vector, Vector, Vector]:
    """The next A (N,), and the narrower brackets.

    Newton's method on (A + c)² times the score, c a typical D: for equal D_i that is linear in A, so one step ends it.
    With h it is A (A + c)² times the score. The middle of the bracket is taken where that leads out of it.
    """
    score = rise.score
    low, high = np.where(score > 0, A, low), np.where(score > 0, high, A)
    rate = rise.slope + score * (2 / (A + c) + (0.0 if objective.adjustment is None else 1 / A))
    new = A - score / np.where(rate < 0, rate, np.nan)
    new = np.where((new >= low) & (new <= high), new, (low + high) / 2)
    return np.where(score == 0, A, new), low, high


def roots(objective: Objective, work: Working, brackets: Brackets) -> Vector:
    """Zeros (N,) of the scores of N responses, each in its bracket; those that are found drop out of the rounds."""
    A, low, high = brackets.start.copy(), brackets.low.copy(), brackets.high.copy()
    c, last = _typical(A, work), np.full(A.size, math.inf)
    active = np.arange(A.size)
    for _ in range(STEPS):
        part = work if active.size == A.size else some(work, active)
        here = A[active]
        rise = objective.rise(here, terms(here, part), part)
        new, low[active], high[active] = newton(objective, here, rise, low[active], high[active], c[active])
        move, scale = np.abs(new - here), here if objective.adjustment is not None else here + c[active]
        more = (move > STEP * scale) & ((move < last[active]) | (move > STALLED * scale))
        A[active], last[active] = new, move
        active = active[more]
        if not active.size:
            break
    return A


def _typical(A: Vector, work: Working) -> Vector:
    """A value between the smallest and the largest D: their geometric mean, or the mean weighted by w² at A (N,)."""
    basis = work.basis
    if basis.tame:
        return np.full(A.size, math.sqrt(basis.low * basis.high))

    def weighted(part: Vector, of: Working) -> tuple[Vector]:
        w2 = np.square(1 / (part[:, None] + of.basis.D))
        return (w2 @ of.basis.D / w2.sum(axis=1),)

    return in_chunks(weighted, A, work)[0]


def _certified(objective: Objective, maxima: Vector, at: Terms, fit: Factor, work: Working, evaluations: int) -> Solved:
    """The best of the local maxima, in the units of the data."""
    rise = objective.rise(maxima, at, work)
    best = 0 if maxima.size == 1 else int(np.argmin(objective.minus_2(maxima, at, work)))
    A, score, slope = float(maxima[best]), float(rise.score[best]), float(rise.slope[best])
    scale = work.basis.scale
    decrement = score**2 / abs(slope) if A > 0 and slope else 0.0
    log_h, lifted = 0.0, False
    if objective.adjustment is not None:
        log_h = float(objective.adjustment.at(np.array([A * scale]), work.basis.D * scale)[0][0])
        lifted = maximise(Objective(objective.likelihood), work).estimate.A == 0
    estimate = VarianceEstimate(
        A=A * scale,
        score=score / scale,
        multiplier=0.0 if A > 0 else max(0.0, -score / scale),
        decrement=decrement,
        converged=A == 0 or (decrement <= DECREMENT and slope < 0 and objective.exists(work.basis)),
        maxima=tuple((maxima * scale).tolist()),
        evaluations=evaluations,
        log_h=log_h,
        lifted=lifted,
        **at_one(at, best, work),
    )
    return Solved(estimate, fit if maxima.size == 1 else one_of(fit, best))


def one_of(fit: Factor, k: int) -> Factor:
    """The k-th of N least-squares fits."""
    part = slice(k, k + 1)
    return Factor(fit.root[part], fit.delta[part], fit.residual[part], fit.log_det[part])


def at_one(at: Terms, k: int, work: Working) -> dict[str, float]:
    """Log-likelihoods and informations at the k-th value of A, in the units of the data."""
    scale = work.basis.scale
    return {
        "loglik_ml": -(float(at.minus_2_ml[k]) + ml_constant(work)) / 2,
        "loglik_reml": -(float(at.minus_2_reml[k]) + reml_constant(work)) / 2,
        "information_sum": float(at.information_ml[k]) / scale**2,
        "information_trace": float(at.information_reml[k]) / scale**2,
    }
