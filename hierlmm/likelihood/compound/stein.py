"""Stein's estimator and its relatives for m normal means of equal variance, and what they gain in risk.

With y ~ N(θ, D I), r = y − Xβ̂ the least-squares residuals, q = m − p their degrees of freedom and S = Σ r²/D:

    James-Stein          Xβ̂ + (1 − B̂) r,          B̂ = (q − 2)/S                     (James and Stein 1961)
    positive part        the same with min(B̂, 1)                                     (Baranchik 1964)
    limited translation  y_i − B̂ ρ(B̂ z_i²) r_i,   ρ(u) = min(1, d/√u), z_i = r_i/√(D(1 − h_i))
                         no mean is moved by more than d √(B̂ (1 − h_i)) standard deviations
                                                                    (Efron and Morris 1972, JASA 67:130-139)

X'β = 0 (p = 0) shrinks toward a fixed point, an intercept toward the mean (B̂ = (m − 3)/S), more columns toward a
regression. If θ ~ N(Xβ, A I), E B̂ = D/(A + D). The first two have smaller total squared error than y, whatever θ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Nodes of the Gauss-Legendre rule for the savings of a bound, and bisections for the bound of given savings.
NODES, HALVINGS = 100, 80
# The density falls like exp(−(q − 2) angle²/2): this many units of 1/√q on it is below e^-70 of its height.
REACH = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class LeastSquares:
    """The regression that the means are shrunk to.

    beta, cov  (p,) and (p, p) coefficients and (X'X)⁻¹; fitted, residual (m,); leverage (m,) h_i; S = Σ r²/D, q = m − p
    """

    beta: Vector
    cov: Matrix
    fitted: Vector
    residual: Vector
    leverage: Vector
    S: float
    q: int


@dataclass(frozen=True, slots=True, eq=False)
class SteinEstimate:
    """Estimates (m,), the factor B̂ before it is cut, each unit's factor B̂_i (m,), and Stein's unbiased estimate of the
    total risk Σ E(θ̂_i − θ_i)², which is m D for y itself."""

    estimate: Vector
    B: float
    shrinkage: Vector
    risk: float


def least_squares(y: Vector, X: Matrix, D: float) -> LeastSquares:
    """y (m,) less its offset, X (m, p) of full rank with p < m, D > 0."""
    p = X.shape[1]
    if p == 0:
        zero = np.zeros_like(y)
        return LeastSquares(np.zeros(0), np.zeros((0, 0)), zero, y, zero, float(y @ y) / D, len(y))
    Q, R = np.linalg.qr(X)
    beta = np.linalg.solve(R, Q.T @ y)
    half = np.linalg.solve(R, np.eye(p))
    residual = y - Q @ (Q.T @ y)
    residual = residual - Q @ (Q.T @ residual)
    S = float(residual @ residual) / D
    return LeastSquares(beta, half @ half.T, y - residual, residual, np.square(Q).sum(axis=1), S, len(y) - p)


def james_stein(fit: LeastSquares, D: float) -> SteinEstimate:
    """The plain rule, which overshoots where S < q − 2; q > 2 and S > 0."""
    B = (fit.q - 2) / fit.S
    m = len(fit.residual)
    estimate = fit.fitted + (1 - B) * fit.residual
    return SteinEstimate(estimate, B, np.full(m, B), D * (m - (fit.q - 2) * B))


def positive_part(fit: LeastSquares, D: float) -> SteinEstimate:
    """B̂ cut at 1: never beyond the regression."""
    m = len(fit.residual)
    B = (fit.q - 2) / fit.S if fit.S > 0 else math.inf
    if B < 1:
        return james_stein(fit, D)
    return SteinEstimate(fit.fitted, B, np.ones(m), D * (m + fit.S - 2 * fit.q))


def limited_translation(fit: LeastSquares, D: float, bound: float) -> SteinEstimate:
    """The positive-part rule with every mean moved by at most `bound` √(B̂ (1 − h)) standard deviations.

    The risk is estimated by Stein's identity, D (m + Σ g_i²/D + 2 Σ ∂g_i/∂y_i) with g = θ̂ − y.
    """
    plain = positive_part(fit, D)
    B = min(plain.B, 1.0)
    free = 1 - fit.leverage
    z = fit.residual / np.sqrt(D * np.maximum(free, np.finfo(float).tiny))
    far = np.sqrt(B) * np.abs(z) > bound
    with np.errstate(divide="ignore", invalid="ignore"):
        relevance = np.where(far, bound / (np.sqrt(B) * np.abs(z)), 1.0)
    shrinkage = B * relevance
    change = -shrinkage * fit.residual
    # B̂ falls as S grows: ∂B̂/∂y_i = −2 B̂ r_i/(S D) below 1; for those moved by the bound g is as the root of B̂
    falling = 0.0 if plain.B >= 1 else 2 * B / (fit.S * D)
    own = np.where(far, 0.0, -B * free) + np.where(far, 0.5 * relevance, 1.0) * falling * fit.residual**2
    risk = D * len(z) + float(change @ change) + 2 * D * float(own.sum())
    return SteinEstimate(fit.fitted + fit.residual + change, plain.B, shrinkage, risk)


def savings(bound: float, q: int) -> float:
    """Share of James-Stein's savings in total risk that the bound d keeps, averaged over the normal prior.

    1 − E[(1 − min(1, d/√(c v)))²] with v ~ Beta(3/2, (q − 1)/2) and c = q − 2: Efron and Morris (1972), whose result
    does not depend on A.
    """
    scaled = bound / math.sqrt(q - 2.0)
    if scaled >= 1:
        return 1.0
    low = math.asin(scaled)
    high = min(math.pi / 2, low + REACH / math.sqrt(q))
    x, weight = np.polynomial.legendre.leggauss(NODES)
    angle = low + 0.5 * (high - low) * (x + 1)  # v = sin², in which every factor is smooth
    half = (q - 1) / 2
    log_beta = math.lgamma(1.5) + math.lgamma(half) - math.lgamma(1.5 + half)
    lost = 2 * np.square(np.sin(angle) - scaled) * np.exp((q - 2) * np.log(np.cos(angle)) - log_beta)
    return 1.0 - 0.5 * (high - low) * float(weight @ lost)


def bound_for(share: float, q: int) -> float:
    """The bound that keeps this share, 0 < share < 1, of the savings."""
    low, high = 0.0, math.sqrt(q - 2.0)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if savings(middle, q) < share else (low, middle)
    return 0.5 * (low + high)
