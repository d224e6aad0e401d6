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

# Coefficients of pairs that are kept (12 bytes each: 100 MB); beyond, they are formed again in parts of this size.
LARGEST_PAIRS = 8_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of cells (left, right) of the same level, each pair once, a cell with itself too, by level."""

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
    """Cells (level, column) with their q products, sorted by level; `places` says where pairs of columns are kept.

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
        a, b = np.tril_indices(self.width)
        flat = H[:, a, b]
        total: Array | None = None
        for first, last, P in self._products():
            part = P.T @ flat[first:last].ravel()
            total = part if total is None else np.add(total, part, out=total)
        out = np.zeros(self.places.length) if total is None else total
        out[self.places.diagonal] *= 2
        return out

    def gather(self, D: Array) -> Array:
        """(levels, q, q) A_l D A_l' from the (length,) values of a symmetric D at the places."""
        a, b = np.tril_indices(self.width)
        out = np.empty((self.levels, self.width, self.width))
        for first, last, P in self._products():
            sums = (P @ D).reshape(last - first, len(a))
            out[first:last, a, b] = sums
            out[first:last, b, a] = sums
        diagonal = np.arange(self.width)
        out[:, diagonal, diagonal] *= 2
        return out

    def spread(self, D: Array) -> Array:
        """(c, q) sums over the cells i of the level of cell j of D[column_i, column_j] a_i."""
        out = np.zeros_like(self.values)
        for first, last in self._parts():
            pairs = Pairs.of(self.start, first, last)
            weight = D[self._places_of(pairs)]
            other = np.flatnonzero(pairs.left != pairs.right)
            for a in range(self.width):
                value = self.values[:, a]
                out[:, a] += np.bincount(pairs.right, weight * value[pairs.left], len(out))
                mirrored = weight[other] * value[pairs.right[other]]
                out[:, a] += np.bincount(pairs.left[other], mirrored, len(out))
        return out

    def _places_of(self, pairs: Pairs) -> Codes:
        i, j = self.column[pairs.left], self.column[pairs.right]
        return self.places.position(np.maximum(i, j), np.minimum(i, j))

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Runs of levels whose pairs are few enough to be formed at once."""
        count = np.diff(self.start)
        total = np.cumsum(count * (count + 1) // 2) * (self.width * (self.width + 1) // 2)
        first = 0
        while first < self.levels:
            done = total[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(total, done + LARGEST_PAIRS, side="right")))
            yield first, last
            first = last

    def _products(self) -> Iterator[tuple[int, int, csr_array]]:
        """Runs of levels with their coefficients: kept where one run holds all of them."""
        parts = list(self._parts())
        if len(parts) == 1 and not self._kept:
            self._kept.append(self._coefficients(*parts[0]))
        for part in parts:
            yield *part, self._kept[0] if self._kept else self._coefficients(*part)

    def _coefficients(self, first: int, last: int) -> csr_array:
        """(levels * q (q + 1) / 2, length) P: row (l, a, b), a >= b, of a_i[a] a_j[b] + a_i[b] a_j[a] (once if a = b).

        A column with itself is halved, so that P is half of the map from D to A_l D A_l' on the diagonal, and all
        of it off the diagonal.
        """
        from scipy.sparse import csr_array

        pairs = Pairs.of(self.start, first, last)
        half = np.where(pairs.left == pairs.right, 0.5, 1.0)
        place = _index(self._places_of(pairs))
        count = np.diff(self.start[first : last + 1])
        ends = np.concatenate([[0], np.cumsum(count * (count + 1) // 2)])
        shape = ((last - first) * (self.width * (self.width + 1) // 2), self.places.length)
        if self.width == 1:
            value = self.values[:, 0]
            return csr_array((value[pairs.left] * value[pairs.right] * half, place, _index(ends)), shape=shape)
        return self._interleaved(pairs, half, place, ends, shape)

    def _interleaved(self, pairs: Pairs, half: Array, place: Index, ends: Codes, shape: tuple[int, int]) -> csr_array:
        """The coefficients where a level has several: its rows one after the other, each over the same pairs."""
        from scipy.sparse import csr_array

        a, b = np.tril_indices(self.width)
        t, count = len(a), np.diff(ends)
        level = np.repeat(np.arange(len(count)), count)
        within = np.arange(len(place)) - ends[level]
        data, column = np.empty(len(place) * t), np.empty(len(place) * t, dtype=place.dtype)
        left, right = self.values[pairs.left], self.values[pairs.right]
        for k in range(t):
            value = left[:, a[k]] * right[:, b[k]]
            if a[k] != b[k]:
                value = value + left[:, b[k]] * right[:, a[k]]
            at = ends[level] * t + k * count[level] + within
            data[at] = value * half
            column[at] = place
        bounds = np.concatenate([[0], np.cumsum(np.repeat(count, t))])
        return csr_array((data, column, _index(bounds)), shape=shape)


def _index(values: Codes) -> Index:
    """32-bit indices where they suffice: half the memory traffic of a sparse product."""
    return values.astype(np.int32) if len(values) == 0 or values.max() < 2**31 else values
