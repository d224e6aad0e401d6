"""Continuous-time AR(1): two rows at times s and t correlate exp(-|s - t|/range), with or without a nugget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierlmm.likelihood.residuals.moments import PULL, neighbours, standardised
from hierlmm.likelihood.residuals.structure import AT_BOUND, Array, Codes, Groups, Natural

# exp(-x) is 0 in doubles beyond this, also times x.
UNDERFLOW = 745.0
# A range below this part of the unit leaves no correlation at any typical difference of times.
SHORTEST = 1e-3
# Starts are taken from a grid: ranges in units, nuggets, and so many classes of time differences.
RANGES = 2.0 ** np.arange(-3, 7)
NUGGETS = np.array([0.05, 0.15, 0.3, 0.5, 0.7])
CLASSES = 64


@dataclass(frozen=True, slots=True)
class ContinuousAR1:
    """Correlation (1 - c) exp(-|s - t|/range) of two rows; phi = (log(range/unit), logit c), without nugget (1,).

    unit > 0: a typical difference of times, in the unit of time, which makes phi free of that unit. phi = 0 is a
    range of one unit, and a nugget c of one half; c is the part of sigma² that is white noise.
    """

    unit: float
    nugget: bool = False

    @property
    def size(self) -> int:
        return 1 + self.nugget

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """C (U, k, k) and dC/dphi (size, U, k, k); place: times."""
        distance = np.abs(place[:, :, None] - place[:, None, :]) / self.unit
        with np.errstate(over="ignore"):
            gap = np.minimum(distance * np.exp(min(-float(phi[0]), UNDERFLOW / 2)), UNDERFLOW)
        C = np.exp(-gap)
        dC = (gap * C)[None]
        if not self.nugget:
            return C, dC
        keep, slope = _keep(float(phi[1]))
        k = place.shape[1]
        off = 1.0 - np.eye(k)
        dC = np.stack([keep * dC[0], slope * C * off])
        C = keep * C
        C[:, np.arange(k), np.arange(k)] = 1.0
        return C, dC

    def natural(self, phi: Array) -> Natural:
        """The range in units of time, index (); then the nugget c, index ()."""
        length = self.unit * np.exp(phi[0])
        if not self.nugget:
            return Natural(("range",), ((),), np.array([length]), np.array([[length]]))
        # c itself, not 1 less what is kept: it may be small.
        c, slope = _keep(-float(phi[1]))
        return Natural(("range", "nugget"), ((), ()), np.array([length, c]), np.diag([length, -slope]))

    def start(self, groups: Groups) -> Array:
        """The point of a grid that is nearest, by least squares, to mean products by class of time difference."""
        gaps, products = neighbours(standardised(groups))
        gaps = gaps / self.unit
        apart = gaps > 0
        if not apart.any():
            return np.zeros(self.size)
        gaps, products = gaps[apart], products[apart]
        edges = np.quantile(gaps, np.linspace(0, 1, CLASSES + 1)[1:-1])
        of = np.searchsorted(edges, gaps)
        count = np.bincount(of, minlength=CLASSES)
        gap = np.bincount(of, gaps, minlength=CLASSES) / np.maximum(count, 1)
        mean = np.bincount(of, products, minlength=CLASSES) / (count + PULL)
        nuggets = NUGGETS if self.nugget else np.zeros(1)
        fitted = (1 - nuggets[:, None, None]) * np.exp(-gap / RANGES[:, None])
        loss = (count * (mean - fitted) ** 2).sum(-1)
        c, length = np.unravel_index(int(np.argmin(loss)), loss.shape)
        first = np.log(RANGES[length])
        return np.array([first, np.log(nuggets[c] / (1 - nuggets[c]))] if self.nugget else [first])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """A range of 0 or without end, a nugget of 0 or 1."""
        found = []
        if phi[0] < np.log(SHORTEST):
            found.append("the range is at the bound of its space, 0: no two rows correlate")
        if phi[0] > -np.log(AT_BOUND):
            found.append("the range is at the bound of its space, infinite: correlations do not fall with time")
        if self.nugget and phi[1] < np.log(AT_BOUND):
            found.append("the nugget is at the bound of its space, 0")
        if self.nugget and phi[1] > -np.log(AT_BOUND):
            found.append("the nugget is at the bound of its space, 1: no two rows correlate")
        return tuple(found)


def _keep(x: float) -> tuple[float, float]:
    """1 - logistic(x) and its derivative, without overflow."""
    t = float(np.exp(-abs(x)))
    return (t if x > 0 else 1.0) / (1.0 + t), -t / (1.0 + t) ** 2
