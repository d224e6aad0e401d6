"""Where the elements of theta sit in the relative factors, for many values of theta at once.

Lambda is linear in theta: Lambda_f = sum of theta_e D_e over the elements of factor f, D_e of ones and zeros. So
dT/dtheta_e = D_e Lambda' + Lambda D_e', and the second derivatives of T are constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts

Array = NDArray[np.float64]
LINEAR = ("general", "identity")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """E elements of theta by factor (elimination order), block, column, then row, as lme4 orders them.

    widths   q of each factor; place per factor the slice of its elements
    basis    per factor (E_f, q, q) D_e; bends (E_f E_f, q q) the symmetric second derivatives of T
    columns  positions in theta of each column of each factor, the diagonal element first; a block with one common
             variance is one such column
    blocks   per block: its factor, its coefficients, its elements and whether it is unstructured
    """

    widths: tuple[int, ...]
    place: tuple[slice, ...]
    basis: tuple[Array, ...]
    bends: tuple[Array, ...]
    columns: tuple[tuple[int, ...], ...]
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, cp: CrossProducts) -> Layout:
        """The layout of a design whose blocks are all in `LINEAR`."""
        place, basis, columns, blocks, start = [], [], [], [], 0
        structures = cp.structures
        for f, ((_, q), of_factor, kinds) in enumerate(zip(cp.sizes, cp.blocks, structures, strict=True)):
            D: list[Array] = []
            for block, kind in zip(of_factor, kinds, strict=True):
                first = start + len(D)
                groups = _common(q, block) if kind == "identity" else _triangle(q, block)
                for group in groups:
                    columns.append(tuple(range(start + len(D), start + len(D) + len(group))))
                    D.extend(group)
                blocks.append(Block(f, block, slice(first, start + len(D)), kind == "general"))
            place.append(slice(start, start + len(D)))
            basis.append(np.stack(D))
            start += len(D)
        bends = tuple(_bends(D) for D in basis)
        return cls(tuple(q for _, q in cp.sizes), tuple(place), tuple(basis), bends, tuple(columns), tuple(blocks))

    def __len__(self) -> int:
        return self.place[-1].stop if self.place else 0

    def factors(self, theta: Array) -> tuple[Array, ...]:
        """Per factor (q, q, n) Lambda of (E, n) theta."""
        return tuple(np.einsum("eab,en->abn", D, theta[at]) for D, at in zip(self.basis, self.place, strict=True))

    def theta(self, factors: Sequence[Array]) -> Array:
        """(E, n) theta of (q, q, n) factors that have this pattern."""
        parts = [
            np.einsum("eab,abn->en", D / D.sum((1, 2), keepdims=True), Lambda)
            for D, Lambda in zip(self.basis, factors, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 1))


@dataclass(frozen=True, slots=True)
class Block:
    """One covariance block: `factor`, its `coefficients`, its `elements` of theta, and whether it is unstructured."""

    factor: int
    coefficients: tuple[int, ...]
    elements: slice
    general: bool


def _triangle(q: int, block: tuple[int, ...]) -> list[list[Array]]:
    """D_e of an unstructured block, column by column."""
    out = []
    for c in range(len(block)):
        column = []
        for r in range(c, len(block)):
            D = np.zeros((q, q))
            D[block[r], block[c]] = 1.0
            column.append(D)
        out.append(column)
    return out


def _common(q: int, block: tuple[int, ...]) -> list[list[Array]]:
    """D_e of a block whose coefficients are independent with one variance."""
    D = np.zeros((q, q))
    D[list(block), list(block)] = 1.0
    return [[D]]


def _bends(D: Array) -> Array:
    """(E E, q q) matrices D_e D_f' + D_f D_e'."""
    product = np.einsum("eac,fbc->efab", D, D)
    return np.asarray((product + product.swapaxes(-1, -2)).reshape(len(D) ** 2, -1))
