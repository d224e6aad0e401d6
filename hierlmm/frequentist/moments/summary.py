"""The printed form of a method-of-moments fit, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.design.notes import left_out
from hierlmm.frequentist.moments.components import RESIDUAL

if TYPE_CHECKING:
    from hierlmm.frequentist.moments.results import MomentsFit

WIDTH = 80
# Components whose coefficients fit beside the mean squares.
BESIDE = 4


def summary(fit: MomentsFit) -> str:
    """Model, outcome, mean squares with their expectations, estimates beside REML's, fixed effects, notes."""
    parts = [*_head(fit), *_squares(fit), *_estimates(fit), *_fixed(fit), "", *_notes(fit)]
    return "\n".join(parts).rstrip()


def _head(fit: MomentsFit) -> list[str]:
    groups = ", ".join(f"{factor.name} {len(factor.levels)}" for factor in fit.design.factors)
    return [
        *textwrap.wrap(f"Variance components by {fit.title}", WIDTH),
        *textwrap.wrap(fit.spec.formula, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False),
        *textwrap.wrap(fit.outcome.value, WIDTH),
        *textwrap.wrap(f"{fit.reml.equations.n} rows; groups: {groups}", WIDTH),
    ]


def _squares(fit: MomentsFit) -> list[str]:
    if fit.squares is None:
        return []
    names = [*(component.name for component in fit.components), RESIDUAL]
    frame = fit.anova
    title = f"{'Source':<20}{'df':>8}{'sum of squares':>17}{'mean square':>15}"
    lines = ["", title]
    lines += [f"{r.source:<20.20}{r.df:8g}{r.sum_sq:17.7g}{r.mean_sq:15.7g}" for r in frame.itertuples(index=False)]
    lines += ["", "Expected mean squares"]
    for name, row, df in zip(names, fit.squares.coefficients, fit.squares.df, strict=True):
        terms = [f"{c / df:.6g} {other}" for c, other in zip(row, names, strict=True) if abs(c / df) > 1e-12]
        text = f"{name:<20.20}{' + '.join(reversed(terms))}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent=" " * 20, drop_whitespace=True, break_on_hyphens=False)
    return lines


def _estimates(fit: MomentsFit) -> list[str]:
    lines = ["", f"{'Variance components':<34}{'estimate':>14}{'se':>14}{'REML':>14}"]
    names = [*(component.name for component in fit.components), RESIDUAL]
    both = fit.beside_reml.query("quantity in ('variance', 'covariance')").set_index(["group", "term", "term2"])["reml"]
    reml = [both[c.group, c.term, c.term2] for c in fit.components] + [both[RESIDUAL, "", ""]]
    errors = np.sqrt(np.diagonal(fit.vcov))
    variances = [not component.term2 for component in fit.components] + [True]
    for name, value, se, other, own in zip(names, fit.estimates, errors, reml, variances, strict=True):
        mark = " *" if own and value < 0 else ""
        lines.append(f"{name:<34.34}{value:14.6g}{se:14.6g}{other:14.6g}{mark}")
    return [*lines, "* negative: outside the parameter space"] if any(line.endswith("*") for line in lines) else lines


def _fixed(fit: MomentsFit) -> list[str]:
    if not fit.design.fixed:
        return []
    lines = ["", f"{'Fixed effects (GLS)':<34}{'estimate':>14}{'se':>12}{'t':>10}"]
    for row in fit.fixed.itertuples(index=False):
        lines.append(f"{row.term:<34.34}{row.estimate:14.6g} {row.se:11.6g} {row.t:9.3f}")
    return lines


def _notes(fit: MomentsFit) -> list[str]:
    notes = (*fit.notes, *left_out(fit.design))
    return [line for note in notes for line in textwrap.wrap(note, WIDTH, initial_indent="- ", subsequent_indent="  ")]
