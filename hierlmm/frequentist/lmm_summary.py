"""The printed form of a linear mixed model fit, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_variances import shares

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
# How many dropped rows, aliased columns or notes are spelt out before "and n more".
NAMED = {"reml": "REML", "ml": "ML"}


def summary(fit: LMMFit) -> str:
    """Model, outcome, criteria, variance components, fixed effects and their correlations, and what was left out."""
    parts = [*_head(fit), "", *_variances(fit), "", *_fixed(fit), *_correlations(fit), "", *_left_out(fit)]
    return "\n".join(parts).rstrip()


def _head(fit: LMMFit) -> list[str]:
    name = NAMED[fit.method]
    criterion = "REML criterion" if fit.method == "reml" else "-2 log likelihood"
    sizes = ", ".join(f"{f.name} {len(f.levels)}" for f in fit.design.factors)
    return [
        f"Linear mixed model fitted by {name}",
        *textwrap.wrap(fit.spec.formula, WIDTH, initial_indent="  ", subsequent_indent="    "),
        *textwrap.wrap(fit.outcome.value, WIDTH),
        "",
        f"{criterion} {fit.objective:.4f}   AIC {fit.aic:.4f}   BIC {fit.bic:.4f} (log n)",
        f"{fit.equations.n} rows; groups: {sizes}",
    ]


def _variances(fit: LMMFit) -> list[str]:
    lines = [f"{'Random effects':<34}{'variance':>14}{'sd':>12}{'share':>8}  corr"]
    share = shares(fit)
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        corr = correlation(G)
        for a, coefficient in enumerate(factor.coefficients):
            block = next(b for b in factor.blocks if a in b)
            label = f"{factor.name if a == 0 else '':<14.14} {coefficient:<19.19}"
            carried = f"{share[factor.name]:8.3f}" if a == 0 else " " * 8
            pairs = " ".join(f"{corr[a, b]:5.2f}" for b in block if b < a)
            lines.append(f"{label}{G[a, a]:14.6g}{np.sqrt(G[a, a]):12.6g}{carried}  {pairs}".rstrip())
    lines.append(f"{'Residual':<34}{fit.sigma2:14.6g}{np.sqrt(fit.sigma2):12.6g}{share['Residual']:8.3f}")
    return lines


def _fixed(fit: LMMFit) -> list[str]:
    lines = [f"{'Fixed effects':<34}{'estimate':>14}{'se':>12}{'t':>10}"]
    for row in fit.fixed.itertuples(index=False):
        lines.append(f"{row.term:<34.34}{row.estimate:14.6g}{row.se:12.6g}{row.t:10.3f}")
    return lines


def _correlations(fit: LMMFit) -> list[str]:
    """Correlations of the fixed effects, as long as they fit the width."""
    names = fit.design.fixed
    if not 2 <= len(names) <= 7:
        return []
    corr = correlation(fit.vcov_beta)
    lines = ["", "Correlation of fixed effects"]
    lines.append(" " * 22 + "".join(f"{name:>8.7}" for name in names[:-1]))
    for i, name in enumerate(names[1:], start=1):
        lines.append(f"{name:<22.22}" + "".join(f"{corr[i, j]:8.3f}" for j in range(i)))
    return lines


def _left_out(fit: LMMFit) -> list[str]:
    design = fit.design
    notes = list(fit.notes)
    if len(design.dropped):
        shown = ", ".join(str(row) for row in design.dropped.rows[:5])
        more = f" and {len(design.dropped) - 5} more" if len(design.dropped) > 5 else ""
        rows = "row" if len(design.dropped) == 1 else "rows"
        notes.append(f"{len(design.dropped)} {rows} dropped for missing values: {shown}{more}.")
    if design.aliased:
        notes.append(f"Columns dropped because earlier ones determine them: {', '.join(design.aliased)}.")
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")]
