"""The posterior density of a standard deviation, from the nodes or draws that a posterior carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.results import Posterior

if TYPE_CHECKING:
    from hierlmm.bayes.lmmresults import LMMPosterior

Array = NDArray[np.float64]

# Bars of a histogram of draws, over the central part of them.
BINS = 28
CENTRAL = (0.0, 0.995)


def sd_density(posterior: Posterior, group: str, term: str) -> tuple[Array, Array]:
    """Points (K,) and density (K,) of the sd of `term` by `group`, 1 / units of the sd.

    From an exact area-level posterior: the density at the nodes of the integral, weight over spacing. From draws: the
    corners of a histogram, which unlike a kernel estimate does not leak below zero. Where a mixed model's posterior
    was asked for without draws, of the weighted points of its integral.
    """
    if isinstance(posterior, AreaPosterior):
        values, weight = np.sqrt(posterior.A_nodes), posterior.weight
        if posterior.engine == "integrate":
            return _at_nodes(values, weight)
        return _histogram(values, weight)
    values, weight = _mixed(cast("LMMPosterior", posterior), group, term)
    return _histogram(values, weight)


def _mixed(posterior: LMMPosterior, group: str, term: str) -> tuple[Array, Array]:
    """Values of an sd with weights: the draws, or the points of the integral where there are none."""
    names = [factor.name for factor in posterior.design.factors]
    residual = group == "Residual" and group not in names
    at = -1 if residual else names.index(group)
    column = 0 if residual else posterior.design.factors[at].coefficients.index(term)
    draws = posterior.sample.variables
    if posterior.sample.number:
        values = draws["sigma"][1] if residual else draws[f"sd_{group}"][1][..., column]
        return values.ravel(), np.ones(values.size)
    psi = posterior.points.psi
    return (psi.sigma if residual else psi.sd[at][:, column]), posterior.points.weight


def _at_nodes(values: Array, weight: Array) -> tuple[Array, Array]:
    """Weights divided by the distance between the midpoints around each node."""
    # nodes of a lattice in more than one dimension share their values of A
    values, place = np.unique(values, return_inverse=True)
    shares = np.zeros(len(values))
    np.add.at(shares, place, weight)
    spacing = np.gradient(values)
    keep = shares > 1e-7 * shares.max()
    return values[keep], shares[keep] / spacing[keep]


def _histogram(values: Array, weight: Array) -> tuple[Array, Array]:
    """Corners of a histogram of the central part of weighted values, from zero where it comes near."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    low, high = (float(values[order][np.searchsorted(share, q).clip(max=share.size - 1)]) for q in CENTRAL)
    low = 0.0 if low < 0.3 * high else low
    if high <= low:
        return np.zeros(0), np.zeros(0)
    counts, edges = np.histogram(values, BINS, (low, high), weights=weight)
    height = counts / (weight.sum() * (edges[1] - edges[0]))
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(height, 2), [0.0]])
