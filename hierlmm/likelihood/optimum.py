"""The certified optimum of a linear mixed model's criterion, exactly on the boundary where that is the answer.

A variance that the data do not support ends at a theta of about 1e-10, because theta = 0 is stationary and the
curvature there is the derivative in the variance. Such elements are set to zero, the rest is polished, and the
boundary is kept only where the criterion does not rise and the derivative in every excluded direction is positive
(the Karush-Kuhn-Tucker condition). Surfaces with a singular optimum can have several optima, so a singular answer
is searched for again from other starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Derivatives, Method, derivatives
from hierlmm.likelihood.moment_start import moment_factors
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.structured import ResidualModel, structured_derivatives
from hierlmm.likelihood.triangular import cholesky_lower
from hierlmm.likelihood.trust_region import Minimum, difference_hessian, minimise

Array = NDArray[np.float64]

# A diagonal element of Lambda this small (a variance of 1e-10 of the residual's, for columns of unit length) is a
# candidate for zero; Newton's method leaves about 1e-9 where zero is the answer.
NEAR_ZERO = 1e-5
# Two optima are the same when their criteria agree to this, relative to the criterion.
SAME_OPTIMUM = 1e-8
# Starting values of every standard deviation ratio, for columns of unit root mean square, where not by moments.
FIRST_START = 1.0
OTHER_STARTS = (0.2, 5.0)
# With a residual structure the Hessian takes over at this decrement or after so many steps, each time for a few steps.
NEWTON_FROM, AVERAGE_STEPS, CHORD_STEPS, NEWTON_ROUNDS = 1e-4, 40, 8, 8
NEWTON_NEAR = 1e-4
NEWTON_DONE = 1e-14
# Levels for each column of a covariance block below which the search is begun again elsewhere whatever it found.
FEW_LEVELS = 8
# Further starts of a residual structure, where an evaluation touches fewer numbers than this.
MORE_STARTS, LARGEST_WORK = 3, 5_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """Why the point is an optimum.

    decrement    g'H⁻¹g: twice the decrease of the criterion that a Newton step still predicts
    gradient     largest absolute derivative in a free element of theta
    curvature    smallest eigenvalue of the Hessian in the free elements
    multipliers  smallest derivative of the criterion in a variance direction that is held at zero (data scale of
                 the working columns), inf where none is; not negative at an optimum
    ranks        rank of Lambda per grouping factor, in elimination order
    evaluations  of the criterion with its derivatives, over all starts
    others       criteria of other optima that were found, best first
    """

    decrement: float
    gradient: float
    curvature: float
    multipliers: float
    ranks: tuple[int, ...]
    evaluations: int
    others: tuple[float, ...]
    certified: bool

    @property
    def scaled_gradient(self) -> float:
        """Length of the gradient where the Hessian is the identity, L⁻¹g with H = LL': lme4's scaled gradient."""
        return float(np.sqrt(self.decrement))


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """The optimum on the working scale: psi = (theta, phi), the factors, the derivatives there and the certificate."""

    method: Method
    parameters: Parameters
    psi: Array
    factors: tuple[Array, ...]
    at: Derivatives
    certificate: Certificate

    @property
    def theta(self) -> Array:
        """The elements of the relative covariance factors."""
        return self.psi[: len(self.parameters)]

    @property
    def singular(self) -> bool:
        """Whether some covariance matrix has less than full rank."""
        return any(rank < width for rank, width in zip(self.certificate.ranks, self.parameters.widths, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The criterion as a function of psi = (theta, phi); phi is empty where the residuals are independent."""

    cp: CrossProducts
    residual: ResidualModel | None
    parameters: Parameters
    method: Method

    @classmethod
    def of(cls, model: CrossProducts | ResidualModel, method: Method) -> Surface:
        """The surface of a design, whose residuals may have a structure."""
        if isinstance(model, ResidualModel):
            return cls(model.base, model, Parameters.of(model.base), method)
        return cls(model, None, Parameters.of(model), method)

    def __call__(self, psi: Array) -> Derivatives:
        """Criterion and derivatives; nan where psi is outside what doubles can compute."""
        if self.residual is None:
            return derivatives(self.cp, self.parameters, psi, self.method)
        with np.errstate(all="ignore"):
            return structured_derivatives(self.residual, self.parameters, psi, self.method)

    def starts(self) -> list[Array]:
        """Where the search begins: sd ratios by moments; with a residual structure ratios of one, and phi by moments.

        Criteria of residual structures can have several optima, so that with several parameters the search is begun
        again at independence and at a few points around the moments, where that is affordable.
        """
        if self.residual is None:
            return [self.parameters.theta(moment_factors(self.cp))]
        theta = self.parameters.theta([FIRST_START * np.eye(q) for q in self.parameters.widths])
        phi = self.residual.start()
        starts = [phi]
        if len(theta) + len(phi) > 1 and self.residual.work < LARGEST_WORK:
            noise = np.random.default_rng(0).normal(0.0, 0.5, (MORE_STARTS, len(phi)))
            starts += [0.0 * phi, *(phi + noise)]
        return [np.concatenate([theta, start]) for start in starts]


