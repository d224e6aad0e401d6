"""What the optimiser is given for a design: cross-products, or the model of its residuals over them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts, cross_products, dense, products_of
from hierlmm.design.residual import ResidualRows
from hierlmm.design.types import LMMDesign, Streamed
from hierlmm.design.working import WorkingRows, working_rows
from hierlmm.likelihood import residuals
from hierlmm.likelihood.lmm import solve_fixed
from hierlmm.likelihood.series import Series, SeriesModel, compressed
from hierlmm.likelihood.strata import StrataModel
from hierlmm.likelihood.structured import ResidualModel
from hierlmm.spec import residual as kinds

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
T = TypeVar("T")


def model_of(design: LMMDesign) -> CrossProducts | ResidualModel:
    """The cross-products of a design with independent residuals, or a model of its residual structure."""
    if design.residual is None:
        return cross_products(design)
    if design.streamed is not None:
        return _streamed(design.streamed)
    if isinstance(design.spec.residual, kinds.Stratified):
        return _strata(design, design.residual)
    return _series(design, design.residual)


def structure_of(design: LMMDesign) -> residuals.Structure | None:
    """The family of residual covariance matrices of a design; None for independent residuals of one variance."""
    rows, kind = design.residual, design.spec.residual
    if rows is None:
        return None
    count = len(rows.occasions)
    largest = int(np.bincount(rows.codes).max(initial=1)) if len(rows.codes) else 1
    match kind:
        case kinds.Stratified():
            return residuals.Stratified(count)
        case kinds.CompoundSymmetry():
            return residuals.CompoundSymmetry(largest)
        case kinds.HeterogeneousCompoundSymmetry():
            return residuals.HeterogeneousCompoundSymmetry(count, largest)
        case kinds.AR1():
            return residuals.AR1()
        case kinds.HeterogeneousAR1():
            return residuals.HeterogeneousAR1(count)
        case kinds.ContinuousAR1():
            return residuals.ContinuousAR1(typical_gap(rows), kind.nugget)
        case kinds.Toeplitz():
            return residuals.Toeplitz(int(longest_lag(rows)) + 1)
        case kinds.Antedependence():
            return residuals.Antedependence(count)
        case kinds.Unstructured():
            return residuals.Unstructured(count)
    raise AssertionError(kind)


def typical_gap(rows: ResidualRows) -> float:
    """Median time from a row to the next of its group: the unit in which ranges are searched."""
    order = np.lexsort((rows.place, rows.codes))
    gaps = np.diff(rows.place[order])[np.diff(rows.codes[order]) == 0]
    return float(np.median(gaps[gaps > 0]))


def longest_lag(rows: ResidualRows) -> float:
    """Largest distance between two positions of one group."""
    order = np.argsort(rows.codes, kind="stable")
    first = np.flatnonzero(np.diff(rows.codes[order], prepend=-1))
    place = rows.place[order]
    return float((np.maximum.reduceat(place, first) - np.minimum.reduceat(place, first)).max())


def _strata(design: LMMDesign, strata: ResidualRows) -> StrataModel:
    """The products of each stratum's rows, on the working scale of all of them."""
    rows = working_rows(design)
    frequency = np.ones(len(rows.y)) if rows.frequency is None else rows.frequency
    base = _dense(rows)
    parts = [_dense(replace(rows, frequency=frequency * (strata.occasion == s))) for s in range(len(strata.occasions))]
    count = np.bincount(strata.occasion, frequency, len(parts)).astype(np.float64)
    squares = np.bincount(strata.occasion, frequency * _residuals(rows) ** 2, len(parts)).astype(np.float64)
    return StrataModel(
        base,
        np.stack([part.lead for part in parts]),
        np.stack([part.lead_rest for part in parts]),
        np.stack([part.rest for part in parts]),
        count,
        squares / count,
    )


def _streamed(rows: Streamed) -> StrataModel:
    """The same for rows that were not kept."""
    parts = [dense(part) for part in rows.strata]
    base, R = dense(rows.products), len(rows.products.rest) - rows.products.p - 1
    left = np.append(-solve_fixed(base.rest[R:, R:]).beta, 1.0)
    count = np.array([part.n for part in parts], dtype=np.float64)
    return StrataModel(
        base,
        np.stack([part.lead for part in parts]),
        np.stack([part.lead_rest for part in parts]),
        np.stack([part.rest for part in parts]),
        count,
        np.array([left @ part.rest[R:, R:] @ left for part in parts]) / count,
    )


