"""Structures that are full matrices over T occasions (or strata), of which a pattern of rows reads its part.

So missing occasions need nothing more: the rows that are there keep their variances and covariances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hierlmm.likelihood.residuals.moments import LARGEST, by_pair, log_ratios, positive_definite, standardised
from hierlmm.likelihood.residuals.ratios import natural_ratios, ratio_bounds, scale
from hierlmm.likelihood.residuals.structure import (
    AT_BOUND,
    CORRELATION,
    VARIANCE_RATIO,
    Array,
    Codes,
    Groups,
    Natural,
    correlation_bound,
    join,
    label,
    sech2,
)


@dataclass(frozen=True, slots=True)
class Stratified:
    """Independent rows, one variance per stratum; phi (S - 1,): log ratios of standard deviations to the first."""

    strata: int

    @property
    def size(self) -> int:
        return self.strata - 1

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k), diagonal, and its derivatives (S - 1, U, k, k); occasion: codes of the strata."""
        k = occasion.shape[1]
        C = np.broadcast_to(np.eye(k), (len(occasion), k, k))
        return scale(phi, C, np.zeros((0, *C.shape)), occasion)

    def natural(self, phi: Array) -> Natural:
        """Variance ratios of strata 1..S-1."""
        return natural_ratios(phi)

    def start(self, groups: Groups) -> Array:
        """From mean squares by stratum."""
        return log_ratios(groups, self.strata)[1:]

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Variances at zero."""
        return ratio_bounds(phi, labels, "stratum")


@dataclass(frozen=True, slots=True)
class Antedependence:
    """First-order ante-dependence: a variance per occasion and a correlation rho_j of occasions j and j + 1.

    Occasions i < j correlate by the product rho_i ... rho_(j-1): given the occasion before, earlier ones say nothing.
    phi (2 T - 2,): log ratios of standard deviations, then artanh rho_j. Source: Gabriel (1962), Ann. Math. Stat. 33.
    """

    occasions: int

    @property
    def size(self) -> int:
        return 2 * self.occasions - 2

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k) and its derivatives (2 T - 2, U, k, k)."""
        C, dC = self._correlations(phi)
        return scale(phi[: self.occasions - 1], _part(C, occasion), _part(dC, occasion), occasion)

    def natural(self, phi: Array) -> Natural:
        """Variance ratios of occasions 1..T-1, then the correlations of neighbouring occasions, index (j, j + 1)."""
        half = self.occasions - 1
        rho = np.tanh(phi[half:])
        pairs = tuple((j, j + 1) for j in range(half))
        neighbours = Natural((CORRELATION,) * half, pairs, rho, np.diag(sech2(phi[half:])))
        return join(natural_ratios(phi[:half]), neighbours)

    def start(self, groups: Groups) -> Array:
        """From variances by occasion and mean products of neighbouring occasions; 0 for pairs never seen together."""
        log_sd = log_ratios(groups, self.occasions)
        C = by_pair(standardised(groups, log_sd), self.occasions)
        return np.concatenate([log_sd[1:], np.arctanh(np.clip(np.diagonal(C, 1), -LARGEST, LARGEST))])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Variances at zero, and correlations at -1 or 1."""
        half = self.occasions - 1
        found = ratio_bounds(phi[:half], labels, "occasion")
        for j, rho in enumerate(np.tanh(phi[half:])):
            pair = f"the correlation of occasions {label(labels, j)} and {label(labels, j + 1)}"
            found += correlation_bound(float(rho), pair)
        return found

    def _correlations(self, phi: Array) -> tuple[Array, Array]:
        """C (T, T) and dC/d artanh rho (T - 1, T, T). Products leave one factor out without dividing by it."""
        T = self.occasions
        rho = np.tanh(phi[T - 1 :])
        slope = sech2(phi[T - 1 :])
        C = np.eye(T)
        for j in range(1, T):
            C[j, :j] = C[:j, j] = rho[j - 1] * C[j - 1, :j]
        dC = np.zeros((T - 1, T, T))
        for m in range(T - 1):
            dC[m, m + 1 :, : m + 1] = slope[m] * C[m + 1 :, m + 1, None] * C[None, m, : m + 1]
        return C, dC + dC.swapaxes(1, 2)


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Any positive definite matrix over T occasions; phi (T (T + 1)/2 - 1,): its log-Cholesky factor.

    R/sigma² = L L' with L lower triangular and L_11 = 1. phi holds rows 2..T of L from left to right, the diagonal
    as its logarithm. Source: Pinheiro & Bates (1996), Statistics and Computing 6:289-296.
    """

    occasions: int

    @property
    def size(self) -> int:
        return self.occasions * (self.occasions + 1) // 2 - 1

    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]:
        """R/sigma² (U, k, k) and its derivatives (T (T + 1)/2 - 1, U, k, k)."""
        S, dS = self._full(phi)
        return _part(S, occasion), _part(dS, occasion)

    def natural(self, phi: Array) -> Natural:
        """Variance ratios of occasions 1..T-1, then the correlations, index (i, j), (0, 1), (0, 2), ..., (T-2, T-1)."""
        S, dS = self._full(phi)
        v, dv = np.diagonal(S), np.diagonal(dS, axis1=1, axis2=2)
        i, j = np.triu_indices(self.occasions, 1)
        sd = np.sqrt(v)
        rho = S[i, j] / (sd[i] * sd[j])
        relative = dv / v
        d_rho = dS[:, i, j] / (sd[i] * sd[j]) - 0.5 * rho * (relative[:, i] + relative[:, j])
        T = self.occasions
        return Natural(
            (VARIANCE_RATIO,) * (T - 1) + (CORRELATION,) * len(i),
            (*((k,) for k in range(1, T)), *((int(a), int(b)) for a, b in zip(i, j, strict=True))),
            np.concatenate([v[1:], rho]),
            np.concatenate([dv[:, 1:], d_rho], axis=1).T,
        )

    def start(self, groups: Groups) -> Array:
        """From variances by occasion and mean products by pair, pulled to independence until positive definite."""
        log_sd = log_ratios(groups, self.occasions)
        C = positive_definite(by_pair(standardised(groups, log_sd), self.occasions))
        return self.parameters(np.exp(log_sd[:, None] + log_sd) * C)

    def parameters(self, S: Array) -> Array:
        """phi of a positive definite (T, T) matrix, which is divided by its first element."""
        L = np.linalg.cholesky(S / S[0, 0])
        diagonal = np.arange(self.occasions)
        L[diagonal, diagonal] = np.log(L[diagonal, diagonal])
        rows, columns = np.tril_indices(self.occasions)
        return np.asarray(L[rows[1:], columns[1:]])

    def at_bound(self, phi: Array, labels: Sequence[str] = ()) -> tuple[str, ...]:
        """Occasions without variance, or whose residual is a linear function of those at earlier occasions."""
        L, _ = self._factor(phi)
        sd = np.sqrt((L**2).sum(axis=1))
        found = ratio_bounds(np.log(sd[1:]), labels, "occasion")
        for j in np.flatnonzero(np.diagonal(L) ** 2 < AT_BOUND * sd**2):
            found += (
                f"the residual of occasion {label(labels, int(j))} is a linear function of those at earlier occasions: "
                "the covariance matrix is at the bound of its space, singular",
            )
        return found

    def _factor(self, phi: Array) -> tuple[Array, Array]:
        """L (T, T) and dL/dphi (size, T, T)."""
        T = self.occasions
        rows, columns = (index[1:] for index in np.tril_indices(T))
        value = np.where(rows == columns, np.exp(np.where(rows == columns, phi, 0.0)), phi)
        L, dL = np.zeros((T, T)), np.zeros((self.size, T, T))
        L[0, 0] = 1.0
        L[rows, columns] = value
        dL[np.arange(self.size), rows, columns] = np.where(rows == columns, value, 1.0)
        return L, dL

    def _full(self, phi: Array) -> tuple[Array, Array]:
        """S = L L' (T, T) and its derivatives (size, T, T)."""
        L, dL = self._factor(phi)
        half = dL @ L.T
        return L @ L.T, half + half.swapaxes(1, 2)


def _part(full: Array, occasion: Codes) -> Array:
    """(..., U, k, k) rows and columns of (..., T, T) that the patterns read."""
    part: Array = full[..., occasion[:, :, None], occasion[:, None, :]]
    return part
