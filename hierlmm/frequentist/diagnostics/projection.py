"""P y and the diagonals that diagnostics need of V⁻¹ and P, row by row, without a matrix of all rows by all rows.

P = V⁻¹ - V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹; the conditional residuals are R P y with covariance matrix R P R. Rows that fall into
small independent clusters are worked on by dense algebra cluster by cluster; others by way of the random effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.working import working_rows
from hierlmm.errors import FitError
from hierlmm.frequentist.diagnostics import effects
from hierlmm.frequentist.diagnostics.clusters import (
    LARGEST,
    Clusters,
    cholesky,
    covariances,
    lower,
    require_variances,
    upper,
)
from hierlmm.frequentist.lmm_joint import sum_variance
from hierlmm.frequentist.lmm_structured import residual_variances

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Rows of a cluster up to which dense algebra is worth its cost where the residuals are independent.
DENSE = 200
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """n rows of a fit as deletion, leverage and residuals see them; the variance parameters are those of the fit.

    X          (n, p) fixed-effects columns turned so that X'V⁻¹X = I; `back` (p, p): beta = back times theirs
    VX, RVX    (n, p) V⁻¹X and R V⁻¹X
    Py, RPy    (n,) P y, and R P y: the conditional residuals
    R, V_inv   (n,) diagonals of R and of V⁻¹
    RV, RVR    (n,) diagonals of R V⁻¹ and of R V⁻¹ R
    clusters   the rows by independent cluster; whole whether their covariance matrices are formed
    Z          per factor in elimination order (n, q) columns of the working scale over the roots of `R` / sigma²
    """

    fit: LMMFit
    X: Array
    back: Array
    VX: Array
    RVX: Array
    Py: Array
    RPy: Array
    R: Array
    V_inv: Array
    RV: Array
    RVR: Array
    clusters: Clusters
    Z: tuple[Array, ...]
    whole: bool

    @property
    def P(self) -> Array:
        """(n,) diagonal of P."""
        return np.asarray(self.V_inv - (self.VX**2).sum(axis=1))

    @property
    def residual_variance(self) -> Array:
        """(n,) variances of the conditional residuals: diagonal of R P R."""
        return np.asarray(self.RVR - (self.RVX**2).sum(axis=1))

    def solve(self, A: Array) -> Array:
        """V⁻¹A for (n, k) A."""
        if not self.whole:
            return effects.solved(self.fit, self.Z, self.R, A)
        out = np.empty_like(A, dtype=np.float64)
        for batch in self.clusters.batches():
            L = cholesky(covariances(self.fit, batch)[0])
            out[batch] = upper(L, lower(L, A[batch]))
        return out

    def project(self, A: Array) -> Array:
        """P A for (n, k) A."""
        VA = self.solve(A)
        return np.asarray(VA - self.VX @ (self.X.T @ VA))


def projection(fit: LMMFit, what: str) -> Projection:
    """The projection of a fit, for diagnostics called `what` in messages.

    Raises DesignError for rows that were not kept; FitError where the residual variance is zero, where a row stands
    for several, and where correlated residuals tie more than LARGEST rows together.
    """
    require_variances(fit, what)
    clusters, rows = Clusters.of(fit), working_rows(fit.design)
    known = np.ones(len(rows.y)) if fit.design.scale is None else np.sqrt(fit.design.scale)
    columns = np.column_stack([rows.X, rows.y]) * known[:, None]
    R = residual_variances(fit)
    ratio = known / np.sqrt(R / fit.sigma2)
    Z = tuple(part * ratio[:, None] for part in rows.Z)
    correlated = fit.design.residual is not None and bool(fit.design.residual.group)
    whole = clusters.largest <= (LARGEST if correlated else DENSE)
    if whole:
        parts = _by_clusters(fit, clusters, columns)
    elif not correlated:
        parts = _by_effects(fit, Z, R, columns)
    else:
        raise FitError(
            f"{what} need the covariance matrix of rows that depend on each other where the residuals are correlated; "
            f"{clusters.largest} rows do, and {LARGEST} is the limit. Fit independent residuals, or a grouping factor "
            "that holds the residuals' groups whole."
        )
    X, V, RV = columns[:, :-1], parts.V, parts.RV
    half = np.linalg.cholesky(X.T @ V[:, :-1])
    turn = np.linalg.solve(half, np.eye(len(half))).T
    VX, RVX = V[:, :-1] @ turn, RV[:, :-1] @ turn
    beta = turn.T @ (X.T @ V[:, -1])
    V_inv, RV_own, RVR = parts.V_inv, parts.RV_own, parts.RVR
    if parts.of_P:
        V_inv, RV_own, RVR = V_inv + (VX**2).sum(1), RV_own + (RVX * VX).sum(1), RVR + (RVX**2).sum(1)
    return Projection(
        fit=fit, X=X @ turn, back=rows.X_map @ turn, VX=VX, RVX=RVX, Py=V[:, -1] - VX @ beta,
        RPy=RV[:, -1] - RVX @ beta, R=R, V_inv=V_inv, RV=RV_own, RVR=RVR, clusters=clusters, Z=Z, whole=whole,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """V, RV: V⁻¹ and R V⁻¹ times [X, y], (n, p + 1); V_inv, RV_own, RVR (n,): diagonals of V⁻¹, R V⁻¹ and R V⁻¹ R.

    Of a large design P in the place of V⁻¹ is known in the diagonals: `of_P` says so.
    """

    V: Array
    RV: Array
    V_inv: Array
    RV_own: Array
    RVR: Array
    of_P: bool


def _by_clusters(fit: LMMFit, clusters: Clusters, columns: Array) -> _Parts:
    V_columns, RV_columns = np.empty_like(columns), np.empty_like(columns)
    V_own, RV_own, RVR_own = (np.empty(len(columns)) for _ in range(3))
    for batch in clusters.batches():
        V, R = covariances(fit, batch)
        L = cholesky(V)
        half = lower(L, np.broadcast_to(np.eye(V.shape[1]), V.shape))
        solved, turned = half.swapaxes(1, 2) @ lower(L, columns[batch]), half @ R
        V_columns[batch], RV_columns[batch] = solved, R @ solved
        V_own[batch], RV_own[batch] = (half**2).sum(axis=1), (half * turned).sum(axis=1)
        RVR_own[batch] = (turned**2).sum(axis=1)
    return _Parts(V_columns, RV_columns, V_own, RV_own, RVR_own, False)


def _by_effects(fit: LMMFit, Z: tuple[Array, ...], R: Array, columns: Array) -> _Parts:
    V = effects.solved(fit, Z, R, columns)
    factors = [fit.design.factors[f] for f in fit.equations.order]
    assert fit.joint is not None
    M = sum_variance(
        fit.equations, fit.joint, fit.design.X, [factor.Z for factor in factors], [factor.codes for factor in factors]
    )
    left = np.maximum(R - M, 0.0)
    return _Parts(V, V * R[:, None], left / R**2, left / R, left, True)
