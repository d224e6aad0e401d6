"""Mean squared error of the EBLUP of an area mean, second order, by its terms.

    g1_i = γ_i D_i                        what is left if A and β were known
    g2_i = (1−γ_i)² x_i'(X'V⁻¹X)⁻¹x_i     estimating β
    g3_i = D_i² V_i⁻³ v(Â)                estimating A, v(Â) its asymptotic variance
    MSE_i = g1_i + g2_i + 2 g3_i − b(Â)(1−γ_i)²,   b the bias of Â: 0 for REML, for ML
    b = −tr[(X'V⁻¹X)⁻¹X'V⁻²X] / Σ V_j⁻²

Sources: Prasad and Rao (1990, JASA 85:163-171), Datta and Lahiri (2000, Statistica Sinica 10:613-627), Rao and
Molina (2015, Small Area Estimation, 2nd ed., sec. 6.2). The limit D_i -> infinity is an area that was not sampled:
γ = 0, g1 = A, g2 = x'(X'V⁻¹X)⁻¹x, g3 = 0, and under ML the bias of Â stays: MSE = A + x'(X'V⁻¹X)⁻¹x − b. The limit
D_i -> 0 is an area that is known: every term is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.variance import VarianceEstimate

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Which information the asymptotic variance of Â, and so g3, is the inverse of: Σ V⁻²/2 (its leading term, and what
# other programs use for ML and REML alike) or tr(P²)/2 (the exact expected information of REML).
Information = Literal["sum", "trace"]
PRINTED: dict[str, str] = {"sum": "2/Σ V⁻²", "trace": "2/tr P²"}


@dataclass(frozen=True, slots=True, eq=False)
class ErrorTerms:
    """γ (k,) and the terms of the mean squared error (k,), units of y squared, as in the module's docstring."""

    gamma: Vector
    g1: Vector
    g2: Vector
    g3: Vector
    mse: Vector


def error_terms(A: float, var_A: float, bias: float, D: Vector, g2_half: Matrix) -> ErrorTerms:
    """Terms for k areas: D (k,) is inf where there is no direct estimate and 0 where it is exact.

    g2_half  (k, p) with |row i|² = x_i'(X'V⁻¹X)⁻¹x_i
    """
    sampled = np.isfinite(D) & (D > 0)
    precision = np.where(sampled, 1 / np.where(sampled, A + D, 1.0), 0.0)
    B = np.where(sampled, precision * np.where(sampled, D, 0.0), np.where(D > 0, 1.0, 0.0))
    # γ is A/(A + D) rather than 1 − B, so that a small one keeps its digits.
    gamma = np.where(sampled, A * precision, np.where(D > 0, 0.0, 1.0))
    g1, g3 = A * B, B * B * precision * var_A
    g2 = B * B * np.square(g2_half).sum(axis=1)
    return ErrorTerms(gamma, g1, g2, g3, g1 + g2 + 2 * g3 - bias * B * B)


def variance_of_A(estimate: VarianceEstimate, information: Information) -> float:
    """Asymptotic variance of Â, units of y to the fourth, as the inverse of the information named."""
    return 1 / (estimate.information_sum if information == "sum" else estimate.information_trace)


def bias_ml(A: float, D: Vector, g2_half: Matrix) -> float:
    """Bias of Â_ML to first order, never positive: D (m,) and g2_half (m, p) of the areas in the fit."""
    w2 = np.square(1 / (A + D))
    return -float(w2 @ np.square(g2_half).sum(axis=1) / w2.sum())
