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
from hierlmm.design.types import GroupingFactor, Matrix, Vector
from hierlmm.errors import listed
from hierlmm.spec.model import ModelSpec

# A variance between fewer levels than this rests on so few values that its interval spans orders of magnitude:
# with 4 degrees of freedom the 95 % limits of a variance are a factor 23 apart.
FEW_LEVELS = 5


def lmm_notes(
    spec: ModelSpec,
    source: Source,
    columns: Mapping[str, Column],
    y: Vector,
    X: Matrix,
    factors: tuple[GroupingFactor, ...],
    keys: tuple[Keys, ...],
) -> tuple[str, ...]:
    """Sentences about a linear mixed model's data."""
    return (
        *_response(spec, y),
        *_no_intercept(X),
        *unused_levels(spec, source, columns),
        *(note for factor in factors for note in _factor(factor)),
        *_reused(factors, keys),
    )


def _response(spec: ModelSpec, y: Vector) -> Iterator[str]:
    if (y == y[0]).all():
        yield f"The response {spec.response} is {y[0]:g} in every row: it has no variance to divide."


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
    first = np.empty(len(factor.levels), dtype=np.intp)
    first[factor.codes[::-1]] = np.arange(len(factor.codes) - 1, -1, -1)
    for name, z in zip(factor.coefficients, factor.Z.T, strict=True):
        if name != "Intercept" and (z[first][factor.codes] == z).all():
            yield (
                f"{name} is constant within every level of {factor.name}: its random slope is only seen as a variance "
                f"between levels that changes with {name}."
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
