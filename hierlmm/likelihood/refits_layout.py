"""Where the elements of theta sit in the relative factors, for many values of theta at once.

Lambda is linear in theta: Lambda_f = sum of theta_e D_e over the elements of factor f. So dT/dtheta_e =
D_e Lambda' + Lambda D_e', and the second derivatives of T are constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.parameters import Parameters

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """One covariance block: its factor, its coefficients, and what it is."""

    factor: int
    coefficients: tuple[int, ...]
    structure: str


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """E elements of theta, as `parameters` orders them.

    place    per factor (elimination order) the slice of its elements
    bends    per factor (E_f E_f, q q) D_e D_f' + D_f D_e', the second derivatives of T
    blocks   the covariance blocks of all factors
    """

    parameters: Parameters
    place: tuple[slice, ...]
    bends: tuple[Array, ...]
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, cp: CrossProducts) -> Layout:
        """The layout of a design's covariance blocks."""
        parameters = Parameters.of(cp)
        stops = np.cumsum([0, *map(len, parameters.basis)]).tolist()
        place = tuple(slice(a, b) for a, b in pairwise(stops))
        blocks = tuple(
            Block(f, block, structure)
            for f, (own, structures) in enumerate(zip(cp.blocks, cp.structures, strict=True))
            for block, structure in zip(own, structures, strict=True)
        )
        return cls(parameters, place, tuple(map(_bends, parameters.basis)), blocks)

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def basis(self) -> tuple[Array, ...]:
        """Per factor (E_f, q, q) the matrices D_e."""
        return self.parameters.basis

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """Positions of the elements that vanish together where a covariance loses rank, the diagonal one first."""
        return self.parameters.columns

    def factors(self, theta: Array) -> tuple[Array, ...]:
        """Per factor (q, q, n) Lambda of (E, n) theta."""
        return tuple(np.einsum("eab,en->abn", D, theta[at]) for D, at in zip(self.basis, self.place, strict=True))

    def theta(self, factors: Sequence[Array]) -> Array:
        """(E, n) theta of (q, q, n) factors that have this pattern."""
        parts = [
            np.einsum("eab,abn->en", D / np.einsum("eab,eab->e", D, D)[:, None, None], Lambda)
            for D, Lambda in zip(self.basis, factors, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def _bends(D: Array) -> Array:
    product = np.einsum("eac,fbc->efab", D, D)
    return np.asarray((product + product.swapaxes(-1, -2)).reshape(len(D) ** 2, -1))
