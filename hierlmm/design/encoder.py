"""Formula terms of columns as a matrix with named columns, and the same coding again for new rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.evaluation import evaluate, evaluate_again, factor_levels, plain_factors
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct, check_same_kind
from hierlmm.errors import DesignError, listed
from hierlmm.spec.formula import term_columns, term_groups
from hierlmm.spec.lexer import lex

Matrix = NDArray[np.float64]
Columns = Mapping[str, Column]
Levels = Mapping[str, tuple[object, ...]]

# A step of a direct coding: columns to multiply, or one categorical column and its first level to code.
Step = tuple[tuple[str, ...], int | None]


@dataclass(frozen=True, slots=True)
class Encoder:
    """How terms were coded.

    terms    formula terms, each a product of columns and expressions; "1" is the intercept
    names    names of the matrix's columns, as formulaic writes them
    known    labels of each categorical column that the terms read, those that occur, in order
    levels   per categorical factor of the terms, its levels, the reference level first
    steps    how to build the columns directly, or None where formulaic does it
    state    formulaic's model specification with the state of its transforms, where formulaic does it
    groups   labels of each column that within and between group by and that is read for nothing else
    """

    terms: tuple[str, ...]
    names: tuple[str, ...]
    known: Mapping[str, pd.Index]
    levels: Levels
    steps: tuple[Step, ...] | None
    state: Any
    groups: Mapping[str, pd.Index]


def learn(
    terms: tuple[str, ...], columns: Columns, n: int, count: NDArray[np.float64] | None = None
) -> tuple[Matrix, Encoder]:
    """Code n complete rows: the matrix (n, k) and how it was made.

    count  (n,) how often each row counts where a transform learns from the rows; None: once

    Text and categories are coded against their first level (sorted, or in the declared order), unless the formula
    says otherwise. Raises DesignError for columns that cannot be predictors and terms that cannot be computed.
    """
    used = dict.fromkeys(name for term in terms for name in term_columns(term))
    known = {}
    codes = {}
    groups = _groups(terms, columns)
    for name in used:
        column = columns[name]
        if name in groups:
            continue
        if column.kind == "dates":
            raise _dates(column)
        if not column.is_number:
            check_distinct(name, column.labels)
            codes[name], known[name] = column.used_labels()
    for term in terms:
        _check_numeric(term, known)
    if (steps := _steps(terms, known)) is not None:
        matrix = _direct(steps, columns, codes, {name: len(labels) for name, labels in known.items()}, n)
        levels = {names[0]: tuple(known[names[0]]) for names, first in steps if first is not None}
        return matrix, Encoder(terms, _names(steps, known), known, levels, steps, None, groups)
    matrix, state = evaluate(terms, _frame(used, columns, codes, known), _truths(columns), count)
    return matrix, Encoder(terms, tuple(state.column_names), known, factor_levels(state), None, state, groups)


def _groups(terms: tuple[str, ...], columns: Columns) -> dict[str, pd.Index]:
    """Labels of the columns that the terms read only to group by."""
    predictors = {name for term in terms for name in set(term_columns(term)) - set(term_groups(term))}
    found = {}
    for name in dict.fromkeys(name for term in terms for name in term_groups(term)):
        if name not in predictors:
            _, found[name] = label_codes(columns[name])
            check_distinct(name, found[name])
    return found


def apply(encoder: Encoder, columns: Columns, index: pd.Index) -> Matrix:
    """Code new rows as the first were coded: (k, columns).

    Raises DesignError for a category that did not occur, naming value, column, rows and the known ones.
    """
    used = dict.fromkeys(name for term in encoder.terms for name in term_columns(term))
    codes = {name: _known_codes(columns[name], labels, index) for name, labels in encoder.known.items()}
    for name, labels in encoder.groups.items():
        check_same_kind(name, labels, label_codes(columns[name])[1])
    for name in used:
        if name not in encoder.known and name not in encoder.groups and not columns[name].is_number:
            raise DesignError(
                f"A predictor must be of the kind it had in the fit; column {name} was numeric and is now "
                f"{columns[name].kind}. Convert it to numbers."
            )
    if encoder.steps is not None:
        sizes = {name: len(labels) for name, labels in encoder.known.items()}
        return _direct(encoder.steps, columns, codes, sizes, len(index))
    if not len(index):
        return np.empty((0, len(encoder.names)))
    _check_numbers_as_categories(encoder, columns, index)
    return evaluate_again(encoder.terms, encoder.state, _frame(used, columns, codes, encoder.known), _truths(columns))


def _known_codes(column: Column, labels: pd.Index, index: pd.Index) -> NDArray[np.intp]:
    """Codes of a column into known labels; every label must be known."""
    values = pd.Index(column.values) if column.is_number else column.labels.take(column.values)
    codes = labels.get_indexer(values)
    if (unseen := codes < 0).any():
        found = dict.fromkeys(values[unseen].tolist())
        raise DesignError(
            f"A category of a predictor must occur in the fit; column {column.name} has {listed(found)} in rows "
            f"{listed(index[unseen])}. Known: {listed(labels)}."
        )
    return np.asarray(codes)


def _check_numbers_as_categories(encoder: Encoder, columns: Columns, index: pd.Index) -> None:
    """The same for C(x) of a numeric column, which formulaic codes."""
    for factor, levels in encoder.levels.items():
        names = term_columns(factor)
        if (
            len(names) == 1
            and names[0] not in encoder.known
            and re.match(r"C\(`?" + re.escape(names[0]) + "`?[,)]", factor)
        ):
            _known_codes(columns[names[0]], pd.Index(levels), index)


def _dates(column: Column) -> DesignError:
    example = column.labels[0] if len(column.labels) else "no value"
    return DesignError(
        f"A predictor must hold numbers, text or categories; column {column.name} holds dates or durations "
        f"({example}). Convert it to a number of days, years or seconds from a stated origin."
    )


@lru_cache(maxsize=4096)
def _arithmetic_columns(term: str) -> tuple[str, ...]:
    """Columns that a term's expressions compute with: those of log(x) and I(x / z), not those of C(g)."""
    if term == "1":
        return ()
    calls = [token.text for token in lex(term)[::2] if token.kind != "name" and not token.text.startswith("C(")]
    return tuple(name for call in calls for name in term_columns(call) if name not in term_groups(call))


