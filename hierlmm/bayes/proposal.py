"""Heavy-tailed mixtures that imitate a density: drawn from evenly spread points, fitted to a weighted sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Degrees of freedom of every component: tails heavier than any posterior with a few finite moments.
DF = 5.0
EM_STEPS = 12
# Share of the pooled covariance added to each component, so that none collapses on a few points.
RIDGE = 0.05
# Fitted covariances are widened by this, because a proposal should err on the wide side.
WIDER = 1.15
# Least variance of a coordinate (a logarithm): keeps a degenerate sample from stopping the fit.
TINY = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class TMixture:
    """J multivariate t distributions with DF degrees of freedom.

    share (J,) summing to one; centre (J, d); root (J, d, d) lower factors of the scale matrices
    """

    share: Array
    centre: Array
    root: Array

    def log_density(self, v: Array) -> Array:
        """Normalised log density at v (N, d): (N,)."""
        d = v.shape[1]
        constant = math.lgamma(0.5 * (DF + d)) - math.lgamma(0.5 * DF) - 0.5 * d * math.log(DF * math.pi)
        parts = constant + self._log_kernel(v, DF) + np.log(self.share)
        top = parts.max(axis=1)
        return np.asarray(top + np.log(np.exp(parts - top[:, None]).sum(axis=1)))

    def _log_kernel(self, v: Array, df: float) -> Array:
        """(N, J) log of |scale|^-1/2 (1 + distance²/df)^-(df+d)/2."""
        d = v.shape[1]
        inverse = np.linalg.solve(self.root, np.broadcast_to(np.eye(d), self.root.shape))
        away = (v[None] - self.centre[:, None]) @ inverse.swapaxes(-1, -2)
        log_det = np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(axis=1)
        return np.asarray(-log_det - 0.5 * (df + d) * np.log1p((away**2).sum(axis=-1).T / df))

    def points(self, u: Array) -> Array:
        """Points (N, d) from points u (N, d + 2) of the unit cube: component, radius and direction by inversion."""
        from scipy.special import gammaincinv, ndtri

        chosen = np.minimum(np.searchsorted(np.cumsum(self.share), u[:, 0]), self.share.size - 1)
        radius = np.sqrt(0.5 * DF / gammaincinv(0.5 * DF, u[:, 1]))
        normal = ndtri(u[:, 2:]) * radius[:, None]
        return np.asarray(self.centre[chosen] + (self.root[chosen] @ normal[:, :, None])[:, :, 0])


def single(centre: Array, covariance: Array) -> TMixture:
    """One component with this covariance as its scale matrix."""
    return TMixture(np.ones(1), centre[None], np.asarray(np.linalg.cholesky(covariance)[None]))


def joined(parts: list[tuple[float, TMixture]]) -> TMixture:
    """A mixture of mixtures in the given proportions, which need not sum to one."""
    total = sum(share for share, _ in parts)
    return TMixture(
        np.concatenate([share / total * part.share for share, part in parts]),
        np.concatenate([part.centre for _, part in parts]),
        np.concatenate([part.root for _, part in parts]),
    )


def fitted(v: Array, weight: Array, components: int) -> TMixture:
    """A t mixture fitted to weighted points by the EM algorithm, started from slices of the longest axis.

    With degrees of freedom known, each step reweights a point by (DF + d)/(DF + distance²) (Peel & McLachlan 2000,
    Statistics and Computing 10:339).
    """
    mean = weight @ v
    pooled = (weight[:, None] * (v - mean)).T @ (v - mean)
    pooled += np.diag(TINY + 1e-9 * np.diagonal(pooled))
    mixture = _slices(v, weight, mean, pooled, components)
    for _ in range(EM_STEPS):
        kernel = mixture._log_kernel(v, DF) + np.log(mixture.share)
        kernel -= kernel.max(axis=1, keepdims=True)
        member = np.exp(kernel)
        member *= (weight / member.sum(axis=1))[:, None]
        mixture = _updated(mixture, v, member, pooled)
    return TMixture(mixture.share, mixture.centre, mixture.root * math.sqrt(WIDER))


def _slices(v: Array, weight: Array, mean: Array, pooled: Array, components: int) -> TMixture:
    """Components in quantile slices along the first principal axis of the standardised points."""
    scale = np.sqrt(np.diagonal(pooled))
    axis = np.linalg.eigh(pooled / np.outer(scale, scale))[1][:, -1]
    along = ((v - mean) / scale) @ axis
    order = np.argsort(along, kind="stable")
    slot = np.minimum((np.cumsum(weight[order]) * components).astype(int), components - 1)
    member = np.zeros((len(v), components))
    member[order, slot] = weight[order]
    flat = TMixture(np.full(components, 1.0 / components), np.repeat(mean[None], components, 0),
                    np.repeat(np.linalg.cholesky(pooled)[None], components, 0))  # fmt: skip
    return _updated(flat, v, member, pooled)


def _updated(mixture: TMixture, v: Array, member: Array, pooled: Array) -> TMixture:
    d = v.shape[1]
    inverse = np.linalg.solve(mixture.root, np.broadcast_to(np.eye(d), mixture.root.shape))
    away = (v[None] - mixture.centre[:, None]) @ inverse.swapaxes(-1, -2)
    tail = (DF + d) / (DF + (away**2).sum(axis=-1).T)
    share = np.maximum(member.sum(axis=0), 1e-6)
    pull = member * tail
    centre = (pull.T @ v) / np.maximum(pull.sum(axis=0), 1e-300)[:, None]
    off = v[None] - centre[:, None]
    scatter = (pull.T[:, :, None] * off).swapaxes(-1, -2) @ off / share[:, None, None]
    root = np.linalg.cholesky(scatter + RIDGE * pooled)
    return TMixture(share / share.sum(), centre, root)

