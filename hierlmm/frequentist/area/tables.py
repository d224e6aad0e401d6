"""The frames of an area-level fit."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.notes import above_direct
from hierlmm.frequentist.bootstrap.arguments import finite
from hierlmm.likelihood.area.interval import likelihood_interval, likelihood_of

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit, IntervalKind

Vector = NDArray[np.float64]


def quantile(level: float) -> float:
    """Normal quantile of a two-sided interval; raises FitError unless 0 < level < 1."""
    if not finite(level) or not 0 < level < 1:
        raise FitError(f"The level of an interval lies between 0 and 1; it is {level!r}. Write 95 % as level=0.95.")
    return NormalDist().inv_cdf((1 + level) / 2)


def ratio(se: Vector, estimate: Vector) -> Vector:
    """Coefficient of variation se/|estimate|, nan where the estimate is 0 or missing."""
    size = np.abs(estimate)
    return np.asarray(se / np.where(size > 0, size, np.nan), dtype=np.float64)


def area_frame(fit: AreaFit, level: float) -> pd.DataFrame:
    """One row an area in table order: what was put in, what came out, and what the error is made of.

    area, direct, sampling_variance             as given; nan where there is none
    estimate, se, mse, lower, upper             EBLUP, sqrt(mse), mse, normal interval
    cv, direct_cv                               se/|estimate| and sqrt(sampling_variance)/|direct|, nan at 0
    gamma, synthetic, g1, g2, g3                as in `AreaFit`
    role                                        sampled, direct (sampling variance 0) or unsampled
    above_direct                                mse above the sampling variance
    mse_unbiased                                the second-order formula, which can be negative
    mse_valid                                   as in `AreaFit`

    attrs: "mse" says what the mse is and why, "g3" which variance of Â is behind g3 (and behind the mse).
    """
    design = fit.design
    se = np.sqrt(fit.mse)
    reach = quantile(level) * se
    frame = pd.DataFrame(
        {
            "area": design.areas,
            "direct": design.y,
            "sampling_variance": design.D,
            "estimate": fit.eblup,
            "se": se,
            "mse": fit.mse,
            "lower": fit.eblup - reach,
            "upper": fit.eblup + reach,
            "cv": ratio(se, fit.eblup),
            "direct_cv": ratio(np.sqrt(design.D), design.y),
            "gamma": fit.gamma,
            "synthetic": fit.synthetic,
            "g1": fit.g1,
            "g2": fit.g2,
            "g3": fit.g3,
            "role": design.role,
            "above_direct": above_direct(design, fit.mse),
            "mse_unbiased": fit.mse_unbiased,
            "mse_valid": fit.mse_valid,
        }
    )
    frame.attrs["mse"] = fit.mse_kind
    frame.attrs["g3"] = f"asymptotic variance of A: {fit.variance_formula}"
    return frame


def fixed_frame(fit: AreaFit, level: float) -> pd.DataFrame:
    """term, estimate, se, lower, upper: GLS at Â with normal intervals; the se take Â for the true A."""
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    reach = quantile(level) * se
    return pd.DataFrame(
        {
            "term": list(fit.design.fixed),
            "estimate": fit.beta,
            "se": se,
            "lower": fit.beta - reach,
            "upper": fit.beta + reach,
        }
    )


def variance_frame(fit: AreaFit, level: float, interval: IntervalKind) -> pd.DataFrame:
    """One row: term "A", estimate, se (asymptotic), lower, upper, interval (its kind)."""
    if interval not in ("profile", "wald"):
        raise FitError(f"`interval` is 'profile' or 'wald'; found {interval!r}. Use one of these.")
    se = float(np.sqrt(fit.var_A))
    if interval == "wald":
        reach = quantile(level) * se
        lower, upper = max(0.0, fit.A_hat - reach), fit.A_hat + reach
    else:
        quantile(level)
        lower, upper = fit.likelihood_interval(level)
    row = {"term": "A", "estimate": fit.A_hat, "se": se, "lower": lower, "upper": upper, "interval": interval}
    frame = pd.DataFrame([row])
    frame.attrs["interval"] = f"{likelihood_of(fit.method)} likelihood, around its own maximum"
    frame.attrs["se"] = f"asymptotic variance of A: {fit.variance_formula}"
    return frame


def profile_interval(fit: AreaFit, level: float) -> tuple[float, float]:
    """Interval of A by the likelihood of the method, around its own maximum: see `likelihood.area.interval`."""
    quantile(level)
    into = fit.design.sampled
    y = fit.design.y[into] - fit.design.offset[into]
    return likelihood_interval(fit.method, level, y, fit.design.X[into], fit.design.D[into])


def residual_frame(fit: AreaFit) -> pd.DataFrame:
    """Areas in the fit: area, marginal, standardised, effect.

    marginal is y − synthetic, standardised that over its standard deviation sqrt(V − x'(X'V⁻¹X)⁻¹x), which is also
    the standardised area effect; nan where an area determines a coefficient alone, so that its residual is 0 always.
    """
    into = fit.design.sampled
    marginal, variance = fit.residual[into], fit.residual_variance[into]
    # Below this share of V the difference V − x'(X'V⁻¹X)⁻¹x is rounding error.
    free = variance > 1e-10 * (fit.A_hat + fit.design.D[into])
    return pd.DataFrame(
        {
            "area": fit.design.areas[into],
            "marginal": marginal,
            "standardised": marginal / np.sqrt(np.where(free, variance, np.nan)),
            "effect": fit.effect[into],
        }
    )
