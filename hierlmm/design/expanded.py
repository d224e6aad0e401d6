"""Columns of formula terms with every level of a category as a column of its own: they need no knowledge of other rows.

The columns that a coding against a reference level keeps are among them, so that rows can be summed before all levels
are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.encoder import learn
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.design.moments import Labels
from hierlmm.design.types import Codes
from hierlmm.errors import DesignError, FormulaError, listed
from hierlmm.spec.algebra import expression
from hierlmm.spec.formula import term_columns
from hierlmm.spec.guard import ELEMENTWISE
from hierlmm.spec.lexer import Token, lex, unquoted

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Categorical:
    """A factor of a term with levels: its name, the codes of the rows, and the labels the codes point to."""

    name: str
    codes: Codes
    labels: Labels


@dataclass(frozen=True, slots=True)
class Summed:
    """One column less its shift: values = column - shift * base.

    base  CONSTANT; the name of the indicator of the levels that the column is a product with; or "" for an indicator
    """

    name: str
    base: str
    shift: float
    values: Array


# The base of a column that is no indicator and no product with one.
CONSTANT = "1"


def shifted(name: str, column: Array) -> Summed:
    """A column less its mean, which is taken of the differences from the first value: a plain one loses digits."""
    first = float(column[0])
    shift = first + float((column - first).mean())
    return Summed(name, CONSTANT, shift, column - shift)


def check_streamable(terms: tuple[str, ...]) -> None:
    """Raise DesignError for terms whose columns depend on more rows than their own."""
    for term in terms:
        for token in _factors(term):
            if token.kind == "name" or _category(token) is not None:
                continue
            learns = sorted(expression(token, term).calls - ELEMENTWISE - {"I"})
            if learns or token.text.startswith("C("):
                raise DesignError(
                    "A column that is computed from all rows, or coded by a contrast, cannot be formed while the rows "
                    f"pass; {term} uses {listed(f'{name}(...)' for name in learns or ['C'])}. Compute the column "
                    "before, or read the data into a table."
                )


def expanded(
    terms: tuple[str, ...], columns: Mapping[str, Column], n: int, categories: dict[str, Categorical]
) -> list[Summed]:
    """The columns of the terms over n rows but for the intercept; `categories` gains the factors with levels."""
    found = []
    for term in terms:
        if term == "1":
            continue
        names, numbers, coded = [], np.ones(n), []
        for token in _factors(term):
            factor = _read(token, columns, n, categories)
            names.append(_name(token))
            if isinstance(factor, Categorical):
                coded.append(factor)
            else:
                numbers = numbers * factor
        if not coded:
            found.append(shifted(":".join(names), numbers))
            continue
        plain = [name for name in names if name not in categories]
        for some in _margins(coded):
            kept = {*plain, *(factor.name for factor in some)}
            found += _by_level([name for name in names if name in kept], numbers, some)
    return found


def _by_level(names: list[str], numbers: Array, coded: list[Categorical]) -> Iterator[Summed]:
    """One column for each combination of levels that occurs, after the indicator that it is a product with."""
    levels = [factor.name for factor in coded]
    cell = np.zeros(len(numbers), dtype=np.int64)
    for factor in coded:
        cell = cell * len(factor.labels.index) + factor.codes
    for one in np.unique(cell):
        rest, labels = int(one), {}
        for factor in reversed(coded):
            rest, code = divmod(rest, len(factor.labels.index))
            labels[factor.name] = factor.labels.index[code]
        inside = cell == one
        base = full_name(levels, labels)
        yield Summed(base, "", 0.0, inside.astype(np.float64))
        if len(names) > len(levels):
            shift = float(numbers[inside].mean())
            yield Summed(full_name(names, labels), base, shift, np.where(inside, numbers - shift, 0.0))


def full_name(names: list[str], labels: Mapping[str, object]) -> str:
    """ "f[b]:x" for the factors f and x and the label b of f."""
    return ":".join(f"{name}[{labels[name]}]" if name in labels else name for name in names)


def codings(term: str, categories: Mapping[str, Labels]) -> Iterator[tuple[str, str]]:
    """Names that a coding may give to the columns of a term, and the name each has here."""
    names = [_name(token) for token in _factors(term)]
    coded = [name for name in names if name in categories]
    for some in _margins(coded):
        kept = [name for name in names if name in some or name not in categories]
        for labels in product(*(categories[name].used() for name in some)):
            full = full_name(kept, dict(zip(some, labels, strict=True)))
            for marks in product(("", "T."), repeat=len(some)):
                texts = {name: f"{mark}{label}" for name, mark, label in zip(some, marks, labels, strict=True)}
                yield full_name(kept, texts), full


def _margins(coded: list[T]) -> list[list[T]]:
    """The categorical factors of a term, and those of its margins: without f and h, f:h is coded as h and f:h."""
    return [list(some) for size in range(1, len(coded) + 1) for some in combinations(coded, size)]


def _read(
    token: Token, columns: Mapping[str, Column], n: int, categories: dict[str, Categorical]
) -> Array | Categorical:
    """A factor of a term as numbers or as categories."""
    name = _name(token)
    if name in categories:
        return categories[name]
    source = token.text if token.kind == "name" else _category(token)
    if source is None:
        values, _ = learn((token.text,), columns, n)
        return np.asarray(values[:, 0])
    column = columns[source]
    if column.kind == "dates":
        learn((token.text if token.kind != "name" else f"`{source}`",), columns, n)  # refuses it
    if column.is_number and token.kind == "name":
        return column.numbers()
    categories[name] = Categorical(name, *_coded(column))
    return categories[name]


def _coded(column: Column) -> tuple[Codes, Labels]:
    """Codes and labels of a categorical column; the order that the data declare is kept with all of its labels."""
    if column.kind == "categories":
        seen = np.bincount(column.values, minlength=len(column.labels)) > 0
        check_distinct(column.name, column.labels[seen])
        return column.values, Labels("categories", column.labels, seen)
    if column.values.dtype == bool:
        return column.values.astype(np.intp), Labels("number", pd.Index([False, True]), np.array([True, True]))
    codes, index = label_codes(column)
    check_distinct(column.name, index)
    return codes, Labels(column.kind, index, np.ones(len(index), dtype=bool))


def group_labels(column: Column) -> tuple[Codes, Labels]:
    """Codes and labels of a grouping column."""
    if column.kind == "categories":
        return _coded(column)
    codes, index = label_codes(column)
    check_distinct(column.name, index)
    return codes, Labels(column.kind, index, np.ones(len(index), dtype=bool))


@lru_cache(maxsize=4096)
def _factors(term: str) -> tuple[Token, ...]:
    return () if term == "1" else lex(term)[::2]


def _name(token: Token) -> str:
    """The factor's name as columns of the design have it."""
    return token.text


def _category(token: Token) -> str | None:
    """The column of C(x); None for any other call."""
    if not token.text.startswith("C("):
        return None
    try:
        inner = unquoted(token.text[2:-1].strip())
    except FormulaError:
        return None
    return inner if inner is not None and inner in term_columns(token.text) else None
