"""`compare`: a fit and a posterior of the same spec and data, reconciled."""

from __future__ import annotations

from dataclasses import fields
from typing import overload

import numpy as np
import pandas as pd

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.compoundresults import CompoundPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.compare.align import aligned
from hierlmm.compare.attribute import STEPS, Attribution, attribute
from hierlmm.compare.boundary import boundary
from hierlmm.compare.compound import CompoundComparison, compare_compound
from hierlmm.compare.decompose import decompose
from hierlmm.compare.exact import ExactPosteriors
from hierlmm.compare.results import Agreement, Comparison
from hierlmm.compare.sensitivity import sensitivity
from hierlmm.errors import ComparisonError, listed
from hierlmm.frequentist.area.results import AreaFit, AreaOutcome
from hierlmm.frequentist.compound.results import CompoundFit
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.spec.model import ModelSpec

# Difference between a posterior mean and an EBLUP, in posterior sds, up to which the two are called close.
CLOSE = 0.1
# Monte Carlo errors by which the bound may be passed: of a difference that near, another seed would say the opposite.
DOUBT = 2.0
# Monte Carlo step, in its standard errors, beyond which the sample contradicts the exact posterior.
CONTRADICTED = 5.0

WHAT = {
    "spec": "the model specification",
    "rows": "the rows used",
    "response": "the values of the response",
    "predictors": "the predictors or groups",
    "variances": "the known sampling variances",
    "matrices": "the matrices beside the table",
}
# Columns that name a predicted mean: the area, or group, level and term.
LABELS = ("area", "group", "level", "term")
STEP_WORDS = {
    "estimator": "the estimator of the variances",
    "averaging": "averaging over the variances instead of plugging one value in",
    "variance_prior": "the prior of the variances",
    "fixed_prior": "the prior of the fixed effects",
    "monte_carlo": "Monte Carlo error",
}


@overload
def compare(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior) -> Comparison: ...
@overload
def compare(fit: CompoundFit, posterior: CompoundPosterior) -> CompoundComparison: ...
def compare(
    fit: LMMFit | AreaFit | CompoundFit, posterior: LMMPosterior | AreaPosterior | CompoundPosterior
) -> Comparison | CompoundComparison:
    """Measure, split and judge every difference between `fit` and `posterior`; see `Comparison`, `CompoundComparison`.

    Both carry what this needs: no data. Raises ComparisonError where their specs or data differ, naming the parts.
    """
    if isinstance(fit, CompoundFit) and isinstance(posterior, CompoundPosterior):
        return compare_compound(fit, posterior)
    if isinstance(fit, CompoundFit) or isinstance(posterior, CompoundPosterior):
        raise ComparisonError(
            "A fit and a posterior must be of one spec; one of these is of a compound model, the other is not. Compute "
            "both from the same spec and data."
        )
    check_same(fit, posterior)
    table = aligned(fit, posterior)
    exactly = ExactPosteriors(posterior)
    steps = attribute(fit, exactly)
    verdicts = boundary(fit, posterior)
    agreement = _agreement(fit, posterior, steps)
    return Comparison(
        fit=fit,
        posterior=posterior,
        table=table,
        attribution=steps.frame,
        mse=decompose(fit, posterior),
        boundary=verdicts,
        sensitivity=sensitivity(fit, exactly),
        agreement=agreement,
        findings=_findings(fit, posterior, table, steps, verdicts),
        merged=steps.merged,
    )


def check_same(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior) -> None:
    """Raise ComparisonError naming every part of the fingerprints that differs."""
    parts = fit.fingerprint.differences(posterior.fingerprint)
    if not parts:
        return
    detail = ""
    if "spec" in parts:
        detail = f" The fit has {_words(fit.spec, posterior.spec)}, the posterior {_words(posterior.spec, fit.spec)}."
    elif "rows" in parts:
        detail = f" The fit used {len(fit.design.y)} rows, the posterior {len(posterior.design.y)}."
    raise ComparisonError(
        f"A fit and a posterior must be of one spec and one table; these differ in {listed(WHAT[p] for p in parts)}."
        f"{detail} Compute both from the same spec and data."
    )


def _words(spec: ModelSpec, other: ModelSpec) -> str:
    """What tells a spec from another one: its formula, and where that is the same the parts that are not."""
    if spec.formula != other.formula:
        return repr(spec.formula)
    parts = [field.name for field in fields(spec) if getattr(spec, field.name) != getattr(other, field.name)]
    return ", ".join(f"{name} {getattr(spec, name)!r}" for name in parts) or repr(spec.formula)


