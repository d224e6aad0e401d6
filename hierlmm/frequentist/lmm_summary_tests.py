"""A t test of every fixed effect, with Satterthwaite's degrees of freedom where they cost no more than the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit


def coefficient_tests(fit: LMMFit) -> pd.DataFrame:
    """term, estimate, se, df, t, p: one row a fixed effect, each tested against zero, p two-sided.

    df and p are missing where the likelihood has no upper bound, and for large crossed designs, whose degrees of
    freedom take longer than the fit. df is infinite where the variance of an effect is known.
    """
    from scipy.special import stdtr

    frame = fit.fixed[["term", "estimate", "se", "t"]].copy()
    df = np.full(len(frame), np.nan)
    if len(frame) and has_degrees_of_freedom(fit):
        from hierlmm.frequentist.inference.satterthwaite import satterthwaite

        found = satterthwaite(fit)
        df = np.array([found.df(contrast) for contrast in np.eye(len(frame))])
    frame.insert(3, "df", df)
    with np.errstate(invalid="ignore"):
        frame["p"] = 2 * stdtr(df, -np.abs(frame["t"].to_numpy()))
    return frame


def has_degrees_of_freedom(fit: LMMFit) -> bool:
    """Whether `coefficient_tests` computes them."""
    return fit.at is not None and fit.equations.cells is None
