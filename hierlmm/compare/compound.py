"""A fit and a posterior of a compound model, reconciled: why a posterior mean differs from an empirical-Bayes estimate.

1. estimator       the estimate that was used -> the one at the maximum of the likelihood (REML for normal sampling)
2. averaging       plugging in one prior -> averaging over priors, flat on the coefficients and on A or tau²: the
                   posterior whose mode that maximum is
3. variance prior  flat -> the user's prior of tau
4. fixed prior     flat -> the user's prior of the coefficients
5. Monte Carlo     exact mean -> mean of the draws

The steps add up to the difference exactly. Where the flat priors give no proper posterior, a step is merged with the
next, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.compoundengine import compound_posterior
from hierlmm.bayes.compoundpriors import CompoundPriors, flat_hyperparameters
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.compoundunits import laws
from hierlmm.bayes.priors import Priors
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.compare.attribute import STEPS, _steps
from hierlmm.compare.results import Agreement
from hierlmm.design.types import Fingerprint
from hierlmm.errors import ComparisonError, FitError, PriorError, listed
from hierlmm.frequentist.compound.fitting import DEFAULT, fit_compound
from hierlmm.frequentist.compound.results import CompoundFit, CompoundOutcome
from hierlmm.spec.compound import CompoundSpec

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[np.float64]
AnyPriors = CompoundPriors | ResolvedPriors

# Difference of a posterior mean and an estimate, in posterior sds, up to which the two are called close.
CLOSE = 0.1
# Monte Carlo step, in its standard errors, beyond which the sample contradicts the exact posterior.
CONTRADICTED = 5.0
# Units times values of the hyperparameters that are worked on at once.
SLAB = 2_000_000
WHAT = {
    "spec": "the model specification",
    "rows": "the units",
    "response": "the observations",
    "predictors": "the predictors",
    "variances": "the variances, exposures or trials",
}
STEP_WORDS = {
    "estimator": "the estimator of the prior",
    "averaging": "averaging over the prior instead of plugging one in",
    "variance_prior": "the prior of tau",
    "fixed_prior": "the prior of the coefficients",
    "monte_carlo": "Monte Carlo error",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CompoundComparison:
    """An empirical-Bayes fit and a full-Bayes posterior of the same spec and data.

    table        one row a unit: unit, estimate, se, posterior, sd, difference (posterior less estimate), in_sd
    attribution  one row a unit: unit, start (the fit's estimate), estimator, averaging, variance_prior, fixed_prior,
                 monte_carlo, end (the posterior mean), mcse; the steps add up to end − start exactly
    variance     one row a unit: unit, conditional and added of the fit's variance (at the estimated prior, and for its
                 error) against posterior_conditional (E Var(θ|y, η)) and posterior_added (Var E(θ|y, η))
    agreement    what the whole may be called; findings: sentences in order of importance
    merged       which steps could not be told apart, as a sentence, or ""
    """

    fit: CompoundFit
    posterior: CompoundPosterior
    table: pd.DataFrame
    attribution: pd.DataFrame
    variance: pd.DataFrame
    agreement: Agreement
    findings: tuple[str, ...]
    merged: str

    @property
    def spec(self) -> CompoundSpec:
        """The model that both describe."""
        return self.fit.spec

    @property
    def fingerprint(self) -> Fingerprint:
        """What both were computed from."""
        return self.fit.fingerprint

    def summary(self) -> str:
        """The comparison as text, at most 80 columns wide."""
        from hierlmm.compare.compoundsummary import summary

        return summary(self)

    def __repr__(self) -> str:
        return self.summary()

    def save(self, path: str | Path) -> None:
        """Write fit, posterior and comparison to one file that `hierlmm.read` loads."""
        from hierlmm.saving import save

        save(self, path)


def compare_compound(fit: CompoundFit, posterior: CompoundPosterior) -> CompoundComparison:
    """Measure and split every difference between the two. Raises ComparisonError where their specs or data differ."""
    parts = fit.fingerprint.differences(posterior.fingerprint)
    if parts:
        raise ComparisonError(
            "A fit and a posterior must be of one spec and one table; these differ in "
            f"{listed(WHAT[p] for p in parts)}. Compute both from the same spec and data."
        )
    steps, absent, merged = _attribution(fit, posterior)
    units = posterior.units
    sd = units["se"].where(units["se"] > 0)
    difference = units["estimate"] - fit.estimate
    table = pd.DataFrame(
        {
            "unit": fit.design.units,
            "estimate": fit.estimate,
            "se": np.sqrt(fit.variance),
            "posterior": units["estimate"],
            "sd": units["se"],
            "difference": difference,
            "in_sd": difference / sd,
        }
    )
    agreement = _agreement(fit, posterior, table, steps)
    return CompoundComparison(
        fit=fit,
        posterior=posterior,
        table=table,
        attribution=steps,
        variance=_variance(fit, posterior),
        agreement=agreement,
        findings=tuple(_findings(fit, posterior, table, steps, absent, merged)),
        merged=merged,
    )


def _attribution(fit: CompoundFit, posterior: CompoundPosterior) -> tuple[pd.DataFrame, tuple[str, ...], str]:
    design, user = posterior.design, posterior.priors
    best = DEFAULT[design.spec.family]
    reference = fit if fit.method == best else fit_compound(fit.design, best)
    values: list[Array | None] = [fit.estimate, reference.estimate]
    end, reasons = posterior.theta.estimate, list[str]()
    known: dict[AnyPriors, Array | None] = {user: end} if posterior.engine == "integrate" else {}
    for priors, step in zip(_chain(posterior), STEPS[1:4], strict=True):
        if priors not in known:
            known[priors] = _exact(posterior, priors, step, reasons)
        elif known[priors] is None:
            reasons.append(f"So is the step {step!r}.")
        values.append(known[priors])
    frame = pd.DataFrame(
        {"unit": design.units, "start": fit.estimate, **_steps([*values, end]), "end": end}
    ).assign(mcse=posterior.theta.mcse)
    absent = tuple(step for step, value in zip(STEPS, values[1:], strict=False) if value is None)
    return frame, absent, " ".join(reasons)


def _chain(posterior: CompoundPosterior) -> tuple[AnyPriors, AnyPriors, AnyPriors]:
    """Flat priors, the user's tau with flat coefficients, and the user's priors."""
    user = posterior.priors
    free = tuple(None for _ in user.fixed)
    if isinstance(user, CompoundPriors):
        return flat_hyperparameters(user), replace(user, fixed=free), user
    assert posterior.design.area is not None
    return Priors(preset="flat_variance").resolve(posterior.design.area), replace(user, fixed=free), user


def _exact(posterior: CompoundPosterior, priors: AnyPriors, step: str, reasons: list[str]) -> Array | None:
    """Exact posterior means under other priors, or None with the reason where there are none."""
    try:
        other = compound_posterior(posterior.design, priors, draws=0, seed=posterior.seed)
    except (PriorError, FitError) as error:
        reasons.append(f"The step {step!r} is merged with the next: {error}")
        return None
    if not np.isfinite(other.theta.estimate).all():
        reasons.append(f"The step {step!r} is merged with the next: under its priors posterior means do not exist.")
        return None
    return other.theta.estimate


def _variance(fit: CompoundFit, posterior: CompoundPosterior) -> pd.DataFrame:
    """Both variances in two parts: given the prior, and for not knowing it."""
    M, weight = len(fit.design.units), posterior.weight
    within, between = np.empty(M), np.empty(M)
    each = max(1, SLAB // len(weight))
    for first in range(0, M, each):
        here = np.arange(first, min(first + each, M))
        law = laws(posterior, here)
        with np.errstate(invalid="ignore"):
            mean = weight @ law.mean
            within[here], between[here] = weight @ law.variance, weight @ (law.mean - mean) ** 2
    exists = posterior.finite[:, 1]
    return pd.DataFrame(
        {
            "unit": fit.design.units,
            "conditional": fit.conditional_variance,
            "added": fit.variance - fit.conditional_variance,
            "posterior_conditional": np.where(exists, within, np.nan),
            "posterior_added": np.where(exists, between, np.nan),
        }
    )


def _agreement(
    fit: CompoundFit, posterior: CompoundPosterior, table: pd.DataFrame, steps: pd.DataFrame
) -> Agreement:
    if fit.outcome is CompoundOutcome.NOT_CONVERGED:
        return Agreement.NOT_CONVERGED
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(steps["monte_carlo"]) > CONTRADICTED * steps["mcse"]
    contradicted = posterior.engine == "nuts" and bool((off & (steps["mcse"] > 0)).any())
    if posterior.diagnostics.get("failures") or contradicted:
        return Agreement.SAMPLER
    if not np.isfinite(steps["end"]).all():
        return Agreement.UNDEFINED
    return Agreement.CLOSE if (table["in_sd"].abs() <= CLOSE).all() else Agreement.EXPLAINED


def _findings(
    fit: CompoundFit,
    posterior: CompoundPosterior,
    table: pd.DataFrame,
    steps: pd.DataFrame,
    absent: tuple[str, ...],
    merged: str,
) -> list[str]:
    out = [] if fit.outcome is CompoundOutcome.INTERIOR else [fit.outcome.value]
    if posterior.diagnostics.get("failures"):
        out.append(str(posterior.diagnostics["failures"]))
    distance = table["in_sd"].abs()
    if distance.notna().any():
        at = int(distance.argmax())
        row = steps.iloc[at]
        cause = max(STEPS, key=lambda step: abs(float(row[step])))
        words = STEP_WORDS[cause]
        if STEPS[max(STEPS.index(cause) - 1, 0)] in absent:
            words += ", with the steps before it, which cannot be told apart here"
        out.append(
            f"The largest difference is at {fit.spec.unit} {steps['unit'].iloc[at]}: posterior mean {row['end']:.4g} "
            f"against {row['start']:.4g}, {row['end'] - row['start']:+.3g} or {distance.iloc[at]:.2f} posterior sds; "
            f"its largest step, {row[cause]:+.3g}, is {words}."
        )
    ratio, naive = _ratios(table["sd"], fit.variance), _ratios(table["sd"], fit.conditional_variance)
    if ratio.size:
        text = f"Posterior sds are {np.median(ratio):.3g} times the standard errors of the fit in the median"
        if naive.size:
            text += f", and {np.median(naive):.3g} times its naive ones, which take the estimated prior for the truth"
        out.append(text + ".")
    return [*out, merged] if merged else out


def _ratios(sd: pd.Series, variance: Array) -> Array:
    """sd over the roots of variances, where both are there."""
    own = sd.to_numpy(dtype=np.float64)
    there = np.isfinite(own) & (variance > 0)
    return np.asarray(own[there] / np.sqrt(variance[there]))
