"""The check-list of a fit: what was looked at, what was found, and what to do, in plain words."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import FitError
from hierlmm.frequentist.diagnostics.checks_fit import fit_findings
from hierlmm.frequentist.diagnostics.checks_predictors import collinearity, predictor_findings
from hierlmm.frequentist.diagnostics.checks_rows import row_findings
from hierlmm.frequentist.diagnostics.findings import Finding, Verdict
from hierlmm.frequentist.diagnostics.projection import projection

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

WIDTH = 80
MARKS = {Verdict.OK: "ok", Verdict.LOOK: "LOOK", Verdict.ACT: "ACT", Verdict.NOT_CHECKED: "-"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Check:
    """Findings about one fit, in the order in which they should be read."""

    items: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest of all: act, else look, else ok."""
        found = {item.verdict for item in self.items}
        return next(v for v in (Verdict.ACT, Verdict.LOOK, Verdict.OK) if v in found or v is Verdict.OK)

    @property
    def frame(self) -> pd.DataFrame:
        """topic, verdict (ok, look, act, not_checked), value, advice: one row an item."""
        rows = [(item.topic, item.verdict.name.lower(), item.value, item.advice) for item in self.items]
        return pd.DataFrame(rows, columns=["topic", "verdict", "value", "advice"])

    def __str__(self) -> str:
        count = {verdict: sum(item.verdict is verdict for item in self.items) for verdict in Verdict}
        lines = [
            f"{len(self.items)} checks: {count[Verdict.OK]} ok, {count[Verdict.LOOK]} to look at, "
            f"{count[Verdict.ACT]} to act on, {count[Verdict.NOT_CHECKED]} not possible"
        ]
        for item in self.items:
            text = f"{item.topic}: {item.value}"
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"{MARKS[item.verdict]:<6}", subsequent_indent=" " * 8)
            if item.advice:
                lines += textwrap.wrap(item.advice, WIDTH, initial_indent=" " * 8 + "-> ", subsequent_indent=" " * 11)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def check(fit: LMMFit) -> Check:
    """Look at the optimum, the boundary, levels, influence, normality, spread and predictors of a fit.

    Where residuals cannot be scaled (no residual variance, rows that stand for several) the checks that need them are
    named as not possible, with the reason. Raises DesignError where the rows of the fit were not kept.
    """
    require_rows(fit.design, "Checks of a fit")
    items = list(fit_findings(fit))
    try:
        at = projection(fit, "Checks of rows")
    except FitError as error:
        items.append(Finding(topic="rows and groups", value=str(error), verdict=Verdict.NOT_CHECKED))
        items += collinearity(fit)
    else:
        items += [*row_findings(at), *predictor_findings(at)]
    return Check(items=tuple(items))
