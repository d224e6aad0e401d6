"""The Python lines that run an analysis again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pandas as pd

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
        *(matrices := _matrix_lines(comparison)),
        f"fit = hl.fit(spec, data, method={comparison.fit.method!r}{_handed_on(matrices)})",
        *_posterior_lines(posterior, _handed_on(matrices)),
        f"hl.compare(fit, posterior).report({path!r})",
    ]
    return "\n".join(lines)


def result_lines(result: AreaFit | AreaPosterior, path: str = "report.html", size: pd.Series | None = None) -> str:
    """Code that computes one area-level result again from its table, which is taken to be `data.csv`.

    size  what the report draws weights against, read from a file of its own
    """
    drawn = "" if size is None else ", size=size"
    lines = [
        "import hierlmm as hl",
        "import pandas as pd",
        "",
        f"data = pd.read_csv({DATA!r})  # the table that was analysed",
        *_spec_lines(result),
        *(matrices := _matrix_lines(result)),
        *([] if size is None else ["size = pd.read_csv('size.csv', index_col=0).squeeze()  # the sizes by area"]),
    ]
    if isinstance(result, AreaFit):
        fitted = f"fit = hl.fit(spec, data, method={result.method!r}{_handed_on(matrices)})"
        return "\n".join([*lines, fitted, f"fit.report({path!r}{drawn})"])
    return "\n".join([*lines, *_posterior_lines(result, _handed_on(matrices)), f"posterior.report({path!r}{drawn})"])


def _posterior_lines(posterior: Posterior, more: str) -> list[str]:
    return [
        "priors = [",
        *(f"    {text!r}," for text in _priors(posterior)),
        "]",
        "posterior = hl.posterior(",
        f"    spec, data, priors=priors, engine={posterior.engine!r},",
        f"    draws={posterior.sample.chains * posterior.sample.number}, seed={posterior.seed}{more},",
        ")",
    ]


def _spec_lines(result: Comparison | AreaFit | AreaPosterior) -> list[str]:
    spec = result.spec
    if not spec.is_area_level:
        return [f"spec = hl.lmm({spec.formula!r})"]
    options = {_ARGUMENT.get(name, name): repr(value) for name, value in _changed(spec.residual).items()}
    options["area"] = repr(spec.random[0].factor)
    if spec.transformation is not None:
        options["transformation"] = f"hl.{spec.transformation!r}"
    if _changed(spec.area_effects):
        options["area_effects"] = f"hl.{spec.area_effects!r}"
    return [
        "spec = hl.fay_herriot(",
        f"    {spec.formula!r},",
        *(f"    {name}={value}," for name, value in options.items()),
        ")",
    ]


# Arguments of the constructor that the fields of a sampling structure are given by, where the names differ.
_ARGUMENT = {"column": "sampling_variance", "matrix": "sampling_covariance"}


def _changed(part: Any) -> dict[str, object]:
    """The fields of a part of a spec that are not at their default."""
    given = {field.name: (getattr(part, field.name), field.default) for field in fields(part)}
    return {name: value for name, (value, default) in given.items() if value is not None and value != default}


def _matrix_lines(result: Comparison | AreaFit | AreaPosterior) -> list[str]:
    """Lines that read the matrices that stand beside the table."""
    names = result.spec.matrices
    lines = ["matrices = {", *(f"    {name!r}: pd.read_csv({f'{name}.csv'!r})," for name in names)]
    return [*lines, "}  # the matrices that were used, with a first column of labels"] if names else []


def _handed_on(matrices: list[str]) -> str:
    return ", matrices=matrices" if matrices else ""


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
