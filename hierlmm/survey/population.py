"""Known population sizes of areas, from a column of the records, a mapping, a Series or a table of two columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.source import read
from hierlmm.errors import DesignError, listed
from hierlmm.survey.tables import column_names, matched, unique_labels

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]

WHERE = "the population sizes"


def population_sizes(given: object, name: str, labels: pd.Index) -> tuple[Vector, pd.Index]:
    """(M,) sizes of the areas `labels`, and the labels of areas that `given` has beside them.

    given  a mapping or a Series of sizes by area, or a table with the column `name` of areas and one other

    Raises DesignError for sampled areas without a size and for sizes that are not positive, naming the areas.
    """
    areas, sizes = _read(given, name)
    at = matched(labels, areas, f"column {name} of the records", WHERE)
    if (at < 0).any():
        raise DesignError(
            f"Each area of the records must have a population size; {listed(labels[at < 0])} has none. Add it to the "
            "population sizes, or leave the records of the area out."
        )
    others = areas[~np.isin(np.arange(len(areas)), at)]
    return checked(sizes[at], labels), others


def column_sizes(column: Column, codes: Codes, labels: pd.Index) -> Vector:
    """(M,) sizes of the areas from a column of the records, which must be one number within each area."""
    values = _numbers(column)
    sizes = np.full(len(labels), np.nan)
    sizes[codes] = values
    if (mixed := values != sizes[codes]).any():
        raise DesignError(
            f"A population size is one number for each area; column {column.name} has several in areas "
            f"{listed(labels[np.unique(codes[mixed])])}. Give the size of the whole area in each of its records."
        )
    occurring = np.bincount(codes, minlength=len(labels)) > 0
    checked(sizes[occurring], labels[occurring])
    return sizes


def checked(sizes: Vector, labels: pd.Index) -> Vector:
    """The sizes; refuses those that are not positive and finite, naming the areas."""
    if (bad := ~((sizes > 0) & np.isfinite(sizes))).any():
        found = [f"{label} ({size:g})" for label, size in zip(labels[bad], sizes[bad], strict=True)]
        raise DesignError(
            f"A population size must be a positive number; it is not for areas {listed(found)}. Correct it."
        )
    return sizes


def check_at_least(sizes: Vector, n: NDArray[np.intp], labels: pd.Index) -> None:
    """Refuse populations smaller than the sample drawn from them."""
    if (small := sizes < n).any():
        found = [
            f"{label} (N = {size:g}, n = {count})"
            for label, size, count in zip(labels[small], sizes[small], n[small], strict=True)
        ]
        raise DesignError(
            f"A population has at least as many units as its sample; it has fewer in areas {listed(found)}. Check that "
            "the sizes count the units that the records are of, and are not in thousands."
        )


def _read(given: object, name: str) -> tuple[pd.Index, Vector]:
    if isinstance(given, Mapping):
        given = pd.Series(list(given.values()), index=pd.Index(list(given.keys())))
    if isinstance(given, pd.Series):
        table = pd.DataFrame({"size": given.to_numpy()})
        sizes = read(table, ["size"]).columns["size"]
        return unique_labels(str(given.index.name or "its index"), given.index, WHERE), _numbers(sizes)
    if isinstance(given, int | float | list | tuple | np.ndarray):
        raise DesignError(
            "Population sizes come with the labels of their areas: a column of the records, a mapping, a Series "
            f"indexed by area, or a table of two columns; found {type(given).__name__}. Give one of these."
        )
    names = column_names(given)
    others = [one for one in names if one != name]
    if name not in names or len(others) != 1:
        raise DesignError(
            f"Population sizes are a mapping, a Series or a table of two columns, {name} and the size; found columns "
            f"{listed(names)}. Select the two; where the areas are the index, call .reset_index() first."
        )
    source = read(given, [name, others[0]])
    areas = pd.Index(source.table()[name])
    return unique_labels(name, areas, WHERE), _numbers(source.columns[others[0]])


def _numbers(column: Column) -> Vector:
    if not column.is_number:
        raise DesignError(
            f"Population sizes must be numeric; column {column.name} holds {column.kind}. Convert it to numbers."
        )
    return np.array(column.numbers())
