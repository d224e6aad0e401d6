"""MIVQUE(0) and MINQUE: unbiased quadratic estimators that are best at variances given in advance.

With V_r the derivatives of V and P taken at the a priori variances, the estimates solve
    sum over s of tr(P V_r P V_s) theta_s = y'P V_r P y   for every r, the residual variance included.

Sources: Rao (1971, J. Multivariate Anal. 1:257-275; 1972, J. Am. Stat. Assoc. 67:112-115); iterated to a fixed point
they solve the REML equations (Hocking & Kutner 1975, Biometrics 31:19-27).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.moments.annihilator import Sums, is_positive_definite, restricted
from hierlmm.frequentist.moments.components import VarianceComponent, matrices

Array = NDArray[np.float64]

# Change of the estimates, relative to the residual variance, at which iterated MINQUE has settled, and its patience.
SETTLED, PATIENCE = 1e-12, 200


def quadratic_equations(sums: Sums, found: tuple[VarianceComponent, ...], ratios: Array) -> tuple[Array, Array]:
    """(k + 1, k + 1) coefficients and (k + 1,) quadratic forms, the residual variance last.

    ratios  (k,) a priori values of the components relative to the residual variance, working scale
    """
    k = len(found)
    P = restricted(sums, matrices(found, ratios, sums.widths))
    S, right = np.empty((k + 1, k + 1)), np.empty(k + 1)
    fourfold = {}
    traces = np.empty(k)
    for i, one in enumerate(found):
        w = P.scores(one.factor)
        right[i] = float(np.einsum("ga,ab,gb->", w, one.matrix, w))
        traces[i] = float((P.own(one.factor) * one.matrix).sum())
        for j, two in enumerate(found[: i + 1]):
            first, second = (one, two) if one.factor <= two.factor else (two, one)
            pair = first.factor, second.factor
            if pair not in fourfold:
                fourfold[pair] = P.fourfold(*pair)
            S[i, j] = S[j, i] = np.einsum("ab,abcd,cd->", first.matrix, fourfold[pair], second.matrix)
    # P V P = P, so that the identity's part is what the others leave
    S[:k, k] = S[k, :k] = traces - S[:k, :k] @ ratios
    S[k, k] = sums.n - sums.p - traces @ ratios - S[k, :k] @ ratios
    right[k] = P.square - right[:k] @ ratios
    return S, right


def minque(sums: Sums, found: tuple[VarianceComponent, ...], ratios: Array) -> Array:
    """(k + 1,) estimates at a priori ratios (k,). Raises FitError where the equations do not determine them."""
    S, right = quadratic_equations(sums, found, ratios)
    return _solved(S, right)


def iterated_minque(sums: Sums, found: tuple[VarianceComponent, ...], start: Array) -> tuple[Array, int]:
    """The fixed point reached from `start` (k,), and the number of steps.

    Raises FitError where an iterate is no covariance matrix or the steps do not settle.
    """
    ratios, before = start, np.full(len(found) + 1, np.inf)
    for step in range(1, PATIENCE + 1):
        theta = minque(sums, found, ratios)
        if np.abs(theta - before).max() <= SETTLED * max(abs(theta[-1]), np.abs(theta).max()):
            return theta, step
        before = theta
        if theta[-1] <= 0 or not is_positive_definite(sums, matrices(found, theta[:-1] / theta[-1], sums.widths)):
            raise FitError(
                "Iterated MINQUE needs a positive definite covariance matrix at each step; step "
                f"{step} left the parameter space (residual variance {theta[-1]:.6g}). Use method='minque' for the "
                "first step, or 'reml', which stays inside."
            )
        ratios = theta[:-1] / theta[-1]
    raise FitError(
        f"Iterated MINQUE must settle; it did not in {PATIENCE} steps. Use method='reml', whose optimiser does not "
        "depend on these steps."
    )


def _solved(S: Array, right: Array) -> Array:
    size = np.sqrt(np.diagonal(S))
    values = np.linalg.eigvalsh(S / np.outer(size, size))
    if values[0] <= 1e-12:
        raise FitError(
            "The error contrasts must tell the variance components apart; the equations of MINQUE are singular (least "
            f"eigenvalue {values[0]:.2g} of their correlations). Leave out a term of the random part."
        )
    return np.asarray(np.linalg.solve(S / np.outer(size, size), right / size) / size)
