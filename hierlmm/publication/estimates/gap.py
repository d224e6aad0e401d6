"""How far direct estimates lie from those of the model, over repeated samples: what internal totals carry with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.errors_matrix import ErrorMatrix
from hierlmm.likelihood.area.moments import blup
from hierlmm.publication.estimates.covariance import ErrorCovariance, OfFit, Whole

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def gap_of(design: AreaDesign, A: float, rho: float) -> ErrorCovariance:
    """Covariance matrix of y − θ̂ at A, on the scale of the model, zero outside the fit.

    y − θ̂ = S V⁻¹ (y − Xβ̂), so that it is S P S, P = V⁻¹ − V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹: with S = D, B D − B X C X' B.
    """
    if not independent(design):
        return Whole(_dense_gap(design, A, rho))
    into = design.sampled
    D: Vector = np.where(into, design.D, 0.0)
    half = blup(A, design.y[into] - design.offset[into], design.X[into], D[into], design.X).half
    pull = np.where(into, D / np.where(into, A + D, 1.0), 0.0)
    return OfFit(ErrorMatrix(pull * D, pull[:, None] * half, -np.eye(half.shape[1])))


def _dense_gap(design: AreaDesign, A: float, rho: float) -> Matrix:
    """The same where effects or sampling errors are correlated, by matrices of the areas in the fit."""
    into = design.sampled
    M, X = len(design.areas), design.X[into]
    effects = np.eye(M)
    if design.proximity is not None and np.isfinite(rho):
        turn = np.eye(M) - rho * design.proximity
        effects = np.asarray(np.linalg.solve(turn.T @ turn, np.eye(M)), dtype=np.float64)
    S = np.diag(design.D[into]) if design.covariance is None else design.covariance[np.ix_(into, into)]
    V = A * effects[np.ix_(into, into)] + S
    VX, VS = np.linalg.solve(V, X), np.linalg.solve(V, S)
    C = np.linalg.solve(X.T @ VX, VX.T @ S)
    out = np.zeros((M, M))
    out[np.ix_(into, into)] = S @ (VS - VX @ C)
    return out


def independent(design: AreaDesign) -> bool:
    """Whether areas given A are tied together by β alone."""
    return design.proximity is None and design.covariance is None
