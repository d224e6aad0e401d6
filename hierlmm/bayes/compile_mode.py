"""Where sampling starts, on what scale it moves, and in which coordinates: read off the restricted mode.

Centred coordinates (the effects themselves) mix well where the data say more about an effect than its prior does,
non-centred ones (effects in units of their standard deviation) where they say less: Papaspiliopoulos, Roberts &
Sköld (2007), Statistical Science 22:59-73. The share of the data is the reliability, 1 - conditional variance /
prior variance, averaged over the levels; for areas it is the mean of gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts, cross_products
from hierlmm.design.types import AreaDesign, LMMDesign
from hierlmm.likelihood.area import restricted_loglik as area_restricted_loglik
from hierlmm.likelihood.area_moments import moments
from hierlmm.likelihood.area_variance import estimate_reml
from hierlmm.likelihood.blup import covariances, means
from hierlmm.likelihood.marginal import marginal, restricted_loglik
from hierlmm.likelihood.optimum import optimise

Array = NDArray[np.float64]
Centring = Literal["centred", "non-centred"]

# Reliability above which effects are sampled as they are: data and prior then say equally much.
HALF = 0.5
# Fall of the restricted log-likelihood from its mode to a variance of zero below which draws will come near zero,
# where centred effects are trapped in a narrowing funnel: beyond it zero is under e^-6 of the mode.
NEAR_ZERO = 6.0
# Starting variance, as a share of the error variance of an effect, where the estimate is smaller or zero.
SMALLEST_START = 0.1


def choose(reliability: float, fall: float) -> Centring:
    """Coordinates of one block of effects from its mean reliability and the fall of the restricted likelihood."""
    return "centred" if reliability > HALF and fall > NEAR_ZERO else "non-centred"


def _root(covariance: Array) -> Array:
    """Lower factor of a covariance matrix; empty where there are no coefficients."""
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaMode:
    """The m areas in the fit at the REML estimate of A, or at a small positive A where that is zero.

    beta (p,), beta_root (p, p) lower factor of its covariance, tau > 0; theta (m,) with offset, theta_scale (m,)
    centring  {"(1 | area)": coordinates}
    """

    beta: Array
    beta_root: Array
    tau: float
    theta: Array
    theta_scale: Array
    centring: dict[str, Centring]


def area_mode(design: AreaDesign) -> AreaMode:
    """The restricted mode of an area-level model."""
    into = design.sampled
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    A = estimate_reml(y, X, D).A
    at_mode, at_zero = area_restricted_loglik(np.array([A, 0.0]), y, X, D)
    start = max(A, SMALLEST_START * float(np.median(D)))
    at = moments(start, y, X, D)
    term = str(design.spec.random[0])
    return AreaMode(
        beta=at.beta,
        beta_root=_root(at.cov_beta),
        tau=float(np.sqrt(start)),
        theta=at.theta + design.offset[into],
        theta_scale=np.sqrt(at.g1 + at.g2),
        centring={term: choose(float(np.mean(A / (A + D))), float(at_mode - at_zero))},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LMMMode:
    """A linear mixed model at its REML estimates, moved a little inside where these are singular.

    beta (p,), beta_root (p, p) lower factor of its covariance, sigma > 0; per grouping factor in the design's
    order sd (q,), b (G, q) and b_root (q, q), a lower factor of the mean prediction error
    centring  {"(1 + Time | tree)": coordinates}, one entry a covariance block
    """

    beta: Array
    beta_root: Array
    sigma: float
    sd: tuple[Array, ...]
    b: tuple[Array, ...]
    b_root: tuple[Array, ...]
    centring: dict[str, Centring]


def block_name(coefficients: Sequence[str], factor: str) -> str:
    """A covariance block as a formula writes it: "(1 + Time | tree)", "(0 + Time | tree)"."""
    first = "1" if "Intercept" in coefficients else "0"
    rest = [name for name in coefficients if name != "Intercept"]
    return f"({' + '.join([first, *rest])} | {factor})"


def lmm_mode(design: LMMDesign) -> LMMMode:
    """The restricted mode of a linear mixed model."""
    cp = cross_products(design)
    optimum = optimise(cp, "reml")
    sigma2 = optimum.at.sigma2
    working = [Lambda @ Lambda.T for Lambda in optimum.factors]
    G = [sigma2 * B @ T @ B.T for B, T in zip(cp.Z_map, working, strict=True)]
    start = [
        sigma2 * B @ (T + SMALLEST_START * _share(levels, cp.n) * np.eye(len(T))) @ B.T
        for B, T, (levels, _) in zip(cp.Z_map, working, cp.sizes, strict=True)
    ]
    at = marginal(cp, start, sigma2).at
    mean, error = means(cp, at), covariances(cp, at)
    back = np.argsort(cp.order)
    return LMMMode(
        beta=mean.beta,
        beta_root=_root(error.beta),
        sigma=float(np.sqrt(sigma2)),
        sd=tuple(np.sqrt(np.diagonal(start[f])) for f in back),
        b=tuple(mean.b[f] for f in back),
        b_root=tuple(_root(error.error[f].mean(axis=0)) for f in back),
        centring=_lmm_centring(design, cp, G, sigma2),
    )


def _share(levels: int, n: int) -> float:
    """Error variance of an effect relative to sigma², for columns of unit root mean square: levels over rows."""
    return levels / n


def _lmm_centring(design: LMMDesign, cp: CrossProducts, G: Sequence[Array], sigma2: float) -> dict[str, Centring]:
    """Coordinates of each covariance block, from its reliability and from the fit without it."""
    conditional = covariances(cp, marginal(cp, G, sigma2).at).conditional
    best = float(restricted_loglik(cp, G, np.asarray(sigma2)))
    out: dict[str, Centring] = {}
    for k, f in enumerate(np.argsort(cp.order)):
        factor = design.factors[k]
        for block in factor.blocks:
            here = list(block)
            without = [g.copy() for g in G]
            without[f][here] = without[f][:, here] = 0.0
            fall = best - float(restricted_loglik(cp, without, np.asarray(sigma2)))
            prior = np.diagonal(G[f])[here]
            left = np.diagonal(conditional[f], axis1=1, axis2=2).mean(axis=0)[here]
            # a coefficient without variance has nothing to be centred on
            reliability = float(np.mean(1.0 - left / prior)) if (prior > 0).all() else 0.0
            out[block_name([factor.coefficients[c] for c in here], factor.name)] = choose(reliability, fall)
    return out
