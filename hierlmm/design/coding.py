"""How a design coded its table, kept so that new rows are coded in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column
from hierlmm.design.encoder import Encoder, Levels, learn
from hierlmm.design.grouping import Keys
from hierlmm.design.rank import independent, unexplained
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """The encoders and keys behind a design.

    fixed    of the fixed part, with `keep` its columns that are in X and, where some are not, `fitted` all of them
             for the rows of the fit
    offset   of the offsets
    random   per grouping factor, one encoder a term
    keys     per grouping factor
    """

    fixed: Encoder
    keep: Mask
    fitted: Matrix
    offset: Encoder
    random: tuple[tuple[Encoder, ...], ...]
    keys: tuple[Keys, ...]


@dataclass(frozen=True, slots=True)
class FixedPart:
    """X with aliased columns removed, their names, and how it was made."""

    X: Matrix
    names: tuple[str, ...]
    aliased: tuple[str, ...]
    levels: Levels
    encoder: Encoder
    keep: Mask
    fitted: Matrix


def fixed_part(
    spec: ModelSpec,
    columns: Mapping[str, Column],
    index: pd.Index,
    used: Mask | None,
    count: Vector | None = None,
) -> FixedPart:
    """The fixed part over all rows; `used` (None: all) says which rows decide what is aliased, `count` (None: once)
    how often each row counts where a transform learns from the rows.

    Raises DesignError for values that are not finite, and for rows outside the fit in which the aliased columns are
    not what the others make of them in the fit: their linear predictor is not determined.
    """
    n = len(index)
    whole, encoder = learn(spec.fixed, columns, n, count)
    check_finite(whole, encoder.names, columns, index)
    fitted = whole if used is None else whole[used]
    if len(set(encoder.names)) < len(encoder.names):
        twice = [name for name in dict.fromkeys(encoder.names) if encoder.names.count(name) > 1]
        raise DesignError(
            f"Columns of the fixed part must have names of their own; {listed(twice)} arises twice, from a column and "
            "a level of another. Rename the column."
        )
    keep = independent(fitted)
    if spec.fixed and not keep.any():
        raise DesignError(
            "The fixed part must have a column that is not zero in all rows; "
            f"{listed(encoder.names or spec.fixed)} is. Add the intercept or another predictor."
        )
    if keep.all():
        return FixedPart(frozen(whole), encoder.names, (), encoder.levels, encoder, keep, np.empty((0, 0)))
    names = np.array(encoder.names, dtype=object)
    aliased = tuple(names[~keep])
    if used is not None and (lost := ~used & unexplained(keep, fitted, whole)).any():
        raise not_determined(aliased, index[lost])
    X = np.asfortranarray(whole[:, keep])
    return FixedPart(frozen(X), tuple(names[keep]), aliased, encoder.levels, encoder, keep, fitted)


def not_determined(aliased: tuple[str, ...], rows: pd.Index) -> DesignError:
    """The refusal of rows whose linear predictor the rows of the fit do not determine."""
    return DesignError(
        "A row can be predicted only where the rows of the fit determine the effect of its predictors; "
        f"{listed(aliased)} adds nothing in the fit but does in rows {listed(rows)}. "
        "Leave these rows out, or leave the predictor out of the model."
    )


def offset_values(
    spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index, count: Vector | None = None
) -> tuple[Vector, Encoder]:
    """(n,) sum of the offsets, zero where there are none, and how it was made."""
    values, encoder = learn(spec.offset, columns, len(index), count)
    if len(encoder.names) != len(spec.offset) or encoder.levels:
        raise DesignError(f"An offset must be one numeric column; {listed(spec.offset)} gives {listed(encoder.names)}.")
    check_finite(values, encoder.names, columns, index)
    return frozen(values.sum(axis=1)), encoder


def check_finite(matrix: Matrix, names: tuple[str, ...], columns: Mapping[str, Column], index: pd.Index) -> None:
    """Refuse values that are not finite: of an input column where one has them, else of what was computed."""
    if np.isfinite(matrix).all():
        return
    for name, column in columns.items():
        if column.values.dtype == np.float64 and (bad := np.isinf(column.values)).any():
            rows = index[bad] if len(bad) == len(index) else np.flatnonzero(bad)
            raise DesignError(
                f"Values must be finite; column {name} is infinite in rows {listed(rows)}. "
                "Remove these rows, or set the values to missing."
            )
    wrong = np.logical_not(np.isfinite(matrix))
    which = [name for name, bad in zip(names, wrong.T, strict=True) if bad.any()]
    raise DesignError(
        f"What a formula computes must be finite; {listed(which)} is not in rows "
        f"{listed(index[np.flatnonzero(wrong.any(axis=1))])}. Check the domain of the expression."
    )


def frozen(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """The array, read-only from now on."""
    array.flags.writeable = False
    return array
