"""Best linear unbiased predictors of all areas of a spatial area-level model, and the covariance of their errors.

In the coordinates of `spatial_derivatives.Curvature`, Ω = LL', an area outside the fit is one whose sampling variance
is infinite: w = 1/(A + d) and b = d w are 0 and 1 there. With (A, ρ) = ψ,

    G1 = L diag(A b) L'                      what is left if ψ and β were known
    G2 = H (X'V⁻¹X)⁻¹ H'                     estimating β; H = X − c X_s, c = A Ω_·s V⁻¹
    G3 = Σ_kl I^kl L Γ_k diag(w) Γ_l' L'     estimating ψ; Γ_A = diag(b), Γ_ρ = A diag(b) K, I the information
    G4 = ½ Σ_kl I^kl L b G_kl b L'           G_kl second derivatives of A Ω in ψ: G_Aρ = K, G_ρρ = A B, G_AA = 0
    G5 = Σ_k bias_k L b G_k b L'             G_k = ∂(AΩ)/∂ψ_k: the bias of ψ̂ in G1

    MSE = G1 + G2 + G3, and its estimate at ψ̂, unbiased to second order: G1 + G2 + 2 G3 − G4 − G5.

The expectation of G1(ψ̂) is G1 + G5 − G3 + G4, since ∂²G1/∂ψ_k∂ψ_l holds the second derivatives of V. The bias of ψ̂ is

    bias_k = −¼ Σ_l I^kl Σ_rs I^rs tr(F V_l F V_rs) − [ML] ½ Σ_l I^kl tr[(X'V⁻¹X)⁻¹ X'V⁻¹ V_l V⁻¹ X],

whose first part is there for REML too, because V is not linear in ρ: without it the estimate would depend on the
coordinates that A and ρ are written in, and G4 alone corrects too much. Sources: Singh, Shukla and Kundu (2005, Survey
Methodology 31:183-195); Datta and Lahiri (2000, Statistica Sinica 10:613-627); Molina, Salvati and Pratesi (2009,
Computational Statistics 24:441-458), who have G4 and, for ML, the second part of the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.spatial import Node, weighted
from hierlmm.likelihood.area.spatial_derivatives import Curvature, Method

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
# F in the information and the bias: V⁻¹ ("sum", its leading term) or P ("trace", that of REML).
Information = Literal["sum", "trace"]


@dataclass(frozen=True, slots=True, eq=False)
class SpatialBlup:
    """Predictions at one (A, ρ), in the units of the data.

    beta, cov_beta  (p,) and (p, p)
    synthetic       (M,) x'β, without the offset
    effect          (M,) predicted v
    residual        (m,) y − x'β; residual_variance (m,) its variance
    rest            (m,) y − x'β − v̂, computed without cancelling where the direct estimate is exact
    weight          (m,) weight of each area's own direct estimate in its prediction, given β
    reach           (M, p) H of the module's docstring in the coordinates of the reduced X; cov_delta (p, p)
    """

    beta: Vector
    cov_beta: Matrix
    synthetic: Vector
    effect: Vector
    residual: Vector
    residual_variance: Vector
    rest: Vector
    weight: Vector
    reach: Matrix
    cov_delta: Matrix


def predict(node: Node, A: float) -> SpatialBlup:
    """Generalised least squares and the BLUP of all areas at A >= 0 and the ρ of the node."""
    problem, model = node.problem, node.problem.model
    fit = weighted(node, A)
    w, root, cov_delta = fit.w, fit.root, fit.cov_delta
    delta = cov_delta @ (node.Q.T @ (w * node.y))
    resid = node.y - node.Q @ delta
    rows = model.rows(problem.X)
    inside, outside = problem.inside, problem.outside
    effect = node.reach(A * w * resid)
    reach = np.empty_like(rows)
    reach[inside] = node.back((node.d * w)[:, None] * node.Q)
    reach[outside] = rows[outside] - node.conditional @ node.back((A * w)[:, None] * node.Q)
    inverse = node.back(np.eye(len(w)))
    own = np.square(inverse)
    return SpatialBlup(
        beta=model.beta(delta),
        cov_beta=model.cov_beta(cov_delta),
        synthetic=model.ols(problem.X) + rows @ delta,
        effect=effect,
        residual=model.y - model.Q @ delta,
        residual_variance=own @ (1 / w) - np.square(model.Q @ root.T).sum(axis=1),
        rest=node.back(node.d * w * resid),
        weight=_weight(node, inverse, A * w),
        reach=reach,
        cov_delta=cov_delta,
    )


def _weight(node: Node, inverse: Matrix, gamma: Vector) -> Vector:
    """diag(T⁻¹ diag(γ) T)."""
    return np.asarray(np.einsum("ij,j,ji->i", inverse, gamma, node.forward(np.eye(len(gamma))), optimize=True))


@dataclass(frozen=True, slots=True, eq=False)
class SpatialErrors:
    """Parts of the covariance of the prediction errors of all areas, (M, M) each, named as in the module's docstring.

    bias (2,) of (Â, ρ̂); vcov (2, 2) the inverse of the information. Where A is 0 the last three parts are nan.
    """

    G1: Matrix
    G2: Matrix
    G3: Matrix
    G4: Matrix
    G5: Matrix
    bias: Vector
    vcov: Matrix

    def estimate(self) -> Matrix:
        """(M, M) G1 + G2 + 2 G3 − G4 − G5, unbiased to second order; may be negative where A or the areas are few."""
        return self.G1 + self.G2 + 2 * self.G3 - self.G4 - self.G5


def errors(
    node: Node, change: Curvature, A: float, method: Method, information: Information, blup: SpatialBlup
) -> SpatialErrors:
    """Covariances of the errors at A > 0 and the ρ of the node."""
    M, m = len(node.problem.W), len(node.d)
    w, b = np.zeros(M), np.ones(M)
    w[:m] = 1 / (A + node.d)
    b[:m] = node.d * w[:m]
    first, second = _derivatives(change, A, M)
    bias, vcov = moments_of_psi(node, change, A, method, information)
    Lb = change.L * b
    turned = [V @ Lb.T for V in first]  # G_k b L', (M, M)
    G3 = sum((vcov[j, k] * turned[j].T @ (w[:, None] * turned[k]) for j in (0, 1) for k in (0, 1)), np.zeros((M, M)))
    total = sum((vcov[j, k] * second[j, k] for j in (0, 1) for k in (0, 1)), np.zeros((M, M)))
    return SpatialErrors(
        G1=(change.L * (A * b)) @ change.L.T,
        G2=blup.reach @ blup.cov_delta @ blup.reach.T,
        G3=G3,
        G4=Lb @ total @ Lb.T / 2,
        G5=Lb @ (bias[0] * first[0] + bias[1] * first[1]) @ Lb.T,
        bias=bias,
        vcov=vcov,
    )


def leading_matrix(node: Node, change: Curvature, A: float, blup: SpatialBlup, vcov: Matrix) -> Matrix:
    """(M, M) G1 + G2 + 2 E[(∂θ̂/∂ψ) dψ dψ' (∂θ̂/∂ψ)'], positive semidefinite, at A > 0.

    The last part is G3 with the derivative of the whole predictor, β̂ included: the same to second order on the
    diagonal, and what sums over areas need. vcov (2, 2) is the asymptotic covariance of (Â, ρ̂).
    """
    M, m = len(node.problem.W), len(node.d)
    fit = weighted(node, A)
    b = np.ones(M)
    b[:m] = node.d * fit.w
    moves = change.L * b
    moves[:, :m] -= blup.reach @ blup.cov_delta @ (fit.w[:, None] * node.Q).T
    P = np.diag(fit.w) - fit.half.T @ fit.half
    first, _ = _derivatives(change, A, M)
    turned = [(moves @ V)[:, :m] for V in first]
    G1, G2 = (change.L * (A * b)) @ change.L.T, blup.reach @ blup.cov_delta @ blup.reach.T
    third = sum((vcov[j, k] * turned[j] @ P @ turned[k].T for j in (0, 1) for k in (0, 1)), np.zeros((M, M)))
    return np.asarray(G1 + G2 + third + third.T)


def _derivatives(change: Curvature, A: float, size: int) -> tuple[list[Matrix], dict[tuple[int, int], Matrix]]:
    """L⁻¹ ∂(AΩ) L⁻¹' for the first `size` coordinates, and the second derivatives."""
    slope, bend = change.slope[:size, :size], change.bend[:size, :size]
    second = {(0, 0): np.zeros((size, size)), (0, 1): slope, (1, 0): slope, (1, 1): A * bend}
    return [np.eye(size), A * slope], second


def moments_of_psi(
    node: Node, change: Curvature, A: float, method: Method, information: Information
) -> tuple[Vector, Matrix]:
    """First-order bias (2,) and asymptotic covariance (2, 2) of (Â, ρ̂)."""
    m = len(node.d)
    fit = weighted(node, A)
    w, half = fit.w, fit.half
    F = np.diag(w) - half.T @ half if information == "trace" else np.diag(w)
    first, second = _derivatives(change, A, m)
    FVF = [F @ V @ F for V in first]
    trace = np.array([[float((FVF[j] * first[k]).sum()) for k in (0, 1)] for j in (0, 1)])
    vcov = np.linalg.inv((trace + trace.T) / 4)
    total = sum((vcov[r, s] * second[r, s] for r in (0, 1) for s in (0, 1)), np.zeros((m, m)))
    pull = np.array([float((FVF[k] * total).sum()) for k in (0, 1)]) / 4
    if method == "ml":
        pull += np.array([float(((half @ V) * half).sum()) for V in first]) / 2
    return -vcov @ pull, vcov