def _agreement(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior, steps: Attribution) -> Agreement:
    if fit.outcome in (LMMOutcome.NOT_CERTIFIED, AreaOutcome.NOT_CONVERGED):
        return Agreement.NOT_CONVERGED
    if posterior.diagnostics.get("failures") or _contradicted(steps):
        return Agreement.SAMPLER
    frame = steps.frame
    if not np.isfinite(frame["end"]).all():
        return Agreement.UNDEFINED
    # judged without the error of the draws where that is known: another seed must not change the verdict
    distance = np.abs(_in_sd(posterior, frame if steps.exact is None else frame.assign(end=steps.exact)))
    # where a difference has no sd to be measured in, nothing says that it is small
    error = frame["mcse"].to_numpy() if steps.exact is None else steps.exact_mcse
    close = (distance <= CLOSE + DOUBT * error / _sds(posterior)) | (frame["end"] == frame["start"]).to_numpy()
    return Agreement.CLOSE if close.all() else Agreement.EXPLAINED


def _contradicted(steps: Attribution) -> bool:
    """Whether the draws are further from the exact means than the errors of both allow; no where none are known."""
    if steps.exact is None:
        return False
    error = np.hypot(steps.frame["mcse"], steps.exact_mcse)
    return bool(((error > 0) & (np.abs(steps.frame["monte_carlo"]) > CONTRADICTED * error)).any())


def _in_sd(posterior: LMMPosterior | AreaPosterior, frame: pd.DataFrame) -> np.ndarray:
    """Differences of the predicted means in posterior sds; nan where the sd is zero or missing."""
    return np.asarray((frame["end"] - frame["start"]).to_numpy() / _sds(posterior))


def _sds(posterior: LMMPosterior | AreaPosterior) -> np.ndarray:
    """Posterior sds of the predicted means; nan where zero or missing."""
    theirs = posterior.model_scale if isinstance(posterior, AreaPosterior) else posterior.random_effects
    return np.asarray(theirs["se"].where(theirs["se"] > 0).to_numpy())


def _findings(
    fit: LMMFit | AreaFit,
    posterior: LMMPosterior | AreaPosterior,
    table: pd.DataFrame,
    steps: Attribution,
    verdicts: pd.DataFrame,
) -> tuple[str, ...]:
    """Sentences in order of importance: how the fit ended, the largest difference and its main cause, the boundary."""
    out = []
    if fit.outcome not in (LMMOutcome.INTERIOR, AreaOutcome.INTERIOR):
        out.append(fit.outcome.value)
    if posterior.diagnostics.get("failures"):
        out.append(str(posterior.diagnostics["failures"]))
    out.append(_largest(posterior, steps))
    out.append(_width(table))
    for row in verdicts.itertuples(index=False):
        if row.verdict != "interior":
            out.append(f"Variance of {row.term} by {row.group}: {row.verdict}. {row.advice}")
    if steps.merged:
        out.append(steps.merged)
    if fit.spec.transformation is not None:
        out.append(
            f"Areas are compared on the scale of the model, {type(fit.spec.transformation).__name__}, where the steps "
            "add up; `areas` of the fit and of the posterior have them on the scale of the data."
        )
    return tuple(sentence for sentence in out if sentence)


def _named(step: str, absent: tuple[str, ...]) -> str:
    """The step in words, with the steps before it that it contains."""
    place = STEPS.index(step)
    first = place
    while first and STEPS[first - 1] in absent:
        first -= 1
    words = " and ".join(STEP_WORDS[name] for name in STEPS[first : place + 1])
    return f"{words}, which cannot be told apart here" if first < place else words


def _largest(posterior: LMMPosterior | AreaPosterior, steps: Attribution) -> str:
    """Where posterior mean and EBLUP differ most, in posterior sds, and which step makes most of it."""
    frame = steps.frame
    distance = np.abs(_in_sd(posterior, frame))
    if not np.isfinite(distance).any():
        return ""
    at = int(np.nanargmax(distance))
    row = frame.drop(columns=[c for c in LABELS if c in frame]).iloc[at]
    names = [str(frame[c].iloc[at]) for c in LABELS if c in frame]
    what = f"{posterior.spec.random[0].factor} {names[0]}" if len(names) == 1 else f"{names[0]} {names[1]}, {names[2]}"
    cause = max(STEPS, key=lambda step: abs(row[step]))
    total = row["end"] - row["start"]
    return (
        f"The largest difference is at {what}: posterior mean {row['end']:.4g} against {row['start']:.4g}, "
        f"{total:+.3g} or {np.nanmax(distance):.2f} posterior sds; its largest step, {row[cause]:+.3g}, is "
        f"{_named(cause, steps.absent)}."
    )


def _width(table: pd.DataFrame) -> str:
    """How the standard errors of the predicted means compare."""
    part = table[table["part"].isin(["area", "random effect"]) & (table["se"] > 0) & (table["sd"] > 0)]
    if part.empty:
        return ""
    ratio = part["sd"] / part["se"]
    return (
        f"Posterior sds of the predicted means are {ratio.median():.3g} times the standard errors of the fit in the "
        f"median (from {ratio.min():.3g} to {ratio.max():.3g})."
    )
