"""The posterior of a linear mixed model from Markov chains, as the result type of the exact engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.areaposterior import existing
from hierlmm.bayes.compile_lmm import hierarchical_lmm
from hierlmm.bayes.compile_marginal import marginal_lmm
from hierlmm.bayes.compile_mode import lmm_mode
from hierlmm.bayes.components import components, values
from hierlmm.bayes.density import Target, Variances, target
from hierlmm.bayes.lmmposterior import existing_terms
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.lmmterms import LMMTerms, Points, partners
from hierlmm.bayes.proprietylmm import lmm_propriety, refuse_exact_fit
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws
from hierlmm.bayes.sample import Chains, NutsOptions, run, spoken
from hierlmm.bayes.sample_summaries import covariance, summarise
from hierlmm.design.types import LMMDesign
from hierlmm.likelihood.blup import covariances, draw
from hierlmm.likelihood.marginal import batches, marginal

Array = NDArray[np.float64]

# Draws of the variance parameters over which the conditional variances of the effects are averaged: these vary by
# some ten per cent between draws, so that their mean is good to under one per cent.
FOR_CONDITIONAL = 200


def sample_lmm(design: LMMDesign, priors: ResolvedPriors, options: NutsOptions, seed: int) -> LMMPosterior:
    """Sample a linear mixed model; raises PriorError where its posterior is improper, else as `run`.

    Means, sds and intervals are those of the draws, with their Monte Carlo errors. Predictions integrate beta and b
    exactly over draws of the variance parameters that are far enough apart to count as independent.
    """
    propriety = lmm_propriety(design, priors)
    of = target(design, priors)
    refuse_exact_fit(of)
    mode = lmm_mode(design)
    watched = _watched(design, options)
    if options.form == "marginal":
        chains = run(marginal_lmm(design, priors, mode), watched, options, seed)
    else:
        chains = run(hierarchical_lmm(design, priors, mode), watched, options, seed)
    sample = complete(of, chains.draws, np.random.default_rng([seed, 1]))
    rows = components(design, propriety)
    at = values(design, variances(design, sample)).reshape(sample.chains, sample.number, len(rows))
    points = thinned(design, sample, chains.diagnostics.ess_bulk[1])
    terms = existing_terms(_terms(of, sample, points), design, propriety)
    report = chains.diagnostics
    return LMMPosterior(
        design=design,
        engine="nuts",
        priors=priors,
        propriety=propriety,
        diagnostics=report.as_mapping(),
        notes=(*_first(chains), spoken(mode.centring, options.form), *design.notes, *propriety.missing()),
        seed=seed,
        sample=sample,
        fixed_effects=terms.beta,
        cov_beta=terms.cov_beta,
        terms=terms,
        components=rows,
        component_estimates=existing(summarise(at), np.array([row.limit for row in rows])),
        points=points,
    )


def _first(chains: Chains) -> tuple[str, ...]:
    """What a reader must know before any number: failed checks, and what earlier attempts failed."""
    return (*chains.diagnostics.failures, *chains.diagnostics.retries)


def _watched(design: LMMDesign, options: NutsOptions) -> list[str]:
    """Names of the variables the chains must agree on."""
    names = ["beta", "sigma"] if design.fixed else ["sigma"]
    for factor in design.factors:
        names.append(f"sd_{factor.name}")
        if any(len(block) > 1 for block in factor.blocks):
            names.append(f"corr_{factor.name}")
        if options.form == "hierarchical":
            names.append(f"b_{factor.name}")
    return names


def variances(design: LMMDesign, sample: Draws) -> Variances:
    """All draws of the variance parameters, chain after chain: K = chains x draws values."""
    K = sample.chains * sample.number
    sd, correlation = [], []
    for factor in design.factors:
        q = len(factor.coefficients)
        sd.append(sample.variables[f"sd_{factor.name}"][1].reshape(K, q))
        own = sample.variables.get(f"corr_{factor.name}")
        correlation.append(np.broadcast_to(np.eye(q), (K, q, q)) if own is None else own[1].reshape(K, q, q))
    return Variances(tuple(sd), tuple(correlation), sample.variables["sigma"][1].reshape(K))


def complete(of: Target, drawn: Draws, rng: np.random.Generator) -> Draws:
    """Draws of beta, sigma, every sd, correlation and effect, under the names of the exact engine.

    Effects that were integrated out of the sampled model are drawn from their exact normal distribution given beta
    and the variance parameters.
    """
    design, shape = of.design, (drawn.chains, drawn.number)
    sigma = drawn.variables["sigma"]
    beta = drawn.variables.get("beta", (("term",), np.zeros((*shape, 0))))
    variables: dict[str, tuple[tuple[str, ...], Array]] = {"beta": beta, "sigma": sigma}
    effects = None
    if any(f"b_{factor.name}" not in drawn.variables for factor in design.factors):
        pooled = beta[1].reshape(shape[0] * shape[1], len(design.fixed))
        effects = _effects(of, variances(design, drawn), pooled, rng)
    coords: dict[str, tuple[object, ...]] = {"term": design.fixed}
    for f, factor in enumerate(design.factors):
        name, coef = factor.name, f"{factor.name}_coef"
        coords |= {coef: factor.coefficients, name: tuple(factor.levels)}
        variables[f"sd_{name}"] = drawn.variables[f"sd_{name}"]
        if f"corr_{name}" in drawn.variables:
            variables[f"corr_{name}"] = drawn.variables[f"corr_{name}"]
            coords[f"{coef}_bis"] = factor.coefficients
        b = drawn.variables[f"b_{name}"][1] if effects is None else effects[f].reshape(*shape, *effects[f].shape[1:])
        variables[f"b_{name}"] = ((name, coef), b)
    return Draws(variables=variables, coords=coords, stats=drawn.stats)


def _effects(of: Target, psi: Variances, beta: Array, rng: np.random.Generator) -> list[Array]:
    """Per factor in the design's order (K, levels, q) effects given y, beta (K, p) and the variance parameters."""
    K, G = psi.sigma.size, psi.G
    b = [np.empty((K, len(f.levels), len(f.coefficients))) for f in of.design.factors]
    for here in batches(of.cp, K):
        at = marginal(of.cp, [G[f][here] for f in of.cp.order], psi.sigma[here] ** 2, of.beta_prior).at
        found = draw(of.cp, at, rng, beta[here])
        for position, f in enumerate(of.cp.order):
            b[f][here] = found.b[position]
    return b


