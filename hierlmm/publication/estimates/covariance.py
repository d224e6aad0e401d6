"""Covariance matrices of the errors of M area estimates, never formed unless M is small.

An EBLUP's errors are independent between areas but for the few coefficients that areas share: a diagonal matrix plus
one of low rank. So is the covariance of an exact posterior, and making estimates add up to R totals keeps that form:
products with k vectors cost O(M k), and so does a draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# A variance this small beside the terms whose difference it is has no digits left: it is zero.
ROUNDING = 1e-12


class FitMatrix(Protocol):
    """What the matrices of errors of all kinds of fits have."""

    @property
    def size(self) -> int: ...
    def times(self, V: Matrix) -> Matrix: ...
    def diagonal(self) -> Vector: ...
    def sample(self, size: int, rng: np.random.Generator) -> Matrix: ...


class ErrorCovariance(ABC):
    """Covariance matrix Σ of the errors of M estimates, units of the estimates squared."""

    @property
    @abstractmethod
    def size(self) -> int:
        """M."""

    @abstractmethod
    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""

    @abstractmethod
    def diagonal(self) -> Vector:
        """(M,) variances, none negative."""

    @abstractmethod
    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""

    def between(self, W: Matrix) -> Matrix:
        """(R, R) covariance matrix W Σ W' of R weighted sums of errors, W (R, M)."""
        product = W @ self.times(W.T)
        return np.asarray((product + product.T) / 2)

    def dense(self) -> Matrix:
        """(M, M) the matrix itself."""
        return self.times(np.eye(self.size))


@dataclass(frozen=True, slots=True, eq=False)
class Factored(ErrorCovariance):
    """Σ = diag(own) + half half': own (M,) >= 0, half (M, k)."""

    own: Vector
    half: Matrix

    @property
    def size(self) -> int:
        """M."""
        return self.own.size

    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""
        return np.asarray(self.own[:, None] * V + self.half @ (self.half.T @ V))

    def diagonal(self) -> Vector:
        """(M,) variances."""
        return np.asarray(self.own + np.square(self.half).sum(axis=1))

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""
        shared = rng.standard_normal((size, self.half.shape[1])) @ self.half.T
        return np.asarray(shared + np.sqrt(self.own) * rng.standard_normal((size, self.size)))


@dataclass(frozen=True, slots=True, eq=False)
class Whole(ErrorCovariance):
    """Σ given whole (M, M), for M not large."""

    matrix: Matrix

    @property
    def size(self) -> int:
        """M."""
        return len(self.matrix)

    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""
        return np.asarray(self.matrix @ V)

    def diagonal(self) -> Vector:
        """(M,) variances."""
        return np.maximum(np.diagonal(self.matrix), 0.0)

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""
        return np.asarray(rng.standard_normal((size, self.size)) @ root(self.matrix).T)


@dataclass(frozen=True, slots=True, eq=False)
class OfFit(ErrorCovariance):
    """Σ as a fit holds it."""

    matrix: FitMatrix

    @property
    def size(self) -> int:
        """M."""
        return self.matrix.size

    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""
        return self.matrix.times(V)

    def diagonal(self) -> Vector:
        """(M,) variances."""
        return self.matrix.diagonal()

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""
        return self.matrix.sample(size, rng)


@dataclass(frozen=True, slots=True, eq=False)
class Rescaled(ErrorCovariance):
    """Errors of `base` times `by` (M,), area by area."""

    base: ErrorCovariance
    by: Vector

    @property
    def size(self) -> int:
        """M."""
        return self.by.size

    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""
        return np.asarray(self.by[:, None] * self.base.times(self.by[:, None] * V))

    def diagonal(self) -> Vector:
        """(M,) variances."""
        return np.asarray(self.by**2 * self.base.diagonal())

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""
        return np.asarray(self.by * self.base.sample(size, rng))


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted(ErrorCovariance):
    """Errors e of `base` after an adjustment to R totals: (I − QW) e + Q t, t ~ N(0, noise) apart from e.

    base   covariance matrix of the errors e
    Q      (M, R) by how much each estimate moves with each total
    W      (R, M) weights of the areas in the totals; zero where the total has no error of its own
    noise  (R, R) covariance matrix of the errors of the totals
    """

    base: ErrorCovariance
    Q: Matrix
    W: Matrix
    noise: Matrix

    @property
    def size(self) -> int:
        """M."""
        return self.base.size

    def times(self, V: Matrix) -> Matrix:
        """Σ V for V (M, k)."""
        pulled = self.Q.T @ V
        carried = self.base.times(V - self.W.T @ pulled)
        return np.asarray(carried - self.Q @ (self.W @ carried) + self.Q @ (self.noise @ pulled))

    def diagonal(self) -> Vector:
        """(M,) variances; exactly 0 where the totals determine the estimate."""
        before = self.base.diagonal()
        cross = self.base.times(self.W.T)
        added = np.einsum("ir,rs,is->i", self.Q, self.W @ cross + self.noise, self.Q)
        after = before - 2 * (self.Q * cross).sum(axis=1) + added
        return np.asarray(np.where(after > ROUNDING * (before + added), after, 0.0))

    def between(self, W: Matrix) -> Matrix:
        """(R, R) covariance matrix W Σ W'; exactly 0 for sums that the totals determine."""
        product = W @ self.times(W.T)
        loads = W @ self.Q
        terms = np.diagonal(self.base.between(W)) + np.einsum("kr,rs,ks->k", loads, self.noise, loads)
        left = np.diagonal(product) > ROUNDING * terms
        return np.asarray(np.where(np.outer(left, left), (product + product.T) / 2, 0.0))

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from N(0, Σ)."""
        e = self.base.sample(size, rng)
        t = rng.standard_normal((size, len(self.noise))) @ root(self.noise).T
        return np.asarray(e + (t - e @ self.W.T) @ self.Q.T)


def rescaled(base: ErrorCovariance, variance: Vector) -> Rescaled:
    """The same correlations with other variances (M,); an area without error keeps none."""
    before = base.diagonal()
    return Rescaled(base, np.sqrt(np.where(before > 0, variance / np.where(before > 0, before, 1.0), 0.0)))


def root(S: Matrix) -> Matrix:
    """(R, R) H with H H' = S, S symmetric and positive semidefinite but for rounding."""
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    return np.asarray(np.where(np.diagonal(S) > 0, 1.0, 0.0)[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def of_draws(draws: Matrix) -> Factored:
    """Sample covariance of (S, M) draws, divisor S − 1."""
    away = draws - draws.mean(axis=0)
    return Factored(np.zeros(draws.shape[1]), away.T / np.sqrt(max(1, len(draws) - 1)))
