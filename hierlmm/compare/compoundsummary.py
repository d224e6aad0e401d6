"""The comparison of a compound model as plain text of at most 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from hierlmm.compare.compound import CompoundComparison

WIDTH = 80
# Units shown: those with the largest differences.
ROWS = 10


def summary(comparison: CompoundComparison) -> str:
    """The verdict, the findings, the steps of the largest differences, and both variances in their parts."""
    fit, posterior = comparison.fit, comparison.posterior
    lines = [*textwrap.wrap(comparison.agreement.value, WIDTH), "", *str(comparison.spec).splitlines()]
    lines += [f"Fit by {fit.method}; posterior by {posterior.engine}, seed {posterior.seed}", "Priors"]
    lines += [f"  {line}" for line in posterior.priors.describe()]
    for finding in comparison.findings:
        lines += ["", *textwrap.wrap(finding, WIDTH, initial_indent="- ", subsequent_indent="  ")]
    order = comparison.table["in_sd"].abs().fillna(0.0).sort_values(ascending=False, kind="stable").index[:ROWS]
    lines += ["", "From the estimate to the posterior mean, largest differences first"]
    lines += _table(comparison.attribution.loc[order].drop(columns="mcse"))
    lines += ["", "Variances: at the estimated prior, for its error; posterior: given, of its mean"]
    lines += _table(comparison.variance.loc[order])
    return "\n".join(lines)


def _table(frame: pd.DataFrame) -> list[str]:
    short = {"posterior_conditional": "post. cond.", "posterior_added": "post. added", "variance_prior": "tau pr.",
             "fixed_prior": "coef pr.", "estimator": "estim.", "averaging": "average", "monte_carlo": "MC"}  # fmt: skip
    names = [short.get(str(name), str(name)) for name in frame.columns]
    width = (WIDTH - 16) // (len(names) - 1)
    lines = [names[0][:15].ljust(16) + "".join(f"{name:>{width}.{width - 1}}" for name in names[1:])]
    for unit, *values in frame.itertuples(index=False):
        cells = "".join(f"{_number(value, width):>{width}}" for value in values)
        lines.append(str(unit)[:15].ljust(16) + cells)
    return lines


def _number(value: float, width: int) -> str:
    """Three digits, or two where three would touch the cell before."""
    three = f"{value:.3g}"
    return "" if np.isnan(value) else three if len(three) < width else f"{value:.2g}"
