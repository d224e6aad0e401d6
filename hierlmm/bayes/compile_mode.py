"""Where sampling starts, on what scale it moves, and in which coordinates: read off the restricted mode.

Centred coordinates (the effects around their mean) mix well where the data say more about an effect than its prior
does, non-centred ones (effects in units of their standard deviation) where they say less: Papaspiliopoulos, Roberts
& Sköld (2007), Statistical Science 22:59-73. The share of the data is the reliability, 1 - conditional variance /
prior variance, averaged over the levels; for areas it is the mean of gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.correlated import turned
from hierlmm.design.crossproducts import CrossProducts, cross_products, dense
from hierlmm.design.types import AreaDesign, GroupingFactor, LMMDesign
from hierlmm.likelihood.area.criterion import restricted_loglik
from hierlmm.likelihood.area.estimators import estimate_reml
from hierlmm.likelihood.area.moments import moments
from hierlmm.likelihood.blup import covariances, means
from hierlmm.likelihood.lmm import reml_criterion
from hierlmm.likelihood.marginal import marginal, relative_factor
from hierlmm.likelihood.optimum import optimise
from hierlmm.likelihood.triangular import cholesky_lower

Array = NDArray[np.float64]
Centring = Literal["centred", "non-centred"]

# Reliability above which effects are sampled as they are: data and prior then say equally much.
HALF = 0.5
# Fall of the restricted log-likelihood from its mode to a variance of zero below which draws will come near zero,
# where centred effects are trapped in a narrowing funnel: beyond it zero is under e^-6 of the mode.
NEAR_ZERO = 6.0
# Starting variance, as a share of the error variance of an effect, where the estimate is smaller or zero.
SMALLEST_START = 0.1
# Starting residual sd, as a share of the response's, where the estimate is smaller or zero.
SMALLEST_SIGMA = 1e-6
# A column is a multiple of another within every level where what is left of it is rounding.
ROUNDING = 1e-10


def choose(reliability: float, fall: float) -> Centring:
    """Coordinates of a coefficient's effects from their reliability and the fall of the restricted likelihood."""
    return "centred" if reliability > HALF and fall > NEAR_ZERO else "non-centred"


def _root(covariance: Array) -> Array:
    """Lower factor of a covariance matrix; empty where there are no coefficients."""
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AreaMode:
    """The m areas in the fit at the REML estimate of A, or at a small positive A where that is zero.

    beta (p,), beta_root (p, p) lower factor of its covariance, tau > 0; theta (m,) with offset, theta_scale (m,)
    centring  {"area:Intercept": coordinates}
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
    back = None
    if design.covariance is not None:
        turn = turned(design)
        y, X, D, back = turn.y, turn.X, turn.errors.d, turn.errors
    A = estimate_reml(y, X, D).A
    at_mode, at_zero = restricted_loglik(np.array([A, 0.0]), y, X, D)
    start = max(A, SMALLEST_START * float(np.median(D)))
    at = moments(start, y, X, D)
    name = f"{design.spec.random[0].factor}:Intercept"
    return AreaMode(
        beta=at.beta,
        beta_root=_root(at.cov_beta),
        tau=float(np.sqrt(start)),
        theta=(at.theta if back is None else back.back(at.theta)) + design.offset[into],
        theta_scale=np.sqrt(at.g1 + at.g2 if back is None else back.diagonal(at.g1 + at.g2)),
        centring={name: choose(float(np.mean(A / (A + D))), float(at_mode - at_zero))},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect:
    """Coordinates of one coefficient's effects u = b - E[b | coefficients before it in its covariance block].

    centring  "centred" or "non-centred"
    columns   fixed effects that vary only between levels as this coefficient does; weight (levels, columns): the
              mean of fixed + random is weight @ beta[columns]. Centred effects are sampled around that mean
              (hierarchical centring: Gelfand, Sahu & Carlin 1995, Biometrika 82:479-488)
    scale     typical sd of an effect given the data, units of the coefficient
    """

    centring: Centring
    columns: tuple[int, ...]
    weight: Array
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LMMMode:
    """A linear mixed model at its REML estimates, moved a little inside where these are singular.

    beta (p,), beta_root (p, p) lower factor of its covariance, sigma > 0; per grouping factor in the design's
    order sd (q,) positive, b (G, q) and conditional (q, q), the mean over the levels of Var(b | y, beta)
    effects  {"tree:Time": its coordinates}
    """

    beta: Array
    beta_root: Array
    sigma: float
    sd: tuple[Array, ...]
    b: tuple[Array, ...]
    conditional: tuple[Array, ...]
    effects: dict[str, Effect]

    @property
    def centring(self) -> dict[str, Centring]:
        """Coordinates of each coefficient's effects by name."""
        return {name: effect.centring for name, effect in self.effects.items()}


