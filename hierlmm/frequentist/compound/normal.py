"""Empirical Bayes for normal observations: the area-level engine, Stein's rules, and Morris's estimator."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.compound import CompoundDesign
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.area.fitting import FITS
from hierlmm.frequentist.compound.results import CompoundFit, CompoundOutcome
from hierlmm.likelihood.area.criterion import ml_criterion
from hierlmm.likelihood.compound.morris import morris
from hierlmm.likelihood.compound.stein import (
    LeastSquares,
    SteinEstimate,
    bound_for,
    james_stein,
    least_squares,
    limited_translation,
    positive_part,
    savings,
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Share of James and Stein's savings that limited translation keeps unless another is asked for: Efron and Morris's
# choice for the batting averages (1975, JASA 70:311-319).
SAVINGS = 0.8
# Variances that agree to this are equal.
EQUAL = 1e-9
RESOLUTION = 1e-13
STEIN = ("james_stein", "positive_part", "limited_translation")


def fit_as_area(design: CompoundDesign, method: str) -> CompoundFit:
    """By an estimator of the area-level model, with its mean squared errors."""
    assert design.area is not None
    fit = FITS[method](design.area, "sum")
    p = fit.beta.size
    covariance = np.zeros((p + 1, p + 1))
    covariance[:p, :p], covariance[p, p] = fit.vcov_beta, fit.var_A
    return CompoundFit(
        design=design,
        method=method,
        outcome=CompoundOutcome[fit.outcome.name],
        certificate=None,
        area=fit,
        beta=fit.beta,
        dispersion=fit.A_hat,
        covariance=covariance,
        prior_mean=fit.synthetic,
        gamma=fit.gamma,
        estimate=fit.eblup,
        conditional_variance=fit.g1,
        variance=fit.mse,
        variance_valid=bool(fit.mse_valid.all()),
        risk=math.nan,
        bound=math.inf,
        loglik=fit.loglik,
        notes=fit.notes,
    )


def fit_stein(design: CompoundDesign, method: str, bound: float | None = None) -> CompoundFit:
    """By one of Stein's rules, for equal sampling variances; variances as Morris (1983) gives them for these rules."""
    y, X, D = _sampled(design)
    common = _common(design, D, method)
    fit = least_squares(y, X, common)
    if fit.q <= 2:
        raise FitError(
            f"Stein's rules gain where there are at least 3 units more than coefficients; found {len(y)} units and "
            f"{X.shape[1]} coefficients. Leave predictors out, or use hl.posterior(...)."
        )
    if method == "limited_translation" and bound is None:
        bound = bound_for(SAVINGS, fit.q)
    found = _rule(method, fit, common, math.inf if bound is None else bound)
    B = min(found.B, 1.0)
    A = max(common / found.B - common, 0.0)
    at_zero = found.B >= 1
    own = common * (1 - (1 - fit.leverage) * B)
    plain = fit.fitted + (1 - B) * fit.residual
    error = own + 2 / (fit.q - 2) * B**2 * fit.residual**2 + np.square(found.estimate - plain)
    p = X.shape[1]
    covariance = np.zeros((p + 1, p + 1))
    covariance[:p, :p], covariance[p, p] = (A + common) * fit.cov, 2 * (A + common) ** 2 / fit.q
    return _spread(
        design, method, CompoundOutcome.AT_ZERO if at_zero else CompoundOutcome.INTERIOR,
        beta=fit.beta, A=A, covariance=covariance, shrinkage=found.shrinkage, estimate=found.estimate,
        conditional=common * np.maximum(1 - found.shrinkage, 0.0), error=error, risk=found.risk,
        bound=math.inf if bound is None else bound,
        notes=tuple(_stein_notes(method, found, fit, bound)),
    )  # fmt: skip


def fit_morris(design: CompoundDesign) -> CompoundFit:
    """By Morris's estimator for unequal variances."""
    y, X, D = _sampled(design)
    m, p = X.shape
    if m - p <= 2:
        raise FitError(
            f"Morris's estimator needs at least 3 units more than coefficients; found {m} units and {p} coefficients. "
            "Leave predictors out, or use hl.posterior(...)."
        )
    found = morris(y, X, D)
    covariance = np.zeros((p + 1, p + 1))
    covariance[:p, :p] = found.cov
    covariance[p, p] = 2 * m / np.sum(1 / (found.A + D)) ** 2
    return _spread(
        design, "morris", CompoundOutcome.INTERIOR if found.A > 0 else CompoundOutcome.AT_ZERO,
        beta=found.beta, A=found.A, covariance=covariance, shrinkage=found.shrinkage, estimate=found.estimate,
        conditional=D * (1 - found.shrinkage), error=found.variance, risk=math.nan, bound=math.inf, notes=(),
    )  # fmt: skip


