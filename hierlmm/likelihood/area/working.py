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
# Values of A times areas that are worked on at once: about 1 MB an array, so that a pass stays in the cache.
CHUNK = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """y, X and D of an area-level model in working units.

    scale       working unit of variance, a power of four, units of y squared; A_working = A / scale
    y           (m,) residuals of the ordinary least-squares fit, over sqrt(scale)
    D           (m,) sampling variances over scale
    Q           (m, p) orthonormal basis of the columns of X
    QQ, Qy      (m, p*p) products of its columns in pairs, and (m, p) with y: cross-products are then `weights @ QQ`
    centring    (p, p) X centring = X with its columns centred; unit triangular up to the order of the columns
    to_basis    (p, p) X centring to_basis = Q
    shift       (p,) coefficients of a constant near y on the centred columns, zero where none is constant
    fitted      (p,) least-squares coefficients of y less that constant on Q, units of y
    log_det_XX  log|X'X|, units of the data
    order       (m,) areas from the smallest D to the largest: the order of rows in which QR is stable row by row
    """

    scale: float
    y: Vector
    D: Vector
    Q: Matrix
    QQ: Matrix
    Qy: Matrix
    centring: Matrix
    to_basis: Matrix
    shift: Vector
    fitted: Vector
    log_det_XX: float
    order: NDArray[np.intp]

    @property
    def to_beta(self) -> Matrix:
        """(p, p) β = beta_ols + to_beta δ, where δ are the coefficients of the working y on Q."""
        return self.centring @ self.to_basis * math.sqrt(self.scale)

    @property
    def beta_ols(self) -> Vector:
        """(p,) ordinary least-squares coefficients, units of the data."""
        return self.centring @ (self.to_basis @ self.fitted + self.shift)


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


def working(y: Vector, X: Matrix, D: Vector) -> Working:
    """Carry y (m,), X (m, p) and D (m,) into working units; X has full column rank and D is positive."""
    scale = math.ldexp(1.0, 2 * round(math.log2(float(np.median(D))) / 2))
    centred, back = _centred(X)
    Q, R = np.linalg.qr(centred)
    shift, response = _shifted(y, centred)
    fitted = Q.T @ response
    residual = response - Q @ fitted
    again = Q.T @ residual  # the second pass removes what rounding left of the fit
    residual = residual - Q @ again
    unit = math.sqrt(scale)
    pairs = (Q[:, :, None] * Q[:, None, :]).reshape(len(y), Q.shape[1] ** 2)
    y_unit = residual / unit
    return Working(
        scale=scale,
        y=y_unit,
        D=D / scale,
        Q=Q,
        QQ=pairs,
        Qy=Q * y_unit[:, None],
        centring=back,
        to_basis=_solve(R, np.eye(R.shape[0])),
        shift=shift,
        fitted=fitted + again,
        log_det_XX=2 * float(np.log(np.abs(np.diagonal(R))).sum()),
        order=np.argsort(D, kind="stable"),
    )


def _constant(X: Matrix) -> int:
    """Position of the first constant, nonzero column of X, or -1."""
    flat = np.flatnonzero((X == X[:1]).all(axis=0) & (X[0] != 0)) if X.size else np.zeros(0, dtype=np.intp)
    return int(flat[0]) if flat.size else -1


def _centred(X: Matrix) -> tuple[Matrix, Matrix]:
    """X with its columns centred where it holds a constant one, and B (p, p), |B| = 1: X β = centred B⁻¹ β."""
    p = X.shape[1]
    back = np.eye(p)
    constant = _constant(X)
    if constant < 0:
        return X, back
    centres = X.mean(axis=0)
    centres[constant] = 0.0
    back[constant] -= centres / X[0, constant]
    return X - centres, back


def _shifted(y: Vector, centred: Matrix) -> tuple[Vector, Vector]:
    """The coefficients of a constant near y on the centred columns, and y less that constant."""
    coefficient = np.zeros(centred.shape[1])
    constant = _constant(centred)
    if constant < 0:
        return coefficient, y
    centre = float(y.mean())
    coefficient[constant] = centre / centred[0, constant]
    return coefficient, y - centre


