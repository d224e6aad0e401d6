"""REML as the likelihood of error contrasts: combinations A'y of the data that no fixed effect enters.

For any A (n, n - p) of full rank with A'X = 0 (Patterson & Thompson 1971, Biometrika 58:545-554; Harville 1974,
Biometrika 61:383-385)
    log f(A'y) = restricted log likelihood + ½ log|X'X| - ½ log|A'A|,
where the restricted log likelihood is the one of this package, with beta integrated out under a flat prior. The two
terms are free of the variances: every A gives the same estimates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import DesignError
from hierlmm.frequentist.bootstrap.arguments import generator_of

Array = NDArray[np.float64]

# Rows up to which n x n matrices are formed: this is for demonstration, fits use cross-products.
MOST_ROWS = 4000
# Size of A'X, relative to that of A and X, below which it is zero.
ORTHOGONAL = 1e-9


def error_contrasts(X: ArrayLike, seed: int | np.random.Generator | None = None) -> Array:
    """(n, n - r) columns A with A'X = 0 and A'A = I, r the rank of X (n, p).

    seed  draws one of the many bases: an orthonormal one, rotated at random; None: the one of a QR decomposition

    Raises DesignError where X leaves no contrasts, is not a matrix of finite numbers, or has too many rows; FitError
    for a seed that is none.
    """
    X = _matrix(X, "X")
    U, s, _ = np.linalg.svd(X, full_matrices=True)
    rank = int((s > max(X.shape) * np.finfo(float).eps * s.max(initial=0.0)).sum())
    n = len(X)
    if rank >= n:
        raise DesignError(f"Error contrasts need more rows than fixed effects; X has {n} rows and rank {rank}.")
    A = U[:, rank:]
    if seed is None:
        return np.asarray(A)
    Q, R = np.linalg.qr(generator_of(seed).standard_normal((n - rank, n - rank)))
    return np.asarray(A @ (Q * np.sign(np.diagonal(R))))


def contrast_loglik(A: ArrayLike, y: ArrayLike, V: ArrayLike) -> float:
    """log density of A'y ~ N(0, A'VA) at y (n,), all constants; A (n, m), V (n, n) the covariance matrix of y.

    Raises DesignError where the shapes differ or A'VA is not positive definite.
    """
    A, V, y = _matrix(A, "A"), _matrix(V, "V"), _floats(y, "y")
    n, m = A.shape
    if V.shape != (n, n) or y.shape != (n,):
        raise DesignError(
            f"A (n, m), y (n,) and V (n, n) must be of the same n rows; found {A.shape}, {y.shape} and {V.shape}."
        )
    try:
        L = np.linalg.cholesky(A.T @ V @ A)
    except np.linalg.LinAlgError:
        raise DesignError(
            "A'VA must be positive definite: the columns of A independent and V a covariance matrix. Make A with "
            "error_contrasts(X) and check V."
        ) from None
    z = np.linalg.solve(L, A.T @ y)
    return float(-0.5 * (m * np.log(2 * np.pi) + z @ z) - np.log(np.diagonal(L)).sum())


def contrast_constant(A: ArrayLike, X: ArrayLike) -> float:
    """½ log|X'X| - ½ log|A'A|: what the log likelihood of A'y has more than the restricted one.

    A (n, n - p) with A'X = 0, X (n, p) of full rank. Raises DesignError where A'X is not zero or A has another number
    of columns: then A'y is not the whole of the error contrasts.
    """
    A, X = _matrix(A, "A"), _matrix(X, "X")
    n, p = X.shape
    if A.shape != (n, n - p):
        raise DesignError(f"A must have n - p = {n - p} columns of n = {n} rows; found the shape {A.shape}.")
    sizes = np.outer(np.linalg.norm(A, axis=0), np.linalg.norm(X, axis=0))
    if (np.abs(A.T @ X) > ORTHOGONAL * sizes).any():
        raise DesignError("Columns of A must be error contrasts, A'X = 0; these are not. Use error_contrasts(X).")
    return float(0.5 * (np.linalg.slogdet(X.T @ X)[1] - np.linalg.slogdet(A.T @ A)[1]))


def _floats(values: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(
            f"{name} must be an array of numbers; found {type(values).__name__} that is none. Give numbers."
        ) from None


def _matrix(values: ArrayLike, name: str) -> Array:
    found = _floats(values, name)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise DesignError(f"{name} must be a matrix of finite numbers; found the shape {found.shape}.")
    if len(found) > MOST_ROWS:
        raise DesignError(
            f"Error contrasts are formed as n x n matrices, for at most {MOST_ROWS} rows; {name} has {len(found)}. "
            "hl.fit(spec, data, method='reml') maximises the same likelihood from cross-products."
        )
    return found
