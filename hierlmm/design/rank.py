"""Which columns of a matrix earlier columns determine, decided without being fooled by where zero lies."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Length of what is left of a column after the columns before it, relative to its own length once centred. R's lm
# takes the same number, but of the column as it stands, so that it loses x + 1e8.
DEPENDENT = 1e-7

# A column of doubles is known to about this many rounding errors of its largest entry: less than that left of it,
# and nothing is left. In x + 1e12 the errors are 1e-4, and 2 x + 1 computed from it differs by as much.
ROUNDINGS = 8 * float(np.finfo(float).eps)

# Residual of the constant 1, or share of it in a column, below which it counts as none.
NO_CONSTANT = 1e-8


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
        if (bound < 1).all():
            left = np.abs(np.diagonal(np.linalg.qr(work, mode="r")))
            if len(left) == p - 1 and (left > bound * np.sqrt(n)).all():
                return np.ones(p, dtype=bool)
    return _one_by_one(X)


def _centred(X: Matrix) -> tuple[Matrix, Matrix]:
    """Columns centred and scaled to unit root mean square, and the length below which nothing is left of each.

    The bound is infinite for a column that is constant up to rounding.
    """
    largest = np.abs(X).max(axis=0)
    scaled = X / np.where(largest > 0, largest, 1.0)
    shifted = scaled - scaled[0]
    shifted -= shifted.mean(axis=0)
    return _unit(shifted)


def _scaled(X: Matrix) -> tuple[Matrix, Matrix]:
    """The same without centring."""
    largest = np.abs(X).max(axis=0)
    return _unit(X / np.where(largest > 0, largest, 1.0))


def _unit(X: Matrix) -> tuple[Matrix, Matrix]:
    """Unit columns and their bounds, for columns whose entries were of order 1 before anything was subtracted."""
    rms = np.sqrt(np.einsum("ij,ij->j", X, X) / len(X))
    known = rms > ROUNDINGS
    safe = np.where(known, rms, 1.0)
    return X / safe, np.where(known, np.maximum(DEPENDENT, ROUNDINGS / safe), np.inf)


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
    size = np.abs(np.concatenate([fitted, rows])).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    solve = partial(np.linalg.lstsq, rcond=None)
    weights = solve(fitted[:, keep] / size[keep], fitted[:, ~keep] / size[~keep])[0]
    gap = rows[:, ~keep] / size[~keep] - rows[:, keep] / size[keep] @ weights
    return np.asarray((np.abs(gap) > np.sqrt(DEPENDENT)).any(axis=1))
