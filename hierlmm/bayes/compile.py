"""One spec as a PyMC model: coords, dims and variable names as everywhere else, for a user to sample or extend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_mode import Centring, area_mode, lmm_mode
from hierlmm.bayes.compile_priors import has_sampler
from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.priors import Priors, priors_from
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.supported import supported_design
from hierlmm.design.compound import CompoundDesign
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import PriorError, SpecError, listed
from hierlmm.spec.compound import CompoundSpec
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr

Form = Literal["hierarchical", "marginal"]


def to_pymc(
    spec: ModelSpec | CompoundSpec,
    data: object,
    priors: Priors | str | Iterable[str] | None = None,
    form: Form = "hierarchical",
    *,
    matrices: Mapping[str, object] | None = None,
) -> pm.Model:
    """A plain pm.Model of `spec` and `data`, to sample, extend or take apart.

    form  "hierarchical" has the random effects (area means) as variables; those of each coefficient are centred or
          non-centred, whichever suits the shrinkage at the REML estimate: `model.parametrisation` says which.
          "marginal" has them integrated out and keeps the fixed effects.
    matrices  as in hl.fit: those that an area-level spec names, by name

    Variables of a linear mixed model: `beta` (term), `sigma`, per grouping factor f `sd_f` (f_coef), `corr_f` (f_coef,
    f_coef_bis) where coefficients are correlated, `b_f` (f, f_coef). Of an area-level model, with the areas whose
    sampling variance is positive: `beta` (term), `tau`, `A` = tau², `theta` (area). Of compound counts, with the units
    that have any: `beta` (term), `tau`, `mu` (unit), `theta` (unit), which is always centred. Flat priors stay flat:
    such a model has a posterior but cannot be drawn from without data. Sampling moves in shifted and scaled coordinates
    that start at the restricted mode; the densities of the variables are untouched by it.

    Raises SpecError for weights and structures that only hl.fit knows, DesignError for data the spec cannot be fitted
    to, PriorError for priors that do not suit the design.
    """
    if isinstance(spec, CompoundSpec):
        from hierlmm.bayes.compoundengine import compound_design, resolve

        units = compound_design(spec, data, matrices)
        return compile_compound(units, resolve(priors_from(priors), units), form)
    design = supported_design(spec, data, matrices)
    return compile_model(design, priors_from(priors).resolve(design), form)


def compile_compound(
    design: CompoundDesign, priors: CompoundPriors | ResolvedPriors, form: Form = "hierarchical"
) -> pm.Model:
    """The same for a compound design: with normal sampling the area-level model."""
    if isinstance(priors, ResolvedPriors):
        assert design.area is not None
        return compile_model(design.area, priors, form)
    _check_form(form)
    from hierlmm.bayes.compound_compile import compound_model

    return compound_model(design, priors, form)


def _check_form(form: str) -> None:
    if form not in ("hierarchical", "marginal"):
        raise SpecError(f"The form of a PyMC model is 'hierarchical' or 'marginal'; found {form!r}. Use one of these.")


def compile_model(design: LMMDesign | AreaDesign, priors: ResolvedPriors, form: Form = "hierarchical") -> pm.Model:
    """The same for a design that is built and priors that are resolved."""
    _check_form(form)
    model, centring = _area(design, priors, form) if isinstance(design, AreaDesign) else _lmm(design, priors, form)
    model.parametrisation = centring if form == "hierarchical" else dict.fromkeys(centring, "integrated out")
    return model


def _area(design: AreaDesign, priors: ResolvedPriors, form: Form) -> tuple[Any, dict[str, Centring]]:
    if design.proximity is not None:
        return _spatial(design, priors, form)
    from hierlmm.bayes.compile_area import hierarchical_area_model, marginal_area_model

    mode = area_mode(design)
    if form == "marginal":
        return marginal_area_model(design, priors, mode), mode.centring
    return hierarchical_area_model(design, priors, mode, next(iter(mode.centring.values()))), mode.centring


def _spatial(design: AreaDesign, priors: ResolvedPriors, form: Form) -> tuple[Any, dict[str, Centring]]:
    from hierlmm.bayes.compile_spatial import hierarchical_spatial_model, marginal_spatial_model, spatial_mode

    mode = spatial_mode(design, priors)
    if form == "marginal":
        return marginal_spatial_model(design, priors, mode), mode.centring
    return hierarchical_spatial_model(design, priors, mode, next(iter(mode.centring.values()))), mode.centring


def _lmm(design: LMMDesign, priors: ResolvedPriors, form: Form) -> tuple[Any, dict[str, Centring]]:
    from hierlmm.bayes.compile_lmm import hierarchical_lmm
    from hierlmm.bayes.compile_marginal import marginal_lmm

    mode = lmm_mode(design)
    if form == "marginal":
        return marginal_lmm(design, priors, mode), mode.centring
    return hierarchical_lmm(design, priors, mode), mode.centring


def parametrisation(design: LMMDesign | AreaDesign) -> dict[str, Centring]:
    """Which form the hierarchical model gives the effects of each coefficient: {"tree:Time": "centred"}.

    Centred where the effects are estimated mostly from their own data and their variance is clearly above zero at
    the REML estimate, non-centred otherwise (Papaspiliopoulos, Roberts & Sköld 2007, Statistical Science 22:59-73).
    """
    if isinstance(design, AreaDesign) and design.proximity is not None:
        from hierlmm.bayes.compile_spatial import spatial_mode

        return spatial_mode(design).centring
    mode = area_mode(design) if isinstance(design, AreaDesign) else lmm_mode(design)
    return mode.centring


def without_sampler(priors: ResolvedPriors | CompoundPriors) -> tuple[str, ...]:
    """Names of the parameters whose priors cannot be drawn from: flat, or known by their density only."""
    names = [term for term, prior in zip(priors.terms, priors.fixed, strict=True) if prior is None]
    if isinstance(priors, CompoundPriors):
        return (*names, *([] if has_sampler(priors.tau) else [f"sd({priors.unit})"]))
    for factor in priors.factors:
        names += [
            f"sd({factor.name}:{coefficient})"
            for coefficient, prior in zip(factor.coefficients, factor.sd, strict=True)
            if not has_sampler(prior)
        ]
    if priors.residual is not None and not has_sampler(priors.residual):
        names.append("residual sd")
    return tuple(names)


def prior_predictive(
    spec: ModelSpec | CompoundSpec,
    data: object,
    priors: Priors | str | Iterable[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
    *,
    matrices: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """Draws of the parameters from their priors (group `prior`) and of the response given them (`prior_predictive`).

    The response is drawn at the predictors of `data`; its own values are used only where default priors take their
    scale from them. Raises PriorError, naming the parameters, where a prior is improper: a flat prior says how
    posteriors follow from data and generates none.
    """
    import xarray as xr

    model_of, resolved = _unbuilt(spec, data, priors_from(priors), matrices)
    improper = without_sampler(resolved)
    if improper:
        raise PriorError(
            "A prior predictive distribution exists only where every prior can be drawn from; found a flat prior, or "
            f"one known by its density only, for {listed(improper)}. Give these proper priors, such as "
            "hl.Priors(fixed=hl.priors.Normal(0, 10), sd=hl.priors.HalfNormal(1))."
        )
    model = model_of()
    with warnings.catch_warnings(), model:
        warnings.simplefilter("ignore")
        drawn = backend().pm.sample_prior_predictive(draws=draws, random_seed=seed)
    tree = drawn if isinstance(drawn, xr.DataTree) else drawn.to_datatree()
    kept = {name: tree[name].to_dataset() for name in ("prior", "prior_predictive")}
    return xr.DataTree.from_dict(kept)


def _unbuilt(
    spec: ModelSpec | CompoundSpec, data: object, priors: Priors, matrices: Mapping[str, object] | None
) -> tuple[Callable[[], pm.Model], ResolvedPriors | CompoundPriors]:
    """What builds the hierarchical model, and its priors."""
    if isinstance(spec, CompoundSpec):
        from hierlmm.bayes.compoundengine import compound_design, resolve

        units = compound_design(spec, data, matrices)
        own = resolve(priors, units)
        return lambda: compile_compound(units, own), own
    design = supported_design(spec, data, matrices)
    resolved = priors.resolve(design)
    return lambda: compile_model(design, resolved), resolved
