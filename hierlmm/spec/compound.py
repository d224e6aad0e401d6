"""Compound sampling: many units of one kind, each with its own parameter, and the parameters drawn from one prior.

    Y_i | θ_i ~ f(y | θ_i),   θ_i ~ G(η),   i = 1, ..., m

with f known up to θ_i and G conjugate to it. Estimating η from all units together is parametric empirical Bayes
(Efron and Morris 1975, JASA 70:311-319; Morris 1983, JASA 78:47-55); a prior on η makes it full Bayes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from hierlmm.errors import FormulaError, SpecError, listed
from hierlmm.spec.formula import canonical, first_bar, parse, term_columns
from hierlmm.spec.lexer import quoted
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import UnsampledPolicy


@dataclass(frozen=True, slots=True)
class NormalSampling:
    """y_i | θ_i ~ N(θ_i, D_i) with D_i known, and θ_i ~ N(x_i'β, A).

    variance  the column of the D_i, units of the response squared, or one positive number for all units
    """

    variance: str | float

    def __post_init__(self) -> None:
        if isinstance(self.variance, int | float) and not isinstance(self.variance, bool):
            object.__setattr__(self, "variance", float(self.variance))  # a number of numpy is written like another


@dataclass(frozen=True, slots=True)
class PoissonSampling:
    """y_i | θ_i ~ Poisson(E_i θ_i), and θ_i ~ Gamma with mean exp(x_i'β) and shape ν: rates, relative risks.

    exposure  the column of the E_i: person-years, or the counts expected under standard rates
    """

    exposure: str


@dataclass(frozen=True, slots=True)
class BinomialSampling:
    """y_i | θ_i ~ Binomial(n_i, θ_i), and θ_i ~ Beta with mean μ_i, logit μ_i = x_i'β, and precision M = α + β.

    trials  the column of the n_i, whole numbers
    """

    trials: str


Sampling = NormalSampling | PoissonSampling | BinomialSampling
Family = Literal["normal", "poisson", "binomial"]
FAMILIES: Mapping[type, Family] = {NormalSampling: "normal", PoissonSampling: "poisson", BinomialSampling: "binomial"}
# The one argument of each type of sampling.
ARGUMENT: Mapping[Family, str] = {"normal": "variance", "poisson": "exposure", "binomial": "trials"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundColumns:
    """Names of the columns a compound model reads, by role: response, predictors, offsets, unit, and what is known of
    the sampling (variance, exposure or trials; empty where the variance is a number)."""

    response: tuple[str, ...]
    fixed: tuple[str, ...]
    offset: tuple[str, ...]
    unit: str
    sampling: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every column once, in the order of the roles above."""
        return tuple(dict.fromkeys((*self.response, *self.fixed, *self.offset, self.unit, *self.sampling)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundSpec:
    """A compound model, free of data: frozen, hashable, equal by value. Made by `compound`.

    response   column name or guarded expression: the observation, or the count
    fixed      formula terms of the prior mean; "1" is the intercept, () shrinks toward the offset (0 without one)
    offset     expressions added to the linear predictor of the prior mean
    unit       column of the units' labels
    sampling   NormalSampling, PoissonSampling or BinomialSampling: f, and with it the conjugate prior G
    unsampled  what a unit without an observation, exposure or trials is: "error" refuses it and names it,
               "synthetic" leaves it out of the fit and gives it the prior
    """

    response: str
    fixed: tuple[str, ...]
    unit: str
    sampling: Sampling
    offset: tuple[str, ...] = ()
    unsampled: UnsampledPolicy = "error"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def family(self) -> Family:
        """ "normal", "poisson" or "binomial"."""
        return FAMILIES[type(self.sampling)]

    @property
    def known(self) -> str | float:
        """What is known of the sampling: the column of variances, exposures or trials, or the common variance."""
        value: str | float = getattr(self.sampling, ARGUMENT[self.family])
        return value

    @property
    def formula(self) -> str:
        """Canonical text, which `compound` reads as an equal formula."""
        return canonical(self.response, self.fixed, self.offset, ())

    @property
    def mean(self) -> ModelSpec:
        """The linear predictor of the prior mean alone, as a linear model of the response."""
        return ModelSpec(response=self.response, fixed=self.fixed, random=(), offset=self.offset)

    def columns(self) -> CompoundColumns:
        """The columns of the data this model reads, by role; `.all` lists each once."""
        known = self.known
        return CompoundColumns(
            response=term_columns(self.response),
            fixed=_read(self.fixed),
            offset=_read(self.offset),
            unit=self.unit,
            sampling=(known,) if isinstance(known, str) else (),
        )

    def __str__(self) -> str:
        """The model as a statistician writes it, at most 80 columns wide."""
        from hierlmm.spec.compoundtext import describe

        return describe(self)

    def to_toml(self) -> str:
        """TOML text that `from_toml` reads as an equal spec."""
        from hierlmm.spec.compoundtext import to_toml

        return to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> CompoundSpec:
        """The spec that `to_toml` wrote. Raises SpecError or FormulaError where the text is no compound model."""
        from hierlmm.spec.compoundtext import from_toml

        return from_toml(text)

    @classmethod
    def from_mapping(cls, table: Mapping[str, object]) -> CompoundSpec:
        """The spec of a catalogue table of kind "compound". Raises SpecError naming wrong keys, and FormulaError."""
        from hierlmm.spec.compoundtext import from_mapping

        return from_mapping(table)


def compound(formula: str, *, unit: str, sampling: Sampling, unsampled: UnsampledPolicy = "error") -> CompoundSpec:
    """A compound sampling model Y_i | θ_i ~ f, θ_i ~ G(η), for empirical and full Bayes alike.

    formula    "observed ~ 1": the observation or count, and the predictor of the prior mean: "y ~ 0" shrinks toward
               zero, "y ~ 0 + offset(c)" toward the column c, "y ~ 1" toward a common mean that is estimated, "y ~ x"
               toward a regression. The scale is that of θ for normal sampling, log θ for Poisson, logit θ for binomial
    unit       column of the units' labels, one row a unit
    sampling   hl.NormalSampling(variance=...), hl.PoissonSampling(exposure=...) or hl.BinomialSampling(trials=...)
    unsampled  "error" or "synthetic": units without an observation, with exposure 0 or with no trials

    Raises FormulaError with the position, or SpecError for the other arguments.
    """
    response, fixed, offset, random = parse(formula)
    if random:
        raise FormulaError(
            f"In compound(...) every unit of {unit!r} has a parameter of its own already: leave out terms with a bar.",
            formula,
            first_bar(formula),
        )
    return CompoundSpec(
        response=response, fixed=fixed, unit=unit, sampling=sampling, offset=offset, unsampled=unsampled
    )


def _read(terms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(map(term_columns, terms))))


def _check(spec: CompoundSpec) -> None:
    """Refuse a spec that contradicts itself."""
    if not isinstance(spec.sampling, Sampling):
        raise SpecError(
            "The sampling of compound(...) is hl.NormalSampling(variance=...), hl.PoissonSampling(exposure=...) or "
            f"hl.BinomialSampling(trials=...); found {spec.sampling!r}."
        )
    if spec.unsampled not in get_args(UnsampledPolicy):
        raise SpecError(f"unsampled is one of {listed(get_args(UnsampledPolicy))}; found {spec.unsampled!r}.")
    argument, known = ARGUMENT[spec.family], spec.known
    names = {"unit": spec.unit}
    if isinstance(known, str) or spec.family != "normal":
        names[argument] = known  # type: ignore[assignment]  # what is no text is refused below
    elif isinstance(known, bool) or not isinstance(known, int | float) or not math.isfinite(known) or known <= 0:
        raise SpecError(
            f"The variance of NormalSampling(...) is a column or one positive number for all units; found {known!r}."
        )
    for name, column in names.items():
        if not isinstance(column, str) or not column.strip():
            raise SpecError(f"{name} is the name of a column; found {column!r}.")
        if quoted(column) == spec.response:
            raise SpecError(f"{name} and the response are the same column {column!r}.")
    if spec.unit == known:
        raise SpecError(f"unit and {argument} are the same column {known!r}.")
