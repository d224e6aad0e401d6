"""The joint log density of data and natural parameters in plain numpy: what a compiled model must equal.

Nothing is left out: densities are normalised, priors as `ResolvedPriors` states them (flat ones count 1).
Coordinates other than the natural ones add the logarithm of a Jacobian, given here too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.resolved import FactorPriors, ResolvedPriors
from hierlmm.design.types import AreaDesign, GroupingFactor, LMMDesign

Array = NDArray[np.float64]

LOG_2PI = math.log(2 * math.pi)


def normal(x: Array, mean: Array, variance: Array | float) -> float:
    """Log density of independent normal x, summed."""
    away = (x - mean) ** 2 / variance
    return float(-0.5 * (away + np.log(variance) + LOG_2PI + np.zeros_like(x)).sum())


def fixed_prior(priors: ResolvedPriors, beta: Array) -> float:
    """Log prior density of beta (p,)."""
    given = [(prior, value) for prior, value in zip(priors.fixed, beta, strict=True) if prior is not None]
    return float(sum(float(prior.log_density(value)) for prior, value in given))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaPoint:
    """Values of the parameters of an area-level model: beta (p,), tau > 0, theta (m,) of the areas in the fit."""

    beta: Array
    tau: float
    theta: Array


def log_joint_area(design: AreaDesign, priors: ResolvedPriors, at: AreaPoint) -> float:
    """log p(y | theta) + log p(theta | beta, tau) + log p(beta) + log p(tau)."""
    into = design.sampled
    mean = design.X[into] @ at.beta + design.offset[into]
    prior = fixed_prior(priors, at.beta) + float(priors.factors[0].sd[0].log_density(at.tau))
    return normal(design.y[into], at.theta, design.D[into]) + normal(at.theta, mean, at.tau**2) + prior


def log_marginal_area(design: AreaDesign, priors: ResolvedPriors, beta: Array, tau: float) -> float:
    """log p(y | beta, tau) + log p(beta) + log p(tau), the area effects integrated out."""
    into = design.sampled
    mean = design.X[into] @ beta + design.offset[into]
    prior = fixed_prior(priors, beta) + float(priors.factors[0].sd[0].log_density(tau))
    return normal(design.y[into], mean, tau**2 + design.D[into]) + prior


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LMMPoint:
    """Values of the parameters of a linear mixed model, per grouping factor in the design's order.

    beta (p,), sigma > 0; sd (q,) positive, correlation (q, q), b (levels, q)
    """

    beta: Array
    sigma: float
    sd: tuple[Array, ...]
    correlation: tuple[Array, ...]
    b: tuple[Array, ...]

    @property
    def G(self) -> tuple[Array, ...]:
        """Covariance matrices (q, q) of the effects."""
        return tuple(np.outer(s, s) * R for s, R in zip(self.sd, self.correlation, strict=True))


def log_joint_lmm(design: LMMDesign, priors: ResolvedPriors, at: LMMPoint) -> float:
    """log p(y | beta, b, sigma) + log p(b | G) + log p(beta) + log p(sigma) + log p(sd) + log p(correlation)."""
    mean = design.X @ at.beta + design.offset
    effects = 0.0
    for factor, b, G in zip(design.factors, at.b, at.G, strict=True):
        mean = mean + (factor.Z * b[factor.codes]).sum(axis=1)
        white = np.linalg.solve(np.linalg.cholesky(G), b.T)
        effects += normal(white, np.zeros_like(white), 1.0) - 0.5 * len(b) * float(np.linalg.slogdet(G)[1])
    return normal(design.y, mean, at.sigma**2) + effects + log_prior_lmm(priors, at)


def log_prior_lmm(priors: ResolvedPriors, at: LMMPoint) -> float:
    """Log prior density of beta, sigma and every factor's standard deviations and correlations."""
    total = fixed_prior(priors, at.beta)
    if priors.residual is not None:
        total += float(priors.residual.log_density(at.sigma))
    for factor, sd, R in zip(priors.factors, at.sd, at.correlation, strict=True):
        total += _factor_prior(factor, sd, R)
    return total


