"""Survey records as arrays: values, weights, areas, strata and primary sampling units of the complete records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import Column, Mask
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct
from hierlmm.design.source import complete, read
from hierlmm.design.types import Dropped
from hierlmm.errors import DesignError, listed
from hierlmm.survey.indicators import Indicator
from hierlmm.survey.plan import Plan
from hierlmm.survey.population import check_at_least, column_sizes, population_sizes
from hierlmm.survey.text import counted
from hierlmm.survey.values import checked_values, value_notes
from hierlmm.survey.weights import checked_weights, weight_notes

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """n complete records with positive weights, in M areas.

    labels      (M,) areas, sorted (categories in their own order), with those that have no complete record
    y           (n,) the variable
    weight      (n,) weights as given; without a column N/n of the area where N is known, else 1
    area        (n,) position of each record's area in `labels`
    stratum     (n,) stratum as given, -1 throughout without a column; `strata` the labels
    cluster     (n,) cluster as given, each record its own without a column
    population  (M,) known sizes, nan where not given
    dropped     records that were left out; notes sentences a reader should know
    """

    labels: pd.Index
    y: Vector
    weight: Vector
    area: Codes
    stratum: Codes
    strata: pd.Index
    cluster: Codes
    population: Vector
    dropped: Dropped
    notes: tuple[str, ...]


def read_sample(records: object, variable: str | Indicator, plan: Plan, population: object = None) -> Sample:
    """Read the records that the plan needs.

    Rows with a missing value, and rows of weight 0, are left out and listed. Raises DesignError for text where
    numbers are needed, values that are not finite, weights that are negative, proportions of values other than 0 and
    1, areas without a population size, or with one below the number of their records.
    """
    sizes = population if isinstance(population, str) else None
    names = [name for name in (plan.column, plan.weights, plan.strata, plan.clusters, sizes) if name is not None]
    source = read(records, [*names, plan.area])
    columns = {**source.columns, plan.column: _without_codes(source.columns[plan.column], plan)}
    labels = _labels(columns[plan.area])
    rows, dropped = complete(columns.values(), source.index)
    rows = np.arange(len(source.index)) if rows is None else rows
    rows, dropped = _weighted(columns, plan, rows, dropped, source.index)
    if not len(rows):
        raise DesignError(
            f"Direct estimates need records; none of {len(source.index)} is complete with a positive weight. "
            f"Check the columns {listed([*names, plan.area])}."
        )
    taken = {name: column.take(rows) for name, column in columns.items()}
    area = _codes_into(labels, taken[plan.area])
    y = checked_values(taken[plan.column], variable, plan, source.index[rows])
    N, notes = _sizes(population, plan, taken, area, labels)
    weight, more = _weight(taken, plan, area, N, labels)
    stratum, strata = _coded(taken, plan.strata)
    cluster, _ = _coded(taken, plan.clusters)
    cluster = np.arange(len(rows)) if plan.clusters is None else cluster
    return Sample(
        labels=labels,
        y=y,
        weight=weight,
        area=area,
        stratum=stratum,
        strata=strata,
        cluster=cluster,
        population=N,
        dropped=dropped,
        notes=(
            *_missing_notes(plan, dropped),
            *value_notes(y, variable, plan),
            *notes,
            *more,
            *_cluster_notes(plan, stratum if plan.strata is not None else area, cluster),
        ),
    )


def _without_codes(column: Column, plan: Plan) -> Column:
    """The column with the values that stand for "missing" made missing."""
    if not plan.missing_codes or not column.is_number:
        return column
    values = np.array(column.numbers())
    coded: Mask = np.isin(values, plan.missing_codes)
    if not coded.any():
        return column
    missing = coded | np.isnan(values)
    return replace(column, values=np.where(missing, np.nan, values), missing=missing)


def _labels(column: Column) -> pd.Index:
    """Areas that occur, with those whose records are not complete."""
    rows = None if column.missing is None else np.flatnonzero(~column.missing)
    _, labels = label_codes(column.take(rows))
    check_distinct(column.name, labels)
    return labels


def _codes_into(labels: pd.Index, column: Column) -> Codes:
    codes, found = label_codes(column)
    return np.asarray(labels.get_indexer(found), dtype=np.intp)[codes]


def _weighted(
    columns: Mapping[str, Column], plan: Plan, rows: Codes, dropped: Dropped, index: pd.Index
) -> tuple[Codes, Dropped]:
    """The rows of positive weight."""
    if plan.weights is None:
        return rows, dropped
    weight = checked_weights(columns[plan.weights].take(rows), index[rows])
    without = tuple(index[rows[weight == 0]].tolist())
    return rows[weight > 0], replace(dropped, unweighted=without)


def _sizes(
    given: object, plan: Plan, columns: Mapping[str, Column], area: Codes, labels: pd.Index
) -> tuple[Vector, tuple[str, ...]]:
    """(M,) population sizes and a note on areas without records."""
    if given is None:
        return np.full(len(labels), np.nan), ()
    if isinstance(given, str):
        sizes, others = column_sizes(columns[given], area, labels), labels[:0]
    else:
        sizes, others = population_sizes(given, plan.area, labels)
    check_at_least(sizes, np.bincount(area, minlength=len(labels)), labels)
    if not len(others):
        return sizes, ()
    return sizes, (f"Areas with a population size and no records, which have no direct estimate: {listed(others)}.",)


def _weight(
    columns: Mapping[str, Column], plan: Plan, area: Codes, N: Vector, labels: pd.Index
) -> tuple[Vector, tuple[str, ...]]:
    if plan.weights is not None:
        weight = np.array(columns[plan.weights].numbers())
        return weight, weight_notes(weight, plan, area, N, labels)
    if plan.population is not None:
        return (N / np.maximum(np.bincount(area, minlength=len(N)), 1))[area], ()
    return np.ones(len(area)), ()


def _coded(columns: Mapping[str, Column], name: str | None) -> tuple[Codes, pd.Index]:
    if name is None:
        return np.full(len(next(iter(columns.values())).values), -1, dtype=np.intp), pd.Index([])
    codes, labels = label_codes(columns[name])
    check_distinct(name, labels)
    return codes, labels


def _missing_notes(plan: Plan, dropped: Dropped) -> tuple[str, ...]:
    """Weights are not raised for what is missing."""
    if not len(dropped) or plan.estimator != "horvitz_thompson" or plan.weights is None:
        return ()
    return (
        f"The weights in {plan.weights} are not raised for the {counted(len(dropped), 'record')} with missing values, "
        "which a Horvitz-Thompson estimate so counts as 0. Adjust the weights for nonresponse, or use "
        'estimator="hajek" (for totals with population sizes).',
    )


def _cluster_notes(plan: Plan, stratum: Codes, cluster: Codes) -> tuple[str, ...]:
    """Clusters of one label in several strata, or areas that are strata, are read as different ones."""
    if plan.clusters is None or (plan.strata is None and plan.areas == "domains"):
        return ()
    pairs = np.unique(np.stack([cluster, stratum], axis=1), axis=0)
    several = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    if not several:
        return ()
    labels = f"{counted(several, 'label')} of {plan.clusters} {'occurs' if several == 1 else 'occur'}"
    if plan.strata is not None:
        return (f"{labels} in more than one level of {plan.strata}; they are read as different clusters.",)
    return (
        f"{labels} in more than one area; they are read as different clusters. Where clusters were drawn first and "
        'areas cut across them, use areas="domains".',
    )
