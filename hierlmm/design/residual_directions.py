"""How the covariance of correlated residuals moves with its parameters, at one value of them in general position.

Parameters are determined where these directions are linearly independent; whether they are does not depend on the
value, except at values of measure zero, so that any value in general position serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.residual import ResidualRows
from hierlmm.spec.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    Correlated,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    Toeplitz,
    Unstructured,
)

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Codes = NDArray[np.intp]

# A correlation in general position.
RHO = 0.6


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows of one group: their distance in places (k,), the occasions of the earlier and the later, and
    whether the pairs are of different rows, or each row with itself."""

    distance: Vector
    first: Codes
    last: Codes
    different: bool

    @classmethod
    def of(cls, rows: ResidualRows, i: Codes, j: Codes) -> Pairs:
        """The pairs (i, j) of positions among the rows."""
        a, b = rows.occasion[i], rows.occasion[j]
        return cls(np.abs(rows.place[i] - rows.place[j]), np.minimum(a, b), np.maximum(a, b), i is not j)


Directions = Callable[[Pairs], Matrix]


def pair_directions(residual: Correlated, rows: ResidualRows) -> tuple[list[str], Directions]:
    """Names of the parameters, and the function that gives (parameters, k) what each moves for k pairs of rows."""
    T = len(rows.occasions)
    labels = [str(label) for label in rows.occasions]
    variances = [f"the residual variance at {label}" for label in labels]
    one = ["the residual variance"]
    match residual:
        case CompoundSymmetry():
            return [*one, "the residual correlation"], lambda p: np.stack(_one(p))
        case AR1():
            return [*one, "the residual autocorrelation"], lambda p: np.stack(_power(p.distance))
        case ContinuousAR1():
            return _continuous(residual, rows)
        case Toeplitz():
            lags = np.arange(int(rows.place.max()) + 1)
            names = [*one, *(f"the residual correlation at distance {lag}" for lag in lags[1:])]
            return names, lambda p: (p.distance == lags[:, None]).astype(float)
        case HeterogeneousCompoundSymmetry():
            names = [*variances, "the residual correlation"]
            return names, lambda p: _with_variances(T, p, *(row[None] for row in _one(p)))
        case HeterogeneousAR1():
            names = [*variances, "the residual autocorrelation"]
            return names, lambda p: _with_variances(T, p, *(row[None] for row in _power(p.distance)))
        case Antedependence():
            steps = [f"the residual correlation of {a} and {b}" for a, b in pairwise(labels)]
            return [*variances, *steps], lambda p: _with_variances(T, p, *_chain(T, p))
        case Unstructured():
            i, j = np.triu_indices(T)
            names = [f"the residual covariance of {labels[a]} and {labels[b]}" for a, b in zip(i, j, strict=True)]
            return names, lambda p: ((p.first == i[:, None]) & (p.last == j[:, None])).astype(float)


def _one(pairs: Pairs) -> tuple[Vector, Vector]:
    """One correlation between the rows of a group, and its derivative."""
    k = len(pairs.distance)
    return (np.full(k, RHO), np.ones(k)) if pairs.different else (np.ones(k), np.zeros(k))


def _power(distance: Vector) -> tuple[Vector, Vector]:
    """ρ^d and its derivative."""
    return RHO**distance, distance * RHO ** np.maximum(distance - 1, 0)


def _continuous(residual: ContinuousAR1, rows: ResidualRows) -> tuple[list[str], Directions]:
    unit = float(np.ptp(rows.place)) / 4

    def directions(pairs: Pairs) -> Matrix:
        near, moved = _power(pairs.distance / unit)
        own = np.full(len(near), 0.0 if pairs.different else 1.0)
        return np.stack([near, moved, own] if residual.nugget else [near, moved])

    names = ["the residual variance", "the residual range", "the residual nugget"]
    return names[: 3 if residual.nugget else 2], directions


def _chain(T: int, pairs: Pairs) -> tuple[Matrix, Matrix]:
    """Correlations that are products over the steps between two occasions, and their derivatives by step."""
    step = np.arange(T - 1)
    log = np.concatenate([[0.0], np.cumsum(np.log(RHO + 0.2 * np.cos(2.3 * step)))])
    value = np.exp(log[pairs.last] - log[pairs.first])[None]
    between = (pairs.first <= step[:, None]) & (step[:, None] < pairs.last)
    return value, value * between


def _with_variances(T: int, pairs: Pairs, value: Matrix, moved: Matrix) -> Matrix:
    """Directions of a variance for each of T occasions, and of the correlations between unequal variances."""
    sd = 1.0 + 0.25 * np.cos(2.3 * np.arange(T) + 1.0)
    size = sd[pairs.first] * sd[pairs.last]
    occasion = np.arange(T)[:, None]
    by_occasion = value * size * ((pairs.first == occasion).astype(float) + (pairs.last == occasion))
    return np.concatenate([by_occasion, moved * size])
