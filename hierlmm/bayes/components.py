"""Variance components as functions of ψ: variances, sds, covariances, correlations, shares of variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.density import Variances
from hierlmm.bayes.lmmterms import Points
from hierlmm.bayes.propriety import Propriety
from hierlmm.bayes.proprietylmm import RESIDUAL
from hierlmm.bayes.results import TAILS, Estimates
from hierlmm.design.types import LMMDesign

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Component:
    """One row of the table of variance components, labelled as the fits label theirs.

    quantity  "variance", "sd", "covariance", "correlation" or "share" (of the mean variance of a row)
    limit     moments of order below this exist
    """

    group: str
    term: str
    term2: str
    quantity: str
    limit: float


def components(design: LMMDesign, propriety: Propriety) -> tuple[Component, ...]:
    """The rows, in the order of the fits: factor by factor and block by block, the residual, the shares."""
    limit = propriety.sd
    rows = []
    for factor in design.factors:
        names = factor.coefficients
        for block in factor.blocks:
            for k in block:
                here = limit[f"{factor.name}:{names[k]}"]
                rows.append(Component(factor.name, names[k], "", "variance", here / 2))
                rows.append(Component(factor.name, names[k], "", "sd", here))
            for c in range(len(block)):
                for r in range(c + 1, len(block)):
                    both = names[block[r]], names[block[c]]
                    here = min(limit[f"{factor.name}:{name}"] for name in both)
                    rows.append(Component(factor.name, *both, "covariance", here / 2))
                    rows.append(Component(factor.name, *both, "correlation", np.inf))
    rows.append(Component(RESIDUAL, "", "", "variance", limit[RESIDUAL] / 2))
    rows.append(Component(RESIDUAL, "", "", "sd", limit[RESIDUAL]))
    rows += [Component(name, "", "", "share", np.inf) for name in (*(f.name for f in design.factors), RESIDUAL)]
    return tuple(rows)


def values(design: LMMDesign, psi: Variances) -> Array:
    """(K, J) values of the components at K values of ψ, in the order of `components`."""
    columns, parts = [], []
    for factor, sd, R, G in zip(design.factors, psi.sd, psi.correlation, psi.G, strict=True):
        for block in factor.blocks:
            for k in block:
                columns += [sd[:, k] ** 2, sd[:, k]]
            for c in range(len(block)):
                for r in range(c + 1, len(block)):
                    columns += [G[:, block[r], block[c]], R[:, block[r], block[c]]]
        second = factor.Z.T @ factor.Z / len(factor.Z)
        parts.append(np.einsum("kij,ij->k", G, second))
    parts.append(psi.sigma**2)
    total = np.sum(parts, axis=0)
    return np.stack([*columns, psi.sigma**2, psi.sigma, *(part / total for part in parts)], axis=1)


def summarised(rows: tuple[Component, ...], points: Points, at: Array, limits: Array | None = None) -> Estimates:
    """Means, sds and intervals of the components from weighted points; `limits` (2, J) replaces the interval ends."""
    mean = points.weight @ at
    sd = np.sqrt(points.weight @ (at - mean) ** 2)
    mcse = points.mcse(points.averages(at - mean))
    lower, upper = weighted_quantiles(points.weight, at) if limits is None else limits
    order = np.array([row.limit for row in rows])
    return Estimates(
        np.where(order > 1, mean, np.nan),
        np.where(order > 2, sd, np.nan),
        np.asarray(lower),
        np.asarray(upper),
        np.where(order > 1, mcse, np.nan),
    )


def weighted_quantiles(weight: Array, at: Array) -> Array:
    """(2, J) interval ends of weighted points (K, J), interpolated between the middles of their steps."""
    order = np.argsort(at, axis=0, kind="stable")
    out = np.empty((len(TAILS), at.shape[1]))
    for j in range(at.shape[1]):
        w = weight[order[:, j]]
        out[:, j] = np.interp(TAILS, np.cumsum(w) - 0.5 * w, at[order[:, j], j])
    return out
