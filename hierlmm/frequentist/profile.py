"""How far the data let each standard deviation go: the criterion with one of them held and everything else optimal.

Of a mixed model one sd s = sqrt(G_kk) is held at a series of values. With T = G / sigma² on the working scale and v
the row of the map to the data scale that gives coefficient k, s² = sigma² v'Tv; in an orthonormal basis that starts
with v / |v| this holds the first element of T's Cholesky factor at s / (sigma |v|), so that what is left is a smooth
problem without constraints. sigma is a parameter here, not profiled out.

Source: Bates, Mächler, Bolker & Walker (2015), J. Stat. Software 67(1), section 5.1, for the use of such profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_variances import is_plain
from hierlmm.likelihood.area.criterion import ml_criterion as area_ml
from hierlmm.likelihood.area.criterion import reml_criterion as area_reml
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.interval import likelihood_of
from hierlmm.likelihood.lmm import LOG_2PI, CrossProducts, eliminate, solve_fixed
from hierlmm.likelihood.lmm_derivatives import Method, project, slopes
from hierlmm.likelihood.triangular import cholesky_lower
from hierlmm.likelihood.trust_region import minimise

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# The curves end where the criterion is this far above its minimum: a relative likelihood of exp(-5).
REACH = 10.0
# Probability of a chi-squared variable with one degree of freedom below REACH, for the ends of an area-level curve.
REACH_LEVEL = 0.998434597741997
AREA_POINTS = 61
# Points of a mixed model's curve are about this far apart in the root of the criterion, and at most so many a side.
SPACING = REACH**0.5 / 16
MOST_POINTS = 40
# A singular fit is a saddle point in the Cholesky factor: searches start this far (in sds, relative) away from it.
NUDGE = 1e-2
# Numbers touched by one evaluation beyond which no profile is computed: it needs several hundred evaluations.
LARGEST_WORK = 400_000
# Relative step of the differences of the exact gradient that stand for the Hessian.
DIFFERENCE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class ProfileCurve:
    """The criterion above its minimum, along one standard deviation.

    group, term  as in the variance components: ("tree", "Time"), ("Residual", ""); of an area-level model the area
                 column and "Intercept", whose sd is √A
    label        "sd(Time | tree)", "residual sd" or "√A"
    values       (K,) increasing, units of y per unit of the term
    criterion    (K,) -2 log likelihood (restricted under REML) less that of the fit, other variances re-optimised
    estimate     the sd that was fitted
    """

    group: str
    term: str
    label: str
    values: Array
    criterion: Array
    estimate: float


def area_profile(fit: AreaFit) -> tuple[ProfileCurve, ...]:
    """The curve of √A, exact at every point: of the likelihood of the method, above its own minimum."""
    design = fit.design
    into = design.sampled
    return curve_of_A(fit, design.y[into] - design.offset[into], design.X[into], design.D[into])


def curve_of_A(fit: AreaFit, y: Array, X: Array, D: Array) -> tuple[ProfileCurve, ...]:
    """The curve of √A where the effects of y (m,), X (m, p) and D (m,) are independent with variance A."""
    ends = fit.A_table(REACH_LEVEL)
    root = float(np.sqrt(fit.A_hat))
    values = np.linspace(np.sqrt(ends["lower"].iloc[0]), np.sqrt(ends["upper"].iloc[0]), AREA_POINTS)
    kind = likelihood_of(fit.method)
    best = root if fit.method == kind else float(np.sqrt(ESTIMATORS[kind](y, X, D).A))
    values = np.union1d(values, [root, best])
    criterion = (area_reml if kind == "reml" else area_ml)(values**2, y, X, D)
    above = np.asarray(criterion - criterion[np.searchsorted(values, best)], dtype=np.float64)
    return (ProfileCurve(fit.spec.random[0].factor, "Intercept", "√A", values, above, root),)


def lmm_profile(fit: LMMFit) -> tuple[ProfileCurve, ...]:
    """One curve for each random-effects sd and for the residual's; none at a limit, with a structure, or too large."""
    cp = fit.equations
    if fit.at is None or not is_plain(fit) or cp.cells is not None:
        return ()
    if cp.lead_rest.size + cp.rest.shape[0] ** 3 // 10 > LARGEST_WORK:
        return ()
    curves = []
    for f, factor in enumerate(fit.design.factors):
        for c, term in enumerate(factor.coefficients):
            held = _Held(cp, fit.method, cp.order.index(f), c)
            sd = float(np.sqrt(fit.G[f][c, c]))
            curves.append(_curve(fit, held, (factor.name, term, f"sd({term} | {factor.name})"), sd))
    held = _Held(cp, fit.method, -1, 0)
    return (*curves, _curve(fit, held, ("Residual", "", "residual sd"), float(np.sqrt(fit.sigma2))))


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    value: float
    gradient: Array
    hessian: Array


