"""What was asked of survey records: the columns that describe the sample, and the choices made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from hierlmm.errors import SpecError
from hierlmm.survey.indicators import HeadCount, Indicator, PovertyGap

Quantity = Literal["mean", "total", "proportion"]
Estimator = Literal["hajek", "horvitz_thompson"]
VarianceKind = Literal["with_replacement", "fixed_size", "poisson"]
AreasAre = Literal["strata", "domains"]
SinglePSU = Literal["error", "missing", "certainty", "centre"]

LEVEL = 0.95


class DirectOptions(TypedDict, total=False):
    """The keyword arguments that `direct_estimates` and `fit_records` share; meanings in `direct_estimates`."""

    quantity: Quantity | None
    estimator: Estimator | None
    weights: str | None
    population: Any
    strata: str | None
    clusters: str | None
    areas: AreasAre | None
    variance: VarianceKind | None
    single_psu: SinglePSU
    missing_codes: Sequence[float]
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How direct estimates were computed, every default filled in; the fields are arguments of `direct_estimates`.

    variable    as text, `column` the column of the records it is computed from
    population  the column of the population sizes, "given" where they stood beside the records, None without
    """

    variable: str
    column: str
    area: str
    quantity: Quantity
    estimator: Estimator
    variance: VarianceKind
    areas: AreasAre
    weights: str | None
    population: str | None
    strata: str | None
    clusters: str | None
    single_psu: SinglePSU
    missing_codes: tuple[float, ...]
    level: float


def make_plan(variable: str | Indicator, area: str, options: DirectOptions) -> Plan:
    """The plan with its defaults; raises SpecError where the choices contradict one another."""
    if not isinstance(variable, str | HeadCount | PovertyGap):
        raise SpecError(
            "The variable is the name of a column, or hl.HeadCount or hl.PovertyGap of one; "
            f"found {variable!r}. Name one."
        )
    for name in ("weights", "strata", "clusters"):
        _check_name(name, options.get(name))
    _check_name("area", area)
    given = options.get("population")
    weights, strata, clusters = options.get("weights"), options.get("strata"), options.get("clusters")
    usual: Quantity = "proportion" if isinstance(variable, HeadCount) else "mean"
    quantity: Quantity = chosen("quantity", options.get("quantity"), Quantity, usual)
    plain = weights is None and strata is None and clusters is None
    plan = Plan(
        variable=str(variable),
        column=variable if isinstance(variable, str) else variable.column,
        area=area,
        quantity=quantity,
        estimator=chosen(
            "estimator", options.get("estimator"), Estimator, "horvitz_thompson" if quantity == "total" else "hajek"
        ),
        variance=chosen(
            "variance",
            options.get("variance"),
            VarianceKind,
            "fixed_size" if plain and given is not None else "with_replacement",
        ),
        areas=chosen("areas", options.get("areas"), AreasAre, "strata" if strata is None else "domains"),
        weights=weights,
        population=None if given is None else given if isinstance(given, str) else "given",
        strata=strata,
        clusters=clusters,
        single_psu=chosen("single_psu", options.get("single_psu"), SinglePSU, "error"),
        missing_codes=_codes(options.get("missing_codes", ())),
        level=check_level(options.get("level", LEVEL)),
    )
    _check_together(plan)
    return plan


def check_level(level: float) -> float:
    """The level of an interval, between 0 and 1. Raises SpecError."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise SpecError(f"The level of an interval lies between 0 and 1; it is {level!r}. Write 95 % as level=0.95.")
    return float(level)


def _codes(given: object) -> tuple[float, ...]:
    """The values that stand for a missing one."""
    kinds = int | float | np.integer | np.floating
    if not isinstance(given, Sequence) or not all(isinstance(code, kinds) and code == code for code in given):
        raise SpecError(f"`missing_codes` is a sequence of numbers such as (8, 9); found {given!r:.60}. Write it so.")
    return tuple(float(code) for code in given)


def _check_name(argument: str, name: object) -> None:
    if name is not None and not isinstance(name, str):
        raise SpecError(f"`{argument}` is the name of a column of the records; found {name!r:.60}. Name a column.")


def chosen(argument: str, value: Any, kinds: Any, default: str | None = None) -> Any:
    """The value of an argument that is a word of a list, or the default where it is None. Raises SpecError."""
    known = get_args(kinds)
    if value is None and default is not None:
        return default
    if value not in known:
        raise SpecError(f"`{argument}` is one of {', '.join(map(repr, known))}; found {value!r}. Use one of these.")
    return value


def _check_roles(plan: Plan) -> None:
    """Refuse one column for two of variable, area and weights."""
    named = {"variable": plan.column, "area": plan.area, "weights": plan.weights}
    for first, second in (("variable", "area"), ("variable", "weights"), ("area", "weights")):
        if named[first] == named[second]:
            raise SpecError(
                f"The {first} and the {second} are different columns; both are {named[first]!r}. Correct one of them."
            )


def _check_together(plan: Plan) -> None:
    """Refuse what no formula covers."""
    _check_roles(plan)
    scaled = plan.weights is not None or plan.population is not None
    if plan.estimator == "horvitz_thompson" and not scaled:
        raise SpecError(
            "The Horvitz-Thompson estimator needs the scale of the sample; neither weights nor population sizes are "
            'given. Name the column of weights, give the sizes, or use estimator="hajek" for a mean.'
        )
    if plan.estimator == "horvitz_thompson" and plan.quantity != "total" and plan.population is None:
        raise SpecError(
            f"The Horvitz-Thompson estimator of a {plan.quantity} divides by the known population size of the area; "
            'none is given. Give population=..., or use estimator="hajek", which divides by the sum of the weights.'
        )
    if plan.estimator == "hajek" and plan.quantity == "total" and plan.population is None:
        raise SpecError(
            "The Hájek estimator of a total multiplies the mean by the known population size of the area; none is "
            'given. Give population=..., or use estimator="horvitz_thompson".'
        )
    if plan.strata is None and plan.single_psu != "error":
        raise SpecError(
            f"`single_psu` says what strata of a single unit are; no strata are given, but single_psu="
            f"{plan.single_psu!r}. Name the column of strata, or leave it out: an area of one unit has no variance."
        )
    if plan.variance != "with_replacement":
        if plan.clusters is not None:
            raise SpecError(
                f"The variance {plan.variance!r} is one of units drawn singly; clusters={plan.clusters!r} are drawn "
                'together. Use variance="with_replacement" between clusters.'
            )
        if not scaled:
            raise SpecError(
                f"The variance {plan.variance!r} needs inclusion probabilities; neither weights nor population sizes "
                'are given. Give one of them, or use variance="with_replacement".'
            )
