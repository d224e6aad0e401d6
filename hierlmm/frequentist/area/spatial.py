"""Fitting the area-level model with simultaneously autoregressive effects by REML and ML: a design in, a fit out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.mse import Information
from hierlmm.frequentist.area.notes import above_direct
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.likelihood.area.correlated import sampling_errors
from hierlmm.likelihood.area.errors import positive
from hierlmm.likelihood.area.spatial import Node, Problem, node, problem, unconnected
from hierlmm.likelihood.area.spatial_derivatives import Method, curvature, derivatives
from hierlmm.likelihood.area.spatial_errors import SpatialBlup, errors, predict
from hierlmm.likelihood.area.spatial_integrated import integrated_errors
from hierlmm.likelihood.area.spatial_search import END, SpatialEstimate, SpatialPlace, maximise

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

METHODS: tuple[Method, ...] = ("reml", "ml")
OUTCOMES = {
    SpatialPlace.INTERIOR: AreaOutcome.INTERIOR,
    SpatialPlace.ZERO: AreaOutcome.AT_ZERO,
    SpatialPlace.END: AreaOutcome.RHO_AT_END,
}
SECOND_ORDER = (
    "second order: g1 + g2 + 2 g3 − g4 − g5, g4 and g5 for the curvature of V in ρ and the bias of (Â, ρ̂); where that "
    "takes away, positive by construction: u exp(−c/u), u = g1 + g2 + 2 g3, c = g4 + g5"
)
AVERAGED = (
    "averaged over what the data leave open about A and ρ, uniform in ρ and flat on A (with m <= p + 4 by the prior "
    "(A+D̃)⁻², D̃ the median D): {why}, where an expansion around the estimate does not hold"
)


def problem_of(design: AreaDesign) -> Problem:
    """The arrays of a design that has a `proximity`."""
    assert design.proximity is not None
    inside = design.sampled
    y = design.y[inside] - design.offset[inside]
    errors = sampling_errors(design.D, design.covariance, inside)
    return problem(np.asarray(design.proximity), y, design.X, errors, inside)


def fit_spatial(method: str, design: AreaDesign, information: Information = "trace") -> SpatialAreaFit:
    """Estimate A and ρ by `method`, "reml" or "ml", then β and the means of all areas, those without data included.

    information  F in the information ½ tr(F V_k F V_l) of (A, ρ): "trace" for P, "sum" for V⁻¹

    Raises FitError for another method, and where the areas are too few for two variance parameters.
    """
    known = check_method(method)
    given = problem_of(design)
    _check_size(design, len(given.inside))
    estimate = maximise(given, known)
    at = node(given, estimate.rho if estimate.A > 0 else 0.0)
    blup = predict(at, estimate.A)
    terms = _terms(at, estimate, known, information, blup, design)
    direct, into = design.role == "direct", design.sampled
    synthetic = design.offset + blup.synthetic
    synthetic[into] = design.y[into] - blup.residual
    residual = np.where(design.role == "unsampled", np.nan, design.y - synthetic)
    eblup = np.where(direct, design.y, synthetic + blup.effect)
    eblup[into] = design.y[into] - blup.rest
    gamma = direct * 1.0
    gamma[into] = blup.weight
    variance = np.full(len(eblup), np.nan)
    variance[into] = blup.residual_variance
    return SpatialAreaFit(
        design=design,
        method=method,
        outcome=OUTCOMES[estimate.place] if estimate.converged else AreaOutcome.NOT_CONVERGED,
        certificate=estimate,
        information=information,
        beta=blup.beta,
        vcov_beta=blup.cov_beta,
        A_hat=estimate.A,
        var_A=float(terms.vcov[0, 0]),
        bias_A=float(terms.bias[0]),
        rho_hat=estimate.rho,
        vcov_psi=terms.vcov,
        bias_psi=terms.bias,
        gamma=gamma,
        synthetic=synthetic,
        effect=np.where(direct, residual, blup.effect),
        eblup=eblup,
        g1=terms.g[0],
        g2=terms.g[1],
        g3=terms.g[2],
        g4=terms.g[3],
        g5=terms.g[4],
        mse=terms.mse,
        mse_kind=terms.kind,
        mse_unbiased=terms.unbiased,
        mse_valid=direct | estimate.converged,
        residual=residual,
        residual_variance=variance,
        loglik=estimate.loglik_reml if method == "reml" else estimate.loglik_ml,
        marginal_loglik=estimate.loglik_ml,
        notes=(*design.notes, *_notes(design, estimate, terms, eblup)),
    )


def check_method(method: str) -> Method:
    """The method, where it is one of a spatial model."""
    for known in METHODS:
        if method == known:
            return known
    raise FitError(
        f'Spatial area effects have two variance parameters, which are estimated by "reml" or "ml"; found {method!r}. '
        "Use one of these."
    )


def _check_size(design: AreaDesign, m: int) -> None:
    p = design.X.shape[1]
    if m <= p + 1:
        raise FitError(
            "The area variance and rho are estimated from what the covariates leave over, so two more areas than "
            f"coefficients are needed; there are {m} areas in the fit and {p} coefficients ({listed(design.fixed)}). "
            "Remove covariates or add areas."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """g1 … g5 (5, M), the mean squared errors (M,), and bias (2,) and covariance (2, 2) of (Â, ρ̂)."""

    g: Matrix
    unbiased: Vector
    mse: Vector
    kind: str
    bias: Vector
    vcov: Matrix


def _terms(
    at: Node, estimate: SpatialEstimate, method: Method, information: Information, blup: SpatialBlup, design: AreaDesign
) -> _Terms:
    change = curvature(at)
    if estimate.place is SpatialPlace.INTERIOR:
        found = errors(at, change, estimate.A, method, information, blup)
        bias, vcov = found.bias, found.vcov
        parts: tuple[Matrix, ...] = (found.G1, found.G2, found.G3, found.G4, found.G5)
    else:
        parts, bias, vcov = rho_held(at, estimate, method, blup)
    g = np.array([np.diagonal(part) for part in parts])
    g[:, design.role == "direct"] = 0.0
    leading, correction = g[0] + g[1] + 2 * g[2], g[3] + g[4]
    unbiased = leading - correction
    if estimate.place is SpatialPlace.INTERIOR:
        return _Terms(g, unbiased, positive(leading, correction), SECOND_ORDER, bias, vcov)
    rows = at.problem.model.rows(at.problem.X)
    matrix = integrated_errors(at.problem, estimate.A, estimate.rho, rows, np.arange(len(rows)))
    mse = np.where(design.role == "direct", 0.0, np.diagonal(matrix))
    why = "Â is 0" if estimate.A == 0 else "the likelihood rises to an end of ρ"
    return _Terms(g, unbiased, mse, AVERAGED.format(why=why), bias, vcov)


def rho_held(
    at: Node, estimate: SpatialEstimate, method: Method, blup: SpatialBlup
) -> tuple[tuple[Matrix, ...], Vector, Matrix]:
    """G1 … G5, bias and covariance with ρ held where it is (at 0 where Â = 0): formulas only, at the boundary."""
    change = curvature(at)
    M, m = len(at.problem.W), len(at.d)
    w, b = np.zeros(M), np.ones(M)
    w[:m] = 1 / (estimate.A + at.d)
    b[:m] = at.d * w[:m]
    variance = 1 / derivatives(at, change, estimate.A, method).information[0, 0]
    fall = 0.0
    if method == "ml":
        half = np.linalg.cholesky(blup.cov_delta).T @ (w[:m, None] * at.Q).T
        fall = -variance * float(np.square(half).sum()) / 2
    L = change.L
    parts = (
        (L * (estimate.A * b)) @ L.T,
        blup.reach @ blup.cov_delta @ blup.reach.T,
        (L * (variance * b * b * w)) @ L.T,
        np.zeros((M, M)),
        (L * (fall * b * b)) @ L.T,
    )
    return parts, np.array([fall, np.nan]), np.array([[variance, np.nan], [np.nan, np.nan]])


def _notes(design: AreaDesign, estimate: SpatialEstimate, terms: _Terms, eblup: Vector) -> Iterator[str]:
    areas, role, ends = design.areas, design.role, estimate.ends
    if estimate.place is SpatialPlace.ZERO:
        yield (
            "At an area variance of exactly 0 rho is not identified: no value of it changes the likelihood, and it is "
            "nan. The second-order formula (mse_unbiased, with rho held at 0) says nothing there; the mse is averaged "
            "over what the data leave open about both."
        )
    if estimate.place is SpatialPlace.END:
        yield (
            f"The likelihood rises to the end of rho's interval ({ends[0]:.4g}, {ends[1]:.4g}): rho is given as "
            f"{estimate.rho:.7g}, where the search ends. Near an end effects of neighbours are all but equal, or "
            "alternate; a mean by groups of areas may be missing among the covariates."
        )
    if len(estimate.optima) > 1:
        where = ", ".join(f"({A:.4g}, {rho:.4g})" for A, rho, _ in estimate.optima)
        yield (
            f"The likelihood has {len(estimate.optima)} local maxima in (A, rho): {where}; the estimate is the highest."
        )
    unsampled = role == "unsampled"
    apart = unsampled & unconnected(np.asarray(design.proximity), design.sampled)
    if (near := unsampled & ~apart).any():
        yield (
            f"No direct estimate, not in the fit; effects follow from those of their neighbours: {listed(areas[near])}."
        )
    if apart.any():
        yield (
            "No direct estimate, not in the fit, and not connected to any area that is, so that the estimate is "
            f"synthetic: {listed(areas[apart])}."
        )
        if estimate.place is not SpatialPlace.INTERIOR:
            yield (
                f"The mse of {listed(areas[apart])}, as of areas outside the proximity matrix, has no value to rely on "
                "here: averaged over rho, it grows without bound as rho nears an end where the coefficients are not "
                f"identified, and what is given stops a {END:g} part of the interval before it."
            )
    if (direct := role == "direct").any():
        yield (
            f"Sampling variance 0, not in the fit: {listed(areas[direct])}. The direct estimate stands, with mse 0; it "
            "does not inform the effects of its neighbours."
        )
    yield (
        "gamma is the weight of an area's own direct estimate in its prediction; those of its neighbours count too."
    )
    if (above := above_direct(design, terms.mse)).any():
        yield (
            f"The mse is above the sampling variance in {above.sum()} of {design.sampled.sum()} areas: "
            f"{listed(areas[above])}. The direct estimate may serve better there."
        )
    if (negative := terms.unbiased < 0).any() and estimate.place is SpatialPlace.INTERIOR:
        yield f"The second-order formula of the mse (mse_unbiased) is negative in {negative.sum()} areas."
    if (zero := (eblup == 0) | (design.y == 0)).any():
        yield f"A coefficient of variation is undefined (nan) where the estimate is 0: {listed(areas[zero])}."
