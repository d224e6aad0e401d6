"""Gradient and average-information Hessian of the ML and REML criteria in the elements of Lambda.

With M = Z'P*Z, u = Z'P*y, s = y'P*y and nu residual degrees of freedom (P* replaced by V*⁻¹ in M under ML), the
derivative of the criterion in T is G_T = sum over levels of M_ll - (nu / s) u_l u_l'. Through T = Lambda Lambda'

    d obj / d Lambda_ac      = 2 (G_T Lambda)_ac
    d² obj / d Lambda² adds    2 G_T[a, a'] for elements of one column c,

so a zero element is stationary whatever the data say, and the sign of G_T tells a minimum from a saddle point.
The second derivative in T is replaced by its average information form, which needs no trace of Z'PZ squared.

Source: Gilmour, Thompson & Cullis (1995), Biometrics 51:1440-1450 (average information); Murray (2016),
arXiv:1602.07527 (one sweep for all parameters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood import sparse
from hierlmm.likelihood.lmm import (
    LOG_2PI,
    CrossProducts,
    Eliminated,
    Solved,
    apply_rest,
    eliminate,
    solve_fixed,
    trailing_factor,
    turn_columns,
)
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.triangular import dense_lower, solve_lower, solve_upper

Array = NDArray[np.float64]
Method = Literal["ml", "reml"]

# Diagonal elements of Lambda this small beside its largest element: dividing by it then loses digits, too.
GRADED = 1e-2


class State(Protocol):
    """What is left of a design when its random effects have been eliminated."""

    @property
    def products(self) -> Array: ...
    @property
    def log_det(self) -> Array | float: ...


class Projections(Protocol):
    """Z'P*y per factor, and products with Z'P*Z, which is never formed whole."""

    @property
    def u(self) -> tuple[Array, ...]: ...
    def gram(self, f: int, method: Method) -> Array: ...
    def inner(self, directions: Sequence[Array]) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """Z'PZ and Z'Py in the pieces that the derivatives and the predictions need.

    K         (R + p, R + p) Cholesky factor of the trailing system [Lambda'SLambda + I, .; X'.., X'V⁻¹X]
    half      (R + p, G q) K⁻¹ J'V_lead⁻¹ Z_lead, J = [Z_rest Lambda, X]
    lead_N    (G, q, q) Z_l'V_l⁻¹Z_l; lead_F (G, q, m) Z_l'V_l⁻¹[Z_rest, X, y]
    half_rest (R + p, R) K⁻¹ J'V_lead⁻¹ Z_rest
    u         per factor (levels, q) Z'P*y
    after     (m, m) products of the trailing columns after the leading factor; sizes (levels, q) per factor
    """

    K: Array
    half: Array
    lead_N: Array
    lead_F: Array
    half_rest: Array
    u: tuple[Array, ...]
    after: Array
    sizes: tuple[tuple[int, int], ...]

    def gram(self, f: int, method: Method) -> Array:
        """(q, q) sum over the levels of factor f of their blocks of Z'P*Z (V*⁻¹ for P* under ML)."""
        R = self.half_rest.shape[1]
        rows = slice(None) if method == "reml" else slice(0, R)
        G, q = self.sizes[f]
        if f == 0:
            M, half = self.lead_N.sum(axis=0), self.half[rows]
        else:
            start = sum(levels * width for levels, width in self.sizes[1:f])
            here = slice(start, start + G * q)
            M = np.einsum("lalb->ab", self.after[here, here].reshape(G, q, G, q))
            half = self.half_rest[rows, here]
        stacked = half.reshape(-1, q)
        return np.asarray(M - stacked.T @ stacked)

    def inner(self, directions: Sequence[Array]) -> Array:
        """(k, k) D'Z'P*ZD for directions D in the random effects, (levels q, k) per factor."""
        lead = directions[0]
        G, q = self.sizes[0]
        k = lead.shape[1]
        direct = lead.T @ (self.lead_N @ lead.reshape(G, q, k)).reshape(G * q, k)
        half = self.half @ lead
        R = self.half_rest.shape[1]
        if R:
            rest = np.concatenate(directions[1:])
            across = lead.T @ (self.lead_F[..., :R].reshape(G * q, R) @ rest)
            direct = direct + across + across.T + rest.T @ (self.after[:R, :R] @ rest)
            half = half + self.half_rest @ rest
        return np.asarray(direct - half.T @ half)


def project(cp: CrossProducts, factors: Sequence[Array], state: Eliminated, solved: Solved) -> Projected:
    """Project the random-effects columns off what has been eliminated, at one (unbatched) Lambda."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    lead = factors[0] if factors else np.eye(1)
    lead_F, lead_N = _lead_products(cp, lead, state)
    K = trailing_factor(state, solved)
    q = lead_F.shape[1]
    J_lead = np.concatenate([turn_columns(cp, factors, lead_F[..., :R]), lead_F[..., R : R + p]], axis=-1)
    half = dense_lower(K, J_lead.reshape(lead_F.shape[0] * q, R + p).T)
    S = state.after_lead
    if R:
        J_rest = np.concatenate([apply_rest(cp, factors, S[:R, :R]), S[R : R + p, :R]])
        Jy = np.concatenate([apply_rest(cp, factors, S[:R, -1:]), S[R : R + p, -1:]])
    else:
        J_rest, Jy = S[:p, :0], S[:p, -1:]
    half_rest = dense_lower(K, J_rest)
    half_y = dense_lower(K, Jy)[:, 0]
    u_lead = lead_F[..., -1] - (half_y @ half).reshape(-1, q)
    u = [u_lead]
    u_rest = S[:R, -1] - half_y @ half_rest
    start = 0
    for G, width in cp.sizes[1:]:
        u.append(u_rest[start : start + G * width].reshape(G, width))
        start += G * width
    return Projected(K, half, lead_N, lead_F, half_rest, tuple(u[: len(cp.sizes)]), S, cp.sizes)


def _lead_products(cp: CrossProducts, lead: Array, state: Eliminated) -> tuple[Array, Array]:
    """Z_l'V_l⁻¹[Z_rest, X, y] (G, q, m) and Z_l'V_l⁻¹Z_l (G, q, q), level by level of the leading factor.

    With A = Z_l'Z_l both are (I + A T)⁻¹ times the products without V. As B - A Lambda H⁻¹ Lambda'B, H = I +
    Lambda'A Lambda, they lose the digits by which A T exceeds one; as Lambda'⁻¹ H⁻¹ Lambda'B they lose none, but for
    Lambda that is nearly singular.
    """
    back = solve_upper(state.L_lead, state.W_lead)
    AL = cp.lead @ lead
    inner = solve_upper(state.L_lead, solve_lower(state.L_lead, AL.swapaxes(-1, -2)))
    if (turned := _inverse_transpose(lead)) is not None:
        return turned @ back, turned @ inner
    return cp.lead_rest - AL @ back, cp.lead - AL @ inner


def _inverse_transpose(Lambda: Array) -> Array | None:
    """Lambda'⁻¹, None where it is nearly singular."""
    if len(Lambda) == 1:
        return 1.0 / Lambda if Lambda[0, 0] else None
    try:
        inverse = np.asarray(np.linalg.solve(Lambda.T, np.eye(len(Lambda))), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return inverse if np.abs(inverse).max() < 1 / GRADED / np.abs(Lambda).max() else None


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """Criterion, gradient and Hessian at one theta.

    value     -2 log likelihood (ML) or restricted log likelihood (REML), sigma² profiled out unless it is known
    gradient  (k,) exact; hessian (k, k) average information plus the exact curvature of T in theta
    G_T       per factor (q, q) derivative in T, symmetric: positive on directions that the data do not want
    sigma2    profiled residual variance, or 1 where it is known
    factors, state, solved, projected: what it was computed from
    quadratic (k, k) y'P* V_r P* V_s P* y and slope (k,) y'P* V_r P* y of the parameters, for their information
    cp        the products it was computed from; phi the parameters of the residual structure, none here
    """

    value: float
    gradient: Array
    hessian: Array
    G_T: tuple[Array, ...]
    sigma2: float
    factors: tuple[Array, ...]
    state: State
    solved: Solved
    projected: Projections
    quadratic: Array
    slope: Array
    cp: CrossProducts
    phi: Array


def derivatives(cp: CrossProducts, parameters: Parameters, theta: Array, method: Method) -> Derivatives:
    """Criterion, exact gradient and average-information Hessian at theta."""
    factors = parameters.factors(theta)
    state, solved, projected = solve(cp, factors)
    G_T = slopes(cp, projected, weight(cp, solved, method), method)
    images = directions(parameters, factors, projected.u)
    quadratic = projected.inner(images) if len(parameters) else np.zeros((0, 0))
    slope = sum((u.ravel() @ d for u, d in zip(projected.u, images, strict=True)), np.zeros(len(parameters)))
    return Derivatives(
        value=profiled_value(cp, state, solved, method),
        gradient=theta_gradient(parameters, factors, G_T),
        hessian=average_information(cp, quadratic, slope, solved, method) + theta_curvature(parameters, G_T),
        G_T=G_T,
        sigma2=residual_variance(cp, solved, method),
        factors=factors,
        state=state,
        solved=solved,
        projected=projected,
        quadratic=quadratic,
        slope=slope,
        cp=cp,
        phi=np.zeros(0),
    )


def solve(cp: CrossProducts, factors: Sequence[Array]) -> tuple[State, Solved, Projections]:
    """Elimination, generalised least squares and projections at one Lambda, dense or by cells."""
    if cp.cells is not None:
        sparse_state = sparse.eliminate(cp, factors)
        solved = solve_fixed(sparse_state.products)
        return sparse_state, solved, sparse.project(cp, factors, sparse_state, solved)
    state = eliminate(cp, factors)
    solved = solve_fixed(state.products)
    return state, solved, project(cp, factors, state, solved)


def freedom(cp: CrossProducts, method: Method) -> int:
    """Degrees of freedom that the residual variance is estimated with."""
    return cp.n - cp.p if method == "reml" else cp.n


def _rss(solved: Solved) -> float:
    # a residual sum of squares that is all rounding may come out negative: such a point has no value
    return float(solved.rss) if solved.rss > 0 else np.nan


def residual_variance(cp: CrossProducts, solved: Solved, method: Method) -> float:
    """sigma²: what maximises the criterion at this Lambda, or 1 where the residual variances are known."""
    return 1.0 if cp.known_sigma2 else _rss(solved) / freedom(cp, method)


def weight(cp: CrossProducts, solved: Solved, method: Method) -> float:
    """What y'P*V_r P*y counts for in a derivative of the criterion: 1 / sigma²."""
    return 1.0 / residual_variance(cp, solved, method)


def profiled_value(cp: CrossProducts, state: State, solved: Solved, method: Method) -> float:
    """The criterion from an elimination and its least squares."""
    nu = freedom(cp, method)
    value = float(state.log_det) + cp.log_scale + nu * LOG_2PI
    value += float(solved.rss) if cp.known_sigma2 else nu * (1 + float(np.log(_rss(solved) / nu)))
    if method == "reml":
        value += float(solved.log_det_x) - 2 * cp.log_det_X_map
    return value


def slopes(cp: CrossProducts, at: Projections, inverse_variance: float, method: Method) -> tuple[Array, ...]:
    """Derivative of the criterion in T, factor by factor."""
    return tuple(at.gram(f, method) - inverse_variance * (at.u[f].T @ at.u[f]) for f in range(len(cp.sizes)))


def theta_gradient(parameters: Parameters, factors: Sequence[Array], G_T: Sequence[Array]) -> Array:
    """d obj / d theta_k = 2 <G_T Lambda, E_k>."""
    parts = [
        2 * (E.reshape(len(E), S.size) @ (S @ Lambda).ravel())
        for E, S, Lambda in zip(parameters.basis, G_T, factors, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def directions(parameters: Parameters, factors: Sequence[Array], u: Sequence[Array]) -> list[Array]:
    """Per factor (G q, k) images of u under dT/dtheta, a column per element; zero for other factors' elements."""
    out, start = [], 0
    for E, Lambda, part in zip(parameters.basis, factors, u, strict=True):
        G, q = part.shape
        turned = Lambda @ E.swapaxes(1, 2)
        own = (part @ (turned + turned.swapaxes(1, 2)).swapaxes(0, 1).reshape(q, -1)).reshape(G, len(E), q)
        whole = np.zeros((G, q, len(parameters)))
        whole[:, :, start : start + len(E)] = own.swapaxes(1, 2)
        start += len(E)
        out.append(whole.reshape(G * q, -1))
    return out


def average_information(cp: CrossProducts, quadratic: Array, slope: Array, solved: Solved, method: Method) -> Array:
    """Average information of the parameters, sigma² profiled out unless known: positive semi-definite."""
    if cp.known_sigma2:
        return quadratic
    rss = _rss(solved)
    relative = slope / rss  # squares of rss leave the range of doubles long before rss does
    return np.asarray(freedom(cp, method) * (quadratic / rss - np.outer(relative, relative)))


def theta_curvature(parameters: Parameters, G_T: Sequence[Array]) -> Array:
    """Second derivatives of T = Lambda Lambda' weighted by G_T: what is left of the Hessian where theta is 0."""
    k = len(parameters)
    out = np.zeros((k, k))
    start = 0
    for E, S in zip(parameters.basis, G_T, strict=True):
        here = slice(start, start + len(E))
        out[here, here] = 2 * (E.reshape(len(E), S.size) @ (S @ E).reshape(len(E), S.size).T)
        start += len(E)
    return out
