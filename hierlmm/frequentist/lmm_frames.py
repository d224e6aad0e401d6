"""Labelled frames of the fixed effects, BLUPs and group coefficients of a linear mixed model fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.likelihood.lmm_derivatives import profiled_value

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# 97.5 % point of the standard normal distribution: the intervals of the frames are 95 % Wald intervals.
NORMAL_975 = 1.959963984540054


def with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with lower and upper, 95 % normal intervals, after se."""
    at = list(frame.columns).index("se") + 1
    frame.insert(at, "lower", frame["estimate"] - NORMAL_975 * frame["se"])
    frame.insert(at + 1, "upper", frame["estimate"] + NORMAL_975 * frame["se"])
    return frame


def fixed_frame(fit: LMMFit) -> pd.DataFrame:
    """term, estimate, se, lower, upper, t = estimate / se."""
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    frame = with_interval(pd.DataFrame({"term": fit.design.fixed, "estimate": fit.beta, "se": se}))
    frame["t"] = np.divide(fit.beta, se, out=np.full(len(se), np.inf), where=se > 0)
    return frame


def correlation(covariance: Array) -> Array:
    """Correlation matrix of a covariance matrix; rows of zero variance are uncorrelated with all others."""
    sd = np.sqrt(np.diagonal(covariance))
    safe = np.where(sd > 0, sd, 1.0)
    out = np.clip(covariance / np.outer(safe, safe), -1.0, 1.0)
    np.fill_diagonal(out, 1.0)
    return np.asarray(out)


def covariance_roots(fit: LMMFit) -> tuple[Array, ...]:
    """Per factor a (q, q) root L of G, L L' = G.

    z'Gz is computed as |L'z|²: where the slope's x lies far from 0, the product with G itself cancels to nothing.
    """
    sigma = np.sqrt(fit.sigma2)
    return tuple(
        sigma * theta if np.isfinite(theta).all() else np.sqrt(G) for G, theta in zip(fit.G, fit.theta, strict=True)
    )


def marginal_loglik(fit: LMMFit) -> float:
    """Log of the full likelihood at the fit's theta."""
    if fit.at is None:
        return np.inf
    return -0.5 * profiled_value(fit.equations, fit.at.state, fit.at.solved, "ml")


def random_frame(fit: LMMFit) -> pd.DataFrame:
    """group, level, term, estimate, se, lower, upper, conditional_se: one row an effect."""
    parts = [_no_effects("conditional_se")]
    for factor, b, error, conditional in zip(fit.design.factors, fit.b, fit.b_error, fit.b_conditional, strict=True):
        q = len(factor.coefficients)
        parts.append(
            pd.DataFrame(
                {
                    "group": factor.name,
                    "level": np.repeat(factor.levels.to_numpy(), q),
                    "term": list(factor.coefficients) * len(factor.levels),
                    "estimate": b.ravel(),
                    "se": np.sqrt(np.diagonal(error, axis1=1, axis2=2)).ravel(),
                    "conditional_se": np.sqrt(np.diagonal(conditional, axis1=1, axis2=2)).ravel(),
                }
            )
        )
    return _stacked(parts)


def coefficient_frame(fit: LMMFit) -> pd.DataFrame:
    """group, level, term, estimate, se, lower, upper of beta + b, level by level.

    Every fixed effect appears in every level, as in lme4's coef(); a random coefficient without a fixed partner
    varies around zero. The standard error is that of the sum: Var(beta) + Var(b̂ - b) + 2 Cov(beta, b̂ - b). A model
    without random effects has no levels and no rows.
    """
    parts = [_no_effects()]
    for factor, b, error, with_beta in zip(fit.design.factors, fit.b, fit.b_error, fit.b_beta, strict=True):
        terms = [*fit.design.fixed, *(c for c in factor.coefficients if c not in fit.design.fixed)]
        estimate = np.zeros((len(factor.levels), len(terms)))
        variance = np.zeros_like(estimate)
        for j, term in enumerate(terms):
            i = fit.design.fixed.index(term) if term in fit.design.fixed else None
            k = factor.coefficients.index(term) if term in factor.coefficients else None
            if i is not None:
                estimate[:, j] += fit.beta[i]
                variance[:, j] += fit.vcov_beta[i, i]
            if k is not None:
                estimate[:, j] += b[:, k]
                variance[:, j] += error[:, k, k]
            if i is not None and k is not None:
                variance[:, j] += 2 * with_beta[:, i, k]
        parts.append(
            pd.DataFrame(
                {
                    "group": factor.name,
                    "level": np.repeat(factor.levels.to_numpy(), len(terms)),
                    "term": terms * len(factor.levels),
                    "estimate": estimate.ravel(),
                    "se": np.sqrt(np.maximum(variance, 0.0)).ravel(),
                }
            )
        )
    return _stacked(parts)


def _no_effects(*more: str) -> pd.DataFrame:
    """The columns of effects by level, without rows."""
    labels = {name: pd.Series(dtype=object) for name in ("group", "level", "term")}
    return pd.DataFrame(labels | {name: pd.Series(dtype=np.float64) for name in ("estimate", "se", *more)})


def _stacked(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The first part, which is empty, where it is the only one, else the others one below the other."""
    return with_interval(pd.concat(parts[1:] or parts, ignore_index=True))
