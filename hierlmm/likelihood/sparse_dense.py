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


@dataclass(slots=True, eq=False)
class DenseSystem:
    """One matrix of R effects: first its Cholesky factor, then in the same memory the inverse.

    U (R, R) upper with U'U = Lambda'S Lambda + I, None once D (R, R), lower triangle, has taken its place; factors
    Lambda, one per factor; log_det that of U'U; vague the sums of the diagonal blocks of S - S D S of the factors
    for which the inverse does not tell them.
    """

    sizes: Sizes
    factors: tuple[Array, ...]
    U: Array | None
    D: Array | None
    log_det: float
    vague: dict[int, Array]

    @classmethod
    def of(cls, sizes: Sizes, S: Array, factors: Sequence[Array]) -> DenseSystem:
        """Factorise S, which is overwritten; raises LinAlgError where rounding leaves it not positive definite."""
        from scipy.linalg.lapack import dpotrf

        if not len(S):
            return cls(sizes, (), S, None, 0.0, {})
        columns = {f: _columns(sizes, S, f) for f, Lambda in enumerate(factors) if _vague(sizes, S, f, Lambda)}
        inner = _between(sizes, S, factors, transposed=True)
        inner.ravel()[:: len(inner) + 1] += 1.0
        # The transpose is in Fortran's order, and its upper triangle is the lower one here: nothing is copied.
        U, info = dpotrf(inner.T, lower=0, clean=0, overwrite_a=1)
        if info:
            raise np.linalg.LinAlgError("The system of the random effects must be positive definite.")
        out = cls(sizes, tuple(factors), U, None, 2 * float(np.log(np.diagonal(U)).sum()), {})
        out.vague.update({f: out._direct_gram(f, part) for f, part in columns.items()})
        return out

    def solve(self, B: Array) -> Array:
        """D B for (R, k) B."""
        from scipy.linalg.blas import dsymm
        from scipy.linalg.lapack import dpotrs

        if not len(B):
            return B
        if self.D is not None:
            return np.asarray(dsymm(1.0, self.D.T, B, lower=0), dtype=np.float64)
        inner = dpotrs(self.U, turn(self.sizes, self.factors, B, True), lower=0)[0]
        return turn(self.sizes, self.factors, inner, False)

    def quadratic(self, B: Array) -> Array:
        """(k, k) B'D B for (R, k) B."""
        if self.U is None or not len(B):
            return np.asarray(B.T @ self.solve(B))
        half = self._half(B)
        return np.asarray(half.T @ half)

    def entries(self, i: Codes, j: Codes) -> Array:
        """D[i, j], once the inverse has been formed."""
        assert self.D is not None, "the moments of a system are formed before its entries are read"
        return np.asarray(self.D[np.maximum(i, j), np.minimum(i, j)])

    def _half(self, B: Array) -> Array:
        """(R, k) U⁻ᵀ Lambda' B."""
        from scipy.linalg.lapack import dtrtrs

        return np.asarray(dtrtrs(self.U, turn(self.sizes, self.factors, B, True), lower=0, trans=1)[0])

    def inverse(self) -> Inverse:
        """D itself, by LAPACK's inverse from the Cholesky factor: once, because it takes its memory."""
        from scipy.linalg.lapack import dpotri

        if self.U is None or not len(self.U):
            return Inverse(np.zeros(0), (), ())
        C = dpotri(self.U, lower=0, overwrite_c=1)[0].T
        self.U = None
        blocks, grams = [], []
        for f, (here, Lambda) in enumerate(zip(_places(self.sizes), self.factors, strict=True)):
            own = _diagonal_blocks(C[here, here], len(Lambda))
            blocks.append(np.asarray(Lambda @ own @ Lambda.T))
            if f in self.vague:
                grams.append(self.vague[f])
                continue
            # Lambda'(S - S D S) Lambda = I - (Lambda'S Lambda + I)⁻¹
            inside = (np.eye(len(Lambda)) - own).sum(axis=0)
            grams.append(np.asarray(np.linalg.solve(Lambda.T, np.linalg.solve(Lambda.T, inside).T)))
        self.D = _between(self.sizes, C, self.factors, transposed=False)
        return Inverse(self.D.ravel(), tuple(blocks), tuple(grams))

    def _direct_gram(self, f: int, columns: Array) -> Array:
        """Sum of the diagonal blocks of S - S D S of factor f from its (R, G q) columns of S."""
        q = self.sizes[f][1]
        own = _diagonal_blocks(columns[_places(self.sizes)[f]], q)
        half = self._half(columns).reshape(-1, q)
        return np.asarray(own.sum(axis=0) - half.T @ half)


def _places(sizes: Sizes) -> list[slice]:
    """Rows of each factor."""
    ends = np.cumsum([0, *(G * q for G, q in sizes)]).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _vague(sizes: Sizes, S: Array, f: int, Lambda: Array) -> bool:
    """Whether the data say too little of factor f at its Lambda for S - S D S to be taken from the inverse."""
    mean = float(np.diagonal(S)[_places(sizes)[f]].mean())
    return bool(np.linalg.svd(Lambda, compute_uv=False)[-1] ** 2 * mean <= INFORMATIVE)


def _columns(sizes: Sizes, S: Array, f: int) -> Array:
    """(R, G q) columns of factor f of the symmetric matrix whose lower triangle is S."""
    here = _places(sizes)[f]
    rows = np.concatenate([S[here, : here.stop], S[here.stop :, here].T], axis=1)
    square = rows[:, here]
    rows[:, here] = np.tril(square) + np.tril(square, -1).T
    return rows.T


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
