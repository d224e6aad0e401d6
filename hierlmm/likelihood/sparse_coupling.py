"""The sparse products between the levels of one grouping factor and the effects of the factors after it.

Level l of the eliminated factor touches a few columns j of the others, each with a vector of q products a_lj. An
elimination needs two things of them, and both are linear maps over the pairs of columns of each level, with
coefficients that do not depend on the variances: the sum over levels of A_l' H_l A_l, for symmetric (q, q) H_l,
at the pairs' places in the system of the other factors; and the adjoint, A_l D A_l' of every level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.sparse_systems import Places

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Index = NDArray[np.int32] | NDArray[np.intp]

# Coefficients of pairs that are kept (12 bytes each: 100 MB); beyond, they are formed again in runs of this size.
LARGEST_PAIRS = 8_000_000
# Pairs that are formed at once.
AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of cells left >= right of the same level, each pair once, a cell with itself too, by level."""

    left: Codes
    right: Codes

    @classmethod
    def of(cls, start: Codes, first: int, last: int) -> Pairs:
        """All pairs of the levels first..last, whose cells are start[l]..start[l + 1]."""
        cells = np.arange(start[first], start[last])
        begin = np.repeat(start[first:last], np.diff(start[first : last + 1]))
        count = cells - begin + 1
        left = np.repeat(cells, count)
        ends = np.cumsum(count)
        right = np.arange(len(left)) - np.repeat(ends - count, count) + np.repeat(begin, count)
        return cls(left, right)