def _check_numeric(term: str, known: Mapping[str, pd.Index]) -> None:
    if wrong := [name for name in _arithmetic_columns(term) if name in known]:
        raise DesignError(
            f"An expression must be computed from numbers; {term} reads {listed(wrong)}, which holds labels such as "
            f"{listed(known[wrong[0]][:1])}. Convert the column to numbers, or use it as it stands."
        )


def _steps(terms: tuple[str, ...], known: Mapping[str, pd.Index]) -> tuple[Step, ...] | None:
    """Direct coding of products of numeric columns and of single categorical columns; None for anything else.

    These are most models, and formulaic's general machinery costs a hundred times what they need.
    """
    steps: list[Step] = []
    spanned = False
    for term in terms:
        factors = plain_factors(term)
        if factors is None:
            return None
        if not any(name in known for name in factors):
            spanned = spanned or term == "1"
            steps.append((factors, None))
        elif len(factors) == 1:
            steps.append((factors, int(spanned)))
            spanned = True
        else:
            return None
    return tuple(steps)


def _direct(
    steps: tuple[Step, ...], columns: Columns, codes: Mapping[str, NDArray[np.intp]], sizes: Mapping[str, int], n: int
) -> Matrix:
    width = sum(1 if first is None else sizes[names[0]] - first for names, first in steps)
    out = np.empty((n, width), order="F")
    j = 0
    for names, first in steps:
        if first is None:
            out[:, j] = 1.0
            for name in names:
                out[:, j] *= columns[name].numbers()
            j += 1
            continue
        for level in range(first, sizes[names[0]]):
            np.equal(codes[names[0]], level, out=out[:, j], casting="unsafe")
            j += 1
    return out


def _names(steps: tuple[Step, ...], known: Mapping[str, pd.Index]) -> tuple[str, ...]:
    found: list[str] = []
    for names, first in steps:
        if first is None:
            found.append(":".join(names) or "Intercept")
        else:
            found += [f"{names[0]}[{'T.' if first else ''}{label}]" for label in known[names[0]][first:]]
    return tuple(found)


def _frame(
    used: Mapping[str, None], columns: Columns, codes: Mapping[str, NDArray[np.intp]], known: Mapping[str, pd.Index]
) -> pd.DataFrame:
    """What formulaic sees: doubles and categories, nothing it would have to guess about."""
    return pd.DataFrame({name: _values(columns[name], codes.get(name), known.get(name)) for name in used})


def _values(column: Column, codes: NDArray[np.intp] | None, labels: pd.Index | None) -> Any:
    """A column as formulaic sees it; label columns without codes are those that within and between group by."""
    if codes is not None:
        return pd.Categorical.from_codes(codes, labels)
    return column.numbers() if column.is_number else pd.Categorical.from_codes(column.values, column.labels)


def _truths(columns: Columns) -> frozenset[str]:
    """Names of the columns of truth values."""
    return frozenset(name for name, column in columns.items() if column.values.dtype == bool)
