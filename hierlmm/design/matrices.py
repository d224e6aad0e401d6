"""Matrices that stand beside the table of areas: read with their labels, and put in the order of the areas by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.coding import frozen
from hierlmm.design.labels import normal
from hierlmm.design.types import Matrix
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingCovariance

LABELLED = (
    "Give it as a table whose rows and columns are labelled by the areas: pandas.DataFrame(W, index=labels, "
    "columns=labels), with the labels in the order in which its rows were made."
)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A square matrix (k, k) with one label for each row, which is also that of the column of the same place."""

    name: str
    labels: pd.Index
    values: Matrix


def check_names(spec: ModelSpec, matrices: Mapping[str, object] | None) -> Mapping[str, object]:
    """The matrices given, which must be those that the spec names. Raises DesignError."""
    given = {} if matrices is None else matrices
    if not isinstance(given, Mapping):
        raise DesignError(
            f"Matrices are given by name, as in matrices={{'W': table}}; found {type(given).__name__}. "
            f"The spec names {listed(spec.matrices) or 'none'}."
        )
    if absent := [name for name in spec.matrices if name not in given]:
        close = get_close_matches(absent[0], list(map(str, given)), 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Give it, as matrices={{{absent[0]!r}: table}}."
        if isinstance(spec.residual, SamplingCovariance) and spec.residual.matrix == absent[0] and not close:
            hint += " A column of variances is named by sampling_variance instead."
        raise DesignError(
            f"Every matrix that the spec names must be given beside the data; {listed(absent)} is missing. {hint}"
        )
    if extra := [name for name in given if name not in spec.matrices]:
        raise DesignError(
            f"The matrices given must be those that the spec names ({listed(spec.matrices) or 'none'}); found also "
            f"{listed(extra)}. Leave it out, or name it in the spec, as in hl.SAR({str(extra[0])!r})."
        )
    return given


def read_matrix(name: str, given: object) -> Labelled:
    """A labelled square matrix from pandas, or from polars or pyarrow with one column of labels.

    Raises DesignError for matrices without labels, that are not square, with labels that stand twice or differ
    between rows and columns, and with values that are no numbers.
    """
    if isinstance(given, pd.DataFrame):
        return _read_pandas(name, given)
    if isinstance(given, pd.Series) or type(given).__name__ in ("Series", "ChunkedArray", "Array"):
        raise DesignError(
            f"A matrix has rows and columns; {name} is of type {_kind(given)}, one column. Variances alone are a "
            "column of the table of areas, named by sampling_variance."
        )
    if isinstance(given, np.ndarray) or not hasattr(given, "__arrow_c_stream__"):
        shape = f" of shape {given.shape}" if isinstance(given, np.ndarray) else ""
        raise DesignError(
            f"A matrix must have labels, since a row without one could be any area's; {name} is of "
            f"type {_kind(given)}{shape}. {LABELLED}"
        )
    import pyarrow as pa

    return _read_pandas(name, pa.table(given).to_pandas())


def _kind(given: object) -> str:
    """The type of a value as a reader knows it: "dict", "numpy.ndarray", "pandas Series"."""
    kind = type(given)
    if kind.__name__ == "Series":
        return f"{kind.__module__.partition('.')[0]} Series"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def read_blocks(name: str, given: object) -> Labelled:
    """As `read_matrix`, or a sequence of such diagonal blocks, whose rows are uncorrelated between blocks."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return read_matrix(name, given)
    if not given:
        raise DesignError(f"A sequence of diagonal blocks must have one; {name} is empty.")
    blocks = [read_matrix(f"{name}[{k}]", block) for k, block in enumerate(given)]
    labels = blocks[0].labels.append([block.labels for block in blocks[1:]])
    _check_once(name, labels)
    values = np.zeros((len(labels), len(labels)))
    start = 0
    for block in blocks:
        here = slice(start, start + len(block.labels))
        values[here, here] = block.values
        start = here.stop
    return Labelled(name, labels, values)


def _read_pandas(name: str, frame: pd.DataFrame) -> Labelled:
    """Labels from the index, or from a column beside as many others as there are rows, as files have them."""
    rows, columns = frame.shape
    if columns == rows + 1:
        text = [label for label in frame.columns if not pd.api.types.is_numeric_dtype(frame[label].dtype)]
        frame = frame.set_index((text or list(frame.columns))[0])
    if frame.shape[0] != frame.shape[1]:
        raise DesignError(
            f"A matrix of areas must be square, beside at most one column of labels; {name} has {rows} rows and "
            f"{columns} columns. {LABELLED}"
        )
    _check_once(name, frame.index)
    _check_once(name, frame.columns)
    order = _same_labels(name, frame.index, frame.columns)
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DesignError(f"The values of a matrix must be numbers; {name}: {error}. Convert them.") from None
    return Labelled(name, frame.index, values[:, order])


def _check_once(name: str, labels: pd.Index) -> None:
    if labels.isna().any():
        raise DesignError(f"Each row of a matrix must have a label; {name} has rows whose label is missing.")
    if not labels.is_unique:
        twice = labels[labels.duplicated()].unique()
        raise DesignError(f"Each area has one row of a matrix; in {name} {listed(twice)} stands more than once.")


def _same_labels(name: str, rows: pd.Index, columns: pd.Index) -> NDArray[np.intp]:
    """For each row the column of the same label; files have the labels of columns as text whatever their type."""
    if rows.equals(columns):
        return np.arange(len(rows))
    texts = pd.Index(normal(columns.tolist()), dtype=object)
    order = texts.get_indexer(pd.Index(normal(rows.tolist()), dtype=object)) if texts.is_unique else None
    if order is None or (order < 0).any():
        lost = rows if order is None else rows[order < 0]
        other = columns if order is None else columns[~np.isin(np.arange(len(columns)), order)]
        raise DesignError(
            f"The rows and the columns of a matrix must have the same labels; in {name} {listed(lost)} labels only a "
            f"row and {listed(other)} only a column. {LABELLED}"
        )
    return np.asarray(order, dtype=np.intp)


def aligned(matrix: Labelled, areas: pd.Index, needed: NDArray[np.bool_]) -> Matrix:
    """(M, M) values in the order of the areas, nan where an area that is not `needed` is absent.

    It is the array of the matrix itself where that is in this order. Raises DesignError naming areas that are needed
    and absent, and labels that are no area of the data.
    """
    place = matrix.labels.get_indexer(areas)
    strange = matrix.labels[~matrix.labels.isin(areas)]
    lost = areas[needed & (place < 0)]
    if len(lost) or len(strange):
        raise DesignError(_unmatched(matrix.name, lost, strange, areas, matrix.labels))
    if np.array_equal(place, np.arange(len(matrix.labels))):
        return matrix.values
    if (place >= 0).all():
        return matrix.values[np.ix_(place, place)]
    values = np.full((len(areas), len(areas)), np.nan)
    there = np.flatnonzero(place >= 0)
    values[np.ix_(there, there)] = matrix.values[np.ix_(place[there], place[there])]
    return values


def _unmatched(name: str, lost: pd.Index, strange: pd.Index, areas: pd.Index, labels: pd.Index) -> str:
    rule = f"The labels of {name} must be those of the areas"
    if len(strange) and set(normal(strange.tolist())) & set(normal(areas.tolist())):
        how = "type" if type(areas[0]) is not type(labels[0]) else "writing, blanks and Unicode form included"
        return (
            f"{rule}, of the same {how}; the areas are {_shown(areas)} and the labels of {name} {_shown(labels)}, "
            "which agree only as text. Convert one of the two."
        )
    found = []
    if len(lost):
        found.append(f"{name} has no row for areas {listed(lost)}")
    if len(strange):
        found.append(f"the data have no area {listed(strange)}")
    return f"{rule}; {', and '.join(found)}. Make both from the same list of areas, or remove what is not in both."


def _shown(labels: pd.Index) -> str:
    values: list[Any] = labels[:2].tolist()
    return f"{type(values[0]).__name__} such as {', '.join(map(repr, values))}"


def as_table(values: Matrix, areas: pd.Index) -> pd.DataFrame:
    """The matrix as a labelled table over the same memory."""
    return pd.DataFrame(frozen(values), index=areas, columns=areas, copy=False)
