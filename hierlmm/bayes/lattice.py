"""One-dimensional integrals over a whole line by the trapezoidal rule, which converges exponentially.

A density p on the line (here of the logarithm of a standard deviation) is written in t, v = centre + width·sinh t,
so that its exponential tails fall doubly exponentially (Takahasi & Mori 1974, Publ. RIMS 9:721), and the rule with
step h is halved until two steps agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
LogDensity = Callable[[Vector], Vector]

# Two successive step sizes must agree on every functional to this, relatively; the error squares with each
# halving, so that the finer of the two is at rounding level.
AGREE = 1e-9
# Nodes are laid out to where the integrand is e^-CUT of its maximum: beyond double precision.
CUT = 42.0
# Finest step is 2^-HALVINGS of the first, half a width.
HALVINGS = 8
# Grid with which the bulk of the density is found, in units of v.
REACH, SPACING = 24.0, 0.25
# Points of the table that draws are read from: about a hundred across one standard deviation.
TABLE = 800


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Nodes and normalised weights: ∫ f p dv = Σ weight_k f(v_k).

    v        (K,) increasing; weight (K,) summing to one; t (K,) equally spaced with step `step`
    log_mass log ∫ exp(log density) dv
    error    largest relative difference between the last two step sizes over the functionals tested
    """

    v: Vector
    weight: Vector
    t: Vector
    step: float
    log_mass: float
    error: float

    @property
    def converged(self) -> bool:
        """Whether the last two step sizes agree."""
        return self.error <= AGREE


def bulk(log_density: LogDensity, start: float) -> tuple[float, float]:
    """Mode and effective width (that of a Gaussian of equal mass and height) of a density on the line.

    Looks within REACH of `start`, on grids that close in until the bulk spans several of their points.
    """
    centre, spacing, reach = start, SPACING, REACH
    while True:
        v = centre + np.arange(-reach, reach + spacing / 2, spacing)
        log_p = log_density(v)
        top = int(np.argmax(log_p))
        centre = float(v[top])
        width = float(np.exp(log_p - log_p[top]).sum()) * spacing / np.sqrt(2 * np.pi)
        if width > 1.5 * spacing or spacing < 1e-9:
            return centre, width
        spacing, reach = spacing / 10, 3 * spacing


def integrate(
    log_density: LogDensity,
    start: float,
    slopes: tuple[float, float],
    functionals: Callable[[Vector], NDArray[np.float64]],
) -> Lattice:
    """The lattice on which exp(log_density) and its products with the functionals are integrated.

    start        a point within REACH of the bulk
    slopes       (left, right) smallest exponential rates at which the density, times any function that will be
                 integrated against it, falls to the left and right; infinite for faster than exponential
    functionals  v (K,) -> (J, K), values of functions on which two step sizes must agree
    """
    centre, width = bulk(log_density, start)
    ends = [float(np.arcsinh(CUT / (min(slope, 1.0) * width))) for slope in slopes]
    step, error = 0.5, np.inf
    low, high = -int(np.ceil(ends[0] / step)), int(np.ceil(ends[1] / step))
    t: Vector = step * np.arange(low, high + 1, dtype=np.float64)
    log_p = _transformed(log_density, t, centre, width)
    weight, log_mass = _normalised(log_p, step)
    before = functionals(centre + width * np.sinh(t)) @ weight
    for _ in range(HALVINGS):
        middle: Vector = t[:-1] + 0.5 * step
        log_p = _interleaved(log_p, _transformed(log_density, middle, centre, width))
        t = _interleaved(t, middle)
        step /= 2
        weight, mass = _normalised(log_p, step)
        after = functionals(centre + width * np.sinh(t)) @ weight
        scale = np.maximum(np.abs(after), np.finfo(float).tiny)
        error = max(float((np.abs(after - before) / scale).max(initial=0.0)), abs(float(np.expm1(mass - log_mass))))
        before, log_mass = after, mass
        if error <= AGREE:
            break
    return Lattice(v=centre + width * np.sinh(t), weight=weight, t=t, step=step, log_mass=log_mass, error=error)


