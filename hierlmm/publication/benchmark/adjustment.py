"""How estimates are moved so that they add up: each method as a map from estimates and totals to estimates.

Adding      θ + V(WV)⁻¹(t − Wθ): every method that spreads a difference, along the columns of V (M, R)
Scaling     θ_i exp(Σ λ_r a_ri), λ such that the totals hold: one factor a group (ratio), or the product of one factor
            a margin (raking; Deming and Stephan 1940), a_ri = 1 where area i is in group r

The map's slope in the totals, Q (M, R), gives the error after it: (I − QW) e + Q t, exactly so for Adding and to
first order for Scaling, where Q = diag(θ)A'(W diag(θ) A')⁻¹.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.publication.benchmark.totals import Constraints

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

# Raking stops when every total is met to this share of |t| + Σ|wθ|.
MET = 1e-13
STEPS = 100
# Passes of adding what rounding left of the differences.
POLISH = 2
# Sets of estimates times areas times totals that are raked at once: about 80 MB.
SLAB = 10_000_000


class Adjustment(ABC):
    """A way to make estimates meet totals."""

    constraints: Constraints

    @abstractmethod
    def apply(self, theta: Array, target: Array) -> Array:
        """Estimates (..., M) that meet the totals (..., R)."""

    @abstractmethod
    def slope(self, theta: Vector) -> Matrix:
        """Q (M, R) at the estimates (M,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Adding(Adjustment):
    """Q as it is, whatever the estimates."""

    constraints: Constraints
    Q: Matrix

    def apply(self, theta: Array, target: Array) -> Array:
        """Estimates (..., M) that meet the totals (..., R)."""
        return polished(theta, target, self.Q, self.constraints.W)

    def slope(self, theta: Vector) -> Matrix:
        """Q (M, R)."""
        return self.Q


@dataclass(frozen=True, slots=True, eq=False)
class Scaling(Adjustment):
    """One factor a group, or the product of one factor a margin."""

    constraints: Constraints

    def apply(self, theta: Array, target: Array) -> Array:
        """Estimates (..., M) that meet the totals (..., R); raises FitError where no factors above 0 do."""
        many, goal = theta.reshape(-1, theta.shape[-1]), target.reshape(-1, target.shape[-1])
        goal = np.broadcast_to(goal, (len(many), goal.shape[1]))
        scaled = self._ratio(many, goal) if len(self.constraints.margins) == 1 else self._rake(many, goal)
        return scaled.reshape(theta.shape)

    def slope(self, theta: Vector) -> Matrix:
        """Q (M, R) at the estimates (M,)."""
        return spreading(theta[:, None] * self.constraints.member.T, self.constraints)

    def factors(self, before: Vector, after: Vector) -> Vector:
        """(M,) by what each estimate was multiplied; 1 where it was 0."""
        return np.asarray(np.where(before != 0, after / np.where(before != 0, before, 1.0), 1.0))

    def _ratio(self, theta: Matrix, target: Matrix) -> Matrix:
        here = self.constraints
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = target / (theta @ here.W.T)
        bad = ~((factor > 0) & np.isfinite(factor)).all(axis=1)
        _refuse(np.asarray(bad), "a factor above 0 for each group")
        outside = 1 - here.member.sum(axis=0)
        scaled = theta * (factor @ here.member + outside)
        again = target / (scaled @ here.W.T)
        return np.asarray(scaled * (again @ here.member + outside))

    def _rake(self, theta: Matrix, target: Matrix) -> Matrix:
        here = self.constraints
        size = max(1, SLAB // here.W.size)
        parts = [self._raked(theta[a : a + size], target[a : a + size]) for a in range(0, len(theta), size)]
        return np.concatenate(parts)

    def _raked(self, theta: Matrix, target: Matrix) -> Matrix:
        """Newton's method for the λ of the rows that determine the others, by halves where a step goes too far."""
        here = self.constraints
        A, W, t = here.member[here.kept], here.W[here.kept], target[:, here.kept]
        weighted = np.asarray((W > 0).any(axis=0))
        negative = np.asarray((theta[:, weighted] <= 0).any(axis=1))
        _refuse(negative, "estimates above 0, where raking is over several groupings")
        lam = np.zeros((len(theta), len(here.kept)))
        scaled, size = theta, np.abs(t) + np.abs(theta) @ W.T
        for _ in range(STEPS):
            left = t - scaled @ W.T
            if (np.abs(left) <= MET * size).all():
                break
            J = np.einsum("rm,bm,sm->brs", W, scaled, A, optimize=True)
            try:
                step = np.linalg.solve(J, left[:, :, None])[:, :, 0]
            except np.linalg.LinAlgError:  # some factors have run off to 0: the totals are out of reach
                break
            lam = lam + step / np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
            scaled = theta * np.exp(lam @ A)
        missed = ~(np.abs(t - scaled @ W.T) <= MET * size).all(axis=1)
        _refuse(np.asarray(missed), "totals that some factors above 0 can meet")
        return scaled


def polished(theta: Array, target: Array, Q: Matrix, W: Matrix) -> Array:
    """θ + Q (t − Wθ), and again for what rounding left."""
    for _ in range(1 + POLISH):
        theta = theta + (target - theta @ W.T) @ Q.T
    return theta


def spreading(V: Matrix, constraints: Constraints, free: NDArray[np.bool_] | None = None) -> Matrix:
    """V(WV)⁻¹ (M, R) over the rows that determine the others and are `free` (R,), 0 in the columns of all others."""
    kept = constraints.kept if free is None else constraints.kept[free[constraints.kept]]
    V, W = V[:, kept], constraints.W[kept]
    moved = W @ V
    if (stuck := np.diagonal(moved) <= 0).any():
        refuse_stuck(np.array(constraints.names)[kept][stuck])
    Q = np.zeros((len(V), len(constraints.target)))
    Q[:, kept] = np.linalg.solve(moved.T, V.T).T
    return Q


def refuse_stuck(names: Iterable[object]) -> None:
    """Raise FitError for groups in which nothing can move."""
    raise FitError(
        f"Some estimate of each group must be free to move; none is in {listed(names)}: their errors, or the "
        "estimates that a factor would multiply, are 0. Use method='difference'."
    )


def _refuse(bad: NDArray[np.bool_], needed: str) -> None:
    if bad.any():
        which = "the estimates" if bad.size == 1 else f"{bad.sum()} of {bad.size} draws"
        raise FitError(
            f"Multiplying estimates to meet totals needs {needed}; {which} have none. Use method='difference' or "
            "'optimal', which add."
        )
