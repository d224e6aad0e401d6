"""One design effect for all areas, from those whose variances could be estimated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def pooled_design_effect(n: Vector | NDArray[np.intp], variance: Vector, variance_srs: Vector, df: Vector) -> float:
    """Σ f n v / Σ f n v_srs over the areas with both variances and f > 0 degrees of freedom; nan where that is 0/0.

    n v estimates the design effect times the variance of a unit with f degrees of freedom. An area in which all units
    are equal adds 0 to both sums, so that leaving out zeros does not push the ratio up.
    """
    held = np.isfinite(variance) & np.isfinite(variance_srs) & (df > 0)
    weight = df[held] * n[held]
    below = float(weight @ variance_srs[held])
    return float(weight @ variance[held]) / below if below > 0 else float("nan")
