"""The design of a linear mixed model: spec and table in, labelled arrays out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from hierlmm.design.coding import Coding, fixed_part, offset_values
from hierlmm.design.column import Column
from hierlmm.design.directions import Residuals
from hierlmm.design.fingerprint import fingerprint
from hierlmm.design.identified import check_factors
from hierlmm.design.notes import lmm_notes
from hierlmm.design.random import random_part, spelled_out
from hierlmm.design.residual import residual_rows
from hierlmm.design.response import response_values
from hierlmm.design.source import Source, complete, read
from hierlmm.design.types import Dropped, LMMDesign
from hierlmm.design.weights import row_weights, without_zero_weights
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import AreaResidual


def build_lmm(spec: ModelSpec, data: object) -> LMMDesign:
    """The design of a linear mixed model.

    data   pandas DataFrame, polars DataFrame or LazyFrame, or pyarrow Table

    Rows with a missing value (blank text included) in any column the model reads, and rows of weight 0, are dropped
    and listed; columns of X that earlier ones determine are dropped and named. Raises DesignError, naming columns, rows
    or levels, for data that cannot support the model: text or infinite values where numbers are needed, weights that
    are none, no more rows than fixed effects, a grouping factor of one level, variance components and residual
    structures that these rows cannot tell apart.
    """
    residual = spec.residual
    if isinstance(residual, AreaResidual):
        raise DesignError("build_lmm(...) takes a linear mixed model; this is an area-level spec. Use build(...).")
    source = read(data, spec.columns().all)
    columns, index, dropped = _used(spec, source)
    weights = row_weights(spec, columns, index)
    y = response_values(spec, columns, index, weights.frequency)
    offset, offset_encoder = offset_values(spec, columns, index, weights.frequency)
    fixed = fixed_part(spec, columns, index, None, weights.frequency)
    _check_more_rows_than_effects(weights.total(len(index)), fixed.X.shape[1], fixed.levels)
    factors, encoders, keys = random_part(spec, columns, index, weights.frequency)
    rows, row_notes = residual_rows(residual, columns, index)
    check_factors(factors, fixed.X, Residuals(residual, rows, weights))
    effects = (name for factor in factors for name in factor.coefficients)
    notes = lmm_notes(spec, source, columns, y, offset, index, fixed.X, factors, keys)
    return LMMDesign(
        spec=spec,
        table=source.table(),
        index=index,
        y=y,
        offset=offset,
        X=fixed.X,
        fixed=fixed.names,
        aliased=fixed.aliased,
        factors=factors,
        levels=fixed.levels,
        dropped=dropped,
        notes=(*_unweighted(spec, dropped), *notes, *row_notes),
        fingerprint=fingerprint(spec, index, columns, (*fixed.names, *effects), spelled_out(spec, encoders)),
        coding=Coding(fixed.encoder, fixed.keep, fixed.fitted, offset_encoder, encoders, keys),
        frequency=weights.frequency,
        scale=weights.scale,
        residual=rows,
    )


def _used(spec: ModelSpec, source: Source) -> tuple[Mapping[str, Column], pd.Index, Dropped]:
    """Columns and labels of the complete rows of positive weight, and the rows that go."""
    rows, dropped = complete(source.columns.values(), source.index)
    columns = {name: column.take(rows) for name, column in source.columns.items()}
    index = source.index if rows is None else source.index[rows]
    positive, dropped = without_zero_weights(spec, columns, index, dropped)
    if positive is not None:
        columns = {name: column.take(positive) for name, column in columns.items()}
        index = index[positive]
    _check_rows(len(index), dropped)
    return columns, index, dropped


def _unweighted(spec: ModelSpec, dropped: Dropped) -> tuple[str, ...]:
    if not dropped.unweighted or spec.weights is None:
        return ()
    count = len(dropped.unweighted)
    rows = "row was" if count == 1 else "rows were"
    return (f"{count} {rows} left out because the weight {spec.weights.column} is 0: {listed(dropped.unweighted)}.",)


def _check_rows(n: int, dropped: Dropped) -> None:
    if n >= 2:
        return
    lost = sorted({name for names in dropped.columns for name in names})
    why = f"; {len(dropped)} rows were dropped for missing values in {listed(lost)}" if lost else ""
    why += f"; {len(dropped.unweighted)} rows have weight 0" if dropped.unweighted else ""
    raise DesignError(
        f"A mixed model needs at least 2 complete rows; the data have {n}{why}. Check that the right table was read."
    )


def _check_more_rows_than_effects(n: int, p: int, levels: Mapping[str, tuple[object, ...]]) -> None:
    if n > p:
        return
    wide = [f"{name} ({len(found)} levels)" for name, found in levels.items() if len(found) > 2]
    culprit = f" Most columns are of {listed(wide)}: is it meant to be numeric, or a group?" if wide else ""
    raise DesignError(
        f"There must be more complete rows than fixed effects; found {n} rows and {p} effects.{culprit} "
        "Use fewer predictors."
    )
