"""`tidy` and `glance` of an empirical-Bayes fit, with the columns that those of a linear mixed model have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hierlmm.frequentist.lmm_tidy import chosen, together
from hierlmm.frequentist.lmm_tidy_glance import COLUMNS

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit


def tidy(fit: CompoundFit, effects: str | Sequence[str]) -> pd.DataFrame:
    """One row an estimate, columns as in `lmm_tidy.tidy`.

    fixed      coefficients of the prior mean, on the scale of its predictor
    ran_pars   parameters of the prior, named in `quantity`
    ran_vals   estimate of each unit less its prior mean; se as of the estimate
    ran_coefs  estimate of each unit

    Raises FitError for a kind that does not exist.
    """
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "fixed": lambda: _fixed(fit),
        "ran_pars": lambda: _prior(fit),
        "ran_vals": lambda: _units(fit, "effect"),
        "ran_coefs": lambda: _units(fit, "coefficient"),
    }
    return together((kind, makers[kind]()) for kind in chosen(effects))


def _fixed(fit: CompoundFit) -> pd.DataFrame:
    from scipy.special import ndtr

    frame = _part(fit, "fixed")
    t = frame["estimate"] / frame["se"]
    return frame.assign(t=t, df=np.inf, p=2 * ndtr(-np.abs(t)), quantity="coefficient")


def _part(fit: CompoundFit, part: str) -> pd.DataFrame:
    frame = fit.hyperparameters
    return frame[frame["part"] == part].drop(columns="part").reset_index(drop=True)


def _prior(fit: CompoundFit) -> pd.DataFrame:
    frame = _part(fit, "prior")
    return frame.rename(columns={"term": "quantity"}).assign(group=fit.spec.unit, term="Intercept")


def _units(fit: CompoundFit, quantity: str) -> pd.DataFrame:
    frame = fit.units[["unit", "estimate", "se", "lower", "upper"]].rename(columns={"unit": "level"})
    if quantity == "effect":
        frame[["estimate", "lower", "upper"]] = frame[["estimate", "lower", "upper"]].sub(fit.prior_mean, axis=0)
    return frame.assign(group=fit.spec.unit, term="mean", quantity=quantity)


def glance(fit: CompoundFit) -> pd.DataFrame:
    """One row, columns as in `lmm_tidy_glance.glance`; n is the units in the fit."""
    n, p = int(fit.design.sampled.sum()), fit.beta.size
    found = fit.certificate if fit.certificate is not None else fit.area.certificate if fit.area is not None else None
    values = {
        "formula": fit.spec.formula,
        "method": fit.method,
        "n": n,
        "p": p,
        "n_parameters": fit.n_parameters,
        "df_residual": n - fit.n_parameters,
        "groups": f"{fit.spec.unit} {n}",
        "sigma": np.nan,
        "criterion": -2 * fit.loglik,
        "loglik": fit.loglik,
        "aic": fit.aic,
        "bic": fit.bic,
        "bic_nlme": -2 * fit.loglik + float(np.log(n - p if fit.method == "reml" else n)) * fit.n_parameters,
        "marginal_loglik": fit.loglik if fit.area is None else fit.area.marginal_loglik,
        "marginal_aic": fit.aic if fit.area is None else fit.area.marginal_aic,
        "outcome": fit.outcome.name,
        "certified": True if found is None else found.converged,
        "evaluations": 1 if found is None else found.evaluations,
    }
    return pd.DataFrame([values], columns=list(COLUMNS))
