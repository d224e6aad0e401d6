"""The system of the trailing random effects where it is full: one Cholesky factor, one explicit inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.sparse_systems import Inverse, Sizes

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Smallest Lambda'S Lambda, relative to the identity beside it, at which S - S D S is taken from the inverse
# alone: the digits lost are those of its inverse.
INFORMATIVE = 1e-3


@dataclass(frozen=True, slots=True)
class DensePlaces:
    """A full symmetric matrix, row by row; the lower triangle is what counts."""

    sizes: Sizes

    @property
    def columns(self) -> int:
        return sum(G * q for G, q in self.sizes)

    @property
    def length(self) -> int:
        return self.columns**2

    @property
    def diagonal(self) -> slice:
        return slice(None, None, self.columns + 1)

    def position(self, i: Codes, j: Codes) -> Codes:
        return i * self.columns + j

    def raw(self, rest: Array) -> Array:
        """The products of these columns as they are kept here, from the (R, R) matrix of them."""
        return rest

    def system(self, values: Array, factors: Sequence[Array]) -> DenseSystem:
        """The system from its (length,) values."""
        return DenseSystem.of(self.sizes, values.reshape(self.columns, self.columns), factors)


@dataclass(frozen=True, slots=True, eq=False)
class DenseSystem:
    """U (R, R) upper with U'U = Lambda'S Lambda + I; factors Lambda, one per factor.

    `spare` holds S (R, R), lower triangle, until its memory is taken for the inverse.
    """

    sizes: Sizes
    U: Array
    factors: tuple[Array, ...]
    spare: list[Array]

    @classmethod
    def of(cls, sizes: Sizes, S: Array, factors: Sequence[Array]) -> DenseSystem:
        """Factorise; raises LinAlgError where rounding leaves no positive definite matrix."""
        from scipy.linalg.lapack import dpotrf

        if not len(S):
            return cls(sizes, S, (), [S])
        inner = _between(sizes, S.copy(), factors, transposed=True)
        inner.ravel()[:: len(inner) + 1] += 1.0
        # The transpose is in Fortran's order, and its upper triangle is the lower one here: nothing is copied.
        U, info = dpotrf(inner.T, lower=0, clean=0, overwrite_a=1)
        if info:
            raise np.linalg.LinAlgError("The system of the random effects must be positive definite.")
        return cls(sizes, U, tuple(factors), [S])

    @property
    def log_det(self) -> float:
        return 2 * float(np.log(np.diagonal(self.U)).sum())

    def half(self, B: Array) -> Array:
        """(R, k) U⁻ᵀ Lambda' B, so that half(B)'half(B) = B'D B."""
        from scipy.linalg.lapack import dtrtrs

        if not len(B):
            return B
        return np.asarray(dtrtrs(self.U, turn(self.sizes, self.factors, B, True), lower=0, trans=1)[0])

    def solve(self, B: Array) -> Array:
        """D B for (R, k) B."""
        from scipy.linalg.lapack import dpotrs

        if not len(B):
            return B
        inner = dpotrs(self.U, turn(self.sizes, self.factors, B, True), lower=0)[0]
        return turn(self.sizes, self.factors, inner, False)

    def inverse(self) -> Inverse:
        """D itself, by LAPACK's inverse from the Cholesky factor: once, because it takes the place of S."""
        from scipy.linalg.lapack import dpotri

        S = self.spare.pop()
        if not len(S):
            return Inverse(np.zeros(0), (), ())
        places = self._places()
        direct = [self._direct_gram(S, f) if self._vague(S, f) else None for f in range(len(places))]
        S[...] = self.U.T
        C = dpotri(S.T, lower=0, overwrite_c=1)[0].T
        blocks, grams = [], []
        for here, Lambda, gram in zip(places, self.factors, direct, strict=True):
            own = _diagonal_blocks(C[here, here], len(Lambda))
            blocks.append(np.asarray(Lambda @ own @ Lambda.T))
            if gram is None:
                # Lambda'(S - S D S) Lambda = I - (Lambda'S Lambda + I)⁻¹
                inside = (np.eye(len(Lambda)) - own).sum(axis=0)
                gram = np.asarray(np.linalg.solve(Lambda.T, np.linalg.solve(Lambda.T, inside).T))
            grams.append(gram)
        D = _between(self.sizes, C, self.factors, transposed=False)
        return Inverse(D.ravel(), tuple(blocks), tuple(grams))

    def _places(self) -> list[slice]:
        """Rows of each factor."""
        ends = np.cumsum([0, *(G * q for G, q in self.sizes)]).tolist()
        return [slice(start, stop) for start, stop in pairwise(ends)]

    def _vague(self, S: Array, f: int) -> bool:
        """Whether the data say too little of factor f at its Lambda for S - S D S to be taken from the inverse."""
        here, Lambda = self._places()[f], self.factors[f]
        mean = float(np.diagonal(S)[here].mean())
        return bool(np.linalg.svd(Lambda, compute_uv=False)[-1] ** 2 * mean <= INFORMATIVE)

    def _direct_gram(self, S: Array, f: int) -> Array:
        """Sum of the diagonal blocks of S - S D S of factor f from its columns of S."""
        here, q = self._places()[f], self.sizes[f][1]
        own = _diagonal_blocks(S[here, here], q)
        columns = np.concatenate([S[here, : here.stop], S[here.stop :, here].T], axis=1)
        square = columns[:, here]
        columns[:, here] = np.tril(square) + np.tril(square, -1).T
        half = self.half(columns.T).reshape(-1, q)
        total: Array = own.sum(axis=0) - half.T @ half
        return total


def turn(sizes: Sizes, factors: Sequence[Array], B: Array, transposed: bool) -> Array:
    """(R, k) Lambda B, or Lambda'B, level by level."""
    out, start = np.empty(B.shape), 0
    for (G, q), Lambda in zip(sizes, factors, strict=True):
        here = slice(start, start + G * q)
        start += G * q
        by = Lambda.T if transposed else Lambda
        out[here] = B[here] * by[0, 0] if q == 1 else (by @ B[here].reshape(G, q, -1)).reshape(G * q, -1)
    return out


def _between(sizes: Sizes, lower: Array, factors: Sequence[Array], *, transposed: bool) -> Array:
    """Lambda'S Lambda (or Lambda S Lambda') from the lower triangle of S, which is overwritten; its lower triangle."""
    if all(q == 1 for _, q in sizes):
        scale = np.concatenate([np.full(G, Lambda[0, 0]) for (G, _), Lambda in zip(sizes, factors, strict=True)])
        lower *= scale
        lower *= scale[:, None]
        return lower
    whole = np.tril(lower)
    whole += np.tril(lower, -1).T
    once = turn(sizes, factors, whole, transposed)
    return turn(sizes, factors, once.T, transposed)


def _diagonal_blocks(lower: Array, q: int) -> Array:
    """(G, q, q) symmetric diagonal blocks of a (G q, G q) matrix of which the lower triangle is right."""
    rows = np.arange(len(lower)).reshape(-1, q)
    blocks = lower[rows[:, :, None], rows[:, None, :]]
    out: Array = np.tril(blocks) + np.tril(blocks, -1).swapaxes(-1, -2)
    return out
