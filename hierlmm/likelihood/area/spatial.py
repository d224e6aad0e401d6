"""Simultaneously autoregressive area effects, as an ordinary area-level model at each value of the autocorrelation ρ.

The model, for M areas with proximity matrix W (M, M), of which the m in the fit have direct estimates:

    y = Xβ + v_s + e,   v = ρWv + u,   u ~ N(0, A I),   e ~ N(0, S),   v ~ N(0, A Ω),   Ω = [(I−ρW)'(I−ρW)]⁻¹

v_s are the effects of the areas in the fit; S is diagonal, or the known covariance of the sampling errors. Given ρ
there is a matrix T (m, m) with T Ω_ss T' = I and T S T' = diag(d), so that

    Ty = TXβ + T v_s + Te,   T v_s ~ N(0, A I),   Te ~ N(0, diag(d)),

is the area-level model with independent errors, for every A at once (`Node`). T comes from one QR factorisation of
I − ρW, which takes out the areas without a direct estimate, and one eigenproblem.

W may have any weights and need not be symmetric; the areas of an empty row (islands) have v_i = u_i. ρ lies where
I − ρW is nonsingular and that contains 0: between 1/λ_min and 1/λ_max, λ the real eigenvalues of W. For W with rows
that sum to one, λ_max = 1. Sources: Cliff and Ord (1981, Spatial Processes); Singh, Shukla and Kundu (2005, Survey
Methodology 31:183-195); Petrucci and Salvati (2006, JABES 11:169-182); Pratesi and Salvati (2008, Statistical
Methods and Applications 17:113-141).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.correlated import Reduced, Rotation, reduced

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]

# An eigenvalue of W with an imaginary part this small beside it is real: rounding splits real pairs by less.
REAL = 1e-7
# Eigenvalues this small beside the largest row sum may be rounding error of zeros of a matrix that is not normal.
ZERO = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A spatial area-level model as arrays: M areas, m of them in the fit.

    W        (M, M) proximity, rows and columns in the order of the areas, zero diagonal
    inside   (m,) places of the areas in the fit; outside (M − m,) those of the others
    X        (M, p) covariates of all areas
    model    y and X of the areas in the fit, reduced
    errors   covariance of their sampling errors, as its rotation
    ends     open interval of ρ
    """

    W: Matrix
    inside: NDArray[np.intp]
    outside: NDArray[np.intp]
    X: Matrix
    model: Reduced
    errors: Rotation
    ends: tuple[float, float]


def problem(W: Matrix, y: Vector, X: Matrix, errors: Rotation, inside: NDArray[np.bool_]) -> Problem:
    """The problem of y (m,), offset removed, for the areas `inside` (M,), and X (M, p) of all areas."""
    at, out = np.flatnonzero(inside), np.flatnonzero(~inside)
    model = reduced(y, X[at], errors.diagonal(errors.d))
    return Problem(W, at, out, X, model, errors, admissible(W))


