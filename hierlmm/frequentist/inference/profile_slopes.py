"""The criterion with sigma² as a parameter, and its exact slopes, at many points of the parameter space at once.

    C(Lambda, phi, sigma) = log|V*| + nu log(2 pi sigma²) + y'P*y / sigma²  (+ log|X'V*⁻¹X| under REML),

beta profiled out (ML, nu = n) or integrated out (REML, nu = n - p). With a fixed effect a'beta held at a value that
is d from its estimate, ML only, the residual sum of squares grows by d²/v, v = a'(X'V*⁻¹X)⁻¹a, and the residuals are
those of beta + (X'V*⁻¹X)⁻¹a d/v. By the envelope theorem the slopes in Lambda are those at these residuals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.profile_effects import with_effect_held
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
from hierlmm.likelihood.lmm_derivatives import GRADED, Method, freedom
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.triangular import dense_lower, solve_lower, solve_upper

Array = NDArray[np.float64]

# Numbers held at once.
CHUNK = 4_000_000
# Determinant of a factor, relative to its largest element, below which it has no inverse to speak of.
SINGULAR = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """B points: factors (B, q, q) in elimination order with T = Lambda Lambda', phi (B, K), log_sigma (B,).

    direction (B, p) and distance (B,): the fixed effect on the working scale that is held, and how far from zero;
    None where beta is free.
    """

    factors: tuple[Array, ...]
    phi: Array
    log_sigma: Array
    direction: Array | None = None
    distance: Array | None = None

    def __len__(self) -> int:
        return len(self.log_sigma)

    def part(self, here: slice) -> Places:
        """The points of a slice."""
        return Places(
            tuple(Lambda[here] for Lambda in self.factors), self.phi[here], self.log_sigma[here],
            None if self.direction is None else self.direction[here],
            None if self.distance is None else self.distance[here],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """The criterion (B,) and its derivatives: factors (B, q, q), phi (B, K), log_sigma (B,), distance (B,)."""

    value: Array
    factors: tuple[Array, ...]
    phi: Array
    log_sigma: Array
    distance: Array

    @classmethod
    def joined(cls, parts: Sequence[Slopes]) -> Slopes:
        """Several batches as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.value for part in parts]),
            tuple(np.concatenate(same) for same in zip(*(part.factors for part in parts), strict=True)),
            np.concatenate([part.phi for part in parts]),
            np.concatenate([part.log_sigma for part in parts]),
            np.concatenate([part.distance for part in parts]),
        )


