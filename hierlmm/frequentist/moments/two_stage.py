"""The analysis in two stages: a regression in each group, then a regression of the coefficients between groups.

Stage one: y_i = Z_i beta_i + e_i by least squares in each group, sigma² pooled over groups. Stage two: beta_i =
K_i beta + b_i, where X_i = Z_i K_i, so that the estimates have means K_i beta and covariances G + sigma² (Z_i'Z_i)^-1:
by ordinary least squares, and weighted with G by moments. Laird & Ware (1982, Biometrics 38:963-974) started from it;
with all groups fitted the weighted second stage is the GLS of the mixed model at the same variances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design import build
from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.moments.two_stage_results import TwoStage
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import Independent

Array = NDArray[np.float64]

# Singular value of a group's columns of unit length, relative to the largest, below which they are dependent.
DEPENDENT = 1e-9
# What Z_i leaves of a column of X_i, relative to its length, above which it is not a combination of Z_i.
LEFT = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """m groups that can be fitted: b (m, q) coefficients, S (m, q, q) = (Z_i'Z_i)^-1, K (m, q, p)."""

    b: Array
    S: Array
    K: Array


def two_stage(spec: ModelSpec, data: object) -> TwoStage:
    """Analyse `data` in two stages by the random coefficients of `spec`, which has one grouping factor.

    Every fixed effect must be a combination, within each group, of the columns that vary by group: group-level
    predictors, and their products with those columns. Groups with fewer rows than coefficients, or whose columns are
    dependent, are left out and listed.

    Raises DesignError where the model has several grouping factors or correlated residuals, where a fixed effect needs
    a coefficient that does not vary by group, and where too few groups can be fitted.
    """
    if not isinstance(spec, ModelSpec) or spec.is_area_level:
        raise DesignError(f"Two stages are for the spec of a linear mixed model, made by hl.lmm(...); found {spec!r}.")
    design = build(spec, data)
    assert isinstance(design, LMMDesign)
    factor = _one_factor(design)
    root, counted = _weights(design)
    y, Z, X = (design.y - design.offset) * root, factor.Z * root[:, None], design.X * root[:, None]
    fitted: list[tuple[int, int]] = []
    left_out: list[tuple[object, int, str]] = []
    parts = []
    within, degrees = 0.0, 0.0
    order = np.argsort(factor.codes, kind="stable")
    for level, rows in enumerate(np.split(order, np.cumsum(np.bincount(factor.codes))[:-1])):
        n = int(counted[rows].sum())
        if reason := _why_not(Z[rows], factor):
            left_out.append((factor.levels[level], n, reason))
            continue
        b, S, K, squares = _regression(y[rows], Z[rows], X[rows], design, factor.levels[level])
        parts.append((b, S, K))
        fitted.append((level, n))
        within, degrees = within + squares, degrees + n - Z.shape[1]
    _check_enough(fitted, left_out, degrees, design)
    stage = Stage(*(np.array(values) for values in zip(*parts, strict=True)))
    sigma2 = within / degrees
    ordinary = _ordinary(stage)
    G = _moments(stage, ordinary, sigma2, factor)
    inside = truncated(G)
    spread = G + sigma2 * stage.S
    C = _inverse_of_sum(stage, np.broadcast_to(np.eye(G.shape[0]), stage.S.shape))
    middle = np.einsum("iqp,iqr,irs->ps", stage.K, spread, stage.K)
    weighted, vcov = _weighted(stage, inside + sigma2 * stage.S)
    return TwoStage(
        spec=spec,
        design=design,
        levels=factor.levels[[level for level, _ in fitted]],
        rows=np.array([n for _, n in fitted]),
        coefficients=stage.b,
        unscaled=stage.S,
        predictors=stage.K,
        left_out=tuple(left_out),
        sigma2=sigma2,
        df=degrees,
        G=G,
        G_inside=inside,
        beta_ols=ordinary,
        vcov_ols=C @ middle @ C,
        beta_weighted=weighted,
        vcov_weighted=vcov,
    )


def truncated(G: Array) -> Array:
    """A covariance matrix near G: negative eigenvalues set to zero on the scale of its own standard deviations."""
    size = np.sqrt(np.abs(np.diagonal(G)))
    size[size == 0] = 1.0
    values, vectors = np.linalg.eigh(G / np.outer(size, size))
    if values[0] >= 0:
        return G
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T * np.outer(size, size))


def _one_factor(design: LMMDesign) -> GroupingFactor:
    if len(design.factors) != 1:
        names = listed(factor.name for factor in design.factors) or "none"
        raise DesignError(
            f"Two stages need one grouping factor; the model has {names}. Use hl.fit(...) for the others."
        )
    if not isinstance(design.spec.residual, Independent):
        raise DesignError(
            f"Two stages are for independent residuals of one variance; the model has {design.spec.residual}. Use "
            "hl.fit(...)."
        )
    if design.streamed is not None:
        raise DesignError("Two stages need the rows; these passed in a stream. Give the data as one table.")
    return design.factors[0]


def _weights(design: LMMDesign) -> tuple[Array, Array]:
    """(n,) root of the weight of each row, and (n,) how many observations it stands for."""
    counted = np.ones(len(design.y)) if design.frequency is None else design.frequency
    return np.sqrt(counted if design.scale is None else counted / design.scale), counted


