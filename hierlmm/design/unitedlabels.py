"""The labels of one column in two parts of the data, as one set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.design.column import Kind
from hierlmm.design.labels import check_distinct, check_same_kind
from hierlmm.design.moments import Labels


def united(name: str, a: Labels, b: Labels) -> Labels:
    """The labels of both, sorted unless both declare the same order."""
    if a is b or a.kind == b.kind and a.index.equals(b.index):
        if a.index.dtype == b.index.dtype and (b.seen <= a.seen).all():
            return a
        return Labels(a.kind, a.index, a.seen | b.seen)
    check_same_kind(name, a.used(), b.used())
    if b.kind == a.kind != "categories" and (places := a.index.get_indexer(b.index)).min(initial=0) >= 0:
        seen = a.seen.copy()
        seen[places[b.seen]] = True
        return a if (seen == a.seen).all() else Labels(a.kind, a.index, seen)
    index = _sorted(a.index, b.index)
    check_distinct(name, index)
    seen = np.zeros(len(index), dtype=bool)
    for one in (a, b):
        seen[index.get_indexer(one.used())] = True
    return Labels(_kind(index), index, seen)


def _kind(index: pd.Index) -> Kind:
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        return "dates"
    return "number" if pd.api.types.is_numeric_dtype(index.dtype) else "text"


def _sorted(a: pd.Index, b: pd.Index) -> pd.Index:
    """Labels of both, sorted: text by its characters, whatever else by value."""
    if a.dtype != object and b.dtype != object:
        both: pd.Index = a.union(b)
        return both if both.is_monotonic_increasing else both.sort_values()
    every = dict.fromkeys((*a.tolist(), *b.tolist()))
    if all(isinstance(label, str) for label in every):
        texts: pd.Index = pd.Index(sorted(every), dtype=object)
        return texts
    in_order = sorted(every, key=lambda label: (not isinstance(label, int | float), str(label)))
    found: pd.Index = pd.Index(in_order, dtype=object)
    return found
