"""An empirical-Bayes fit as plain text of at most 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.frequentist.area.naming import HEADINGS

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit

WIDTH = 80
# Columns of numbers are this wide; what is left of a line holds the name.
CELL = 12
# Units shown in a summary.
ROWS = 12
NAMES = {
    "normal": {
        **HEADINGS,
        "james_stein": "James and Stein's rule",
        "positive_part": "James and Stein's rule, positive part",
        "limited_translation": "limited translation of James and Stein's rule",
        "morris": "Morris's estimator",
    },
    "poisson": {"ml": "maximum likelihood (negative binomial)", "moments": "moments (Marshall)"},
    "binomial": {"ml": "maximum likelihood (beta-binomial)", "moments": "moments (Kleinman)"},
}


def summary(fit: CompoundFit) -> str:
    """The outcome first where the fit failed or ended at zero; then model, prior, criteria, units, notes."""
    from hierlmm.frequentist.compound.results import CompoundOutcome

    lines = [] if fit.outcome is CompoundOutcome.INTERIOR else [*_wrapped(fit.outcome.value), ""]
    lines += [*str(fit.spec).splitlines(), f"Prior by {NAMES[fit.spec.family][fit.method]}", ""]
    lines += [*_prior(fit), "", *_criteria(fit), "", *_units(fit)]
    for note in _said(fit):
        lines += ["", *_wrapped(note)]
    return "\n".join(line.rstrip() for line in lines)


def _said(fit: CompoundFit) -> Iterator[str]:
    if fit.design.aliased:
        yield f"Columns dropped because earlier ones determine them: {', '.join(fit.design.aliased)}."
    yield from fit.notes


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _row(name: object, values: Iterable[float | str]) -> str:
    """A name, shortened where it must be, and numbers to five digits in columns."""
    cells = [f"{value:>{CELL}}" if isinstance(value, str) else f"{value:>{CELL}.5g}" for value in values]
    room = WIDTH - CELL * len(cells)
    text = str(name)
    return (text if len(text) < room else text[: room - 2] + "…").ljust(room) + "".join(cells)


def _prior(fit: CompoundFit) -> Iterator[str]:
    frame = fit.hyperparameters
    scale = {"normal": "", "poisson": ", log scale", "binomial": ", logit scale"}[fit.spec.family]
    for part, heading in (("fixed", f"Prior mean{scale}"), ("prior", "Prior")):
        rows = frame[frame["part"] == part].drop(columns="part")
        if len(rows):
            yield _row(heading, [str(column) for column in rows.columns[1:]])
            for name, *values in rows.itertuples(index=False):
                yield _row(name, [float(value) for value in values])


def _criteria(fit: CompoundFit) -> Iterator[str]:
    yield _row("", ["log-lik.", "AIC", "BIC"])
    what = "Restricted likelihood" if fit.method == "reml" else "Marginal likelihood"
    maximised = fit.method in ("ml", "reml")
    yield _row(what + ("" if maximised else " at these estimates"), [fit.loglik, fit.aic, fit.bic])
    if not math.isnan(fit.risk):
        into = fit.design.sampled
        direct = float(fit.design.size[into].sum())
        yield f"Stein's unbiased estimate of total risk {fit.risk:.5g}; that of the direct estimates is {direct:.5g}"


def _units(fit: CompoundFit) -> Iterator[str]:
    design, into = fit.design, fit.design.sampled
    heading = f"Units in the fit: {into.sum()} of {len(design.units)}"
    columns = ["direct", "estimate", "se", "lower", "upper"]
    yield _row(heading if len(heading) < WIDTH - CELL * 5 else f"{into.sum()} units", columns)
    frame = fit.units
    for name, *values in frame.head(ROWS)[["unit", *columns]].itertuples(index=False):
        yield _row(name, [float(value) for value in values])
    if len(frame) > ROWS:
        yield f"  ... and {len(frame) - ROWS} more"
    gamma = fit.gamma[into]
    yield ""
    yield _row("", ["smallest", "median", "largest"])
    yield _row("weight on the direct estimate", [float(f(gamma)) for f in (np.min, np.median, np.max)])
