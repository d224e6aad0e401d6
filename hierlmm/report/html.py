"""A comparison as one self-contained HTML file: nothing in it is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hierlmm.compare.results import Comparison
from hierlmm.errors import FileError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.report import tables, words
from hierlmm.report.figures import PANELS, PLACES, pictures
from hierlmm.report.numbers import number, probability
from hierlmm.report.predicted import panels
from hierlmm.report.reproduce import python_lines

# Rows or areas that a list names before it says how many more there are.
LISTED = 60


def write(comparison: Comparison, path: str | Path, command: str | None = None, code: str | None = None) -> Path:
    """Write the report of `comparison` to `path` and return the path.

    command  the command line that made it, shown at its end; code: the Python lines that reproduce it, by default
             lines that start from the table as `data.csv`
    Raises FileError where the folder of `path` does not exist or the file cannot be written.
    """
    target = Path(path)
    lines = python_lines(comparison, target.name) if code is None else code
    return write_page(target, lambda: render(comparison, command, lines))


def write_page(target: Path, page: Callable[[], str]) -> Path:
    """Write what `page` gives to `target`, whose folder is looked for before the work is done.

    Raises FileError where there is none or the file cannot be written.
    """
    if not target.parent.is_dir():
        raise FileError(
            f"A report is written into a folder that exists; found none at {target.parent}. "
            "Create it, or give another path."
        )
    text = page()
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"A report is written to a file that can be opened; {target} cannot: {reason}. Give another path."
        ) from error
    return target


def render(comparison: Comparison, command: str | None, code: str) -> str:
    """The page as text."""
    return environment().get_template("report.html").render(_context(comparison, command, code))


@cache
def environment() -> Environment:
    """The templates, escaped by default, with the ways of showing numbers."""
    environment = Environment(
        loader=PackageLoader("hierlmm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["probability"] = probability
    return environment


def _context(comparison: Comparison, command: str | None, code: str) -> dict[str, Any]:
    fit, design = comparison.fit, comparison.fit.design
    drawn = pictures(comparison)
    return {
        "comparison": comparison,
        "area": isinstance(fit, AreaFit),
        "design": design,
        "spec": comparison.spec,
        "model": words.model_in_words(comparison),
        "failed": words.failed(comparison),
        "method": words.method(comparison),
        "fit_facts": words.fit_facts(comparison),
        "posterior_facts": words.posterior_facts(comparison),
        "sizes": _sizes(comparison),
        "dropped": list(zip(design.dropped.rows[:LISTED], design.dropped.columns[:LISTED], strict=True)),
        "roles": _roles(comparison),
        "priors": comparison.posterior.priors.describe(),
        "fixed": tables.parameters(comparison, "fixed"),
        "variances": tables.parameters(comparison, "variance"),
        "means": tables.means(comparison),
        "attribution": tables.attribution(comparison),
        "errors": tables.errors(comparison),
        "g3": str(fit.model_scale.attrs.get("g3", "")) if isinstance(fit, AreaFit) else "",
        "boundary": comparison.boundary.to_dict("records"),
        "sensitivity": tables.sensitivity(comparison),
        "sensitivity_left_out": tables.sensitivity_left_out(comparison),
        "pictures": {place: [picture for picture in drawn if picture.place == place] for place in PLACES},
        "panels_left_out": max(0, len(panels(comparison)) - PANELS),
        "notes": words.notes(comparison),
        "versions": words.versions(comparison),
        "command": command,
        "code": code,
    }


def _sizes(comparison: Comparison) -> list[tuple[str, str]]:
    """Counts of rows, areas, levels and coefficients: (what, value)."""
    fit, design = comparison.fit, comparison.fit.design
    if isinstance(fit, AreaFit):
        areas = [("Areas", str(len(fit.design.areas))), ("Areas in the fit", str(int(fit.design.sampled.sum())))]
        return [*areas, ("Coefficients", str(len(design.fixed)))]
    rows = [("Rows used", str(len(design.y))), ("Coefficients", str(len(design.fixed)))]
    return rows + [(f"Levels of {factor.name}", str(len(factor.levels))) for factor in fit.design.factors]


def _roles(comparison: Comparison) -> list[tuple[str, list[str], int]]:
    """Areas that are not in the fit, by what is reported for them: (sentence, first names, how many more)."""
    design = comparison.fit.design
    sentences = {
        "unsampled": "without a direct estimate or variance: predicted from the regression alone",
        "direct": "with sampling variance 0: their direct estimate stands",
    }
    out = []
    for role, sentence in sentences.items() if isinstance(comparison.fit, AreaFit) else ():
        names = [str(area) for area in design.areas[design.role == role]]  # type: ignore[union-attr]
        if names:
            out.append((sentence, names[:LISTED], max(0, len(names) - LISTED)))
    return out
