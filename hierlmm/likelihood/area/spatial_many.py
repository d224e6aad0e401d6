"""(Â, ρ̂) and predictions of many responses of one spatial area-level model at once, for bootstraps.

The decompositions at a value of ρ serve every response. Over the grid of the single search, each response has its best
A and the slope of its profile at every node; where the slope falls through zero, its place is first read off a cubic.
Around it six nodes of a lattice four times finer, which all responses share, carry the slope, Â and the predictions
along the profile, and the six-point polynomial through them gives the root of the slope and everything at it. That is
the answer of `spatial_search.maximise` to about 1e-7 of a standard error. A response whose profile touches A = 0 within
its six nodes, where it is not smooth, is sent to the single search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area import many
from hierlmm.likelihood.area.criterion import LOG_2PI
from hierlmm.likelihood.area.spatial import Node, Problem, node, rough_node
from hierlmm.likelihood.area.spatial_derivatives import Curvature, Method, curvature
from hierlmm.likelihood.area.spatial_search import STEP, grid, maximise, wide

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# The finer lattice in the logit of the place of ρ, and the nodes of it that carry one response.
FINE = STEP / 4
POINTS = 6
# Newton steps on the polynomial through the slopes.
ROOT_STEPS = 30


@dataclass(frozen=True, slots=True, eq=False)
class ManySpatial:
    """What the fits of n responses give.

    A, rho     (n,) estimates; rho is nan where A is 0
    theta      (n, M) predictions of all areas, less the fixed part that was taken off the responses
    leading    (n, M) the first two terms of the mean squared error at the estimates
    converged  (n,) whether the search ended at a maximum
    """

    A: Vector
    rho: Vector
    theta: Matrix
    leading: Matrix
    converged: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """The profiles of n responses on K nodes: A, log likelihood and slope in t, each (K, n)."""

    t: Vector
    A: Matrix
    loglik: Matrix
    slope: Matrix


def estimate_many(problem: Problem, Y: Matrix, method: Method) -> ManySpatial:
    """Fit every row of Y (n, m), responses of the areas in the fit in the units of the data, fixed part taken off."""
    n, M = len(Y), len(problem.W)
    out = ManySpatial(
        np.zeros(n), np.full(n, np.nan), np.zeros((n, M)), np.zeros((n, M)), np.ones(n, dtype=bool)
    )
    if wide(problem):  # even steps in the logit are too coarse near 0
        for b in range(n):
            _single(problem, Y[b], method, b, out)
        return out
    scan = _scan(problem, Y, method)
    t0, place = _where(scan)
    inner = np.flatnonzero(place == INNER)
    alone = _interpolated(problem, Y, method, inner, t0[inner], out)
    for end, code in ((0, LOW), (-1, HIGH)):
        own = np.flatnonzero(place == code)
        if own.size:
            at = node(problem, _rho(problem, scan.t[[end]])[0])
            _write(out, own, *_along(at, _forward(at, Y[own]), scan.A[end, own]))
            out.A[own], out.rho[own] = scan.A[end, own], at.rho
    zero = np.flatnonzero(place == ZERO)
    if zero.size:
        at = node(problem, 0.0)
        _write(out, zero, *_along(at, _forward(at, Y[zero]), np.zeros(zero.size)))
    for b in np.concatenate([alone, np.flatnonzero(place == ALONE)]):
        _single(problem, Y[b], method, int(b), out)
    return out


def predict_many(at: Node, Y: Matrix, A: float) -> Matrix:
    """(n, M) predictions from responses Y (n, m) at one A and the ρ of a node, fixed part taken off as in `Y`."""
    return _along(at, _forward(at, Y), np.full(len(Y), A))[0]


def zero_statistics(problem: Problem, Y: Matrix, method: Method) -> Vector:
    """(n,) twice the rise of the log likelihood from A = 0 to its highest point on the grid of ρ, for Y (n, m)."""
    scan = _scan(problem, Y, method)
    at = node(problem, 0.0)
    none, _ = _profile(at, curvature(at), _forward(at, Y), np.zeros(len(Y)), method)
    return np.asarray(2 * np.maximum(scan.loglik.max(axis=0) - none, 0.0))


INNER, LOW, HIGH, ZERO, ALONE = 0, 1, 2, 3, 4


def _logit(problem: Problem, rho: Vector) -> Vector:
    low, high = problem.ends
    return np.asarray(np.log(rho - low) - np.log(high - rho))


def _rho(problem: Problem, t: Vector) -> Vector:
    low, high = problem.ends
    share = 1 / (1 + np.exp(np.abs(t)))
    return np.where(t < 0, low + (high - low) * share, high - (high - low) * share)


def _stretch(problem: Problem, t: Vector) -> Vector:
    """dρ/dt."""
    share = 1 / (1 + np.exp(np.abs(t)))
    return np.asarray((problem.ends[1] - problem.ends[0]) * share * (1 - share))


def _forward(at: Node, Y: Matrix) -> Matrix:
    return np.asarray(at.forward(Y.T).T)


def _scan(problem: Problem, Y: Matrix, method: Method) -> _Scan:
    rho = grid(problem)
    t = _logit(problem, rho)
    stretch = _stretch(problem, t)
    rows = []
    for k, value in enumerate(rho):
        at = (node if k in (0, len(rho) - 1) else rough_node)(problem, float(value))
        own = _forward(at, Y)
        A = many.estimate_many(method, own, at.Q, at.d).A
        loglik, slope = _profile(at, curvature(at), own, A, method)
        rows.append((A, loglik, slope * stretch[k]))
    A, loglik, slope = (np.array(part) for part in zip(*rows, strict=True))
    return _Scan(t, A, loglik, slope)


def _profile(at: Node, change: Curvature, y: Matrix, A: Vector, method: Method) -> tuple[Vector, Vector]:
    """Log likelihood (n,) up to a constant common to all nodes, and ∂ℓ/∂ρ, at A (n,)."""
    fit = _least_squares(at, y, A)
    m = len(at.d)
    K = change.slope[:m, :m]
    Py = fit.w * fit.residual
    loglik = (np.log(fit.w).sum(axis=1) - (Py * fit.residual).sum(axis=1)) / 2 + at.log_det_T
    trace = fit.w @ np.diagonal(K)
    if method == "reml":
        loglik = loglik - np.log(np.diagonal(fit.R, axis1=1, axis2=2)).sum(axis=1)
        half = fit.root @ (fit.w[:, None, :] * at.Q.T)  # (n, p, m)
        trace = trace - ((half.reshape(-1, m) @ K).reshape(half.shape) * half).sum(axis=(1, 2))
    return loglik - m * LOG_2PI / 2, A * (((Py @ K) * Py).sum(axis=1) - trace) / 2


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Weighted least squares at n values of A: R (n, p, p) with R R' = Q'WQ, root = R⁻¹."""

    w: Matrix
    R: Array
    root: Array
    delta: Matrix
    residual: Matrix


