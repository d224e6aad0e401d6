"""What many responses of one design share, and the sums in which they differ.

The levels of the leading factor with the same products Z'[Z, Z_rest, X] form a pattern. A response enters the
criterion and its derivatives only through y'y, [Z_rest, X]'y, and the sums over the levels of each pattern of Z'y and
of Z'y y'Z; so an evaluation costs as much as there are patterns, whatever the number of levels and rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Method

Array = NDArray[np.float64]

# Other factors' effects up to which a batch pays: beyond, one response's dense algebra fills the processor.
MOST_REST = 48
# Numbers of the design's products up to which a batch pays, for the same reason.
MOST_PRODUCTS = 400_000
# Numbers in the largest array of a batch: half a megabyte, which a processor's cache holds with a few others.
BATCH = 65_536
SMALLEST_BATCH, LARGEST_BATCH = 16, 1024
# Difference below which products of two levels are the same numbers summed in another order, relative to the lengths
# of the columns.
SAME = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """The design's part, working scale: U patterns, q coefficients, k = R + p trailing columns J = [Z_rest, X].

    count (U,) levels of each pattern; of (G,) pattern of each level
    lead (U, q, q) Z'Z; across (U, q, k) Z'J; rest (k, k) J'J
    moments (k k, U q q) count times the products of the rows of `across`: J'V⁻¹J is linear in them
    sizes (levels, q) of each factor; nu residual degrees of freedom; constant what the criterion adds
    """

    count: Array
    of: NDArray[np.intp]
    lead: Array
    across: Array
    rest: Array
    moments: Array
    sizes: tuple[tuple[int, int], ...]
    p: int
    nu: float
    constant: float
    method: Method
    known_sigma2: bool

    @property
    def R(self) -> int:
        """Effects of the factors after the leading one."""
        return len(self.rest) - self.p

    @property
    def batch(self) -> int:
        """Responses to evaluate at once."""
        U, q, k = self.across.shape
        each = max(U * q * max(q * q, k), k * k, 1)
        return int(np.clip(BATCH // each, SMALLEST_BATCH, LARGEST_BATCH))


def batchable(cp: CrossProducts) -> bool:
    """Whether many responses of this design are fitted faster together than one by one."""
    R = cp.rest.shape[0] - cp.p - 1
    return cp.cells is None and R <= MOST_REST and (R == 0 or cp.lead_rest.size <= MOST_PRODUCTS)


def shared(cp: CrossProducts, method: Method) -> Shared:
    """The patterns of a design, and the constants of its criterion."""
    _, q, m = cp.lead_rest.shape
    k = m - 1
    across = cp.lead_rest[:, :, :k]
    first, of = _patterns(_key(cp.lead, across, np.diagonal(cp.rest)[:k]))
    U = len(first)
    count = np.bincount(of, minlength=U).astype(np.float64)
    rows = across[first]
    moments = np.einsum("u,uai,ubj->ijuab", count, rows, rows).reshape(k * k, U * q * q)
    constant = cp.log_scale - (2 * cp.log_det_X_map if method == "reml" else 0.0)
    nu = float(cp.n - cp.p if method == "reml" else cp.n)
    return Shared(
        count, of, cp.lead[first], rows, cp.rest[:k, :k], moments, cp.sizes, cp.p, nu, constant, method,
        cp.known_sigma2,
    )  # fmt: skip


def _key(lead: Array, across: Array, square: Array) -> Array:
    """(G, q q + q k) products of each level relative to the mean lengths of their columns; square (k,) those of J."""
    G = len(lead)
    own = np.sqrt(np.einsum("gaa->a", lead) / max(G, 1))
    own, other = np.where(own > 0, own, 1.0), np.sqrt(np.where(square > 0, square, 1.0) / max(G, 1))
    parts = lead / np.outer(own, own), across / np.outer(own, other)
    return np.concatenate([part.reshape(G, part[0].size if G else 0) for part in parts], axis=1)


def _patterns(key: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First row of each set of rows that agree to rounding, and the set of each row.

    Rows are ordered by one projection and sets cut where it jumps; where rows of a set turn out to differ, only rows
    that are equal to the last bit share a set.
    """
    G = len(key)
    if G == 0:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    # Any weights without structure do; a generator would need a seed.
    weights = 0.5 + np.modf(np.sqrt(2.0 + np.arange(key.shape[1])))[0]
    mark = key @ weights
    order = np.argsort(mark, kind="stable")
    size = (np.abs(key) @ weights)[order]
    jump = np.concatenate([[True], np.diff(mark[order]) > SAME * np.maximum(size[1:], size[:-1])])
    of = np.empty(G, dtype=np.intp)
    of[order] = np.cumsum(jump) - 1
    first = np.zeros(int(of.max()) + 1, dtype=np.intp)
    first[of[::-1]] = np.arange(G)[::-1]
    if (np.abs(key - key[first[of]]) <= 10 * SAME * np.maximum(np.abs(key), 1.0)).all():
        return first, of
    _, first, of = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return first, of.ravel()


@dataclass(frozen=True, slots=True, eq=False)
class Replies:
    """The responses' part: n responses, as residuals of the regression on X or any other shift within its span.

    once (U, q, n) and twice (U, q, q, n) sums over the levels of each pattern of Z'y and of Z'y y'Z;
    trailing (k, n) J'y; square (n,) y'y
    """

    once: Array
    twice: Array
    trailing: Array
    square: Array

    def __len__(self) -> int:
        return len(self.square)

    def __getitem__(self, at: NDArray[np.intp] | NDArray[np.bool_]) -> Replies:
        return Replies(self.once[..., at], self.twice[..., at], self.trailing[..., at], self.square[at])


def replies(shape: Shared, by_level: Array, trailing: Array, square: Array) -> Replies:
    """Sums by pattern of (G, q, n) Z'y of the leading factor; (k, n) J'y; (n,) y'y."""
    G, q, n = by_level.shape
    U = len(shape.count)
    order = np.argsort(shape.of, kind="stable")
    starts = np.searchsorted(shape.of[order], np.arange(U))
    ordered = by_level if U == 1 or (order == np.arange(G)).all() else by_level[order]
    once = _sums(ordered, starts)
    twice = np.empty((U, q, q, n))
    for a in range(q):
        for b in range(a + 1):
            twice[:, a, b] = twice[:, b, a] = _sums(ordered[:, a] * ordered[:, b], starts)
    return Replies(once, twice, trailing, square)


def _sums(rows: Array, starts: NDArray[np.intp]) -> Array:
    if len(starts) == len(rows):
        return rows
    return np.asarray(np.add.reduceat(rows, starts, axis=0))
