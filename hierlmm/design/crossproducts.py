"""The cross-products of a linear mixed model: all that a fit needs to see of its rows.

They are formed once, on the working scale of `working.py`. The largest grouping factor leads: its rows and columns
of Z'Z are block diagonal, one q x q block a level, and are eliminated level by level. The other factors, X and y form
one dense trailing block. Where the other factors have many effects and few of them meet a level of the leading
factor, the products between the two stand in a list of the cells that occur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes, LMMDesign
from hierlmm.design.working import (
    Scale,
    WorkingRows,
    weights,
    working_fixed,
    working_random,
    working_response,
    working_rows,
)
from hierlmm.errors import DesignError

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

# Entries of the dense cross-products between the factors: about 3 GB of memory.
LARGEST_CROSS = 400_000_000

# Effects of the other factors above which cells are worth listing, and the share of occurring cells below which.
MANY_EFFECTS, FEW_CELLS = 64, 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Products of the leading factor with the effects of the others, for the pairs that occur.

    level   (c,) level of the leading factor, ascending
    column  (c,) which of the R trailing random-effects columns
    values  (c, q) what would stand in lead_rest[level, :, column]
    """

    level: Codes
    column: Codes
    values: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossProducts(Scale):
    """Working-scale cross-products of n rows; m = R + p + 1 trailing columns [Z_rest, X, y].

    Rows are weighted by frequency over known relative variance.

    lead        (G, q, q) Z'Z of the leading factor, level by level
    lead_rest   (G, q, m) its products with the trailing columns; (G, q, p + 1), those with [X, y], beside `cells`
    rest        (m, m) cross-products of the trailing columns
    cells       its products with Z_rest where few of them are not zero, else None
    """

    p: int
    lead: Array
    lead_rest: Array
    rest: Array
    cells: Cells | None


def cross_products(design: LMMDesign) -> CrossProducts:
    """Cross-products of the rows of `design`, in one pass over them.

    Raises DesignError where the columns of a random-effects block are linearly dependent, or where the products
    between two grouping factors would not fit in memory.
    """
    return products_of(working_rows(design), tuple(factor.name for factor in design.factors))


def products_of(rows: WorkingRows, names: tuple[str, ...] = ()) -> CrossProducts:
    """Cross-products of rows on a working scale, which may have been whitened since; codes and sizes as in `rows`.

    names  of the factors in the order of the design, for the message of the DesignError that says that the products
           between them would not fit in memory
    """
    U = np.column_stack([rows.X, rows.y])
    u, p = U.shape[1], rows.X.shape[1]
    V = U if rows.frequency is None else U * rows.frequency[:, None]
    if not rows.sizes:
        empty = np.zeros((0, 1, 1)), np.zeros((0, 1, u))
        return CrossProducts(p=p, lead=empty[0], lead_rest=empty[1], rest=U.T @ V, cells=None, **rows.parts())
    (G, q), R = rows.sizes[0], sum(levels * width for levels, width in rows.sizes[1:])
    weighted = rows.Z if rows.frequency is None else tuple(Z * rows.frequency[:, None] for Z in rows.Z)
    found = _cells_of(rows, weighted[0], R)
    if G * q * (u if found is not None else R + u) > LARGEST_CROSS or R * R > LARGEST_CROSS:
        leading = names[rows.order[0]] if names else "the largest factor"
        raise DesignError(
            "The cross-products between grouping factors must fit in memory; "
            f"{leading} has {G} levels and the other factors {R} effects. "
            "Model one of the smaller factors as fixed, or fit the levels in parts."
        )
    lead_rest = by_level(rows.codes[0], G, rows.Z[0], V)
    if found is None and R:
        between = [
            _between(rows.codes[0], G, weighted[0], rows.codes[i], rows.sizes[i][0], rows.Z[i]).reshape(G, q, -1)
            for i in range(1, len(rows.sizes))
        ]
        lead_rest = np.concatenate([*between, lead_rest], axis=2)
    lead = by_level(rows.codes[0], G, weighted[0], rows.Z[0], symmetric=True)
    return CrossProducts(
        p=p, lead=lead, lead_rest=lead_rest, rest=_trailing(rows, weighted, U, V), cells=found, **rows.parts()
    )


