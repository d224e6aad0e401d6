"""Fits of responses without residual variation: the limits of the estimates as a variance goes to zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts
from hierlmm.design.types import LMMDesign
from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.likelihood.lmm import solve_fixed
from hierlmm.likelihood.lmm_derivatives import Method
from hierlmm.likelihood.optimum import Certificate

Array = NDArray[np.float64]

# Relative size of a within-group direction below which it carries no information: rounding of the centring.
WITHIN = 1e-10


def fit_without_variation(design: LMMDesign, cp: CrossProducts, method: Method) -> LMMFit:
    """X alone reproduces the response: the coefficients are exact and every variance is zero."""
    R = cp.rest.shape[0] - cp.p - 1
    beta = solve_fixed(cp.rest[R:, R:]).beta @ cp.X_map.T + cp.X_shift
    p = design.X.shape[1]
    sizes = [(len(f.levels), f.Z.shape[1]) for f in design.factors]
    zero = tuple(np.zeros((q, q)) for _, q in sizes)
    return _limit(
        design, cp, method, LMMOutcome.NO_VARIATION, beta, np.zeros((p, p)), zero,
        b=tuple(np.zeros((G, q)) for G, q in sizes),
        error=tuple(np.zeros((G, q, q)) for G, q in sizes),
        with_beta=tuple(np.zeros((G, p, q)) for G, q in sizes),
    )  # fmt: skip


def fit_without_residual(design: LMMDesign, cp: CrossProducts, method: Method) -> LMMFit:
    """One random intercept and no residual variation: the limit sigma² -> 0.

    Within groups the coefficients are known exactly; what is left of them is estimated by ordinary least squares
    on the group means, whose residuals are the random effects. The variance has divisor m - rank under REML and
    m under ML. Raises FitError for any other random part and for residuals with a structure: the limit then depends
    on how the variances go to zero.
    """
    single = len(design.factors) == 1 and design.factors[0].coefficients == ("Intercept",)
    if design.residual is not None or not single:
        effects = sum(factor.Z.shape[1] * len(factor.levels) for factor in design.factors)
        many = effects >= len(design.y) - design.X.shape[1]
        remedy = (
            "Check the response for a computed column, or remove the random-effects term that has as many effects as "
            "there are rows to explain."
            if many
            else "The response is a function of the groups and predictors, and the likelihood has no upper bound: "
            "check it for a computed column. The limit is computed for a single random intercept only."
        )
        raise FitError(
            "The residual variance must be positive for this model; the fixed and random effects together reproduce "
            f"all {len(design.y)} responses exactly. {remedy}"
        )
    if design.streamed is not None:
        raise FitError(
            "The residual variance must be positive for rows that pass in a stream; the fixed and random effects "
            f"together reproduce all {design.rows} responses. Fit a table of them: the limit needs the rows."
        )
    factor = design.factors[0]
    m = len(factor.levels)
    count = np.bincount(factor.codes, minlength=m).astype(float)
    response = design.y - design.offset

    def by_group(column: Array) -> Array:
        return np.asarray(np.bincount(factor.codes, column, m) / count)

    X_mean = np.column_stack([by_group(column) for column in design.X.T])
    y_mean = by_group(response)
    scale = np.sqrt((design.X**2).mean(axis=0))
    within = (design.X - X_mean[factor.codes]) / scale
    _, d, Vt = np.linalg.svd(within, full_matrices=True)
    known = int((d > WITHIN * np.sqrt(len(within))).sum())
    exact = np.linalg.lstsq(within @ Vt[:known].T, response - y_mean[factor.codes], rcond=None)[0]
    fixed_part = (Vt[:known].T @ exact) / scale
    open_part = Vt[known:].T / scale[:, None]
    between = X_mean @ open_part
    c, *_ = np.linalg.lstsq(between, y_mean - X_mean @ fixed_part, rcond=None)
    beta = fixed_part + open_part @ c
    b = y_mean - X_mean @ beta
    variance = float(b @ b) / (m - open_part.shape[1] if method == "reml" else m)
    R = np.linalg.qr(between).R
    root = open_part @ np.linalg.solve(R, np.eye(R.shape[0]))
    vcov = variance * root @ root.T
    error = np.einsum("gp,pr,gr->g", X_mean, vcov, X_mean)[:, None, None]
    return _limit(
        design, cp, method, LMMOutcome.NO_RESIDUAL, beta, vcov, (np.array([[variance]]),),
        b=(b[:, None],), error=(error,), with_beta=(-(X_mean @ vcov)[:, :, None],),
    )  # fmt: skip


def _limit(
    design: LMMDesign,
    cp: CrossProducts,
    method: Method,
    outcome: LMMOutcome,
    beta: Array,
    vcov: Array,
    G: tuple[Array, ...],
    *,
    b: tuple[Array, ...],
    error: tuple[Array, ...],
    with_beta: tuple[Array, ...],
) -> LMMFit:
    """A fit whose likelihood is unbounded: no theta, no certificate of an optimum."""
    ranks = tuple(int(np.linalg.matrix_rank(G[f])) for f in cp.order)
    certificate = Certificate(
        decrement=0.0, gradient=0.0, curvature=np.inf, multipliers=np.inf, ranks=ranks, evaluations=0, others=(),
        certified=True,
    )  # fmt: skip
    return LMMFit(
        spec=design.spec, design=design, method=method, outcome=outcome, certificate=certificate,
        objective=-np.inf, beta=beta, vcov_beta=vcov, sigma2=0.0, G=G,
        theta=tuple(np.full_like(g, np.inf) if g.any() else np.zeros_like(g) for g in G),
        b=b, b_error=error, b_conditional=tuple(np.zeros_like(e) for e in error), b_beta=with_beta,
        notes=design.notes, equations=cp, at=None, joint=None,
    )  # fmt: skip
