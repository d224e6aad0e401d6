"""What a row counts for: how often it was seen, and the known part of its residual variance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.types import Dropped, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import KnownVariances
from hierlmm.spec.weights import Frequency, Precision, Weights

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowWeights:
    """frequency (n,) whole numbers >= 1, and scale (n,) known relative residual variances; None where all are 1."""

    frequency: Vector | None
    scale: Vector | None

    def total(self, n: int) -> int:
        """How many rows the n rows stand for."""
        return n if self.frequency is None else int(self.frequency.sum())


def without_zero_weights(
    spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index, dropped: Dropped
) -> tuple[NDArray[np.intp] | None, Dropped]:
    """Positions of the rows of positive weight (None: all rows), and the rows that go, with those that went before.

    Raises DesignError naming the rows where a weight is negative, infinite or, as a frequency, not whole.
    """
    if spec.weights is None:
        return None, dropped
    zero = _checked(spec.weights, columns[spec.weights.column], index) == 0
    if not zero.any():
        return None, dropped
    return np.flatnonzero(~zero), Dropped(dropped.rows, dropped.columns, tuple(index[zero].tolist()))


def row_weights(spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index) -> RowWeights:
    """Frequencies and known relative variances of the rows used, whose weights are positive.

    Raises DesignError naming the rows where a known variance is not positive and finite.
    """
    weights, residual = spec.weights, spec.residual
    frequency = scale = None
    if isinstance(weights, Frequency):
        frequency = _frozen(_numbers("Weights", columns[weights.column]))
    elif isinstance(weights, Precision):
        scale = _frozen(1.0 / _numbers("Weights", columns[weights.column]))
    if isinstance(residual, KnownVariances):
        scale = _frozen(known_variances(columns[residual.column], index))
    return RowWeights(frequency, scale)


def known_variances(column: Column, index: pd.Index) -> Vector:
    """(n,) residual variances. Raises DesignError naming rows in which one is not positive and finite."""
    values = _numbers("Known variances", column)
    for bad, what, advice in (
        (values < 0, "negative", "Correct it."),
        (values == 0, "0", "Give these rows the variance of their rounding, or leave them out."),
        (np.isinf(values), "infinite", "Leave these rows out: they say nothing."),
    ):
        if bad.any():
            raise DesignError(
                f"A known residual variance must be positive and finite; column {column.name} is {what} in rows "
                f"{listed(index[bad])}. {advice}"
            )
    return values


def relative_variances(spec: ModelSpec, columns: Mapping[str, Column], n: int) -> Vector:
    """(k,) known relative residual variances of k new rows: 1 where the model has none, nan where the row has none."""
    name = variance_column(spec)
    if name is None:
        return np.ones(n)
    if name not in columns or not columns[name].is_number:
        return np.full(n, np.nan)
    values = np.array(columns[name].numbers())
    values[~((values > 0) & np.isfinite(values))] = np.nan
    return values if isinstance(spec.residual, KnownVariances) else 1.0 / values


def variance_column(spec: ModelSpec) -> str | None:
    """The column that says how large a row's residual variance is: of precisions or of known variances."""
    if isinstance(spec.residual, KnownVariances):
        return spec.residual.column
    return spec.weights.column if isinstance(spec.weights, Precision) else None


def _checked(weights: Weights, column: Column, index: pd.Index) -> Vector:
    values = _numbers("Weights", column)
    for bad, what in ((values < 0, "negative"), (np.isinf(values), "infinite")):
        if bad.any():
            raise DesignError(
                f"A weight must be 0 or positive, and finite; column {column.name} is {what} in rows "
                f"{listed(index[bad])}. Correct it; a weight of 0 leaves a row out."
            )
    if isinstance(weights, Frequency) and (bad := values != np.round(values)).any():
        raise DesignError(
            f"A frequency must be a whole number; column {column.name} holds {listed(values[bad])} in rows "
            f"{listed(index[bad])}. Correct it, or use hl.Precision({column.name!r}) for weights that say how precise "
            "a row is."
        )
    return values


def _numbers(what: str, column: Column) -> Vector:
    if not column.is_number:
        raise DesignError(f"{what} must be numeric; column {column.name} holds {column.kind}. Convert it to numbers.")
    return np.array(column.numbers())


def _frozen(values: Vector) -> Vector:
    values.flags.writeable = False
    return values
