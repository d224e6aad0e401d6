"""The matrix of mean squared and cross errors of area estimates, as a diagonal plus a matrix of low rank.

With w = 1/(A + D), B = D w, C = (X'V⁻¹X)⁻¹ and P = V⁻¹ − V⁻¹X C X'V⁻¹, for the areas in the fit: E[(θ̂ − θ)(θ̂ − θ)']
is D − D P D at the true A, the matrix of the best linear unbiased predictor θ̂(A), plus the mean outer product of
θ̂ − θ̂(A), which is uncorrelated with the error of θ̂(A) (Kackar and Harville 1984, JASA 79:853-862). ∂θ̂(A)/∂A = D P² y
has covariance matrix D P³ D, so that this is v D P³ D to second order, v the variance of Â; and D − D P D taken at Â is
off by b D P² D − v D P³ D, b the bias of Â. So

    D − D P D + 2 v D P³ D − b D P² D

estimates the matrix without bias to second order, and off its diagonal too: there v D P³ D is of third order entry by
entry, but in a sum over all areas it is as large as on the diagonal, with the other sign. The diagonal is
g1 + g2 + 2 g3 − b B² to second order; here it is made equal to the mean squared errors that a fit reports, by scaling
rows and columns. An area without a direct estimate is the limit D_i -> infinity: D_i P³ D_i etc. stay finite there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.errors import Asymptotics

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ErrorMatrix:
    """diag(own) + factor core factor', positive semidefinite, for M areas; memory O(M r).

    own     (M,) >= 0, units of y squared: the part of each area's error that no other area shares
    factor  (M, r), with rows 0 where own is 0
    core    (r, r) symmetric, not always positive definite

    Products and draws cost O(M r); the matrix itself is formed by `dense` alone.
    """

    own: Vector
    factor: Matrix
    core: Matrix

    @property
    def size(self) -> int:
        """M."""
        return self.own.size

    def diagonal(self) -> Vector:
        """(M,) mean squared errors."""
        return np.asarray(self.own + ((self.factor @ self.core) * self.factor).sum(axis=1))

    def times(self, V: Matrix) -> Matrix:
        """The matrix times V (M, k)."""
        return np.asarray(self.own[:, None] * V + self.factor @ (self.core @ (self.factor.T @ V)))

    def quadratic(self, W: Matrix) -> Matrix:
        """(R, R) mean squared and cross errors W Σ W' of R weighted sums of the estimates, W (R, M)."""
        loads = W @ self.factor
        product = (W * self.own) @ W.T + loads @ self.core @ loads.T
        return np.asarray((product + product.T) / 2)

    def dense(self) -> Matrix:
        """(M, M) the matrix itself."""
        shared = self.factor @ self.core @ self.factor.T
        return np.asarray(np.diag(self.own) + (shared + shared.T) / 2)

    def scaled(self, by: Vector) -> ErrorMatrix:
        """Rows and columns times `by` (M,)."""
        return ErrorMatrix(self.own * np.square(by), self.factor * by[:, None], self.core)

    def with_diagonal(self, mse: Vector) -> ErrorMatrix:
        """Rows and columns scaled so that the diagonal is mse (M,)."""
        diagonal = self.diagonal()
        return self.scaled(np.sqrt(np.where(diagonal > 0, mse / np.where(diagonal > 0, diagonal, 1.0), 0.0)))

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) independent draws from the normal distribution with this covariance matrix.

        With own = s² and factor = s Q R, Q orthonormal, the matrix is s (I + Q (R core R') Q') s.
        """
        s = np.sqrt(self.own)
        Q, R = np.linalg.qr(self.factor / np.where(s > 0, s, 1.0)[:, None])
        values, vectors = np.linalg.eigh(R @ self.core @ R.T)
        more = (vectors * (np.sqrt(np.maximum(1 + values, 0.0)) - 1)) @ vectors.T
        z = rng.standard_normal((size, self.size))
        return np.asarray(s * (z + (z @ Q) @ more @ Q.T))


def error_matrix(A: float, of_A: Asymptotics, D: Vector, half: Matrix, into: NDArray[np.bool_]) -> ErrorMatrix:
    """The matrix of the module's docstring for M areas, before any scaling and without a positive bias of Â.

    D     (M,) inf where there is no direct estimate, 0 where it is exact
    half  (M, p), half_i'half_j = x_i'C x_j
    into  (M,) the areas in the fit, those with D positive and finite

    The term in b is left out where b > 0, which it could make indefinite: the scaling to the mean squared errors that
    are reported takes it in. In all, the matrix is positive semidefinite.
    """
    w = np.where(into, 1 / np.where(into, A + D, 1.0), 0.0)
    B = np.where(into, w * np.where(into, D, 0.0), np.where(D > 0, 1.0, 0.0))
    h = half[into]
    p = half.shape[1]
    n = (np.square(w[into])[:, None] * h).T @ h
    q = (w[into, None] ** 3 * h).T @ h
    fall = max(0.0, -of_A.bias)
    eye, none = np.eye(p), np.zeros((p, p))
    twice = 2 * of_A.variance
    first = eye + twice * (q - n @ n) + fall * n
    second = twice * n - fall * eye
    core = np.block([[first, second, -twice * eye], [second, -twice * eye, none], [-twice * eye, none, none]])
    base = B[:, None] * half
    factor = np.concatenate([base, w[:, None] * base, np.square(w)[:, None] * base], axis=1)
    own = A * B + np.square(B) * (twice * w + fall)
    return ErrorMatrix(own, factor, core)
