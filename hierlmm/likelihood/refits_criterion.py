"""ML and REML criterion, exact gradient and average-information Hessian for many responses at once.

The formulas are those of `lmm` and `lmm_derivatives`, written in sums over patterns of levels: with
C = I - Z'Z K, K = Lambda (Lambda'Z'Z Lambda + I)⁻¹ Lambda', all products with the leading factor's V⁻¹ are
Z'V⁻¹[Z, J] = C Z'[Z, J], and u = Z'P*y = C (Z'y - Z'J delta) with the joint coefficients delta of [Z_rest, X].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import LOG_2PI
from hierlmm.likelihood.refits_layout import Layout
from hierlmm.likelihood.refits_products import Replies, Shared
from hierlmm.likelihood.refits_systems import cholesky, log_diagonal, solve_lower

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """Generalised least squares for n responses, each at its own theta.

    factors  per factor (q, q, n) Lambda
    gain (U, q, q, n) K; keep (U, q, q, n) C
    S (k, k, n) J'V_lead⁻¹J; hy (k, n) J'V_lead⁻¹y
    root (k, k, n) rows P with P'P the inverse of J's system, in raw columns; delta (k, n)
    value (n,) the criterion, nan where it has none; rss (n,) y'P*y; sigma2 (n,) the residual variance
    """

    factors: tuple[Array, ...]
    gain: Array
    keep: Array
    S: Array
    hy: Array
    root: Array
    delta: Array
    value: Array
    rss: Array
    sigma2: Array


def solve(shape: Shared, factors: tuple[Array, ...], data: Replies) -> Solved:
    """Eliminate all effects of n responses at Lambda, (q, q, n) per factor; any square root of T serves."""
    n, p, R = len(data), shape.p, shape.R
    k = p + R
    q = shape.lead.shape[-1]
    lead = factors[0] if factors else np.ones((1, 1, n))
    half = np.einsum("uab,bcn->uacn", shape.lead, lead)
    H = np.einsum("ban,ubcn->uacn", lead, half) + np.eye(q)[..., None]
    L = cholesky(H)
    Y = solve_lower(L, np.broadcast_to(lead.swapaxes(0, 1), H.shape))
    gain = np.einsum("ucan,ucbn->uabn", Y, Y)
    keep = np.eye(q)[..., None] - np.einsum("uab,ubcn->uacn", shape.lead, gain)
    S = shape.rest[..., None] - (shape.moments @ gain.reshape(len(gain) * q * q, n)).reshape(k, k, n)
    moved = np.einsum("uabn,ubn->uan", gain, data.once).reshape(len(gain) * q, n)
    hy = data.trailing - shape.across.reshape(len(moved), k).T @ moved
    square = data.square - np.einsum("uabn,uabn->n", gain, data.twice)
    K = cholesky(_trailing(shape, factors, S))
    root = solve_lower(K, _turn(shape, factors, np.broadcast_to(np.eye(k)[..., None], (k, k, n))))
    z = np.einsum("ijn,jn->in", root, hy)
    rss = square - np.einsum("in,in->n", z, z)
    if not shape.known_sigma2:
        rss = np.where(rss > 0, rss, np.nan)  # what is all rounding may come out negative: no value there
    logs = np.log(np.einsum("iin->in", K))
    log_det = 2 * (shape.count @ log_diagonal(L) + logs[:R].sum(0))
    if shape.method == "reml":
        log_det = log_det + 2 * logs[R:].sum(0)
    delta = np.einsum("ijn,in->jn", root, z)
    value, sigma2 = _profiled(shape, log_det, rss)
    return Solved(factors, gain, keep, S, hy, root, delta, value, rss, sigma2)


def _profiled(shape: Shared, log_det: Array, rss: Array) -> tuple[Array, Array]:
    """The criterion and the residual variance."""
    nu = shape.nu
    if shape.known_sigma2:
        return log_det + shape.constant + nu * LOG_2PI + rss, np.ones_like(rss)
    sigma2 = rss / nu
    return log_det + shape.constant + nu * (1 + LOG_2PI + np.log(sigma2)), sigma2


def _turn(shape: Shared, factors: tuple[Array, ...], rows: Array) -> Array:
    """(k, m, n) rows of [Z_rest, X] after Lambda' has been applied to those of Z_rest."""
    if shape.R == 0:
        return rows
    out = np.empty(rows.shape)
    start = 0
    for (G, q), Lambda in zip(shape.sizes[1:], factors[1:], strict=True):
        here = slice(start, start + G * q)
        stacked = rows[here].reshape(G, q, *rows.shape[1:])
        out[here] = np.einsum("ban,gbmn->gamn", Lambda, stacked).reshape(G * q, *rows.shape[1:])
        start += G * q
    out[start:] = rows[start:]
    return out


def _trailing(shape: Shared, factors: tuple[Array, ...], S: Array) -> Array:
    """(k, k, n) system of the other factors' spherical effects and beta."""
    if shape.R == 0:
        return S
    turned = _turn(shape, factors, _turn(shape, factors, S).swapaxes(0, 1))
    place = np.arange(shape.R)
    turned[place, place] += 1.0
    return turned


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """What the derivatives read of Z'P*Z and Z'P*y.

    F (U, q, k, n) Z'V⁻¹J; q (U, q, n) and Q (U, q, q, n) sums over the levels of each pattern of u and u u';
    rest (R, n) u of the other factors; G_T per factor (q, q, n) derivative of the criterion in T
    """

    F: Array
    q: Array
    Q: Array
    rest: Array
    G_T: tuple[Array, ...]


