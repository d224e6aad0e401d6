"""Quantiles of the residuals of a fit, each divided by its standard deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_structured import residual_variances

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
NAMES = ("min", "25 %", "median", "75 %", "max")


def scaled_residuals(fit: LMMFit) -> Array | None:
    """(n,) conditional residuals over the standard deviation of their rows; None where there are no rows or no
    residual variance."""
    if fit.design.streamed is not None or not fit.sigma2 > 0:
        return None
    return np.asarray(fit.conditional_residuals.to_numpy() / np.sqrt(residual_variances(fit)))


def residual_lines(fit: LMMFit) -> list[str]:
    """Minimum, quartiles and maximum of the scaled residuals, R's quantiles of type 7."""
    scaled = scaled_residuals(fit)
    if scaled is None:
        return []
    values = quantiles(scaled, fit.design.frequency)
    return [
        "",
        f"{'Scaled residuals':<30}" + "".join(f"{name:>10}" for name in NAMES),
        " " * 30 + "".join(f"{value:10.4f}" for value in values),
    ]


def quantiles(values: Array, frequency: Array | None) -> Array:
    """(5,) quantiles with every value counted as often as its row was seen."""
    if frequency is None:
        return np.asarray(np.quantile(values, QUANTILES))
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(frequency[order])
    place = np.array(QUANTILES) * (ends[-1] - 1)
    low, high = (values[order][np.searchsorted(ends, at, side="right")] for at in (np.floor(place), np.ceil(place)))
    return np.asarray(low + (place - np.floor(place)) * (high - low))
