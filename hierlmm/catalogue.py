"""The models that ship with the package: data, specs, and answers with their sources.

A folder of the catalogue has `data.csv` and `model.toml`. The tables of `model.toml`:

[data]           title, rows, columns (kind, unit, meaning, levels in order), provenance, publication, licence, default
[model.NAME]     one spec each: kind, formula, and the other arguments of its constructor
[priors]         sets of prior texts by name, for the answers that are posteriors
[source]         full citations by short name
[[answer]]       model, method or engine (and priors), quantity, key, labels, value, atol or rtol or mcse, why, source
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from hierlmm.errors import FileError, HierlmmError
from hierlmm.spec.compoundtext import AnySpec, any_from_mapping

# What an answer can be about: the columns of the results' frames and their scalars, each with its definition.
QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "criterion": "-2 log likelihood (ml) or -2 log restricted likelihood (reml), all constants; lme4's criterion",
        "loglik": "log of the likelihood that was maximised, all constants",
        "aic": "-2 loglik + 2 parameters, from the likelihood that was maximised",
        "bic": "-2 loglik + log(n) parameters, from the likelihood that was maximised",
        "marginal_aic": "-2 log likelihood (not restricted) at the estimates + 2 parameters",
        "outcome": "how the fit ended: the name of its outcome",
        "lrt.statistic": "-2 log likelihood ratio of the model `key` against this one, by ml",
        "lrt.p": "upper tail of chi-square at that ratio, with the difference in parameters as degrees of freedom",
        "boundary.statistic": "-2 log likelihood ratio without the random coefficient `key` (group/term)",
        "boundary.p": "upper tail of the chi-square mixture at that ratio",
        "fixed.estimate": "fixed effects by term; in a posterior their mean",
        "fixed.se": "their standard errors; in a posterior the sd",
        "fixed.t": "estimate over standard error",
        "fixed.correlation": "correlation of two estimated fixed effects, label term/term",
        "variance_components.variance": "variance of a random coefficient, label group/term, or Residual/occasion",
        "variance_components.sd": "its square root",
        "variance_components.covariance": "covariance of two random coefficients, label group/term/term",
        "variance_components.correlation": "their correlation; of residuals, label Residual, /lag or two occasions",
        "random_effects.estimate": "BLUPs of the random coefficient `key` (group/term) by level",
        "random_effects.conditional_se": "sd of the effect given y at the estimates, lme4's condVar, by level",
        "group_coefficients.estimate": "fixed effect + BLUP of coefficient `key` (group/term) by level, lme4's coef()",
        "A.estimate": "area variance; in a posterior its mean",
        "A.se": "standard error of the area variance; in a posterior the sd",
        "tau.estimate": "posterior mean of the square root of the area variance",
        "tau.se": "its posterior sd",
        "areas.estimate": "EBLUP by area; in a posterior the mean",
        "areas.se": "in a posterior the sd by area",
        "areas.gamma": "weight on the direct estimate by area; in a posterior its mean",
        "areas.g1": "first term of the mean squared error by area",
        "areas.g2": "second term of the mean squared error by area",
        "areas.g3": "third term of the mean squared error by area, with the information ΣV⁻²/2",
        "areas.mse": "second-order mean squared error estimate by area",
        "hyperparameters.estimate": "estimated prior of a compound model by term; in a posterior the mean",
        "hyperparameters.se": "its standard error; in a posterior the sd",
        "hyperparameters.median": "posterior median by term",
        "units.estimate": "empirical-Bayes estimate by unit; in a posterior the mean",
        "units.se": "standard error with that of the estimated prior, by unit; in a posterior the sd",
        "units.gamma": "weight of the estimate on the direct one by unit; in a posterior its mean",
        "error_ratio": "sum of squares of direct less column `key` of the data over that of estimate less it",
    }
)

_FILE = {"data", "model", "priors", "source", "answer"}
_DATA = {"title", "rows", "columns", "provenance", "publication", "licence", "default"}
_COLUMN = {"kind", "unit", "meaning", "levels"}
_ANSWER = {"model", "quantity", "key", "labels", "value", "atol", "rtol", "mcse", "why", "source"}
_METHODS = (
    "reml", "ml", "fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl", "mix", "moments", "james_stein",
    "positive_part", "limited_translation", "morris",
)  # fmt: skip
_ENGINES = ("integrate", "nuts")
_TOLERANCES = ("atol", "rtol", "mcse")
_DTYPES = {"number": "float64", "integer": "int64", "category": "str"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the data: kind is "number", "integer" or "category" (with its `levels`, the reference first)."""

    name: str
    kind: str
    unit: str
    meaning: str
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A value that the model must give, with the reason for its tolerance and its source.

    by         "reml", "ml" or another method of `hl.fit` (a fit), "integrate" or "nuts" (a posterior, under `priors`,
               the texts of a prior each)
    quantity   a name in QUANTITIES, which defines it; key says which, labels name the values, both as defined there
    values     one number a label, or one number or word where labels is empty
    atol, rtol, mcse   one is set, the others are zero: absolute, relative to each value, or in Monte Carlo standard
               errors of the result
    """

    model: str
    by: str
    priors: tuple[str, ...]
    quantity: str
    key: str
    labels: tuple[str, ...]
    values: tuple[float, ...] | tuple[str]
    atol: float
    rtol: float
    mcse: float
    why: str
    source: str

    @property
    def definition(self) -> str:
        """What the quantity is."""
        return QUANTITIES[self.quantity]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A data set of the catalogue with one of its models chosen.

    name        "sitka/slopes": data set and model; title says what was measured
    spec        the chosen model, specs all models of the data set by name
    data        the table; columns of kind "category" have the stated levels in the stated order
    reference   answers of the chosen model; answers of all models are in `answers`
    priors      sets of prior texts by name, as `hl.posterior` takes them
    """

    name: str
    title: str
    spec: AnySpec
    specs: Mapping[str, AnySpec]
    data: pd.DataFrame
    columns: tuple[Column, ...]
    answers: tuple[Answer, ...]
    priors: Mapping[str, tuple[str, ...]]
    provenance: str
    publication: str
    licence: str

    @property
    def model(self) -> str:
        """Name of the chosen model."""
        return self.name.partition("/")[2]

    @property
    def reference(self) -> tuple[Answer, ...]:
        """The answers of the chosen model."""
        return tuple(answer for answer in self.answers if answer.model == self.model)


