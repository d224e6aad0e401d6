"""The posterior density of the hyperparameters of compound counts, with the units' parameters integrated out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.design.compound import CompoundDesign
from hierlmm.likelihood.compound.marginal import LOG_DENSITY, Counts
from hierlmm.likelihood.compound.profile import CountData

Array = NDArray[np.float64]

# Numbers of one array (points x units) that are worked on at once.
SLAB = 1_000_000
# Newton steps to the conditional mode of a lone coefficient, the longest, and when they end.
STEPS, LONGEST, DONE = 80, 3.0, 1e-24


@dataclass(frozen=True, slots=True, eq=False)
class CompoundTarget:
    """The density of v = (β, log tau) given the counts of the units in the fit."""

    data: CountData
    priors: CompoundPriors

    @classmethod
    def of(cls, design: CompoundDesign, priors: CompoundPriors) -> CompoundTarget:
        """The target of a design."""
        into = design.sampled
        family: Counts = "poisson" if design.spec.family == "poisson" else "binomial"
        data = CountData(family, design.y[into], design.size[into], design.X[into], design.offset[into])
        return cls(data, priors)

    def log_likelihood(self, beta: Array, log_tau: Array) -> Array:
        """(N,) log marginal likelihood at beta (N, p) and log tau (N,), all constants."""
        data, phi = self.data, np.exp(2 * log_tau)[:, None]
        each = max(1, SLAB // len(data.y))
        parts = [
            LOG_DENSITY[data.family](
                data.y, data.size, beta[k : k + each] @ data.X.T + data.offset, phi[k : k + each]
            ).sum(axis=1)
            for k in range(0, len(beta), each)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def log_density(self, v: Array) -> Array:
        """(N,) log posterior density, up to a constant, at v (N, p + 1)."""
        beta, log_tau = v[:, :-1], v[:, -1]
        with np.errstate(over="ignore", invalid="ignore"):
            value = self.log_likelihood(beta, log_tau) + self.priors.log_density(beta, log_tau)
        return np.where(np.isnan(value), -np.inf, value)

    def given(self, log_tau: Array) -> tuple[Array, Array]:
        """Mode and sd (N,) of the one coefficient given each tau: smooth functions of it, from its curvature."""
        data, phi = self.data, np.exp(2 * np.clip(log_tau, -300.0, 300.0))
        x = np.full((len(phi), 1), self._start())
        first, curvature = self._slopes(x, phi)
        for _ in range(STEPS):
            step = np.clip(first / curvature, -LONGEST, LONGEST)
            if (np.abs(step * first) < DONE * len(data.y)).all():
                break
            x = x + step
            first, curvature = self._slopes(x, phi)
        return x[:, 0], 1 / np.sqrt(curvature[:, 0])

    def _start(self) -> float:
        from hierlmm.likelihood.compound.profile import start

        return float(start(self.data, 1)[0, 0])

    def _slopes(self, x: Array, phi: Array) -> tuple[Array, Array]:
        """First derivative and positive curvature (N, 1) of the log density in the coefficient."""
        terms = self.data.mean_terms(x, phi)
        X = self.data.X
        first, second = self.priors.location_slopes(x)
        first = terms.eta @ X + first
        curved = -(terms.eta_eta @ X**2) - second
        # where it is not concave, far from the mode, a step by the sizes of the terms
        sizes = np.abs(terms.eta_eta) @ X**2 - second
        return first, np.where(curved > 1e-3 * sizes, curved, np.maximum(sizes, 1e-12))
