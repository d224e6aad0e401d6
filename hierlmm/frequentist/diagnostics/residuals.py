"""Residuals of a linear mixed model, raw and scaled, labelled by row.

Sources: Nobre & Singer (2007), Biometrical Journal 49:863-875, for the kinds; Fitzmaurice, Laird & Ware (2011), Applied
Longitudinal Analysis, 2nd ed., chapter 10, for those scaled by a Cholesky factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.diagnostics.clusters import LARGEST, Clusters, cholesky, covariances, lower, require_variances
from hierlmm.frequentist.diagnostics.projection import Projection, projection
from hierlmm.frequentist.lmm_structured import residual_variances

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
ResidualKind = Literal["marginal", "conditional", "pearson", "studentised", "cholesky"]

# Share of a row's residual variance that is left to its conditional residual below which that residual is rounding.
FITTED_EXACTLY = 1e-10


def residuals(fit: LMMFit, kind: ResidualKind) -> pd.Series:
    """(n,) residuals of one kind.

    marginal     y less X beta and offset
    conditional  y less X beta, offset and Z b
    pearson      conditional, over the residual sd of the row
    studentised  conditional, over its own standard deviation, the root of the diagonal of R P R: missing where the fit
                 reproduces a row whatever its value
    cholesky     L⁻¹(y - X beta - offset) with L L' = V, cluster by cluster of dependent rows in the order of the rows:
                 uncorrelated with variance 1, up to the estimation of beta

    Raises FitError for an unknown kind, and for the last three where the residual variance is zero (pearson too where
    it is zero); DesignError where the rows were not kept.
    """
    if kind not in get_args(ResidualKind):
        raise FitError(f"`kind` is one of {', '.join(get_args(ResidualKind))}; found {kind!r}. Use one of these.")
    if kind == "marginal":
        return fit.marginal_residuals
    if kind == "conditional":
        return fit.conditional_residuals
    if kind == "studentised":
        values = studentised(projection(fit, "Studentised residuals"))
    elif kind == "cholesky":
        values = whitened(fit)
    else:
        variance = residual_variances(fit)
        if not fit.sigma2 > 0:
            raise FitError(
                "Pearson residuals are scaled by the residual sd, and that of this fit is zero: every row is fitted "
                'exactly. Use residuals(kind="conditional").'
            )
        values = fit.conditional_residuals.to_numpy() / np.sqrt(variance)
    return pd.Series(values, fit.design.index, name=f"{kind}_residual")


def studentised(at: Projection) -> Array:
    """(n,) conditional residuals over their standard deviations; nan where these are zero to rounding."""
    variance = at.residual_variance
    free = variance > FITTED_EXACTLY * at.R
    values = np.full(len(variance), np.nan)
    values[free] = at.RPy[free] / np.sqrt(variance[free])
    return values


def whitened(fit: LMMFit) -> Array:
    """(n,) L⁻¹(y - X beta - offset). Raises FitError where more than LARGEST rows depend on each other."""
    require_variances(fit, "Residuals scaled by a Cholesky factor")
    clusters = Clusters.of(fit)
    if clusters.largest > LARGEST:
        raise FitError(
            "Residuals scaled by a Cholesky factor need the covariance matrix of the rows that depend on each other; "
            f"here {clusters.largest} rows do, as with crossed factors, and {LARGEST} is the limit. Use "
            'residuals(kind="studentised").'
        )
    r = fit.marginal_residuals.to_numpy()
    out = np.empty(len(r))
    for rows in clusters.batches():
        L = cholesky(covariances(fit, rows)[0])
        out[rows] = lower(L, r[rows][..., None])[..., 0]
    return out