def lmm_mode(design: LMMDesign) -> LMMMode:
    """The restricted mode of a linear mixed model."""
    cp = dense(cross_products(design))
    optimum = optimise(cp, "reml")
    spread = float(np.std(design.y - design.offset)) or 1.0
    sigma2 = max(optimum.at.sigma2, (SMALLEST_SIGMA * spread) ** 2)
    working = [Lambda @ Lambda.T for Lambda in optimum.factors]
    G = [sigma2 * B @ T @ B.T for B, T in zip(cp.Z_map, working, strict=True)]
    # the error variance of an effect relative to sigma², for columns of unit root mean square, is levels / n
    inside = [
        sigma2 * B @ (T + SMALLEST_START * levels / cp.n * np.eye(len(T))) @ B.T
        for B, T, (levels, _) in zip(cp.Z_map, working, cp.sizes, strict=True)
    ]
    at = marginal(cp, inside, sigma2).at
    mean, error = means(cp, at), covariances(cp, at)
    back = np.argsort(cp.order)
    left = tuple(error.conditional[f].mean(axis=0) for f in back)
    return LMMMode(
        beta=mean.beta,
        beta_root=_root(error.beta),
        sigma=float(np.sqrt(sigma2)),
        sd=tuple(np.sqrt(np.diagonal(inside[f])) for f in back),
        b=tuple(mean.b[f] for f in back),
        conditional=left,
        effects=_effects(design, cp, G, sigma2, left),
    )


def _effects(
    design: LMMDesign, cp: CrossProducts, G: Sequence[Array], sigma2: float, left: Sequence[Array]
) -> dict[str, Effect]:
    """Coordinates of every coefficient; left: per factor the mean (q, q) covariance of b given y and beta.

    A fixed effect joins one coefficient only: among centred ones the one whose mean over the levels varies most.
    """
    best = float(reml_criterion(cp, _relative(cp, G, sigma2)))
    found: dict[str, tuple[GroupingFactor, int, Centring, float, float]] = {}
    for factor, conditional, f in zip(design.factors, left, np.argsort(cp.order), strict=True):
        for block in factor.blocks:
            here = list(block)
            L = cholesky_lower(G[f][np.ix_(here, here)])
            variance = np.diagonal(L) ** 2
            error = _innovations(L, conditional[np.ix_(here, here)])
            for k, c in enumerate(here):
                without = [g.copy() for g in G]
                without[f][np.ix_(here, here)] = (L * (np.arange(len(here)) != k)) @ L.T
                fall = 0.5 * (float(reml_criterion(cp, _relative(cp, without, sigma2))) - best)
                reliability = 1.0 - error[k] / variance[k] if variance[k] > 0 else 0.0
                name = f"{factor.name}:{factor.coefficients[c]}"
                share = float(variance[k]) / len(factor.levels)
                found[name] = (factor, c, choose(float(reliability), fall), float(np.sqrt(error[k])), share)
    taken: set[int] = set()
    out: dict[str, Effect] = {}
    for name, (factor, c, centring, scale, _) in sorted(found.items(), key=lambda item: -item[1][4]):
        columns, weight = _between(design, factor, c, taken if centring == "centred" else set(range(design.X.shape[1])))
        taken |= set(columns)
        out[name] = Effect(centring=centring, columns=columns, weight=weight, scale=scale)
    return {name: out[name] for name in found}


def _relative(cp: CrossProducts, G: Sequence[Array], sigma2: float) -> list[Array]:
    return [relative_factor(g, B, np.asarray(sigma2)) for g, B in zip(G, cp.Z_map, strict=True)]


def _innovations(L: Array, conditional: Array) -> Array:
    """(q,) Var(u | y), u_k = b_k less its regression on the coefficients before it; conditional = Var(b | y)."""
    diagonal = np.diagonal(L)
    unit = np.where(diagonal > 0, L / np.where(diagonal > 0, diagonal, 1.0), 0.0)
    np.fill_diagonal(unit, 1.0)
    half = np.linalg.solve(unit, conditional)
    return np.asarray(np.diagonal(np.linalg.solve(unit, half.T)), dtype=np.float64)


def _between(design: LMMDesign, factor: GroupingFactor, c: int, taken: set[int]) -> tuple[tuple[int, ...], Array]:
    """Columns of X, of those not taken, that are Z[:, c] times a constant of each level; and these constants."""
    levels, z = len(factor.levels), factor.Z[:, c]
    size = np.bincount(factor.codes, z * z, levels)
    columns, weights = [], [np.zeros((levels, 0))]
    for i, x in enumerate(design.X.T):
        if i in taken:
            continue
        ratio = np.bincount(factor.codes, z * x, levels) / np.where(size > 0, size, 1.0)
        if np.abs(x - z * ratio[factor.codes]).max() <= ROUNDING * np.abs(x).max():
            columns.append(i)
            weights.append(ratio[:, None])
    return tuple(columns), np.concatenate(weights, axis=1)
