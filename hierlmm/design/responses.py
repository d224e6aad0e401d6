"""Cross-products of many responses with the columns of one design, formed together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes, LMMDesign
from hierlmm.design.working import WorkingRows, intercept, working_rows

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ResponseProducts:
    """Products of B responses with the working columns, of the residuals e of their regressions on X.

    Taking the regression off changes no criterion and keeps the digits where X explains nearly everything.

    by_level  per factor, in the order of elimination, (levels, q, B) Z'e
    fixed     (p, B) X'e, zero but for rounding; square (B,) e'e
    around    (B,) squared length of the responses as shifted, before the regression
    beta      (p, B) coefficients of the regression on the data scale
    """

    by_level: tuple[Array, ...]
    fixed: Array
    square: Array
    around: Array
    beta: Array


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """The rows of a design, ready for products with any number of responses.

    ones (p,) coefficients k with X k = 1, None where there are none; offset (n,); root (n, 1) of the known relative
    variances, None where they are equal
    weighted (p, n) X' times the frequencies; gram (p, p) its product with X; sums per factor of `rows`
    """

    rows: WorkingRows
    ones: Array | None
    offset: Array
    root: Array | None
    weighted: Array
    gram: Array
    sums: tuple[_Sums, ...]

    @classmethod
    def of(cls, design: LMMDesign) -> Regression:
        """The working rows of `design`, on the scale on which `cross_products` forms its products."""
        rows = working_rows(design)
        weighted = rows.X.T if rows.frequency is None else rows.X.T * rows.frequency
        root = None if design.scale is None else np.sqrt(design.scale)[:, None]
        sums = tuple(_Sums.of(codes, G) for codes, (G, _) in zip(rows.codes, rows.sizes, strict=True))
        return cls(rows, intercept(design.X), design.offset, root, weighted, weighted @ rows.X, sums)

    def products(self, Y: Array) -> ResponseProducts:
        """Products of the responses Y (n, B), data scale."""
        frequency = self.rows.frequency
        work, shift = self._shifted(Y)
        b = np.linalg.solve(self.gram, self.weighted @ work) if len(self.gram) else self.weighted @ work
        e = work - self.rows.X @ b
        weighted = e if frequency is None else e * frequency[:, None]
        beta = self.rows.X_map @ b
        if self.ones is not None:
            beta = beta + self.ones[:, None] * shift
        around = np.einsum("ib,ib->b", work, work if frequency is None else work * frequency[:, None])
        return ResponseProducts(
            tuple(sums(Z, weighted) for sums, Z in zip(self.sums, self.rows.Z, strict=True)),
            self.weighted @ e,
            np.einsum("ib,ib->b", e, weighted),
            around,
            beta,
        )

    def _shifted(self, Y: Array) -> tuple[Array, Array]:
        """Responses less about their mean where X spans the intercept, over the root of the known variances."""
        y = Y - self.offset[:, None] if self.offset.any() else Y
        shift: Array = np.zeros(Y.shape[1])
        if self.ones is not None:
            # from the first value: with y + 1e10 a plain mean has lost the digits
            first = y[0]
            y = y - first
            mean = y.mean(axis=0)
            y, shift = y - mean, first + mean
        return (y if self.root is None else y / self.root), shift


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums over the rows of each of G levels: `order` sorts the rows by level, `starts` are those of `present`."""

    G: int
    order: Codes | None
    starts: Codes
    present: Codes

    @classmethod
    def of(cls, codes: Codes, G: int) -> _Sums:
        order = None if (np.diff(codes) >= 0).all() else np.argsort(codes, kind="stable")
        ordered = codes if order is None else codes[order]
        present, starts = np.unique(ordered, return_index=True)
        return cls(G, order, starts, present)

    def __call__(self, Z: Array, E: Array) -> Array:
        """(G, q, B) sums of z e over the rows of each level; Z (n, q), E (n, B)."""
        if self.order is not None:
            Z, E = Z[self.order], E[self.order]
        out = np.zeros((self.G, Z.shape[1], E.shape[1]))
        for a in range(Z.shape[1]):
            out[self.present, a] = np.add.reduceat(Z[:, a, None] * E, self.starts, axis=0)
        return out
