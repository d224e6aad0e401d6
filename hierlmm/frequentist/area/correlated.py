"""Fitting the area-level model with correlated sampling errors: the ordinary fit of the rotated data, rotated back.

Every estimator, its variance and bias, and every term of the mean squared error is that of `fit_area` for the rotated
design (`likelihood.area.correlated`); what is said of the areas is then turned back: predictions and residuals as
vectors, error terms as matrices, of which a frame shows the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.frequentist.area.correlated_results import CorrelatedAreaFit
from hierlmm.frequentist.area.mse import (
    AT_ZERO,
    CAN_BE_NEGATIVE,
    LIFTED,
    FitErrors,
    Information,
    at_boundary,
    kind_of,
    places,
)
from hierlmm.frequentist.area.notes import fit_notes
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.likelihood.area.correlated import Reduced, Rotation, reduced, sampling_errors
from hierlmm.likelihood.area.correlated_matrix import RotatedErrors
from hierlmm.likelihood.area.errors import Asymptotics, ErrorTerms, positive
from hierlmm.likelihood.area.errors_integrated import integrated_factor
from hierlmm.likelihood.area.errors_matrix import ErrorMatrix, error_matrix
from hierlmm.likelihood.area.interval import likelihood_of

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

AVERAGED = (
    "averaged over what the data leave open about A, flat on A (with m <= p + 4 by the prior (A+d̃)⁻², d̃ the median "
    "eigenvalue of the sampling covariance): {why}, where an expansion around Â does not hold"
)


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """A design with correlated sampling errors in the coordinates in which they are independent.

    design  the same areas: those in the fit rotated, X in the coordinates of `model`, no offset
    model   what carries coefficients back; errors the rotation of the areas `inside` (m,) the fit
    """

    design: AreaDesign
    model: Reduced
    errors: Rotation
    inside: NDArray[np.intp]


def turned(design: AreaDesign) -> Turned:
    """Rotate the areas in the fit of a design that has a `covariance`; the others stay as they are."""
    return turned_by(design, sampling_errors(design.D, design.covariance, design.sampled))


def turned_by(design: AreaDesign, errors: Rotation) -> Turned:
    """The same with the rotation of the areas in the fit at hand."""
    inside = np.flatnonzero(design.sampled)
    model = reduced(design.y[inside] - design.offset[inside], design.X[inside], design.D[inside])
    y, D, X = design.y - design.offset, design.D.copy(), model.rows(design.X)
    y[inside], D[inside], X[inside] = errors.forward(model.y), errors.d, errors.forward(model.Q)
    plain = replace(
        design, y=y, offset=np.zeros(len(y)), D=D, X=X, covariance=None, direct=None, direct_variance=None
    )
    return Turned(plain, model, errors, inside)


def fit_correlated(method: str, design: AreaDesign, information: Information = "sum") -> CorrelatedAreaFit:
    """Estimate A by `method`, then β and the area means, under known correlated sampling errors.

    Arguments and errors as `fitting.fit_area`. The equation that a moment estimator solves is that of the full
    covariance S: (y − Xβ̃)'V⁻¹(y − Xβ̃) = m − p with V = A I + S (fh), and A(m − p) = y'(I−H)y − tr((I−H)S) (pr).
    """
    from hierlmm.frequentist.area.fitting import fit_area

    at = turned(design)
    inner = fit_area(method, at.design, information)
    # the restricted likelihood has β integrated out, not its turned coordinates
    estimate = replace(inner.certificate, loglik_reml=inner.certificate.loglik_reml + at.model.log_jacobian)
    delta, inside = inner.beta, at.inside
    synthetic = design.offset + at.model.ols(design.X) + at.design.X @ delta
    residual = design.y - synthetic
    own = at.model.y - at.model.Q @ delta
    residual[inside] = own
    synthetic[inside] = design.y[inside] - own
    residual[design.role == "unsampled"] = np.nan
    eblup = np.where(design.role == "direct", design.y, synthetic)
    eblup[inside] = design.y[inside] - at.errors.back(at.design.y[inside] - inner.eblup[inside])
    effect = np.where(design.role == "direct", residual, 0.0)
    effect[inside] = at.errors.back(inner.effect[inside])
    errors = _errors(at, inner, design)
    variance = np.full(len(synthetic), np.nan)
    root = np.linalg.cholesky(inner.vcov_beta)
    variance[inside] = inner.A_hat + design.D[inside] - np.square(at.model.Q @ root).sum(axis=1)
    return CorrelatedAreaFit(
        design=design,
        method=method,
        outcome=inner.outcome,
        certificate=estimate,
        information=information,
        beta=at.model.beta(delta),
        vcov_beta=at.model.cov_beta(inner.vcov_beta),
        A_hat=inner.A_hat,
        var_A=inner.var_A,
        bias_A=inner.bias_A,
        gamma=errors.terms.gamma,
        synthetic=synthetic,
        effect=effect,
        eblup=eblup,
        g1=errors.terms.g1,
        g2=errors.terms.g2,
        g3=errors.terms.g3,
        mse=errors.mse,
        mse_kind=errors.kind,
        mse_unbiased=errors.terms.unbiased,
        mse_valid=errors.valid,
        residual=residual,
        residual_variance=variance,
        loglik=estimate.loglik_reml if likelihood_of(method) == "reml" else estimate.loglik_ml,
        marginal_loglik=estimate.loglik_ml,
        notes=design.notes + _notes(at) + fit_notes(design, method, estimate, eblup, errors),
    )


def _notes(at: Turned) -> tuple[str, ...]:
    sizes = sorted({len(places) for stack in at.errors.stacks for places in stack.places})
    number = sum(len(stack.places) for stack in at.errors.stacks)
    m = len(at.errors.d)
    if sizes == [1]:
        return ("The sampling covariance has no entry off its diagonal: the sampling errors are independent.",)
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    blocks = "one block" if number == 1 else f"{number} blocks of {span} areas"
    return (
        f"Sampling errors are correlated by a known covariance of {m} areas in {blocks}: gamma is the weight of an "
        "area's own direct estimate, beside which those of the areas it is correlated with count too.",
    )


def _errors(at: Turned, inner: AreaFit, design: AreaDesign) -> FitErrors:
    """Terms of the mean squared errors of the M areas: diagonals of the turned matrices, turned back."""

    def back(values: Vector) -> Vector:
        out = values.copy()
        out[at.inside] = at.errors.diagonal(values[at.inside])
        return np.asarray(out)

    of_A = Asymptotics(inner.var_A, inner.bias_A)
    kept = 1 - inner.gamma
    g1, g3, fall = back(inner.g1), back(inner.g3), inner.bias_A * back(np.square(kept))
    g2 = np.square(reach(at, kept) @ np.linalg.cholesky(inner.vcov_beta)).sum(axis=1)
    gamma = back(inner.gamma)
    terms = ErrorTerms(gamma, 1 - gamma, g1, g2, g3, g1 + g2 + 2 * g3 - fall)
    direct = design.role == "direct"
    estimate = inner.certificate
    kind = kind_of(inner.method, estimate, inner.information, at.design)
    if at_boundary(estimate):
        mse = RotatedErrors(leading(at, inner), at.errors, at.inside, np.ones(len(gamma))).diagonal()
        kind = AVERAGED.format(why=LIFTED if estimate.A > 0 else AT_ZERO)
    elif inner.method in CAN_BE_NEGATIVE:
        mse = positive(g1 + g2 + 2 * g3, fall)
    else:
        mse = terms.unbiased
    return FitErrors(terms, of_A, np.where(direct, 0.0, mse), direct | estimate.converged, kind)


def reach(at: Turned, kept: Vector) -> Matrix:
    """(M, p) by how much each estimate moves with the turned coefficients, (I − c)X; kept (M,) = 1 − γ, turned."""
    H = kept[:, None] * at.design.X
    H[at.inside] = at.errors.back(H[at.inside])
    return np.asarray(H)


def leading(at: Turned, inner: AreaFit) -> ErrorMatrix:
    """The matrix of errors in turned coordinates, before it is scaled to the mean squared errors that are reported."""
    into = at.design.sampled
    if at_boundary(inner.certificate):
        y, X, D = at.design.y[into], at.design.X[into], at.design.D[into]
        own, factor = integrated_factor(inner.A_hat, y, X, D, at.design.X, places(at.design))
        known = at.design.role == "direct"
        return ErrorMatrix(np.where(known, 0.0, own), np.where(known[:, None], 0.0, factor), np.eye(factor.shape[1]))
    half = at.design.X @ np.linalg.cholesky(inner.vcov_beta)
    D = np.where(at.design.role == "unsampled", np.inf, at.design.D)
    return error_matrix(inner.A_hat, Asymptotics(inner.var_A, inner.bias_A), D, half, into)


def error_matrix_of(fit: CorrelatedAreaFit) -> RotatedErrors:
    """E[(θ̂ − θ)(θ̂ − θ)'] of the M areas; its diagonal is the `mse` of the fit."""
    at, inner = inner_fit(fit)
    return RotatedErrors(leading(at, inner), at.errors, at.inside, np.ones(len(fit.mse))).with_diagonal(fit.mse)


def inner_fit(fit: CorrelatedAreaFit) -> tuple[Turned, AreaFit]:
    """The fit again in turned coordinates."""
    from hierlmm.frequentist.area.fitting import fit_area

    at = turned(fit.design)
    return at, fit_area(fit.method, at.design, fit.information)
