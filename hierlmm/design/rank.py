"""Which columns of a matrix earlier columns determine, decided without being fooled by where zero lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Length of what is left of a column after the columns before it, relative to its own length once centred. R's lm
# takes the same number, but of the column as it stands, so that it loses x + 1e8.
DEPENDENT = 1e-7

# What is left of a column by its cross-products is exact to the square root of a rounding error, 1.5e-8: above this
# it is beyond doubt, and the columns need not be orthogonalised.
CLEAR = 1e-3

# A column of doubles is known to about this many rounding errors of its largest entry: less than that left of it,
# and nothing is left. In x + 1e12 the errors are 1e-4, and 2 x + 1 computed from it differs by as much.
ROUNDINGS = 8 * float(np.finfo(float).eps)

# Binary exponent beyond which squares and their sums could overflow or vanish.
FAR = 400

# Residual of the constant 1, or share of it in a column, below which it counts as none.
NO_CONSTANT = 1e-8

# A dropped column differs from what the others make of it where it does by more than this share of its range: above
# the error with which a relation that holds to DEPENDENT can be continued to new rows, below any meant difference.
UNLIKE = 1e-4


def independent(X: Matrix) -> Mask:
    """(p,) which columns of X (n, p) the columns before them do not determine: as in R, earlier columns win.

    Columns are judged after centring, where the columns of X span the constant 1, and relative to their own length:
    neither the unit nor the zero of a covariate decides whether it stays. Columns of zeros do not.
    """
    n, p = X.shape
    if n == 0 or p == 0:
        return np.zeros(p, dtype=bool)
    if p == 1:
        return np.asarray(X.any(axis=0))
    if X[0, 0] != 0 and (X[:, 0] == X[0, 0]).all():
        work, bound = _centred(X[:, 1:])
        if (bound < 1).all() and (_clearly_independent(work, bound) or _all_left(work, bound)):
            return np.ones(p, dtype=bool)
    return _one_by_one(X)


def _clearly_independent(work: Matrix, bound: Matrix) -> bool:
    """Whether even the cross-products, which square the lengths, show that much is left of every column."""
    try:
        left = np.diagonal(np.linalg.cholesky(work.T @ work / len(work)))
    except np.linalg.LinAlgError:
        return False
    return bool((left > np.maximum(bound, CLEAR)).all())


def _all_left(work: Matrix, bound: Matrix) -> bool:
    """Whether enough is left of every column, to the last digit."""
    left = np.abs(np.diagonal(np.linalg.qr(work, mode="r")))
    return len(left) == work.shape[1] and bool((left > bound * np.sqrt(len(work))).all())


def _centred(X: Matrix) -> tuple[Matrix, Matrix]:
    """Columns centred and scaled to unit root mean square, and the length below which nothing is left of each.

    The bound is infinite for a column that is constant up to rounding.
    """
    X, largest = moderate(X)
    shifted = X - X[0]
    shifted -= shifted.mean(axis=0)
    return _unit(shifted, largest)


def _scaled(X: Matrix) -> tuple[Matrix, Matrix]:
    """The same without centring."""
    X, largest = moderate(X)
    return _unit(X.copy(), largest)


def moderate(X: Matrix) -> tuple[Matrix, Matrix]:
    """The columns, divided by powers of two where squares would leave the range of doubles; their largest entries."""
    largest = np.maximum(X.max(axis=0), -X.min(axis=0))
    exponent = np.frexp(largest)[1]
    if (np.abs(exponent) < FAR).all():
        return X, largest
    scale = np.where(np.abs(exponent) < FAR, 0, -exponent)
    return np.ldexp(X, scale), np.ldexp(largest, scale)


def _unit(work: Matrix, largest: Matrix) -> tuple[Matrix, Matrix]:
    """Columns scaled in place to unit length, and their bounds; `largest` before anything was subtracted."""
    rms = np.sqrt(np.einsum("ij,ij->j", work, work) / len(work))
    known = rms > ROUNDINGS * largest
    safe = np.where(known, rms, 1.0)
    work /= safe
    return work, np.where(known, np.maximum(DEPENDENT, ROUNDINGS * largest / safe), np.inf)


def _one_by_one(X: Matrix) -> Mask:
    """Column after column against those kept. Where X spans the constant, the constant comes first, and the column
    that brings it in (an intercept, or the last of a full set of indicators) is kept although it adds nothing more."""
    n, p = X.shape
    constant = spans_constant(X)
    work, bound = _centred(X) if constant else _scaled(X)
    keep = np.zeros(p, dtype=bool)
    basis = np.empty((n, min(n, p)))
    size = 0
    for j in range(p):
        left = work[:, j] if bound[j] < 1 else np.zeros(n)
        for _ in range(2):  # once more, for what rounding left in
            left = left - basis[:, :size] @ (basis[:, :size].T @ left)
        length = float(np.sqrt(left @ left))
        if size < min(n, p) and length > bound[j] * np.sqrt(n):
            basis[:, size] = left / length
            size += 1
            keep[j] = True
        elif constant and _brings_constant(X[:, keep], X[:, j]):
            keep[j] = True
            constant = False
    return keep


def spans_constant(X: Matrix) -> bool:
    """Whether some combination of the columns of X is 1 in every row."""
    if X.shape[1] == 0:
        return False
    if ((X[0] != 0) & (X == X[0]).all(axis=0)).any():
        return True
    work, _ = _scaled(X)
    ones = np.ones(len(X))
    left = ones - work @ np.linalg.lstsq(work, ones, rcond=None)[0]
    return bool(np.abs(left).max() < NO_CONSTANT)


def _brings_constant(before: Matrix, column: NDArray[np.float64]) -> bool:
    """Whether a column that 1 and the columns before it determine needs the 1."""
    largest = float(np.abs(column).max())
    if largest == 0:
        return False
    work, _ = _scaled(before)
    share = np.linalg.lstsq(np.column_stack([np.ones(len(column)), work]), column / largest, rcond=None)[0][0]
    return bool(abs(share) > NO_CONSTANT)


def unexplained(keep: Mask, fitted: Matrix, rows: Matrix) -> Mask:
    """(k,) rows in which the dropped columns are not what the kept ones make of them in the fitted rows.

    The effect of such a row's covariates is not determined by the data: any value of the dropped column's
    coefficient fits them equally well. fitted (n, p), rows (k, p): all columns, dropped ones included.
    """
    if keep.all() or not len(rows):
        return np.zeros(len(rows), dtype=bool)
    if (fitted == 1).all(axis=0).any():  # with an intercept the differences to a row say the same, and keep the digits
        keep = keep & ~(fitted == 1).all(axis=0)
        fitted, rows = fitted - fitted[0], rows - fitted[0]
    size = np.abs(fitted).max(axis=0)
    size = np.where(size > 0, size, np.maximum(np.abs(rows).max(axis=0), np.finfo(float).tiny))
    weights = np.linalg.lstsq(fitted[:, keep] / size[keep], fitted[:, ~keep] / size[~keep], rcond=None)[0]
    gap = rows[:, ~keep] / size[~keep] - rows[:, keep] / size[keep] @ weights
    return np.asarray((np.abs(gap) > UNLIKE).any(axis=1))
