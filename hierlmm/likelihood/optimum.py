"""The certified optimum of a linear mixed model's criterion, exactly on the boundary where that is the answer.

A variance that the data do not support ends at a theta of about 1e-10, because theta = 0 is stationary and the
curvature there is the derivative in the variance. Such elements are set to zero, the rest is polished, and the
boundary is kept only where the criterion does not rise and the derivative in every excluded direction is positive
(the Karush-Kuhn-Tucker condition). Surfaces with a singular optimum can have several optima, so a singular answer
is searched for again from other starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.lmm_derivatives import Derivatives, Method, Parameters, derivatives
from hierlmm.likelihood.triangular import cholesky_lower
from hierlmm.likelihood.trust_region import Minimum, minimise

Array = NDArray[np.float64]

# A diagonal element of Lambda this small (a variance of 1e-10 of the residual's, for columns of unit length) is a
# candidate for zero; Newton's method leaves about 1e-9 where zero is the answer.
NEAR_ZERO = 1e-5
# Two optima are the same when their criteria agree to this, relative to the criterion.
SAME_OPTIMUM = 1e-8
# Starting values of every standard deviation ratio, for columns of unit root mean square.
FIRST_START = 1.0
OTHER_STARTS = (0.2, 5.0)


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


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """The optimum on the working scale: theta, its factors, the derivatives there and the certificate."""

    method: Method
    parameters: Parameters
    theta: Array
    factors: tuple[Array, ...]
    at: Derivatives
    certificate: Certificate

    @property
    def singular(self) -> bool:
        """Whether some covariance matrix has less than full rank."""
        return any(rank < width for rank, width in zip(self.certificate.ranks, self.parameters.widths, strict=True))


def optimise(cp: CrossProducts, method: Method, start: Array | None = None) -> Optimum:
    """Minimise the ML or REML criterion over theta; `start` is a theta on the working scale."""
    parameters = Parameters.of(cp)
    first = parameters.theta([FIRST_START * np.eye(q) for q in parameters.widths]) if start is None else start
    found = [_search(cp, parameters, method, first)]
    evaluations = found[0].evaluations
    if len(parameters) and _singular(parameters, found[0].theta):
        for theta in _more_starts(parameters):
            found.append(_search(cp, parameters, method, theta))
            evaluations += found[-1].evaluations
    found.sort(key=lambda minimum: minimum.point.value)
    best = found[0]
    gap = SAME_OPTIMUM * max(1.0, abs(best.point.value))
    others: list[float] = []
    for minimum in found[1:]:
        if minimum.certified and minimum.point.value > max([best.point.value, *others]) + gap:
            others.append(minimum.point.value)
    return _finish(cp, parameters, method, best, evaluations, tuple(others))


def _search(cp: CrossProducts, parameters: Parameters, method: Method, start: Array) -> Minimum[Derivatives]:
    """One descent, then the zeros made exact where that costs nothing."""
    rough = minimise(lambda theta: derivatives(cp, parameters, theta, method), start)
    theta = _canonical(parameters, rough.theta)
    free = ~_zeros(parameters, theta)
    if free.all() and np.array_equal(theta, rough.theta):
        return rough

    def evaluate(part: Array) -> _Restricted:
        whole = np.zeros(len(theta))
        whole[free] = part
        return _Restricted.of(derivatives(cp, parameters, whole, method), free)

    exact = minimise(evaluate, theta[free])
    if exact.point.value > rough.point.value + 1e-10 * max(1.0, abs(rough.point.value)):
        return rough
    whole = np.zeros(len(theta))
    whole[free] = exact.theta
    total = rough.evaluations + exact.evaluations
    return Minimum(whole, exact.point.whole, exact.decrement, exact.curvature, total)


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


def _columns(parameters: Parameters) -> dict[tuple[int, int], list[int]]:
    """Positions in theta of each column of each factor, the diagonal element first."""
    out: dict[tuple[int, int], list[int]] = {}
    for k, (f, c) in enumerate(zip(parameters.factor, parameters.column, strict=True)):
        out.setdefault((f, c), []).append(k)
    return out


def _canonical(parameters: Parameters, theta: Array) -> Array:
    """theta with non-negative diagonals, and no column that is zero on the diagonal but not below it.

    The sign of a column of Lambda does not matter, and a zero diagonal above a non-zero element is a covariance
    matrix written in another rotation; the Cholesky factor of Lambda Lambda' is the same point in the usual one.
    """
    out = theta.copy()
    turned = False
    for places in _columns(parameters).values():
        if out[places[0]] < 0:
            out[places] = -out[places]
        turned |= bool(out[places[0]] < NEAR_ZERO < np.abs(out[places]).max())
    if not turned:
        return out
    factors = []
    for Lambda in parameters.factors(out):
        T = Lambda @ Lambda.T
        absent = np.diagonal(T) < NEAR_ZERO**2
        T[absent] = 0.0
        T[:, absent] = 0.0
        factors.append(cholesky_lower(T))
    return parameters.theta(factors)


def _zeros(parameters: Parameters, theta: Array) -> NDArray[np.bool_]:
    """Which elements are zero at a singular optimum: columns of Lambda that are negligible as a whole."""
    zero = np.zeros(len(theta), dtype=bool)
    for places in _columns(parameters).values():
        if np.abs(theta[places]).max() < NEAR_ZERO:
            zero[places] = True
    return zero


def _singular(parameters: Parameters, theta: Array) -> bool:
    return any(
        theta[places[0]] < NEAR_ZERO * max(1.0, float(np.abs(theta[places]).max()))
        for places in _columns(parameters).values()
    )


def _more_starts(parameters: Parameters) -> list[Array]:
    """Small and large standard deviations, and each block leaning to correlations of either sign."""
    starts = [parameters.theta([scale * np.eye(q) for q in parameters.widths]) for scale in OTHER_STARTS]
    below = np.array(parameters.row) != np.array(parameters.column)
    if below.any():
        for sign in (1.0, -1.0):
            theta = parameters.theta([0.5 * np.eye(q) for q in parameters.widths])
            theta[below] = sign * 0.8
            starts.append(theta)
    return starts


def _finish(
    cp: CrossProducts,
    parameters: Parameters,
    method: Method,
    best: Minimum[Derivatives],
    evaluations: int,
    others: tuple[float, ...],
) -> Optimum:
    factors = parameters.factors(best.theta)
    ranks, multipliers = _boundary(cp, factors, best.point.G_T)
    at = best.point
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
    return Optimum(method, parameters, best.theta, factors, at, certificate)


def _boundary(
    cp: CrossProducts, factors: Sequence[Array], G_T: Sequence[Array]
) -> tuple[tuple[int, ...], float]:
    """Rank of each factor, and the smallest derivative in the directions that a singular block leaves out."""
    ranks, smallest = [], np.inf
    for blocks, Lambda, slope in zip(cp.blocks, factors, G_T, strict=True):
        total = 0
        for block in blocks:
            u, d, _ = np.linalg.svd(Lambda[np.ix_(block, block)])
            rank = int((d > NEAR_ZERO * max(1.0, float(d.max(initial=0.0)))).sum())
            total += rank
            if rank < len(d):
                outside = u[:, rank:]
                allowed = outside.T @ slope[np.ix_(block, block)] @ outside
                smallest = min(smallest, float(np.linalg.eigvalsh(allowed)[0]))
        ranks.append(total)
    return tuple(ranks), smallest
