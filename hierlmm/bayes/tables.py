"""Posteriors as plain text, 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from hierlmm.design.notes import left_out

if TYPE_CHECKING:
    from hierlmm.bayes.arearesults import AreaPosterior
    from hierlmm.bayes.lmmresults import LMMPosterior
    from hierlmm.bayes.results import Posterior

WIDTH = 80
# Rows of a long table shown in a summary.
ROWS = 12


def area_summary(posterior: AreaPosterior) -> str:
    """Summary of the posterior of an area-level model."""
    columns = ["area", "direct", "estimate", "se", "lower", "upper", "gamma"]
    return "\n\n".join(
        [
            *heading(posterior),
            "Fixed effects (posterior mean, sd, 95 % interval)\n" + table(posterior.fixed.drop(columns="mcse")),
            "Area variance\n" + table(posterior.A.drop(columns="mcse")),
            "Areas\n" + table(posterior.areas[columns]),
            *closing(posterior),
        ]
    )


def lmm_summary(posterior: LMMPosterior) -> str:
    """Summary of the posterior of a linear mixed model."""
    components = posterior.variance_components
    columns = ["group", "term", "term2", "quantity", "estimate", "se", "lower", "upper"]
    if not (components["term2"] != "").any():
        columns.remove("term2")
    return "\n\n".join(
        [
            *heading(posterior),
            "Variance components (posterior mean, sd, 95 % interval)\n" + table(components[columns], len(components)),
            "Fixed effects\n" + table(posterior.fixed.drop(columns="mcse")),
            *closing(posterior),
        ]
    )


def heading(posterior: Posterior) -> list[str]:
    """The model, how the posterior was computed and its priors."""
    how = {"integrate": "Exact posterior by integration", "nuts": "Posterior by NUTS (PyMC)"}[posterior.engine]
    number = posterior.sample.chains * posterior.sample.number
    failures = posterior.diagnostics.get("failures")
    first = ["This posterior failed its checks and must not be relied on:\n" + "\n".join(wrapped([str(failures)]))]
    return [
        *(first if failures else []),
        str(posterior.spec),
        f"{how}; {number} draws, seed {posterior.seed}",
        "Priors\n" + "\n".join(wrapped(posterior.priors.describe())),
    ]


def closing(posterior: Posterior) -> list[str]:
    """Diagnostics and notes."""
    parts = [f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}"
             for name, value in posterior.diagnostics.items() if value != ""]
    out = ["Diagnostics\n" + "\n".join(wrapped(parts)), "\n".join(wrapped([posterior.propriety.rule]))]
    notes = (*posterior.notes, *left_out(posterior.design))
    return out + (["Notes\n" + "\n".join(wrapped(notes))] if notes else [])


def wrapped(lines: Iterable[str]) -> list[str]:
    """Each line indented by two and folded at 80 columns."""
    return [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines]


def table(frame: pd.DataFrame, rows: int = ROWS) -> str:
    """A frame as text, its first rows where it is long, folded at 80 columns."""
    shown = frame.head(rows)
    text = shown.to_string(index=False, float_format=lambda x: f"{x:.4g}", line_width=WIDTH, max_colwidth=28)
    more = len(frame) - len(shown)
    return text + (f"\n  ... and {more} more" if more else "")
