"""Smoothed sampling variances as plain text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.survey.gvf import LogLinearGVF
from hierlmm.survey.text import row, spread_rows, wrapped

if TYPE_CHECKING:
    from hierlmm.survey.smoothing_results import SmoothedVariances

CORRECTIONS = {
    "smearing": "the mean of exp(residual) (smearing)",
    "lognormal": "exp(s²/2) (lognormal)",
    "ratio": "the ratio of the sums",
}


def summary(result: SmoothedVariances) -> str:
    """The function and its fit, then the distribution over areas, then notes."""
    lines = [*_function(result), "", *_areas(result)]
    for note in result.notes:
        lines += ["", *wrapped(note)]
    return "\n".join(line.rstrip() for line in lines)


def _function(result: SmoothedVariances) -> Iterator[str]:
    numbers, model = result.diagnostics, result.model
    if isinstance(model, LogLinearGVF):
        yield from wrapped(f"Sampling variances smoothed: {model.formula}")
        yield row("Coefficients", list(result.coefficients.columns[1:]))
    else:
        yield from wrapped(f"Sampling variances of proportions, deff p(1 - p)/n with p {model.proportion}")
        yield row("Constants", ["estimate"])
    for name, *values in result.coefficients.itertuples(index=False):
        yield row(name, [float(value) for value in values])
    if isinstance(model, LogLinearGVF):
        explained = round(numbers["r_squared"], 3) + 0.0  # no -0.000
        yield from wrapped(
            f"  R² {explained:.3f} on the log scale, residual sd {numbers['residual_sd']:.4g}; the way back "
            f"is multiplied by {CORRECTIONS[model.correction]}, {numbers['correction']:.4g}"
        )
    yield from wrapped(
        f"  Sum of the estimated variances over that of the smoothed, {int(numbers['areas_fitted'])} areas in the fit: "
        f"{numbers['ratio_of_sums']:.4g}"
    )


def _areas(result: SmoothedVariances) -> Iterator[str]:
    frame = result.areas
    counts = [f"{int((result.role == role).sum())} {role}" for role in np.unique(result.role)]
    yield row(f"{len(frame)} areas: {', '.join(counts)}", ["smallest", "median", "largest"])
    labels = {
        "raw_variance": "variance as estimated",
        "smoothed_variance": "smoothed",
        "ratio": "smoothed over estimated",
        "variance": "variance to use",
    }
    yield from spread_rows(frame, labels)