def _trailing(rows: WorkingRows, weighted: tuple[Array, ...], U: Array, V: Array) -> Array:
    """(m, m) cross-products of [Z_rest, X, y]; V = U weighted."""
    u = U.shape[1]
    starts = np.cumsum([0, *(levels * width for levels, width in rows.sizes[1:])])
    R = int(starts[-1])
    rest = np.zeros((R + u, R + u))
    rest[R:, R:] = U.T @ V
    for i in range(1, len(rows.sizes)):
        here, G = slice(starts[i - 1], starts[i]), rows.sizes[i][0]
        rest[here, R:] = by_level(rows.codes[i], G, rows.Z[i], V).reshape(-1, u)
        rest[R:, here] = rest[here, R:].T
        rest[here, here] = block_diagonal(by_level(rows.codes[i], G, weighted[i], rows.Z[i], symmetric=True))
        for j in range(1, i):
            there, H = slice(starts[j - 1], starts[j]), rows.sizes[j][0]
            rest[here, there] = _between(rows.codes[i], G, weighted[i], rows.codes[j], H, rows.Z[j])
            rest[there, here] = rest[here, there].T
    return rest


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


def dense(cp: CrossProducts) -> CrossProducts:
    """The same products without a list of cells: `lead_rest` (G, q, m) holds them, zeros included.

    Raises DesignError where that would not fit in memory.
    """
    if cp.cells is None:
        return cp
    (G, q), R = cp.sizes[0], len(cp.rest) - cp.p - 1
    if G * q * len(cp.rest) > LARGEST_CROSS:
        raise DesignError(
            f"The cross-products between grouping factors must fit in memory for this; {G} levels of the largest "
            f"factor meet {R} effects of the others. Model one of the smaller factors as fixed, or use hl.fit(...)."
        )
    whole = np.zeros((G, q, len(cp.rest)))
    whole[cp.cells.level, :, cp.cells.column] = cp.cells.values
    whole[:, :, R:] = cp.lead_rest
    return replace(cp, lead_rest=whole, cells=None)


def _cells_of(rows: WorkingRows, weighted: Array, R: int) -> Cells | None:
    """The products of the leading factor with the others as cells, where few of them occur; else None."""
    (G, q) = rows.sizes[0]
    if R <= MANY_EFFECTS:
        return None
    pairs, filled = [], 0
    for i in range(1, len(rows.sizes)):
        H, width = rows.sizes[i]
        cell, labels = occurring(rows.codes[0], rows.codes[i], G, H)
        pairs.append((cell, labels))
        filled += len(labels) * width
        if filled > FEW_CELLS * G * R:
            return None
    level, column, values, start = [], [], [], 0
    for i, (cell, labels) in enumerate(pairs, start=1):
        H, width = rows.sizes[i]
        sums = by_level(cell, len(labels), rows.Z[i], weighted)
        level.append(np.repeat(labels // H, width))
        column.append((start + (labels % H)[:, None] * width + np.arange(width)).ravel())
        values.append(sums.reshape(-1, q))
        start += H * width
    return sorted_cells(np.concatenate(level), np.concatenate(column), np.concatenate(values))


def sorted_cells(level: Codes, column: Codes, values: Array) -> Cells:
    """Cells in the order of their level, and of their column within it."""
    order = np.lexsort((column, level))
    return Cells(np.ascontiguousarray(level[order]), np.ascontiguousarray(column[order]), values[order])


def occurring(first: Codes, second: Codes, G: int, H: int) -> tuple[Codes, Codes]:
    """Position (n,) of each row's pair of levels among those that occur, and these (c,) as first * H + second."""
    pair = first * H + second
    if G * H <= 4 * len(pair) + 1000:
        labels = np.flatnonzero(np.bincount(pair, minlength=G * H))
        position = np.empty(G * H, dtype=np.intp)
        position[labels] = np.arange(len(labels))
        return position[pair], labels
    import pandas as pd

    cell, labels = pd.factorize(pair)
    return cell, np.asarray(labels, dtype=np.intp)


def by_level(codes: Codes, G: int, Z: Array, U: Array, symmetric: bool = False) -> Array:
    """(G, q, u) sums over the rows of each level of z u'; `symmetric`: those of the upper triangle are the lower's."""
    out = np.empty((G, Z.shape[1], U.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(U.shape[1]):
            if symmetric and c < a:
                out[:, a, c] = out[:, c, a]
            else:
                out[:, a, c] = np.bincount(codes, Z[:, a] * U[:, c], G)
    return out


def _between(first: Codes, G: int, Z: Array, second: Codes, H: int, W: Array) -> Array:
    """(G q, H r) sums of z w' over the rows that share a level of the first factor and one of the second."""
    cell = first * H + second
    out = np.empty((G, Z.shape[1], H, W.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(W.shape[1]):
            out[:, a, :, c] = np.bincount(cell, Z[:, a] * W[:, c], G * H).reshape(G, H)
    return out.reshape(G * Z.shape[1], H * W.shape[1])


def block_diagonal(blocks: Array) -> Array:
    """(G q, G q) matrix with the (G, q, q) blocks on its diagonal."""
    G, q, _ = blocks.shape
    out = np.zeros((G, q, G, q))
    level = np.arange(G)
    out[level, :, level, :] = blocks
    return out.reshape(G * q, G * q)
