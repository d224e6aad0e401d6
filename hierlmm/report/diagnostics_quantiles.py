"""Normal quantile plots with envelopes from data simulated from the fitted model and fitted again."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hierlmm.frequentist.diagnostics.envelope import Envelope, effect_envelope, residual_envelope
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, TEXT, plain
from hierlmm.report.quantiles import NAMED, normal_quantiles

# Normal quantile beyond which a point outside the bands is named: in the middle all are close together.
TAIL = 1.5


def plot_residual_envelope(fit: LMMFit, *, ax: Axes, draws: int = 499, seed: int = 1) -> Axes:
    """Draw the ordered Pearson residuals against normal quantiles, with simulation envelopes. Returns `ax`.

    Raises as `residual_envelope` does.
    """
    _draw(residual_envelope(fit, draws, seed=seed), ax)
    ax.set_ylabel("Pearson residual")
    return ax


def plot_effect_envelope(
    fit: LMMFit, *, ax: Axes, group: str = "", term: str = "Intercept", draws: int = 499, seed: int = 1
) -> Axes:
    """Draw the ordered predicted random effects `term` of `group` (default: the first factor) with envelopes.

    Where the variance of the effects is zero all of them are zero, and the plot shows that. Returns `ax`; raises as
    `effect_envelope` does.
    """
    found = effect_envelope(fit, group, term, draws, seed=seed)
    _draw(found, ax)
    if not found.values.any():
        ax.annotate("the variance is estimated as zero:\nso is every effect", (0.97, 0.05), xycoords="axes fraction",
                    ha="right", va="bottom", fontsize="small", color=TEXT)  # fmt: skip
    name = group or fit.design.factors[0].name
    ax.set_ylabel(plain(f"random effect: {term} by {name}", AXIS))
    return ax


def _draw(found: Envelope, ax: Axes) -> None:
    """Bands, the middle of the simulations, the values, and the names of those farthest outside."""
    n, percent = len(found.values), f"{100 * found.level:g} %"
    z = normal_quantiles(n)
    ax.fill_between(
        z, found.all_lower, found.all_upper, color="0.92", linewidth=0, label=f"{percent}, all points together"
    )
    ax.fill_between(z, found.lower, found.upper, color="0.82", linewidth=0, label=f"{percent}, point by point")
    ax.plot(z, found.middle, color=GUIDE, linewidth=1, label="mean of simulations")
    outside = np.isin(np.arange(n), np.flatnonzero((found.values < found.all_lower) | (found.values > found.all_upper)))
    size = 3.4 if n < 400 else 1.8
    ax.plot(z[~outside], found.values[~outside], "o", color=FIT, markersize=size, linestyle="none", label="data")
    if outside.any():
        ax.plot(
            z[outside], found.values[outside], "D", color=POSTERIOR, markersize=size, linestyle="none",
            label=f"outside ({int(outside.sum())})",
        )  # fmt: skip
    farthest = np.flatnonzero(outside)[np.argsort(-np.abs(z[outside]), kind="stable")][:NAMED]
    for k in farthest:
        if abs(z[k]) > TAIL:
            side = -1 if z[k] > 0 else 1
            ax.annotate(
                plain(found.labels[k]), (float(z[k]), float(found.values[k])), (5 * side, 0), color=TEXT,
                textcoords="offset points", ha="right" if side < 0 else "left", va="center", fontsize=7.5,
            )  # fmt: skip
    ax.set_xlabel("normal quantile")
    lost = f"; {found.failures} failed" if found.failures else ""
    ax.set_title(f"{found.draws} data sets simulated from the fit and refitted{lost}", fontsize="small")
    ax.legend(loc="upper left", frameon=False, fontsize="x-small", handlelength=1.4)