def optimise(model: CrossProducts | ResidualModel, method: Method, start: Array | None = None) -> Optimum:
    """Minimise the ML or REML criterion; `start` is a psi on the working scale."""
    surface = Surface.of(model, method)
    parameters = surface.parameters
    found = [_search(surface, psi) for psi in (surface.starts() if start is None else [start])]
    found.sort(key=_value)
    if len(parameters) and (start is None and _uncertain(surface.cp) or _singular(parameters, found[0].theta)):
        phi = found[0].theta[len(parameters) :]
        found += [_search(surface, np.concatenate([theta, phi])) for theta in _more_starts(parameters)]
        found.sort(key=_value)
    best = found[0]
    gap = SAME_OPTIMUM * max(1.0, abs(best.point.value))
    others: list[float] = []
    for minimum in found[1:]:
        if minimum.certified and minimum.point.value > max([best.point.value, *others]) + gap:
            others.append(minimum.point.value)
    return _finish(surface, best, sum(minimum.evaluations for minimum in found), tuple(others))


def _uncertain(cp: CrossProducts) -> bool:
    """Whether few levels are to tell a covariance matrix: such criteria can have several inner optima."""
    return any(
        len(block) > 1 and levels < FEW_LEVELS * len(block)
        for (levels, _), blocks in zip(cp.sizes, cp.blocks, strict=True)
        for block in blocks
    )


def _value(minimum: Minimum[Derivatives]) -> float:
    value = minimum.point.value
    return value if np.isfinite(value) else np.inf


def _search(surface: Surface, start: Array) -> Minimum[Derivatives]:
    """One descent, then the zeros made exact where that costs nothing."""
    rough = _descend(surface, start)
    parameters = surface.parameters
    psi = _canonical(parameters, rough.theta)
    free = ~_zeros(parameters, psi)
    if free.all() and np.array_equal(psi, rough.theta):
        return rough

    exact = _descend(surface, psi, free)
    if not exact.point.value <= rough.point.value + 1e-10 * max(1.0, abs(rough.point.value)):
        return rough
    return replace(exact, evaluations=rough.evaluations + exact.evaluations)


def _descend(surface: Surface, start: Array, free: NDArray[np.bool_] | None = None) -> Minimum[Derivatives]:
    """Newton's method with the average information, and for residual structures with the Hessian itself at the end.

    With `free` the other elements stay at zero. The average information of a residual structure is far enough from
    the Hessian that it converges slowly, and it cannot tell a minimum from a saddle point; differences of the exact
    gradient can.
    """
    if surface.residual is None and free is None:
        return minimise(surface, start)
    chosen = np.ones(len(start), dtype=bool) if free is None else free

    def whole(part: Array) -> Array:
        out = np.zeros(len(start))
        out[chosen] = part
        return out

    def evaluate(part: Array) -> _Restricted:
        return _Restricted.of(surface(whole(part)), chosen)

    if surface.residual is None:
        return _whole(minimise(evaluate, start[chosen]), whole)
    found = minimise(evaluate, start[chosen], until=NEWTON_FROM, most=AVERAGE_STEPS)
    evaluations = found.evaluations
    for _ in range(NEWTON_ROUNDS):
        held, origin = _Held(evaluate, difference_hessian(evaluate, found.theta, found.point)), found.theta
        found = minimise(held, origin, most=CHORD_STEPS)
        evaluations += len(held.hessian) + found.evaluations
        # the certificate speaks of the curvature here, not of that where the last steps began
        near = np.abs(found.theta - origin).max(initial=0.0) < NEWTON_NEAR
        if near and found.certified and found.decrement < NEWTON_DONE:
            break
    return replace(_whole(found, whole), evaluations=evaluations)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """The derivatives with a Hessian that was computed at another point near by."""

    evaluate: Callable[[Array], _Restricted]
    hessian: Array

    def __call__(self, part: Array) -> _Restricted:
        return replace(self.evaluate(part), hessian=self.hessian)


def _whole(found: Minimum[_Restricted], whole: Callable[[Array], Array]) -> Minimum[Derivatives]:
    point = found.point
    return Minimum(whole(found.theta), point.whole, found.decrement, found.curvature, found.evaluations)


