"""What a command is about: the spec and the table behind NAME|FILE and the options that go with it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd

from hierlmm import catalogue
from hierlmm.cli.datafile import read_table
from hierlmm.errors import FileError, listed
from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.formula import parse
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingVariances


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options that say what is modelled, None where not given."""

    formula: str | None = None
    sampling_variance: str | None = None
    area: str | None = None
    unsampled: str | None = None
    zero_variance: str | None = None

    def given(self) -> dict[str, str]:
        """Those that were given, in the order of the fields."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """target as typed; file its path, None for the catalogue; stated: the spec came from options, not the catalogue."""

    target: str
    file: Path | None
    choices: Choices
    spec: ModelSpec
    data: pd.DataFrame


def subject(target: str, choices: Choices) -> Subject:
    """Find the table and make the spec. A name of the catalogue wins over a file of that name.

    Raises click.UsageError for options that contradict each other, FileError where there is neither name nor file,
    and what reading the table and the formula raise.
    """
    if target.partition("/")[0] in catalogue.names() and not Path(target).suffix:
        case = catalogue.load(target)
        spec = _changed(case.spec, choices)
        return Subject(target=target, file=None, choices=choices, spec=spec, data=case.data)
    file = Path(target)
    if not file.is_file():
        raise FileError(_neither(target))
    data = read_table(file)
    if choices.formula is None:
        raise click.UsageError(f"A data file needs --formula; the columns of {target} are {listed(data.columns)}.")
    return Subject(target=target, file=file, choices=choices, spec=_stated(choices), data=data)


def _neither(target: str) -> str:
    if Path(target).suffix or Path(target).parent != Path():
        return f"A data file or a name of the catalogue is needed; there is no file {target!r}. Check the path."
    close = difflib.get_close_matches(target, catalogue.names(), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "'hierlmm models' lists the catalogue."
    return f"A name of the catalogue or a data file is needed; {target!r} is neither. {hint}"


def _changed(spec: ModelSpec, choices: Choices) -> ModelSpec:
    """A spec of the catalogue with what the options change: its formula, or how it treats unusual areas."""
    given: dict[str, Any] = choices.given()
    residual = spec.residual
    if not given:
        return spec
    if not isinstance(residual, SamplingVariances):
        if choices.formula is None:
            raise click.UsageError(f"Only area-level models have {_flags(given)}; this one is {spec.formula}.")
        return _stated(choices)
    if choices.formula is not None:
        if parse(choices.formula)[3]:
            return _stated(choices)
        own = {
            "sampling_variance": residual.column,
            "area": spec.random[0].group[0],
            "unsampled": residual.unsampled,
            "zero_variance": residual.zero_variance,
        }
        return _stated(Choices(**{**own, **given}))
    if columns := [name for name in ("sampling_variance", "area") if name in given]:
        raise click.UsageError(f"With {_flags(columns)} it is another model: state it whole, with --formula.")
    return replace(spec, residual=replace(residual, **given))


def _stated(choices: Choices) -> ModelSpec:
    """The spec that the options state: area-level where a column of variances or areas is named."""
    given: dict[str, Any] = choices.given()
    formula = given.pop("formula")
    if not given:
        if not parse(formula)[3]:
            raise click.UsageError(
                "The formula has no random-effects term: add one such as (1 | group), or for areas with known sampling "
                "variances --sampling-variance and --area."
            )
        return lmm(formula)
    if missing := [name for name in ("sampling_variance", "area") if name not in given]:
        raise click.UsageError(
            f"An area-level model needs --sampling-variance and --area; {_flags(missing)} is missing."
        )
    return fay_herriot(formula, **given)


def _flags(names: Any) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)
