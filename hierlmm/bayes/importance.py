"""Importance sampling of the variance parameters: evenly spread points from a mixture that learns the posterior.

Each round draws from the mixture fitted to all earlier points, and every point is weighted by the posterior over the
proportional mixture of all proposals so far (Cornuet, Marin, Mira & Robert 2012, Scand. J. Statistics 39:798). The
points are several independently scrambled nets, whose spread gives the Monte Carlo error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.density import Target
from hierlmm.bayes.lmmterms import Points
from hierlmm.bayes.mode import Mode, find_mode
from hierlmm.bayes.proposal import TMixture, fitted, joined, single
from hierlmm.bayes.psis import TRUSTED, Weights, smoothed
from hierlmm.bayes.sobol import spread
from hierlmm.bayes.start import start

Array = NDArray[np.float64]

REPLICATES = 8
# Points of each replicate in the first round, from a t at the mode, and in every later round.
FIRST, LATER = 64, 256
ROUNDS = 6
# Effective sample size at which another round is not worth its time.
ENOUGH = 1500.0
# The proposal at the mode is this much wider in variance than the curvature says.
WIDTH = 1.5
# Share of components that reach towards sd = 0, one for each sd, shifted by REACH in log sd and as wide: a density that
# does not vanish there falls like the sd itself, which a narrower t would miss.
TOWARDS_ZERO, REACH = 0.25, 2.0
# Share the first proposal keeps in all later ones.
DEFENSIVE = 0.15
COMPONENTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Weighted points and how good they are: k̂, effective sample size, number of evaluations and rounds."""

    points: Points
    weights: Weights
    evaluations: int
    rounds: int
    log_mass: float

    @property
    def trusted(self) -> bool:
        """Whether k̂ allows averages to be trusted."""
        return self.weights.k <= TRUSTED


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Points v (K, d) on the line, of which net each is, their weights, the rounds made, and the log integral."""

    v: Array
    replicate: NDArray[np.intp]
    weights: Weights
    rounds: int
    log_mass: float


def learned(
    log_density: Callable[[Array], Array], dimension: int, first: TMixture, rng: np.random.Generator
) -> Learned:
    """Rounds until the weights have k̂ <= TRUSTED and an effective size of ENOUGH, at most ROUNDS after the first.

    log_density  of points (K, dimension); first the proposal of the first round, which keeps a share in all later ones
    """
    used: list[tuple[float, TMixture]] = []
    proposal, size = first, FIRST
    v, log_p, replicate = np.zeros((0, dimension)), np.zeros(0), np.zeros(0, dtype=np.intp)
    for number in range(ROUNDS + 1):
        new = np.concatenate([proposal.points(spread(size, dimension + 2, rng)) for _ in range(REPLICATES)])
        v, log_p = np.concatenate([v, new]), np.concatenate([log_p, log_density(new)])
        replicate = np.concatenate([replicate, np.repeat(np.arange(REPLICATES), size)])
        used.append((float(len(new)), proposal))
        log_ratio = log_p - joined(used).log_density(v)
        weights = smoothed(log_ratio)
        if number and weights.k <= TRUSTED and weights.ess >= ENOUGH:
            break
        again = fitted(v, weights.weight, COMPONENTS + number)
        proposal, size = joined([(DEFENSIVE, first), (1.0 - DEFENSIVE, again)]), LATER
    top = float(log_ratio.max())
    log_mass = top + float(np.log(np.exp(log_ratio - top).mean()))
    return Learned(v, replicate, weights, number + 1, log_mass)


def sample_variances(target: Target, rng: np.random.Generator) -> Sampled:
    """Weighted points of the variance parameters of a linear mixed model."""
    mode = find_mode(target.log_density, start(target))
    found = learned(target.log_density, mode.v.size, first_proposal(target, mode), rng)
    points = Points(target.variances(found.v), found.weights.weight, found.replicate)
    return Sampled(points, found.weights, len(found.v), found.rounds, found.log_mass)


def first_proposal(target: Target, mode: Mode) -> TMixture:
    """A t at the mode, and one component an sd of random effects that reaches towards zero."""
    scale = WIDTH * mode.covariance
    parts = [(1.0, single(mode.v, scale))]
    towards = [k for k, name in enumerate(target.names) if name.startswith("sd(") and name != target.names[-1]]
    for k in towards:
        along = np.eye(mode.v.size)[k]
        low = single(mode.v - REACH * along, scale + REACH**2 * np.outer(along, along))
        parts.append((TOWARDS_ZERO / (1.0 - TOWARDS_ZERO) / len(towards), low))
    return joined(parts)
