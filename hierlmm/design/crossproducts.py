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


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Products (c, q, r) of two factors' columns for the pairs of their levels that occur, first and second (c,)."""

    first: Codes
    second: Codes
    values: Array


def laid_out(
    scale: Scale,
    names: tuple[str, ...],
    ZZ: list[Array],
    ZU: list[Array],
    between: dict[tuple[int, int], Pairs],
    UU: Array,
) -> CrossProducts:
    """Cross-products in the form that a fit reads, from sums by level; factors in the order of elimination.

    ZZ       per factor (G, q, q); ZU per factor (G, q, u); UU (u, u) for the trailing columns [X, y]
    between  for factors i < j their products by pair of levels
    """
    u = len(UU)
    if not scale.sizes:
        lead, lead_rest = np.zeros((0, 1, 1)), np.zeros((0, 1, u))
        return CrossProducts(p=u - 1, lead=lead, lead_rest=lead_rest, rest=UU, cells=None, **scale.parts())
    (G, q), R = scale.sizes[0], sum(levels * width for levels, width in scale.sizes[1:])
    starts = [0, *np.cumsum([levels * width for levels, width in scale.sizes[1:]]).tolist()]
    meeting = [between[0, i] for i in range(1, len(scale.sizes))]
    sparse = R > MANY_EFFECTS and sum(pair.values[:, 0].size for pair in meeting) < FEW_CELLS * G * R
    if G * q * (u if sparse else R + u) > LARGEST_CROSS or R * R > LARGEST_CROSS:
        leading = names[scale.order[0]] if names else "the largest factor"
        raise DesignError(
            "The cross-products between grouping factors must fit in memory; "
            f"{leading} has {G} levels and the other factors {R} effects. "
            "Model one of the smaller factors as fixed, or fit the levels in parts."
        )
    lead_rest = ZU[0]
    if R and not sparse:
        lead_rest = np.zeros((G, q, R + u))
        lead_rest[..., R:] = ZU[0]
        for start, (H, width), pair in zip(starts, scale.sizes[1:], meeting, strict=False):
            view = lead_rest[..., start : start + H * width].reshape(G, q, H, width)
            view[pair.first, :, pair.second] = pair.values
    return CrossProducts(
        p=u - 1,
        lead=ZZ[0],
        lead_rest=lead_rest,
        rest=_trailing(scale.sizes[1:], starts, ZZ[1:], ZU[1:], between, UU),
        cells=_cells(starts, meeting) if sparse else None,
        **scale.parts(),
    )


def _trailing(
    sizes: tuple[tuple[int, int], ...],
    starts: list[int],
    ZZ: list[Array],
    ZU: list[Array],
    between: dict[tuple[int, int], Pairs],
    UU: Array,
) -> Array:
    """(m, m) cross-products of [Z_rest, X, y]; sizes, ZZ and ZU of the factors after the leading one."""
    R, u = starts[-1], len(UU)
    rest = np.zeros((R + u, R + u))
    rest[R:, R:] = UU
    for i, (start, (G, width)) in enumerate(zip(starts, sizes, strict=False)):
        here = slice(start, start + G * width)
        rest[here, R:] = ZU[i].reshape(-1, u)
        rest[R:, here] = rest[here, R:].T
        own = rest[here, here].reshape(G, width, G, width)
        own[np.arange(G), :, np.arange(G), :] = ZZ[i]
        rest[here, here] = own.reshape(G * width, -1)
        for j in range(i + 1, len(sizes)):
            pair, (H, other) = between[i + 1, j + 1], sizes[j]
            block = np.zeros((G, width, H, other))
            block[pair.first, :, pair.second, :] = pair.values
            there = slice(starts[j], starts[j] + H * other)
            rest[here, there] = block.reshape(G * width, -1)
            rest[there, here] = rest[here, there].T
    return rest


def _cells(starts: list[int], meeting: list[Pairs]) -> Cells:
    """The products of the leading factor with the others, in the order of its levels."""
    level, column, values = [], [], []
    for start, pair in zip(starts, meeting, strict=False):
        width = pair.values.shape[2]
        level.append(np.repeat(pair.first, width))
        column.append((start + pair.second[:, None] * width + np.arange(width)).ravel())
        values.append(pair.values.swapaxes(1, 2).reshape(-1, pair.values.shape[1]))
    first, second = np.concatenate(level), np.concatenate(column)
    order = np.lexsort((second, first))
    return Cells(first[order], second[order], np.concatenate(values)[order])


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
