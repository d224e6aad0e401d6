"""Direct estimates against the model's, and residuals of neighbours: numbers behind the checks of an area-level fit.

Direct estimates against the model's. With Â taken for A, y − θ̂ = D P y for P = V⁻¹ − V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹, so that

    Var(y_i − θ̂_i) = D_i² P_ii,     Cov(θ̂, y − θ̂) = A P D.

The regression of y on θ̂ has not slope 1 under the model but 1 + A [Σ P_ii D_i − 1'PD1/m] / Σ (θ̂_i − mean)²: shrunken
estimates vary less than what they estimate. Brown, Chambers, Heady and Heasman (2001, Proceedings of Statistics Canada
Symposium) look at this regression, and refer W = Σ (y_i − θ̂_i)² / (D_i + mse_i) to χ² with m degrees of freedom. That
supposes direct and model estimates independent, which they are not where the one is made of the other: W is then too
small, and the test sees only gross failures. Its law under the fitted model, a sum of weighted χ² variables, is given
beside. Neither allows for A having been chosen to fit these very residuals.

Moran's I of the residuals e = V^(-1/2)(y − Xβ̂), with M the projection off V^(-1/2)X and S the sum of the proximities W:
(m/S) e'We / e'e, of mean (m/S) tr(MW)/(m − p) and variance (m/S)² {tr(MWMW') + tr(MWMW) + [tr MW]²}/[(m−p)(m−p+2)] less
the square of the mean (Cliff and Ord 1981, Spatial Processes, sec. 8.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.matrices import aligned, read_matrix
from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import half_of
from hierlmm.frequentist.inference.fixed_distributions import chi2_tail
from hierlmm.frequentist.inference.quadraticforms import upper_tail

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Areas up to which the law of W is exact; beyond, a multiple of χ² with its mean and variance.
EXACT = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodnessOfFit:
    """Direct estimates against the model's, m areas: regression of the one on the other, and goodness of fit.

    intercept, slope  of direct on model estimates, least squares; se the slope's, robust against unequal variances
    expected          the slope under the fitted model; nan, as slope and se, where all estimates are the same
    W                 Σ (direct − model)²/(D + mse); p_published its upper tail under χ²(m), which supposes independence
    expected_W        its mean under the fitted model; p the upper tail under that model, A taken as known
    """

    m: int
    intercept: float
    slope: float
    se: float
    expected: float
    W: float
    p_published: float
    expected_W: float
    p: float

    def __str__(self) -> str:
        regression = [
            f"  slope {self.slope:.4f} (se {self.se:.4f}); under the model {self.expected:.4f}, not 1",
            f"  intercept {self.intercept:.4f}",
        ]
        return "\n".join(
            [
                f"Direct against model estimates, {self.m} areas",
                *(regression if np.isfinite(self.slope) else ["  all model estimates are the same: no regression"]),
                f"  W = {self.W:.4f}; under the model {self.expected_W:.4f} on average, p = {self.p:.4g}",
                f"  published test, which takes the two as independent: chi2({self.m}), p = {self.p_published:.4g}",
            ]
        )

    __repr__ = __str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Moran:
    """Moran's I of the standardised residuals, with its mean and sd under the model and z = (I − mean)/sd."""

    value: float
    mean: float
    sd: float

    @property
    def z(self) -> float:
        """Standard normal units."""
        return (self.value - self.mean) / self.sd


def require_independent(fit: AreaFit, what: str) -> None:
    """Refuse what is computed for independent areas where effects are spatial or sampling errors correlated."""
    if fit.design.proximity is not None or fit.design.covariance is not None:
        raise FitError(
            f"{what} takes areas that are independent under the model; this fit has spatial effects or correlated "
            "sampling errors. Fit the same model without them."
        )


