"""Correlated sampling errors: the rotation that turns a full covariance matrix into independent errors.

The model is y = Xβ + v + e with v ~ N(0, A I) and e ~ N(0, S), S known. With S = U diag(d) U' and U orthogonal,

    U'y = (U'X) β + U'v + U'e,   U'v ~ N(0, A I),   U'e ~ N(0, diag(d)),

which is the area-level model with independent errors and the same β and A: its likelihoods, estimators, predictors
and posteriors are those of the rotated data, and what they say of the areas is rotated back. Quadratic forms and
traces do not see the rotation, so that the moment estimators keep their meaning: r'V⁻¹r = m − p (Fay and Herriot),
E y'(I−H)y = A(m−p) + tr((I−H)S) (Prasad and Rao).

Blocks of S that are independent of one another rotate by themselves; blocks of one size are stacked, so that 10,000
areas in blocks of 5 cost 2,000 small eigenproblems in one call, and nothing m x m is formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """n independent blocks of one size k: places (n, k) of their areas, and eigenvectors U (n, k, k) as columns."""

    places: Places
    U: Array


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """S = U diag(d) U', d (m,) positive: the j-th eigenvector of a block stands at the place of its j-th area.

    An area that is alone in its block keeps its place and its sign, so that a diagonal S is not rotated at all.
    """

    d: Vector
    stacks: tuple[Stack, ...]

    def forward(self, values: Array) -> Array:
        """U' values, for values (m,) or (m, k)."""
        out = np.empty(np.shape(values))
        for stack in self.stacks:
            out[stack.places] = _apply(stack.U.mT, values[stack.places])
        return out

    def back(self, values: Array) -> Array:
        """U values, for values (m,) or (m, k)."""
        out = np.empty(np.shape(values))
        for stack in self.stacks:
            out[stack.places] = _apply(stack.U, values[stack.places])
        return out

    def diagonal(self, weights: Array) -> Array:
        """diag(U diag(w) U') for weights w (m,), or for each column of weights (m, k)."""
        out = np.empty(np.shape(weights))
        for stack in self.stacks:
            out[stack.places] = _apply(np.square(stack.U), weights[stack.places])
        return out

    def covariance(self, weights: Vector) -> Matrix:
        """(m, m) U diag(w) U', which is S itself for w = d."""
        out = np.zeros((len(self.d), len(self.d)))
        for stack in self.stacks:
            rows = stack.places[:, :, None]
            out[rows, rows.mT] = stack.U * weights[stack.places][:, None, :] @ stack.U.mT
        return out


def _apply(U: Array, values: Array) -> Array:
    """U (n, k, k) times values (n, k) or (n, k, r)."""
    if values.ndim == 2:
        return np.asarray((U @ values[:, :, None])[:, :, 0])
    return np.asarray(U @ values)


def independent(D: Vector) -> Rotation:
    """The rotation of independent errors with variances D (m,): the identity."""
    places = np.arange(len(D), dtype=np.intp)[:, None]
    return Rotation(np.asarray(D, dtype=np.float64), (Stack(places, np.ones((len(D), 1, 1))),))


def rotation(blocks: Iterable[tuple[Places, Matrix]]) -> Rotation:
    """The rotation of a block-diagonal covariance matrix.

    blocks  places (k,) of the areas of each block among 0 … m−1, each once, and its covariance (k, k), symmetric and
            positive definite, units of y squared
    """
    by_size: dict[int, list[tuple[Places, Matrix]]] = {}
    for places, S in blocks:
        by_size.setdefault(len(places), []).append((places, S))
    m = sum(size * len(own) for size, own in by_size.items())
    d, stacks = np.empty(m), []
    for size, own in by_size.items():
        places = np.array([place for place, _ in own], dtype=np.intp)
        S = np.array([S for _, S in own], dtype=np.float64)
        values, U = (S[:, 0], np.ones_like(S)) if size == 1 else np.linalg.eigh(S)
        d[places] = values
        stacks.append(Stack(places, U))
    return Rotation(d, tuple(stacks))


def sampling_errors(D: Vector, S: Matrix | None, inside: NDArray[np.bool_]) -> Rotation:
    """The rotation of the errors of the areas `inside` (M,): variances D (M,), or where there is one covariance S."""
    if S is None:
        return independent(D[inside])
    return rotation(blocks_of(S if inside.all() else S[np.ix_(inside, inside)]))


def blocks_of(S: Matrix) -> list[tuple[Places, Matrix]]:
    """The independent blocks of a covariance matrix S (m, m), in the order of their first areas: its components."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    number, label = connected_components(csr_array(S != 0), directed=False)
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=number))
    return [(places, S[np.ix_(places, places)]) for places in np.split(order, ends[:-1])]


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A regression without what would cost digits when it is rotated: y less its least-squares fit, on a basis of X.

    y     (m,) residuals of the ordinary least-squares fit, units of the data
    Q     (m, p) orthonormal basis of the columns of X; y = Q δ + v + e has the same v and e as the model
    work  what carries δ (p,) back to β
    """

    y: Vector
    Q: Matrix
    work: Working

    @property
    def log_jacobian(self) -> float:
        """log|∂β/∂δ|: what to add to a log density with δ integrated out to have β integrated out instead."""
        return -self.work.basis.log_det_XX / 2

    @property
    def to_beta(self) -> Matrix:
        """(p, p) B with β = β_ols + B δ."""
        return self.work.basis.centring @ self.work.basis.to_basis

    def beta(self, delta: Array) -> Array:
        """β (..., p) from δ (..., p)."""
        return np.asarray(self.work.beta_ols + delta @ self.to_beta.T)

    def cov_beta(self, cov_delta: Array) -> Array:
        """Cov β (..., p, p) from that of δ."""
        return np.asarray(self.to_beta @ cov_delta @ self.to_beta.T)

    def rows(self, rows: Matrix) -> Matrix:
        """Rows x (k, p) of covariates in the coordinates of Q."""
        return np.asarray(rows @ self.work.basis.centring @ self.work.basis.to_basis)

    def ols(self, rows: Matrix) -> Vector:
        """x'β_ols at rows x (k, p), computed without forming β, whose digits may cancel; x'β adds `rows` @ δ."""
        basis = self.work.basis
        centred = rows @ basis.centring
        return np.asarray(centred @ (self.work.level * basis.one) + centred @ basis.to_basis @ self.work.fitted)


def reduced(y: Vector, X: Matrix, D: Vector) -> Reduced:
    """The regression of y (m,) on X (m, p), of full rank, reduced; D (m,) are the sampling variances, for scale."""
    work = working(y, X, D)
    return Reduced(work.y * np.sqrt(work.basis.scale), work.basis.Q, work)


def gathered(blocks: Sequence[tuple[Places, Matrix]], keep: NDArray[np.bool_]) -> list[tuple[Places, Matrix]]:
    """The blocks among the areas that are kept (m,), their places counted among those."""
    new = np.cumsum(keep, dtype=np.intp) - 1
    out = []
    for places, S in blocks:
        own = keep[places]
        if own.any():
            out.append((new[places[own]], S[np.ix_(own, own)]))
    return out
