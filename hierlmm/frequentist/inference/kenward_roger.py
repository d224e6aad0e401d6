"""Kenward and Roger's covariance of the fixed effects, and their scaled F.

    Phi_A = Phi + 2 Phi {sum_rs W_rs (Q_rs - P_r Phi P_s)} Phi,    W the inverse expected information of REML,

for a covariance matrix V that is linear in its parameters, so that there are no terms in second derivatives of V:
random effects, and residuals that are compound symmetric, Toeplitz, unstructured or stratified. All elements of the
covariance matrices count, also where the fit lies on the boundary. Degrees of freedom and scale of F are the formulas
of 1997 with the expected information, which pbkrtest uses too; its rule that F is not scaled where |df - 2| < 0.01
is kept. The covariance of Kenward & Roger (2009), Comput. Stat. Data Anal. 53:2583-2595 (SAS: KENWARDROGER2) differs
where V is not linear in its parameters; here the two are the same.

Source: Kenward & Roger (1997), Biometrics 53:983-997; Halekoh & Højsgaard (2014), J. Stat. Softw. 59(9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.inference.fixed_directions import linear_directions
from hierlmm.frequentist.inference.fixed_traces import fixed_slopes, trace_matrix
from hierlmm.frequentist.inference.kenward_roger_structured import expansion
from hierlmm.frequentist.inference.satterthwaite import on_data_scale

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Eigenvalues of the information, as correlations, that are rounding: the parameters are not identified.
FLAT = 1e-12
# pbkrtest's bounds: a term this small is zero, and denominator degrees of freedom this close to 2 leave F unscaled.
VANISHED, NEAR_TWO = 1e-10, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class KenwardRoger:
    """Phi (p, p) Cov(beta); adjusted (p, p); slopes (k, p, p) of Phi in k parameters and W (k, k) their covariance."""

    Phi: Array
    adjusted: Array
    slopes: Array
    W: Array

    def joint(self, L: Array) -> tuple[float, float]:
        """Denominator degrees of freedom and scale of the F statistic of contrasts L (q, p) of full rank.

        Raises FitError where the approximation gives no distribution: very few groups for many contrasts.
        """
        q = len(L)
        A1, A2 = self._moments(L)
        if A2 <= VANISHED * q:  # nothing was estimated: F is chi-square over its degrees of freedom
            return np.inf, 1.0
        B = (A1 + 6 * A2) / (2 * q)
        g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
        bottom = 3 * q + 2 * (1 - g)
        V0 = 1 + g / bottom * B
        V1 = 1 - (q - g) / bottom * B
        V2 = 1 - (q + 2 - g) / bottom * B
        V0 = 0.0 if abs(V0) < VANISHED else V0
        E = 1 - A2 / q
        # both vanish together in the one-sample case, where their ratio is 1
        ratio = 1.0 if abs(E) < 1e-14 and abs(V1) < 1e-14 else E / V1
        df = 4 + (q + 2) * V2 / (ratio**2 * V0 - V2)  # 4 + (q + 2) / (q rho - 1), also where V2 = 0
        scale = 1.0 if abs(df - 2) < NEAR_TWO else df * E / (df - 2)
        if not (df > 0 and scale > 0):
            raise FitError(
                "Kenward and Roger's approximation needs more information on the variances than these data have for "
                f'{q} contrasts at once: it gives {df:.3g} degrees of freedom. Test fewer, or use df="satterthwaite".'
            )
        return df, scale

    def _moments(self, L: Array) -> tuple[float, float]:
        """A1 and A2 of Kenward & Roger (1997, p. 987)."""
        half = np.linalg.cholesky(L @ self.Phi @ L.T)
        left = np.linalg.solve(half, L)
        U = left @ self.slopes @ left.T
        traces = np.trace(U, axis1=1, axis2=2)
        return float(traces @ self.W @ traces), float(np.einsum("rs,rij,sji->", self.W, U, U, optimize=True))


def kenward_roger(fit: LMMFit) -> KenwardRoger:
    """The adjusted covariance of a REML fit.

    Raises FitError for an ML fit, and for residual structures that are not linear in variances and covariances.
    """
    if fit.method != "reml":
        raise FitError(
            "Kenward and Roger's correction is derived for REML; this fit is by ml. "
            'Fit with method="reml", or use df="satterthwaite".'
        )
    at, cp = fit.at, fit.equations
    assert at is not None
    if len(fit.phi):
        found = expansion(fit)
        weights = _inverse_information(found.traces)
        added = np.einsum("rs,rsij->ij", weights, found.core, optimize=True)
        adjusted = on_data_scale(fit, at, np.eye(cp.p) + (added + added.T))
        return KenwardRoger(fit.vcov_beta, adjusted, on_data_scale(fit, at, found.slopes), weights)
    directions = linear_directions(cp, at.factors)
    first = 1 if cp.known_sigma2 else 0
    slopes, core = fixed_slopes(at, cp, directions)
    W = _inverse_information(trace_matrix(cp, at, "reml", directions)[first:, first:])
    own = W[1 - first :, 1 - first :]
    added = np.einsum("rs,rsij->ij", own, core, optimize=True)
    whitened = np.eye(cp.p) + (added + added.T)
    adjusted = on_data_scale(fit, at, whitened)
    return KenwardRoger(fit.vcov_beta, adjusted, on_data_scale(fit, at, slopes)[first:], W)


def _inverse_information(traces: Array) -> Array:
    """2 times the inverse of tr(P V_r P V_s), of its regular part where parameters are not identified."""
    if not len(traces):
        return traces
    scale = np.sqrt(np.diagonal(traces))
    safe = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(traces / np.outer(safe, safe))
    kept = values > FLAT * values[-1]
    half = vectors[:, kept] / np.sqrt(values[kept])
    return np.asarray(2 * (half @ half.T) / np.outer(safe, safe))
