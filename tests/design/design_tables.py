"""A table of the shape of the hostile-input runs: 72 rows, 12 groups of 6, one covariate, no randomness to explain."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.spec import ModelSpec, fay_herriot, lmm

INTERCEPTS = lmm("y ~ x + (1 | g)")


def table(**changes: object) -> pd.DataFrame:
    """Columns g, x, y, with columns replaced or added."""
    rng = np.random.default_rng(72)
    g = np.repeat([f"a{i:02d}" for i in range(12)], 6)
    x = rng.normal(size=72).round(3)
    y = (1 + 0.25 * x + np.repeat(rng.normal(size=12), 6) + rng.normal(size=72)).round(3)
    return pd.DataFrame({"g": g, "x": x, "y": y}).assign(**changes)


def set_at(frame: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    """The frame with one cell replaced."""
    frame = frame.copy()
    frame.loc[row, column] = value
    return frame


def areas(**changes: object) -> pd.DataFrame:
    """Ten areas with direct estimate y, covariate x and sampling variance D."""
    x = np.array([0.5, 1.5, -0.5, 2.0, 0.0, 1.0, -1.0, 2.5, 3.0, -1.5])
    y = 10 + 2 * x + np.array([0.3, -0.2, 0.5, -0.4, 0.1, 0.0, -0.3, 0.2, -0.1, 0.4])
    names = [f"area {i}" for i in range(10)]
    return pd.DataFrame({"area": names, "y": y, "x": x, "D": np.linspace(0.1, 1.0, 10)}).assign(**changes)


def area_spec(formula: str = "y ~ x", **options: str) -> ModelSpec:
    """The Fay-Herriot model of those areas."""
    return fay_herriot(formula, sampling_variance="D", area="area", **options)
