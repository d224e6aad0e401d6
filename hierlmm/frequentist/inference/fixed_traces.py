"""tr(P V_r P V_s), y'P V_r P V_s P y and X'V⁻¹V_rV⁻¹X of a fit, from its cross-products.

With M = Z'P*Z and F = Z'V*⁻¹X L⁻ᵀ, L L' = X'V*⁻¹X, all in units in which Var(beta) = sigma² (X_map L⁻ᵀ)(X_map L⁻ᵀ)' is
whitened to the identity:

    tr(P V_r P V_s) = tr(M S_r M S_s),    Phi^-½ dPhi/dr Phi^-½ = F'S_rF,
    Phi^½ (X'V⁻¹V_rV⁻¹V_sV⁻¹X - X'V⁻¹V_rV⁻¹X Phi X'V⁻¹V_sV⁻¹X) Phi^½ = F'S_r M S_sF,

S_r standing for I ⊗ S_r. M is block diagonal less a product of low rank, so that its squares need no n x n matrix.
Where the products between factors stand in cells, tr(M S_r M S_s) is minus the derivative of tr(M S_s) in direction
r, and is formed by differences of that exact sum, extrapolated.

Source: Harville & Jeske (1992), JASA 87:724-731; Kenward & Roger (1997), Biometrics 53:983-997.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.fixed_directions import Directions, moved, reach
from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Derivatives, Method, Projected, freedom, solve
from hierlmm.likelihood.sparse import SparseProjected
from hierlmm.likelihood.triangular import solve_lower

Array = NDArray[np.float64]

# Steps of the differences, as a share of the distance to the boundary: after two extrapolations the error is that of
# the sixth power.
SHARE = 0.05
# First step away from a boundary, relative to what one level's data tell.
AWAY = 1e-3


def trace_matrix(cp: CrossProducts, at: Derivatives, method: Method, directions: Directions) -> Array:
    """(k + 1, k + 1) tr(P V_r P V_s), the first direction V itself; V⁻¹ stands for P under ML."""
    k = len(directions)
    out = np.empty((k + 1, k + 1))
    out[0, 0] = freedom(cp, method)
    grams = [at.projected.gram(f, method) for f in range(len(cp.sizes))]
    out[0, 1:] = [float((grams[f] * S).sum()) for f, S in zip(directions.factor, directions.S, strict=True)]
    out[1:, 0] = out[0, 1:]
    if isinstance(at.projected, Projected):
        out[1:, 1:] = _dense(at.projected, method, directions)
    elif k:
        out[1:, 1:] = _by_differences(cp, method, directions, grams)
    return out


def quadratic_matrix(cp: CrossProducts, at: Derivatives, directions: Directions) -> Array:
    """(k + 1, k + 1) y'P V_r P V_s P y, the first direction V itself."""
    k, u = len(directions), at.projected.u
    out = np.empty((k + 1, k + 1))
    out[0, 0] = float(at.solved.rss)
    images = [part @ directions.S[r] for r, part in enumerate(u[f] for f in directions.factor)]
    out[0, 1:] = [float((image * u[f]).sum()) for f, image in zip(directions.factor, images, strict=True)]
    out[1:, 0] = out[0, 1:]
    if k:
        out[1:, 1:] = at.projected.inner(_spread(cp, directions, [image[..., None] for image in images]))
    return out / at.sigma2


def fixed_slopes(at: Derivatives, cp: CrossProducts, directions: Directions) -> tuple[Array, Array]:
    """Whitened (k + 1, p, p) derivatives of Cov(beta), that in V the identity; and (k, k, p, p) F'S_r M S_sF."""
    k, p = len(directions), cp.p
    F = whitened_fixed(at, cp)
    slopes = np.empty((k + 1, p, p))
    slopes[0] = np.eye(p)
    images = [directions.S[r] @ F[f] for r, f in enumerate(directions.factor)]
    for r, (f, image) in enumerate(zip(directions.factor, images, strict=True)):
        slopes[r + 1] = F[f].reshape(-1, p).T @ image.reshape(-1, p)
    if not k:
        return slopes, np.zeros((0, 0, p, p))
    gram = at.projected.inner(_spread(cp, directions, images))
    return slopes, gram.reshape(k, p, k, p).transpose(0, 2, 1, 3)


def whitened_fixed(at: Derivatives, cp: CrossProducts) -> list[Array]:
    """Per factor (G, q, p) F = Z'V*⁻¹X L⁻ᵀ."""
    projected = at.projected
    if isinstance(projected, Projected):
        R = projected.half_rest.shape[1]
        whole = np.concatenate([projected.half[R:], projected.half_rest[R:]], axis=1).T if cp.sizes else None
    else:
        assert isinstance(projected, SparseProjected)
        whole = solve_lower(projected.L_x, projected.E.T).T
    out, start = list[Array](), 0
    for G, q in cp.sizes:
        assert whole is not None
        out.append(np.ascontiguousarray(whole[start : start + G * q]).reshape(G, q, cp.p))
        start += G * q
    return out


def _spread(cp: CrossProducts, directions: Directions, images: Sequence[Array]) -> list[Array]:
    """Per factor (G q, k w) the images (G, q, w), zero for directions of other factors."""
    width = images[0].shape[-1]
    out = [np.zeros((G * q, len(images) * width)) for G, q in cp.sizes]
    for r, (f, image) in enumerate(zip(directions.factor, images, strict=True)):
        out[f][:, r * width : (r + 1) * width] = image.reshape(-1, width)
    return out


