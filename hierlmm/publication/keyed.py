"""Values that arrive beside a result - weights, groups, totals - matched to it by label and never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct, check_same_kind
from hierlmm.design.source import read
from hierlmm.errors import DesignError, listed

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Labels that values are matched to.

    name    what the labels are called: the name of their column, "area" or "group"
    labels  (M,) unique, in the order of the results
    table   columns by label that the result itself holds, `name` among them; None: it holds none
    lacking, remedy  what errors advise for labels of the result without a value, and for labels that are not in it
    """

    name: str
    labels: pd.Index
    table: pd.DataFrame | None = None
    lacking: str = "Give each a value."
    remedy: str = "Correct or remove them."


def numbers(given: object, what: str, keys: Keys, data: object = None) -> Vector:
    """(M,) numbers for the labels, in their order.

    given  a mapping or Series from labels to numbers; a column of `data` (or of the result's own table) by name; or
           one number for all
    what   how errors call it: "weights"

    Raises DesignError for anything else, for labels of the result without a number and numbers for labels that are
    not in it, for labels that stand twice, and for values that are missing, infinite or no numbers.
    """
    if isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool):
        if not np.isfinite(given):
            raise DesignError(f"{_opening(what)} must be finite; found {given}. Correct it.")
        return np.full(len(keys.labels), float(given))
    column = matched(given, what, keys, data)
    if not column.is_number:
        raise DesignError(f"{_opening(what)} must be numbers; found {column.kind}. Convert them to numbers.")
    values = np.array(column.numbers())
    refuse(~np.isfinite(values), what, "must be numbers", "missing or infinite", keys, "Give each a number.")
    return values


def groups(given: object, what: str, keys: Keys, data: object = None) -> tuple[Codes, pd.Index]:
    """Codes (M,) of the group of each label, and the groups, sorted unless the data declare an order.

    `given`, and what is refused, as in `numbers`; a label without a group is refused.
    """
    column = matched(given, what, keys, data)
    if column.missing is not None:
        refuse(column.missing, what, "must be given for each", "missing", keys, "Give each a group.")
    codes, labels = label_codes(column)
    check_distinct(what, labels)
    return codes, labels


def group_name(given: object, default: str) -> str:
    """What a grouping is called: the column's name, that of the Series, or a default."""
    name = given if isinstance(given, str) else getattr(given, "name", None)
    return name if isinstance(name, str) else default


def matched(given: object, what: str, keys: Keys, data: object) -> Column:
    """The column of values in the order of the labels."""
    columns = _columns(given, what, keys, data)
    name = keys.name
    area, values = columns[name], columns[given if isinstance(given, str) else _value_name(what, name)]
    if area.missing is not None:
        raise DesignError(f"Each row must name its {name}; in the table of {what} {area.missing.sum()} rows do not.")
    codes, labels = label_codes(area)
    check_distinct(name, labels)
    check_same_kind(name, keys.labels, labels)
    if (twice := np.bincount(codes, minlength=len(labels)) > 1).any():
        raise DesignError(
            f"Each {name} has one value; in the table of {what} {listed(labels[twice])} stands more than once. "
            "Aggregate these rows first."
        )
    check_labels(keys, labels, what)
    position = np.empty(len(labels), dtype=np.intp)
    position[codes] = np.arange(len(codes))
    return values.take(position[labels.get_indexer(keys.labels)])


def _columns(given: object, what: str, keys: Keys, data: object) -> Mapping[str, Column]:
    """The labels and the values as columns, in the order in which they were given."""
    if isinstance(given, str):
        if data is not None:
            return read(data, (keys.name, given)).columns
        if keys.table is None or given not in keys.table:
            held = [] if keys.table is None else [name for name in keys.table if name != keys.name]
            raise DesignError(
                f"The {what} were named as column {given!r}, which is not among those the result holds "
                f"({listed(held) or 'none'}). Give the table as `data=`, or a Series whose index is {keys.name}."
            )
        return read(keys.table, (keys.name, given)).columns
    if isinstance(given, Mapping):
        labels, values = pd.Index(list(given)), pd.Series(list(given.values()), dtype=None if given else float)
    elif isinstance(given, pd.Series):
        labels, values = given.index, given
    else:
        one = isinstance(given, pd.DataFrame)
        raise DesignError(
            f"The {what} are matched by label: a Series whose index is {keys.name}, a mapping, or the name of a column "
            f"of `data`; found {given if given is None or isinstance(given, bool) else type(given).__name__}. "
            + ("Give the table as `data=` and name the column." if one else "Use pandas.Series(values, index=labels).")
        )
    value = _value_name(what, keys.name)
    frame = pd.DataFrame({keys.name: labels.to_numpy(), value: values.array}, index=range(len(labels)))
    return read(frame, (keys.name, value)).columns


def _opening(what: str) -> str:
    """As the first word of a sentence; the name of a column keeps its capitals."""
    return what[:1].upper() + what[1:]


def _value_name(what: str, name: str) -> str:
    """The name under which values without one are read: what they are, unless the labels are called so."""
    return what if what != name else f"{what}."


def check_labels(keys: Keys, found: pd.Index, what: str) -> None:
    """Refuse labels that are in one of the two only, naming them."""
    absent, extra = keys.labels.difference(found, sort=False), found.difference(keys.labels, sort=False)
    if len(absent):
        also = f"; {len(extra)} that are not in the result have one: {listed(extra)}" if len(extra) else ""
        raise DesignError(
            f"The {what} are given for each {keys.name} of the result; {len(absent)} of {len(keys.labels)} have none: "
            f"{listed(absent)}{also}. {keys.lacking}"
        )
    if len(extra):
        raise DesignError(
            f"The {what} are given for each {keys.name} of the result and for no other; {len(extra)} are not in it: "
            f"{listed(extra)}. {keys.remedy}"
        )


def refuse(bad: NDArray[np.bool_], what: str, rule: str, found: str, keys: Keys, advice: str) -> None:
    """Raise DesignError naming the labels where `bad` (M,) holds."""
    if bad.any():
        raise DesignError(
            f"{_opening(what)} {rule} {keys.name}; {found} for {listed(keys.labels[bad])}. {advice}"
        )


def require_nonnegative(weights: Vector, keys: Keys) -> Vector:
    """The weights, none of them negative and not all of them 0."""
    refuse(weights < 0, "weights", "must be 0 or more in each", "negative", keys, "Correct them.")
    if not (weights > 0).any():
        raise DesignError("Weights must not all be 0; found a zero total. Give the population sizes or shares.")
    return weights
