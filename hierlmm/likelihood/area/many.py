"""The area variance of many responses on one design at once: what a bootstrap needs, as the single estimators give it.

The weights at a point of the grid are the same for every response, so its score there is two thin matrix products;
the roots are then closed by Newton steps on all responses together, each with weights of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import terms
from hierlmm.likelihood.area.estimators import SOLVED
from hierlmm.likelihood.area.moment_equations import equation_root, left_over, raw_moment
from hierlmm.likelihood.area.objective import OBJECTIVES, Objective, grid
from hierlmm.likelihood.area.variance import DECREMENT, NOISE, Brackets, roots
from hierlmm.likelihood.area.working import CHUNK, Basis, Working, by_qr, factor, in_chunks, inverse_root, some, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class ManyEstimates:
    """A (B,), units of y squared, exactly 0.0 where the method says so; converged (B,), as in `VarianceEstimate`."""

    A: Vector
    converged: NDArray[np.bool_]


def estimate_many(method: str, Y: Matrix, X: Matrix, D: Vector) -> ManyEstimates:
    """Â of each row of Y (B, m) by a method of `ESTIMATORS`; X (m, p) and D (m,) are common to them."""
    if not len(Y):
        return ManyEstimates(np.empty(0), np.empty(0, dtype=bool))
    work = working(Y, X, D)
    A, converged = METHODS[method](work) if method in METHODS else _maximise(OBJECTIVES[method], work)
    return ManyEstimates(A * work.basis.scale, converged)


def predict_many(A: Vector, Y: Matrix, X: Matrix, D: Vector, X_all: Matrix | None = None) -> tuple[Matrix, Matrix]:
    """β (B, p) and the estimates θ (B, M) of area means given A (B,): EBLUPs at A = Â.

    X_all  (M, p) covariates of all areas, of which the first m are those of Y; the others have no direct estimate, and
           theirs is the synthetic x'β. None: X, so that M = m
    """
    work = working(Y, X, D)
    basis = work.basis
    beta, theta = in_chunks(_predicted, A / basis.scale, work)
    theta = Y - np.sqrt(basis.scale) * theta
    beta_all = work.beta_ols + beta @ basis.to_beta.T
    if X_all is None:
        return beta_all, theta
    centred = X_all[len(D) :] @ basis.centring
    on_Q = work.fitted + np.sqrt(basis.scale) * beta
    rest = on_Q @ (centred @ basis.to_basis).T + work.level[:, None] * (centred @ basis.one)
    return beta_all, np.concatenate([theta, rest], axis=1)


def _predicted(A: Vector, work: Working) -> tuple[Matrix, Matrix]:
    """Coefficients on Q and (1 − γ) r at A (n,)."""
    D = work.basis.D
    w = 1 / (A[:, None] + D)
    fit = factor(w, work)
    return fit.delta, D * w * fit.residual


def _fay_herriot(work: Working) -> tuple[Vector, NDArray[np.bool_]]:
    A, _ = equation_root(work)
    return A, (A == 0) | (np.abs(left_over(A, work)) <= SOLVED)


def _prasad_rao(work: Working) -> tuple[Vector, NDArray[np.bool_]]:
    A = np.maximum(raw_moment(work), 0.0)
    return A, np.ones(A.size, dtype=bool)


def _mix(work: Working) -> tuple[Vector, NDArray[np.bool_]]:
    A, converged = _maximise(OBJECTIVES["reml"], work)
    zero = np.flatnonzero(A == 0)
    if zero.size:
        A[zero], converged[zero] = _maximise(OBJECTIVES["ampl_ll"], some(work, zero))
    return A, converged


METHODS = {"fh": _fay_herriot, "pr": _prasad_rao, "mix": _mix}


def _maximise(objective: Objective, work: Working) -> tuple[Vector, NDArray[np.bool_]]:
    """`variance.maximise` for n responses; nan and not converged where no maximum was found."""
    n = len(work.y)
    response, brackets, at_zero = _brackets(objective, work)
    found = roots(objective, some(work, response), brackets)
    zero = np.flatnonzero(at_zero)
    response, at = np.concatenate([zero, response]), np.concatenate([np.zeros(zero.size), found])
    each = some(work, response)
    there = terms(at, each)
    rise = objective.rise(at, there, each)
    optimum = (at == 0) | ((np.square(rise.score) <= DECREMENT * np.abs(rise.slope)) & (rise.slope < 0))
    # The best of each response is written last; of two equal ones that is the smaller A.
    order = np.lexsort((-at, -objective.minus_2(at, there, each), response))
    A, converged = np.full(n, np.nan), np.zeros(n, dtype=bool)
    A[response[order]], converged[response[order]] = at[order], optimum[order]
    return A, converged & objective.exists(work.basis)


def _brackets(objective: Objective, work: Working) -> tuple[Indices, Brackets, NDArray[np.bool_]]:
    """Every change of sign from plus to minus along the grid: whose score (N,), and the brackets.

    Beside them which of the n responses begin with a maximum at zero. A piece of the responses at a time.
    """
    points = grid(objective, work)
    shared = _shared(points, work.basis)
    slope_h = objective.adjustment_at(points, work)[1]
    size = max(1, CHUNK // work.basis.D.size)
    parts = []
    for start in range(0, len(work.y), size):
        half = _half_yP2y(shared, work.y[start : start + size], work.basis.Q)
        score = half - (shared.sum_w if objective.likelihood == "ml" else shared.trace_P) / 2 + slope_h
        clear = np.abs(score) > NOISE * (half + shared.sum_w / 2 + slope_h)
        row, low, high, rises = _changes(np.where(clear, np.sign(score), 0.0))
        between = _secant(objective, points[low], score[row, low], points[high], score[row, high], work.basis)
        parts.append((row + start, points[low], points[high], between, ~rises))
    response, a, b, between, not_rising = (np.concatenate(part) for part in zip(*parts, strict=True))
    at_zero = not_rising if objective.adjustment is None else np.zeros(not_rising.size, dtype=bool)
    return response, Brackets(a, b, between), at_zero


def _secant(objective: Objective, a: Vector, fa: Vector, b: Vector, fb: Vector, basis: Basis) -> Vector:
    """Where the line between both ends of what `variance.newton` steps on is zero."""
    c = math.sqrt(basis.low * basis.high)
    fa, fb = fa * (a + c) ** 2, fb * (b + c) ** 2
    if objective.adjustment is not None:
        fa, fb = fa * a, fb * b
    return a + (b - a) * fa / (fa - fb)


def _changes(sign: Matrix) -> tuple[Indices, Indices, Indices, NDArray[np.bool_]]:
    """Row and columns of each −1 whose last nonzero neighbour to the left is 1; and which rows begin with a 1."""
    column = np.arange(sign.shape[1])
    seen = np.maximum.accumulate(np.where(sign != 0, column, -1), axis=1)
    before = np.concatenate([np.full((len(sign), 1), -1), seen[:, :-1]], axis=1)
    was = np.take_along_axis(sign, np.maximum(before, 0), axis=1)
    row, high = np.nonzero((sign < 0) & (before >= 0) & (was > 0))
    begins = np.take_along_axis(sign, (sign != 0).argmax(axis=1)[:, None], axis=1)[:, 0]
    return row, before[row, high], high, begins > 0


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """What does not depend on the response at K values of A.

    w             (K, m) weights
    gain          K matrices (m, p): the coefficients of y on Q are y' gain
    sum_w         (K,) Σ w, and trace_P (K,) tr P
    """

    w: Matrix
    gain: list[Matrix]
    sum_w: Vector
    trace_P: Vector


def _shared(A: Vector, basis: Basis) -> _Shared:
    p = basis.Q.shape[1]
    w = 1 / (A[:, None] + basis.D)
    root, _, poor = inverse_root((w @ basis.QQ).reshape(len(w), p, p))
    gain = []
    for k in range(A.size):
        if poor[k]:
            root[k], gain_k = by_qr(w[k], basis)
        else:
            gain_k = w[k][:, None] * (basis.Q @ (root[k].T @ root[k]))
        gain.append(gain_k)
    second = root @ (np.square(w) @ basis.QQ).reshape(len(w), p, p) @ root.mT
    sum_w = w.sum(axis=1)
    return _Shared(w, gain, sum_w, sum_w - np.trace(second, axis1=1, axis2=2))


def _half_yP2y(shared: _Shared, y: Matrix, Q: Matrix) -> Matrix:
    """(n, K) y'P²y/2 of n responses."""
    half = np.empty((len(y), len(shared.w)))
    for k, (w, gain) in enumerate(zip(shared.w, shared.gain, strict=True)):
        residual = y - (y @ gain) @ Q.T
        half[:, k] = np.square(residual, out=residual) @ (w * w) / 2
    return half
