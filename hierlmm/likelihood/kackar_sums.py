"""What estimating the variance parameters adds to the prediction error of a sum k'beta + l'b.

The predictor is a'y with a' = k'(X'V⁻¹X)⁻¹X'V⁻¹ + l'GZ'P. Where V = sigma² (Z T Z' + R) moves in T alone, by S in
direction r, its derivative is w'S Z'P* with

    w = l - Z'P*Z T l - Z'V*⁻¹X (X'V*⁻¹X)⁻¹ k,

so that with C the covariance matrix of the estimates of T the added error is

    g3 = tr[(da/dpsi) V (da/dpsi)' I⁻¹] = sigma² sum over r, s of C_rs w'S_r (Z'P*Z) S_s w,

a quadratic form in (l, k). It has the derivative of beta's own estimate in it, as Kackar and Harville have; for l = 0
it is the term of Kenward and Roger's covariance of beta. `kackar` gives the same for b alone without that derivative,
as Das, Jiang and Rao do: there the two differ by terms that vanish faster than g3.

Source: Kackar & Harville (1984), JASA 79:853-862; Harville & Jeske (1992), JASA 87:724-731; Kenward & Roger (1997),
Biometrics 53:983-997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.information import WHOLE, whole_projection
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Derivatives, Projected
from hierlmm.likelihood.triangular import solve_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Numbers in one batch of gathered quadratic forms: 32 MB.
BATCH = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Directions in which the relative covariances T move, working scale: per direction a symmetric (q, q) matrix for
    each factor in elimination order; covariance (k, k) of the estimates of their coordinates."""

    S: tuple[tuple[Array, ...], ...]
    covariance: Array

    def principal(self) -> list[tuple[float, tuple[Array, ...]]]:
        """The same as uncorrelated directions: (variance, matrices), those that move left out."""
        sd = np.sqrt(np.diagonal(self.covariance))
        safe = np.where(sd > 0, sd, 1.0)
        # of the correlations, because the units differ
        values, vectors = np.linalg.eigh(self.covariance / np.outer(safe, safe))
        out = []
        for value, vector in zip(values, vectors.T, strict=True):
            if value > 0:
                parts = zip(*self.S, strict=True)
                out.append((float(value), tuple(np.tensordot(vector * sd, np.stack(own), axes=1) for own in parts)))
        return out


def is_available(cp: CrossProducts) -> bool:
    """Whether the quadratic form fits in memory: one factor, or all effects together no more than WHOLE."""
    return cp.cells is None and (len(cp.sizes) <= 1 or sum(G * q for G, q in cp.sizes) <= WHOLE)


def added_variance(
    cp: CrossProducts, at: Derivatives, moves: Moves, X: Array, Z: Sequence[Array], codes: Sequence[Codes]
) -> Array:
    """(k,) g3 of x'beta + sum of z'b at k rows.

    cp     with Z_map the identity: the working scale of the effects
    X      (k, p) columns on the working scale, x X_map; Z, codes per factor in elimination order, z on the working
           scale; a code of -1 has no part in the sum
    Takes what `is_available` says is there.
    """
    if not cp.sizes or not len(X):
        return np.zeros(len(X))
    assert isinstance(at.projected, Projected)
    kappa = solve_lower(at.solved.L_x, X.T).T if cp.p else X
    if len(cp.sizes) == 1:
        forms = _by_level(cp, at, at.projected, moves)
        own, z = codes[0], np.where(codes[0][:, None] >= 0, Z[0], 0.0)
        values = np.concatenate([z, kappa], axis=1)
        width = values.shape[1]
        parts = _batches(len(X), width)
        out = [np.einsum("ki,kij,kj->k", values[part], forms[own[part]], values[part]) for part in parts]
        return np.asarray(at.sigma2 * np.maximum(np.concatenate(out), 0.0))
    form = _whole(cp, at, at.projected, moves)
    place, values = _gathered(cp, kappa, Z, codes)
    out = [
        np.einsum("ki,kij,kj->k", values[part], form[place[part, :, None], place[part, None, :]], values[part])
        for part in _batches(len(X), values.shape[1])
    ]
    return np.asarray(at.sigma2 * np.maximum(np.concatenate(out), 0.0))