def _dense(rows: WorkingRows) -> CrossProducts:
    return dense(products_of(rows))


def _residuals(rows: WorkingRows) -> Array:
    """(N,) residuals of least squares on the fixed effects."""
    return np.asarray(rows.y - rows.X @ np.linalg.lstsq(rows.X, rows.y, rcond=None)[0])


def _series(design: LMMDesign, held: ResidualRows) -> SeriesModel:
    """Series of rows on the working scale; the leading factor is one that no series straddles."""
    rows = _led(working_rows(design), held)
    leads = bool(rows.sizes) and _whole(rows.codes[0], held)
    level = rows.codes[0] if leads else np.zeros(len(rows.y), dtype=np.intp)
    columns = np.column_stack([rows.Z[0] if leads else rows.X[:, :0], *_wide(rows, leads), rows.X, rows.y])
    base = _shapes(rows, leads, columns.shape[1])
    structure = structure_of(design)
    assert structure is not None
    e = _residuals(rows)
    batches = [_batch(columns, e, level, held, series) for series in _by_length(held)]
    if not rows.sizes:
        batches = [compressed(batch) for batch in batches]
    return SeriesModel(base, structure, tuple(batches))


def _led(rows: WorkingRows, held: ResidualRows) -> WorkingRows:
    """The rows with the largest factor that holds every series whole in front, if there is one."""
    lead = next((f for f, codes in enumerate(rows.codes) if _whole(codes, held)), 0)
    if lead == 0:
        return rows
    front = [lead, *(f for f in range(len(rows.codes)) if f != lead)]

    def turned(parts: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(parts[f] for f in front)

    return replace(
        rows, order=turned(rows.order), sizes=turned(rows.sizes), blocks=turned(rows.blocks),
        structures=turned(rows.structures), Z_map=turned(rows.Z_map), Z=turned(rows.Z), codes=turned(rows.codes),
    )  # fmt: skip


def _whole(codes: Codes, held: ResidualRows) -> bool:
    """Whether the rows of each series have one level."""
    first = np.zeros(len(held.levels), dtype=np.intp)
    first[held.codes] = codes
    return bool((first[held.codes] == codes).all())


def _wide(rows: WorkingRows, leads: bool) -> list[Array]:
    """Columns of the effects of the factors behind the leading one, a column an effect."""
    out = []
    for Z, codes, (G, q) in list(zip(rows.Z, rows.codes, rows.sizes, strict=True))[int(leads) :]:
        wide = np.zeros((len(Z), G, q))
        wide[np.arange(len(Z)), codes] = Z
        out.append(wide.reshape(len(Z), -1))
    return out


def _shapes(rows: WorkingRows, leads: bool, width: int) -> CrossProducts:
    """Products of the right shapes, for their maps and counts.

    Where no factor holds the series whole, a leading factor of one level and a column of zeros stands in front, so
    that all factors are in the dense block behind it.
    """
    parts = rows.parts()
    if rows.sizes and not leads:
        parts |= {
            "order": (-1, *rows.order), "sizes": ((1, 1), *rows.sizes), "blocks": ((), *rows.blocks),
            "structures": ((), *rows.structures), "Z_map": (np.eye(1), *rows.Z_map),
        }  # fmt: skip
    G, q = parts["sizes"][0] if parts["sizes"] else (0, 1)
    m = width - (q if leads else 0)
    return CrossProducts(
        p=rows.X.shape[1], lead=np.zeros((G, q, q)), lead_rest=np.zeros((G, q, m)), rest=np.zeros((m, m)), cells=None,
        **parts,
    )  # fmt: skip


def _by_length(rows: ResidualRows) -> list[Codes]:
    """(N, k) rows of the series of each length, in the order of their places."""
    order = np.lexsort((rows.place, rows.occasion, rows.codes))
    length = np.bincount(rows.codes)
    start = np.cumsum(length) - length
    return [order[start[length == k][:, None] + np.arange(k)] for k in np.unique(length[length > 0])]


def _batch(columns: Array, e: Array, level: Codes, rows: ResidualRows, series: Codes) -> Series:
    series = series[np.argsort(level[series[:, 0]], kind="stable")]
    place, occasion = rows.place[series], rows.occasion[series]
    key = np.concatenate([place - place[:, :1], occasion], axis=1)
    _, first, of = np.unique(key, axis=0, return_index=True, return_inverse=True)
    of = of.ravel()
    return Series(
        columns[series], level[series[:, 0]], place[first], occasion[first], of,
        np.bincount(of).astype(np.float64), e[series], of,
    )  # fmt: skip
