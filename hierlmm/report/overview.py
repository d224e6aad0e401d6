"""The main plots of a comparison on one figure, for a notebook or a file."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hierlmm.compare.results import Comparison
from hierlmm.report.appearance import SETTINGS
from hierlmm.report.predicted import panel, panels
from hierlmm.report.profile import plot_profile
from hierlmm.report.quantiles import plot_residual_quantiles
from hierlmm.report.shrinkage import plot_caterpillar, plot_shrinkage
from hierlmm.report.waterfall import plot_attribution, plot_waterfall

# Rows of the tall plots, and profiles, that one figure has room for.
ROWS = 40
PROFILES = 3


def overview(comparison: Comparison) -> Figure:
    """Shrinkage and caterpillar, attribution, profiles and residuals on one figure of its own canvas.

    Of a mixed model the first random coefficient is drawn; of many rows those where the analyses differ most. The
    figure is complete: it is shown by a notebook as it is, and saved by `savefig`.
    """
    group, term = panels(comparison)[0]
    rows = len(panel(comparison, group, term, ROWS))
    tall = 1.1 + 0.19 * max(rows, 8)
    curves = comparison.fit.profile()[:PROFILES]
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(12.0, tall + 6.6))
        FigureCanvasAgg(figure)
        upper, middle, lower = figure.subfigures(3, 1, height_ratios=[tall, 3.3, 3.3])
        left, right = upper.subplots(1, 2)
        plot_shrinkage(comparison, ax=left, group=group, term=term, limit=ROWS)
        plot_caterpillar(comparison, ax=right, group=group, term=term, limit=ROWS)
        left, right = middle.subplots(1, 2, width_ratios=[1, 1.25])
        plot_waterfall(comparison, ax=left)
        plot_attribution(comparison, ax=right, limit=ROWS)
        *profiles, last = lower.subplots(1, len(curves) + 1, squeeze=False)[0]
        for curve, ax in zip(curves, profiles, strict=True):
            plot_profile(comparison, curve, ax=ax)
        plot_residual_quantiles(comparison.fit, ax=last)
        figure.draw_without_rendering()
    return figure
