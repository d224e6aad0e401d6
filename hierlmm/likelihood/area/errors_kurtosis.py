"""Second-order mean squared errors where the area effects are not normal: v_i has variance A and fourth cumulant κ.

The sampling errors are normal. To first order Â − A = Σ c_j (r_j² − V_j), with c_j = 1/m (pr), w_j/Σ w (fh) or
w_j²/Σ w² (likelihoods, restricted, adjusted or neither). Then, beside what `likelihood.area.errors` has:

    the variance of Â gains    κ Σ c_j²
    the bias of Â gains        0 (pr),  κ [(Σ w²)²/(Σ w)³ − Σ w³/(Σ w)²] (fh),  2 κ [Σ w³ Σ w⁴/(Σ w²)³ − Σ w⁵/(Σ w²)²]
    the error of the best linear predictor is correlated with what estimating A adds: −2 κ B_i² w_i c_i in the MSE

because E[(γe − Bv)(v + e)³] = −B κ. Under Prasad and Rao's moments the κ terms cancel: the normal formula stays right
(Lahiri and Rao 1995, JASA 90:758-766). Under Fay and Herriot's they do not (Chen, Lahiri and Rao, arXiv:2409.16409).
The same expansion gives those of the likelihood estimators.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def fourth_cumulant(A: float, residual: Vector, variance: Vector, D: Vector) -> float:
    """Moment estimate of κ = E v⁴ − 3 A², not below −2 A², which is its least value for any distribution.

    residual  (m,) y − x'β̂ of the areas in the fit; variance (m,) its variance V − x'C x; areas whose residual has none
              are left out
    """
    free = variance > 1e-10 * (A + D)
    w = 1 / (A + D[free])
    fourth = np.square(np.square(residual[free]) / variance[free])
    estimate = float(np.square(w) @ (fourth - 3) / np.sum(w**4))
    return max(-2 * A * A, estimate)


def kurtosis_terms(estimator: str, A: float, D: Vector, kappa: float) -> tuple[Vector, float]:
    """What κ adds to the estimate of the MSE: (m,) for the areas in the fit, and a number for an unsampled one."""
    w = 1 / (A + D)
    S = {k: float(np.sum(w**k)) for k in range(1, 6)}
    if estimator == "pr":
        c, bias = np.full(w.size, 1 / w.size), 0.0
    elif estimator == "fh":
        c, bias = w / S[1], S[2] ** 2 / S[1] ** 3 - S[3] / S[1] ** 2
    else:
        c, bias = np.square(w) / S[2], 2 * (S[3] * S[4] / S[2] ** 3 - S[5] / S[2] ** 2)
    B2 = np.square(D * w)
    added = 2 * B2 * w * (np.square(c).sum() - c) - B2 * bias
    return kappa * added, -kappa * bias
