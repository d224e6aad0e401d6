"""The prior distributions on offer, as frozen values that know their log density.

Densities of standard deviations are stated on the sd scale whatever quantity the name speaks of, so that
they add up: flat on the variance is the density 2·sd in sd. Proper densities carry their normalising
constant, improper ones are stated as they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import PriorError

Array = NDArray[np.float64]
FlatScale = Literal["sd", "variance", "covariance", "log"]


class SDPrior(ABC):
    """Prior of one standard deviation; subclasses are frozen values."""

    __slots__ = ()

    @abstractmethod
    def log_density(self, sd: ArrayLike) -> Array:
        """Log density on the sd scale at sd > 0, elementwise; -inf outside the support."""

    @property
    @abstractmethod
    def orders(self) -> tuple[float, float]:
        """(a, c) with density ~ sd^(a-1) as sd -> 0 and ~ sd^(c-1) as sd -> infinity.

        +inf at zero and -inf at infinity stand for decay faster than any power.
        """

    @property
    def largest(self) -> float:
        """Upper end of the support."""
        return math.inf


def _positive(family: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise PriorError(
                f"The {name} of a {family} prior must be a positive finite number; found {value!r}. "
                f"Give {family} a {name} in units of the standard deviation it describes."
            )


def _as_sd(sd: ArrayLike) -> Array:
    return np.asarray(sd, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Flat(SDPrior):
    """Improper flat prior, on the scale `on`.

    "sd"          density 1 (Gelman 2006, Bayesian Analysis 1:515)
    "variance"    flat on sd², density 2·sd
    "covariance"  flat on the elements of the q x q covariance block the coefficient belongs to: with LKJ(1) on
                  its correlations, density 2·sd^q; q = `size` is read from the design
    "log"         flat on log sd, density 1/sd; usable for the residual only (Hobert & Casella 1996)
    As prior of a fixed effect, Flat() is the flat prior on the coefficient.
    """

    on: FlatScale = "sd"
    size: float = 1

    def __post_init__(self) -> None:
        if self.on not in ("sd", "variance", "covariance", "log"):
            raise PriorError(
                "A flat prior is flat on 'sd', 'variance', 'covariance' or 'log' (log sd); "
                f"found on={self.on!r}. Use one of these."
            )

    def _power(self) -> float:
        return {"sd": 0.0, "variance": 1.0, "covariance": self.size, "log": -1.0}[self.on]

    def log_density(self, sd: ArrayLike) -> Array:
        x = _as_sd(sd)
        if self.on == "sd":
            return np.zeros_like(x)
        constant = 0.0 if self.on == "log" else math.log(2.0)
        return np.asarray(constant + self._power() * np.log(x))

    @property
    def orders(self) -> tuple[float, float]:
        return self._power() + 1.0, self._power() + 1.0


@dataclass(frozen=True, slots=True)
class HalfT(SDPrior):
    """Half-t: density ∝ (1 + sd²/(df·scale²))^-(df+1)/2 on sd > 0 (Gelman 2006)."""

    df: float
    scale: float

    def __post_init__(self) -> None:
        _positive("halft", df=self.df, scale=self.scale)

    def log_density(self, sd: ArrayLike) -> Array:
        half = 0.5 * (self.df + 1.0)
        constant = math.log(2.0 / self.scale) - 0.5 * math.log(self.df * math.pi)
        constant += math.lgamma(half) - math.lgamma(0.5 * self.df)
        return np.asarray(constant - half * np.log1p((_as_sd(sd) / self.scale) ** 2 / self.df))

    @property
    def orders(self) -> tuple[float, float]:
        return 1.0, -self.df


@dataclass(frozen=True, slots=True)
class HalfCauchy(SDPrior):
    """Half-Cauchy: density 2 / (π·scale·(1 + sd²/scale²)) on sd > 0 (Polson & Scott 2012)."""

    scale: float

    def __post_init__(self) -> None:
        _positive("halfcauchy", scale=self.scale)

    def log_density(self, sd: ArrayLike) -> Array:
        return np.asarray(math.log(2.0 / (math.pi * self.scale)) - np.log1p((_as_sd(sd) / self.scale) ** 2))

    @property
    def orders(self) -> tuple[float, float]:
        return 1.0, -1.0


@dataclass(frozen=True, slots=True)
class HalfNormal(SDPrior):
    """Half-normal: |N(0, scale²)|."""

    scale: float

    def __post_init__(self) -> None:
        _positive("halfnormal", scale=self.scale)

    def log_density(self, sd: ArrayLike) -> Array:
        constant = 0.5 * math.log(2.0 / math.pi) - math.log(self.scale)
        return np.asarray(constant - 0.5 * (_as_sd(sd) / self.scale) ** 2)

    @property
    def orders(self) -> tuple[float, float]:
        return 1.0, -math.inf


@dataclass(frozen=True, slots=True)
class Exponential(SDPrior):
    """Exponential: rate·exp(-rate·sd); the penalised-complexity prior of an sd (Simpson et al. 2017)."""

    rate: float

    def __post_init__(self) -> None:
        _positive("exponential", rate=self.rate)

    def log_density(self, sd: ArrayLike) -> Array:
        return np.asarray(math.log(self.rate) - self.rate * _as_sd(sd))

    @property
    def orders(self) -> tuple[float, float]:
        return 1.0, -math.inf


@dataclass(frozen=True, slots=True)
class InverseGamma(SDPrior):
    """Inverse gamma on the variance: density scale^shape/Γ(shape)·v^-(shape+1)·exp(-scale/v), v = sd², times 2·sd."""

    shape: float
    scale: float

    def __post_init__(self) -> None:
        _positive("inversegamma", shape=self.shape, scale=self.scale)

    def log_density(self, sd: ArrayLike) -> Array:
        x = _as_sd(sd)
        constant = self.shape * math.log(self.scale) - math.lgamma(self.shape) + math.log(2.0)
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(constant - (2.0 * self.shape + 1.0) * np.log(x) - self.scale / x**2)

    @property
    def orders(self) -> tuple[float, float]:
        return math.inf, -2.0 * self.shape


@dataclass(frozen=True, slots=True)
class Uniform(SDPrior):
    """Uniform on 0 < sd < upper."""

    upper: float

    def __post_init__(self) -> None:
        _positive("uniform", upper=self.upper)

    def log_density(self, sd: ArrayLike) -> Array:
        return np.where(_as_sd(sd) < self.upper, -math.log(self.upper), -np.inf)

    @property
    def orders(self) -> tuple[float, float]:
        return 1.0, -math.inf

    @property
    def largest(self) -> float:
        return self.upper


@dataclass(frozen=True, slots=True)
class Normal:
    """N(mean, sd²) on a fixed effect, on the scale of its column as the formula writes it."""

    mean: float
    sd: float

    def __post_init__(self) -> None:
        _positive("normal", sd=self.sd)

    def log_density(self, beta: ArrayLike) -> Array:
        """Log density at beta, elementwise."""
        z = (np.asarray(beta, dtype=np.float64) - self.mean) / self.sd
        return np.asarray(-0.5 * z**2 - math.log(self.sd) - 0.5 * math.log(2.0 * math.pi))


@dataclass(frozen=True, slots=True)
class LKJ:
    """LKJ(eta) on a correlation matrix R: density ∝ |R|^(eta-1) (Lewandowski, Kurowicka & Joe 2009, JMVA 100:1989)."""

    eta: float

    def __post_init__(self) -> None:
        _positive("lkj", eta=self.eta)

    def log_constant(self, size: int) -> float:
        """Log of the integral of |R|^(eta-1) over the size x size correlation matrices (their eq. 16)."""
        total = 0.0
        for k in range(1, size):
            left = size - k
            half = self.eta + 0.5 * (left - 1)
            log_beta = 2.0 * math.lgamma(half) - math.lgamma(2.0 * half)
            total += (2.0 * self.eta - 2.0 + left) * left * math.log(2.0) + left * log_beta
        return total

    def log_density(self, correlation: ArrayLike) -> Array:
        """Normalised log density at positive definite correlation matrices (..., q, q), returned as (...)."""
        R = np.asarray(correlation, dtype=np.float64)
        diagonal = np.diagonal(np.linalg.cholesky(R), axis1=-2, axis2=-1)
        log_det = 2.0 * np.log(diagonal).sum(axis=-1)
        return np.asarray((self.eta - 1.0) * log_det - self.log_constant(R.shape[-1]))
