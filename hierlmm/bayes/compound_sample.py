"""The posterior of compound counts from Markov chains, as the result type of the exact engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_mode import NEAR_ZERO
from hierlmm.bayes.compound_compile import compound_model
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundposterior import Quantity, assembled, centre_of, missing, quantities
from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.compoundpropriety import compound_propriety
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.compoundunits import prior_means
from hierlmm.bayes.results import Draws, Estimates
from hierlmm.bayes.sample import Form, NutsOptions, run
from hierlmm.bayes.sample_summaries import summarise
from hierlmm.design.compound import CompoundDesign
from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import mean_of
from hierlmm.likelihood.compound.maximum import estimate, informative
from hierlmm.likelihood.compound.profile import profile

Array = NDArray[np.float64]

# Draws kept for the laws of single units.
KEPT = 4000


def sample_compound(
    design: CompoundDesign, priors: CompoundPriors, draws: int, seed: int, nuts: NutsOptions | None
) -> CompoundPosterior:
    """Sample a model of counts; raises PriorError where its posterior is improper, else as `run`.

    In the marginal form the units' parameters are drawn from their conjugate laws afterwards. Unless `nuts` says
    otherwise that form is taken where tau comes near zero: there the units' parameters narrow into a funnel.
    """
    target = CompoundTarget.of(design, priors)
    propriety = compound_propriety(target)
    if nuts is None:
        form: Form = "hierarchical" if away_from_zero(target) else "marginal"
        options = NutsOptions(draws=max(4, -(-draws // 4)), form=form)
    else:
        options = nuts
    watched = [*(["beta"] if design.fixed else []), "tau", *([] if options.form == "marginal" else ["theta"])]
    chains = run(compound_model(design, priors, options.form), watched, options, seed)
    sample = complete(design, chains.draws, np.random.default_rng([seed, 1]))
    values = {name: value for name, (_, value) in sample.variables.items()}
    beta, tau, theta = values["beta"], values["tau"], values["theta"]
    rows = quantities(design, priors, propriety)
    hyper, median = _rows(rows, beta, tau)
    flat_beta, flat_tau = beta.reshape(-1, beta.shape[-1]), tau.ravel()
    every = max(1, math.ceil(flat_tau.size / KEPT))
    kept = flat_tau[::every].size
    how = "The units' parameters were integrated out of the sampled model and drawn from their exact laws."
    notes = (*chains.diagnostics.failures, *chains.diagnostics.retries, *([how] if options.form == "marginal" else []))
    post = assembled(
        design, "nuts", priors, propriety, target, rows, hyper, median, np.full(kept, 1 / kept), flat_beta[::every],
        flat_tau[::every], chains.diagnostics.as_mapping(), (*notes, *design.notes, *missing(rows, target)), seed,
        sample,
    )  # fmt: skip
    return _with_draws(post, target, summarise(theta), flat_beta, flat_tau)


def away_from_zero(target: CompoundTarget) -> bool:
    """Whether the marginal likelihood at tau = 0 is so far below its maximum that draws will not come near."""
    if not informative(target.data)[0]:
        return False
    found = estimate(target.data)
    at_zero = profile(target.data, np.zeros(1), found.beta[None]).value[0]
    return bool(found.converged and found.loglik - at_zero > NEAR_ZERO)


def complete(design: CompoundDesign, draws: Draws, rng: np.random.Generator) -> Draws:
    """Draws of beta, tau and theta of every unit: those sampled, or from the conjugate law; new ones from the prior."""
    tau = draws.variables["tau"][1]
    beta = draws.variables["beta"][1] if "beta" in draws.variables else np.zeros((*tau.shape, 0))
    mu = prior_means(design, beta, slice(None))
    theta = posterior(design.spec.family, design.y, design.size, mu, tau[..., None] ** 2).draw(rng, mu.shape)
    if "theta" in draws.variables:
        theta[..., design.sampled] = draws.variables["theta"][1]
    return Draws(
        variables={"beta": (("term",), beta), "tau": ((), tau), "theta": (("unit",), theta)},
        coords={"term": design.fixed, "unit": tuple(design.units)},
        stats=draws.stats,
    )


def _rows(rows: tuple[Quantity, ...], beta: Array, tau: Array) -> tuple[Estimates, Array]:
    flat = [row.value(beta.reshape(-1, beta.shape[-1]), tau.ravel()).reshape(tau.shape) for row in rows]
    found = summarise(np.stack(flat, axis=-1))
    limit = np.array([row.moments for row in rows])
    exists = limit > 1
    return Estimates(
        np.where(exists, found.estimate, np.nan), np.where(limit > 2, found.se, np.nan), found.lower, found.upper,
        np.where(exists, found.mcse, np.nan),
    ), np.array([np.median(values) for values in flat])  # fmt: skip


def _with_draws(
    post: CompoundPosterior, target: CompoundTarget, theta: Estimates, beta: Array, tau: Array
) -> CompoundPosterior:
    design, family = post.design, target.data.family
    eta = beta @ design.X.T + design.offset
    mu = prior_means(design, beta, slice(None))
    gamma = posterior(family, design.y, design.size, mu, tau[:, None] ** 2).gamma.mean(axis=0)
    centre = centre_of(target, post.propriety)
    prior_mean = mu.mean(axis=0) if centre == "mean" else mean_of(family, eta.mean(axis=0))
    prior_mean = np.where(centre == "none", np.nan, prior_mean)
    exists, spread = post.finite.T
    estimates = Estimates(
        np.where(exists, theta.estimate, np.nan), np.where(spread, theta.se, np.nan), theta.lower, theta.upper,
        np.where(exists, theta.mcse, np.nan),
    )  # fmt: skip
    return replace(post, theta=estimates, gamma=gamma, prior_mean=prior_mean)
