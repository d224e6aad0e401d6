"""Where to start looking for the mode of the posterior of the variance parameters: at the restricted mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.density import Target, coordinate, residual_prior
from hierlmm.bayes.families import SDPrior
from hierlmm.likelihood.lmm import eliminate, solve_fixed
from hierlmm.likelihood.optimum import optimise
from hierlmm.likelihood.triangular import cholesky_lower

Array = NDArray[np.float64]

# A relative covariance on the working scale (columns of unit size) is moved off the boundary by this share of σ².
INSIDE = 0.01
# Start of the hyperbolic arctangents of correlations: within this of zero.
FAR = 2.0


def start(target: Target) -> Array:
    """Coordinates (d,) of the REML estimate, moved inside where it is singular."""
    cp = target.cp
    optimum = optimise(cp, "reml")
    sigma2 = float(solve_fixed(eliminate(cp, optimum.factors).products).rss) / (cp.n - cp.p)
    G = [np.zeros((1, 1))] * len(cp.order)
    for position, f in enumerate(cp.order):
        Lambda, B = optimum.factors[position], cp.Z_map[position]
        T = Lambda @ Lambda.T + INSIDE * np.eye(len(Lambda))
        G[f] = sigma2 * B @ T @ B.T
    out: list[float] = []
    for factor, g in zip(target.priors.factors, G, strict=True):
        sd = np.sqrt(np.diagonal(g))
        out += [_inside(prior, s) for prior, s in zip(factor.sd, sd, strict=True)]
        for block in factor.blocks:
            R = g[np.ix_(block, block)] / np.outer(sd[list(block)], sd[list(block)])
            out += list(np.clip(np.arctanh(_partial(R)), -FAR, FAR))
    return np.array([*out, _inside(residual_prior(target.priors), np.sqrt(sigma2))])


def _inside(prior: SDPrior, sd: float) -> float:
    """Coordinate of an sd, moved to the middle of a bounded support where it lies beyond."""
    return float(coordinate(prior, np.asarray(min(sd, 0.5 * prior.largest))))


def _partial(R: Array) -> Array:
    """Canonical partial correlations of a correlation matrix, row by row."""
    L = cholesky_lower(R)  # of a singular R too: x far from 0 makes correlations of exactly 1
    out = []
    for i in range(1, len(R)):
        left = 1.0
        for j in range(i):
            out.append(L[i, j] / left)
            left *= np.sqrt(max(1.0 - out[-1] ** 2, 1e-300))
    return np.asarray(np.clip(np.array(out, dtype=np.float64), -0.999, 0.999))
