"""Profile-likelihood intervals of the area variance and of ρ in a spatial area-level model.

Both are projections of {(A, ρ): 2 ℓ(Â, ρ̂) − 2 ℓ(A, ρ) <= χ²₁(level)} on one coordinate. Zero may be an end of that of
A, and the ends of the admissible interval those of that of ρ. Where Â = 0 every ρ has the highest likelihood, so that
its interval is all that is admissible.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.interval import level_set
from hierlmm.likelihood.area.spatial import Node, Problem, node
from hierlmm.likelihood.area.spatial_derivatives import Method, curvature, derivatives, slope
from hierlmm.likelihood.area.spatial_search import SpatialEstimate, SpatialPlace, loglik_at

# A root is found where a step is this small beside the distance to the nearer end of ρ, or beside A.
CLOSE = 1e-9
STEPS = 60
# The edge of the joint set is followed in ρ to this, beside the distance to the nearer end; A is flat in ρ there.
FLAT = 1e-4


def rho_interval(estimate: SpatialEstimate, level: float, problem: Problem, method: Method) -> tuple[float, float]:
    """Hull of {ρ: 2 max ℓ − 2 max_A ℓ(A, ρ) <= χ²₁(level)}, 0 < level < 1."""
    if estimate.place is SpatialPlace.ZERO:
        return problem.ends
    target = _target(estimate, level, method)
    rho = np.union1d(estimate.profile.rho, estimate.rho)
    above = np.interp(rho, estimate.profile.rho, estimate.profile.loglik) >= target
    above[np.searchsorted(rho, estimate.rho)] = True
    first, last = np.flatnonzero(above)[[0, -1]]
    lower, upper = problem.ends
    if first > 0:
        lower = _crossing(problem, method, target, float(rho[first]), float(rho[first - 1]))
    if last < len(rho) - 1:
        upper = _crossing(problem, method, target, float(rho[last]), float(rho[last + 1]))
    return lower, upper


def _target(estimate: SpatialEstimate, level: float, method: Method) -> float:
    best = estimate.loglik_reml if method == "reml" else estimate.loglik_ml
    return best - NormalDist().inv_cdf((1 + level) / 2) ** 2 / 2


def _crossing(problem: Problem, method: Method, target: float, inside: float, outside: float) -> float:
    """Where the profile crosses `target` between a ρ at or above it and one below: bracketed Newton."""
    low, high = inside, outside
    rho = (low + high) / 2
    for _ in range(STEPS):
        at = node(problem, rho)
        A, excess = _profile(at, method, target)
        low, high = (rho, high) if excess >= 0 else (low, rho)
        rate = slope(at, A, method)
        new = rho - excess / rate if rate else math.nan
        if not min(low, high) <= new <= max(low, high):
            new = (low + high) / 2
        if abs(new - rho) <= CLOSE * min(rho - problem.ends[0], problem.ends[1] - rho):
            return new
        rho = new
    return rho


def _profile(at: Node, method: Method, target: float) -> tuple[float, float]:
    """The best A at a node, and its log likelihood less `target`."""
    found = ESTIMATORS[method](at.y, at.Q, at.d)
    return found.A, loglik_at(at, found, method) - target


def variance_interval(estimate: SpatialEstimate, level: float, problem: Problem, method: Method) -> tuple[float, float]:
    """Hull of {A >= 0: 2 max ℓ − 2 max_ρ ℓ(A, ρ) <= χ²₁(level)}, 0 < level < 1.

    At each ρ of the grid whose profile is in the joint set the range of A is found; the widest are then closed by
    Newton steps on ℓ(A, ρ) = target and ∂ℓ/∂ρ = 0.
    """
    target = _target(estimate, level, method)
    # half a unit below, so that the grid does not miss a set that lies between two of its points
    wide = estimate.profile.rho[estimate.profile.loglik >= target - 0.5]
    candidates = np.union1d(wide, [] if math.isnan(estimate.rho) else [estimate.rho])
    ranges = [(float(rho), _range(node(problem, float(rho)), target, method)) for rho in candidates]
    found = [(rho, ends) for rho, ends in ranges if ends is not None]
    rho_low, (low, _) = min(found, key=lambda item: item[1][0])
    rho_high, (_, high) = max(found, key=lambda item: item[1][1])
    if low > 0:
        low = _extreme(problem, method, target, low, rho_low, -1)
    return low, _extreme(problem, method, target, high, rho_high, 1)


def _range(at: Node, target: float, method: Method) -> tuple[float, float] | None:
    own = target - at.log_det_T - (at.problem.model.log_jacobian if method == "reml" else 0.0)
    return level_set(method, own, at.y, at.Q, at.d)


def _extreme(problem: Problem, method: Method, target: float, A: float, rho: float, side: int) -> float:
    """The extreme A of {ℓ >= target}, from one on its edge at `rho`: along the edge ρ is moved until ∂ℓ/∂ρ is 0."""
    low, high = problem.ends
    for _ in range(STEPS):
        at = node(problem, rho)
        ends = _range(at, target, method)
        if ends is None:
            return A
        A = ends[0] if side < 0 else ends[1]
        if A == 0:
            return 0.0
        here = derivatives(at, curvature(at), A, method)
        bend = here.hessian[1, 1]
        step = -here.gradient[1] / bend if bend < 0 else math.copysign(0.1 * (high - low), here.gradient[1])
        new = float(np.clip(rho + step, rho - 0.5 * (rho - low), rho + 0.5 * (high - rho)))
        if abs(new - rho) <= FLAT * min(rho - low, high - rho):
            # along the edge dA/dρ = −ℓ_ρ/ℓ_A and d²A/dρ² = −ℓ_ρρ/ℓ_A: what the last step still moves A by
            return float(A + here.gradient[1] ** 2 / (2 * here.gradient[0] * bend))
        rho = new
    return A
