"""Mean squared error of a prediction, averaged over what the data leave open about the area variance A.

For a prediction θ̂ of θ_i that is any function of the data, with θ̂(A) the best linear unbiased one at A,

    E[(θ̂ − θ_i)² | y] = ∫ (g1 + g2)(A) p(A|y) dA + Var_p[θ̂(A)] + (θ̂ − E_p θ̂(A))²

where p(A|y) ∝ exp ℓ_REML(A) π(A) is the posterior of A under a flat prior on β. It supposes nothing of the estimate of
A, so it holds at Â = 0, where an expansion around Â does not; it is positive, and needs no simulation. With the prior

    π_i(A) = (A + D_i)² Σ_j (A + D_j)⁻²

the posterior variance is without bias to second order for the mean squared error of the EBLUP of area i (Datta, Rao
and Smith 2005, Biometrika 92:183-196). As D_i grows it becomes Σ_j (A + D_j)⁻², which serves areas without a direct
estimate. π_i leaves a proper posterior with m > p + 2 areas; with fewer, that proper factor serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import criteria
from hierlmm.likelihood.area.working import CHUNK, Factor, Working, factor, in_chunks, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Positions = NDArray[np.intp]

# The integrand is left out where it is below exp(-DROP) of its largest value.
DROP = 40.0
# Gauss-Legendre nodes a panel; a panel is at most WIDTH in log(A + min D), on which scale the integrand changes.
NODES, WIDTH = 10, 1.0
# Fewest panels, and points of a scan for the range of the integral.
PANELS, SCAN = 5, 40


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """N nodes of an integral over A, in working units.

    A       (N,) nodes, increasing
    weight  (N,) log of quadrature weight times exp ℓ_REML(A) Σ_j (A + D_j)⁻²
    root, delta  of the weighted least squares at each node: see `working.Factor`
    """

    A: Vector
    weight: Vector
    root: Array
    delta: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """k predictions x'β + γ_i (y_i − x_i'β) in working units.

    target  (k, p) x on the basis Q; own (k, p) x_i, zero where there is no area's direct estimate in it
    D       (k,) sampling variance of that estimate, inf where there is none; residual (k,) its OLS residual, or 0
    """

    target: Matrix
    own: Matrix
    D: Vector
    residual: Vector


def matching_exists(m: int, p: int) -> bool:
    """Whether the matching prior of an area leaves a proper posterior with m areas and p coefficients."""
    return m > p + 2


def integrated_errors(A_hat: float, y: Vector, X: Matrix, D: Vector, rows: Matrix, own: Positions) -> Vector:
    """(k,) mean squared errors, units of y squared, of x'β̂ + v̂ for x'β + v, with β̂ and v̂ at A_hat.

    A_hat    value of A at which the predictions were made, 0 included
    y, X, D  the m areas in the fit, as in `likelihood.area.criterion`
    rows     (k, p) covariates x; all 0 for the area effect alone
    own      (k,) which of the m areas the effect v is that of; -1: of one without a direct estimate, v̂ = 0
    """
    work = working(y, X, D)
    lattice = _lattice(work)
    at = _lattice_at(np.array([A_hat / work.basis.scale]), work)
    matching = matching_exists(*X.shape)
    errors = [_errors(part, at, lattice, matching) for part in _parts(rows, own, lattice.A.size, work)]
    return work.basis.scale * np.concatenate([*errors, np.zeros(0)])


def integrated_factor(
    A_hat: float, y: Vector, X: Matrix, D: Vector, rows: Matrix, own: Positions
) -> tuple[Vector, Matrix]:
    """d (k,) and F (k, r), with diag(d) + F F' the matrix E[(θ̂ − θ)(θ̂ − θ)' | y] under the prior Σ_j (A + D_j)⁻².

    One prior serves all areas here, so that the matrix is that of one posterior. Arguments as `integrated_errors`;
    each area occurs once in `own`. F has as few columns as hold the matrix to rounding error.
    """
    work = working(y, X, D)
    lattice = _lattice(work)
    at = _lattice_at(np.array([A_hat / work.basis.scale]), work)
    weight = np.exp(lattice.weight - lattice.weight.max())
    weight /= weight.sum()
    independent, columns = [], []
    for part in _parts(rows, own, lattice.A.size, work):
        g1, tilt, moved = _pieces(part, at, lattice)
        independent.append(weight @ g1)
        loads = np.concatenate([tilt, moved[:, :, None]], axis=2) * np.sqrt(weight)[:, None, None]
        columns.append(loads.transpose(1, 0, 2).reshape(len(part.D), -1))
    F = _compressed(np.concatenate(columns))
    return work.basis.scale * np.concatenate(independent), math.sqrt(work.basis.scale) * F


def _errors(rows: Rows, at: Lattice, lattice: Lattice, matching: bool) -> Vector:
    """Mean squared errors in working units; each row has its own prior where `matching` is True."""
    g1, tilt, moved = _pieces(rows, at, lattice)
    log_weight = np.repeat(lattice.weight[:, None], len(rows.D), axis=1)
    if matching:
        log_weight = log_weight + 2 * np.log1p(lattice.A[:, None] / rows.D)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    total = g1 + np.square(tilt).sum(axis=2) + np.square(moved)
    return np.asarray((weight * total).sum(axis=0) / weight.sum(axis=0))


def _pieces(rows: Rows, at: Lattice, lattice: Lattice) -> tuple[Matrix, Array, Matrix]:
    """g1 (N, k); H (N, k, p) with g2 = |H|²; and θ̂(A) less the prediction made (N, k), at every node."""
    A = lattice.A[:, None]
    known = np.isfinite(rows.D)
    D = np.where(known, rows.D, 1.0)
    gamma = np.where(known, A / (A + D), 0.0)
    g1 = np.where(known, gamma * D, A)
    tilt = (rows.target - gamma[:, :, None] * rows.own) @ lattice.root.mT
    before = np.where(known, at.A[0] / (at.A[0] + D), 0.0)
    moved = (lattice.delta - at.delta) @ rows.target.T
    moved = moved + gamma * (rows.residual - lattice.delta @ rows.own.T)
    return g1, tilt, moved - before * (rows.residual - at.delta[0] @ rows.own.T)


def _parts(rows: Matrix, own: Positions, nodes: int, work: Working) -> Iterator[Rows]:
    """The rows in working units, as many at once as stay in the cache."""
    size = max(1, CHUNK // nodes)
    has = own >= 0
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        mine, which = has[part], own[part]
        yield Rows(
            target=rows[part] @ work.basis.centring @ work.basis.to_basis,
            own=np.where(mine[:, None], work.basis.Q[which], 0.0),
            D=np.where(mine, work.basis.D[which], np.inf),
            residual=np.where(mine, work.y[which], 0.0),
        )


def _lattice(work: Working) -> Lattice:
    """Nodes over the range in which any of the integrands counts."""
    low, high = _range(work)
    panels = max(PANELS, math.ceil((high - low) / WIDTH))
    x, w = np.polynomial.legendre.leggauss(NODES)
    width = (high - low) / panels
    t = low + width * (np.arange(panels)[:, None] + (x + 1) / 2).ravel()
    A = work.basis.D.min() * np.expm1(t)
    weight = _log_density(t, work) + np.log(np.tile(w, panels))
    found = _lattice_at(A, work)
    return Lattice(A, weight, found.root, found.delta)


def _lattice_at(A: Vector, work: Working) -> Lattice:
    """Weighted least squares at A (N,), with equal weights."""

    def fitted(part: Vector, of: Working) -> tuple[Array, ...]:
        fit: Factor = factor(1 / (part[:, None] + of.basis.D), of)
        return fit.root, fit.delta

    root, delta = in_chunks(fitted, A, work)
    return Lattice(A, np.zeros(A.size), root, delta)


def _log_density(t: Vector, work: Working) -> Vector:
    """Log of exp ℓ_REML(A) Σ_j (A + D_j)⁻² dA/dt at t = log(1 + A/min D) (N,), up to a constant."""
    low = float(work.basis.D.min())
    A = low * np.expm1(t)

    def parts(part: Vector, of: Working) -> tuple[Array, ...]:
        w = low / (part[:, None] + of.basis.D)
        return criteria(part, of)[1], np.square(w).sum(axis=1)

    minus_2, common = in_chunks(parts, A, work)
    return np.asarray(t - minus_2 / 2 + np.log(common))


def _range(work: Working) -> tuple[float, float]:
    """Range of t = log(1 + A/min D) outside which the integrands of every row are negligible."""
    low, high = float(work.basis.D.min()), float(work.basis.D.max())
    contrasts = work.basis.D.size - work.basis.Q.shape[1]
    spread = math.log((high + float(work.y @ work.y)) / low + 1)
    # Beyond `spread` the slowest integrand falls as exp(-(contrasts/2 - 1) t), or as exp(-contrasts/2 t).
    rate = contrasts / 2 - 1 if matching_exists(*work.basis.Q.shape) else contrasts / 2
    t = np.linspace(0.0, spread + DROP / rate, max(SCAN, math.ceil((spread + DROP / rate) / WIDTH)))
    for _ in range(2):
        first, last = _counting(t, work)
        t = np.linspace(t[max(0, first - 1)], t[min(t.size - 1, last + 1)], SCAN)
    return float(t[0]), float(t[-1])


def _counting(t: Vector, work: Working) -> tuple[int, int]:
    """First and last of the points t at which the integrand of some row counts."""
    density = _log_density(t, work)
    A = work.basis.D.min() * np.expm1(t)
    extremes = [density, density + 2 * t, density + np.log(A + work.basis.D.min())]
    counts = np.any([values > values.max() - DROP for values in extremes], axis=0)
    where = np.flatnonzero(counts)
    return int(where[0]), int(where[-1])


def _compressed(F: Matrix) -> Matrix:
    """A matrix of as few columns as have the same F F' to rounding error."""
    values, vectors = np.linalg.eigh(F.T @ F)
    kept = values > values[-1] * F.shape[1] * np.finfo(np.float64).eps
    return np.asarray(F @ vectors[:, kept])
