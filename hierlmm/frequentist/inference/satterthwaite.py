"""Satterthwaite's degrees of freedom of fixed effects, and those of F statistics by Fai and Cornelius.

For a contrast l, with C = Cov(beta) a function of the variance parameters psi,

    df = 2 (l'Cl)² / (g'A g),    g_r = l'(dC/dpsi_r) l,    A = 2 H⁻¹,

H the observed Hessian of -2 log likelihood (REML or ML, as fitted) in psi, residual variance included: as lmerTest
does, and like it for a fit on the boundary, where what the boundary holds stays held. For several contrasts C is
rotated to its eigenvectors (of L C L' as the contrasts were written, so the answer depends a little on how), and the
degrees of freedom are those of an F with the expectation of the sum of the squared t.

Source: Satterthwaite (1946), Biometrics Bull. 2:110-114; Giesbrecht & Burns (1985), Biometrics 41:477-486; Fai &
Cornelius (1996), J. Stat. Comput. Simul. 54:363-378; Kuznetsova, Brockhoff & Christensen (2017), J. Stat. Softw. 82,
no. 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.fixed_directions import curvature, free_directions
from hierlmm.frequentist.inference.fixed_traces import fixed_slopes, quadratic_matrix, trace_matrix
from hierlmm.frequentist.inference.satterthwaite_structured import by_differences
from hierlmm.likelihood.lmm_derivatives import Derivatives
from hierlmm.likelihood.triangular import solve_lower

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Eigenvalues of the Hessian of parameters scaled to unit curvature that are no curvature: rotations, and rounding.
FLAT = 1e-9
# Degrees of freedom of the single contrasts that differ by less are the same: lmerTest's bound.
SAME = 1e-8
# Degrees of freedom above which the variance of a contrast is known as far as doubles can tell.
KNOWN = 1e12


@dataclass(frozen=True, slots=True, eq=False)
class Satterthwaite:
    """covariance (k, k) of k variance parameters, slopes (k, p, p) of C (p, p) in them, and names of what is held."""

    C: Array
    slopes: Array
    covariance: Array
    held: tuple[str, ...]

    def df(self, contrast: Array) -> float:
        """Degrees of freedom of the t statistic of one contrast (p,); inf where its variance is known."""
        variance = float(contrast @ self.C @ contrast)
        gradient = self.slopes @ contrast @ contrast
        spread = float(gradient @ self.covariance @ gradient)
        return 2 * variance**2 / spread if 2 * variance**2 < KNOWN * spread else np.inf

    def joint_df(self, L: Array) -> float:
        """Denominator degrees of freedom of the F statistic of contrasts L (q, p) of full rank."""
        if len(L) == 1:
            return self.df(L[0])
        _, vectors = np.linalg.eigh(L @ self.C @ L.T)
        single = np.array([self.df(row) for row in vectors.T @ L])
        return fai_cornelius(single)


def fai_cornelius(single: Array) -> float:
    """Degrees of freedom with which F has the expectation of the mean of squared t with these (q,) degrees of freedom.

    2 E / (E - q), E the sum of df / (df - 2); 2 where one of them is 2 or less.
    """
    if (np.abs(np.diff(single)) < SAME).all() or np.isinf(single).all():
        return float(single.mean())
    if (single <= 2).any():
        return 2.0
    E = float((1.0 / (1.0 - 2.0 / single)).sum())
    return 2 * E / (E - len(single))


def satterthwaite(fit: LMMFit) -> Satterthwaite:
    """What degrees of freedom need of a fit: analytic for independent residuals, by differences beside others.

    Raises FitError (from the caller's check) where the likelihood has no upper bound; see `fixed_tests`.
    """
    at = fit.at
    assert at is not None
    if len(fit.phi):
        moved = by_differences(fit)
        return Satterthwaite(fit.vcov_beta, moved.slopes, covariance_of(moved.hessian), moved.held)
    cp = fit.equations
    directions = free_directions(cp, at.factors)
    hessian = 2 * quadratic_matrix(cp, at, directions) - trace_matrix(cp, at, fit.method, directions)
    hessian[1:, 1:] += curvature(directions, at.G_T)
    slopes = on_data_scale(fit, at, fixed_slopes(at, cp, directions)[0])
    first = 1 if cp.known_sigma2 else 0
    held = tuple(_held_name(fit, f, number) for f, number in directions.held)
    return Satterthwaite(fit.vcov_beta, slopes[first:], covariance_of(hessian[first:, first:]), held)


def on_data_scale(fit: LMMFit, at: Derivatives, whitened: Array) -> Array:
    """(..., p, p) matrices in units of Cov(beta) = I, on the data scale."""
    cp = fit.equations
    root = np.sqrt(at.sigma2) * (cp.X_map @ solve_lower(at.solved.L_x, np.eye(cp.p)).T)
    return np.asarray(root @ whitened @ root.T)


def covariance_of(hessian: Array) -> Array:
    """2 H⁻¹, without the directions in which the criterion does not bend upwards."""
    if not len(hessian):
        return hessian
    if not np.isfinite(hessian).all():
        return np.full_like(hessian, np.nan)
    scale = np.sqrt(np.abs(np.diagonal(hessian)))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    bent = values > FLAT * max(float(values[-1]), 0.0)
    half = vectors[:, bent] / np.sqrt(values[bent])
    return np.asarray(2 * (half @ half.T) / np.outer(scale, scale))


def _held_name(fit: LMMFit, f: int, block: int) -> str:
    """ "group (terms)" of a block of a factor in elimination order."""
    factor = fit.design.factors[fit.equations.order[f]]
    return f"{factor.name} ({', '.join(factor.coefficients[c] for c in factor.blocks[block])})"
