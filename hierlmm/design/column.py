"""One column of a table in canonical form: numbers, or codes into labels, whatever kind of column it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed

Kind = Literal["number", "text", "categories", "dates"]
Mask = NDArray[np.bool_]
Codes = NDArray[np.intp]
Array = NDArray[np.float64]

# Whole numbers up to this size are doubles exactly.
EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Column:
    """A column of n rows.

    kind     "number"; or codes into labels: "text" (labels sorted), "categories" (labels in the order the
             data declare), "dates" (or durations: they may name groups, and cannot be predictors)
    values   (n,) numbers as given (float64, int64, uint64 or bool; nan or 0 where missing), or codes, -1 where missing
    missing  (n,) which rows have no value, or None where all have one
    labels   the labels codes point to; empty for numbers
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    missing: Mask | None
    labels: pd.Index

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    def take(self, rows: NDArray[np.intp] | None) -> Column:
        """The same column at the given positions; None takes all rows."""
        if rows is None:
            return self
        missing = None if self.missing is None else self.missing[rows]
        missing = missing if missing is not None and missing.any() else None
        return replace(self, values=self.values[rows], missing=missing)

    def numbers(self) -> Array:
        """(n,) float64 values, nan where missing. Raises DesignError for labels and for numbers no double holds."""
        values = self.values
        if values.dtype == np.float64:
            return values
        out = values.astype(np.float64)
        if values.dtype.kind in "iu" and values.size and np.abs(out).max() >= EXACT:
            # The way back to integers overflows at 2**63, so the comparison is made in Python.
            large = np.flatnonzero(np.abs(out) >= EXACT)
            if wrong := [position for position in large if int(out[position]) != int(values[position])]:
                raise DesignError(
                    f"A number must be representable as a double; column {self.name} has whole numbers beyond 2^53, "
                    f"such as {values[wrong[0]]}. Subtract a constant from the column first."
                )
        if self.missing is not None:
            out[self.missing] = np.nan
        return out

    def used_labels(self) -> tuple[Codes, pd.Index]:
        """Codes and labels of a label column with the labels that occur; order kept."""
        count = np.bincount(self.values, minlength=len(self.labels))
        if count.all():
            return self.values, self.labels
        present = np.flatnonzero(count)
        position = np.empty(len(self.labels), dtype=np.intp)
        position[present] = np.arange(len(present))
        return position[self.values], self.labels[present]


NO_LABELS = pd.Index([])


