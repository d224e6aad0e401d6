"""The hyperparameters of compound counts with several coefficients: importance sampling from a learned proposal.

As `importance` does for variance parameters: evenly spread points, each weighted by the posterior over the mixture of
all proposals so far, in rounds until the Pareto-smoothed weights can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.importance import REACH, REPLICATES, TOWARDS_ZERO, WIDTH, learned
from hierlmm.bayes.mode import Mode, find_mode
from hierlmm.bayes.proposal import TMixture, joined, single
from hierlmm.bayes.psis import TRUSTED, Weights
from hierlmm.errors import FitError
from hierlmm.likelihood.compound.profile import start as first_coefficients

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HyperSample:
    """Points beta (K, p), tau (K,), weight (K,) summing to one, replicate (K,) of the net each comes from."""

    beta: Array
    tau: Array
    weight: Array
    replicate: NDArray[np.intp]
    weights: Weights
    rounds: int
    log_mass: float

    def mcse(self, values: Array) -> Array:
        """Monte Carlo standard errors of the weighted means of values (K, J), from the spread of the replicates."""
        means = []
        for number in range(REPLICATES):
            here = self.replicate == number
            means.append(self.weight[here] @ values[here] / self.weight[here].sum())
        return np.asarray(np.std(means, axis=0, ddof=1) / np.sqrt(REPLICATES))

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draws by resampling the points in proportion to their weights."""
        which = rng.choice(len(self.weight), size=size, p=self.weight)
        return self.beta[which], self.tau[which]


def sample(target: CompoundTarget, rng: np.random.Generator) -> HyperSample:
    """Weighted points of (β, log τ); FitError where their weights cannot be trusted."""
    mode = find_mode(target.log_density, _start(target))
    found = learned(target.log_density, mode.v.size, _first(mode), rng)
    if found.weights.k > TRUSTED:
        raise FitError(
            f"Importance weights must have a Pareto shape of at most {TRUSTED}; found {found.weights.k:.2f}: averages "
            "over the hyperparameters cannot be trusted. Use engine='nuts', or priors nearer to the data."
        )
    return HyperSample(
        beta=found.v[:, :-1],
        tau=np.exp(found.v[:, -1]),
        weight=found.weights.weight,
        replicate=found.replicate,
        weights=found.weights,
        rounds=found.rounds,
        log_mass=found.log_mass,
    )


def _start(target: CompoundTarget) -> Array:
    data = target.data
    typical = max(float(np.median(data.y)), 1.0)
    log_tau = min(-0.5 * np.log(typical), np.log(target.priors.tau.largest) - 1.0)
    return np.append(first_coefficients(data, 1)[0], log_tau)


def _first(mode: Mode) -> TMixture:
    """A t at the mode, and one that reaches towards tau = 0, where the density falls like tau only."""
    scale = WIDTH * mode.covariance
    along = np.eye(mode.v.size)[-1]
    low = single(mode.v - REACH * along, scale + REACH**2 * np.outer(along, along))
    return joined([(1.0 - TOWARDS_ZERO, single(mode.v, scale)), (TOWARDS_ZERO, low)])
