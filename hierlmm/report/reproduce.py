"""The Python lines that run an analysis again."""

from __future__ import annotations

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.results import Posterior
from hierlmm.compare.results import Comparison
from hierlmm.frequentist.area.results import AreaFit

DATA = "data.csv"


def python_lines(comparison: Comparison, path: str = "report.html") -> str:
    """Code that computes `comparison` again from its table, which is taken to be `data.csv`.

    Priors are those of the posterior, one text a parameter, as `hl.posterior` takes them.
    """
    posterior = comparison.posterior
    lines = [
        "import hierlmm as hl",
        "import pandas as pd",
        "",
        f"data = pd.read_csv({DATA!r})  # the table that was analysed",
        *_spec_lines(comparison),
        f"fit = hl.fit(spec, data, method={comparison.fit.method!r})",
        *_posterior_lines(posterior),
        f"hl.compare(fit, posterior).report({path!r})",
    ]
    return "\n".join(lines)


def result_lines(result: AreaFit | AreaPosterior, path: str = "report.html") -> str:
    """Code that computes one area-level result again from its table, which is taken to be `data.csv`."""
    lines = [
        "import hierlmm as hl",
        "import pandas as pd",
        "",
        f"data = pd.read_csv({DATA!r})  # the table that was analysed",
        *_spec_lines(result),
    ]
    if isinstance(result, AreaFit):
        return "\n".join([*lines, f"fit = hl.fit(spec, data, method={result.method!r})", f"fit.report({path!r})"])
    return "\n".join([*lines, *_posterior_lines(result), f"posterior.report({path!r})"])


def _posterior_lines(posterior: Posterior) -> list[str]:
    return [
        "priors = [",
        *(f"    {text!r}," for text in _priors(posterior)),
        "]",
        "posterior = hl.posterior(",
        f"    spec, data, priors=priors, engine={posterior.engine!r},",
        f"    draws={posterior.sample.chains * posterior.sample.number}, seed={posterior.seed},",
        ")",
    ]


def _spec_lines(result: Comparison | AreaFit | AreaPosterior) -> list[str]:
    spec = result.spec
    if not spec.is_area_level:
        return [f"spec = hl.lmm({spec.formula!r})"]
    residual = spec.residual
    options = {"sampling_variance": residual.column, "area": spec.random[0].factor}  # type: ignore[union-attr]
    for name, ordinary in (("unsampled", "error"), ("zero_variance", "error")):
        if getattr(residual, name) != ordinary:
            options[name] = getattr(residual, name)
    return [
        "spec = hl.fay_herriot(",
        f"    {spec.formula!r},",
        *(f"    {name}={value!r}," for name, value in options.items()),
        ")",
    ]


def _priors(posterior: Posterior) -> list[str]:
    """One text a parameter, exact to the last digit."""
    priors = posterior.priors.to_mapping()
    lines = [f"fixed({term})={text}" for term, text in zip(priors["terms"], priors["fixed"], strict=True)]
    if set(priors["fixed"]) == {"flat"}:
        lines = ["fixed=flat"]
    for factor in priors["factors"]:
        sds = zip(factor["coefficients"], factor["sd"], strict=True)
        lines += [f"sd({factor['name']}:{coefficient})={text}" for coefficient, text in sds]
        lines += [f"correlation({factor['name']})={text}" for text in dict.fromkeys(factor["correlation"]) if text]
    return lines + ([f"residual={priors['residual']}"] if priors["residual"] else [])
