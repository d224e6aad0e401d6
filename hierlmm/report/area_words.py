"""What the report of one area-level result says in words: what was found, the model, and how it was computed."""

from __future__ import annotations

import numpy as np

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.frequentist.area.results import AreaFit, AreaOutcome
from hierlmm.report.area_plots import AreaResult, in_fit
from hierlmm.report.numbers import fixed, number
from hierlmm.report.words import METHODS, area_evidence, area_model, posterior_facts_of

# What the terms of a second-order mean squared error are.
TERMS = " g1 is the error were A and the coefficients known; estimating the coefficients adds g2, estimating A g3."


def findings(result: AreaResult) -> list[str]:
    """The sentences at the head of the report: the variance between areas, and where the model gained and did not."""
    row = result.A.iloc[0]
    frame = in_fit(result)
    kind = "posterior mean" if isinstance(result, AreaPosterior) else "estimate"
    scale = "" if result.spec.transformation is None else ", on the scale of the model"
    out = [
        f"Variance between areas beyond the covariates{scale}: {kind} {number(row['estimate'])}, 95 % interval "
        f"{number(row['lower'])} to {number(row['upper'])}."
    ]
    gamma = frame["gamma"]
    out.append(
        f"The weight γ on the direct estimate is {fixed(gamma.median(), 2)} in the median area, from "
        f"{fixed(gamma.min(), 2)} to {fixed(gamma.max(), 2)}."
        if gamma.max() > 0
        else "The weight γ on the direct estimate is zero in every area."
    )
    before, after = (float(100 * frame[name].median()) for name in ("direct_cv", "cv"))
    verb = "falls" if after <= before else "rises"
    out.append(f"The median coefficient of variation {verb} from {number(before, 3)} % to {number(after, 3)} %.")
    worse = int(frame["above_direct"].sum())
    out.append(
        f"In {worse} of {len(frame)} areas the error of the model estimate is above that of the direct one."
        if worse
        else f"The error of the model estimate is below that of the direct one in all {len(frame)} areas in the fit."
    )
    return out


def outcome(result: AreaResult) -> str:
    """How the computation ended, the first sentence of the report."""
    if isinstance(result, AreaFit):
        return result.outcome.value
    failures = result.diagnostics.get("failures")
    return f"The sampler failed: {failures}." if failures else "The posterior was computed and passed its checks."


def failed(result: AreaResult) -> bool:
    """Whether there is nothing to conclude."""
    if isinstance(result, AreaFit):
        return result.outcome is AreaOutcome.NOT_CONVERGED
    return bool(result.diagnostics.get("failures"))


def method(result: AreaResult) -> str:
    """The estimator in full, or that it is a posterior."""
    return METHODS[result.method] if isinstance(result, AreaFit) else "posterior distribution (Bayes)"


def facts(result: AreaResult) -> list[tuple[str, str]]:
    """Evidence on how it was computed, and criteria: (what, value)."""
    if isinstance(result, AreaPosterior):
        return posterior_facts_of(result)
    m = int(result.design.sampled.sum())
    return [
        ("Estimator of A", METHODS[result.method]),
        *area_evidence(result),
        ("Log likelihood at this estimate", number(result.marginal_loglik, 7)),
        (f"AIC, BIC from it ({result.n_parameters} parameters, {m} areas)",
         f"{number(result.marginal_aic, 7)}, {number(result.marginal_bic, 7)}"),
    ]  # fmt: skip


def model(result: AreaResult) -> str:
    """Two or three sentences that say what is modelled."""
    return area_model(result)


def notes(result: AreaResult) -> list[str]:
    """Notes of the data and the result, each once."""
    return list(dict.fromkeys([*result.design.notes, *result.notes]))


def roles(result: AreaResult, most: int) -> list[tuple[str, list[str], int]]:
    """Areas that are not in the fit, by what is reported for them: (sentence, first names, how many more)."""
    sentences = {
        "unsampled": "without a direct estimate or variance: predicted from the regression alone",
        "direct": "with sampling variance 0: their direct estimate stands",
    }
    out = []
    for role, sentence in sentences.items():
        names = [str(area) for area in result.design.areas[result.design.role == role]]
        if names:
            out.append((sentence, names[:most], max(0, len(names) - most)))
    return out


def sizes(result: AreaResult) -> list[tuple[str, str]]:
    """Counts of areas and coefficients, and how different the direct estimates' errors are: (what, value)."""
    design = result.design
    D = result.areas["sampling_variance"].to_numpy()[design.sampled]
    return [
        ("Areas", str(len(design.areas))),
        ("Areas in the fit", str(int(design.sampled.sum()))),
        ("Coefficients", str(len(design.fixed))),
        ("Sampling sd, smallest to largest", f"{number(np.sqrt(D.min()), 3)} to {number(np.sqrt(D.max()), 3)}"),
    ]


def error(result: AreaResult) -> str:
    """What the standard errors of the area means are made of."""
    if isinstance(result, AreaPosterior):
        return "The sd of an area mean is that of its posterior, which averages over A and the coefficients."
    told = result.areas.attrs
    kind = told.get("mse", result.mse_kind)
    text = f"Standard errors of the model are roots of estimated mean squared errors ({kind})."
    text += TERMS if "g1" in kind else ""
    if "back_transformation" in told:
        how = str(told["back_transformation"]).replace("_", " ")
        text += f" Estimates are taken back from the scale of the model to that of the data: {how}."
    return text + (f" Intervals: {told['interval']}." if "interval" in told else "")
