"""The posterior of area means on the scale of the data, where the model is linear on another.

Given A the mean θ of an area is Gaussian, so that E[g(θ)|y] and E[g(θ)²|y] are averages over A of the moments of g of a
Gaussian (closed forms for the logarithm and the arcsine, sums for the logit), and quantiles are g of those of θ: g
never falls. Nothing is approximated but the integral over A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.families import HalfNormal, SDPrior
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import TAILS, Draws, Estimates
from hierlmm.design.types import AreaDesign
from hierlmm.errors import listed
from hierlmm.likelihood.area.scales import SCALES, Scale
from hierlmm.spec.transformation import Log

Array = NDArray[np.float64]

# The node of the lattice with the widest law carries no more than this part of a moment of exp θ that is reported.
CARRIED = 1e-9


def scale_of(design: AreaDesign) -> Scale | None:
    """The scale of a design's data; None where it is that of the model."""
    given = design.spec.transformation
    return None if given is None else SCALES[given.name]


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Means of k areas or rows at the nodes of A: weight (K,), mean and variance (K, k) of θ.

    X (k, p) and role (k,) as in AreaDesign; exact (k,) what rows of role "direct" are on the scale of the data
    """

    weight: Array
    mean: Array
    variance: Array
    X: Array
    role: NDArray[np.str_]
    exact: Array


def areas_on_data_scale(
    design: AreaDesign, priors: ResolvedPriors, weight: Array, mean: Array, variance: Array
) -> Estimates | None:
    """Posterior of the M area means on the scale of the data; None where the model has that scale."""
    nodes = Nodes(weight, mean, variance, design.X, design.role, design.as_given[0])
    return on_data_scale(design, priors, nodes)


def on_data_scale(design: AreaDesign, priors: ResolvedPriors, nodes: Nodes) -> Estimates | None:
    """Posterior of the means of areas or rows on the scale of the data; None where the model has that scale.

    The mean of exp θ of an area without a direct estimate exists only where the prior of the area sd ends, or falls as
    fast as the normal law does: elsewhere it is nan, and so is an sd that does not exist.
    """
    scale = scale_of(design)
    if scale is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        first, within = scale.spread(nodes.mean, nodes.variance)
        mean = nodes.weight @ first
        variance = nodes.weight @ within + nodes.weight @ np.square(first - mean)
    se = np.sqrt(variance)
    for values, order in ((mean, 1), (se, 2)):
        carried = _carried(nodes, first, order)
        values[~(moments_exist(design, priors, nodes.X, nodes.role, order) & carried)] = np.nan
    lower, upper = scale.back(mixture.quantiles(nodes.weight, nodes.mean, nodes.variance, TAILS))
    direct = nodes.role == "direct"
    mean, lower, upper = (np.where(direct, nodes.exact, values) for values in (mean, lower, upper))
    return Estimates(mean, np.where(direct, 0.0, se), lower, upper, np.zeros(mean.size))


def moments_exist(
    design: AreaDesign, priors: ResolvedPriors, X: Array, role: NDArray[np.str_], order: int
) -> NDArray[np.bool_]:
    """(k,) whether E g(θ)^order exists: always, but for exp θ of new draws of the areas.

    Far out the variance of θ grows as A(1 + x'(X'X)⁻¹x), or as A where the prior of β is proper.
    """
    if not isinstance(design.spec.transformation, Log):
        return np.ones(len(X), dtype=bool)
    grows = np.ones(len(X))
    if priors.is_flat_on_fixed and X.shape[1]:
        rows = np.linalg.lstsq(design.X[design.sampled].T, X.T, rcond=None)[0]
        grows += np.square(rows).sum(axis=0)
    return np.asarray((role != "unsampled") | (grows * order**2 / 2 < exponential_order(priors.factors[0].sd[0])))


def _carried(nodes: Nodes, first: Array, order: int) -> NDArray[np.bool_]:
    """(k,) whether the lattice reaches far enough for E g(θ)^order: its widest node carries nothing of it.

    Nodes of equal weight are draws, whose Monte Carlo error is told elsewhere.
    """
    if np.ptp(nodes.weight) == 0:
        return np.ones(nodes.role.size, dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        share = nodes.weight[:, None] * first**order / (nodes.weight @ first**order)
    widest = np.take_along_axis(share, nodes.variance.argmax(axis=0)[None], axis=0)[0]
    return np.asarray((nodes.role != "unsampled") | (widest < CARRIED))


def exponential_order(prior: SDPrior) -> float:
    """The c below which E exp(cA) is finite a priori, and so a posteriori: the likelihood falls as a power of A."""
    if math.isfinite(prior.largest):
        return math.inf
    return 0.5 / prior.scale**2 if isinstance(prior, HalfNormal) else 0.0


def without_mean(design: AreaDesign, mean: Estimates | None) -> tuple[str, ...]:
    """A sentence on the areas whose mean or sd does not exist on the scale of the data."""
    if mean is None or not (lost := np.isnan(mean.estimate) | np.isnan(mean.se)).any():
        return ()
    return (
        "The posterior mean or sd of exp θ does not exist under this prior of the area sd, whose tail is too heavy, "
        f"for areas without a direct estimate: {listed(design.areas[lost])}. Their intervals stand; a prior that ends, "
        "such as hl.priors.Uniform, gives them a mean.",
    )


def with_means(design: AreaDesign, draws: Draws) -> Draws:
    """Draws with the variable `mean` (area), g(θ), where the model is on another scale than the data."""
    scale = scale_of(design)
    if scale is None:
        return draws
    dims, theta = draws.variables["theta"]
    direct, mean = design.role == "direct", scale.back(theta)
    mean[..., direct] = design.as_given[0][direct]
    return replace(draws, variables={**draws.variables, "mean": (dims, mean)})
