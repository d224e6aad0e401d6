"""Morris's empirical Bayes estimates and intervals for normal means of unequal variances (1983, JASA 78:47-55).

    Â      solves Σ W_i (y_i − x_i'b)² = m − p, W_i = 1/(D_i + Â), b the weighted least squares; 0 without a root
    B̂_i    = (m − p − 2)/(m − p) · D_i W_i
    θ̂_i    = (1 − B̂_i) y_i + B̂_i x_i'b
    s_i²   = D_i [1 − (1 − l_i/m) B̂_i] + v_i (y_i − x_i'b)²
             l_i = m W_i x_i'(X'WX)⁻¹x_i,   v_i = 2/(m − p − 2) · B̂_i² W_i (D̄ + Â),   D̄ = Σ W D/Σ W

The second part of s² is what the estimation of A adds: the normal interval θ̂ ± z s covers about as it says over draws
of θ and y. With equal variances and Â > 0 the estimates are James and Stein's. (Morris writes the equation for Â as
Â = Σ W_i [m/(m − p) (y_i − x_i'b)² − D_i]/Σ W_i, which is the same one.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Newton steps from 0, which rise to the root: the sum is convex and falling in A. STEP is the resolution of A + D.
STEPS, STEP = 200, 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class MorrisEstimate:
    """A, beta (p,) with (X'WX)⁻¹, fitted (m,) Xb, estimate, shrinkage B̂ and variance s² (m,), and Newton's steps."""

    A: float
    beta: Vector
    cov: Matrix
    fitted: Vector
    estimate: Vector
    shrinkage: Vector
    variance: Vector
    steps: int


def morris(y: Vector, X: Matrix, D: Vector) -> MorrisEstimate:
    """y (m,) less its offset, X (m, p) of full rank with m − p > 2, D (m,) positive."""
    m, p = X.shape
    A, steps = _variance(y, X, D)
    W = 1 / (A + D)
    beta, cov, residual = _weighted(y, X, W)
    B = (m - p - 2) / (m - p) * D * W
    own = W * np.einsum("ij,jk,ik->i", X, cov, X)
    mean_D = float(W @ D / W.sum())
    v = 2 / (m - p - 2) * B**2 * W * (mean_D + A)
    variance = D * (1 - (1 - own) * B) + v * residual**2
    return MorrisEstimate(A, beta, cov, y - residual, y - B * residual, B, variance, steps)


def _variance(y: Vector, X: Matrix, D: Vector) -> tuple[float, int]:
    m, p = X.shape
    A = 0.0
    for step in range(STEPS):
        W = 1 / (A + D)
        residual = _weighted(y, X, W)[2]
        excess = float(W @ residual**2) - (m - p)
        if excess <= 0 and step == 0:
            return 0.0, 1
        new = A + excess / float(W**2 @ residual**2)
        if abs(new - A) <= STEP * (A + D.min()) or (step > 3 and new <= A):
            return max(new, 0.0), step + 1
        A = new
    return A, STEPS


def _weighted(y: Vector, X: Matrix, W: Vector) -> tuple[Vector, Matrix, Vector]:
    """Weighted least squares: b, (X'WX)⁻¹ and y − Xb."""
    if X.shape[1] == 0:
        return np.zeros(0), np.zeros((0, 0)), y
    root = np.sqrt(W)
    Q, R = np.linalg.qr(root[:, None] * X)
    beta = np.linalg.solve(R, Q.T @ (root * y))
    half = np.linalg.solve(R, np.eye(len(beta)))
    return beta, half @ half.T, y - X @ beta
