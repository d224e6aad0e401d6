"""Columns of the data behind a fit, row by row of the fit."""

from __future__ import annotations

import pandas as pd

from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.lmm_results import LMMFit


def rows_of(fit: LMMFit, column: str) -> pd.Series:
    """A column of the table at the rows of the fit, in their order.

    Raises DesignError for a column that the model does not read, and where the labels of the rows are not unique and
    some rows were left out.
    """
    table, index = fit.design.table, fit.design.index
    if column not in table.columns:
        raise DesignError(
            f"A plot of this fit can show the columns that its model reads; found {column!r}. They are "
            f"{listed(table.columns)}. Use one of these."
        )
    if len(table) == len(index):
        return table[column].reset_index(drop=True)
    if not table.index.is_unique:
        raise DesignError(
            "Rows are found in the table by their labels, and the labels of this one are not unique: "
            f"{listed(table.index[table.index.duplicated()].unique())}. Call reset_index() before the fit."
        )
    return table[column].loc[index].reset_index(drop=True)
