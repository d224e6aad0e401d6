"""Triangular systems: many small matrices at once by loops over their few columns, large ones by LAPACK."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cholesky_lower(H: Array) -> Array:
    """Lower Cholesky factors of (..., q, q) symmetric positive semi-definite matrices, q small.

    A pivot that is zero, or negative by rounding, gives a zero column, so that a singular covariance has a
    factor too: L L' = H still holds. Nothing is raised.
    """
    q = H.shape[-1]
    L = np.zeros_like(H)
    for j in range(q):
        column = H[..., j:, j]
        if j:
            column = column - (L[..., j:, :j] @ L[..., j, :j, None])[..., 0]
        pivot = np.sqrt(np.maximum(column[..., 0], 0.0))
        L[..., j, j] = pivot
        if j + 1 < q:
            with np.errstate(divide="ignore", invalid="ignore"):
                below = column[..., 1:] / pivot[..., None]
            L[..., j + 1 :, j] = np.where(pivot[..., None] > 0, below, 0.0)
    return L


def solve_lower(L: Array, B: Array) -> Array:
    """L⁻¹B for (..., q, q) lower triangular L with positive diagonals and (..., q, m) B, q small."""
    q = L.shape[-1]
    if q == 1:
        return B / L
    X = np.empty(np.broadcast_shapes(L.shape[:-2], B.shape[:-2]) + B.shape[-2:])
    for i in range(q):
        row = B[..., i, :]
        if i:
            row = row - (L[..., i, None, :i] @ X[..., :i, :])[..., 0, :]
        X[..., i, :] = row / L[..., i, i, None]
    return X


def solve_upper(L: Array, B: Array) -> Array:
    """L'⁻¹B for (..., q, q) lower triangular L with positive diagonals and (..., q, m) B, q small."""
    q = L.shape[-1]
    if q == 1:
        return B / L
    X = np.empty(np.broadcast_shapes(L.shape[:-2], B.shape[:-2]) + B.shape[-2:])
    for i in reversed(range(q)):
        row = B[..., i, :]
        if i + 1 < q:
            row = row - (L[..., i + 1 :, i, None].swapaxes(-1, -2) @ X[..., i + 1 :, :])[..., 0, :]
        X[..., i, :] = row / L[..., i, i, None]
    return X


def log_diagonal(L: Array) -> Array:
    """Sum of the logarithms of the diagonal of (..., q, q) matrices: half the log determinant of L L'."""
    total: Array = np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1)
    return total


def dense_cholesky(H: Array) -> Array:
    """Lower Cholesky factor: of one (k, k) matrix by LAPACK, of several or of a singular one as `cholesky_lower`."""
    if H.ndim > 2:
        return cholesky_lower(H)
    try:
        return np.asarray(np.linalg.cholesky(H), dtype=np.float64)
    except np.linalg.LinAlgError:
        return cholesky_lower(H)


def dense_lower(L: Array, B: Array) -> Array:
    """L⁻¹B for (..., k, k) lower triangular L of any size and (..., k, m) B."""
    return _lapack(L, B, 0) if L.ndim == 2 and B.ndim == 2 else np.asarray(np.linalg.solve(L, B))


def dense_upper(L: Array, B: Array) -> Array:
    """L'⁻¹B for (..., k, k) lower triangular L of any size and (..., k, m) B."""
    if L.ndim == 2 and B.ndim == 2:
        return _lapack(L, B, 1)
    return np.asarray(np.linalg.solve(L.swapaxes(-1, -2), B))


def _lapack(L: Array, B: Array, transposed: int) -> Array:
    """One triangular solve straight from LAPACK: scipy's wrapper costs more than a small solve."""
    # Imported at the first solve: scipy.linalg takes longer to import than all of hierlmm.
    from scipy.linalg.lapack import dtrtrs

    if not (L.size and B.size):
        return np.zeros(B.shape)
    return np.asarray(dtrtrs(L, B, lower=1, trans=transposed)[0], dtype=np.float64)
