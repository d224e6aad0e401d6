"""Whether the rows determine the covariance of their residuals: places, pairs and numbers of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.spec.residual import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    LMMResidual,
    Toeplitz,
    Unstructured,
)

if TYPE_CHECKING:
    from hierlmm.design.residual import ResidualRows

Codes = NDArray[np.intp]
Mask = NDArray[np.bool_]


def check_rows(residual: LMMResidual, rows: ResidualRows) -> None:
    """Raise DesignError where the rows of correlated residuals cannot determine their structure."""
    name = type(residual).__name__
    if len(rows.levels) == len(rows.codes):
        raise DesignError(
            f"Correlated residuals need groups of several rows; every row is a level of {rows.group} of its own, so "
            f"that {name} has no correlation to estimate. Name the column of the unit that was measured repeatedly."
        )
    if isinstance(residual, CompoundSymmetry | HeterogeneousCompoundSymmetry | Toeplitz) and len(rows.levels) == 1:
        raise DesignError(
            f"{name} needs at least 2 groups; {rows.group} has the single level {rows.levels[0]}. Use AR1 or "
            "ContinuousAR1, whose correlation one series of rows determines, or leave the structure out."
        )
    if isinstance(residual, CompoundSymmetry):
        return
    order = np.lexsort((rows.place, rows.codes))
    _check_once(rows, order, _place_word(residual))
    if isinstance(residual, AR1 | HeterogeneousAR1 | Toeplitz):
        _check_steps(residual, rows, order)
    if isinstance(residual, ContinuousAR1) and residual.nugget:
        _check_nugget(rows, order)
    if isinstance(residual, Unstructured):
        _check_pairs(rows, order)
    if isinstance(residual, Antedependence):
        _check_neighbours(rows, order)
    _check_count(residual, rows)


def few_rows(name: str, labels: pd.Index, codes: Codes) -> Iterator[str]:
    """A note on variances that a single row must determine."""
    once = np.flatnonzero(np.bincount(codes, minlength=len(labels)) == 1)
    if len(once):
        yield (
            f"A single row determines the residual variance of {name} {listed(labels[once])}: it is known very "
            "imprecisely, and the likelihood (ML) may have no upper bound as it goes to 0."
        )


def _place_word(residual: LMMResidual) -> str:
    return next(word for word in ("position", "time", "occasion") if hasattr(residual, word))


def _check_once(rows: ResidualRows, order: Codes, word: str) -> None:
    """No place stands twice in a group."""
    codes, place = rows.codes[order], rows.place[order]
    twice = np.flatnonzero((codes[1:] == codes[:-1]) & (place[1:] == place[:-1]))
    if not len(twice):
        return
    at = order[twice]
    named = rows.occasions[rows.occasion[at]] if len(rows.occasions) else rows.place[at]
    pairs = dict.fromkeys(zip(rows.levels[rows.codes[at]].tolist(), list(named), strict=True))
    raise DesignError(
        f"Each {word} must occur once in a group; in {rows.group} "
        f"{listed(f'{level} has {value} twice' for level, value in pairs)}. "
        f'Give each row its own {word}, or name a finer group, as in group="{rows.group}:...".'
    )


def _check_steps(residual: AR1 | HeterogeneousAR1 | Toeplitz, rows: ResidualRows, order: Codes) -> None:
    """Positions have neighbours; for Toeplitz, every distance up to the largest occurs."""
    codes, place = rows.codes[order], rows.place[order]
    same = codes[1:] == codes[:-1]
    gaps = np.diff(place)[same]
    if not (gaps == 1).any():
        raise DesignError(
            f"Positions must have neighbours; no two rows of one level of {rows.group} are one step apart in column "
            f"{residual.position}, whose values are {listed(rows.occasions)}. Use ContinuousAR1 for unequal times, or "
            "number the occasions 1, 2, 3, ..."
        )
    if not isinstance(residual, Toeplitz):
        return
    seen = _distances(codes, place)
    lags = np.arange(1, int(seen.max()) + 1)
    if len(lost := np.setdiff1d(lags, seen)):
        raise DesignError(
            "Each distance between positions must occur in a group, or its correlation is not determined; no two rows "
            f"of one level of {rows.group} are {listed(lost)} steps apart in column {residual.position}. Use AR1, "
            "whose one correlation holds for all distances."
        )


def _distances(codes: Codes, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances that occur between rows of one group, ascending; rows sorted by group and place."""
    found: set[float] = set()
    for step in range(1, _largest(codes)):
        same = codes[step:] == codes[:-step]
        found.update(np.unique((place[step:] - place[:-step])[same]).tolist())
    return np.array(sorted(found))


