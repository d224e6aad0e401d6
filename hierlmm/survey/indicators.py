"""Variables made from a column of the records: being poor, and how far below the poverty line.

The indicators F_0 and F_1 of Foster, Greer and Thorbecke (1984, Econometrica 52, 761-766) of an area are the mean of
the derived variable over its units, so that a direct estimate is that of a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import SpecError

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeadCount:
    """1 for a unit whose `column` is below `line`, else 0: its mean is the poverty rate F_0.

    The line is taken as known: where it was estimated from the same records, its own error is not in the variances.
    """

    column: str
    line: float

    def __post_init__(self) -> None:
        check_line(self.line)

    def values(self, income: Vector) -> Vector:
        """(n,) zeros and ones, nan where the income is."""
        return np.where(np.isnan(income), np.nan, (income < self.line).astype(np.float64))

    def __str__(self) -> str:
        return f"{self.column} < {self.line:g}"


@dataclass(frozen=True, slots=True)
class PovertyGap:
    """(line - column)/line for a unit whose `column` is below `line`, else 0: its mean is the poverty gap F_1.

    The line is taken as known, as in `HeadCount`.
    """

    column: str
    line: float

    def __post_init__(self) -> None:
        check_line(self.line)

    def values(self, income: Vector) -> Vector:
        """(n,) shares of the line that are missing, nan where the income is."""
        return np.where(np.isnan(income), np.nan, np.maximum(0.0, (self.line - income) / self.line))

    def __str__(self) -> str:
        return f"gap of {self.column} below {self.line:g}"


Indicator = HeadCount | PovertyGap


def check_line(line: float) -> None:
    """Refuse a poverty line that is no positive number."""
    if isinstance(line, bool) or not isinstance(line, int | float | np.number) or not 0 < line < np.inf:
        raise SpecError(f"A poverty line is a positive number in the units of the column; found {line!r}. Correct it.")
