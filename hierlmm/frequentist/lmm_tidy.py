"""The estimates of a fit as one frame with the same columns for every kind of estimate and of fit.

The columns are the package's vocabulary. In broom.mixed's: se is std.error, lower and upper are conf.low and
conf.high, t is statistic, p is p.value; term and term2 are in its `term` ("sd__Days", "cor__(Intercept).Days") together
with quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_summary_tests import coefficient_tests

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Kind = Literal["fixed", "ran_pars", "ran_vals", "ran_coefs"]
KINDS: tuple[Kind, ...] = ("fixed", "ran_pars", "ran_vals", "ran_coefs")
LABELS = ("effect", "group", "level", "term", "term2", "quantity")
NUMBERS = ("estimate", "se", "lower", "upper", "t", "df", "p")
LEVEL = 0.95


def tidy(fit: LMMFit, effects: str | Sequence[str]) -> pd.DataFrame:
    """One row an estimate; the columns are LABELS and NUMBERS, blank or missing where they do not apply.

    effects  kinds of rows, in this order, or "all":
             fixed      fixed effects; t, df by Satterthwaite's method and p as in the summary, and intervals of that t
                        distribution (normal where df is missing)
             ran_pars   variance components: quantity variance, sd, covariance, correlation, share, ... as in
                        `variance_components`
             ran_vals   random effects, level by level; se is the prediction error
             ran_coefs  fixed + random coefficients, level by level

    Intervals are 95 %. Raises FitError for a kind that does not exist.
    """
    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "fixed": lambda: fixed_rows(fit),
        "ran_pars": lambda: fit.variance_components,
        "ran_vals": lambda: fit.random_effects.assign(quantity="effect"),
        "ran_coefs": lambda: fit.group_coefficients.assign(quantity="coefficient"),
    }
    return together((kind, makers[kind]()) for kind in chosen(effects))


def fixed_rows(fit: LMMFit) -> pd.DataFrame:
    """The t tests of the summary with intervals that agree with them."""
    from scipy.special import ndtri, stdtrit

    frame = coefficient_tests(fit)
    df = frame["df"].to_numpy()
    finite = np.isfinite(df)
    reach = np.full(len(frame), ndtri((1 + LEVEL) / 2))
    reach[finite] = stdtrit(df[finite], (1 + LEVEL) / 2)
    half = reach * frame["se"]
    return frame.assign(lower=frame["estimate"] - half, upper=frame["estimate"] + half, quantity="coefficient")


def chosen(effects: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds that are asked for."""
    kinds = (effects,) if isinstance(effects, str) else tuple(effects)
    if kinds == ("all",):
        return KINDS
    if not kinds or any(kind not in KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
        raise FitError(
            f"`effects` is 'all', or one or several of {', '.join(map(repr, KINDS))}, each once; found {effects!r}. "
            'Use for example effects=["fixed", "ran_pars"].'
        )
    return kinds


def together(parts: Iterable[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Rows of several kinds, one below the other, with the columns of all."""
    frames = []
    for kind, frame in parts:
        labels = {name: frame[name].astype(object) if name in frame else "" for name in LABELS[1:]}
        numbers = {name: frame[name].astype(np.float64) if name in frame else np.nan for name in NUMBERS}
        whole = pd.DataFrame({"effect": kind, **labels, **numbers}, index=range(len(frame)))
        frames.append(whole.astype(dict.fromkeys(LABELS, object) | dict.fromkeys(NUMBERS, np.float64)))
    return pd.concat(frames, ignore_index=True)
