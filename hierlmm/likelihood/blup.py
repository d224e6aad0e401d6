"""Best linear unbiased prediction: the joint distribution of beta and b given y and the variance parameters.

Henderson's mixed model equations, solved from the factors that the elimination has left. With J = (the other
factors' effects, beta), the errors of the trailing unknowns have covariance sigma² K⁻ᵀK⁻¹, and the leading
factor's effects are independent between levels given them. Everything is on the data scale when it leaves here,
and leading axes (one per draw of the variance parameters) are carried through.

Source: Henderson (1975), Biometrics 31:423-447; Robinson (1991), Statistical Science 6:15-32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts, Eliminated, Solved, trailing_factor, turn_columns
from hierlmm.likelihood.triangular import dense_lower, dense_upper, solve_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Mean and factored covariance of (b, beta) given y, at one Lambda and sigma² or at many.

    K        (..., R + p, R + p) lower factor of the trailing system; centre (..., R + p) its solution
    Yt       (..., G, q, q) L⁻¹Lambda' of the leading factor
    W_J      (..., G, q, R + p) and W_y (..., G, q): L⁻¹Lambda'Z'[J, y]
    factors  Lambda per factor; sigma2 (...)
    """

    K: Array
    centre: Array
    Yt: Array
    W_J: Array
    W_y: Array
    factors: tuple[Array, ...]
    sigma2: Array


def joint(
    cp: CrossProducts, factors: Sequence[Array], state: Eliminated, solved: Solved, sigma2: Array | float
) -> Joint:
    """The joint distribution from an elimination and its generalised least squares solution."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    batch = state.products.shape[:-2]
    K = trailing_factor(state, solved)
    half = np.empty((*batch, R + p, 1))
    half[..., :R, 0] = state.W_rest[..., p]
    half[..., R:, :] = solve_lower(solved.L_x, state.products[..., :p, p:]) if p else 0.0
    centre = dense_upper(K, half)[..., 0]
    lead = factors[0] if factors else np.eye(1)
    Yt = solve_lower(state.L_lead, np.broadcast_to(lead.swapaxes(-1, -2)[..., None, :, :], state.L_lead.shape))
    W = state.W_lead
    W_J = np.concatenate([turn_columns(cp, factors, W[..., :R]), W[..., R : R + p]], axis=-1)
    return Joint(K, centre, Yt, W_J, W[..., -1], tuple(factors), np.asarray(sigma2, dtype=float))


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """beta (..., p) and, per grouping factor in elimination order, b (..., G, q): data scale."""

    beta: Array
    b: tuple[Array, ...]


def means(cp: CrossProducts, at: Joint) -> Means:
    """Generalised least squares beta and the BLUPs."""
    return _on_data_scale(cp, at, at.centre, at.W_y - _times(at.W_J, at.centre))


def _times(W_J: Array, trailing: Array) -> Array:
    """(..., G, q): the leading factor's share of the trailing unknowns."""
    return (W_J @ trailing[..., None, :, None])[..., 0]


def _on_data_scale(cp: CrossProducts, at: Joint, trailing: Array, leading: Array) -> Means:
    """beta and b on the data scale from the trailing unknowns and the leading ones before Lambda L⁻ᵀ."""
    R = cp.rest.shape[0] - cp.p - 1
    beta = trailing[..., R:] @ cp.X_map.T + cp.X_shift
    if not cp.sizes:
        return Means(beta, ())
    spread = (at.Yt.swapaxes(-1, -2) @ leading[..., None])[..., 0]
    b = [spread @ cp.Z_map[0].T]
    start = 0
    for (G, q), Lambda, B in zip(cp.sizes[1:], at.factors[1:], cp.Z_map[1:], strict=True):
        here = trailing[..., start : start + G * q].reshape(*trailing.shape[:-1], G, q)
        start += G * q
        b.append(here @ (Lambda.swapaxes(-1, -2) @ B.T))
    return Means(beta, tuple(b))


def draw(cp: CrossProducts, at: Joint, rng: np.random.Generator, beta: Array | None = None) -> Means:
    """One exact draw of (beta, b) for each leading position of `at`; of b given `beta` (..., p) where that is known."""
    scale = np.sqrt(at.sigma2)
    noise = rng.standard_normal(at.centre.shape)
    if beta is not None and cp.p:
        # the noise that leads to this beta: the last rows of K' act on it alone
        work = np.linalg.solve(cp.X_map, (beta - cp.X_shift)[..., None])
        away = work - at.centre[..., -cp.p :, None]
        L_x = at.K[..., -cp.p :, -cp.p :]
        noise[..., -cp.p :] = (L_x.swapaxes(-1, -2) @ away)[..., 0] / scale[..., None]
    trailing = at.centre + scale[..., None] * dense_upper(at.K, noise[..., None])[..., 0]
    own = rng.standard_normal(at.W_y.shape)
    leading = at.W_y - _times(at.W_J, trailing) + scale[..., None, None] * own
    return _on_data_scale(cp, at, trailing, leading)