def effects(shape: Shared, data: Replies, at: Solved) -> Effects:
    """Z'P*y by pattern, and the derivative of the criterion in each T."""
    n, R, count = len(data), shape.R, shape.count[:, None, None]
    F = np.einsum("uabn,ubk->uakn", at.keep, shape.across)
    fit = np.tensordot(shape.across, at.delta, axes=1)
    once = data.once - count * fit
    cross = once[:, :, None] * fit[:, None]
    twice = data.twice - fit[:, :, None] * data.once[:, None] - cross
    q = np.einsum("uabn,ubn->uan", at.keep, once)
    Q = np.einsum("uabn,ucbn->uacn", np.einsum("uabn,ubcn->uacn", at.keep, twice), at.keep)
    rows = at.root if shape.method == "reml" else at.root[:R]
    weight = 1 / at.sigma2
    half = np.einsum("jkn,uakn->ujan", rows, F) * np.sqrt(count)[..., None]
    N = np.einsum("uabn,ubc->acn", at.keep, count * shape.lead)
    lead = N - np.einsum("ujan,ujbn->abn", half, half) - weight * Q.sum(0)
    if R == 0:
        return Effects(F, q, Q, np.zeros((0, n)), (lead,))
    u = at.hy[:R] - np.einsum("rkn,kn->rn", at.S[:R], at.delta)
    back = np.einsum("jkn,krn->jrn", rows, at.S[:, :R])
    G_T, start = [lead], 0
    for G, width in shape.sizes[1:]:
        here = slice(start, start + G * width)
        start += G * width
        own = np.einsum("gagbn->abn", at.S[here, here].reshape(G, width, G, width, n))
        part = back[:, here].reshape(-1, width, n)
        each = u[here].reshape(G, width, n)
        G_T.append(own - np.einsum("jan,jbn->abn", part, part) - weight * np.einsum("gan,gbn->abn", each, each))
    return Effects(F, q, Q, u, tuple(G_T))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """value (n,), gradient (E, n) exact, hessian (E, E, n) average information and exact curvature of T."""

    value: Array
    gradient: Array
    hessian: Array

    def __getitem__(self, at: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        return Points(self.value[at], self.gradient[:, at], self.hessian[:, :, at])


def points(shape: Shared, layout: Layout, data: Replies, theta: Array) -> Points:
    """Criterion, gradient and Hessian of n responses at theta (E, n)."""
    at = solve(shape, layout.factors(theta), data)
    if not len(layout):
        return Points(at.value, np.zeros((0, len(data))), np.zeros((0, 0, len(data))))
    found = effects(shape, data, at)
    turns = tuple(_turns(D, Lambda) for D, Lambda in zip(layout.basis, at.factors, strict=True))
    gradient = np.concatenate([np.einsum("eabn,abn->en", E, G) for E, G in zip(turns, found.G_T, strict=True)])
    hessian = _information(shape, at, found, turns)
    for here, bend, G in zip(layout.place, layout.bends, found.G_T, strict=True):
        size = here.stop - here.start
        hessian[here, here] += (bend @ G.reshape(-1, len(data))).reshape(size, size, -1)
    return Points(at.value, gradient, hessian)


def _turns(D: Array, Lambda: Array) -> Array:
    """(E_f, q, q, n) derivatives of T = Lambda Lambda' in theta."""
    half = np.einsum("eac,bcn->eabn", D, Lambda)
    return np.asarray(half + half.swapaxes(1, 2))


def _information(shape: Shared, at: Solved, found: Effects, turns: tuple[Array, ...]) -> Array:
    """Average information of theta, sigma² profiled out: y'P dV P dV P y by the images of u under dT."""
    E, R = turns[0], shape.R
    N = np.einsum("uabn,ubc->uacn", at.keep, shape.lead)
    both = np.einsum("uabn,ucdn->abcdn", N, found.Q)
    direct = np.einsum("ebcn,fbcn->efn", np.einsum("eian,abcin->ebcn", E, both), E)
    g = np.einsum("eabn,abkn->ekn", E, np.einsum("uakn,ubn->abkn", found.F, found.q))
    slope = np.einsum("eabn,abn->en", E, found.Q.sum(0))
    if R:
        images = _images(shape, found.rest, turns)
        own = np.einsum("krn,ern->ekn", at.S[:, :R], images)
        across = np.einsum("ern,frn->efn", g[:, :R], images)
        inner = np.einsum("ern,frn->efn", own[:, :R], images)
        direct = np.concatenate(
            [np.concatenate([direct, across], axis=1), np.concatenate([across.swapaxes(0, 1), inner], axis=1)]
        )
        g = np.concatenate([g, own])
        slope = np.concatenate([slope, np.einsum("ern,rn->en", images, found.rest)])
    half = np.einsum("jkn,ekn->ejn", at.root, g)
    information = direct - np.einsum("ejn,fjn->efn", half, half)
    if shape.known_sigma2:
        return np.asarray(information)
    relative = slope / at.rss  # squares of rss leave the range of doubles long before rss does
    return np.asarray(shape.nu * (information / at.rss - relative[:, None] * relative[None]))


def _images(shape: Shared, u: Array, turns: tuple[Array, ...]) -> Array:
    """(E_rest, R, n) images of the other factors' u under dT, zero for the levels of a factor without the element."""
    n = u.shape[-1]
    out = np.zeros((sum(len(E) for E in turns[1:]), len(u), n))
    row = start = 0
    for (G, q), E in zip(shape.sizes[1:], turns[1:], strict=True):
        here = u[start : start + G * q].reshape(G, q, n)
        out[row : row + len(E), start : start + G * q] = np.einsum("eabn,gbn->egan", E, here).reshape(len(E), -1, n)
        row, start = row + len(E), start + G * q
    return out
