"""A row of data in, a row out: the response beside what the fit says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import NewLevels
from hierlmm.design.source import read
from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import FitError

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Columns of every augment. In broom.mixed's: fitted is .fitted, marginal_fitted .fixed, residual .resid, leverage .hat.
COLUMNS = (
    "response", "fitted", "se", "lower", "upper", "marginal_fitted", "residual", "marginal_residual",
    "pearson_residual", "studentised_residual", "leverage",
)  # fmt: skip


def augment(fit: LMMFit, new: object, new_levels: NewLevels) -> pd.DataFrame:
    """COLUMNS for the rows of the fit, or of the table `new`; the index is that of the rows.

    response         as the model has it, as log(y); missing in new rows without it, or where it is an expression
    fitted           conditional mean x'β + offset + z'b̂, with its prediction error se and 95 % interval
    marginal_fitted  x'β + offset
    residual         response - fitted; marginal_residual response - marginal_fitted
    pearson_residual, studentised_residual  residual over the residual sd, and over its own standard deviation
    leverage         derivative of fitted in the response

    The last three are missing in new rows, and where the fit has no residual variance, rows that stand for several, or
    too many correlated ones: see `diagnostics.projection`. Raises DesignError where the rows of the fit were not kept,
    and as `predict` does.
    """
    if new is None:
        require_rows(fit.design, "Frames of the rows of the fit")
    predicted = fit.predict(new, new_levels=new_levels)
    response = fit.design.y if new is None else _response(fit, new, len(predicted))
    columns = {
        "response": response,
        "fitted": predicted["estimate"],
        "se": predicted["se"],
        "lower": predicted["lower"],
        "upper": predicted["upper"],
        "marginal_fitted": predicted["population"],
        "residual": response - predicted["estimate"],
        "marginal_residual": response - predicted["population"],
        **_scaled(fit, new, len(predicted)),
    }
    return pd.DataFrame({name: np.asarray(columns[name]) for name in COLUMNS}, index=predicted.index)


def _response(fit: LMMFit, new: object, rows: int) -> Array:
    """(k,) the response of new rows where it is a plain column that they have."""
    name = fit.spec.response.strip("`")
    columns = read(new, (), (name,)).columns
    return np.array(columns[name].numbers(), dtype=np.float64) if name in columns else np.full(rows, np.nan)


def _scaled(fit: LMMFit, new: object, rows: int) -> dict[str, Array]:
    """Residuals over their standard deviations, and leverage; missing where diagnostics are not available."""
    from hierlmm.frequentist.diagnostics.leverage import leverage_frame
    from hierlmm.frequentist.diagnostics.projection import projection
    from hierlmm.frequentist.diagnostics.residuals import residuals, studentised

    out = {name: np.full(rows, np.nan) for name in COLUMNS[-3:]}
    if new is not None or not fit.sigma2 > 0:
        return out
    out["pearson_residual"] = residuals(fit, "pearson").to_numpy()
    try:
        at = projection(fit, "Leverages")
    except FitError:
        return out
    return out | {"studentised_residual": studentised(at), "leverage": leverage_frame(at)["joint"].to_numpy()}
