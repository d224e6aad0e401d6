"""The result of an empirical-Bayes analysis of compound sampling: numbers and labels, complete when built."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.design.compound import CompoundDesign
from hierlmm.design.types import Fingerprint
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.likelihood.compound.conjugate import Posterior
from hierlmm.likelihood.compound.maximum import DispersionEstimate
from hierlmm.likelihood.compound.unitlaw import UnitPosterior
from hierlmm.spec.compound import CompoundSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from hierlmm.frequentist.compound.replicates import PriorReplicates

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

IntervalKind = Literal["corrected", "conditional", "morris", "laird_louis", "carlin_gelfand"]
LEVEL = 0.95


class CompoundOutcome(Enum):
    """How the fit ended; the value is the sentence the reader sees."""

    INTERIOR = "The variance of the prior is estimated inside its range."
    AT_ZERO = (
        "The units differ by no more than sampling makes them: the variance of the prior is estimated as exactly zero."
    )
    BY_ADJUSTMENT = (
        "The variance of the prior is positive by the adjustment of the method alone: the likelihood itself is highest "
        "at zero."
    )
    NOT_CONVERGED = "The search for the prior did not converge: do not use these estimates."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CompoundFit:
    """Empirical Bayes: the prior of the units' parameters estimated from all units, and each unit's posterior under it.

    M units in the order of `design.units`, m of them in the fit (`design.sampled`); (M,) arrays are in that order.

    design       what was fitted; `spec` and `fingerprint` are the design's
    method       how the prior was estimated: see `compound.fitting`
    outcome      how the fit ended; certificate the evidence (counts by "ml"), area the area-level fit (normal sampling
                 by its estimators), each None for the other methods
    beta         (p,) coefficients of the prior mean, on the scale of θ, log θ or logit θ
    dispersion   φ of the prior: A for the normal, 1/shape for the gamma, 1/(α + β) for the beta; exactly 0.0 AT_ZERO
    covariance   (p + 1, p + 1) asymptotic covariance matrix of (beta, dispersion), nan where the method has none
    prior_mean   (M,) μ_i; gamma (M,) weight of the estimate on the direct one, 1 less the shrinkage
    estimate     (M,) estimates of θ_i
    conditional_variance  (M,) posterior variance of θ_i at the estimated prior: what naive intervals are made of
    variance     (M,) the same with the error of the estimated prior, positive: see `compound.errors`
    variance_valid  whether `variance` holds; False where too few units say anything of the prior's variance
    risk         Stein's unbiased estimate of Σ E(θ̂_i − θ_i)² for the rules of Stein, nan for the others
    bound        how far limited translation may move a mean, in √B̂ standard deviations; infinite for other methods
    loglik       log marginal likelihood at the estimates, all constants (normal "reml": the restricted one)
    notes        sentences a reader of the results should know, those of the design first
    """

    design: CompoundDesign
    method: str
    outcome: CompoundOutcome
    certificate: DispersionEstimate | None
    area: AreaFit | None
    beta: Vector
    dispersion: float
    covariance: Matrix
    prior_mean: Vector
    gamma: Vector
    estimate: Vector
    conditional_variance: Vector
    variance: Vector
    variance_valid: bool
    risk: float
    bound: float
    loglik: float
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                copy = value.copy()
                copy.setflags(write=False)
                object.__setattr__(self, each.name, copy)

    @property
    def spec(self) -> CompoundSpec:
        """The model that was fitted."""
        return self.design.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What the fit was computed from, as hashes."""
        return self.design.fingerprint

    @property
    def n_parameters(self) -> int:
        """p coefficients and the dispersion."""
        return self.beta.size + 1

    @property
    def aic(self) -> float:
        """−2 loglik + 2 (p + 1): of methods that do not maximise it, a likelihood at their estimates."""
        return -2 * self.loglik + 2 * self.n_parameters

    @property
    def bic(self) -> float:
        """−2 loglik + log(m) (p + 1), m the units in the fit."""
        return -2 * self.loglik + float(np.log(self.design.sampled.sum())) * self.n_parameters

    @property
    def units(self) -> pd.DataFrame:
        """One row a unit, in the order and with the keys of the input; columns as in `unit_frame`, 95 % intervals."""
        return self.unit_table()

    @property
    def hyperparameters(self) -> pd.DataFrame:
        """The prior: part, term, estimate, se, lower, upper, 95 % intervals; see `prior_frame`."""
        return self.hyperparameter_table()

    def unit_table(self, level: float = LEVEL) -> pd.DataFrame:
        """`units` with intervals of another level."""
        from hierlmm.frequentist.compound.tables import unit_frame

        return unit_frame(self, level)

    def hyperparameter_table(self, level: float = LEVEL) -> pd.DataFrame:
        """`hyperparameters` with intervals of another level."""
        from hierlmm.frequentist.compound.tables import prior_frame

        return prior_frame(self, level)

    def laws(self) -> Posterior:
        """Every unit's posterior at the estimated prior, as arrays: gamma, beta or normal."""
        from hierlmm.frequentist.compound.tables import laws

        return laws(self)

    def posterior_of(self, unit: object) -> UnitPosterior:
        """The posterior of one unit at the estimated prior. Raises FitError for a label that is no unit's."""
        from hierlmm.frequentist.compound.tables import posterior_of

        return posterior_of(self, unit)

    def quantile(self, probability: ArrayLike) -> pd.DataFrame:
        """Quantiles of every unit's posterior at the estimated prior: one row a unit, one column a probability."""
        from hierlmm.frequentist.compound.tables import quantile_frame

        return quantile_frame(self, probability)

    def exceedance(self, threshold: float) -> pd.DataFrame:
        """unit and P(θ > threshold | y) at the estimated prior, and with its error."""
        from hierlmm.frequentist.compound.tables import exceedance_frame

        return exceedance_frame(self, threshold)

    def intervals(
        self,
        kind: IntervalKind = "corrected",
        level: float = LEVEL,
        *,
        replicates: int = 1000,
        resample: Literal["prior", "units"] = "prior",
        seed: int | None = None,
        progress: Literal["none", "bar"] = "none",
    ) -> pd.DataFrame:
        """unit, estimate, se, lower, upper, kind: empirical-Bayes intervals, naive or corrected; see `intervals`.

        Those of Laird and Louis and of Carlin and Gelfand bootstrap the prior `replicates` times and need a seed.
        """
        from hierlmm.frequentist.compound.intervals import intervals

        return intervals(self, kind, level, replicates=replicates, resample=resample, seed=seed, progress=progress)

    def bootstrap(
        self,
        replicates: int = 1000,
        *,
        seed: int,
        resample: Literal["prior", "units"] = "prior",
        progress: Literal["none", "bar"] = "none",
    ) -> PriorReplicates:
        """The prior estimated anew from drawn data: "prior" draws θ and y from the model, "units" resamples units."""
        from hierlmm.frequentist.compound.replicates import replicates as drawn

        return drawn(self, replicates, seed=seed, resample=resample, progress=progress)

    def limited_translation(self, savings: float | None = None, *, bound: float | None = None) -> CompoundFit:
        """Efron and Morris's compromise: no mean moved by more than `bound` √B̂ standard deviations.

        savings  the share of James and Stein's savings in risk to keep, between 0 and 1; give this or `bound`
        """
        from hierlmm.frequentist.compound.normal import limited

        return limited(self, savings, bound)

    def refit(self, y: ArrayLike) -> CompoundFit:
        """The same method on other observations y (M,), in the order of `design.units`."""
        from hierlmm.frequentist.compound.fitting import refit

        return refit(self, y)

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Estimates of the kinds "fixed", "ran_pars", "ran_vals", "ran_coefs" or "all": see `compound.tidy`."""
        from hierlmm.frequentist.compound.tidy import tidy

        return tidy(self, effects)

    def glance(self) -> pd.DataFrame:
        """The fit in one row, with the columns of every fit."""
        from hierlmm.frequentist.compound.tidy import glance

        return glance(self)

    def plot(self, *, ax: Axes) -> Axes:
        """Draw each unit's direct estimate, its estimate with interval, and the prior mean; returns `ax`."""
        from hierlmm.report.compound import plot_units

        return plot_units(self, ax=ax)

    def summary(self) -> str:
        """The fit in at most 80 columns; one that ended at zero or did not converge says so first."""
        from hierlmm.frequentist.compound.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write the fit to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
