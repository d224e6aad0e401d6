"""Criteria to choose a model by: AIC, AICc, BIC in two conventions, and the conditional AIC.

The conditional AIC asks for predictions of new rows of the same groups; with e the conditional residuals,

    cAIC = n log(2 pi sigma²) + sum log d_i + e'e / sigma² + 2 K.

K = rho is the trace of the derivative of the fitted values in y where the variances are known (Vaida & Blanchard 2005,
Biometrika 92:351-370). Where they are estimated the derivative of the variance ratios in y adds to it, and the
residual variance counts 1: K = Phi + 1 (Greven & Kneib 2010, Biometrika 97:773-789; the derivative is exact). Ratios
held on the boundary add nothing.

AICc: Hurvich & Tsai (1989, Biometrika 76:297-307), with n - p rows under REML, the size of the error contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.fixed_directions import Directions, curvature, free_directions
from hierlmm.frequentist.inference.fixed_traces import projected_directions, quadratic_matrix, trace_matrix
from hierlmm.frequentist.inference.satterthwaite import covariance_of
from hierlmm.likelihood.lmm_derivatives import Derivatives

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

__all__ = ["ConditionalAIC", "aicc", "conditional_aic", "criteria"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalAIC:
    """Conditional AIC of a fit.

    loglik     log density of y given the predicted effects, at the estimates
    rho        effective degrees of freedom for known variances: the trace of the hat matrix (p to p + effects)
    corrected  Phi: the same trace with the estimated variance ratios following y
    vaida      -2 loglik + 2 (rho + 1), and value  -2 loglik + 2 (corrected + 1); without the 1 where sigma² is known
    """

    loglik: float
    rho: float
    corrected: float
    vaida: float
    value: float

    def __str__(self) -> str:
        return (
            f"Conditional AIC {self.value:.4f} (Greven-Kneib, {self.corrected:.4f} degrees of freedom); "
            f"{self.vaida:.4f} (Vaida-Blanchard, {self.rho:.4f})"
        )


def conditional_aic(fit: LMMFit) -> ConditionalAIC:
    """The conditional AIC. Raises FitError for residual structures, and where the likelihood has no upper bound."""
    at, cp = fit.at, fit.equations
    if at is None or len(fit.phi):
        raise FitError(
            "The conditional AIC is computed for independent residuals whose variance the data determine; this fit has "
            f"{'a residual variance of zero' if at is None else 'a residual structure'}. Compare marginal AICs."
        )
    T = [Lambda @ Lambda.T for Lambda in at.factors]
    grams = [at.projected.gram(f, "reml") for f in range(len(T))]
    rho = cp.p + sum(float((M * part).sum()) for M, part in zip(grams, T, strict=True))
    shrunk = sum(float(((u @ part) * u).sum()) for u, part in zip(at.projected.u, T, strict=True))
    squares = (float(at.solved.rss) - shrunk) / at.sigma2
    loglik = -0.5 * (cp.n * np.log(2 * np.pi * at.sigma2) + cp.log_scale + squares)
    corrected = rho + _following(fit, at, T)
    own = 0 if cp.known_sigma2 else 1
    return ConditionalAIC(
        loglik=float(loglik), rho=rho, corrected=corrected,
        vaida=float(-2 * loglik + 2 * (rho + own)), value=float(-2 * loglik + 2 * (corrected + own)),
    )  # fmt: skip


def _following(fit: LMMFit, at: Derivatives, T: list[Array]) -> float:
    """What the estimated variance ratios add to the trace of dŷ/dy, by the implicit function theorem.

    With v_r = P*V_rP*y = -de/dr and the profiled criterion D, dr/dy = -D_rr⁻¹ D_ry.
    """
    cp = fit.equations
    directions = free_directions(cp, at.factors)
    if not len(directions):
        return 0.0
    hessian = 2 * quadratic_matrix(cp, at, directions) - trace_matrix(cp, at, fit.method, directions)
    hessian[1:, 1:] += curvature(directions, at.G_T)
    profiled = hessian[1:, 1:]
    if not cp.known_sigma2:
        profiled = profiled - np.outer(hessian[1:, 0], hessian[0, 1:]) / hessian[0, 0]
    products, with_residual, slopes = _residual_products(fit, at, T, directions)
    across = products
    if not cp.known_sigma2:
        across = products - np.outer(with_residual, slopes) / float(at.solved.rss)
    inverse = 0.5 * covariance_of(profiled)
    return float((inverse * across).sum() * 2 / at.sigma2)


def _residual_products(
    fit: LMMFit, at: Derivatives, T: list[Array], directions: Directions
) -> tuple[Array, Array, Array]:
    """v_r'v_s (k, k), v_r'P*y (k,) and y'P*V_rP*y (k,), from P*P* = P* - P*ZTZ'P*."""
    cp, u = fit.equations, at.projected.u
    images = [u[f] @ S for f, S in zip(directions.factor, directions.S, strict=True)]
    turned = projected_directions(cp, directions)
    k = len(images)
    products, own, slopes = np.empty((k, k)), np.empty(k), np.empty(k)
    for r, (f, image) in enumerate(zip(directions.factor, images, strict=True)):
        slopes[r] = (image * u[f]).sum()
        own[r] = slopes[r] - sum(float(((m @ t) * w).sum()) for m, t, w in zip(turned[r], T, u, strict=True))
        for s in range(k):
            shrunk = sum(float(((a @ t) * b).sum()) for a, t, b in zip(turned[r], T, turned[s], strict=True))
            products[r, s] = (image * turned[s][f]).sum() - shrunk
    return 0.5 * (products + products.T), own, slopes


def aicc(fit: LMMFit) -> float:
    """-2 loglik + 2 k N / (N - k - 1) of the criterion that was fitted: N = n under ML, n - p under REML.

    Under REML k counts the covariance parameters and the fixed effects, as in `aic`. inf where N <= k + 1.
    """
    k, n = fit.n_parameters, fit.equations.n - (fit.equations.p if fit.method == "reml" else 0)
    return fit.objective + 2 * k * n / (n - k - 1) if n > k + 1 else np.inf


def criteria(fit: LMMFit) -> pd.DataFrame:
    """criterion, value, parameters (what the penalty counts), convention: every criterion that the fit has."""
    k = fit.n_parameters
    criterion = "restricted likelihood" if fit.method == "reml" else "likelihood"
    rows: list[tuple[str, float, float, str]] = [
        ("aic", fit.aic, k, criterion),
        ("aicc", aicc(fit), k, f"{criterion}, N = {'n - p' if fit.method == 'reml' else 'n'}"),
        ("bic", fit.bic, k, f"{criterion}, log n (lme4)"),
        ("bic_nlme", fit.bic_nlme, k, f"{criterion}, log {'(n - p)' if fit.method == 'reml' else 'n'} (nlme)"),
        ("marginal_aic", fit.marginal_aic, k, "likelihood at these estimates"),
    ]
    if fit.at is not None and not len(fit.phi):
        found = conditional_aic(fit)
        own = 0 if fit.equations.known_sigma2 else 1
        rows.append(("caic", found.value, found.corrected + own, "conditional, Greven & Kneib (2010)"))
        rows.append(("caic_known", found.vaida, found.rho + own, "conditional, Vaida & Blanchard (2005)"))
    return pd.DataFrame(rows, columns=["criterion", "value", "parameters", "convention"])
