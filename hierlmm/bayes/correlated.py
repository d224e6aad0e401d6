"""The posterior of an area-level model with correlated sampling errors: that of the rotated data, rotated back.

With S = U diag(d) U' the rotated estimates U'y are those of an area-level model with independent errors, the same A and
the same β (`likelihood.area.correlated`), so that the integral over A is the ordinary one. Given A, the effects of the
areas in the fit are Gaussian with mean c (y − Xβ) and covariance c S, c = A (A I + S)⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import AreaDesign, NewRows
from hierlmm.likelihood.area.correlated import Rotation, sampling_errors
from hierlmm.likelihood.area.moments import Moments, moments

Array = NDArray[np.float64]

# Numbers in the arrays (areas, nodes, coefficients) that are worked on at once.
SLAB = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """y (m,), offset taken off, and X (m, p) of the areas in the fit in turned coordinates; errors the rotation."""

    y: Array
    X: Array
    errors: Rotation


def turned(design: AreaDesign) -> Turned:
    """The areas in the fit of a design with a `covariance`, rotated."""
    into = design.sampled
    errors = sampling_errors(design.D, design.covariance, into)
    return Turned(errors.forward(design.y[into] - design.offset[into]), errors.forward(design.X[into]), errors)


def sampling_eigenvalues(design: AreaDesign) -> Array:
    """(m,) sampling variances of the areas in the fit, or the eigenvalues of their covariance."""
    return design.D[design.sampled] if design.covariance is None else turned(design).errors.d


@dataclass(frozen=True, slots=True, eq=False)
class CorrelatedMoments(Moments):
    """`Moments` of the areas in the fit; theta, g1 and g2 turned back, gamma (*A, m) the diagonal of c."""

    gamma: Array


def conditional(design: AreaDesign, priors: ResolvedPriors, A: Array) -> CorrelatedMoments:
    """Exact moments of β and the means of the areas in the fit given each A (K,), under the prior of β."""
    at = turned(design)
    inner = moments(A, at.y, at.X, at.errors.d, *fixed_prior(priors))
    gamma = A[:, None] / (A[:, None] + at.errors.d)
    g2 = np.empty_like(gamma)
    size = max(1, SLAB // max(1, at.X.size))
    for start in range(0, len(A), size):
        part = slice(start, start + size)
        g2[part] = _quadratic(reach(at, 1 - gamma[part]), inner.cov_beta[part])
    return CorrelatedMoments(
        loglik=inner.loglik,
        beta=inner.beta,
        cov_beta=inner.cov_beta,
        theta=at.errors.back(inner.theta.T).T,
        g1=at.errors.diagonal(inner.g1.T).T,
        g2=g2,
        gamma=at.errors.diagonal(gamma.T).T,
    )


def fixed_prior(priors: ResolvedPriors) -> tuple[Array, Array] | tuple[None, None]:
    """Mean and covariance of the normal prior of β, as `moments` takes them."""
    if priors.is_flat_on_fixed:
        return None, None
    mean, precision = priors.fixed_moments()
    with np.errstate(divide="ignore"):
        return mean, np.diag(1.0 / precision)


def reach(at: Turned, kept: Array) -> Array:
    """(K, m, p) (I − c) X at K nodes, kept (K, m) = 1 − γ in turned coordinates."""
    m, p = at.X.shape
    turned_back = at.errors.back((kept.T[:, :, None] * at.X[:, None, :]).reshape(m, -1))
    return np.asarray(turned_back.reshape(m, len(kept), p).transpose(1, 0, 2))


def _quadratic(rows: Array, cov: Array) -> Array:
    """(K, m) x' C x for rows (K, m, p) and covariances (K, p, p)."""
    return np.asarray(np.einsum("kmp,kpq,kmq->km", rows, cov, rows, optimize=True))


def draw_effects(design: AreaDesign, residual: Array, A: Array, rng: np.random.Generator) -> Array:
    """(draws, m) effects of the areas in the fit given A (draws,) and y − Xβ (draws, m)."""
    errors = turned(design).errors
    gamma = A[:, None] / (A[:, None] + errors.d)
    mean = gamma * errors.forward(residual.T).T
    return errors.back((mean + np.sqrt(gamma * errors.d) * rng.standard_normal(mean.shape)).T).T


def rows_given(
    design: AreaDesign, priors: ResolvedPriors, A: Array, rows: NewRows, sampled: NDArray[np.bool_]
) -> tuple[Array, Array, Array]:
    """Mean, variance and weight on the direct estimate (K, k) of rows at nodes A (K,): see `areaprediction.given_A`.

    The effect of an area in the fit depends on β through (cX)_i, so that x'β + v_i does through x − (cX)_i.
    """
    at, given = turned(design), conditional(design, priors, A)
    kept = at.errors.d / (A[:, None] + at.errors.d)
    H = reach(at, kept)
    into = design.sampled
    effect = given.theta - given.beta @ design.X[into].T
    mean = given.beta @ rows.X.T + rows.offset
    variance = _quadratic(np.broadcast_to(rows.X, (len(A), *rows.X.shape)), given.cov_beta) + A[:, None]
    gamma = np.zeros_like(mean)
    column = (np.cumsum(into) - 1)[rows.codes[0]]
    for row in np.flatnonzero(sampled):
        i = column[row]
        mean[:, row] += effect[:, i]
        through = rows.X[row] - design.X[into][i] + H[:, i]
        variance[:, row] = given.g1[:, i] + np.einsum("kp,kpq,kq->k", through, given.cov_beta, through)
        gamma[:, row] = given.gamma[:, i]
    return mean, variance, gamma
