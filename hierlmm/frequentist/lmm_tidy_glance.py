"""A fit in one row: sizes, likelihoods, criteria, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Columns of every glance. In broom.mixed's: n is nobs, loglik logLik, aic AIC, bic BIC; its deviance is -2 loglik.
COLUMNS = (
    "formula", "method", "n", "p", "n_parameters", "df_residual", "groups", "sigma", "criterion", "loglik", "aic",
    "bic", "bic_nlme", "marginal_loglik", "marginal_aic", "outcome", "certified", "evaluations",
)  # fmt: skip


def glance(fit: LMMFit) -> pd.DataFrame:
    """One row with COLUMNS, the same for every kind of fit.

    n, p         rows (with their frequencies), or areas in the fit; fixed effects
    n_parameters fixed effects and covariance parameters; df_residual = n - n_parameters, as lme4 counts it
    groups       levels of each grouping factor, as "subject 6, scenario 7"
    sigma        residual standard deviation; missing where the residual variances are known
    criterion    -2 loglik, of the likelihood that was maximised: restricted where method is "reml"
    bic          with log n, lme4's; bic_nlme with log(n - p) under REML
    marginal_*   of the full likelihood at the estimates, comparable between different fixed effects
    outcome      name of the LMMOutcome; certified whether the point is proved an optimum; evaluations of the criterion
    """
    n = fit.equations.n
    values = {
        "formula": fit.spec.formula,
        "method": fit.method,
        "n": n,
        "p": fit.equations.p,
        "n_parameters": fit.n_parameters,
        "df_residual": n - fit.n_parameters,
        "groups": ", ".join(f"{factor.name} {len(factor.levels)}" for factor in fit.design.factors),
        "sigma": float("nan") if fit.equations.known_sigma2 else float(fit.sigma2) ** 0.5,
        "criterion": fit.objective,
        "loglik": fit.loglik,
        "aic": fit.aic,
        "bic": fit.bic,
        "bic_nlme": fit.bic_nlme,
        "marginal_loglik": fit.marginal_loglik,
        "marginal_aic": fit.marginal_aic,
        "outcome": fit.outcome.name,
        "certified": fit.certificate.certified,
        "evaluations": fit.certificate.evaluations,
    }
    return pd.DataFrame([values], columns=list(COLUMNS))
