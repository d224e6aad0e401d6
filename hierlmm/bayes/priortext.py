"""Priors as text: "halft(3, 2.5)" to a prior and back, without loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

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
from hierlmm.bayes.rhoprior import Between
from hierlmm.errors import PriorError

Prior = SDPrior | Normal | LKJ | Between

FAMILIES: dict[str, type[Prior]] = {
    "flat": Flat,
    "halft": HalfT,
    "halfcauchy": HalfCauchy,
    "halfnormal": HalfNormal,
    "exponential": Exponential,
    "inversegamma": InverseGamma,
    "uniform": Uniform,
    "normal": Normal,
    "lkj": LKJ,
    "between": Between,
    "ganesh_lahiri": GaneshLahiri,
    "jeffreys": Jeffreys,
    "uniform_shrinkage": UniformShrinkage,
    "datta_rao_smith": DattaRaoSmith,
}
_NAMES = {family: name for name, family in FAMILIES.items()}
_CALL = re.compile(r"\s*([A-Za-z_]+)\s*(?:\(([^()]*)\))?\s*")
_SCALES = ("sd", "variance", "covariance", "log")


def read(text: str) -> Prior:
    """The prior that "family(arguments)" names, arguments in the order of the class's fields.

    "flat" is flat on the sd (or on a coefficient), "flat(variance)" on the variance. PriorError for an unknown
    family or the wrong number or kind of arguments.
    """
    match = _CALL.fullmatch(text)
    name = match[1].lower() if match else ""
    if match is None or name not in FAMILIES:
        raise PriorError(
            f"A prior is written family(arguments) with a family among {', '.join(FAMILIES)}; found {text!r}. "
            "Write for example halft(3, 2.5)."
        )
    family = FAMILIES[name]
    given = [argument.strip() for argument in (match[2] or "").split(",")] if (match[2] or "").strip() else []
    wanted = _arguments_of(family)
    needed = 0 if family in (Flat, DattaRaoSmith) else len(wanted)
    if not needed <= len(given) <= len(wanted):
        names = ", ".join(wanted)
        raise PriorError(
            f"The prior {name} takes {f'the arguments ({names})' if names else 'no arguments'}; "
            f"found {len(given)} in {text!r}. Give each of them a number."
        )
    return family(*(_argument(word, text) for word in given))  # type: ignore[arg-type, return-value, unused-ignore]


def _argument(word: str, text: str) -> float | str:
    if word in _SCALES:
        return word
    try:
        return float(word)
    except ValueError:
        raise PriorError(
            f"The arguments of a prior are numbers; found {word!r} in {text!r}. Write for example halft(3, 2.5)."
        ) from None


def exact(prior: Prior) -> str:
    """Text that `read` turns into an equal prior (the sampling variances a prior is bound to are left out)."""
    return _written(prior, lambda value: repr(float(value)))


def shown(prior: Prior) -> str:
    """The prior as a reader sees it: numbers to four digits."""
    return _written(prior, lambda value: f"{value:.4g}")


def _written(prior: Prior, number: Callable[[float], str]) -> str:
    name = _NAMES[type(prior)]
    values: list[Any] = [getattr(prior, argument) for argument in _arguments_of(type(prior))]
    if isinstance(prior, Flat):
        values = {"sd": [], "covariance": ["covariance", prior.size]}.get(prior.on, [prior.on])
    words = [value if isinstance(value, str) else _number(value, number) for value in values if value is not None]
    return f"{name}({', '.join(words)})" if words else name


def _arguments_of(family: type[Prior]) -> list[str]:
    return [field.name for field in fields(cast("Any", family)) if field.name != "D"]


def _number(value: float, number: Callable[[float], str]) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else number(value)
