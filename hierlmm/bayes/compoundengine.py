"""The posterior of a compound spec by the engine that is asked for: area-level for normal sampling, else for counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.areaterms import conditional
from hierlmm.bayes.compoundposterior import exact
from hierlmm.bayes.compoundpriors import CompoundPriors, resolve_compound
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.engines import fresh_seed, of_design
from hierlmm.bayes.priors import Priors
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Draws, Engine, Estimates
from hierlmm.bayes.sample import NutsOptions
from hierlmm.design.compound import CompoundDesign, build_compound
from hierlmm.errors import FitError, SpecError
from hierlmm.spec.compound import CompoundSpec

Array = NDArray[np.float64]


def compound_design(
    spec: CompoundSpec, data: object, matrices: Mapping[str, object] | None = None
) -> CompoundDesign:
    """The design of a compound spec; SpecError for matrices, which it has no use for."""
    if matrices:
        raise SpecError(f"A compound model reads its data from the table alone; found matrices {', '.join(matrices)}.")
    return build_compound(spec, data)


def resolve(priors: Priors, design: CompoundDesign) -> CompoundPriors | ResolvedPriors:
    """Concrete priors: those of the area-level model for normal sampling."""
    return resolve_compound(priors, design) if design.area is None else priors.resolve(design.area)


def compound_posterior(
    design: CompoundDesign,
    priors: CompoundPriors | ResolvedPriors,
    engine: Engine = "integrate",
    draws: int = 4000,
    seed: int | None = None,
    nuts: NutsOptions | None = None,
) -> CompoundPosterior:
    """The posterior of a compound design by the engine that is asked for; raises as `hierlmm.posterior`."""
    known = fresh_seed() if seed is None else int(seed)
    if isinstance(priors, ResolvedPriors):
        assert design.area is not None
        return of_area(design, of_design(design.area, priors, engine, draws, known, nuts))
    if engine == "nuts":
        from hierlmm.bayes.compound_sample import sample_compound

        return sample_compound(design, priors, draws, known, nuts)
    if engine != "integrate":
        raise FitError(f"`engine` is 'integrate' or 'nuts'; found {engine!r}. Use one of these.")
    if nuts is not None:
        raise FitError("`nuts` has options of engine 'nuts'; found engine 'integrate'. Leave it out.")
    return exact(design, priors, draws, known)


def of_area(design: CompoundDesign, area: object) -> CompoundPosterior:
    """An area-level posterior as the compound one that it is."""
    assert isinstance(area, AreaPosterior)
    fixed, A = area.fixed_effects, area.variance
    columns = [np.concatenate([getattr(fixed, name), getattr(A, name)]) for name in Estimates.__slots__]
    limit = min([*area.propriety.fixed.values(), math.inf])
    tail = min(limit, *area.propriety.sd.values())
    own = np.where(design.sampled, limit if design.fixed else math.inf, tail)
    nothing = np.full(len(design.fixed) + 2, np.nan)
    terms = (*(("fixed", term) for term in design.fixed), ("prior", "A"), ("prior", "tau"))
    return CompoundPosterior(
        design=design, engine=area.engine, priors=area.priors, propriety=area.propriety,
        diagnostics=area.diagnostics, notes=area.notes, seed=area.seed, sample=_renamed(area.sample),
        terms=terms, hyper=Estimates(*columns), median=_medians(area, nothing), theta=area.terms.theta,
        finite=np.stack([own > 1, own > 2], axis=1), gamma=area.terms.gamma, prior_mean=area.terms.synthetic,
        weight=area.weight, beta=np.zeros((len(area.weight), 0)), tau=np.sqrt(area.A_nodes),
        coarse=np.ones(len(area.weight), dtype=bool), spacing=np.zeros(len(area.weight)), area=area,
    )  # fmt: skip


def _renamed(sample: Draws) -> Draws:
    """The draws with the units along `unit`."""
    variables = {
        name: (tuple("unit" if dim == "area" else dim for dim in dims), values)
        for name, (dims, values) in sample.variables.items()
    }
    coords = {"unit" if dim == "area" else dim: labels for dim, labels in sample.coords.items()}
    return Draws(variables, coords, sample.stats)


def _medians(area: AreaPosterior, nothing: Array) -> Array:
    """Medians of β, A and tau: from the mixture over A, whose own come from its nodes."""
    out = nothing.copy()
    order = np.argsort(area.A_nodes, kind="stable")
    share = np.cumsum(area.weight[order]) - 0.5 * area.weight[order]
    out[-1] = np.interp(0.5, share, np.sqrt(area.A_nodes[order]))
    out[-2] = out[-1] ** 2
    if len(out) > 2:
        at = conditional(area.design, area.priors, area.A_nodes)
        spread = np.diagonal(at.cov_beta, axis1=1, axis2=2)
        out[:-2] = mixture.quantiles(area.weight, at.beta, spread, 0.5)[0]
    return out
