"""The posterior of an area-level model with simultaneously autoregressive effects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes import mixture
from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.areascale import Nodes, on_data_scale, scale_of
from hierlmm.bayes.results import TAILS, Estimates
from hierlmm.bayes.tables import area_summary, table
from hierlmm.likelihood.area.spatial import unconnected

Array = NDArray[np.float64]
CONTAINS = {
    "posterior": "area effect given its data and those of its neighbours, coefficients, area variance and rho",
    "neighbours": "area effect given the data of its neighbours alone, coefficients, area variance and rho",
    "synthetic": "a new draw of the area effect, which no direct estimate informs, coefficients and area variance",
    "direct": "nothing: sampling variance 0, the direct estimate stands",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SpatialAreaPosterior(AreaPosterior):
    """Posterior of y = offset + Xβ + v + e, v = ρWv + u, u ~ N(0, A I).

    Fields beside those of `AreaPosterior`, whose A_nodes and weight are those of the pairs (A, ρ):
    rho_nodes  (K,) values of ρ that stand for its posterior with A_nodes
    rho_terms  Estimates (1,) of ρ
    """

    rho_nodes: Array
    rho_terms: Estimates

    @property
    def rho(self) -> pd.DataFrame:
        """The autocorrelation: term, estimate, se, lower, upper, mcse."""
        return pd.DataFrame({"term": ["rho"], **self.rho_terms.columns()})

    def predict(self, new: object) -> pd.DataFrame:
        """Posterior of the area means of new rows: columns as `AreaPosterior.predict`.

        A row of an area of the proximity matrix is that area with these covariates, its effect inferred from its data
        and its neighbours' ("posterior") or from theirs alone ("neighbours"); any other is a new draw without
        neighbours ("synthetic"); one whose sampling variance is 0 keeps its direct estimate ("direct").
        """
        from hierlmm.bayes.spatial_limits import Limits
        from hierlmm.bayes.spatial_posterior import rows_given
        from hierlmm.bayes.spatial_surface import Surface
        from hierlmm.design import encode

        rows, design = encode(self.design, new), self.design
        area = np.asarray(rows.codes[0], dtype=np.intp)
        role = np.where(area >= 0, design.role[area], "outside")
        mean, variance, gamma = rows_given(self, rows.X, rows.offset, area)
        ends = Limits.of(Surface.of(design, self.priors)).of_rows(rows.X, area)
        direct = role == "direct"
        mean[:, direct], variance[:, direct], gamma[:, direct] = design.y[area[direct]], 0.0, 1.0
        apart = unconnected(np.asarray(design.proximity), design.sampled)
        basis = np.where((role == "unsampled") & apart[area], "outside", role)
        return _framed(self, rows.groups[0], rows.index, rows.X, basis, (mean, variance, gamma), ends)

    def summary(self) -> str:
        """Model, priors, β, the area variance, ρ and the first areas, 80 columns wide."""
        text = area_summary(self)
        before, mark, after = text.partition("\n\nAreas\n")
        return f"{before}\n\nAutocorrelation\n{table(self.rho.drop(columns='mcse'))}{mark}{after}"


def _framed(
    posterior: SpatialAreaPosterior,
    labels: pd.Index,
    index: pd.Index,
    X: Array,
    role: NDArray[np.str_],
    given: tuple[Array, Array, Array],
    ends: Array,
) -> pd.DataFrame:
    mean, variance, gamma = given
    design, weight, direct = posterior.design, posterior.weight, role == "direct"
    centre, spread = mixture.moments(weight, mean, variance)
    centre, spread = np.where(direct, mean[0], centre), np.where(direct, 0.0, spread)
    lower, upper = mixture.quantiles(weight, mean, variance, TAILS)
    tail = min(posterior.propriety.sd.values())
    fixed = tail if any(normal is None for normal in posterior.priors.fixed) else math.inf
    limit = np.minimum(np.select([role == "sampled", direct], [fixed, math.inf], tail), ends)
    se = np.where(limit > 2, np.sqrt(spread), np.nan)
    centre = np.where(limit > 1, centre, np.nan)
    scale = scale_of(design)
    exact = mean[-1] if scale is None else scale.back(mean[-1])
    plain = np.where(role == "outside", "unsampled", role)
    if (data := on_data_scale(design, posterior.priors, Nodes(weight, mean, variance, X, plain, exact))) is not None:
        centre, se, lower, upper = data.estimate, data.se, data.lower, data.upper
    kinds = [role == name for name in ("sampled", "unsampled", "direct")]
    frame = pd.DataFrame(
        {
            "area": labels,
            "estimate": centre,
            "se": se,
            "mse": se**2,
            "lower": lower,
            "upper": upper,
            "gamma": weight @ gamma,
            "basis": np.select(kinds, ["posterior", "neighbours", "direct"], "synthetic"),
            "mcse": 0.0,
        }
    ).set_axis(index, axis=0)
    frame.attrs["se_contains"] = {basis: CONTAINS[basis] for basis in frame["basis"].unique()}
    return frame
