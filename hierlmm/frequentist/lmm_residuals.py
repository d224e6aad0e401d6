"""The covariance matrix of the residuals of one group over all occasions, labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_model import structure_of
from hierlmm.likelihood.residuals import over_occasions

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]


def covariance_over_occasions(fit: LMMFit) -> pd.DataFrame:
    """(T, T) covariance matrix of the residuals of a group that is seen at all T occasions or positions.

    Raises FitError where the model has no occasions.
    """
    return _frame(fit, fit.sigma2 * _over_occasions(fit)[0])


def correlations_over_occasions(fit: LMMFit) -> pd.DataFrame:
    """(T, T) their correlations. Raises FitError where the model has no occasions."""
    return _frame(fit, _over_occasions(fit)[1])


def _over_occasions(fit: LMMFit) -> tuple[Array, Array]:
    """R/sigma² and the correlations; a residual without variance is uncorrelated."""
    rows, structure = fit.design.residual, structure_of(fit.design)
    if rows is None or structure is None or not rows.group or not len(rows.occasions):
        raise FitError(
            "A covariance matrix over occasions needs a residual structure over occasions or positions, as AR1, "
            f"Toeplitz or Unstructured; the model has residual={fit.spec.residual!r}. See variance_components for its "
            "parameters, and marginal_covariance(level) for the covariance matrix of one group's rows."
        )
    T = len(rows.occasions)
    if len(fit.phi) != structure.size:
        return np.eye(T), np.eye(T)
    place = np.zeros(T)
    place[rows.occasion] = rows.place
    return over_occasions(structure, fit.phi, place)


def _frame(fit: LMMFit, matrix: Array) -> pd.DataFrame:
    assert fit.design.residual is not None
    labels = fit.design.residual.occasions
    return pd.DataFrame(matrix, labels, labels)
