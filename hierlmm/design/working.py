"""The working scale of a linear mixed model: rows on which the criterion is well behaved and no digits are lost.

The response is shifted, the columns of X are centred (where X spans the intercept) and scaled to unit root mean
square, and each unstructured block of random-effects columns is centred and made orthonormal over the rows. The maps
back to the data scale are kept beside the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import Codes, GroupingFactor, LMMDesign, Structure
from hierlmm.errors import DesignError, listed
from hierlmm.spec.residual import KnownVariances

Array = NDArray[np.float64]

# Squared length of a random-effects column left after the columns before it, relative to its own: below this the
# columns are dependent as far as doubles can tell, because the cross-products square the rounding error.
DEPENDENT = 1e-11

# Smallest eigenvalue of the correlations of the columns of X down to which their cross-products are formed as they
# are: the digits lost are about those of its inverse.
COLLINEAR = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """What the working scale is made of, and the way back: all that cross-products keep of it.

    n           number of rows, each counted as often as its frequency says
    order       positions of the factors in the design, the one with most levels first; what follows is in this order
    sizes       (levels, coefficients) of each factor
    blocks      covariance blocks of each factor: positions of its coefficients
    structures  covariance structure of each block
    Z_map       per factor (q, q) B with Z_work = Z B, so b = B b_work and G = B G_work B'
    X_map       (p, p) C with X_work = X C; X_shift (p,) so that beta = C beta_work + X_shift
    log_det_X_map  log |det C|
    y_shift     what was subtracted from y - offset
    log_scale   sum over the rows of frequency times log of the known relative variance
    known_sigma2  whether sigma² is 1 and not estimated
    """

    n: int
    order: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[tuple[int, ...], ...], ...]
    structures: tuple[tuple[Structure, ...], ...]
    Z_map: tuple[Array, ...]
    X_map: Array
    X_shift: Array
    log_det_X_map: float
    y_shift: float
    log_scale: float
    known_sigma2: bool

    def parts(self) -> dict[str, Any]:
        """The fields above by name, for another value on the same scale."""
        return {field.name: getattr(self, field.name) for field in fields(Scale)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkingRows(Scale):
    """The N rows of a design on its working scale, divided by the root of their known relative variance.

    Z per factor (N, q) and codes per factor (N,), in the order of elimination; X (N, p); y (N,)
    frequency   (N,) how often a row counts; None: once
    """

    Z: tuple[Array, ...]
    codes: tuple[Codes, ...]
    X: Array
    y: Array
    frequency: Array | None


def working_rows(design: LMMDesign) -> WorkingRows:
    """The rows of `design` on the working scale.

    Raises DesignError where the columns of an unstructured random-effects block are linearly dependent.
    """
    weight = weights(design)
    X, X_map, ones = working_fixed(design.X, weight)
    y, y_shift = working_response(design.y - design.offset, ones, weight)
    factors = design.factors
    order = tuple(sorted(range(len(factors)), key=lambda f: -len(factors[f].levels)))
    working = [working_random(factors[f], weight) for f in order]
    Z = tuple(work for work, _ in working)
    log_scale = 0.0
    if design.scale is not None:
        logs = np.log(design.scale)
        log_scale = float(logs.sum() if design.frequency is None else design.frequency @ logs)
        root = np.sqrt(design.scale)
        X, y, Z = X / root[:, None], y / root, tuple(work / root[:, None] for work in Z)
    return WorkingRows(
        Z=Z,
        codes=tuple(factors[f].codes for f in order),
        X=X,
        y=y,
        frequency=design.frequency,
        n=len(y) if design.frequency is None else int(design.frequency.sum()),
        order=order,
        sizes=tuple((len(factors[f].levels), factors[f].Z.shape[1]) for f in order),
        blocks=tuple(factors[f].blocks for f in order),
        structures=tuple(factors[f].structures for f in order),
        Z_map=tuple(B for _, B in working),
        X_map=X_map,
        X_shift=ones * y_shift if ones is not None else np.zeros(X.shape[1]),
        log_det_X_map=float(np.linalg.slogdet(X_map)[1]),
        y_shift=y_shift,
        log_scale=log_scale,
        known_sigma2=isinstance(design.spec.residual, KnownVariances),
    )


def weights(design: LMMDesign) -> Array | None:
    """(N,) frequency over known relative variance, the weight of each row in the products; None: 1 throughout."""
    if design.scale is None:
        return design.frequency
    return np.asarray((1.0 if design.frequency is None else design.frequency) / design.scale)


def _mean(columns: Array, weight: Array | None) -> Array:
    """Mean of each column, weighted."""
    return np.asarray(columns.mean(axis=0) if weight is None else weight @ columns / weight.sum())


def working_fixed(X: Array, weight: Array | None = None) -> tuple[Array, Array, Array | None]:
    """Centred and scaled X (N, p), the map C with X_work = X C, and k with X k = 1 (None: X does not span 1).

    Without the intercept in the span nothing can be centred. Columns that stay nearly collinear are orthogonalised.
    Means and lengths are those of rows weighted by `weight` (N,).
    """
    p = X.shape[1]
    ones = intercept(X)
    C = np.eye(p)
    if p == 0:
        return X, C, None
    work = X
    if ones is not None:
        base = X[0] + _mean(X - X[0], weight)
        base[ones != 0] = 0.0
        work = X - base
        C -= np.outer(ones, base)
    rms = np.sqrt(_mean(work**2, weight))
    return *_orthogonal(work / rms, C / rms, weight), ones


def _orthogonal(X: Array, C: Array, weight: Array | None) -> tuple[Array, Array]:
    """X and its map, made orthogonal where its columns are nearly collinear: products of such columns lose digits."""
    total = float(len(X) if weight is None else weight.sum())
    weighted = X if weight is None else X * np.sqrt(weight)[:, None]
    if np.linalg.eigvalsh(weighted.T @ weighted / total)[0] > COLLINEAR:
        return X, C
    Q, R = np.linalg.qr(weighted)
    root = np.sqrt(total)
    work = Q if weight is None else Q / np.sqrt(weight)[:, None]
    return work * root, np.linalg.solve(R.T, C.T).T * root


def intercept(X: Array) -> Array | None:
    """(p,) coefficients k with X k = 1, or None where no such k exists."""
    n, p = X.shape
    k: Array = np.zeros(p)
    constant = np.flatnonzero((X[:1] == X).all(axis=0) & (X[0] != 0)) if n else np.array([], dtype=int)
    if constant.size:
        k[constant[0]] = 1.0 / X[0, constant[0]]
        return k
    if p == 0:
        return None
    # Full sets of indicator columns span the intercept without containing it.
    k = np.asarray(np.linalg.lstsq(X, np.ones(n), rcond=None)[0], dtype=np.float64)
    k[np.abs(k) < 1e-9 * np.abs(k).max(initial=0.0)] = 0.0
    return k if np.allclose(X @ k, 1.0, rtol=0, atol=1e-10) else None


def working_response(y: Array, ones: Array | None, weight: Array | None = None) -> tuple[Array, float]:
    """Response less its mean, where an intercept absorbs the shift; and the shift.

    The mean is taken of the differences from the first value: with y + 1e10 a plain mean has lost the digits.
    """
    if ones is None:
        return y, 0.0
    from_first = y - y[0]
    mean = float(_mean(from_first, weight))
    return from_first - mean, float(y[0]) + mean


def working_random(factor: GroupingFactor, weight: Array | None = None) -> tuple[Array, Array]:
    """Columns of Z on the working scale, and the map B with Z_work = Z B.

    The columns of an unstructured block are made orthonormal over the rows: they may be recombined freely, because
    the covariance is carried along: G = B G_work B'. A block with one variance, or one variance and one correlation,
    keeps its columns up to one common scale. Raises DesignError naming the coefficients of an unstructured block
    whose columns are linearly dependent.
    """
    Z = factor.Z
    B = np.zeros((Z.shape[1], Z.shape[1]))
    work = np.empty_like(Z)
    for block, structure in zip(factor.blocks, factor.structures, strict=True):
        columns = list(block)
        if structure == "general":
            part, white = _whitened(factor, columns, weight)
        else:
            size = float(np.sqrt(_mean(Z[:, columns] ** 2, weight).mean()))
            part, white = Z[:, columns] / size, np.eye(len(columns)) / size
        B[np.ix_(columns, columns)] = white
        work[:, columns] = part
    return work, B


def _whitened(factor: GroupingFactor, columns: list[int], weight: Array | None) -> tuple[Array, Array]:
    """The columns of a block, orthonormal over the rows, and the map that makes them so."""
    names = [factor.coefficients[c] for c in columns]
    centred, centre = _centre_block(factor.Z[:, columns], names, weight)
    if weight is None:
        gram = centred.T @ centred / max(len(centred), 1)
    else:
        gram = centred.T @ (centred * weight[:, None]) / float(weight.sum())
    white = whitening(gram, names, factor.name, factor.coefficients)
    return centred @ white, centre @ white


def whitening(gram: Array, names: list[str], group: str, coefficients: tuple[str, ...]) -> Array:
    """(q, q) upper triangular W with W' gram W = I. Raises DesignError naming columns that earlier ones determine."""
    scale = np.sqrt(np.diagonal(gram))
    safe = np.where(scale > 0, scale, 1.0)
    L, bad = _pivots(gram / np.outer(safe, safe))
    if bad:
        raise DesignError(
            f"The random-effects columns of one term must be linearly independent; for group {group} "
            f"{listed(names[i] for i in bad)} is determined by the columns before it ({listed(coefficients)}). "
            "Remove it from the term, or write it as a term of its own."
        )
    return np.asarray(np.linalg.solve(L, np.eye(len(names))).T / safe[:, None])


def _centre_block(Z: Array, names: list[str], weight: Array | None) -> tuple[Array, Array]:
    """Columns of a block centred on their means where the block has an intercept, and the map that does so."""
    centre = np.eye(len(names))
    if "Intercept" not in names or len(names) == 1:
        return Z, centre
    column = names.index("Intercept")
    base = Z[0] + _mean(Z - Z[0], weight)
    base[column] = 0.0
    centre[column] -= base
    return Z - base, centre


def _pivots(correlation: Array) -> tuple[Array, list[int]]:
    """Cholesky factor of a correlation matrix in column order, and the columns that earlier ones determine."""
    q = len(correlation)
    L = np.zeros((q, q))
    bad = []
    for j in range(q):
        pivot = correlation[j, j] - L[j, :j] @ L[j, :j]
        if pivot <= DEPENDENT:
            bad.append(j)
            continue
        L[j, j] = np.sqrt(pivot)
        L[j + 1 :, j] = (correlation[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
    return L, bad
