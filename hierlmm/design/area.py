"""The design of an area-level model: one row an area, known sampling variances, and areas outside the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.coding import Coding, fixed_part, frozen, offset_values
from hierlmm.design.column import Column
from hierlmm.design.fingerprint import fingerprint
from hierlmm.design.grouping import Keys, label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.design.notes import unused_levels
from hierlmm.design.response import response_values
from hierlmm.design.source import complete, read
from hierlmm.design.types import AreaDesign, Matrix, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingVariances


def build_area(spec: ModelSpec, data: object) -> AreaDesign:
    """The design of the Fay-Herriot model, areas in table order.

    data   pandas DataFrame, polars DataFrame or LazyFrame, or pyarrow Table; one row an area

    Rows with a missing covariate, offset or area label are dropped and listed. A missing direct estimate or sampling
    variance, and a sampling variance of 0, are refused unless the spec says what such areas are. Raises DesignError
    naming the areas, also for negative or infinite variances, areas that stand twice, covariates that the sampled
    areas do not determine, and no more sampled areas than coefficients.
    """
    residual = spec.residual
    if not isinstance(residual, SamplingVariances):
        raise DesignError("build_area(...) takes an area-level model; found a linear mixed one. Use build(...).")
    used = spec.columns()
    source = read(data, used.all)
    exempt = {*used.response, *used.sampling_variance}
    rows, dropped = complete((c for name, c in source.columns.items() if name not in exempt), source.index)
    columns = {name: column.take(rows) for name, column in source.columns.items()}
    index = source.index if rows is None else source.index[rows]
    if not len(index):
        raise DesignError(f"An area-level model needs areas; the data have no complete row of {len(source.index)}.")
    areas = _areas(spec.random[0].group[0], columns)
    y = response_values(spec, columns, index)
    D = _variances(columns[residual.column])
    role = _roles(residual, spec.response, areas, y, D)
    sampled = role == "sampled"
    if not sampled.any():
        raise DesignError(
            f"There must be sampled areas; none of {len(areas)} has both a direct estimate in {spec.response} and a "
            f"positive sampling variance in {residual.column}. Check that the right columns were named."
        )
    offset, offset_encoder = offset_values(spec, columns, index)
    fixed = fixed_part(spec, columns, areas, None if sampled.all() else sampled)
    _check_count(int(sampled.sum()), fixed.X)
    keys = Keys(spec.random[0].group, (areas,), np.empty(0, dtype=np.int64), areas)
    return AreaDesign(
        spec=spec,
        table=source.table(),
        areas=areas,
        y=y,
        offset=offset,
        D=D,
        X=fixed.X,
        fixed=fixed.names,
        aliased=fixed.aliased,
        role=role,
        levels=fixed.levels,
        dropped=dropped,
        notes=(*_notes(residual, y, D, sampled), *unused_levels(spec, source, columns)),
        fingerprint=fingerprint(spec, index, columns, fixed.names),
        coding=Coding(fixed.encoder, fixed.keep, fixed.fitted, offset_encoder, (), (keys,)),
    )


def _variances(column: Column) -> Vector:
    if not column.is_number:
        raise DesignError(
            f"Sampling variances must be numeric; column {column.name} holds {column.kind}. Convert it to numbers."
        )
    return frozen(np.array(column.numbers()))


def _areas(name: str, columns: Mapping[str, Column]) -> pd.Index:
    """(M,) labels in table order. Raises DesignError where one stands twice."""
    codes, labels = label_codes(columns[name])
    check_distinct(name, labels)
    count = np.bincount(codes)
    if (count > 1).any():
        raise DesignError(
            f"Each area has one row; in column {name} {listed(labels[count > 1])} stands more than once. "
            "Aggregate these rows first, or fit a unit-level model with (1 | area)."
        )
    return labels[codes]


def _roles(residual: SamplingVariances, response: str, areas: pd.Index, y: Vector, D: Vector) -> NDArray[np.str_]:
    """What each area is to the fit; refuses what the spec does not provide for."""
    name = residual.column
    for bad, what in ((D < 0, "negative"), (np.isinf(D), "infinite")):
        if bad.any():
            raise DesignError(
                f"A sampling variance must be positive and finite; column {name} is {what} for areas "
                f"{listed(areas[bad])}. Correct it."
            )
    absent = np.isnan(y) | np.isnan(D)
    if absent.any() and residual.unsampled == "error":
        raise DesignError(
            f"Each area must have a direct estimate and a sampling variance; {response} or {name} is missing for areas "
            f'{listed(areas[absent])}. Remove them, or use unsampled="synthetic" to predict them from the covariates.'
        )
    zero = (D == 0) & ~absent
    if zero.any() and residual.zero_variance == "error":
        raise DesignError(
            f"A sampling variance must be positive; column {name} is 0 for areas {listed(areas[zero])}. Correct it, or "
            'use zero_variance="direct" to report their direct estimates as they stand.'
        )
    return np.select([absent, zero], ["unsampled", "direct"], "sampled")


def _check_count(m: int, X: Matrix) -> None:
    p = X.shape[1]
    if m <= p:
        raise DesignError(
            f"There must be more sampled areas than coefficients; found {m} areas and {p} coefficients. "
            "Use fewer covariates."
        )


def _notes(residual: SamplingVariances, y: Vector, D: Vector, sampled: NDArray[np.bool_]) -> Iterator[str]:
    m = int(sampled.sum())
    doubtful = int((np.sqrt(D[sampled]) > np.abs(y[sampled])).sum())
    if 2 * doubtful > m:
        yield (
            f"In {doubtful} of {m} areas the standard error exceeds the direct estimate: check that column "
            f"{residual.column} holds variances, not standard deviations, in units of the response squared."
        )
