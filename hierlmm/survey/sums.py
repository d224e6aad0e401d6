"""Sums of values over the records of each area or unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


def sums(codes: Codes, values: Vector, size: int) -> Vector:
    """(size,) sums of the values with each code, 0 where there is none."""
    return np.asarray(np.bincount(codes, values, minlength=size), dtype=np.float64)
