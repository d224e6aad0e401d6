"""Area means averaged over the posterior of the area variance: exact Gaussians given A, mixed over A.

E[θ_i|y] is the mean of the BLUP over p(A|y), and Var(θ_i|y) = E[g1|y] + E[g2|y] + Var[θ̂_i(A)|y] (Rao & Molina 2015,
ch. 10): the three terms that face g1, g2 and g3 of the EBLUP's mean squared error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import correlated, mixture
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.results import TAILS, Estimates
from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.moments import Moments, moments

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AreaTerms:
    """Posterior of β and of the M areas of a design, in table order, units of y (squared).

    beta (p,) Estimates; cov_beta (p, p); theta (M,) Estimates of the area means, offset included
    gamma     (M,) E[γ_i|y]: 1 for areas reported directly, 0 for areas without a direct estimate
    synthetic (M,) E[x_i'β|y] + offset
    g1, g2, g3 (M,) the three terms of Var(θ_i|y): E[g1|y], E[g2|y], Var[θ̂_i(A)|y]
    """

    beta: Estimates
    cov_beta: Array
    theta: Estimates
    gamma: Array
    synthetic: Array
    g1: Array
    g2: Array
    g3: Array


def conditional(design: AreaDesign, priors: ResolvedPriors, A: Array) -> Moments:
    """Exact moments of β and the means of the areas in the fit given each A (K,), under the prior of β."""
    if design.covariance is not None:
        return correlated.conditional(design, priors, A)
    into = design.sampled
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    return moments(A, y, X, D, *correlated.fixed_prior(priors))


def weights_on_direct(design: AreaDesign, at: Moments) -> Array:
    """(K, m) weight of each area's own direct estimate at the nodes."""
    if isinstance(at, correlated.CorrelatedMoments):
        return at.gamma
    return np.asarray(at.g1 / design.D[design.sampled])


def at_nodes(design: AreaDesign, at: Moments, A: Array) -> tuple[Array, Array, Array]:
    """Mean, g1 and g2 of the M areas (K, M) at the nodes A (K,); their variance given A is g1 + g2."""
    into, out = design.sampled, design.role == "unsampled"
    M = len(design.areas)
    theta, g1, g2 = np.zeros((A.size, M)), np.zeros((A.size, M)), np.zeros((A.size, M))
    theta[:, into] = at.theta + design.offset[into]
    g1[:, into], g2[:, into] = at.g1, at.g2
    theta[:, out] = at.beta @ design.X[out].T + design.offset[out]
    g1[:, out] = A[:, None]
    g2[:, out] = quadratic(at.cov_beta, design.X[out])
    direct = design.role == "direct"
    theta[:, direct] = design.y[direct]
    return theta, g1, g2


def average(design: AreaDesign, at: Moments, A: Array, weight: Array) -> AreaTerms:
    """Average the moments `at` the nodes A (K,) over their posterior weights (K,), which sum to one."""
    beta, cov_beta = coefficients(at, weight)
    into, direct, M = design.sampled, design.role == "direct", len(design.areas)
    fitted = at.beta @ design.X.T + design.offset
    theta, g1, g2 = at_nodes(design, at, A)
    spread = g1 + g2
    mean, variance = mixture.moments(weight, theta, spread)
    lower, upper = mixture.quantiles(weight, theta, spread, TAILS)
    for summary, value in ((mean, design.y), (variance, 0.0 * design.y), (lower, design.y), (upper, design.y)):
        summary[direct] = value[direct]
    gamma = np.where(direct, 1.0, 0.0)
    gamma[into] = weight @ weights_on_direct(design, at)
    return AreaTerms(
        beta=beta,
        cov_beta=cov_beta,
        theta=Estimates(mean, np.sqrt(variance), lower, upper, np.zeros(M)),
        gamma=gamma,
        synthetic=weight @ fitted,
        g1=weight @ g1,
        g2=weight @ g2,
        g3=weight @ (theta - mean) ** 2,
    )


def coefficients(at: Moments, weight: Array) -> tuple[Estimates, Array]:
    """Posterior of β: Estimates (p,) and covariance matrix (p, p)."""
    mean = weight @ at.beta
    away = at.beta - mean
    cov = np.einsum("k,kij->ij", weight, at.cov_beta) + (weight[:, None] * away).T @ away
    lower, upper = mixture.quantiles(weight, at.beta, np.diagonal(at.cov_beta, axis1=1, axis2=2), TAILS)
    return Estimates(mean, np.sqrt(np.diagonal(cov)), lower, upper, np.zeros(mean.size)), cov


def quadratic(cov: Array, X: Array) -> Array:
    """x' C x for covariances (K, p, p) and rows (k, p): (K, k)."""
    return np.asarray(np.einsum("ip,kpq,iq->ki", X, cov, X, optimize=True))
