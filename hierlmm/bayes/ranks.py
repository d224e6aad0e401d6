"""How many contrasts of the data lose all weight when some variances grow: the exponents of a posterior's tails.

With M the projection off the columns of X that have a flat prior, and Z_S the random-effects columns whose variances
grow, the restricted likelihood falls like s^-t, t = rank(M Z_S) (Hobert & Casella 1996, JASA 91:1461).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import working_fixed
from hierlmm.design.types import GroupingFactor

Array = NDArray[np.float64]

# Singular values below this share of the largest, for columns of unit length, count as zero.
ZERO = 1e-9
# Entries of a dense matrix whose rank is still computed.
DENSE = 20_000_000
# Directions within a block are taken at random; any seed serves, with probability one.
DIRECTIONS = 20261121


def random_columns(factor: GroupingFactor, members: Sequence[int], rank: int) -> Array:
    """(n, rank) columns of Z: `rank` generic combinations of the coefficients `members`."""
    Z = factor.Z[:, list(members)]
    if rank == len(members):
        return Z
    size = np.sqrt((Z**2).mean(axis=0))
    mix = np.random.default_rng(DIRECTIONS).standard_normal((len(members), rank))
    return np.asarray(Z / np.where(size > 0, size, 1.0) @ mix)


def present_levels(factor: GroupingFactor, members: Sequence[int]) -> int:
    """Levels in which some of the coefficients `members` has a nonzero value: a lower bound of the rank of Z."""
    nonzero = (factor.Z[:, list(members)] != 0).any(axis=1)
    per_level = np.bincount(factor.codes[nonzero], minlength=len(factor.levels))
    return int(np.count_nonzero(per_level))


def one_factor_rank(factor: GroupingFactor, Z: Array, X: Array) -> int:
    """rank(M Z) for the columns Z (n, r) of one grouping factor: rank(Z) + rank(X within levels) - rank(X)."""
    own, within = _within(factor, Z, X)
    return own + _rank(within) - int(X.shape[1])


def determined(factor: GroupingFactor, Z: Array, X: Array) -> NDArray[np.bool_]:
    """(p,) which coefficients of X stay determined however large the effects on Z: those whose column adds rank."""
    full = _rank(_within(factor, Z, X)[1])
    return np.array([_rank(_within(factor, Z, np.delete(X, k, axis=1))[1]) < full for k in range(X.shape[1])], bool)


def _within(factor: GroupingFactor, Z: Array, X: Array) -> tuple[int, Array]:
    """Rank of Z over all levels, and X (n, p) less its least-squares fit on Z level by level."""
    G, r = len(factor.levels), Z.shape[1]
    work = working_fixed(X)[0] if X.size else X
    scale = np.sqrt((Z**2).mean(axis=0))
    unit = Z / np.where(scale > 0, scale, 1.0)
    gram = np.zeros((G, r, r))
    for a in range(r):
        for b in range(r):
            gram[:, a, b] = np.bincount(factor.codes, unit[:, a] * unit[:, b], G)
    values, vectors = np.linalg.eigh(gram)
    present = values > np.sqrt(ZERO) * np.maximum(values[:, -1:], 1e-300)
    inverse = np.where(present, 1.0 / np.where(present, values, 1.0), 0.0)
    away = work
    for _ in range(2):  # the second pass removes what rounding left of the first
        cross = np.zeros((G, r, work.shape[1]))
        for a in range(r):
            for b in range(work.shape[1]):
                cross[:, a, b] = np.bincount(factor.codes, unit[:, a] * away[:, b], G)
        fit = vectors @ (inverse[:, :, None] * (vectors.swapaxes(-1, -2) @ cross))
        away = away - (unit[:, None, :] @ fit[factor.codes])[:, 0, :]
    return int(present.sum()), away


def _rank(columns: Array) -> int:
    """Rank of columns that had about unit length before a projection."""
    if columns.size == 0:
        return 0
    return int(np.count_nonzero(np.linalg.svd(columns, compute_uv=False) > np.sqrt(ZERO * len(columns))))


def joint_rank(factors: Sequence[GroupingFactor], Z: Sequence[Array], X: Array) -> int | None:
    """rank(M [Z_1, Z_2, ...]) over several factors by a dense decomposition; None where that would be too large."""
    n = len(X)
    width = sum(len(f.levels) * z.shape[1] for f, z in zip(factors, Z, strict=True))
    if n * (width + X.shape[1]) > DENSE:
        return None
    parts = [X / np.maximum(np.sqrt((X**2).sum(axis=0)), 1e-300)]
    for factor, z in zip(factors, Z, strict=True):
        dense = np.zeros((n, len(factor.levels), z.shape[1]))
        dense[np.arange(n), factor.codes] = z
        flat = dense.reshape(n, -1)
        parts.append(flat / np.maximum(np.sqrt((flat**2).sum(axis=0)), 1e-300))
    values = np.linalg.svd(np.concatenate(parts, axis=1), compute_uv=False)
    return int(np.count_nonzero(values > ZERO * values[0])) - int(X.shape[1])
