"""The posterior of two variance parameters, a random-effects sd and the residual's, on a lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import lattice as line
from hierlmm.bayes import plane
from hierlmm.bayes.density import Target, Variances, coordinate
from hierlmm.bayes.lmmterms import Points
from hierlmm.bayes.mode import find_mode
from hierlmm.bayes.plane import Plane
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.ranks import one_factor_rank
from hierlmm.bayes.start import start
from hierlmm.errors import FitError

Array = NDArray[np.float64]

# Ratio of the two sds (for a column of unit size) above which the likelihood is the product of one within levels and
# one between them, to the square of its inverse; far above it, rounding would swallow the part between.
SEPARATE = 1e4
# Weights below this share of the largest are left out of averages.
NEGLIGIBLE = 1e-17


@dataclass(frozen=True, slots=True, eq=False)
class VarianceLattice:
    """The lattice over (v of the sd, v of σ), and the points with weights that averages over β and b use."""

    target: Target
    plane: Plane
    points: Points


def integrate_variances(target: Target, propriety: Propriety) -> VarianceLattice:
    """Integrate the posterior of one random-effects sd and σ; FitError where two step sizes do not come to agree."""
    found = find_mode(target.log_density, start(target))
    centre, width = found.v, np.sqrt(np.diagonal(found.covariance))
    prior = target.priors.factors[0].sd[0]
    limits = list(propriety.sd.values())
    highest = [max(k for k in (0, 1, 2, 4) if k < limit) for limit in limits]

    def functionals(v: Array) -> Array:
        psi = target.variances(v)
        sds = (psi.sd[0][:, 0] / np.exp(centre[0]), psi.sigma / np.exp(centre[1]))
        moments = [sd**k for sd, top in zip(sds, highest, strict=True) for k in (1, 2) if k <= top]
        ratio = 1.0 / (1.0 + (sds[0] / sds[1]) ** 2)
        return np.stack([ratio, *moments])

    slopes = ((prior.orders[0], limits[0] - highest[0]), (1.0, limits[1] - highest[1]))
    grid = plane.integrate(Separated(target), centre, width, slopes, functionals)
    if not grid.converged:
        raise FitError(
            "The integral over the variance parameters must agree between two step sizes to "
            f"{plane.AGREE:g}; found a difference of {grid.error:.1e} at the finest step. "
            "Check the response and the prior scales for values many orders of magnitude apart, or use engine='nuts'."
        )
    weight = grid.weight.ravel()
    used = weight > NEGLIGIBLE * weight.max()
    psi = target.variances(grid.nodes()[used])
    points = Points(psi, weight[used] / weight[used].sum(), np.zeros(0, dtype=np.intp))
    return VarianceLattice(target, grid, points)


class Separated:
    """Log posterior density that stays exact where the random-effects sd is any multiple of σ.

    For sd/σ above SEPARATE the likelihood is evaluated at σ_c = sd/SEPARATE, and the part within levels, which alone
    feels σ there, is moved from σ_c to σ: -(n - p - ν) log(σ/σ_c) - ½ RSS (σ⁻² - σ_c⁻²), RSS the residual sum of
    squares with the effects as if fixed, and ν the contrasts between levels. A proper prior of every coefficient keeps
    the digits by itself, and nothing is moved.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        cp, factor = target.cp, target.design.factors[0]
        proper = target.beta_prior is not None and bool(np.isfinite(target.beta_prior.sd).all())
        self.unit = 0.0 if proper else 1.0 / abs(float(cp.Z_map[0][0, 0]))
        self.within = cp.n - cp.p - one_factor_rank(factor, factor.Z, target.design.X)

    def __call__(self, v: Array) -> Array:
        psi = self.target.variances(v)
        smallest = psi.sd[0][:, 0] * self.unit / SEPARATE
        far = psi.sigma < smallest
        sigma = np.where(far, smallest, psi.sigma)
        value = self.target.log_likelihood(Variances(psi.sd, psi.correlation, sigma)) + self.target.log_prior(v)
        with np.errstate(over="ignore", invalid="ignore"):
            inside = -self.within * np.log(psi.sigma / sigma)
            inside -= 0.5 * self.target.rss * (psi.sigma**-2.0 - sigma**-2.0)
        value = np.where(far, value + inside, value)
        return np.where(np.isnan(value), -np.inf, value)


def draw(found: VarianceLattice, size: int, rng: np.random.Generator) -> Variances:
    """Independent draws of the variance parameters."""
    return found.target.variances(plane.draw(found.plane, size, rng))


def interval(found: VarianceLattice, axis: int, probabilities: Array) -> Array:
    """Quantiles of the random-effects sd (axis 0) or of σ (axis 1)."""
    v = np.zeros((len(probabilities), 2))
    v[:, axis] = line.quantiles(found.plane.margin(axis), probabilities)
    psi = found.target.variances(v)
    return psi.sd[0][:, 0] if axis == 0 else psi.sigma


def share_interval(found: VarianceLattice, size: float, probabilities: Array) -> Array:
    """Quantiles of sd²·size/(sd²·size + σ²) by bisection on its distribution function."""
    margin = found.plane.margin(0)
    s, sigma = found.points.psi.sd[0][:, 0], found.points.psi.sigma
    log_ratio = np.log(s / sigma)
    low, high = (np.full(len(probabilities), f(log_ratio)) for f in (np.min, np.max))
    grid_sigma = found.target.variances(np.stack([np.zeros_like(found.plane.v[1]), found.plane.v[1]], axis=1)).sigma
    for _ in range(45):
        middle = 0.5 * (low + high)
        below = np.array([_below(found, margin, grid_sigma * np.exp(c)) for c in middle]) < probabilities
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    odds = size * np.exp(low + high)
    return np.asarray(odds / (1.0 + odds))


def _below(found: VarianceLattice, margin: line.Lattice, bound: Array) -> float:
    """P(sd < bound_j, σ at line j) summed over the lines of σ."""
    t = line.to_t(margin, coordinate(found.target.priors.factors[0].sd[0], bound))
    F = line.table(margin, np.clip(t, margin.t[0] - 1.0, margin.t[-1] + 1.0))
    return float((F * found.plane.weight.T).sum())
