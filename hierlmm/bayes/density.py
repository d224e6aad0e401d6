"""The posterior density of the variance parameters of a linear mixed model, in coordinates without bounds.

ψ = (standard deviations, correlations, σ) of all grouping factors. p(ψ|y) ∝ exp(ℓ(ψ))·p(ψ), with ℓ the log density of
y with β (under its prior) and b integrated out: under flat β the restricted likelihood (Harville 1974, Biometrika
61:383). The coordinates v are, factor by factor in the design's order: log sd of each coefficient; per block of two or
more the hyperbolic arctangents of its canonical partial correlations, row by row (Lewandowski, Kurowicka & Joe 2009,
JMVA 100:1989); last log σ. An sd whose prior ends at u has log(sd/(u - sd)) instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.families import LKJ, SDPrior
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.crossproducts import CrossProducts, cross_products, dense
from hierlmm.design.types import LMMDesign
from hierlmm.errors import PriorError
from hierlmm.likelihood.lmm import eliminate, solve_fixed
from hierlmm.likelihood.marginal import NormalPrior, restricted_loglik
from hierlmm.likelihood.patterns import Patterns, given, patterns

Array = NDArray[np.float64]

# Ratio of a random-effects sd to σ beyond which the posterior is not looked at: the likelihood loses its digits there.
LARGEST_RATIO = 1e6
# σ² below this share of rss/n has likelihood under exp(-5000 n); below ROUNDING of total/n, rounding decides.
NEVER, ROUNDING = 1e-4, 1e-14
# Ratio of sds at which random effects are as good as fixed.
UNPENALISED = 1e6
# Numbers in an array that is worked on at once: about 2 MB.
CACHE = 250_000


@dataclass(frozen=True, slots=True, eq=False)
class Variances:
    """K values of the variance parameters, data scale.

    sd           per factor in the design's order (K, q); correlation (K, q, q), zero between blocks
    sigma        (K,) residual standard deviation
    """

    sd: tuple[Array, ...]
    correlation: tuple[Array, ...]
    sigma: Array

    @property
    def G(self) -> tuple[Array, ...]:
        """Covariance matrices (K, q, q) per factor in the design's order."""
        return tuple(s[..., :, None] * R * s[..., None, :] for s, R in zip(self.sd, self.correlation, strict=True))

    def __getitem__(self, which: object) -> Variances:
        return Variances(
            tuple(s[which] for s in self.sd),  # type: ignore[call-overload]
            tuple(R[which] for R in self.correlation),  # type: ignore[call-overload]
            self.sigma[which],  # type: ignore[call-overload]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The log posterior density of ψ for one design and its priors.

    cp     cross-products; beta_prior the normal prior of β, None where flat
    names  of the d coordinates
    by     patterns of levels where there is one grouping factor, else None
    rss    residual sum of squares with β free and b as if fixed, total that with b = 0
    """

    design: LMMDesign
    priors: ResolvedPriors
    cp: CrossProducts
    beta_prior: NormalPrior | None
    names: tuple[str, ...]
    by: Patterns | None
    rss: float
    total: float

    @property
    def smallest_sigma(self) -> float:
        """σ below which the likelihood, a factor exp(-rss/2σ²) in it, is zero or rounding."""
        return float(np.sqrt(max(NEVER * self.rss, ROUNDING * self.total) / self.cp.n))

    def variances(self, v: Array) -> Variances:
        """ψ at coordinates v (K, d)."""
        sds, correlations, at = [], [], 0
        for factor in self.priors.factors:
            q = len(factor.coefficients)
            sds.append(np.stack([_sd(p, v[:, at + k])[0] for k, p in enumerate(factor.sd)], axis=-1))
            at += q
            R = np.broadcast_to(np.eye(q), (len(v), q, q)).copy()
            for block in factor.blocks:
                pairs = len(block) * (len(block) - 1) // 2
                if pairs:
                    L = correlation_root(np.tanh(v[:, at : at + pairs]), len(block))
                    R[:, np.asarray(block)[:, None], np.asarray(block)] = L @ L.swapaxes(-1, -2)
                at += pairs
            correlations.append(R)
        return Variances(tuple(sds), tuple(correlations), _sd(residual_prior(self.priors), v[:, at])[0])

    def log_prior(self, v: Array) -> Array:
        """Log density in v of the prior, Jacobians included; (K,)."""
        total, at = np.zeros(len(v)), 0
        for factor in self.priors.factors:
            for k, prior in enumerate(factor.sd):
                total += _sd(prior, v[:, at + k])[1]
            at += len(factor.coefficients)
            for block, lkj in zip(factor.blocks, factor.correlation, strict=True):
                pairs = len(block) * (len(block) - 1) // 2
                if lkj is not None:
                    total += log_partial(lkj, v[:, at : at + pairs], len(block))
                at += pairs
        return np.asarray(total + _sd(residual_prior(self.priors), v[:, at])[1])

    def log_likelihood(self, psi: Variances) -> Array:
        """Log density of y with β and b integrated out at K values of ψ; -inf where it cannot be represented."""
        covariances = psi.G
        G = [covariances[f] for f in self.cp.order]
        out = np.empty(psi.sigma.size)
        with np.errstate(all="ignore"):
            for here in pieces(self.cp, psi.sigma.size):
                part, sigma2 = [g[here] for g in G], psi.sigma[here] ** 2
                if self.by is not None:
                    out[here] = given(self.cp, self.by, part[0], sigma2, self.beta_prior).loglik
                else:
                    out[here] = restricted_loglik(self.cp, part, sigma2, self.beta_prior)
        return np.where(np.isfinite(out) & (psi.sigma >= self.smallest_sigma), out, -np.inf)

    def log_density(self, v: Array) -> Array:
        """Log posterior density of v (K, d) up to a constant: (K,).

        -inf where some sd is more than LARGEST_RATIO times σ (for columns of unit size), where rounding rules.
        """
        psi = self.variances(v)
        value = self.log_likelihood(psi) + self.log_prior(v)
        sizes = [np.sqrt((f.Z**2).mean(axis=0)) for f in self.design.factors]
        ratio = [(s * size).max(axis=1) for s, size in zip(psi.sd, sizes, strict=True)]
        far = np.max([*ratio, np.zeros(len(v))], axis=0) > LARGEST_RATIO * psi.sigma
        return np.where(np.isnan(value) | far, -np.inf, value)


def pieces(cp: CrossProducts, K: int) -> list[slice]:
    """Slices of K points whose arrays stay in the processor's cache."""
    levels, q = cp.sizes[0] if cp.sizes else (1, 1)
    m = cp.rest.shape[0]
    size = max(16, CACHE // max(1, levels * q * m + m * m))
    return [slice(first, first + size) for first in range(0, K, size)]


def target(design: LMMDesign, priors: ResolvedPriors) -> Target:
    """The posterior density of the variance parameters; DesignError as the cross-products raise."""
    names = []
    for factor in priors.factors:
        names += [f"sd({factor.name}:{c})" for c in factor.coefficients]
        for block in factor.blocks:
            named = [factor.coefficients[k] for k in block]
            names += [f"corr({factor.name}:{named[i]}, {named[j]})" for i in range(len(block)) for j in range(i)]
    beta_prior = None
    if not priors.is_flat_on_fixed:
        mean, precision = priors.fixed_moments()
        with np.errstate(divide="ignore"):
            beta_prior = NormalPrior(mean, 1.0 / np.sqrt(precision))
    cp = dense(cross_products(design))
    rss, total = (
        max(float(solve_fixed(eliminate(cp, [size * np.eye(q) for _, q in cp.sizes]).products).rss), 0.0)
        for size in (UNPENALISED, 0.0)
    )
    return Target(design, priors, cp, beta_prior, (*names, "sd(Residual)"), patterns(cp), rss, total)


def residual_prior(priors: ResolvedPriors) -> SDPrior:
    """The prior of σ, which every linear mixed model has."""
    if priors.residual is None:
        raise PriorError("A linear mixed model needs a prior of its residual sd; found none. State `residual`.")
    return priors.residual


def _sd(prior: SDPrior, v: Array) -> tuple[Array, Array]:
    """sd at coordinate v and the log prior density in v."""
    if math.isinf(prior.largest):
        sd = np.exp(v)
        return sd, prior.log_density(sd) + v
    # a hair inside the end of the support, where the density drops to zero
    sd = np.minimum(prior.largest / (1.0 + np.exp(-v)), np.nextafter(prior.largest, 0.0))
    log_slope = math.log(prior.largest) - np.logaddexp(0.0, v) - np.logaddexp(0.0, -v)
    return sd, prior.log_density(sd) + log_slope


def coordinate(prior: SDPrior, sd: Array) -> Array:
    """The coordinate at which the sd has this value; the end of the support for values beyond it."""
    if math.isinf(prior.largest):
        return np.log(sd)
    share = np.minimum(np.asarray(sd) / prior.largest, 1.0 - 1e-15)
    return np.asarray(np.log(share) - np.log1p(-share))


def correlation_root(partial: Array, q: int) -> Array:
    """(K, q, q) Cholesky factors of correlation matrices from canonical partial correlations (K, q(q-1)/2).

    Row i holds the partial correlations of coefficient i with 0 .. i-1, each given those before it.
    """
    L = np.zeros((len(partial), q, q))
    L[:, 0, 0] = 1.0
    at = 0
    for i in range(1, q):
        left = np.ones(len(partial))
        for j in range(i):
            L[:, i, j] = partial[:, at] * left
            # (1-p)(1+p) keeps the digits that 1-p² loses near ±1
            left = left * np.sqrt((1.0 - partial[:, at]) * (1.0 + partial[:, at]))
            at += 1
        L[:, i, i] = left
    return L


def log_partial(lkj: LKJ, z: Array, q: int) -> Array:
    """Log density in z = atanh(partial correlations) (K, q(q-1)/2) of an LKJ prior of the correlation matrix.

    The partial correlation of the (j+1)-th column has density ∝ (1-p²)^(b-1) with b = eta + (q-2-j)/2, and
    dp = (1-p²)dz.
    """
    total = np.zeros(len(z))
    at = 0
    for i in range(1, q):
        for j in range(i):
            b = lkj.eta + 0.5 * (q - 2 - j)
            log_beta = 2.0 * math.lgamma(b) - math.lgamma(2.0 * b)
            # log(1 - tanh² z) = 2 log 2 - 2 |z| - 2 log(1 + e^(-2|z|))
            size = np.abs(z[:, at])
            log_shrunk = 2.0 * (math.log(2.0) - size - np.log1p(np.exp(-2.0 * size)))
            total += b * log_shrunk - (2.0 * b - 1.0) * math.log(2.0) - log_beta
            at += 1
    return total
