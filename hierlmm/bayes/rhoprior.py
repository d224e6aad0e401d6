"""The prior of the autocorrelation ρ of spatial area effects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hierlmm.errors import PriorError


@dataclass(frozen=True, slots=True)
class Between:
    """Uniform between two values of ρ: p(ρ) = 1/(high − low). Cut to what the proximity matrix admits."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise PriorError(
                f"A uniform prior of rho lies between two finite numbers, the smaller first; found {self.low!r} and "
                f"{self.high!r}. Write for example between(0, 1)."
            )

    def within(self, ends: tuple[float, float]) -> Between:
        """The part inside the open interval `ends`. Raises PriorError where there is none."""
        low, high = max(self.low, ends[0]), min(self.high, ends[1])
        if not low < high:
            raise PriorError(
                f"The prior of rho must leave values that the proximity matrix admits, which are between {ends[0]:.4g} "
                f"and {ends[1]:.4g}; found between({self.low:.4g}, {self.high:.4g}). Use another interval."
            )
        return Between(low, high)