def _batches(rows: int, width: int) -> list[slice]:
    step = max(1, BATCH // max(width * width, 1))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _by_level(cp: CrossProducts, at: Derivatives, projected: Projected, moves: Moves) -> Array:
    """(G, q + p, q + p) forms in (l, L_x⁻¹k) of the rows of each level of a single factor.

    With Z'P*Z = N - H'H, N block diagonal, w is U'l in the level itself and H_g'v in every level g, v = H T l - L_x⁻¹k.
    """
    (G, q), p = cp.sizes[0], cp.p
    N, H = projected.lead_N, projected.half.reshape(p, G, q).swapaxes(0, 1)
    T = at.factors[0] @ at.factors[0].T
    rows = np.zeros((G, q + p, q + p))
    rows[:, :q, :q] = np.eye(q) - T @ N
    rows[:, :q, q:] = T @ H.swapaxes(-1, -2)
    rows[:, q:, q:] = -np.eye(p)
    out = np.zeros_like(rows)
    for variance, (S,) in moves.principal():
        HS = H @ S
        inner = np.empty_like(rows)
        inner[:, :q, :q] = S @ N @ S
        inner[:, :q, q:] = S @ N @ HS.swapaxes(-1, -2)
        inner[:, q:, :q] = inner[:, :q, q:].swapaxes(-1, -2)
        inner[:, q:, q:] = (HS @ N @ HS.swapaxes(-1, -2)).sum(axis=0)
        low = np.concatenate([HS, np.broadcast_to((HS @ H.swapaxes(-1, -2)).sum(axis=0), (G, p, p))], axis=-1)
        out += variance * (rows @ (inner - low.swapaxes(-1, -2) @ low) @ rows.swapaxes(-1, -2))
    return out


def _whole(cp: CrossProducts, at: Derivatives, projected: Projected, moves: Moves) -> Array:
    """(Q + p, Q + p) the form in (l, L_x⁻¹k) over all effects of all factors."""
    R = projected.half_rest.shape[1]
    M = whole_projection(cp, at, "reml")
    fixed = np.concatenate([projected.half[R:], projected.half_rest[R:]], axis=1)
    T = [Lambda @ Lambda.T for Lambda in at.factors]
    rows = np.concatenate([np.eye(len(M)) - _spread(cp, T, M), -fixed])
    out = np.zeros((len(rows), len(rows)))
    for variance, S in moves.principal():
        turned = _spread(cp, S, rows.T).T
        out += variance * (turned @ M @ turned.T)
    return out


def _spread(cp: CrossProducts, blocks: Sequence[Array], B: Array) -> Array:
    """(I ⊗ block) of each factor, times B (Q, m)."""
    parts, start = [], 0
    for (G, q), block in zip(cp.sizes, blocks, strict=True):
        here = B[start : start + G * q].reshape(G, q, -1)
        parts.append((block @ here).reshape(G * q, -1))
        start += G * q
    return np.concatenate(parts)


def _gathered(cp: CrossProducts, kappa: Array, Z: Sequence[Array], codes: Sequence[Codes]) -> tuple[Codes, Array]:
    """Places (k, m) in (b, beta) of what each row's sum has in it, and its coefficients (k, m)."""
    places, values, start = [], [], 0
    for (G, q), z, own in zip(cp.sizes, Z, codes, strict=True):
        seen = own[:, None] >= 0
        places.append(np.where(seen, start + own[:, None] * q + np.arange(q), start))
        values.append(np.where(seen, z, 0.0))
        start += G * q
    places.append(np.broadcast_to(start + np.arange(cp.p), kappa.shape))
    return np.concatenate(places, axis=1), np.concatenate([*values, kappa], axis=1)
