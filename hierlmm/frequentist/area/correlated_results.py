"""The fit of an area-level model with correlated sampling errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.area.results import LEVEL, AreaFit

if TYPE_CHECKING:
    from hierlmm.frequentist.area.correlated_bootstrap import CorrelatedKind
    from hierlmm.frequentist.area.mse import Information
    from hierlmm.frequentist.area.mse_results import AreaMSE
    from hierlmm.frequentist.bootstrap.progress import Progress
    from hierlmm.frequentist.profile import ProfileCurve
    from hierlmm.likelihood.area.correlated_matrix import RotatedErrors

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CorrelatedAreaFit(AreaFit):
    """Fit of y = offset + Xβ + v + e, v ~ N(0, A I), e ~ N(0, S), S known, with A estimated.

    The fields are those of `AreaFit`, with V = A I + S and c = A V⁻¹ where these differ:

    gamma       (M,) diagonal of c: the weight of an area's own direct estimate; the others of its block count too
    effect      (M,) c (y − synthetic) of the areas in the fit
    g1, g2, g3  (M,) diagonals of c S, of (X − cX)(X'V⁻¹X)⁻¹(X − cX)', and of S V⁻³ S var_A
    """

    def predict(self, new: object = None, *, level: float = LEVEL) -> pd.DataFrame:
        """As `AreaFit.predict`, each area in the fit with its own effect; see `correlated_prediction`."""
        from hierlmm.frequentist.area.correlated_prediction import predict

        return predict(self, new, level)

    def mean_squared_error(
        self,
        kind: CorrelatedKind = "default",  # type: ignore[override]
        *,
        replicates: int | None = None,
        seed: int | np.random.Generator | None = None,
        inner: int = 1,
        information: Information | None = None,
        progress: Progress = "none",
    ) -> AreaMSE:
        """Mean squared errors by another method, each with what it is: see `correlated_bootstrap`.

        kind  "default" (what the fit holds), "second_order"; with `replicates` (1,000) and a `seed`, "bootstrap" and
              "bootstrap_naive"
        """
        from hierlmm.frequentist.area.correlated_bootstrap import mean_squared_error
        from hierlmm.frequentist.area.mse_kinds import on_model_scale

        return on_model_scale(self, mean_squared_error(self, kind, replicates, seed, information, progress))

    def error_covariance(self) -> pd.DataFrame:
        """(M, M) mean squared and cross errors of the area estimates, labelled; the diagonal is `mse`."""
        from hierlmm.frequentist.area.mse_matrix import written_out

        return written_out(self, self.error_matrix())

    def error_matrix(self) -> RotatedErrors:  # type: ignore[override]
        """The same, as a rotation of a matrix in factors, with the methods that the factors have."""
        from hierlmm.frequentist.area.correlated import error_matrix_of

        return error_matrix_of(self)

    def simulate(self, draws: int = 1, *, seed: int | np.random.Generator) -> pd.DataFrame:
        """(M, draws) direct estimates from the fitted model, labelled by area; each column suits `refit`."""
        from hierlmm.frequentist.area.correlated_prediction import simulate
        from hierlmm.frequentist.bootstrap.arguments import generator_of

        return simulate(self, draws, generator_of(seed))

    def profile(self) -> tuple[ProfileCurve, ...]:
        """The criterion along √A, above its minimum: one curve."""
        from hierlmm.frequentist.area.correlated_prediction import profile

        return profile(self)

    def effect_errors(self) -> Vector:
        """(m,) mean squared errors of the effects of the areas in the fit."""
        from hierlmm.frequentist.area.correlated_prediction import effect_errors

        return effect_errors(self)

    def likelihood_interval(self, level: float) -> tuple[float, float]:
        """Interval of A by the likelihood of the method."""
        from hierlmm.frequentist.area.correlated_prediction import likelihood_interval

        return likelihood_interval(self, level)

    def leverage(self) -> Vector:
        """(M,) weight that each estimate gives to its own y, β included; nan outside the fit."""
        from hierlmm.frequentist.area.correlated_prediction import leverage

        return leverage(self)
