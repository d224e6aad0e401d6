"""Fitting the area-level model of Fay and Herriot (1979, JASA 74:269-277): a design and a method in, a fit out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.design import with_response
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.mse import Information, fit_errors
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.frequentist.area.notes import fit_notes
from hierlmm.frequentist.area.results import AreaFit, AreaOutcome
from hierlmm.likelihood.area.estimators import ON_WORKING, areas_needed
from hierlmm.likelihood.area.interval import likelihood_of
from hierlmm.likelihood.area.moments import Blup, blup_from
from hierlmm.likelihood.area.variance import VarianceEstimate
from hierlmm.likelihood.area.working import working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def fit_area(method: str, design: AreaDesign, information: Information = "sum") -> AreaFit:
    """Estimate A by `method`, then β and the area means given Â, and their mean squared errors.

    method       see `likelihood.area.estimators`
    information  the variance of Â in g3: "sum" for 2/Σ V⁻² (Datta and Lahiri 2000), "trace" for 2/tr P²; the moment
                 estimators have one of their own

    Raises FitError where there are too few areas for the estimate to exist.
    """
    into = design.sampled
    _check_size(method, design, int(into.sum()))
    if design.proximity is not None:
        from hierlmm.frequentist.area.spatial import fit_spatial

        return fit_spatial(method, design, information)
    if design.covariance is not None:
        from hierlmm.frequentist.area.correlated import fit_correlated

        return fit_correlated(method, design, information)
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    work = working(y, X, D)
    solved = ON_WORKING[method](work)
    estimate, at = solved.estimate, blup_from(solved.fit, work, design.X)
    errors = fit_errors(method, estimate, information, design, at.half)
    predicted = _predicted(design, at, estimate.A, errors.terms.gamma)
    return AreaFit(
        design=design,
        method=method,
        outcome=_outcome(estimate),
        certificate=estimate,
        information=information,
        beta=at.beta,
        vcov_beta=at.cov_beta,
        A_hat=estimate.A,
        var_A=errors.of_A.variance,
        bias_A=errors.of_A.bias,
        gamma=errors.terms.gamma,
        synthetic=predicted.synthetic,
        effect=predicted.effect,
        eblup=predicted.eblup,
        g1=errors.terms.g1,
        g2=errors.terms.g2,
        g3=errors.terms.g3,
        mse=errors.mse,
        mse_kind=errors.kind,
        mse_unbiased=errors.terms.unbiased,
        mse_valid=errors.valid,
        residual=predicted.residual,
        residual_variance=predicted.residual_variance,
        loglik=estimate.loglik_reml if likelihood_of(method) == "reml" else estimate.loglik_ml,
        marginal_loglik=estimate.loglik_ml,
        notes=design.notes + fit_notes(design, method, estimate, predicted.eblup, errors),
    )


FITS: dict[str, Callable[..., AreaFit]] = {method: partial(fit_area, method) for method in ON_WORKING}
fit_area_reml, fit_area_ml = FITS["reml"], FITS["ml"]


def refit(fit: AreaFit, y: ArrayLike) -> AreaFit:
    """The fit of the same model and method to other direct estimates y (M,), in the order of `fit.design.areas`.

    Values of areas without a direct estimate are not read. Raises DesignError where y has another length, is not
    finite for an area that has one, or is a Series with the labels of these areas in another order.
    """
    return FITS[fit.method](with_response(fit.design, y), fit.information)


def _check_size(method: str, design: AreaDesign, m: int) -> None:
    """Refuse a fit whose estimate of A does not exist."""
    p = design.X.shape[1]
    if m <= p:
        raise FitError(
            "The area variance is estimated from what the covariates leave over, so more areas than coefficients are "
            f"needed; there are {m} areas in the fit and {p} coefficients ({listed(design.fixed)}). Remove "
            "covariates or add areas."
        )
    if m < areas_needed(method, p):
        raise FitError(
            f"{HEADINGS[method]} needs {areas_needed(method, p)} areas with {p} coefficients, because with fewer A "
            f'times the likelihood rises without end; there are {m} in the fit. Use for example method="amrl_yl".'
        )


def _outcome(estimate: VarianceEstimate) -> AreaOutcome:
    if not estimate.converged:
        return AreaOutcome.NOT_CONVERGED
    if estimate.lifted:
        return AreaOutcome.BY_ADJUSTMENT
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
    if into.all():
        V = A + design.D
        eblup = design.y - design.D / V * at.residual
        variance = V - np.square(at.half).sum(axis=1)
        return _Predicted(synthetic, gamma * at.residual, eblup, at.residual, variance)
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
