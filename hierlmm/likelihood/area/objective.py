"""What an estimator of the area variance maximises: a likelihood, or one times a function that keeps it from zero.

    ℓ_ML(A), ℓ_REML(A)                                     maximised over A >= 0, so that 0 is an answer
    log h(A) + ℓ(A),  h = A                                Li and Lahiri (2010, J. Multivariate Analysis 101:882-892)
    log h(A) + ℓ(A),  h = [arctan Σ A/(A + D_i)]^(1/m)     Yoshimori and Lahiri (2014, JMVA 124:281-294)

Both h are 0 at A = 0, so that the maximum is at a positive A whatever the data. The second leaves the likelihood
alone but near 0, where log h behaves as (1/m) log A: its slope is 1/(mA), and a second local maximum may lie there at
an A far below every D_i. Everything here is in working units, A (N,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import Terms
from hierlmm.likelihood.area.scan import Scores
from hierlmm.likelihood.area.working import Basis, Working, in_chunks

Vector = NDArray[np.float64]

# Spacing of the grid in log(A + min D): a quarter of the width on which the score's terms change.
GRID_STEP = 0.25
# Ratio of neighbours below min D, where only log h changes with A: each local maximum there is alone in a cell.
GRID_RATIO = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """log h and its derivatives, and two facts that bound where its maximum is.

    at        (A (N,), D (m,)) -> log h, its first and its second derivative, each (N,)
    lowest    multiple of 1/Σ(1/D_i) below which the slope of log h is above (Σ 1/D_i)/2, so that the score is positive
    slope     (A, m, max D) -> what the slope of log h is below for A >= max D; it falls in A
    spent     terms of the likelihood whose fall with A the rise of h makes up for
    """

    at: Callable[[Vector, Vector], tuple[Vector, Vector, Vector]]
    lowest: Callable[[int], float]
    slope: Callable[[float, int, float], float]
    spent: int


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """A likelihood, "ml" or "reml", and what it is multiplied by (None: nothing)."""

    likelihood: str
    adjustment: Adjustment | None = None

    def contrasts(self, basis: Basis) -> int:
        """Terms of the likelihood: m, or m − p of the restricted one."""
        return basis.D.size if self.likelihood == "ml" else basis.contrasts

    def exists(self, basis: Basis) -> bool:
        """Whether there is a maximum: far out the likelihood falls as A^(−contrasts/2), and h may rise as A."""
        return self.adjustment is None or self.contrasts(basis) > self.adjustment.spent

    def rise(self, A: Vector, at: Terms | Scores, work: Working) -> Rise:
        """How what is maximised changes with A, from the scores of both likelihoods there."""
        score, slope = (at.score_ml, at.slope_ml) if self.likelihood == "ml" else (at.score_reml, at.slope_reml)
        if self.adjustment is None:
            return Rise(score, slope, at.size)
        _, first, second = self.adjustment_at(A, work)
        return Rise(score + first, slope + second, at.size + first)

    def minus_2(self, A: Vector, at: Terms, work: Working) -> Vector:
        """−2 times what is maximised, less what does not depend on A."""
        criterion = at.minus_2_ml if self.likelihood == "ml" else at.minus_2_reml
        return criterion if self.adjustment is None else criterion - 2 * self.adjustment_at(A, work)[0]

    def adjustment_at(self, A: Vector, work: Working) -> tuple[Vector, Vector, Vector]:
        """log h and its two derivatives, zeros where there is no h."""
        if self.adjustment is None:
            return np.zeros(A.size), np.zeros(A.size), np.zeros(A.size)
        at = self.adjustment.at
        log_h, first, second = in_chunks(lambda part, of: at(part, of.basis.D), A, work)
        return log_h, first, second


@dataclass(frozen=True, slots=True, eq=False)
class Rise:
    """Score and slope in A of what is maximised, and what the rounding error of the score goes with."""

    score: Vector
    slope: Vector
    size: Vector


def _log_A(A: Vector, D: Vector) -> tuple[Vector, Vector, Vector]:
    return np.log(A), 1 / A, -1 / A**2


def _log_arctan(A: Vector, D: Vector) -> tuple[Vector, Vector, Vector]:
    m = D.size
    w = 1 / (A[:, None] + D)
    Dw2 = D * w * w
    S, S1, S2 = A * w.sum(axis=1), Dw2.sum(axis=1), -2 * (Dw2 * w).sum(axis=1)
    square, T = 1 + S * S, np.arctan(S)
    first = S1 / (square * T)
    second = (S2 - 2 * S * S1 * S1 / square) / (square * T) - first * first
    return np.log(T) / m, first / m, second / m


# With A <= 1/Σ(1/D) <= min D: S <= 1 and S'/S >= 1/(2A), hence (log h)' >= S'/(m(1 + S²)S) >= 1/(4mA), which is above
# Σ(1/D)/2 for A < 1/(2mΣ(1/D)). From above, (1 + S²) arctan S >= S and S'/S <= 1/A give (log h)' <= 1/(mA); and
# where A >= max D, S >= m/2 and S' <= m max D/A² give (log h)' <= 2 max D/A².
LI_LAHIRI = Adjustment(_log_A, lambda m: 1.0, lambda A, m, D: 1 / A, 2)
YOSHIMORI_LAHIRI = Adjustment(_log_arctan, lambda m: 1 / (4 * m), lambda A, m, D: min(1 / (m * A), 2 * D / A**2), 0)

# Doublings of A in search of where the score is negative for certain; more are needed only where no maximum exists.
DOUBLINGS = 100

# By the name of the estimator.
OBJECTIVES = {
    "reml": Objective("reml"),
    "ml": Objective("ml"),
    "amrl_ll": Objective("reml", LI_LAHIRI),
    "ampl_ll": Objective("ml", LI_LAHIRI),
    "amrl_yl": Objective("reml", YOSHIMORI_LAHIRI),
    "ampl_yl": Objective("ml", YOSHIMORI_LAHIRI),
}


def grid(objective: Objective, work: Working) -> Vector:
    """Values of A between which every change of sign of the score lies, even in log(A + min D) from 0.

    With h they start where the score is positive for certain, even in log A up to the second of the former. The points
    depend on the design alone; only how far they go depends on y, to beyond where the score is negative for certain.
    """
    D, low, high = work.basis.D, work.basis.low, work.basis.high
    squares = float(np.square(work.y).sum(axis=-1).max())
    end = _end(objective, squares, work.basis, low, high)
    if end <= 0:
        return np.zeros(1)
    # One step beyond the bound, so that the last score is clear of zero.
    steps = math.ceil(math.log1p(end / low) / GRID_STEP) + 1
    points: Vector = low * np.expm1(np.arange(steps + 1) * GRID_STEP)
    if objective.adjustment is None:
        return points
    start = objective.adjustment.lowest(D.size) / float((1 / D).sum())
    count = max(1, math.ceil(math.log(points[1] / start, GRID_RATIO)))
    return np.concatenate([start * GRID_RATIO ** np.arange(count), points[1:]])


def _end(objective: Objective, squares: float, basis: Basis, low: float, high: float) -> float:
    """An A beyond which the score is negative for certain.

    y'P²y <= |y − Xβ̂_OLS|²/(A + min D)² and tr P >= k/(A + max D), k the contrasts: solved for A, or doubled where h
    has a slope too.
    """
    k = objective.contrasts(basis)
    spread = squares / k
    bound = (spread + math.sqrt(spread * (spread + 4 * (high - low)))) / 2 - low
    if objective.adjustment is None:
        return bound
    A = max(bound, high)
    m = basis.D.size
    for _ in range(DOUBLINGS):
        if k / (A + high) - 2 * objective.adjustment.slope(A, m, high) > squares / (A + low) ** 2:
            break
        A *= 2
    return A
