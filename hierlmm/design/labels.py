"""Labels of categories and groups: when two of them are the same one written in two ways."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

import pandas as pd

from hierlmm.errors import DesignError, listed


def check_distinct(name: str, labels: pd.Index) -> None:
    """Refuse labels that differ only by type, blanks around them or Unicode form: 1 and "1", "é" and "e\u0301"."""
    if pd.api.types.is_numeric_dtype(labels.dtype) or isinstance(labels, pd.DatetimeIndex | pd.TimedeltaIndex):
        return
    given = labels.tolist()
    texts = normal(given)
    if len(set(texts)) == len(texts):
        return
    seen: dict[str, object] = {}
    clashes = []
    for label, text in zip(given, texts, strict=True):
        if text in seen:
            clashes.append(f"{seen[text]!a} and {label!a}")
        seen[text] = label
    if clashes:
        raise DesignError(
            "Labels must differ by more than type, blanks around them or Unicode form; "
            f"column {name} has {listed(clashes)}. Write each label in one way."
        )


def normal(labels: Iterable[object]) -> list[str]:
    """Labels as text without blanks around them, in Unicode's composed form."""
    texts = [str(label).strip() for label in labels]
    if "".join(texts).isascii():
        return texts
    return [unicodedata.normalize("NFC", text) for text in texts]


def check_same_kind(name: str, labels: pd.Index, new: pd.Index) -> None:
    """Refuse group labels of another kind than those of the fit: as numbers or text, none of them would be known."""
    if len(new) and len(labels) and _kind(labels) != _kind(new):
        raise DesignError(
            f"A grouping column must be of the kind it had in the fit; column {name} had {_kind(labels)} such as "
            f"{listed(labels[:2])} and now has {_kind(new)} such as {listed(new[:2])}. Convert it."
        )


def _kind(labels: pd.Index) -> Literal["numbers", "dates", "text"]:
    if pd.api.types.is_numeric_dtype(labels.dtype):
        return "numbers"
    return "dates" if isinstance(labels, pd.DatetimeIndex | pd.TimedeltaIndex | pd.PeriodIndex) else "text"
