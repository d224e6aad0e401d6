"""Exact finite-sample likelihood-ratio tests of one variance component.

With the pieces w_s and R of `components_space` the log likelihood ratio against gamma = gamma_0 is the supremum over
gamma of a function of one variable,

    f(gamma) = - N log(sum of w_s² / (1 + gamma mu_s) + R) - sum of log(1 + gamma l_s)

with N = n - rank X and l = mu (restricted), or N = n and l = xi (ML), less f(gamma_0). Under gamma_0 = 0 write
S = sum w_s² and b_s = w_s² / S. For each gamma, 2 log LR(gamma) >= q exactly where S / R reaches

    (c - 1) / (1 - c h),    c = exp((q + sum of log(1 + gamma l_s)) / N),    h = sum of b_s / (1 + gamma mu_s),

so that the supremum reaches q where S / R exceeds the minimum of this over gamma. S / R is independent of the
direction b, and the p-value is the mean over directions of the tail of an F distribution: one F probability where all
mu are equal, a Gauss-Jacobi sum where they take two or three values, and otherwise an average over simulated
directions whose error is small relative to p itself, however small p is.

Source: Crainiceanu & Ruppert (2004), JRSS B 66:165-185, Theorem 1 and equations 6 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.components_space import Pieces, distinct
from hierlmm.frequentist.inference.quadraticforms import lower_tail
from hierlmm.frequentist.inference.rlrt_search import least_ratio, supremum

Array = NDArray[np.float64]
Method = Literal["ml", "reml"]

# Distinct eigenvalues up to which p is a sum over a rule in one dimension less, the points a dimension of the rules
# that are tried in turn, and the share to which two must agree.
DETERMINISTIC, POINTS, AGREE = 3, (24, 48, 96), 1e-10
# Simulated numbers, over draws and distinct eigenvalues, for a p-value: where there are many eigenvalues the directions
# differ little and fewer draws do. Draws of the statistic are made in parts of so many numbers.
MOST, FEWEST, PART = 3_000_000, 1000, 4_000_000
# A statistic this small, relative to N, is rounding: gamma = 0 is the maximum.
ROUNDING = 1e-12
# Size of log t beyond which a statistic is not reached at all, and halvings of an interval of log t.
FARTHEST, HALVINGS = 150.0, 200


@dataclass(frozen=True, slots=True)
class Tail:
    """P(statistic >= observed) and its Monte Carlo standard error; 0 where no simulation was needed."""

    p: float
    mc_error: float


@dataclass(frozen=True, eq=False)
class Law:
    """Null distribution of the likelihood ratio of one component.

    mu, counts    (m,) distinct eigenvalues of Z1'M Z1 and how often each occurs
    logs, times   (k,) distinct values l_s of the log determinant and how often each occurs
    N             factor of the log of the sum of squares
    df            degrees of freedom of R
    """

    mu: Array
    counts: NDArray[np.intp]
    logs: Array
    times: NDArray[np.intp]
    N: int
    df: int

    @classmethod
    def of(cls, found: Pieces, method: Method) -> Law:
        """The law of the restricted ("reml") or of the ordinary ("ml") likelihood ratio."""
        logs = found.mu if method == "reml" else found.xi[found.xi > 0]
        N = found.n - found.rank if method == "reml" else found.n
        return cls(*distinct(found.mu), *distinct(logs), N, found.df)

    @cached_property
    def mass_at_zero(self) -> float:
        """Probability that the likelihood decreases from gamma = 0 on, by inversion of the quadratic form.

        A supremum away from a local maximum at zero is the one thing that it leaves out; `tail` at zero has it.
        """
        mean = float(self.logs @ self.times) / self.N
        return lower_tail([*(self.mu - mean), -mean], [*self.counts, self.df])

    def statistic(self, squares: Array, rest: Array, ratio: float = 0.0) -> Array:
        """(B,) suprema for sums of squares (B, m) by distinct eigenvalue and R (B,), against gamma = `ratio`."""
        value = supremum(self.mu, self.logs, self.times, self.N, squares, rest)
        at = self._height(squares, rest, ratio)
        difference = np.maximum(value, at) - at
        return np.asarray(np.where(difference <= ROUNDING * self.N, 0.0, difference))

    def observed(self, found: Pieces, ratio: float = 0.0) -> float:
        """The statistic of the data."""
        ends = np.cumsum(self.counts)[:-1]
        sums = np.array([part.sum() for part in np.split(found.squares, ends)])
        return float(self.statistic(sums[None], np.array([found.rest]), ratio)[0])

    def draws(self, count: int, rng: np.random.Generator, ratio: float = 0.0) -> Array:
        """(count,) statistics under gamma = `ratio`."""
        size = max(1, PART // len(self.counts))
        parts = []
        for start in range(0, count, size):
            rows = min(size, count - start)
            squares = rng.chisquare(self.counts, (rows, len(self.counts))) * (1 + ratio * self.mu)
            parts.append(self.statistic(squares, rng.chisquare(self.df, rows), ratio))
        return np.concatenate(parts)

    def tail(self, statistic: float, draws: int, rng: np.random.Generator) -> Tail:
        """P(statistic of the null hypothesis gamma = 0 >= `statistic`); exactly 1 at zero.

        draws  directions to simulate at most, where the eigenvalues take more than three values
        """
        if statistic <= 0:
            return Tail(1.0, 0.0)
        if len(self.mu) <= DETERMINISTIC:
            return Tail(self._integrated(statistic), 0.0)
        draws = min(draws, max(FEWEST, MOST // len(self.mu)))
        directions = rng.standard_gamma(self.counts / 2, (draws, len(self.counts)))
        directions /= directions.sum(axis=1, keepdims=True)
        found = self._given(directions, statistic)
        return Tail(float(found.mean()), float(found.std(ddof=1) / np.sqrt(draws)))

    def tail_at(self, found: Pieces, ratio: float) -> float | None:
        """P(statistic >= that of the data) under gamma = `ratio` by two F tails; None where none are known.

        With one eigenvalue the statistic is a function of t = w² / (1 + ratio mu) / R, which falls to zero and rises
        again: against a larger gamma it increases in t, against a smaller one it decreases.
        """
        if len(self.mu) != 1 or found.rest <= 0:
            return None
        r1, scale = int(self.counts[0]), 1 + ratio * float(self.mu[0])
        here = float(found.squares.sum()) / scale / found.rest
        statistic, least = self.observed(found, ratio), self._least(ratio)
        if statistic <= 0:
            return 1.0
        if self._at(least, ratio) >= statistic:
            return None
        other = self._other_end(statistic, least, ratio, above=here < least)
        low, high = sorted((here, other))
        return self._f_tails(low * self.df / r1, high * self.df / r1)

    def _at(self, t: float, ratio: float) -> float:
        """The statistic where w² / (1 + ratio mu) = t R."""
        squares = np.array([[t * (1 + ratio * float(self.mu[0]))]])
        return float(self.statistic(squares, np.ones(1), ratio)[0])

    def _least(self, ratio: float) -> float:
        """t at which the likelihood is level at gamma = `ratio`."""
        slope = float(self.times @ (self.logs / (1 + ratio * self.logs)))
        share = slope * (1 + ratio * float(self.mu[0])) / (self.N * float(self.mu[0]))
        return share / (1 - share) if share < 1 else np.inf

    def _other_end(self, statistic: float, least: float, ratio: float, *, above: bool) -> float:
        """t on the other side of `least` where the statistic is as large, by bisection of log t; 0 or inf without."""
        step = 1.0 if above else -1.0
        inside, outside = np.log(least), np.log(least) + step
        while self._at(np.exp(outside), ratio) < statistic:
            if abs(outside) > FARTHEST:
                return np.inf if above else 0.0
            inside, outside, step = outside, outside + 2 * step, 2 * step
        for _ in range(HALVINGS):
            middle = 0.5 * (inside + outside)
            if middle in (inside, outside):
                break
            reached = self._at(np.exp(middle), ratio) >= statistic
            inside, outside = (inside, middle) if reached else (middle, outside)
        return float(np.exp(outside))

    def _f_tails(self, low: float, high: float) -> float:
        from scipy.special import fdtr, fdtrc

        r1 = int(self.counts[0])
        upper = 0.0 if np.isinf(high) else float(fdtrc(r1, self.df, high))
        return min(1.0, upper + float(fdtr(r1, self.df, low)))

    def _height(self, squares: Array, rest: Array, ratio: float) -> Array:
        total = (squares / (1 + ratio * self.mu)).sum(axis=1) + rest
        return np.asarray(-self.N * np.log(total) - float(self.times @ np.log1p(ratio * self.logs)))

    def _given(self, directions: Array, statistic: float) -> Array:
        """Tail probability for each direction (B, m)."""
        from scipy.special import betainc

        t = least_ratio(self.mu, self.logs, self.times, self.N, directions, statistic)
        return np.asarray(betainc(self.df / 2, self.counts.sum() / 2, 1 / (1 + t)))

    def _integrated(self, statistic: float) -> float:
        """The mean over directions by a product rule: b_1 ~ Beta, b_2 / (1 - b_1) ~ Beta, and so on."""
        if len(self.mu) == 1:
            return float(self._given(np.ones((1, 1)), statistic)[0])
        found = np.nan
        for points in POINTS:
            nodes, weights = _directions(self.counts, points)
            before, found = found, float(weights @ self._given(nodes, statistic))
            if abs(found - before) <= AGREE * found:
                break
        return found


def _directions(counts: NDArray[np.intp], points: int) -> tuple[Array, Array]:
    """Nodes (B, m) on the simplex and weights (B,) of the Dirichlet distribution with parameters counts / 2."""
    from scipy.special import roots_jacobi

    nodes, weights, left = np.zeros((1, 0)), np.ones(1), np.ones(1)
    for j, count in enumerate(counts[:-1]):
        a, b = count / 2, counts[j + 1 :].sum() / 2
        x, v = roots_jacobi(points, b - 1, a - 1)
        share, v = (1 + x) / 2, v / v.sum()
        nodes = np.column_stack([np.repeat(nodes, points, axis=0), np.outer(left, share).ravel()])
        left = np.outer(left, 1 - share).ravel()
        weights = np.outer(weights, v).ravel()
    return np.column_stack([nodes, left]), weights
