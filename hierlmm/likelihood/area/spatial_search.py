"""Maximising the likelihood of a spatial area-level model over A >= 0 and the whole admissible interval of ρ.

At each ρ the model is an ordinary area-level model (`spatial.Node`), whose every local maximum in A is found, zero
included. Over a grid of ρ that is even in the logit of its place in the interval, and reaches to 1e-6 of either end,
each change of the profile's slope from rising to falling is closed by bracketed Newton steps; the maxima, the ends and
A = 0 among them, are compared by the likelihood itself. At A = 0 the likelihood does not depend on ρ: it is not
identified then, and is nan.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.spatial import Node, Problem, node, rough_node
from hierlmm.likelihood.area.spatial_derivatives import Derivatives, Method, curvature, derivatives, slope
from hierlmm.likelihood.area.variance import VarianceEstimate

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Distance of the last points of the grid from the ends of ρ, as a share of its interval: an optimum there is "at the
# end". The restricted likelihood is continuous up to an end whose null vector is among the columns of X, so that the
# point serves as the end itself to about this relative accuracy.
END = 1e-6
# Grid in the logit of the place of ρ: near the middle even steps, which are about 0.09 of the interval; then coarser.
MIDDLE, STEP = 4.2, 0.35
OUTER = (5.5, 7.0, 9.0, 11.5)
# An interval this many times the natural unit of ρ is wide; points of the grid within one unit of 0 there, and what
# share of the interval two points must be apart.
WIDE, INNER, SAME = 6.0, 25, 1e-8
# Newton on the profile stops at a step this small, as a share of the distance to the nearer end of ρ.
CLOSE = 1e-9
STEPS = 60
# Twice the gain in log likelihood that a further Newton step in (A, ρ) may still promise at an optimum.
DECREMENT = 1e-10


class SpatialPlace(Enum):
    """Where the highest likelihood lies."""

    INTERIOR = "interior"
    ZERO = "area variance zero"
    END = "end of rho"


@dataclass(frozen=True, slots=True, eq=False)
class SpatialProfile:
    """The likelihood along ρ, A at its best: rho (G,) increasing, A (G,), loglik (G,), slope (G,) = dℓ/dρ."""

    rho: Vector
    A: Vector
    loglik: Vector
    slope: Vector


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpatialEstimate(VarianceEstimate):
    """(Â, ρ̂) and the evidence that it is the global maximum of the likelihood over A >= 0 and the interval of ρ.

    The fields of `VarianceEstimate` speak of A at ρ̂, `maxima` of A at the local maxima; the information there is
    that of A with ρ known. Beside them:

    rho          estimate of ρ; nan at Â = 0, where nothing depends on it
    ends         open interval of ρ
    place        where the maximum lies
    gradient     (2,) ∂ℓ/∂(A, ρ) at the estimate; at Â = 0 the largest ∂ℓ/∂A over ρ (not positive), and 0
    hessian      (2, 2) second derivatives of ℓ in (A, ρ); nan at Â = 0
    information  (2, 2) expected information of the method in (A, ρ); nan at Â = 0
    optima       (n, 3) A, ρ and log likelihood of each local maximum that was found, by ρ
    profile      the likelihood along ρ on the grid
    """

    rho: float
    ends: tuple[float, float]
    place: SpatialPlace
    gradient: Vector
    hessian: Matrix
    information: Matrix
    optima: Matrix
    profile: SpatialProfile


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """The best A at one ρ."""

    node: Node
    found: VarianceEstimate
    loglik: float
    slope: float


def maximise(problem: Problem, method: Method) -> SpatialEstimate:
    """The highest of all local maxima over A >= 0 and the interval of ρ."""
    scan = [_at(rough_node(problem, rho), method) for rho in grid(problem)]
    # rough nodes lose digits near the ends
    scan[0], scan[-1] = (_at(node(problem, end.node.rho), method) for end in (scan[0], scan[-1]))
    scan += [_at(rough_node(problem, rho), method) for rho in _overlooked(scan)]
    scan.sort(key=lambda point: point.node.rho)
    found, ends = [], (scan[0], scan[-1])
    spent, last = len(scan), len(scan) - 2
    for k, (left, right) in enumerate(itertools.pairwise(scan)):
        # within a cell of an end the slopes may be rounding error, and the end itself stands for it
        if 0 < k < last and _hill(left, right):
            point, steps = _closed(problem, method, left, right)
            found.append(point)
            spent += steps
    beside = zip(ends, (scan[1], scan[-2]), strict=True)
    found += [end for end, near in beside if end.found.A > 0 and end.loglik > near.loglik]
    best = max(found, key=lambda point: point.loglik, default=None)
    profile = SpatialProfile(
        rho=np.array([point.node.rho for point in scan]),
        A=np.array([point.found.A for point in scan]),
        loglik=np.array([point.loglik for point in scan]),
        slope=np.array([point.slope for point in scan]),
    )
    optima = sorted((point.node.rho, point.found.A, point.loglik) for point in found)
    table = np.array([(A, rho, loglik) for rho, A, loglik in optima]).reshape(-1, 3)
    if best is None or best.found.A == 0:
        return _zero(problem, method, scan, profile, spent)
    return _certified(problem, method, best, profile, table, spent, ends=ends)


def _hill(left: _Point, right: _Point) -> bool:
    """Whether the profile has a maximum between two points: it falls to the flat ground of A = 0, too."""
    rises, falls = left.slope > 0, right.slope < 0
    return (rises and (falls or right.found.A == 0)) or (falls and left.found.A == 0)


def _overlooked(scan: list[_Point]) -> list[float]:
    """Values of ρ between points with A = 0 at which ∂ℓ/∂A may be positive at 0: tops of parabolas through three."""
    out = []
    for three in zip(scan, scan[1:], scan[2:], strict=False):
        a, b, c = (point.found.score for point in three)
        if any(point.found.A > 0 for point in three) or not (b >= a and b >= c and b < 0):
            continue
        bend, tilt = (a + c) / 2 - b, (c - a) / 2
        top = -tilt / (2 * bend) if bend < 0 else 0.0
        # the parabola is off by a part of what it bends over a step
        if b + tilt * top / 2 > -abs(bend):
            near = three[2] if top > 0 else three[0]
            out.append(three[1].node.rho + abs(top) * (near.node.rho - three[1].node.rho))
    return out


def grid(problem: Problem) -> Vector:
    """Values of ρ, increasing, 0 among them.

    Where the interval is far wider than that in which ρW has row sums up to 1, points that are even in there, and even
    in log|ρ| outside it, are among them too.
    """
    steps = np.arange(-MIDDLE, MIDDLE + STEP / 2, STEP)
    last = math.log1p(-END) - math.log(END)
    t = np.concatenate([[-last], -np.array(OUTER[::-1]), steps, OUTER, [last]])
    low, high = problem.ends
    # from the nearer end, so that the distance to it keeps its digits
    share = 1 / (1 + np.exp(np.abs(t)))
    rho = np.where(t < 0, low + (high - low) * share, high - (high - low) * share)
    if wide(problem):
        unit = _unit(problem)
        inner = np.linspace(-unit, unit, INNER)
        outer = unit * np.exp(np.arange(STEP, math.log(max(high, -low) / unit), STEP))
        more = np.concatenate([inner, outer, -outer])
        rho = np.concatenate([rho, more[(more > rho[0]) & (more < rho[-1])]])
    rho = np.sort(rho)
    apart = np.diff(rho, prepend=-math.inf) > SAME * (high - low)
    return np.union1d(rho[apart & (np.abs(rho) > SAME * (high - low))], 0.0)


def _unit(problem: Problem) -> float:
    """The ρ at which the largest row sum of ρW is 1."""
    return 1 / float(np.abs(problem.W).sum(axis=1).max())


def wide(problem: Problem) -> bool:
    """Whether the interval of ρ is far wider than its natural unit, as for matrices that hardly feed back."""
    return problem.ends[1] - problem.ends[0] > WIDE * _unit(problem)


def _at(at: Node, method: Method) -> _Point:
    found = ESTIMATORS[method](at.y, at.Q, at.d)
    return _Point(at, found, loglik_at(at, found, method), slope(at, found.A, method))


def loglik_at(at: Node, found: VarianceEstimate, method: str) -> float:
    """Log likelihood of y at Â of a node, all constants; of REML with β integrated out."""
    own = found.loglik_reml + at.problem.model.log_jacobian if method == "reml" else found.loglik_ml
    return own + at.log_det_T


def _closed(problem: Problem, method: Method, left: _Point, right: _Point) -> tuple[_Point, int]:
    """The maximum of the profile between a point where it rises and one where it falls, and the values of ρ spent.

    Newton on the slope of the profile, whose derivative is ℓ_ρρ − ℓ_ρA²/ℓ_AA, inside a bracket that shrinks. Where the
    profile is flat at A = 0 between two hills, the higher of the two is kept.
    """
    low, high = left, right
    width = problem.ends[1] - problem.ends[0]
    rho = (low.node.rho + high.node.rho) / 2
    if low.slope > 0 > high.slope:
        rho = (low.node.rho * high.slope - high.node.rho * low.slope) / (high.slope - low.slope)
    for spent in range(1, STEPS + 1):
        point = _at(node(problem, rho), method)
        if point.slope > 0 or (point.slope == 0 and high.loglik > low.loglik):
            low = point
        else:
            high = point
        at = derivatives(point.node, curvature(point.node), point.found.A, method)
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = at.hessian[1, 1] - at.hessian[0, 1] ** 2 / at.hessian[0, 0]
            new = rho - point.slope / bend if bend < 0 else math.nan
        if not low.node.rho < new < high.node.rho:
            new = (low.node.rho + high.node.rho) / 2
        room = min(rho - problem.ends[0], problem.ends[1] - rho)
        # the step after one this small is of the order of its square
        if abs(new - rho) <= CLOSE * min(room, width) or spent == STEPS:
            return _at(node(problem, new), method), spent + 1
        rho = new
    return low, STEPS


def _zero(problem: Problem, method: Method, scan: list[_Point], profile: SpatialProfile, spent: int) -> SpatialEstimate:
    """Â = 0: a maximum where no ρ has a positive derivative in A."""
    worst = max(scan, key=lambda point: point.found.score)
    found, score = worst.found, worst.found.score
    # at A = 0 the likelihoods are those of any node
    loglik_ml, loglik_reml = (loglik_at(worst.node, found, name) for name in ("ml", "reml"))
    nothing = np.full((2, 2), np.nan)
    return SpatialEstimate(
        A=0.0, score=score, multiplier=max(0.0, -score), decrement=0.0, converged=found.A == 0, maxima=(0.0,),
        evaluations=spent, loglik_ml=loglik_ml, loglik_reml=loglik_reml, information_sum=found.information_sum,
        information_trace=found.information_trace, rho=math.nan, ends=problem.ends, place=SpatialPlace.ZERO,
        gradient=np.array([score, 0.0]), hessian=nothing, information=nothing,
        optima=np.array([[0.0, math.nan, loglik_reml if method == "reml" else loglik_ml]]), profile=profile,
    )  # fmt: skip


def _certified(
    problem: Problem, method: Method, best: _Point, profile: SpatialProfile, optima: Matrix, spent: int,
    *, ends: tuple[_Point, _Point],
) -> SpatialEstimate:  # fmt: skip
    found = best.found
    at = derivatives(best.node, curvature(best.node), found.A, method)
    at_end = best in ends
    decrement = _decrement(at, at_end)
    concave = at.hessian[0, 0] < 0 and (at_end or np.linalg.det(at.hessian) > 0)
    return SpatialEstimate(
        A=found.A, score=float(at.gradient[0]), multiplier=0.0, decrement=decrement,
        converged=bool(decrement <= DECREMENT and concave), maxima=tuple(sorted(float(A) for A in optima[:, 0])),
        evaluations=spent, loglik_ml=loglik_at(best.node, found, "ml"), loglik_reml=loglik_at(best.node, found, "reml"),
        information_sum=found.information_sum, information_trace=found.information_trace, rho=best.node.rho,
        ends=problem.ends, place=SpatialPlace.END if at_end else SpatialPlace.INTERIOR, gradient=at.gradient,
        hessian=at.hessian, information=at.information, optima=optima, profile=profile,
    )  # fmt: skip


def _decrement(at: Derivatives, at_end: bool) -> float:
    """Twice the gain that a Newton step still promises, in A alone where ρ is at its end."""
    if at_end:
        return float(at.gradient[0] ** 2 / abs(at.hessian[0, 0]))
    return float(abs(at.gradient @ np.linalg.solve(at.hessian, at.gradient)))
