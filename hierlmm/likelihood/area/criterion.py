"""Likelihood of the area-level model, as functions of arrays, over many values of the area variance at once.

The model (Fay and Herriot 1979, JASA 74:269-277), for m areas:

    y_i = x_i'β + v_i + e_i,   v_i ~ N(0, A),   e_i ~ N(0, D_i),   D_i known,   V_i = A + D_i,   w_i = 1/V_i

In every function: `A` is a scalar or an array of any shape, units of y squared, >= 0, and the result has the shape
of A in front; y is (m,) without its offset; X is (m, p) of full column rank, p < m; D is (m,), all positive, units
of y squared. None of this is checked here (`hierlmm.design` refused other data), and nothing is raised.

With r = y − Xβ̂(A) the generalised least-squares residual, M = X'V⁻¹X and P = V⁻¹ − V⁻¹X M⁻¹X'V⁻¹:

    −2ℓ_ML   =      m log 2π + Σ log V_i + Σ w_i r_i²
    −2ℓ_REML = (m−p) log 2π + Σ log V_i + log|M| + Σ w_i r_i²

ℓ_REML is the log density of y with β integrated out under a flat prior, all constants kept. Programs that use the
density of error contrasts add ½ log|X'X|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.likelihood.area.working import Factor, Working, factor, in_chunks, root_of_one, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Criteria and their derivatives in A at N values of A, in the units of the `Working` they came from.

    minus_2_ml, minus_2_reml   −2ℓ without the constants in 2π and without those of the change of units
    score_ml, score_reml       ∂ℓ/∂A
    slope_ml, slope_reml       ∂²ℓ/∂A²
    information_ml             Σ w²/2, the expected information of ML; to first order also that of REML
    information_reml           tr(P²)/2, the expected information of REML
    size                       (y'P²y + Σ w)/2, what the rounding error of a score is proportional to

    Each is (N,). P y = w r, so nothing m x m is formed. Source: Rao and Molina (2015, Small Area Estimation, 2nd
    ed., ch. 6).
    """

    minus_2_ml: Vector
    minus_2_reml: Vector
    score_ml: Vector
    score_reml: Vector
    slope_ml: Vector
    slope_reml: Vector
    information_ml: Vector
    information_reml: Vector
    size: Vector


def terms(A: Vector, work: Working) -> Terms:
    """Both criteria and their first two derivatives at A (N,), in working units: O(N m p²), one pass."""
    return Terms(*in_chunks(lambda part, of: _terms(part, of)[0], A, work))


def terms_and_factor(A: Vector, work: Working) -> tuple[Terms, Factor]:
    """The same at a few values of A, with the least-squares fits there."""
    if A.size == 1 and work.basis.tame and work.basis.Q.shape[1] and work.y.ndim == 1:
        return _terms_at_one(float(A[0]), work)
    values, fit = _terms(A, work)
    return Terms(*values), fit


def _terms_at_one(A: float, work: Working) -> tuple[Terms, Factor]:
    """The same for one value of A and one response: fewer and smaller steps, which is all the time with few areas."""
    Q, y = work.basis.Q, work.y
    m, p = Q.shape
    W = np.empty((3, m))
    w, w2 = W[0], W[1]
    np.divide(1.0, A + work.basis.D, out=w)
    np.multiply(w, w, out=w2)
    np.multiply(w2, w, out=W[2])
    first, second, third = (W @ work.basis.QQ).reshape(3, p, p)
    root, log_det = root_of_one(first)
    delta = ((w * y) @ Q) @ root.T @ root
    residual = y - Q @ delta
    Py = w * residual
    wPy = w * Py
    inverse = root.T @ root
    product, z = inverse @ second, root @ (wPy @ Q)
    sum_w, sum_w2 = float(w.sum()), float(w @ w)
    trace_P = sum_w - float(product.trace())
    trace_P2 = sum_w2 - 2 * float(np.vdot(inverse, third)) + float(np.vdot(product, product.T))
    yP2y, yP3y = float(Py @ Py), float(wPy @ Py) - float(z @ z)
    ml = float(Py @ residual) - float(np.log(w).sum())
    scores = (yP2y - sum_w) / 2, (yP2y - trace_P) / 2
    slopes = sum_w2 / 2 - yP3y, trace_P2 / 2 - yP3y
    values = np.array([ml, ml + log_det, *scores, *slopes, sum_w2 / 2, trace_P2 / 2, (yP2y + sum_w) / 2])
    fit = Factor(root[None], delta[None], residual[None], np.array([log_det]))
    return Terms(*values[:, None]), fit


