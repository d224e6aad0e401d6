"""Best linear unbiased prediction as in `blup.py`, where the products between the factors stand in cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Covariances, Means
from hierlmm.likelihood.lmm import CrossProducts, Solved
from hierlmm.likelihood.sparse import SparseEliminated, split
from hierlmm.likelihood.sparse_dense import DenseSystem
from hierlmm.likelihood.sparse_levels import LevelSystem
from hierlmm.likelihood.triangular import solve_lower

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Predicted rows times trailing effects that are worked on at once: 32 MB where they are solved for.
AT_ONCE = 4_000_000


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


def means(cp: CrossProducts, at: SparseJoint) -> Means:
    """Generalised least squares beta and the BLUPs, on the data scale."""
    b = tuple(part @ B.T for part, B in zip(split(cp.sizes, at.b), cp.Z_map, strict=True))
    return Means(at.beta @ cp.X_map.T + cp.X_shift, b)


def covariances(cp: CrossProducts, at: SparseJoint) -> Covariances:
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


def sum_variance(cp: CrossProducts, at: SparseJoint, X: Array, Z: Sequence[Array], codes: Sequence[Codes]) -> Array:
    """(k,) variance of the error of x'beta + sum of z'b at k rows, over all factors jointly.

    X (k, p); per factor in elimination order Z (k, q) and codes (k,). A code of -1 (a level that was not
    observed) contributes nothing here: its effect is a draw from the population, to be added by the caller.
    """
    left = X @ cp.X_map
    work, start = list[tuple[Codes, Array]](), 0
    for f, ((G, q), B, DX) in enumerate(zip(cp.sizes, cp.Z_map, split(cp.sizes, at.DX), strict=True)):
        seen = codes[f] >= 0
        c, z = np.where(seen, codes[f], 0), np.where(seen[:, None], Z[f] @ B, 0.0)
        left -= (DX[c] * z[:, :, None]).sum(axis=1)
        if f == 0:
            level, weights = c, z
            continue
        work += [(start + c * q + a, z[:, a]) for a in range(q)]
        start += G * q
    variance = (solve_lower(at.L_x, left.T) ** 2).sum(axis=0)
    step = max(1, AT_ONCE // max(start, 1))
    for first in range(0, len(X), step):
        rows = slice(first, first + step)
        others = [(column[rows], value[rows]) for column, value in work]
        variance[rows] += _sums(at.system, level[rows], weights[rows], others)
    return np.asarray(at.sigma2 * variance)


def _sums(system: LevelSystem, level: Codes, z: Array, others: list[tuple[Codes, Array]]) -> Array:
    """(k,) t'D t for t of one leading level, with weights z (k, q), and of one column and weight per item of others."""
    own = system.moments().blocks[0][level]
    variance = ((own @ z[:, :, None])[..., 0] * z).sum(axis=1)
    across = _meeting(system, level, -(system.H[level] @ z[:, :, None])[..., 0])
    if isinstance(system.others, DenseSystem):
        return np.asarray(variance + _looked_up(system.others, across, others))
    columns = np.zeros((len(level), across.shape[1]))
    for column, value in others:
        np.add.at(columns, (np.arange(len(level)), column), value)
    solved = system.others.solve(columns.T).T
    return np.asarray(variance + ((2 * across + columns) * solved).sum(axis=1))


def _meeting(system: LevelSystem, level: Codes, weights: Array) -> csr_array:
    """(k, R) sum over the coefficients of `weights` (k, q) times the products of the rows' levels."""
    from scipy.sparse import diags_array

    parts = [diags_array(w) @ A[level] for w, A in zip(weights.T, system.coupling.matrices(), strict=True)]
    total: csr_array = sum(parts[1:], parts[0]).tocsr()
    return total


def _looked_up(system: DenseSystem, across: csr_array, others: list[tuple[Codes, Array]]) -> Array:
    """(k,) 2 a'D t + t'D t for the rows a of `across` and t of one column and weight per item of others."""
    k = across.shape[0]
    row, met = np.repeat(np.arange(k), np.diff(across.indptr)), across.indices.astype(np.intp)
    total = np.zeros(k)
    for n, (j, v) in enumerate(others):
        total += 2 * v * np.bincount(row, across.data * system.entries(met, j[row]), k)
        total += v**2 * system.entries(j, j)
        for i, w in others[:n]:
            total += 2 * v * w * system.entries(i, j)
    return total
