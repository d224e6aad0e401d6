"""What the estimation of the prior adds to the posterior variance of a unit, by the delta method.

    Var(θ_i | y) ≈ Var(θ_i | y, η̂) + J_i C J_i',   J_i = ∂E[θ_i | y, η]/∂η at η̂,   C the covariance matrix of η̂

Kass and Steffey (1989, JASA 84:717-726), first order: the second term is the variance of the estimate itself over
what the data leave open about the prior, by its own data, so that units far from the prior mean have more of it. In
the normal model it is g2 + g3 of the area-level mean squared error, which is what is reported there.

At φ̂ = 0 the expansion has no ground: Var(θ_i | y, φ) is 0 there and rises with φ. The variance about the estimate is
then averaged over the dispersions in proportion to their profile likelihood, as is done for areas:

    ∫ [Var(θ_i | y, φ) + J_β C_β(φ) J_β' + (E[θ_i | y, φ] − θ̂_i)²] L(φ) dφ / ∫ L(φ) dφ
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import Counts, mean_of, null_weights
from hierlmm.likelihood.compound.maximum import informative
from hierlmm.likelihood.compound.profile import CountData, profile

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Nodes of the rule over the dispersion, and units whose density falls with it that an average needs to exist.
NODES, ENOUGH = 64, 3


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


def averaged(data: CountData, beta: Vector, y: Vector, size: Vector, X: Matrix, offset: Vector) -> Vector:
    """(M,) variances of θ about its estimate at φ = 0, averaged over φ; nan where too few units say anything of φ.

    data  the units in the fit, whose likelihood weighs φ; the other arguments are of all M units, y and size nan
          without observations
    """
    if informative(data)[0] < ENOUGH:
        return np.full(len(y), np.nan)
    u, weight = np.polynomial.legendre.leggauss(NODES)
    share = 0.5 * (u + 1)
    # the scale on which the likelihood falls: that of its slope, or of the expected information
    eta = data.X @ beta + data.offset
    at_zero = profile(data, np.zeros(1), beta[None])
    fall = -float(at_zero.score[0]) + float(np.sqrt(null_weights(data.family, data.size, eta)[1].sum()))
    phi = share / (1 - share) / fall
    found = profile(data, phi, np.repeat(beta[None], NODES, axis=0))
    mass = weight * np.exp(found.value - found.value.max()) / (1 - share) ** 2
    mass /= mass.sum()
    known, there = np.where(np.isnan(size), 0.0, size), np.where(np.isnan(y), 0.0, y)
    centre = mean_of(data.family, X @ beta + offset)
    terms = data.mean_terms(found.beta, phi)
    out = np.zeros(len(y))
    for k in range(NODES):
        own = X @ found.beta[k] + offset
        law = posterior(data.family, y, size, mean_of(data.family, own), phi[k])
        J = sensitivities(data.family, there, known, X, own, float(phi[k]))[:, :-1]
        C = observed_covariance((data.X.T * terms.eta_eta[k]) @ data.X)
        out += mass[k] * (law.variance + added(J, C) + (law.mean - centre) ** 2)
    return out
