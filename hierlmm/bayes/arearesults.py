"""The posterior of an area-level model, as frames in the vocabulary of the fits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.areascale import scale_of
from hierlmm.bayes.areaterms import AreaTerms
from hierlmm.bayes.results import Estimates, Posterior
from hierlmm.bayes.tables import area_summary
from hierlmm.design.types import AreaDesign

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AreaPosterior(Posterior):
    """Posterior of the area-level model of Fay and Herriot.

    Fields beside those of `Posterior`:
    terms     β and the M areas of the design in table order: means, sds, intervals, E[γ|y] and the three terms
              of the posterior variance
    variance  Estimates (2,) of A (units of y squared) and τ = √A (units of y)
    mean      Estimates (M,) of the area means on the scale of the data; None where the model has that scale
    A_nodes   (K,) values of A that stand for its posterior, weight (K,) their weights summing to one: lattice
              nodes, or draws of equal weight

    Computed: `areas`, `A`, `fixed`, `draws`, `predict`, `summary`.
    """

    design: AreaDesign
    terms: AreaTerms
    variance: Estimates
    A_nodes: Array
    weight: Array
    mean: Estimates | None = None

    @property
    def areas(self) -> pd.DataFrame:
        """One row an area in table order, columns as in the fit's frame, and `mcse`.

        On a transformed scale these are the means, sds and intervals of the areas on the scale of the data, exactly,
        and the columns g1, g2, g3 are left out; `synthetic` is g(E[x'β|y]); `model_scale` has those of the model.
        """
        return self.model_scale if self.mean is None else _on_data_scale(self, self.mean)

    @property
    def model_scale(self) -> pd.DataFrame:
        """`areas` on the scale of the model: the same frame where there is no transformation.

        area, direct, sampling_variance, estimate (posterior mean), se (posterior sd), mse (its square), lower, upper,
        cv, direct_cv (of |estimate|, |direct|), gamma (E[γ|y]), synthetic (E[x'β|y]), g1, g2, g3 (E[g1|y], E[g2|y],
        Var[θ̂(A)|y], adding up to mse), role, above_direct (mse above the sampling variance), mse_valid (the posterior
        variance exists), mcse.
        """
        design, terms = self.design, self.terms
        columns = terms.theta.columns()
        mse = columns["se"] ** 2
        return pd.DataFrame(
            {
                "area": design.areas,
                "direct": design.y,
                "sampling_variance": design.D,
                "estimate": columns["estimate"],
                "se": columns["se"],
                "mse": mse,
                "lower": columns["lower"],
                "upper": columns["upper"],
                "cv": _ratio(columns["se"], columns["estimate"]),
                "direct_cv": _ratio(np.sqrt(design.D), design.y),
                "gamma": terms.gamma,
                "synthetic": terms.synthetic,
                "g1": terms.g1,
                "g2": terms.g2,
                "g3": terms.g3,
                "role": design.role,
                "above_direct": design.sampled & (mse > design.D),
                "mse_valid": np.isfinite(mse),
                "mcse": columns["mcse"],
            }
        )

    @property
    def A(self) -> pd.DataFrame:
        """The area variance and its square root: rows `A` and `tau`, columns term, estimate, se, lower, upper, mcse."""
        return pd.DataFrame({"term": ["A", "tau"], **self.variance.columns()})

    def predict(self, new: object) -> pd.DataFrame:
        """Posterior of the area means of new rows: area, estimate, se, mse, lower, upper, gamma, basis, mcse.

        new    table with the covariates and the area column. A row of an area in the fit (basis "posterior") is that
               area with these covariates, its effect inferred from its data; any other is a new draw from the
               population ("synthetic"); one whose sampling variance is 0 keeps its direct estimate ("direct").
        The sd contains everything: β, A and the area effect. Raises DesignError as `hierlmm.design.encode`.
        """
        from hierlmm.bayes.areaprediction import predict_rows
        from hierlmm.design import encode

        return predict_rows(self, encode(self.design, new))

    def plot(self) -> Figure:
        """The plots of the report on one figure."""
        from hierlmm.report.area_overview import area_overview

        return area_overview(self)

    def report(self, path: str | Path, *, size: pd.Series | None = None) -> Path:
        """Write a self-contained HTML report; returns the path written.

        size  a Series by area, such as effective sample sizes, that the weights are drawn against
        """
        from hierlmm.report.area_page import write_area

        return write_area(self, path, size=size)

    def to_excel(self, path: str | Path) -> Path:
        """Write an .xlsx workbook with the sheets estimates, model, diagnostics and provenance; returns the path."""
        from hierlmm.report.workbook import write_workbook

        return write_workbook(self, path)

    def summary(self) -> str:
        """Model, priors, β, the area variance and the first areas, 80 columns wide."""
        return area_summary(self)


def _on_data_scale(posterior: AreaPosterior, mean: Estimates) -> pd.DataFrame:
    """The frame of the scale of the model with the numbers of the data's; synthetic is g of that of the model."""
    design, frame, columns = posterior.design, posterior.model_scale, mean.columns()
    scale, (direct, D) = scale_of(design), design.as_given
    mse = columns["se"] ** 2
    back = frame.drop(columns=["g1", "g2", "g3"]).assign(
        direct=direct,
        sampling_variance=D,
        mse=mse,
        **columns,
        cv=_ratio(columns["se"], columns["estimate"]),
        direct_cv=_ratio(np.sqrt(D), direct),
        synthetic=None if scale is None else scale.back(posterior.terms.synthetic),
        above_direct=design.sampled & (mse > D),
        mse_valid=np.isfinite(mse),
    )
    back.attrs["scale"] = f"of the data, from {design.spec.transformation}"
    return back


def _ratio(se: Array, estimate: Array) -> Array:
    """se over |estimate|, nan where the estimate is 0 or missing."""
    size = np.abs(estimate)
    return np.asarray(se / np.where(size > 0, size, np.nan), dtype=np.float64)
