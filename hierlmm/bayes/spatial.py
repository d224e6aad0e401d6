"""The exact posterior of a spatial area-level model: a lattice over (√A, ρ), everything else Gaussian.

Given ρ the model is an ordinary area-level model in turned coordinates (`likelihood.area.spatial`), so that one
decomposition serves every A of the lattice. ρ is uniform over its interval, or the part of it that the prior leaves; √A
and β have the priors of any area-level model.

The posterior is proper where that of the model with independent effects is. With K a basis of contrasts, K'X = 0, the
likelihood with β integrated out is at most a multiple of |K'VK|^−½ <= A^(−ν/2) |K'ΩK|^−½, and Ω is at least the inverse
of the largest eigenvalue of (I−ρW)'(I−ρW), which is bounded over a bounded interval of ρ: as A grows it falls at least
like A^(−ν/2) at every ρ alike, and near A = 0 it is bounded. At any ρ inside it falls no faster, so that the condition
is necessary too, and moments exist as they do there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import plane
from hierlmm.bayes.correlated import fixed_prior, sampling_eigenvalues
from hierlmm.bayes.families import SDPrior
from hierlmm.bayes.plane import Plane
from hierlmm.bayes.propriety import Propriety, area_propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.rhoprior import Between
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError
from hierlmm.likelihood.area.correlated import Rotation, blocks_of, independent, rotation
from hierlmm.likelihood.area.moments import moments
from hierlmm.likelihood.area.spatial import Node, Problem, node, problem, rough_node

Array = NDArray[np.float64]

# Nodes whose share of the posterior is below this are left out of the averages over areas.
NEGLIGIBLE = 1e-13
# Share of its interval by which ρ stays away from an end, where the decomposition would be of a singular matrix.
END = 1e-9
# Share of its interval within which of an end ρ is decomposed by singular values.
NEAR = 1e-3
# Coarse grid on which the bulk is found: in log √A around a typical sampling sd, and in the logit of the place of ρ.
REACH, SPACING = 12.0, 0.5
LOGITS = np.arange(-7.0, 7.25, 0.5)


def problem_of(design: AreaDesign) -> Problem:
    """The arrays of a design that has a `proximity`."""
    assert design.proximity is not None
    inside = design.sampled
    y = design.y[inside] - design.offset[inside]
    return problem(np.asarray(design.proximity), y, design.X, _errors(design), inside)


def _errors(design: AreaDesign) -> Rotation:
    inside = design.sampled
    if design.covariance is None:
        return independent(design.D[inside])
    return rotation(blocks_of(design.covariance[np.ix_(inside, inside)]))


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The data at one ρ: y (m,), X (m, p) and d (m,) in turned coordinates, and log of the Jacobian of the turn.

    β is measured from its ordinary least-squares value, so that no digits are lost in y − Xβ.
    """

    y: Array
    X: Array
    d: Array
    log_jacobian: float

    @classmethod
    def at(cls, at: Node, X: Array) -> Given:
        """The data in the coordinates of a node; X (m, p) of the areas in the fit."""
        return cls(at.y, at.forward(X), at.d, at.log_det_T)


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What every posterior of one design and interval of ρ needs, whatever its other priors.

    problem  the arrays; interval that of ρ
    known    the data at each ρ that was asked for
    line     log √A around a typical sampling sd, and loglik (line, LOGITS) there, of flat β: where the bulk is
    """

    problem: Problem
    interval: Between
    known: dict[float, Given]
    line: Array
    loglik: Array

    def rho(self, v: Array) -> Array:
        """ρ at logits v, the distance to the nearer end kept to its digits and at least END of the interval."""
        share = np.maximum(1 / (1 + np.exp(np.abs(v))), END)
        low, high = self.interval.low, self.interval.high
        return np.where(v < 0, low + (high - low) * share, high - (high - low) * share)

    def decomposed(self, rho: float) -> Node:
        """The node at ρ: the more accurate way near the ends."""
        low, high = self.problem.ends
        near = min(rho - low, high - rho) < NEAR * (high - low)
        return (node if near else rough_node)(self.problem, rho)

    def given(self, rho: float) -> Given:
        """The data at one ρ, computed once."""
        if rho not in self.known:
            self.known[rho] = Given.at(self.decomposed(rho), self.problem.X[self.problem.inside])
        return self.known[rho]

    def place(self) -> tuple[float, float]:
        """Mean and sd of the logit of the place of ρ under flat priors: the axis on which all posteriors are laid."""
        log_p = self.loglik + self.line[:, None] + _log_slope(LOGITS)
        weight = np.exp(log_p - log_p.max()).sum(axis=0)
        weight /= weight.sum()
        centre = float(weight @ LOGITS)
        return centre, max(math.sqrt(float(weight @ (LOGITS - centre) ** 2)), SPACING / 4)


def _log_slope(v: Array) -> Array:
    """Log of ds/dv for the place s = 1/(1 + exp(−v))."""
    away = np.abs(v)
    return np.asarray(-away - 2 * np.log1p(np.exp(-away)))


@lru_cache(maxsize=2)
def shared(design: AreaDesign, interval: Between) -> Shared:
    """The same object for one design and interval, so that a comparison decomposes each ρ once."""
    start = 0.5 * math.log(float(np.median(sampling_eigenvalues(design))))
    line = start + np.arange(-REACH, REACH + SPACING / 2, SPACING)
    found = Shared(problem_of(design), interval, {}, line, np.empty((line.size, LOGITS.size)))
    for k, rho in enumerate(found.rho(LOGITS)):
        own = found.given(float(rho))
        found.loglik[:, k] = moments(np.exp(2 * line), own.y, own.X, own.d).loglik + own.log_jacobian
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The log posterior density of (log √A or its logit, logit of the place of ρ), up to that of flat priors."""

    design: AreaDesign
    priors: ResolvedPriors
    shared: Shared

    @classmethod
    def of(cls, design: AreaDesign, priors: ResolvedPriors) -> Surface:
        """The surface of a design whose area effects are spatial."""
        assert priors.rho is not None
        return cls(design, priors, shared(design, priors.rho))

    @property
    def problem(self) -> Problem:
        """The arrays of the model."""
        return self.shared.problem

    @property
    def sd(self) -> SDPrior:
        """Prior of √A."""
        return self.priors.factors[0].sd[0]

    @property
    def fixed(self) -> tuple[Array, Array] | tuple[None, None]:
        """Prior of β less its least-squares value."""
        mean, cov = fixed_prior(self.priors)
        return (None, None) if mean is None or cov is None else (mean - self.problem.model.work.beta_ols, cov)

    def rho(self, v: Array) -> Array:
        """ρ at logits v."""
        return self.shared.rho(v)

    def tau(self, v: Array) -> Array:
        """√A at v: exp v, or the place v in the support of a prior that ends."""
        top = self.sd.largest
        return np.exp(v) if math.isinf(top) else np.exp(math.log(top) - np.logaddexp(0.0, -v))

    def loglik(self, A: Array, rho: float) -> Array:
        """Log likelihood (n,) of y with β integrated out over its prior, at A (n,)."""
        own = self.shared.given(rho)
        return moments(A, own.y, own.X, own.d, *self.fixed).loglik + own.log_jacobian

    def __call__(self, v: Array) -> Array:
        """Log density at v (n, 2)."""
        rho = self.rho(v[:, 1])
        out = np.empty(len(v))
        for value in np.unique(rho):
            own = rho == value
            out[own] = self.loglik(self.tau(v[own, 0]) ** 2, float(value))
        return out + self.prior_of_tau(v[:, 0]) + _log_slope(v[:, 1])

    def prior_of_tau(self, v: Array) -> Array:
        """Log prior density of v."""
        top = self.sd.largest
        tau = self.tau(v)
        if math.isinf(top):
            with np.errstate(divide="ignore"):
                return self.sd.log_density(tau) + v
        # a hair below the end of the support, where the density jumps to zero
        inside = np.minimum(tau, np.nextafter(top, 0.0))
        return self.sd.log_density(inside) + np.log(inside) - np.logaddexp(0.0, v)


