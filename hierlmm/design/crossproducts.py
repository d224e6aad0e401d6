"""The cross-products of a linear mixed model: all that a fit needs to see of its rows, formed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.layout import Cells, CrossProducts, Pairs, dense, laid_out
from hierlmm.design.levels import by_level, occurring
from hierlmm.design.rowsums import summed
from hierlmm.design.types import LMMDesign
from hierlmm.design.working import WorkingRows, weights, working_fixed, working_random, working_response, working_rows

__all__ = [
    "Cells",
    "CrossProducts",
    "cross_products",
    "dense",
    "products_of",
    "with_response",
    "working_fixed",
    "working_random",
    "working_response",
    "working_rows",
]

Array = NDArray[np.float64]

# Rows from which the products are those of sums over chunks: fewer are faster, and as exact, as whole columns.
MANY_ROWS = 50_000


def cross_products(design: LMMDesign) -> CrossProducts:
    """Cross-products of the rows of `design`, in one pass over them.

    Raises DesignError where the columns of a random-effects block are linearly dependent, or where the products
    between two grouping factors would not fit in memory.
    """
    if design.streamed is not None:
        return design.streamed.products
    if len(design.y) >= MANY_ROWS and (found := summed(design)) is not None:
        return found
    return products_of(working_rows(design), tuple(factor.name for factor in design.factors))


def products_of(rows: WorkingRows, names: tuple[str, ...] = ()) -> CrossProducts:
    """Cross-products of rows on a working scale, which may have been whitened since; codes and sizes as in `rows`.

    names  of the factors in the order of the design, for the message of the DesignError that says that the products
           between them would not fit in memory
    """
    U = np.column_stack([rows.X, rows.y])
    V = U if rows.frequency is None else U * rows.frequency[:, None]
    weighted = rows.Z if rows.frequency is None else tuple(Z * rows.frequency[:, None] for Z in rows.Z)
    F = range(len(rows.sizes))
    G = [levels for levels, _ in rows.sizes]
    between = {}
    for i in F:
        for j in range(i + 1, len(G)):
            cell, labels = occurring(rows.codes[i], rows.codes[j], G[i], G[j])
            between[i, j] = Pairs(labels // G[j], labels % G[j], by_level(cell, len(labels), weighted[i], rows.Z[j]))
    return laid_out(
        rows,
        names,
        [by_level(rows.codes[i], G[i], weighted[i], rows.Z[i], symmetric=True) for i in F],
        [by_level(rows.codes[i], G[i], rows.Z[i], V) for i in F],
        between,
        U.T @ V,
    )


def with_response(cp: CrossProducts, design: LMMDesign, y: Array) -> CrossProducts:
    """`cp` for the same rows with another response (n,): only the products with y are formed again."""
    weight = weights(design)
    X, _, ones = working_fixed(design.X, weight)
    work, shift = working_response(y - design.offset, ones, weight)
    weighted = work if weight is None else work * weight
    lead_rest, rest = cp.lead_rest.copy(), cp.rest.copy()
    start = 0
    for position, (f, (G, q), B) in enumerate(zip(cp.order, cp.sizes, cp.Z_map, strict=True)):
        factor = design.factors[f]
        sums = by_level(factor.codes, G, factor.Z @ B, weighted[:, None])[..., 0]
        if position == 0:
            lead_rest[..., -1] = sums
        else:
            rest[start : start + G * q, -1] = sums.ravel()
            start += G * q
    rest[start : start + cp.p, -1] = X.T @ weighted
    rest[-1, -1] = work @ weighted
    rest[-1] = rest[:, -1]
    shifted = ones * shift if ones is not None else np.zeros(cp.p)
    return replace(cp, lead_rest=lead_rest, rest=rest, X_shift=shifted, y_shift=shift)
