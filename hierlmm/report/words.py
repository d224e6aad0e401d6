"""What a report says in words: the model, the data, how each analysis ended, and how to run it again."""

from __future__ import annotations

import platform
from importlib import metadata

from hierlmm.bayes.results import Posterior
from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit, AreaOutcome
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.report.criteria import FULL
from hierlmm.report.numbers import number

METHODS = {
    "reml": "REML (restricted maximum likelihood)",
    "ml": "maximum likelihood (ML)",
    "fh": "moments of Fay and Herriot",
    "pr": "moments of Prasad and Rao",
    "amrl_ll": "adjusted residual likelihood of Li and Lahiri",
    "ampl_ll": "adjusted profile likelihood of Li and Lahiri",
    "amrl_yl": "adjusted residual likelihood of Yoshimori and Lahiri",
    "ampl_yl": "adjusted profile likelihood of Yoshimori and Lahiri",
    "mix": "MIX of Rubin-Bleuer and You: REML where it is positive, else an adjusted likelihood",
}
ENGINES = {
    "integrate": "exact: coefficients and effects integrated analytically, the variances numerically",
    "nuts": "NUTS, a Markov chain sampler, through PyMC",
}
PACKAGES = ("numpy", "scipy", "pandas", "matplotlib")
SAMPLERS = ("pymc", "pytensor", "nutpie")

SCALES = {
    "Log": "the logarithm of the direct estimate",
    "ArcsineRoot": "the arcsine of the square root of the direct estimate",
    "Logit": "the log odds of the direct estimate",
}

# Texts of what the diagnostics of a posterior are called.
DIAGNOSTICS = {
    "method": "method",
    "nodes": "nodes of the integral",
    "relative_error": "relative error of the integral",
    "log_marginal_likelihood": "log marginal likelihood (up to the constants of improper priors)",
    "pareto_k": "Pareto k̂ of the importance weights (reliable below 0.7)",
    "effective_sample_size": "effective number of importance points",
    "rhat": "largest R̂ (1.01 or less is wanted)",
    "ess_bulk": "smallest bulk effective sample size",
    "ess_tail": "smallest tail effective sample size",
    "bfmi": "smallest BFMI of a chain",
    "failures": "failed checks",
}


def model_in_words(comparison: Comparison) -> str:
    """Two or three sentences that say what is modelled."""
    spec = comparison.spec
    terms = ", ".join(term for term in spec.fixed if term != "1") or "an intercept alone"
    if isinstance(comparison.fit, AreaFit):
        return area_model(comparison.fit)
    factors = [(factor.name, ", ".join(factor.coefficients)) for factor in comparison.fit.design.factors]
    groups = "; ".join(f"every level of {name} has its own {coefficients}" for name, coefficients in factors)
    return (
        f"{spec.response} is a regression on {terms}. In addition {groups}: deviations that are normal with mean zero "
        "and a covariance matrix that is estimated. What is left is independent normal noise of variance σ². "
        "The predicted deviation of a level is pulled towards zero, the more so the less its own data say."
    )


def area_model(result: AreaFit | Posterior) -> str:
    """The same of an area-level model."""
    spec = result.spec
    terms = ", ".join(term for term in spec.fixed if term != "1") or "an intercept alone"
    return (
        f"Each {spec.random[0].factor} has a direct estimate {spec.response} whose sampling variance D is known. Its "
        f"true mean is taken to be a regression on {terms} plus an effect of its own, normal with variance A, the same "
        "for all areas. A is estimated. The estimate of an area mean is a compromise between its direct estimate and "
        "the regression, with weight γ = A / (A + D) on the direct estimate." + _more(result)
    )


def _more(result: AreaFit | Posterior) -> str:
    """What differs from the ordinary area-level model: scale, neighbours, correlated sampling errors."""
    spec, out = result.spec, ""
    if spec.transformation is not None:
        out += f" All this is on the scale of {SCALES[type(spec.transformation).__name__]}; means are taken back."
    if "SAR" in type(spec.area_effects).__name__:
        out += (
            f" Effects of neighbours, by the weights in {spec.matrices[0]}, are alike: v = ρWv + u with ρ estimated, "
            "so that the direct estimates of neighbours count as well."
        )
    if "Covariance" in type(spec.residual).__name__:
        out += f" Sampling errors are correlated, with the known covariances in {spec.matrices[-1]}."
    return out


