"""Tables at the door: their columns, and areas of two tables matched by label, with what has no partner named."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import from_pandas
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct, normal
from hierlmm.design.source import read
from hierlmm.errors import DesignError, listed

Codes = NDArray[np.intp]


def column_names(data: object) -> list[str]:
    """Names of the columns of a pandas, polars or pyarrow table, in its order. Raises DesignError for anything else."""
    if isinstance(data, pd.DataFrame):
        return [str(name) for name in data.columns]
    if hasattr(data, "collect_schema"):  # polars, lazy or not
        return list(data.collect_schema().names())
    if hasattr(data, "column_names"):  # a pyarrow Table
        return list(data.column_names)
    if hasattr(data, "schema") and hasattr(data.schema, "names"):  # a record batch
        return list(data.schema.names)
    raise DesignError(
        "The data must be a pandas DataFrame, a polars DataFrame or LazyFrame, or a pyarrow Table; "
        f"found {type(data).__module__}.{type(data).__qualname__}. Convert it, as with pandas.DataFrame(...)."
    )


def whole_table(data: object) -> pd.DataFrame:
    """All columns as pandas: a pandas table as it is, with its other columns untouched; others in plain types."""
    if isinstance(data, pd.DataFrame):
        return data
    return read(data, column_names(data)).table()


def area_labels(table: pd.DataFrame, name: str, where: str) -> pd.Index:
    """(k,) labels of the areas of a table with one row an area. Raises DesignError where there is no such column."""
    if list(table.columns).count(name) == 1:
        return unique_labels(name, pd.Index(table[name]), where)
    if name in table.index.names and name not in table.columns:
        raise DesignError(
            f"The areas of {where} are in a column; {name} is its index. Call .reset_index() on it first."
        )
    found = "is missing" if name not in table.columns else "stands there twice"
    raise DesignError(
        f"The areas of {where} are in one of its columns; {name} {found}. Columns: {listed(table.columns)}."
    )


def numbers(table: pd.DataFrame, name: str, what: str) -> NDArray[np.float64]:
    """(k,) doubles of a column, nan where missing. Raises DesignError for a column that is absent or not numeric."""
    column = read(table, [name]).columns[name]
    if not column.is_number:
        raise DesignError(f"{what} must be numeric; column {name} holds {column.kind}. Convert it to numbers.")
    return np.array(column.numbers())


def unique_labels(name: str, labels: pd.Index, where: str) -> pd.Index:
    """The labels of a table with one row an area, in its order and in plain types.

    Raises DesignError for missing labels, for one that stands twice, and for two that differ only by type, blanks
    around them or Unicode form.
    """
    column = from_pandas(name, labels.to_series())
    if column.missing is not None:
        rows = np.flatnonzero(column.missing)
        raise DesignError(
            f"Each row of {where} is an area; the label in {name} is missing in rows {listed(rows)}. "
            "Complete or remove them."
        )
    codes, found = label_codes(column)
    check_distinct(name, found)
    count = np.bincount(codes, minlength=len(found))
    if (count > 1).any():
        raise DesignError(
            f"Each area has one row in {where}; in {name} {listed(found[count > 1])} stands more than once. "
            "Aggregate these rows first."
        )
    return found[codes]


def matched(labels: pd.Index, others: pd.Index, where: str, elsewhere: str) -> Codes:
    """(k,) position of each of `labels` in `others`, -1 where it is not there; both are unique.

    Raises DesignError where a label of the one and a label of the other look alike and are not equal: the number 1
    and the text "1", a blank at the end, "é" as one character and as two. Joining them would be a guess.
    """
    positions = np.asarray(others.get_indexer(labels) if _comparable(labels, others) else np.full(len(labels), -1))
    absent = labels[positions < 0]
    if len(absent):
        free = others[~others.isin(labels)] if _comparable(labels, others) else others
        alike = dict(zip(normal(free), free, strict=True))
        pairs = [
            f"{label!a} and {alike[text]!a}"
            for label, text in zip(absent.tolist(), normal(absent), strict=True)
            if text in alike
        ]
        if pairs:
            raise DesignError(
                f"Areas are joined where their labels are equal; {where} and {elsewhere} have {listed(pairs)}, which "
                "differ by type, blanks or Unicode form alone. Write each label in one way in both tables."
            )
    return positions.astype(np.intp)


def _comparable(labels: pd.Index, others: pd.Index) -> bool:
    """Numbers are compared with numbers alone: pandas would otherwise find True in 1."""
    numeric = [pd.api.types.is_numeric_dtype(index.dtype) for index in (labels, others)]
    return numeric[0] == numeric[1]
