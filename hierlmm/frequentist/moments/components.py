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
class Component:
    """One parameter of the covariance matrix of the random effects of one factor.

    factor  position in the elimination order; matrix (q, q) what it multiplies
    group, term, term2   as in the table of variance components; term2 "" for a variance
    """

    factor: int
    matrix: Array
    group: str
    term: str
    term2: str

    @property
    def name(self) -> str:
        """ "tree" for a random intercept, else "tree: Time" or "tree: Intercept, Time"."""
        if self.term == "Intercept" and not self.term2:
            return self.group
        return f"{self.group}: {self.term}" + (f", {self.term2}" if self.term2 else "")


def components(design: LMMDesign, cp: CrossProducts) -> tuple[Component, ...]:
    """The parameters of all factors, in the order in which the formula names these."""
    found = []
    for f, factor in enumerate(design.factors):
        position, q = cp.order.index(f), len(factor.coefficients)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            names = [factor.coefficients[a] for a in block]
            for a, b in _entries(block, structure):
                matrix = np.zeros((q, q))
                if structure == "general":
                    matrix[a, b] = matrix[b, a] = 1.0
                else:
                    part = np.eye(len(block)) if a == b else 1.0 - np.eye(len(block))
                    matrix[np.ix_(block, block)] = part
                first, second = names[block.index(b)], "" if a == b else names[block.index(a)]
                found.append(Component(position, matrix, factor.name, first, second))
    return tuple(found)


def _entries(block: tuple[int, ...], structure: str) -> list[tuple[int, int]]:
    """The entries that stand for the parameters of a block: variances and covariances of its coefficients."""
    if structure == "general":
        return [(a, a) for a in block] + [(a, b) for i, b in enumerate(block) for a in block[:i]]
    return [(block[0], block[0])] + ([(block[0], block[1])] if structure == "cs" else [])


def matrices(found: tuple[Component, ...], values: Array, widths: tuple[tuple[int, int], ...]) -> tuple[Array, ...]:
    """Per factor in elimination order (q, q) the matrix that the values of the parameters give."""
    out = [np.zeros((q, q)) for _, q in widths]
    for component, value in zip(found, values, strict=True):
        out[component.factor] += value * component.matrix
    return tuple(out)


def to_data_scale(found: tuple[Component, ...], cp: CrossProducts) -> Array:
    """(k, k) matrix that takes parameters on the working scale to those of the data: G = B G_work B'."""
    T = np.zeros((len(found), len(found)))
    for j, source in enumerate(found):
        B = cp.Z_map[source.factor]
        moved = B @ source.matrix @ B.T
        for i, target in enumerate(found):
            if target.factor == source.factor and (support := target.matrix != 0).any():
                T[i, j] = moved[support][0]
    return T