def models() -> pd.DataFrame:
    """The catalogue, one row a model: name (as `load` takes it), formula, residual, rows, title; the default first.

    residual  kind of the residual structure, "independent" where there is none; "normal_sampling", "poisson_sampling"
              or "binomial_sampling" of a compound model
    """
    rows = []
    for name in names():
        table = _read(name)
        data = table["data"]
        for model in [data["default"], *sorted(set(table["model"]) - {data["default"]})]:
            values = table["model"][model]
            plain = "sampling_variances" if values.get("kind") == "fay_herriot" else "independent"
            residual = values.get("residual", {}).get("kind", plain)
            if "sampling" in values:
                residual = f"{values['sampling']['kind']}_sampling"
            rows.append(
                {
                    "name": f"{name}/{model}",
                    "formula": values["formula"],
                    "residual": residual,
                    "rows": data["rows"],
                    "title": data["title"],
                }
            )
    return pd.DataFrame(rows)


def names() -> tuple[str, ...]:
    """Names of the data sets, sorted."""
    return tuple(sorted(path.parent.name for path in _folder().glob("*/model.toml")))


def load(name: str) -> Case:
    """A data set with its default model, "sitka", or with the model named after a slash, "sitka/slopes".

    Raises FileError for an unknown name, listing those there are, and for a folder that contradicts itself.
    """
    dataset, _, chosen = str(name).partition("/")
    if dataset not in names():
        raise _unknown("data set", dataset, names())
    table = _read(dataset)
    info = table["data"]
    specs = {model: _spec(dataset, model, values) for model, values in table["model"].items()}
    chosen = chosen or info["default"]
    if chosen not in specs:
        raise _unknown(f"model of {dataset}", chosen, tuple(specs))
    columns = tuple(_column(dataset, column, values) for column, values in info["columns"].items())
    priors = {key: tuple(texts) for key, texts in table.get("priors", {}).items()}
    return Case(
        name=f"{dataset}/{chosen}",
        title=info["title"],
        spec=specs[chosen],
        specs=MappingProxyType(specs),
        data=_data(dataset, columns, info["rows"]),
        columns=columns,
        answers=tuple(_answer(dataset, entry, table) for entry in table.get("answer", [])),
        priors=MappingProxyType(priors),
        provenance=info["provenance"],
        publication=info["publication"],
        licence=info["licence"],
    )


