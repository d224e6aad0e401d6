"""Tail areas and quantiles of t and F, with infinite degrees of freedom standing for the normal and chi-square."""

from __future__ import annotations

import numpy as np


def t_tails(t: float, df: float) -> float:
    """P(|T| > |t|)."""
    from scipy.special import ndtr, stdtr

    return float(2 * (ndtr(-abs(t)) if np.isinf(df) else stdtr(df, -abs(t))))


def t_quantile(level: float, df: float) -> float:
    """Point that T exceeds in absolute value with probability 1 - level."""
    from scipy.special import ndtri, stdtrit

    upper = 0.5 + level / 2
    return float(ndtri(upper) if np.isinf(df) else stdtrit(df, upper))


def f_tail(F: float, num_df: float, den_df: float) -> float:
    """P(F(num_df, den_df) > F); of chi-square / num_df where den_df is infinite."""
    from scipy.special import fdtrc

    if F <= 0:
        return 1.0
    return chi2_tail(F * num_df, num_df) if np.isinf(den_df) else float(fdtrc(num_df, den_df, F))


def chi2_tail(x: float, df: float) -> float:
    """P(chi-square(df) > x); 1 at 0."""
    from scipy.special import gammaincc

    return 1.0 if x <= 0 else float(gammaincc(df / 2, x / 2))