@dataclass(frozen=True, eq=False)
class _Held:
    """The criterion with the sd of `column` of `factor` (elimination order; -1: the residual) held.

    Free parameters: elements of the Cholesky factors of T in the turned bases, then log sigma.
    """

    cp: CrossProducts
    method: Method
    factor: int
    column: int

    @cached_property
    def block(self) -> list[int]:
        """The covariance block of the held coefficient."""
        return list(next(b for b in self.cp.blocks[self.factor] if self.column in b))

    @cached_property
    def row(self) -> Array:
        """v: the held coefficient as a combination of the working coefficients of its block."""
        return np.asarray(self.cp.Z_map[self.factor][self.column, self.block])

    @cached_property
    def bases(self) -> tuple[Array, ...]:
        """Per factor an orthonormal basis of the working coefficients, turned only in the held block."""
        bases = [np.eye(q) for _, q in self.cp.sizes]
        if self.factor >= 0:
            start = np.column_stack([self.row, np.eye(len(self.row))[:, 1:]])
            if len(self.row) > 1 and self.row[0] == 0:
                start = np.column_stack([self.row, np.eye(len(self.row))])
            turned = np.linalg.qr(start)[0]
            bases[self.factor][np.ix_(self.block, self.block)] = turned * np.sign(turned[:, 0] @ self.row)
        return tuple(bases)

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """(factor, row, column) of the free elements, the held one left out."""
        return [
            (f, block[r], block[c])
            for f, blocks in enumerate(self.cp.blocks)
            for block in blocks
            for c in range(len(block))
            for r in range(c, len(block))
            if not (f == self.factor and c == r == 0 and self.column in block)
        ]

    def start(self, factors: tuple[Array, ...], sigma: float) -> Array:
        """The free parameters at a fit, moved off a saddle point where it is singular."""
        turned = []
        for Q, Lambda in zip(self.bases, factors, strict=True):
            T = Q.T @ Lambda @ Lambda.T @ Q
            scale = NUDGE**2 * max(1.0, float(np.trace(T)))
            turned.append(cholesky_lower(T if np.linalg.eigvalsh(T)[0] > scale else T + scale * np.eye(len(T))))
        elements = [turned[f][r, c] for f, r, c in self.places]
        return np.array(elements if self.factor < 0 else [*elements, np.log(sigma)])

    def at(self, sd: float, free: Array) -> _Point:
        """Value, exact gradient, and the Hessian by differences of gradients."""
        value, gradient = self._evaluate(sd, free)
        hessian = np.empty((len(free), len(free)))
        for k in range(len(free)):
            moved = free.copy()
            moved[k] += DIFFERENCE * max(1.0, abs(free[k]))
            hessian[k] = (self._evaluate(sd, moved)[1] - gradient) / (moved[k] - free[k])
        return _Point(value, gradient, 0.5 * (hessian + hessian.T))

    def _evaluate(self, sd: float, free: Array) -> tuple[float, Array]:
        cp = self.cp
        sigma = sd if self.factor < 0 else float(np.exp(free[-1]))
        turned = [np.zeros((q, q)) for _, q in cp.sizes]
        for (f, r, c), value in zip(self.places, free, strict=False):
            turned[f][r, c] = value
        ratio = 0.0
        if self.factor >= 0:
            ratio = sd / (sigma * float(np.linalg.norm(self.row)))
            turned[self.factor][self.block[0], self.block[0]] = ratio
        factors = [Q @ L for Q, L in zip(self.bases, turned, strict=True)]
        state = eliminate(cp, factors)
        solved = solve_fixed(state.products)
        restricted = self.method == "reml"
        nu, rss = cp.n - cp.p if restricted else cp.n, float(solved.rss)
        total = float(state.log_det) + nu * (LOG_2PI + 2 * np.log(sigma)) + rss / sigma**2
        if restricted:
            total += float(solved.log_det_x) - 2 * cp.log_det_X_map
        at = project(cp, factors, state, solved)
        G_T = slopes(cp, at, sigma**-2, self.method)
        pulled = [2 * Q.T @ S @ L for Q, S, L in zip(self.bases, G_T, factors, strict=True)]
        gradient = [pulled[f][r, c] for f, r, c in self.places]
        if self.factor >= 0:
            own = pulled[self.factor][self.block[0], self.block[0]]
            gradient.append(2 * nu - 2 * rss / sigma**2 - own * ratio)
        return float(total), np.array(gradient)

    @property
    def unit(self) -> float:
        """The held sd at which the working coefficient is as variable as the residual, over the residual sd."""
        return 1.0 if self.factor < 0 else float(np.linalg.norm(self.row))


def _curve(fit: LMMFit, held: _Held, names: tuple[str, str, str], estimate: float) -> ProfileCurve:
    assert fit.at is not None
    sigma = float(np.sqrt(fit.sigma2))
    start = held.start(fit.at.factors, sigma)
    step = 0.05 * max(estimate, 0.3 * sigma * held.unit)

    def above(sd: float, free: Array) -> tuple[float, Array]:
        found = minimise(lambda x: held.at(sd, x), free)
        return found.point.value - fit.objective, found.theta

    right = _walk(above, estimate, start, step)
    left = _walk(above, estimate, start, -step)
    points = [*reversed(left), (estimate, 0.0), *right]
    values, criterion = (np.array(column) for column in zip(*points, strict=True))
    return ProfileCurve(*names, values, criterion, estimate)


def _walk(
    above: Callable[[float, Array], tuple[float, Array]], estimate: float, free: Array, step: float
) -> list[tuple[float, float]]:
    """Points (sd, criterion above the minimum) from the estimate outwards, evenly spaced in its root; 0 ends it."""
    points: list[tuple[float, float]] = []
    sd, root = estimate, 0.0
    while len(points) < MOST_POINTS and root < REACH**0.5 and (sd > 0 or step > 0):
        trial = max(sd + step, 0.0)
        with np.errstate(all="ignore"):
            value, solution = above(trial, free)
        if not np.isfinite(value):
            break
        new = float(np.sqrt(max(value, 0.0)))
        moved = abs(new - root)
        if moved > 1.6 * SPACING and abs(step) > 1e-3 * max(estimate, abs(sd)):
            step *= 0.4
            continue
        points.append((trial, value))
        sd, root, free = trial, new, solution
        step *= float(np.clip(SPACING / max(moved, 1e-12), 0.4, 2.5))
    return points
