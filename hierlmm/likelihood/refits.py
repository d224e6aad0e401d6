"""Optima of many responses of one design at once, exactly on the boundary where that is the answer.

The rules are those of `optimum`: an element of theta that vanishes is set to zero and the rest polished, a singular
answer is searched for again from other starts, and the derivative in every direction that is held at zero must not be
negative (the Karush-Kuhn-Tucker condition).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.optimum import FIRST_START, NEAR_ZERO, OTHER_STARTS
from hierlmm.likelihood.refits_criterion import Points, effects, points, solve
from hierlmm.likelihood.refits_layout import Layout
from hierlmm.likelihood.refits_products import Replies, Shared
from hierlmm.likelihood.refits_search import Mask, Minima, Places, minimise

Array = NDArray[np.float64]

# Derivative in a variance held at zero that rounding may leave negative.
MULTIPLIER = -1e-6
# Difference of criteria, relative, that is rounding: the answer of the first start is kept.
SAME = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Optima:
    """The optima of n responses on the working scale.

    factors    per factor (n, q, q) Lambda
    value (n,) the criterion; sigma2 (n,); beta (n, p), of the response as it was given
    beta_root  (n, p, p) M with M'M the covariance of beta over sigma²
    decrement (n,), multipliers (n,) as in `Certificate`; certified (n,)
    singular (n,) some block lacks full rank; zero (n,) some effects have variance zero
    evaluations (n,) of criterion and derivatives, over all starts
    """

    factors: tuple[Array, ...]
    value: Array
    sigma2: Array
    beta: Array
    beta_root: Array
    decrement: Array
    multipliers: Array
    certified: Mask
    singular: Mask
    zero: Mask
    evaluations: Places


def optima(shape: Shared, layout: Layout, data: Replies, start: Array | None = None) -> Optima:
    """Minimise the criterion of each response over theta; `start` (E,) on the working scale."""
    n = len(data)
    parts = []
    for first in range(0, max(n, 1), shape.batch):
        here = np.arange(first, min(first + shape.batch, n))
        parts.append(_batch(shape, layout, data[here] if len(here) < n else data, start))
    return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[Optima]) -> Optima:
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Optima.__slots__ if name != "factors"
    }
    factors = tuple(np.concatenate(of) for of in zip(*(part.factors for part in parts), strict=True))
    return Optima(factors=factors, **whole)


def _batch(shape: Shared, layout: Layout, data: Replies, start: Array | None) -> Optima:
    n = len(data)
    first = _spherical(layout, FIRST_START) if start is None else start
    found = _search(shape, layout, data, np.repeat(first[:, None], n, axis=1))
    again = np.flatnonzero(_singular(layout, found.theta) | ~found.certified)
    if len(again) and len(layout):
        _search_again(shape, layout, data[again], found, again)
    return _finished(shape, layout, data, found)


def _search_again(shape: Shared, layout: Layout, data: Replies, found: Minima, again: Places) -> None:
    """Search from the other starts, all at once, and put what is better into `found`."""
    m, starts = len(again), _more_starts(layout)
    whole = np.repeat(np.stack(starts, axis=1), m, axis=1)
    every = _search(shape, layout, data[np.tile(np.arange(m), len(starts))], whole)
    best = found[again]
    for i in range(len(starts)):
        other = every[np.arange(i * m, (i + 1) * m)]
        level = SAME * np.maximum(1.0, np.abs(best.value))
        better = np.isnan(best.value) | (other.value < best.value - level)
        better |= other.certified & ~best.certified & (other.value <= best.value + level)
        evaluations = best.evaluations + other.evaluations
        best.put(better, other[better])
        best.evaluations[:] = evaluations
    found.put(again, best)
    found.evaluations[again] = best.evaluations


def _spherical(layout: Layout, scale: float) -> Array:
    return layout.theta([scale * np.eye(q)[..., None] for q in layout.parameters.widths])[:, 0]


def _more_starts(layout: Layout) -> list[Array]:
    """Small and large standard deviations, and each block leaning to correlations of either sign."""
    starts = [_spherical(layout, scale) for scale in OTHER_STARTS]
    below = np.ones(len(layout), dtype=bool)
    below[[column[0] for column in layout.columns]] = False
    if below.any():
        for sign in (1.0, -1.0):
            theta = _spherical(layout, 0.5)
            theta[below] = sign * 0.8
            starts.append(theta)
    return starts


def _search(shape: Shared, layout: Layout, data: Replies, start: Array) -> Minima:
    """One descent each, then the zeros made exact where that costs nothing."""

    def evaluate(at: Places, theta: Array) -> Points:
        return points(shape, layout, data if len(at) == len(data) else data[at], theta)

    found = minimise(evaluate, start, np.ones(start.shape, dtype=bool))
    theta = _canonical(layout, found.theta)
    changed = np.flatnonzero((theta != found.theta).any(0) | _zeros(layout, theta).any(0))
    if not len(changed):
        return found
    part, theta = data[changed], theta[:, changed]

    def evaluate_part(at: Places, where: Array) -> Points:
        return points(shape, layout, part[at], where)

    exact = minimise(evaluate_part, theta, ~_zeros(layout, theta))
    rough = found.value[changed]
    keep = exact.value <= rough + 1e-10 * np.maximum(1.0, np.abs(rough))
    found.evaluations[changed] += exact.evaluations
    found.put(changed[keep], exact[keep])
    return found


def _canonical(layout: Layout, theta: Array) -> Array:
    """theta with non-negative diagonals, and no column that is zero on the diagonal but not below it."""
    out = theta.copy()
    turned = np.zeros(theta.shape[1], dtype=bool)
    for column in layout.columns:
        places = list(column)
        out[places] *= np.where(out[column[0]] < 0, -1.0, 1.0)
        turned |= (out[column[0]] < NEAR_ZERO) & (np.abs(out[places]).max(0) > NEAR_ZERO)
    if not turned.any():
        return out
    factors = []
    for Lambda in layout.factors(out[:, turned]):
        T = np.einsum("acn,bcn->abn", Lambda, Lambda)
        absent = np.einsum("aan->an", T) < NEAR_ZERO**2
        T[absent[:, None] | absent[None]] = 0.0
        factors.append(_semidefinite(T))
    general = layout.parameters.general[:, None]
    out[:, turned] = np.where(general, layout.theta(factors), out[:, turned])
    return out


def _semidefinite(T: Array) -> Array:
    """(q, q, n) Cholesky factors of positive semi-definite matrices, a zero column where a pivot is not positive."""
    q = len(T)
    L = np.zeros_like(T)
    for j in range(q):
        column = T[j:, j] - np.einsum("ikn,kn->in", L[j:, :j], L[j, :j])
        pivot = np.sqrt(np.maximum(column[0], 0.0))
        L[j:, j] = np.where(pivot > 0, column / np.where(pivot > 0, pivot, 1.0), 0.0)
    return L


def _zeros(layout: Layout, theta: Array) -> Mask:
    """(E, n) elements that are zero at a singular optimum: columns of Lambda that are negligible as a whole."""
    zero = np.zeros(theta.shape, dtype=bool)
    for column in layout.columns:
        places = list(column)
        zero[places] = np.abs(theta[places]).max(0) < NEAR_ZERO
    return zero


def _singular(layout: Layout, theta: Array) -> Mask:
    out = np.zeros(theta.shape[1], dtype=bool)
    for column in layout.columns:
        size = np.maximum(1.0, np.abs(theta[list(column)]).max(0))
        out |= np.abs(theta[column[0]]) < NEAR_ZERO * size
    return out


def _finished(shape: Shared, layout: Layout, data: Replies, found: Minima) -> Optima:
    """Estimates at the optima, and the Karush-Kuhn-Tucker condition where blocks are singular."""
    n = len(data)
    at = solve(shape, layout.factors(found.theta), data)
    factors = tuple(np.moveaxis(Lambda, -1, 0) for Lambda in at.factors)
    multipliers, singular = np.full(n, np.inf), np.zeros(n, dtype=bool)
    suspect = np.flatnonzero(_singular(layout, found.theta))
    if len(suspect):
        part = data[suspect]
        G_T = effects(shape, part, solve(shape, layout.factors(found.theta[:, suspect]), part)).G_T
        slopes = tuple(np.moveaxis(G, -1, 0) for G in G_T)
        multipliers[suspect], singular[suspect] = _boundary(layout, [L[suspect] for L in factors], slopes)
    zero = np.zeros(n, dtype=bool)
    for Lambda in factors:
        zero |= np.any(~np.any(Lambda != 0, axis=2), axis=1)
    certified = found.certified & (multipliers >= MULTIPLIER)
    root = np.moveaxis(at.root[:, shape.R :, :], -1, 0)
    beta = at.delta[shape.R :].T
    return Optima(
        factors, at.value, at.sigma2, beta, root, found.decrement, multipliers, certified, singular, zero,
        found.evaluations,
    )  # fmt: skip


def _boundary(layout: Layout, factors: list[Array], G_T: tuple[Array, ...]) -> tuple[Array, Mask]:
    """Smallest derivative in the directions that each response's singular blocks leave out; whether there are any."""
    n = len(factors[0])
    smallest, singular = np.full(n, np.inf), np.zeros(n, dtype=bool)
    for block in layout.blocks:
        columns = np.array(block.coefficients)
        at = np.ix_(np.arange(n), columns, columns)
        Lambda, slope = factors[block.factor][at], G_T[block.factor][at]
        u, d, _ = np.linalg.svd(Lambda)
        rank = (d > NEAR_ZERO * np.maximum(1.0, d[:, :1])).sum(1)
        for r in np.unique(rank[rank < len(columns)]):
            these = np.flatnonzero(rank == r)
            outside = u[these][:, :, r:]
            allowed = outside.swapaxes(1, 2) @ slope[these] @ outside
            # the eigenvalue of a structured matrix belongs to all of its directions together
            general = block.structure == "general"
            least = np.linalg.eigvalsh(allowed)[:, 0] if general else np.einsum("naa->n", allowed)
            smallest[these] = np.minimum(smallest[these], least)
            singular[these] = True
    return smallest, singular
