"""Cross-products from sums over rows: the working scale applied to the sums instead of to the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.accumulate import Part
from hierlmm.design.layout import CrossProducts, Pairs, laid_out
from hierlmm.design.types import Codes, Structure
from hierlmm.design.working import COLLINEAR, Scale, whitening

Array = NDArray[np.float64]

# Share of the constant 1 that X leaves over, squared, below which it spans the constant; and the distance from a whole
# number within which the coefficients of full sets of indicators are that number.
NO_CONSTANT, WHOLE = 1e-12, 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """One grouping factor as a model uses it: which of its summed columns its coefficients are.

    G       number of levels
    within  (1 + r,) places in v = [1, u - s] of [1, z], the columns of the factor's sums
    places  (q,) per coefficient its place in v, 0 for the intercept
    """

    name: str
    G: int
    coefficients: tuple[str, ...]
    within: Codes
    places: Codes
    blocks: tuple[tuple[int, ...], ...]
    structures: tuple[Structure, ...]

    @property
    def width(self) -> int:
        return len(self.within)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Which of the summed columns a model uses: places in v = [1, u - s], 0 for the intercept.

    shift   (1 + k,) s, with 0 for the constant; base (1 + k,) place in v of what each shift is a multiple of
    X (p,), y; factors in the order of the design
    pairs   for factors f < g of the design the pairs of levels that the sums stand for, (c,) and (c,)
    """

    shift: Array
    base: Codes
    X: Codes
    y: int
    factors: tuple[Effects, ...]
    pairs: dict[tuple[int, int], tuple[Codes, Codes]]
    known_sigma2: bool


def assemble(model: Model, parts: Sequence[Part]) -> tuple[CrossProducts, ...]:
    """Cross-products of each part, on the working scale of all of them together.

    Raises DesignError where random-effects columns are dependent or the products do not fit in memory.
    """
    whole = reduce(add, parts)
    T = whole.total
    A_X, C, ones = fixed_map(model, T)
    A_y, y_shift = _response_map(model, T, ones)
    A_U = np.column_stack([A_X, A_y])
    order = tuple(sorted(range(len(model.factors)), key=lambda f: -model.factors[f].G))
    maps = [_random_map(model.factors[f], model, T) for f in order]
    scale = Scale(
        n=whole.n,
        order=order,
        sizes=tuple((model.factors[f].G, len(model.factors[f].coefficients)) for f in order),
        blocks=tuple(model.factors[f].blocks for f in order),
        structures=tuple(model.factors[f].structures for f in order),
        Z_map=tuple(B for _, B in maps),
        X_map=C,
        X_shift=ones * y_shift if ones is not None else np.zeros(len(model.X)),
        log_det_X_map=float(np.linalg.slogdet(C)[1]),
        y_shift=y_shift,
        log_scale=whole.log_scale,
        known_sigma2=model.known_sigma2,
    )
    A_Z = [A for A, _ in maps]
    return tuple(_products(model, part, replace(scale, n=part.n, log_scale=part.log_scale), A_U, A_Z) for part in parts)


def _products(model: Model, part: Part, scale: Scale, A_U: Array, A_Z: list[Array]) -> CrossProducts:
    """Cross-products of one part, given the maps from the summed columns to the working ones."""
    ZZ, ZU = [], []
    for f, A in zip(scale.order, A_Z, strict=True):
        effects, sums = model.factors[f], part.levels[f]
        half = A.T @ sums
        embedded = np.zeros((sums.shape[2], A.shape[1]))
        embedded[effects.within] = A
        ZZ.append(half @ embedded)
        ZU.append(half @ A_U)
    between = {}
    where = {pair: position for position, pair in enumerate(model.pairs)}
    for i, f in enumerate(scale.order):
        for j in range(i + 1, len(scale.order)):
            g = scale.order[j]
            values = part.pairs[where[min(f, g), max(f, g)]]
            levels = model.pairs[min(f, g), max(f, g)]
            if f > g:
                values, levels = values.swapaxes(1, 2), levels[::-1]
            between[i, j] = Pairs(levels[0], levels[1], A_Z[i].T @ values @ A_Z[j])
    names = tuple(effects.name for effects in model.factors)
    return laid_out(scale, names, ZZ, ZU, between, A_U.T @ part.total @ A_U)


def fixed_map(model: Model, T: Array) -> tuple[Array, Array, Array | None]:
    """A (1 + k, p) with X_work = v A, C with X_work = X C, and k with X k = 1: as `working_fixed` for rows."""
    A, C, ones, gram = _standardised(model, T)
    if len(gram) and np.linalg.eigvalsh(gram)[0] <= COLLINEAR:
        L = np.linalg.cholesky(gram)
        A, C = np.linalg.solve(L, A.T).T, np.linalg.solve(L, C.T).T
    return A, C, ones


def is_collinear(model: Model, T: Array) -> bool:
    """Whether the columns of X are so nearly collinear that sums of products lose digits that rows would keep."""
    gram = _standardised(model, T)[-1]
    return bool(len(gram) and np.linalg.eigvalsh(gram)[0] <= COLLINEAR)


