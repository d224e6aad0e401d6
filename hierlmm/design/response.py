"""The response: read from a table, or put in place of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hierlmm.design.areascale import direct_of
from hierlmm.design.coding import check_finite, frozen
from hierlmm.design.column import Column, Mask
from hierlmm.design.encoder import learn
from hierlmm.design.fingerprint import new_response
from hierlmm.design.streamchecks import require_rows
from hierlmm.design.types import AreaDesign, LMMDesign, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.lexer import unquoted
from hierlmm.spec.model import ModelSpec

AnyDesign = TypeVar("AnyDesign", LMMDesign, AreaDesign)


def check_numbers(values: object) -> None:
    """Refuse responses that are no real numbers; numpy would drop an imaginary part and read text."""
    kind = np.asarray(values).dtype
    if kind.kind not in "biufO":
        raise DesignError(f"A new response must be numeric; found values of type {kind}. Convert them to real numbers.")


def with_response(design: AnyDesign, y: ArrayLike) -> AnyDesign:
    """The design of the same rows with the response y (n,), in the order of its index (areas: of its areas).

    Estimates of areas are given on the scale of the model. The response's part of the fingerprint is that of the new
    values; `table` keeps the old ones. An area without a direct estimate stays without: its value is not read. Raises
    DesignError where the length differs or a value that is read is not finite, and where `y` is a Series whose own
    labels are those of the rows in another order.
    """
    if isinstance(design, LMMDesign):
        require_rows(design, "Fits of other responses")
    labels = design.index if isinstance(design, LMMDesign) else design.areas
    _check_order(y, labels)
    check_numbers(y)
    try:
        values = np.array(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DesignError(f"A new response must be numeric; {error}. Convert it to numbers.") from None
    if values.shape != design.y.shape:
        raise DesignError(
            f"A new response has one value for each row; found shape {values.shape} for {len(design.y)} "
            f"{'rows' if isinstance(design, LMMDesign) else 'areas'}. Give the values in the order of the design."
        )
    read = np.ones(len(values), dtype=bool)
    if isinstance(design, AreaDesign):
        read = design.role != "unsampled"
        values[~read] = np.nan
    if (bad := read & ~np.isfinite(values)).any():
        raise DesignError(
            f"A new response must be finite; {int(bad.sum())} of its values are not, for {listed(labels[bad])}. "
            "Correct them, or fit anew without these rows."
        )
    part = new_response(design.spec, values)
    changed = replace(design, y=frozen(values), fingerprint=replace(design.fingerprint, response=part))
    if isinstance(changed, AreaDesign) and changed.spec.transformation is not None:
        return replace(changed, direct=frozen(direct_of(changed.spec.transformation, values)))
    return changed


def _check_order(y: object, labels: pd.Index) -> None:
    """Refuse a Series labelled as the rows are, but in another order: its values would go to the wrong rows."""
    if not isinstance(y, pd.Series) or len(y) != len(labels) or y.index.equals(labels):
        return
    if y.index.is_unique and labels.is_unique and labels.isin(y.index).all():
        raise DesignError(
            "A new response has its values in the order of the design; the labels of this Series are those of the "
            f"design in another order (from {y.index[0]}, not {labels[0]}). Reorder it with .loc, or drop its labels "
            "with .to_numpy()."
        )


def response_values(
    spec: ModelSpec, columns: Mapping[str, Column], index: pd.Index, count: Vector | None = None
) -> Vector:
    """(n,) response, nan where a column it reads is missing. Raises DesignError for text and infinite values.

    count  (n,) how often each row counts in the mean of scale(y); None: once
    """
    name = unquoted(spec.response)
    for read in spec.columns().response:
        _check_response(columns[read], index)
    if name is not None:
        y = np.array(columns[name].numbers())
        check_response_finite(y, spec.response, columns, index)
        return frozen(y)
    present = np.flatnonzero(np.logical_and.reduce([_present(columns[read]) for read in spec.columns().response]))
    there = {read: column.take(present) for read, column in columns.items()}
    values, _ = learn((spec.response,), there, len(present), None if count is None else count[present])
    if values.shape[1] != 1:
        raise DesignError(f"The response must be one numeric column; {spec.response} gives {values.shape[1]} columns.")
    y = np.full(len(index), np.nan)
    y[present] = values[:, 0]
    check_finite(values, (spec.response,), columns, index[present])
    return frozen(y)


def _present(column: Column) -> Mask:
    return ~column.missing if column.missing is not None else np.ones(len(column.values), dtype=bool)


def _check_response(column: Column, index: pd.Index) -> None:
    if column.is_number:
        return
    at = np.flatnonzero(column.values >= 0)[:3]
    found = [repr(column.labels[column.values[i]]) for i in at]
    raise DesignError(
        f"The response must be numeric; column {column.name} holds {column.kind} such as {listed(found)} "
        f"(rows {listed(index[at])}). Convert it, for example with pandas.to_numeric."
    )


def check_response_finite(y: Vector, name: str, columns: Mapping[str, Column], index: pd.Index) -> None:
    """Refuse infinite values of the response, naming the rows."""
    if np.isinf(y).any():
        check_finite(y[:, None], (name,), columns, index)
