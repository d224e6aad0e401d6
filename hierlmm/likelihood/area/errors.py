"""Second-order mean squared errors of estimates of area means, from the variance v and the bias b of Â.

With w = 1/(A + D), B = D w, γ = 1 − B, C = (X'V⁻¹X)⁻¹ and P = V⁻¹ − V⁻¹X C X'V⁻¹, for the areas in the fit:

    g1_i = γ_i D_i,   g2_i = B_i² x_i'C x_i,   g3_i = B_i² w_i v,   MSE_i = g1_i + g2_i + 2 g3_i − b B_i²

    estimator     v                  b
    reml          2/Σ w²             0                              Datta and Lahiri (2000, Statistica Sinica 10:613)
    ml            2/Σ w²             −tr[C X'V⁻²X]/Σ w²             the same
    pr            2 Σ V²/m²          0                              Prasad and Rao (1990, JASA 85:163)
    fh            2 m/(Σ w)²         2[m Σ w² − (Σ w)²]/(Σ w)³      Datta, Rao and Smith (2005, Biometrika 92:183)
    amrl_ll       2/Σ w²             2/(A Σ w²)                     Li and Lahiri (2010, J. Multivariate An. 101:882)
    ampl_ll       2/Σ w²             that of amrl_ll and of ml      the same
    amrl_yl       2/Σ w²             0                              Yoshimori and Lahiri (2014, JMVA 124:281)
    ampl_yl       2/Σ w²             that of ml                     the same

The exact expected information of REML gives 2/tr P² for v in place of 2/Σ w². As D_i grows, an area becomes one that
was not sampled: γ = 0, g1 = A, g3 = 0. As D_i falls to 0 it becomes one that is known: every term is 0.

mix is reml where that is positive, otherwise ampl_ll (Rubin-Bleuer and You 2016, Survey Methodology 42:63), whose b is
then its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.working import Working, factor, in_chunks, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Which bias Â has, by estimator: see the table above. "mix" is named by the estimator that it took.
ADJUSTED_BY_A = ("amrl_ll", "ampl_ll")
PROFILE = ("ml", "ampl_ll", "ampl_yl")


@dataclass(frozen=True, slots=True, eq=False)
class Asymptotics:
    """Variance v of Â, units of y to the fourth, and its bias b, units of y squared, both to first order in 1/m."""

    variance: float
    bias: float


def asymptotics(estimator: str, A: float, D: Vector, half: Matrix) -> Asymptotics:
    """v and b of an estimator of A, by name, at A: D (m,) of the areas in the fit, half (m, p), |row i|² = x_i'C x_i.

    A is positive for "amrl_ll" and "ampl_ll", >= 0 for the others.
    """
    V = A + D
    w = 1 / V
    m, w1, w2 = len(D), w.sum(), np.square(w).sum()
    if estimator == "pr":
        return Asymptotics(float(2 * np.square(V).sum() / m**2), 0.0)
    if estimator == "fh":
        # m Σ w² − (Σ w)² as a sum of squares, so that equal D give 0 and not rounding error.
        spread = m * np.square(w - w1 / m).sum()
        return Asymptotics(float(2 * m / w1**2), float(2 * spread / w1**3))
    bias = 0.0
    if estimator in ADJUSTED_BY_A:
        bias += float(2 / (A * w2))
    if estimator in PROFILE:
        bias -= float(np.square(w) @ np.square(half).sum(axis=1) / w2)
    return Asymptotics(float(2 / w2), bias)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorTerms:
    """γ (k,) and the terms of the mean squared error (k,), units of y squared, as in the module's docstring.

    shrinkage  1 − γ, with its own digits; unbiased the formula, below 0 where the bias of Â is large
    """

    gamma: Vector
    shrinkage: Vector
    g1: Vector
    g2: Vector
    g3: Vector
    unbiased: Vector


def error_terms(A: float, of_A: Asymptotics, D: Vector, half: Matrix) -> ErrorTerms:
    """Terms for k areas: D (k,) is inf where there is no direct estimate and 0 where it is exact.

    half  (k, p), |row i|² = x_i'C x_i
    """
    sampled = np.isfinite(D) & (D > 0)
    if sampled.all():
        precision = 1 / (A + D)
        return _terms(A * precision, D * precision, precision, A, of_A, half)
    precision = np.where(sampled, 1 / np.where(sampled, A + D, 1.0), 0.0)
    B = np.where(sampled, precision * np.where(sampled, D, 0.0), np.where(D > 0, 1.0, 0.0))
    # γ is A/(A + D) rather than 1 − B, so that a small one keeps its digits.
    gamma = np.where(sampled, A * precision, np.where(D > 0, 0.0, 1.0))
    return _terms(gamma, B, precision, A, of_A, half)


def _terms(gamma: Vector, B: Vector, precision: Vector, A: float, of_A: Asymptotics, half: Matrix) -> ErrorTerms:
    square = B * B
    g1, g2, g3 = A * B, square * np.square(half).sum(axis=1), square * precision * of_A.variance
    return ErrorTerms(gamma, B, g1, g2, g3, g1 + g2 + 2 * g3 - of_A.bias * square)


def positive(leading: Vector, correction: Vector) -> Vector:
    """leading − correction where that adds, leading exp(−correction/leading) where it takes away: never below 0.

    The two differ by at most correction²/(2 leading), of higher order than the correction where that is small beside
    the leading term. Hall and Maiti (2006, JRSS B 68:221-238) keep a bootstrap estimate of a mean squared error
    positive by an exponential, too. leading >= 0, and a positive correction comes with a positive leading term.
    """
    taken = np.where(correction > 0, correction, 0.0)
    kept = np.exp(-taken / np.where(leading > 0, leading, 1.0))
    return np.asarray(np.where(correction > 0, leading * kept, leading - correction))


def leading_terms(A: Vector, X: Matrix, D: Vector, rows: Matrix) -> tuple[Matrix, Matrix]:
    """g1 and g2 (N, k) at each A (N,): rows (k, p) are X (m, p) first, then areas without a direct estimate."""
    work = working(np.zeros(len(D)), X, D)
    basis = work.basis
    on_Q = rows @ basis.centring @ basis.to_basis
    g1, g2 = in_chunks(lambda part, of: _leading(part, of, on_Q), A / basis.scale, work)
    return basis.scale * g1, basis.scale * g2


def _leading(A: Vector, work: Working, rows: Matrix) -> tuple[Matrix, Matrix]:
    D = work.basis.D
    w = 1 / (A[:, None] + D)
    B = np.ones((len(A), len(rows)))
    B[:, : len(D)] = D * w
    half = factor(w, work).root @ rows.T
    return A[:, None] * B, np.square(B) * np.square(half).sum(axis=1)