def unconnected(W: Matrix, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(M,) areas that no chain of neighbours, either way, connects to one of the areas `inside` (M,)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    number, label = connected_components(csr_array(W != 0), directed=False)
    reached = np.zeros(number, dtype=bool)
    reached[label[inside]] = True
    return np.asarray(~reached[label])


def admissible(W: Matrix) -> tuple[float, float]:
    """The open interval of ρ: 1/λ over the real eigenvalues of W, the most negative and the largest.

    Where W has no real eigenvalue of a sign, 1 over the largest row sum stands for that end: no eigenvalue is larger,
    so that I − ρW is nonsingular there too. The eigenvalues are those of the strongly connected parts of W. (−inf,
    inf) where W is zero.
    """
    bound = float(np.abs(W).sum(axis=1).max(initial=0.0))
    if bound == 0:
        return -math.inf, math.inf
    values = eigenvalues(W)
    real = values.real[np.abs(values.imag) <= REAL * np.abs(values)]
    real = real[np.abs(real) > ZERO * bound]
    low, high = float(real.min(initial=0.0)), float(real.max(initial=0.0))
    return 1 / (low if low < 0 else -bound), 1 / (high if high > 0 else bound)


def eigenvalues(W: Matrix) -> NDArray[np.complex128]:
    """(M,) eigenvalues of W, by its strongly connected parts: chains that do not return have exact zeros."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    number, label = connected_components(csr_array(W != 0), directed=True, connection="strong")
    order = np.argsort(label, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(label, minlength=number))[:-1])
    return np.concatenate([np.linalg.eigvals(W[np.ix_(own, own)]).astype(np.complex128) for own in parts])


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """The model at one ρ in the coordinates in which it is an ordinary area-level model.

    d            (m,) sampling variances there; y (m,), Q (m, p) the reduced data there
    root         (m, m) R with Ω_ss⁻¹ = R'R
    conditional  (M − m, m) regression of v outside the fit on v inside
    outside      (M − m, M − m) R_uu with Var(v outside | v inside) = A (R_uu'R_uu)⁻¹
    Z            (m, m) orthogonal, T = diag(√d) Z' S^−½
    log_det_T    log|det T|, the Jacobian of a density of y
    """

    problem: Problem
    rho: float
    d: Vector
    y: Vector
    Q: Matrix
    root: Matrix
    conditional: Matrix
    outside: Matrix
    Z: Matrix
    log_det_T: float

    def forward(self, values: Array) -> Array:
        """T values, for values (m,) or (m, k)."""
        return _forward(self.problem.errors, self.Z, self.d, values)

    def back(self, values: Array) -> Array:
        """T⁻¹ values, for values (m,) or (m, k)."""
        errors = self.problem.errors
        return errors.back(_rows(np.sqrt(errors.d), self.Z @ _rows(1 / np.sqrt(self.d), values)))

    def reach(self, values: Array) -> Array:
        """Cov(v, T v_s)/A values, (M,) or (M, k): effects of all areas from (m,) or (m, k) in these coordinates."""
        out = np.empty((len(self.problem.W), *values.shape[1:]))
        out[self.problem.inside] = self.back(values)
        out[self.problem.outside] = self.conditional @ out[self.problem.inside]
        return out

    def loadings(self) -> Matrix:
        """(M, M) L with Ω = LL': columns T v_s first, then what is left of the effects outside the fit given these."""
        M, m = len(self.problem.W), len(self.d)
        out = np.zeros((M, M))
        out[:, :m] = self.reach(np.eye(m))
        if m < M:
            out[self.problem.outside, m:] = np.linalg.solve(self.outside, np.eye(M - m))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """Generalised least squares at one A in the coordinates of a node.

    w (m,) = 1/(A + d); root (p, p) with root'root = (Q'WQ)⁻¹; half (p, m) with P = diag(w) − half'half; Py (m,)
    """

    w: Vector
    root: Matrix
    half: Matrix
    Py: Vector

    @property
    def log_det(self) -> float:
        """log|Q'WQ|."""
        return -2 * float(np.log(np.abs(np.diagonal(self.root))).sum())

    @property
    def cov_delta(self) -> Matrix:
        """(p, p) covariance of δ."""
        return self.root.T @ self.root


def weighted(node: Node, A: float) -> Weighted:
    """Generalised least squares at A >= 0: by QR of the weighted rows."""
    w = 1 / (A + node.d)
    R = np.asarray(np.linalg.qr(np.sqrt(w)[:, None] * node.Q, mode="r"))
    root = np.linalg.solve(R.T, np.eye(len(R)))
    half = root @ (w[:, None] * node.Q).T
    return Weighted(w, root, half, w * node.y - half.T @ (half @ node.y))


def node(problem: Problem, rho: float) -> Node:
    """The model at `rho`, inside the admissible interval: O(M³) once, then O(m p²) for each A.

    By singular values, so that the small d keep their digits where the D_i span many orders of magnitude.
    """
    parts, half = _half(problem, rho)
    _, singular, Zt = np.linalg.svd(half)
    return _node(problem, rho, parts, np.square(singular), Zt.T)


def rough_node(problem: Problem, rho: float) -> Node:
    """The same at half the cost, from the eigenvalues of the square: to some nine digits away from the ends of ρ."""
    parts, half = _half(problem, rho)
    values, Z = np.linalg.eigh(half.T @ half)
    return _node(problem, rho, parts, np.maximum(values, np.finfo(np.float64).eps * values[-1]), Z)


def _half(problem: Problem, rho: float) -> tuple[tuple[Matrix, Matrix, Matrix], Matrix]:
    """What `_precision` gives, and R S^½, whose singular values are √d: R'R = Ω_ss⁻¹ = T'T, S = T⁻¹ diag(d) T⁻¹'."""
    parts = _precision(problem, rho)
    errors = problem.errors
    return parts, (errors.forward(parts[0].T) * np.sqrt(errors.d)[:, None]).T


def _node(problem: Problem, rho: float, parts: tuple[Matrix, Matrix, Matrix], d: Vector, Z: Matrix) -> Node:
    errors = problem.errors
    y, Q = (_forward(errors, Z, d, values) for values in (problem.model.y, problem.model.Q))
    log_det = float(np.log(d).sum() - np.log(errors.d).sum()) / 2
    return Node(problem, rho, d, y, Q, *parts, Z, log_det)


def _forward(errors: Rotation, Z: Matrix, d: Vector, values: Array) -> Array:
    white = _rows(1 / np.sqrt(errors.d), errors.forward(values))
    return _rows(np.sqrt(d), Z.T @ white)


def _precision(problem: Problem, rho: float) -> tuple[Matrix, Matrix, Matrix]:
    """R with Ω_ss⁻¹ = R'R, the regression of v outside on v inside, and R_uu, from QR of I − ρW."""
    M, u = len(problem.W), len(problem.outside)
    F = np.eye(M) - rho * problem.W
    if not u:
        return F[:, problem.inside], np.zeros((0, M)), np.zeros((0, 0))
    R = np.asarray(np.linalg.qr(F[:, np.concatenate([problem.outside, problem.inside])], mode="r"))
    R_uu, R_us, R_ss = R[:u, :u], R[:u, u:], R[u:, u:]
    return R_ss, -np.linalg.solve(R_uu, R_us), R_uu


def _rows(weights: Vector, values: Array) -> Array:
    return np.asarray(weights * values if values.ndim == 1 else weights[:, None] * values)
