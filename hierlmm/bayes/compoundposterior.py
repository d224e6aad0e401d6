"""The exact posterior of a compound model: hyperparameters integrated, units conjugate given them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundlattice import HyperLattice, integrate
from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.compoundpropriety import compound_propriety, mean_limit
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.compoundsampling import HyperSample, sample
from hierlmm.bayes.compoundunits import prior_means, unit_quantiles
from hierlmm.bayes.plane import AGREE
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.results import TAILS, Draws, Engine, Estimates
from hierlmm.design.compound import CompoundDesign
from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import link_of, mean_of

Array = NDArray[np.float64]
PROBABILITIES = np.array([TAILS[0], 0.5, TAILS[1]])
# Ends of the numbers among which quantiles of positive quantities are looked for.
SMALLEST, LARGEST = 1e-300, 1e300
# Draws times units that are worked on at once.
SLAB = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """A parameter of the prior as a function of the hyperparameters.

    part, term  its labels
    value       (beta (N, p), tau (N,)) -> (N,)
    bound       (x, tau) -> the β at which it is x, for quantities of β; None: a function of tau alone
    moments     E[q^k | y] exists iff k is below this
    """

    part: str
    term: str
    value: Callable[[Array, Array], Array]
    bound: Callable[[float, Array], Array] | None
    moments: float


def exact(design: CompoundDesign, priors: CompoundPriors, draws: int, seed: int) -> CompoundPosterior:
    """By integration over two hyperparameters or one, by importance sampling over more."""
    target = CompoundTarget.of(design, priors)
    propriety = compound_propriety(target)
    rng = np.random.default_rng(seed)
    found: HyperLattice | HyperSample
    if target.data.X.shape[1] <= 1:
        found = integrate(target, propriety)
        rows = quantities(design, priors, propriety)
        hyper, median = _exact_rows(found, rows)
        mcse = None
    else:
        found = sample(target, rng)
        rows = quantities(design, priors, propriety)
        hyper, median = _sampled_rows(found, rows)
        mcse = found.mcse
    sampled = draw(design, *found.draw(draws, rng), rng)
    diagnostics, notes = _diagnostics(found)
    post = assembled(
        design, "integrate", priors, propriety, target, rows, hyper, median, found.weight, found.beta, found.tau,
        diagnostics, (*design.notes, *notes, *missing(rows, target)), seed, sampled,
    )  # fmt: skip
    if isinstance(found, HyperLattice):
        post = replace(post, coarse=found.coarse, spacing=found.spacing)
    return with_units(post, target, mcse)


def assembled(
    design: CompoundDesign,
    engine: Engine,
    priors: CompoundPriors,
    propriety: Propriety,
    target: CompoundTarget,
    rows: tuple[Quantity, ...],
    hyper: Estimates,
    median: Array,
    weight: Array,
    beta: Array,
    tau: Array,
    diagnostics: dict[str, float | int | str],
    notes: tuple[str, ...],
    seed: int,
    sampled: Draws,
) -> CompoundPosterior:
    """The posterior with the summaries of its units still to be filled in."""
    M = len(design.units)
    nothing = np.full(M, np.nan)
    limit = np.where(design.sampled, math.inf, mean_limit(target))
    return CompoundPosterior(
        design=design, engine=engine, priors=priors, propriety=propriety, diagnostics=diagnostics, notes=notes,
        seed=seed, sample=sampled, terms=tuple((row.part, row.term) for row in rows), hyper=hyper, median=median,
        theta=Estimates(nothing, nothing, nothing, nothing, nothing), finite=np.stack([limit > 1, limit > 2], axis=1),
        gamma=nothing, prior_mean=nothing, weight=weight, beta=beta, tau=tau,
        coarse=np.ones(len(weight), dtype=bool), spacing=np.zeros(len(weight)), area=None,
    )  # fmt: skip


def with_units(
    post: CompoundPosterior, target: CompoundTarget, mcse: Callable[[Array], Array] | None
) -> CompoundPosterior:
    """Means, sds and intervals of the units, mixed over the hyperparameters."""
    design, family = post.design, target.data.family
    M = len(design.units)
    mean, square, gamma, prior_mean, error = (np.zeros(M) for _ in range(5))
    centre = centre_of(target, post.propriety)
    each = max(1, SLAB // len(post.weight))
    for first in range(0, M, each):
        here = slice(first, min(first + each, M))
        mu = prior_means(design, post.beta, here)
        law = posterior(family, design.y[here], design.size[here], mu, post.tau[:, None] ** 2)
        with np.errstate(over="ignore"):  # of moments that do not exist
            mean[here] = post.weight @ law.mean
            square[here] = post.weight @ (law.variance + (law.mean - mean[here]) ** 2)
        gamma[here] = post.weight @ law.gamma
        if centre == "mean":
            prior_mean[here] = post.weight @ mu
        elif centre == "geometric mean":
            prior_mean[here] = mean_of(family, post.weight @ (post.beta @ design.X[here].T + design.offset[here]))
        else:
            prior_mean[here] = np.nan
        error[here] = 0.0 if mcse is None else mcse(law.mean)
    lower, upper = unit_quantiles(post, np.array(TAILS))
    exists, spread = post.finite.T
    theta = Estimates(
        np.where(exists, mean, np.nan), np.where(spread, np.sqrt(square), np.nan), lower, upper,
        np.where(exists, error, np.nan),
    )  # fmt: skip
    return replace(post, theta=theta, gamma=gamma, prior_mean=prior_mean)


def centre_of(target: CompoundTarget, propriety: Propriety) -> Literal["mean", "geometric mean", "none"]:
    """Which centre of the posterior of the prior means exists."""
    if mean_limit(target) > 1:
        return "mean"
    return "geometric mean" if all(limit > 1 for limit in propriety.fixed.values()) else "none"


def quantities(design: CompoundDesign, priors: CompoundPriors, propriety: Propriety) -> tuple[Quantity, ...]:
    """The rows of `hyperparameters`, as the fit has them."""
    poisson = design.spec.family == "poisson"
    rows = [
        Quantity("fixed", term, lambda beta, tau, k=k: beta[:, k], _same, propriety.fixed[term])  # type: ignore[misc]
        for k, term in enumerate(design.fixed)
    ]
    at_zero, limit = priors.tau.orders[0], propriety.sd["tau"]
    inverse = at_zero / 2  # E[tau^(-2k)] exists iff 2k < a
    rows.append(Quantity("prior", "shape" if poisson else "precision", lambda beta, tau: tau**-2.0, None, inverse))
    if design.fixed == ("Intercept",) and not design.spec.offset:
        rows += _common(poisson, inverse, math.inf if not priors.flat else 0.0, limit)
    rows.append(Quantity("prior", "tau", lambda beta, tau: tau, None, limit))
    return tuple(rows)


def _same(x: float, tau: Array) -> Array:
    return np.full_like(tau, x)


def _common(poisson: bool, inverse: float, mean: float, limit: float) -> Iterable[Quantity]:
    """Parameters of a common prior. With a flat log μ the mean of a gamma has no moments."""
    if poisson:
        yield Quantity("prior", "mean", lambda b, t: np.exp(b[:, 0]), lambda x, t: np.full_like(t, math.log(x)), mean)
        yield Quantity(
            "prior", "rate", lambda b, t: np.exp(-b[:, 0]) / t**2, lambda x, t: -2 * np.log(t) - math.log(x), inverse
        )
        yield Quantity(
            "prior", "variance", lambda b, t: np.exp(2 * b[:, 0]) * t**2,
            lambda x, t: 0.5 * math.log(x) - np.log(t), min(mean, limit / 2),
        )  # fmt: skip
        return

    def expit(b: Array) -> Array:
        return np.asarray(mean_of("binomial", b[:, 0]))

    def logit(mu: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.asarray(link_of("binomial", np.clip(mu, 0.0, 1.0)), dtype=np.float64)

    yield Quantity("prior", "mean", lambda b, t: expit(b), lambda x, t: logit(np.full_like(t, x)), math.inf)
    yield Quantity("prior", "alpha", lambda b, t: expit(b) / t**2, lambda x, t: logit(x * t**2), inverse)
    yield Quantity("prior", "beta", lambda b, t: expit(-b) / t**2, lambda x, t: -logit(x * t**2), inverse)


def _exact_rows(found: HyperLattice, rows: tuple[Quantity, ...]) -> tuple[Estimates, Array]:
    tau = found.tau_quantiles(PROBABILITIES)
    ends, centre = [], []
    for row in rows:
        value = _values(row, found)
        if row.bound is None:
            ends.append(np.sort(row.value(np.zeros((3, found.beta.shape[1])), tau)))
        else:
            ends.append(found.quantiles(row.bound, value, PROBABILITIES, positive=row.part == "prior"))
        centre.append(_moments(found.weight, value, row.moments))
    mean, sd = np.array(centre).T
    low, median, high = np.array(ends).T
    return Estimates(mean, sd, low, high, np.where(np.isnan(mean), np.nan, 0.0)), median


def _values(row: Quantity, found: HyperLattice | HyperSample) -> Array:
    """The quantity at the nodes: a positive one as far as floating point goes."""
    with np.errstate(over="ignore"):
        value = row.value(found.beta, found.tau)
    return np.clip(value, SMALLEST, LARGEST) if row.part == "prior" else value


def _moments(weight: Array, value: Array, limit: float) -> tuple[float, float]:
    """Weighted mean and sd of values, nan where they do not exist."""
    if not limit > 1:
        return math.nan, math.nan
    mean = float(weight @ value)
    if not limit > 2:
        return mean, math.nan
    with np.errstate(over="ignore"):
        return mean, float(np.sqrt(weight @ (value - mean) ** 2))


def _sampled_rows(found: HyperSample, rows: tuple[Quantity, ...]) -> tuple[Estimates, Array]:
    values = np.stack([_values(row, found) for row in rows], axis=1)
    mean, sd = np.array([_moments(found.weight, v, row.moments) for v, row in zip(values.T, rows, strict=True)]).T
    low, median, high = np.array([_weighted_quantiles(found.weight, v) for v in values.T]).T
    return Estimates(mean, sd, low, high, np.where(np.isnan(mean), np.nan, found.mcse(values))), median


def _weighted_quantiles(weight: Array, value: Array) -> Array:
    order = np.argsort(value, kind="stable")
    share = np.cumsum(weight[order]) - 0.5 * weight[order]
    return np.asarray(np.interp(PROBABILITIES, share, value[order]))


def draw(design: CompoundDesign, beta: Array, tau: Array, rng: np.random.Generator) -> Draws:
    """Draws of θ of all units given draws of the hyperparameters."""
    family = design.spec.family
    mu = prior_means(design, beta, slice(None))
    theta = posterior(family, design.y, design.size, mu, tau[:, None] ** 2).draw(rng, mu.shape)
    return Draws(
        variables={"beta": (("term",), beta[None]), "tau": ((), tau[None]), "theta": (("unit",), theta[None])},
        coords={"term": design.fixed, "unit": tuple(design.units)},
    )


def missing(rows: Iterable[Quantity], target: CompoundTarget) -> tuple[str, ...]:
    """One sentence for the means and sds that do not exist."""
    none = [row.term for row in rows if not row.moments > 1]
    half = [row.term for row in rows if row.moments > 1 and not row.moments > 2]
    lines = []
    if none:
        lines.append(f"No posterior mean exists of {', '.join(none)} under these priors; the median does.")
    if half:
        lines.append(f"No posterior sd exists of {', '.join(half)} under these priors.")
    return tuple(lines)


def _diagnostics(found: HyperLattice | HyperSample) -> tuple[dict[str, float | int | str], tuple[str, ...]]:
    if isinstance(found, HyperSample):
        return {
            "method": "Pareto-smoothed importance sampling of the hyperparameters, units exact given them",
            "pareto_k": found.weights.k,
            "effective_sample_size": found.weights.ess,
            "rounds": found.rounds,
            "log_marginal_likelihood": found.log_mass,
        }, ()
    notes: tuple[str, ...] = ()
    if found.error > AGREE:
        notes = (f"The posterior is barely proper: the integral is good to about {found.error:.0e}, relatively.",)
    return {
        "method": "lattice over the hyperparameters, units exact given them",
        "nodes": int(found.weight.size),
        "relative_error": found.error,
        "log_marginal_likelihood": found.log_mass,
    }, notes
