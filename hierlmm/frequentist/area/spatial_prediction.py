"""Prediction, frames, intervals, simulation and the matrix of errors of a spatial area-level fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import encode
from hierlmm.design.types import NewRows
from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import Information
from hierlmm.frequentist.area.prediction import own_rows
from hierlmm.frequentist.area.spatial import check_method, problem_of, rho_held
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed import predicted
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.profile import ProfileCurve
from hierlmm.likelihood.area.correlated_matrix import DenseErrors
from hierlmm.likelihood.area.errors import positive
from hierlmm.likelihood.area.spatial import Node, Problem, node, unconnected, weighted
from hierlmm.likelihood.area.spatial_derivatives import Curvature, curvature, derivatives
from hierlmm.likelihood.area.spatial_errors import SpatialBlup, errors, leading_matrix
from hierlmm.likelihood.area.spatial_errors import predict as blup_at
from hierlmm.likelihood.area.spatial_integrated import integrated_errors
from hierlmm.likelihood.area.spatial_interval import rho_interval, variance_interval
from hierlmm.likelihood.area.spatial_search import SpatialPlace

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import IntervalKind
    from hierlmm.frequentist.area.spatial_results import SpatialAreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.intp]

CONTAINS = {
    "eblup": "area effect given the direct estimates of the area and of the others (g1), coefficients (g2), A and rho",
    "neighbours": "area effect given the direct estimates of other areas alone (g1), coefficients (g2), A and rho",
    "synthetic": "a new draw of the area effect, which no direct estimate informs, and coefficients",
    "direct": "nothing: sampling variance 0, the direct estimate stands",
}


@dataclass(frozen=True, slots=True, eq=False)
class Estimated:
    """The model of a fit at its estimate, made again from the design."""

    problem: Problem
    at: Node
    blup: SpatialBlup
    change: Curvature


def estimated(fit: SpatialAreaFit) -> Estimated:
    """What a fit holds in arrays that are not kept: one decomposition."""
    given = problem_of(fit.design)
    at = node(given, 0.0 if math.isnan(fit.rho_hat) else fit.rho_hat)
    return Estimated(given, at, blup_at(at, fit.A_hat), curvature(at))


def predict(fit: SpatialAreaFit, new: object, level: float) -> pd.DataFrame:
    """Area means θ = offset + x'β + v for k rows: area, estimate, se, mse, lower, upper, gamma, basis.

    A row of an area of the proximity matrix has that area's effect: with a direct estimate of its own ("eblup"), or
    predicted from those of its neighbours alone ("neighbours"). An area outside the matrix has no neighbours, and is a
    new draw with variance A ("synthetic"), as one is that no chain of neighbours connects to the fit; one whose
    sampling variance is 0 keeps its direct estimate ("direct").
    `frame.attrs["se_contains"]` says of each basis what its se covers.
    """
    rows = own_rows(fit) if new is None else encode(fit.design, new)
    design = fit.design
    area = design.areas.get_indexer(rows.groups[0])
    known = area >= 0
    role = np.where(known, design.role[area], "outside")
    direct = role == "direct"
    now = estimated(fit)
    x = now.problem.model.rows(rows.X)
    delta = np.linalg.solve(now.problem.model.to_beta, fit.beta - now.problem.model.work.beta_ols)
    estimate = rows.offset + now.problem.model.ols(rows.X) + x @ delta + np.where(known, fit.effect[area], 0.0)
    estimate = np.where(direct, design.y[area], estimate)
    mse = np.where(direct, 0.0, row_errors(fit, now, x, area))
    role = np.where((role == "unsampled") & unconnected(now.problem.W, design.sampled)[area], "outside", role)
    frame = _framed(rows, estimate, mse, np.where(known, fit.gamma[area], 0.0), role, level)
    return frame if fit.spec.transformation is None else predicted(fit, frame, rows.X, level)


def _framed(
    rows: NewRows, estimate: Vector, mse: Vector, gamma: Vector, role: NDArray[np.str_], level: float
) -> pd.DataFrame:
    half = quantile(level) * np.sqrt(mse)
    kinds = ["eblup", "neighbours", "direct"]
    frame = pd.DataFrame(
        {
            "area": rows.groups[0],
            "estimate": estimate,
            "se": np.sqrt(mse),
            "mse": mse,
            "lower": estimate - half,
            "upper": estimate + half,
            "gamma": gamma,
            "basis": np.select([role == name for name in ("sampled", "unsampled", "direct")], kinds, "synthetic"),
        },
    ).set_axis(rows.index, axis=0)
    frame.attrs["se_contains"] = {basis: CONTAINS[basis] for basis in frame["basis"].unique()}
    return frame


def row_errors(fit: SpatialAreaFit, now: Estimated, rows: Matrix, area: Places) -> Vector:
    """(k,) mean squared errors of x'β̂ + v̂ for x'β + v, of the kind that the fit holds.

    rows  (k, p) covariates x in the coordinates of the reduced X; all 0 for an effect alone
    area  (k,) place in `design.areas` of the area whose effect v is; -1: a new draw without neighbours
    """
    if fit.estimate.place is not SpatialPlace.INTERIOR:
        return np.diagonal(integrated_errors(now.problem, fit.A_hat, fit.rho_hat, rows, area)).copy()
    known = area >= 0
    moved = now.problem.model.rows(now.problem.X) - now.blup.reach  # c X_s
    half = (rows - np.where(known[:, None], moved[area], 0.0)) @ np.linalg.cholesky(now.blup.cov_delta)
    g1, g3 = np.where(known, fit.g1[area], fit.A_hat), np.where(known, fit.g3[area], 0.0)
    leading = g1 + np.square(half).sum(axis=1) + 2 * g3
    return positive(leading, np.where(known, fit.g4[area] + fit.g5[area], fit.bias_A))


def effect_errors(fit: SpatialAreaFit) -> Vector:
    """(m,) mean squared errors of the effects of the areas in the fit."""
    now = estimated(fit)
    return row_errors(fit, now, np.zeros_like(now.problem.model.Q), now.problem.inside)


def error_matrix(fit: SpatialAreaFit) -> DenseErrors:
    """E[(θ̂ − θ)(θ̂ − θ)'] of the M areas: of second order, or averaged at the boundary; its diagonal is `mse`."""
    now = estimated(fit)
    if fit.estimate.place is SpatialPlace.INTERIOR:
        values = leading_matrix(now.at, now.change, fit.A_hat, now.blup, fit.vcov_psi)
    else:
        rows = now.problem.model.rows(now.problem.X)
        values = integrated_errors(now.problem, fit.A_hat, fit.rho_hat, rows, np.arange(len(rows)))
    return DenseErrors((values + values.T) / 2).with_diagonal(fit.mse)


def leverage(fit: SpatialAreaFit) -> Vector:
    """(M,) diagonal of ∂θ̂/∂y = c + H (X'V⁻¹X)⁻¹X'V⁻¹; nan outside the fit."""
    now = estimated(fit)
    at, inside = now.at, now.problem.inside
    w = weighted(at, fit.A_hat).w
    # rows of X'V⁻¹ turned back: T'(w Q_T), and T' = S⁻¹ T⁻¹ diag(d)
    errors = now.problem.errors
    turned = errors.forward(at.back((at.d * w)[:, None] * at.Q)) / errors.d[:, None]
    out = np.full(len(fit.gamma), np.nan)
    out[inside] = fit.gamma[inside] + ((now.blup.reach[inside] @ now.blup.cov_delta) * errors.back(turned)).sum(axis=1)
    return out


def with_terms(fit: SpatialAreaFit, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of the areas with g4 and g5 behind g3, on the scale of the model."""
    if "g3" not in frame or fit.spec.transformation is not None:
        return frame
    out = frame.copy()
    place = out.columns.get_loc("g3")
    for step, name in enumerate(("g4", "g5"), 1):
        out.insert(int(str(place)) + step, name, getattr(fit, name))
    out.attrs["g3"] = f"asymptotic variance of (A, rho): {fit.variance_formula}"
    return out


def rho_frame(fit: SpatialAreaFit, level: float, interval: IntervalKind) -> pd.DataFrame:
    """One row: term "rho", estimate, se (asymptotic), lower, upper, interval (its kind)."""
    if interval not in ("profile", "wald"):
        raise FitError(f"`interval` is 'profile' or 'wald'; found {interval!r}. Use one of these.")
    z = quantile(level)
    se = float(np.sqrt(fit.vcov_psi[1, 1]))
    low, high = fit.estimate.ends
    if interval == "wald":
        lower, upper = max(low, fit.rho_hat - z * se), min(high, fit.rho_hat + z * se)
    else:
        lower, upper = rho_interval(fit.estimate, level, problem_of(fit.design), check_method(fit.method))
    row = {"term": "rho", "estimate": fit.rho_hat, "se": se, "lower": lower, "upper": upper, "interval": interval}
    frame = pd.DataFrame([row])
    frame.attrs["ends"] = (low, high)
    frame.attrs["se"] = f"asymptotic variance of (A, rho): {fit.variance_formula}"
    return frame


def variance_interval_of(fit: SpatialAreaFit, level: float) -> tuple[float, float]:
    """Profile-likelihood interval of A."""
    return variance_interval(fit.estimate, level, problem_of(fit.design), check_method(fit.method))


def rho_lines(fit: SpatialAreaFit) -> list[str]:
    """ρ in the summary, with its interval and what it may be."""
    row = fit.rho.iloc[0]
    low, high = fit.estimate.ends
    cells = "".join(f"{row[name]:>12.5g}" for name in ("estimate", "se", "lower", "upper"))
    return [f"{'rho':<32}{cells}", f"  may be from {low:.5g} to {high:.5g}; interval from the profile likelihood, 95 %"]


def profile(fit: SpatialAreaFit) -> tuple[ProfileCurve, ...]:
    """The criterion along ρ at the points of the search, A at its best there, above its minimum."""
    found = fit.estimate.profile
    best = fit.loglik
    rho, loglik = found.rho, found.loglik
    if not math.isnan(fit.rho_hat):
        rho, at = np.unique(np.append(rho, fit.rho_hat), return_index=True)
        loglik = np.append(loglik, best)[at]
    label = fit.spec.random[0].factor
    return (ProfileCurve(label, "Intercept", "rho", rho, np.maximum(2 * (best - loglik), 0.0), fit.rho_hat),)


def simulate(fit: SpatialAreaFit, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Direct estimates y* = offset + Xβ̂ + v* + e* under β̂, Â and ρ̂: (M, draws), nan in unsampled areas.

    Column k depends on `rng` and on k only, not on the number of draws.
    """
    check_count("draws", draws, "draws")
    now = estimated(fit)
    z = rng.standard_normal((draws, 2, len(fit.gamma)))
    noise = (now.change.L * math.sqrt(fit.A_hat)) @ z[:, 0].T
    inside, errors = now.problem.inside, now.problem.errors
    noise[inside] += errors.back(np.sqrt(errors.d)[:, None] * z[:, 1, inside].T)
    noise[fit.design.role == "unsampled"] = np.nan
    return pd.DataFrame(fit.synthetic[:, None] + noise, index=fit.design.areas)


def criterion(fit: SpatialAreaFit) -> float:
    """−2 log likelihood of the method at the estimates, computed from the design."""
    at = node(problem_of(fit.design), 0.0 if math.isnan(fit.rho_hat) else fit.rho_hat)
    return -2 * derivatives(at, curvature(at), fit.A_hat, check_method(fit.method)).loglik


def published_errors(fit: SpatialAreaFit, information: Information) -> Vector:
    """(M,) g1 + g2 + 2 g3 − g4, for ML less the part of g5 by the estimation of β (Molina et al. 2009)."""
    now = estimated(fit)
    if fit.estimate.place is not SpatialPlace.INTERIOR:
        parts, _, _ = rho_held(now.at, fit.estimate, check_method(fit.method), now.blup)
        return np.asarray(sum(np.diagonal(part) * by for part, by in zip(parts, (1, 1, 2, -1, -1), strict=True)))
    of = errors(now.at, now.change, fit.A_hat, check_method(fit.method), information, now.blup)
    by_curvature = errors(now.at, now.change, fit.A_hat, "reml", information, now.blup)
    return np.asarray(np.diagonal(of.G1 + of.G2 + 2 * of.G3 - of.G4 - (of.G5 - by_curvature.G5)))
