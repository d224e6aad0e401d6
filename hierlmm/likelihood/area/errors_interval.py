"""An estimate of the area variance of its own for each area, made so that θ̂_i ± z √g1_i has second-order coverage.

The interval θ̂_i(A) ± z √g1_i(A) covers θ_i with probability 2Φ(z) − 1 but for terms of order 1/m when A is estimated.
They vanish if the estimate of A for area i maximises h_i(A) exp ℓ_REML(A) with, C = (X'V⁻¹X)⁻¹,

    (log h_i)'(A) = (1 + z²)/(4 A) + (7 − z²)/(4 (A + D_i)) + ½ x_i'C x_i Σ_j (A + D_j)⁻²

The first two are the slope of A^((1+z²)/4) (A+D_i)^((7−z²)/4), the third makes up for estimating β. As g1_i < D_i,
every interval is shorter than that of the direct estimate. The maximum exists where m > (4 + p)/(1 − q_i), q_i the
leverage of area i under equal weights. Source: Yoshimori and Lahiri (2014, Ann. Statist. 42:1233-1261). An area without
a direct estimate is the limit of a large D_i.

The scores of all areas share ℓ_REML, so that they are read off one polynomial in log(A + min D), through Chebyshev
nodes on a range that holds every root: O(m) for all areas together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import terms
from hierlmm.likelihood.area.working import CHUNK, Working, factor, in_chunks, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Positions = NDArray[np.intp]

# Spacing of the grid of scores in log A.
STEP = 0.25
# Chebyshev nodes on the range of the roots, and more for each unit of it: the nearest pole is pi away.
NODES, NODES_A_UNIT = 32, 12
# Steps of the bracketed secant, and their size beside A at which the root is found.
STEPS, CLOSE = 60, 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class OwnVariance:
    """For each of k areas: A (k,) the estimate, nan where none exists; theta (k,) x'β̂ + v̂ and g1 (k,) at it."""

    A: Vector
    theta: Vector
    g1: Vector


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """k areas: x (k, p) on the basis Q, D (k,), inf without a direct estimate, and the OLS residual (k,), 0 there."""

    x: Matrix
    D: Vector
    residual: Vector

    def some(self, which: slice | Positions) -> Areas:
        """Some of them."""
        return Areas(self.x[which], self.D[which], self.residual[which])


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What the scores of all areas share at N values of A; each is smooth in log(A + d), d the smallest D.

    score  (N,) that of ℓ_REML times A + d; w2 (N,) Σ w² times (A + d)²; C (N, p, p) over A + d; delta (N, p)
    """

    score: Vector
    w2: Vector
    C: Array
    delta: Matrix


def own_variances(z: float, y: Vector, X: Matrix, D: Vector, rows: Matrix, own: Positions) -> OwnVariance:
    """Estimates for k areas and a normal quantile z > 0: own (k,) position among the m in the fit, -1 outside it.

    y (m,), X (m, p), D (m,) as in `likelihood.area.criterion`; rows (k, p) covariates of the areas.
    """
    work = working(y, X, D)
    basis = work.basis
    known = own >= 0
    areas = Areas(
        x=rows @ basis.centring @ basis.to_basis,
        D=np.where(known, basis.D[own], np.inf),
        residual=np.where(known, work.y[own], 0.0),
    )
    left, right = _brackets(z, areas, work)
    found = np.flatnonzero(np.isfinite(left))
    A, pull, g1 = (np.full(len(rows), np.nan) for _ in range(3))
    if found.size:
        A[found], pull[found], g1[found] = _solved(z, areas.some(found), left[found], right[found], work)
    level = rows @ basis.centring @ (work.level * basis.one)
    theta = level + areas.x @ work.fitted + math.sqrt(basis.scale) * (areas.residual - pull)
    return OwnVariance(basis.scale * A, theta, basis.scale * g1)


def _brackets(z: float, areas: Areas, work: Working) -> tuple[Vector, Vector]:
    """Ends (k,) of a cell of the grid of A that holds the highest maximum of each area, nan where there is none."""
    m, p = work.basis.Q.shape
    margin = m - p - np.where(np.isfinite(areas.D), 4.0, (1 + z * z) / 2) - m * np.square(areas.x).sum(axis=1)
    exists = margin > 0
    left, right = np.full(len(margin), np.nan), np.full(len(margin), np.nan)
    if not exists.any():
        return left, right
    A = _grid(z, float(margin[exists].min()), work)
    shared = _shared(A, work)
    size = max(1, CHUNK // A.size)
    for start in range(0, len(margin), size):
        part = slice(start, start + size)
        score = _score(z, A[:, None], shared, areas.some(part), float(work.basis.D.min()))
        falls = (score[:-1] > 0) & (score[1:] <= 0)
        slopes = score * A[:, None]
        rise = np.concatenate([np.zeros((1, score.shape[1])), np.cumsum(slopes[:-1] + slopes[1:], axis=0)])
        cell = np.argmax(np.where(falls, rise[:-1], -np.inf), axis=0)
        there = exists[part] & falls.any(axis=0)
        left[part], right[part] = np.where(there, A[cell], np.nan), np.where(there, A[cell + 1], np.nan)
    return left, right


def _grid(z: float, margin: float, work: Working) -> Vector:
    """Values of A, even in log A, from one where every score is positive to one where every score is negative.

    The score of ℓ_REML is above −Σ(1/D)/2, and (log h)' above min(1 + z², 8)/(4 A). Far out the score is −margin/(2 A)
    and terms that fall as 1/A² with coefficients of the size of y'y and m max D.
    """
    D = work.basis.D
    first = min(1 + z * z, 8.0) / 4 / float((1 / D).sum())
    last = 8 * (float(work.y @ work.y) + len(D) * float(D.max())) / min(margin, 1.0)
    return np.asarray(np.exp(np.arange(math.log(first), math.log(last) + STEP, STEP)))


def _shared(A: Vector, work: Working) -> Shared:
    c = A + work.basis.D.min()

    def fitted(part: Vector, of: Working) -> tuple[Array, ...]:
        w = 1 / (part[:, None] + of.basis.D)
        fit = factor(w, of)
        return np.square(w).sum(axis=1), fit.root.mT @ fit.root, fit.delta

    w2, C, delta = in_chunks(fitted, A, work)
    return Shared(terms(A, work).score_reml * c, w2 * c * c, C / c[:, None, None], delta)


def _score(z: float, A: Array, at: Shared, areas: Areas, d: float) -> Array:
    """Slope of log h_i + ℓ_REML, (N, k) at A (N, 1) for every area, or (k,) at A (k,), each area's own."""
    spread = "ij,njk,ik->ni" if A.ndim == 2 else "ij,ijk,ik->i"
    c = np.einsum(spread, areas.x, at.C, areas.x, optimize=True)
    score, w2 = (value[:, None] if A.ndim == 2 else value for value in (at.score, at.w2))
    power = (1 + z * z) / (4 * A) + (7 - z * z) / (4 * (A + areas.D))
    return np.asarray(power + (score + c * w2 / 2) / (A + d))


