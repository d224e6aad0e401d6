"""The posterior of a spatial area-level model from Markov chains, as the result type of the exact engine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.areaposterior import existing
from hierlmm.bayes.areascale import with_means, without_mean
from hierlmm.bayes.compile_spatial import hierarchical_spatial_model, marginal_spatial_model, spatial_mode
from hierlmm.bayes.propriety import Propriety, area_propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws
from hierlmm.bayes.sample import Chains, NutsOptions, run, spoken
from hierlmm.bayes.sample_area import means_of_draws
from hierlmm.bayes.sample_summaries import covariance, summarise
from hierlmm.bayes.spatial import Nodes, nodes_of
from hierlmm.bayes.spatial_limits import Limits
from hierlmm.bayes.spatial_posterior import averaged, means_given
from hierlmm.bayes.spatial_results import SpatialAreaPosterior
from hierlmm.bayes.spatial_surface import Surface
from hierlmm.design.types import AreaDesign

Array = NDArray[np.float64]

# Draws of (A, rho) that the terms of the posterior variance are averaged over: each needs a decomposition.
NODES = 200


def sample_spatial(
    design: AreaDesign, priors: ResolvedPriors, options: NutsOptions, seed: int
) -> SpatialAreaPosterior:
    """Sample a spatial area-level model; raises PriorError where its posterior is improper, else as `run`.

    Means, sds and intervals of beta, A, rho and theta are those of the draws, with their Monte Carlo errors. E[gamma|y]
    and the three terms of the posterior variance are averages of their closed forms over some 200 of the draws.
    """
    surface = Surface.of(design, priors)
    propriety = _propriety(surface)
    mode = spatial_mode(design, priors)
    watched = ["beta", "tau", "rho"] if design.fixed else ["tau", "rho"]
    if options.form == "marginal":
        chains = run(marginal_spatial_model(design, priors, mode), watched, options, seed)
    else:
        model = hierarchical_spatial_model(design, priors, mode, next(iter(mode.centring.values())))
        chains = run(model, [*watched, "theta"], options, seed)
    sample = with_means(design, complete(surface, chains.draws, np.random.default_rng([seed, 1])))
    return _result(surface, propriety, chains, sample, seed, spoken(mode.centring, options.form))


def _propriety(surface: Surface) -> Propriety:
    design, prior = surface.design, surface.sd
    middle = float(surface.rho(np.zeros(1))[0])

    def along(log_tau: Array) -> Array:
        tau = np.exp(log_tau)
        return surface.loglik(tau**2, middle) + prior.log_density(tau) + log_tau

    centre = 0.5 * math.log(float(np.median(surface.problem.errors.d)))
    return area_propriety(surface.priors, int(design.sampled.sum()), along, centre)


def complete(surface: Surface, draws: Draws, rng: np.random.Generator) -> Draws:
    """Draws of beta, tau, A, rho and theta of all areas; theta drawn given the others where the draws have none."""
    design = surface.design
    tau, rho = draws.variables["tau"][1], draws.variables["rho"][1]
    beta = draws.variables["beta"][1] if "beta" in draws.variables else np.zeros((*tau.shape, 0))
    if "theta" in draws.variables:
        theta = draws.variables["theta"][1].copy()
        theta[..., design.role == "direct"] = design.y[design.role == "direct"]
    else:
        theta = np.empty((*tau.shape, len(design.areas)))
        delta = beta - surface.problem.model.work.beta_ols
        for where in np.ndindex(tau.shape):
            at = surface.shared.decomposed(float(rho[where]))
            noise = rng.standard_normal((1, len(design.areas)))
            theta[where] = means_given(surface, at, tau[where][None] ** 2, delta[where][None], noise)[0]
    return Draws(
        variables={
            "beta": (("term",), beta),
            "tau": ((), tau),
            "A": ((), tau**2),
            "rho": ((), rho),
            "theta": (("area",), theta),
        },
        coords={"term": design.fixed, "area": tuple(design.areas)},
        stats=draws.stats,
    )


def _result(
    surface: Surface, plain: Propriety, chains: Chains, sample: Draws, seed: int, how: str
) -> SpatialAreaPosterior:
    design, priors, limits = surface.design, surface.priors, Limits.of(surface)
    propriety = limits.narrowed(plain)
    values = {name: value for name, (_, value) in sample.variables.items()}
    nodes = _nodes(surface, values["A"].ravel(), values["rho"].ravel())
    limit = next(iter(propriety.sd.values()))
    fixed = existing(summarise(values["beta"]), np.array([propriety.fixed[term] for term in design.fixed]))
    drawn = replace(
        averaged(nodes, design), beta=fixed, cov_beta=covariance(values["beta"]), theta=summarise(values["theta"])
    )
    mean = means_of_draws(design, priors, values)
    return SpatialAreaPosterior(
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
            *limits.notes(design.fixed),
            *without_mean(design, mean),
        ),
        seed=seed,
        sample=sample,
        fixed_effects=fixed,
        cov_beta=limits.existing_covariance(drawn.cov_beta),
        terms=limits.existing_areas(drawn, design, plain),
        variance=existing(summarise(np.stack([values["A"], values["tau"]], axis=-1)), limit / np.array([2.0, 1.0])),
        A_nodes=nodes.A,
        weight=nodes.weight,
        mean=mean,
        rho_nodes=nodes.rho,
        rho_terms=summarise(values["rho"][..., None]),
    )


def _nodes(surface: Surface, A: Array, rho: Array) -> Nodes:
    """Moments at some of the draws, of equal weight."""
    kept = np.linspace(0, A.size - 1, min(A.size, NODES)).astype(np.intp)
    return nodes_of(surface, A[kept], rho[kept], np.full(kept.size, 1 / kept.size))
