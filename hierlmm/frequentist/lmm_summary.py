"""The printed form of a linear mixed model fit, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from hierlmm.design.notes import left_out
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_summary_variances import triangle, variance_lines
from hierlmm.spec.laws import residual_lines, weight_lines
from hierlmm.spec.residual import Correlated, Independent
from hierlmm.spec.weights import Frequency

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
NAMED = {"reml": "REML", "ml": "ML"}


def summary(fit: LMMFit) -> str:
    """Model, outcome, criteria, variance components, fixed effects and their correlations, and what was left out."""
    parts = [*_head(fit), "", *variance_lines(fit), *_fixed(fit), *_correlations(fit), "", *_left_out(fit)]
    return "\n".join(parts).rstrip()


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
    return [*([] if isinstance(residual, Independent) else residual_lines(residual)), *weight_lines(fit.spec.weights)]


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
    if not fit.design.fixed:
        return []
    lines = ["", f"{'Fixed effects':<34}{'estimate':>14}{'se':>12}{'t':>10}"]
    for row in fit.fixed.itertuples(index=False):
        lines.append(f"{row.term:<34.34}{row.estimate:14.6g} {row.se:11.6g} {row.t:9.3f}")
    return lines


def _correlations(fit: LMMFit) -> list[str]:
    return triangle("Correlation of fixed effects", fit.design.fixed, correlation(fit.vcov_beta))


def _left_out(fit: LMMFit) -> list[str]:
    notes = (*fit.notes, *left_out(fit.design))
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=2 * indent, break_on_hyphens=False)
