"""What estimating the variance parameters adds to the prediction error of the random effects.

For b = G Z'V⁻¹(y - X beta) the derivative in psi_r is A_r Z'V⁻¹(y - X beta) with A_r = (I - G N) E_r for an
element of G, A_r = -(I - G N) G / sigma² for sigma², N = Z'V⁻¹Z; the added error is

    g3 = sum over r, s of (I⁻¹)_rs A_r N A_s'.

Source: Kackar & Harville (1984), JASA 79:853-862; Das, Jiang & Rao (2004), Ann. Statist. 32:818-840.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.information import WHOLE, VarianceParameter, whole_projection
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Derivatives, Projected

Array = NDArray[np.float64]


def estimation_error(
    cp: CrossProducts, at: Derivatives, covariance: Array, parameters: tuple[VarianceParameter, ...]
) -> tuple[Array, ...] | None:
    """g3 per factor in elimination order, (G, q, q) on the data scale.

    covariance (k, k) of the estimates of `parameters` (the inverse information, zero rows where a parameter is on
    the boundary). None where several factors together have more effects than `information.WHOLE`.
    """
    G_matrices = [at.sigma2 * (B @ L) @ (B @ L).T for B, L in zip(cp.Z_map, at.factors, strict=True)]
    if len(cp.sizes) == 1:
        N = _lead_N(cp, at)
        return (_combine(N, G_matrices[0], cp.sizes[0][1], at.sigma2, covariance, parameters),)
    if sum(G * q for G, q in cp.sizes) > WHOLE:
        return None
    return _crossed(cp, at, G_matrices, covariance, parameters)


def _lead_N(cp: CrossProducts, at: Derivatives) -> Array:
    """Z_l'V⁻¹Z_l per level of a single factor, data scale."""
    B = cp.Z_map[0]
    assert isinstance(at.projected, Projected)
    left = np.linalg.solve(B.T, at.projected.lead_N)
    return np.asarray(np.linalg.solve(B.T, left.swapaxes(-1, -2)) / at.sigma2)


def _element(q: int, r: VarianceParameter) -> Array:
    E = np.zeros((q, q))
    E[r.row, r.column] = E[r.column, r.row] = 1.0
    return E


def _combine(
    N: Array, G: Array, q: int, sigma2: float, covariance: Array, parameters: tuple[VarianceParameter, ...]
) -> Array:
    """g3 of every level where levels are independent given beta."""
    rest = np.eye(q) - G @ N
    A = [rest @ _element(q, r) if r.factor == 0 else -rest @ G / sigma2 for r in parameters]
    total = np.zeros_like(N)
    for i, left in enumerate(A):
        for j, right in enumerate(A):
            total += covariance[i, j] * (left @ N @ right.swapaxes(-1, -2))
    return 0.5 * (total + total.swapaxes(-1, -2))


def _crossed(
    cp: CrossProducts,
    at: Derivatives,
    G_matrices: list[Array],
    covariance: Array,
    parameters: tuple[VarianceParameter, ...],
) -> tuple[Array, ...]:
    """g3 where an effect of one factor depends on the effects of the others."""
    N = whole_projection(cp, at, "ml") / at.sigma2
    sizes = [G * q for G, q in cp.sizes]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    G_all = np.zeros_like(N)
    for f, (G, _) in enumerate(cp.sizes):
        here = slice(offsets[f], offsets[f + 1])
        G_all[here, here] = np.kron(np.eye(G), G_matrices[f])
    rest = np.eye(len(N)) - G_all @ N
    A = []
    for r in parameters:
        if r.factor < 0:
            A.append(-rest @ G_all / at.sigma2)
            continue
        levels, q = cp.sizes[r.factor]
        E = np.zeros_like(N)
        here = slice(offsets[r.factor], offsets[r.factor + 1])
        E[here, here] = np.kron(np.eye(levels), _element(q, r))
        A.append(rest @ E)
    # One product an eigenvector instead of one a pair; of the correlations, because the units differ.
    scale = np.sqrt(np.diagonal(covariance))
    safe = np.where(scale > 0, scale, 1.0)
    roots, vectors = np.linalg.eigh(covariance / np.outer(safe, safe))
    out = [np.zeros((G, q, q)) for G, q in cp.sizes]
    for value, vector in zip(roots, vectors.T, strict=True):
        if value <= 0:
            continue
        combined = np.einsum("k,kij->ij", vector * scale, np.stack(A))
        right = N @ combined.T
        for f, (levels, q) in enumerate(cp.sizes):
            rows = combined[offsets[f] : offsets[f + 1]].reshape(levels, q, -1)
            columns = right[:, offsets[f] : offsets[f + 1]].reshape(-1, levels, q)
            out[f] += value * np.einsum("lax,xlb->lab", rows, columns)
    return tuple(out)
