"""Closed-form z values of skewness and kurtosis, and of a trend in spread.

Sources: D'Agostino (1970), Biometrika 57:679-681 (skewness, n >= 8); Anscombe & Glynn (1983), Biometrika 70:227-234
(kurtosis, n >= 20).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Fewest values for which the normal approximations of the two statistics hold to their second digit.
ENOUGH_FOR_SKEWNESS, ENOUGH_FOR_KURTOSIS = 8, 20


@dataclass(frozen=True, slots=True)
class Shape:
    """Skewness and excess kurtosis of n values, and what they are in standard normal units where the law is normal.

    z values are nan where there are too few values, or where all are equal.
    """

    n: int
    skewness: float
    skewness_z: float
    kurtosis: float
    kurtosis_z: float


def shape(values: Array) -> Shape:
    """Moments of (n,) values, missing ones left out."""
    x = values[np.isfinite(values)]
    n = len(x)
    centred = x - x.mean() if n else x
    variance = float((centred**2).mean()) if n else 0.0
    if variance <= 0:
        return Shape(n, np.nan, np.nan, np.nan, np.nan)
    skewness = float((centred**3).mean()) / variance**1.5
    kurtosis = float((centred**4).mean()) / variance**2
    return Shape(
        n,
        skewness,
        _skewness_z(skewness, n) if n >= ENOUGH_FOR_SKEWNESS else np.nan,
        kurtosis - 3.0,
        _kurtosis_z(kurtosis, n) if n >= ENOUGH_FOR_KURTOSIS else np.nan,
    )


def _skewness_z(skewness: float, n: int) -> float:
    y = skewness * np.sqrt((n + 1) * (n + 3) / (6.0 * (n - 2)))
    beta = 3.0 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2.0) * (n + 5) * (n + 7) * (n + 9))
    w2 = np.sqrt(2 * (beta - 1)) - 1
    return float(np.arcsinh(y / np.sqrt(2 / (w2 - 1))) / np.sqrt(0.5 * np.log(w2)))


def _kurtosis_z(kurtosis: float, n: int) -> float:
    mean = 3.0 * (n - 1) / (n + 1)
    variance = 24.0 * n * (n - 2) * (n - 3) / ((n + 1) ** 2 * (n + 3.0) * (n + 5))
    x = (kurtosis - mean) / np.sqrt(variance)
    skew = 6.0 * (n**2 - 5 * n + 2) / ((n + 7) * (n + 9)) * np.sqrt(6.0 * (n + 3) * (n + 5) / (n * (n - 2.0) * (n - 3)))
    A = 6 + 8 / skew * (2 / skew + np.sqrt(1 + 4 / skew**2))
    inner = (1 - 2 / A) / (1 + x * np.sqrt(2 / (A - 4)))
    return float((1 - 2 / (9 * A) - np.cbrt(inner)) / np.sqrt(2 / (9 * A)))


def rank_correlation(x: Array, y: Array) -> tuple[float, float]:
    """Spearman's correlation of x and y (n,), and its z value, that times sqrt(n - 1); nan where one is constant."""
    import pandas as pd

    a, b = (pd.Series(values).rank().to_numpy() for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size <= 0:
        return np.nan, np.nan
    rho = float(a @ b) / size
    return rho, rho * float(np.sqrt(len(x) - 1))