def _why_not(Z: Array, factor: GroupingFactor) -> str:
    """Why a group's coefficients cannot be estimated; "" where they can."""
    n, q = Z.shape
    if n < q:
        return f"{n} row{'' if n == 1 else 's'} for {q} coefficients"
    size = np.linalg.norm(Z, axis=0)
    if (zero := size == 0).any():
        return (
            f"{listed(name for name, none in zip(factor.coefficients, zero, strict=True) if none)} is zero throughout"
        )
    s = np.linalg.svd(Z / size, compute_uv=False)
    return f"{listed(factor.coefficients)} are linearly dependent in it" if s[-1] <= DEPENDENT * s[0] else ""


def _regression(y: Array, Z: Array, X: Array, design: LMMDesign, level: object) -> tuple[Array, Array, Array, float]:
    """b, (Z'Z)^-1, K with X = Z K, and the residual sum of squares of one group."""
    Q, R = np.linalg.qr(Z)
    K = np.linalg.solve(R, Q.T @ X)
    left = np.linalg.norm(X - Z @ K, axis=0) > LEFT * np.linalg.norm(X, axis=0)
    if left.any():
        names = listed(name for name, over in zip(design.fixed, left, strict=True) if over)
        raise DesignError(
            f"In two stages every fixed effect is explained by coefficients that vary by group; {names} varies within "
            f"group {level} and has none. Add it to the random-effects term, or use hl.fit(...)."
        )
    b = np.linalg.solve(R, Q.T @ y)
    residual = y - Z @ b
    inverse = np.linalg.solve(R, np.eye(len(R)))
    return b, inverse @ inverse.T, K, float(residual @ residual)


def _check_enough(
    fitted: list[tuple[int, int]], left_out: list[tuple[object, int, str]], df: float, design: LMMDesign
) -> None:
    p, q = len(design.fixed), design.factors[0].Z.shape[1]
    if len(fitted) * q <= p:
        why = "; ".join(f"{level}: {reason}" for level, _, reason in left_out[:3])
        raise DesignError(
            f"The second stage needs more coefficients of groups than fixed effects; {len(fitted)} groups can be "
            f"fitted, with {q} each, for {p} fixed effects ({why or 'none left out'}). Use hl.fit(...), which does not "
            "fit groups alone."
        )
    if df <= 0:
        raise DesignError(
            f"The variance within groups needs groups with more rows than coefficients; all {len(fitted)} have {q} "
            "rows or fewer. Let fewer coefficients vary."
        )


def _ordinary(stage: Stage) -> Array:
    """(p,) least squares of all coefficients on their predictors. Raises DesignError where these are dependent."""
    columns = stage.K.reshape(-1, stage.K.shape[2])
    size = np.linalg.norm(columns, axis=0)
    s = np.linalg.svd(columns / np.where(size > 0, size, 1.0), compute_uv=False)
    if s[-1] <= DEPENDENT * s[0]:
        raise DesignError(
            "The groups that can be fitted must determine the fixed effects in the second stage; their predictors are "
            "dependent. Leave out a group-level predictor."
        )
    return np.asarray(np.linalg.lstsq(columns / size, stage.b.ravel(), rcond=None)[0] / size)


def _moments(stage: Stage, beta: Array, sigma2: float, factor: GroupingFactor) -> Array:
    """(q, q) G at which the residual products of the second stage equal their expectation."""
    q = stage.b.shape[1]
    r = stage.b - stage.K @ beta
    products = r.T @ r - sigma2 * _expected(stage, stage.S)
    operator = np.empty((q * q, q * q))
    for k in range(q * q):
        unit = np.zeros((q, q))
        unit.flat[k] = 1.0
        operator[:, k] = _expected(stage, np.broadcast_to(unit, stage.S.shape)).ravel()
    # its eigenvalues have no unit: about m less the predictors of each coefficient
    if np.abs(np.linalg.eigvals(operator)).min() <= DEPENDENT * len(r):
        raise DesignError(
            "The covariance of the coefficients needs more groups than the second stage has predictors for each; "
            f"{len(stage.b)} groups of {factor.name} can be fitted. Leave out group-level predictors."
        )
    G = np.linalg.solve(operator, products.ravel()).reshape(q, q)
    return np.asarray((G + G.T) / 2)


def _expected(stage: Stage, spread: Array) -> Array:
    """(q, q) expectation of sum r_i r_i' where Var(b_i) = spread (m, q, q) and r_i are residuals of least squares."""
    K = stage.K
    C = _inverse_of_sum(stage, np.broadcast_to(np.eye(K.shape[1]), stage.S.shape))
    H = np.einsum("iqp,ps,irs->iqr", K, C, K, optimize=True)
    middle = C @ np.einsum("iqp,iqr,irs->ps", K, spread, K, optimize=True) @ C
    own = spread - H @ spread - spread @ H
    return np.asarray(own.sum(axis=0) + np.einsum("iqp,ps,irs->qr", K, middle, K, optimize=True))


def _inverse_of_sum(stage: Stage, weights: Array) -> Array:
    """(p, p) inverse of sum K_i' W_i K_i."""
    N = np.einsum("iqp,iqr,irs->ps", stage.K, weights, stage.K, optimize=True)
    size = np.sqrt(np.diagonal(N))
    return np.asarray(np.linalg.solve(N / np.outer(size, size), np.diag(1 / size)) / size[:, None])


def _weighted(stage: Stage, spread: Array) -> tuple[Array, Array]:
    """(p,) generalised least squares and (p, p) its covariance, Var(b_i) = spread (m, q, q)."""
    W = np.asarray(np.linalg.solve(spread, np.broadcast_to(np.eye(spread.shape[1]), spread.shape)))
    vcov = _inverse_of_sum(stage, W)
    return np.asarray(vcov @ np.einsum("iqp,iqr,ir->p", stage.K, W, stage.b, optimize=True)), vcov
