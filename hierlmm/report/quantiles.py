"""Normal quantile plots of residuals and random effects of a fit."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.diagnostics.envelope import place_of
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.appearance import FIT, GUIDE, TEXT, plain

Array = NDArray[np.float64]

# Points named in a plot: the largest in absolute value.
NAMED = 3
# Order statistics drawn at each end of very many, and between.
OUTER, INNER = 500, 2000
NORMAL_975 = NormalDist().inv_cdf(0.975)


def standardised_residuals(fit: AreaFit | LMMFit) -> tuple[list[str], Array]:
    """Labels and residuals on the scale of a standard normal.

    Area level: direct estimate less regression estimate over its exact sd. Mixed models: conditional residual over
    the residual sd, empty where that is zero.
    """
    if isinstance(fit, AreaFit):
        frame = fit.residuals.dropna(subset=["standardised"])
        return [str(area) for area in frame["area"]], frame["standardised"].to_numpy()
    if fit.sigma2 <= 0:
        return [], np.zeros(0)
    residuals = fit.conditional_residuals
    return [str(row) for row in residuals.index], residuals.to_numpy() / np.sqrt(fit.sigma2)


def standardised_effects(fit: AreaFit | LMMFit, group: str = "", term: str = "") -> tuple[list[str], Array]:
    """Labels and predicted effects over the sds that these predictions have under the model.

    Var(b̂) = G - Var(b̂ - b). Area level: predicted area effects in units of y, since over their sds they are the
    standardised residuals. Empty where the variance is zero. The group and its coefficient are the first by default;
    raises DesignError for unknown ones.
    """
    if isinstance(fit, AreaFit):
        frame = fit.residuals
        effects = frame["effect"].to_numpy() if fit.A_hat > 0 else np.zeros(0)
        return [str(area) for area in frame["area"]][: effects.size], effects
    position, column = place_of(fit, group, term)
    factor = fit.design.factors[position]
    variance = fit.G[position][column, column] - fit.b_error[position][:, column, column]
    known = variance > 1e-10 * fit.G[position][column, column]
    effects = fit.b[position][known, column] / np.sqrt(variance[known])
    return [str(level) for level in factor.levels[known]], effects


def plot_residual_quantiles(fit: AreaFit | LMMFit, *, ax: Axes) -> Axes:
    """Draw the ordered standardised residuals against normal quantiles, with the line of equality. Returns `ax`."""
    labels, values = standardised_residuals(fit)
    _quantiles(ax, labels, values, (0.0, 1.0))
    ax.set_ylabel("standardised residual")
    return ax


def plot_effect_quantiles(fit: AreaFit | LMMFit, *, ax: Axes, group: str = "", term: str = "") -> Axes:
    """Draw the ordered predicted effects against normal quantiles. Returns `ax`.

    Standardised effects of a mixed model have the line of equality; area effects, in units of y, a line through their
    quartiles. The group and its coefficient are the first by default; raises DesignError for unknown ones.
    """
    labels, values = standardised_effects(fit, group, term)
    if isinstance(fit, AreaFit):
        _quantiles(ax, labels, values, _through_quartiles(values))
        ax.set_ylabel("predicted area effect")
    else:
        _quantiles(ax, labels, values, (0.0, 1.0))
        position, column = place_of(fit, group, term)
        factor = fit.design.factors[position]
        ax.set_ylabel(plain(f"{factor.coefficients[column]} | {factor.name}") + ", standardised")
    return ax


def normal_quantiles(n: int) -> Array:
    """Quantiles (n,) of the standard normal at (i - 0.5) / n."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def _through_quartiles(values: Array) -> tuple[float, float]:
    """Intercept and slope of the line through the first and third quartile."""
    low, high = np.quantile(values, [0.25, 0.75]) if values.size else (0.0, 0.0)
    return float(low + high) / 2, float(high - low) / (2 * NormalDist().inv_cdf(0.75))


def _shown(n: int) -> NDArray[np.intp]:
    """Order statistics that are drawn: all, or of many the outer ones and others evenly between them."""
    if n <= 2 * OUTER + INNER:
        return np.arange(n)
    inner = np.linspace(OUTER, n - OUTER - 1, INNER).astype(np.intp)
    return np.concatenate([np.arange(OUTER), inner, np.arange(n - OUTER, n)])


def _quantiles(ax: Axes, labels: list[str], values: Array, line: tuple[float, float]) -> None:
    """Points, line, a pointwise 95 % band from the standard error of an order statistic, and the farthest names.

    The sd of the i-th of n is about slope sqrt(p (1 - p) / n) / φ(z), p = (i - 0.5) / n (David & Nagaraja 2003).
    """
    order = np.argsort(values, kind="stable")
    z = normal_quantiles(values.size)
    intercept, slope = line
    p = (np.arange(values.size) + 0.5) / max(values.size, 1)
    density = np.array([NormalDist().pdf(x) for x in z])
    spread = slope * np.sqrt(p * (1 - p) / max(values.size, 1)) / np.where(density > 0, density, 1.0)
    centre = intercept + slope * z
    shown = _shown(values.size)
    band = NORMAL_975 * spread
    ax.fill_between(z[shown], (centre - band)[shown], (centre + band)[shown], color="0.9", linewidth=0)
    ax.plot(z[shown], centre[shown], color=GUIDE, linewidth=1)
    size = 3.2 if values.size < 400 else 1.8
    ax.plot(z[shown], values[order][shown], "o", color=FIT, markersize=size, linestyle="none")
    for k in np.argsort(np.abs(values[order]))[::-1][: NAMED if values.size > 5 else 0]:
        side = -1 if z[k] > 0 else 1
        ax.annotate(
            plain(labels[order[k]]), (float(z[k]), float(values[order[k]])), (5 * side, 0), color=TEXT,
            textcoords="offset points", ha="right" if side < 0 else "left", va="center", fontsize=7.5,
        )  # fmt: skip
    ax.set_xlabel("normal quantile")
