"""Variances, without the covariances, of β, b and β + b given the variance parameters: many points, one pass.

The same numbers as the diagonals of `blup.covariances`, arranged for thousands of values of ψ at once: the few
coefficients of a level are looped over, and everything else is a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Joint
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.triangular import dense_lower, solve_lower

Array = NDArray[np.float64]
Pairs = Sequence[tuple[int, int]]
# Rows of a triangular system up to which a loop over them is faster than one LAPACK call a point.
SMALL = 8


@dataclass(frozen=True, slots=True, eq=False)
class Variances:
    """Data scale; factors in elimination order, leading axes as in the `Joint` they came from.

    cov_beta     (..., p, p)
    error        (..., G, q) Var(b̂ - b), the uncertainty of β included; conditional (..., G, q) Var(b | y, β)
    sums         (..., G, s) variance of β_i + b_k for each of the factor's pairs (i, k)
    """

    cov_beta: Array
    error: tuple[Array, ...]
    conditional: tuple[Array, ...]
    sums: tuple[Array, ...]


def variances(cp: CrossProducts, at: Joint, pairs: Sequence[Pairs]) -> Variances:
    """Variances at every leading position of `at`; `pairs` per factor in elimination order."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    eye = np.broadcast_to(np.eye(p), (*at.K.shape[:-2], p, p))
    root = cp.X_map @ solve_lower(at.K[..., R:, R:], eye).swapaxes(-1, -2) if p else eye
    scale = at.sigma2[..., None, None]
    error, conditional, sums = [], [], []
    beta_variance = (root**2).sum(-1)
    for f in range(len(cp.sizes)):
        columns = [_column(cp, at, f, k) for k in range(cp.sizes[f][1])]
        inside = [own + (half[..., :R, :] ** 2).sum(-2) for own, half in columns]
        outside = [(half[..., R:, :] ** 2).sum(-2) for _, half in columns]
        sign = -1.0 if f == 0 else 1.0
        joint = [
            beta_variance[..., i, None]
            + inside[k]
            + outside[k]
            + 2.0 * sign * (root[..., None, i, :] @ columns[k][1][..., R:, :])[..., 0, :]
            for i, k in pairs[f]
        ]
        conditional.append(scale * np.stack(inside, axis=-1))
        error.append(scale * np.stack([a + b for a, b in zip(inside, outside, strict=True)], axis=-1))
        none = np.zeros((*inside[0].shape, 0))
        sums.append(scale * np.stack(joint, axis=-1) if joint else none)
    return Variances(scale * (root @ root.swapaxes(-1, -2)), tuple(error), tuple(conditional), tuple(sums))


def _column(cp: CrossProducts, at: Joint, f: int, k: int) -> tuple[Array, Array]:
    """Coefficient k of factor f: what its own block adds (..., G), and K⁻¹ of its rows (..., R + p, G)."""
    B = cp.Z_map[f][k]
    if f == 0:
        spread = sum(B[a] * at.Yt[..., a] for a in np.flatnonzero(B))
        spread = np.asarray(spread)
        rows = sum(spread[..., a, None] * at.W_J[..., a, :] for a in range(spread.shape[-1]))
        return (spread**2).sum(-1), _solved(at.K, np.asarray(rows).swapaxes(-1, -2))
    start = sum(G * q for G, q in cp.sizes[1:f])
    G, q = cp.sizes[f]
    turned = at.factors[f].swapaxes(-1, -2) @ B
    rows = np.zeros((*at.K.shape[:-2], at.K.shape[-1], G))
    level = np.arange(G)
    for a in range(q):
        rows[..., start + level * q + a, level] = turned[..., a, None]
    return np.zeros(1), _solved(at.K, rows)


def _solved(K: Array, B: Array) -> Array:
    """K⁻¹B: row by row over all points where K is small, by LAPACK where it is not."""
    return solve_lower(K, B) if K.shape[-1] <= SMALL else dense_lower(K, B)
