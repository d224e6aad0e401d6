"""From priors by name to one concrete prior a parameter, with defaults on the scale of the data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hierlmm.bayes.areafamilies import AreaPrior, DattaRaoSmith, GaneshLahiri, Jeffreys, UniformShrinkage
from hierlmm.bayes.correlated import sampling_eigenvalues
from hierlmm.bayes.families import LKJ, Flat, HalfT, Normal, SDPrior
from hierlmm.bayes.resolved import FactorPriors, ResolvedPriors, bound
from hierlmm.bayes.rhoprior import Between
from hierlmm.design.types import AreaDesign, GroupingFactor, LMMDesign
from hierlmm.errors import PriorError, listed
from hierlmm.likelihood.area.spatial import admissible

if TYPE_CHECKING:
    from hierlmm.bayes.priors import Priors

DEFAULT_DF = 4.0  # half-t with 4 df: finite variance, tail heavy enough to let the data speak (PyMC/Bambi's choice)

_AREA_PRESETS: Mapping[str, SDPrior] = {
    "default": Flat("sd"),
    "flat_sd": Flat("sd"),
    "flat_variance": Flat("variance"),
    "ganesh_lahiri": GaneshLahiri(),
    "jeffreys": Jeffreys(),
    "uniform_shrinkage": UniformShrinkage(),
    "datta_rao_smith": DattaRaoSmith(),
}
_LMM_PRESETS = ("default", "flat_sd", "flat_variance")

P = TypeVar("P")


def resolve(priors: Priors, design: LMMDesign | AreaDesign) -> ResolvedPriors:
    """A concrete prior for each parameter of the design.

    Raises PriorError for a name the design does not have, a part it does not have (a residual prior where the
    residual variances are known), a preset of the other family, or a constant response under default priors.
    """
    if isinstance(design, AreaDesign):
        return _resolve_area(priors, design)
    return _resolve_lmm(priors, design)


def _resolve_area(priors: Priors, design: AreaDesign) -> ResolvedPriors:
    if priors.residual is not None:
        raise PriorError(
            "An area-level model has known sampling variances and no residual sd; found a prior for `residual`. "
            "Leave it out."
        )
    factor = design.spec.random[0].factor
    D = tuple(float(value) for value in sampling_eigenvalues(design))
    sd = _of(priors.sd, "sd", {factor: (f"{factor}:Intercept",)})
    prior = bound(sd.get(f"{factor}:Intercept", _AREA_PRESETS[priors.preset]), D)
    if priors.correlation is not None:
        raise PriorError("An area-level model has no correlations; found a prior for `correlation`. Leave it out.")
    return ResolvedPriors(
        terms=design.fixed,
        fixed=_fixed(priors, design.fixed),
        factors=(
            FactorPriors(name=factor, coefficients=("Intercept",), sd=(prior,), blocks=((0,),), correlation=(None,)),
        ),
        residual=None,
        rho=_rho(priors, design),
    )


def _rho(priors: Priors, design: AreaDesign) -> Between | None:
    """The prior of ρ where the area effects are spatial: uniform over what W admits, or over the part asked for."""
    if design.proximity is None:
        if priors.rho is not None:
            raise PriorError("Only spatial area effects, hl.SAR(...), have a rho; found a prior for it. Leave it out.")
        return None
    ends = admissible(design.proximity)
    return Between(*ends) if priors.rho is None else priors.rho.within(ends)


def _resolve_lmm(priors: Priors, design: LMMDesign) -> ResolvedPriors:
    if priors.preset not in _LMM_PRESETS:
        raise PriorError(
            f"The preset {priors.preset!r} is a prior of the area variance of an area-level model; this is a linear "
            f"mixed model. Use one of {', '.join(_LMM_PRESETS)}."
        )
    if priors.rho is not None:
        raise PriorError("Only spatial area effects, hl.SAR(...), have a rho; found a prior for it. Leave it out.")
    scale_y = float(np.std(design.y - design.offset, ddof=1)) if len(design.y) > 1 else 0.0
    names = {f.name: tuple(f"{f.name}:{c}" for c in f.coefficients) for f in design.factors}
    sd = _of(priors.sd, "sd", names)
    correlation = _of(priors.correlation, "correlation", {name: (name,) for name in names})
    factors = tuple(_factor(priors, f, sd, correlation, scale_y) for f in design.factors)
    residual = priors.residual or _default(priors.preset, scale_y, 1.0, 1)
    for prior in (residual, *(p for f in factors for p in f.sd)):
        if isinstance(prior, AreaPrior):
            raise PriorError(
                f"The prior {type(prior).__name__} is a prior of the area variance of an area-level model; this is a "
                "linear mixed model. Use Flat, HalfT, HalfNormal or another prior of a standard deviation."
            )
    return ResolvedPriors(terms=design.fixed, fixed=_fixed(priors, design.fixed), factors=factors, residual=residual)


def _factor(
    priors: Priors, factor: GroupingFactor, sd: Mapping[str, SDPrior], correlation: Mapping[str, LKJ], scale_y: float
) -> FactorPriors:
    size = {k: len(block) for block in factor.blocks for k in block}
    chosen = tuple(
        _sized(sd[name], size[k])
        if (name := f"{factor.name}:{coefficient}") in sd
        else _default(priors.preset, scale_y, column_spread(coefficient, factor.Z[:, k]), size[k])
        for k, coefficient in enumerate(factor.coefficients)
    )
    lkj = correlation.get(factor.name, LKJ(1.0))
    return FactorPriors(
        name=factor.name,
        coefficients=factor.coefficients,
        sd=chosen,
        blocks=factor.blocks,
        correlation=tuple(lkj if len(block) > 1 else None for block in factor.blocks),
    )


def _sized(prior: SDPrior, size: int) -> SDPrior:
    if isinstance(prior, Flat) and prior.on == "covariance":
        return Flat("covariance", size) if size > 1 else Flat("variance")
    return prior


def column_spread(coefficient: str, column: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Rms of the centred column; 1 for the intercept, the rms itself for any other constant column."""
    if coefficient == "Intercept":
        return 1.0
    rms = float(np.sqrt(np.mean(column**2)))
    centred = float(np.std(column))
    # a column that varies less than rounding of its size is constant
    return centred if centred > 1e-12 * rms else rms or 1.0


