"""The posterior of a spec given data, by the engine that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, overload

import numpy as np

from hierlmm.bayes.priors import Priors, priors_from
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import Engine
from hierlmm.bayes.supported import check_supported, supported_design
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import FitError
from hierlmm.spec.compound import CompoundSpec
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from hierlmm.bayes.arearesults import AreaPosterior
    from hierlmm.bayes.compoundresults import CompoundPosterior
    from hierlmm.bayes.lmmresults import LMMPosterior
    from hierlmm.bayes.sample import NutsOptions


@overload
def posterior(
    spec: ModelSpec,
    data: object,
    priors: Priors | str | Iterable[str] | None = None,
    engine: Engine = "integrate",
    draws: int = 4000,
    seed: int | None = None,
    nuts: NutsOptions | None = None,
    *,
    matrices: Mapping[str, object] | None = None,
) -> LMMPosterior | AreaPosterior: ...
@overload
def posterior(
    spec: CompoundSpec,
    data: object,
    priors: Priors | str | Iterable[str] | None = None,
    engine: Engine = "integrate",
    draws: int = 4000,
    seed: int | None = None,
    nuts: NutsOptions | None = None,
    *,
    matrices: Mapping[str, object] | None = None,
) -> CompoundPosterior: ...
def posterior(
    spec: ModelSpec | CompoundSpec,
    data: object,
    priors: Priors | str | Iterable[str] | None = None,
    engine: Engine = "integrate",
    draws: int = 4000,
    seed: int | None = None,
    nuts: NutsOptions | None = None,
    *,
    matrices: Mapping[str, object] | None = None,
) -> LMMPosterior | AreaPosterior | CompoundPosterior:
    """The posterior of `spec` given `data`.

    priors  hl.Priors, one or several prior texts ("sd(tree)=halft(3, 2.5)", "flat_sd"), or None for the defaults
    engine  "integrate": β and b (of compound counts the units' parameters) integrated out exactly, the variance
            parameters (hyperparameters) on a lattice (one or two of them) or by Pareto-smoothed importance sampling;
            "nuts": NUTS through PyMC
    draws   number of draws in all; with "integrate" they are independent and may be 0: means, sds and intervals do
            not come from them
    seed    of the draws; None takes a fresh one, which the result keeps
    nuts    options of engine "nuts"
    matrices  as in hl.fit: those that an area-level spec names, by name

    Raises SpecError for weights and structures that only hl.fit knows, DesignError for data the spec cannot be fitted
    to, PriorError for priors that do not suit the design or an improper posterior, FitError where the posterior could
    not be computed to its stated accuracy.
    """
    if not isinstance(draws, Integral) or draws < 0:
        raise FitError(f"`draws` is a number of draws, 0 or more; found {draws!r}. Use for example draws=4000.")
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise FitError(f"`seed` is a whole number, 0 or more, or None; found {seed!r}. Use for example seed=1.")
    if isinstance(spec, CompoundSpec):
        from hierlmm.bayes.compoundengine import compound_design, compound_posterior, resolve

        units = compound_design(spec, data, matrices)
        return compound_posterior(units, resolve(priors_from(priors), units), engine, int(draws), seed, nuts)
    design = supported_design(spec, data, matrices)
    return of_design(design, priors_from(priors).resolve(design), engine, int(draws), seed, nuts)


def of_design(
    design: LMMDesign | AreaDesign,
    priors: ResolvedPriors,
    engine: Engine = "integrate",
    draws: int = 4000,
    seed: int | None = None,
    nuts: NutsOptions | None = None,
) -> LMMPosterior | AreaPosterior:
    """The same for a design that is built and priors that are resolved."""
    check_supported(design.spec)
    known = fresh_seed() if seed is None else int(seed)
    if engine == "nuts":
        from hierlmm.bayes.sample import nuts_posterior

        return nuts_posterior(design, priors, draws, known, nuts)
    if engine != "integrate":
        raise FitError(f"`engine` is 'integrate' or 'nuts'; found {engine!r}. Use one of these.")
    if nuts is not None:
        raise FitError("`nuts` has options of engine 'nuts'; found engine 'integrate'. Leave it out.")
    if isinstance(design, AreaDesign) and design.proximity is not None:
        from hierlmm.bayes.spatial_posterior import spatial_posterior

        return spatial_posterior(design, priors, draws, known)
    if isinstance(design, AreaDesign):
        from hierlmm.bayes.areaposterior import area_posterior

        return area_posterior(design, priors, draws, known)
    from hierlmm.bayes.lmmposterior import lmm_posterior

    return lmm_posterior(design, priors, draws, known)


def fresh_seed() -> int:
    """A seed from the operating system's entropy, small enough to print and type."""
    return int(np.random.SeedSequence().generate_state(1)[0])
