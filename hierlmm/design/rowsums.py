"""The sums over the rows of a design that a table made: the fast way to its cross-products where rows are many."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.accumulate import Grouped, accumulate
from hierlmm.design.assembled import Effects, Model, assemble, is_collinear
from hierlmm.design.layout import CrossProducts
from hierlmm.design.levels import occurring
from hierlmm.design.types import Codes, LMMDesign
from hierlmm.spec.residual import KnownVariances

Array = NDArray[np.float64]


def summed(design: LMMDesign) -> CrossProducts | None:
    """Cross-products of the rows of `design` by way of their sums; None where these would lose digits.

    Columns that stand in X and in Z enter once, and no column is copied at full length. Raises DesignError as
    `assemble` does.
    """
    columns, X, Z = _distinct(design)
    shift = np.array([float(column[0]) + float((column - column[0]).mean()) for column in columns])
    factors = [
        Grouped(factor.codes, len(factor.levels), np.unique(z[z > 0] - 1))
        for factor, z in zip(design.factors, Z, strict=True)
    ]
    pairs, labels = [], {}
    for f, g in combinations(range(len(factors)), 2):
        cell, found = occurring(factors[f].codes, factors[g].codes, factors[f].G, factors[g].G)
        pairs.append((f, g, cell, len(found)))
        labels[f, g] = (found // factors[g].G, found % factors[g].G)
    model = Model(
        shift=np.append(0.0, shift),
        base=np.zeros(1 + len(shift), dtype=np.intp),
        X=X,
        y=1,
        factors=tuple(
            Effects(
                factor.name,
                group.G,
                factor.coefficients,
                np.append(0, 1 + group.Z),
                z,
                factor.blocks,
                factor.structures,
            )
            for factor, group, z in zip(design.factors, factors, Z, strict=True)
        ),
        pairs=labels,
        known_sigma2=isinstance(design.spec.residual, KnownVariances),
    )
    part = accumulate(columns, shift, factors, pairs, design.frequency, design.scale)
    return None if is_collinear(model, part.total) else assemble(model, (part,))[0]


def _distinct(design: LMMDesign) -> tuple[list[Array], Codes, list[Codes]]:
    """The response and the different columns of X and Z, and where each column of X and of each Z stands in [1, u]."""
    columns = [design.y - design.offset]
    named: dict[str, list[int]] = {}

    def place(name: str, column: Array) -> int:
        if (column == 1.0).all():
            return 0
        for found in named.get(name, ()):
            if np.array_equal(columns[found - 1], column):
                return found
        columns.append(column)
        named.setdefault(name, []).append(len(columns))
        return len(columns)

    X = [place(name, column) for name, column in zip(design.fixed, design.X.T, strict=True)]
    Z = [
        np.array([place(name, column) for name, column in zip(factor.coefficients, factor.Z.T, strict=True)])
        for factor in design.factors
    ]
    return columns, np.array(X, dtype=np.intp), Z
