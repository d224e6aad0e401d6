"""The result of fitting an area-level model: numbers and labels, complete when built."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.design.types import AreaDesign, Fingerprint
from hierlmm.frequentist.area.asked import AreaQuestions
from hierlmm.frequentist.area.mse import Information
from hierlmm.likelihood.area.variance import VarianceEstimate
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from hierlmm.frequentist.area.eb_intervals import Kind as EBIntervalKind
    from hierlmm.frequentist.area.mse_kinds import Kind as MSEKind
    from hierlmm.frequentist.area.mse_results import AreaMSE
    from hierlmm.frequentist.area.transformed_results import BackTransformed
    from hierlmm.frequentist.bootstrap.progress import Progress
    from hierlmm.frequentist.profile import ProfileCurve
    from hierlmm.likelihood.area.errors_matrix import ErrorMatrix

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

IntervalKind = Literal["profile", "wald"]

# Coverage of the intervals in the frames; every frame has a function beside it that takes another.
LEVEL = 0.95


class AreaOutcome(Enum):
    """How the fit ended; the value is the sentence the reader sees."""

    INTERIOR = "The area variance estimate lies inside its range."
    AT_ZERO = (
        "The estimate of the area variance is exactly zero: every estimate is synthetic, and its mean squared error is "
        "averaged over what the data leave open about that variance."
    )
    BY_ADJUSTMENT = (
        "The area variance estimate is positive by the adjustment of the method alone: the likelihood itself is "
        "highest at zero. Mean squared errors are averaged over what the data leave open about that variance."
    )
    RHO_AT_END = (
        "The likelihood of the spatial autocorrelation rho rises to an end of its interval: mean squared errors are "
        "averaged over what the data leave open about rho and the area variance."
    )
    NOT_CONVERGED = (
        "The search for the area variance did not converge: do not use these estimates. Check the sampling "
        "variances for values many orders of magnitude apart."
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AreaFit(AreaQuestions):
    """Fay-Herriot fit y_i = offset_i + x_i'β + v_i + e_i, v_i ~ N(0, A), e_i ~ N(0, D_i), with A estimated.

    M areas in the order of `design.areas`, m of them in the fit (`design.sampled`); (M,) arrays are in that order.

    design        what was fitted; `spec` and `fingerprint` are the design's
    method        how A was estimated: see `likelihood.area.estimators`
    outcome       how the fit ended, certificate the evidence for it
    information   which information var_A (and so g3) is the inverse of: "sum" for 2/Σ V⁻², "trace" for 2/tr P²; moment
                  estimators have a variance of their own
    beta          (p,) generalised least-squares coefficients at Â; vcov_beta (p, p) = (X'V⁻¹X)⁻¹
    A_hat         estimate of A, units of y squared; exactly 0.0 when `outcome` is AT_ZERO
    var_A         its asymptotic variance; bias_A its first-order bias (0 for REML, pr and amrl_yl)
    gamma         (M,) weight on the direct estimate: in [0, 1) for areas in the fit, 0 unsampled, 1 where D = 0
    synthetic     (M,) offset + x'β
    effect        (M,) predicted area effect, γ_i (y_i − synthetic_i) for areas in the fit, 0 unsampled
    eblup         (M,) the estimate: synthetic + effect, the direct estimate where D = 0
    g1, g2, g3    (M,) terms of the mean squared error, units of y squared
    mse           (M,) mean squared error to report, positive: what it is and why is said in `mse_kind`; see `area.mse`
    mse_unbiased  (M,) the second-order formula g1 + g2 + 2 g3 − bias_A (1 − γ)², which can be negative and says nothing
                  at Â = 0
    mse_valid     (M,) False where `mse` has no ground to stand on: the search failed, or at Â = 0 the areas are too few
    residual      (M,) y − synthetic, nan where there is no direct estimate
    residual_variance  (M,) variance of that residual, V_i − x_i'(X'V⁻¹X)⁻¹x_i, nan outside the fit
    loglik        the log-likelihood of the method at Â, all constants, without what adjusts it: the full one of ml,
                  ampl_ll and ampl_yl, the restricted one of all others; marginal_loglik the full one
    notes         sentences a reader of the results should know, those of the design first
    """

    design: AreaDesign
    method: str
    outcome: AreaOutcome
    certificate: VarianceEstimate
    information: Information
    beta: Vector
    vcov_beta: Matrix
    A_hat: float
    var_A: float
    bias_A: float
    gamma: Vector
    synthetic: Vector
    effect: Vector
    eblup: Vector
    g1: Vector
    g2: Vector
    g3: Vector
    mse: Vector
    mse_kind: str = "second order: g1 + g2 + 2 g3, less the bias term of ML, by an earlier version"
    mse_unbiased: Vector = field(default_factory=lambda: np.zeros(0))
    mse_valid: NDArray[np.bool_]
    residual: Vector
    residual_variance: Vector
    loglik: float
    marginal_loglik: float
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.mse_unbiased) != len(self.mse):
            object.__setattr__(self, "mse_unbiased", self.mse)
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                copy = value.copy()
                copy.setflags(write=False)
                object.__setattr__(self, each.name, copy)

    @property
    def spec(self) -> ModelSpec:
        """The model that was fitted."""
        return self.design.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What the fit was computed from, as hashes."""
        return self.design.fingerprint

    @property
    def variance_formula(self) -> str:
        """The variance of Â behind g3 in symbols."""
        from hierlmm.frequentist.area.mse import printed

        return printed(self.method, self.information)

    @property
    def n_parameters(self) -> int:
        """p coefficients and A."""
        return self.beta.size + 1

    @property
    def aic(self) -> float:
        """−2 loglik + 2 (p + 1), with the criterion that was fitted."""
        return -2 * self.loglik + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """−2 loglik + log(m) (p + 1), with the criterion that was fitted and m the areas in the fit."""
        return -2 * self.loglik + float(np.log(self.design.sampled.sum())) * self.n_parameters

    @property
    def marginal_aic(self) -> float:
        """−2 marginal_loglik + 2 (p + 1): from the ML likelihood at Â, whichever criterion was fitted."""
        return -2 * self.marginal_loglik + 2 * self.n_parameters

    @property
    def marginal_bic(self) -> float:
        """−2 marginal_loglik + log(m) (p + 1): what other small-area programs print as BIC."""
        return -2 * self.marginal_loglik + float(np.log(self.design.sampled.sum())) * self.n_parameters

    @property
    def areas(self) -> pd.DataFrame:
        """One row an area, in the order and with the keys of the input; columns as in `area_frame`, 95 % intervals.

        On a transformed scale these are estimates, errors and intervals on the scale of the data, taken back as
        `back_transformed()` does, with its columns; `model_scale` has those of the model.
        """
        return self.area_table()

    @property
    def model_scale(self) -> pd.DataFrame:
        """`areas` on the scale of the model: the same frame where there is no transformation."""
        from hierlmm.frequentist.area.tables import area_frame

        return area_frame(self, LEVEL)

    @property
    def fixed(self) -> pd.DataFrame:
        """Fixed effects: term, estimate, se, lower, upper, 95 % normal intervals."""
        return self.fixed_table()

    @property
    def fixed_covariance(self) -> pd.DataFrame:
        """(p, p) covariance matrix of the fixed effects, labelled."""
        return pd.DataFrame(self.vcov_beta, self.design.fixed, self.design.fixed)

    @property
    def fixed_correlation(self) -> pd.DataFrame:
        """(p, p) correlation matrix of the fixed effects, labelled."""
        se = np.sqrt(np.diagonal(self.vcov_beta))
        return pd.DataFrame(self.vcov_beta / np.outer(se, se), self.design.fixed, self.design.fixed)

    @property
    def A(self) -> pd.DataFrame:
        """The area variance: term, estimate, se, lower, upper; the 95 % interval is profile likelihood's."""
        return self.A_table()

    @property
    def residuals(self) -> pd.DataFrame:
        """Areas in the fit: area, marginal (y − synthetic), standardised (by its exact variance), effect."""
        from hierlmm.frequentist.area.tables import residual_frame

        return residual_frame(self)

    def area_table(self, level: float = LEVEL) -> pd.DataFrame:
        """`areas` with intervals of another level."""
        from hierlmm.frequentist.area.tables import area_frame

        return area_frame(self, level) if self.spec.transformation is None else self.back_transformed(level=level).areas

    def back_transformed(
        self,
        kind: str | None = None,
        *,
        replicates: int | None = None,
        seed: int | np.random.Generator | None = None,
        level: float = LEVEL,
        progress: Literal["none", "bar"] = "none",
    ) -> BackTransformed:
        """The areas of a fit on a transformed scale, on the scale of the data: see `area.transformed`.

        kind        "bias_corrected" (for a logarithm also called "slud_maiti"), "naive", and for a logarithm "crude"
        replicates  of a parametric bootstrap for errors and intervals, which needs a seed; None: formulas

        Raises FitError for a fit without a transformation, and for kinds, replicates and seeds that are none.
        """
        from hierlmm.frequentist.area.transformed import back_transformed, check_unseeded

        if replicates is None:
            check_unseeded(seed)
            return back_transformed(self, kind, level)
        from hierlmm.frequentist.area.transformed_bootstrap import bootstrapped

        return bootstrapped(self, kind, replicates, seed, level, progress)

    def fixed_table(self, level: float = LEVEL) -> pd.DataFrame:
        """`fixed` with intervals of another level."""
        from hierlmm.frequentist.area.tables import fixed_frame

        return fixed_frame(self, level)

    def A_table(self, level: float = LEVEL, interval: IntervalKind = "profile") -> pd.DataFrame:
        """`A` with an interval of another level or kind: "profile", or "wald" (normal, cut at 0)."""
        from hierlmm.frequentist.area.tables import variance_frame

        return variance_frame(self, level, interval)

    def predict(self, new: object = None, *, level: float = LEVEL) -> pd.DataFrame:
        """Area means for the rows of a table, or of the fit: EBLUP for areas in the fit, synthetic for others.

        See `prediction.predict_rows` for the columns, and what a standard error contains.
        """
        from hierlmm.frequentist.area.prediction import predict

        return predict(self, new, level)

    def mean_squared_error(
        self,
        kind: MSEKind = "default",
        *,
        replicates: int | None = None,
        seed: int | np.random.Generator | None = None,
        inner: int = 1,
        information: Information | None = None,
        progress: Progress = "none",
    ) -> AreaMSE:
        """Mean squared errors of the estimates by another method, each with what it is: see the modules `area.mse_*`.

        kind         "default" (what the fit holds), "second_order", "area_specific", "area_specific_double",
                     "non_normal", "jackknife"; with `replicates` (1,000) and a `seed`, "bootstrap",
                     "bootstrap_naive", "double_bootstrap" (`inner` replicates within each) and "sumca"
        information  "sum" or "trace" for the closed forms; the fit's own where it is not given
        progress     "bar" shows a bar on standard error
        """
        from hierlmm.frequentist.area.mse_kinds import mean_squared_error

        return mean_squared_error(self, kind, replicates, seed, inner, information, progress)

    def effect_errors(self) -> Vector:
        """(m,) mean squared errors of the effects of the areas in the fit, of the kind of `mse`."""
        from hierlmm.frequentist.area.tidy import effect_errors

        return effect_errors(self)

    def likelihood_interval(self, level: float) -> tuple[float, float]:
        """Interval of A by the likelihood of the method, around its own maximum; 0 may be its lower end."""
        from hierlmm.frequentist.area.tables import profile_interval

        return profile_interval(self, level)

    def leverage(self) -> Vector:
        """(M,) weight that each estimate gives to its own y, β included; nan outside the fit."""
        from hierlmm.frequentist.area.tidy import leverage

        return leverage(self)

    def area_intervals(
        self,
        kind: EBIntervalKind = "normal",
        level: float = LEVEL,
        *,
        replicates: int | None = None,
        seed: int | np.random.Generator | None = None,
        progress: Progress = "none",
    ) -> pd.DataFrame:
        """Intervals of the area means: area, estimate, lower, upper, centre, A; see `area.eb_intervals`.

        kind  "normal" (from the mse), "naive" (γD, too short), "calibrated" (parametric bootstrap, with replicates and
              a seed), "yoshimori_lahiri" (second order in closed form, shorter than the direct interval)
        """
        from hierlmm.frequentist.area.eb_intervals import area_intervals

        return area_intervals(self, kind, level, replicates, seed, progress)

    def error_covariance(self) -> pd.DataFrame:
        """(M, M) mean squared and cross errors of the area estimates, labelled; the diagonal is `mse`."""
        from hierlmm.frequentist.area.mse_matrix import error_covariance

        return error_covariance(self)

    def error_matrix(self) -> ErrorMatrix:
        """The same in factors, for any number of areas: `quadratic`, `times`, `sample`, `dense`."""
        from hierlmm.frequentist.area.mse_matrix import errors_of

        return errors_of(self)

    def simulate(self, draws: int = 1, *, seed: int | np.random.Generator) -> pd.DataFrame:
        """(M, draws) direct estimates from the fitted model, labelled by area; each column suits `refit`.

        On a transformed scale they are on that of the model.
        """
        from hierlmm.frequentist.area.prediction import simulate
        from hierlmm.frequentist.bootstrap.arguments import generator_of

        return simulate(self, draws, generator_of(seed))

    def refit(self, y: ArrayLike) -> AreaFit:
        """The same fit to other direct estimates y (M,), in the order of `design.areas`."""
        from hierlmm.frequentist.area.fitting import refit

        return refit(self, y)

    def profile(self) -> tuple[ProfileCurve, ...]:
        """The criterion along √A, above its minimum: one curve."""
        from hierlmm.frequentist.profile import area_profile

        return area_profile(self)

    def summary(self) -> str:
        """The fit in at most 80 columns; a fit that did not converge or ended at zero says so first."""
        from hierlmm.frequentist.area.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the fit to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
