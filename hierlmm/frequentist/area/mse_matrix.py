"""The matrix of mean squared and cross errors of all areas of a fit: what sums, ranks and benchmarks of them need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import expansion_fails, half_of, places
from hierlmm.likelihood.area.errors import Asymptotics
from hierlmm.likelihood.area.errors_integrated import integrated_factor
from hierlmm.likelihood.area.errors_matrix import ErrorMatrix, error_matrix

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit


class WrittenOut(Protocol):
    """A matrix that can be formed."""

    def dense(self) -> NDArray[np.float64]: ...


# Areas up to which the matrix is written out: 5,000 areas are 200 MB.
DENSE = 5000


def error_covariance(fit: AreaFit) -> pd.DataFrame:
    """`errors_of` written out and labelled (M, M). Raises FitError above 5,000 areas, where `error_matrix` serves."""
    return written_out(fit, errors_of(fit))


def written_out(fit: AreaFit, errors: WrittenOut) -> pd.DataFrame:
    """A matrix of errors as a table (M, M) labelled by area, for up to 5,000 areas."""
    M = len(fit.design.areas)
    if M > DENSE:
        raise FitError(
            f"A matrix of errors is written out for up to {DENSE} areas; there are {M}. Use fit.error_matrix(), which "
            "holds it in factors: quadratic(W) gives the errors of weighted sums, times(V) products."
        )
    return pd.DataFrame(errors.dense(), fit.design.areas, fit.design.areas)


def errors_of(fit: AreaFit) -> ErrorMatrix:
    """E[(θ̂ − θ)(θ̂ − θ)'] of the M areas, in factors; its diagonal is the `mse` of the fit.

    Where the fit's mse is of second order, so is the matrix: `likelihood.area.errors_matrix`. Where the mse is
    averaged, the matrix is too, over the posterior of A under one prior, flat on A, and rows and columns are scaled to
    the mse, which has a prior by area. Areas without a direct estimate share β with the others; where the direct
    estimate stands, the row is 0.
    """
    design = fit.design
    into = design.sampled
    if expansion_fails(fit.certificate, fit.mse_unbiased):
        y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
        own, factor = integrated_factor(fit.A_hat, y, X, D, design.X, places(design))
        known = design.role == "direct"
        found = ErrorMatrix(np.where(known, 0.0, own), np.where(known[:, None], 0.0, factor), np.eye(factor.shape[1]))
    else:
        reach = np.where(design.role == "unsampled", np.inf, design.D)
        found = error_matrix(fit.A_hat, Asymptotics(fit.var_A, fit.bias_A), reach, half_of(fit), into)
    return found.with_diagonal(fit.mse)
