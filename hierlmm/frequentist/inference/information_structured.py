"""Information of fits whose residuals have a structure: coordinates (theta, phi, log sigma²).

The average information is that of the optimiser; the observed one is made of central differences of the exact
gradient, extrapolated twice; the expected one of the matrices V_i and dV_i of clusters between which the model has no
covariance, and so needs such clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.inference.information import InformationKind, Local
from hierlmm.frequentist.inference.information_parameters import (
    Scale,
    gradients,
    of_random_effects,
    of_residuals,
    residual_gradients,
)
from hierlmm.frequentist.inference.robust_clusters import Clusters, clusters_of
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_model import model_of, structure_of
from hierlmm.frequentist.lmm_noise import covariance_among
from hierlmm.likelihood.lmm_derivatives import freedom
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.parameters import Parameters

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# First step in a standard deviation ratio, relative to the largest, and in an element of phi, whose unit is 1.
STEP = 0.01
# Information on an element of phi, whose natural unit is 1, below which nothing depends on it.
INFORMED = 1e-8


def local_of(fit: LMMFit, kind: InformationKind, scale: Scale) -> Local:
    """The information in (theta, phi, log sigma²). Raises FitError on the boundary of any of them."""
    at = fit.at
    assert at is not None
    _require_interior(fit)
    k = len(at.slope) + 1
    dG = _covariance_slopes(fit)
    random = of_random_effects(fit, scale)
    phi = slice(k - 1 - len(fit.phi), k - 1)
    ahead = np.concatenate([gradients(fit, random, dG, scale, k), residual_gradients(fit, scale, phi, k - 1, k)])
    fixed = np.zeros((len(fit.beta), k))
    if kind == "average":
        matrix = _average(fit)
    elif kind == "observed":
        matrix, fixed = _observed(fit)
    else:
        matrix = _expected(fit, dG)
    parameters = (*random, *of_residuals(fit, scale))
    back, ahead, parameters = _free_of(ahead, parameters)
    return Local(parameters, matrix, ahead, back, fixed, np.zeros(len(parameters), dtype=bool))


def _free_of(ahead: Array, parameters: tuple) -> tuple[Array, Array, tuple]:  # type: ignore[type-arg]
    """Of more residual quantities than coordinates (every lag, every pair of occasions) a set that determines them."""
    from hierlmm.frequentist.inference.information import inverse_jacobian

    kept = list[int]()
    scaled = ahead / np.maximum(np.abs(ahead).max(axis=1, keepdims=True), 1e-300)
    basis = np.zeros((0, ahead.shape[1]))
    for i, row in enumerate(scaled):
        rest = row - basis.T @ (basis @ row)
        rest = rest - basis.T @ (basis @ rest)
        size = float(np.linalg.norm(rest))
        if len(kept) < ahead.shape[1] and size > 1e-8 * float(np.linalg.norm(row)):
            kept.append(i)
            basis = np.vstack([basis, rest / size])
    return inverse_jacobian(ahead[kept]), ahead[kept], tuple(parameters[i] for i in kept)


def _require_interior(fit: LMMFit) -> None:
    assert fit.at is not None
    K = len(fit.phi)
    informed = np.diagonal(fit.at.quadratic)[len(fit.at.slope) - K :] / fit.at.sigma2 > INFORMED
    if fit.singular or not informed.all():
        raise FitError(
            "The information of a fit with a residual structure needs all of its variance parameters inside their "
            f"ranges; {fit.outcome.value} Simplify the structure, or use fit.variance_components."
        )


def _covariance_slopes(fit: LMMFit) -> list[Array]:
    """Per factor of the design (k, q, q) derivatives of G."""
    at, cp = fit.at, fit.equations
    assert at is not None
    parameters = Parameters.of(cp)
    sizes = [len(E) for E in parameters.basis]
    out = []
    for f, G in enumerate(fit.G):
        place = cp.order.index(f)
        E, Lambda, B = parameters.basis[place], at.factors[place], cp.Z_map[place]
        slopes = np.zeros((len(at.slope) + 1, *G.shape))
        start, half = sum(sizes[:place]), E @ Lambda.T
        slopes[start : start + len(E)] = fit.sigma2 * (B @ (half + half.swapaxes(1, 2)) @ B.T)
        slopes[-1] = G
        out.append(slopes)
    return out


def _average(fit: LMMFit) -> Array:
    at = fit.at
    assert at is not None
    k = len(at.slope)
    out = np.empty((k + 1, k + 1))
    out[:k, :k], out[:k, k] = at.quadratic / at.sigma2, at.slope / at.sigma2
    out[k, :k], out[k, k] = out[:k, k], freedom(fit.equations, fit.method)
    return 0.5 * out


def _observed(fit: LMMFit) -> tuple[Array, Array]:
    """Half the Hessian of the criterion, and the derivatives (p, k + 1) of beta-hat."""
    at, cp = fit.at, fit.equations
    assert at is not None
    surface = Surface.of(model_of(fit.design), fit.method)
    parameters = Parameters.of(cp)
    theta = parameters.theta(at.factors)
    psi, k = np.concatenate([theta, fit.phi]), len(at.slope)
    largest = max(float(np.abs(theta).max(initial=0.0)), 1e-3)
    steps = np.concatenate([np.full(len(theta), STEP * largest), np.full(len(fit.phi), STEP)])

    def moved(i: int, step: float) -> Array:
        there = psi.copy()
        there[i] += step
        found = surface(there)
        gradient = found.gradient + found.slope * (1 / found.sigma2 - 1 / at.sigma2)
        return np.concatenate([gradient, cp.X_map @ found.solved.beta])

    def central(i: int, h: float) -> Array:
        return (moved(i, h) - moved(i, -h)) / (2 * h)

    rows = [(64 * central(i, h / 4) - 20 * central(i, h / 2) + central(i, h)) / 45 for i, h in enumerate(steps)]
    whole = _average(fit)
    H = np.array([row[:k] for row in rows])
    whole[:k, :k] = 0.25 * (H + H.T)
    fixed = np.zeros((len(fit.beta), k + 1))
    fixed[:, :k] = np.array([row[k:] for row in rows]).T
    return whole, fixed


def _expected(fit: LMMFit, dG: list[Array]) -> Array:
    """½ tr(P V_r P V_s) from clusters."""
    found = _clusters(fit)
    M, X = fit.vcov_beta, fit.design.X
    k = len(dG[0]) if dG else len(fit.phi) + 1
    total, inner, outer = np.zeros((k, k)), np.zeros((k, len(M), len(M))), np.zeros((k, k))
    for rows in found.rows():
        V, dV = _derivatives(fit, rows, dG, k)
        L = np.linalg.cholesky(V)
        half = np.linalg.solve(L, dV)
        W = np.linalg.solve(L, half.swapaxes(1, 2))
        x = np.linalg.solve(L, X[rows])
        total += np.einsum("rab,sba->rs", W, W)
        Wx = W @ x
        inner += np.einsum("ap,rab,bq->rpq", x, W, x)
        outer += np.einsum("rap,pq,saq->rs", Wx, M, Wx)
    if fit.method == "reml":
        MI = M @ inner
        total += np.einsum("rab,sba->rs", MI, MI) - 2 * outer
    return 0.5 * total


def _clusters(fit: LMMFit) -> Clusters:
    held = fit.design.residual
    if not fit.design.factors and held is not None and not held.group:
        return Clusters("rows", fit.design.index, np.arange(len(fit.design.y)))
    try:
        return clusters_of(fit, None, "The expected information of a residual structure")
    except DesignError as error:
        raise FitError(f"{error} Or use kind='observed' or kind='average'.") from None


def _derivatives(fit: LMMFit, rows: Codes, dG: list[Array], k: int) -> tuple[Array, Array]:
    """V_i (n_i, n_i) and its derivatives (k, n_i, n_i) in (theta, phi, log sigma²)."""
    V, dV = covariance_among(fit, rows), np.zeros((k, len(rows), len(rows)))
    for factor, root, slopes in zip(fit.design.factors, covariance_roots(fit), dG, strict=True):
        Z, codes = factor.Z[rows], factor.codes[rows]
        same = codes[:, None] == codes
        half = Z @ root
        V += (half @ half.T) * same
        dV[:-1] += (Z @ slopes[:-1] @ Z.T) * same
    K = len(fit.phi)
    dV[k - 1 - K : k - 1] += _residual_slopes(fit, rows)
    dV[-1] = V
    return V, dV


def _residual_slopes(fit: LMMFit, rows: Codes) -> Array:
    """(K, n_i, n_i) derivatives of the residual covariance of some rows in phi."""
    held, structure = fit.design.residual, structure_of(fit.design)
    assert held is not None
    assert structure is not None
    scale = np.ones(len(rows)) if fit.design.scale is None else fit.design.scale[rows]
    sd = np.sqrt(fit.sigma2 * scale)
    codes = held.codes[rows] if held.group else np.arange(len(rows))
    out = np.zeros((len(fit.phi), len(rows), len(rows)))
    for code in np.unique(codes):
        at = np.flatnonzero(codes == code)
        slopes = structure.relative(fit.phi, held.place[rows[at]][None], held.occasion[rows[at]][None])[1][:, 0]
        out[:, at[:, None], at] = slopes * np.outer(sd[at], sd[at])
    return out
