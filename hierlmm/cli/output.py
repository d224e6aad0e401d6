"""Results on standard output: the summary for people, tables as JSON or CSV for programs."""

from __future__ import annotations

import json
import math
import re
import textwrap
from typing import Any

import click
import numpy as np
import pandas as pd

from hierlmm.cli import compound
from hierlmm.compare.compound import CompoundComparison
from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.lmm_results import LMMFit

COMPARISON_TABLES = ("table", "attribution", "mse", "boundary", "sensitivity")
LMM_TABLES = ("fixed", "variance_components", "random_effects", "group_coefficients")
AREA_TABLES = ("fixed", "A", "areas")
FIT_TABLES = tuple(dict.fromkeys((*LMM_TABLES, *AREA_TABLES)))

Result = LMMFit | AreaFit | CompoundFit | Comparison | CompoundComparison
# Characters that could move the cursor or change the terminal, were they in a label of the data.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show(result: Result, form: str, table: str | None, about: dict[str, Any]) -> None:
    """Print a result. JSON has every table; CSV the one named, or a comparison's main and all of a fit's in one.

    In JSON a missing number is null, an infinite one the text "inf" or "-inf".
    """
    if form == "text":
        click.echo(printable(result.summary()))
    elif form == "json":
        click.echo(json.dumps({**about, **facts(result), "tables": _records(result)}, indent=1, allow_nan=False))
    else:
        frames = tables(result)
        if table is not None and table not in frames:
            raise click.UsageError(f"This model has the tables {', '.join(frames)}; found {table!r}.")
        default = frames["table"] if isinstance(result, Comparison | CompoundComparison) else _stacked(frames)
        click.echo(csv_text(default if table is None else frames[table]), nl=False)


def show_models(listing: pd.DataFrame, form: str) -> None:
    """Print the catalogue: one row a model."""
    if form == "json":
        click.echo(json.dumps(listing.to_dict("records"), indent=1))
    elif form == "csv":
        click.echo(csv_text(listing), nl=False)
    else:
        click.echo("\n".join(_listed(listing)))


def _listed(listing: pd.DataFrame) -> list[str]:
    """A title line for each data set, and a line for each of its models."""
    width = listing["name"].str.len().max() + 2
    lines: list[str] = []
    for title, of_set in listing.groupby("title", sort=False):
        lines += [*([""] if lines else []), *_wrapped(f"{title} ({of_set['rows'].iloc[0]} rows)", "", "  ")]
        for name, formula, residual in zip(of_set["name"], of_set["formula"], of_set["residual"], strict=True):
            plain = residual in ("independent", "sampling_variances")
            what = residual.replace("_", " ")
            text = formula if plain else f"{formula}, {'' if what.endswith(' sampling') else 'residual '}{what}"
            lines += _wrapped(text, f"  {name:<{width}}", " " * (width + 4))
    return lines


def _wrapped(text: str, first: str, others: str) -> list[str]:
    """Lines of at most 80 characters that do not divide what stands in parentheses."""
    whole = re.sub(r"\([^()]*\)", lambda match: match[0].replace(" ", "\xa0"), text)
    lines = textwrap.wrap(whole, 80, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def tables(result: Result) -> dict[str, pd.DataFrame]:
    """The frames of a result by name."""
    names: tuple[str, ...] = AREA_TABLES if isinstance(result, AreaFit) else LMM_TABLES
    if isinstance(result, CompoundFit):
        names = compound.FIT_TABLES
    if isinstance(result, CompoundComparison):
        names = compound.COMPARISON_TABLES
    if isinstance(result, Comparison):
        names = COMPARISON_TABLES
    return {name: getattr(result, name) for name in names}


def facts(result: Result) -> dict[str, Any]:
    """What is no table: how the results were computed, how they ended, and what a reader should know."""
    from hierlmm.saving.manifest import about, versions

    known: dict[str, Any] = {"versions": versions(result), **about(result)}
    if isinstance(result, Comparison | CompoundComparison):
        known["agreement"] = {"verdict": result.agreement.name.lower(), "sentence": result.agreement.value}
        known["findings"] = list(result.findings)
        known["diagnostics"] = {name: _value(value) for name, value in result.posterior.diagnostics.items()}
        known["notes"] = list(dict.fromkeys((*result.fit.notes, *result.posterior.notes)))
    else:
        known["outcome"] = {"name": result.outcome.name.lower(), "sentence": result.outcome.value}
        known["loglik"] = _value(result.loglik)
        known["notes"] = list(result.notes)
    return known


def printable(text: str) -> str:
    """The text with control characters shown by their codes, line ends and tabs excepted."""
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV: numbers to the last digit, missing ones empty."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _stacked(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All frames below each other, the first column saying which."""
    parts = []
    for name, frame in frames.items():
        named = frame.astype(object)
        named.insert(0, "table", name)
        parts.append(named)
    return pd.concat(parts, ignore_index=True)


def _records(result: Result) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{str(k): _value(v) for k, v in row.items()} for row in frame.to_dict("records")]
        for name, frame in tables(result).items()
    }


def _value(value: Any) -> Any:
    """A cell as JSON."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float):
        return None if math.isnan(plain) else plain if math.isfinite(plain) else str(plain)
    return plain if isinstance(plain, (bool, int, str)) else str(plain)
