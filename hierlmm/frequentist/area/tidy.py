"""`tidy`, `glance` and `augment` of an area-level fit, with the columns that those of a linear mixed model have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.area.mse import half_of, row_errors
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.lmm_tidy import LEVEL, chosen, together
from hierlmm.frequentist.lmm_tidy_glance import COLUMNS
from hierlmm.frequentist.lmm_tidy_rows import COLUMNS as ROWS
from hierlmm.likelihood.area.interval import likelihood_of

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit


def tidy(fit: AreaFit, effects: str | Sequence[str]) -> pd.DataFrame:
    """One row an estimate, columns as in `lmm_tidy.tidy`.

    fixed      coefficients, tested by the normal distribution
    ran_pars   variance A between areas and its root; intervals by profile likelihood
    ran_vals   effect of each area in the fit; se the root of its mean squared error
    ran_coefs  estimate of every area, as in `areas`

    Raises FitError for a kind that does not exist.
    """
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "fixed": lambda: _fixed(fit),
        "ran_pars": lambda: _variance(fit),
        "ran_vals": lambda: _effects(fit),
        "ran_coefs": lambda: _areas(fit),
    }
    return together((kind, makers[kind]()) for kind in chosen(effects))


def _name(fit: AreaFit) -> str:
    return fit.spec.random[0].factor


def _fixed(fit: AreaFit) -> pd.DataFrame:
    from scipy.special import ndtr

    frame = fit.fixed
    t = frame["estimate"] / frame["se"]
    return frame.assign(t=t, df=np.inf, p=2 * ndtr(-np.abs(t)), quantity="coefficient")


def _variance(fit: AreaFit) -> pd.DataFrame:
    row = fit.A.iloc[0]
    sd = float(np.sqrt(row["estimate"]))
    se = row["se"] / (2 * sd) if sd > 0 else np.nan
    labels = {"group": _name(fit), "term": "Intercept"}
    return pd.DataFrame(
        [
            labels | {"quantity": "variance"} | {name: row[name] for name in ("estimate", "se", "lower", "upper")},
            labels
            | {"quantity": "sd", "estimate": sd, "se": se}
            | {"lower": np.sqrt(row["lower"]), "upper": np.sqrt(row["upper"])},
        ]
    )


def _effects(fit: AreaFit) -> pd.DataFrame:
    into = fit.design.sampled
    se = np.sqrt(fit.effect_errors())
    reach = quantile(LEVEL) * se
    effect = fit.effect[into]
    labels = {"group": _name(fit), "level": np.asarray(fit.design.areas[into], dtype=object), "term": "Intercept"}
    numbers = {"estimate": effect, "se": se, "lower": effect - reach, "upper": effect + reach}
    return pd.DataFrame({**labels, "quantity": "effect", **numbers})


def effect_errors(fit: AreaFit) -> NDArray[np.float64]:
    """The error of v̂ is that of x'β̂ + v̂ at x = 0: g2 is γ² x'Cov(β)x there, the rest as for the area's mean."""
    into = fit.design.sampled
    X, gamma = fit.design.X[into], fit.gamma[into]
    return row_errors(fit, np.zeros_like(X), np.flatnonzero(into), gamma[:, None] * half_of(fit)[into])


def leverage(fit: AreaFit) -> NDArray[np.float64]:
    """γ + (1 - γ) x'Cov(β)x / V; nan outside the fit."""
    design = fit.design
    own = np.square(half_of(fit)).sum(axis=1) / (fit.A_hat + design.D)
    return np.where(design.sampled, fit.gamma + (1 - fit.gamma) * own, np.nan)


def _areas(fit: AreaFit) -> pd.DataFrame:
    areas = fit.areas[["area", "estimate", "se", "lower", "upper"]].rename(columns={"area": "level"})
    return areas.assign(group=_name(fit), term="mean", quantity="coefficient").reset_index(drop=True)


def glance(fit: AreaFit) -> pd.DataFrame:
    """One row, columns as in `lmm_tidy_glance.glance`; n is the areas in the fit."""
    n, p = int(fit.design.sampled.sum()), fit.beta.size
    values = {
        "formula": fit.spec.formula,
        "method": fit.method,
        "n": n,
        "p": p,
        "n_parameters": fit.n_parameters,
        "df_residual": n - fit.n_parameters,
        "groups": f"{_name(fit)} {n}",
        "sigma": np.nan,
        "criterion": -2 * fit.loglik,
        "loglik": fit.loglik,
        "aic": fit.aic,
        "bic": fit.bic,
        "bic_nlme": -2 * fit.loglik
        + float(np.log(n - p if likelihood_of(fit.method) == "reml" else n)) * fit.n_parameters,
        "marginal_loglik": fit.marginal_loglik,
        "marginal_aic": fit.marginal_aic,
        "outcome": fit.outcome.name,
        "certified": fit.certificate.converged,
        "evaluations": fit.certificate.evaluations,
    }
    return pd.DataFrame([values], columns=list(COLUMNS))


def augment(fit: AreaFit) -> pd.DataFrame:
    """One row an area, columns as in `lmm_tidy_rows.augment`.

    fitted is the estimate of the area's mean; pearson_residual is the residual over the root of the sampling variance.
    The studentised residual is that of y - x'β, by its exact variance; leverage is the weight that an area's estimate
    gives to its own y, β included: γ + (1 - γ) x'Cov(β)x / V.
    """
    design = fit.design
    frame = fit.model_scale.set_index("area")
    residual = design.y - fit.eblup
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "response": design.y,
            "fitted": fit.eblup,
            "se": frame["se"],
            "lower": frame["lower"],
            "upper": frame["upper"],
            "marginal_fitted": fit.synthetic,
            "residual": residual,
            "marginal_residual": fit.residual,
            "pearson_residual": np.where(design.D > 0, residual / np.sqrt(design.D), np.nan),
            "leverage": fit.leverage(),
        }
    standard = fit.residuals.set_index("area")["standardised"]
    columns["studentised_residual"] = standard.reindex(frame.index).to_numpy()
    return pd.DataFrame({name: np.asarray(columns[name]) for name in ROWS}, index=frame.index)
