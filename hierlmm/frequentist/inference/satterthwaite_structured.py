"""What Satterthwaite's formula needs of fits with a residual structure, by differences of the exact gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_model import model_of
from hierlmm.likelihood.lmm_derivatives import Derivatives, freedom
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.triangular import solve_lower

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# First step in a standard deviation ratio, relative to the largest, and in an element of phi, whose unit is 1.
STEP = 0.01
# Information on an element of phi below which nothing depends on it any more.
INFORMED = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Hessian (k, k) of -2 log likelihood in (free theta, free phi, log sigma²), slopes (k, p, p) of Cov(beta)."""

    hessian: Array
    slopes: Array
    held: tuple[str, ...]


def by_differences(fit: LMMFit) -> Moved:
    """The derivatives at the fit; elements of theta and phi that lie at a bound are held there."""
    at, cp = fit.at, fit.equations
    assert at is not None
    surface = Surface.of(model_of(fit.design), fit.method)
    parameters = Parameters.of(cp)
    theta = parameters.theta(at.factors)
    psi = np.concatenate([theta, fit.phi])
    free, held = _free(fit, at, theta)
    nu = freedom(cp, fit.method)
    step = np.concatenate([np.full(len(theta), STEP * max(float(np.abs(theta).max(initial=0.0)), 1e-3)),
                           np.full(len(fit.phi), STEP)])  # fmt: skip
    rows = [_slope(surface, cp.X_map, psi, k, step[k]) for k in free]
    profiled = np.array([gradient[free] for gradient, _ in rows]).reshape(len(free), len(free))
    relative = -at.slope[free] / float(at.solved.rss)
    hessian = np.empty((len(free) + 1, len(free) + 1))
    hessian[:-1, :-1] = 0.5 * (profiled + profiled.T)
    hessian[-1, -1] = nu
    if not cp.known_sigma2:
        hessian[:-1, :-1] += nu * np.outer(relative, relative)
    hessian[:-1, -1] = hessian[-1, :-1] = -nu * relative
    # sigma² is held in these slopes: Cov(beta) is sigma² times what moves, and sigma² itself is the last element
    slopes = np.stack([*(at.sigma2 * C for _, C in rows), fit.vcov_beta])
    return Moved(hessian, slopes, held)


def _free(fit: LMMFit, at: Derivatives, theta: Array) -> tuple[list[int], tuple[str, ...]]:
    """Positions of the elements of psi that can move, and what is held."""
    k = len(theta)
    informed = np.diagonal(at.quadratic)[k:] / at.sigma2 > INFORMED
    general = Parameters.of(fit.equations)
    vanished = {c for column in general.columns if not np.abs(theta[list(column)]).max() > 0 for c in column}
    free = [i for i in range(k) if i not in vanished] + [k + i for i in np.flatnonzero(informed).tolist()]
    held = ("the random effects",) if vanished else ()
    return free, (*held, *(() if informed.all() else ("the residual structure",)))


def _slope(surface: Surface, X_map: Array, psi: Array, k: int, h: float) -> tuple[Array, Array]:
    """Derivatives in element k of the gradient and of Cov(beta) / sigma²: central differences, extrapolated twice."""

    def at(step: float) -> tuple[Array, Array]:
        moved = psi.copy()
        moved[k] += step
        found = surface(moved)
        root = X_map @ solve_lower(found.solved.L_x, np.eye(len(X_map))).T
        return found.gradient, root @ root.T

    def central(step: float) -> tuple[Array, Array]:
        (g1, C1), (g0, C0) = at(step), at(-step)
        return (g1 - g0) / (2 * step), (C1 - C0) / (2 * step)

    (g1, C1), (g2, C2), (g4, C4) = central(h), central(h / 2), central(h / 4)
    # weights of two extrapolations: errors of the second and fourth power of h vanish
    return (64 * g4 - 20 * g2 + g1) / 45, (64 * C4 - 20 * C2 + C1) / 45