@dataclass(frozen=True, slots=True, eq=False)
class Covariances:
    """Second moments of the errors, data scale; per factor in elimination order.

    beta         (..., p, p) covariance of beta
    error        (..., G, q, q) Var(b̂ - b), the uncertainty of beta included
    conditional  (..., G, q, q) Var(b | y, beta): lme4's condVar
    with_beta    (..., G, p, q) Cov(beta, b̂ - b), negative of -(X'V⁻¹X)⁻¹X'V⁻¹ZG in sign: errors of both
    """

    beta: Array
    error: tuple[Array, ...]
    conditional: tuple[Array, ...]
    with_beta: tuple[Array, ...]


def covariances(cp: CrossProducts, at: Joint) -> Covariances:
    """Prediction error (co)variances of every level, and of beta."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    scale = at.sigma2[..., None, None]
    L_x = at.K[..., R:, R:]
    eye = np.broadcast_to(np.eye(p), L_x.shape)
    root = cp.X_map @ solve_lower(L_x, eye).swapaxes(-1, -2) if p else L_x
    beta = scale * root @ root.swapaxes(-1, -2)
    error, conditional, with_beta = [], [], []
    for f, rows in enumerate(_level_rows(cp, at)):
        half = _halves(at.K, rows)
        own = at.Yt.swapaxes(-1, -2) @ at.Yt if f == 0 else 0.0
        inner = half[..., :R, :].swapaxes(-1, -2) @ half[..., :R, :]
        outer = half[..., R:, :].swapaxes(-1, -2) @ half[..., R:, :]
        sign = -1.0 if f == 0 else 1.0
        B = cp.Z_map[f]
        each = scale[..., None, :, :]
        conditional.append(each * (B @ (own + inner) @ B.T))
        error.append(each * (B @ (own + inner + outer) @ B.T))
        with_beta.append(sign * each * (root[..., None, :, :] @ half[..., R:, :] @ B.T))
    return Covariances(beta, tuple(error), tuple(conditional), tuple(with_beta))


def _level_rows(cp: CrossProducts, at: Joint) -> list[Array]:
    """Per factor, (..., G, q, R + p): how each level's effects depend on the trailing unknowns."""
    if not cp.sizes:
        return []
    width = at.K.shape[-1]
    out = [at.Yt.swapaxes(-1, -2) @ at.W_J]
    start = 0
    for (G, q), Lambda in zip(cp.sizes[1:], at.factors[1:], strict=True):
        rows = np.zeros((*Lambda.shape[:-2], G, q, width))
        for level in range(G):
            rows[..., level, :, start + level * q : start + (level + 1) * q] = Lambda
        start += G * q
        out.append(rows)
    return out


def _halves(K: Array, rows: Array) -> Array:
    """K⁻¹ of each level's rows: (..., G, R + p, q)."""
    *batch, G, q, width = rows.shape
    flat = rows.reshape(*batch, G * q, width).swapaxes(-1, -2)
    solved = dense_lower(K, flat)
    return np.moveaxis(solved.reshape(*batch, width, G, q), -3, -2)


def sum_variance(cp: CrossProducts, at: Joint, X: Array, Z: Sequence[Array], codes: Sequence[Codes]) -> Array:
    """(..., k) variance of the error of x'beta + sum of z'b at k rows, over all factors jointly.

    X (k, p); per factor in elimination order Z (k, q) and codes (k,). A code of -1 (a level that was not
    observed) contributes nothing here: its effect is a draw from the population, to be added by the caller.
    """
    R = cp.rest.shape[0] - cp.p - 1
    batch = at.K.shape[:-2]
    k = len(X)
    trailing = np.zeros((*batch, k, at.K.shape[-1]))
    trailing[..., R:] = X @ cp.X_map
    start = 0
    row = np.arange(k)
    for f in range(1, len(cp.sizes)):
        G, q = cp.sizes[f]
        seen = codes[f] >= 0
        spread = (Z[f] @ cp.Z_map[f]) @ at.factors[f]
        for a in range(q):
            trailing[..., row[seen], start + codes[f][seen] * q + a] = spread[..., seen, a]
        start += G * q
    own = np.zeros((*batch, k))
    if cp.sizes:
        seen = codes[0] >= 0
        z = (Z[0] @ cp.Z_map[0])[seen]
        c = codes[0][seen]
        spread = (at.Yt[..., c, :, :] @ z[:, :, None])[..., 0]
        own[..., seen] = (spread**2).sum(-1)
        trailing[..., seen, :] -= (spread[..., None, :] @ at.W_J[..., c, :, :])[..., 0, :]
    half = dense_lower(at.K, trailing.swapaxes(-1, -2))
    return np.asarray(at.sigma2[..., None] * (own + (half**2).sum(-2)))
