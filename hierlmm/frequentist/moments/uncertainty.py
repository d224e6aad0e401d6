"""Exact covariance matrix, under normality, of estimators that are linear in quadratic forms of y.

For symmetric A_i with A_i X = 0, Cov(y'A_i y, y'A_j y) = 2 tr(A_i V A_j V). All is computed in coordinates of the
column space of [Z, X]: y has r of them, c, and is outside only through the squared length of its residual, on which
each form has one coefficient. V is taken at the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.moments.annihilator import RANK, Sums
from hierlmm.frequentist.moments.components import VarianceComponent
from hierlmm.frequentist.moments.henderson import margins

Array = NDArray[np.float64]

# Columns of [Z, X] up to which the covariance is computed: matrices of this size are multiplied a few times.
MOST = 1500


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """[Z, X] in r orthonormal coordinates of its column space.

    Z  per factor in elimination order (r, levels q); X (r, p); outside  n - r
    """

    Z: tuple[Array, ...]
    X: Array
    outside: int

    @classmethod
    def of(cls, sums: Sums) -> Coordinates | None:
        """None where there are more columns than `MOST`."""
        G, q = sums.lead.shape[:2]
        lead, b = G * q, sums.R + sums.p
        if lead + b > MOST:
            return None
        gram = np.zeros((lead + b, lead + b))
        for g in range(G):
            gram[g * q : (g + 1) * q, g * q : (g + 1) * q] = sums.lead[g]
        gram[:lead, lead:] = sums.lead_rest[..., :b].reshape(lead, b)
        gram[lead:, :lead] = gram[:lead, lead:].T
        gram[lead:, lead:] = sums.rest[:b, :b]
        size = np.sqrt(np.diagonal(gram))
        values, vectors = np.linalg.eigh(gram / np.outer(size, size))
        kept = values > RANK * max(1.0, float(values[-1]))
        W = np.sqrt(values[kept])[:, None] * vectors[:, kept].T * size
        ends = np.cumsum([lead, *(levels * width for levels, width in sums.widths[1:])])
        parts = np.split(W, ends, axis=1)
        return cls(tuple(parts[:-1]) if sums.widths else (), parts[-1], sums.n - int(kept.sum()))

    @property
    def r(self) -> int:
        """Dimension of the column space."""
        return len(self.X)

    def direction(self, component: VarianceComponent) -> Array:
        """(r, r) derivative of V by a component."""
        Z, q = self.Z[component.factor], len(component.matrix)
        blocks = (Z.reshape(self.r, -1, q) @ component.matrix).reshape(self.r, -1)
        return np.asarray(blocks @ Z.T)

    def onto(self, factors: tuple[int, ...], fixed: Array) -> Array:
        """(r, r) projection on the columns of some factors and those of `fixed`."""
        columns = np.column_stack([*(self.Z[f] for f in factors), fixed])
        U, s, _ = np.linalg.svd(columns, full_matrices=False)
        U = U[:, s > np.sqrt(RANK) * s.max(initial=0.0)]
        return np.asarray(U @ U.T)


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """Quadratic forms: inside (k + 1, r, r) in the coordinates, outside (k + 1,) on the residual's squared length."""

    inside: list[Array]
    outside: Array


def covariance(
    at: Coordinates, forms: Forms, found: tuple[VarianceComponent, ...], theta: Array, to_theta: Array
) -> Array:
    """(k + 1, k + 1) covariance of the estimates theta = to_theta @ forms, with V at theta."""
    V = theta[-1] * np.eye(at.r)
    for component, value in zip(found, theta, strict=False):
        V += value * at.direction(component)
    AV = [A @ V for A in forms.inside]
    inside = np.array([[(one * two.T).sum() for two in AV] for one in AV])
    both = 2 * (inside + theta[-1] ** 2 * at.outside * np.outer(forms.outside, forms.outside))
    return np.asarray(to_theta @ both @ to_theta.T)


def sequential_forms(at: Coordinates, order: tuple[int, ...]) -> Forms:
    """Reductions of each factor after X and the factors before it, and the residual."""
    steps = [at.onto(order[:i], at.X) for i in range(len(order) + 1)]
    return _with_residual([after - before for before, after in pairwise(steps)], at, steps[-1])


def partial_forms(at: Coordinates, order: tuple[int, ...]) -> Forms:
    """Reductions of each factor after X and all others, and the residual."""
    full = at.onto(order, at.X)
    return _with_residual([full - at.onto(tuple(f for f in order if f != own), at.X) for own in order], at, full)


def total_forms(at: Coordinates, sums: Sums, order: tuple[int, ...], X1: Array) -> Forms:
    """The lines of methods I and II: margins of totals of y less X1 (p, p - 1) times its coefficients within groups."""
    X = at.X @ X1
    MX = X - at.onto(order, X[:, :0]) @ X
    K = np.eye(at.r) - X @ np.linalg.solve(MX.T @ X, MX.T)
    one = at.Z[order[0]].sum(axis=1, keepdims=True) if order else at.X
    mean = one @ one.T / (one.T @ one)
    totals = [*(K.T @ (at.onto((f,), X[:, :0]) - mean) @ K for f in order), K.T @ (np.eye(at.r) - mean) @ K]
    L = margins(sums, order)
    inside = [np.asarray(sum(weight * total for weight, total in zip(row, totals, strict=True))) for row in L]
    return Forms(inside, L[:, -1])


def minque_forms(at: Coordinates, found: tuple[VarianceComponent, ...], ratios: Array) -> Forms:
    """P V_r P for each component, and P P."""
    directions = [at.direction(component) for component in found]
    V = np.eye(at.r)
    for ratio, direction in zip(ratios, directions, strict=True):
        V += ratio * direction
    P = np.asarray(np.linalg.solve(V, np.eye(at.r)))
    if at.X.shape[1]:
        VX = P @ at.X
        P = P - VX @ np.linalg.solve(at.X.T @ VX, VX.T)
    return Forms([*(P @ direction @ P for direction in directions), P @ P], np.append(np.zeros(len(found)), 1.0))


def _with_residual(inside: list[Array], at: Coordinates, full: Array) -> Forms:
    return Forms([*inside, np.eye(at.r) - full], np.append(np.zeros(len(inside)), 1.0))
