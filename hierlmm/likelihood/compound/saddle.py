"""Log densities of the negative binomial and the beta-binomial in parts that do not cancel, however large the counts.

The form in which Loader (2000, Fast and accurate computation of binomial probabilities) has the binomial and Poisson
probabilities, with the gamma functions of the prior in it too. Stirling's formula log Γ(x) = (x − ½) log x − x
+ ½ log 2π + δ(x) is put into every gamma function; what its main parts leave are

    D(x, d) = x log(x/(x + d)) + d >= 0,   the deviance of x from the mean x + d.

With e = (y − m)/(1 + φ m) and ν = 1/φ, and with e = (k − n μ)/(1 + n φ), α = μ/φ, β = (1 − μ)/φ and M = 1/φ,

    Poisson    log f = −D(y, −e) − D(ν, e) − λ(y) − ½ log(1 + φ y) + δ(y + ν) − δ(ν)
    binomial   log f = −D(k, −e) − D(n − k, e) − D(α, e) − D(β, −e) + λ(n) − λ(k) − λ(n − k)
                       + ½ [log(1 + n/M) − log(1 + k/α) − log(1 + (n − k)/β)]
                       + δ(k + α) − δ(α) + δ(n − k + β) − δ(β) − δ(n + M) + δ(M)

where λ(y) = log y! − y log y + y. At φ = 0 the terms of the prior are 0, and these are Loader's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# From here on Stirling's series is used: its first term left out is 1e-16 here.
LARGE = 16.0
# Coefficients of 1/x, 1/x³, ... in Stirling's series of log Γ (Abramowitz & Stegun 6.1.41).
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))
# Where |d/x| is below this the deviance comes from a series, whose TERMS leave less than rounding.
NEAR, TERMS = 0.35, 13
# Shapes of beta priors whose logarithm is below this enter as factors only, and means of counts whose logarithm is
# above FAR by their logarithm only.
LOG_TINY, FAR = float(np.log(1e-290)), 300.0


def negative_binomial(y: Array, exposure: Array, eta: Array, phi: Array) -> Array:
    """log f(y) for the mean m = exposure·exp(eta), which may be beyond floating point, and dispersion phi >= 0."""
    with np.errstate(divide="ignore"):
        nu = 1 / np.asarray(phi)
    rest = factorial_rest(y) + 0.5 * np.log1p(phi * y) - stirling_rest(y + nu) + stirling_rest(nu)
    return np.asarray(-negative_binomial_deviance(y, exposure, eta, phi) - rest)


def negative_binomial_deviance(y: Array, exposure: Array, eta: Array, phi: Array) -> Array:
    """D(y, −e) + D(ν, e): the part of −log f that depends on the mean."""
    with np.errstate(divide="ignore"):
        log_m, log_phi = np.log(exposure) + eta, np.log(phi)
        log_y, nu = np.where(y > 0, np.log(y), 0.0), 1 / np.asarray(phi)
    log_w = log_phi + log_m
    log1p_w, log1p_v = np.logaddexp(0.0, log_w), np.log1p(phi * y)
    m = np.exp(np.minimum(log_m, FAR))
    e = (y - m) / (1 + phi * m)
    # log of m/(1 + w), whose parts cancel where w is large
    share = np.where(log_w > 0, -np.where(phi > 0, log_phi, 0.0) - np.logaddexp(0.0, -log_w), log_m - log1p_w)
    return _deviance(y, -e, share + log1p_v - log_y) + _deviance(nu, e, log1p_v - log1p_w)


def beta_binomial(k: Array, n: Array, eta: Array, phi: Array) -> Array:
    """log f(k) of n trials for the logit eta of the mean, and dispersion phi >= 0."""
    misses = n - k
    with np.errstate(divide="ignore"):
        log_phi, M = np.log(phi), 1 / np.asarray(phi)
        log_k, log_misses = (np.where(count > 0, np.log(count / n), 0.0) for count in (k, misses))
    (log_mu, mu, alpha, low), (log_nu, nu, beta, high) = (_shape(sign * eta, phi, log_phi) for sign in (1, -1))
    hit, miss, every = np.log1p(k / alpha), np.log1p(misses / beta), np.log1p(n * phi)
    e = np.where(mu <= 0.5, k - n * mu, n * nu - misses) / (1 + n * phi)
    deviance = (
        _deviance(k, -e, hit - every + log_mu - log_k)
        + _deviance(misses, e, miss - every + log_nu - log_misses)
        + _deviance(alpha, e, hit - every)
        + _deviance(beta, -e, miss - every)
    )
    counts = factorial_rest(n) - factorial_rest(k) - factorial_rest(misses)
    rests = (
        stirling_rest(k + alpha) - stirling_rest(alpha) + stirling_rest(misses + beta) - stirling_rest(beta)
        - stirling_rest(n + M) + stirling_rest(M)
    )  # fmt: skip
    beyond = np.where(k > 0, low, 0.0) + np.where(misses > 0, high, 0.0)
    return np.asarray(counts - deviance + 0.5 * (every - hit - miss) + rests + beyond)


def _shape(eta: Array, phi: Array, log_phi: Array) -> tuple[Array, Array, Array, Array]:
    """log μ, μ and α = μ/φ >= TINY for the logit eta; and log of what α is of TINY below, like which f falls."""
    exact = -np.logaddexp(0.0, -eta)
    log_mu = np.maximum(exact, LOG_TINY + log_phi)
    mu = np.exp(log_mu)
    with np.errstate(divide="ignore"):
        return log_mu, mu, np.maximum(mu / np.asarray(phi), np.exp(LOG_TINY)), exact - log_mu


def _deviance(x: Array, d: Array, log_ratio: Array) -> Array:
    """D(x, d), given log((x + d)/x), which serves where that is far from 0; d at x = 0, and 0 at x = ∞."""
    x, d, log_ratio = np.broadcast_arrays(x, d, log_ratio)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = np.where(x > 0, d / x, np.inf)
        near = np.abs(u) < NEAR
        r = np.where(near, u, 0.0) / (2 + np.where(near, u, 0.0))
        square, tail = r * r, np.zeros_like(r)
        for j in range(2 * TERMS + 1, 1, -2):
            tail = tail * square + 1 / j
        # u − log(1 + u) with log(1 + u) = 2 artanh r, and u − 2r = u r
        series = np.where(np.isinf(x), 0.0, x) * r * (u - 2 * square * tail)
        return np.where(near, series, d - np.where(x > 0, x * log_ratio, 0.0))


def stirling_rest(x: Array) -> Array:
    """δ(x) for x in (0, ∞]."""
    from scipy.special import gammaln

    at = np.asarray(x, dtype=np.float64)
    near = at < LARGE
    z = 1 / np.where(near, LARGE, at)
    out = np.zeros_like(at)
    for c in STIRLING[::-1]:
        out = out * z**2 + c
    out = np.asarray(out * z)
    if near.any():
        small = at[near]
        out[near] = gammaln(small) - (small - 0.5) * np.log(small) + small - HALF_LOG_2PI
    return out


def factorial_rest(y: Array) -> Array:
    """λ(y), 0 at y = 0."""
    there = np.where(y > 0, y, 1.0)
    return np.where(y > 0, HALF_LOG_2PI + 0.5 * np.log(there) + stirling_rest(there), 0.0)
