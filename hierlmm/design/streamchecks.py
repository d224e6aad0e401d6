"""Whether rows of which only the sums are known support a model, and what a reader should know of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.assembled import Effects, raw_columns
from hierlmm.design.directions import entries_of, parameters, products
from hierlmm.design.identified import check_directions
from hierlmm.design.layout import CrossProducts
from hierlmm.design.moments import Group, Moments
from hierlmm.design.notes import FEW_LEVELS
from hierlmm.design.types import Codes, GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, listed
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import KnownVariances

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Squared length of a column left after those before it, relative to its own: below this it adds nothing as far as
# sums of products can tell, which know squares to about 1e-13.
DEPENDENT = 1e-11
# A column of doubles is known to this many rounding errors of its size.
ROUNDINGS = 8 * float(np.finfo(float).eps)
# Share of the constant in a column from which it brings the constant in.
SHARE = 1e-6


def require_rows(design: LMMDesign, what: str) -> None:
    """Raise DesignError where the rows of a design passed in a stream: `what` needs them, as in "Residuals"."""
    if design.streamed is not None:
        raise DesignError(
            f"{what} need the rows of the fit; its {design.rows} rows passed in a stream and were not kept. Use "
            "predict(new) for the rows of interest, or fit a table."
        )


def check_sums(spec: ModelSpec, moments: Moments) -> None:
    """Raise DesignError where too few rows were summed."""
    if moments.used < 2:
        lost = sorted({name for names in moments.left_out.columns for name in names})
        why = f"; {moments.left_out.missing} rows were dropped for missing values in {listed(lost)}" if lost else ""
        raise DesignError(
            f"A mixed model needs at least 2 complete rows; the data have {moments.used}{why}. "
            "Check that the right source was read."
        )


def independent_sums(total: Array, places: Codes, shift: Array, base: Codes) -> Mask:
    """(p,) which columns the columns before them do not determine: as `independent` decides for rows.

    total  sums of products of v = [1, u - s base]; places of the columns in v, 0 for the intercept
    """
    W = total[0, 0]
    A = raw_columns(places, shift, base)
    spans = bool((places == 0).any()) or _spans_constant(total, A)
    keep = np.zeros(len(places), dtype=bool)
    basis = np.eye(len(total), int(spans))  # orthonormal in the sums: B' total B = W I
    pending = spans and not (places == 0).any()
    for j, place in enumerate(places):
        if place == 0:
            keep[j] = True
            continue
        column, on = A[:, j].copy(), int(base[place])
        if spans if on == 0 else on in places[keep]:  # what is a multiple of a column before it adds nothing
            column[on] -= shift[place]
        size = float(column @ total @ column) / W
        if spans:
            size -= (float(total[0] @ column) / W) ** 2
        if size <= (ROUNDINGS * shift[place]) ** 2:
            continue
        left = column - basis @ (basis.T @ total @ column) / W
        left = left - basis @ (basis.T @ total @ left) / W
        remains = float(left @ total @ left) / W
        if remains > DEPENDENT * size:
            keep[j] = True
            basis = np.column_stack([basis, left / np.sqrt(remains)])
        elif pending and _brings_constant(total, A[:, keep], A[:, j]):
            keep[j] = True
            pending = False
    return keep


def _spans_constant(total: Array, A: Array) -> bool:
    """Whether a combination of the columns is 1 in every row."""
    gram, sums = A.T @ total @ A, total[0] @ A
    size = np.sqrt(np.maximum(np.diagonal(gram), np.finfo(float).tiny))
    k = np.linalg.lstsq(gram / np.outer(size, size), sums / size, rcond=1e-12)[0] / size
    return bool(total[0, 0] - 2 * k @ sums + k @ gram @ k < DEPENDENT * total[0, 0])


def _brings_constant(total: Array, before: Array, column: Array) -> bool:
    """Whether a column that 1 and the columns before it determine needs the 1."""
    A = np.column_stack([np.eye(len(total), 1), before])
    gram, sums = A.T @ total @ A, A.T @ total @ column
    size = np.sqrt(np.diagonal(gram))
    share = np.linalg.lstsq(gram / np.outer(size, size), sums / size, rcond=1e-12)[0][0] / size[0]
    largest = np.sqrt(float(column @ total @ column) / total[0, 0])
    return bool(abs(share) > SHARE * largest)


def check_effects(
    spec: ModelSpec,
    effects: tuple[Effects, ...],
    moments: Moments,
    cp: CrossProducts,
    strata: tuple[CrossProducts, ...],
) -> None:
    """Raise DesignError for more effects than rows, factors of one level, and components that are confounded."""
    if cp.n <= cp.p:
        raise DesignError(
            f"There must be more complete rows than fixed effects; found {cp.n} rows and {cp.p} effects. "
            "Use fewer predictors."
        )
    known = isinstance(spec.residual, KnownVariances)
    for one, group in zip(effects, moments.groups, strict=True):
        if one.G == 1 and not known:
            raise DesignError(
                "A grouping factor must have at least 2 levels, or its variance is not identified; "
                f"{one.name} has a single level. Leave its terms out of the model."
            )
        if one.G == moments.used and not known and moments.strata is None and one.coefficients == ("Intercept",):
            raise DesignError(_own_rows(group))
    if effects:
        names, gram = _directions(spec, effects, moments, cp, strata)
        check_directions(names, gram, cp.n, cp.p, lambda: "too few different values within or between the levels.")


def _own_rows(group: Group) -> str:
    return (
        "The rows must tell the variance components apart; every row is a level of "
        f"{group.name} of its own. Use a factor with several rows a level."
    )


def _directions(
    spec: ModelSpec,
    effects: tuple[Effects, ...],
    moments: Moments,
    cp: CrossProducts,
    strata: tuple[CrossProducts, ...],
) -> tuple[list[str], Array]:
    """Names and inner products of the directions of the covariance parameters, as `inner_products` of rows."""
    factors = tuple(_without_rows(effects[f]) for f in cp.order)
    entries = [entries_of(factor) for factor in factors]
    blocks, between = _sums(cp)
    gram = np.block(
        [
            [
                products(blocks[f] if f == g else between[f, g], entries[f], entries[g])
                if f <= g
                else products(between[g, f], entries[g], entries[f]).T
                for g in range(len(factors))
            ]
            for f in range(len(factors))
        ]
    )
    random, T = parameters(factors, entries)
    names, RR, RS = [], np.zeros((0, 0)), np.zeros((0, len(gram)))
    if not isinstance(spec.residual, KnownVariances):
        names = ["the residual variance"] if moments.strata is None else _stratum_names(moments.strata)
        RR = np.diag([float(part.n) for part in strata])
        RS = np.array(
            [
                [2 * float(sums[a, b].sum()) for sums, own in zip(_sums(part)[0], entries, strict=True) for a, b in own]
                for part in strata
            ]
        )
    cross = RS @ T.T
    return names + random, np.block([[RR, cross], [cross.T, T @ gram @ T.T]])


def _stratum_names(strata: Group) -> list[str]:
    return [f"the residual variance of stratum {number}" for number in range(1, len(strata.combined) + 1)]


def _without_rows(effects: Effects) -> GroupingFactor:
    import pandas as pd

    return GroupingFactor(
        name=effects.name, levels=pd.RangeIndex(effects.G), codes=np.empty(0, dtype=np.intp),
        coefficients=effects.coefficients, Z=np.empty((0, len(effects.coefficients))), blocks=effects.blocks,
        structures=effects.structures,
    )  # fmt: skip


def _sums(cp: CrossProducts) -> tuple[list[Array], dict[tuple[int, int], Array]]:
    """(q, q, G) products by level of each factor, and (q, r, cells) those of two factors by pair of levels."""
    blocks, between = [cp.lead.transpose(1, 2, 0)], {}
    starts = np.cumsum([0, *(G * q for G, q in cp.sizes[1:])])
    G, q = cp.sizes[0]
    for i, (H, r) in enumerate(cp.sizes[1:]):
        here = slice(starts[i], starts[i + 1])
        own = cp.rest[here, here].reshape(H, r, H, r)
        blocks.append(own[np.arange(H), :, np.arange(H), :].transpose(1, 2, 0))
        if cp.cells is None:
            both = cp.lead_rest[:, :, here].reshape(G, q, H, r).transpose(1, 3, 0, 2)
        else:
            inside = (cp.cells.column >= starts[i]) & (cp.cells.column < starts[i + 1])
            both = cp.cells.values[inside].reshape(-1, r, q).transpose(2, 1, 0)
        between[0, 1 + i] = both.reshape(q, r, -1)
        for j in range(i):
            K, s = cp.sizes[1 + j]
            there = slice(starts[j], starts[j + 1])
            block = cp.rest[there, here].reshape(K, s, H, r).transpose(1, 3, 0, 2)
            between[1 + j, 1 + i] = block.reshape(s, r, -1)
    return blocks, between


def stream_notes(spec: ModelSpec, effects: tuple[Effects, ...], moments: Moments, X: Codes) -> tuple[str, ...]:
    """Sentences about the data that a reader of the results should know."""
    return (
        f"The rows passed in a stream and are not kept ({moments.used} of {moments.rows} used): predictions for new "
        "rows are available, residuals and fitted values are not.",
        *_notes(spec, effects, moments, X),
    )


def _notes(spec: ModelSpec, effects: tuple[Effects, ...], moments: Moments, X: Codes) -> Iterator[str]:
    if not len(X):
        yield "The model has no fixed effects: the mean of the response is taken to be 0 (or the offset)."
    if moments.left_out.unweighted and spec.weights is not None:
        count = moments.left_out.unweighted
        rows = "row was" if count == 1 else "rows were"
        yield f"{count} {rows} left out because the weight {spec.weights.column} is 0."
    for name, labels in moments.predictors.items():
        if not labels.seen.all() and labels.kind == "categories":
            lost = labels.index[~labels.seen]
            yield f"Levels of {name} without a complete row were left out: {listed(lost)}."
    for one in effects:
        if one.G < FEW_LEVELS:
            yield f"{one.name} has only {one.G} levels: its variance is known very imprecisely."
