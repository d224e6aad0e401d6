"""Newton steps inside a trust region: few parameters, exact gradient, a Hessian that may be indefinite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Predicted gain in the criterion below which a point is the optimum: with unit curvature theta is then within
# 1e-8 of it, about what doubles can define for criteria of a few hundred.
CONVERGED = 1e-17
# Predicted gain above which one more step is taken from there: near the optimum the gradient has more digits than the
# criterion, and that step brings theta to the digits of the gradient.
EXACT = 2e-26
# Newton step below which theta is as good as found, with a predicted gain that may be certified.
NEGLIGIBLE = 3e-9
# Predicted gain that rounding may leave and the optimum still be certified.
CERTIFIED = 1e-10
# Decrement below which the Hessian is mended where a step shrinks the decrement by less than this factor: the average
# information is then too far from it. Differences of the exact gradient over such a step give it to about 1e-6.
NEAR, SLOW = 1e-5, 0.005
DIFFERENCE = 1e-6
FIRST_RADIUS = 1.0
LARGEST_RADIUS = 1e4
MOST_STEPS = 200


class Point(Protocol):
    """A criterion with its derivatives at one point."""

    @property
    def value(self) -> float: ...
    @property
    def gradient(self) -> Array: ...
    @property
    def hessian(self) -> Array: ...


P = TypeVar("P", bound=Point)


@dataclass(frozen=True, slots=True, eq=False)
class Minimum(Generic[P]):
    """Where the iterations ended.

    theta (k,), `point` the criterion there, `decrement` g'H⁻¹g (twice the gain a Newton step still predicts),
    `curvature` smallest eigenvalue of the Hessian, `evaluations` of criterion and derivatives.
    """

    theta: Array
    point: P
    decrement: float
    curvature: float
    evaluations: int

    @property
    def certified(self) -> bool:
        """Whether the point is a minimum to rounding: no predicted gain, no direction of negative curvature."""
        scale = max(1.0, float(np.abs(self.point.hessian).max(initial=0.0)))
        return self.decrement < CERTIFIED and self.curvature > -1e-7 * scale


def minimise(
    evaluate: Callable[[Array], P], start: Array, until: float = CONVERGED, most: int = MOST_STEPS
) -> Minimum[P]:
    """Minimise a smooth function of a few unbounded parameters from `start`, to a decrement of `until`.

    `evaluate` returns value, gradient and Hessian (an approximation serves); a point where these are not finite is
    stepped back from. Moré & Sorensen (1983), SIAM J. Sci. Stat. Comput. 4:553-572, by eigenvalues.
    """
    theta, point = start, evaluate(start)
    radius, evaluations = FIRST_RADIUS, 1
    best_decrement, last = np.inf, False
    mended, correction = np.inf, np.zeros_like(point.hessian)
    while True:
        if not _finite(point):  # the start itself, or nothing around it
            return Minimum(theta, point, np.inf, -np.inf, evaluations)
        values, vectors = np.linalg.eigh(point.hessian + correction) if len(theta) else (np.zeros(0), np.zeros((0, 0)))
        slopes = vectors.T @ point.gradient
        sizes = np.abs(values)
        floor = 1e-14 * max(1.0, float(sizes.max(initial=0.0)))
        decrement = float(slopes @ (slopes / np.maximum(sizes, floor)))
        curvature = float(values[0]) if len(theta) else np.inf
        if curvature < 0 and correction.any():  # made too far away
            mended, correction = decrement, np.zeros_like(correction)
            continue
        if max(until, SLOW * best_decrement) < decrement < min(NEAR, SLOW * mended):
            mended, best_decrement = decrement, np.inf
            correction = difference_hessian(evaluate, theta, point) - point.hessian
            evaluations += len(theta)
            continue
        settled = decrement < until or (decrement < CERTIFIED and decrement > 0.25 * best_decrement)
        if not settled and decrement < CERTIFIED and curvature > 0:
            settled = float(np.abs(vectors @ (slopes / values)).max()) < NEGLIGIBLE
        done = settled and curvature >= -floor * 1e4
        one_more = not last and until == CONVERGED and decrement > EXACT
        if (done and not one_more) or evaluations >= most or radius < 1e-14:
            return Minimum(theta, point, decrement, curvature, evaluations)
        last = done
        if curvature >= 0:  # at a saddle point the decrement says nothing about the minimum
            best_decrement = min(best_decrement, decrement)
        step, gain = _step(values, vectors, slopes, radius)
        trial = evaluate(theta + step)
        evaluations += 1
        # Near the optimum the gain is below the rounding of the criterion, and the gradient alone is trusted.
        tiny = gain < 1e-11 * max(1.0, abs(point.value))
        ratio = (1.0 if tiny else (point.value - trial.value) / gain) if _finite(trial) else -np.inf
        length = float(step @ step) ** 0.5
        if not ratio > 0.1:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.9 * radius:
            radius = min(3 * radius, LARGEST_RADIUS)
        if ratio > 1e-4:
            theta, point = theta + step, trial


def _finite(point: Point) -> bool:
    return bool(np.isfinite(point.value) and np.isfinite(point.gradient).all() and np.isfinite(point.hessian).all())


def difference_hessian(evaluate: Callable[[Array], P], theta: Array, point: P) -> Array:
    """(k, k) forward differences of the exact gradient; the Hessian of `point` where they are not finite."""
    steps = DIFFERENCE * np.maximum(1.0, np.abs(theta))
    columns = [
        (evaluate(theta + step * unit).gradient - point.gradient) / step
        for step, unit in zip(steps, np.eye(len(steps)), strict=True)
    ]
    out = np.array(columns).reshape(len(steps), len(steps))
    return np.where(np.isfinite(out), 0.5 * (out + out.T), point.hessian)


def _step(values: Array, vectors: Array, slopes: Array, radius: float) -> tuple[Array, float]:
    """The step of at most `radius` that minimises the quadratic model, and the decrease it predicts."""
    positive = values.size == 0 or values[0] > 0
    if positive:
        along = -slopes / values
        if along @ along <= radius**2:
            return vectors @ along, float(-(slopes @ along + 0.5 * values @ along**2))
    shift = _shift(values, slopes, radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.where(slopes == 0, 0.0, -slopes / (values + shift))
    missing = radius**2 - float(along @ along)
    if not positive and missing > 0:
        # The hard case: nothing pushes along the most negative curvature, as at a zero variance; go there at
        # full length. Either sign will do, by symmetry.
        along[0] += np.copysign(np.sqrt(missing), -slopes[0] if slopes[0] else 1.0)
    return vectors @ along, float(-(slopes @ along + 0.5 * values @ along**2))


def _shift(values: Array, slopes: Array, radius: float) -> float:
    """The Levenberg shift at which the step has length `radius`, or the smallest admissible one."""
    least = max(0.0, -float(values[0]))
    low = least * (1 + 1e-10) + 1e-12
    high = least + float(np.linalg.norm(slopes)) / radius + 1e-12
    if np.linalg.norm(slopes / (values + low)) <= radius:
        return low
    for _ in range(60):
        middle = 0.5 * (low + high)
        if np.linalg.norm(slopes / (values + middle)) > radius:
            low = middle
        else:
            high = middle
        if high - low < 1e-3 * high:
            break
    return high
