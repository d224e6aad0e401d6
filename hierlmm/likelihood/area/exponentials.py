"""Means of exponentials of area means: the predictor of exp θ_i under a model of log y_i, and its mean squared error.

With μ = x'β + offset, B = 1 − γ = D/V and g1 = γ D, the posterior of θ at known β and A is N(θ̂, g1), so that

    T = exp(θ̂ + g1/2),    MSE(T) = L + M + o(1/m)
    L = exp(2μ + 2A)(1 − exp(−g1))                                   what is left if A and β were known
    M = exp(2μ + A(1+γ)) {g2 + v B² [1/V + (1 + 3γ)²/4]}             estimating β and A, g2 = B² x'C x, C = Cov(β̂)

L at the estimates is biased by 2 x'C x L + v L''/2 + b L', v the variance and b the bias of Â, ' the derivative in A:

    L'   = exp(2μ + 2A){2 − (2 − B²) exp(−g1)}
    L''/2 = exp(2μ + 2A){2 − [(2 − B²)²/2 + B²/V] exp(−g1)}

and the estimate of the mean squared error is L + M less that bias: Slud and Maiti (2006, J. R. Stat. Soc. B 68:239-
257). An area that was not sampled is the limit of a large D: γ = 0, B = 1, 1/V = 0 and g1 = A. The bias of the ML
estimator is b = −v tr[C X'V⁻²X]/2; programs that take it as −v tr[C X'V⁻²X] count it twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Numbers = float | Vector


@dataclass(frozen=True, slots=True, eq=False)
class ExponentialErrors:
    """estimate T, mse without bias to second order, which can be negative, and known = L + M > 0, each (..., k)."""

    estimate: Vector
    mse: Vector
    known: Vector


def exponential_errors(
    A: Numbers, var_A: Numbers, bias_A: Numbers, D: Vector, mu: Vector, theta: Vector, leverage: Vector, g2: Vector
) -> ExponentialErrors:
    """Predictors of exp θ for k areas.

    A, var_A, bias_A  numbers, or (B, 1) for B fits at once, whose mu, theta, leverage and g2 are (B, k)
    D         (k,) sampling variances of log y: inf where there is no direct estimate, 0 where it is exact
    mu        (k,) x'β + offset; theta (k,) its BLUP; leverage (k,) x'Cx
    g2        (k,) B² x'Cx, the part of the error of θ̂ that comes from β̂
    """
    sampled = np.isfinite(D)
    V = np.where(sampled, A + np.where(sampled, D, 1.0), np.inf)
    gamma = np.where(V > 0, A / np.where(V > 0, V, 1.0), 1.0)
    B = np.where(sampled, np.where(V > 0, np.where(sampled, D, 0.0) / np.where(V > 0, V, 1.0), 0.0), 1.0)
    w = np.where(V > 0, 1 / np.where(V > 0, V, 1.0), 0.0)
    g1 = A * B
    left, decay = -np.expm1(-g1), np.exp(-g1)
    unit = np.exp(2 * mu + 2 * A)
    B2 = np.square(B)
    leading = unit * left
    estimated = unit * decay * (g2 + var_A * B2 * (w + np.square(1 + 3 * gamma) / 4))
    first = unit * (2 * left + B2 * decay)
    half_second = unit * (2 * left + (2 * B2 - np.square(B2) / 2 - B2 * w) * decay)
    bias = 2 * leverage * leading + var_A * half_second + bias_A * first
    return ExponentialErrors(np.exp(theta + g1 / 2), leading + estimated - bias, leading + estimated)
