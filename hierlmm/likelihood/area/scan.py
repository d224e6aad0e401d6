"""Score and slope of both likelihoods at many values of A from cross-products alone, and a start for their zeros.

With z = (Q, y), T_k = Z'W^kZ, u = (−δ, 1), δ = M⁻¹Q'Wy and M = Q'WQ the first block of T_1:

    y'P²y = u'T_2u,   y'P³y = u'T_3u − |M^(-1/2) Q'W²(y − Qδ)|²,   tr P = Σ w − tr M⁻¹Q'W²Q

so that nothing of the length of y is formed per value of A but its weights. A difference of quadratic forms loses up
to twice the digits of max D/min D; so this serves the search where `Basis.tame`, and never the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.working import Array, Matrix, Working

Vector = NDArray[np.float64]

# Areas that are worked on at once, so that weights at all values of A and products of their columns stay in the cache.
AREAS = 4096
# Nodes on either side of a bracket, its end included, through whose values and slopes the polynomial goes.
NODES = 4
# Secant steps on that polynomial, each a fraction of a microsecond; it is nearly linear between the ends.
SECANTS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """As `criterion.Terms`, which has these and the criteria and informations beside them."""

    score_ml: Vector
    score_reml: Vector
    slope_ml: Vector
    slope_reml: Vector
    size: Vector


def quick_scores(A: Vector, work: Working) -> Scores:
    """Scores and slopes of one response at A (N,), in working units; `work.basis` is tame."""
    Q, D, y = work.basis.Q, work.basis.D, work.y
    m, p = Q.shape
    T, sums = np.zeros((3 * A.size, (p + 1) ** 2)), np.zeros((3, A.size))
    for first in range(0, m, AREAS):
        part = slice(first, first + AREAS)
        W = np.empty((3, A.size, min(AREAS, m - first)))
        np.divide(1.0, A[:, None] + D[part], out=W[0])
        np.multiply(W[0], W[0], out=W[1])
        np.multiply(W[1], W[0], out=W[2])
        Z = np.concatenate([Q[part], y[part, None]], axis=1)
        T += W.reshape(3 * A.size, len(Z)) @ (Z[:, :, None] * Z[:, None, :]).reshape(len(Z), (p + 1) ** 2)
        sums += W.sum(axis=2)
    return _from_products(T.reshape(3, A.size, p + 1, p + 1), sums)


def _from_products(T: Array, sums: Matrix) -> Scores:
    """From T_1, T_2, T_3 (3, N, p + 1, p + 1) and the sums of w, w² and w³ (3, N)."""
    p = T.shape[-1] - 1
    right = np.concatenate([T[0, :, :p, p:], T[1, :, :p, p:], T[1, :, :p, :p], T[2, :, :p, :p]], axis=2)
    solved = np.linalg.solve(T[0, :, :p, :p], right)
    delta, second, third = solved[:, :, 0], solved[:, :, 2 : p + 2], solved[:, :, p + 2 :]
    u = np.ones((T.shape[1], p + 1))
    np.negative(delta, out=u[:, :p])
    T2u = np.einsum("kij,kj->ki", T[1], u)
    across = solved[:, :, 1] - np.einsum("kij,kj->ki", second, delta)
    yP2y = np.einsum("ki,ki->k", u, T2u)
    yP3y = np.einsum("ki,kij,kj->k", u, T[2], u) - np.einsum("ki,ki->k", T2u[:, :p], across)
    trace_P = sums[0] - np.einsum("kii->k", second)
    trace_P2 = sums[1] - 2 * np.einsum("kii->k", third) + np.einsum("kij,kji->k", second, second)
    size = (yP2y + sums[0]) / 2
    return Scores(size - sums[0], (yP2y - trace_P) / 2, sums[1] / 2 - yP3y, trace_P2 / 2 - yP3y, size)


def start(x: list[float], value: list[float], slope: list[float], low: int) -> float:
    """The zero between x[low] and x[low + 1], where `value` changes its sign, of the polynomial through the nodes near.

    Newton's divided differences with every node twice (Hermite interpolation). With nodes a step h apart in x and a
    function that is analytic within a distance r, the error goes with (h/r)^16.
    """
    first, last = max(0, low - NODES + 1), min(len(x), low + NODES + 1)
    at = [x[k // 2 + first] for k in range(2 * (last - first))]
    column = [value[k // 2 + first] for k in range(len(at))]
    coefficients = [column[0]]
    for order in range(1, len(at)):
        column = [
            slope[(k + 1) // 2 + first] if order == 1 and k % 2 == 0 else
            (column[k + 1] - column[k]) / (at[k + order] - at[k])
            for k in range(len(at) - order)
        ]  # fmt: skip
        coefficients.append(column[0])
    a, fa, b, fb = x[low], value[low], x[low + 1], value[low + 1]
    for _ in range(SECANTS):
        new = a - fa * (b - a) / (fb - fa)
        if not x[low] < new < x[low + 1] or new in (a, b):
            break
        f = coefficients[-1]
        for node, coefficient in zip(reversed(at[:-1]), reversed(coefficients[:-1]), strict=True):
            f = f * (new - node) + coefficient
        a, fa, b, fb = b, fb, new, f
        if f == 0 or fa == fb:
            break
    return b if x[low] < b < x[low + 1] else (x[low] + x[low + 1]) / 2
