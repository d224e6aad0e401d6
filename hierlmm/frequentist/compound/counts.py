"""Empirical Bayes for counts: negative-binomial and beta-binomial maximum likelihood, and moments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.compound import CompoundDesign
from hierlmm.errors import FitError, SpecError, listed
from hierlmm.frequentist.compound.errors import added, averaged, null_covariance, observed_covariance, sensitivities
from hierlmm.frequentist.compound.results import CompoundFit, CompoundOutcome
from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import Counts, link_of, mean_of
from hierlmm.likelihood.compound.maximum import DispersionEstimate, estimate, informative
from hierlmm.likelihood.compound.moments import estimate_moments, moment_covariance
from hierlmm.likelihood.compound.profile import CountData

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# A prior mean this far below the pooled rate (in e-folds) has run off to zero.
RUN_OFF = 30.0


def family_of(design: CompoundDesign) -> Counts:
    """ "poisson" or "binomial"."""
    return "poisson" if design.spec.family == "poisson" else "binomial"


def count_data(design: CompoundDesign) -> CountData:
    """The units in the fit as arrays."""
    into = design.sampled
    return CountData(family_of(design), design.y[into], design.size[into], design.X[into], design.offset[into])


def fit_ml(design: CompoundDesign) -> CompoundFit:
    """Maximum marginal likelihood of (β, φ) over φ >= 0. Raises FitError where it has no maximum."""
    data = count_data(design)
    check_informative(design, data)
    found = estimate(data)
    _check_run_off(design, found.beta)
    outcome = CompoundOutcome.INTERIOR if found.dispersion > 0 else CompoundOutcome.AT_ZERO
    if not found.converged:
        outcome = CompoundOutcome.NOT_CONVERGED
    if found.dispersion > 0:
        covariance = observed_covariance(found.hessian)
    else:
        covariance = null_covariance(data.family, data.size, data.X, data.X @ found.beta + data.offset)
    notes = tuple(_on_maximum(found))
    return _fitted(design, "ml", outcome, found, found.beta, found.dispersion, covariance, found.loglik, notes)


def fit_moments(design: CompoundDesign) -> CompoundFit:
    """Marshall's global moments (Poisson), Kleinman's with weights n_i (binomial); for a common prior mean."""
    data = count_data(design)
    if design.fixed != ("Intercept",) or design.spec.offset:
        raise SpecError(
            "Moment estimates of the prior of counts are for one common mean; found the predictor "
            f'{design.spec.formula!r}. Use method="ml", or the formula "{design.spec.response} ~ 1".'
        )
    check_informative(design, data)
    found = estimate_moments(data.family, data.y, data.size)
    mean, phi, raw = float(found.mean[0]), float(found.dispersion[0]), float(found.raw[0])
    beta = link_of(data.family, np.array([mean]))
    if phi > 0:
        covariance = moment_covariance(data.family, data.y, data.size, mean, phi)
    else:
        covariance = null_covariance(data.family, data.size, data.X, data.X @ beta)
    loglik = float(data.terms(beta[None], np.array([phi])).value.sum())
    outcome = CompoundOutcome.INTERIOR if phi > 0 else CompoundOutcome.AT_ZERO
    what = "variance of the rates" if data.family == "poisson" else "intraclass correlation"
    notes = (f"The moment estimate of the {what} is {raw:.4g}, cut at 0.",) if raw < 0 else ()
    return _fitted(design, "moments", outcome, None, beta, phi, covariance, loglik, notes)


def check_informative(design: CompoundDesign, data: CountData) -> None:
    """Refuse counts from which no prior can be estimated."""
    y, n = data.y, data.size
    what, unit = design.spec.response, design.spec.unit
    if not y.any():
        raise FitError(
            f"The prior mean is estimated from the counts, and {what} is 0 for all {len(y)} units: its estimate would "
            "be 0, and its variance unknown. Add units, or state priors and use hl.posterior(...)."
        )
    if data.family == "poisson":
        return
    if (y == n).all():
        raise FitError(
            f"The prior mean is estimated from successes and failures, and every trial of all {len(y)} units is a "
            "success: its estimate would be 1. Add units, or use hl.posterior(...)."
        )
    if n.max() <= 1:
        raise FitError(
            f"With one trial a unit the variation between units cannot be told from that within them; no {unit} has "
            "more than one trial. Put the trials of like units together."
        )
    if not informative(data)[0]:
        raise FitError(
            f"Every {unit} has only successes or only failures, so that the likelihood rises without end as the prior "
            "moves to 0 and 1. Check that trials are grouped by unit; with few trials a unit use hl.posterior(...)."
        )


def _check_run_off(design: CompoundDesign, beta: Vector) -> None:
    into = design.sampled
    eta = design.X[into] @ beta
    far = np.abs(eta - np.median(eta)) > RUN_OFF
    if far.any():
        raise FitError(
            f"The prior mean has no estimate for units {listed(design.units[into][far])}: their predictors are shared "
            f"by no unit with another outcome, so that a coefficient of {listed(design.fixed)} runs off without end. "
            "Leave that predictor out, or join its levels."
        )


def _fitted(
    design: CompoundDesign,
    method: str,
    outcome: CompoundOutcome,
    found: DispersionEstimate | None,
    beta: Vector,
    phi: float,
    covariance: Matrix,
    loglik: float,
    notes: tuple[str, ...],
) -> CompoundFit:
    family, there = family_of(design), design.sampled
    eta = design.X @ beta + design.offset
    mu = mean_of(family, eta)
    law = posterior(family, design.y, design.size, mu, phi)
    y, size = np.where(there, design.y, 0.0), np.where(there, design.size, 0.0)
    variance: Vector
    if phi > 0:
        variance = law.variance + added(sensitivities(family, y, size, design.X, eta, phi), covariance)
    else:
        variance = averaged(count_data(design), beta, design.y, design.size, design.X, design.offset)
    return CompoundFit(
        design=design,
        method=method,
        outcome=outcome,
        certificate=found,
        area=None,
        beta=beta,
        dispersion=phi,
        covariance=covariance,
        prior_mean=mu,
        gamma=law.gamma,
        estimate=law.mean,
        conditional_variance=law.variance,
        variance=variance,
        variance_valid=bool(np.isfinite(variance).all()),
        risk=np.nan,
        bound=np.inf,
        loglik=loglik,
        notes=(*design.notes, *notes, *_on_zero(outcome)),
    )


def _on_maximum(found: DispersionEstimate) -> Iterator[str]:
    if len(found.maxima) > 1:
        where = ", ".join(f"{phi:.4g}" for phi in found.maxima)
        yield f"The likelihood has {len(found.maxima)} local maxima in the dispersion: {where}; the best was taken."


def _on_zero(outcome: CompoundOutcome) -> Iterator[str]:
    if outcome is CompoundOutcome.AT_ZERO:
        yield (
            "At a variance of zero the units' posteriors are points at the prior mean. Their standard errors are "
            "averaged over what the data leave open about that variance, in proportion to its likelihood."
        )
