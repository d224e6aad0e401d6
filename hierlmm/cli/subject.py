"""What a command is about: the spec and the table behind NAME|FILE and the options that go with it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd

from hierlmm import catalogue
from hierlmm.cli.datafile import read_table
from hierlmm.errors import FileError, listed
from hierlmm.spec.areaeffects import SAR
from hierlmm.spec.build import fay_herriot, lmm
from hierlmm.spec.formula import parse
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingVariances
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit, Transformation


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options that say what is modelled, None where not given."""

    formula: str | None = None
    sampling_variance: str | None = None
    area: str | None = None
    unsampled: str | None = None
    zero_variance: str | None = None
    absurd_variance: str | None = None
    missing_covariates: str | None = None
    transformation: str | None = None
    sampling_covariance: str | None = None
    spatial: str | None = None

    def given(self) -> dict[str, str]:
        """Those that were given, in the order of the fields."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """target as typed; file its path, None for the catalogue; matrix_files: those of the matrices beside the table."""

    target: str
    file: Path | None
    choices: Choices
    spec: ModelSpec
    data: pd.DataFrame
    matrix_files: dict[str, Path]
    matrices: dict[str, pd.DataFrame] | None


def subject(target: str, choices: Choices, matrix: tuple[str, ...] = ()) -> Subject:
    """Find the table and make the spec. A name of the catalogue wins over a file of that name.

    matrix  texts NAME=FILE

    Raises click.UsageError for options that contradict each other, FileError where there is neither name nor file,
    and what reading the table and the formula raise.
    """
    files = dict(_matrix_file(text) for text in matrix)
    matrices = {name: read_table(file) for name, file in files.items()} or None
    if target.partition("/")[0] in catalogue.names() and not Path(target).suffix:
        case = catalogue.load(target)
        if not isinstance(case.spec, ModelSpec):
            raise click.UsageError(f"{target} is a compound model, which is neither a mixed nor an area-level one.")
        spec = _changed(case.spec, choices)
        return Subject(
            target=target, file=None, choices=choices, spec=spec, data=case.data, matrix_files=files, matrices=matrices
        )
    file = Path(target)
    if not file.is_file():
        raise FileError(_neither(target))
    data = read_table(file)
    if choices.formula is None:
        raise click.UsageError(f"A data file needs --formula; the columns of {target} are {listed(data.columns)}.")
    return Subject(
        target=target, file=file, choices=choices, spec=_stated(choices), data=data, matrix_files=files,
        matrices=matrices,
    )  # fmt: skip


def _matrix_file(text: str) -> tuple[str, Path]:
    """Name and file of NAME=FILE. Raises click.UsageError, and FileError where there is no such file."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise click.UsageError(f"--matrix is NAME=FILE, as in W=neighbours.csv; found {text!r}.")
    if not Path(path).is_file():
        raise FileError(f"The file of a matrix must exist; there is no {path!r}. Check the path.")
    return name, Path(path)


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
    other = ("sampling_variance", "area", "transformation", "sampling_covariance", "spatial")
    if columns := [name for name in other if name in given]:
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
    sampling = [name for name in ("sampling_variance", "sampling_covariance", "transformation") if name in given]
    if missing := [*([] if sampling else ["sampling_variance"]), *([] if "area" in given else ["area"])]:
        raise click.UsageError(
            f"An area-level model needs --sampling-variance and --area; {_flags(missing)} is missing."
        )
    if "transformation" in given:
        given["transformation"] = _transformation(given["transformation"])
    if "spatial" in given:
        name, _, rows = given.pop("spatial").partition(":")
        if rows not in ("", "rows"):
            raise click.UsageError(f"--spatial is the name of a matrix, or NAME:rows; found {rows!r} after the colon.")
        given["area_effects"] = SAR(name, standardise="rows" if rows else "none")
    return fay_herriot(formula, **given)


def _transformation(text: str) -> Transformation:
    """The transformation that a text names."""
    found = re.fullmatch(r"(log|logit|arcsine)(?:\((.+)\))?", text)
    kind, column = found.groups() if found else (None, None)
    if kind is None or (kind == "arcsine") != (column is not None):
        raise click.UsageError(
            f"--transformation is log, logit, or arcsine(COLUMN) with effective sizes; found {text!r}."
        )
    return ArcsineRoot(size=column) if column else Log() if kind == "log" else Logit()


def _flags(names: Any) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)
