"""What the estimation of the prior adds to the posterior variance of a unit, by the delta method.

    Var(θ_i | y) ≈ Var(θ_i | y, η̂) + J_i C J_i',   J_i = ∂E[θ_i | y, η]/∂η at η̂,   C the covariance matrix of η̂

Kass and Steffey (1989, JASA 84:717-726), first order: the second term is the variance of the estimate itself over
what the data leave open about the prior, by its own data, so that units far from the prior mean have more of it. In
the normal model it is g2 + g3 of the area-level mean squared error, which is what is reported there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.marginal import Counts, mean_of, null_weights

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def sensitivities(family: Counts, y: Vector, size: Vector, X: Matrix, eta: Vector, phi: float) -> Matrix:
    """(M, p + 1) derivatives of the posterior means in (β, φ); y and size 0 for units without observations."""
    mu = mean_of(family, eta)
    if family == "poisson":
        m = size * mu
        of_eta, of_phi = mu * (1 + phi * y) / (1 + phi * m) ** 2, mu * (y - m) / (1 + phi * m) ** 2
    else:
        of_eta, of_phi = mu * (1 - mu) / (1 + phi * size), (y - size * mu) / (1 + phi * size) ** 2
    return np.column_stack([X * of_eta[:, None], of_phi])


def observed_covariance(hessian: Matrix) -> Matrix:
    """The inverse of the observed information; nan where that is not positive definite."""
    try:
        root = np.linalg.cholesky(-hessian)
    except np.linalg.LinAlgError:
        return np.full_like(hessian, np.nan)
    half = np.linalg.solve(root, np.eye(len(root)))
    return np.asarray(half.T @ half)


def null_covariance(family: Counts, size: Vector, X: Matrix, eta: Vector) -> Matrix:
    """The inverse of the expected information at φ = 0, where β and φ are orthogonal."""
    of_eta, of_phi = null_weights(family, size, eta)
    p = X.shape[1]
    out = np.zeros((p + 1, p + 1))
    out[:p, :p] = observed_covariance(-(X.T * of_eta) @ X) if p else 0.0
    total = float(np.sum(of_phi))
    out[p, p] = 1 / total if total > 0 else np.nan
    return out


def added(J: Matrix, covariance: Matrix) -> Vector:
    """(M,) J C J'."""
    return np.asarray(np.einsum("ij,jk,ik->i", J, covariance, J))
