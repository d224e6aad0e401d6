"""Profile-likelihood intervals of the dispersion of counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.maximum import DispersionEstimate
from hierlmm.likelihood.compound.profile import CountData, profile

Array = NDArray[np.float64]

STEPS, CLOSED = 100, 1e-12


def profile_interval(data: CountData, at: DispersionEstimate, fall: float) -> tuple[float, float]:
    """The dispersions around φ̂ whose profile log likelihood is within `fall` of the maximum; 0 may be the lower end.

    fall  half the chi-squared quantile with one degree of freedom: 1.92 for 95 %
    """
    target = at.loglik - fall
    beta = at.beta[None]

    def above(phi: float) -> tuple[float, float]:
        found = profile(data, np.array([phi]), beta)
        return float(found.value[0]) - target, float(found.score[0])

    phi = at.dispersion
    lower = 0.0
    if phi > 0 and above(0.0)[0] < 0:
        lower = _root(above, 0.0, phi)
    end = max(phi, 1e-3 / (1.0 + float(data.y.max())))
    while above(end)[0] >= 0:
        end *= 2
    return lower, _root(above, end, phi)


def _root(above: Callable[[float], tuple[float, float]], outside: float, inside: float) -> float:
    """Where a function that is negative at `outside` and positive at `inside` is zero: Newton, halved where needed."""
    a, b = outside, inside
    x = 0.5 * (a + b)
    for _ in range(STEPS):
        value, slope = above(x)
        a, b = (x, b) if value < 0 else (a, x)
        low, high = min(a, b), max(a, b)
        new = x - value / slope if slope else low
        new = new if low < new < high else 0.5 * (low + high)
        if abs(new - x) <= CLOSED * abs(new) or high - low <= CLOSED * high:
            return new
        x = new
    return x
