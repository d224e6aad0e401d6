"""Newton steps inside a trust region for many responses at once, each with its own radius.

The steps and the rules are those of `trust_region`. A response that has settled leaves the batch; a plain Newton step
is taken where the Hessian is positive definite and the step short enough, which is nearly always, and the eigenvalues
are computed for the others only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.refits_criterion import Points
from hierlmm.likelihood.refits_systems import cholesky, solve_lower, solve_upper
from hierlmm.likelihood.trust_region import CERTIFIED, CONVERGED, FIRST_RADIUS, LARGEST_RADIUS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
# Criterion and derivatives of the responses at some places of the batch, at theta (E, those).
Evaluate = Callable[[Places, Array], Points]

# Steps after which a response is handed to the search for a single one, which is more patient.
MOST_STEPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Minima:
    """Where the iterations ended: theta (E, n), value (n,), decrement (n,), certified (n,), evaluations (n,)."""

    theta: Array
    value: Array
    decrement: Array
    certified: Mask
    evaluations: Places

    def put(self, at: Places | Mask, other: Minima) -> None:
        """Take over the responses of `other` at these places."""
        self.theta[:, at] = other.theta
        self.value[at], self.decrement[at], self.certified[at] = other.value, other.decrement, other.certified

    def __getitem__(self, at: Places | Mask) -> Minima:
        return Minima(self.theta[:, at], self.value[at], self.decrement[at], self.certified[at], self.evaluations[at])


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """step (E, n), the gain (n,) it predicts, decrement (n,), curvature: smallest relative eigenvalue where known."""

    step: Array
    gain: Array
    decrement: Array
    curvature: Array
    scale: Array


def minimise(evaluate: Evaluate, start: Array, free: Mask) -> Minima:
    """Minimise n criteria from `start` (E, n) over the elements that are free (E, n); the others are held at zero."""
    n = start.shape[1]
    out = Minima(start.copy(), np.full(n, np.nan), np.full(n, np.inf), np.zeros(n, bool), np.zeros(n, np.intp))
    if not n:
        return out
    alive = np.arange(n)
    theta = np.where(free, start, 0.0)
    point = _restricted(evaluate(alive, theta), free)
    radius, best = np.full(n, FIRST_RADIUS), np.full(n, np.inf)
    for evaluations in range(1, MOST_STEPS + 1):
        steps = _steps(point, radius)
        last = evaluations == MOST_STEPS
        small = (steps.decrement < CONVERGED) | ((steps.decrement < CERTIFIED) & (steps.decrement > 0.25 * best))
        done = (small & (steps.curvature >= -1e-10 * steps.scale)) | (radius < 1e-14) | last
        done |= ~np.isfinite(point.value)
        if done.any():
            at = alive[done]
            out.theta[:, at], out.value[at] = theta[:, done], point.value[done]
            out.decrement[at], out.evaluations[at] = steps.decrement[done], evaluations
            level = steps.curvature[done] > -1e-7 * steps.scale[done]
            out.certified[at] = (steps.decrement[done] < CERTIFIED) & level & np.isfinite(point.value[done])
            stay = ~done
            if not stay.any():
                return out
            alive, theta, point, free = alive[stay], theta[:, stay], point[stay], free[:, stay]
            radius, best, steps = radius[stay], best[stay], _kept(steps, stay)
        # at a saddle point a small decrement says nothing about the digits that can be had
        best = np.where(steps.curvature >= 0, np.minimum(best, steps.decrement), best)
        trial_theta = theta + steps.step
        trial = _restricted(evaluate(alive, trial_theta), free)
        accept, radius = _judged(point, trial, steps, radius)
        theta = np.where(accept, trial_theta, theta)
        point = Points(
            np.where(accept, trial.value, point.value),
            np.where(accept, trial.gradient, point.gradient),
            np.where(accept, trial.hessian, point.hessian),
        )
    return out


def _kept(steps: _Steps, at: Mask) -> _Steps:
    return _Steps(steps.step[:, at], steps.gain[at], steps.decrement[at], steps.curvature[at], steps.scale[at])


def _restricted(point: Points, free: Mask) -> Points:
    """The same criteria as functions of the free elements: no slope and unit curvature along the others."""
    if free.all():
        return point
    both = free[:, None] & free[None]
    eye = np.eye(len(free))[..., None]
    return Points(point.value, np.where(free, point.gradient, 0.0), np.where(both, point.hessian, eye * ~free[None]))


def _judged(point: Points, trial: Points, steps: _Steps, radius: Array) -> tuple[Mask, Array]:
    """Which steps are taken, and the radii for the next ones."""
    finite = np.isfinite(trial.value)
    # Near the optimum the gain is below the rounding of the criterion, and the gradient alone is trusted.
    tiny = steps.gain < 1e-11 * np.maximum(1.0, np.abs(point.value))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(tiny & finite, 1.0, (point.value - trial.value) / steps.gain)
    length = np.sqrt((steps.step**2).sum(0))
    good = ratio > 0.1
    longer = (ratio > 0.75) & (length > 0.9 * radius)
    wider = np.where(longer, np.minimum(3 * radius, LARGEST_RADIUS), radius)
    return ratio > 1e-4, np.where(good, wider, 0.25 * length)


def _steps(point: Points, radius: Array) -> _Steps:
    """Newton steps, shortened to the radius where they are longer or the Hessian is not positive definite."""
    g, H = point.gradient, point.hessian
    n = g.shape[1]
    if not len(g):
        none = np.zeros(n)
        return _Steps(g, none, none, np.full(n, np.inf), np.ones(n))
    diagonal = np.abs(np.einsum("iin->in", H))
    scale = np.maximum(1.0, diagonal.max(0))
    L = cholesky(H)
    pivots = np.einsum("iin->in", L) ** 2
    with np.errstate(invalid="ignore"):
        sound = (pivots > 1e-12 * scale).all(0)
        half = solve_lower(L, g[:, None])
        decrement = (half[:, 0] ** 2).sum(0)
        step = -solve_upper(L, half)[:, 0]
        plain = sound & ((step**2).sum(0) <= radius**2)
    gain, curvature = 0.5 * decrement, np.zeros(n)
    if not plain.all():
        hard = np.flatnonzero(~plain & np.isfinite(point.value))
        lost = np.flatnonzero(~plain & ~np.isfinite(point.value))
        step[:, lost], gain[lost], decrement[lost], curvature[lost] = 0.0, 0.0, np.inf, -np.inf
        if len(hard):
            found = _eigen_steps(g[:, hard].T, np.moveaxis(H[:, :, hard], -1, 0), radius[hard])
            step[:, hard], gain[hard] = found.step.T, found.gain
            decrement[hard], curvature[hard], scale[hard] = found.decrement, found.curvature, found.scale
    return _Steps(step, gain, decrement, curvature, scale)


def _eigen_steps(g: Array, H: Array, radius: Array) -> _Steps:
    """Steps of at most `radius` (m,) that minimise the quadratic models with g (m, E) and H (m, E, E)."""
    values, vectors = np.linalg.eigh(H)
    slopes = np.einsum("mij,mi->mj", vectors, g)
    scale = np.maximum(1.0, np.abs(values).max(1))
    floor = 1e-14 * scale
    decrement = (slopes**2 / np.maximum(np.abs(values), floor[:, None])).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.where(slopes == 0, 0.0, -slopes / values)
        inside = (values[:, 0] > 0) & ((along**2).sum(1) <= radius**2)
    far = ~inside
    along[far] = _shortened(values[far], slopes[far], radius[far])
    gain = -(slopes * along + 0.5 * values * along**2).sum(1)
    return _Steps(np.einsum("mij,mj->mi", vectors, along), gain, decrement, values[:, 0], scale)


def _shortened(values: Array, slopes: Array, radius: Array) -> Array:
    """Coordinates along the eigenvectors of the steps of length `radius`, by bisection in the Levenberg shift."""
    least = np.maximum(0.0, -values[:, 0])
    low = least * (1 + 1e-10) + 1e-12
    high = least + np.sqrt((slopes**2).sum(1)) / radius + 1e-12

    def length(shift: Array) -> Array:
        total: Array = ((slopes / (values + shift[:, None])) ** 2).sum(1)
        return np.sqrt(total)

    with np.errstate(divide="ignore", invalid="ignore"):
        easy = length(low) <= radius
        for _ in range(60):
            middle = 0.5 * (low + high)
            long = length(middle) > radius
            low, high = np.where(long & ~easy, middle, low), np.where(long | easy, high, middle)
            if (easy | (high - low < 1e-3 * high)).all():
                break
        shift = np.where(easy, low, high)
        along = np.where(slopes == 0, 0.0, -slopes / (values + shift[:, None]))
    missing = radius**2 - (along**2).sum(1)
    # The hard case: nothing pushes along the most negative curvature, as at a zero variance; go there at full length.
    hard = (values[:, 0] <= 0) & (missing > 0)
    sign = np.where(slopes[:, 0] > 0, -1.0, 1.0)
    along[:, 0] += np.where(hard, sign * np.sqrt(np.maximum(missing, 0.0)), 0.0)
    return along
