"""Sums of products over rows, by level and by pair of levels: one pass in chunks that stay in the cache.

A row enters as v = [1, u - s]: its distinct columns u about a shift s near their means. Centring and recombination
of columns of X, Z and y are linear maps of v, so they can be applied to the few sums instead of to the many rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes

Array = NDArray[np.float64]

# Rows a chunk: a handful of columns of this length stay in the cache.
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """The rows by the levels of one factor: codes (N,) into G levels; `Z` (r,) positions of its columns among u."""

    codes: Codes
    G: int
    Z: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Sums over rows of weight w = frequency / known relative variance; v = [1, u - s] of length 1 + k.

    n          number of rows, each counted as often as its frequency says
    log_scale  sum of frequency times log of the known relative variance
    total      (1 + k, 1 + k) sum of w v v'
    levels     per factor (G, 1 + r, 1 + k) sums of w [1, z] v' level by level; z are its r columns among u - s
    pairs      per pair of factors (c, 1 + r, 1 + r') sums of w [1, z] [1, z']' over the pairs of levels that occur
    """

    n: int
    log_scale: float
    total: Array
    levels: tuple[Array, ...]
    pairs: tuple[Array, ...]

    def __add__(self, other: Part) -> Part:
        """The sums over the rows of both, which have the same columns, shift and levels."""
        return Part(
            self.n + other.n,
            self.log_scale + other.log_scale,
            self.total + other.total,
            tuple(a + b for a, b in zip(self.levels, other.levels, strict=True)),
            tuple(a + b for a, b in zip(self.pairs, other.pairs, strict=True)),
        )


def accumulate(
    columns: list[Array],
    shift: Array,
    factors: list[Grouped],
    pairs: list[tuple[int, int, Codes, int]],
    frequency: Array | None,
    scale: Array | None,
) -> Part:
    """The sums over the rows of `columns`, k arrays (N,).

    pairs   for each two factors their positions, the pair of levels of each row (N,) and how many pairs there are
    """
    N, k = len(columns[0]), len(columns)
    total = np.zeros((1 + k, 1 + k))
    levels = [np.zeros((1 + len(f.Z), 1 + k, f.G)) for f in factors]
    cells = [np.zeros((1 + len(factors[f].Z), 1 + len(factors[g].Z), c)) for f, g, _, c in pairs]
    weight = frequency if scale is None else (1.0 if frequency is None else frequency) / scale
    step = max(CHUNK, 4 * max([f.G for f in factors] + [c for *_, c in pairs], default=0))
    for start in range(0, N, step):
        rows = slice(start, min(start + step, N))
        V = np.empty((1 + k, rows.stop - start))
        V[0] = 1.0
        for j, column in enumerate(columns):
            np.subtract(column[rows], shift[j], out=V[1 + j])
        W = V if weight is None else V * weight[rows]
        total += W @ V.T
        for factor, out in zip(factors, levels, strict=True):
            at = [0, *(1 + factor.Z)]
            _add_by_level(out, factor.codes[rows], W, at, V, range(1 + k))
        for (f, g, codes, _), out in zip(pairs, cells, strict=True):
            _add_by_level(out, codes[rows], W, [0, *(1 + factors[f].Z)], V, [0, *(1 + factors[g].Z)])
    return Part(
        n=N if frequency is None else int(frequency.sum()),
        log_scale=_log_scale(frequency, scale),
        total=total,
        levels=tuple(np.ascontiguousarray(out.transpose(2, 0, 1)) for out in levels),
        pairs=tuple(np.ascontiguousarray(out.transpose(2, 0, 1)) for out in cells),
    )


def _log_scale(frequency: Array | None, scale: Array | None) -> float:
    if scale is None:
        return 0.0
    logs = np.log(scale)
    return float(logs.sum() if frequency is None else frequency @ logs)


def _add_by_level(out: Array, codes: Codes, W: Array, first: list[int], V: Array, second: list[int] | range) -> None:
    """Add to out[a, c] the sums by code of W[first[a]] V[second[c]]; a product of two columns is formed once."""
    G = out.shape[2]
    done: dict[tuple[int, int], Array] = {}
    plain = W is V
    for a, i in enumerate(first):
        for c, j in enumerate(second):
            key = (min(i, j), max(i, j))
            if key not in done:
                product = V[j] if plain and i == 0 else W[i] if j == 0 else W[i] * V[j]
                counted = None if plain and key == (0, 0) else product
                done[key] = np.bincount(codes, counted, G).astype(np.float64, copy=False)
            out[a, c] += done[key]
