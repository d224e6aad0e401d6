"""Grouping factors: the levels of one column or of a combination of columns, as integer codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column, whole_numbers
from hierlmm.design.labels import check_distinct, check_same_kind
from hierlmm.errors import DesignError

Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Keys:
    """The levels of a grouping factor and how to recognise them in new rows.

    parts     labels of each of its columns
    combined  position of each observed combination in the product of the parts, ascending; empty for one column
    levels    (G,) labels: of the column, or "a1:b1" for a combination
    """

    columns: tuple[str, ...]
    parts: tuple[pd.Index, ...]
    combined: NDArray[np.int64]
    levels: pd.Index


def grouped(names: tuple[str, ...], columns: Mapping[str, Column]) -> tuple[Codes, Keys]:
    """Codes (n,) and keys of the factor that the named columns form; only observed levels, sorted.

    Labels that differ by type, blanks or Unicode form alone are refused with the list.
    """
    coded = [label_codes(columns[name]) for name in names]
    for name, (_, labels) in zip(names, coded, strict=True):
        check_distinct(name, labels)
    parts = tuple(labels for _, labels in coded)
    if len(names) == 1:
        return coded[0][0], keys_of(names, parts, np.empty(0, dtype=np.int64))
    cells = _cells([codes for codes, _ in coded], parts)
    codes, combined = _sorted_numbers(cells)
    return codes, keys_of(names, parts, combined)


def keys_of(names: tuple[str, ...], parts: tuple[pd.Index, ...], combined: NDArray[np.int64]) -> Keys:
    """The keys of the combinations of labels that occur; for one column all of its labels."""
    if len(parts) == 1:
        return Keys(names, parts, np.empty(0, dtype=np.int64), pd.Index(parts[0].to_numpy()))
    return Keys(names, parts, combined, _joined(combined, parts))


def recognised(keys: Keys, columns: Mapping[str, Column], index: pd.Index) -> tuple[Codes, pd.Index]:
    """Codes of new rows, -1 where the level was not observed, and their labels."""
    found, shown = [], []
    for name, labels in zip(keys.columns, keys.parts, strict=True):
        codes, new = label_codes(columns[name])
        check_same_kind(name, labels, new)
        found.append(labels.get_indexer(new)[codes])
        shown.append(new.take(codes))
    if len(found) == 1:
        return found[0], shown[0]
    known = np.logical_and.reduce([codes >= 0 for codes in found])
    cells = np.where(known, _cells(found, keys.parts), -1)
    position = np.minimum(np.searchsorted(keys.combined, cells), len(keys.combined) - 1)
    codes = np.where(keys.combined[position] == cells, position, -1)
    text = [":".join(map(str, pair)) for pair in zip(*shown, strict=True)]
    names = np.where(codes >= 0, keys.levels.to_numpy(object)[codes], np.asarray(text, dtype=object))
    return codes, pd.Index(names)


def label_codes(column: Column) -> tuple[Codes, pd.Index]:
    """Codes and occurring labels of a complete column, sorted unless the data declare an order.

    Numbers are labels as they stand; whole ones are int64 whatever type held them, as a table with gaps often
    holds whole numbers as doubles. Raises DesignError for infinite values.
    """
    if not column.is_number:
        return column.used_labels()
    codes, values = _sorted_numbers(column.values)
    if values.dtype == np.float64:
        if np.isinf(values).any():
            raise DesignError(f"A label must be finite; column {column.name} includes inf. Remove these rows.")
        values = whole_numbers(values)
    return codes, pd.Index(values)


def _sorted_numbers(numbers: NDArray[Any]) -> tuple[Codes, NDArray[Any]]:
    """Codes and sorted values; numbers of a narrow range, as most keys are, are counted rather than hashed."""
    if numbers.dtype == np.int64 and len(numbers):
        least = int(numbers.min())
        span = int(numbers.max()) - least + 1
        if span <= 4 * len(numbers) + 1000:
            shifted = numbers - least
            present = np.flatnonzero(np.bincount(shifted, minlength=span))
            position = np.empty(span, dtype=np.intp)
            position[present] = np.arange(len(present))
            return position[shifted], present + least
    codes, values = pd.factorize(numbers, sort=True)
    return codes, np.asarray(values)


def _cells(codes: list[Codes], parts: tuple[pd.Index, ...]) -> NDArray[np.int64]:
    """Position of each row's combination in the product of the parts."""
    if np.prod([float(len(part)) for part in parts]) >= 2.0**62:
        raise DesignError(
            f"The cells of a combination of grouping columns must be countable; {':'.join(map(str, map(len, parts)))} "
            "levels are too many. Join the columns first."
        )
    cells = codes[0].astype(np.int64)
    for position, labels in zip(codes[1:], parts[1:], strict=True):
        cells = cells * len(labels) + position
    return cells


def _joined(combined: NDArray[np.int64], parts: tuple[pd.Index, ...]) -> pd.Index:
    """ "a1:b1" for each combination; colons inside the parts are escaped where two combinations would look alike."""
    texts = []
    rest = combined
    for labels in reversed(parts):
        texts.append(np.array([str(label) for label in labels], dtype=object)[rest % len(labels)])
        rest = rest // len(labels)
    pairs = list(zip(*reversed(texts), strict=True))
    joined = [":".join(pair) for pair in pairs]
    if len(set(joined)) < len(joined):
        joined = [":".join(text.replace("\\", "\\\\").replace(":", "\\:") for text in pair) for pair in pairs]
    return pd.Index(joined)
