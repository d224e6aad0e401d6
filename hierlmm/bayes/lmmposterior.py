"""The exact posterior of a linear mixed model: the variance parameters integrated, β and b Gaussian given them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import variancelattice
from hierlmm.bayes.areaposterior import existing
from hierlmm.bayes.components import Component, components, summarised, values
from hierlmm.bayes.density import target
from hierlmm.bayes.importance import Sampled, sample_variances
from hierlmm.bayes.lmmdraws import Resampled, draws_given
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.lmmterms import LMMTerms, average
from hierlmm.bayes.names import check_group_names
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.proprietylmm import lmm_propriety, refuse_exact_fit
from hierlmm.bayes.psis import TRUSTED
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import TAILS
from hierlmm.bayes.variancelattice import VarianceLattice
from hierlmm.design.types import LMMDesign
from hierlmm.errors import FitError

Array = NDArray[np.float64]

# Effective sample size below which a result says so.
FEW = 1000.0


def lmm_posterior(design: LMMDesign, priors: ResolvedPriors, draws: int, seed: int) -> LMMPosterior:
    """The posterior with `draws` draws: on a lattice for one random-effects sd, else by importance sampling.

    Raises DesignError for a grouping factor whose name the draws have already, PriorError where the posterior is
    improper, FitError where it could not be computed to its accuracy.
    """
    check_group_names(design)
    propriety = lmm_propriety(design, priors)
    of = target(design, priors)
    refuse_exact_fit(of)
    rng = np.random.default_rng(seed)
    rows = components(design, propriety)
    notes: tuple[str, ...] = ()
    if len(of.names) == 2:
        found = variancelattice.integrate_variances(of, propriety)
        points = found.points
        limits = lattice_intervals(found, rows)
        diagnostics = _lattice_diagnostics(found)
        averaged = average(of, points)
        sample = draws_given(of, variancelattice.draw(found, draws, rng), rng)
    else:
        sampled = sample_variances(of, rng)
        _refuse_untrusted(sampled)
        points, limits = sampled.points, None
        diagnostics, notes = _sampled_diagnostics(sampled), _few(sampled)
        resampled = Resampled.of(of, points, draws, rng)
        limit = min([*propriety.fixed.values(), *propriety.sd.values()])
        averaged = average(of, points, resampled.visit, limit)
        sample = resampled.draws()
    estimates = summarised(rows, points, values(design, points.psi), limits)
    terms = existing_terms(averaged, design, propriety)
    return LMMPosterior(
        design=design,
        engine="integrate",
        priors=priors,
        propriety=propriety,
        diagnostics=diagnostics,
        notes=(*notes, *design.notes, *propriety.missing()),
        seed=seed,
        sample=sample,
        fixed_effects=terms.beta,
        cov_beta=terms.cov_beta,
        terms=terms,
        components=rows,
        component_estimates=estimates,
        points=points,
    )


def existing_terms(terms: LMMTerms, design: LMMDesign, propriety: Propriety) -> LMMTerms:
    """Means and sds that do not exist made nan: β, and b with it, have the tails of the standard deviations."""
    limit = np.array([propriety.fixed[term] for term in design.fixed])
    worst = np.asarray(min([*propriety.fixed.values(), np.inf]))
    return replace(
        terms,
        beta=existing(terms.beta, limit),
        b=tuple(existing(b, worst) for b in terms.b),
        sums=tuple(existing(s, worst) for s in terms.sums),
    )


def lattice_intervals(found: VarianceLattice, rows: tuple[Component, ...]) -> Array:
    """(2, J) interval ends of the components, each from its own distribution function."""
    factor, tails = found.target.design.factors[0], np.array(TAILS)
    sd, sigma = (variancelattice.interval(found, axis, tails) for axis in (0, 1))
    share = variancelattice.share_interval(found, float((factor.Z**2).mean()), tails)
    columns = []
    for row in rows:
        own = sd if row.group == factor.name else sigma
        if row.quantity == "share":
            columns.append(share if row.group == factor.name else 1.0 - share[::-1])
        else:
            columns.append(own**2 if row.quantity == "variance" else own)
    return np.stack(columns, axis=1)


def _lattice_diagnostics(found: VarianceLattice) -> dict[str, float | int | str]:
    return {
        "method": "lattice over the two log standard deviations, β and b exact given them",
        "nodes": int(found.points.weight.size),
        "relative_error": found.plane.error,
        "log_marginal_likelihood": found.plane.log_mass,
    }


def _few(sampled: Sampled) -> tuple[str, ...]:
    if sampled.weights.ess >= FEW:
        return ()
    return (
        f"The effective number of importance draws is {sampled.weights.ess:.0f}, below {FEW:.0f}: means are good to "
        "the Monte Carlo errors shown. engine='nuts' does not depend on a proposal.",
    )


def _sampled_diagnostics(sampled: Sampled) -> dict[str, float | int | str]:
    return {
        "method": "Pareto-smoothed importance sampling of the variance parameters, β and b exact given them",
        "pareto_k": sampled.weights.k,
        "effective_sample_size": sampled.weights.ess,
        "evaluations": sampled.evaluations,
        "rounds": sampled.rounds,
        "log_marginal_likelihood": sampled.log_mass,
    }


def _refuse_untrusted(sampled: Sampled) -> None:
    if not sampled.trusted:
        raise FitError(
            f"Importance sampling is trusted where the Pareto shape k̂ of its weights is at most {TRUSTED}; found "
            f"{sampled.weights.k:.2f} after {sampled.rounds} rounds and {sampled.evaluations} evaluations. "
            "Use engine='nuts', or priors that keep the variance parameters from running off."
        )


