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


def estimate_moments(family: Counts, y: Array, size: Array) -> MomentEstimate:
    """Moment estimates of N data sets y (N, m) or of one (m,), whose results are then (1,)."""
    counts = np.atleast_2d(y)
    mean = counts.sum(axis=1) / size.sum()
    away = np.square(counts / size - mean[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        if family == "poisson":
            raw = away @ size / size.sum() - mean / size.mean()
            return MomentEstimate(mean, np.maximum(raw, 0.0) / mean**2, raw)
        N, m = size.sum(), len(size)
        raw = (away @ size / (mean * (1 - mean)) - (m - 1)) / (N - np.square(size).sum() / N - (m - 1))
        rho = np.maximum(raw, 0.0)
        return MomentEstimate(mean, np.where(rho < 1, rho / (1 - rho), np.inf), raw)
