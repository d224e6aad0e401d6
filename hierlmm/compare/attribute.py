"""Why a posterior mean differs from an EBLUP: an exact telescoping sum, each step a computed number.

1. estimator       EBLUP at the estimate used -> EBLUP at the REML estimate
2. averaging       EBLUP at REML -> mean over the posterior of the variances under flat priors on them and on beta
3. variance prior  flat -> the user's prior of the variance parameters
4. fixed prior     flat -> the user's prior of the fixed effects
5. Monte Carlo     exact mean -> mean of the draws, to be judged against its standard error

REML is the mode of the posterior of step 2 (Harville 1974, Biometrika 61:383-385), so that step is what plugging in
one value of the variances leaves out. "Flat" is flat on the elements of the covariance matrices and on sigma²; the
split between steps 2 and 3 depends on that choice of scale, their sum does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.priors import Priors, ResolvedPriors
from hierlmm.compare.exact import ExactPosteriors
from hierlmm.errors import FitError, PriorError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.frequentist.methods import fit_design

Array = NDArray[np.float64]
STEPS = ("estimator", "averaging", "variance_prior", "fixed_prior", "monte_carlo")


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """An attribution and what to judge its last step by.

    frame   labels, start, the five steps, end, mcse; merged: a sentence where two steps could not be told apart
    absent  names of the steps that are contained in the next one
    exact   posterior means without the error of the draws; None where they could not be computed, so that the Monte
            Carlo step contains the steps merged with it; exact_mcse their own Monte Carlo errors
    """

    frame: pd.DataFrame
    merged: str
    absent: tuple[str, ...]
    exact: Array | None
    exact_mcse: Array


def attribute(fit: LMMFit | AreaFit, exactly: ExactPosteriors) -> Attribution:
    """Split posterior mean - EBLUP for every area, or every random effect, of the design.

    Each intermediate posterior is integrated exactly. Where one is improper, its step is merged with the next and
    the merger is said.
    """
    posterior = exactly.posterior
    labels, start = fit_means(fit)
    restricted = fit if fit.method == "reml" else fit_design(fit.design, "reml")
    values: list[Array | None] = [start, fit_means(restricted)[1]]
    reasons: list[str] = []
    user = posterior.priors
    flat = Priors(preset="flat_variance").resolve(posterior.design)
    flat_fixed = replace(user, fixed=tuple(None for _ in user.fixed))
    end, mcse = posterior_means(posterior), posterior_mcse(posterior)
    known: dict[ResolvedPriors, tuple[Array, Array] | None] = {}
    if posterior.engine == "integrate":
        known[user] = (end, mcse)
    for priors, name in ((flat, "averaging"), (flat_fixed, "variance_prior"), (user, "fixed_prior")):
        if priors not in known:
            known[priors] = _exact_means(exactly, priors, name, reasons)
        elif known[priors] is None:
            reasons.append(f"So is the step {name!r}.")
        found = known[priors]
        values.append(None if found is None else found[0])
    exact = known[user]
    frame = labels.assign(start=start, **_steps([*values, end]), end=end, mcse=mcse)
    absent = tuple(name for name, value in zip(STEPS, values[1:], strict=False) if value is None)
    error = np.zeros_like(mcse) if exact is None else exact[1]
    return Attribution(frame, " ".join(reasons), absent, values[-1], error)


def _exact_means(
    exactly: ExactPosteriors, priors: ResolvedPriors, step: str, reasons: list[str]
) -> tuple[Array, Array] | None:
    """Posterior means under other priors and their Monte Carlo errors, or None with the reason where none exist."""
    try:
        other = exactly.under(priors)
    except (PriorError, FitError) as error:
        reasons.append(f"The step {step!r} is merged with the next: {error}")
        return None
    means = posterior_means(other)
    if not np.isfinite(means).all():
        reasons.append(f"The step {step!r} is merged with the next: under its priors the posterior means do not exist.")
        return None
    return means, posterior_mcse(other)


def _steps(values: list[Array | None]) -> dict[str, Array]:
    """Differences between consecutive values; a missing value makes its step zero and leaves all to the next."""
    out, last = {}, values[0]
    for name, value in zip(STEPS, values[1:], strict=True):
        if value is None or last is None:
            out[name] = np.zeros_like(values[0])
            continue
        out[name] = value - last
        last = value
    return out


def fit_means(fit: LMMFit | AreaFit) -> tuple[pd.DataFrame, Array]:
    """Labels and predicted values: area means of an area-level model, random effects of a mixed model."""
    if isinstance(fit, AreaFit):
        frame = fit.model_scale
        return frame[["area"]].copy(), frame["estimate"].to_numpy()
    frame = fit.random_effects
    return frame[["group", "level", "term"]].copy(), frame["estimate"].to_numpy()


def posterior_means(posterior: LMMPosterior | AreaPosterior) -> Array:
    """Posterior means in the order of `fit_means`."""
    return _frame(posterior)["estimate"].to_numpy()


def posterior_mcse(posterior: LMMPosterior | AreaPosterior) -> Array:
    """Monte Carlo standard errors of `posterior_means`."""
    return _frame(posterior)["mcse"].to_numpy()


def _frame(posterior: LMMPosterior | AreaPosterior) -> pd.DataFrame:
    return posterior.model_scale if isinstance(posterior, AreaPosterior) else posterior.random_effects
