"""Mean squared error of a prediction, averaged over what the data leave open about the area variance A.

For a prediction θ̂ of θ_i that is any function of the data, with θ̂(A) the best linear unbiased one at A,

    E[(θ̂ − θ_i)² | y] = ∫ (g1 + g2)(A) p(A|y) dA + Var_p[θ̂(A)] + (θ̂ − E_p θ̂(A))²

where p(A|y) ∝ exp ℓ_REML(A) π(A) is the posterior of A under a flat prior on β. It supposes nothing of the estimate of
A, so it holds at Â = 0, where an expansion around Â does not; it is positive, and needs no simulation. The prior is

    π_i(A) = (A + D_i)² (A + D̃)⁻²,   D̃ the median of the D_j

For equal D_j, and nearly where they differ little, that is (A + D_i)² Σ_j (A + D_j)⁻², under which the posterior
variance has no bias of second order for the mean squared error of the EBLUP of area i (Datta, Rao and Smith 2005,
Biometrika 92:183-196); for an area at the median it is flat. Where a few D_j are far below the others that sum is
theirs alone and goes with 1/A² up to the middle of the D_j: given Â = 0 its answers were far too small in simulations.
As D_i grows π_i becomes (A + D̃)⁻², which serves areas without a direct estimate. π_i leaves a proper posterior with
m > p + 2 areas; with fewer, that proper factor serves all of them. A prediction at covariates that are not the area's
own has an error that grows with A, and needs m > p + 4 for π_i.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.working import CHUNK, Factor, Working, factor, in_chunks, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]
Positions = NDArray[np.intp]

# The integrand is left out where it is below exp(-DROP) of its largest value.
DROP = 34.0
# Gauss-Legendre nodes a panel; a panel is at most WIDTH in log(A + min D), on which scale the integrand changes, and
# there are PANELS or more.
NODES, WIDTH = 16, 2.0
PANELS = 2
# m − p above which a matching prior leaves a proper posterior of an area's own mean, and of a mean elsewhere.
OWN, ELSEWHERE = 2, 4
# Points of a scan for the range of the integral, and most scans, each of what the one before left. The first goes down
# from its end by factors of 4, because the range shrinks with the number of areas and most often begins at 0.
SCAN, SCANS, FACTOR = 10, 12, 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """N nodes of an integral over A, in working units.

    A       (N,) nodes, increasing
    weight  (N,) log of quadrature weight times exp ℓ_REML(A) Σ_j (A + D_j)⁻²
    even    (N,) log of the same with (A + D̃)⁻² in the place of the sum
    root, delta  of the weighted least squares at each node: see `working.Factor`
    """

    A: Vector
    weight: Vector
    even: Vector
    root: Array
    delta: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """k predictions x'β + γ_i (y_i − x_i'β) in working units.

    target  (k, p) x on the basis Q; own (k, p) x_i, zero where there is no area's direct estimate in it
    apart   (k, p) x − x_i, exactly 0 for an area's own mean
    D       (k,) sampling variance of that estimate, inf where there is none; residual (k,) its OLS residual, or 0
    """

    target: Matrix
    own: Matrix
    apart: Matrix
    D: Vector
    residual: Vector


def matching_exists(m: int, p: int) -> bool:
    """Whether the matching prior of an area leaves a proper posterior with m areas and p coefficients."""
    return m - p > OWN


def integrated_errors(A_hat: float, y: Vector, X: Matrix, D: Vector, rows: Matrix, own: Positions) -> Vector:
    """(k,) mean squared errors, units of y squared, of x'β̂ + v̂ for x'β + v, with β̂ and v̂ at A_hat.

    A_hat    value of A at which the predictions were made, 0 included
    y, X, D  the m areas in the fit, as in `likelihood.area.criterion`
    rows     (k, p) covariates x; all 0 for the area effect alone
    own      (k,) which of the m areas the effect v is that of; -1: of one without a direct estimate, v̂ = 0
    """
    work = working(y, X, D)
    lattice = lattice_over_A(work)
    at = _predicting(A_hat, work)
    errors = [
        _errors(part, at, lattice, X.shape[0] - X.shape[1]) for part in _parts(rows, own, X, lattice.A.size, work)
    ]
    return work.basis.scale * np.concatenate([*errors, np.zeros(0)])


def integrated_factor(
    A_hat: float, y: Vector, X: Matrix, D: Vector, rows: Matrix, own: Positions
) -> tuple[Vector, Matrix]:
    """d (k,) and F (k, r), with diag(d) + F F' the matrix E[(θ̂ − θ)(θ̂ − θ)' | y] under one prior.

    One prior serves all areas here, so that the matrix is that of one posterior. Arguments as `integrated_errors`;
    each area occurs once in `own`. F has as few columns as hold the matrix to rounding error. The prior is that of an
    area at the median, flat on A; with m <= p + 4, where an unsampled area has no finite error under it, (A + D̃)⁻².
    """
    work = working(y, X, D)
    lattice = lattice_over_A(work)
    at = _predicting(A_hat, work)
    weight = lattice.even
    if X.shape[0] - X.shape[1] > ELSEWHERE:
        weight = weight + 2 * np.log1p(lattice.A / float(np.median(work.basis.D)))
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    independent, columns = [], []
    for part in _parts(rows, own, X, lattice.A.size, work):
        g1, tilt, moved = _pieces(part, at, lattice)
        independent.append(weight @ g1)
        loads = np.concatenate([tilt, moved[:, :, None]], axis=2) * np.sqrt(weight)[:, None, None]
        columns.append(loads.transpose(1, 0, 2).reshape(len(part.D), -1))
    F = _compressed(np.concatenate(columns))
    return work.basis.scale * np.concatenate(independent), math.sqrt(work.basis.scale) * F


def _errors(rows: Rows, at: Lattice, lattice: Lattice, contrasts: int) -> Vector:
    """Mean squared errors in working units, each row with its own prior where m − p = `contrasts` leaves one."""
    g1, tilt, moved = _pieces(rows, at, lattice)
    needed = np.where(rows.apart.any(axis=1), ELSEWHERE, OWN)
    D = np.where(contrasts > needed, rows.D, np.inf)
    log_weight = lattice.even[:, None] + 2 * np.log1p(lattice.A[:, None] / D)
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
    # x − γ x_i as (x − x_i) + (1 − γ) x_i: nothing is left of rounding where A is large beside D.
    shrinkage = np.where(known, D / (A + D), 0.0)
    tilt = (rows.apart + shrinkage[:, :, None] * rows.own) @ lattice.root.mT
    before = np.where(known, at.A[0] / (at.A[0] + D), 0.0)
    moved = (lattice.delta - at.delta) @ rows.target.T
    moved = moved + gamma * (rows.residual - lattice.delta @ rows.own.T)
    return g1, tilt, moved - before * (rows.residual - at.delta[0] @ rows.own.T)


def _parts(rows: Matrix, own: Positions, X: Matrix, nodes: int, work: Working) -> Iterator[Rows]:
    """The rows in working units, as many at once as stay in the cache."""
    size = max(1, CHUNK // nodes)
    has = own >= 0
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        mine, which = has[part], own[part]
        target = rows[part] @ work.basis.centring @ work.basis.to_basis
        same = mine & (rows[part] == X[which]).all(axis=1)
        theirs = np.where(mine[:, None], work.basis.Q[which], 0.0)
        yield Rows(
            target=np.where(same[:, None], theirs, target),
            own=theirs,
            apart=np.where(same[:, None], 0.0, target - theirs),
            D=np.where(mine, work.basis.D[which], np.inf),
            residual=np.where(mine, work.y[which], 0.0),
        )


def lattice_over_A(work: Working) -> Lattice:
    """Nodes over the range in which any of the integrands counts."""
    low, high = _range(work)
    panels = max(PANELS, math.ceil((high - low) / WIDTH))
    x, w = np.polynomial.legendre.leggauss(NODES)
    width = (high - low) / panels
    t = low + width * (np.arange(panels)[:, None] + (x + 1) / 2).ravel()
    found = _at(t, work)
    rule = np.log(np.tile(w, panels))
    return Lattice(found.A, found.weight + rule, found.even + rule, found.root, found.delta)


def _predicting(A_hat: float, work: Working) -> Lattice:
    """The one node that the predictions were made at, A_hat in the units of the data."""
    A = np.array([A_hat / work.basis.scale])
    root, delta, _, _ = _fitted(A, work)
    return Lattice(A, np.zeros(1), np.zeros(1), root, delta)


def _at(t: Vector, work: Working) -> Lattice:
    """The lattice at t = log(1 + A/min D) (N,) with dA/dt for the quadrature weight, logs up to a constant."""
    low = float(work.basis.D.min())
    A = low * np.expm1(t)
    root, delta, minus_2, common = in_chunks(_fitted, A, work)
    density = t - minus_2 / 2
    even = density - 2 * np.log1p(A / float(np.median(work.basis.D)))
    return Lattice(A, density + np.log(common), even, root, delta)


def _fitted(A: Vector, work: Working) -> tuple[Array, ...]:
    """Weighted least squares at A (N,), −2ℓ_REML, and Σ w² over the largest w² at A = 0."""
    w = 1 / (A[:, None] + work.basis.D)
    fit: Factor = factor(w, work)
    minus_2 = (w * np.square(fit.residual)).sum(axis=1) - np.log(w).sum(axis=1) + fit.log_det
    return fit.root, fit.delta, minus_2, np.square(w * work.basis.D.min()).sum(axis=1)


def _range(work: Working) -> tuple[float, float]:
    """Range of t = log(1 + A/min D) outside which the integrands of every row are negligible."""
    low, high = float(work.basis.D.min()), float(work.basis.D.max())
    spread = math.log((high + float(work.y @ work.y)) / low + 1)
    # Beyond `spread` the slowest integrand falls at this rate in t.
    contrasts = work.basis.Q.shape[0] - work.basis.Q.shape[1]
    rate = contrasts / 2 - _growth(contrasts)
    end = spread + DROP / rate
    t = np.append(0.0, end * FACTOR ** np.arange(-SCAN, 1.0))
    for scan in range(SCANS):
        first, last = _counting(t, work)
        enough = scan > 0 and last - first >= t.size // 2
        t = np.linspace(t[max(0, first - 1)], t[min(t.size - 1, last + 1)], SCAN)
        if enough:
            break
    return float(t[0]), float(t[-1])


def _growth(contrasts: int) -> float:
    """Power of A that the integrands which are used have beside A times the weight of a node, at most.

    A matching prior brings A², and the error of a mean elsewhere A.
    """
    return 2.0 if contrasts > ELSEWHERE else 1.0 if contrasts > OWN else 0.0


def _counting(t: Vector, work: Working) -> tuple[int, int]:
    """First and last of the points t at which the integrand of some row counts."""
    found = _at(t, work)
    growth = _growth(work.basis.Q.shape[0] - work.basis.Q.shape[1])
    powers = (0.0, 1.0, 1.0 + growth)
    extremes = [weight + power * t for weight in (found.weight, found.even) for power in powers]
    counts = np.any([values > values.max() - DROP for values in extremes], axis=0)
    where = np.flatnonzero(counts)
    return int(where[0]), int(where[-1])


def _compressed(F: Matrix) -> Matrix:
    """A matrix of as few columns as have the same F F' to rounding error."""
    wide = F.shape[1] > F.shape[0]
    values, vectors = np.linalg.eigh(F @ F.T if wide else F.T @ F)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]) if wide else F @ vectors[:, kept])
