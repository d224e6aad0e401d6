"""The free elements of the relative covariance factors, whatever the structure of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """The free elements of theta and what each does: Lambda of a factor is the sum of theta[k] times basis[k].

    factor   (k,) which factor, in elimination order; ascending
    basis    per factor (k_f, q, q) the matrices that its elements multiply
    columns  positions of the elements that vanish together where a covariance loses rank: a column of an
             unstructured factor with its diagonal element first, or a single element of a structured one
    general  (k,) whether the element belongs to an unstructured block
    widths   q of each factor

    Elements run by factor, block, then for an unstructured block column and row, as lme4 orders its theta. An
    identity block has one element, Lambda = a I; a compound symmetric one two, Lambda = a (I - J/q) + b J/q, so that
    a² and b² are the eigenvalues of the relative covariance and all of its space is reached, negative correlations
    included.
    """

    factor: tuple[int, ...]
    basis: tuple[Array, ...]
    columns: tuple[tuple[int, ...], ...]
    general: NDArray[np.bool_]
    widths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.factor)

    @classmethod
    def of(cls, cp: CrossProducts) -> Parameters:
        """The free elements of relative covariance factors with the blocks and structures of `cp`."""
        return _parameters(tuple(q for _, q in cp.sizes), cp.blocks, cp.structures)

    def factors(self, theta: Array) -> tuple[Array, ...]:
        """(q, q) templates Lambda, one per grouping factor, of a vector theta."""
        out, start = [], 0
        for E in self.basis:
            out.append((theta[start : start + len(E)] @ E.reshape(len(E), E.shape[1] ** 2)).reshape(E.shape[1:]))
            start += len(E)
        return tuple(out)

    def theta(self, factors: Sequence[Array]) -> Array:
        """The free elements of the templates."""
        parts = [
            (E * Lambda).sum(axis=(1, 2)) / (E * E).sum(axis=(1, 2))
            for E, Lambda in zip(self.basis, factors, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


@lru_cache(maxsize=256)
def _parameters(
    widths: tuple[int, ...],
    blocks_of: tuple[tuple[tuple[int, ...], ...], ...],
    structures_of: tuple[tuple[str, ...], ...],
) -> Parameters:
    factor, columns, general, basis = list[int](), list[tuple[int, ...]](), list[bool](), list[Array]()
    for f, (q, blocks, structures) in enumerate(zip(widths, blocks_of, structures_of, strict=True)):
        own = list[Array]()
        for block, structure in zip(blocks, structures, strict=True):
            first = len(factor) + len(own)
            matrices = _basis(q, block, structure)
            columns += _vanishing(first, len(block), len(matrices), structure)
            general += [structure == "general"] * len(matrices)
            own += matrices
        factor += [f] * len(own)
        basis.append(np.array(own).reshape(-1, q, q))
    return Parameters(tuple(factor), tuple(basis), tuple(columns), np.array(general, dtype=bool), widths)


def _basis(q: int, block: tuple[int, ...], structure: str) -> list[Array]:
    """The matrices that the elements of one block multiply, (q, q) each."""
    size = len(block)
    if structure == "general":
        inner = [np.zeros((size, size)) for _ in range(size * (size + 1) // 2)]
        for E, place in zip(inner, combinations_with_replacement(range(size), 2), strict=True):
            E[place[1], place[0]] = 1.0
    elif structure == "identity":
        inner = [np.eye(size)]
    else:
        mean = np.full((size, size), 1.0 / size)
        inner = [np.eye(size) - mean, mean]
    out = []
    for E in inner:
        whole = np.zeros((q, q))
        whole[np.ix_(block, block)] = E
        out.append(whole)
    return out


def _vanishing(first: int, size: int, elements: int, structure: str) -> list[tuple[int, ...]]:
    if structure != "general":
        return [(first + k,) for k in range(elements)]
    stops = np.cumsum([0, *range(size, 0, -1)]) + first
    return [tuple(range(a, b)) for a, b in pairwise(stops.tolist())]
