"""The data of an area-level model in working units, and one weighted least-squares factorisation in them.

Digits are lost before a likelihood is ever evaluated: by a response or a covariate far from zero, by covariates on
different scales, by variances of 1e-12. So y, X and D are carried into units in which none of it matters: D over a
power of four near its median (dividing by it rounds nothing), y less its ordinary least-squares fit, and X replaced
by an orthonormal basis of its columns, taken after centring them where X contains a constant column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

# Cholesky of the weighted cross-products is used while every pivot of its correlation form is above this; below it
# the squared condition number would cost more than about three digits, and the QR of the weighted rows is used.
SMALLEST_PIVOT = 0.05
# Sampling variances within this ratio: Q'WQ then has a condition number within it too, since Q'Q = I, and neither
# pivots nor quadratic forms of the cross-products lose more than twice the digits of it.
TAME = 1e3
# Values of A times areas that are worked on at once: about 1 MB an array, so that a pass stays in the cache.
CHUNK = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """X and D of an area-level model in working units: what is common to every response on the same design.

    scale       working unit of variance, a power of four, units of y squared; A_working = A / scale
    D           (m,) sampling variances over scale; low and high their smallest and largest
    Q           (m, p) orthonormal basis of the columns of X
    QQ          (m, p*p) products of its columns in pairs: cross-products are then `weights @ QQ`
    centring    (p, p) X centring = X with its columns centred; unit triangular up to the order of the columns
    to_basis    (p, p) X centring to_basis = Q
    one         (p,) coefficients of the constant 1 on the centred columns, zero where none is constant
    log_det_XX  log|X'X|, units of the data
    """

    scale: float
    D: Vector
    low: float
    high: float
    Q: Matrix
    QQ: Matrix
    centring: Matrix
    to_basis: Matrix
    one: Vector
    log_det_XX: float

    @property
    def tame(self) -> bool:
        """Whether the weights at every A >= 0 lie within the ratio TAME."""
        return self.high <= TAME * self.low

    @property
    def contrasts(self) -> int:
        """m − p: what y says beyond the coefficients."""
        return int(self.Q.shape[0]) - int(self.Q.shape[1])

    @property
    def to_beta(self) -> Matrix:
        """(p, p) β = beta_ols + to_beta δ, where δ are the coefficients of the working y on Q."""
        return self.centring @ self.to_basis * math.sqrt(self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """One response, or n responses on the same design, in working units.

    basis     the design
    y         (m,) or (n, m) residuals of the ordinary least-squares fit, over sqrt(scale)
    level     () or (n,) mean of y where a constant is among the columns, otherwise 0; units of the data
    fitted    (p,) or (n, p) least-squares coefficients of y less that level on Q, units of the data
    """

    basis: Basis
    y: Array
    level: Array
    fitted: Array

    @property
    def beta_ols(self) -> Array:
        """(p,) or (n, p) ordinary least-squares coefficients, units of the data."""
        basis = self.basis
        return (self.fitted @ basis.to_basis.T + self.level[..., None] * basis.one) @ basis.centring.T


@dataclass(frozen=True, slots=True, eq=False)
class NormalPrior:
    """β ~ N(mean, cov) as extra rows of the least-squares problem in working units.

    rows     (k, p) rows K, and target (k,) values t: the prior adds |K δ − t|² to the weighted sum of squares
    log_det  log|cov| over the coefficients that have a prior, units of the data; k of them
    """

    rows: Matrix
    target: Vector
    log_det: float


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """Weighted least squares of y on Q at N sets of weights.

    root      (N, p, p) with root' root = M⁻¹, M = Q'WQ (plus the prior's K'K)
    delta     (N, p) coefficients; residual (N, m) y − Q δ
    log_det   (N,) log|M|
    """

    root: Array
    delta: Array
    residual: Array
    log_det: Vector


def working(y: Array, X: Matrix, D: Vector) -> Working:
    """Carry y (m,) or (n, m), X (m, p) and D (m,) into working units; X has full column rank and D is positive."""
    return on_basis(y, basis_of(X, D))


def basis_of(X: Matrix, D: Vector) -> Basis:
    """Carry X (m, p) and D (m,) into working units."""
    middle = len(D) // 2
    scale = math.ldexp(1.0, 2 * round(math.log2(float(np.partition(D, middle)[middle])) / 2))
    centred, back, one = _centred(X)
    Q, R = _orthonormal(centred)
    p = Q.shape[1]
    return Basis(
        scale=scale,
        D=D / scale,
        low=float(D.min()) / scale,
        high=float(D.max()) / scale,
        Q=Q,
        QQ=(Q[:, :, None] * Q[:, None, :]).reshape(len(Q), p * p),
        centring=back,
        to_basis=_inverse(R, lower=0),
        one=one,
        log_det_XX=2 * float(np.log(np.abs(np.diagonal(R))).sum()),
    )


def on_basis(y: Array, basis: Basis) -> Working:
    """Carry responses y (m,) or (n, m) into the working units of a design."""
    level = np.asarray(y.sum(axis=-1) / y.shape[-1]) if basis.one.any() else np.zeros(y.shape[:-1])
    response = y - level[..., None]
    fitted = response @ basis.Q
    residual = response - fitted @ basis.Q.T
    again = residual @ basis.Q  # the second pass removes what rounding left of the fit
    residual -= again @ basis.Q.T
    residual /= math.sqrt(basis.scale)
    return Working(basis, residual, level, fitted + again)


def _centred(X: Matrix) -> tuple[Matrix, Matrix, Vector]:
    """X with its columns centred where it holds a constant one, B (p, p) with |B| = 1 and X B that, and `Basis.one`."""
    p = X.shape[1]
    back, one = np.eye(p), np.zeros(p)
    flat = np.flatnonzero((X == X[:1]).all(axis=0) & (X[0] != 0))
    if not flat.size:
        return X, back, one
    constant = int(flat[0])
    centres = X.sum(axis=0) / len(X)
    centres[constant] = 0.0
    back[constant] -= centres / X[0, constant]
    one[constant] = 1 / X[0, constant]
    return X - centres, back, one


def normal_prior(mean: Vector, cov: Matrix, work: Working) -> NormalPrior:
    """N(mean (p,), cov (p, p)) on β in working units; a coefficient of infinite variance has a flat prior.

    The finite part of `cov` is positive definite; entries beside an infinite variance are not read.
    """
    proper = np.isfinite(np.diagonal(cov))
    L = np.linalg.cholesky(cov[np.ix_(proper, proper)])
    select = np.eye(cov.shape[0])[proper]
    rows: Matrix = _solve(L, select @ work.basis.to_beta)
    target: Vector = _solve(L, (mean - work.beta_ols)[proper])
    return NormalPrior(rows, target, 2 * float(np.log(np.diagonal(L)).sum()))


def factor(w: Matrix, work: Working, prior: NormalPrior | None = None) -> Factor:
    """Weighted least squares of the working y on Q for each row of the weights w (N, m), with a prior or flat.

    Of n responses the k-th is fitted with the k-th row of weights: N = n.
    """
    Q = work.basis.Q
    p = Q.shape[1]
    M = (w @ work.basis.QQ).reshape(len(w), p, p)
    right = (w * work.y) @ Q
    if prior is not None:
        M = M + prior.rows.T @ prior.rows
        right = right + prior.rows.T @ prior.target
    if prior is None and work.basis.tame:
        L: Array = np.asarray(np.linalg.cholesky(M), dtype=np.float64)
        root = _solve(L, np.eye(p))
        log_det = 2 * np.log(L.diagonal(axis1=1, axis2=2)).sum(axis=1)
        delta = ((right[:, None, :] @ root.mT) @ root)[:, 0, :]
        return Factor(root, delta, work.y - delta @ Q.T, log_det)
    root, log_det, poor = inverse_root(M)
    delta = (root.mT @ (root @ right[:, :, None]))[:, :, 0]
    if poor.any():
        y = work.y if work.y.ndim == 1 else work.y[poor]
        root[poor], delta[poor], log_det[poor] = _by_rows(w[poor], y, work.basis, prior)
    return Factor(root, delta, work.y - delta @ Q.T, log_det)


def inverse_root(M: Array) -> tuple[Array, Vector, NDArray[np.bool_]]:
    """root (N, p, p) with root' root = M⁻¹, log|M| (N,), and where M is too ill-conditioned for these to be used."""
    p = M.shape[-1]
    spread = np.sqrt(np.diagonal(M, axis1=1, axis2=2))
    try:
        L = np.linalg.cholesky(M / (spread[:, :, None] * spread[:, None, :]))
        poor = (np.diagonal(L, axis1=1, axis2=2) < SMALLEST_PIVOT).any(axis=1)
    except np.linalg.LinAlgError:
        L = np.broadcast_to(np.eye(p), M.shape)
        poor = np.ones(len(M), dtype=bool)
    root = _solve(L, np.broadcast_to(np.eye(p), M.shape)) / spread[:, None, :]
    return root, 2 * np.log(np.diagonal(L, axis1=1, axis2=2) * spread).sum(axis=1), np.asarray(poor)


