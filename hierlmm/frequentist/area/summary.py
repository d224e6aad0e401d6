"""An area-level fit as plain text of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hierlmm.design.notes import left_out
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.likelihood.area.interval import likelihood_of

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

WIDTH = 80
# Columns of numbers are this wide; what is left of a line holds the name.
CELL = 12


def summary(fit: AreaFit, beside: Sequence[str] = ()) -> str:
    """The outcome first where the fit failed or ended at zero; then model, variance, coefficients, areas, notes.

    beside  lines on other parameters of the area effects, after the variance
    """
    from hierlmm.frequentist.area.results import AreaOutcome

    lines = [] if fit.outcome is AreaOutcome.INTERIOR else [*_wrapped(fit.outcome.value), ""]
    lines += [*str(fit.spec).splitlines(), f"Area variance by {HEADINGS[fit.method]}", ""]
    lines += [*_variance(fit), *beside, "", *_criteria(fit), "", *_fixed(fit), "", *_areas(fit)]
    for note in (*left_out(fit.design), *fit.notes):
        lines += ["", *_wrapped(note)]
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)


def _row(name: object, values: Iterable[float | str]) -> str:
    """A name, shortened where it must be, and numbers to five digits in columns."""
    cells = [f"{value:>{CELL}}" if isinstance(value, str) else f"{value:>{CELL}.5g}" for value in values]
    room = WIDTH - CELL * len(cells)
    text = str(name)
    return (text if len(text) < room else text[: room - 2] + "…").ljust(room) + "".join(cells)


def _table(frame: pd.DataFrame, heading: str) -> Iterator[str]:
    """A frame whose first column names the rows."""
    yield _row(heading, [str(column) for column in frame.columns[1:]])
    for name, *values in frame.itertuples(index=False):
        yield _row(name, [float(value) for value in values])


def _variance(fit: AreaFit) -> list[str]:
    frame = fit.A.drop(columns="interval")
    rows = list(_table(frame, "Area variance"))
    se = f"se from {fit.variance_formula}"
    lines = textwrap.wrap(f"{se}, interval from the {_likelihood(fit)}, 95 %", WIDTH - 2)
    return [*rows, *(f"  {line}" for line in lines)]


def _likelihood(fit: AreaFit) -> str:
    """The likelihood that the interval of A is of."""
    if fit.method in ("reml", "ml"):
        return "profile likelihood"
    return ("restricted" if likelihood_of(fit.method) == "reml" else "profile") + " likelihood itself"


def _criteria(fit: AreaFit) -> list[str]:
    rows = [_row("", ["log-lik.", "AIC", "BIC"])]
    if likelihood_of(fit.method) == "reml":
        rows.append(_row("Restricted likelihood" + _at(fit, "reml"), [fit.loglik, fit.aic, fit.bic]))
    marginal = [fit.marginal_loglik, fit.marginal_aic, fit.marginal_bic]
    return [*rows, _row("Marginal (ML) likelihood" + _at(fit, "ml"), marginal)]


def _at(fit: AreaFit, likelihood: str) -> str:
    """Whether a likelihood is at its maximum, in words."""
    return "" if fit.method == likelihood else " at this estimate"


def _fixed(fit: AreaFit) -> list[str]:
    return list(_table(fit.fixed, "Coefficients"))


def _areas(fit: AreaFit) -> list[str]:
    design, into = fit.design, fit.design.sampled
    frame = fit.areas[into]
    rows = [_row(f"Areas in the fit: {into.sum()} of {len(design.areas)}", ["smallest", "median", "largest"])]
    labels = {
        "gamma": "weight on the direct estimate, gamma",
        "se": "standard error of the estimate",
        "direct_cv": "cv of the direct estimate",
        "cv": "cv of the estimate",
    }
    for column, label in labels.items():
        values = frame[column].to_numpy()
        values = values[np.isfinite(values)]
        if values.size:
            rows.append(_row("  " + label, [float(f(values)) for f in (np.min, np.median, np.max)]))
    scale = "" if design.spec.transformation is None else f", on the scale of {design.spec.response}"
    kind = str(frame.attrs["mse"])
    return [*rows, *(f"  {line}" for line in textwrap.wrap(f"mse{scale}: {kind}", WIDTH - 2))]
