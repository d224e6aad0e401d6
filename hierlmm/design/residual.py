"""The rows of a design as the covariance of their residuals sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.design.column import Column
from hierlmm.design.grouping import Keys, grouped
from hierlmm.design.places import occasions_of, positions_of, times_of
from hierlmm.design.residual_checks import check_rows, few_rows
from hierlmm.design.types import Codes, Vector
from hierlmm.errors import DesignError
from hierlmm.spec.residual import (
    AR1,
    CompoundSymmetry,
    ContinuousAR1,
    Correlated,
    HeterogeneousAR1,
    LMMResidual,
    Residual,
    Stratified,
    Toeplitz,
    joined_columns,
)

NONE = pd.Index([])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResidualRows:
    """Whose residuals the rows hold, and when they were taken.

    group      who the rows belong to, with levels and codes (n,); "" and empty where the residuals are independent
    place      (n,) positions in units of the common step from 0, times, or codes into `occasions`
    occasion   (n,) codes into `occasions`
    occasions  labels of the occasions, positions or strata, sorted; empty where only the group or the time counts
    keys       how occasions or strata are recognised in new rows; None where they are not kept
    """

    group: str
    levels: pd.Index
    codes: Codes
    place: Vector
    occasion: Codes
    occasions: pd.Index
    keys: Keys | None = None


def residual_rows(
    residual: LMMResidual, columns: Mapping[str, Column], index: pd.Index
) -> tuple[ResidualRows | None, tuple[str, ...]]:
    """The rows by group, place and occasion, and notes on them; None for independent rows of one or known variances.

    Raises DesignError where the rows do not determine the structure: a place twice in a group, places that are no
    positions or times, groups of one row, occasions that are never seen together.
    """
    if isinstance(residual, Stratified):
        rows = _strata(residual, columns)
        return rows, tuple(few_rows(residual.by, rows.occasions, rows.occasion))
    if not isinstance(residual, Correlated):
        return None, ()
    codes, keys = grouped(joined_columns(residual.group), columns)
    place, occasion, labels, notes = _places(residual, columns, index)
    rows = ResidualRows(
        group=residual.group,
        levels=keys.levels,
        codes=_frozen_codes(codes),
        place=_frozen(place),
        occasion=_frozen_codes(occasion),
        occasions=labels,
        keys=Keys((place_column(residual),), (labels,), np.empty(0, dtype=np.int64), labels) if len(labels) else None,
    )
    check_rows(residual, rows)
    several = few_rows(place_column(residual), labels, occasion) if _has_variances(residual) else ()
    return rows, (*notes, *several)


def place_column(residual: Residual) -> str:
    """The column of positions, times or occasions; "" where the structure has none."""
    for name in ("position", "time", "occasion"):
        if hasattr(residual, name):
            return str(getattr(residual, name))
    return ""


def _has_variances(residual: LMMResidual) -> bool:
    """Whether each occasion has a variance of its own."""
    return not isinstance(residual, CompoundSymmetry | AR1 | ContinuousAR1 | Toeplitz)


def _places(
    residual: LMMResidual, columns: Mapping[str, Column], index: pd.Index
) -> tuple[Vector, Codes, pd.Index, tuple[str, ...]]:
    """Place, occasion, labels of the occasions, and notes."""
    nowhere = np.zeros(len(index), dtype=np.intp)
    if isinstance(residual, CompoundSymmetry):
        return nowhere.astype(np.float64), nowhere, NONE, ()
    column = columns[place_column(residual)]
    if isinstance(residual, ContinuousAR1):
        return times_of(column), nowhere, NONE, ()
    if isinstance(residual, AR1 | HeterogeneousAR1 | Toeplitz):
        return positions_of(column, index)
    occasion, labels = occasions_of(column)
    return occasion.astype(np.float64), occasion, labels, ()


def _strata(residual: Stratified, columns: Mapping[str, Column]) -> ResidualRows:
    stratum, keys = grouped(joined_columns(residual.by), columns)
    if len(keys.levels) == 1:
        raise DesignError(
            "A variance for each stratum needs at least 2 strata; "
            f"{residual.by} has the single level {keys.levels[0]}. Leave the residual structure out."
        )
    return ResidualRows(
        group="",
        levels=NONE,
        codes=_frozen_codes(np.empty(0, dtype=np.intp)),
        place=_frozen(stratum.astype(np.float64)),
        occasion=_frozen_codes(stratum),
        occasions=keys.levels,
        keys=keys,
    )


def _frozen(values: Vector) -> Vector:
    values = np.asarray(values, dtype=np.float64)
    values.flags.writeable = False
    return values


def _frozen_codes(codes: Codes) -> Codes:
    codes = np.asarray(codes, dtype=np.intp)
    codes.flags.writeable = False
    return codes
