"""The frames of an empirical-Bayes fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.design import asked
from hierlmm.design.asked import probabilities
from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.compound.prior import prior_rows
from hierlmm.likelihood.compound.conjugate import Posterior, matched, posterior
from hierlmm.likelihood.compound.unitlaw import UnitPosterior

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit

Vector = NDArray[np.float64]

# How the frames call what is known of the sampling.
KNOWN = {"normal": "sampling_variance", "poisson": "exposure", "binomial": "trials"}


def unit_frame(fit: CompoundFit, level: float) -> pd.DataFrame:
    """One row a unit in table order.

    unit, observed (counts), sampling_variance | exposure | trials    as given
    direct               y, or y over exposure or trials
    estimate, se         of θ; se contains the error of the estimated prior
    lower, upper         quantiles of the normal, gamma or beta law with this mean and standard deviation
    conditional_se       the posterior sd at the estimated prior, as if that were known
    gamma, shrinkage     weights of the estimate on the direct one and on the prior mean, adding up to 1
    prior_mean           μ; role: sampled or unsampled
    """
    design = fit.design
    quantile(level)
    law = matched(design.spec.family, fit.estimate, fit.variance)
    lower, upper = law.quantile((1 - level) / 2), law.quantile((1 + level) / 2)
    observed = {} if design.spec.family == "normal" else {"observed": design.y}
    return pd.DataFrame(
        {
            "unit": design.units,
            **observed,
            KNOWN[design.spec.family]: design.size,
            "direct": design.direct,
            "estimate": fit.estimate,
            "se": np.sqrt(fit.variance),
            "lower": lower,
            "upper": upper,
            "conditional_se": np.sqrt(fit.conditional_variance),
            "gamma": fit.gamma,
            "shrinkage": 1 - fit.gamma,
            "prior_mean": fit.prior_mean,
            "role": design.role,
        }
    )


def prior_frame(fit: CompoundFit, level: float) -> pd.DataFrame:
    """The estimated prior: part, term, estimate, se, lower, upper.

    Part "fixed" has the coefficients of the prior mean, on the scale of θ, log θ or logit θ, with normal intervals.
    Part "prior": normal A and tau = √A; gamma shape, rate, mean, variance and tau = 1/√shape; beta precision α + β,
    alpha, beta, mean, variance and tau = 1/√(α + β). Rate, alpha, beta, mean and variance are those of a common prior:
    with predictors each unit has its own. Intervals of dispersions are by the profile likelihood where there is one.
    """
    quantile(level)
    return pd.DataFrame(list(prior_rows(fit, level)), columns=["part", "term", "estimate", "se", "lower", "upper"])


def laws(fit: CompoundFit) -> Posterior:
    """Posteriors of all M units at the estimated prior."""
    design = fit.design
    if design.spec.family == "normal":
        estimate, variance = fit.estimate, fit.conditional_variance
        return Posterior("normal", estimate, variance, estimate, variance, fit.gamma)
    return posterior(design.spec.family, design.y, design.size, fit.prior_mean, fit.dispersion)


def posterior_of(fit: CompoundFit, unit: object) -> UnitPosterior:
    """The posterior of the unit with this label."""
    place = unit_place(fit.design.units, unit)
    return UnitPosterior(unit, np.ones(1), laws(fit).columns(np.array([place])).as_row())


def unit_place(units: pd.Index, unit: object) -> int:
    """Where a unit stands. Raises FitError for a label that no unit has."""
    found = np.flatnonzero(units == unit)
    if found.size != 1:
        raise FitError(f"A unit is named by its label, such as {listed(units[:3])}; found {unit!r}. Use one of these.")
    return int(found[0])


def quantile_frame(fit: CompoundFit, probability: ArrayLike) -> pd.DataFrame:
    """unit, then one column a probability."""
    levels = probabilities(probability)
    law = laws(fit)
    return pd.DataFrame({"unit": fit.design.units, **{f"{p:g}": law.quantile(p) for p in levels}})


def exceedance_frame(fit: CompoundFit, threshold: float) -> pd.DataFrame:
    """unit, conditional (at the estimated prior) and corrected (with its error) probability that θ > threshold."""
    above = asked.threshold(threshold)
    wide = matched(fit.spec.family, fit.estimate, fit.variance)
    return pd.DataFrame(
        {
            "unit": fit.design.units,
            "conditional": 1 - laws(fit).cdf(above),
            "corrected": 1 - wide.cdf(above),
        }
    )