@dataclass(frozen=True, slots=True, eq=False)
class _Restricted:
    """The derivatives in the free elements only."""

    value: float
    gradient: Array
    hessian: Array
    whole: Derivatives

    @classmethod
    def of(cls, at: Derivatives, free: NDArray[np.bool_]) -> _Restricted:
        return cls(at.value, at.gradient[free], at.hessian[np.ix_(free, free)], at)


def _canonical(parameters: Parameters, psi: Array) -> Array:
    """psi with non-negative diagonals, and no column that is zero on the diagonal but not below it.

    The sign of a column of Lambda does not matter, and a zero diagonal above a non-zero element is a covariance
    matrix written in another rotation; the Cholesky factor of Lambda Lambda' is the same point in the usual one.
    """
    out = psi.copy()
    turned = False
    for places in map(list, parameters.columns):
        if out[places[0]] < 0:
            out[places] = -out[places]
        turned |= bool(out[places[0]] < NEAR_ZERO < np.abs(out[places]).max())
    if not turned:
        return out
    k = len(parameters)
    factors = []
    for Lambda in parameters.factors(out[:k]):
        T = Lambda @ Lambda.T
        absent = np.diagonal(T) < NEAR_ZERO**2
        T[absent] = 0.0
        T[:, absent] = 0.0
        factors.append(cholesky_lower(T))
    out[:k] = np.where(parameters.general, parameters.theta(factors), out[:k])
    return out


def _zeros(parameters: Parameters, psi: Array) -> NDArray[np.bool_]:
    """Which elements are zero at a singular optimum: columns of Lambda that are negligible as a whole."""
    zero = np.zeros(len(psi), dtype=bool)
    for places in map(list, parameters.columns):
        if np.abs(psi[places]).max() < NEAR_ZERO:
            zero[places] = True
    return zero


def _singular(parameters: Parameters, psi: Array) -> bool:
    return any(
        abs(psi[places[0]]) < NEAR_ZERO * max(1.0, float(np.abs(psi[places]).max()))
        for places in map(list, parameters.columns)
    )


def _more_starts(parameters: Parameters) -> list[Array]:
    """Small and large standard deviations, and each block leaning to correlations of either sign."""
    starts = [parameters.theta([scale * np.eye(q) for q in parameters.widths]) for scale in OTHER_STARTS]
    below = np.ones(len(parameters), dtype=bool)
    below[[places[0] for places in parameters.columns]] = False
    if below.any():
        for sign in (1.0, -1.0):
            theta = parameters.theta([0.5 * np.eye(q) for q in parameters.widths])
            theta[below] = sign * 0.8
            starts.append(theta)
    return starts


def _finish(surface: Surface, best: Minimum[Derivatives], evaluations: int, others: tuple[float, ...]) -> Optimum:
    parameters, at = surface.parameters, best.point
    factors = parameters.factors(best.theta[: len(parameters)])
    ranks, multipliers = _boundary(surface.cp, factors, at.G_T)
    free = ~_zeros(parameters, best.theta)
    certificate = Certificate(
        decrement=best.decrement,
        gradient=float(np.abs(at.gradient[free]).max(initial=0.0)),
        curvature=best.curvature,
        multipliers=multipliers,
        ranks=ranks,
        evaluations=evaluations,
        others=others,
        certified=best.certified and multipliers >= -1e-6,
    )
    return Optimum(surface.method, parameters, best.theta, factors, at, certificate)


def _boundary(cp: CrossProducts, factors: Sequence[Array], G_T: Sequence[Array]) -> tuple[tuple[int, ...], float]:
    """Rank of each factor, and the smallest derivative in the directions that a singular block leaves out."""
    ranks, smallest = [], np.inf
    for blocks, structures, Lambda, slope in zip(cp.blocks, cp.structures, factors, G_T, strict=True):
        total = 0
        for block, structure in zip(blocks, structures, strict=True):
            inner = np.ix_(block, block)
            u, d, _ = np.linalg.svd(Lambda[inner])
            present = d > NEAR_ZERO * max(1.0, float(d.max(initial=0.0)))
            total += int(present.sum())
            if not present.all():
                smallest = min(smallest, _excluded(u[:, ~present], slope[inner], structure))
        ranks.append(total)
    return tuple(ranks), smallest


def _excluded(outside: Array, slope: Array, structure: str) -> float:
    """Smallest derivative in a variance that the structure allows in the directions `outside` (q, d)."""
    allowed = outside.T @ slope @ outside
    if structure == "general":
        return float(np.linalg.eigvalsh(allowed)[0])
    # the eigenvalue of an identity or compound symmetric matrix belongs to all of its directions together
    return float(np.trace(allowed))