def _solved(z: float, areas: Areas, left: Vector, right: Vector, work: Working) -> tuple[Vector, Vector, Vector]:
    """A, (1 − γ) r and g1 (k,) at the root of each score in its bracket, working units."""
    d = float(work.basis.D.min())
    low, high = math.log1p(left.min() / d), math.log1p(right.max() / d)
    size = NODES + math.ceil(NODES_A_UNIT * (high - low))
    nodes = np.cos(np.pi * np.arange(size) / (size - 1))
    shared = _shared(d * np.expm1((low + high + (high - low) * nodes) / 2), work)

    def read(A: Vector) -> Shared:
        weights = _weights((2 * np.log1p(A / d) - low - high) / (high - low), nodes)
        p = shared.delta.shape[1]
        C = (weights @ shared.C.reshape(size, p * p)).reshape(-1, p, p)
        return Shared(weights @ shared.score, weights @ shared.w2, C, weights @ shared.delta)

    A = _secant(lambda at: _score(z, at, read(at), areas, d), left, right)
    residual = areas.residual - (areas.x * read(A).delta).sum(axis=1)
    known = np.isfinite(areas.D)
    D = np.where(known, areas.D, 1.0)
    B = np.where(known, D / (A + D), 1.0)
    return A, B * residual, A * B


def _weights(x: Vector, nodes: Vector) -> Matrix:
    """(k, N) weights of values at the Chebyshev nodes in the value at x (k,) of the polynomial through them.

    Source: Berrut and Trefethen (2004, SIAM Review 46:501-517), the second barycentric form.
    """
    alternate = np.where(np.arange(nodes.size) % 2 == 0, 1.0, -1.0)
    alternate[[0, -1]] /= 2
    apart = x[:, None] - nodes
    at_node = apart == 0
    weights = alternate / np.where(at_node, 1.0, apart)
    weights = np.where(at_node.any(axis=1, keepdims=True), at_node.astype(np.float64), weights)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _secant(function: Callable[[Vector], Vector], left: Vector, right: Vector) -> Vector:
    """Roots (k,) of a function that is positive at left and not at right: regula falsi with the Illinois weights."""
    a, b = left.copy(), right.copy()
    fa, fb = function(a), function(b)
    last = np.zeros(a.size)
    at = a
    for _ in range(STEPS):
        new = (a * fb - b * fa) / np.where(fb == fa, 1.0, fb - fa)
        new = np.where((fb != fa) & (new >= a) & (new <= b), new, (a + b) / 2)
        value = function(new)
        positive = value > 0
        fb = np.where(positive & (last > 0), fb / 2, fb)
        fa = np.where(~positive & (last < 0), fa / 2, fa)
        a, fa = np.where(positive, new, a), np.where(positive, value, fa)
        b, fb = np.where(positive, b, new), np.where(positive, fb, value)
        last = np.where(positive, 1.0, -1.0)
        done = (np.abs(new - at) <= CLOSE * new) | (value == 0)
        at = new
        if done.all():
            break
    return at