def _by_rows(w: Matrix, y: Array, basis: Basis, prior: NormalPrior | None) -> tuple[Array, Array, Vector]:
    """`factor` by QR of the weighted rows, heaviest first: stable row by row (Cox and Higham 1998, BIT 38:34-44)."""
    n, p = len(w), basis.Q.shape[1]
    order = np.argsort(basis.D, kind="stable")
    table = np.empty((n, len(order), p + 1))
    table[:, :, :p], table[:, :, p] = basis.Q[order], y[..., order]
    rows = np.sqrt(w[:, order])[:, :, None] * table
    if prior is not None:
        top = np.column_stack([prior.rows, prior.target])
        rows = np.concatenate([np.broadcast_to(top, (n, *top.shape)), rows], axis=1)
    R: Array = np.asarray(np.linalg.qr(rows, mode="r"))
    T, right = R[:, :p, :p], R[:, :p, p:]
    delta = _solve(T, right)[:, :, 0]
    root = _solve(T.mT, np.broadcast_to(np.eye(p), T.shape))
    return root, delta, 2 * np.log(np.abs(np.diagonal(T, axis1=1, axis2=2))).sum(axis=1)


def by_qr(w: Vector, basis: Basis) -> tuple[Matrix, Matrix]:
    """root (p, p) as in `Factor` and (m, p) that takes responses to their coefficients, by QR of the weighted rows."""
    order = np.argsort(basis.D, kind="stable")
    half = np.sqrt(w[order])[:, None]
    rows, R = np.linalg.qr(half * basis.Q[order])
    root = _solve(R.T, np.eye(R.shape[0]))
    gain = np.empty_like(basis.Q)
    gain[order] = half * (rows @ root)
    return root, gain


