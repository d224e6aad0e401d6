"""Labelled frames of a method-of-moments fit, with the vocabulary of those of LMMFit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_frames import NORMAL_975, with_interval
from hierlmm.frequentist.moments.components import RESIDUAL

if TYPE_CHECKING:
    from hierlmm.frequentist.moments.results import MomentsFit

Array = NDArray[np.float64]
KEYS = ["group", "term", "term2", "quantity"]


def fixed_frame(fit: MomentsFit) -> pd.DataFrame:
    """term, estimate, se, lower, upper, t = estimate / se."""
    se = np.sqrt(np.diagonal(fit.vcov_beta))
    frame = with_interval(pd.DataFrame({"term": fit.design.fixed, "estimate": fit.beta, "se": se}))
    frame["t"] = fit.beta / np.where(se > 0, se, np.nan)
    return frame


def variance_frame(fit: MomentsFit) -> pd.DataFrame:
    """Rows of quantity variance, sd (nan for a negative variance), covariance and share.

    Intervals are normal, estimate ± 1.96 se, and may reach below zero; that of a residual variance that is a mean
    square is the exact one, df s² over the quantiles of chi-squared. `inside` says whether a variance is not negative.
    """
    frame = pd.DataFrame(list(_rows(fit)), columns=[*KEYS, "estimate", "se", "lower", "upper"])
    frame["inside"] = ~((frame["quantity"] == "variance") & (frame["estimate"] < 0))
    return frame


def _rows(fit: MomentsFit) -> Iterator[tuple[str, str, str, str, float, float, float, float]]:
    errors = np.sqrt(np.diagonal(fit.vcov))
    places = [(c.group, *pair, k) for k, c in enumerate(fit.components) for pair in c.pairs] + [(RESIDUAL, "", "", -1)]
    for group, term, term2, k in places:
        value, se = fit.estimates[k], errors[k]
        low, high = value - NORMAL_975 * se, value + NORMAL_975 * se
        if group == RESIDUAL:
            low, high = _residual_interval(fit, low, high)
        row = float(value), float(se), float(low), float(high)
        if term2:
            yield group, term, term2, "covariance", *row
            continue
        yield group, term, "", "variance", *row
        sd = float(np.sqrt(value)) if value >= 0 else np.nan
        ends = np.sqrt(np.maximum([low, high], 0.0)) if value >= 0 else np.full(2, np.nan)
        yield group, term, "", "sd", sd, float(se) / (2 * sd) if sd > 0 else np.nan, float(ends[0]), float(ends[1])
    for name, share in zip([*(f.name for f in fit.design.factors), RESIDUAL], fit.share, strict=True):
        yield name, "", "", "share", float(share), np.nan, np.nan, np.nan


def _residual_interval(fit: MomentsFit, low: float, high: float) -> tuple[float, float]:
    """Exact where the residual variance is a mean square of its own."""
    from scipy.special import chdtri

    table = fit.squares
    if table is None or table.coefficients[-1, :-1].any() or table.df[-1] != table.coefficients[-1, -1]:
        return low, high
    ends = table.squares[-1] / chdtri(table.df[-1], np.array([0.025, 0.975]))
    return float(ends[0]), float(ends[1])


def anova_frame(fit: MomentsFit) -> pd.DataFrame:
    """source, df, sum_sq, mean_sq, E(...) of each component, estimate. Raises FitError where there is no table."""
    table = fit.squares
    if table is None:
        raise FitError(
            f"A table of sums of squares belongs to the analysis of variance; {fit.title} solves other equations. Use "
            "method='anova', 'henderson1', 'henderson2' or 'henderson3'."
        )
    names = [*(component.name for component in fit.components), RESIDUAL]
    df = table.df
    frame = pd.DataFrame({"source": names, "df": df, "sum_sq": table.squares, "mean_sq": table.squares / df})
    for name, column in zip(names, (table.coefficients / df[:, None]).T, strict=True):
        frame[f"E({name})"] = column
    return frame.assign(estimate=fit.estimates)


def beside_frame(fit: MomentsFit) -> pd.DataFrame:
    """The estimates with REML's."""
    own = fit.variance_components.drop(columns=["se", "lower", "upper"])
    reml = fit.reml.variance_components[[*KEYS, "estimate"]].rename(columns={"estimate": "reml"})
    return own.merge(reml, on=KEYS, how="left")[[*KEYS, "estimate", "reml", "inside"]]
