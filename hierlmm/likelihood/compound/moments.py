"""Method-of-moments estimates of the prior of counts: a mean and a dispersion in closed form.

Poisson (Marshall 1991, Applied Statistics 40:283-294, the global estimator): with rates r_i = y_i/E_i,
    m = Σ y/Σ E,   s² = Σ E_i (r_i − m)²/Σ E,   A = s² − m/Ē,   φ = A/m²
so that the posterior mean with this prior is Marshall's m + C_i (r_i − m), C_i = A/(A + m/E_i).

Binomial (Kleinman 1973, JASA 68:46-54, with weights n_i): with p_i = k_i/n_i,
    p = Σ k/N,   S = Σ n_i (p_i − p)²,   N = Σ n_i
    ρ = [S/(p(1 − p)) − (m − 1)]/[N − Σ n_i²/N − (m − 1)],   φ = ρ/(1 − ρ)

Negative estimates of A and ρ are cut at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.compound.marginal import Counts

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MomentEstimate:
    """mean (N,), dispersion (N,) φ, cut at 0, and what it was before: `raw` (N,), A of rates or ρ of proportions."""

    mean: Array
    dispersion: Array
    raw: Array


def estimate_moments(family: Counts, y: Array, size: Array, weight: Array | None = None) -> MomentEstimate:
    """Moment estimates of N data sets y (N, m) or of one (m,), whose results are then (1,).

    weight  (N, m) how often each unit counts; None: once
    """
    counts = np.atleast_2d(y)
    w = np.ones_like(counts) if weight is None else weight
    total, m = w @ size, w.sum(axis=1)
    mean = (w * counts).sum(axis=1) / total
    spread = (w * size * np.square(counts / size - mean[:, None])).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if family == "poisson":
            raw = spread / total - mean * m / total
            return MomentEstimate(mean, np.maximum(raw, 0.0) / mean**2, raw)
        raw = (spread / (mean * (1 - mean)) - (m - 1)) / (total - w @ np.square(size) / total - (m - 1))
        rho = np.maximum(raw, 0.0)
        return MomentEstimate(mean, np.where(rho < 1, rho / (1 - rho), np.inf), raw)


def moment_covariance(family: Counts, y: Array, size: Array, mean: float, phi: float) -> Array:
    """(2, 2) covariance of (η̂, φ̂), η the link of the mean, of one data set with φ̂ > 0: the sandwich.

    Both estimates solve Σ ψ_i = 0, so that their covariance is about G⁻¹ (Σ ψ_i ψ_i') G⁻ᵀ, G = Σ ∂ψ_i, whatever the
    prior's shape; (mean, A or ρ) are then carried to (η, φ).
    """
    rate = y / size
    first = y - size * mean
    if family == "poisson":
        A, share = phi * mean**2, size / size.mean()
        psi = np.stack([first, size * ((rate - mean) ** 2 - A) - share * mean])
        G = np.array([[-size.sum(), 0.0], [-share.sum(), -size.sum()]])
        to = np.array([[1 / mean, 0.0], [-2 * A / mean**3, mean**-2]])
    else:
        rho, pq, left = phi / (1 + phi), mean * (1 - mean), 1 - size / size.sum()
        per = left * (1 + rho * (size - 1))
        psi = np.stack([first, size * (rate - mean) ** 2 - pq * per])
        G = np.array([[-size.sum(), 0.0], [-(1 - 2 * mean) * per.sum(), -pq * (left * (size - 1)).sum()]])
        to = np.array([[1 / pq, 0.0], [0.0, (1 - rho) ** -2]])
    half = to @ np.linalg.solve(G, psi)
    return np.asarray(half @ half.T)
