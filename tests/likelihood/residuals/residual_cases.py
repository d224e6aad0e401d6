"""Every residual structure, and the same matrices entry by entry in complex arithmetic as an independent witness."""

from __future__ import annotations

import cmath

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.residuals import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Stratified,
    Structure,
    Toeplitz,
    Unstructured,
)

Array = NDArray[np.float64]
T = 5
UNIT = 0.7
# Structure and number of covariance parameters over five occasions, sigma² counted: the counts of issue and books.
STRUCTURES: list[tuple[Structure, int]] = [
    (Stratified(T), 5),
    (CompoundSymmetry(T), 2),
    (HeterogeneousCompoundSymmetry(T, T), 6),
    (AR1(), 2),
    (HeterogeneousAR1(T), 6),
    (ContinuousAR1(UNIT), 2),
    (ContinuousAR1(UNIT, nugget=True), 3),
    (Toeplitz(T), 5),
    (Antedependence(T), 9),
    (Unstructured(T), 15),
]
ALL = [structure for structure, _ in STRUCTURES]
NAMES = [repr(structure) for structure in ALL]


def patterns(rng: np.random.Generator, U: int, k: int) -> tuple[Array, NDArray[np.intp]]:
    """U patterns of k of the occasions, in any order; times of continuous structures need not be whole."""
    occasion = np.array([rng.permutation(T)[:k] for _ in range(U)])
    return occasion.astype(np.float64), occasion


def entry(structure: Structure, phi: list[complex], s: float, t: float, i: int, j: int) -> complex:
    """Covariance over sigma² of two different rows of a group, at places s, t and occasions i, j, by definition."""
    lag = abs(s - t)
    match structure:
        case Stratified():
            return 0.0
        case CompoundSymmetry(k):
            return (cmath.exp(phi[0]) - 1) / (cmath.exp(phi[0]) + k - 1)
        case HeterogeneousCompoundSymmetry(_, k):
            return sd(phi, i) * sd(phi, j) * entry(CompoundSymmetry(k), phi[-1:], s, t, i, j)
        case AR1():
            return cmath.tanh(phi[0]) ** lag
        case HeterogeneousAR1():
            return sd(phi, i) * sd(phi, j) * cmath.tanh(phi[-1]) ** lag
        case ContinuousAR1(unit, nugget):
            kept = 1 / (1 + cmath.exp(phi[1])) if nugget else 1.0
            return kept * cmath.exp(-lag / (unit * cmath.exp(phi[0])))
        case Toeplitz():
            return toeplitz([cmath.tanh(x) for x in phi])[int(lag)]
        case Antedependence():
            first, last = min(i, j), max(i, j)
            product = sd(phi, i) * sd(phi, j)
            for x in phi[T - 1 :][first:last]:
                product *= cmath.tanh(x)
            return product
    return unstructured(phi)[i, j]


def variance(structure: Structure, phi: list[complex], i: int) -> complex:
    """Variance at an occasion over that at the first."""
    match structure:
        case Stratified() | HeterogeneousCompoundSymmetry() | HeterogeneousAR1() | Antedependence():
            return sd(phi, i) ** 2
        case Unstructured():
            return unstructured(phi)[i, i]
    return 1.0


def sd(phi: list[complex], i: int) -> complex:
    """Standard deviation at an occasion over that at the first."""
    return cmath.exp(phi[i - 1]) if i else 1.0


def unstructured(phi: list[complex]) -> NDArray[np.complex128]:
    """L L' of the log-Cholesky parameters, rows of L one after the other."""
    L = np.zeros((T, T), dtype=complex)
    L[0, 0] = 1
    at = 0
    for i in range(1, T):
        for j in range(i + 1):
            L[i, j] = cmath.exp(phi[at]) if i == j else phi[at]
            at += 1
    return L @ L.T


def toeplitz(partial: list[complex]) -> list[complex]:
    """Autocorrelations of partial autocorrelations: each sets the determinant of the matrix one larger.

    r_m is solved from its definition, the correlation of rows 0 and m given those between.
    """
    r: list[complex] = [1.0, *partial[:1]]
    for m in range(2, len(partial) + 1):
        inner = np.array([[r[abs(a - b)] for b in range(m - 1)] for a in range(m - 1)])
        left = np.array([r[a] for a in range(1, m)])
        solved = np.linalg.solve(inner, np.column_stack([left, left[::-1]]))
        r.append(partial[m - 1] * (1 - left @ solved[:, 0]) + left @ solved[:, 1])
    return r


def witness(
    structure: Structure, phi: list[complex], place: Array, occasion: NDArray[np.intp]
) -> NDArray[np.complex128]:
    """R/sigma² (U, k, k), entry by entry."""
    U, k = place.shape
    R = np.zeros((U, k, k), dtype=complex)
    for u in range(U):
        for a in range(k):
            R[u, a, a] = variance(structure, phi, occasion[u, a])
            for b in range(k):
                if a != b:
                    R[u, a, b] = entry(structure, phi, place[u, a], place[u, b], occasion[u, a], occasion[u, b])
    return R
