"""The distribution of each area by itself: one Gaussian, or a mixture of as many as the area variance has nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.frequentist.area.tables import quantile
from hierlmm.publication.estimates.transformed import back, forward

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

# Components times quantiles that are solved for at once: about 30 MB an array.
SLAB = 4_000_000
# Above so many components times quantiles, a few seconds of work, quantiles are interpolated between KNOTS of them.
LARGEST, KNOTS = 4_000_000, 200


@dataclass(frozen=True, slots=True, eq=False)
class Marginals:
    """M mixtures of K Gaussians: weight (K,) summing to one; mean and variance (K, M).

    scale  the transformation on whose scale they are Gaussian; "" where it is that of the data
    """

    weight: Vector
    mean: Matrix
    variance: Matrix
    scale: str = ""

    def interval(self, level: float) -> tuple[Vector, Vector]:
        """Equal-tailed intervals: lower and upper (M,)."""
        tail = tails(level)
        if self.weight.size == 1:
            reach = quantile(level) * np.sqrt(self.variance[0])
            return self._back(self.mean[0] - reach), self._back(self.mean[0] + reach)
        lower, upper = mixture.quantiles(self.weight, self.mean, self.variance, tail)
        return self._back(lower), self._back(upper)

    def beyond(self, c: Vector, sign: float) -> Vector:
        """(M,) P(sign (θ_i − c_i) > 0)."""
        from scipy.special import ndtr

        c = forward(self.scale, c) if self.scale else c
        away, sd = sign * (self.mean - c), np.sqrt(self.variance)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(sd > 0, ndtr(away / sd), (away > 0).astype(np.float64))
        return np.asarray(self.weight @ each)

    def pooled_quantiles(self, probability: Vector) -> Vector:
        """Quantiles of the mean over areas of their distribution functions, at probabilities that rise.

        Of many areas some hundreds are solved for, evenly spaced in normal scores, and the others are taken from the
        monotone cubic through these.
        """
        knots = max(KNOTS, LARGEST // self.mean.size)
        if probability.size <= knots:
            return self._back(self._pooled(probability))
        from scipy.interpolate import PchipInterpolator
        from scipy.special import ndtr, ndtri

        score = ndtri(probability)
        at = np.linspace(score[0], score[-1], knots)
        return self._back(np.asarray(PchipInterpolator(at, self._pooled(ndtr(at)))(score)))

    def _pooled(self, probability: Vector) -> Vector:
        M = self.mean.shape[1]
        shares = np.repeat(self.weight / M, M)
        mean, variance = self.mean.reshape(-1, 1), self.variance.reshape(-1, 1)
        size = max(1, SLAB // shares.size)
        some = (probability[a : a + size] for a in range(0, probability.size, size))
        return np.concatenate([mixture.quantiles(shares, mean, variance, levels)[:, 0] for levels in some])

    def _back(self, theta: Vector) -> Vector:
        return back(self.scale, theta) if self.scale else theta


def normal(estimate: Vector, mse: Vector, scale: str = "") -> Marginals:
    """Each area normal about its estimate, on the scale of a transformation or that of the data."""
    return Marginals(np.ones(1), estimate[None], mse[None], scale)


def tails(level: float) -> tuple[float, float]:
    """Probabilities at the two ends of an equal-tailed interval; raises FitError unless 0 < level < 1."""
    quantile(level)
    return (1 - level) / 2, (1 + level) / 2


def monte_carlo_error(draws: Array) -> Vector:
    """(k,) standard errors of the means of (chains, S, k) draws: independent ones, or those of Markov chains."""
    if draws.shape[0] == 1:
        return np.asarray(draws[0].std(axis=0, ddof=1) / np.sqrt(draws.shape[1]))
    from hierlmm.bayes.sample_summaries import summarise

    return summarise(draws).mcse
