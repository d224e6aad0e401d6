"""Coordinates of the parameter space in which the parameter of interest is the first one.

x = (c, free parameters). Each set knows the point that x stands for (`place`), takes the slopes of the criterion back
to x (`pull`), and what the parameter itself is at c (`natural`). `bounds` are the ends of the range of c; where they
are finite the criterion exists there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.profile_blocks import Block
from hierlmm.frequentist.inference.profile_effects import working_effect
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.parameters import Parameters

if TYPE_CHECKING:
    from hierlmm.likelihood.residuals import Structure

Array = NDArray[np.float64]
INFINITE = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One point: factors (q, q), phi (K,), log sigma, and how far the held fixed effect is from zero."""

    factors: tuple[Array, ...]
    phi: Array
    log_sigma: float
    distance: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """The slopes of the criterion at one point, as in `Place`."""

    factors: tuple[Array, ...]
    phi: Array
    log_sigma: float
    distance: float = 0.0


@dataclass(frozen=True, eq=False)
class Optimal:
    """The optimum that profiles start from: theta, phi and log sigma; sigma is a parameter unless known."""

    cp: CrossProducts
    theta: Array
    phi: Array
    log_sigma: float

    @cached_property
    def parameters(self) -> Parameters:
        return Parameters.of(self.cp)

    @cached_property
    def factors(self) -> tuple[Array, ...]:
        return self.parameters.factors(self.theta)

    def theta_slopes(self, factors: tuple[Array, ...]) -> Array:
        """Slopes in theta from those in the factors."""
        parts = [(E * S).sum(axis=(1, 2)) for E, S in zip(self.parameters.basis, factors, strict=True)]
        return np.concatenate(parts) if parts else np.zeros(0)

    @property
    def sigma(self) -> list[float]:
        """log sigma as a free parameter; none where it is known."""
        return [] if self.cp.known_sigma2 else [self.log_sigma]


class Coordinates(Protocol):
    """See the top of this file."""

    @property
    def start(self) -> Array: ...
    @property
    def bounds(self) -> tuple[float, float]: ...
    @property
    def direction(self) -> Array | None:
        """The fixed effect (p,) on the working scale that is held, if it is one."""
        ...

    def place(self, x: Array) -> Place: ...
    def pull(self, x: Array, slopes: Gradient) -> Array: ...
    def natural(self, c: float) -> float: ...


