"""The posterior of an area-level model from Markov chains, as the result type of the exact engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.areaposterior import existing, existing_areas
from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.areascale import moments_exist, with_means, without_mean
from hierlmm.bayes.areaterms import average, conditional
from hierlmm.bayes.compile_area import hierarchical_area_model, marginal_area_model
from hierlmm.bayes.compile_mode import area_mode
from hierlmm.bayes.correlated import draw_effects
from hierlmm.bayes.propriety import Propriety, area_propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws, Estimates
from hierlmm.bayes.sample import Chains, NutsOptions, run, spoken
from hierlmm.bayes.sample_summaries import covariance, summarise
from hierlmm.design.types import AreaDesign

Array = NDArray[np.float64]

# Numbers in the arrays (draws of A, areas) that the terms of the posterior variance are averaged over: 160 MB each.
LARGEST = 20_000_000


def sample_area(design: AreaDesign, priors: ResolvedPriors, options: NutsOptions, seed: int) -> AreaPosterior:
    """Sample an area-level model; raises PriorError where its posterior is improper, else as `run`.

    Means, sds and intervals of beta, A and theta are those of the draws, with their Monte Carlo errors. E[gamma|y]
    and the three terms of the posterior variance are averages of their closed forms over the draws of A, so they add
    up to the variance of the draws within Monte Carlo error.
    """
    propriety = _propriety(design, priors)
    mode = area_mode(design)
    watched = ["beta", "tau"] if design.fixed else ["tau"]
    if options.form == "marginal":
        chains = run(marginal_area_model(design, priors, mode), watched, options, seed)
    else:
        model = hierarchical_area_model(design, priors, mode, next(iter(mode.centring.values())))
        chains = run(model, [*watched, "theta"], options, seed)
    how = spoken(mode.centring, options.form)
    sample = with_means(design, complete(design, chains.draws, np.random.default_rng([seed, 1])))
    return _result(design, priors, propriety, chains, sample, seed, how)


def _propriety(design: AreaDesign, priors: ResolvedPriors) -> Propriety:
    D = design.D[design.sampled]

    def log_density(log_tau: Array) -> Array:
        tau = np.exp(log_tau)
        return conditional(design, priors, tau**2).loglik + priors.factors[0].sd[0].log_density(tau) + log_tau

    return area_propriety(priors, D.size, log_density, 0.5 * math.log(float(np.median(D))))


def complete(design: AreaDesign, draws: Draws, rng: np.random.Generator) -> Draws:
    """Draws of beta, tau, A and theta of every area of the design, in table order.

    theta of the areas in the fit is taken from the draws or, where these have none, drawn given beta and A: normal
    with mean gamma y + (1 - gamma) x'beta and variance gamma D. An area without a direct estimate is a draw from the
    population, an area of sampling variance 0 its direct estimate.
    """
    into, out, direct = design.sampled, design.role == "unsampled", design.role == "direct"
    tau = draws.variables["tau"][1]
    beta = draws.variables["beta"][1] if "beta" in draws.variables else np.zeros((*tau.shape, 0))
    mean = beta @ design.X.T + design.offset
    theta = mean + tau[..., None] * np.where(out, rng.standard_normal(mean.shape), 0.0)
    theta[..., direct] = design.y[direct]
    if "theta" in draws.variables:
        theta[..., into] = draws.variables["theta"][1]
    else:
        theta[..., into] += _effects(design, design.y[into] - mean[..., into], tau, rng)
    return Draws(
        variables={
            "beta": (("term",), beta),
            "tau": ((), tau),
            "A": ((), tau**2),
            "theta": (("area",), theta),
        },
        coords={"term": design.fixed, "area": tuple(design.areas)},
        stats=draws.stats,
    )


def _effects(design: AreaDesign, residual: Array, tau: Array, rng: np.random.Generator) -> Array:
    """Effects (chains, draws, m) of the areas in the fit given tau (chains, draws) and y - x'beta."""
    if design.covariance is not None:
        flat = draw_effects(design, residual.reshape(-1, residual.shape[-1]), tau.ravel() ** 2, rng)
        return flat.reshape(residual.shape)
    D = design.D[design.sampled]
    gamma = tau[..., None] ** 2 / (tau[..., None] ** 2 + D)
    return np.asarray(gamma * residual + np.sqrt(gamma * D) * rng.standard_normal(gamma.shape))


def _result(
    design: AreaDesign, priors: ResolvedPriors, propriety: Propriety, chains: Chains, sample: Draws, seed: int, how: str
) -> AreaPosterior:
    values = {name: value for name, (_, value) in sample.variables.items()}
    A = values["A"].ravel()
    A = A[:: max(1, math.ceil(A.size * len(design.areas) / LARGEST))]
    weight = np.full(A.size, 1.0 / A.size)
    limit = next(iter(propriety.sd.values()))
    fixed = existing(summarise(values["beta"]), np.array([propriety.fixed[term] for term in design.fixed]))
    terms = average(design, conditional(design, priors, A), A, weight)
    drawn = replace(terms, beta=fixed, cov_beta=covariance(values["beta"]), theta=summarise(values["theta"]))
    variance = summarise(np.stack([values["A"], values["tau"]], axis=-1))
    mean = means_of_draws(design, priors, values)
    return AreaPosterior(
        design=design,
        engine="nuts",
        priors=priors,
        propriety=propriety,
        diagnostics=chains.diagnostics.as_mapping(),
        notes=(
            *chains.diagnostics.failures,
            *chains.diagnostics.retries,
            how,
            *design.notes,
            *propriety.missing(),
            *without_mean(design, mean),
        ),
        seed=seed,
        sample=sample,
        fixed_effects=fixed,
        cov_beta=drawn.cov_beta,
        terms=existing_areas(drawn, design, propriety),
        variance=existing(variance, limit / np.array([2.0, 1.0])),
        A_nodes=A,
        weight=weight,
        mean=mean,
    )


def means_of_draws(design: AreaDesign, priors: ResolvedPriors, values: Mapping[str, Array]) -> Estimates | None:
    """Summaries of the draws on the scale of the data, nan where a mean or sd does not exist; None without them."""
    if "mean" not in values:
        return None
    found = summarise(values["mean"])
    first, second = (moments_exist(design, priors, design.X, design.role, order) for order in (1, 2))
    return replace(
        found,
        estimate=np.where(first, found.estimate, np.nan),
        se=np.where(second, found.se, np.nan),
        mcse=np.where(second, found.mcse, np.nan),
    )
