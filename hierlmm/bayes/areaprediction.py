"""Posterior of the area means of rows that may be new."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes import correlated, mixture
from hierlmm.bayes.areascale import Nodes, on_data_scale, scale_of
from hierlmm.bayes.areaterms import conditional, quadratic
from hierlmm.bayes.results import TAILS
from hierlmm.design.types import NewRows

if TYPE_CHECKING:
    from hierlmm.bayes.arearesults import AreaPosterior

Array = NDArray[np.float64]
CONTAINS = {
    "posterior": "area effect given its data, coefficients and area variance",
    "synthetic": "a new draw of the area effect, coefficients and area variance; no direct estimate",
    "direct": "nothing: sampling variance 0, the direct estimate stands",
}


def predict_rows(posterior: AreaPosterior, rows: NewRows) -> pd.DataFrame:
    """Posterior of offset + x'β + v for k rows, mixed over A: see `AreaPosterior.predict`; on the scale of the data."""
    design, weight = posterior.design, posterior.weight
    role = np.where(rows.codes[0] >= 0, design.role[rows.codes[0]], "unsampled")
    mean, variance, gamma = given_A(posterior, rows, role)
    centre, spread = mixture.moments(weight, mean, variance)
    # the average of equal values is off by rounding
    centre, spread = np.where(role == "direct", mean[0], centre), np.where(role == "direct", 0.0, spread)
    lower, upper = mixture.quantiles(weight, mean, variance, TAILS)
    fixed = min(posterior.propriety.fixed.values(), default=math.inf)
    tail = min(fixed, *posterior.propriety.sd.values())
    limit = np.select([role == "sampled", role == "direct"], [fixed, math.inf], tail)
    se = np.where(limit > 2, np.sqrt(spread), np.nan)
    centre = np.where(limit > 1, centre, np.nan)
    exact = rows_given(posterior, mean[-1])
    nodes = Nodes(weight, mean, variance, rows.X, role, exact)
    if (data := on_data_scale(design, posterior.priors, nodes)) is not None:
        centre, se, lower, upper = data.estimate, data.se, data.lower, data.upper
    frame = pd.DataFrame(
        {
            "area": rows.groups[0],
            "estimate": centre,
            "se": se,
            "mse": se**2,
            "lower": lower,
            "upper": upper,
            "gamma": weight @ gamma,
            "basis": np.select([role == "sampled", role == "direct"], ["posterior", "direct"], "synthetic"),
            "mcse": 0.0,
        }
    ).set_axis(rows.index, axis=0)
    frame.attrs["se_contains"] = {basis: CONTAINS[basis] for basis in frame["basis"].unique()}
    return frame


def rows_given(posterior: AreaPosterior, value: Array) -> Array:
    """(k,) what direct estimates `value` on the scale of the model are on that of the data."""
    scale = scale_of(posterior.design)
    return value if scale is None else scale.back(value)


def given_A(posterior: AreaPosterior, rows: NewRows, role: NDArray[np.str_]) -> tuple[Array, Array, Array]:
    """Mean, variance and weight on the direct estimate, each (K, k), at each node of A.

    Given A and β, v_i ~ N(γ_i (y_i - x_i'β), γ_i D_i), so that x'β + v_i depends on β through x - γ_i x_i.
    """
    design, A = posterior.design, posterior.A_nodes
    if design.covariance is not None:
        mean, variance, gamma = correlated.rows_given(design, posterior.priors, A, rows, role == "sampled")
    else:
        mean, variance, gamma = _independent(posterior, rows, role)
    direct = role == "direct"
    mean[:, direct] = design.y[rows.codes[0][direct]]
    variance[:, direct], gamma[:, direct] = 0.0, 1.0
    return mean, variance, gamma


def _independent(posterior: AreaPosterior, rows: NewRows, role: NDArray[np.str_]) -> tuple[Array, Array, Array]:
    """Where sampling errors are independent."""
    design, A = posterior.design, posterior.A_nodes
    at = conditional(design, posterior.priors, A)
    mean = at.beta @ rows.X.T + rows.offset
    variance = quadratic(at.cov_beta, rows.X) + A[:, None]
    gamma = np.zeros_like(mean)
    column = np.cumsum(design.sampled) - 1
    for row in np.flatnonzero(role == "sampled"):
        area = rows.codes[0][row]
        g1 = at.g1[:, column[area]]
        gamma[:, row] = g1 / design.D[area]
        mean[:, row] += gamma[:, row] * (design.y[area] - design.offset[area] - at.beta @ design.X[area])
        reach = rows.X[row] - gamma[:, row, None] * design.X[area]
        variance[:, row] = g1 + np.einsum("kp,kpq,kq->k", reach, at.cov_beta, reach)
    return mean, variance, gamma