def _folder() -> Path:
    """The catalogue inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return inside if (inside := package / "models").is_dir() else package.parent / "models"


def _unknown(what: str, name: str, known: tuple[str, ...]) -> FileError:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return FileError(f"The catalogue has no {what} called {name!r}; it has {', '.join(known)}.{hint}")


def _read(dataset: str) -> dict[str, Any]:
    """The tables of a model.toml, their keys checked."""
    path = _folder() / dataset / "model.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"A catalogue entry is a TOML file; {path} could not be read: {error}.") from None
    _keys(dataset, "the file", table, needed=_FILE - {"priors"}, allowed=_FILE)
    _keys(dataset, "[data]", table["data"], needed=_DATA, allowed=_DATA)
    return table


def _keys(dataset: str, where: str, table: Mapping[str, Any], needed: set[str], allowed: set[str]) -> None:
    """Raise FileError unless the keys of a table are those it may and must have."""
    if wrong := sorted((needed - set(table)) | (set(table) - allowed)):
        raise FileError(
            f"{where} in the catalogue entry {dataset!r} must have the keys {', '.join(sorted(needed))} and may have "
            f"{', '.join(sorted(allowed - needed)) or 'no others'}; missing or unknown: {', '.join(wrong)}."
        )


def _spec(dataset: str, model: str, values: Mapping[str, object]) -> AnySpec:
    try:
        return any_from_mapping(values)
    except HierlmmError as error:
        raise FileError(f"The model {model!r} of the catalogue entry {dataset!r} cannot be read: {error}") from error


def _column(dataset: str, name: str, values: Mapping[str, Any]) -> Column:
    _keys(dataset, f"the column {name!r}", values, needed={"kind", "meaning"}, allowed=_COLUMN)
    kind, levels = values["kind"], tuple(values.get("levels", ()))
    if kind not in _DTYPES or (kind == "category") != bool(levels):
        raise FileError(
            f"A column's kind is number, integer, or category with levels; found kind {kind!r} and {len(levels)} "
            f"levels for {name!r} in the catalogue entry {dataset!r}."
        )
    return Column(name=name, kind=kind, unit=values.get("unit", ""), meaning=values["meaning"], levels=levels)


def _data(dataset: str, columns: tuple[Column, ...], rows: int) -> pd.DataFrame:
    """The table of data.csv, held to the columns, levels and number of rows that model.toml states."""
    path = _folder() / dataset / "data.csv"
    types: dict[Any, Any] = {column.name: _DTYPES[column.kind] for column in columns}
    try:
        data = pd.read_csv(path, dtype=types)
    except (OSError, ValueError) as error:
        raise FileError(f"The data of a catalogue entry are a CSV file; {path} could not be read: {error}.") from None
    found = (list(data.columns), len(data))
    if found != (stated := ([column.name for column in columns], rows)):
        raise FileError(f"{path} must have the columns and rows that model.toml states, {stated}; found {found}.")
    for column in columns:
        if column.kind == "category":
            if strange := sorted(set(data[column.name].dropna()) - set(column.levels)):
                raise FileError(f"{path} has levels of {column.name!r} that model.toml does not state: {strange}.")
            data[column.name] = pd.Categorical(data[column.name], categories=list(column.levels))
    return data


def _answer(dataset: str, entry: Mapping[str, Any], table: Mapping[str, Any]) -> Answer:
    where = f"the answer about {entry.get('quantity')!r} of {entry.get('model')!r}"
    by = entry.get("method", entry.get("engine"))
    by_key = "method" if by in _METHODS else "engine"
    extra = {by_key} if by_key == "method" else {by_key, "priors"}
    optional = {"key", "labels", *_TOLERANCES}
    _keys(dataset, where, entry, needed=(_ANSWER - optional) | extra, allowed=_ANSWER | extra)
    labels = tuple(entry.get("labels", ()))
    value = entry["value"]
    values = tuple(value) if isinstance(value, list) else (value,)
    problems = {
        f"no model {entry['model']!r}": entry["model"] not in table["model"],
        f"no method or engine {by!r}": by not in (*_METHODS, *_ENGINES),
        f"no quantity {entry['quantity']!r}": entry["quantity"] not in QUANTITIES,
        f"no source {entry['source']!r}": entry["source"] not in table["source"],
        f"no priors {entry.get('priors')!r}": "priors" in extra and entry["priors"] not in table.get("priors", {}),
        f"{len(values)} values for {len(labels)} labels": len(values) != max(1, len(labels)),
        "not exactly one of atol, rtol, mcse": sum(key in entry for key in _TOLERANCES) != 1,
    }
    if found := [text for text, wrong in problems.items() if wrong]:
        raise FileError(f"{where} in the catalogue entry {dataset!r} contradicts itself: {'; '.join(found)}.")
    return Answer(
        model=entry["model"],
        by=str(by),
        priors=tuple(table["priors"][entry["priors"]]) if "priors" in extra else (),
        quantity=entry["quantity"],
        key=entry.get("key", ""),
        labels=labels,
        values=values,
        atol=float(entry.get("atol", 0)),
        rtol=float(entry.get("rtol", 0)),
        mcse=float(entry.get("mcse", 0)),
        why=entry["why"],
        source=table["source"][entry["source"]],
    )
