"""The door: a pandas, polars or pyarrow table becomes canonical columns with row labels, and incomplete rows go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column, Mask, from_arrow, from_pandas
from hierlmm.design.types import Dropped
from hierlmm.errors import DesignError, listed


@dataclass(frozen=True, slots=True)
class Source:
    """The columns a model reads, all n rows.

    index  labels of the rows, positions from 0 where the table has none
    given  the table itself where it is pandas, in plain types, and has these columns and no others
    """

    index: pd.Index
    columns: Mapping[str, Column]
    given: pd.DataFrame | None = None

    def table(self) -> pd.DataFrame:
        """A copy of the columns as pandas in plain types; building a design from it gives the same design again."""
        if self.given is not None:
            return self.given.copy()
        return pd.DataFrame({name: _plain(column) for name, column in self.columns.items()}, self.index, copy=True)


def read(data: object, names: Sequence[str], optional: Sequence[str] = ()) -> Source:
    """Read the named columns of `data`; those in `optional` may be absent.

    Accepts a pandas DataFrame, a polars DataFrame or LazyFrame (collected), a pyarrow Table and a record batch. Raises
    DesignError for anything else, for columns that are not there, stand twice, or hold values no model can use.
    """
    if isinstance(data, pd.DataFrame):
        if inside := [name for name in names if name in data.index.names and name not in data.columns]:
            raise DesignError(
                "The data must have every column that the model reads; "
                f"{listed(inside)} is in the index of the table. Call .reset_index() on it first."
            )
        series = {name: data[name] for name in present(list(data.columns), names, optional)}
        plain = len(series) == data.shape[1] and all(_is_plain(one.dtype) for one in series.values())
        columns = {name: from_pandas(name, one) for name, one in series.items()}
        return Source(data.index, columns, data if plain else None)
    table = _arrow(data, names, optional)
    columns = {name: from_arrow(name, table.column(name)) for name in table.column_names}
    return Source(pd.RangeIndex(table.num_rows), columns)


def _arrow(data: object, names: Sequence[str], optional: Sequence[str]) -> Any:
    """The columns as a pyarrow Table."""
    import narwhals.stable.v2 as nw

    if hasattr(data, "__arrow_c_array__"):  # a record batch
        import pyarrow as pa

        data = pa.Table.from_batches([pa.record_batch(data)])
    # A pyarrow Table may name a column twice; narwhals would refuse it in words of its own.
    present(getattr(data, "column_names", ()), (), names)
    frame = nw.from_native(data, pass_through=True)
    if isinstance(frame, nw.LazyFrame) and frame.implementation.is_polars():
        frame = frame.select(present(frame.collect_schema().names(), names, optional)).collect()
    if not isinstance(frame, nw.DataFrame) or frame.implementation.value not in ("polars", "pyarrow"):
        raise DesignError(
            "The data must be a pandas DataFrame, a polars DataFrame or LazyFrame, or a pyarrow Table; "
            f"found {type(data).__module__}.{type(data).__qualname__}. Convert it, as with pandas.DataFrame(...)."
        )
    frame = frame.select(present(frame.columns, names, optional))
    if frame.implementation.is_polars():
        # The order of a polars Categorical is that of first use anywhere in the process: it says nothing.
        loose = [name for name, dtype in frame.schema.items() if dtype == nw.Categorical]
        frame = frame.with_columns(nw.col(loose).cast(nw.String)) if loose else frame
    if opaque := [name for name, dtype in frame.schema.items() if dtype == nw.Object]:
        raise DesignError(
            f"A column must hold numbers, text, categories or dates; column {listed(opaque)} holds objects. "
            "Convert it to one of these first."
        )
    return frame.to_arrow()


def present(found: Sequence[object], names: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The wanted names that are there, in order. Raises DesignError for names that are not, or that stand twice."""
    wanted = list(dict.fromkeys([*names, *optional]))
    if twice := [name for name in wanted if found.count(name) > 1]:
        raise DesignError(
            f"A column that the model reads must have a name of its own; {listed(twice)} stands "
            f"{found.count(twice[0])} times in the data. Rename the columns."
        )
    if absent := [name for name in names if name not in found]:
        close = [match for name in absent for match in get_close_matches(name, list(map(str, found)), 1)]
        hint = f"Did you mean {listed(close)}?" if close else f"Columns: {listed(found)}."
        raise DesignError(f"The data must have every column that the model reads; {listed(absent)} is missing. {hint}")
    return [name for name in wanted if name in found]


def _is_plain(dtype: Any) -> bool:
    """Whether a pandas type is one that `table` may hold as it is."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "fiub"
    return isinstance(dtype, pd.StringDtype | pd.CategoricalDtype)


def _plain(column: Column) -> Any:
    """A column as pandas holds it without loss: float64, int64, bool, their nullable forms, text or categories."""
    if column.is_number:
        if column.missing is None or column.values.dtype == np.float64:
            return column.values
        masked = pd.arrays.BooleanArray if column.values.dtype == bool else pd.arrays.IntegerArray
        return masked(column.values, column.missing)
    if column.kind == "categories":
        return pd.Categorical.from_codes(column.values, column.labels)
    return column.labels.take(column.values, allow_fill=True, fill_value=np.nan)


def complete(columns: Iterable[Column], index: pd.Index) -> tuple[NDArray[np.intp] | None, Dropped]:
    """Positions of the rows in which every column has a value (None: all rows), and the rows that go."""
    gaps = [(column.name, column.missing) for column in columns if column.missing is not None]
    if not gaps:
        return None, Dropped()
    anywhere: Mask = np.logical_or.reduce([missing for _, missing in gaps])
    lost = np.flatnonzero(anywhere)
    patterns, inverse = np.unique(np.stack([missing[lost] for _, missing in gaps], axis=1), axis=0, return_inverse=True)
    named = [tuple(name for (name, _), hit in zip(gaps, pattern, strict=True) if hit) for pattern in patterns]
    which = tuple(named[position] for position in inverse.ravel().tolist())
    return np.flatnonzero(~anywhere), Dropped(tuple(index[lost].tolist()), which)