def goodness_of_fit(fit: AreaFit) -> GoodnessOfFit:
    """Regression and goodness of fit of direct against model estimates, on the scale of the model.

    Raises FitError where effects or sampling errors are correlated.
    """
    require_independent(fit, "The comparison of direct and model estimates")
    into = fit.design.sampled
    y, D, theta, mse = fit.design.y[into], fit.design.D[into], fit.eblup[into], fit.mse[into]
    m, V, half = len(y), fit.A_hat + D, half_of(fit)[into]
    residual_variance = V - np.square(half).sum(axis=1)
    B = D / V
    slope, intercept, se, expected = _slope(fit, y, theta, D, V, half)
    c = B**2 / (D + mse)
    W = float((np.square(y - theta) / (D + mse)).sum())
    return GoodnessOfFit(
        m=m, intercept=intercept, slope=slope, se=se, expected=expected, W=W, p_published=chi2_tail(W, m),
        expected_W=float(c @ residual_variance), p=_tail(W, c, V, half),
    )  # fmt: skip


def _slope(
    fit: AreaFit, y: Vector, theta: Vector, D: Vector, V: Vector, half: Matrix
) -> tuple[float, float, float, float]:
    """Slope, intercept, standard error of the slope, and the slope under the model."""
    m, centred = len(y), theta - theta.mean()
    size = float(centred @ centred)
    if size <= 1e-20 * float(theta @ theta) or m < 3:
        return np.nan, float(y.mean()), np.nan, np.nan
    slope = float(centred @ y) / size
    intercept = float(y.mean() - slope * theta.mean())
    errors = y - intercept - slope * theta
    se = float(np.sqrt(np.square(centred * errors).sum())) / size
    P_diagonal = 1 / V - np.square(half).sum(axis=1) / V**2
    PD1 = (D - half @ (half.T @ (D / V))) / V
    excess = fit.A_hat * (float(P_diagonal @ D) - float(PD1.sum()) / m)
    return slope, intercept, se, 1 + excess / size


def _tail(W: float, c: Vector, V: Vector, half: Matrix) -> float:
    """P(Σ c_i r_i² > W) for r = y − Xβ̂ ~ N(0, diag(V) − half half')."""
    if len(c) <= EXACT:
        root = np.sqrt(c)
        S = np.diag(c * V) - (root[:, None] * half) @ (root[:, None] * half).T
        weights = np.linalg.eigvalsh(S)
        return upper_tail(weights[weights > 1e-12 * weights[-1]], 1.0, W)
    inner = half.T @ (c[:, None] * half)
    mean = float(c @ V) - float(np.trace(inner))
    own = np.square(half).sum(axis=1)
    variance = 2 * float((c**2 * V * (V - 2 * own)).sum() + np.square(inner).sum())
    df = 2 * mean**2 / variance
    return chi2_tail(W * df / mean, df)


def moran(fit: AreaFit, proximity: object) -> Moran:
    """Moran's I of the standardised residuals under proximities: a square table labelled by the areas, in any order.

    Raises DesignError for a table that is not square or whose labels are not the areas in the fit, FitError where
    these have no neighbours among each other or a weight is no finite number, and for effects modelled as spatial.
    """
    require_independent(fit, "Moran's I of the residuals")
    design = fit.design
    into = design.sampled
    W = aligned(read_matrix("the proximity matrix", proximity), design.areas, into)[np.ix_(into, into)]
    np.fill_diagonal(W, 0.0)
    total = float(W.sum())
    if not total > 0 or not np.isfinite(total):
        raise FitError(
            "Moran's I needs areas in the fit that are neighbours; found none, or weights that are no numbers. Check "
            "the matrix."
        )
    V = fit.A_hat + fit.design.D[into]
    e = fit.residual[into] / np.sqrt(V)
    Q = np.linalg.qr(fit.design.X[into] / np.sqrt(V)[:, None])[0]
    W = (W + W.T) / 2
    MW = W - Q @ (Q.T @ W)
    m, p = Q.shape
    trace, squares = float(np.trace(MW)), float((MW * MW.T).sum())
    mean = m / total * trace / (m - p)
    second = (m / total) ** 2 * (2 * squares + trace**2) / ((m - p) * (m - p + 2))
    return Moran(value=m / total * float(e @ W @ e) / float(e @ e), mean=mean, sd=float(np.sqrt(second - mean**2)))
