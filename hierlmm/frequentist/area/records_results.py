"""The result of going from survey records to an area-level model: every step, kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.errors import listed
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.spec.model import ModelSpec
from hierlmm.survey.direct_results import DirectEstimates
from hierlmm.survey.smoothing_results import SmoothedVariances
from hierlmm.survey.text import wrapped

RULE = "-" * 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RecordsFit:
    """Direct estimates, smoothed variances, the joined table and the fit.

    direct     the design-based estimates
    smoothing  the variance function, None where variances are as estimated
    data       what was fitted, one row an area: `hl.fit(result.spec, result.data)` is the fit again, and
               `hl.posterior(result.spec, result.data)` its Bayesian twin
    matrices   those that the spec names
    fit        the area-level fit
    """

    direct: DirectEstimates
    smoothing: SmoothedVariances | None
    data: pd.DataFrame
    matrices: Mapping[str, object]
    fit: AreaFit

    @property
    def spec(self) -> ModelSpec:
        """The model that was fitted to `data`."""
        return self.fit.spec

    @property
    def areas(self) -> pd.DataFrame:
        """The areas of the fit, as in `AreaFit.areas`, after n and the direct estimate's own limits.

        area, n, direct_lower, direct_upper, then the columns of the fit.
        """
        frame, own = self.fit.areas, self.data.set_index(self.spec.random[0].group[0])
        beside = own.loc[frame["area"].to_numpy(), ["n", "lower", "upper"]].reset_index(drop=True)
        beside.columns = pd.Index(["n", "direct_lower", "direct_upper"])
        rest = frame.drop(columns="area").reset_index(drop=True)
        joined = pd.concat([frame[["area"]].reset_index(drop=True), beside, rest], axis=1)
        joined.attrs = dict(frame.attrs)
        return joined

    def summary(self) -> str:
        """From survey to model: direct estimates, variances, the join, the fit; at most 80 columns wide."""
        parts = [self.direct.summary()]
        if self.smoothing is not None:
            parts.append(self.smoothing.summary())
        if joined := "\n".join(line for note in self._joined() for line in wrapped(note)):
            parts.append(joined)
        return f"\n{RULE}\n".join([*parts, self.fit.summary()])

    def _joined(self) -> list[str]:
        about = self.data.attrs.get("joined", {})
        said = {
            "without_estimate": "Areas with covariates and no records, predicted from the covariates",
            "dropped_from_direct": "Areas with records and no covariates, left out",
            "dropped_from_covariates": "Areas with covariates and no records, left out",
        }
        notes = [f"{text}: {listed(about[name])}." for name, text in said.items() if about.get(name)]
        if unused := self._unused():
            notes.append(f"Areas with records and no usable variance, predicted from the covariates: {listed(unused)}.")
        return notes

    def _unused(self) -> list[object]:
        """Areas whose direct estimates are not in the fit."""
        own = self.data.set_index(self.spec.random[0].group[0])[self.spec.response]
        predicted = self.fit.areas.loc[lambda frame: frame["role"] == "unsampled", "area"]
        return [area for area in predicted if np.isfinite(own.loc[area])]

    def __repr__(self) -> str:
        return self.summary()
