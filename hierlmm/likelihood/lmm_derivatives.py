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
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
from hierlmm.likelihood.triangular import dense_lower, solve_lower, solve_upper

Array = NDArray[np.float64]
Method = Literal["ml", "reml"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Where each free element of theta sits: theta[k] is Lambda[factor[k]][row[k], column[k]].

    Elements run by factor (elimination order), block, column, then row, as lme4 orders its theta.
    """

    factor: tuple[int, ...]
    row: tuple[int, ...]
    column: tuple[int, ...]
    widths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, cp: CrossProducts) -> Parameters:
        """The free elements of lower triangular factors with the block pattern of `cp`."""
        places = [
            (f, block[r], block[c])
            for f, blocks in enumerate(cp.blocks)
            for block in blocks
            for c in range(len(block))
            for r in range(c, len(block))
        ]
        factor, row, column = zip(*places, strict=True) if places else ((), (), ())
        return cls(tuple(factor), tuple(row), tuple(column), tuple(q for _, q in cp.sizes))

    def factors(self, theta: Array) -> tuple[Array, ...]:
        """Lower triangular templates, one per grouping factor, of a vector theta."""
        out = tuple(np.zeros((q, q)) for q in self.widths)
        for k, (f, r, c) in enumerate(zip(self.factor, self.row, self.column, strict=True)):
            out[f][r, c] = theta[k]
        return out

    def theta(self, factors: Sequence[Array]) -> Array:
        """The free elements of the templates."""
        return np.array(
            [factors[f][r, c] for f, r, c in zip(self.factor, self.row, self.column, strict=True)], dtype=float
        )


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """Z'PZ and Z'Py in the pieces that the derivatives and the predictions need.

    K         (R + p, R + p) Cholesky factor of the trailing system [Lambda'SLambda + I, .; X'.., X'V⁻¹X]
    half      (R + p, G q) K⁻¹ J'V_lead⁻¹ Z_lead, J = [Z_rest Lambda, X]
    lead_N    (G, q, q) Z_l'V_l⁻¹Z_l; lead_F (G, q, m) Z_l'V_l⁻¹[Z_rest, X, y]
    half_rest (R + p, R) K⁻¹ J'V_lead⁻¹ Z_rest
    u         per factor (levels, q) Z'P*y
    """

    K: Array
    half: Array
    lead_N: Array
    lead_F: Array
    half_rest: Array
    u: tuple[Array, ...]


def project(cp: CrossProducts, factors: Sequence[Array], state: Eliminated, solved: Solved) -> Projected:
    """Project the random-effects columns off what has been eliminated, at one (unbatched) Lambda."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    lead = factors[0] if factors else np.eye(1)
    back = solve_upper(state.L_lead, state.W_lead)
    lead_F = cp.lead_rest - cp.lead @ (lead @ back)
    AL = cp.lead @ lead
    inner = solve_upper(state.L_lead, solve_lower(state.L_lead, AL.swapaxes(-1, -2)))
    lead_N = cp.lead - AL @ inner
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
    return Projected(K, half, lead_N, lead_F, half_rest, tuple(u[: len(cp.sizes)]))


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """Criterion, gradient and Hessian at one theta.

    value     -2 log likelihood (ML) or restricted log likelihood (REML), sigma² profiled out
    gradient  (k,) exact; hessian (k, k) average information plus the exact curvature of T in theta
    G_T       per factor (q, q) derivative in T, symmetric: positive on directions that the data do not want
    sigma2    profiled residual variance; factors, state, solved, projected: what it was computed from
    """

    value: float
    gradient: Array
    hessian: Array
    G_T: tuple[Array, ...]
    sigma2: float
    factors: tuple[Array, ...]
    state: Eliminated
    solved: Solved
    projected: Projected


def derivatives(cp: CrossProducts, parameters: Parameters, theta: Array, method: Method) -> Derivatives:
    """Criterion, exact gradient and average-information Hessian at theta."""
    factors = parameters.factors(theta)
    state = eliminate(cp, factors)
    solved = solve_fixed(state.products)
    projected = project(cp, factors, state, solved)
    nu = cp.n - cp.p if method == "reml" else cp.n
    # a residual sum of squares that is all rounding may come out negative: such a point has no value
    rss = float(solved.rss) if solved.rss > 0 else np.nan
    value = float(state.log_det) + nu * (1 + LOG_2PI + float(np.log(rss / nu)))
    if method == "reml":
        value += float(solved.log_det_x) - 2 * cp.log_det_X_map
    G_T = slopes(cp, state, projected, nu / rss, method)
    gradient = np.array(
        [
            2 * G_T[f][r] @ factors[f][:, c]
            for f, r, c in zip(parameters.factor, parameters.row, parameters.column, strict=True)
        ]
    )
    hessian = _information(cp, parameters, factors, state, projected, nu, rss) + _curvature(parameters, G_T)
    return Derivatives(value, gradient, hessian, G_T, rss / nu, factors, state, solved, projected)


def slopes(
    cp: CrossProducts, state: Eliminated, at: Projected, weight: float, method: Method
) -> tuple[Array, ...]:
    """Derivative of the criterion in T, factor by factor."""
    R = cp.rest.shape[0] - cp.p - 1
    rows = slice(None) if method == "reml" else slice(0, R)
    out = []
    start = 0
    for f, (G, q) in enumerate(cp.sizes):
        if f == 0:
            M, half = at.lead_N.sum(axis=0), at.half[rows]
        else:
            here = slice(start, start + G * q)
            start += G * q
            M = np.einsum("lalb->ab", state.after_lead[here, here].reshape(G, q, G, q))
            half = at.half_rest[rows, here]
        stacked = half.reshape(-1, q)
        u = at.u[f]
        out.append(M - stacked.T @ stacked - weight * (u.T @ u))
    return tuple(out)


def _directions(parameters: Parameters, factors: Sequence[Array], u: Sequence[Array], which: int) -> Array:
    """(G q, k) images of u under dT/dtheta, a column per element of theta; zero for other factors' elements."""
    G, q = u[which].shape
    out = np.zeros((G, q, len(parameters)))
    Lambda = factors[which]
    for k, (f, r, c) in enumerate(zip(parameters.factor, parameters.row, parameters.column, strict=True)):
        if f == which:
            out[:, :, k] = u[which][:, r, None] * Lambda[:, c]
            out[:, r, k] += u[which] @ Lambda[:, c]
    return out.reshape(G * q, -1)


def _information(
    cp: CrossProducts,
    parameters: Parameters,
    factors: Sequence[Array],
    state: Eliminated,
    at: Projected,
    nu: int,
    rss: float,
) -> Array:
    """Average information of theta with sigma² profiled out: positive semi-definite by construction."""
    if not len(parameters):
        return np.zeros((0, 0))
    R = cp.rest.shape[0] - cp.p - 1
    lead = _directions(parameters, factors, at.u, 0)
    G, q = cp.sizes[0]
    turned = (at.lead_N @ lead.reshape(G, q, -1)).reshape(G * q, -1)
    half = at.half @ lead
    slope = at.u[0].ravel() @ lead
    direct = lead.T @ turned
    if R:
        others = range(1, len(cp.sizes))
        rest = np.concatenate([_directions(parameters, factors, at.u, f) for f in others])
        across = lead.T @ (at.lead_F[..., :R].reshape(G * q, R) @ rest)
        direct = direct + across + across.T + rest.T @ (state.after_lead[:R, :R] @ rest)
        half = half + at.half_rest @ rest
        slope = slope + np.concatenate([at.u[f].ravel() for f in others]) @ rest
    information = direct - half.T @ half
    relative = slope / rss  # squares of rss leave the range of doubles long before rss does
    return np.asarray(nu * (information / rss - np.outer(relative, relative)))


def _curvature(parameters: Parameters, G_T: Sequence[Array]) -> Array:
    """Second derivatives of T = Lambda Lambda' weighted by G_T: what is left of the Hessian where theta is 0."""
    k = len(parameters)
    out = np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            if parameters.factor[i] == parameters.factor[j] and parameters.column[i] == parameters.column[j]:
                out[i, j] = 2 * G_T[parameters.factor[i]][parameters.row[i], parameters.row[j]]
    return out
