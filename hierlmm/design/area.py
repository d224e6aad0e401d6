"""The design of an area-level model: one row an area, known sampling variances, and areas outside the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import areascale
from hierlmm.design.areamatrices import Proximity, covariance, covariance_notes, proximity
from hierlmm.design.areavariances import Known, roles, variance_notes
from hierlmm.design.coding import Coding, fixed_part, frozen, offset_values
from hierlmm.design.column import Column
from hierlmm.design.fingerprint import fingerprint
from hierlmm.design.grouping import Keys, label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.design.matrices import aligned, as_table, check_names, read_blocks, read_matrix
from hierlmm.design.notes import unused_levels
from hierlmm.design.response import response_values
from hierlmm.design.source import Source, complete, read
from hierlmm.design.types import AreaDesign, Dropped, Matrix, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.areaeffects import SAR
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import AreaResidual, SamplingCovariance
from hierlmm.spec.transformation import ArcsineRoot, Log, Logit


def build_area(spec: ModelSpec, data: object, matrices: Mapping[str, object] | None = None) -> AreaDesign:
    """The design of the Fay-Herriot model, areas in table order.

    data      pandas DataFrame, polars DataFrame or LazyFrame, or pyarrow Table; one row an area
    matrices  the matrices that the spec names, by name: square tables labelled by area, in any order; a sampling
              covariance matrix may be a sequence of such diagonal blocks

    Areas without a direct estimate or variance, with a variance of 0 or an absurd one, or without a covariate, are
    refused unless the spec says what they are. Raises DesignError naming the areas, also for negative or infinite
    variances, areas that stand twice, direct estimates outside the domain of a transformation, matrices whose labels
    are not the areas, covariates that the sampled areas do not determine, and no more sampled areas than coefficients.
    """
    residual = spec.residual
    if not isinstance(residual, AreaResidual):
        raise DesignError("build_area(...) takes an area-level model; found a linear mixed one. Use build(...).")
    beside = check_names(spec, matrices)
    used = spec.columns()
    source = read(data, used.all)
    exempt = {*used.response, *used.sampling_variance, *used.sample_size}
    rows, dropped = complete((c for name, c in source.columns.items() if name not in exempt), source.index)
    if len(dropped) and residual.missing_covariates == "error" and len(dropped) < len(source.index):
        raise DesignError(_incomplete(spec, source, rows, dropped))
    columns = {name: column.take(rows) for name, column in source.columns.items()}
    index = source.index if rows is None else source.index[rows]
    if not len(index):
        raise DesignError(f"An area-level model needs areas; the data have no complete row of {len(source.index)}.")
    areas = _areas(spec.random[0].group[0], columns)
    y = response_values(spec, columns, index)
    data_scale, model_scale, S = _known(spec, residual, areas, y, columns, beside)
    role, taken_out = roles(residual, model_scale)
    sampled = role == "sampled"
    if not sampled.any():
        raise DesignError(
            f"There must be sampled areas; none of {len(areas)} has both a direct estimate in {spec.response} and a "
            f"positive sampling variance in {data_scale.source}. Check that the right columns were named."
        )
    values = _on_model_scale(spec, data_scale, model_scale.variance, S, role)
    offset, offset_encoder = offset_values(spec, columns, index)
    fixed = fixed_part(spec, columns, areas, None if sampled.all() else sampled)
    _check_count(int(sampled.sum()), fixed.X)
    neighbours = _proximity(spec, areas, beside)
    keys = Keys(spec.random[0].group, (areas,), np.empty(0, dtype=np.int64), areas)
    tables = _tables(spec, areas, neighbours, S)
    read_variances = variance_notes(data_scale, sampled) if used.sampling_variance or S is not None else ()
    sizes = areascale.size_notes(spec.transformation, model_scale, sampled)
    errors = covariance_notes(residual, S, sampled)
    notes = (*taken_out, *read_variances, *sizes, *errors, *neighbours.notes)
    return AreaDesign(
        spec=spec,
        table=source.table(),
        areas=areas,
        y=values.y,
        offset=offset,
        D=values.D,
        X=fixed.X,
        fixed=fixed.names,
        aliased=fixed.aliased,
        role=role,
        levels=fixed.levels,
        dropped=dropped,
        notes=(*notes, *unused_levels(spec, source, columns)),
        fingerprint=fingerprint(spec, index, columns, fixed.names, matrices=tables),
        coding=Coding(fixed.encoder, fixed.keep, fixed.fitted, offset_encoder, (), (keys,)),
        direct=values.direct,
        direct_variance=values.direct_variance,
        size=data_scale.size,
        proximity=None if neighbours.given is None else neighbours.values,
        covariance=values.covariance,
        matrices=tables,
    )


def _incomplete(spec: ModelSpec, source: Source, rows: NDArray[np.intp] | None, dropped: Dropped) -> str:
    label = source.columns[spec.random[0].group[0]]
    lost = np.setdiff1d(np.arange(len(source.index)), np.arange(0) if rows is None else rows)
    nameless = np.zeros(len(lost), dtype=bool) if label.missing is None else label.missing[lost]
    columns = dict.fromkeys(name for names in dropped.columns for name in names)
    named = lost[~nameless]
    codes, labels = label_codes(label.take(named)) if len(named) else (np.arange(0), pd.Index([]))
    where = [f"areas {listed(labels[codes])}"] if len(named) else []
    where += [f"rows {listed(source.index[lost[nameless]])}, which have no label"] if nameless.any() else []
    return (
        f"Each area must have its label and covariates; {listed(columns)} is missing for {' and '.join(where)}. Fill "
        'in the values, or use missing_covariates="drop" to leave these areas out: they get no estimate.'
    )


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


def _known(
    spec: ModelSpec,
    residual: AreaResidual,
    areas: pd.Index,
    y: Vector,
    columns: Mapping[str, Column],
    beside: Mapping[str, object],
) -> tuple[Known, Known, Matrix | None]:
    """Estimates and variances as they are reported and as their areas are judged, and the covariance matrix given."""
    size = None if residual.sample_size is None else _numbers("Sample sizes", columns[residual.sample_size])
    if size is not None and (size < 0).any():
        raise DesignError(
            f"A sample size must not be negative; column {residual.sample_size} is for areas "
            f"{listed(areas[size < 0])}. Correct it, or set it to missing."
        )
    S: Matrix | None = None
    if isinstance(residual, SamplingCovariance):
        S = aligned(read_blocks(residual.matrix, beside[residual.matrix]), areas, ~np.isnan(y))
        variance, name = np.diagonal(S).copy(), f"the diagonal of {residual.matrix}"
    elif residual.column is not None:
        variance, name = _numbers("Sampling variances", columns[residual.column]), f"column {residual.column}"
    else:
        variance, name = np.full(len(y), np.nan), ""
    largest = areascale.LARGEST if isinstance(spec.transformation, Logit) else np.inf
    known = Known(spec.response, name, areas, y, variance, size, largest)
    if not isinstance(spec.transformation, ArcsineRoot):
        return known, known, S
    effective = _numbers("Effective sample sizes", columns[spec.transformation.size])
    known = replace(known, size=effective if size is None else size)
    return *areascale.arcsine_sizes(spec.transformation, known, effective), S


def _numbers(what: str, column: Column) -> Vector:
    if not column.is_number:
        raise DesignError(f"{what} must be numeric; column {column.name} holds {column.kind}. Convert it to numbers.")
    return frozen(np.array(column.numbers()))


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """The arrays of `AreaDesign` of the same names."""

    y: Vector
    D: Vector
    covariance: Matrix | None
    direct: Vector | None
    direct_variance: Vector | None


def _on_model_scale(spec: ModelSpec, known: Known, D: Vector, S: Matrix | None, role: NDArray[np.str_]) -> _Values:
    """Direct estimates and variances on the scale of the model, and beside them those of the data.

    D  variances of an arcsine square root; of other transformations they follow from `known`
    """
    used, transformation = role != "unsampled", spec.transformation
    if S is not None and isinstance(spec.residual, SamplingCovariance):
        S = covariance(spec.residual.matrix, S, known.areas, used)
    if transformation is None:
        return _Values(frozen(known.direct), frozen(known.variance), S, None, None)
    areascale.check_domain(transformation, known, used)
    y = areascale.modelled(transformation, known.direct)
    if not isinstance(transformation, ArcsineRoot):
        D = areascale.modelled_variance(transformation, known.direct, known.variance)
        S = None if S is None else frozen(areascale.modelled_covariance(transformation, known.direct, S))
    if not isinstance(transformation, Log) and spec.columns().sampling_variance:
        areascale.check_proportions(known, role == "sampled")
    areascale.check_finite(transformation, known, D, role == "sampled")
    return _Values(frozen(y), frozen(D), S, frozen(known.direct), frozen(known.variance))


@dataclass(frozen=True, slots=True, eq=False)
class _Neighbours(Proximity):
    """The proximity matrix with what was given for it; None where the spec has none."""

    given: Matrix | None = None


def _proximity(spec: ModelSpec, areas: pd.Index, beside: Mapping[str, object]) -> _Neighbours:
    effects = spec.area_effects
    if not isinstance(effects, SAR):
        return _Neighbours(np.empty((0, 0)))
    given = aligned(read_matrix(effects.matrix, beside[effects.matrix]), areas, np.ones(len(areas), dtype=bool))
    found = proximity(effects, given, areas)
    return _Neighbours(found.values, found.notes, given)


def _tables(spec: ModelSpec, areas: pd.Index, neighbours: _Neighbours, S: Matrix | None) -> dict[str, pd.DataFrame]:
    """The matrices as given, by name."""
    tables = {}
    if isinstance(spec.area_effects, SAR) and neighbours.given is not None:
        tables[spec.area_effects.matrix] = as_table(neighbours.given, areas)
    if isinstance(spec.residual, SamplingCovariance) and S is not None:
        tables[spec.residual.matrix] = as_table(S, areas)
    return tables


def _check_count(m: int, X: Matrix) -> None:
    p = X.shape[1]
    if m <= p:
        raise DesignError(
            f"There must be more sampled areas than coefficients; found {m} areas and {p} coefficients. "
            "Use fewer covariates."
        )
