"""Priors as a user states them: any part left out is filled in from the data's scale, and printed with every result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from hierlmm.bayes import priortext
from hierlmm.bayes.areafamilies import DattaRaoSmith, GaneshLahiri, Jeffreys, UniformShrinkage
from hierlmm.bayes.families import (
    LKJ,
    Exponential,
    Flat,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Normal,
    SDPrior,
    Uniform,
)
from hierlmm.bayes.resolved import FactorPriors, ResolvedPriors
from hierlmm.bayes.rhoprior import Between
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.errors import PriorError

__all__ = [
    "LKJ",
    "Between",
    "DattaRaoSmith",
    "Exponential",
    "FactorPriors",
    "Flat",
    "GaneshLahiri",
    "HalfCauchy",
    "HalfNormal",
    "HalfT",
    "InverseGamma",
    "Jeffreys",
    "Normal",
    "Preset",
    "Priors",
    "ResolvedPriors",
    "SDPrior",
    "Uniform",
    "UniformShrinkage",
    "parse_prior",
    "priors_from",
]

Preset = Literal[
    "default", "flat_sd", "flat_variance", "ganesh_lahiri", "jeffreys", "uniform_shrinkage", "datta_rao_smith"
]
PRESETS: tuple[str, ...] = get_args(Preset)
_ITEM = re.compile(r"\s*(fixed|sd|correlation|residual|rho)\s*(?:\(([^()]*)\))?\s*=(.*)", re.DOTALL)

FixedPrior = Normal | Flat
# What an error suggests by part, and the parts that no name follows.
EXAMPLES = {"correlation": "LKJ(2)", "rho": "Between(0, 1)"}
ONLY = {"residual": "residual sd", "rho": "rho"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """Priors of a model, by the names of its parts; what is not named comes from the preset.

    fixed        one prior for every coefficient, or {coefficient: prior}; Flat() or Normal(mean, sd)
    sd           one prior for every random-effects sd, or {"tree": prior of all sds of that factor,
                 "tree:Time": prior of that coefficient's sd}; the longer name wins
    correlation  one LKJ(eta) for every covariance block, or {"tree": LKJ(eta)}
    residual     prior of the residual sd (linear mixed models only)
    rho          prior of the autocorrelation of spatial area effects, Between(low, high); left out: uniform over all
                 values that the proximity matrix admits
    preset       "default": coefficients flat; mixed models: sds half-t with 4 df and scale sd(y)/rms of the centred
                 column (sd(y) for intercepts and the residual), correlations LKJ(1); area models: √A flat.
                 "flat_sd": every sd flat, LKJ(1). "flat_variance": flat on the elements of G and σ² (on A), under
                 which REML is the posterior mode. The others are priors of A in area models.
    """

    fixed: FixedPrior | Mapping[str, FixedPrior] | None = None
    sd: SDPrior | Mapping[str, SDPrior] | None = None
    correlation: LKJ | Mapping[str, LKJ] | None = None
    residual: SDPrior | None = None
    preset: Preset = "default"
    rho: Between | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise PriorError(f"A preset is one of {', '.join(PRESETS)}; found {self.preset!r}. Use one of these.")
        _check("fixed", self.fixed, (Normal, Flat))
        _check("sd", self.sd, (SDPrior,))
        _check("correlation", self.correlation, (LKJ,))
        _check("residual", self.residual, (SDPrior,))
        _check("rho", self.rho, (Between,))
        for prior in self.fixed.values() if isinstance(self.fixed, Mapping) else (self.fixed,):
            if isinstance(prior, Flat) and prior.on != "sd":
                raise PriorError(
                    "A flat prior of a fixed effect is flat on the coefficient; found "
                    f"Flat(on={prior.on!r}). Use Flat()."
                )

    def resolve(self, design: LMMDesign | AreaDesign) -> ResolvedPriors:
        """A concrete prior for each parameter of the design; PriorError for names the design does not have."""
        from hierlmm.bayes.resolve import resolve

        return resolve(self, design)


def _check(part: str, value: object, kinds: tuple[type, ...]) -> None:
    priors = value.values() if isinstance(value, Mapping) else [] if value is None else [value]
    for prior in priors:
        if not isinstance(prior, kinds):
            raise PriorError(
                f"The {part} prior must be one of {', '.join(kind.__name__ for kind in kinds)} in hl.priors; "
                f"found {prior!r}. Give a value such as {EXAMPLES.get(part, 'HalfNormal(1)')}."
            )


def parse_prior(text: str) -> Priors:
    """One prior from its command-line text.

    "sd(tree)=halft(3, 2.5)", "sd(tree:Time)=exponential(1)", "sd=flat", "fixed=normal(0, 10)",
    "fixed(Time)=normal(0, 1)", "residual=halfnormal(1)", "correlation(tree)=lkj(2)", or the name of a preset.
    Raises PriorError where the text is none of these.
    """
    if text.strip() in PRESETS:
        return Priors(preset=text.strip())  # type: ignore[arg-type]
    match = _ITEM.fullmatch(text)
    if match is None:
        raise PriorError(
            "A prior is written part=family(arguments) with part one of fixed, sd, sd(group), sd(group:coefficient), "
            f"correlation(group), residual, rho, or is a preset ({', '.join(PRESETS)}); found {text!r}. "
            "Write for example sd(tree)=halft(3, 2.5)."
        )
    part, name, prior = match[1], (match[2] or "").strip(), priortext.read(match[3])
    if part in ONLY and name:
        raise PriorError(f"There is one {ONLY[part]}; found {part}({name}). Write {part}={match[3].strip()}.")
    return Priors(**{part: {name: prior} if name else prior})  # type: ignore[arg-type]


def priors_from(value: Priors | str | Iterable[str] | None) -> Priors:
    """Priors from what a user may pass: None (the defaults), Priors, one text or several texts, later ones winning."""
    if value is None:
        return Priors()
    if isinstance(value, Priors):
        return value
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if isinstance(value, Mapping) or not all(isinstance(text, str) for text in texts):
        raise PriorError(
            "Priors are hl.Priors(...), one text or several; found "
            f"{type(value).__name__} {value!r}. Write for example 'sd(tree)=halft(3, 2.5)'."
        )
    total = Priors()
    for text in texts:
        total = _merged(total, parse_prior(text))
    return total


def _merged(first: Priors, second: Priors) -> Priors:
    """Both, the second winning where they speak of the same part."""
    preset = first.preset if second.preset == "default" else second.preset
    parts: dict[str, Any] = {
        part: _joined(getattr(first, part), getattr(second, part)) for part in ("fixed", "sd", "correlation")
    }
    residual = first.residual if second.residual is None else second.residual
    rho = first.rho if second.rho is None else second.rho
    return replace(first, preset=preset, residual=residual, rho=rho, **parts)


def _joined(first: object, second: object) -> object:
    if second is None:
        return first
    if isinstance(second, Mapping) and first is not None:
        # "" stands for every name not spelt out
        base = dict(first) if isinstance(first, Mapping) else {"": first}
        return {**base, **second}
    return second