@dataclass(frozen=True, slots=True, eq=False)
class SpatialIntegral:
    """The posterior of (√A, ρ) on a lattice, and why it is proper."""

    surface: Surface
    plane: Plane
    propriety: Propriety


def integrate(design: AreaDesign, priors: ResolvedPriors) -> SpatialIntegral:
    """Integrate the posterior of (√A, ρ).

    Raises PriorError where the posterior is improper, FitError where two step sizes do not come to agree.
    """
    surface = Surface.of(design, priors)
    prior = surface.sd
    start = 0.5 * math.log(float(np.median(sampling_eigenvalues(design))))
    middle = float(surface.rho(np.zeros(1))[0])

    def along(log_tau: Array) -> Array:
        tau = np.exp(log_tau)
        with np.errstate(divide="ignore"):
            return surface.loglik(tau**2, middle) + prior.log_density(tau) + log_tau

    m = int(design.sampled.sum())
    propriety = area_propriety(priors, m, along, start)
    limit = next(iter(propriety.sd.values()))
    highest = max(k for k in (0, 1, 2, 4) if k < limit)
    unit = math.exp(start)
    centre, width = _bulk(surface)

    def functionals(v: Array) -> Array:
        tau = surface.tau(v[:, 0])
        shrunk = tau**2 / (tau**2 + unit**2)
        place = 1 / (1 + np.exp(-v[:, 1]))
        moments_of_tau = ((tau / unit) ** k for k in (1, 2, 4) if k <= highest)
        return np.stack([shrunk, 1.0 - shrunk, place, 1.0 - place, *moments_of_tau])

    found = plane.integrate(
        surface, centre, width, ((prior.orders[0], limit - highest), (1.0, 1.0)), functionals
    )
    if not found.converged:
        raise FitError(
            "The integral over the area variance and rho must agree between two step sizes to "
            f"{plane.AGREE:g}; found a difference of {found.error:.1e} at the finest step. "
            "Check the sampling variances for values many orders of magnitude apart, or use engine='nuts'."
        )
    return SpatialIntegral(surface, found, propriety)


