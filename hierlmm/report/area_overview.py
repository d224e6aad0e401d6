"""The main plots of one area-level result on one figure, for a notebook or a file."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.report.appearance import SETTINGS
from hierlmm.report.area_figures import plot_density
from hierlmm.report.area_plots import AreaResult, plot_cv, plot_direct_model, plot_gamma
from hierlmm.report.quantiles import plot_residual_quantiles


def area_overview(result: AreaResult) -> Figure:
    """Direct against model estimates, weights, coefficients of variation, and residuals (a posterior: √A).

    The figure is complete, on a canvas of its own: it is shown by a notebook as it is, and saved by `savefig`.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11.0, 8.6))
        FigureCanvasAgg(figure)
        upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1.0])
        left, right = upper.subplots(1, 2)
        plot_direct_model(result, ax=left)
        plot_gamma(result, ax=right)
        left, right = lower.subplots(1, 2, width_ratios=[1.8, 1.0])
        plot_cv(result, ax=left)
        if isinstance(result, AreaPosterior):
            plot_density(result, ax=right)
        else:
            plot_residual_quantiles(result, ax=right)
        figure.draw_without_rendering()
    return figure
