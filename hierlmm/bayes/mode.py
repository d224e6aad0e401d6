"""The mode of a smooth log density given as a function of many points at once, and its curvature there.

Derivatives are central differences, all evaluated in one call, so that a Newton step costs one vectorised evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]

# Difference step in coordinates that are logarithms: error of the curvature about 1e-6, rounding about 1e-7.
STEP = 1e-3
NEWTON_STEPS = 60
# Newton decrement (predicted rise of the log density) below which a proposal need not be centred better.
CLOSE = 1e-4
# Longest step in one coordinate: a factor e in a standard deviation.
LONGEST = 1.0
# Eigenvalues of the curvature are kept above this, so that a flat direction has a proposal sd of at most 3.
FLATTEST = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """Mode v (d,), log density there, and the covariance (d, d) of the Gaussian with its curvature."""

    v: Array
    value: float
    covariance: Array


def find_mode(log_density: LogDensity, start: Array) -> Mode:
    """Newton's method from `start` (d,) with steps cut to LONGEST and halved until the density rises."""
    v = start.copy()
    value, gradient, curvature = _quadratic(log_density, v)
    for _ in range(NEWTON_STEPS):
        step = curvature @ gradient
        step *= min(1.0, LONGEST / max(np.abs(step).max(initial=0.0), 1e-300))
        if 0.5 * float(gradient @ step) < CLOSE:
            break
        lengths = 0.5 ** np.arange(8)
        tried = log_density(v + lengths[:, None] * step)
        best = int(np.argmax(tried))
        if not tried[best] > value:
            break
        v = v + lengths[best] * step
        value, gradient, curvature = _quadratic(log_density, v)
    return Mode(v, value, curvature)


def _quadratic(log_density: LogDensity, v: Array) -> tuple[float, Array, Array]:
    """Value, gradient, and the inverse of minus the Hessian with its eigenvalues held positive."""
    d = v.size
    e = STEP * np.eye(d)
    i, j = np.triu_indices(d, 1)
    points = np.concatenate([v[None], v + e, v - e, v + e[i] + e[j], v - e[i] - e[j]])
    f = log_density(points)
    if not np.isfinite(f).all():
        raise FitError(
            "The posterior density of the variance parameters must be finite where its mode is searched for; found "
            f"{int((~np.isfinite(f)).sum())} of {f.size} points where rounding leaves nothing of it. Centre predictors "
            "with random slopes that lie far from 0, as in center(x), or state priors that are nearer to the data."
        )
    plus, minus = f[1 : d + 1], f[d + 1 : 2 * d + 1]
    gradient = (plus - minus) / (2 * STEP)
    hessian = np.diag((plus - 2 * f[0] + minus) / STEP**2)
    both = f[2 * d + 1 :].reshape(2, -1).sum(axis=0)
    cross = (both - plus[i] - plus[j] - minus[i] - minus[j] + 2 * f[0]) / (2 * STEP**2)
    hessian[i, j] = hessian[j, i] = cross
    values, vectors = np.linalg.eigh(-hessian)
    values = np.maximum(np.abs(values), FLATTEST)
    return float(f[0]), gradient, np.asarray((vectors / values) @ vectors.T)