def _default(preset: str, scale_y: float, spread: float, size: int) -> SDPrior:
    if preset == "flat_sd":
        return Flat("sd")
    if preset == "flat_variance":
        return Flat("covariance", size) if size > 1 else Flat("variance")
    if not scale_y > 0:
        raise PriorError(
            "The default priors are scaled by the standard deviation of the response; found a constant response "
            "(standard deviation 0). Check the response column, or state a prior for every sd and the residual."
        )
    return HalfT(DEFAULT_DF, scale_y / spread)


def _fixed(priors: Priors, terms: tuple[str, ...]) -> tuple[Normal | None, ...]:
    given = _of(priors.fixed, "fixed", {term: (term,) for term in terms})
    return tuple(prior if isinstance(prior := given.get(term), Normal) else None for term in terms)


def _of(given: P | Mapping[str, P] | None, part: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, P]:
    """Prior of each parameter that has one given: `names` maps a group's name to those of its parameters."""
    if given is None:
        return {}
    every = [parameter for parameters in names.values() for parameter in parameters]
    if not isinstance(given, Mapping):
        return dict.fromkeys(every, given)
    unknown = [key for key in given if key and key not in names and key not in every]
    if unknown:
        raise PriorError(_unknown(unknown, part, [*names, *every]))
    wide = {p: given[""] for p in every if "" in given}
    by_group = {p: given[name] for name, parameters in names.items() if name in given for p in parameters}
    # a factor's own name (such as a:b) is that factor, not coefficient b of factor a
    single = {p: given[p] for p in every if p in given and p not in names}
    return {**wide, **by_group, **single}


def _unknown(unknown: Iterable[str], part: str, known: list[str]) -> str:
    names = list(unknown)
    near = difflib.get_close_matches(names[0], known, 1)
    known = list(dict.fromkeys(known))
    hint = f"Did you mean {near[0]!r}?" if near else "Use one of these names."
    return f"Priors of `{part}` are named by {listed(known)}; found {listed(names)}. {hint}"
