"""The exact posterior of a spatial area-level model: a lattice over (√A, ρ), everything else Gaussian.

Given ρ the model is an ordinary area-level model in turned coordinates (`likelihood.area.spatial`), so that one
decomposition serves every A of the lattice. ρ is uniform over its interval, or the part of it that the prior leaves; √A
and β have the priors of any area-level model.

The posterior is proper where that of the model with independent effects is. With K a basis of contrasts, K'X = 0, the
likelihood with β integrated out is at most a multiple of |K'VK|^−½ <= A^(−ν/2) |K'ΩK|^−½, and Ω is at least the inverse
of the largest eigenvalue of (I−ρW)'(I−ρW), which is bounded over a bounded interval of ρ: as A grows it falls at least
like A^(−ν/2) at every ρ alike, and near A = 0 it is bounded. At any ρ inside it falls no faster, so that the condition
is necessary too. Moments of √A exist as they do there; of β and of areas without data those may be lost near an end of
ρ (`spatial_limits`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import plane
from hierlmm.bayes.correlated import sampling_eigenvalues
from hierlmm.bayes.plane import Plane
from hierlmm.bayes.propriety import Propriety, area_propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.spatial_surface import LOGITS, SPACING, Given, Surface, log_slope
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError
from hierlmm.likelihood.area.moments import moments
from hierlmm.likelihood.area.spatial import Node

Array = NDArray[np.float64]

# Nodes whose share of the posterior is below this are left out of the averages over areas.
NEGLIGIBLE = 1e-13


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
        log_p = surface.shared.loglik[inside] + (surface.sd.log_density(tau) + line)[:, None] + log_slope(LOGITS)
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
