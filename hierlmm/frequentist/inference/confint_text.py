"""The printed form of a table of intervals, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.frequentist.labelled_lines import labelled

if TYPE_CHECKING:
    from hierlmm.frequentist.inference.confint_results import Intervals

WIDTH = 80
LABEL = 28
# Quantities that print by a shorter name than they have in the frames.
SHORT = {"correlation": "cor"}


def table(intervals: Intervals) -> str:
    """One line a parameter, then the notes."""
    lower, upper = (f"{100 * p:.4g} %" for p in (0.5 - 0.5 * intervals.level, 0.5 + 0.5 * intervals.level))
    lines = [f"{100 * intervals.level:.4g} % intervals: {intervals.method}"]
    lines.append(f"{'':<{LABEL}}{'estimate':>13}{lower:>13}{upper:>13}  by")
    for row in intervals.frame.itertuples():
        label = name(str(row.group), str(row.term), str(row.term2), str(row.quantity))
        values = "".join(f" {_number(value):>12}" for value in (row.estimate, row.lower, row.upper))  # type: ignore[arg-type]
        by = str(row.by).removesuffix(" profile").removesuffix(" bootstrap")
        lines += labelled(label, LABEL, f"{values}  {by}".rstrip())
    for note in intervals.notes:
        lines += ["", *textwrap.wrap(note, WIDTH)]
    return "\n".join(lines)


def name(group: str, term: str, term2: str, quantity: str) -> str:
    """ "sd(Time | tree)", "cor(Time, Intercept | tree)", "sd(Residual)"; a fixed effect by its term."""
    if quantity == "effect":
        return term
    inner = ", ".join(part for part in (term, term2) if part)
    where = f"{inner} | {group}" if inner else group
    return f"{SHORT.get(quantity, quantity)}({where})"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.6g}"
