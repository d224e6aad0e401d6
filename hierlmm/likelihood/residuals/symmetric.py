"""Compound symmetry: any two rows of a group correlate alike, rho between -1/(k - 1) and 1 with k the largest group.

phi is the log of the ratio of the two eigenvalues of C for a group of k rows, 1 + (k - 1) rho over 1 - rho, so that
rho = (e^phi - 1)/(e^phi + k - 1), positive definite for every group of at most k rows, and 0 at phi = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierlmm.likelihood.residuals.moments import LARGEST, PULL, intraclass, log_ratios, standardised
from hierlmm.likelihood.residuals.ratios import natural_ratios, ratio_bounds, scale
from hierlmm.likelihood.residuals.structure import AT_BOUND, Array, Codes, Groups, Natural, join


@dataclass(frozen=True, slots=True)
class CompoundSymmetry:
    """One variance and one correlation; phi (1,). `largest` >= 2: rows of the largest group."""

    largest: int

    @property
    def size(self) -> int:
        return 1

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """C (U, k, k) and dC/dphi (1, U, k, k); place and occasion give the shape only."""
        rho, slope = self._rho(phi)
        off = np.broadcast_to(1.0 - np.eye(place.shape[1]), (*place.shape, place.shape[1]))
        C = rho * off
        C[:, np.arange(place.shape[1]), np.arange(place.shape[1])] = 1.0
        return C, (slope * off)[None]

    def natural(self, phi: Array) -> Natural:
        """The correlation, index ()."""
        rho, slope = self._rho(phi)
        return Natural(("correlation",), ((),), np.array([rho]), np.array([[slope]]))

    def start(self, groups: Groups) -> Array:
        """From the mean product over all pairs of rows of a group."""
        total, pairs = intraclass(standardised(groups))
        k = self.largest
        rho = float(np.clip(total / (pairs + PULL), -LARGEST / (k - 1), LARGEST))
        return np.array([np.log1p((k - 1) * rho) - np.log1p(-rho)])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Whether an eigenvalue of C of the largest group is zero."""
        k = self.largest
        if phi[0] < np.log(AT_BOUND):
            return (
                f"the correlation of compound symmetry is at the bound of its space, −1/{k - 1}: the residuals of a "
                f"group of {k} rows sum to zero",
            )
        if phi[0] > -np.log(AT_BOUND):
            return ("the correlation of compound symmetry is at the bound of its space, 1: no variance within groups",)
        return ()

    def _rho(self, phi: Array) -> tuple[float, float]:
        """rho and its derivative, by whichever of e^phi and e^-phi does not overflow."""
        x, k = float(phi[0]), self.largest
        t = np.exp(-abs(x))
        if x > 0:
            below = 1.0 + (k - 1) * t
            return float(-np.expm1(-x) / below), float(k * t / below**2)
        below = t + k - 1
        return float(np.expm1(x) / below), float(k * t / below**2)


@dataclass(frozen=True, slots=True)
class HeterogeneousCompoundSymmetry:
    """A variance per occasion and one correlation; phi (T,): T - 1 log ratios of standard deviations, then as above."""

    occasions: int
    largest: int

    @property
    def size(self) -> int:
        return self.occasions

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k) and its derivatives (T, U, k, k)."""
        C, dC = CompoundSymmetry(self.largest).relative(phi[-1:], place, occasion)
        return scale(phi[:-1], C, dC, occasion)

    def natural(self, phi: Array) -> Natural:
        """Variance ratios of occasions 1..T-1, then the correlation, index ()."""
        return join(natural_ratios(phi[:-1]), CompoundSymmetry(self.largest).natural(phi[-1:]))

    def start(self, groups: Groups) -> Array:
        """From variances by occasion and the mean product of what they standardise."""
        log_sd = log_ratios(groups, self.occasions)
        rho = CompoundSymmetry(self.largest).start(standardised(groups, log_sd))
        return np.concatenate([log_sd[1:], rho])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Variances at zero, and the correlation at either bound."""
        return ratio_bounds(phi[:-1], labels, "occasion") + CompoundSymmetry(self.largest).at_bound(phi[-1:])