def thinned(design: LMMDesign, sample: Draws, effective: float) -> Points:
    """Draws of the variance parameters so far apart that they count as independent, with equal weights."""
    psi = variances(design, sample)
    step = max(1, int(np.ceil(psi.sigma.size / max(effective, 1.0)))) if np.isfinite(effective) else 1
    kept = psi[np.arange(0, psi.sigma.size, step)]
    K = kept.sigma.size
    return Points(kept, np.full(K, 1.0 / K), np.arange(K))


def _terms(of: Target, sample: Draws, points: Points) -> LMMTerms:
    """Summaries of beta, of every effect and of their sums, from the draws."""
    design = of.design
    beta = sample.variables["beta"][1]
    b = [sample.variables[f"b_{factor.name}"][1] for factor in design.factors]
    sums = [
        np.stack([beta[:, :, None, i] + own[..., k] for i, k in pairs], axis=-1) if pairs else own[..., :0]
        for own, pairs in zip(b, partners(design), strict=True)
    ]
    conditional, within = _given_variances(of, points)
    return LMMTerms(
        beta=summarise(beta),
        cov_beta=covariance(beta),
        b=tuple(summarise(own) for own in b),
        conditional=conditional,
        within=within,
        sums=tuple(summarise(own) for own in sums),
    )


def _given_variances(of: Target, points: Points) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Per factor (levels, q), over the points: root of the mean of Var(b | y, beta, psi), mean of Var(b | y, psi)."""
    K = points.weight.size
    psi = points.psi[np.unique(np.linspace(0, K - 1, min(K, FOR_CONDITIONAL)).astype(int))]
    G, size = psi.G, psi.sigma.size
    shapes = [(len(f.levels), len(f.coefficients)) for f in of.design.factors]
    conditional, within = [np.zeros(shape) for shape in shapes], [np.zeros(shape) for shape in shapes]
    for here in batches(of.cp, size):
        at = marginal(of.cp, [G[f][here] for f in of.cp.order], psi.sigma[here] ** 2, of.beta_prior).at
        found = covariances(of.cp, at)
        for position, f in enumerate(of.cp.order):
            conditional[f] += np.diagonal(found.conditional[position], axis1=2, axis2=3).sum(axis=0)
            within[f] += np.diagonal(found.error[position], axis1=2, axis2=3).sum(axis=0)
    return tuple(np.sqrt(part / size) for part in conditional), tuple(part / size for part in within)