def _standardised(model: Model, T: Array) -> tuple[Array, Array, Array | None, Array]:
    """A and C for columns centred where X spans the constant and of unit root mean square, k, and their products."""
    p, W = len(model.X), T[0, 0]
    A, C = raw_columns(model.X, model.shift, model.base), np.eye(p)
    ones = _intercept(model, T, A) if p else None
    _rebased(model, A, C)
    if ones is not None:
        centred = ones == 0
        plain = model.base[model.X] == 0
        A[0, centred & plain] = 0.0  # the shift itself would cost digits of the mean about it
        mean = T[0] @ A / W
        A[0, centred] -= mean[centred]
        data = mean + np.where(plain, model.shift[model.X], 0.0)
        C -= np.outer(ones, np.where(centred, data, 0.0))
    rms = np.sqrt(np.einsum("ij,ik,kj->j", A, T, A) / W)
    A, C = A / rms, C / rms
    return A, C, ones, A.T @ T @ A / W


def _rebased(model: Model, A: Array, C: Array) -> None:
    """Products with an indicator that X has too are taken about their mean where it is 1: sums know them so."""
    where = {int(place): j for j, place in enumerate(model.X)}
    for j, place in enumerate(model.X):
        base = int(model.base[place])
        if base and base in where:
            A[base, j] -= model.shift[place]
            C[where[base], j] -= model.shift[place]


def raw_columns(columns: Codes, shift: Array, base: Codes) -> Array:
    """A (1 + k, p) with the columns as they stand in the data = v A."""
    A = np.zeros((len(shift), len(columns)))
    A[columns, np.arange(len(columns))] = 1.0
    A[base[columns], np.arange(len(columns))] += shift[columns]
    return A


def _intercept(model: Model, T: Array, A: Array) -> Array | None:
    """(p,) coefficients k with X k = 1, or None where X does not span the constant."""
    p = len(model.X)
    if (model.X == 0).any():
        return np.asarray(model.X == 0, dtype=np.float64)
    indicators = np.flatnonzero(model.shift[model.X] == 0)
    for columns in (indicators, np.arange(p)):
        k = np.zeros(p)
        k[columns] = _weights_of_one(T, A[:, columns])
        left = T[0, 0] - 2 * k @ (T[0] @ A) + k @ (A.T @ T @ A) @ k
        if left < NO_CONSTANT * T[0, 0]:
            return k
    return None


def _weights_of_one(T: Array, A: Array) -> Array:
    """(p,) weights with which the columns come closest to the constant 1."""
    gram, sums = A.T @ T @ A, T[0] @ A
    size = np.sqrt(np.diagonal(gram))
    k = np.linalg.lstsq(gram / np.outer(size, size), sums / size, rcond=None)[0] / size
    k[np.abs(k) < WHOLE * np.abs(k).max(initial=0.0)] = 0.0
    return np.asarray(np.where(np.abs(k - np.round(k)) < WHOLE, np.round(k), k))


def _response_map(model: Model, T: Array, ones: Array | None) -> tuple[Array, float]:
    """a (1 + k,) with y_work = v a, and the shift."""
    a = np.zeros(len(model.shift))
    a[model.y] = 1.0
    if ones is None:
        a[0] = model.shift[model.y]
        return a, 0.0
    a[0] = -T[0, model.y] / T[0, 0]
    return a, float(model.shift[model.y] - a[0])


def _random_map(effects: Effects, model: Model, T: Array) -> tuple[Array, Array]:
    """A (1 + r, q) with Z_work = [1, z] A, and B with Z_work = Z B: as `working_random` for rows."""
    q = len(effects.coefficients)
    W = T[0, 0]
    A, B = np.zeros((effects.width, q)), np.zeros((q, q))
    own = dict(zip(effects.within.tolist(), range(effects.width), strict=True))
    for block, structure in zip(effects.blocks, effects.structures, strict=True):
        columns = list(block)
        names = [effects.coefficients[c] for c in columns]
        places = effects.places[columns]
        raw = raw_columns(places, model.shift, model.base)
        white = np.eye(len(columns))
        if structure == "general" and "Intercept" in names and len(names) > 1:
            slopes = places != 0
            plain = model.base[places] == 0
            raw[0, slopes & plain] = 0.0
            mean = T[0] @ raw / W
            raw[0, slopes] -= mean[slopes]
            data = mean + np.where(plain, model.shift[places], 0.0)
            white[names.index("Intercept"), slopes] -= data[slopes]
        gram = raw.T @ T @ raw / W
        if structure == "general":
            turn = whitening(gram, names, effects.name, effects.coefficients)
        else:
            turn = np.eye(len(columns)) / np.sqrt(np.diagonal(gram).mean())
        B[np.ix_(columns, columns)] = white @ turn
        turned = raw @ turn
        for place, position in own.items():
            A[position, columns] += turned[place]
    return A, B