def _orthonormal(X: Matrix) -> tuple[Matrix, Matrix]:
    """QR of X (m, p), m >= p, straight from LAPACK: for a few columns most of numpy's time goes around it."""
    from scipy.linalg.lapack import dgeqrf, dorgqr

    p = X.shape[1]
    if not p:
        return X, np.zeros((0, 0))
    packed, tau, _, _ = dgeqrf(X)
    R = np.zeros((p, p))
    for k in range(p):
        R[: k + 1, k] = packed[: k + 1, k]
    return np.asarray(dorgqr(packed, tau)[0]), R


def root_of_one(M: Matrix) -> tuple[Matrix, float]:
    """root (p, p), lower triangular with root' root = M⁻¹, and log|M|, of one well-conditioned M, p > 0."""
    from scipy.linalg.lapack import dpotrf

    L = dpotrf(M, lower=1)[0]
    return _inverse(L, lower=1), 2 * sum(map(math.log, L.diagonal().tolist()))


def _inverse(T: Matrix, *, lower: int) -> Matrix:
    """Inverse of a triangular (p, p) matrix."""
    from scipy.linalg.lapack import dtrtri

    return np.asarray(dtrtri(T, lower=lower)[0]) if T.size else T


def _solve(a: Array, b: Array) -> Array:
    """a⁻¹ b over the leading axes; `a` is triangular here, so that the pivoting inside moves nothing."""
    return np.asarray(np.linalg.solve(a, b), dtype=np.float64)


def in_chunks(function: Callable[[Vector, Working], tuple[Array, ...]], A: Vector, work: Working) -> tuple[Array, ...]:
    """Apply `function` to A (N,) a piece at a time and join each of its results, so that memory stays bounded.

    Of n = N responses each piece is given its own.
    """
    size = max(1, CHUNK // work.basis.D.size)
    if A.size <= size:
        return function(A, work)
    pieces = (slice(start, start + size) for start in range(0, A.size, size))
    parts = [function(A[piece], work if work.y.ndim == 1 else some(work, piece)) for piece in pieces]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def some(work: Working, which: slice | NDArray[np.intp]) -> Working:
    """Some of n responses."""
    return Working(work.basis, work.y[which], work.level[which], work.fitted[which])
