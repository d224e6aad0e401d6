"""The printed form of a linear mixed model fit, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.design.notes import left_out
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_variances import shares

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
NAMED = {"reml": "REML", "ml": "ML"}


def summary(fit: LMMFit) -> str:
    """Model, outcome, criteria, variance components, fixed effects and their correlations, and what was left out."""
    parts = [*_head(fit), "", *_variances(fit), *_fixed(fit), *_correlations(fit), "", *_left_out(fit)]
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
            lines.append(f"{label}{G[a, a]:14.6g} {np.sqrt(G[a, a]):11.6g}{carried}  {pairs}".rstrip())
    lines.append(f"{'Residual':<34}{fit.sigma2:14.6g} {np.sqrt(fit.sigma2):11.6g}{share['Residual']:8.3f}")
    return lines


def _fixed(fit: LMMFit) -> list[str]:
    if not fit.design.fixed:
        return []
    lines = ["", f"{'Fixed effects':<34}{'estimate':>14}{'se':>12}{'t':>10}"]
    for row in fit.fixed.itertuples(index=False):
        lines.append(f"{row.term:<34.34}{row.estimate:14.6g} {row.se:11.6g} {row.t:9.3f}")
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
    notes = (*fit.notes, *left_out(fit.design))
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")]
