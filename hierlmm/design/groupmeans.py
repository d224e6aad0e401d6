"""within(x, g) and between(x, g): the deviation from a group's mean, and the mean, remembered for new rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


def transforms(count: Vector | None) -> dict[str, Callable[..., Any]]:
    """The two transforms as formulaic calls them, with the means of the first rows as their state.

    count  (n,) how often each row counts in the means; None: once

    A row of a group that was there at first takes that group's mean of then; rows of a group that was not take the
    mean over those of its rows that are given.
    """
    from formulaic.utils.stateful_transforms import stateful_transform

    def within(data: Any, groups: Any, _state: Any = None) -> pd.Series:
        values, base, mean = _parts(data, groups, _state, count)
        return pd.Series((values - base) - mean)

    def between(data: Any, groups: Any, _state: Any = None) -> pd.Series:
        _, base, mean = _parts(data, groups, _state, count)
        return pd.Series(base + mean)

    return {"within": stateful_transform(within), "between": stateful_transform(between)}


def _parts(data: Any, groups: Any, state: dict[str, Any], count: Vector | None) -> tuple[Vector, Vector, Vector]:
    """Values, and each row's group mean in two parts: a value of the group, and the mean of the differences from it.

    The parts keep the digits of values far from zero.
    """
    values = np.asarray(data, dtype=np.float64)
    codes, labels = _coded(groups)
    base, mean = _means(values, codes, len(labels), count if not state else None)
    if state:
        known = state["labels"].get_indexer(labels)
        base = np.where(known >= 0, state["base"][known], base)
        mean = np.where(known >= 0, state["mean"][known], mean)
    else:
        state.update(labels=labels, base=base, mean=mean)
    return values, base[codes], mean[codes]


def _coded(groups: Any) -> tuple[Codes, pd.Index]:
    """Codes of the rows into the labels that occur."""
    if isinstance(groups.dtype, pd.CategoricalDtype):
        used = groups.cat.remove_unused_categories()
        return np.asarray(used.cat.codes, dtype=np.intp), used.cat.categories
    codes, labels = pd.factorize(np.asarray(groups))
    return np.asarray(codes, dtype=np.intp), pd.Index(labels)


def _means(values: Vector, codes: Codes, G: int, count: Vector | None) -> tuple[Vector, Vector]:
    """The first value of each group, and the mean of the differences from it."""
    first = np.empty(G, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    base = values[first]
    apart = values - base[codes]
    total = np.bincount(codes, count, G)
    return base, np.bincount(codes, apart if count is None else apart * count, G) / total
