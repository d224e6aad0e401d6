"""The posterior of a spatial area-level model as a result: averages over the lattice, draws, rows that may be new."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import lattice as line
from hierlmm.bayes import mixture, plane
from hierlmm.bayes.areaposterior import existing
from hierlmm.bayes.areascale import areas_on_data_scale, with_means, without_mean
from hierlmm.bayes.areaterms import AreaTerms
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import TAILS, Draws, Estimates
from hierlmm.bayes.spatial import Areas, Nodes, SpatialIntegral, integrate, lattice_nodes
from hierlmm.bayes.spatial_limits import Limits
from hierlmm.bayes.spatial_results import SpatialAreaPosterior
from hierlmm.bayes.spatial_surface import Given, Surface
from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.moments import moments
from hierlmm.likelihood.area.spatial import Node

Array = NDArray[np.float64]

# Values of ρ that draws are made at for each standard deviation of its logit: the mixture over them is that over ρ to
# far less than the error of any number of draws.
DRAWN = 16


def spatial_posterior(design: AreaDesign, priors: ResolvedPriors, draws: int, seed: int) -> SpatialAreaPosterior:
    """The exact posterior with `draws` independent draws; raises as `spatial.integrate`."""
    integral = integrate(design, priors)
    nodes = lattice_nodes(integral)
    terms = averaged(nodes, design)
    limits = Limits.of(integral.surface)
    propriety = limits.narrowed(integral.propriety)
    limit = next(iter(propriety.sd.values()))
    mean = areas_on_data_scale(design, priors, nodes.weight, nodes.theta, nodes.g1 + nodes.g2)
    sample = with_means(design, draw(integral, draws, np.random.default_rng(seed)))
    return SpatialAreaPosterior(
        design=design,
        engine="integrate",
        priors=priors,
        propriety=propriety,
        diagnostics={
            "method": "lattice over log τ and the logit of rho, β and θ exact given both",
            "nodes": int(nodes.A.size),
            "relative_error": integral.plane.error,
            "log_marginal_likelihood": integral.plane.log_mass,
        },
        notes=(*design.notes, *propriety.missing(), *limits.notes(design.fixed), *without_mean(design, mean)),
        seed=seed,
        sample=sample,
        fixed_effects=existing(terms.beta, np.array([propriety.fixed[term] for term in design.fixed])),
        cov_beta=limits.existing_covariance(terms.cov_beta),
        terms=limits.existing_areas(terms, design, integral.propriety),
        variance=existing(_variance(integral, nodes), limit / np.array([2.0, 1.0])),
        A_nodes=nodes.A,
        weight=nodes.weight,
        mean=mean,
        rho_nodes=nodes.rho,
        rho_terms=_rho(integral, nodes),
    )


def averaged(nodes: Nodes, design: AreaDesign) -> AreaTerms:
    """Averages over the nodes, as `areaterms.average` makes them."""
    weight, spread = nodes.weight, nodes.g1 + nodes.g2
    centre = weight @ nodes.beta
    away = nodes.beta - centre
    cov = np.einsum("k,kij->ij", weight, nodes.cov_beta) + (weight[:, None] * away).T @ away
    lower, upper = mixture.quantiles(weight, nodes.beta, np.diagonal(nodes.cov_beta, axis1=1, axis2=2), TAILS)
    mean, variance = mixture.moments(weight, nodes.theta, spread)
    low, high = mixture.quantiles(weight, nodes.theta, spread, TAILS)
    direct = design.role == "direct"
    for values in (mean, low, high):
        values[direct] = design.y[direct]
    variance[direct] = 0.0
    return AreaTerms(
        beta=Estimates(centre, np.sqrt(np.diagonal(cov)), lower, upper, np.zeros(centre.size)),
        cov_beta=cov,
        theta=Estimates(mean, np.sqrt(variance), low, high, np.zeros(mean.size)),
        gamma=weight @ nodes.gamma,
        synthetic=weight @ nodes.synthetic,
        g1=weight @ nodes.g1,
        g2=weight @ nodes.g2,
        g3=weight @ (nodes.theta - mean) ** 2,
    )


def _variance(integral: SpatialIntegral, nodes: Nodes) -> Estimates:
    """Posterior of (A, τ), in this order."""
    low, high = integral.surface.tau(line.quantiles(integral.plane.margin(0), np.array(TAILS)))
    values = np.stack([nodes.A, np.sqrt(nodes.A)])
    mean = values @ nodes.weight
    sd = np.sqrt((values - mean[:, None]) ** 2 @ nodes.weight)
    return Estimates(mean, sd, np.array([low**2, low]), np.array([high**2, high]), np.zeros(2))


def _rho(integral: SpatialIntegral, nodes: Nodes) -> Estimates:
    """Posterior of ρ, (1,)."""
    low, high = integral.surface.rho(line.quantiles(integral.plane.margin(1), np.array(TAILS)))
    mean = float(nodes.weight @ nodes.rho)
    sd = math.sqrt(float(nodes.weight @ (nodes.rho - mean) ** 2))
    return Estimates(*(np.array([value]) for value in (mean, sd, low, high, 0.0)))


def draw(integral: SpatialIntegral, size: int, rng: np.random.Generator) -> Draws:
    """Independent draws: (√A, ρ) from the lattice, ρ moved to the nearest of a fine grid, then β and v given both."""
    surface, design = integral.surface, integral.surface.design
    v = plane.draw(integral.plane, size, rng)
    margin = integral.plane.margin(1)
    centre = float(margin.weight @ margin.v)
    step = math.sqrt(float(margin.weight @ (margin.v - centre) ** 2)) / DRAWN
    rho = surface.rho(centre + step * np.round((v[:, 1] - centre) / step))
    tau = surface.tau(v[:, 0])
    M, p = design.X.shape
    beta, theta = np.empty((size, p)), np.empty((size, M))
    noise = rng.standard_normal((size, p + 2 * M))
    for value in np.unique(rho):
        own = np.flatnonzero(rho == value)
        at = surface.shared.decomposed(float(value))
        beta[own], theta[own] = given_node(surface, at, tau[own] ** 2, noise[own])
    return packed(design, tau, rho, beta, theta)


def given_node(surface: Surface, at: Node, A: Array, noise: Array) -> tuple[Array, Array]:
    """Draws of β (n, p) and θ (n, M) at A (n,) and the ρ of a node, from standard normal noise (n, p + M or more)."""
    given = Given.at(at, surface.problem.X[surface.problem.inside])
    found = moments(A, given.y, given.X, given.d, *surface.fixed)
    p = found.beta.shape[1]
    delta = found.beta + (np.linalg.cholesky(found.cov_beta) @ noise[:, :p, None])[:, :, 0]
    return surface.problem.model.work.beta_ols + delta, means_given(surface, at, A, delta, noise[:, p:])


def means_given(surface: Surface, at: Node, A: Array, delta: Array, noise: Array) -> Array:
    """Draws of θ (n, M) given A (n,), the ρ of a node, and β less its least-squares value (n, p)."""
    design, m = surface.design, len(at.d)
    given = Given.at(at, surface.problem.X[surface.problem.inside])
    w = 1 / (A[:, None] + given.d)
    # in the coordinates of the loadings: those of the areas in the fit given the data, the others as they are
    mean, sd = np.zeros((len(A), len(design.areas))), np.repeat(np.sqrt(A)[:, None], len(design.areas), axis=1)
    mean[:, :m] = A[:, None] * w * (given.y - delta @ given.X.T)
    sd[:, :m] = np.sqrt(A[:, None] * given.d * w)
    effect = (mean + sd * noise[:, : len(design.areas)]) @ at.loadings().T
    theta = design.offset + surface.problem.model.ols(surface.problem.X) + delta @ design.X.T + effect
    direct = design.role == "direct"
    theta[:, direct] = design.y[direct]
    return np.asarray(theta)


def packed(design: AreaDesign, tau: Array, rho: Array, beta: Array, theta: Array) -> Draws:
    """Draws (S, ...) as one chain."""
    return Draws(
        variables={
            "beta": (("term",), beta[None]),
            "tau": ((), tau[None]),
            "A": ((), tau[None] ** 2),
            "rho": ((), rho[None]),
            "theta": (("area",), theta[None]),
        },
        coords={"term": design.fixed, "area": tuple(design.areas)},
    )


def rows_given(
    posterior: SpatialAreaPosterior, X: Array, offset: Array, area: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Mean, variance and weight on the own direct estimate (K, k) of offset + x'β + v at the nodes.

    area  (k,) place in the design of the area whose effect v is; -1: an area outside the proximity matrix, a new draw
    """
    surface = Surface.of(posterior.design, posterior.priors)
    A, rho = posterior.A_nodes, posterior.rho_nodes
    shape = (A.size, len(X))
    mean, variance, gamma = np.empty(shape), np.empty(shape), np.empty(shape)
    fixed = offset + surface.problem.model.ols(X)
    known = area >= 0
    for value in np.unique(rho):
        own = np.flatnonzero(rho == value)
        at = Areas.at(surface, surface.shared.decomposed(float(value)), A[own])
        mean[own] = fixed + at.delta @ X.T + np.where(known, at.effect[:, area], 0.0)
        design_X = posterior.design.X
        H = [
            np.where(known, X[:, j] - design_X[area, j] + at.moved(design_X[:, j], j)[:, area], X[:, j])
            for j in range(X.shape[1])
        ]
        through = sum(
            (at.cov[:, j, k, None] * H[j] * H[k] for j in range(len(H)) for k in range(len(H))),
            np.zeros((own.size, len(X))),
        )
        variance[own] = np.where(known, at.g1[:, area], A[own, None]) + through
        gamma[own] = np.where(known, at.gamma()[:, area], 0.0)
    return mean, variance, gamma