def _least_squares(at: Node, y: Matrix, A: Vector) -> _Fit:
    p = at.Q.shape[1]
    w = 1 / (A[:, None] + at.d)
    # the columns of Q may differ in size here by what T does to them
    unit = np.sqrt(np.square(at.Q).sum(axis=0))
    Q = at.Q / unit
    pairs = (Q[:, :, None] * Q[:, None, :]).reshape(len(at.d), p * p)
    M = (w @ pairs).reshape(-1, p, p)
    size = np.sqrt(np.diagonal(M, axis1=1, axis2=2))
    L = np.linalg.cholesky(M / (size[:, :, None] * size[:, None, :]))
    R = L * (size * unit)[:, :, None]
    root = np.linalg.solve(R, np.broadcast_to(np.eye(p), R.shape))
    delta = ((root.mT @ root) @ ((w * y) @ at.Q)[:, :, None])[:, :, 0]
    return _Fit(w, R, root, delta, y - delta @ at.Q.T)


def _where(scan: _Scan) -> tuple[Vector, Indices]:
    """For each response the place t of the best maximum, read off cubics, and its kind."""
    n = scan.A.shape[1]
    best = np.full(n, -np.inf)
    t0, place = np.zeros(n), np.full(n, ZERO)
    for k in range(1, len(scan.t) - 2):
        rises, falls = scan.slope[k] > 0, scan.slope[k + 1] < 0
        falls = (rises & (falls | (scan.A[k + 1] == 0))) | (falls & (scan.A[k] == 0))
        if falls.any():
            own = np.flatnonzero(falls)
            t, height = _cubic(scan, k, own)
            better = height > best[own]
            own, t, height = own[better], t[better], height[better]
            best[own], t0[own], place[own] = height, t, INNER
    for k, near, code in ((0, 1, LOW), (-1, -2, HIGH)):
        outward = (scan.A[k] > 0) & (scan.loglik[k] > scan.loglik[near]) & (scan.loglik[k] > best)
        best[outward], place[outward] = scan.loglik[k][outward], code
    place[(place == ZERO) & (scan.A > 0).any(axis=0)] = ALONE
    return t0, place


def _cubic(scan: _Scan, k: int, own: Indices) -> tuple[Vector, Vector]:
    """Maximum of the cubic with the values and slopes of both ends of cell k: its place and height."""
    a, h = scan.t[k], scan.t[k + 1] - scan.t[k]
    fa, fb = scan.loglik[k, own], scan.loglik[k + 1, own]
    ga, gb = h * scan.slope[k, own], h * scan.slope[k + 1, own]
    c2, c3 = 3 * (fb - fa) - 2 * ga - gb, 2 * (fa - fb) + ga + gb
    # the root of ga + 2 c2 s + 3 c3 s² at which it falls
    s = ga / (-c2 + np.sqrt(np.maximum(c2 * c2 - 3 * c3 * ga, 0.0)))
    s = np.clip(np.where(np.isfinite(s), s, 0.5), 0.0, 1.0)
    return a + h * s, fa + s * (ga + s * (c2 + s * c3))


