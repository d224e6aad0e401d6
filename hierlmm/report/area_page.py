"""One area-level result as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.diagnostics.check import MARKS
from hierlmm.frequentist.diagnostics.findings import Verdict
from hierlmm.report import area_tables, area_words
from hierlmm.report.area_figures import area_pictures
from hierlmm.report.area_plots import AreaResult
from hierlmm.report.html import LISTED, environment, write_page
from hierlmm.report.reproduce import result_lines
from hierlmm.report.words import versions_of


def write_area(
    result: AreaResult,
    path: str | Path,
    *,
    size: pd.Series | None = None,
    command: str | None = None,
    code: str | None = None,
) -> Path:
    """Write the report of `result` to `path` and return the path.

    size     a Series by area, such as the effective sample size, that the weights are drawn against
    command  the command line that made it, shown at its end; code: the Python lines that reproduce it
    Raises FileError where the folder of `path` does not exist or the file cannot be written.
    """
    target = Path(path)
    lines = result_lines(result, target.name, size) if code is None else code
    return write_page(target, lambda: render_area(result, size, command, lines))


def render_area(result: AreaResult, size: pd.Series | None, command: str | None, code: str) -> str:
    """The page as text."""
    return environment().get_template("area.html").render(_context(result, size, command, code))


def _context(result: AreaResult, size: pd.Series | None, command: str | None, code: str) -> dict[str, Any]:
    design = result.design
    drawn = area_pictures(result, size)
    fit = result if isinstance(result, AreaFit) else None
    return {
        "result": result,
        "design": design,
        "spec": result.spec,
        "bayes": fit is None,
        "method": area_words.method(result),
        "failed": area_words.failed(result),
        "outcome": area_words.outcome(result),
        "findings": area_words.findings(result),
        "facts_of": area_words.facts(result),
        "model": area_words.model(result),
        "plain_model": not result.spec.matrices and result.spec.transformation is None,
        "priors": [] if fit is not None else list(result.priors.describe()),  # type: ignore[union-attr]
        "sizes": area_words.sizes(result),
        "roles": area_words.roles(result, LISTED),
        "dropped": list(zip(design.dropped.rows[:LISTED], design.dropped.columns[:LISTED], strict=True)),
        "coefficients": area_tables.coefficients(result),
        "variances": area_tables.variances(result),
        "areas": area_tables.areas(result),
        "error": area_words.error(result),
        "marks": {**MARKS, Verdict.NOT_CHECKED: "not checked"},
        "checks": [] if fit is None else fit.check().items,
        "pictures": {place: [p for p in drawn if p.place == place] for place in ("means", "checks")},
        "notes": area_words.notes(result),
        "versions": versions_of(result),
        "command": command,
        "code": code,
    }