def _factor_prior(priors: FactorPriors, sd: Array, R: Array) -> float:
    total = sum(float(prior.log_density(value)) for prior, value in zip(priors.sd, sd, strict=True))
    for block, lkj in zip(priors.blocks, priors.correlation, strict=True):
        if lkj is not None:
            total += float(lkj.log_density(R[np.ix_(block, block)]))
    return total


def log_marginal_lmm(design: LMMDesign, priors: ResolvedPriors, at: LMMPoint) -> float:
    """log p(y | beta, G, sigma) + log prior, the effects integrated out; `at.b` is not read.

    y ~ N(X beta + offset, sigma² I + Z G Z'), by the matrix determinant and Woodbury identities on the dense
    cross-products of all effects together: for checking, not for speed.
    """
    r = design.y - design.offset - design.X @ at.beta
    ZZ, Zr = _cross_products(design.factors, r)
    roots: list[Array] = [np.asarray(np.linalg.cholesky(G), dtype=np.float64) for G in at.G]
    root = _block_diagonal([L for L, factor in zip(roots, design.factors, strict=True) for _ in factor.levels])
    inner = np.linalg.cholesky(np.eye(len(ZZ)) + root.T @ ZZ @ root / at.sigma**2)
    half = np.linalg.solve(inner, root.T @ Zr) / at.sigma
    log_det = 2 * float(np.log(np.diagonal(inner)).sum()) + len(r) * 2 * math.log(at.sigma)
    quadratic = float(r @ r - half @ half) / at.sigma**2
    return -0.5 * (len(r) * LOG_2PI + log_det + quadratic) + log_prior_lmm(priors, at)


def _cross_products(factors: Sequence[GroupingFactor], r: Array) -> tuple[Array, Array]:
    """Z'Z and Z'r for the columns of all factors, level by level."""
    starts = np.cumsum([0, *(len(f.levels) * f.Z.shape[1] for f in factors)])
    columns = [
        start + f.codes[:, None] * f.Z.shape[1] + np.arange(f.Z.shape[1])
        for start, f in zip(starts[:-1], factors, strict=True)
    ]
    where = np.concatenate(columns, axis=1)
    values = np.concatenate([f.Z for f in factors], axis=1)
    ZZ, Zr = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    np.add.at(ZZ, (where[:, :, None], where[:, None, :]), values[:, :, None] * values[:, None, :])
    np.add.at(Zr, where, values * r[:, None])
    return ZZ, Zr


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    size = sum(len(block) for block in blocks)
    out = np.zeros((size, size))
    start = 0
    for block in blocks:
        here = slice(start, start + len(block))
        out[here, here] = block
        start += len(block)
    return out


def correlation_of(partial: Array, size: int) -> Array:
    """Correlation matrix (q, q) of partial correlations by rows below the diagonal, each given the columns before.

    Lewandowski, Kurowicka & Joe (2009), JMVA 100:1989-2001.
    """
    L = np.eye(size)
    pairs = [(i, j) for i in range(1, size) for j in range(i)]
    for (i, j), z in zip(pairs, partial, strict=True):
        L[i, j] = z * math.sqrt(1.0 - float((L[i, :j] ** 2).sum()))
        L[i, i] = math.sqrt(max(0.0, 1.0 - float((L[i, : j + 1] ** 2).sum())))
    return np.asarray(L @ L.T)


def log_jacobian_partial(partial: Array, size: int) -> float:
    """log |d correlations / d partial correlations|: sum of (q - 2 - j) / 2 log(1 - z²); 0 for two coefficients."""
    columns = np.array([j for i in range(1, size) for j in range(i)])
    return float((0.5 * (size - 2 - columns) * np.log1p(-(partial**2))).sum())
