"""Derivatives of logarithms of rising factorials, to rounding from no overdispersion to any amount of it.

Marginal densities of conjugate counts are made of ratios Γ(a + y)/Γ(a). With t = 1/a

    S(y, t) = log Γ(a + y) − log Γ(a) − y log a = Σ_{j<y} log(1 + j t)

is an analytic function of t that is 0 at t = 0, the limit without overdispersion, where the gamma functions themselves
are infinite and their difference loses every digit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.likelihood.compound.saddle import LARGE, STIRLING

Array = NDArray[np.float64]

# Bernoulli numbers B2, B4, ...
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
# Below this the quotients of `log_ratio` come from their series, whose TERMS leave less than rounding.
SMALL, TERMS = 0.25, 28


class Rising(NamedTuple):
    """S' and S'' in t; rest = y − t S' = Σ 1/(1 + j t), and slope its derivative −Σ j/(1 + j t)²."""

    first: Array
    second: Array
    rest: Array
    slope: Array


def rising(y: ArrayLike, t: ArrayLike) -> Rising:
    """Derivatives of S(y, t) at counts y >= 0 and t >= 0, broadcast against one another."""
    count, at = np.broadcast_arrays(np.asarray(y, dtype=np.float64), np.asarray(t, dtype=np.float64))
    out = [np.empty(count.shape) for _ in range(4)]
    near = at * LARGE <= 1.0
    for where, function in ((near, _stirling), (~near, _gamma)):
        if where.any():
            for whole, part in zip(out, function(count[where], at[where]), strict=True):
                whole[where] = part
    return Rising(*out)


def _gamma(y: Array, t: Array) -> tuple[Array, ...]:
    from scipy.special import digamma

    a = 1.0 / t
    ratio = digamma(a + y) - digamma(a)
    squares = trigamma(a) - trigamma(a + y)
    first = a * (y - a * ratio)
    second = -(a**2) * (y - 2 * a * ratio + a**2 * squares)
    return first, second, a * ratio, -(a**2) * (ratio - a * squares)


def trigamma(x: Array) -> Array:
    """ψ'(x) at x > 0: ten steps of its recurrence, then its asymptotic series (Abramowitz & Stegun 6.4.12)."""
    below = np.zeros_like(x)
    for k in range(10):
        below += 1 / (x + k) ** 2
    z = 1 / (x + 10)
    series = np.zeros_like(x)
    for b in BERNOULLI[::-1]:
        series = (series + b) * z**2
    return np.asarray(below + z * (1 + z / 2 + series))


def _stirling(y: Array, t: Array) -> tuple[Array, ...]:
    u = y * t
    log1p, (F, F1, F2) = np.log1p(u), log_ratio(u)
    first = y**2 * (F + (1 + u) * F1) - y / (2 * (1 + u))
    second = y**3 * (2 * F1 + (1 + u) * F2) + y**2 / (2 * (1 + u) ** 2)
    rest, slope = y * F + u / (2 * (1 + u)), y**2 * F1 + y / (2 * (1 + u) ** 2)
    for power, c in zip(range(1, 2 * len(STIRLING), 2), STIRLING, strict=True):
        fall = np.expm1(-power * log1p)
        one, two = (1 + u) ** -(power + 1), (1 + u) ** -(power + 2)
        first += c * power * (t ** (power - 1) * fall - y * t**power * one)
        faster = np.expm1(-(power + 1) * log1p)
        rest -= c * power * t**power * faster
        slope -= c * power * (power * t ** (power - 1) * faster - (power + 1) * y * t**power * two)
        if power == 1:  # the three terms below, whose sum is regular at t = 0
            second -= 2 * c * y * (1 + u) ** -3
            continue
        second += c * power * (
            (power - 1) * t ** (power - 2) * fall
            - 2 * power * y * t ** (power - 1) * one
            + (power + 1) * y**2 * t**power * two
        )  # fmt: skip
    return first, second, rest, slope


def log_ratio(w: ArrayLike) -> tuple[Array, Array, Array]:
    """log(1 + w)/w and its first two derivatives at w >= 0: 1, −1/2 and 2/3 at 0."""
    at = np.asarray(w, dtype=np.float64)
    small = at < SMALL
    far = np.where(small, 1.0, at)
    F = np.log1p(far) / far
    F1 = (1 / (1 + far) - F) / far
    F2 = (-1 / (1 + far) ** 2 - 2 * F1) / far
    out = (np.atleast_1d(F), np.atleast_1d(F1), np.atleast_1d(F2))
    which = np.atleast_1d(small)
    for whole, part in zip(out, _series(-at[small]), strict=True):
        whole[which] = part
    return out[0].reshape(at.shape), out[1].reshape(at.shape), out[2].reshape(at.shape)


def _series(x: Array) -> tuple[Array, Array, Array]:
    """The three at w = −x near 0, by Horner's rule for Σ x^k/(k + 1) and its derivatives in w."""
    value, first, second = (np.zeros_like(x) for _ in range(3))
    for k in range(TERMS, -1, -1):
        second = second * x + (k + 1) * (k + 2) / (k + 3)
        first = first * x - (k + 1) / (k + 2)
        value = value * x + 1 / (k + 1)
    return value, first, second