def _bulk(surface: Surface) -> tuple[Array, Array]:
    """Mean and sd (2,) of the density, roughly: that of ρ is the same under every prior of A."""
    line, top = surface.shared.line, surface.sd.largest
    tau = np.exp(line)
    inside = tau < top
    tau, line = tau[inside], line[inside]
    v = line if math.isinf(top) else line - np.log(top - tau)
    with np.errstate(divide="ignore"):
        log_p = surface.shared.loglik[inside] + (surface.sd.log_density(tau) + line)[:, None] + _log_slope(LOGITS)
    weight = np.exp(log_p - log_p.max()).sum(axis=1)
    weight /= weight.sum()
    centre = float(weight @ v)
    width = max(math.sqrt(float(weight @ (v - centre) ** 2)), SPACING / 4)
    place = surface.shared.place()
    return np.array([centre, place[0]]), np.array([width, place[1]])


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Exact moments at K nodes of (A, ρ) that carry the posterior, A ascending.

    A, rho, weight  (K,), weights summing to one
    beta (K, p), cov_beta (K, p, p)
    theta, g1, g2   (K, M) mean of each area, offset included, and the two parts of its variance given the node
    synthetic       (K, M) offset + x'β; gamma (K, M) weight of the own direct estimate
    """

    A: Array
    rho: Array
    weight: Array
    beta: Array
    cov_beta: Array
    theta: Array
    g1: Array
    g2: Array
    synthetic: Array
    gamma: Array


def nodes_of(surface: Surface, A: Array, rho: Array, weight: Array) -> Nodes:
    """Moments at nodes A, rho (K,) of any order; one decomposition for each value of ρ."""
    order = np.argsort(A, kind="stable")
    A, rho, weight = A[order], rho[order], weight[order]
    M, p = surface.design.X.shape
    out = Nodes(
        A, rho, weight / weight.sum(), np.empty((A.size, p)), np.empty((A.size, p, p)),
        *(np.empty((A.size, M)) for _ in range(5)),
    )  # fmt: skip
    for value in np.unique(rho):
        own = np.flatnonzero(rho == value)
        at = Areas.at(surface, surface.shared.decomposed(float(value)), A[own])
        out.beta[own], out.cov_beta[own] = surface.problem.model.work.beta_ols + at.delta, at.cov
        out.synthetic[own] = surface.design.offset + at.fixed + at.delta @ surface.design.X.T
        out.theta[own] = out.synthetic[own] + at.effect
        out.g1[own], out.g2[own], out.gamma[own] = at.g1, at.g2(), at.gamma()
    direct = surface.design.role == "direct"
    out.theta[:, direct] = surface.design.y[direct]
    out.g1[:, direct], out.g2[:, direct], out.gamma[:, direct] = 0.0, 0.0, 1.0
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """Moments of all M areas at n values of A and the ρ of a node.

    delta (n, p) β less its least-squares value, cov (n, p, p); fixed (M,) x'β at least squares
    effect, g1 (n, M) mean of v and its variance given β
    """

    surface: Surface
    node: Node
    A: Array
    w: Array
    X: Array
    delta: Array
    cov: Array
    fixed: Array
    effect: Array
    g1: Array

    @classmethod
    def at(cls, surface: Surface, at: Node, A: Array) -> Areas:
        """Moments at A (n,) and the ρ of a node."""
        given = Given.at(at, surface.problem.X[surface.problem.inside])
        found = moments(A, given.y, given.X, given.d, *surface.fixed)
        w = 1 / (A[:, None] + given.d)
        residual = given.y - found.beta @ given.X.T
        effect = at.reach((A[:, None] * w * residual).T).T
        L, m = at.loadings(), len(given.d)
        g1 = (A[:, None] * given.d * w) @ np.square(L[:, :m]).T + A[:, None] * np.square(L[:, m:]).sum(axis=1)
        fixed = surface.problem.model.ols(surface.problem.X)
        return cls(surface, at, A, w, given.X, found.beta, found.cov_beta, fixed, effect, g1)

    def moved(self, rows: Array, column: int) -> Array:
        """(n, M) column of X − c X_s, by which an area's mean moves with that coefficient; rows (M,) that of X."""
        return rows - self.node.reach((self.A[:, None] * self.w * self.X[:, column]).T).T

    def g2(self) -> Array:
        """(n, M) variance that β contributes."""
        X = self.surface.design.X
        H = [self.moved(X[:, j], j) for j in range(X.shape[1])]
        total = np.zeros_like(self.g1)
        for j, left in enumerate(H):
            for k, right in enumerate(H):
                total += self.cov[:, j, k, None] * left * right
        return np.maximum(total, 0.0)

    def gamma(self) -> Array:
        """(n, M) weight of an area's own direct estimate in its mean; 0 for areas without one."""
        m = self.w.shape[1]
        pairs = self.node.back(np.eye(m)) * self.node.forward(np.eye(m)).T
        out = np.zeros_like(self.g1)
        out[:, self.surface.problem.inside] = (self.A[:, None] * self.w) @ pairs.T
        return out


def lattice_nodes(integral: SpatialIntegral) -> Nodes:
    """The nodes of the lattice that carry the posterior, with their moments."""
    v, weight = integral.plane.nodes(), integral.plane.weight.ravel()
    kept = weight > NEGLIGIBLE
    surface = integral.surface
    return nodes_of(surface, surface.tau(v[kept, 0]) ** 2, surface.rho(v[kept, 1]), weight[kept])


def quantiles(weight: Array, values: Array, probability: Array) -> Array:
    """Quantiles of a weighted sample by its distribution function, ties joined."""
    order = np.argsort(values, kind="stable")
    F = np.cumsum(weight[order]) - 0.5 * weight[order]
    return np.interp(probability, F, values[order])


