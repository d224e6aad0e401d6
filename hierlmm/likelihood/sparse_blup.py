"""Best linear unbiased prediction as in `blup.py`, where the products between the factors stand in cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Covariances, Means
from hierlmm.likelihood.lmm import Solved
from hierlmm.likelihood.sparse import CrossProducts, SparseEliminated, split
from hierlmm.likelihood.sparse_levels import LevelSystem
from hierlmm.likelihood.triangular import solve_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Predicted rows times trailing effects that are solved for at once: 32 MB.
AT_ONCE = 4_000_000


class MappedProducts(CrossProducts, Protocol):
    """Sparse cross-products with the maps back to the data scale."""

    @property
    def Z_map(self) -> tuple[Array, ...]: ...
    @property
    def X_map(self) -> Array: ...
    @property
    def X_shift(self) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class SparseJoint:
    """Mean and covariance of (b, beta) given y on the working scale, at one Lambda and sigma².

    beta (p,); b (Q,) of all factors' effects in order; DX (Q, p) the derivative of b in -beta; L_x (p, p) Cholesky
    factor of X'V*⁻¹X; the covariance of b given beta is sigma² times the inverse that `system` stands for.
    """

    system: LevelSystem
    beta: Array
    b: Array
    DX: Array
    L_x: Array
    sigma2: float


def joint(state: SparseEliminated, solved: Solved, sigma2: float) -> SparseJoint:
    """The joint distribution from an elimination and its generalised least squares solution."""
    p = len(solved.beta)
    DZU = state.system.solve(state.ZU)
    DX = DZU[:, :p]
    return SparseJoint(state.system, solved.beta, DZU[:, p] - DX @ solved.beta, DX, solved.L_x, float(sigma2))


def means(cp: MappedProducts, at: SparseJoint) -> Means:
    """Generalised least squares beta and the BLUPs, on the data scale."""
    b = tuple(part @ B.T for part, B in zip(split(cp.sizes, at.b), cp.Z_map, strict=True))
    return Means(at.beta @ cp.X_map.T + cp.X_shift, b)


def covariances(cp: MappedProducts, at: SparseJoint) -> Covariances:
    """Prediction error (co)variances of every level, and of beta, on the data scale."""
    root = cp.X_map @ solve_lower(at.L_x, np.eye(cp.p)).T
    error, conditional, with_beta = [], [], []
    for own, DX, B in zip(at.system.moments().blocks, split(cp.sizes, at.DX), cp.Z_map, strict=True):
        # (G, p, q): L_x⁻¹ X'V*⁻¹Z T, level by level
        fixed = solve_lower(at.L_x, DX.swapaxes(-1, -2))
        conditional.append(at.sigma2 * (B @ own @ B.T))
        error.append(at.sigma2 * (B @ (own + fixed.swapaxes(-1, -2) @ fixed) @ B.T))
        with_beta.append(-at.sigma2 * (root @ fixed @ B.T))
    return Covariances(at.sigma2 * (root @ root.T), tuple(error), tuple(conditional), tuple(with_beta))


def sum_variance(cp: MappedProducts, at: SparseJoint, X: Array, Z: Sequence[Array], codes: Sequence[Codes]) -> Array:
    """(k,) variance of the error of x'beta + sum of z'b at k rows, over all factors jointly.

    X (k, p); per factor in elimination order Z (k, q) and codes (k,). A code of -1 (a level that was not
    observed) contributes nothing here: its effect is a draw from the population, to be added by the caller.
    """
    R = sum(G * q for G, q in cp.sizes[1:])
    out = np.empty(len(X))
    step = max(1, AT_ONCE // max(R, 1))
    for start in range(0, len(X), step):
        rows = slice(start, start + step)
        out[rows] = _sum_variance(cp, at, X[rows], [z[rows] for z in Z], [c[rows] for c in codes])
    return out


def _sum_variance(cp: MappedProducts, at: SparseJoint, X: Array, Z: Sequence[Array], codes: Sequence[Codes]) -> Array:
    """As `sum_variance`, for rows that fit at once."""
    k = len(X)
    left = X @ cp.X_map
    trailing = np.zeros((sum(G * q for G, q in cp.sizes[1:]), k))
    own, start, row = np.zeros(k), 0, np.arange(k)
    for f, ((G, q), B, DX) in enumerate(zip(cp.sizes, cp.Z_map, split(cp.sizes, at.DX), strict=True)):
        seen = codes[f] >= 0
        c, z = codes[f][seen], Z[f][seen] @ B
        left[seen] -= (DX[c] * z[:, :, None]).sum(axis=1)
        if f == 0:
            system = at.system
            spread = (system.Yt[c] @ z[:, :, None])[..., 0]
            own[seen] = (spread**2).sum(axis=1)
            weight = (system.H[c] @ z[:, :, None])[..., 0]
            for a, A in enumerate(system.coupling.matrices()):
                trailing[:, seen] -= A[c].multiply(weight[:, a, None]).T.toarray()
            continue
        for a in range(q):
            trailing[start + c * q + a, row[seen]] += z[:, a]
        start += G * q
    fixed = solve_lower(at.L_x, left.T)
    return np.asarray(
        at.sigma2 * (own + (trailing * at.system.others.solve(trailing)).sum(axis=0) + (fixed**2).sum(axis=0))
    )
