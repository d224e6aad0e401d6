"""The fit of an area-level model with simultaneously autoregressive effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.area.mse import Information
from hierlmm.frequentist.area.results import LEVEL, AreaFit, IntervalKind
from hierlmm.likelihood.area.spatial_search import SpatialEstimate

if TYPE_CHECKING:
    from hierlmm.frequentist.area.mse_results import AreaMSE
    from hierlmm.frequentist.area.spatial_bootstrap import SpatialKind
    from hierlmm.frequentist.area.spatial_tests import SpatialTest
    from hierlmm.frequentist.bootstrap.progress import Progress
    from hierlmm.frequentist.profile import ProfileCurve
    from hierlmm.likelihood.area.correlated_matrix import DenseErrors

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SpatialAreaFit(AreaFit):
    """Fit of y = offset + Xβ + v + e, v = ρWv + u, u ~ N(0, A I), with A and ρ estimated by REML or ML.

    The fields are those of `AreaFit`, where not said otherwise, with V = A Ω + S over the areas in the fit, Ω =
    [(I−ρW)'(I−ρW)]⁻¹ over all M areas, and c = A Ω_·s V⁻¹:

    rho_hat     estimate of ρ; nan at Â = 0, where it is not identified
    vcov_psi    (2, 2) asymptotic covariance of (Â, ρ̂), of the information that `information` names; bias_psi (2,)
                their first-order bias. At the boundary ρ is held and its entries are nan
    gamma       (M,) weight of an area's own direct estimate, diagonal of c; those of its neighbours count too
    effect      (M,) c (y − synthetic): areas without a direct estimate have the effect that their neighbours suggest
    g1, …, g5   (M,) diagonals of the matrices of `likelihood.area.spatial_errors`
    """

    rho_hat: float
    vcov_psi: Matrix
    bias_psi: Vector
    g4: Vector
    g5: Vector

    @property
    def estimate(self) -> SpatialEstimate:
        """The certificate: where the maximum lies, every local one, and the likelihood along ρ."""
        return cast("SpatialEstimate", self.certificate)

    @property
    def n_parameters(self) -> int:
        """p coefficients, A and ρ."""
        return self.beta.size + 2

    @property
    def variance_formula(self) -> str:
        """The variance of (Â, ρ̂) behind g3 in symbols."""
        return f"inverse of ½ tr(F V_k F V_l), F = {'P' if self.information == 'trace' else 'V⁻¹'}"

    @property
    def rho(self) -> pd.DataFrame:
        """ρ: term, estimate, se, lower, upper, interval; the 95 % interval is profile likelihood's."""
        return self.rho_table()

    def rho_table(self, level: float = LEVEL, interval: IntervalKind = "profile") -> pd.DataFrame:
        """`rho` with an interval of another level or kind: "profile", or "wald" (normal, cut at the ends)."""
        from hierlmm.frequentist.area.spatial_prediction import rho_frame

        return rho_frame(self, level, interval)

    def area_table(self, level: float = LEVEL) -> pd.DataFrame:
        """`areas` with intervals of another level; on the scale of the model with g4 and g5."""
        from hierlmm.frequentist.area.spatial_prediction import with_terms

        return with_terms(self, AreaFit.area_table(self, level))

    def predict(self, new: object = None, *, level: float = LEVEL) -> pd.DataFrame:
        """Area means for the rows of a table, or of the fit, each with its area's place among its neighbours.

        See `spatial_prediction.predict` for the kinds of rows, and what a standard error contains.
        """
        from hierlmm.frequentist.area.spatial_prediction import predict

        return predict(self, new, level)

    def mean_squared_error(
        self,
        kind: SpatialKind = "default",  # type: ignore[override]
        *,
        replicates: int | None = None,
        seed: int | np.random.Generator | None = None,
        inner: int = 1,
        information: Information | None = None,
        progress: Progress = "none",
    ) -> AreaMSE:
        """Mean squared errors by another method, each with what it is: see `spatial_bootstrap`.

        kind         "default" (what the fit holds), "second_order", "published" (g1 + g2 + 2 g3 − g4, for ML less the
                     part of g5 by the estimation of β); with `replicates` (1,000) and a `seed`, "bootstrap",
                     "bootstrap_naive", "nonparametric" and "nonparametric_naive"
        information  "sum" or "trace" for the closed forms; the fit's own where it is not given
        """
        from hierlmm.frequentist.area.mse_kinds import on_model_scale
        from hierlmm.frequentist.area.spatial_bootstrap import mean_squared_error

        return on_model_scale(self, mean_squared_error(self, kind, replicates, seed, information, progress))

    def error_covariance(self) -> pd.DataFrame:
        """(M, M) mean squared and cross errors of the area estimates, labelled; the diagonal is `mse`."""
        from hierlmm.frequentist.area.mse_matrix import written_out

        return written_out(self, self.error_matrix())

    def error_matrix(self) -> DenseErrors:  # type: ignore[override]
        """The same as an object with the methods of `ErrorMatrix`."""
        from hierlmm.frequentist.area.spatial_prediction import error_matrix

        return error_matrix(self)

    def effect_errors(self) -> Vector:
        """(m,) mean squared errors of the effects of the areas in the fit, of the kind of `mse`."""
        from hierlmm.frequentist.area.spatial_prediction import effect_errors

        return effect_errors(self)

    def likelihood_interval(self, level: float) -> tuple[float, float]:
        """Profile-likelihood interval of A; 0 may be its lower end."""
        from hierlmm.frequentist.area.spatial_prediction import variance_interval_of

        return variance_interval_of(self, level)

    def leverage(self) -> Vector:
        """(M,) weight that each estimate gives to its own y, β included; nan outside the fit."""
        from hierlmm.frequentist.area.spatial_prediction import leverage

        return leverage(self)

    def simulate(self, draws: int = 1, *, seed: int | np.random.Generator) -> pd.DataFrame:
        """(M, draws) direct estimates from the fitted model, labelled by area; each column suits `refit`."""
        from hierlmm.frequentist.area.spatial_prediction import simulate
        from hierlmm.frequentist.bootstrap.arguments import generator_of

        return simulate(self, draws, generator_of(seed))

    def profile(self) -> tuple[ProfileCurve, ...]:
        """The criterion along ρ above its minimum, A at its best: one curve."""
        from hierlmm.frequentist.area.spatial_prediction import profile

        return profile(self)

    def test(
        self,
        parameter: Literal["rho", "A"],
        *,
        simulations: int = 999,
        seed: int | np.random.Generator | None = None,
    ) -> SpatialTest:
        """Test of ρ = 0 by the likelihood ratio (χ²₁), or of A = 0 by simulation, which needs a seed.

        See `spatial_tests`: at A = 0 ρ has no meaning, so that no mixture of χ² is the law of the ratio.
        """
        from hierlmm.frequentist.area.spatial_tests import test_of

        return test_of(self, parameter, simulations, seed)

    def summary(self) -> str:
        """The fit in at most 80 columns; a fit that did not converge or ended at a boundary says so first."""
        from hierlmm.frequentist.area.spatial_prediction import rho_lines
        from hierlmm.frequentist.area.summary import summary

        return summary(self, rho_lines(self))
