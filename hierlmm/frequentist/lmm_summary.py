"""The printed form of a linear mixed model fit, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.design.notes import left_out
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_summary_boundary import boundary_lines
from hierlmm.frequentist.lmm_summary_residuals import residual_lines
from hierlmm.frequentist.lmm_summary_tests import coefficient_tests, has_degrees_of_freedom
from hierlmm.frequentist.lmm_summary_variances import TRIANGLE, triangle, variance_lines
from hierlmm.spec import laws
from hierlmm.spec.residual import Correlated, Independent
from hierlmm.spec.weights import Frequency

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
NAMED = {"reml": "REML", "ml": "ML"}


def summary(fit: LMMFit) -> str:
    """Model, outcome, criteria, residuals, variance components, fixed effects with tests, boundary, and what was left
    out."""
    parts = [*_head(fit), *residual_lines(fit), "", *variance_lines(fit), *_fixed(fit), *_correlations(fit)]
    return "\n".join([*parts, *boundary_lines(fit), "", *_left_out(fit)]).rstrip()


def _head(fit: LMMFit) -> list[str]:
    criterion = "REML criterion" if fit.method == "reml" else "-2 log likelihood"
    p, q = fit.equations.p, fit.n_parameters - fit.equations.p
    return [
        f"{_title(fit)} fitted by {NAMED[fit.method]}",
        *_wrapped(fit.spec.formula, "  "),
        *(line for text in _laws(fit) for line in _wrapped(text, "  ")),
        *textwrap.wrap(fit.outcome.value, WIDTH),
        "",
        f"{criterion} {fit.objective:.4f}   AIC {fit.aic:.4f}   BIC {fit.bic:.4f} (log n)",
        *textwrap.wrap(f"{_rows(fit)}; {_count(p, 'fixed effect')}, {_count(q, 'covariance parameter')}", WIDTH),
    ]


def _title(fit: LMMFit) -> str:
    if fit.spec.random:
        return "Linear mixed model"
    return "Marginal linear model" if isinstance(fit.spec.residual, Correlated) else "Linear model"


def _laws(fit: LMMFit) -> list[str]:
    """What is assumed of the residuals where it is not the usual, and what the weights are."""
    residual = fit.spec.residual
    return [
        *([] if isinstance(residual, Independent) else laws.residual_lines(residual)),
        *laws.weight_lines(fit.spec.weights),
    ]


def _rows(fit: LMMFit) -> str:
    """How many rows, and how many levels of what they are grouped by."""
    rows, seen = _count(fit.equations.n, "row"), len(fit.design.y)
    if isinstance(fit.spec.weights, Frequency):
        rows = f"n = {fit.equations.n}" + (f" in {_count(seen, 'row')}" if seen else "")
    sizes = {factor.name: len(factor.levels) for factor in fit.design.factors}
    held = fit.design.residual
    if held is not None and held.group:
        sizes.setdefault(held.group, len(held.levels))
    return f"{rows}; groups: {', '.join(f'{name} {size}' for name, size in sizes.items())}" if sizes else rows


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _fixed(fit: LMMFit) -> list[str]:
    """Estimates with t tests; a name that is too long has a line of its own."""
    if not fit.design.fixed:
        return []
    lines = ["", f"{'Fixed effects':<24}{'estimate':>13}{'se':>12}{'df':>9}{'t':>10}{'p':>11}"]
    frame = coefficient_tests(fit)
    for name, (estimate, se, df, t, p) in zip(fit.design.fixed, frame.drop(columns="term").to_numpy(), strict=True):
        if len(name) > 24:
            lines += _wrapped(name, "")
            name = ""
        lines.append(f"{name:<24}{estimate:13.6g} {se:11.6g} {_df(df)} {_t(t)} {_p(p)}")
    return [*lines, *textwrap.wrap(_reference(fit), WIDTH)]


def _df(value: float) -> str:
    return f"{'-':>8}" if np.isnan(value) else f"{value:8.2f}" if value < 1e5 else f"{value:8.4g}"


def _t(value: float) -> str:
    return f"{value:9.3f}" if abs(value) < 1e4 else f"{value:9.4g}"


def _p(value: float) -> str:
    return f"{'-':>10}" if np.isnan(value) else f"{'< 1e-99':>10}" if value < 1e-99 else f"{value:10.4g}"


def _reference(fit: LMMFit) -> str:
    """Where df and p come from, or why they are missing."""
    if has_degrees_of_freedom(fit):
        return "df by Satterthwaite's method, p of the t distribution"
    if fit.at is None:
        return "no df and p: the likelihood has no upper bound"
    return 'no df and p in a summary of a large crossed design: see fit.test(..., df="satterthwaite")'


def _correlations(fit: LMMFit) -> list[str]:
    names = fit.design.fixed
    if len(names) > TRIANGLE:
        return ["", f"Correlation of fixed effects: {len(names)} of them, in fit.fixed_correlation"]
    return triangle("Correlation of fixed effects", names, correlation(fit.vcov_beta))


def _left_out(fit: LMMFit) -> list[str]:
    notes = (*fit.notes, *left_out(fit.design))
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=2 * indent, break_on_hyphens=False)
