"""The frequentist fit of a linear mixed model: a frozen, labelled value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.design import NewLevels
from hierlmm.design.crossproducts import CrossProducts
from hierlmm.design.streamchecks import require_rows
from hierlmm.design.types import Fingerprint, LMMDesign
from hierlmm.frequentist.lmm_inference import LMMInference
from hierlmm.likelihood.blup import Joint
from hierlmm.likelihood.lmm_derivatives import Derivatives, Method
from hierlmm.likelihood.optimum import Certificate
from hierlmm.likelihood.sparse_blup import SparseJoint
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from hierlmm.frequentist.lmm_prediction import Effects, Parameters, Target
    from hierlmm.frequentist.lmm_refits import LMMRefits

Array = NDArray[np.float64]


class LMMOutcome(Enum):
    """How a fit ended; the value is the sentence the reader sees."""

    INTERIOR = "The optimum lies inside the parameter space: every covariance matrix has full rank."
    AT_ZERO = "The criterion is optimal with a variance of exactly zero: its random effects are all zero."
    SINGULAR = (
        "The optimum lies on the boundary: a covariance matrix is singular, so that a correlation is exactly 1 or -1 "
        "or a linear combination of the random effects has no variance."
    )
    RESIDUAL_BOUND = (
        "A parameter of the residual structure lies at the bound of its range, to rounding: the notes say which, and "
        "the estimates are those there."
    )
    BOUND_NOT_CERTIFIED = (
        "NOT CERTIFIED: a parameter of the residual structure runs to the bound of its range (the notes say which), "
        "and the estimates are those where the search stopped. Simplify the structure before reporting them."
    )
    NO_RESIDUAL = (
        "The fixed and random effects reproduce the response exactly: the residual variance is zero, the likelihood "
        "has no upper bound, and the estimates are their limits as the residual variance goes to zero."
    )
    NO_VARIATION = "The fixed effects reproduce the response exactly: every variance is zero."
    NOT_CERTIFIED = (
        "NOT CONVERGED: the point returned is not certified as an optimum. Do not report it; rescale or simplify the "
        "model, and see `certificate`."
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LMMFit(LMMInference):
    """A linear mixed model fitted by ML or REML: n rows, p fixed effects, F grouping factors.

    Tuples over factors follow `design.factors`; G levels and q coefficients differ between factors.

    beta           (p,) fixed effects, order of `design.fixed`; vcov_beta (p, p), sigma² the estimate used
    sigma2         residual variance, units of y squared; at the first occasion or stratum where these differ, of a row
                   of precision weight 1, and 1 where the variances are known
    G              per factor (q, q) covariance matrix of the random effects
    theta          per factor (q, q) lower factor of G / sigma² (lme4's theta, column by column)
    b              per factor (G, q) BLUPs; b_error (G, q, q) Var(b̂ - b) with the uncertainty of beta;
                   b_conditional (G, q, q) Var(b | y, beta); b_beta (G, p, q) Cov(beta, b̂ - b)
    objective      -2 log likelihood (ml) or -2 restricted log likelihood (reml), all constants
    phi            parameters of the residual structure as the optimiser has them; empty for independent residuals
    certificate    why this is the optimum; its tuples follow the elimination order of `equations`
    """

    spec: ModelSpec
    design: LMMDesign
    method: Method
    outcome: LMMOutcome
    certificate: Certificate
    objective: float
    beta: Array
    vcov_beta: Array
    sigma2: float
    G: tuple[Array, ...]
    theta: tuple[Array, ...]
    b: tuple[Array, ...]
    b_error: tuple[Array, ...]
    b_conditional: tuple[Array, ...]
    b_beta: tuple[Array, ...]
    notes: tuple[str, ...]
    equations: CrossProducts
    at: Derivatives | None
    joint: Joint | SparseJoint | None
    phi: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        for value in (self.beta, self.vcov_beta, *self.G, *self.theta, *self.b, *self.b_error, *self.b_conditional):
            value.setflags(write=False)

    @property
    def fingerprint(self) -> Fingerprint:
        """What the fit was computed from."""
        return self.design.fingerprint

    @property
    def loglik(self) -> float:
        """Log of the likelihood that was maximised: restricted under REML."""
        return -0.5 * self.objective

    @property
    def n_parameters(self) -> int:
        """Fixed effects, free elements of the covariance matrices, and the parameters of the residuals."""
        cp = self.equations
        random = sum(
            {"general": len(block) * (len(block) + 1) // 2, "identity": 1, "cs": 2}[structure]
            for blocks, structures in zip(cp.blocks, cp.structures, strict=True)
            for block, structure in zip(blocks, structures, strict=True)
        )
        return cp.p + random + len(self.phi) + (not cp.known_sigma2)

    @property
    def aic(self) -> float:
        """-2 loglik + 2 n_parameters, from the likelihood that was maximised."""
        return self.objective + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """-2 loglik + log(n) n_parameters, lme4's convention; nlme's REML value has log(n - p): see `bic_nlme`."""
        return self.objective + float(np.log(self.equations.n)) * self.n_parameters

    @property
    def bic_nlme(self) -> float:
        """BIC by nlme's convention: log(n - p) under REML, log(n) under ML."""
        n = self.equations.n - (self.equations.p if self.method == "reml" else 0)
        return self.objective + float(np.log(n)) * self.n_parameters

    @property
    def marginal_loglik(self) -> float:
        """Log of the full (ML) likelihood at this theta, beta and sigma² profiled out: lme4's logLik(REML = FALSE)."""
        from hierlmm.frequentist.lmm_frames import marginal_loglik

        return marginal_loglik(self)

    @property
    def marginal_aic(self) -> float:
        """-2 marginal_loglik + 2 n_parameters: comparable between different fixed effects."""
        return -2 * self.marginal_loglik + 2 * self.n_parameters

    @property
    def singular(self) -> bool:
        """Whether a covariance matrix has less than full rank."""
        return self.outcome in (LMMOutcome.AT_ZERO, LMMOutcome.SINGULAR)

    @property
    def fixed(self) -> pd.DataFrame:
        """Fixed effects: term, estimate, se, lower, upper (95 %, normal), t."""
        from hierlmm.frequentist.lmm_frames import fixed_frame

        return fixed_frame(self)

    @property
    def fixed_covariance(self) -> pd.DataFrame:
        """(p, p) covariance matrix of the fixed effects, labelled."""
        return pd.DataFrame(self.vcov_beta, self.design.fixed, self.design.fixed)

    @property
    def fixed_correlation(self) -> pd.DataFrame:
        """(p, p) correlation matrix of the fixed effects, labelled."""
        from hierlmm.frequentist.lmm_frames import correlation

        return pd.DataFrame(correlation(self.vcov_beta), self.design.fixed, self.design.fixed)

    @property
    def variance_components(self) -> pd.DataFrame:
        """Long frame: group, term, term2, quantity (variance, sd, covariance, correlation, share), estimate, se, ..."""
        from hierlmm.frequentist.lmm_variances import variance_frame

        return variance_frame(self)

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlation per grouping factor: its share of the mean marginal variance over the rows."""
        from hierlmm.frequentist.lmm_variances import shares

        return shares(self).drop("Residual")

    @property
    def residual_covariance(self) -> pd.DataFrame:
        """(T, T) covariance of the residuals of a group seen at all occasions, labelled.

        Raises FitError where the residual structure has no occasions or positions.
        """
        from hierlmm.frequentist.lmm_residuals import covariance_over_occasions

        return covariance_over_occasions(self)

    @property
    def residual_correlation(self) -> pd.DataFrame:
        """(T, T) their correlations. Raises FitError as `residual_covariance` does."""
        from hierlmm.frequentist.lmm_residuals import correlations_over_occasions

        return correlations_over_occasions(self)

    @property
    def random_effects(self) -> pd.DataFrame:
        """BLUPs: group, level, term, estimate, se (prediction error), conditional_se, lower, upper."""
        from hierlmm.frequentist.lmm_frames import random_frame

        return random_frame(self)

    @property
    def group_coefficients(self) -> pd.DataFrame:
        """Fixed + random coefficients of each level, with the exact standard error of the sum."""
        from hierlmm.frequentist.lmm_frames import coefficient_frame

        return coefficient_frame(self)

    @property
    def marginal_fitted(self) -> pd.Series:
        """Xβ + offset, labelled by row."""
        require_rows(self.design, "Fitted values and residuals")
        return pd.Series(self.design.X @ self.beta + self.design.offset, self.design.index, name="marginal_fitted")

    @property
    def conditional_fitted(self) -> pd.Series:
        """Xβ + offset + Zb, labelled by row."""
        from hierlmm.frequentist.lmm_predict import conditional_fitted

        return conditional_fitted(self)

    @property
    def marginal_residuals(self) -> pd.Series:
        """y less the marginal fitted values."""
        return pd.Series(self.design.y - self.marginal_fitted.to_numpy(), self.design.index, name="marginal_residual")

    @property
    def conditional_residuals(self) -> pd.Series:
        """y less the conditional fitted values."""
        fitted = self.conditional_fitted.to_numpy()
        return pd.Series(self.design.y - fitted, self.design.index, name="conditional_residual")

    def marginal_covariance(self, level: object, group: str | None = None) -> pd.DataFrame:
        """V_i: marginal covariance of the responses of one level's rows, labelled by row.

        `group` names the grouping factor (default: the first). Raises DesignError for an unknown level or group.
        """
        from hierlmm.frequentist.lmm_predict import marginal_covariance

        return marginal_covariance(self, level, group)

    def predict(
        self,
        new: object = None,
        *,
        target: Target = "mean",
        effects: Effects = "conditional",
        parameters: Parameters = "known",
        new_levels: NewLevels = "error",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Predictions with prediction errors for new rows, or for the rows of the fit.

        Of the groups that the rows name or, with effects="fixed", over all groups; of means or, with
        target="observation", of one more observation; parameters="estimated" puts the estimation of the variance
        parameters into the standard error, those on the boundary held there, as if known. Intervals are normal. A
        level that was not observed is refused and named; with new_levels="population" it is a draw from the
        population: its effect is predicted as zero and its variance is in the standard error, never an observed
        level's effect. See `lmm_prediction.predict`.
        """
        from hierlmm.frequentist.lmm_prediction import predict

        return predict(
            self, new, target=target, effects=effects, parameters=parameters, new_levels=new_levels, level=level
        )

    def simulate(
        self, draws: int = 1, *, seed: int | np.random.Generator, effects: Literal["new", "fitted"] = "new"
    ) -> pd.DataFrame:
        """(n, draws) responses drawn from the fitted model, labelled by row; `effects` "new" draws b too."""
        from hierlmm.frequentist.bootstrap.arguments import generator_of
        from hierlmm.frequentist.lmm_predict import simulate

        return simulate(self, draws, generator_of(seed), effects)

    def refit(self, y: ArrayLike) -> LMMFit:
        """The same model fitted to another response (n,) for the same rows, started at this optimum."""
        from hierlmm.frequentist.lmm import refit

        return refit(self, y)

    def refits(self, Y: object, *, jobs: int = 1) -> LMMRefits:
        """The same model fitted to each column of Y (n, B), an array or data frame with the same rows, all at once.

        `jobs` processes share the work for designs whose responses must be fitted one by one.
        """
        from hierlmm.frequentist.lmm_refitting import refits

        return refits(self, Y, jobs)

    def summary(self) -> str:
        """The fit as text, at most 80 columns wide."""
        from hierlmm.frequentist.lmm_summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the fit to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
