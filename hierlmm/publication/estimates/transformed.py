"""Areas modelled on another scale than that of the data: Gaussian there, and taken back by a function that rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.scales import SCALES
from hierlmm.publication.estimates.covariance import ErrorCovariance

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]


def _log(c: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(c, 0.0)))


def _arcsine_root(c: Array) -> Array:
    inside = np.arcsin(np.sqrt(np.clip(c, 0.0, 1.0)))
    return np.asarray(np.where(c < 0, -np.inf, np.where(c >= 1, np.inf, inside)))


def _logit(c: Array) -> Array:
    p = np.clip(c, 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log1p(-p))


# The value on the scale of the model above which an area is above c on the scale of the data.
FORWARD: dict[str, Callable[[Array], Array]] = {"log": _log, "arcsine_root": _arcsine_root, "logit": _logit}


def forward(name: str, c: Array) -> Array:
    """Thresholds c on the scale of the model; infinite where no area, or each, is above c."""
    return FORWARD[name](c)


def back(name: str, theta: Array) -> Array:
    """Values on the scale of the data."""
    return SCALES[name].back(theta)


def slope(name: str, theta: Array) -> Array:
    """Derivative of `back`."""
    return SCALES[name].slope(theta)


@dataclass(frozen=True, slots=True, eq=False)
class Bent:
    """The estimates of a fit where they are Gaussian: theta (M,) with the covariance matrix of its errors."""

    name: str
    theta: Vector
    errors: ErrorCovariance

    def sample(self, size: int, rng: np.random.Generator) -> Matrix:
        """(size, M) joint draws on the scale of the data."""
        return back(self.name, self.theta + self.errors.sample(size, rng))
