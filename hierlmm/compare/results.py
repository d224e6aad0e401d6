"""The result of a comparison: every difference, its causes, and the verdicts at the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import pandas as pd

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.design.types import Fingerprint
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.spec.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure


class Agreement(Enum):
    """What the comparison as a whole may be called; the value is the sentence the reader sees."""

    CLOSE = "The two analyses agree: no predicted mean differs by more than a tenth of its posterior sd."
    EXPLAINED = "The two analyses differ, and every step of the difference is computed and named below."
    SAMPLER = (
        "NO CONCLUSION: the Monte Carlo sample failed its checks or contradicts the exact posterior. The difference "
        "is a failure of the sampler, not of a method; draw again before comparing."
    )
    UNDEFINED = (
        "NO CONCLUSION: under these priors the posterior has no mean for some of the predicted values, so that there "
        "is no difference to judge; use priors that keep the standard deviations from running off."
    )
    NOT_CONVERGED = "NO CONCLUSION: the frequentist fit did not converge, so there is nothing to compare with."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """A fit and a posterior of the same spec and data, reconciled.

    table        one row a quantity: part ("fixed", "variance", "random effect", "group coefficient", "area"), group,
                 level, term, quantity, estimate, se, posterior, sd, lower, upper, mcse, difference (posterior less
                 estimate), in_sd (over the posterior sd), in_mcse (over the MCSE; missing where that is 0), and for
                 areas gamma and posterior_gamma
    attribution  one row a predicted mean: labels, start (the fit's value), estimator, averaging, variance_prior,
                 fixed_prior, monte_carlo, end (the posterior's); the steps add up to end - start exactly
    mse          one row a predicted mean: labels, g1, g2, g3, mse against posterior_g1 (E[g1|y]), posterior_g2
                 (E[g2|y]), posterior_g3 (Var of the BLUP over the posterior), posterior_variance
    boundary     one row a variance component: group, term, verdict, estimate, multiplier (derivative of the criterion
                 in the variance where it is held at 0), statistic, df, p, posterior_near_zero, direction, advice
    sensitivity  long: prior, part, label, estimate, se; REML first; priors whose posterior is improper have a reason
    agreement    what the whole may be called; findings: sentences in order of importance
    merged       which steps of the attribution could not be told apart, as a sentence, or ""
    """

    fit: LMMFit | AreaFit
    posterior: LMMPosterior | AreaPosterior
    table: pd.DataFrame
    attribution: pd.DataFrame
    mse: pd.DataFrame
    boundary: pd.DataFrame
    sensitivity: pd.DataFrame
    agreement: Agreement
    findings: tuple[str, ...]
    merged: str

    @property
    def spec(self) -> ModelSpec:
        """The model that both describe."""
        return self.fit.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What both were computed from."""
        return self.fit.fingerprint

    def summary(self) -> str:
        """The comparison as text, at most 80 columns wide."""
        from hierlmm.compare.summary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def plot(self) -> Figure:
        """The plots of the report on one figure."""
        from hierlmm.report.overview import overview

        return overview(self)

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML report; returns the path written."""
        from hierlmm.report.html import write

        return write(self, path)

    def save(self, path: str | Path) -> None:
        """Write fit, posterior and comparison to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)
