"""Residuals against fitted values and against each predictor."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.diagnostics.residuals import ResidualKind
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.report.appearance import AXIS, FIT, GUIDE, POSTERIOR, TEXT, plain
from hierlmm.report.diagnostics_boxes import draw_boxes
from hierlmm.report.diagnostics_table import rows_of
from hierlmm.report.quantiles import NAMED

Array = NDArray[np.float64]

# Different values from which a numeric predictor is drawn as a scatter with a trend rather than value by value.
CONTINUOUS = 8
# Share of the points that a local fit uses, and how many places it is computed at.
SPAN, PLACES = 2 / 3, 60
# A residual beyond this is named.
NAMED_FROM = 3.0


def plot_residuals_fitted(
    fit: LMMFit,
    *,
    ax: Axes,
    kind: ResidualKind = "studentised",
    fitted: Literal["conditional", "marginal"] | None = None,
) -> Axes:
    """Draw residuals of one kind against the fitted values, with a local trend. Returns `ax`.

    fitted  conditional (with random effects) or marginal (without); default: marginal for marginal and Cholesky-scaled
            residuals, which contain the random effects, else conditional
    """
    chosen = fitted or ("marginal" if kind in ("marginal", "cholesky") else "conditional")
    if chosen not in ("conditional", "marginal"):
        raise FitError(f"`fitted` is 'conditional' or 'marginal'; found {fitted!r}. Use one of these.")
    residuals = fit.residuals(kind)
    x = fit.conditional_fitted if chosen == "conditional" else fit.marginal_fitted
    _scatter(ax, x.to_numpy(), residuals, kind)
    what = "Xβ + Zb" if chosen == "conditional" else "Xβ"
    ax.set_xlabel(f"{chosen} fitted value, {what}")
    return ax


def plot_residuals_predictor(fit: LMMFit, predictor: str, *, ax: Axes, kind: ResidualKind = "studentised") -> Axes:
    """Draw residuals of one kind against a column of the data that the model reads; boxes for categories. Returns `ax`.

    Raises DesignError for a column that is not in the table of the fit.
    """
    residuals = fit.residuals(kind)
    x = rows_of(fit, predictor)
    if pd.api.types.is_numeric_dtype(x) and x.nunique() >= CONTINUOUS:
        _scatter(ax, x.to_numpy(dtype=np.float64), residuals, kind)
    else:
        _boxes(ax, x, residuals, kind)
    ax.set_xlabel(plain(predictor, AXIS))
    return ax


def _scatter(ax: Axes, x: Array, residuals: pd.Series, kind: ResidualKind) -> None:
    y = residuals.to_numpy()
    known = np.isfinite(y)
    _zero(ax, kind)
    many = known.sum() > 1000
    ax.plot(
        x[known], y[known], "o", color=FIT, markersize=2.0 if many else 3.4, alpha=0.35 if many else 0.75,
        linestyle="none", markeredgewidth=0,
    )  # fmt: skip
    if len(np.unique(x[known])) >= CONTINUOUS:
        at, trend = local_trend(x[known], y[known])
        ax.plot(at, trend, color=POSTERIOR, linewidth=1.4, label="local trend")
        ax.legend(loc="best", frameon=False, fontsize="x-small")
    _name(ax, x, residuals, kind)
    ax.set_ylabel(f"{kind} residual")


def _zero(ax: Axes, kind: ResidualKind) -> None:
    ax.axhline(0, color=GUIDE, linewidth=1, zorder=0)
    if kind not in ("marginal", "conditional"):
        for place in (-2, 2):
            ax.axhline(place, color=GUIDE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)


def _name(ax: Axes, x: Array, residuals: pd.Series, kind: ResidualKind) -> None:
    """Labels of the largest residuals, where they are on the scale of standard deviations and beyond 3."""
    if kind in ("marginal", "conditional"):
        return
    y = residuals.to_numpy()
    size = np.nan_to_num(np.abs(y))
    middle = 0.5 * (float(x.min()) + float(x.max()))
    for k in np.argsort(-size, kind="stable")[:NAMED]:
        if size[k] > NAMED_FROM:
            side = -1 if x[k] > middle else 1
            ax.annotate(
                plain(residuals.index[k]), (float(x[k]), float(y[k])), (5 * side, 0), color=TEXT, fontsize=7.5,
                textcoords="offset points", ha="right" if side < 0 else "left", va="center",
            )  # fmt: skip


def _boxes(ax: Axes, x: pd.Series, residuals: pd.Series, kind: ResidualKind) -> None:
    """A box for each value, with the rows beside it where they are few."""
    y = residuals.to_numpy()
    levels = _levels(x)
    _zero(ax, kind)
    parts = [y[(x == level).to_numpy() & np.isfinite(y)] for level in levels]
    draw_boxes(ax, parts, [plain(level) for level in levels])
    ax.set_ylabel(f"{kind} residual")


def _levels(x: pd.Series) -> list[object]:
    if isinstance(x.dtype, pd.CategoricalDtype):
        return [level for level in x.cat.categories if (x == level).any()]
    return sorted(x.unique().tolist(), key=lambda value: (str(type(value)), value))


def local_trend(x: Array, y: Array) -> tuple[Array, Array]:
    """Places (60,) over the range of x (n,) and a local linear fit of y there, by tricube weights.

    Cleveland (1979), JASA 74:829-836, without robustness steps: an outlier is to be seen, not smoothed away.
    """
    centre = float(x.mean())
    at = np.linspace(x.min(), x.max(), PLACES)
    need = max(int(np.ceil(SPAN * len(x))), 2)
    out = np.empty(PLACES)
    for k, place in enumerate(at):
        distance = np.abs(x - place)
        width = max(float(np.partition(distance, need - 1)[need - 1]) * 1.0001, 1e-12 * max(abs(centre), 1.0))
        weight = np.clip(1 - (distance / width) ** 3, 0.0, None) ** 3
        total = weight.sum()
        mean_x, mean_y = weight @ (x - place) / total, weight @ y / total
        spread = weight @ (x - place - mean_x) ** 2
        slope = weight @ ((x - place - mean_x) * y) / spread if spread > 0 else 0.0
        out[k] = mean_y - slope * mean_x
    return at, out
