"""Where a profile of the criterion crosses a height: the ends of profile-likelihood intervals.

All ends are searched together. With c the coordinate of interest and f the free ones, each step minimises the
quadratic model of the criterion over f and solves it for the height in c (Venzon & Moolgavkar 1988, Applied
Statistics 37:87-94), from exact slopes and their differences. An end that this does not find, because the profile
stops at the bound of its range or other coordinates meet theirs, is searched for by itself: the profile is minimised
with c held, first at the bound, then between the bound and the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.profile_coordinates import Coordinates, Gradient
from hierlmm.frequentist.inference.profile_slopes import Criterion, Places
from hierlmm.likelihood.trust_region import minimise

Array = NDArray[np.float64]
Trial = tuple[Coordinates, Array]

# Relative step of the differences of the exact slopes.
DIFFERENCE = 1e-6
# Step in c, relative, after which the next one would change nothing: with second derivatives by differences the steps
# shrink by about 1e-5 each.
SETTLED = 1e-6
MOST_STEPS = 20
# How often a step may be cut short at the bound of the range before the bound itself is looked at.
MOST_CUTS = 2
# How often the free coordinates are searched for with c held before the end is left to the search by itself.
MOST_RESCUES = 3
# A coordinate this close to the bound of its range is there.
AT_BOUND = 1e-7
# A singular fit is a saddle point in its Cholesky factor: searches start this far away from it.
NUDGE = 1e-2
# How often the distance from the estimate is doubled before an end is said to be infinite.
MOST_DOUBLINGS = 40


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """Value, gradient and Hessian at one x."""

    value: float
    gradient: Array
    hessian: Array


def evaluated(criterion: Criterion, trials: Sequence[Trial]) -> list[tuple[float, Array]]:
    """Value and gradient in x at each trial, in one call."""
    places = [coordinates.place(x) for coordinates, x in trials]
    direction = distance = None
    if trials and trials[0][0].direction is not None:
        direction = np.array([coordinates.direction for coordinates, _ in trials])
        distance = np.array([place.distance for place in places])
    found = criterion(
        Places(
            tuple(np.stack(same) for same in zip(*(place.factors for place in places), strict=True)),
            np.array([place.phi for place in places]),
            np.array([place.log_sigma for place in places]),
            direction,
            distance,
        )
    )
    out = []
    for i, (coordinates, x) in enumerate(trials):
        slopes = Gradient(
            tuple(S[i] for S in found.factors), found.phi[i], float(found.log_sigma[i]), float(found.distance[i])
        )
        out.append((float(found.value[i]), coordinates.pull(x, slopes)))
    return out


def _local(criterion: Criterion, trials: Sequence[Trial], first: int = 0) -> list[_Local]:
    """Value, gradient and Hessian of the coordinates from `first` on at each trial."""
    points: list[Trial] = []
    for coordinates, x in trials:
        points.append((coordinates, x))
        for k in range(first, len(x)):
            moved = x.copy()
            moved[k] += DIFFERENCE * max(1.0, abs(x[k]))
            points.append((coordinates, moved))
    found = iter(evaluated(criterion, points))
    out = []
    for _, x in trials:
        value, gradient = next(found)
        rows = []
        for k in range(first, len(x)):
            step = x[k] + DIFFERENCE * max(1.0, abs(x[k])) - x[k]
            rows.append((next(found)[1] - gradient)[first:] / step)
        H = np.array(rows).reshape(len(x) - first, len(x) - first)
        out.append(_Local(value, gradient[first:], 0.5 * (H + H.T)))
    return out


@dataclass(slots=True, eq=False)
class _Track:
    """One end on its way: `side` +1 or -1 in c, x where it is.

    cuts     how often it was stopped at the bound; rescues how often the free coordinates had to be searched for
    """

    coordinates: Coordinates
    side: float
    x: Array
    cuts: int = 0
    rescues: int = 0
    found: bool = False
    lost: bool = False

    @property
    def bound(self) -> float:
        low, high = self.coordinates.bounds
        return high if self.side > 0 else low

    def move(self, dc: float, free: Array) -> None:
        """Take a step in c, halfway to the bound at most, with the free coordinates that go with it."""
        c = self.x[0] + dc
        if np.isfinite(self.bound) and self.side * (c - self.bound) >= 0:
            self.cuts += 1
            self.lost = self.cuts > MOST_CUTS
            c = 0.5 * (self.x[0] + self.bound)
        self.x = np.concatenate([[c], self.x[1:] + free])


def ends(
    criterion: Criterion, coordinates: Sequence[Coordinates], minimum: float, height: float
) -> list[tuple[float, float]]:
    """For each set of coordinates the two c at which the profile is `height` above `minimum`, the smaller first.

    An end at the bound of the range means that the profile does not reach the height before it; infinite ends, that it
    does not within any reach.
    """
    if not coordinates:
        return []
    with np.errstate(all="ignore"):
        locals_ = _local(criterion, [(one, one.start) for one in coordinates])
        tracks = [_Track(one, side, one.start) for one in coordinates for side in (-1.0, 1.0)]
        for i, track in enumerate(tracks):
            _first(track, locals_[i // 2], height)
        for _ in range(MOST_STEPS):
            active = [track for track in tracks if not (track.found or track.lost)]
            if not active:
                break
            for track, at in zip(active, _local(criterion, [(t.coordinates, t.x) for t in active]), strict=True):
                _step(criterion, track, at, minimum + height)
        out = [track.x[0] if track.found else _alone(criterion, track, minimum, height) for track in tracks]
    return [(float(low), float(high)) for low, high in zip(out[::2], out[1::2], strict=True)]


def _first(track: _Track, at: _Local, height: float) -> None:
    """The step to where the quadratic model at the estimate has the height."""
    start = track.coordinates.start
    if abs(start[0] - track.bound) < AT_BOUND:
        track.x, track.found = np.concatenate([[track.bound], start[1:]]), True
        return
    model = _reduced(at)
    if model is None or not model[2] > 0:
        track.lost = True
        return
    dc = track.side * float(np.sqrt(2 * height / model[2]))
    track.move(dc, -model[4] * dc)


def _reduced(at: _Local) -> tuple[float, float, float, Array, Array] | None:
    """Value, slope and curvature in c of the quadratic model minimised over the free ones; p and q of f = -p - q dc."""
    H, g = at.hessian, at.gradient
    if not (np.isfinite(at.value) and np.isfinite(H).all()):
        return None
    try:
        L = np.linalg.cholesky(H[1:, 1:])
    except np.linalg.LinAlgError:
        return None
    p, q = np.linalg.solve(L.T, np.linalg.solve(L, np.column_stack([g[1:], H[1:, 0]]))).T
    return at.value - 0.5 * float(g[1:] @ p), float(g[0] - H[0, 1:] @ p), float(H[0, 0] - H[0, 1:] @ q), p, q


def _step(criterion: Criterion, track: _Track, at: _Local, goal: float) -> None:
    model = _reduced(at)
    if model is None:  # a saddle point in the free coordinates, as where a variance leaves zero
        track.rescues += 1
        track.lost = track.rescues > MOST_RESCUES or not np.isfinite(at.value)
        if not track.lost:
            _, free = held(criterion, track.coordinates, float(track.x[0]), track.x[1:])
            track.x = np.concatenate([track.x[:1], free])
        return
    value, slope, curvature, p, q = model
    above = value - goal
    inside = slope * slope - 2 * curvature * above
    if not slope * track.side > 0 and not inside > 0:
        track.lost = True
        return
    dc = -2 * above / (slope + track.side * np.sqrt(inside)) if inside > 0 else -above / slope
    start = track.coordinates.start[0]
    if not np.isfinite(dc) or track.side * (track.x[0] + dc - start) <= 0:
        track.lost = True
        return
    scale = abs(track.x[0] - start)
    settled = abs(dc) < SETTLED * scale and float(np.abs(p).max(initial=0.0)) < 1e-4
    track.move(float(dc), -p - q * dc)
    track.found = settled and not track.lost


def _alone(criterion: Criterion, track: _Track, minimum: float, height: float) -> float:
    """The end by minimising with c held: at the bound of the range, then between it and the estimate."""
    from scipy.optimize import brentq

    coordinates, start = track.coordinates, track.coordinates.start
    free = [start[1:]]

    def excess(c: float) -> float:
        value, free[0] = held(criterion, coordinates, c, free[0])
        return float(np.sqrt(max(value - minimum, 0.0)) - np.sqrt(height)) if np.isfinite(value) else np.inf

    outer = track.bound
    if np.isfinite(outer):
        if excess(outer) <= 0:
            return outer
    else:
        step, free[0] = track.side * 0.1 * max(1.0, abs(start[0])), start[1:]
        for _ in range(MOST_DOUBLINGS):
            outer = start[0] + step
            if excess(outer) > 0:
                break
            step *= 2
        else:
            return track.bound
    free[0] = start[1:]
    inner = float(start[0])
    low, high = min(inner, outer), max(inner, outer)
    signs = excess(low), excess(high)
    if not (np.isfinite(signs).all() and signs[0] * signs[1] < 0):
        return np.nan
    return float(brentq(excess, low, high, xtol=1e-10 * max(1.0, high - low), rtol=1e-12))


def held(criterion: Criterion, coordinates: Coordinates, c: float, free: Array) -> tuple[float, Array]:
    """The least criterion with c held, and the free coordinates there, searched from `free` and from beside it."""

    def at(part: Array) -> _Local:
        return _local(criterion, [(coordinates, np.concatenate([[c], part]))], first=1)[0]

    if not len(free):
        return at(free).value, free
    tries = [minimise(at, free), minimise(at, np.where(np.abs(free) < NUDGE, NUDGE, free))]
    best = min(tries, key=lambda found: found.point.value if np.isfinite(found.point.value) else np.inf)
    return best.point.value, best.theta
