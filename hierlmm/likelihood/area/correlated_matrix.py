"""Matrices of errors of area estimates where effects or sampling errors are correlated, with the uses of `ErrorMatrix`.

Correlated sampling errors: U E U' with E diagonal plus low rank, U the rotation of the areas in the fit, so that 10,000
areas in small blocks need no matrix of that size. Correlated effects: the matrix itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.correlated import Rotation
from hierlmm.likelihood.area.errors_matrix import ErrorMatrix

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RotatedErrors:
    """diag(by) U E U' diag(by) for M areas.

    turned  E (M, M), of the areas in turned coordinates
    errors  the rotation U of the m areas `inside` (m,) the fit; the others are not turned
    by      (M,) scale of each area
    """

    turned: ErrorMatrix
    errors: Rotation
    inside: NDArray[np.intp]
    by: Vector

    @property
    def size(self) -> int:
        """M."""
        return self.by.size

    def diagonal(self) -> Vector:
        """(M,) mean squared errors."""
        own = self.turned.own.copy()
        own[self.inside] = self.errors.diagonal(own[self.inside])
        factor = self._back(self.turned.factor)
        return np.asarray(np.square(self.by) * (own + ((factor @ self.turned.core) * factor).sum(axis=1)))

    def times(self, V: Matrix) -> Matrix:
        """The matrix times V (M, k)."""
        inner = self.turned.times(self._forward(self.by[:, None] * V))
        return np.asarray(self.by[:, None] * self._back(inner))

    def quadratic(self, W: Matrix) -> Matrix:
        """(R, R) mean squared and cross errors W Σ W' of R weighted sums of the estimates, W (R, M)."""
        return self.turned.quadratic(self._forward((W * self.by).T).T)

    def dense(self) -> Matrix:
        """(M, M) the matrix itself."""
        return self.times(np.eye(self.size))

    def scaled(self, by: Vector) -> RotatedErrors:
        """Rows and columns times `by` (M,)."""
        return replace(self, by=self.by * by)

    def with_diagonal(self, mse: Vector) -> RotatedErrors:
        """Rows and columns scaled so that the diagonal is mse (M,)."""
        return self.scaled(scale_to(self.diagonal(), mse))

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from the normal distribution with this covariance matrix."""
        return np.asarray(self.by * self._back(self.turned.sample(size, rng).T).T)

    def _forward(self, values: Matrix) -> Matrix:
        out = values.copy()
        out[self.inside] = self.errors.forward(values[self.inside])
        return out

    def _back(self, values: Matrix) -> Matrix:
        out = values.copy()
        out[self.inside] = self.errors.back(values[self.inside])
        return out


@dataclass(frozen=True, slots=True, eq=False)
class DenseErrors:
    """A symmetric positive semidefinite matrix of errors (M, M)."""

    values: Matrix

    @property
    def size(self) -> int:
        """M."""
        return len(self.values)

    def diagonal(self) -> Vector:
        """(M,) mean squared errors."""
        return np.diagonal(self.values).copy()

    def times(self, V: Matrix) -> Matrix:
        """The matrix times V (M, k)."""
        return np.asarray(self.values @ V)

    def quadratic(self, W: Matrix) -> Matrix:
        """(R, R) mean squared and cross errors W Σ W' of R weighted sums of the estimates, W (R, M)."""
        product = W @ self.values @ W.T
        return np.asarray((product + product.T) / 2)

    def dense(self) -> Matrix:
        """(M, M) the matrix itself."""
        return self.values.copy()

    def scaled(self, by: Vector) -> DenseErrors:
        """Rows and columns times `by` (M,)."""
        return DenseErrors(self.values * np.outer(by, by))

    def with_diagonal(self, mse: Vector) -> DenseErrors:
        """Rows and columns scaled so that the diagonal is mse (M,)."""
        return self.scaled(scale_to(self.diagonal(), mse))

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from the normal distribution with this covariance matrix."""
        values, vectors = np.linalg.eigh(self.values)
        half = vectors * np.sqrt(np.maximum(values, 0.0))
        return np.asarray(rng.standard_normal((size, self.size)) @ half.T)


def scale_to(diagonal: Vector, mse: Vector) -> Vector:
    """What to multiply rows and columns by for the diagonal (M,) to be mse (M,)."""
    return np.asarray(np.sqrt(np.where(diagonal > 0, mse / np.where(diagonal > 0, diagonal, 1.0), 0.0)))
