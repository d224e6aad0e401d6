"""A compound model in the notation of a textbook, and as TOML and back."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from hierlmm.errors import SpecError, listed
from hierlmm.spec.compound import (
    ARGUMENT,
    BinomialSampling,
    CompoundSpec,
    NormalSampling,
    PoissonSampling,
    Sampling,
    compound,
)
from hierlmm.spec.model import ModelSpec

WIDTH = 80
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Joins what a line break may not part; becomes a blank at the end.
TIE = "\N{NO-BREAK SPACE}"
KEYS = ("formula", "unit", "sampling", "unsampled")
SAMPLINGS: Mapping[str, type[Sampling]] = {
    "normal": NormalSampling,
    "poisson": PoissonSampling,
    "binomial": BinomialSampling,
}
TITLES = {
    "normal": "Compound sampling: normal observations, normal prior",
    "poisson": "Compound sampling: Poisson counts, gamma prior",
    "binomial": "Compound sampling: binomial counts, beta prior",
}

AnySpec = ModelSpec | CompoundSpec


def describe(spec: CompoundSpec) -> str:
    """What is observed of a unit, the prior of its parameter, and the formula, one a line."""
    y, unit, known = _tied(spec.response), spec.unit, _tied(f"{spec.known:.6g}" if _is_number(spec) else spec.known)
    mean = _predictor(spec)
    own = f"one θ for each {unit}"
    lines = {
        "normal": [
            f"{y} | θ ~ N(θ, {known}), variances known, {own}",
            f"θ ~ N(μ, A), μ = {mean}; A{TIE}is estimated",
        ],
        "poisson": [
            f"{y} | θ ~ Poisson({known}{TIE}·{TIE}θ), {own}",
            f"θ ~ Gamma(shape ν, rate ν/μ): mean μ, variance μ²/ν; log{TIE}μ = {mean}",
        ],
        "binomial": [
            f"{y} | θ ~ Binomial({known}, θ), {own}",
            f"θ ~ Beta(Mμ, M(1{TIE}-{TIE}μ)): mean μ, variance μ(1{TIE}-{TIE}μ)/(M{TIE}+{TIE}1); logit{TIE}μ = {mean}",
        ],
    }[spec.family]
    if spec.unsampled == "synthetic":
        lines.append(f"A {unit} without observations has the prior alone.")
    lines.append(f"Formula: {spec.formula}")
    return "\n".join([TITLES[spec.family], *(line for text in lines for line in _wrapped(text))])


def _is_number(spec: CompoundSpec) -> bool:
    return not isinstance(spec.known, str)


def _predictor(spec: CompoundSpec) -> str:
    """The linear predictor: "β₀ + β₁ x + log(t)", or 0 where there is nothing to estimate or add."""
    first = 0 if "1" in spec.fixed else 1
    terms = [
        _indexed(number) if term == "1" else f"{_indexed(number)}{TIE}{_tied(term)}"
        for number, term in enumerate(spec.fixed, start=first)
    ]
    return " + ".join([*terms, *map(_tied, spec.offset)]) or "0"


def _indexed(number: int) -> str:
    return f"β{str(number).translate(SUBSCRIPTS)}"


def _tied(text: object) -> str:
    return str(text).replace(" ", TIE)


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    return [line.replace(TIE, " ") for line in lines]


def to_mapping(spec: CompoundSpec) -> dict[str, object]:
    """The catalogue table of a compound model: `from_mapping` of it is the spec."""
    sampling = {"kind": spec.family, ARGUMENT[spec.family]: spec.known}
    table: dict[str, object] = {"kind": "compound", "formula": spec.formula, "unit": spec.unit}
    if spec.unsampled != "error":
        table["unsampled"] = spec.unsampled
    return {**table, "sampling": sampling}


def from_mapping(table: Mapping[str, object]) -> CompoundSpec:
    """The spec that a catalogue table of kind "compound" describes. Raises SpecError and FormulaError."""
    if table.get("kind") != "compound":
        raise SpecError(f"A compound model has kind 'compound'; found {table.get('kind')!r}.")
    values = {key: value for key, value in table.items() if key != "kind"}
    if unknown := [key for key in values if key not in KEYS]:
        raise SpecError(f"A model of kind 'compound' has no key {listed(unknown)}; it has {', '.join(KEYS)}.")
    if missing := [key for key in KEYS[:3] if key not in values]:
        raise SpecError(f"A model of kind 'compound' needs {listed(missing)}.")
    sampling = _sampling(values.pop("sampling"))
    if wrong := [key for key, value in values.items() if not isinstance(value, str)]:
        raise SpecError(f"The values of {listed(wrong)} must be text.")
    return compound(sampling=sampling, **values)  # type: ignore[arg-type]  # the policy is checked by CompoundSpec


def _sampling(table: object) -> Sampling:
    if not isinstance(table, Mapping) or table.get("kind") not in SAMPLINGS:
        raise SpecError(
            "The value of sampling is a table with its kind (normal, poisson or binomial) and its column, [sampling] "
            f"in TOML; found {table!r}."
        )
    kind = table["kind"]
    values = {key: value for key, value in table.items() if key != "kind"}
    if tuple(values) != (ARGUMENT[kind],):
        raise SpecError(f"Sampling of kind {kind!r} has the key {ARGUMENT[kind]}; found {listed(values) or 'none'}.")
    return SAMPLINGS[kind](**values)


def to_toml(spec: CompoundSpec) -> str:
    """TOML text that `from_toml` reads as an equal spec; SpecError for a spec made by hand that no formula gives."""
    import tomli_w

    table = to_mapping(spec)
    if (read := from_mapping(table)) != spec:
        raise SpecError(
            f"A spec is written by its formula, and this one's, {spec.formula!r}, reads as another spec, {read!r}. "
            "Make it with compound(...)."
        )
    return tomli_w.dumps(table)


def from_toml(text: str) -> CompoundSpec:
    """The compound model written in TOML text."""
    return from_mapping(_table(text))


def any_from_mapping(table: Mapping[str, object]) -> AnySpec:
    """The spec of any catalogue table, compound or not, by its kind."""
    return from_mapping(table) if table.get("kind") == "compound" else ModelSpec.from_mapping(table)


def any_from_toml(text: str) -> AnySpec:
    """The spec that any `to_toml` wrote."""
    return any_from_mapping(_table(text))


def _table(text: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"The text is not TOML: {error}.") from None
