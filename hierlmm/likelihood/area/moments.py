"""Exact Gaussian moments of β and the area means given the area variance A, over many values of A at once.

Integrating these over a posterior of A gives the exact posterior of an area-level model; at A = Â they are the BLUP
and the first two terms of its mean squared error (Rao and Molina 2015, Small Area Estimation, 2nd ed., ch. 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.likelihood.area.criterion import LOG_2PI, coefficients
from hierlmm.likelihood.area.working import Factor, NormalPrior, Working, factor, in_chunks, normal_prior, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Given A: β ~ N(beta, cov_beta) and θ_i ~ N(theta_i, g1_i + g2_i), θ_i = x_i'β + v_i. Shapes start with A's.

    loglik    (*A)        log density of y with β integrated out over its prior, all constants
    beta      (*A, p)     GLS coefficients (shrunk to the prior mean where there is one)
    cov_beta  (*A, p, p)  (X'V⁻¹X)⁻¹ under a flat prior
    theta     (*A, m)     γ_i y_i + (1 − γ_i) x_i'β, units of y
    g1        (*A, m)     γ_i D_i, units of y squared
    g2        (*A, m)     (1 − γ_i)² x_i' cov_beta x_i, units of y squared
    """

    loglik: Array
    beta: Array
    cov_beta: Array
    theta: Array
    g1: Array
    g2: Array


def moments(
    A: ArrayLike,
    y: Vector,
    X: Matrix,
    D: Vector,
    prior_mean: Vector | None = None,
    prior_cov: Matrix | None = None,
) -> Moments:
    """Moments given A under β ~ N(prior_mean, prior_cov), or under a flat prior on β where these are None.

    prior_mean  (p,); prior_cov (p, p), positive definite; a coefficient of infinite variance has a flat prior (of
                density 1), the entries beside it are not read, and its mean is not either
    A, y, X, D  as in `hierlmm.likelihood.area`; A of any shape, >= 0

    θ is computed as y_i − (1 − γ_i) r_i, so that it is the direct estimate to the last digit as A grows and the
    synthetic one at A = 0. Memory is O(N m p) in pieces, and O(N m) for the result.
    """
    work = working(y, X, D)
    prior = None
    if prior_mean is not None and prior_cov is not None:
        prior = normal_prior(prior_mean, prior_cov, work)
    at = np.asarray(A, dtype=np.float64)
    pieces = in_chunks(lambda part, of: _moments(part, of, prior), at.ravel() / work.basis.scale, work)
    loglik, beta, cov_beta, pull, g1, g2 = (piece.reshape((*at.shape, *piece.shape[1:])) for piece in pieces)
    return Moments(loglik + _constant(work, prior), beta, cov_beta, y - pull, g1, g2)


def _moments(A: Vector, work: Working, prior: NormalPrior | None) -> tuple[Array, ...]:
    basis = work.basis
    w = 1 / (A[:, None] + basis.D)
    fit = factor(w, work, prior)
    beta, cov_beta = coefficients(fit, work)
    minus_2 = (w * np.square(fit.residual)).sum(axis=1) - np.log(w).sum(axis=1) + fit.log_det
    if prior is not None:
        minus_2 = minus_2 + np.square(fit.delta @ prior.rows.T - prior.target).sum(axis=1)
    B = basis.D * w
    g1 = basis.scale * A[:, None] * B
    g2 = basis.scale * np.square(B) * np.square(fit.root @ basis.Q.T).sum(axis=1)
    return -minus_2 / 2, beta, cov_beta, np.sqrt(basis.scale) * B * fit.residual, g1, g2


def _constant(work: Working, prior: NormalPrior | None) -> float:
    """The part of the log density that does not depend on A: 2π, the change of units, and |prior_cov|."""
    contrasts = work.basis.contrasts
    proper, log_det = (0, 0.0) if prior is None else (prior.target.size, prior.log_det)
    units = contrasts * math.log(work.basis.scale) + work.basis.log_det_XX
    return -((contrasts + proper) * LOG_2PI + units + log_det) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Blup:
    """What prediction at one value of A is made of; arrays in the units of the data.

    beta, cov_beta  (p,) and (p, p): GLS coefficients and (X'V⁻¹X)⁻¹
    residual        (m,) y − Xβ, computed without forming Xβ
    fitted          (k,) x'β at the rows asked for
    half            (k, p) with half_i'half_j = x_i'(X'V⁻¹X)⁻¹x_j for the rows asked for
    """

    beta: Vector
    cov_beta: Matrix
    residual: Vector
    fitted: Vector
    half: Matrix


def blup(A: float, y: Vector, X: Matrix, D: Vector, rows: Matrix) -> Blup:
    """GLS fit at A, and x'β with its error structure at `rows` (k, p), which may be rows of X or others.

    Rows are centred as X is before anything is multiplied, so that a covariate far from zero costs no digits.
    """
    return blup_on(A, working(y, X, D), rows)


def blup_on(A: float, work: Working, rows: Matrix) -> Blup:
    """The same from data in working units; A and rows (k, p) in those of the data."""
    return blup_from(factor(1 / (A / work.basis.scale + work.basis.D[None, :]), work), work, rows)


def blup_from(fit: Factor, work: Working, rows: Matrix) -> Blup:
    """The same from the least-squares fit at A (N = 1)."""
    basis = work.basis
    beta, cov_beta = coefficients(fit, work)
    unit = math.sqrt(basis.scale)
    centred = rows @ basis.centring
    on_Q = centred @ basis.to_basis
    fitted = centred @ (work.level * basis.one) + on_Q @ (work.fitted + unit * fit.delta[0])
    return Blup(beta[0], cov_beta[0], unit * fit.residual[0], fitted, unit * on_Q @ fit.root[0].T)
