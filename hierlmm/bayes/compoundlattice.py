"""The hyperparameters of compound counts integrated exactly: on a plane (one coefficient) or a line (none).

The plane is sheared: β = c(tau) + w(tau) z with the mode and the sd of β given tau, so that z and log tau are nearly
independent and the product rule converges fast, however far the mean runs where the units say little of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import lattice as line
from hierlmm.bayes import plane
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.lattice import Lattice
from hierlmm.bayes.plane import Plane
from hierlmm.bayes.propriety import Propriety
from hierlmm.errors import FitError
from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import mean_of

Array = NDArray[np.float64]

# Smallest rate at which the density falls in z: the grid that looks for the mass reaches as far, in logarithms.
SLOWEST = 1e-10
# Nodes of less weight than this are left out of averages.
NEGLIGIBLE = 1e-17
HALVINGS = 60
# Two step sizes that differ by more than this have not converged; where the posterior is barely proper they come no
# nearer than a few 1e-5, and the result says so.
ENOUGH = 1e-4
# Where the step before was as good as this, its nodes serve for the quantiles of all units.
COARSE = 1e-7


@dataclass(frozen=True, slots=True)
class Line:
    """The coordinate of tau on the lattice: log tau, or logit(tau / largest) where the prior ends at `largest`, at
    which the density jumps to zero."""

    largest: float

    def log_tau(self, s: Array) -> Array:
        """log tau at coordinates s, a hair below the end of the support at most."""
        if np.isinf(self.largest):
            return s
        last = np.log(np.nextafter(self.largest, 0.0))
        return np.asarray(np.minimum(np.log(self.largest) - np.logaddexp(0.0, -s), last))

    def log_stretch(self, s: Array) -> Array:
        """log |d log tau / ds|."""
        return np.zeros_like(s) if np.isinf(self.largest) else -np.logaddexp(0.0, s)

    def near(self, log_tau: float) -> float:
        """A coordinate at about this log tau, inside the support."""
        if np.isinf(self.largest):
            return log_tau
        away = min(log_tau - float(np.log(self.largest)), -1e-3)
        return away - float(np.log(-np.expm1(away)))


@dataclass(frozen=True, slots=True, eq=False)
class HyperLattice:
    """Nodes beta (K, p), tau (K,) with weights (K,) summing to one, and the lattice they come from.

    coarse    (K,) nodes of the lattice of twice the step, good to `error`: enough for the quantiles of many units
    spacing   (K,) the tau below which units' laws are narrower than the distance of their means at neighbouring nodes
    log_mass  log of the marginal likelihood of the counts, up to the constants of improper priors
    error     relative difference between the last two step sizes
    """

    target: CompoundTarget
    axis: Line
    grid: Plane | Lattice
    beta: Array
    tau: Array
    weight: Array
    coarse: NDArray[np.bool_]
    spacing: Array

    @property
    def log_mass(self) -> float:
        """See the class."""
        return self.grid.log_mass

    @property
    def error(self) -> float:
        """See the class."""
        return self.grid.error

    def tau_quantiles(self, probabilities: Array) -> Array:
        """Quantiles of tau."""
        margin = self.grid.margin(1) if isinstance(self.grid, Plane) else self.grid
        return np.asarray(np.exp(self.axis.log_tau(line.quantiles(margin, probabilities))))

    def quantiles(
        self, bound: Callable[[float, Array], Array], start: Array, probabilities: Array, positive: bool
    ) -> Array:
        """Quantiles of a quantity q(β, tau) that rises or falls in β at every tau, by bisection.

        bound  (x, tau) -> β with q(β, tau) = x; start: values of q that bracket the quantiles; positive: whether q is,
               and the brackets are halved in its logarithm
        """
        assert isinstance(self.grid, Plane)
        to, back = (np.log, np.exp) if positive else (np.asarray, np.asarray)
        ends = to(np.array([start.min(), start.max()]))
        low, high = np.full(len(probabilities), ends[0]), np.full(len(probabilities), ends[1])
        log_tau = self.axis.log_tau(self.grid.v[1])
        tau, lines = np.exp(log_tau), self.target.given(log_tau)
        first, last = (bound(float(x), tau) for x in back(ends))
        rising = bool((last > first).any())
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = np.array([self._below(bound(float(x), tau), lines) for x in back(middle)])
            under = (below if rising else 1 - below) < probabilities
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.asarray(back(0.5 * (low + high)))

    def _below(self, bound: Array, lines: tuple[Array, Array]) -> float:
        """P(β < bound of its line), summed over the lines of tau with modes and sds of β."""
        assert isinstance(self.grid, Plane)
        first = self.grid.margin(0)
        with np.errstate(over="ignore", invalid="ignore"):
            t = line.to_t(first, (bound - lines[0]) / lines[1])
        F = line.table(first, np.clip(t, first.t[0] - 1.0, first.t[-1] + 1.0))
        return float((F * self.grid.weight.T).sum())

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Independent draws of beta (size, p) and tau (size,)."""
        if isinstance(self.grid, Plane):
            z, s = plane.draw(self.grid, size, rng).T
            log_tau = self.axis.log_tau(s)
            centre, width = self.target.given(log_tau)
            return (centre + width * z)[:, None], np.exp(log_tau)
        return np.zeros((size, 0)), np.exp(self.axis.log_tau(line.draw(self.grid, size, rng)))