def _largest(codes: Codes) -> int:
    return int(np.bincount(codes).max())


def _check_nugget(rows: ResidualRows, order: Codes) -> None:
    """With one distance only, a correlation below 1 at distance zero and its decrease are one number."""
    codes, place = rows.codes[order], rows.place[order]
    first = np.diff(place)[codes[1:] == codes[:-1]]
    if _largest(codes) > 2 or np.ptp(first) > 1e-9 * first.max():
        return
    raise DesignError(
        "A nugget needs pairs of rows at several distances; within the levels of "
        f"{rows.group} all pairs are {first[0]:g} apart. Use nugget=False."
    )


def _together(rows: ResidualRows, order: Codes) -> Mask:
    """(T, T) which occasions occur together in some group; the upper triangle."""
    codes, occasion = rows.codes[order], rows.occasion[order]
    seen = np.zeros((len(rows.occasions),) * 2, dtype=bool)
    for step in range(1, _largest(codes)):
        same = codes[step:] == codes[:-step]
        seen[occasion[:-step][same], occasion[step:][same]] = True
    return seen


def _check_pairs(rows: ResidualRows, order: Codes) -> None:
    T = len(rows.occasions)
    i, j = np.triu_indices(T, 1)
    lost = ~_together(rows, order)[i, j]
    if lost.any():
        pairs = [f"{rows.occasions[a]} and {rows.occasions[b]}" for a, b in zip(i[lost], j[lost], strict=True)]
        raise DesignError(
            "An unstructured covariance needs every pair of occasions together in some group; "
            f"no level of {rows.group} has both {listed(pairs)}. Use Antedependence, AR1 or another structure with "
            "fewer correlations."
        )
    if len(rows.levels) < T:
        raise DesignError(
            f"An unstructured covariance of {T} occasions needs at least {T} groups, or the likelihood has no upper "
            f"bound; {rows.group} has {len(rows.levels)}. Use a structure with fewer parameters."
        )


def _check_neighbours(rows: ResidualRows, order: Codes) -> None:
    """The log of each correlation is a sum over the steps between: the pairs that occur must determine each step."""
    T = len(rows.occasions)
    pairs = np.argwhere(_together(rows, order))
    between = (np.arange(T - 1) >= pairs[:, :1]) & (np.arange(T - 1) < pairs[:, 1:])
    if np.linalg.matrix_rank(between.astype(float)) == T - 1:
        return
    apart = [t for t in range(T - 1) if not ((pairs == (t, t + 1)).all(axis=1)).any()]
    named = [f"{rows.occasions[t]} and {rows.occasions[t + 1]}" for t in apart]
    raise DesignError(
        "The correlation of neighbouring occasions must be determined by pairs that occur; no level of "
        f"{rows.group} has both {listed(named)}, and other pairs do not replace them. Use AR1 or another structure "
        "with fewer correlations."
    )


def _check_count(residual: LMMResidual, rows: ResidualRows) -> None:
    """No more parameters than rows, and no structure of one row an occasion."""
    T, n = len(rows.occasions), len(rows.codes)
    counts = {
        HeterogeneousCompoundSymmetry: T + 1,
        HeterogeneousAR1: T + 1,
        Toeplitz: T,
        Antedependence: 2 * T - 1,
        Unstructured: T * (T + 1) // 2,
    }
    count = counts.get(type(residual), 0)
    if count > n:
        raise DesignError(
            f"There must be rows enough for the covariance of the residuals; {type(residual).__name__} of {T} "
            f"occasions has {count} parameters, and there are {n} rows. Use a structure with fewer parameters."
        )
    if count and T == n:
        raise DesignError(
            f"A variance for each occasion needs occasions that are seen more than once; each of the {T} occasions has "
            "a single row. Use AR1 or ContinuousAR1."
        )