def projected_directions(cp: CrossProducts, directions: Directions) -> list[tuple[Array, ...]]:
    """Per direction and factor (G, q) Z'P*Z S_r Z'P*y, which is minus the derivative of Z'P*y: by differences."""

    def stacked(r: int, step: float) -> Array:
        u = solve(cp, moved(directions, r, step))[2].u
        return np.concatenate([part.ravel() for part in u])

    out = []
    for r in range(len(directions)):
        whole = -_central(partial(stacked, r), SHARE * reach(directions, r))
        ends = np.cumsum([G * q for G, q in cp.sizes])[:-1]
        parts = np.split(whole, ends)
        out.append(tuple(part.reshape(size) for part, size in zip(parts, cp.sizes, strict=True)))
    return out


def _dense(projected: Projected, method: Method, directions: Directions) -> Array:
    """(k, k) tr(M S_r M S_s) where M is dense beside its block diagonal leading part."""
    k, R = len(directions), projected.half_rest.shape[1]
    rows = slice(None) if method == "reml" else slice(0, R)
    half = projected.half[rows]
    lead = [r for r in range(k) if directions.factor[r] == 0]
    rest = [r for r in range(k) if directions.factor[r] > 0]
    out = np.zeros((k, k))
    out[np.ix_(lead, lead)] = _within_leading(projected, half, [directions.S[r] for r in lead])
    if not rest:
        return out
    G, q = projected.sizes[0]
    cross = projected.lead_F[..., :R].reshape(G * q, R) - half.T @ projected.half_rest[rows]
    inner = projected.after[:R, :R] - projected.half_rest[rows].T @ projected.half_rest[rows]
    starts = np.cumsum([0, *(levels * width for levels, width in projected.sizes[1:])])
    for s in rest:
        f = directions.factor[s]
        here = slice(starts[f - 1], starts[f])
        for r in lead:
            turned = _rows(directions.S[r], cross[:, here])
            out[r, s] = out[s, r] = float((turned * _columns(cross[:, here], directions.S[s])).sum())
        for r in rest:
            g = directions.factor[r]
            block = inner[starts[g - 1] : starts[g], here]
            out[r, s] = float((_rows(directions.S[r], block) * _columns(block, directions.S[s])).sum())
    return out


def _within_leading(projected: Projected, half: Array, S: Sequence[Array]) -> Array:
    """tr(M S_r M S_s) of the leading factor, M = N - half'half with N block diagonal."""
    N = projected.lead_N
    G, q = projected.sizes[0] if projected.sizes else (0, 1)
    H = half.reshape(len(half), G, q)
    low = np.einsum("kga,kgb->gab", H, H, optimize=True)
    turned = [(H @ matrix).reshape(half.shape) @ half.T for matrix in S]
    out = np.empty((len(S), len(S)))
    for i, left in enumerate(S):
        for j, right in enumerate(S[: i + 1]):
            own = ((left @ N) * ((N - low) @ right)).sum() - ((left @ low) * (N @ right)).sum()
            out[i, j] = out[j, i] = float(own + (turned[i] * turned[j].T).sum())
    return out


def _rows(S: Array, block: Array) -> Array:
    """(I ⊗ S) block."""
    q = len(S)
    return block * S[0, 0] if q == 1 else np.asarray((S @ block.reshape(-1, q, block.shape[1])).reshape(block.shape))


def _columns(block: Array, S: Array) -> Array:
    """block (I ⊗ S)."""
    q = len(S)
    return block * S[0, 0] if q == 1 else np.asarray((block.reshape(len(block), -1, q) @ S).reshape(block.shape))


def _by_differences(cp: CrossProducts, method: Method, directions: Directions, grams: Sequence[Array]) -> Array:
    """(k, k) tr(M S_r M S_s) = -d tr(M S_s) / dr by extrapolated differences of exact sums."""
    k = len(directions)

    def sums(r: int, step: float) -> Array:
        found = solve(cp, moved(directions, r, step))[2]
        moved_grams = [found.gram(f, method) for f in range(len(cp.sizes))]
        return np.array([(moved_grams[f] * S).sum() for f, S in zip(directions.factor, directions.S, strict=True)])

    start = np.array([(grams[f] * S).sum() for f, S in zip(directions.factor, directions.S, strict=True)])
    out = np.empty((k, k))
    for r in range(k):
        far = SHARE * reach(directions, r)
        G, q = cp.sizes[directions.factor[r]]
        away = AWAY * G * q / max(float(np.trace(grams[directions.factor[r]])), 1e-300)
        # a step that the data hardly feel would leave nothing but rounding of a central difference
        out[r] = -(_central(partial(sums, r), far) if far > 0.1 * away else _forward(partial(sums, r), start, away))
    return 0.5 * (out + out.T)


def _central(sums: Callable[[float], Array], h: float) -> Array:
    """First derivative by central differences at h, h/2, h/4, extrapolated twice."""
    first = [(sums(step) - sums(-step)) / (2 * step) for step in (h, h / 2, h / 4)]
    second = [(4 * b - a) / 3 for a, b in pairwise(first)]
    return np.asarray((16 * second[1] - second[0]) / 15)


def _forward(sums: Callable[[float], Array], start: Array, h: float) -> Array:
    """First derivative by forward differences at h, h/2, ..., extrapolated."""
    table = [(sums(step) - start) / step for step in (h, h / 2, h / 4, h / 8)]
    for order in range(1, len(table)):
        table = [(2**order * b - a) / (2**order - 1) for a, b in pairwise(table)]
    return np.asarray(table[0])
