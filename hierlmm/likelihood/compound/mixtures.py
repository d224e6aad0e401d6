"""Finite mixtures of conjugate posteriors: what averaging over estimates or draws of the prior leaves of a unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.likelihood.compound.conjugate import Family, Posterior, posterior

Array = NDArray[np.float64]

# Numbers in one slab of components x levels x units.
SLAB = 2_000_000
# Components of less weight than this move no quantile by more than rounding.
NEGLIGIBLE = 1e-14
STEPS = 200
# A Newton step this small beside x leaves an error of about its square; a bracket this small beside x is rounding.
SMALL, CLOSED = 1e-8, 1e-15


def moments(weight: Array, law: Posterior) -> tuple[Array, Array]:
    """Mean and variance (J,) of mixtures of laws (K, J) with weights (K,) that sum to one."""
    mean = weight @ law.mean
    return mean, weight @ law.variance + weight @ (law.mean - mean) ** 2


def quantiles(
    family: Family, weight: Array, y: Array, size: Array, mu: Array, phi: Array, levels: ArrayLike
) -> Array:
    """(P, J) quantiles at P levels of J mixtures over K priors: roots of Σ w_k F(x | y_j, μ_kj, φ_k) = P.

    weight, phi (K,); y, size (J,), nan without observations; mu (K, J) or (K, 1)
    """
    wanted = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    keep = weight > NEGLIGIBLE * weight.max()
    weight, mu, phi = weight[keep] / weight[keep].sum(), mu[keep], phi[keep]
    J = len(y)
    each = max(1, SLAB // (len(weight) * len(wanted)))
    wide = np.broadcast_to(mu, (len(weight), J))
    parts = []
    for first in range(0, J, each):
        here = slice(first, first + each)
        law = posterior(family, y[here], size[here], wide[:, here], phi[:, None])
        parts.append(roots(weight, law, wanted))
    return np.concatenate(parts, axis=1) if parts else np.empty((len(wanted), 0))


def roots(weight: Array, law: Posterior, levels: Array) -> Array:
    """(P, J) quantiles of mixtures of laws (K, J), inside the range of the components' own."""
    units = law.mean.shape[1]
    which, level = np.tile(np.arange(units), len(levels)), np.repeat(levels, units)
    each = law.columns(which).quantile(level)
    low, high, x = each.min(axis=0), each.max(axis=0), weight @ each
    active = np.flatnonzero(high > low)
    for _ in range(STEPS):
        if not active.size:
            break
        own = law.columns(which[active])
        F, f = weight @ own.cdf(x[active]), weight @ own.density(x[active])
        new, low[active], high[active], done = _step(
            x[active], F, f, level[active], low[active], high[active], law.family != "normal"
        )
        x[active] = new
        active = active[~done]
    return x.reshape(len(levels), units)


def _step(
    x: Array, F: Array, f: Array, levels: Array, low: Array, high: Array, positive: bool
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """A Newton step for F(x) = levels inside its bracket, halved where it leaves it (in the logarithm if `positive`).

    Returns the new x, low and high, and which are done.
    """
    below = F < levels
    low, high = np.where(below, x, low), np.where(below, high, x)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        newton = x - (F - levels) / f
        middle = np.sqrt(low) * np.sqrt(high) if positive else 0.5 * (low + high)
    middle = np.where((middle > low) & (middle < high), middle, 0.5 * (low + high))
    inside = (newton > low) & (newton < high)
    new = np.where(inside, newton, middle)
    size = np.maximum(np.abs(new), np.finfo(float).tiny)
    done = (np.abs(new - x) <= np.where(inside, SMALL, CLOSED) * size) | (high - low <= CLOSED * size) | (F == levels)
    return np.where(F == levels, x, new), low, high, done
