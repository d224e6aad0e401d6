"""The pictures of an area-level report: planned, drawn, and captioned for readers who did not run the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.report.appearance import POSTERIOR
from hierlmm.report.area_plots import (
    DRAWN,
    WITH_INTERVALS,
    AreaResult,
    plot_cv,
    plot_direct_model,
    plot_gamma,
)
from hierlmm.report.density import sd_density
from hierlmm.report.pictures import Picture, Plan, draw_all
from hierlmm.report.profile import plot_profile
from hierlmm.report.quantiles import plot_residual_quantiles, standardised_residuals

WIDTH, HALF = 7.4, 4.7


def area_pictures(result: AreaResult, size: pd.Series | None = None) -> tuple[Picture, ...]:
    """Every picture of the report of one result, drawn; `size` as in `plot_gamma`."""
    return draw_all([*before_and_after(result, size), *_checks(result)])


def before_and_after(result: AreaResult, size: pd.Series | None = None) -> Iterator[Plan]:
    """Estimates, coefficients of variation and weights against the direct estimates, for the section on areas."""
    m = int(result.design.sampled.sum())
    some = f" {DRAWN} of {m} areas are drawn, even in the rank of their sampling variances." if m > DRAWN else ""
    bayes = isinstance(result, AreaPosterior)
    word, error = ("posterior mean", "posterior sd") if bayes else ("EBLUP", "root of its mean squared error")
    bars = f" Bars are one standard error: of the direct estimate, and of the model ({error})."
    yield Plan(
        place="means", title="Direct and model estimates", size=(HALF, 4.6), wide=False,
        draw=partial(plot_direct_model, result),
        caption=f"One point an area. On the dashed line the model changes nothing; a flatter cloud is the pull of "
        f"the {word} towards the regression.{bars if m <= WITH_INTERVALS else ''} The areas moved farthest, in "
        f"sds of their direct estimates, are named.{some}",
    )  # fmt: skip
    yield Plan(
        place="means", title="The weight of the direct estimate", size=(HALF, 3.7), wide=False,
        draw=partial(plot_gamma, result, size=size), caption=_gamma_caption(result, size),
    )  # fmt: skip
    yield Plan(
        place="means", title="Coefficients of variation, before and after", size=(WIDTH, 3.6), wide=True,
        draw=partial(plot_cv, result),
        caption=f"Open circle: direct estimate; filled: {word}. One column an area, by the sampling variance of the "
        "direct estimate; an orange line marks an area in which the model's is larger. A coefficient of variation is "
        f"large where an estimate is near zero, whatever its error.{some}",
    )  # fmt: skip


def _gamma_caption(result: AreaResult, size: pd.Series | None) -> str:
    if isinstance(result, AreaPosterior):
        return "E[γ | y], the posterior mean of A / (A + D): 1 keeps the direct estimate, 0 replaces it."
    if result.spec.matrices:
        return "γ, the weight of an area's own direct estimate: those of correlated areas count as well."
    text = "γ = A / (A + D): 1 keeps the direct estimate, 0 replaces it by the regression."
    if size is not None:
        return text + " Areas of one size differ where their sampling variances do."
    band = " The band is what the 95 % interval of A leaves open, for all areas together."
    return text + band + (" A is estimated as zero, and so is every weight." if result.A_hat == 0 else "")


def _checks(result: AreaResult) -> Iterator[Plan]:
    if isinstance(result, AreaPosterior):
        yield Plan(
            place="checks", title="What the data say about √A", size=(4.6, 3.1), wide=False,
            draw=partial(plot_density, result),
            caption="Posterior density of the sd of the area effects, over its maximum.",
        )  # fmt: skip
        return
    if standardised_residuals(result)[1].size > 2:
        yield Plan(
            place="checks", title="Residuals", size=(3.9, 3.6), wide=False,
            draw=partial(plot_residual_quantiles, result),
            caption="Direct less regression estimate over its sd, against normal quantiles; on the line where the "
            "model holds. Standardised area effects are the same numbers. Grey: pointwise 95 % band. The three largest "
            "are named.",
        )  # fmt: skip
    for curve in result.profile():
        yield Plan(
            place="checks", title=f"What the data say about {curve.label}", size=(4.6, 3.1), wide=False,
            draw=partial(plot_profile, result, curve),
            caption=f"Relative likelihood of {'the sd of the area effects' if curve.label == '√A' else curve.label}; "
            "the right axis reads it as the criterion above its minimum. Where it is above the dashed line (3.84) lies "
            "the 95 % profile interval. Dot: the estimate that is plugged in.",
        )  # fmt: skip


def plot_density(posterior: AreaPosterior, *, ax: Axes) -> Axes:
    """Draw the posterior density of √A over its maximum. Returns `ax`."""
    points, density = sd_density(posterior, "", "")
    if points.size:
        ax.fill_between(points, density / density.max(), color=POSTERIOR, alpha=0.28, linewidth=0)
        ax.plot(points, density / density.max(), color=POSTERIOR, linewidth=0.9)
        right = float(points[density > 0.005 * density.max()].max())
        left = float(np.min(points))
        ax.set_xlim(0.0 if left < 0.35 * right else left, right)
    ax.set_ylim(0.0, 1.06)
    ax.set_yticks([0.0, 0.5, 1.0])
    ax.set_xlabel("√A")
    ax.set_ylabel("relative height")
    return ax
