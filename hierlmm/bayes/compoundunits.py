"""Units of a compound posterior: mixtures of conjugate laws over the hyperparameters, and their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.bayes.areaterms import conditional, quadratic
from hierlmm.bayes.tables import table, wrapped
from hierlmm.design import asked
from hierlmm.design.asked import probabilities
from hierlmm.design.compound import CompoundDesign
from hierlmm.errors import FitError, listed
from hierlmm.likelihood.compound import mixtures
from hierlmm.likelihood.compound.conjugate import Posterior, matched, posterior
from hierlmm.likelihood.compound.marginal import mean_of
from hierlmm.likelihood.compound.unitlaw import UnitPosterior

if TYPE_CHECKING:
    from hierlmm.bayes.compoundresults import CompoundPosterior

Array = NDArray[np.float64]
# sds of a unit's law in the distance of its means at neighbouring nodes from which their sum is smooth to 1e-12.
OVERLAP = 1.2
# Logarithms or logits of prior means beyond these are these: squares of the means are still numbers.
FAR = 300.0
HOW = {"integrate": "Exact posterior by integration", "nuts": "Posterior by NUTS (PyMC)"}


def laws(post: CompoundPosterior, which: NDArray[np.intp]) -> Posterior:
    """Laws (K, J) of the units at places `which` (J,), given each value of the hyperparameters."""
    design, family = post.design, post.spec.family
    if post.area is not None:
        return _normal(post, which)
    mu = prior_means(design, post.beta, which)
    return posterior(family, design.y[which], design.size[which], mu, post.tau[:, None] ** 2)


def prior_means(design: CompoundDesign, beta: Array, which: NDArray[np.intp] | slice) -> Array:
    """Prior means (K, J) of units of counts given beta (K, p), within floating point."""
    eta = np.clip(beta @ design.X[which].T + design.offset[which], -FAR, FAR)
    return mean_of("poisson" if design.spec.family == "poisson" else "binomial", eta)


def _normal(post: CompoundPosterior, which: NDArray[np.intp]) -> Posterior:
    """Normal laws given A with β integrated out: mean γ y + (1 − γ) x'β̂, variance g1 + g2."""
    area = post.area
    assert area is not None
    design, A = area.design, area.A_nodes
    at = conditional(design, area.priors, A)
    X = design.X[which]
    fitted = at.beta @ X.T + design.offset[which]
    there = design.sampled[which]
    D = np.where(there, design.D[which], 1.0)
    gamma = np.where(there, A[:, None] / (A[:, None] + D), 0.0)
    y = np.where(there, design.y[which], 0.0)
    mean = fitted + gamma * (y - fitted)
    variance = np.where(there, gamma * D, A[:, None]) + (1 - gamma) ** 2 * quadratic(at.cov_beta, X)
    return Posterior("normal", mean, variance, mean, variance, gamma)


def components(post: CompoundPosterior, which: NDArray[np.intp], every: bool) -> tuple[Array, Posterior]:
    """Weights (K',) and laws (K', J) whose mixture is the posterior of the units at places `which`.

    every  all nodes of the lattice rather than those that are enough for quantiles. On lines of so small a tau that
           laws at neighbouring nodes do not overlap, the law given tau is the gamma or beta with its mean and variance:
           in the limit tau = 0 that is the posterior of μ, which is a gamma (flat log μ) or beta (flat μ) itself
    """
    keep = post.weight > mixtures.NEGLIGIBLE * post.weight.max()
    if not every:
        keep &= post.coarse
    law = laws(post, which)
    law = Posterior(law.family, *(part[keep] for part in (law.mean, law.variance, law.a, law.b, law.gamma)))
    weight = post.weight[keep] / post.weight[keep].sum()
    step = 1.0 if every or post.coarse.all() else 2.0
    apart = post.tau[keep] < OVERLAP * step * post.spacing[keep]
    if not apart.any():
        return weight, law
    tau, line = np.unique(post.tau[keep][apart], return_inverse=True)
    onto = np.zeros((len(tau), int(apart.sum())))
    onto[line, np.arange(len(line))] = weight[apart]
    total = onto.sum(axis=1)
    mean = onto @ law.mean[apart] / total[:, None]
    spread = onto @ (law.variance[apart] + (law.mean[apart] - mean[line]) ** 2) / total[:, None]
    joined = matched(law.family, mean, spread)
    parts = [
        np.concatenate([getattr(law, name)[~apart], getattr(joined, name)])
        for name in ("mean", "variance", "a", "b", "gamma")
    ]
    return np.concatenate([weight[~apart], total]), Posterior(law.family, *parts)


def posterior_of(post: CompoundPosterior, unit: object) -> UnitPosterior:
    """The posterior of the unit with this label."""
    found = np.flatnonzero(post.design.units == unit)
    if found.size != 1:
        known = listed(post.design.units[:3])
        raise FitError(f"A unit is named by its label, such as {known}; found {unit!r}. Use one of these.")
    finite = post.finite[found[0]]
    return UnitPosterior(unit, *components(post, found, every=True), (bool(finite[0]), bool(finite[1])))


def quantile_frame(post: CompoundPosterior, probability: ArrayLike) -> pd.DataFrame:
    """unit, then one column a probability."""
    levels = probabilities(probability)
    values = unit_quantiles(post, levels)
    return pd.DataFrame({"unit": post.design.units, **{f"{p:g}": row for p, row in zip(levels, values, strict=True)}})


def unit_quantiles(post: CompoundPosterior, levels: Array) -> Array:
    """(P, M) quantiles of θ of all units."""
    M = len(post.design.units)
    each = max(1, mixtures.SLAB // (int(post.coarse.sum()) * len(levels)))
    parts = [
        mixtures.roots(*components(post, np.arange(first, min(first + each, M)), every=False), levels)
        for first in range(0, M, each)
    ]
    return np.concatenate(parts, axis=1)


def exceedance_frame(post: CompoundPosterior, threshold: float) -> pd.DataFrame:
    """unit, probability."""
    above = asked.threshold(threshold)
    weight, law = components(post, np.arange(len(post.design.units)), every=True)
    return pd.DataFrame({"unit": post.design.units, "probability": 1 - weight @ law.cdf(above)})


def summary(post: CompoundPosterior) -> str:
    """Model, priors, hyperparameters, units, diagnostics and notes."""
    number = post.sample.chains * post.sample.number
    failures = post.diagnostics.get("failures")
    first = ["This posterior failed its checks and must not be relied on:\n" + "\n".join(wrapped([str(failures)]))]
    numbers = [
        f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in post.diagnostics.items()
        if value != ""
    ]
    columns = ["unit", "direct", "estimate", "se", "lower", "upper", "shrinkage"]
    hyper = post.hyperparameters.drop(columns="mcse")
    parts = [
        *(first if failures else []),
        str(post.spec),
        f"{HOW[post.engine]}; {number} draws, seed {post.seed}",
        "Priors\n" + "\n".join(wrapped(post.priors.describe())),
        "Hyperparameters (posterior mean, sd, 95 % interval, median)\n" + table(hyper, len(hyper)),
        "Units\n" + table(post.units[columns]),
        "Diagnostics\n" + "\n".join(wrapped(numbers)),
        "\n".join(wrapped([post.propriety.rule])),
        *(["Notes\n" + "\n".join(wrapped(post.notes))] if post.notes else []),
    ]
    return "\n\n".join(parts)