class Criterion(Protocol):
    """The criterion at many points."""

    def __call__(self, places: Places) -> Slopes: ...


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """All points at once, for independent residuals and products that are dense."""

    cp: CrossProducts
    method: Method

    def __call__(self, places: Places) -> Slopes:
        cp = self.cp
        each = cp.lead_rest.size + cp.lead.size + (cp.rest.shape[0] + 1) * (cp.rest.shape[0] + cp.lead.shape[0])
        size = max(1, CHUNK // max(each, 1))
        return Slopes.joined([self._chunk(places.part(slice(k, k + size))) for k in range(0, len(places), size)])

    def _chunk(self, at: Places) -> Slopes:
        cp, B = self.cp, len(at)
        lead = at.factors or (np.broadcast_to(np.eye(1), (B, 1, 1)),)
        with np.errstate(all="ignore"):
            state = eliminate(cp, lead)
            solved = solve_fixed(state.products)
            grams, u, held = _projected(cp, lead, state, solved, self.method, at)
        nu, weight = freedom(cp, self.method), np.exp(-2 * at.log_sigma)
        rss = np.asarray(solved.rss) + held.rss
        value = state.log_det + cp.log_scale + nu * (LOG_2PI + 2 * at.log_sigma) + rss * weight
        if self.method == "reml":
            value = value + solved.log_det_x - 2 * cp.log_det_X_map
        factors = tuple(
            2 * (M - weight[:, None, None] * (e.swapaxes(1, 2) @ e)) @ Lambda
            for M, e, Lambda in zip(grams, u, at.factors, strict=False)
        )
        return Slopes(value, factors, np.zeros((B, 0)), 2 * nu - 2 * rss * weight, held.slope * weight)


@dataclass(frozen=True, slots=True, eq=False)
class _HeldEffect:
    """What holding a fixed effect adds to the residual sum of squares, and the slope of that in the distance."""

    rss: Array
    slope: Array


def _projected(
    cp: CrossProducts, factors: Sequence[Array], state: Eliminated, solved: Solved, method: Method, at: Places
) -> tuple[list[Array], list[Array], _HeldEffect]:
    """Per factor (B, q, q) sums of blocks of Z'P*Z, (B, levels, q) Z'V*⁻¹r, and what a held effect adds."""
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    lead_F, lead_N = _lead_products(cp, factors[0], state)
    B, G, q, _ = lead_F.shape
    K = trailing_factor(state, solved)
    J = np.concatenate([turn_columns(cp, factors, lead_F[..., :R]), lead_F[..., R : R + p]], axis=-1)
    half = dense_lower(K, J.reshape(B, G * q, R + p).swapaxes(1, 2))
    S = state.after_lead
    J_rest, Jy = S[:, R : R + p, :R], S[:, R : R + p, -1:]
    if R:
        J_rest = np.concatenate([apply_rest(cp, factors, S[:, :R, :R]), J_rest], axis=1)
        Jy = np.concatenate([apply_rest(cp, factors, S[:, :R, -1:]), Jy], axis=1)
    half_rest = dense_lower(K, J_rest)
    half_y = dense_lower(K, Jy)[..., 0]
    held = _HeldEffect(np.zeros(B), np.zeros(B))
    shift = np.zeros((B, p))
    if at.direction is not None and at.distance is not None:
        w = dense_lower(solved.L_x, at.direction[..., None])[..., 0]
        v = (w * w).sum(axis=1)
        d = at.distance - (at.direction * solved.beta).sum(axis=1)
        held = _HeldEffect(d * d / v, 2 * d / v)
        shift = w * (d / v)[:, None]
    pull = half_y.copy()
    pull[:, R:] += shift
    u = [lead_F[..., -1] - (pull[:, None, :] @ half).reshape(B, G, q)]
    u_rest = S[:, :R, -1] - (pull[:, None, :] @ half_rest)[:, 0]
    rows = slice(None) if method == "reml" else slice(0, R)
    stacked = half[:, rows].reshape(B, -1, q)
    grams = [lead_N.sum(axis=1) - stacked.swapaxes(1, 2) @ stacked]
    start = 0
    for levels, width in cp.sizes[1:]:
        here = slice(start, start + levels * width)
        start += levels * width
        u.append(u_rest[:, here].reshape(B, levels, width))
        own = np.einsum("blalc->bac", S[:, here, here].reshape(B, levels, width, levels, width))
        part = half_rest[:, rows, here].reshape(B, -1, width)
        grams.append(own - part.swapaxes(1, 2) @ part)
    return grams, u, held


def _lead_products(cp: CrossProducts, lead: Array, state: Eliminated) -> tuple[Array, Array]:
    """(B, G, q, m) and (B, G, q, q) as `lmm_derivatives._lead_products`: by Lambda'⁻¹ where that loses no digits."""
    back = solve_upper(state.L_lead, state.W_lead)
    AL = cp.lead @ lead[:, None]
    inner = solve_upper(state.L_lead, solve_lower(state.L_lead, AL.swapaxes(-1, -2)))
    size = np.abs(lead).max(axis=(1, 2))
    singular = ~(np.linalg.slogdet(lead)[1] > np.log(SINGULAR * size ** lead.shape[-1]))
    inverse = np.linalg.solve(np.where(singular[:, None, None], np.eye(lead.shape[-1]), lead).swapaxes(1, 2),
                              np.eye(lead.shape[-1]))  # fmt: skip
    graded = np.abs(inverse).max(axis=(1, 2)) * size >= 1 / GRADED
    plain = (singular | graded)[:, None, None, None]
    if plain.all():
        return cp.lead_rest - AL @ back, cp.lead - AL @ inner
    turned = inverse[:, None]
    F, N = turned @ back, turned @ inner
    if plain.any():
        F, N = np.where(plain, cp.lead_rest - AL @ back, F), np.where(plain, cp.lead - AL @ inner, N)
    return F, N


@dataclass(frozen=True, slots=True, eq=False)
class OneByOne:
    """One point after the other, for residual structures and for products in cells."""

    surface: Surface

    def __call__(self, places: Places) -> Slopes:
        return Slopes.joined([self._one(places, i) for i in range(len(places))])

    def _one(self, places: Places, i: int) -> Slopes:
        factors = [Lambda[i] for Lambda in places.factors]
        psi = np.concatenate([self.surface.parameters.theta(_as_parametrised(self.surface.cp, factors)), places.phi[i]])
        log_sigma = float(places.log_sigma[i])
        if places.direction is None or places.distance is None:
            return _scaled(self.surface, psi, factors, log_sigma)
        a, t = places.direction[i], float(places.distance[i])
        free = self.surface(psi).solved
        w = dense_lower(free.L_x, a[:, None])[:, 0]
        slope = 2 * (t - float(a @ free.beta)) / float(w @ w) * float(np.exp(-2 * log_sigma))
        fixed = _scaled(with_effect_held(self.surface, a, t), psi, factors, log_sigma)
        return replace(fixed, distance=np.array([slope]))


def _scaled(surface: Surface, psi: Array, factors: Sequence[Array], log_sigma: float) -> Slopes:
    """The criterion of a surface at psi with its sigma² not profiled out."""
    at, k, cp = surface(psi), len(surface.parameters), surface.cp
    weight, own = float(np.exp(-2 * log_sigma)), 1.0 / at.sigma2
    nu = freedom(cp, surface.method)
    rss = float(at.solved.rss)
    value = at.value + nu * 2 * log_sigma + rss * weight
    value -= rss if cp.known_sigma2 else nu * (np.log(at.sigma2) + 1)
    slopes = [
        2 * (S + (own - weight) * (u.T @ u)) @ Lambda
        for S, u, Lambda in zip(at.G_T, at.projected.u, factors, strict=True)
    ]
    phi = at.gradient[k:] + at.slope[k:] * (own - weight)
    return Slopes(
        np.array([value]), tuple(slope[None] for slope in slopes), phi[None],
        np.array([2 * nu - 2 * rss * weight]), np.zeros(1),
    )  # fmt: skip


def triangular(half: Array) -> Array:
    """(q, q) lower triangular factor of half half'."""
    L = np.asarray(np.linalg.qr(half.T).R.T)
    signs = np.where(np.diagonal(L) < 0, -1.0, 1.0)
    return np.asarray(np.tril(L * signs))


def _as_parametrised(cp: CrossProducts, factors: Sequence[Array]) -> list[Array]:
    """Factors of the same matrices T that are lower triangular in their unstructured blocks."""
    out = [Lambda.copy() for Lambda in factors]
    for Lambda, blocks, structures in zip(out, cp.blocks, cp.structures, strict=True):
        for block, structure in zip(blocks, structures, strict=True):
            inner = np.ix_(block, block)
            if structure == "general":
                Lambda[inner] = triangular(Lambda[inner])
    return out


def criterion(surface: Surface) -> Criterion:
    """The fastest way to the criterion of a surface."""
    if surface.residual is None and surface.cp.cells is None:
        return Together(surface.cp, surface.method)
    return OneByOne(surface)