def _interpolated(problem: Problem, Y: Matrix, method: Method, own: Indices, t0: Vector, out: ManySpatial) -> Indices:
    """Fill `out` for the responses `own`, whose maxima are near t0; returns those that need the single search."""
    if not own.size:
        return own
    M = len(problem.W)
    first = np.round(t0 / FINE - (POINTS - 1) / 2).astype(np.intp)
    A, slope = np.empty((own.size, POINTS)), np.empty((own.size, POINTS))
    theta, leading = np.empty((own.size, POINTS, M)), np.empty((own.size, POINTS, M))
    for place, (rows, column) in _needed(first):
        t = np.array([place * FINE])
        at = node(problem, float(_rho(problem, t)[0]))
        y = _forward(at, Y[own[rows]])
        A[rows, column] = many.estimate_many(method, y, at.Q, at.d).A
        slope[rows, column] = _profile(at, curvature(at), y, A[rows, column], method)[1] * _stretch(problem, t)
        theta[rows, column], leading[rows, column] = _along(at, y, A[rows, column])
    s, weight, inside = _root(slope)
    smooth = inside & (A > 0).all(axis=1)
    t = (first + s) * FINE
    good = own[smooth]
    out.A[good] = (weight * A).sum(axis=1)[smooth]
    out.rho[good] = _rho(problem, t)[smooth]
    out.theta[good] = np.einsum("bk,bki->bi", weight, theta)[smooth]
    out.leading[good] = np.einsum("bk,bki->bi", weight, leading)[smooth]
    return own[~smooth]


def _needed(first: Indices) -> Iterator[tuple[int, tuple[Indices, Indices]]]:
    """Every lattice place that some response needs, with the rows that do and the column it is for them."""
    for place in range(int(first.min()), int(first.max()) + POINTS):
        column = place - first
        rows = np.flatnonzero((column >= 0) & (column < POINTS))
        if rows.size:
            yield place, (rows, column[rows])


def _root(slope: Matrix) -> tuple[Vector, Matrix, NDArray[np.bool_]]:
    """Root in 0 … POINTS − 1 of the polynomial through slopes (n, POINTS), the weights of its points, and whether one
    was found where the slope falls, at or inside the middle stretch and its neighbours."""
    # Newton's divided differences on unit steps
    coefficient = slope.copy()
    for k in range(1, POINTS):
        coefficient[:, k:] = (coefficient[:, k:] - coefficient[:, k - 1 : -1]) / k
    s = np.full(len(slope), (POINTS - 1) / 2)
    for _ in range(ROOT_STEPS):
        value, rate = coefficient[:, -1].copy(), np.zeros(len(slope))
        for k in range(POINTS - 2, -1, -1):
            rate = rate * (s - k) + value
            value = value * (s - k) + coefficient[:, k]
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(rate < 0, value / rate, np.nan)
        s = np.clip(s - np.clip(step, -1.0, 1.0), 0.0, POINTS - 1.0)
    inside = np.isfinite(s) & (np.abs(step) < 1e-9) & (s > 0.5) & (s < POINTS - 1.5)
    s = np.where(inside, s, (POINTS - 1) / 2)
    nodes = np.arange(POINTS)
    weight = np.empty_like(slope)
    for k in range(POINTS):
        others = nodes[nodes != k]
        weight[:, k] = np.prod((s[:, None] - others) / (k - others), axis=1)
    return s, weight, inside


def _along(at: Node, y: Matrix, A: Vector) -> tuple[Matrix, Matrix]:
    """Predictions (n, M) and the leading terms of their mean squared errors at A (n,), from y (n, m) of the node."""
    problem, model = at.problem, at.problem.model
    fit = _least_squares(at, y, A)
    rows = model.rows(problem.X)
    gamma, kept = A[:, None] * fit.w, at.d * fit.w
    theta = fit.delta @ rows.T + at.reach((gamma * fit.residual).T).T
    L = at.loadings()
    m, M = len(at.d), len(problem.W)
    g1 = np.empty((len(A), M))
    g1[:] = (A[:, None] * kept) @ np.square(L[:, :m]).T + A[:, None] * np.square(L[:, m:]).sum(axis=1)
    g2 = np.zeros_like(g1)
    for j in range(at.Q.shape[1]):  # columns of H root', H = X − c X_s
        half = fit.root[:, j]
        g2 += np.square(half @ rows.T - at.reach((gamma * (half @ at.Q.T)).T).T)
    return theta, g1 + g2


def _write(out: ManySpatial, own: Indices, theta: Matrix, leading: Matrix) -> None:
    out.theta[own], out.leading[own] = theta, leading


def _single(problem: Problem, y: Vector, method: Method, b: int, out: ManySpatial) -> None:
    """One response by the search of a single fit."""
    alone = replace(problem, model=replace(problem.model, y=y))
    found = maximise(alone, method)
    at = node(alone, 0.0 if math.isnan(found.rho) else found.rho)
    theta, leading = _along(at, at.y[None], np.array([found.A]))
    out.A[b], out.rho[b], out.converged[b] = found.A, found.rho, found.converged
    out.theta[b], out.leading[b] = theta[0], leading[0]
