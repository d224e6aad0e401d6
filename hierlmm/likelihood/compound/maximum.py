"""Maximum marginal likelihood of the dispersion: every local maximum, the boundary included, with a certificate.

The profile score is scanned on a grid even in log(φ + 1/max y), the scale on which its terms change, from φ = 0 to a
bound beyond which the likelihood is below one already found: r units of positive count (binomial: with hits and
misses) have density at most 1/φ each for φ >= 1, so that the log likelihood is at most −r log φ. Each change of sign
from plus to minus is closed by bracketed Newton steps, and the maxima, φ = 0 among them where the score there is not
positive, are compared by the likelihood itself: the exact 0.0 is an answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.profile import CountData, Profile, hessian, profile, start

Array = NDArray[np.float64]

# Spacing of the grid in log(φ + 1/max y), for one data set and for many, and the fewest points.
GRID_STEP, GRID_STEP_MANY, FEWEST = 0.25, 0.75, 8
# A score this small beside the sum of its terms' sizes is rounding error and has no sign.
NOISE = 256 * np.finfo(np.float64).eps
# Newton stops at a step this small beside φ; bracketed steps allowed.
STEP, STEPS = 1e-14, 100
# Largest Newton decrement, in units of the log likelihood, of a certified optimum, and largest gradient in β relative
# to its terms.
DECREMENT, GRADIENT = 1e-10, 1e-9
# Numbers of one array (dispersions x data sets x units) that are worked on at once.
SLAB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DispersionEstimate:
    """(β̂, φ̂) and the evidence that it is the global maximum of the marginal likelihood over φ >= 0.

    dispersion   φ̂; exactly 0.0 where the likelihood is highest there. beta (p,)
    score        ∂ℓ/∂φ at the estimate: rounding error in the interior, <= 0 at zero
    multiplier   Karush-Kuhn-Tucker multiplier of φ >= 0: −score at zero, 0.0 in the interior
    gradient     largest |∂ℓ/∂β_k| over the sum of the sizes of its terms
    decrement    score² over the observed information of the profile; 0.0 at zero
    converged    whether decrement and gradient are rounding error
    maxima       every local maximum in φ that was found, increasing
    evaluations  dispersions at which the likelihood was maximised over β
    loglik       log likelihood, all constants
    hessian      (p + 1, p + 1) second derivatives in (β, φ)
    """

    dispersion: float
    beta: Array
    score: float
    multiplier: float
    gradient: float
    decrement: float
    converged: bool
    maxima: tuple[float, ...]
    evaluations: int
    loglik: float
    hessian: Array


@dataclass(frozen=True, slots=True, eq=False)
class ManyEstimates:
    """Estimates of N data sets: dispersion (N,), beta (N, p), loglik (N,), and which of them have one (N,)."""

    dispersion: Array
    beta: Array
    loglik: Array
    converged: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Maxima:
    """Local maxima of several data sets: which set, φ, β, and the profile there."""

    owner: NDArray[np.intp]
    phi: Array
    at: Profile
    evaluations: int


def informative(data: CountData) -> Array:
    """(N,) how many units have a density that falls like 1/φ for large φ: with a count, and for trials also a miss."""
    y = np.atleast_2d(data.y)
    inside = y > 0 if data.family == "poisson" else (y > 0) & (y < data.size)
    return np.asarray((inside * data.counted()).sum(axis=1))


def estimate(data: CountData) -> DispersionEstimate:
    """The maximum of one data set, y (m,), of which some unit must be `informative`."""
    found = _maxima(data, GRID_STEP)
    best = int(np.argmax(found.at.value))
    phi, at = float(found.phi[best]), found.at
    score, slope = float(at.score[best]), float(at.slope[best])
    interior = phi > 0
    decrement = score**2 / -slope if interior and slope < 0 else (math.inf if interior else 0.0)
    gradient = float(at.gradient[best])
    exact = decrement <= DECREMENT and gradient <= GRADIENT and not at.escaped[best]
    return DispersionEstimate(
        dispersion=phi,
        beta=at.beta[best],
        score=score,
        multiplier=0.0 if interior else -score,
        gradient=gradient,
        decrement=decrement,
        converged=bool(exact),
        maxima=tuple(sorted(float(value) for value in found.phi)),
        evaluations=found.evaluations,
        loglik=float(at.value[best]),
        hessian=hessian(data, at.beta[best], phi),
    )


def estimate_many(data: CountData) -> ManyEstimates:
    """The same for N data sets at once, y or weight (N, m); sets without an informative unit have no estimate (nan)."""
    N, p = len(data.counted()), data.X.shape[1]
    out = ManyEstimates(np.full(N, np.nan), np.full((N, p), np.nan), np.full(N, -np.inf), np.zeros(N, dtype=bool))
    usable = np.flatnonzero(informative(data) > 0)
    each = max(1, SLAB // (16 * len(data.size)))
    for first in range(0, len(usable), each):
        here = usable[first : first + each]
        found = _maxima(data.rows(here), GRID_STEP_MANY)
        order = np.argsort(found.at.value, kind="stable")
        owner = here[found.owner[order]]  # later ones, of higher likelihood, win
        at = found.at
        out.dispersion[owner], out.beta[owner] = found.phi[order], at.beta[order]
        out.loglik[owner] = at.value[order]
        fine = (at.gradient <= GRADIENT) & ~at.escaped & np.isfinite(at.value)
        interior = found.phi > 0
        fine &= ~interior | (at.score**2 <= DECREMENT * np.maximum(-at.slope, 0.0) + 0.0)
        out.converged[owner] = fine[order]
    return out


def _maxima(data: CountData, spacing: float) -> _Maxima:
    """Local maxima of each data set; never empty, since the score is negative beyond the bound."""
    N = len(data.counted())
    first = start(data, N)
    ends, lowest = _ends(data, first)
    length = np.log1p(ends / lowest)
    size = max(FEWEST, math.ceil(float(length.max()) / spacing) + 1)
    points = lowest[:, None] * np.expm1(length[:, None] * np.arange(size + 1) / (size - 1))
    owner = np.repeat(np.arange(N), size + 1)
    scan = _scan(data, owner, points.ravel(), np.repeat(first, size + 1, axis=0))
    score = np.where(np.abs(scan.score) > NOISE * scan.size, scan.score, 0.0).reshape(N, -1)
    low, high = _brackets(score)
    inside, spent = _close(data, owner[low], points.ravel(), low, high, scan)
    at_zero = np.flatnonzero(~_rises(score))
    sets = np.concatenate([at_zero, owner[low]])
    phi = np.concatenate([np.zeros(len(at_zero)), inside])
    begin = np.concatenate([scan.beta.reshape(N, size + 1, -1)[at_zero, 0], scan.beta[low]])
    return _Maxima(sets, phi, _scan(data, sets, phi, begin), len(owner) + spent + len(sets))


def _ends(data: CountData, first: Array) -> tuple[Array, Array]:
    """(N,) the dispersion beyond which no maximum can lie, and the scale 1/max y of the smallest that matter."""
    N = len(first)
    sets = np.arange(N)
    known = np.maximum(*(_scan(data, sets, np.full(N, phi), first).value for phi in (0.0, 1.0)))
    ends = np.exp(np.clip(-known / np.maximum(informative(data), 1), 0.0, 60.0))
    y = np.broadcast_to(data.y, (N, len(data.size)))
    largest = y.max(axis=1) if data.family == "poisson" else np.full(N, data.size.max())
    return ends, 1.0 / (1.0 + largest)


def _scan(data: CountData, owner: NDArray[np.intp], phi: Array, beta: Array) -> Profile:
    """Profiles of the data sets `owner` at phi, a slab at a time."""
    each = max(1, SLAB // len(data.size))
    parts = [
        profile(data.rows(owner[k : k + each]), phi[k : k + each], beta[k : k + each]) for k in range(0, len(phi), each)
    ]
    if len(parts) == 1:
        return parts[0]
    return Profile(*(np.concatenate([getattr(part, name) for part in parts]) for name in Profile.__slots__))


def _rises(score: Array) -> NDArray[np.bool_]:
    """(N,) whether the first score that is clear of rounding error is positive, so that φ = 0 is no maximum."""
    clear = score != 0
    at = np.argmax(clear, axis=1)
    return np.asarray(clear.any(axis=1) & (np.take_along_axis(score, at[:, None], axis=1)[:, 0] > 0))


def _brackets(score: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places (in the flattened grid) of neighbouring clear scores, the first positive and the second negative."""
    low, high = [], []
    for row, values in enumerate(score):
        clear = np.flatnonzero(values)
        turn = np.flatnonzero((values[clear[:-1]] > 0) & (values[clear[1:]] < 0))
        low.extend(row * score.shape[1] + clear[turn])
        high.extend(row * score.shape[1] + clear[turn + 1])
    return np.array(low, dtype=np.intp), np.array(high, dtype=np.intp)


