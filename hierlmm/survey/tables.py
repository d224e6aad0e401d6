"""Any table at the door as a pandas one, with the columns it has."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.source import read
from hierlmm.errors import DesignError, listed
from hierlmm.survey.keys import unique_labels


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
