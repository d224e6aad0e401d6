"""When the rows of a group were taken: positions in whole steps, times, or labelled occasions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.errors import DesignError, listed

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


def positions_of(column: Column, index: pd.Index) -> tuple[Vector, Codes, pd.Index, tuple[str, ...]]:
    """Positions (n,) in units of their common step, from 0; codes (n,) into the positions that occur; their labels;
    notes.

    Numbers must be whole; the step is the greatest common divisor of their differences. Of categories and text the
    position is the place in the order of the labels, those that occur in no complete row included.
    """
    if column.kind == "dates":
        raise _dates(column, "A position")
    if column.is_number:
        values = column.numbers()
        if (wrong := values != np.round(values)).any():
            raise DesignError(
                f"Positions must be whole numbers; column {column.name} has {listed(np.unique(values[wrong]))} in rows "
                f"{listed(index[wrong])}. Number the occasions, or use ContinuousAR1, which takes any times."
            )
        notes: tuple[str, ...] = ()
    else:
        check_distinct(column.name, column.labels)
        _check_order(column)
        values = column.values.astype(np.float64)
        shown = ", ".join(map(str, column.labels))
        notes = (f"Positions are those in the order of the labels of {column.name}: {shown}.",)
        notes = notes if column.kind == "text" else ()
    occurring, codes = np.unique(values, return_inverse=True)
    step = _step(occurring)
    labels = pd.Index(occurring.astype(np.int64)) if column.is_number else column.labels[occurring.astype(np.intp)]
    if step > 1:
        notes = (
            *notes,
            f"Positions of {column.name} are {step} apart ({listed(labels)}): correlations are those of rows one such "
            "step apart.",
        )
    return (values - occurring[0]) / step, codes.ravel(), labels, notes


def times_of(column: Column) -> Vector:
    """Times (n,). Raises DesignError for anything but finite numbers."""
    if column.kind == "dates":
        raise _dates(column, "A time")
    if not column.is_number:
        raise DesignError(
            f"Times must be numbers; column {column.name} holds {column.kind} such as {listed(column.labels[:2])}. "
            "Convert it, or use AR1, whose positions may be the order of categories."
        )
    values = np.array(column.numbers())
    if np.isinf(values).any():
        raise DesignError(f"Times must be finite; column {column.name} includes inf. Remove these rows.")
    return values


def occasions_of(column: Column) -> tuple[Codes, pd.Index]:
    """Codes (n,) into the occasions that occur, sorted or in their declared order, and their labels."""
    codes, labels = label_codes(column)
    if not column.is_number:
        check_distinct(column.name, labels)
        _check_order(column)
    return codes, labels


def _step(occurring: Vector) -> int:
    """Greatest common divisor of the differences of sorted whole numbers; 1 for a single one."""
    gaps = np.diff(occurring).astype(np.int64)
    return int(np.gcd.reduce(gaps)) if len(gaps) else 1


def _check_order(column: Column) -> None:
    """Refuse text that is numbers: sorted as text, "10" stands before "2"."""
    if column.kind != "text":
        return
    texts = column.labels.tolist()
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return
    if numbers != sorted(numbers):
        raise DesignError(
            f"The order of occasions must be theirs, not that of the alphabet; column {column.name} holds numbers as "
            f"text, which sort as {listed(texts)}. Convert it with pandas.to_numeric."
        )


def _dates(column: Column, what: str) -> DesignError:
    example = column.labels[0] if len(column.labels) else "no value"
    return DesignError(
        f"{what} must be a number; column {column.name} holds dates or durations ({example}). Convert it to a number "
        "of days or years from a stated origin, as in (date - date.min()).dt.days."
    )
