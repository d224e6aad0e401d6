"""What a reader of the results should know about the data: sentences, not refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from hierlmm.design.column import Column
from hierlmm.design.grouping import Keys, label_codes
from hierlmm.design.rank import spans_constant
from hierlmm.design.source import Source
from hierlmm.design.types import AreaDesign, Dropped, GroupingFactor, LMMDesign, Matrix, Vector
from hierlmm.errors import SHOWN, listed
from hierlmm.spec.model import ModelSpec

# A variance between fewer levels than this rests on so few values that its interval spans orders of magnitude:
# with 4 degrees of freedom the 95 % limits of a variance are a factor 23 apart.
FEW_LEVELS = 5
# Share of the sum of squares about the mean above which one row decides the variances, and the number of rows from
# which such a share does not happen among normal values (its probability is below 0.01 for 20 rows, 1e-6 for 40).
DECISIVE, ENOUGH_ROWS = 0.5, 20
# Distance of the mean of x from 0, in standard deviations of x, from which groups at x = 0 are far outside the data.
FAR = 10.0


def left_out(design: LMMDesign | AreaDesign) -> tuple[str, ...]:
    """Sentences on the rows and columns of the table that are not in the model: part of every printed result."""
    dropped, lines = design.dropped, []
    if len(dropped):
        rows = "row" if len(dropped) == 1 else "rows"
        columns = dict.fromkeys(name for names in dropped.columns for name in names)
        lines.append(f"{len(dropped)} {rows} dropped for missing values in {listed(columns)}: {_rows(dropped)}.")
    if design.aliased:
        lines.append(f"Columns dropped because earlier ones determine them: {', '.join(design.aliased)}.")
    return tuple(lines)


def _rows(dropped: Dropped) -> str:
    """The first rows, and how many more there are."""
    if not dropped.more:
        return listed(dropped.rows)
    shown = dropped.rows[:SHOWN]
    return f"{listed(shown)} and {len(dropped) - len(shown)} more"


def lmm_notes(
    spec: ModelSpec,
    source: Source,
    columns: Mapping[str, Column],
    y: Vector,
    offset: Vector,
    index: pd.Index,
    X: Matrix,
    factors: tuple[GroupingFactor, ...],
    keys: tuple[Keys, ...],
) -> tuple[str, ...]:
    """Sentences about a linear mixed model's data."""
    return (
        *_response(spec, y),
        *_decisive(spec, y - offset, index),
        *_no_intercept(X),
        *unused_levels(spec, source, columns),
        *(note for factor in factors for note in _factor(factor)),
        *_reused(factors, keys),
    )


def _response(spec: ModelSpec, y: Vector) -> Iterator[str]:
    if (y == y[0]).all():
        yield f"The response {spec.response} is {y[0]:g} in every row: it has no variance to divide."


def _decisive(spec: ModelSpec, y: Vector, index: pd.Index) -> Iterator[str]:
    """One row that carries most of the variation: an error of entry or of units, more often than not."""
    if len(y) < ENOUGH_ROWS:
        return
    from_mean = y - y.mean()
    far = int(np.abs(from_mean).argmax())
    largest = abs(float(from_mean[far]))
    if largest == 0:
        return
    relative = from_mean / largest
    share = 1.0 / float(relative @ relative)
    if share > DECISIVE:
        yield (
            f"Row {index[far]} alone carries {100 * share:.0f} % of the variation of {spec.response} about its mean: "
            f"every estimate depends on its value ({y[far]:g}). Check it."
        )


def _no_intercept(X: Matrix) -> Iterator[str]:
    if X.shape[1] == 0:
        yield "The model has no fixed effects: the mean of the response is taken to be 0 (or the offset)."
    elif not (X[:, 0] == 1).all() and not spans_constant(X):
        yield "The model has no intercept: the mean of the response is taken to be 0 where all predictors are 0."


def unused_levels(spec: ModelSpec, source: Source, columns: Mapping[str, Column]) -> Iterator[str]:
    """Levels that were declared, or stood only in rows that were dropped."""
    read = spec.columns()
    for name in dict.fromkeys((*read.fixed, *read.random, *read.groups)):
        column, whole = columns[name], source.columns[name]
        if column.is_number:
            if column is whole or name not in read.groups:
                continue
            rows = np.flatnonzero(~whole.missing) if whole.missing is not None else None
            lost = label_codes(whole.take(rows))[1].difference(label_codes(column)[1], sort=False)
        else:
            count = np.bincount(column.values, minlength=len(column.labels))
            if count.all():
                continue
            lost = column.labels[count == 0]
        if len(lost):
            yield f"Levels of {name} without a complete row were left out: {listed(lost)}."


def _factor(factor: GroupingFactor) -> Iterator[str]:
    if len(factor.levels) < FEW_LEVELS:
        yield f"{factor.name} has only {len(factor.levels)} levels: its variance is known very imprecisely."
    yield from _far_from_zero(factor)
    first = np.empty(len(factor.levels), dtype=np.intp)
    first[factor.codes[::-1]] = np.arange(len(factor.codes) - 1, -1, -1)
    for name, z in zip(factor.coefficients, factor.Z.T, strict=True):
        if name != "Intercept" and (z[first][factor.codes] == z).all():
            yield (
                f"{name} is constant within every level of {factor.name}: its random slope is only seen as a variance "
                f"between levels that changes with {name}."
            )


def _far_from_zero(factor: GroupingFactor) -> Iterator[str]:
    """Slopes of an x like a calendar year, whose intercepts stand for a year 0 far outside the data."""
    for block in factor.blocks:
        names = [factor.coefficients[k] for k in block]
        if "Intercept" not in names:
            continue
        for name, k in zip(names, block, strict=True):
            sd, mean = float(factor.Z[:, k].std()), float(factor.Z[:, k].mean())
            if sd > 0 and abs(mean) > FAR * sd:
                yield (
                    f"{name} is {mean:.4g} on average with an sd of {sd:.2g}: the intercepts over {factor.name} and "
                    f"their correlation with its slopes describe groups at {name} = 0, far outside the data, and so "
                    f"does the prior of their sd. Centre it, as in center({name})."
                )


def _reused(factors: tuple[GroupingFactor, ...], keys: tuple[Keys, ...]) -> Iterator[str]:
    """Numbers 1, 2, ... that occur within several levels of another factor may be numbered anew within each."""
    single = [factor for factor, key in zip(factors, keys, strict=True) if len(key.columns) == 1]
    for first, second in combinations(single, 2):
        numbered = [factor for factor in (first, second) if _counts_from_one(factor.levels)]
        if not numbered:
            continue
        inner = max(reversed(numbered), key=lambda factor: len(factor.levels))
        outer = first if inner is second else second
        if len(np.unique(inner.codes * len(outer.levels) + outer.codes)) > len(inner.levels):
            yield (
                f"Levels {listed(inner.levels[:3])}, ... of {inner.name} occur within several levels of {outer.name} "
                f"and are taken to be the same ones throughout. Where {inner.name} is numbered anew within each "
                f"{outer.name}, write (1 | {outer.name}/{inner.name})."
            )


def _counts_from_one(levels: pd.Index) -> bool:
    """Whether the labels are the whole numbers 1, 2, ..., G, as numbers or as text."""
    if str(levels[0]) != "1":  # sorted, so that 1 comes first
        return False
    return set(map(str, levels.tolist())) == set(map(str, range(1, len(levels) + 1)))
