"""Mean squared errors of the random effects with the uncertainty of the variance parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.lmm_variances import is_plain, parameter_covariance, working_scale
from hierlmm.likelihood.kackar import estimation_error

Array = NDArray[np.float64]


def error_terms(fit: LMMFit) -> pd.DataFrame:
    """group, level, term, g1, g2, g3, mse of every BLUP.

    g1 Var(b | y, beta), g2 what estimating beta adds, g3 what estimating the variance parameters adds (Kackar &
    Harville 1984), mse = g1 + g2 + 2 g3 (Das, Jiang & Rao 2004, Ann. Statist. 32:818-840). Variance parameters on the
    boundary are held there, so that g3 is what the others add. g3 and mse are missing where it was not computed:
    crossed designs with more effects than `likelihood.information.WHOLE`, covariance structures, and fits without a
    likelihood.
    """
    g3 = added_error(fit)
    frame = fit.random_effects[["group", "level", "term"]].copy()
    g1, total = _diagonals(fit.b_conditional), _diagonals(fit.b_error)
    third = np.full(len(g1), np.nan) if g3 is None else _diagonals(g3)
    return frame.assign(g1=g1, g2=total - g1, g3=third, mse=total + 2 * third)


def added_error(fit: LMMFit) -> tuple[Array, ...] | None:
    """g3 per factor of the design, (G, q, q); None where it is not available."""
    if not is_plain(fit) or fit.equations.cells is not None:
        return None
    if not fit.design.factors:
        return ()
    found = parameter_covariance(fit)
    if found is None or fit.at is None:
        return None
    parts = estimation_error(working_scale(fit.equations), fit.at, found.working, found.parameters)
    if parts is None:
        return None
    data = [B @ part @ B.T for B, part in zip(fit.equations.Z_map, parts, strict=True)]
    return tuple(data[fit.equations.order.index(f)] for f in range(len(data)))


def _diagonals(parts: tuple[Array, ...]) -> Array:
    """The variances of every effect, in the order of the frames; none without random effects."""
    return np.concatenate([np.zeros(0), *(np.diagonal(part, axis1=1, axis2=2).ravel() for part in parts)])
