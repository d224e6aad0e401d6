"""Small symmetric systems for many responses at once, the responses along the last axis.

Each step is one operation on contiguous numbers, a response each, so that a thousand 2 x 2 systems cost about as
much as ten calls of numpy. `triangular.py` has the same with the batch first, for few systems of many columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cholesky(H: Array) -> Array:
    """Lower Cholesky factors of (..., q, q, n) symmetric matrices, by columns.

    A pivot that is not positive gives nan from there on: nothing is raised, and that response has no value.
    """
    q = H.shape[-2]
    L = np.zeros_like(H)
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(q):
            column = H[..., j:, j, :]
            if j:
                column = column - np.einsum("...ikn,...kn->...in", L[..., j:, :j, :], L[..., j, :j, :])
            pivot = np.sqrt(np.where(column[..., 0, :] > 0, column[..., 0, :], np.nan))
            L[..., j, j, :] = pivot
            if j + 1 < q:
                np.divide(column[..., 1:, :], pivot[..., None, :], out=L[..., j + 1 :, j, :])
    return L


def solve_lower(L: Array, B: Array) -> Array:
    """L⁻¹B for (..., q, q, n) lower triangular L and (..., q, m, n) B."""
    q = L.shape[-2]
    if q == 1:
        return np.asarray(B / L)
    X = np.empty(np.broadcast_shapes(L.shape[:-3], B.shape[:-3]) + B.shape[-3:-1] + L.shape[-1:])
    for i in range(q):
        row = B[..., i, :, :]
        if i:
            row = row - np.einsum("...kn,...kmn->...mn", L[..., i, :i, :], X[..., :i, :, :])
        X[..., i, :, :] = row / L[..., i, i, None, :]
    return X


def solve_upper(L: Array, B: Array) -> Array:
    """L'⁻¹B for (..., q, q, n) lower triangular L and (..., q, m, n) B."""
    q = L.shape[-2]
    if q == 1:
        return np.asarray(B / L)
    X = np.empty(np.broadcast_shapes(L.shape[:-3], B.shape[:-3]) + B.shape[-3:-1] + L.shape[-1:])
    for i in reversed(range(q)):
        row = B[..., i, :, :]
        if i + 1 < q:
            row = row - np.einsum("...kn,...kmn->...mn", L[..., i + 1 :, i, :], X[..., i + 1 :, :, :])
        X[..., i, :, :] = row / L[..., i, i, None, :]
    return X


def log_diagonal(L: Array) -> Array:
    """(..., n) sum of the logarithms of the diagonals of (..., q, q, n): half the log determinant of L L'."""
    total: Array = np.log(np.einsum("...iin->...in", L)).sum(-2)
    return total
