"""How the cross-products of a linear mixed model lie in memory, and how sums by level become them.

The largest grouping factor leads: its rows and columns of Z'Z are block diagonal, one q x q block a level, and are
eliminated level by level. The other factors, X and y form one dense trailing block. Where the other factors have many
effects and few of them meet a level of the leading factor, the products between the two stand in a list of the cells
that occur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes
from hierlmm.design.working import Scale
from hierlmm.errors import DesignError

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