def _close(
    data: CountData,
    owner: NDArray[np.intp],
    points: Array,
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    scan: Profile,
) -> tuple[Array, int]:
    """Zeros of the scores between grid points `low` and `high`, and the evaluations spent: Newton inside brackets."""
    a, b, beta = points[low], points[high], scan.beta[low]
    fa, fb = scan.score[low], scan.score[high]
    x = a + (b - a) * fa / (fa - fb)
    active, spent = np.ones(len(x), dtype=bool), 0
    last = np.full(len(x), np.inf)
    for _ in range(STEPS):
        if not active.any():
            break
        at = _scan(data, owner[active], x[active], beta[active])
        spent += int(active.sum())
        beta[active] = at.beta
        up = at.score > 0
        a[active], b[active] = np.where(up, x[active], a[active]), np.where(up, b[active], x[active])
        with np.errstate(divide="ignore", invalid="ignore"):
            new = x[active] - at.score / at.slope
        middle = 0.5 * (a[active] + b[active])
        inside = (at.slope < 0) & (new >= a[active]) & (new <= b[active])
        new = np.where(at.score == 0, x[active], np.where(inside, new, middle))
        step = np.abs(new - x[active])
        done = (step <= STEP * x[active]) | (inside & (step >= last[active]) & (step <= 1e-9 * x[active]))
        last[active] = np.where(inside, step, np.inf)
        x[active] = new
        active[active] = ~done
    return x, spent