def _transformed(log_density: LogDensity, t: Vector, centre: float, width: float) -> Vector:
    return log_density(centre + width * np.sinh(t)) + np.log(width * np.cosh(t))


def _normalised(log_p: Vector, step: float) -> tuple[Vector, float]:
    top = log_p.max()
    weight = np.exp(log_p - top)
    total = weight.sum()
    return weight / total, float(top + np.log(total * step))


def _interleaved(a: Vector, b: Vector) -> Vector:
    out = np.empty(a.size + b.size)
    out[0::2], out[1::2] = a, b
    return out


def distribution(lattice: Lattice, t: Vector) -> Vector:
    """Distribution function at points t, from the sinc interpolant of the lattice."""
    return np.clip(table(lattice, t) @ lattice.weight, 0.0, 1.0)


def table(lattice: Lattice, t: Vector) -> Vector:
    """(T, K) with F(t) = table @ weight: 1/2 + Si(π(t - t_k)/h)/π.

    As accurate as the lattice itself (Haber 1977, SIAM J. Numer. Anal. 14:668).
    """
    from scipy.special import sici

    away = (t[:, None] - lattice.t) * (np.pi / lattice.step)
    return np.asarray(0.5 + sici(away)[0] / np.pi)


def _density(lattice: Lattice, t: Vector) -> Vector:
    away = (t[:, None] - lattice.t) / lattice.step
    return np.asarray(np.sinc(away) @ lattice.weight / lattice.step)


def quantiles(lattice: Lattice, probabilities: Vector) -> Vector:
    """v at the given probabilities (J,), by bisection and Newton steps on the distribution function."""
    F_nodes = np.cumsum(lattice.weight)
    at = np.clip(np.searchsorted(F_nodes, probabilities), 1, lattice.t.size - 2)
    low, high = lattice.t[at - 1] - lattice.step, lattice.t[at] + 2 * lattice.step
    t = 0.5 * (low + high)
    for _ in range(60):
        F, f = distribution(lattice, t), _density(lattice, t)
        low, high = np.where(F < probabilities, t, low), np.where(F < probabilities, high, t)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = t - (F - probabilities) / f
        inside = (newton > low) & (newton < high)
        new = np.where(inside, newton, 0.5 * (low + high))
        if np.abs(new - t).max(initial=0.0) < 1e-12:
            break
        t = new
    return to_v(lattice, new)


def draw(lattice: Lattice, size: int, rng: np.random.Generator) -> Vector:
    """Independent draws of v by the inverse distribution function."""
    return to_v(lattice, draw_t(lattice, size, rng))


def draw_t(lattice: Lattice, size: int, rng: np.random.Generator) -> Vector:
    """The same in t, from a fine table of the distribution function."""
    used = lattice.t[lattice.weight > 1e-16]
    fine = np.linspace(used[0] - lattice.step, used[-1] + lattice.step, TABLE)
    F = np.maximum.accumulate(distribution(lattice, fine))
    return np.interp(rng.uniform(size=size), F, fine)


def to_v(lattice: Lattice, t: Vector) -> Vector:
    """v from t."""
    centre, width = _map(lattice)
    return np.asarray(centre + width * np.sinh(t))


def to_t(lattice: Lattice, v: Vector) -> Vector:
    """t from v."""
    centre, width = _map(lattice)
    return np.asarray(np.arcsinh((v - centre) / width))


def _map(lattice: Lattice) -> tuple[float, float]:
    """Centre and width of v = centre + width·sinh t, read off the two ends of the lattice."""
    s0, s1 = np.sinh(lattice.t[0]), np.sinh(lattice.t[-1])
    width = float((lattice.v[-1] - lattice.v[0]) / (s1 - s0))
    return float(lattice.v[0]) - width * float(s0), width
