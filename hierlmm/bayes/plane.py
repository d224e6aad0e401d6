"""Two-dimensional integrals over a plane by the product trapezoidal rule, and exact draws from the same lattice.

Each axis is written v = centre + width·sinh t as in `lattice`; a coarse pass finds the box that holds the mass, and
the step is halved until two step sizes agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import lattice as line
from hierlmm.bayes.lattice import Lattice

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]

# Two successive step sizes must agree on every functional to this, relatively. The error squares with each halving,
# so that the finer of the two is good to about its square.
AGREE = 1e-6
HALVINGS = 5
# Entries of the tables that draws are read from.
TABLE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Nodes (K1, K2) with weights summing to one; t and v of each axis, equally spaced in t with `step`.

    log_mass  log ∫∫ exp(log density)
    error     largest relative difference between the last two step sizes
    """

    t: tuple[Array, Array]
    v: tuple[Array, Array]
    step: float
    weight: Array
    log_mass: float
    error: float

    @property
    def converged(self) -> bool:
        """Whether the last two step sizes agree."""
        return self.error <= AGREE

    def nodes(self) -> Array:
        """(K1·K2, 2) coordinates, in the order of weight.ravel()."""
        return _grid(*self.v)

    def margin(self, axis: int) -> Lattice:
        """The distribution of one coordinate."""
        weight = self.weight.sum(axis=1 - axis)
        return Lattice(self.v[axis], weight, self.t[axis], self.step, self.log_mass, self.error)


def integrate(
    log_density: LogDensity,
    centre: Array,
    width: Array,
    slopes: tuple[tuple[float, float], tuple[float, float]],
    functionals: Callable[[Array], Array],
) -> Plane:
    """Integrate exp(log_density (N, 2) -> (N,)).

    centre, width  (2,) mode and marginal standard deviations, roughly
    slopes         per axis the smallest exponential rates (left, right) of the density times what will be integrated
    functionals    v (N, 2) -> (J, N), positive functions on which two step sizes must agree
    """

    def value(t1: Array, t2: Array) -> Array:
        v = _grid(*_to_v((t1, t2), centre, width))
        stretch = np.log(width[0] * np.cosh(t1))[:, None] + np.log(width[1] * np.cosh(t2))
        return np.asarray(log_density(v).reshape(t1.size, t2.size) + stretch)

    step = 1.0
    t1, t2 = (_axis(slopes[a], float(width[a]), step) for a in (0, 1))
    log_p = value(t1, t2)
    before, log_mass, error = np.array([]), np.inf, np.inf
    for _ in range(HALVINGS + 1):
        keep = log_p > log_p.max() - line.CUT
        rows, columns = _span(keep.any(axis=1)), _span(keep.any(axis=0))
        t1, t2, log_p = t1[rows], t2[columns], log_p[rows, columns]
        t1, t2, log_p = _refined(value, t1, t2, log_p, step)
        step /= 2
        weight = np.exp(log_p - log_p.max())
        mass = float(log_p.max() + np.log(weight.sum() * step**2))
        weight /= weight.sum()
        after = functionals(_grid(*_to_v((t1, t2), centre, width))) @ weight.ravel()
        if before.size:
            error = max(float(np.abs(after / before - 1.0).max()), abs(float(np.expm1(mass - log_mass))))
        before, log_mass = after, mass
        if error <= AGREE:
            break
    return Plane((t1, t2), _to_v((t1, t2), centre, width), step, weight, log_mass, error)


def _axis(slopes: tuple[float, float], width: float, step: float) -> Array:
    low, high = (int(np.ceil(np.arcsinh(line.CUT / (min(s, 1.0) * width)) / step)) for s in slopes)
    return step * np.arange(-low, high + 1, dtype=np.float64)


def _to_v(t: tuple[Array, Array], centre: Array, width: Array) -> tuple[Array, Array]:
    return centre[0] + width[0] * np.sinh(t[0]), centre[1] + width[1] * np.sinh(t[1])


def _grid(a: Array, b: Array) -> Array:
    return np.stack([np.repeat(a, b.size), np.tile(b, a.size)], axis=1)


def _span(keep: NDArray[np.bool_]) -> slice:
    """The kept stretch with one more entry on each side."""
    at = np.flatnonzero(keep)
    return slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2)


def _refined(
    value: Callable[[Array, Array], Array], t1: Array, t2: Array, log_p: Array, step: float
) -> tuple[Array, Array, Array]:
    """Half the step on both axes, evaluating new nodes only."""
    m1, m2 = t1[:-1] + step / 2, t2[:-1] + step / 2
    out = np.empty((2 * t1.size - 1, 2 * t2.size - 1))
    out[0::2, 0::2] = log_p
    out[1::2, 0::2] = value(m1, t2)
    out[0::2, 1::2] = value(t1, m2)
    out[1::2, 1::2] = value(m1, m2)
    fine1, fine2 = np.empty(out.shape[0]), np.empty(out.shape[1])
    fine1[0::2], fine1[1::2], fine2[0::2], fine2[1::2] = t1, m1, t2, m2
    return fine1, fine2, out


def draw(plane: Plane, size: int, rng: np.random.Generator) -> Array:
    """(size, 2) independent draws: the first coordinate by its distribution function, the second given it.

    Between lattice lines the density is the sinc interpolant, as accurate as the lattice itself.
    """
    first = plane.margin(0)
    t = line.draw_t(first, size, rng)
    near = np.sinc((t[:, None] - plane.t[0]) / plane.step)
    given = np.maximum(near @ plane.weight, 0.0)
    given /= given.sum(axis=1, keepdims=True)
    second = plane.margin(1)
    used = second.t[second.weight > 1e-16]
    fine = np.linspace(used[0] - plane.step, used[-1] + plane.step, TABLE)
    F = np.maximum.accumulate(line.table(second, fine) @ given.T, axis=0)
    u = rng.uniform(size=size)
    at = np.clip((F < u).sum(axis=0), 1, TABLE - 1)
    low, high = F[at - 1, np.arange(size)], F[at, np.arange(size)]
    share = np.clip((u - low) / np.maximum(high - low, 1e-300), 0.0, 1.0)
    t2 = fine[at - 1] + share * (fine[at] - fine[at - 1])
    return np.stack([line.to_v(first, t), line.to_v(second, t2)], axis=1)
