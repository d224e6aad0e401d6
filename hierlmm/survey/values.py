"""The variable of a direct estimate: numbers, and for a proportion zeros and ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.errors import DesignError, listed
from hierlmm.survey.indicators import Indicator
from hierlmm.survey.plan import Plan
from hierlmm.survey.text import counted

Vector = NDArray[np.float64]

# Beyond this and its inverse squares, and products of these with weights, overflow or vanish.
FAR = 1e120

# What survey files write for "refused", "not known" and "not applicable" beside zeros and ones.
CODES = frozenset({7.0, 8.0, 9.0, 97.0, 98.0, 99.0, -1.0, -8.0, -9.0})


def checked_values(column: Column, variable: str | Indicator, plan: Plan, index: pd.Index) -> Vector:
    """(n,) the variable. Raises DesignError for text, infinite values, and proportions of other than 0 and 1."""
    if not column.is_number:
        codes, first = np.unique(column.values, return_index=True)
        held = np.sort(first[codes >= 0])[:3]
        labels = [column.labels[column.values[i]] for i in held]
        found = [repr(label) if isinstance(label, str) else str(label) for label in labels]
        raise DesignError(
            f"The variable of an estimate must be numeric; column {column.name} holds {column.kind} such as "
            f"{listed(found)} (rows {listed(index[held])}). Convert it: a share is the mean of a column of 0 and 1."
        )
    values = np.array(column.numbers())
    if (bad := np.isinf(values)).any():
        raise DesignError(
            f"Values must be finite; column {column.name} is infinite in rows {listed(index[bad])}. Correct them."
        )
    y = values if isinstance(variable, str) else variable.values(values)
    largest = float(np.abs(y).max())
    if largest > FAR or 0 < largest < 1 / FAR:
        raise DesignError(
            f"The squares of the values must be within the range of doubles; column {column.name} goes up to "
            f"{largest:.3g}. Choose another unit."
        )
    if plan.quantity == "proportion" and (other := (y != 0) & (y != 1)).any():
        raise DesignError(
            f"A proportion is of a variable that is 0 or 1; {plan.variable} has {listed(_counted(y[other]))}. "
            'Recode them, use missing_codes=(8, 9) for codes of "not known", or quantity="mean" for a share of another '
            "kind."
        )
    return y


def _counted(values: Vector) -> list[str]:
    found, count = np.unique(values, return_counts=True)
    return [f"{value:g} ({counted(times, 'record')})" for value, times in zip(found, count, strict=True)]


def value_notes(y: Vector, variable: str | Indicator, plan: Plan) -> Iterator[str]:
    """A 0/1 variable taken as any other, and codes of "not known" among its values, which a mean would count."""
    if plan.quantity == "proportion" or not isinstance(variable, str):
        return
    if plan.quantity == "mean" and ((y == 0) | (y == 1)).all():
        yield (
            f'{plan.variable} is 0 or 1 throughout: with quantity="proportion" its limits stay between 0 and 1, and '
            "are no points where all records are alike."
        )
    values = set(np.unique(y).tolist()) if np.abs(y).max() <= max(CODES) else set()
    others = values - {0.0, 1.0}
    if values & {0.0, 1.0} and others and others <= CODES:
        at = np.isin(y, list(others))
        yield (
            f"{plan.variable} is 0 or 1 but for {listed(_counted(y[at]))}: these look like codes and count as numbers "
            "here. Give them as missing_codes=(...) to leave them out."
        )
