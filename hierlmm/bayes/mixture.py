"""Moments and quantiles of finite mixtures of Gaussians: what is left of a posterior once ψ is on a lattice."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Numbers in one slab of components x quantities.
SLAB = 4_000_000
STEPS = 60
# A Newton step this small beside the bracket, or beside the width that the density has there where components of far
# greater sd make the bracket wide, leaves an error of about its square: rounding.
SMALL = 1e-7


def moments(weight: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Mean and variance (J,) of J mixtures with common weights (K,), component means and variances (K, J)."""
    centre = weight @ mean
    return centre, weight @ variance + weight @ (mean - centre) ** 2


def quantiles(weight: Array, mean: Array, variance: Array, probability: ArrayLike) -> Array:
    """(P, J) quantiles of J Gaussian mixtures at P probabilities: roots of Σ w Φ((x - μ)/s) = P, to rounding.

    weight (K,) summing to one; mean, variance (K, J), variance >= 0; a component of variance 0 is a point mass.
    """
    levels = np.atleast_1d(np.asarray(probability, dtype=np.float64))
    keep = weight > 1e-17
    weight, mean, sd = weight[keep], mean[keep], np.sqrt(variance[keep])
    width = max(1, SLAB // (max(1, weight.size) * levels.size))
    parts = [
        _roots(weight, mean[:, start : start + width], sd[:, start : start + width], levels)
        for start in range(0, mean.shape[1], width)
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((levels.size, 0))


def _roots(weight: Array, mean: Array, sd: Array, levels: Array) -> Array:
    """Safeguarded Newton from the Gaussian of equal moments, bracketed by the components' own quantiles."""
    from scipy.special import ndtri

    z = ndtri(levels)[:, None]
    each = mean[None] + sd[None] * z[..., None]
    low, high = each.min(axis=1), each.max(axis=1)
    centre, variance = moments(weight, mean, sd**2)
    x = np.clip(centre + z * np.sqrt(variance), low, high)
    span = np.maximum(high - low, np.finfo(float).tiny)
    for _ in range(STEPS):
        F, f = _cdf(weight, mean, sd, x)
        below = F < levels[:, None]
        low, high = np.where(below, x, low), np.where(below, high, x)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            newton = x - (F - levels[:, None]) / f
            width = np.minimum(span, 1 / f)
        inside = (newton >= low) & (newton <= high)
        new = np.where(inside, newton, 0.5 * (low + high))
        done = np.abs(new - x) <= np.where(inside, SMALL, SMALL**2) * width
        x = new
        if done.all():
            break
    return x


def _cdf(weight: Array, mean: Array, sd: Array, x: Array) -> tuple[Array, Array]:
    """Distribution function and density (P, J) at x (P, J)."""
    from scipy.special import ndtr

    with np.errstate(divide="ignore", invalid="ignore"):
        u = (x[:, None, :] - mean) / sd
        u = np.where(np.isnan(u), 0.0, u)
        density = np.where(sd > 0, np.exp(-0.5 * u**2) / (np.sqrt(2 * np.pi) * sd), 0.0)
    F = np.einsum("k,pkj->pj", weight, ndtr(u))
    return F, np.einsum("k,pkj->pj", weight, density)