def limited(fit: CompoundFit, share: float | None, bound: float | None) -> CompoundFit:
    """Limited translation of a fit by one of Stein's rules: see `CompoundFit.limited_translation`."""
    if fit.method not in STEIN:
        raise SpecError(
            f"Limited translation restrains one of Stein's rules; this fit is by {fit.method!r}. Fit by "
            f"{', '.join(STEIN)} first."
        )
    if (share is None) == (bound is None):
        raise SpecError(f"Give one of savings and bound; found savings={share!r} and bound={bound!r}.")
    if share is not None:
        if not 0 < share < 1:
            raise SpecError(f"`savings` is a share between 0 and 1; found {share!r}. Use for example savings=0.8.")
        bound = bound_for(share, int(fit.design.sampled.sum()) - fit.beta.size)
    if bound is None or not bound > 0:
        raise SpecError(f"`bound` is a positive number; found {bound!r}. Use for example bound=0.8.")
    return fit_stein(fit.design, "limited_translation", float(bound))


def _sampled(design: CompoundDesign) -> tuple[Vector, Matrix, Vector]:
    into = design.sampled
    return design.y[into] - design.offset[into], design.X[into], design.size[into]


def _common(design: CompoundDesign, D: Vector, method: str) -> float:
    if np.ptp(D) > EQUAL * D.max():
        raise SpecError(
            f"Stein's rules are for equal sampling variances; those in {design.spec.known!r} run from {D.min():.4g} to "
            f'{D.max():.4g}, and the method is {method!r}. Use "morris" or "reml" for unequal ones.'
        )
    return float(D.mean())


def _rule(method: str, fit: LeastSquares, D: float, bound: float) -> SteinEstimate:
    if method == "james_stein":
        # residuals below the rounding of the prior mean are none
        if np.linalg.norm(fit.residual) <= RESOLUTION * np.linalg.norm(fit.fitted):
            raise FitError(
                "James and Stein's factor is (q − 2)/S, and every observation lies on the prior mean: S is 0. Use "
                'method="positive_part", which stops at the prior mean.'
            )
        return james_stein(fit, D)
    return positive_part(fit, D) if method == "positive_part" else limited_translation(fit, D, bound)


def _stein_notes(method: str, found: SteinEstimate, fit: LeastSquares, bound: float | None) -> list[str]:
    notes = []
    if found.B > 1 and method == "james_stein":
        notes.append(
            f"The shrinkage is {found.B:.4g}: above 1 the rule moves every mean beyond the prior mean, to its other "
            'side. method="positive_part" stops there, and has smaller risk.'
        )
    if method == "limited_translation" and bound is not None:
        notes.append(
            f"No mean is moved by more than {bound:.4g} √B standard deviations, which keeps "
            f"{100 * savings(bound, fit.q):.3g} % of the savings in risk that James and Stein's rule makes."
        )
    return notes


def _spread(
    design: CompoundDesign,
    method: str,
    outcome: CompoundOutcome,
    *,
    beta: Vector,
    A: float,
    covariance: Matrix,
    shrinkage: Vector,
    estimate: Vector,
    conditional: Vector,
    error: Vector,
    risk: float,
    bound: float,
    notes: tuple[str, ...],
) -> CompoundFit:
    """The fit, with units without observations at the prior mean."""
    into, p = design.sampled, len(beta)
    prior_mean = design.X @ beta + design.offset
    of_beta = np.einsum("ij,jk,ik->i", design.X, covariance[:p, :p], design.X)
    values = [np.zeros(len(into)), prior_mean.copy(), np.full(len(into), A), A + of_beta]
    for whole, part in zip(values, (1 - shrinkage, estimate + design.offset[into], conditional, error), strict=True):
        whole[into] = part
    gamma, estimates, conditional_variance, variance = values
    y, X, D = _sampled(design)
    return CompoundFit(
        design=design, method=method, outcome=outcome, certificate=None, area=None, beta=beta, dispersion=A,
        covariance=covariance, prior_mean=prior_mean, gamma=gamma, estimate=estimates,
        conditional_variance=conditional_variance, variance=variance, variance_valid=True, risk=risk, bound=bound,
        loglik=float(-ml_criterion(A, y, X, D) / 2), notes=(*design.notes, *notes),
    )  # fmt: skip


def refitted(fit: CompoundFit, design: CompoundDesign) -> CompoundFit:
    """The rule of `fit` on another design: with the same bound where it has one."""
    bound = fit.bound if math.isfinite(fit.bound) else None
    return replace(fit_stein(design, fit.method, bound))
