"""The posterior of one unit's parameter: a conjugate law, or a mixture of them over priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.likelihood.compound.conjugate import Posterior
from hierlmm.likelihood.compound.mixtures import moments, roots

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class UnitPosterior:
    """The law of θ of one unit: Σ w_k law_k with gamma, beta or normal laws; one of them in empirical Bayes.

    unit     its label
    weight   (K,) summing to one; law: K laws, shape (K, 1)
    finite   whether mean and standard deviation exist
    """

    unit: object
    weight: Array
    law: Posterior
    finite: tuple[bool, bool] = (True, True)

    @property
    def mean(self) -> float:
        """E[θ | y]; nan where it does not exist."""
        return float(moments(self.weight, self.law)[0][0]) if self.finite[0] else float("nan")

    @property
    def sd(self) -> float:
        """The standard deviation of θ given y; nan where it does not exist."""
        return float(np.sqrt(moments(self.weight, self.law)[1][0])) if self.finite[1] else float("nan")

    def cdf(self, x: ArrayLike) -> Array:
        """P(θ <= x | y), shape of x."""
        at = np.asarray(x, dtype=np.float64)
        return np.asarray((self.weight @ self.law.cdf(at.reshape(1, -1))).reshape(at.shape))

    def density(self, x: ArrayLike) -> Array:
        """Density at x, shape of x."""
        at = np.asarray(x, dtype=np.float64)
        return np.asarray((self.weight @ self.law.density(at.reshape(1, -1))).reshape(at.shape))

    def quantile(self, probability: ArrayLike) -> Array:
        """x with P(θ <= x | y) = probability, shape of probability, each between 0 and 1."""
        at = np.asarray(probability, dtype=np.float64)
        return roots(self.weight, self.law, np.atleast_1d(at).ravel())[:, 0].reshape(at.shape)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Equal-tailed interval of probability `level`."""
        low, high = self.quantile([(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def above(self, threshold: float) -> float:
        """P(θ > threshold | y)."""
        return 1.0 - float(self.cdf(threshold))
