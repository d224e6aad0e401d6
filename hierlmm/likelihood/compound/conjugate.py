"""The posterior of one unit's parameter given the prior: gamma, beta or normal, in closed form.

    Poisson    θ | y ~ Gamma(1/φ + y, rate 1/(φμ) + E)       mean μ(1 + φy)/(1 + φEμ)
    binomial   θ | k ~ Beta(μ/φ + k, (1 − μ)/φ + n − k)      mean (μ + φk)/(1 + φn)
    normal     θ | y ~ N(Bμ + (1 − B)y, (1 − B)D)            B = D/(A + D), φ = A

At φ = 0 it is a point at μ. A unit without observations has the prior: y and size are then nan. Arrays broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Family = Literal["normal", "poisson", "binomial"]

# Beyond this shape a gamma or beta is normal to 1e-9 of its mean, and its own functions lose their digits.
NEARLY_NORMAL = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Laws of one parameter each, all of one family and shape.

    mean, variance   of the parameter; a, b: shape and rate (gamma), both shapes (beta), mean and variance (normal),
                     infinite where the variance is 0 and the law is a point at `mean`
    gamma            weight of the posterior mean on the direct estimate, 0 without observations
    """

    family: Family
    mean: Array
    variance: Array
    a: Array
    b: Array
    gamma: Array

    def columns(self, which: NDArray[np.intp]) -> Posterior:
        """The laws at these places of the last axis."""
        parts = (self.mean, self.variance, self.a, self.b, self.gamma)
        return Posterior(self.family, *(part[..., which] for part in parts))

    def as_row(self) -> Posterior:
        """The laws with an axis of length 1 in front."""
        parts = (self.mean, self.variance, self.a, self.b, self.gamma)
        return Posterior(self.family, *(np.asarray(part)[None] for part in parts))

    def cdf(self, x: ArrayLike) -> Array:
        """P(θ <= x)."""
        at = np.asarray(x, dtype=np.float64)
        return np.where(self.variance > 0, self._chosen(_CDF, at), np.where(at >= self.mean, 1.0, 0.0))

    def density(self, x: ArrayLike) -> Array:
        """Density at x: infinite at the mean of a point, 0 elsewhere."""
        at = np.asarray(x, dtype=np.float64)
        return np.where(self.variance > 0, self._chosen(_DENSITY, at), np.where(at == self.mean, np.inf, 0.0))

    def quantile(self, p: ArrayLike) -> Array:
        """x with P(θ <= x) = p, 0 < p < 1."""
        at = np.asarray(p, dtype=np.float64)
        return np.where(self.variance > 0, self._chosen(_QUANTILE, at), self.mean + 0 * at)

    def _chosen(self, table: Mapping[Family, Callable[[Array, Posterior], Array]], at: Array) -> Array:
        """A function of the family, the normal one where the law is nearly normal."""
        own = table[self.family](at, self)
        if self.family == "normal" or not (self.narrow & (self.variance > 0)).any():
            return own
        return np.where(self.narrow, table["normal"](at, self), own)

    @property
    def narrow(self) -> NDArray[np.bool_]:
        """Which laws are so narrow that they are normal."""
        return np.asarray((self.a > NEARLY_NORMAL) if self.family == "poisson" else self.a + self.b > NEARLY_NORMAL)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws of `shape`, to which the laws are broadcast."""
        wide = [np.broadcast_to(part, shape) for part in (self.a, self.b, self.mean, self.variance)]
        a, b, mean, variance = wide
        if self.family == "normal":
            return np.asarray(rng.normal(mean, np.sqrt(variance)))
        narrow = np.broadcast_to(self.narrow | (self.variance == 0), shape)
        a, b = np.where(narrow, 1.0, a), np.where(narrow, 1.0, b)
        drawn = rng.gamma(a, 1.0 / b) if self.family == "poisson" else rng.beta(a, b)
        return np.where(narrow, rng.normal(mean, np.sqrt(variance)), drawn) if narrow.any() else np.asarray(drawn)


def posterior(family: Family, y: ArrayLike, size: ArrayLike, mu: ArrayLike, phi: ArrayLike) -> Posterior:
    """Posteriors of units with observation y and size (D, E or n), nan without, under priors of mean μ and dispersion.

    phi  φ: the prior variance A of the normal, 1/shape of the gamma, 1/(α + β) of the beta
    """
    parts = np.broadcast_arrays(*(np.asarray(part, dtype=np.float64) for part in (y, size, mu, phi)))
    count, known, mean, spread = (np.asarray(part) for part in parts)
    there = ~np.isnan(count)
    count, known = np.where(there, count, 0.0), np.where(there, known, np.inf if family == "normal" else 0.0)
    return _OF[family](count, known, mean, spread)


def prior(family: Family, mu: ArrayLike, phi: ArrayLike) -> Posterior:
    """The prior itself."""
    return posterior(family, np.nan, np.nan, mu, phi)


def _gamma(y: Array, E: Array, mu: Array, phi: Array) -> Posterior:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        w = phi * E * mu
        gamma = 1 / (1 + 1 / w)
        scale = np.where(w > 1, gamma / E, phi * mu / (1 + w))  # 1/b, finite where μ is beyond floating point
        mean = np.where(w > 1, (1 / phi + y) * scale, mu * (1 + phi * y) / (1 + w))
        a, b = 1 / phi + y, 1 / (phi * mu) + E
        return Posterior("poisson", mean, mean * scale, a, b, gamma)


def _beta(k: Array, n: Array, mu: Array, phi: Array) -> Posterior:
    mean = (mu + phi * k) / (1 + phi * n)
    other = ((1 - mu) + phi * (n - k)) / (1 + phi * n)
    with np.errstate(divide="ignore"):
        a, b = mu / phi + k, (1 - mu) / phi + (n - k)  # n - k first: b may be far below n
    return Posterior("binomial", mean, mean * other * phi / (1 + phi * (n + 1)), a, b, phi * n / (1 + phi * n))


def _normal(y: Array, D: Array, mu: Array, A: Array) -> Posterior:
    gamma = np.where(np.isinf(D), 0.0, A / (A + np.where(np.isinf(D), 1.0, D)))
    mean = np.where(gamma > 0, y - (1 - gamma) * (y - mu), mu)
    variance = np.where(np.isinf(D), A, gamma * np.where(np.isinf(D), 0.0, D))
    return Posterior("normal", mean, variance, mean, variance, gamma)


_OF: dict[Family, Callable[[Array, Array, Array, Array], Posterior]] = {
    "poisson": _gamma,
    "binomial": _beta,
    "normal": _normal,
}


def matched(family: Family, mean: Array, variance: Array) -> Posterior:
    """The law of the family with these means and variances: a gamma, beta or normal approximation.

    A beta has variance below mean·(1 − mean); larger ones are cut there.
    """
    zero = np.zeros_like(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        if family == "poisson":
            return Posterior(family, mean, variance, mean**2 / variance, mean / variance, zero)
        if family == "binomial":
            top = mean * (1 - mean)
            inside = np.minimum(variance, top * (1 - 1e-9))
            M = top / inside - 1
            return Posterior(family, mean, inside, mean * M, (1 - mean) * M, zero)
    return Posterior(family, mean, variance, mean, variance, zero)


def _gamma_cdf(x: Array, law: Posterior) -> Array:
    from scipy.special import gammainc

    a, b = _finite(law)
    return np.asarray(gammainc(a, b * np.maximum(x, 0.0)))


def _gamma_density(x: Array, law: Posterior) -> Array:
    from scipy.special import gammaln

    a, b = _finite(law)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.exp(a * np.log(b) + (a - 1) * np.log(x) - b * x - gammaln(a))
    return np.where(x > 0, value, 0.0)


def _gamma_quantile(p: Array, law: Posterior) -> Array:
    from scipy.special import gammaincinv

    a, b = _finite(law)
    return np.asarray(gammaincinv(a, p) / b)


def _beta_cdf(x: Array, law: Posterior) -> Array:
    from scipy.special import betainc

    return np.asarray(betainc(*_finite(law), np.clip(x, 0.0, 1.0)))


def _beta_density(x: Array, law: Posterior) -> Array:
    from scipy.special import betaln

    a, b = _finite(law)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.exp((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - betaln(a, b))
    return np.where((x > 0) & (x < 1), value, 0.0)


def _beta_quantile(p: Array, law: Posterior) -> Array:
    from scipy.special import betaincinv

    return np.asarray(betaincinv(*_finite(law), p))


def _normal_cdf(x: Array, law: Posterior) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr((x - law.mean) / _sd(law)))


def _normal_density(x: Array, law: Posterior) -> Array:
    sd = _sd(law)
    return np.asarray(np.exp(-0.5 * ((x - law.mean) / sd) ** 2) / (np.sqrt(2 * np.pi) * sd))


def _normal_quantile(p: Array, law: Posterior) -> Array:
    from scipy.special import ndtri

    return np.asarray(law.mean + _sd(law) * ndtri(p))


def _finite(law: Posterior) -> tuple[Array, Array]:
    """The parameters, 1 where the law is a point or nearly normal and they are not used."""
    aside = (law.variance == 0) | law.narrow
    return np.where(aside, 1.0, law.a), np.where(aside, 1.0, law.b)


def _sd(law: Posterior) -> Array:
    return np.asarray(np.sqrt(np.where(law.variance > 0, law.variance, 1.0)))


Table = dict[Family, Callable[[Array, Posterior], Array]]
_CDF: Table = {"poisson": _gamma_cdf, "binomial": _beta_cdf, "normal": _normal_cdf}
_DENSITY: Table = {"poisson": _gamma_density, "binomial": _beta_density, "normal": _normal_density}
_QUANTILE: Table = {"poisson": _gamma_quantile, "binomial": _beta_quantile, "normal": _normal_quantile}
