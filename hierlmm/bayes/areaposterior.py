"""The exact posterior of an area-level model: one integral over the area variance, everything else Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import correlated
from hierlmm.bayes import lattice as line
from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.areascale import areas_on_data_scale, scale_of, with_means, without_mean
from hierlmm.bayes.areaterms import AreaTerms, at_nodes, average, conditional
from hierlmm.bayes.families import SDPrior
from hierlmm.bayes.lattice import Lattice
from hierlmm.bayes.propriety import Propriety, area_propriety
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import TAILS, Draws, Estimates
from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError
from hierlmm.likelihood.area.moments import Moments

Array = NDArray[np.float64]

# Nodes whose share of every integrand is below this are left out of the averages over areas.
NEGLIGIBLE = 1e-19
# Draws times areas that are worked on at once: about 30 MB an array.
SLAB = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class AreaIntegral:
    """The posterior of τ = √A on a lattice.

    lattice    nodes and weights in log τ (or in the logit of τ over the upper end of the prior's support)
    tau        (K,) τ at the nodes; at: exact moments of β and the areas at these nodes
    propriety  why it is proper, and its moments
    log_mass   log of the marginal likelihood of y, up to the constant of improper priors
    """

    lattice: Lattice
    tau: Array
    at: Moments
    propriety: Propriety
    log_mass: float
    to_tau: Callable[[Array], Array]


def integrate_area(design: AreaDesign, priors: ResolvedPriors) -> AreaIntegral:
    """Integrate the posterior of the area variance.

    Raises PriorError where the posterior is improper, FitError where two step sizes do not come to agree.
    """
    prior, D = priors.factors[0].sd[0], design.D[design.sampled]
    start = 0.5 * math.log(float(np.median(D)))

    def log_density(log_tau: Array) -> Array:
        tau = np.exp(log_tau)
        with np.errstate(divide="ignore"):
            return conditional(design, priors, tau**2).loglik + prior.log_density(tau) + log_tau

    propriety = area_propriety(priors, D.size, log_density, start)
    limit = next(iter(propriety.sd.values()))
    highest = max(k for k in (0, 1, 2, 4) if k < limit)
    to_tau, on_line, start = _coordinate(prior, log_density, start)

    def functionals(v: Array) -> Array:
        tau = to_tau(v)
        shrunk = tau**2 / (tau**2 + np.median(D))
        return np.stack([shrunk, 1.0 - shrunk, *((tau / math.exp(start)) ** k for k in (1, 2, 4) if k <= highest)])

    grid = line.integrate(on_line, start, (prior.orders[0], limit - highest), functionals)
    if not grid.converged:
        raise FitError(
            "The integral over the area variance must agree between two step sizes to "
            f"{line.AGREE:g}; found a difference of {grid.error:.1e} at the finest step. "
            "Check the sampling variances for values many orders of magnitude apart, or use engine='nuts'."
        )
    tau = to_tau(grid.v)
    used = grid.weight * np.maximum(1.0, (tau / math.exp(start)) ** min(highest, 2)) > NEGLIGIBLE
    grid = replace(grid, weight=np.where(used, grid.weight, 0.0))
    at = conditional(design, priors, tau[used] ** 2)
    return AreaIntegral(grid, tau[used], at, propriety, grid.log_mass, to_tau)


def _coordinate(
    prior: SDPrior, log_density: Callable[[Array], Array], start: float
) -> tuple[Callable[[Array], Array], Callable[[Array], Array], float]:
    """Map from the line to τ, the log density on the line, and a start there."""
    if math.isinf(prior.largest):
        return np.exp, log_density, start
    top = math.log(prior.largest)

    def log_tau(v: Array) -> Array:
        return top - np.logaddexp(0.0, -v)

    def on_line(v: Array) -> Array:
        # a hair below the end of the support, where the density jumps to zero
        inside = np.minimum(log_tau(v), math.log(np.nextafter(prior.largest, 0.0)))
        return log_density(inside) - np.logaddexp(0.0, v)

    away = min(start - top, -1e-3)
    return lambda v: np.exp(log_tau(v)), on_line, away - math.log(-math.expm1(away))


def area_posterior(
    design: AreaDesign, priors: ResolvedPriors, draws: int, seed: int
) -> AreaPosterior:
    """The exact posterior with `draws` independent draws; raises as `integrate_area`."""
    integral = integrate_area(design, priors)
    weight = integral.lattice.weight[integral.lattice.weight > 0]
    weight = weight / weight.sum()
    A = integral.tau**2
    terms = average(design, integral.at, A, weight)
    variance = variance_estimates(integral, weight)
    mean, notes = on_scale(design, priors, integral, weight)
    return AreaPosterior(
        design=design,
        engine="integrate",
        priors=priors,
        propriety=integral.propriety,
        diagnostics={
            "method": "lattice over log τ, β and θ exact given τ",
            "nodes": int(A.size),
            "relative_error": integral.lattice.error,
            "log_marginal_likelihood": integral.log_mass,
        },
        notes=(*design.notes, *integral.propriety.missing(), *notes),
        seed=seed,
        sample=with_means(design, sample(design, priors, integral, draws, np.random.default_rng(seed))),
        fixed_effects=existing(terms.beta, np.array([integral.propriety.fixed[term] for term in design.fixed])),
        cov_beta=terms.cov_beta,
        terms=existing_areas(terms, design, integral.propriety),
        variance=variance,
        A_nodes=A,
        weight=weight,
        mean=mean,
    )


def on_scale(
    design: AreaDesign, priors: ResolvedPriors, integral: AreaIntegral, weight: Array
) -> tuple[Estimates | None, tuple[str, ...]]:
    """The area means on the scale of the data, None where it is the model's, and what a reader should know of them."""
    if scale_of(design) is None:
        return None, ()
    theta, g1, g2 = at_nodes(design, integral.at, integral.tau**2)
    mean = areas_on_data_scale(design, priors, weight, theta, g1 + g2)
    return mean, without_mean(design, mean)


def existing(values: Estimates, limit: Array) -> Estimates:
    """The same with means and sds that do not exist made nan: moments of order below `limit` exist."""
    return replace(
        values,
        estimate=np.where(limit > 1, values.estimate, np.nan),
        se=np.where(limit > 2, values.se, np.nan),
        mcse=np.where(limit > 1, values.mcse, np.nan),
    )


def existing_areas(terms: AreaTerms, design: AreaDesign, propriety: Propriety) -> AreaTerms:
    """Synthetic means depend on β, and those of areas without a direct estimate on the tail of τ too."""
    fixed = min(propriety.fixed.values(), default=math.inf)
    tail = min(fixed, *propriety.sd.values())
    out = design.role == "unsampled"
    limit = np.where(out, tail, np.inf)
    return replace(
        terms,
        theta=existing(terms.theta, limit),
        synthetic=terms.synthetic if fixed > 1 else np.full_like(terms.synthetic, np.nan),
        g1=np.where(limit > 2, terms.g1, np.nan),
        g2=np.where(limit > 2, terms.g2, np.nan),
        g3=np.where(limit > 2, terms.g3, np.nan),
    )


def variance_estimates(integral: AreaIntegral, weight: Array) -> Estimates:
    """Posterior of (A, τ), in this order: means and sds where they exist, and quantiles."""
    limit = next(iter(integral.propriety.sd.values()))
    v = line.quantiles(integral.lattice, np.array(TAILS))
    low, high = integral.to_tau(v)
    tau = np.stack([integral.tau**2, integral.tau])
    mean = tau @ weight
    sd = np.sqrt((tau - mean[:, None]) ** 2 @ weight)
    values = Estimates(mean, sd, np.array([low**2, low]), np.array([high**2, high]), np.zeros(2))
    return existing(values, limit / np.array([2.0, 1.0]))


def sample(
    design: AreaDesign, priors: ResolvedPriors, integral: AreaIntegral, size: int, rng: np.random.Generator
) -> Draws:
    """Independent draws of τ by inversion, then of β and θ from their Gaussians given it."""
    tau = integral.to_tau(line.draw(integral.lattice, size, rng))
    beta = np.empty((size, len(design.fixed)))
    theta = np.empty((size, len(design.areas)))
    each = max(1, SLAB // max(1, len(design.areas)))
    for first in range(0, size, each):
        here = slice(first, first + each)
        at = conditional(design, priors, tau[here] ** 2)
        noise = rng.standard_normal(at.beta.shape)
        beta[here] = at.beta + (np.linalg.cholesky(at.cov_beta) @ noise[:, :, None])[:, :, 0]
        theta[here] = _draw_theta(design, at, beta[here], tau[here], rng)
    return Draws(
        variables={
            "beta": (("term",), beta[None]),
            "tau": ((), tau[None]),
            "A": ((), tau[None] ** 2),
            "theta": (("area",), theta[None]),
        },
        coords={"term": design.fixed, "area": tuple(design.areas)},
    )


def _draw_theta(design: AreaDesign, at: Moments, beta: Array, tau: Array, rng: np.random.Generator) -> Array:
    """θ (draws, M) given β and τ: γy + (1-γ)x'β with variance γD, a new area x'β with variance A."""
    into, out = design.sampled, design.role == "unsampled"
    mean = beta @ design.X.T + design.offset
    variance = np.zeros_like(mean)
    if design.covariance is not None:
        mean[:, into] += correlated.draw_effects(design, design.y[into] - mean[:, into], tau**2, rng)
    else:
        gamma = at.g1 / design.D[into]
        mean[:, into] += gamma * (design.y[into] - mean[:, into])
        variance[:, into] = at.g1
    variance[:, out] = tau[:, None] ** 2
    direct = design.role == "direct"
    mean[:, direct] = design.y[direct]
    return np.asarray(mean + np.sqrt(variance) * rng.standard_normal(mean.shape))