@dataclass(frozen=True, eq=False)
class OfBlock:
    """An sd or correlation of the random effects: x = (c, h of its block, other theta, phi, log sigma)."""

    at: Optimal
    factor: int
    columns: tuple[int, ...]
    block: Block
    direction: None = None

    @property
    def bounds(self) -> tuple[float, float]:
        return self.block.bounds

    @cached_property
    def inner(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        columns = np.array(self.columns, dtype=np.intp)
        return columns[:, None], columns[None, :]

    @cached_property
    def others(self) -> NDArray[np.bool_]:
        """(k,) the elements of theta outside the block."""
        inside = [E[self.inner].any() for E in self.at.parameters.basis[self.factor]]
        before = sum(len(E) for E in self.at.parameters.basis[: self.factor])
        out = np.ones(len(self.at.theta), dtype=bool)
        out[before + np.flatnonzero(inside)] = False
        return out

    @cached_property
    def start(self) -> Array:
        c, h = self.block.start(self.at.factors[self.factor][self.inner])
        return np.concatenate([[c], h, self.at.theta[self.others], self.at.phi, self.at.sigma])

    def _split(self, x: Array) -> tuple[Array, Array, Array, float]:
        n, K = int(self.others.sum()), len(self.at.phi)
        log_sigma = float(x[-1]) if self.at.sigma else self.at.log_sigma
        end = len(x) - len(self.at.sigma)
        return x[1 : end - K - n], x[end - K - n : end - K], x[end - K : end], log_sigma

    def place(self, x: Array) -> Place:
        h, theta, phi, log_sigma = self._split(x)
        whole = np.zeros(len(self.at.theta))
        whole[self.others] = theta
        factors = [Lambda.copy() for Lambda in self.at.parameters.factors(whole)]
        ratio = float(np.exp(self.at.log_sigma - log_sigma))
        factors[self.factor][self.inner] = self.block.matrix(float(x[0]), h, ratio)
        return Place(tuple(factors), phi, log_sigma)

    def pull(self, x: Array, slopes: Gradient) -> Array:
        h, _, _, log_sigma = self._split(x)
        ratio = float(np.exp(self.at.log_sigma - log_sigma))
        own, free, of_ratio = self.block.pull(float(x[0]), h, ratio, slopes.factors[self.factor][self.inner])
        theta = self.at.theta_slopes(slopes.factors)[self.others]
        sigma = [slopes.log_sigma - of_ratio] if self.at.sigma else []
        return np.concatenate([[own], free, theta, slopes.phi, sigma])

    def natural(self, c: float) -> float:
        return self.block.natural(c)


@dataclass(frozen=True, eq=False)
class OfResidualSd:
    """c = log of the residual sd, at an occasion or in a stratum where these differ: x = (c, theta, phi).

    `occasion` counts from 0, where the relative variance is 1 by definition; `structure` knows those of the others.
    """

    at: Optimal
    occasion: int = 0
    structure: Structure | None = None
    bounds: tuple[float, float] = INFINITE
    direction: None = None

    def _log_ratio(self, phi: Array) -> tuple[float, Array]:
        """Half the log of the relative variance, and its derivatives in phi."""
        if self.structure is None or self.occasion == 0:
            return 0.0, np.zeros(len(phi))
        natural = self.structure.natural(phi)
        i = next(
            i for i, (quantity, index) in enumerate(zip(natural.quantity, natural.index, strict=True))
            if quantity == "variance_ratio" and index[0] == self.occasion
        )  # fmt: skip
        value = natural.values[i]
        return 0.5 * float(np.log(value)), 0.5 * natural.jacobian[i] / value

    @cached_property
    def start(self) -> Array:
        return np.concatenate([[self.at.log_sigma + self._log_ratio(self.at.phi)[0]], self.at.theta, self.at.phi])

    def place(self, x: Array) -> Place:
        k = len(self.at.theta)
        return Place(self.at.parameters.factors(x[1 : 1 + k]), x[1 + k :], float(x[0]) - self._log_ratio(x[1 + k :])[0])

    def pull(self, x: Array, slopes: Gradient) -> Array:
        phi = x[1 + len(self.at.theta) :]
        of_phi = slopes.phi - slopes.log_sigma * self._log_ratio(phi)[1]
        return np.concatenate([[slopes.log_sigma], self.at.theta_slopes(slopes.factors), of_phi])

    def natural(self, c: float) -> float:
        return float(np.exp(c))


@dataclass(frozen=True, eq=False)
class OfResidual:
    """A correlation, range or nugget of the residuals, number `row` of the natural parameters of their structure.

    c is its value on an unbounded scale; one element of phi, `pivot`, is what makes it so: x = (c, theta, the other
    elements of phi, log sigma).
    """

    at: Optimal
    structure: Structure
    row: int
    quantity: str
    bounds: tuple[float, float] = INFINITE
    direction: None = None

    @cached_property
    def pivot(self) -> int:
        return int(np.argmax(np.abs(self.structure.natural(self.at.phi).jacobian[self.row])))

    def _at(self, phi: Array) -> tuple[float, Array]:
        """The parameter on its unbounded scale, and its derivatives in phi."""
        natural = self.structure.natural(phi)
        value, slope = float(natural.values[self.row]), natural.jacobian[self.row]
        if self.quantity == "correlation":
            return float(np.arctanh(value)), slope / (1 - value * value)
        if self.quantity == "range":
            return float(np.log(value)), slope / value
        return float(np.log(value / (1 - value))), slope / (value * (1 - value))

    @cached_property
    def start(self) -> Array:
        with np.errstate(all="ignore"):
            c = self._at(self.at.phi)[0]
        return np.concatenate([[c], self.at.theta, np.delete(self.at.phi, self.pivot), self.at.sigma])

    def _phi(self, x: Array) -> Array:
        """phi of x: Newton's method in the pivot; nan where the others do not allow the value."""
        k, K = len(self.at.theta), len(self.at.phi)
        phi = np.insert(x[1 + k : k + K], self.pivot, self.at.phi[self.pivot])
        with np.errstate(all="ignore"):
            for _ in range(60):
                value, slope = self._at(phi)
                step = (float(x[0]) - value) / slope[self.pivot]
                if not np.isfinite(step):
                    break
                phi[self.pivot] += float(np.clip(step, -1.0, 1.0))
                if abs(step) < 1e-13 * max(1.0, abs(phi[self.pivot])):
                    return phi
        return np.full(K, np.nan)

    def place(self, x: Array) -> Place:
        log_sigma = float(x[-1]) if self.at.sigma else self.at.log_sigma
        return Place(self.at.parameters.factors(x[1 : 1 + len(self.at.theta)]), self._phi(x), log_sigma)

    def pull(self, x: Array, slopes: Gradient) -> Array:
        phi = self._phi(x)
        if np.isnan(phi).any():
            return np.full(len(x), np.nan)
        own = self._at(phi)[1]
        through = slopes.phi[self.pivot] / own[self.pivot]
        others = np.delete(slopes.phi - through * own, self.pivot)
        sigma = [slopes.log_sigma] if self.at.sigma else []
        return np.concatenate([[through], self.at.theta_slopes(slopes.factors), others, sigma])

    def natural(self, c: float) -> float:
        if self.quantity == "correlation":
            return float(np.tanh(c))
        return float(np.exp(c)) if self.quantity == "range" else float(1 / (1 + np.exp(-c)))


@dataclass(frozen=True, eq=False)
class OfEffect:
    """c = (beta_j - its estimate) / se of a fixed effect a'beta: x = (c, theta, phi, log sigma)."""

    at: Optimal
    of: Array
    estimate: float
    se: float
    bounds: tuple[float, float] = INFINITE

    @cached_property
    def direction(self) -> Array:
        return working_effect(self.at.cp, self.of)[0]

    @cached_property
    def start(self) -> Array:
        return np.concatenate([[0.0], self.at.theta, self.at.phi, self.at.sigma])

    def place(self, x: Array) -> Place:
        k, K = len(self.at.theta), len(self.at.phi)
        log_sigma = float(x[-1]) if self.at.sigma else self.at.log_sigma
        distance = self.natural(float(x[0])) - working_effect(self.at.cp, self.of)[1]
        return Place(self.at.parameters.factors(x[1 : 1 + k]), x[1 + k : 1 + k + K], log_sigma, distance)

    def pull(self, x: Array, slopes: Gradient) -> Array:
        sigma = [slopes.log_sigma] if self.at.sigma else []
        theta = self.at.theta_slopes(slopes.factors)
        return np.concatenate([[slopes.distance * self.se], theta, slopes.phi, sigma])

    def natural(self, c: float) -> float:
        return self.estimate + self.se * c
