"""Fitting the area-level model of Fay and Herriot (1979, JASA 74:269-277) by REML and by ML: a design in, a fit out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.design import with_response
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.mse import Information, bias_ml, error_terms, variance_of_A
from hierlmm.frequentist.area.notes import fit_notes
from hierlmm.frequentist.area.results import AreaFit, AreaMethod, AreaOutcome
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.moments import Blup, blup
from hierlmm.likelihood.area.variance import VarianceEstimate

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def fit_area_reml(design: AreaDesign, information: Information = "sum") -> AreaFit:
    """Fit by restricted maximum likelihood; MSE = g1 + g2 + 2 g3.

    information  the variance of Â in g3: "sum" for 2/Σ V⁻² (Datta and Lahiri 2000), "trace" for 2/tr P²

    Raises FitError where the areas in the fit are not more than the coefficients.
    """
    return _fit(design, "reml", information)


def fit_area_ml(design: AreaDesign, information: Information = "sum") -> AreaFit:
    """Fit by maximum likelihood; MSE = g1 + g2 + 2 g3 − b(Â)(1−γ)², b the bias of Â (Datta and Lahiri 2000).

    Arguments and errors as `fit_area_reml`.
    """
    return _fit(design, "ml", information)


FITS: dict[str, Callable[[AreaDesign, Information], AreaFit]] = {"reml": fit_area_reml, "ml": fit_area_ml}


def refit(fit: AreaFit, y: ArrayLike) -> AreaFit:
    """The fit of the same model and method to other direct estimates y (M,), in the order of `fit.design.areas`.

    Values of areas without a direct estimate are not read. Raises DesignError where y has another length, is not
    finite for an area that has one, or is a Series with the labels of these areas in another order.
    """
    return FITS[fit.method](with_response(fit.design, y), fit.information)


def _fit(design: AreaDesign, method: AreaMethod, information: Information) -> AreaFit:
    into = design.sampled
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    _check_size(design, len(y))
    estimate = ESTIMATORS[method](y, X, D)
    at = blup(estimate.A, y, X, D, design.X)
    var_A = variance_of_A(estimate, information)
    bias = bias_ml(estimate.A, D, at.half[into]) if method == "ml" else 0.0
    known = np.where(design.role == "unsampled", np.inf, design.D)
    errors = error_terms(estimate.A, var_A, bias, known, at.half)
    predicted = _predicted(design, at, estimate.A, errors.gamma)
    return AreaFit(
        design=design,
        method=method,
        outcome=_outcome(estimate),
        certificate=estimate,
        information=information,
        beta=at.beta,
        vcov_beta=at.cov_beta,
        A_hat=estimate.A,
        var_A=var_A,
        bias_A=bias,
        gamma=errors.gamma,
        synthetic=predicted.synthetic,
        effect=predicted.effect,
        eblup=predicted.eblup,
        g1=errors.g1,
        g2=errors.g2,
        g3=errors.g3,
        mse=errors.mse,
        mse_valid=(design.role == "direct") | (estimate.A > 0),
        residual=predicted.residual,
        residual_variance=predicted.residual_variance,
        loglik=estimate.loglik_reml if method == "reml" else estimate.loglik_ml,
        marginal_loglik=estimate.loglik_ml,
        notes=design.notes + fit_notes(design, estimate, predicted.eblup, errors.mse),
    )


def _check_size(design: AreaDesign, m: int) -> None:
    """Refuse a fit without a contrast left to estimate A from."""
    p = design.X.shape[1]
    if m > p:
        return
    raise FitError(
        "The area variance is estimated from what the covariates leave over, so more areas than coefficients are "
        f"needed; there are {m} areas in the fit and {p} coefficients ({listed(design.fixed)}). Remove "
        "covariates or add areas."
    )


def _outcome(estimate: VarianceEstimate) -> AreaOutcome:
    if not estimate.converged:
        return AreaOutcome.NOT_CONVERGED
    return AreaOutcome.INTERIOR if estimate.A > 0 else AreaOutcome.AT_ZERO


@dataclass(frozen=True, slots=True, eq=False)
class _Predicted:
    """The (M,) arrays of `AreaFit` of the same names."""

    synthetic: Vector
    effect: Vector
    eblup: Vector
    residual: Vector
    residual_variance: Vector


def _predicted(design: AreaDesign, at: Blup, A: float, gamma: Vector) -> _Predicted:
    """Estimates of all M areas from the residuals of the m in the fit.

    The EBLUP is y − (1−γ) r, so that it is the direct estimate to the last digit where γ = 1.
    """
    into = design.sampled
    synthetic = design.offset + at.fitted
    residual = design.y - synthetic
    residual[into] = at.residual
    residual[design.role == "unsampled"] = np.nan
    effect = np.where(design.role == "unsampled", 0.0, gamma * residual)
    D = design.D[into]
    eblup = np.where(design.role == "direct", design.y, synthetic)
    eblup[into] = design.y[into] - D / (A + D) * at.residual
    variance = np.full(len(residual), np.nan)
    variance[into] = A + D - np.square(at.half[into]).sum(axis=1)
    return _Predicted(synthetic, effect, eblup, residual, variance)