@dataclass(slots=True, eq=False)
class Coupling:
    """Cells (level, column) with their q products, by level and column; `places` says where pairs of columns are kept.

    level, column (c,); values (c, q); levels and columns their numbers. What is derived from them is built at the
    first use and kept.
    """

    level: Codes
    column: Codes
    values: Array
    levels: int
    columns: int
    places: Places
    _matrices: list[csr_array] = field(default_factory=list, init=False)
    _kept: list[csr_array] = field(default_factory=list, init=False)

    @property
    def width(self) -> int:
        """q, the coefficients of each level."""
        return int(self.values.shape[1])

    @property
    def start(self) -> Codes:
        """(levels + 1,) first cell of each level."""
        return np.searchsorted(self.level, np.arange(self.levels + 1))

    def matrices(self) -> list[csr_array]:
        """Per coefficient (levels, columns): row l is the products of level l."""
        from scipy.sparse import csr_array

        if not self._matrices:
            start, column = _index(self.start), _index(self.column)
            for a in range(self.width):
                data = np.ascontiguousarray(self.values[:, a])
                self._matrices.append(csr_array((data, column, start), shape=(self.levels, self.columns)))
        return self._matrices

    def times(self, B: Array) -> Array:
        """(levels, q, k) A B for (columns, k) B."""
        return np.stack([A @ B for A in self.matrices()], axis=1)

    def transposed(self, B: Array) -> Array:
        """(columns, k) A'B for (levels, q, k) B."""
        parts = [A.T @ np.ascontiguousarray(B[:, a]) for a, A in enumerate(self.matrices())]
        total: Array = sum(parts[1:], parts[0])
        return total

    def scatter(self, H: Array) -> Array:
        """(length,) the sum over levels of A_l' H_l A_l at its places, for (levels, q, q) symmetric H."""
        out: Array | None = None
        for first, last, products in self._products():
            for (a, b), P in zip(self._elements, products, strict=True):
                part = P.T @ np.ascontiguousarray(H[first:last, a, b])
                out = part if out is None else np.add(out, part, out=out)
        total = np.zeros(self.places.length) if out is None else out
        total[self.places.diagonal] *= 2
        return total

    def gather(self, D: Array) -> Array:
        """(levels, q, q) A_l D A_l' from the (length,) values of a symmetric D at the places."""
        out = np.empty((self.levels, self.width, self.width))
        for first, last, products in self._products():
            for (a, b), P in zip(self._elements, products, strict=True):
                out[first:last, a, b] = out[first:last, b, a] = (P @ D) * (2 if a == b else 1)
        return out

    def spread(self, D: Array) -> Array:
        """(c, q) sums over the cells i of the level of cell j of D[column_i, column_j] a_i."""
        out = np.zeros_like(self.values)
        for first, last in self._runs(0, self.levels, AT_ONCE):
            pairs = Pairs.of(self.start, first, last)
            weight = D[self._places_of(pairs)]
            other = np.flatnonzero(pairs.left != pairs.right)
            cells = slice(self.start[first], self.start[last])
            left, right, size = pairs.left - cells.start, pairs.right - cells.start, cells.stop - cells.start
            for a in range(self.width):
                value = self.values[cells, a]
                out[cells, a] = np.bincount(right, weight * value[left], size)
                out[cells, a] += np.bincount(left[other], weight[other] * value[right[other]], size)
        return out

    def _places_of(self, pairs: Pairs) -> Codes:
        return self.places.position(self.column[pairs.left], self.column[pairs.right])

    @property
    def _elements(self) -> list[tuple[int, int]]:
        """The lower triangle of a level's (q, q) matrix."""
        return [(a, b) for a in range(self.width) for b in range(a + 1)]

    def _runs(self, first: int, last: int, largest: int) -> Iterator[tuple[int, int]]:
        """Runs of the levels first..last with at most `largest` pairs each, where no single level has more."""
        total = np.cumsum(_pair_counts(self.start[first : last + 1]))
        at = 0
        while at < len(total):
            done = total[at - 1] if at else 0
            stop = max(at + 1, int(np.searchsorted(total, done + largest, side="right")))
            yield first + at, first + stop
            at = stop

    def _products(self) -> Iterator[tuple[int, int, list[csr_array]]]:
        """Runs of levels with their coefficients: kept where one run holds all of them."""
        runs = list(self._runs(0, self.levels, LARGEST_PAIRS // len(self._elements)))
        if len(runs) == 1 and not self._kept:
            self._kept.extend(self._coefficients(*runs[0]))
        for first, last in runs:
            yield first, last, self._kept or self._coefficients(first, last)

    def _coefficients(self, first: int, last: int) -> list[csr_array]:
        """Per element a >= b of the triangle (last - first, length) P: a_i[a] a_j[b] + a_i[b] a_j[a], once if a = b.

        A column with itself is halved, so that P is half of the map from D to A_l D A_l' on the diagonal, and all
        of it off the diagonal.
        """
        from scipy.sparse import csr_array

        bounds = np.concatenate([[0], np.cumsum(_pair_counts(self.start[first : last + 1]))])
        place = np.empty(bounds[-1], dtype=np.int32 if self.places.length < 2**31 else np.intp)
        data = np.empty((len(self._elements), bounds[-1]))
        # In runs that stay in the processor's cache: the pairs themselves would be the largest arrays of a fit.
        for low, high in self._runs(first, last, AT_ONCE):
            pairs = Pairs.of(self.start, low, high)
            here = slice(bounds[low - first], bounds[high - first])
            place[here] = self._places_of(pairs)
            left, right = self.values[pairs.left], self.values[pairs.right]
            right[pairs.left == pairs.right] *= 0.5
            for out, (a, b) in zip(data, self._elements, strict=True):
                out[here] = left[:, a] * right[:, b]
                if a != b:
                    out[here] += left[:, b] * right[:, a]
        shape = (last - first, self.places.length)
        return [csr_array((out, place, _index(bounds)), shape=shape) for out in data]


def _pair_counts(start: Codes) -> Codes:
    """Pairs of cells of each level, from the first cell of each."""
    count = np.diff(start)
    return np.asarray(count * (count + 1) // 2, dtype=np.intp)


def _index(values: Codes) -> Index:
    """32-bit indices where they suffice: half the memory traffic of a sparse product."""
    return values.astype(np.int32) if len(values) == 0 or values.max() < 2**31 else values
