"""Sums over rows as a value: parts of the data, computed anywhere, add up to the whole.

A part's sums are about a shift near its own means. Adding two moves the sums of the one to the shift of the other, the
pairwise update of Chan, Golub and LeVeque (1983, The American Statistician 37, 242-247), so that the order of the
parts and their sizes change nothing but the last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.accumulate import Part
from hierlmm.design.column import Kind
from hierlmm.design.types import Codes

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of one column: sorted, or in the order the data declare ("categories"); `seen`, which of them occurred."""

    kind: Kind
    index: pd.Index
    seen: Mask

    def used(self) -> pd.Index:
        """Those that occurred, in order."""
        return self.index[self.seen]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The levels of a factor seen so far.

    columns   names of the data's columns whose combination the factor is
    labels    of each of them
    combined  (G,) position of each level in the product of the labels, ascending
    Z         (r,) positions of its random-effects columns among the summed columns, none for strata
    """

    columns: tuple[str, ...]
    labels: tuple[Labels, ...]
    combined: NDArray[np.int64]
    Z: Codes

    @property
    def name(self) -> str:
        return ":".join(self.columns)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that are not in the sums.

    missing     how many had a value missing; unweighted, how many others had weight 0
    rows        positions, from 0, of the first of them, and of the first for each column with a gap
    columns     for each of these, the columns in which the value is missing
    """

    missing: int = 0
    unweighted: int = 0
    rows: tuple[int, ...] = ()
    columns: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """What a linear mixed model needs to know of a part of its rows; made by `moments(spec, data)`.

    `a + b` are the moments of the rows of both; `to_bytes` and `from_bytes` carry them between processes.

    spec        hash of the model's specification: moments of different models do not add
    columns     names of the summed columns: the response less the offset (""), then columns of X and Z with every
                level of a category as a column of its own
    bases       of each column: "1", the constant; the name of the indicator that it is a product with; "" for an
                indicator
    shift       (k,) the multiple of its base that was subtracted from each
    groups      the grouping factors
    pairs       for factors f < g, (c,) pairs of levels that occur as f's * number of g's + g's, ascending
    predictors  labels of the categorical columns of X and Z
    strata      levels of the strata of the residual variance; None where there is one
    parts       the sums, one a stratum
    rows        rows read; left_out, those of them that are not in the sums
    used        rows in the sums, each once whatever its frequency
    size        largest absolute value of the response and of the offset
    """

    spec: str
    columns: tuple[str, ...]
    bases: tuple[str, ...]
    shift: Array
    groups: tuple[Group, ...]
    pairs: tuple[NDArray[np.int64], ...]
    predictors: Mapping[str, Labels]
    strata: Group | None
    parts: tuple[Part, ...]
    rows: int
    left_out: LeftOut
    used: int
    size: float

    def __add__(self, other: Moments) -> Moments:
        """The moments of the rows of both; positions of rows left out in `other` follow those of `self`.

        Raises DesignError where the two are of different models, or a column changes from numbers to labels.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        from hierlmm.design.momentsum import added

        return added(self, other)

    def to_bytes(self) -> bytes:
        """The moments as an npz archive without pickled objects."""
        from hierlmm.design.momentbytes import to_bytes

        return to_bytes(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Moments:
        """The moments that `to_bytes` wrote. Raises FileError where the bytes are none."""
        from hierlmm.design.momentbytes import from_bytes

        return from_bytes(data)
