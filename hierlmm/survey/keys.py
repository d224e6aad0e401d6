"""Areas of two tables brought together by their labels: what is in one and not the other is named, never guessed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.column import from_pandas
from hierlmm.design.grouping import label_codes
from hierlmm.design.labels import check_distinct, normal
from hierlmm.errors import DesignError, listed

Codes = NDArray[np.intp]


def unique_labels(name: str, labels: pd.Index, where: str) -> pd.Index:
    """The labels of a table with one row an area, in its order and in plain types.

    Raises DesignError for missing labels, for one that stands twice, and for two that differ only by type, blanks
    around them or Unicode form.
    """
    column = from_pandas(name, labels.to_series())
    if column.missing is not None:
        rows = np.flatnonzero(column.missing)
        raise DesignError(
            f"Each row of {where} is an area; the label in {name} is missing in rows {listed(rows)}. "
            "Complete or remove them."
        )
    codes, found = label_codes(column)
    check_distinct(name, found)
    count = np.bincount(codes, minlength=len(found))
    if (count > 1).any():
        raise DesignError(
            f"Each area has one row in {where}; in {name} {listed(found[count > 1])} stands more than once. "
            "Aggregate these rows first."
        )
    return found[codes]


def matched(labels: pd.Index, others: pd.Index, where: str, elsewhere: str) -> Codes:
    """(k,) position of each of `labels` in `others`, -1 where it is not there; both are unique.

    Raises DesignError where a label of the one and a label of the other look alike and are not equal: the number 1
    and the text "1", a blank at the end, "é" as one character and as two. Joining them would be a guess.
    """
    positions = np.asarray(others.get_indexer(labels) if _comparable(labels, others) else np.full(len(labels), -1))
    absent = labels[positions < 0]
    if len(absent):
        free = others[~others.isin(labels)] if _comparable(labels, others) else others
        alike = dict(zip(normal(free), free, strict=True))
        pairs = [
            f"{label!a} and {alike[text]!a}"
            for label, text in zip(absent.tolist(), normal(absent), strict=True)
            if text in alike
        ]
        if pairs:
            raise DesignError(
                f"Areas are joined where their labels are equal; {where} and {elsewhere} have {listed(pairs)}, which "
                "differ by type, blanks or Unicode form alone. Write each label in one way in both tables."
            )
    return positions.astype(np.intp)


def _comparable(labels: pd.Index, others: pd.Index) -> bool:
    """Numbers are compared with numbers alone: pandas would otherwise find True in 1."""
    numeric = [pd.api.types.is_numeric_dtype(index.dtype) for index in (labels, others)]
    return numeric[0] == numeric[1]


def named(labels: pd.Index, positions: Codes) -> Sequence[object]:
    """The labels without a partner."""
    return list(labels[positions < 0])