def method(comparison: Comparison) -> str:
    """The estimator of the fit in full."""
    return METHODS[comparison.fit.method]


def engine(comparison: Comparison) -> str:
    """How the posterior was computed, in full."""
    return ENGINES[comparison.posterior.engine]


def failed(comparison: Comparison) -> bool:
    """Whether one of the two did not end as it should, so that there is nothing to conclude."""
    bad = (AreaOutcome.NOT_CONVERGED, LMMOutcome.NOT_CERTIFIED, LMMOutcome.BOUND_NOT_CERTIFIED)
    return comparison.fit.outcome in bad or bool(comparison.posterior.diagnostics.get("failures"))


def fit_facts(comparison: Comparison) -> list[tuple[str, str]]:
    """How the fit ended and its criteria: (what, value)."""
    fit = comparison.fit
    facts = [("How it ended", fit.outcome.value)]
    facts += area_evidence(fit) if isinstance(fit, AreaFit) else _lmm_evidence(fit)
    restricted = fit.method not in FULL
    name = "Restricted log likelihood" if restricted else "Log likelihood"
    facts += [(name, number(fit.loglik, 7)), ("AIC, BIC (from it)", f"{number(fit.aic, 7)}, {number(fit.bic, 7)}")]
    if restricted:
        facts.append(("AIC from the full likelihood at this estimate", number(fit.marginal_aic, 7)))
    return facts


def area_evidence(fit: AreaFit) -> list[tuple[str, str]]:
    """What shows that the estimate of A is the best one."""
    certificate = fit.certificate
    return [
        ("Gain that a further Newton step predicts", number(certificate.decrement, 2)),
        ("Local maxima of the likelihood, in A", ", ".join(number(A) for A in certificate.maxima)),
        ("Evaluations", str(certificate.evaluations)),
    ]


def _lmm_evidence(fit: LMMFit) -> list[tuple[str, str]]:
    certificate = fit.certificate
    facts = [
        ("Gain that a further Newton step predicts", number(certificate.decrement, 2)),
        ("Largest derivative of the criterion in a free parameter", number(certificate.gradient, 2)),
        ("Evaluations", str(certificate.evaluations)),
    ]
    if fit.singular:
        facts.insert(2, ("Smallest derivative in a direction held at zero", number(certificate.multipliers, 3)))
    if certificate.others:
        facts.append(("Other local optima of the criterion", ", ".join(number(x, 7) for x in certificate.others)))
    return facts


def posterior_facts(comparison: Comparison) -> list[tuple[str, str]]:
    """How the posterior was computed and its diagnostics: (what, value)."""
    return posterior_facts_of(comparison.posterior)


def posterior_facts_of(posterior: Posterior) -> list[tuple[str, str]]:
    """The same of a posterior."""
    draws = posterior.sample.chains * posterior.sample.number
    chains = f" in {posterior.sample.chains} chains" if posterior.sample.chains > 1 else ""
    facts = [("Engine", ENGINES[posterior.engine]), ("Draws", f"{draws}{chains}"), ("Seed", str(posterior.seed))]
    for name, value in posterior.diagnostics.items():
        if value == "" or name in ("chains", "draws") or name.endswith("_of"):
            continue
        where = posterior.diagnostics.get(f"{name}_of", "")
        text = (number(value, 4) if isinstance(value, float) else str(value)) + (f" ({where})" if where else "")
        what = DIAGNOSTICS.get(name, name.replace("_", " "))
        facts.append((what[:1].upper() + what[1:], text))
    return facts


def versions(comparison: Comparison) -> list[tuple[str, str]]:
    """Versions of what computed the numbers."""
    return versions_of(comparison.posterior)


def versions_of(result: LMMFit | AreaFit | Posterior) -> list[tuple[str, str]]:
    """The same for one of the two; the sampler's only where there was one."""
    sampled = isinstance(result, Posterior) and result.engine == "nuts"
    import hierlmm

    names = PACKAGES + (SAMPLERS if sampled else ())
    found = [("hierlmm", hierlmm.__version__), ("Python", platform.python_version())]
    for name in names:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def notes(comparison: Comparison) -> list[str]:
    """Notes of the data, the fit and the posterior, each once."""
    design, fit, posterior = comparison.fit.design, comparison.fit, comparison.posterior
    return list(dict.fromkeys([*design.notes, *fit.notes, *posterior.notes]))
