"""The design of a compound model: one row a unit, its observation and what is known of its sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.design.area import build_area
from hierlmm.design.coding import fixed_part, frozen, offset_values
from hierlmm.design.column import Column
from hierlmm.design.fingerprint import compound_fingerprint, new_response
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.design.notes import unused_levels
from hierlmm.design.response import check_numbers, response_values, with_response
from hierlmm.design.source import Source, complete, read
from hierlmm.design.types import AreaDesign, Fingerprint, Matrix, Vector
from hierlmm.errors import DesignError, listed
from hierlmm.spec.build import fay_herriot
from hierlmm.spec.compound import ARGUMENT, CompoundSpec

Mask = NDArray[np.bool_]

# Name of the column that holds the variance where one number is that of all units.
COMMON = "common sampling variance"
# A rate this many times the pooled one, from at least so many counts, is mostly an exposure in other units.
ABSURD, COUNTS = 100.0, 5
# What the rows of the three families must have.
NEEDS = {
    "normal": "an observation and a sampling variance",
    "poisson": "a count and a positive exposure",
    "binomial": "a count and a positive number of trials",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompoundDesign:
    """A compound model and its data: M units in table order, of which m are in the fit.

    table    the columns the model reads, every row of the input, as pandas
    units    (M,) labels, key type of the input; unique
    y        (M,) observations or counts, nan where there is none
    size     (M,) sampling variances D, exposures E or trials n; nan where there is none
    offset   (M,) part of the linear predictor that is known; X (M, p) the rest, aliased columns removed; `fixed` their
             names
    role     (M,) "sampled" (in the fit) or "unsampled" (no observation, exposure 0 or no trials)
    levels   levels of each categorical predictor, the reference level first
    notes    sentences about the data that a reader of the results should know
    area     normal sampling: the same data as an area-level model, whose engine fits it; None for counts
    """

    spec: CompoundSpec
    table: pd.DataFrame
    units: pd.Index
    y: Vector
    size: Vector
    offset: Vector
    X: Matrix
    fixed: tuple[str, ...]
    aliased: tuple[str, ...]
    role: NDArray[np.str_]
    levels: Mapping[str, tuple[object, ...]]
    notes: tuple[str, ...]
    fingerprint: Fingerprint
    area: AreaDesign | None

    @property
    def sampled(self) -> Mask:
        """(M,) which units are in the fit."""
        return np.asarray(self.role == "sampled")

    @property
    def direct(self) -> Vector:
        """(M,) the direct estimate of θ: y, or y over exposure or trials; nan where there is none."""
        if self.spec.family == "normal":
            return np.array(self.y)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(self.sampled, self.y / self.size, np.nan))


def build_compound(spec: CompoundSpec, data: object) -> CompoundDesign:
    """The design of a compound model, units in table order.

    data   pandas DataFrame, polars DataFrame or LazyFrame, or pyarrow Table; one row a unit

    Raises DesignError naming the units: labels or predictors that are missing, units that stand twice, counts that
    are negative or no whole numbers, more successes than trials, counts without exposure, variances that are not
    positive, and units without an observation, unless the spec says what they are.
    """
    if not isinstance(spec, CompoundSpec):
        raise DesignError("build_compound(...) takes a compound model. Use build(...) for another.")
    source = read(data, spec.columns().all)
    if not len(source.index):
        raise DesignError("A compound model needs units; the data have no row.")
    _check_complete(spec, source)
    units = _units(spec.unit, source.columns)
    return _normal(spec, source, units) if spec.family == "normal" else _counts(spec, source, units)


def with_observations(design: CompoundDesign, y: ArrayLike) -> CompoundDesign:
    """The design of the same units with observations y (M,), in their order; those of unsampled units are not read.

    Raises DesignError where the length or a value does not suit the sampling, as `build_compound` does.
    """
    check_numbers(y)
    values = np.array(y, dtype=np.float64)
    if values.shape != design.y.shape:
        raise DesignError(
            f"New observations have one value for each unit; found shape {values.shape} for {len(design.y)} units. "
            "Give them in the order of the design."
        )
    values[~design.sampled] = design.y[~design.sampled]
    part = new_response(design.spec.mean, values)
    mark = replace(design.fingerprint, response=part)
    if design.area is not None:
        area = with_response(design.area, values)
        return replace(design, y=area.y, fingerprint=mark, area=area)
    _check_counts(design.spec, design.units, values, design.size)
    return replace(design, y=frozen(values), fingerprint=mark)


def _check_complete(spec: CompoundSpec, source: Source) -> None:
    """Refuse rows without a label or a predictor, naming them."""
    used = spec.columns()
    needed = dict.fromkeys((*used.fixed, *used.offset, used.unit))
    _, dropped = complete((source.columns[name] for name in needed), source.index)
    if len(dropped):
        columns = dict.fromkeys(name for names in dropped.columns for name in names)
        raise DesignError(
            f"Each unit must have its label and its predictors; {listed(columns)} is missing in rows "
            f"{listed(dropped.rows)}. Fill in the values or leave these rows out."
        )


def _units(name: str, columns: Mapping[str, Column]) -> pd.Index:
    """(M,) labels in table order. Raises DesignError where one stands twice."""
    codes, labels = label_codes(columns[name])
    check_distinct(name, labels)
    count = np.bincount(codes)
    if (count > 1).any():
        raise DesignError(
            f"Each unit has one row; in column {name} {listed(labels[count > 1])} stands more than once. Add up the "
            "counts and exposures of a unit first, or pool its observations."
        )
    return labels[codes]


def _normal(spec: CompoundSpec, source: Source, units: pd.Index) -> CompoundDesign:
    """Normal sampling: the area-level model with an area for each unit."""
    table = source.table()
    column = spec.known if isinstance(spec.known, str) else COMMON
    if not isinstance(spec.known, str):
        table[column] = float(spec.known)
    elif source.columns[column].is_number:
        zero = source.columns[column].numbers() == 0
        if zero.any():
            raise DesignError(
                f"A sampling variance must be positive; column {column} is 0 for units {listed(units[zero])}. Correct "
                "it, or model them by fay_herriot(..., zero_variance='direct'), which reports them as observed."
            )
    model = fay_herriot(spec.formula, sampling_variance=column, area=spec.unit, unsampled=spec.unsampled)
    area = build_area(model, table)
    return CompoundDesign(
        spec=spec,
        table=source.table(),
        units=area.areas,
        y=area.y,
        size=area.D,
        offset=area.offset,
        X=area.X,
        fixed=area.fixed,
        aliased=area.aliased,
        role=area.role,
        levels=area.levels,
        notes=area.notes,
        fingerprint=compound_fingerprint(spec, source.index, source.columns, area.fixed),
        area=area,
    )


def _counts(spec: CompoundSpec, source: Source, units: pd.Index) -> CompoundDesign:
    columns, index = source.columns, source.index
    y, size = response_values(spec.mean, columns, index), _known(spec, columns[str(spec.known)])
    _check_counts(spec, units, y, size)
    absent = np.isnan(y) | np.isnan(size) | (size == 0)
    if absent.any() and spec.unsampled == "error":
        raise DesignError(
            f"Each unit must have {NEEDS[spec.family]}; {spec.response} or {spec.known} is missing or 0 for units "
            f'{listed(units[absent])}. Remove them, or use unsampled="synthetic" to give them the prior.'
        )
    sampled = ~absent
    if not sampled.any():
        raise DesignError(
            f"The prior is estimated from observations; none of {len(units)} units has {NEEDS[spec.family]}. "
            f"Check columns {spec.response} and {spec.known}."
        )
    offset, _ = offset_values(spec.mean, columns, index)
    fixed = fixed_part(spec.mean, columns, units, None if sampled.all() else sampled)
    _check_number(int(sampled.sum()), fixed.X)
    return CompoundDesign(
        spec=spec,
        table=source.table(),
        units=units,
        y=frozen(np.where(absent, np.nan, y)),
        size=frozen(np.where(absent, np.nan, size)),
        offset=offset,
        X=fixed.X,
        fixed=fixed.names,
        aliased=fixed.aliased,
        role=np.where(absent, "unsampled", "sampled"),
        levels=fixed.levels,
        notes=(*_notes(spec, units, y, size, sampled), *unused_levels(spec.mean, source, columns)),
        fingerprint=compound_fingerprint(spec, index, columns, fixed.names),
        area=None,
    )


def _known(spec: CompoundSpec, column: Column) -> Vector:
    what = {"poisson": "Exposures", "binomial": "Numbers of trials"}[spec.family]
    if not column.is_number:
        raise DesignError(f"{what} must be numeric; column {column.name} holds {column.kind}. Convert it to numbers.")
    return frozen(np.array(column.numbers()))


def _check_counts(spec: CompoundSpec, units: pd.Index, y: Vector, size: Vector) -> None:
    """Refuse what is no count, exposure or number of trials, naming the units."""
    whole = "must be a whole number, 0 or more"
    with np.errstate(invalid="ignore"):
        faults: list[tuple[Mask, str]] = [
            ((y < 0) | (y != np.round(y)) & ~np.isnan(y), f"A count {whole}"),
            ((size < 0) | np.isinf(size), f"The {ARGUMENT[spec.family]} must be finite, 0 or more"),
        ]
        if spec.family == "binomial":
            faults.append(((size != np.round(size)) & ~np.isnan(size), f"A number of trials {whole}"))
            faults.append((y > size, "There cannot be more successes than trials"))
        else:
            faults.append(((y > 0) & (size == 0), "There are no counts without exposure"))
    for bad, rule in faults:
        if bad.any():
            found = [f"{units[i]} ({y[i]:.10g} of {size[i]:.10g})" for i in map(int, np.flatnonzero(bad))]
            raise DesignError(
                f"{rule}; found {spec.response} of {spec.known} for units {listed(found)}. Correct these values."
            )


def _check_number(m: int, X: Matrix) -> None:
    p = X.shape[1]
    if m <= p:
        raise DesignError(
            f"There must be more units with observations than coefficients; found {m} units and {p} coefficients. "
            "Use fewer predictors."
        )


def _notes(spec: CompoundSpec, units: pd.Index, y: Vector, size: Vector, sampled: Mask) -> Iterator[str]:
    if (out := ~sampled).any():
        yield f"Without {NEEDS[spec.family]}, and so not in the fit: {listed(units[out])}. They have the prior alone."
    if spec.family != "poisson":
        return
    pooled = y[sampled].sum() / size[sampled].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        far = sampled & (y >= COUNTS) & (y / size > ABSURD * pooled)
    if far.any():
        yield (
            f"The rate of {listed(units[far])} is more than {ABSURD:g} times the pooled rate {pooled:.3g}: check that "
            f"{spec.known} is in the same units for all."
        )