def from_pandas(name: str, series: pd.Series) -> Column:
    """The canonical form of a pandas column. Raises DesignError for values no model can use, naming the column."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _from_numpy(name, series.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(name, np.asarray(series.cat.codes, dtype=np.intp), dtype.categories)
    if isinstance(dtype, pd.StringDtype):
        return _text(name, series.array)
    if isinstance(dtype, pd.ArrowDtype):
        return from_arrow(name, series.array.__arrow_array__())
    if isinstance(dtype, pd.SparseDtype):
        return _from_numpy(name, np.asarray(series))
    if isinstance(dtype, pd.DatetimeTZDtype | pd.PeriodDtype):
        return _dates(name, series)
    if dtype.kind in "fiub":  # pandas' masked numbers
        missing = series.isna().to_numpy()
        plain = series.to_numpy(dtype=dtype.numpy_dtype, na_value=0)  # type: ignore[attr-defined]
        return _number(name, plain, missing)
    raise _unusable(name, str(dtype))


def from_arrow(name: str, chunks: Any) -> Column:
    """The canonical form of an Arrow column (pyarrow.ChunkedArray); every null is a missing value."""
    import pyarrow as pa

    type_ = chunks.type
    if pa.types.is_dictionary(type_):
        whole = chunks.unify_dictionaries().combine_chunks()
        codes = whole.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        return _category(name, codes.astype(np.intp), pd.Index(whole.dictionary.to_pandas()))
    missing = np.asarray(chunks.is_null().to_numpy())
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        plain = chunks.fill_null(False if pa.types.is_boolean(type_) else 0).to_numpy()
        return _number(name, np.asarray(plain), missing)
    if pa.types.is_floating(type_):
        return _number(name, np.asarray(chunks.to_numpy()), missing)
    if pa.types.is_decimal(type_):
        return _from_objects(name, np.asarray(chunks.to_pylist(), dtype=object))
    if pa.types.is_null(type_):
        return _number(name, np.full(len(chunks), np.nan), missing)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return _text(name, np.asarray(chunks.to_numpy(), dtype=object))
    if pa.types.is_temporal(type_) and not pa.types.is_time(type_):
        return _dates(name, chunks.to_pandas())
    raise _unusable(name, str(type_))


def _from_numpy(name: str, values: NDArray[Any]) -> Column:
    kind = values.dtype.kind
    if kind in "fiub":
        return _number(name, values, None)
    if kind in "mM":
        return _dates(name, pd.Series(values))
    if kind in "OU":
        return _from_objects(name, values.astype(object))
    raise _unusable(name, str(values.dtype))


def _from_objects(name: str, values: NDArray[Any]) -> Column:
    """A column of Python objects, which must all be of one kind."""
    from decimal import Decimal
    from fractions import Fraction

    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred == "string":
        return _text(name, values)
    missing = np.asarray(pd.isna(values))
    present = values[~missing]
    if inferred == "boolean" or inferred == "empty":
        plain = np.zeros(len(values), dtype=bool)
        plain[~missing] = present
        return _number(name, plain, missing)
    if inferred in ("integer", "floating", "decimal", "mixed-integer-float", "mixed") and all(
        isinstance(value, int | float | Decimal | Fraction | np.integer | np.floating) and not isinstance(value, bool)
        for value in present
    ):
        return _number(name, *_parsed(name, values, present, missing, inferred))
    if inferred in ("date", "datetime", "datetime64", "timedelta", "timedelta64", "period"):
        return _dates(name, pd.Series(values))
    kinds = list(dict.fromkeys(type(value).__name__ for value in present))
    raise DesignError(
        f"The values of a column must be of one kind, numbers or text; column {name} has {listed(kinds)}, "
        f"such as {listed(_examples(present))}. Convert the column to one type."
    )


def _parsed(
    name: str, values: NDArray[Any], present: NDArray[Any], missing: Mask, inferred: str
) -> tuple[NDArray[Any], Mask]:
    """Python numbers as int64 where they all are whole, else as the nearest doubles."""
    plain: NDArray[Any]
    if inferred == "integer":
        plain = np.zeros(len(values), dtype=np.int64)
        try:
            plain[~missing] = present
        except OverflowError:
            raise _unusable(name, "whole numbers of more than 64 bits") from None
        return plain, missing
    plain = np.full(len(values), np.nan)
    plain[~missing] = [float(value) for value in present]
    return plain, missing


def _examples(values: NDArray[Any]) -> list[str]:
    """One value of each type, as Python writes it."""
    return [repr(value) for value in {type(value): value for value in values}.values()]


def _unusable(name: str, found: str) -> DesignError:
    return DesignError(
        f"A column must hold numbers, text, categories or dates; column {name} holds {found}. "
        "Convert it to one of these first."
    )


def _number(name: str, values: NDArray[Any], missing: Mask | None) -> Column:
    if values.dtype.kind == "f":
        given = values
        with np.errstate(over="ignore"):
            values = given.astype(np.float64, copy=False)
        if given.dtype.itemsize > 8 and not np.array_equal(values.astype(given.dtype), given, equal_nan=True):
            raise DesignError(
                f"A number must be representable as a double; column {name} of type {given.dtype} has values that "
                "are not. Round the column with .astype(float) first."
            )
        gaps = np.isnan(values)
        missing = gaps if missing is None else gaps | missing
        if missing is not gaps and missing.any():
            values = np.where(missing, np.nan, values)
    elif values.dtype != bool:
        values = values.astype(np.uint64 if values.dtype == np.uint64 else np.int64, copy=False)
    return Column(name, "number", values, missing if missing is not None and missing.any() else None, NO_LABELS)


def _text(name: str, values: Any) -> Column:
    codes, found = pd.factorize(values) if isinstance(values, np.ndarray) else values.factorize()
    labels = np.asarray(found, dtype=object)
    order = np.array(sorted(range(len(labels)), key=labels.tolist().__getitem__), dtype=np.intp)
    position = np.empty(len(order) + 1, dtype=np.intp)
    position[order] = np.arange(len(order))
    position[-1] = -1
    return _labelled(name, "text", position[codes], pd.Index(labels[order], dtype=object))


def _dates(name: str, series: Any) -> Column:
    codes, labels = pd.factorize(pd.Series(series), sort=True)
    if labels.dtype == object:  # days of Python or Arrow
        labels = pd.to_datetime(labels)
    return _labelled(name, "dates", codes, pd.Index(labels))


def _category(name: str, codes: Codes, categories: pd.Index) -> Column:
    if categories.dtype == np.float64:
        categories = pd.Index(whole_numbers(categories.to_numpy()))
    return _labelled(name, "categories", codes, categories)


def whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Doubles as int64 where all are whole: a table with gaps often holds whole numbers as doubles."""
    if len(values) and (np.abs(values) < EXACT).all() and np.array_equal(values, np.round(values)):
        return values.astype(np.int64)
    return values


def _labelled(name: str, kind: Kind, codes: Codes, labels: pd.Index) -> Column:
    """A label column; blank text counts as missing, because that is how a blank field of a file arrives."""
    if not pd.api.types.is_numeric_dtype(labels.dtype) and kind != "dates":
        texts = labels.tolist()
        blank = np.array([not text.strip() if isinstance(text, str) else pd.isna(text) for text in texts], dtype=bool)
        if blank.any():
            position = np.append(np.where(blank, -1, np.cumsum(~blank) - 1), -1)
            codes, labels = position[codes], labels[~blank]
    missing = codes < 0
    return Column(name, kind, codes, missing if missing.any() else None, labels)
