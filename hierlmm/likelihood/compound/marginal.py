"""Marginal densities of counts whose rates or probabilities vary: negative binomial and beta-binomial.

With η_i the linear predictor of the prior mean and φ >= 0 the dispersion, unit i has

    Poisson    y ~ Poisson(E θ),   θ ~ Gamma(shape 1/φ, mean μ),  log μ = η:    m = E μ, w = φ m
               log f = S(y, φ) − (y + 1/φ) log(1 + w) + y log m − log y!
    binomial   k ~ Binomial(n, θ), θ ~ Beta(μ/φ, (1 − μ)/φ),    logit μ = η:    precision M = 1/φ
               log f = log C(n, k) + k log μ + (n − k) log(1 − μ) + S(k, φ/μ) + S(n − k, φ/(1 − μ)) − S(n, φ)

all constants kept, S as in `rising`; the values themselves are computed as in `saddle`. Both are analytic in φ at 0,
the model without overdispersion, so that the limit is a point like any other. Var(θ) = μ²φ, and μ(1 − μ)φ/(1 + φ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.rising import log_ratio, rising
from hierlmm.likelihood.compound.saddle import beta_binomial, negative_binomial, negative_binomial_deviance

Array = NDArray[np.float64]
Counts = Literal["poisson", "binomial"]


class UnitTerms(NamedTuple):
    """Log density of each unit and its derivatives in η and φ; `eta_size` and `size` add up the sizes of what the
    derivatives in η and in φ are differences of."""

    value: Array
    eta: Array
    phi: Array
    eta_eta: Array
    eta_phi: Array
    phi_phi: Array
    eta_size: Array
    size: Array


def poisson_terms(y: Array, exposure: Array, eta: Array, phi: Array) -> UnitTerms:
    """Negative binomial log densities and derivatives; arguments broadcast against one another.

    Derivatives in φ that are differences of numbers of size y/φ for large w are put together without them.
    """
    S = rising(y, phi)
    m = exposure * np.exp(eta)
    w = phi * m
    _, F1, F2 = log_ratio(w)
    below = 1 / (1 + w)
    log1p = np.log1p(w)
    spread = y * m * below
    far = w > 1
    over = 1 / np.where(far, phi, 1.0)
    gap, curve = y * below - S.rest, log1p - w * below
    return UnitTerms(
        value=negative_binomial(y, exposure, eta, phi),
        eta=(y - m) * below,
        phi=np.where(far, (gap + curve * over) * over, S.first - spread - m**2 * F1),
        eta_eta=-m * (1 + phi * y) * below**2,
        eta_phi=-(y - m) * m * below**2,
        phi_phi=np.where(
            far,
            ((w * m * below**2 - gap - 2 * curve * over) * over - y * m * below**2 - S.slope) * over,
            S.second + y * (m * below) ** 2 - m**3 * F2,
        ),
        eta_size=(y + m) * below,
        size=np.where(far, (y * below + S.rest + curve * over) * over, S.first + spread + m**2 * np.abs(F1)),
    )


def binomial_terms(k: Array, n: Array, eta: Array, phi: Array) -> UnitTerms:
    """Beta-binomial log densities and derivatives; arguments broadcast against one another.

    As those of the negative binomial: for large φ n from the parts that are left when numbers of size n/φ cancel.
    """
    mu, nu = expit(eta), expit(-eta)
    hit, miss, all_ = rising(k, phi / mu), rising(n - k, phi / nu), rising(n, phi)
    hits, misses = hit.rest, miss.rest
    one, other = hit.first / mu, miss.first / nu
    far = phi * n > 1
    over = 1 / np.where(far, phi, 1.0)
    phi_far = (all_.rest - hits - misses) * over
    return UnitTerms(
        value=beta_binomial(k, n, eta, phi),
        eta=nu * hits - mu * misses,
        phi=np.where(far, phi_far, one + other - all_.first),
        eta_eta=-mu * nu * (hits + misses) - phi * (hit.slope * nu**2 / mu + miss.slope * mu**2 / nu),
        eta_phi=nu / mu * hit.slope - mu / nu * miss.slope,
        phi_phi=np.where(
            far,
            (all_.slope - hit.slope / mu - miss.slope / nu - phi_far) * over,
            hit.second / mu**2 + miss.second / nu**2 - all_.second,
        ),
        eta_size=nu * hits + mu * misses,
        size=np.where(far, (all_.rest + hits + misses) * over, one + other + all_.first),
    )


class MeanTerms(NamedTuple):
    """Log density of each unit, up to what does not depend on η, and its first two derivatives in η."""

    value: Array
    eta: Array
    eta_eta: Array


def poisson_mean_terms(y: Array, exposure: Array, eta: Array, phi: Array) -> MeanTerms:
    """The terms that a search over η at given φ needs: no rising factorials."""
    m = exposure * np.exp(eta)
    below = 1 / (1 + phi * m)
    value = -negative_binomial_deviance(y, exposure, eta, phi)
    return MeanTerms(value, (y - m) * below, -m * (1 + phi * y) * below**2)


def binomial_mean_terms(k: Array, n: Array, eta: Array, phi: Array) -> MeanTerms:
    """The same for the beta-binomial."""
    mu, nu = expit(eta), expit(-eta)
    hit, miss = rising(k, phi / mu), rising(n - k, phi / nu)
    hits, misses = hit.rest, miss.rest
    curved = -mu * nu * (hits + misses) - phi * (hit.slope * nu**2 / mu + miss.slope * mu**2 / nu)
    return MeanTerms(beta_binomial(k, n, eta, phi), nu * hits - mu * misses, curved)


TERMS: dict[Counts, Callable[[Array, Array, Array, Array], UnitTerms]] = {
    "poisson": poisson_terms,
    "binomial": binomial_terms,
}
MEAN_TERMS: dict[Counts, Callable[[Array, Array, Array, Array], MeanTerms]] = {
    "poisson": poisson_mean_terms,
    "binomial": binomial_mean_terms,
}
LOG_DENSITY: dict[Counts, Callable[[Array, Array, Array, Array], Array]] = {
    "poisson": negative_binomial,
    "binomial": beta_binomial,
}


def null_weights(family: Counts, size: Array, eta: Array) -> tuple[Array, Array]:
    """Expected information of one unit at φ = 0 in η and in φ: m and m²/2, or n μ(1 − μ) and n(n − 1)/2.

    The two are orthogonal there: Dean (1992, JASA 87:451-457); Tarone (1979, Biometrika 66:585-590).
    """
    if family == "poisson":
        m = size * np.exp(eta)
        return m, np.asarray(m**2 / 2)
    return np.asarray(size * expit(eta) * expit(-eta)), size * (size - 1) / 2


def mean_of(family: Counts, eta: Array) -> Array:
    """The prior mean μ of a linear predictor."""
    return np.asarray(np.exp(eta) if family == "poisson" else expit(eta))


def link_of(family: Counts, mu: Array) -> Array:
    """The linear predictor of a prior mean."""
    return np.asarray(np.log(mu) if family == "poisson" else np.log(mu) - np.log1p(-mu))


def expit(eta: Array) -> Array:
    """1/(1 + exp(−η)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -eta)))
