"""Pareto-smoothed importance weights: how far a sample from a proposal can stand for the posterior.

Vehtari, Simpson, Gelman, Yao & Gabry (2024, JMLR 25(72)); generalised Pareto fit of Zhang & Stephens (2009,
Technometrics 51:316) with the weak prior of the former.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Above this k̂ the mean of the weights converges too slowly for estimates to be trusted (Vehtari et al. 2024).
TRUSTED = 0.7
# Smallest tail that a Pareto distribution is fitted to.
SMALLEST_TAIL = 5


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Normalised weights (N,), the shape k̂ of their upper tail, and the effective sample size 1/Σw²."""

    weight: Array
    k: float
    ess: float


def smoothed(log_ratio: Array) -> Weights:
    """Weights from log(target/proposal) (N,), the largest replaced by quantiles of the Pareto fitted to them."""
    log_w = log_ratio - log_ratio.max()
    N = log_w.size
    tail = math.floor(min(0.2 * N, 3.0 * math.sqrt(N)))
    k = math.inf
    if tail >= SMALLEST_TAIL:
        order = np.argsort(log_w, kind="stable")
        top = order[-tail:]
        cutoff = log_w[order[-tail - 1]]
        excess = np.exp(log_w[top]) - math.exp(cutoff)
        if excess[-1] - excess[0] > 1e-12 * max(excess[-1], 1e-300):
            k, sigma = pareto_fit(excess)
            probability = (np.arange(tail) + 0.5) / tail
            far = -np.log1p(-probability)
            quantile = sigma * (np.expm1(k * far) / k if abs(k) > 1e-12 else far)
            log_w = log_w.copy()
            log_w[top] = np.minimum(np.log(math.exp(cutoff) + quantile), 0.0)
        else:
            k = -math.inf  # equal weights: the proposal is the target
    weight = np.exp(log_w - log_w.max())
    weight /= weight.sum()
    return Weights(weight, k, 1.0 / float((weight**2).sum()))


def pareto_fit(excess: Array) -> tuple[float, float]:
    """Shape k and scale of a generalised Pareto distribution of ascending positive excesses (n,)."""
    n = excess.size
    grid = 30 + int(math.sqrt(n))
    quartile = excess[max(int(n / 4 + 0.5) - 1, 0)]
    b = (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * max(quartile, 1e-300)) + 1.0 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(axis=1)
    profile = n * (np.log(-b / k) - k - 1.0)
    weight = np.exp(profile - profile.max())
    weight /= weight.sum()
    centre = float((b * weight).sum())
    shape = float(np.log1p(-centre * excess).mean())
    sigma = -shape / centre
    # prior of ten observations at k = 1/2
    return (n * shape + 10 * 0.5) / (n + 10), sigma
