"""Rows of the table of variance components, with intervals by the delta method."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hierlmm.frequentist.lmm_frames import NORMAL_975

RESIDUAL = "Residual"
Row = tuple[str, str, str, str, float, float, float, float]


def variance_rows(group: str, term: str, value: float, variance: float) -> Iterator[Row]:
    """A variance and its square root with standard errors and log-scale intervals."""
    sd = float(np.sqrt(value))
    if not variance > 0 or value <= 0:
        yield group, term, "", "variance", float(value), np.nan, np.nan, np.nan
        yield group, term, "", "sd", sd, np.nan, np.nan, np.nan
        return
    se = float(np.sqrt(variance))
    with np.errstate(over="ignore"):  # an estimate next to zero: from 0 to infinity
        spread = float(np.exp(NORMAL_975 * se / value))
    yield group, term, "", "variance", float(value), se, value / spread, value * spread
    yield group, term, "", "sd", sd, se / (2 * sd), sd / np.sqrt(spread), sd * np.sqrt(spread)


def covariance_row(group: str, names: tuple[str, str], covariance: float, se: float) -> Row:
    """A covariance with a symmetric interval."""
    if not se > 0:
        return group, *names, "covariance", float(covariance), np.nan, np.nan, np.nan
    reach = NORMAL_975 * float(se)
    return group, *names, "covariance", float(covariance), float(se), covariance - reach, covariance + reach


def correlation_row(group: str, names: tuple[str, str], rho: float, se: float, least: float = -1.0) -> Row:
    """A correlation between `least` and 1 with an interval on the scale of log((rho - least) / (1 - rho)).

    That is twice atanh for a least correlation of -1, and Fisher's scale of an intraclass correlation for -1/(k - 1).
    """
    if not se > 0 or not least < rho < 1:
        return group, *names, "correlation", rho, np.nan, np.nan, np.nan
    odds = (rho - least) / (1 - rho)
    with np.errstate(over="ignore"):
        spread = float(np.exp(NORMAL_975 * se * (1 - least) / ((rho - least) * (1 - rho))))
    lower, upper = odds / spread, odds * spread
    return group, *names, "correlation", rho, se, (lower + least) / (1 + lower), 1 - (1 - least) / (1 + upper)


def positive_row(group: str, names: tuple[str, str], quantity: str, value: float, se: float) -> Row:
    """A positive quantity with an interval on the scale of its logarithm."""
    if not se > 0 or value <= 0:
        return group, *names, quantity, value, np.nan, np.nan, np.nan
    with np.errstate(over="ignore"):
        spread = float(np.exp(NORMAL_975 * se / value))
    return group, *names, quantity, value, se, value / spread, value * spread
