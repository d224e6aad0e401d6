"""Variance components as the parameters in which V is linear, on the working scale and on that of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts
from hierlmm.design.types import LMMDesign

Array = NDArray[np.float64]

RESIDUAL = "Residual"


@dataclass(frozen=True, slots=True, eq=False)
class VarianceComponent:
    """One parameter of the covariance matrix of the random effects of one factor.

    factor  position in the elimination order; matrix (q, q) what it multiplies; group its name
    pairs   term and term2 of each entry of that matrix, as in the table of variance components; term2 "" for a variance
    """

    factor: int
    matrix: Array
    group: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def term(self) -> str:
        """The coefficient, of several of one variance the first."""
        return self.pairs[0][0]

    @property
    def term2(self) -> str:
        """The other coefficient of a covariance; "" for a variance."""
        return self.pairs[0][1]

    @property
    def name(self) -> str:
        """ "tree" for a random intercept, else "tree: Time" or "tree: Intercept, Time"."""
        if self.term == "Intercept" and not self.term2:
            return self.group
        return f"{self.group}: {self.term}" + (f", {self.term2}" if self.term2 else "")


def components(design: LMMDesign, cp: CrossProducts) -> tuple[VarianceComponent, ...]:
    """The parameters of all factors, in the order in which the formula names these."""
    found = []
    for f, factor in enumerate(design.factors):
        position, q = cp.order.index(f), len(factor.coefficients)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            for a, b in _entries(block, structure):
                matrix = np.zeros((q, q))
                if structure == "general":
                    matrix[a, b] = matrix[b, a] = 1.0
                else:
                    part = np.eye(len(block)) if a == b else 1.0 - np.eye(len(block))
                    matrix[np.ix_(block, block)] = part
                found.append(VarianceComponent(position, matrix, factor.name, _pairs(matrix, factor.coefficients)))
    return tuple(found)


def _pairs(matrix: Array, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names of the entries of the lower triangle that are not zero, column by column."""
    columns, rows = np.nonzero(np.tril(matrix).T)
    return tuple((names[r], "" if r == c else names[c]) for r, c in zip(rows, columns, strict=True))


def _entries(block: tuple[int, ...], structure: str) -> list[tuple[int, int]]:
    """The entries that stand for the parameters of a block: variances and covariances of its coefficients."""
    if structure == "general":
        return [(a, a) for a in block] + [(a, b) for i, b in enumerate(block) for a in block[:i]]
    return [(block[0], block[0])] + ([(block[0], block[1])] if structure == "cs" else [])


def matrices(
    found: tuple[VarianceComponent, ...], values: Array, widths: tuple[tuple[int, int], ...]
) -> tuple[Array, ...]:
    """Per factor in elimination order (q, q) the matrix that the values of the parameters give."""
    out = [np.zeros((q, q)) for _, q in widths]
    for component, value in zip(found, values, strict=True):
        out[component.factor] += value * component.matrix
    return tuple(out)


def to_data_scale(found: tuple[VarianceComponent, ...], cp: CrossProducts) -> Array:
    """(k, k) matrix that takes parameters on the working scale to those of the data: G = B G_work B'."""
    T = np.zeros((len(found), len(found)))
    for j, source in enumerate(found):
        B = cp.Z_map[source.factor]
        moved = B @ source.matrix @ B.T
        for i, target in enumerate(found):
            if target.factor == source.factor and (support := target.matrix != 0).any():
                T[i, j] = moved[support][0]
    return T
