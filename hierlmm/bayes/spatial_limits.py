"""Which moments a spatial posterior loses where ρ comes near an end of its interval.

There I − ρW becomes singular, and with N a basis of its null space the effects move along v = N a with a variance that
grows like 1/δ², δ the distance to the end. Where such a move is undone by the coefficients, X_s b = N_s a over the
areas in the fit, the data do not see it, and E|b'β|^k is as ∫ δ^(r−k) dδ, finite iff k < r + 1: the likelihood, β
integrated out under a flat prior, falls like δ^r, r the number of moves that the data do see. For W with rows that sum
to 1 and one connected set of areas r is 0 and N the constant vector: β₀ has no posterior mean at all unless its prior
is proper or that of ρ ends before 1. Means of areas in the fit do not move, nor do those of areas connected to them.

The end is taken to be a semisimple eigenvalue of W, as it is for any symmetric W, rows divided or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import areaposterior
from hierlmm.bayes.areaterms import AreaTerms
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.spatial_surface import Surface
from hierlmm.design.types import AreaDesign

Array = NDArray[np.float64]

# Singular values and components this small beside the largest are zero but for rounding.
ROUNDING = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Moves of β and of the effects that the data do not see at one end of ρ, a column each.

    end    that end; order: moments of order below this exist
    beta   (p, n) change of β; effect (M, n) change of v
    """

    end: float
    order: float
    beta: Array
    effect: Array


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """The moves at both ends; X (M, p) of the areas, of which the `direct` (M,) keep their direct estimates."""

    moves: tuple[Move, ...]
    X: Array
    direct: NDArray[np.bool_]

    @classmethod
    def of(cls, surface: Surface) -> Limits:
        """The moves at those ends of the proximity matrix up to which the prior of ρ reaches."""
        interval = surface.shared.interval
        pairs = zip((interval.low, interval.high), surface.problem.ends, strict=True)
        found = [_moves(surface, end) for cut, end in pairs if cut == end]
        kept = tuple(move for move in found if move.beta.shape[1])
        return cls(kept, surface.design.X, surface.design.role == "direct")

    def of_beta(self) -> Array:
        """(p,) moments of each coefficient exist below these orders."""
        return self._least(np.eye(self.X.shape[1]), np.full(self.X.shape[1], -1))

    def of_areas(self) -> Array:
        """(M,) moments of each area mean exist below these orders."""
        return self.of_rows(self.X, np.arange(len(self.X)))

    def of_rows(self, rows: Array, area: NDArray[np.intp]) -> Array:
        """(k,) the same for x'β + v, x (k, p) and v the effect of the area at that place; -1: a new draw."""
        known = area >= 0
        least = self._least(rows, area)
        return np.where(known & self.direct[area], np.inf, least)

    def _least(self, rows: Array, area: NDArray[np.intp]) -> Array:
        out = np.full(len(rows), np.inf)
        for move in self.moves:
            by_beta = rows @ move.beta
            by_effect = np.where((area >= 0)[:, None], move.effect[area], 0.0)
            size = np.abs(rows) @ np.abs(move.beta) + np.abs(by_effect)
            moved = (np.abs(by_beta + by_effect) > 1e2 * ROUNDING * np.maximum(size, np.abs(move.effect).max())).any(1)
            out = np.where(moved, np.minimum(out, move.order), out)
        return out

    def narrowed(self, propriety: Propriety) -> Propriety:
        """The moments of the fixed effects that are left."""
        own = dict(zip(propriety.fixed, self.of_beta(), strict=True))
        return replace(propriety, fixed={term: min(limit, own[term]) for term, limit in propriety.fixed.items()})

    def existing_covariance(self, cov: Array) -> Array:
        """The covariance (p, p) of β, nan in the rows and columns of coefficients that have none."""
        lost = ~(self.of_beta() > 2)
        return np.where(lost[:, None] | lost, np.nan, cov)

    def existing_areas(self, terms: AreaTerms, design: AreaDesign, propriety: Propriety) -> AreaTerms:
        """Means, sds and parts of variances of the areas that exist; `propriety` is that before `narrowed`."""
        plain, own = areaposterior.existing_areas(terms, design, propriety), self.of_areas()
        level = self._least(self.X, np.full(len(self.X), -1))
        g1, g2, g3 = (np.where(own > 2, part, np.nan) for part in (plain.g1, plain.g2, plain.g3))
        return replace(
            plain,
            theta=areaposterior.existing(plain.theta, own),
            synthetic=np.where(level > 1, plain.synthetic, np.nan),
            g1=g1, g2=g2, g3=g3,
        )  # fmt: skip

    def notes(self, terms: tuple[str, ...]) -> tuple[str, ...]:
        """Why, and what to do, for each end."""
        lines = []
        for move in self.moves:
            if move.order > 2 or not (moved := np.abs(move.beta).max(axis=1) > 1e2 * ROUNDING).any():
                continue
            names = ", ".join(term for term, one in zip(terms, moved, strict=True) if one)
            lines.append(
                f"As rho nears {move.end:.4g} the area effects move together with a variance without bound, which the "
                f"data cannot tell from {names}: the intervals of it stand, its posterior "
                f"{'sd does' if move.order > 1 else 'mean and sd do'} not exist. A normal prior of it, or one of rho "
                "that ends earlier, gives it moments."
            )
        return tuple(lines)


def _moves(surface: Surface, end: float) -> Move:
    problem, p = surface.problem, surface.design.X.shape[1]
    flat = [normal is None for normal in surface.priors.fixed]
    _, size, Vt = np.linalg.svd(np.eye(len(problem.W)) - end * problem.W)
    N = Vt[size <= ROUNDING * size[0]].T
    own = np.flatnonzero(flat)
    X = surface.design.X[np.ix_(problem.inside, own)]
    norm = np.sqrt(np.square(X).sum(axis=0))
    both = np.column_stack([X / norm, N[problem.inside]])
    _, sizes, Bt = np.linalg.svd(both)
    rank = int((sizes > ROUNDING * sizes[0]).sum()) if sizes.size else 0
    unseen = Bt[rank:].T
    beta = np.zeros((p, unseen.shape[1]))
    beta[own] = unseen[: len(own)] / norm[:, None]
    return Move(end, 1.0 + rank - len(own), beta, N @ unseen[len(own) :])
