"""Serial correlation over whole positions: AR(1), its heterogeneous form, and Toeplitz.

AR(1): rho = tanh(phi), negative rho allowed; two rows that are d steps apart correlate rho^d, also across gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierlmm.likelihood.residuals.moments import LARGEST, by_lag, log_ratios, standardised
from hierlmm.likelihood.residuals.ratios import natural_ratios, ratio_bounds, scale
from hierlmm.likelihood.residuals.structure import (
    CORRELATION,
    Array,
    Codes,
    Groups,
    Natural,
    correlation_bound,
    join,
    sech2,
)


@dataclass(frozen=True, slots=True)
class AR1:
    """One variance and the correlation rho of neighbouring positions; phi (1,) = artanh rho."""

    @property
    def size(self) -> int:
        return 1

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """C (U, k, k) and dC/dphi (1, U, k, k); place: whole-number positions."""
        rho = float(np.tanh(phi[0]))
        lag = _lags(place)
        longest = int(lag.max(initial=0))
        # Few lags occur many times: powers once per lag. Not where lags are longer than there are pairs.
        steps = np.arange(longest + 1) if longest <= lag.size else lag
        power = rho ** steps.astype(np.float64)
        slope = _derivative(rho, steps) * sech2(phi)
        if steps is not lag:
            power, slope = power[lag], slope[lag]
        return power, slope[None]

    def natural(self, phi: Array) -> Natural:
        """The correlation at lag 1, index (1,)."""
        return Natural(("correlation",), ((1,),), np.tanh(phi), sech2(phi)[:, None])

    def start(self, groups: Groups) -> Array:
        """From the mean product at the shortest lag that occurs."""
        mean, count = by_lag(standardised(groups), None)
        seen = np.flatnonzero(count[1:] > 0)
        if not len(seen):
            return np.zeros(1)
        lag = int(seen[0]) + 1
        root = abs(mean[lag]) ** (1 / lag)
        # The sign of rho is lost in an even power; positive is what a series usually is.
        sign = np.sign(mean[lag]) if lag % 2 else float(mean[lag] > 0)
        return np.array([np.arctanh(sign * min(root, LARGEST))])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Whether rho is -1 or 1."""
        return correlation_bound(float(np.tanh(phi[0])), "the correlation at lag 1")


@dataclass(frozen=True, slots=True)
class HeterogeneousAR1:
    """A variance per occasion and AR(1) correlations over positions; phi (T,): T - 1 log sd ratios, artanh rho."""

    occasions: int

    @property
    def size(self) -> int:
        return self.occasions

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k) and its derivatives (T, U, k, k)."""
        C, dC = AR1().relative(phi[-1:], place, occasion)
        return scale(phi[:-1], C, dC, occasion)

    def natural(self, phi: Array) -> Natural:
        """Variance ratios of occasions 1..T-1, then the correlation at lag 1, index (1,)."""
        return join(natural_ratios(phi[:-1]), AR1().natural(phi[-1:]))

    def start(self, groups: Groups) -> Array:
        """From variances by occasion and the products of what they standardise."""
        log_sd = log_ratios(groups, self.occasions)
        return np.concatenate([log_sd[1:], AR1().start(standardised(groups, log_sd))])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Variances at zero, and rho at -1 or 1."""
        return ratio_bounds(phi[:-1], labels, "occasion") + AR1().at_bound(phi[-1:])


@dataclass(frozen=True, slots=True)
class Toeplitz:
    """One variance and a correlation per lag; phi (lags - 1,): artanh of the partial autocorrelations.

    `lags` counts lag 0, so that it is the number of positions: correlations at lags 1, ..., lags - 1. They are
    positive definite over that many positions exactly where every partial autocorrelation is inside (-1, 1).
    Source: Barndorff-Nielsen & Schou (1973), J. Multivariate Analysis 3:408-419.
    """

    lags: int

    @property
    def size(self) -> int:
        return self.lags - 1

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """C (U, k, k) and dC/dphi (lags - 1, U, k, k); place: whole-number positions."""
        r, dr = _autocorrelations(phi)
        lag = _lags(place)
        return r[lag], dr[:, lag]

    def natural(self, phi: Array) -> Natural:
        """The correlations at lags 1, 2, ..., index (lag,)."""
        r, dr = _autocorrelations(phi)
        return Natural((CORRELATION,) * self.size, tuple((lag,) for lag in range(1, self.lags)), r[1:], dr[:, 1:].T)

    def start(self, groups: Groups) -> Array:
        """From mean products by lag; partial autocorrelations are cut at LARGEST, those of unseen lags are 0."""
        mean, count = by_lag(standardised(groups), self.lags)
        r, phi = np.ones(self.lags), np.zeros(self.size)
        a, v = np.zeros(0), 1.0
        for m in range(1, self.lags):
            reached = float(a @ r[m - 1 : 0 : -1])
            partial = float(np.clip((mean[m] - reached) / v, -LARGEST, LARGEST)) if count[m] else 0.0
            phi[m - 1] = np.arctanh(partial)
            r[m] = partial * v + reached
            a, v = np.append(a - partial * a[::-1], partial), v * (1.0 - partial**2)
        return phi

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Partial autocorrelations at -1 or 1."""
        values = np.tanh(phi)
        return tuple(
            sentence
            for lag, value in enumerate(values, start=1)
            for sentence in correlation_bound(float(value), f"the partial autocorrelation at lag {lag}")
        )


def _lags(place: Array) -> Codes:
    """Whole lags (U, k, k) between rows."""
    return np.rint(np.abs(place[:, :, None] - place[:, None, :])).astype(np.intp)


def _derivative(rho: float, steps: Codes) -> Array:
    """d rho^steps/drho, 0 at lag 0 and finite at rho = 0."""
    slope: Array = steps * rho ** np.maximum(steps - 1, 0).astype(np.float64)
    return slope


def _autocorrelations(phi: Array) -> tuple[Array, Array]:
    """Autocorrelations r (L,) at lags 0..L-1 and dr/dphi (L - 1, L) by the Durbin-Levinson recursion.

    a: coefficients of the best linear predictor from the m - 1 rows before, v its relative error variance.
    """
    L = len(phi) + 1
    r, dr = np.ones(L), np.zeros((L - 1, L))
    a, da = np.zeros(0), np.zeros((L - 1, 0))
    v, dv = 1.0, np.zeros(L - 1)
    curved = sech2(phi)
    for m in range(1, L):
        partial, slope = float(np.tanh(phi[m - 1])), np.zeros(L - 1)
        slope[m - 1] = float(curved[m - 1])
        back = slice(m - 1, 0, -1)
        r[m] = partial * v + a @ r[back]
        dr[:, m] = slope * v + partial * dv + da @ r[back] + dr[:, back] @ a
        da = np.column_stack([da - partial * da[:, ::-1] - slope[:, None] * a[::-1], slope])
        a = np.append(a - partial * a[::-1], partial)
        v, dv = v * float(curved[m - 1]), dv * float(curved[m - 1]) - 2.0 * v * partial * slope
    return r, dr
