"""Area means on the scale of the data, where the model is linear on another: moments of g(θ) for a Gaussian θ.

    scale          g(θ)                              beyond the range of the transformation
    log            exp θ
    arcsine_root   sin² θ                            0 below θ = 0 and 1 above θ = π/2
    logit          1/(1 + exp(−θ))

g never falls, so that quantiles of g(θ) are g of the quantiles of θ. For the arcsine this is a choice: a Gaussian θ has
a part beyond π/2, where sin² falls again, and 1 is the only proportion that continues the order of the areas.

Moments of exp θ and of sin² θ are closed forms, that of the latter with the parts beyond its range by the error
function of a complex argument; those of the logit are sums over equidistant nodes, whose error falls exponentially
with their number for a function that is analytic in a strip (Trefethen and Weideman 2014, SIAM Review 56:385).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Waves = NDArray[np.complex128]

HALF_PI = np.pi / 2
# Nodes reach this many standard deviations: the mass beyond is 1e-17.
REACH = 8.6
# The sum of step h errs by exp(−2πd/h + d²/2), d the half width of a strip in which the logistic function is analytic,
# in standard deviations: its poles are π/sd away. This exponent leaves 1e-16.
EXPONENT = 37.0
# Numbers in one slab of nodes x values.
SLAB = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """The way from the scale of the model to that of the data.

    back      g(θ), elementwise
    slope     g'(θ), 0 beyond the range
    moments   E g(θ) and E g(θ)² for θ ~ N(mean, variance), arrays of one shape; variance >= 0
    """

    back: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    moments: Callable[[Array, Array], tuple[Array, Array]]

    def spread(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and variance of g(θ); never negative."""
        first, second = self.moments(mean, variance)
        return first, np.maximum(second - np.square(first), 0.0)


def exponential_moments(mean: Array, variance: Array) -> tuple[Array, Array]:
    """exp(m + v/2) and exp(2m + 2v)."""
    return np.exp(mean + variance / 2), np.exp(2 * mean + 2 * variance)


def exponential_spread(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Mean and variance exp(2m + v)(exp(v) − 1) of exp θ, without cancellation."""
    first = np.exp(mean + variance / 2)
    return first, np.square(first) * np.expm1(variance)


def sine_square(theta: Array) -> Array:
    """sin² θ, 0 below 0 and 1 above π/2."""
    return np.asarray(np.square(np.sin(np.clip(theta, 0.0, HALF_PI))))


def sine_moments(mean: Array, variance: Array) -> tuple[Array, Array]:
    """sin² = (1 − cos 2θ)/2 and sin⁴ = (3 − 4 cos 2θ + cos 4θ)/8 between 0 and π/2, and 1 above."""
    from scipy.special import ndtr

    mean, variance = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64))
    sd = np.sqrt(variance)
    spread = sd > 0
    s = np.where(spread, sd, 1.0)
    low, high = -mean / s, (HALF_PI - mean) / s
    inside, above = ndtr(high) - ndtr(low), ndtr(-high)
    two, four = _cosine(2, mean, s, low, high), _cosine(4, mean, s, low, high)
    first = np.where(spread, (inside - two) / 2 + above, sine_square(mean))
    second = np.where(spread, (3 * inside - 4 * two + four) / 8 + above, np.square(sine_square(mean)))
    return np.clip(first, 0.0, 1.0), np.clip(second, 0.0, 1.0)


def _cosine(k: int, mean: Array, sd: Array, low: Array, high: Array) -> Array:
    """E cos(kθ) over the standardised range low < (θ − mean)/sd < high."""
    wave = np.exp(1j * k * mean) * (_primitive(k * sd, high) - _primitive(k * sd, low)) / 2
    return np.asarray(wave.real)


def _primitive(c: Array, t: Array) -> Waves:
    """2 ∫ exp(icu) φ(u) du from 0 to t, up to a constant of c: exp(−c²/2) erf((t − ic)/√2).

    For t >= 0 it is exp(−c²/2) − exp(−t²/2 + ict) w((c + it)/√2), w the Faddeeva function, which is bounded there;
    at −t it is minus the conjugate.
    """
    from scipy.special import wofz

    size = np.abs(t)
    edge = np.exp(-np.square(size) / 2 + 1j * c * size) * wofz((c + 1j * size) / np.sqrt(2))
    value = np.exp(-np.square(c) / 2) - edge
    return np.asarray(np.where(t >= 0, value, -np.conj(value)))


def logistic(theta: Array) -> Array:
    """1/(1 + exp(−θ)) without overflow."""
    from scipy.special import expit

    return np.asarray(expit(theta), dtype=np.float64)


def logistic_moments(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Sums over equidistant nodes, their step chosen for the largest variance."""
    mean, variance = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64))
    m, sd = mean.ravel(), np.sqrt(variance).ravel()
    widest = float(sd.max(initial=0.0))
    number = int(np.ceil(REACH / (step := _step(widest))))
    u = step * np.arange(-number, number + 1)
    weight = np.exp(-np.square(u) / 2)
    weight /= weight.sum()
    first, second = np.empty(m.size), np.empty(m.size)
    width = max(1, SLAB // u.size)
    for start in range(0, m.size, width):
        here = slice(start, start + width)
        p = logistic(m[here, None] + sd[here, None] * u)
        first[here], second[here] = p @ weight, np.square(p) @ weight
    return first.reshape(mean.shape), second.reshape(mean.shape)


def _step(sd: float) -> float:
    """The step of the sum for the widest sd: π/sd wide a strip, or as wide as serves, which is √(2·EXPONENT)."""
    d = min(np.pi / sd if sd > 0 else np.inf, np.sqrt(2 * EXPONENT))
    return float(2 * np.pi * d / (EXPONENT + d**2 / 2))


def _logistic_slope(theta: Array) -> Array:
    return logistic(theta) * logistic(-theta)


def _sine_slope(theta: Array) -> Array:
    return np.sin(2 * np.clip(theta, 0.0, HALF_PI))


@dataclass(frozen=True, slots=True, eq=False)
class _Exponential(Scale):
    """Its spread is a closed form of its own."""

    def spread(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        return exponential_spread(mean, variance)


SCALES: dict[str, Scale] = {
    "log": _Exponential(np.exp, np.exp, exponential_moments),
    "arcsine_root": Scale(sine_square, _sine_slope, sine_moments),
    "logit": Scale(logistic, _logistic_slope, logistic_moments),
}
