"""Both log likelihoods of the spatial area-level model with their exact derivatives in (A, ρ), and the information.

With Ω = LL' at one ρ, L (M, M) of `spatial.Node.loadings`, held fixed, and H = WL,

    L⁻¹ Ω_ρ L⁻¹'  = H'L + L'H − 2ρ H'H =: K,   L⁻¹ Ω_ρρ L⁻¹' = 2 (K K − H'H) =: B.

The first m coordinates are those of the areas in the fit, in which V = A I + diag(d), V_A = I, V_ρ = A K, V_Aρ = K and
V_ρρ = A B, and

    ∂ℓ/∂ψ_k      = ½ [y'P V_k P y − tr(F V_k)]
    ∂²ℓ/∂ψ_k∂ψ_l = ½ [y'P V_kl P y − 2 y'P V_k P V_l P y − tr(F V_kl) + tr(F V_k F V_l)]

with F = V⁻¹ for ML and P for REML. The expected information is ½ tr(F V_k F V_l).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import LOG_2PI
from hierlmm.likelihood.area.spatial import Node, weighted

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Method = Literal["reml", "ml"]


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """What changes with ρ at a node: L (M, M), K = L⁻¹ Ω_ρ L⁻¹' and B = L⁻¹ Ω_ρρ L⁻¹', (M, M) each."""

    L: Matrix
    slope: Matrix
    bend: Matrix


def curvature(node: Node) -> Curvature:
    """Derivatives of the covariance of the effects in ρ: a few products of (M, M) matrices."""
    L = node.loadings()
    H = node.problem.W @ L
    HL, HH = H.T @ L, H.T @ H
    slope = HL + HL.T - 2 * node.rho * HH
    return Curvature(L, slope, 2 * (slope @ slope - HH))


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """At one (A, ρ), coordinates in this order, units of the data.

    loglik        all constants, nats; of REML with β integrated out
    gradient      (2,); hessian (2, 2) its exact second derivatives
    information   (2, 2) expected information, ½ tr(F V_k F V_l)
    """

    loglik: float
    gradient: Vector
    hessian: Matrix
    information: Matrix


def derivatives(node: Node, change: Curvature, A: float, method: Method) -> Derivatives:
    """Log likelihood and derivatives at A >= 0 and the ρ of the node: O(m² p)."""
    fit = weighted(node, A)
    w, half, Py = fit.w, fit.half, fit.Py
    restricted = method == "reml"
    m, p = node.Q.shape
    loglik = -(float(node.y @ Py) - float(np.log(w).sum()) + m * LOG_2PI) / 2 + node.log_det_T
    if restricted:
        loglik += (p * LOG_2PI - fit.log_det) / 2 + node.problem.model.log_jacobian
    slope, bend = change.slope[:m, :m], change.bend[:m, :m]
    first = (np.eye(m), A * slope)
    second = {(0, 0): np.zeros((m, m)), (0, 1): slope, (1, 1): A * bend}
    F = np.diag(w) - half.T @ half if restricted else np.diag(w)
    P = F if restricted else np.diag(w) - half.T @ half
    FV = [F @ V for V in first]
    VPy = [V @ Py for V in first]
    gradient = np.array([(Py @ VPy[k] - np.trace(FV[k])) / 2 for k in (0, 1)])
    hessian, information = np.empty((2, 2)), np.empty((2, 2))
    for (j, k), V_jk in second.items():
        trace = float((FV[j] * FV[k].T).sum())
        value = Py @ V_jk @ Py - 2 * VPy[j] @ P @ VPy[k] - float((F * V_jk).sum()) + trace
        hessian[j, k] = hessian[k, j] = value / 2
        information[j, k] = information[k, j] = trace / 2
    return Derivatives(loglik, gradient, hessian, information)


def slope(node: Node, A: float, method: Method) -> float:
    """∂ℓ/∂ρ alone at A >= 0: O(m² p) beside two products of (M, m) matrices."""
    if A == 0:
        return 0.0
    J = node.reach(np.eye(len(node.d)))
    H = node.problem.W @ J
    fit = weighted(node, A)

    def form(vectors: Matrix) -> float:
        """Σ over the columns a of a' T Ω_ρ T' a."""
        Ha, Ja = H @ vectors, J @ vectors
        return 2 * float((Ha * Ja).sum()) - 2 * node.rho * float(np.square(Ha).sum())

    trace = 2 * float(fit.w @ (H * J).sum(axis=0)) - 2 * node.rho * float(fit.w @ np.square(H).sum(axis=0))
    if method == "reml":
        trace -= form(fit.half.T)
    return A * (form(fit.Py[:, None]) - trace) / 2