def normal_prior(mean: Vector, cov: Matrix, work: Working) -> NormalPrior:
    """N(mean (p,), cov (p, p)) on β in working units; a coefficient of infinite variance has a flat prior.

    The finite part of `cov` is positive definite; entries beside an infinite variance are not read.
    """
    proper = np.isfinite(np.diagonal(cov))
    L = np.linalg.cholesky(cov[np.ix_(proper, proper)])
    select = np.eye(cov.shape[0])[proper]
    rows: Matrix = _solve(L, select @ work.to_beta)
    target: Vector = _solve(L, (mean - work.beta_ols)[proper])
    return NormalPrior(rows, target, 2 * float(np.log(np.diagonal(L)).sum()))


def factor(w: Matrix, work: Working, prior: NormalPrior | None = None) -> Factor:
    """Weighted least squares of the working y on Q for each row of the weights w (N, m), with a prior or flat."""
    p = work.Q.shape[1]
    M = (w @ work.QQ).reshape(len(w), p, p)
    right = w @ work.Qy
    if prior is not None:
        M = M + prior.rows.T @ prior.rows
        right = right + prior.rows.T @ prior.target
    spread = np.sqrt(np.diagonal(M, axis1=1, axis2=2))
    try:
        L = np.linalg.cholesky(M / (spread[:, :, None] * spread[:, None, :]))
        poor = (np.diagonal(L, axis1=1, axis2=2) < SMALLEST_PIVOT).any(axis=1)
    except np.linalg.LinAlgError:
        L = np.broadcast_to(np.eye(p), M.shape)
        poor = np.ones(len(w), dtype=bool)
    root = _solve(L, np.broadcast_to(np.eye(p), M.shape)) / spread[:, None, :]
    delta = (root.mT @ (root @ right[:, :, None]))[:, :, 0]
    log_det = 2 * np.log(np.diagonal(L, axis1=1, axis2=2) * spread).sum(axis=1)
    if poor.any():
        root[poor], delta[poor], log_det[poor] = _by_rows(w[poor], work, prior)
    return Factor(root, delta, work.y - delta @ work.Q.T, log_det)


def _by_rows(w: Matrix, work: Working, prior: NormalPrior | None) -> tuple[Array, Array, Vector]:
    """The same by QR of the weighted rows, heaviest first: stable row by row (Cox and Higham 1998, BIT 38:34-44)."""
    p = work.Q.shape[1]
    table = np.column_stack([work.Q, work.y])[work.order]
    rows = np.sqrt(w[:, work.order])[:, :, None] * table
    if prior is not None:
        top = np.column_stack([prior.rows, prior.target])
        rows = np.concatenate([np.broadcast_to(top, (len(w), *top.shape)), rows], axis=1)
    R: Array = np.asarray(np.linalg.qr(rows, mode="r"))
    T, right = R[:, :p, :p], R[:, :p, p:]
    delta = _solve(T, right)[:, :, 0]
    root = _solve(T.mT, np.broadcast_to(np.eye(p), T.shape))
    return root, delta, 2 * np.log(np.abs(np.diagonal(T, axis1=1, axis2=2))).sum(axis=1)


def _solve(a: Array, b: Array) -> Array:
    """a⁻¹ b over the leading axes; `a` is triangular here, so that the pivoting inside moves nothing."""
    return np.asarray(np.linalg.solve(a, b), dtype=np.float64)


def in_chunks(function: Callable[[Vector], tuple[Array, ...]], A: Vector, work: Working) -> tuple[Array, ...]:
    """Apply `function` to A (N,) a piece at a time and join each of its results, so that memory stays bounded."""
    size = max(1, CHUNK // work.D.size)
    if A.size <= size:
        return function(A)
    parts = [function(A[start : start + size]) for start in range(0, A.size, size)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