def integrate(target: CompoundTarget, propriety: Propriety) -> HyperLattice:
    """Integrate (β, tau) with p = 0 or 1 coefficient. Raises FitError where two step sizes do not come to agree."""
    limit = propriety.sd["tau"]
    highest = max(k for k in (0, 1, 2, 4) if k < limit)
    slopes = (min(target.priors.tau.orders[0], 1e3), limit - highest)
    one = target.data.X.shape[1] == 1

    axis = Line(target.priors.tau.largest)

    def marginal(s: Array) -> Array:
        """Laplace's approximation to the density on the line of tau, which is exact without a coefficient."""
        log_tau = axis.log_tau(s)
        if not one:
            return target.log_density(log_tau[:, None]) + axis.log_stretch(s)
        centre, width = target.given(log_tau)
        return target.log_density(np.stack([centre, log_tau], axis=1)) + np.log(width) + axis.log_stretch(s)

    start = axis.near(_start(target))
    if not one:
        found: Plane | Lattice = line.integrate(
            marginal, start, slopes,
            lambda s: _functionals(target, np.zeros((len(s), 0)), np.exp(axis.log_tau(s)), highest),
        )  # fmt: skip
    else:
        found = _plane(target, axis, start, slopes, highest, marginal)
    if not found.error <= ENOUGH:
        raise FitError(
            "The integral over the hyperparameters must agree between two step sizes; found a relative difference of "
            f"{found.error:.1e} at the finest step. Check the counts for values many orders of magnitude apart, or use "
            "engine='nuts'."
        )
    return _lattice(target, axis, found)


def _start(target: CompoundTarget) -> float:
    """A log tau near the data's: that of the variation of a count of typical size."""
    return -0.5 * float(np.log(max(float(np.median(target.data.y)), 1.0)))


def _plane(
    target: CompoundTarget,
    axis: Line,
    start: float,
    slopes: tuple[float, float],
    highest: int,
    marginal: Callable[[Array], Array],
) -> Plane:
    centre, width = line.bulk(marginal, start)

    def unsheared(u: Array) -> tuple[Array, Array, Array]:
        s, where = np.unique(u[:, 1], return_inverse=True)
        log_tau = axis.log_tau(s)
        middle, sd = target.given(log_tau)
        stretch = np.log(sd) + axis.log_stretch(s)
        return (middle[where] + sd[where] * u[:, 0])[:, None], log_tau[where], stretch[where]

    def log_density(u: Array) -> Array:
        beta, log_tau, stretch = unsheared(u)
        return target.log_density(np.concatenate([beta, log_tau[:, None]], axis=1)) + stretch

    def functionals(u: Array) -> Array:
        beta, log_tau, _ = unsheared(u)
        return _functionals(target, beta, np.exp(log_tau), highest)

    return plane.integrate(
        log_density, np.array([0.0, centre]), np.array([1.0, width]), ((SLOWEST, SLOWEST), slopes), functionals
    )


def _functionals(target: CompoundTarget, beta: Array, tau: Array, highest: int) -> Array:
    """(J, N) what two step sizes must agree on: posterior means of telling units, shrinkage, and moments of tau."""
    data = target.data
    places = np.unique([np.argmax(data.y), np.argmin(data.y), np.argmax(data.size), np.argmin(data.size)])
    with np.errstate(over="ignore", invalid="ignore"):
        eta = beta @ data.X[places].T + data.offset[places]
        mu = np.clip(mean_of(data.family, eta), 1e-300, 1e300)
        law = posterior(data.family, data.y[places], data.size[places], mu, tau[:, None] ** 2)
    means = np.where(np.isfinite(law.mean), law.mean, 0.0)
    gamma = np.clip(np.where(np.isfinite(law.gamma), law.gamma, 1.0), 1e-300, 1.0)
    moments = [tau**k for k in (1, 2) if k <= highest]
    return np.stack([*means.T, gamma[:, 0], *moments])


def _lattice(target: CompoundTarget, axis: Line, grid: Plane | Lattice) -> HyperLattice:
    weight = grid.weight.ravel()
    used = weight > NEGLIGIBLE * weight.max()
    old = np.zeros(grid.weight.shape, dtype=bool)  # the even places are those of the step before
    old[tuple(slice(None, None, 2) for _ in old.shape)] = True
    coarse = old.ravel()[used] if grid.error <= COARSE else np.ones(int(used.sum()), dtype=bool)
    if isinstance(grid, Plane):
        z, s = grid.nodes()[used].T
        on, where = np.unique(s, return_inverse=True)
        lines = axis.log_tau(on)
        log_tau = lines[where]
        centre, width = target.given(lines)
        beta = (centre[where] + width[where] * z)[:, None]
        spacing = (grid.step * width * _per_tau(target, centre))[where]
    else:
        log_tau = axis.log_tau(grid.v[used])
        beta, spacing = np.zeros((int(used.sum()), 0)), np.zeros(int(used.sum()))
    return HyperLattice(
        target, axis, grid, beta, np.exp(log_tau), weight[used] / weight[used].sum(), coarse, spacing
    )


def _per_tau(target: CompoundTarget, beta: Array) -> Array:
    """sd of θ given the hyperparameters is tau times |∂θ/∂η| over this: 1, or the sd √(μ(1 − μ)) of a binary trial."""
    if target.data.family == "poisson":
        return np.ones_like(beta)
    mu = mean_of("binomial", beta * float(np.abs(target.data.X).mean()))
    return np.asarray(np.sqrt(mu * (1 - mu)))
