"""The linear mixed model at given variance parameters, on the data scale, for many values of them at once.

G is a tuple of (..., q, q) covariance matrices, one per grouping factor in elimination order, and sigma2 a (...)
array of residual variances; beta is integrated out under a flat or an independent normal prior. exp of the flat
version is the restricted likelihood, so times a prior it is the exact posterior of the variance parameters up to
a constant (Harville 1974, Biometrika 61:383-385).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Joint, joint
from hierlmm.likelihood.lmm import LOG_2PI, CrossProducts, Eliminated, Solved, eliminate, solve_fixed
from hierlmm.likelihood.triangular import cholesky_lower

Array = NDArray[np.float64]

# Numbers in the largest intermediate array of one batch: about 100 MB.
BATCH = 12_000_000


@dataclass(frozen=True, slots=True, eq=False)
class NormalPrior:
    """Independent normal priors of beta: mean (p,), sd (p,) with inf where the prior is flat."""

    mean: Array
    sd: Array


@dataclass(frozen=True, slots=True, eq=False)
class Marginal:
    """What integrating beta and b out leaves, per leading position.

    loglik  (...) log of the integral of p(y | beta, psi) p(beta) over beta; flat coordinates count with density 1
    at      the joint normal distribution of (b, beta) given y and psi: for means, covariances and draws
    """

    loglik: Array
    at: Joint


def restricted_loglik(cp: CrossProducts, G: Sequence[Array], sigma2: Array, prior: NormalPrior | None = None) -> Array:
    """(...) log density of y with beta integrated out; exact, all constants ((n - p) log 2 pi under a flat prior).

    Evaluated in batches along the first axis, so that memory stays bounded whatever the number of points.
    """
    sigma2 = np.asarray(sigma2, dtype=float)
    if sigma2.ndim == 0:
        return _integrated(cp, G, sigma2, prior)[0]
    out = np.empty(sigma2.shape)
    for here in batches(cp, len(sigma2)):
        out[here] = _integrated(cp, [g[here] for g in G], sigma2[here], prior)[0]
    return out


def marginal(
    cp: CrossProducts, G: Sequence[Array], sigma2: Array | float, prior: NormalPrior | None = None
) -> Marginal:
    """Integrate beta and b out at each (G, sigma2), in one batch: callers slice by `batches`."""
    variance = np.asarray(sigma2, dtype=float)
    loglik, factors, state, solved = _integrated(cp, G, variance, prior)
    return Marginal(loglik, joint(cp, factors, state, solved, variance))


def batches(cp: CrossProducts, draws: int) -> list[slice]:
    """Slices of the first axis whose intermediate arrays stay within BATCH numbers."""
    levels, q = cp.sizes[0] if cp.sizes else (1, 1)
    m = cp.rest.shape[0]
    each = max(1, levels * q * m + 3 * m * m)
    size = max(1, BATCH // each)
    return [slice(start, min(start + size, draws)) for start in range(0, draws, size)]


def _integrated(
    cp: CrossProducts, G: Sequence[Array], sigma2: Array, prior: NormalPrior | None
) -> tuple[Array, tuple[Array, ...], Eliminated, Solved]:
    """Log of the integral over beta and b, and the factors it was computed from."""
    factors = tuple(relative_factor(g, B, sigma2) for g, B in zip(G, cp.Z_map, strict=True))
    loglik, state, solved = integrate_fixed(cp, eliminate(cp, factors), sigma2, prior)
    return loglik, factors, state, solved


def integrate_fixed(
    cp: CrossProducts, state: Eliminated, sigma2: Array, prior: NormalPrior | None
) -> tuple[Array, Eliminated, Solved]:
    """Integrate beta out of [X, y]'V*⁻¹[X, y] and log|V*|: log density of y, the state with the prior in, beta-hat."""
    informative, log_precision = 0, 0.0
    if prior is not None:
        state = _with_prior(cp, state, sigma2, prior)
        finite = np.isfinite(prior.sd)
        informative, log_precision = int(finite.sum()), -2 * float(np.log(prior.sd[finite]).sum())
    solved = solve_fixed(state.products)
    minus_2l = (
        (cp.n - cp.p + informative) * LOG_2PI
        + (cp.n - cp.p) * np.log(sigma2)
        + state.log_det
        + cp.log_scale
        + solved.log_det_x
        - 2 * cp.log_det_X_map
        + solved.rss / sigma2
        - log_precision
    )
    return np.asarray(-0.5 * minus_2l), state, solved


def _with_prior(cp: CrossProducts, state: Eliminated, sigma2: Array, prior: NormalPrior) -> Eliminated:
    """The normal prior as further observations of beta: its precision joins the cross-products of X and y."""
    root = np.where(np.isfinite(prior.sd), 1 / prior.sd, 0.0)
    rows = np.column_stack([root[:, None] * cp.X_map, root * (prior.mean - cp.X_shift)])
    return replace(state, products=state.products + sigma2[..., None, None] * (rows.T @ rows))


def relative_factor(G: Array, Z_map: Array, sigma2: Array) -> Array:
    """Lower factor on the working scale of the relative covariance B⁻¹ G B⁻ᵀ / sigma²."""
    half = np.linalg.solve(Z_map, G)
    T = np.linalg.solve(Z_map, half.swapaxes(-1, -2)) / sigma2[..., None, None]
    return cholesky_lower(0.5 * (T + T.swapaxes(-1, -2)))
