"""The cross-products of a linear mixed model: all that a fit needs to see of its rows.

They are formed once, on a working scale in which the criterion is well behaved and no digits are lost: the
response is shifted, the columns of X are centred (where X spans the intercept) and scaled to unit root mean
square, and each block of random-effects columns is centred and made orthonormal over the rows. The maps back to
the data scale are kept beside the arrays.

The largest grouping factor leads: its rows and columns of Z'Z are block diagonal, one q x q block a level, and
are eliminated level by level. The other factors, X and y form one dense trailing block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, listed

Array = NDArray[np.float64]

# Squared length of a random-effects column left after the columns before it, relative to its own: below this the
# columns are dependent as far as doubles can tell, because the cross-products square the rounding error.
DEPENDENT = 1e-11

# Smallest eigenvalue of the correlations of the columns of X down to which their cross-products are formed as they
# are: the digits lost are about those of its inverse.
COLLINEAR = 1e-2

# Entries of the dense cross-products between the leading factor and the others: about 3 GB of memory.
LARGEST_CROSS = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossProducts:
    """Working-scale cross-products of n rows; m = R + p + 1 trailing columns [Z_rest, X, y].

    lead        (G, q, q) Z'Z of the leading factor, level by level
    lead_rest   (G, q, m) its products with the trailing columns
    rest        (m, m) cross-products of the trailing columns
    order       positions of the factors in the design, the leading one first
    sizes       (levels, coefficients) of each factor, in that order
    blocks      covariance blocks of each factor: positions of its coefficients
    Z_map       per factor (q, q) B with Z_work = Z B, so b = B b_work and G = B G_work B'
    X_map       (p, p) C with X_work = X C; X_shift (p,) so that beta = C beta_work + X_shift
    log_det_X_map  log |det C|
    y_shift     what was subtracted from y - offset before the products were formed
    """

    n: int
    p: int
    lead: Array
    lead_rest: Array
    rest: Array
    order: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[tuple[int, ...], ...], ...]
    Z_map: tuple[Array, ...]
    X_map: Array
    X_shift: Array
    log_det_X_map: float
    y_shift: float


def cross_products(design: LMMDesign) -> CrossProducts:
    """Cross-products of the rows of `design`, in one pass over them.

    Raises DesignError where the columns of a random-effects block are linearly dependent, or where the products
    between two grouping factors would not fit in memory.
    """
    X, X_map, ones = working_fixed(design.X)
    y, y_shift = working_response(design.y - design.offset, ones)
    factors = design.factors
    order = tuple(sorted(range(len(factors)), key=lambda f: -len(factors[f].levels)))
    working = [working_random(factors[f]) for f in order]
    U = np.column_stack([X, y])
    lead, lead_rest, rest = _products([factors[f] for f in order], [Z for Z, _ in working], U)
    return CrossProducts(
        n=len(y),
        p=X.shape[1],
        lead=lead,
        lead_rest=lead_rest,
        rest=rest,
        order=order,
        sizes=tuple((len(factors[f].levels), factors[f].Z.shape[1]) for f in order),
        blocks=tuple(factors[f].blocks for f in order),
        Z_map=tuple(B for _, B in working),
        X_map=X_map,
        X_shift=ones * y_shift if ones is not None else np.zeros(X.shape[1]),
        log_det_X_map=float(np.linalg.slogdet(X_map)[1]),
        y_shift=y_shift,
    )


def working_fixed(X: Array) -> tuple[Array, Array, Array | None]:
    """Centred and scaled X (n, p), the map C with X_work = X C, and k with X k = 1 (None: X does not span 1).

    Without the intercept in the span nothing can be centred. Columns that stay nearly collinear are orthogonalised.
    """
    p = X.shape[1]
    ones = _intercept(X)
    C = np.eye(p)
    if p == 0:
        return X, C, None
    work = X
    if ones is not None:
        base = X[0] + (X - X[0]).mean(axis=0)
        base[ones != 0] = 0.0
        work = X - base
        C -= np.outer(ones, base)
    rms = np.sqrt((work**2).mean(axis=0))
    return *_orthogonal(work / rms, C / rms), ones


def _orthogonal(X: Array, C: Array) -> tuple[Array, Array]:
    """X and its map, made orthogonal where its columns are nearly collinear: products of such columns lose digits."""
    n = len(X)
    if np.linalg.eigvalsh(X.T @ X / n)[0] > COLLINEAR:
        return X, C
    Q, R = np.linalg.qr(X)
    return Q * np.sqrt(n), np.linalg.solve(R.T, C.T).T * np.sqrt(n)


def _intercept(X: Array) -> Array | None:
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


def working_response(y: Array, ones: Array | None) -> tuple[Array, float]:
    """Response less its mean, where an intercept absorbs the shift; and the shift.

    The mean is taken of the differences from the first value: with y + 1e10 a plain mean has lost the digits.
    """
    if ones is None:
        return y, 0.0
    from_first = y - y[0]
    mean = float(from_first.mean())
    return from_first - mean, float(y[0]) + mean


def with_response(cp: CrossProducts, design: LMMDesign, y: Array) -> CrossProducts:
    """`cp` for the same rows with another response (n,): only the products with y are formed again."""
    X, _, ones = working_fixed(design.X)
    work, shift = working_response(y - design.offset, ones)
    lead_rest, rest = cp.lead_rest.copy(), cp.rest.copy()
    start = 0
    for position, (f, (G, q), B) in enumerate(zip(cp.order, cp.sizes, cp.Z_map, strict=True)):
        factor = design.factors[f]
        sums = _by_level(factor, factor.Z @ B, work[:, None])[..., 0]
        if position == 0:
            lead_rest[..., -1] = sums
        else:
            rest[start : start + G * q, -1] = sums.ravel()
            start += G * q
    rest[start : start + cp.p, -1] = X.T @ work
    rest[-1, -1] = work @ work
    rest[-1] = rest[:, -1]
    shifted = ones * shift if ones is not None else np.zeros(cp.p)
    return replace(cp, lead_rest=lead_rest, rest=rest, X_shift=shifted, y_shift=shift)


def working_random(factor: GroupingFactor) -> tuple[Array, Array]:
    """Columns of Z made orthonormal over the rows within each covariance block, and the map B with Z_work = Z B.

    An unstructured block may be recombined freely, because its covariance is carried along: G = B G_work B'.
    Raises DesignError naming the coefficients of a block whose columns are linearly dependent.
    """
    Z = factor.Z
    B = np.zeros((Z.shape[1], Z.shape[1]))
    work = np.empty_like(Z)
    for block in factor.blocks:
        columns = list(block)
        centred, centre = _centre_block(Z[:, columns], [factor.coefficients[c] for c in columns])
        gram = centred.T @ centred / max(len(Z), 1)
        scale = np.sqrt(np.diagonal(gram))
        safe = np.where(scale > 0, scale, 1.0)
        correlation = gram / np.outer(safe, safe)
        L, bad = _pivots(correlation)
        if bad:
            names = [factor.coefficients[columns[i]] for i in bad]
            raise DesignError(
                f"The random-effects columns of one term must be linearly independent; for group {factor.name} "
                f"{listed(names)} is determined by the columns before it ({listed(factor.coefficients)}). "
                "Remove it from the term, or write it as a term of its own."
            )
        white = np.linalg.solve(L, np.eye(len(columns))).T / safe[:, None]
        B[np.ix_(columns, columns)] = centre @ white
        work[:, columns] = centred @ white
    return work, B


def _centre_block(Z: Array, names: list[str]) -> tuple[Array, Array]:
    """Columns of a block centred on their means where the block has an intercept, and the map that does so."""
    centre = np.eye(len(names))
    if "Intercept" not in names or len(names) == 1:
        return Z, centre
    column = names.index("Intercept")
    base = Z[0] + (Z - Z[0]).mean(axis=0)
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


def _products(factors: list[GroupingFactor], Z: list[Array], U: Array) -> tuple[Array, Array, Array]:
    """Leading blocks, their products with the trailing columns, and the trailing cross-products."""
    u = U.shape[1]
    if not factors:
        return np.zeros((0, 1, 1)), np.zeros((0, 1, u)), U.T @ U
    sizes = [(len(f.levels), z.shape[1]) for f, z in zip(factors, Z, strict=True)]
    starts = np.cumsum([0, *(G * q for G, q in sizes[1:])])
    R = int(starts[-1])
    G, q = sizes[0]
    if G * q * (R + u) > LARGEST_CROSS:
        raise DesignError(
            "The cross-products between grouping factors must fit in memory; "
            f"{factors[0].name} has {G} levels and the other factors {R} effects. "
            "Model one of the smaller factors as fixed, or fit the levels in parts."
        )
    lead = _by_level(factors[0], Z[0], Z[0])
    lead_rest = np.empty((G, q, R + u))
    lead_rest[:, :, R:] = _by_level(factors[0], Z[0], U)
    rest = np.zeros((R + u, R + u))
    rest[R:, R:] = U.T @ U
    for i in range(1, len(factors)):
        here = slice(starts[i - 1], starts[i])
        lead_rest[:, :, here] = _between(factors[0], Z[0], factors[i], Z[i]).reshape(G, q, -1)
        rest[here, R:] = _by_level(factors[i], Z[i], U).reshape(-1, u)
        rest[R:, here] = rest[here, R:].T
        rest[here, here] = _block_diagonal(_by_level(factors[i], Z[i], Z[i]))
        for j in range(1, i):
            there = slice(starts[j - 1], starts[j])
            rest[here, there] = _between(factors[i], Z[i], factors[j], Z[j])
            rest[there, here] = rest[here, there].T
    return lead, lead_rest, rest


def _by_level(factor: GroupingFactor, Z: Array, U: Array) -> Array:
    """(G, q, u) sums over the rows of each level of z u'."""
    G = len(factor.levels)
    out = np.empty((G, Z.shape[1], U.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(U.shape[1]):
            if U is Z and c < a:
                out[:, a, c] = out[:, c, a]
            else:
                out[:, a, c] = np.bincount(factor.codes, Z[:, a] * U[:, c], G)
    return out


def _between(first: GroupingFactor, Z: Array, second: GroupingFactor, W: Array) -> Array:
    """(G q, H r) sums of z w' over the rows that share a level of the first factor and one of the second."""
    G, H = len(first.levels), len(second.levels)
    cell = first.codes * H + second.codes
    out = np.empty((G, Z.shape[1], H, W.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(W.shape[1]):
            out[:, a, :, c] = np.bincount(cell, Z[:, a] * W[:, c], G * H).reshape(G, H)
    return out.reshape(G * Z.shape[1], H * W.shape[1])


def _block_diagonal(blocks: Array) -> Array:
    """(G q, G q) matrix with the (G, q, q) blocks on its diagonal."""
    G, q, _ = blocks.shape
    out = np.zeros((G, q, G, q))
    level = np.arange(G)
    out[level, :, level, :] = blocks
    return out.reshape(G * q, G * q)