def _terms(A: Vector, work: Working) -> tuple[tuple[Vector, ...], Factor]:
    basis = work.basis
    w = 1 / (A[:, None] + basis.D)
    w2 = w * w
    fit = factor(w, work)
    Py = w * fit.residual
    p = basis.Q.shape[1]
    second = fit.root @ (w2 @ basis.QQ).reshape(len(w), p, p) @ fit.root.mT
    third = (w2 * w @ basis.QQ).reshape(len(w), p, p)
    wPy = w * Py
    z = (fit.root @ (wPy @ basis.Q)[:, :, None])[:, :, 0]
    sum_w, sum_w2 = w.sum(axis=1), w2.sum(axis=1)
    trace_P = sum_w - np.einsum("kii->k", second)
    trace_third = np.einsum("kij,kij->k", third, fit.root.mT @ fit.root)
    trace_P2 = sum_w2 - 2 * trace_third + np.einsum("kij,kij->k", second, second)
    yP2y = np.einsum("ki,ki->k", Py, Py)
    yP3y = np.einsum("ki,ki->k", wPy, Py) - np.einsum("ki,ki->k", z, z)
    values = (
        *_criteria_at(w, fit),
        (yP2y - sum_w) / 2,
        (yP2y - trace_P) / 2,
        sum_w2 / 2 - yP3y,
        trace_P2 / 2 - yP3y,
        sum_w2 / 2,
        trace_P2 / 2,
        (yP2y + sum_w) / 2,
    )
    return values, fit


def criteria(A: Vector, work: Working) -> tuple[Vector, Vector]:
    """`Terms.minus_2_ml` and `Terms.minus_2_reml` alone, at A (N,) in working units."""
    ml, reml = in_chunks(_criteria, A, work)
    return ml, reml


def _criteria(A: Vector, work: Working) -> tuple[Vector, Vector]:
    w = 1 / (A[:, None] + work.basis.D)
    return _criteria_at(w, factor(w, work))


def _criteria_at(w: Matrix, fit: Factor) -> tuple[Vector, Vector]:
    ml: Vector = (w * np.square(fit.residual)).sum(axis=1) - np.log(w).sum(axis=1)
    return ml, ml + fit.log_det


def ml_constant(work: Working) -> float:
    """What to add to `Terms.minus_2_ml` to have −2ℓ_ML in the units of the data."""
    return work.basis.D.size * (LOG_2PI + math.log(work.basis.scale))


def reml_constant(work: Working) -> float:
    """What to add to `Terms.minus_2_reml` to have −2ℓ_REML in the units of the data."""
    return work.basis.contrasts * (LOG_2PI + math.log(work.basis.scale)) + work.basis.log_det_XX


def ml_criterion(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """−2ℓ_ML(A), β at its GLS value, with all constants; shape of A."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: criteria(at, work)[0] + ml_constant(work))


def reml_criterion(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """−2ℓ_REML(A) with all constants (β integrated out, not error contrasts); shape of A."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: criteria(at, work)[1] + reml_constant(work))


def profile_loglik(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """ℓ_ML(A) with β at its GLS value, in nats; shape of A."""
    return -ml_criterion(A, y, X, D) / 2


def restricted_loglik(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """ℓ_REML(A), the log of ∫ N(y; Xβ, A + D) dβ, in nats; shape of A.

    exp(ℓ_REML(A)) times a prior density on A is the marginal posterior of A under a flat prior on β (Harville 1974).
    """
    return -reml_criterion(A, y, X, D) / 2


def ml_score(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """∂ℓ_ML/∂A = ½[Σ w²r² − Σ w], units 1/A; shape of A."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: terms(at, work).score_ml / work.basis.scale)


def reml_score(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """∂ℓ_REML/∂A = ½[Σ w²r² − tr P], units 1/A; shape of A."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: terms(at, work).score_reml / work.basis.scale)


def ml_information(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """Expected information of ML, Σ w²/2, units 1/A²; shape of A. Its inverse is the "2/Σ V⁻²" variance of Â."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: terms(at, work).information_ml / work.basis.scale**2)


def reml_information(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> Array:
    """Expected information of REML, tr(P²)/2, units 1/A²; shape of A. Its inverse is the "2/tr P²" variance of Â."""
    work = working(y, X, D)
    return _shaped(A, work, lambda at: terms(at, work).information_reml / work.basis.scale**2)


def gls(A: ArrayLike, y: Vector, X: Matrix, D: Vector) -> tuple[Array, Array]:
    """GLS coefficients and their covariance matrix (X'V⁻¹X)⁻¹ at each A: shapes (*A, p) and (*A, p, p)."""
    work = working(y, X, D)
    at = np.atleast_1d(np.asarray(A, dtype=np.float64))
    p = work.basis.Q.shape[1]
    beta, cov = in_chunks(_coefficients, at.ravel() / work.basis.scale, work)
    shape = np.shape(A)
    return beta.reshape(*shape, p), cov.reshape(*shape, p, p)


def _coefficients(A: Vector, work: Working) -> tuple[Array, Array]:
    fit = factor(1 / (A[:, None] + work.basis.D), work)
    return coefficients(fit, work)


def coefficients(fit: Factor, work: Working) -> tuple[Array, Array]:
    """β (N, p) and its covariance (N, p, p) in the units of the data, from a factorisation at N values of A."""
    to_beta = work.basis.to_beta
    half = fit.root @ to_beta.T
    return work.beta_ols + fit.delta @ to_beta.T, half.mT @ half


def _shaped(A: ArrayLike, work: Working, function: Callable[[Vector], Vector]) -> Array:
    """Evaluate at A carried into working units and give the answer the shape of A."""
    at = np.asarray(A, dtype=np.float64)
    return function(at.ravel() / work.basis.scale).reshape(at.shape)
