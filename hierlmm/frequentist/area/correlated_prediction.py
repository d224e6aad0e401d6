"""Prediction for rows that may be new, simulation and the profile of a fit with correlated sampling errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import encode
from hierlmm.design.types import NewRows
from hierlmm.frequentist.area.correlated import Turned, inner_fit, reach, turned
from hierlmm.frequentist.area.mse import CAN_BE_NEGATIVE, at_boundary
from hierlmm.frequentist.area.prediction import CONTAINS, own_rows
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed import predicted
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.profile import ProfileCurve, curve_of_A
from hierlmm.likelihood.area import interval
from hierlmm.likelihood.area.criterion import ml_criterion, reml_criterion
from hierlmm.likelihood.area.errors import positive
from hierlmm.likelihood.area.errors_integrated import integrated_factor

if TYPE_CHECKING:
    from hierlmm.frequentist.area.correlated_results import CorrelatedAreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.intp]


def predict(fit: CorrelatedAreaFit, new: object, level: float) -> pd.DataFrame:
    """Area means for the rows of a table, or of the fit: columns and kinds of rows as `prediction.predict_rows`.

    A row of an area in the fit has that area's effect, which the direct estimates of its whole block inform; any other
    row is a new draw of the effect.
    """
    rows = own_rows(fit) if new is None else encode(fit.design, new)
    at, inner = inner_fit(fit)
    design = fit.design
    area = design.areas.get_indexer(rows.groups[0])
    role = np.where(area >= 0, design.role[area], "unsampled")
    sampled, direct = role == "sampled", role == "direct"
    estimate = rows.offset + at.model.ols(rows.X) + at.model.rows(rows.X) @ inner.beta
    estimate = estimate + np.where(sampled, fit.effect[area], 0.0)
    estimate = np.where(direct, design.y[area], estimate)
    own = np.where(sampled, (np.cumsum(design.sampled) - 1)[area], -1)
    mse = np.where(direct, 0.0, row_errors(fit, at, inner, at.model.rows(rows.X), own))
    frame = framed(rows, estimate, mse, np.where(sampled, fit.gamma[area], direct * 1.0), role, level)
    return frame if fit.spec.transformation is None else predicted(fit, frame, rows.X, level)


def framed(
    rows: NewRows, estimate: Vector, mse: Vector, gamma: Vector, role: NDArray[np.str_], level: float
) -> pd.DataFrame:
    """The frame of predictions for k rows, with what each standard error contains in its attrs."""
    half = quantile(level) * np.sqrt(mse)
    frame = pd.DataFrame(
        {
            "area": rows.groups[0],
            "estimate": estimate,
            "se": np.sqrt(mse),
            "mse": mse,
            "lower": estimate - half,
            "upper": estimate + half,
            "gamma": gamma,
            "basis": np.select([role == "sampled", role == "direct"], ["eblup", "direct"], "synthetic"),
        },
    ).set_axis(rows.index, axis=0)
    frame.attrs["se_contains"] = {basis: CONTAINS[basis] for basis in frame["basis"].unique()}
    return frame


def row_errors(fit: CorrelatedAreaFit, at: Turned, inner: AreaFit, rows: Matrix, own: Places) -> Vector:
    """(k,) mean squared errors of x'β̂ + v̂ for x'β + v, of the kind that the fit holds.

    rows  (k, p) covariates x in the coordinates of `at.model`; all 0 for the area effect alone
    own   (k,) place among the areas in the fit of the area whose effect v is; -1: a new draw of the effect
    """
    known = own >= 0
    if at_boundary(fit.certificate):
        return _averaged(at, inner, rows, own)
    area = at.inside[own]
    shift = at.model.Q - reach(at, 1 - inner.gamma)[at.inside]  # c X
    half = (rows - np.where(known[:, None], shift[own], 0.0)) @ np.linalg.cholesky(inner.vcov_beta)
    fall = inner.bias_A * at.errors.diagonal(np.square(1 - inner.gamma[at.inside]))
    g1, g3 = np.where(known, fit.g1[area], fit.A_hat), np.where(known, fit.g3[area], 0.0)
    upper, correction = g1 + np.square(half).sum(axis=1) + 2 * g3, np.where(known, fall[own], inner.bias_A)
    return positive(upper, correction) if fit.method in CAN_BE_NEGATIVE else np.asarray(upper - correction)


def _averaged(at: Turned, inner: AreaFit, rows: Matrix, own: Places) -> Vector:
    """Errors averaged over A: each row is its covariates plus the effects of the areas of its block, turned."""
    into = at.design.sampled
    y, X, D = at.design.y[into], at.design.X[into], at.design.D[into]
    m, k = len(y), len(rows)
    stacked = np.concatenate([np.zeros((m, rows.shape[1])), rows])
    which = np.concatenate([np.arange(m), np.full(k, -1)])
    alone, factor = integrated_factor(inner.A_hat, y, X, D, stacked, which)
    known = own >= 0
    turn = at.errors.back(factor[:m])
    shared = factor[m:] + np.where(known[:, None], turn[own], 0.0)
    return np.asarray(np.where(known, at.errors.diagonal(alone[:m])[own], alone[m:]) + np.square(shared).sum(axis=1))


def effect_errors(fit: CorrelatedAreaFit) -> Vector:
    """(m,) mean squared errors of the effects of the areas in the fit."""
    at, inner = inner_fit(fit)
    return row_errors(fit, at, inner, np.zeros_like(at.model.Q), np.arange(len(at.inside)))


def leverage(fit: CorrelatedAreaFit) -> Vector:
    """(M,) diagonal of ∂θ̂/∂y, γ + diag[(X − cX)(X'V⁻¹X)⁻¹X'V⁻¹]; nan outside the fit."""
    at, inner = inner_fit(fit)
    own = at.inside
    w = 1 / (inner.A_hat + at.errors.d)
    pull = at.errors.back(w[:, None] * at.design.X[own])
    out = np.full(len(fit.gamma), np.nan)
    through = ((reach(at, 1 - inner.gamma)[own] @ inner.vcov_beta) * pull).sum(axis=1)
    out[own] = fit.gamma[own] + through
    return out


def working_data(fit: AreaFit) -> tuple[Vector, Matrix, Vector]:
    """y (m,), X (m, p) and D (m,) of the areas in a fit, turned where their sampling errors are correlated."""
    design, into = fit.design, fit.design.sampled
    if design.covariance is None:
        return design.y[into] - design.offset[into], design.X[into], design.D[into]
    at = turned(design)
    return at.design.y[into], at.design.X[into], at.errors.d


def likelihood_interval(fit: CorrelatedAreaFit, level: float) -> tuple[float, float]:
    """Interval of A by the likelihood of the method, around its own maximum."""
    at = turned(fit.design)
    into = at.inside
    return interval.likelihood_interval(fit.method, level, at.design.y[into], at.design.X[into], at.errors.d)


def profile(fit: CorrelatedAreaFit) -> tuple[ProfileCurve, ...]:
    """The curve of √A."""
    at = turned(fit.design)
    return curve_of_A(fit, at.design.y[at.inside], at.design.X[at.inside], at.errors.d)


def criterion(fit: CorrelatedAreaFit) -> float:
    """−2 log likelihood of the method at Â, computed from the design."""
    at = turned(fit.design)
    y, X = at.design.y[at.inside], at.design.X[at.inside]
    if interval.likelihood_of(fit.method) == "ml":
        return float(ml_criterion(fit.A_hat, y, X, at.errors.d))
    return float(reml_criterion(fit.A_hat, y, X, at.errors.d)) - 2 * at.model.log_jacobian


def simulate(fit: CorrelatedAreaFit, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Direct estimates y* = offset + Xβ̂ + v* + e* under β̂ and Â: (M, draws), nan in unsampled areas.

    Column k depends on `rng` and on k only, not on the number of draws.
    """
    check_count("draws", draws, "draws")
    design, at = fit.design, turned(fit.design)
    D = np.where(design.role == "unsampled", np.nan, at.design.D)
    noise = (np.sqrt(fit.A_hat + D) * rng.standard_normal((draws, len(D)))).T
    noise[at.inside] = at.errors.back(noise[at.inside])
    return pd.DataFrame(fit.synthetic[:, None] + noise, index=design.areas)
