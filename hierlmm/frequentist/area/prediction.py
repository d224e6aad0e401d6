"""Prediction for rows that may be new, and simulation from an area-level fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import encode
from hierlmm.design.types import NewRows
from hierlmm.frequentist.area.mse import row_errors
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed import predicted
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.likelihood.area.moments import blup

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# What the standard error of each kind of row is made of; shown in `basis` and in the frame's attrs.
CONTAINS = {
    "eblup": "area effect (g1), coefficients (g2) and area variance (2 g3; under ML also its bias)",
    "synthetic": "a new draw of the area effect (A; under ML less its bias) and coefficients; no direct estimate",
    "direct": "nothing: sampling variance 0, the direct estimate stands",
}


def predict_rows(fit: AreaFit, rows: NewRows, level: float) -> pd.DataFrame:
    """Area means θ = offset + x'β + v for k rows: area, estimate, se, mse, lower, upper, gamma, basis.

    A row of an area in the fit is predicted with that area's effect ("eblup"): with covariates x other than the
    area's own x_i, g2 becomes |x − γ_i x_i|² in the metric (X'V⁻¹X)⁻¹. A row of any other area is a new draw from
    the population of areas ("synthetic"), never another area's effect; one whose sampling variance is 0 keeps its
    direct estimate ("direct"). `frame.attrs["se_contains"]` says of each basis what its se covers; the mse is of the
    kind that the fit holds, `AreaFit.mse_kind`. Source: Rao and Molina (2015, sec. 6.2).
    """
    design = fit.design
    area = design.areas.get_indexer(rows.groups[0])
    known = area >= 0
    role = np.where(known, design.role[area], "unsampled")
    sampled, direct = role == "sampled", role == "direct"
    into = design.sampled
    y = design.y[into] - design.offset[into]
    both = np.concatenate([rows.X, design.X[area]])
    at = blup(fit.A_hat, y, design.X[into], design.D[into], both)
    half, own = np.split(at.half, 2)
    gamma = np.where(sampled, fit.gamma[area], 0.0)
    mse = np.where(direct, 0.0, row_errors(fit, rows.X, area, half - gamma[:, None] * own))
    estimate = rows.offset + at.fitted[: len(area)] + np.where(sampled, fit.effect[area], 0.0)
    estimate = np.where(direct, fit.eblup[area], estimate)
    reach = quantile(level) * np.sqrt(mse)
    frame = pd.DataFrame(
        {
            "area": rows.groups[0],
            "estimate": estimate,
            "se": np.sqrt(mse),
            "mse": mse,
            "lower": estimate - reach,
            "upper": estimate + reach,
            "gamma": np.where(direct, 1.0, gamma),
            "basis": np.select([sampled, direct], ["eblup", "direct"], "synthetic"),
        },
    ).set_axis(rows.index, axis=0)
    frame.attrs["se_contains"] = {basis: CONTAINS[basis] for basis in frame["basis"].unique()}
    return frame


def predict(fit: AreaFit, new: object, level: float) -> pd.DataFrame:
    """`predict_rows` for the rows of a table with the columns of the covariates and areas, or for those of the fit.

    On a transformed scale they are taken back to that of the data, as `area.transformed.predicted` does.
    """
    rows = own_rows(fit) if new is None else encode(fit.design, new)
    frame = predict_rows(fit, rows, level)
    return frame if fit.spec.transformation is None else predicted(fit, frame, rows.X, level)


def own_rows(fit: AreaFit) -> NewRows:
    """The M areas of the design as rows to predict for."""
    design = fit.design
    M = len(design.areas)
    return NewRows(
        index=pd.RangeIndex(M),
        X=design.X,
        offset=design.offset,
        Z=(np.ones((M, 1)),),
        codes=(np.arange(M, dtype=np.intp),),
        groups=(design.areas,),
        D=design.D,
    )


def simulate(fit: AreaFit, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    """Direct estimates y* = offset + x'β̂ + v* + e* under the fitted β̂ and Â: (M, draws), nan in unsampled areas.

    Column k depends on `rng` and on k only, not on the number of draws.
    """
    check_count("draws", draws, "draws")
    D = np.where(fit.design.role == "unsampled", np.nan, fit.design.D)
    noise = np.sqrt(fit.A_hat + D) * rng.standard_normal((draws, len(D)))
    return pd.DataFrame((fit.synthetic + noise).T, index=fit.design.areas)
