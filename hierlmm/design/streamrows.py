"""The moments of a table's rows: what one part of the data contributes to a fit."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from itertools import combinations
from math import prod

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.accumulate import Grouped, Part, accumulate
from hierlmm.design.coding import check_finite, offset_values
from hierlmm.design.column import Column
from hierlmm.design.expanded import Categorical, check_streamable, expanded, group_labels, shifted
from hierlmm.design.grouping import Codes
from hierlmm.design.levels import occurring
from hierlmm.design.moments import Group, LeftOut, Moments
from hierlmm.design.response import response_values
from hierlmm.design.source import complete, read
from hierlmm.design.types import Dropped
from hierlmm.design.weights import RowWeights, row_weights, without_zero_weights
from hierlmm.errors import SHOWN, DesignError, SpecError
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import Correlated, Stratified, joined_columns

Array = NDArray[np.float64]


def moments(spec: ModelSpec, data: object, start: int = 0) -> Moments:
    """The moments of the rows of a table: parts of the data add up to the moments of the whole.

    data   pandas DataFrame, polars DataFrame or LazyFrame, pyarrow Table or RecordBatch
    start  position of its first row in the whole, for messages

    Raises DesignError where a model needs more than sums over rows: residuals correlated within groups, and terms
    such as poly(x, 2) or center(x) that are computed from all rows; and as a design does for values that no model can
    use.
    """
    check_summable(spec)
    source = read(data, spec.columns().all)
    index: pd.Index = pd.RangeIndex(start, start + len(source.index))
    rows, dropped = complete(source.columns.values(), index)
    columns = {name: column.take(rows) for name, column in source.columns.items()}
    index = index if rows is None else index[rows]
    positive, dropped = without_zero_weights(spec, columns, index, dropped)
    if positive is not None:
        columns = {name: column.take(positive) for name, column in columns.items()}
        index = index[positive]
    left_out = _left_out(dropped, start)
    if not len(index):
        return _nothing(spec, len(source.index), left_out)
    return _summed(spec, columns, index, len(source.index), left_out)


def check_summable(spec: ModelSpec) -> None:
    """Raise DesignError where a model needs more of its rows than sums."""
    if not isinstance(spec, ModelSpec):
        raise SpecError(
            f"The model is a spec, as hl.lmm(...) makes it; found {type(spec).__qualname__}. The spec comes first, the "
            "data second."
        )
    if spec.is_area_level:
        raise DesignError(
            "An area-level model has one row an area, and is fitted from a table; found a stream of rows or their "
            "moments. Read the table first."
        )
    if isinstance(spec.residual, Correlated):
        raise DesignError(
            "Residuals that are correlated within a group need all rows of the group at once, and cannot be summed "
            f"row by row; found {type(spec.residual).__name__}. Read the data into a table, or use independent or "
            "stratified residuals."
        )
    check_streamable((spec.response,) if spec.response else ())
    for terms in (spec.fixed, spec.offset, *(term.coefficients for term in spec.random)):
        check_streamable(terms)


def _nothing(spec: ModelSpec, rows: int, left_out: LeftOut) -> Moments:
    """The moments of rows of which none is used."""
    empty = np.empty(0)
    return Moments(
        spec=_hash(spec), columns=(), bases=(), shift=empty, groups=(), pairs=(), predictors={},
        strata=None, parts=(), rows=rows, left_out=left_out, used=0, size=0.0,
    )  # fmt: skip


def _hash(spec: ModelSpec) -> str:
    return sha256(repr(spec).encode()).hexdigest()[:16]


def _summed(spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index, rows: int, left_out: LeftOut) -> Moments:
    n = len(index)
    y = response_values(spec, columns, index)
    offset = offset_values(spec, columns, index)[0]
    weights = row_weights(spec, columns, index)
    categories: dict[str, Categorical] = {}
    found = {"": shifted("", y - offset)}
    for one in expanded(spec.fixed, columns, n, categories):
        found[one.name] = one
    groups, codes = [], []
    for group, terms in _by_group(spec).items():
        own = [one for coefficients in terms for one in expanded(coefficients, columns, n, categories)]
        found.update((one.name, one) for one in own if one.name not in found)
        place = {name: position for position, name in enumerate(found)}
        Z = np.unique(np.array([place[one.name] for one in own], dtype=np.intp))
        code, levels = levels_of(group, columns, Z)
        groups.append(levels)
        codes.append(code)
    for one in found.values():
        check_finite(one.values[:, None], (one.name,), columns, index)
    values = [one.values for one in found.values()]
    factors = [Grouped(code, len(group.combined), group.Z) for code, group in zip(codes, groups, strict=True)]
    pairs, cells = _pairs(factors)
    strata, parts = _by_stratum(spec, columns, values, factors, pairs, weights)
    return Moments(
        spec=_hash(spec),
        columns=tuple(found),
        bases=tuple(one.base for one in found.values()),
        shift=np.array([one.shift for one in found.values()]),
        groups=tuple(groups),
        pairs=tuple(cells),
        predictors={name: category.labels for name, category in categories.items()},
        strata=strata,
        parts=parts,
        rows=rows,
        left_out=left_out,
        used=n,
        size=float(np.abs(y).max(initial=0.0) + np.abs(offset).max(initial=0.0)),
    )


def _by_group(spec: ModelSpec) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for term in spec.random:
        found.setdefault(term.group, []).append(term.coefficients)
    return found


def levels_of(names: tuple[str, ...], columns: Mapping[str, Column], Z: Codes) -> tuple[Codes, Group]:
    """Codes (n,) and levels of the factor that the named columns form."""
    coded = [group_labels(columns[name]) for name in names]
    labels = tuple(label for _, label in coded)
    if prod(len(one.index) for one in labels) >= 2**62:
        raise DesignError(
            f"The cells of a combination of grouping columns must be countable; {':'.join(names)} has "
            f"{':'.join(str(len(one.index)) for one in labels)} levels. Join the columns first."
        )
    cell = coded[0][0].astype(np.int64)
    for code, label in coded[1:]:
        cell = cell * len(label.index) + code
    size = prod(len(one.index) for one in labels)
    codes, combined = _ascending(*occurring(np.zeros(len(cell), dtype=np.intp), cell, 1, size))
    return codes, Group(names, labels, combined, Z)


def _ascending(codes: Codes, values: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """The values in order, and the codes of the rows into them."""
    order = np.argsort(values)
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    return place[codes], values[order].astype(np.int64)


def _pairs(factors: list[Grouped]) -> tuple[list[tuple[int, int, Codes, int]], list[NDArray[np.int64]]]:
    """Per two factors the pair of levels of each row, and the pairs that occur."""
    pairs, cells = [], []
    for f, g in combinations(range(len(factors)), 2):
        code, found = _ascending(*occurring(factors[f].codes, factors[g].codes, factors[f].G, factors[g].G))
        pairs.append((f, g, code, len(found)))
        cells.append(found)
    return pairs, cells


def _by_stratum(
    spec: ModelSpec,
    columns: Mapping[str, Column],
    values: list[Array],
    factors: list[Grouped],
    pairs: list[tuple[int, int, Codes, int]],
    weights: RowWeights,
) -> tuple[Group | None, tuple[Part, ...]]:
    """The levels of the strata, and the sums over the rows of each."""
    shift = np.zeros(len(values))  # the columns are shifted already
    if not isinstance(spec.residual, Stratified):
        return None, (accumulate(values, shift, factors, pairs, weights.frequency, weights.scale),)
    codes, strata = levels_of(joined_columns(spec.residual.by), columns, np.empty(0, dtype=np.intp))
    parts = []
    for stratum in range(len(strata.combined)):
        rows = np.flatnonzero(codes == stratum)
        parts.append(
            accumulate(
                [column[rows] for column in values],
                shift,
                [Grouped(factor.codes[rows], factor.G, factor.Z) for factor in factors],
                [(f, g, code[rows], size) for f, g, code, size in pairs],
                None if weights.frequency is None else weights.frequency[rows],
                None if weights.scale is None else weights.scale[rows],
            )
        )
    return strata, tuple(parts)


def _left_out(dropped: Dropped, start: int) -> LeftOut:
    """How many rows are left out, and the first of them, as positions in this part."""
    shown: list[int] = []
    columns: list[tuple[str, ...]] = []
    known: set[str] = set()
    for row, names in zip(dropped.rows, dropped.columns, strict=True):
        if len(shown) < SHOWN or not known.issuperset(names):
            shown.append(int(str(row)) - start)
            columns.append(names)
            known.update(names)
    return LeftOut(len(dropped.rows), len(dropped.unweighted), tuple(shown), tuple(columns))
