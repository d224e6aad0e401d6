"""What is asked of an area-level fit: choice of a model, checks, exports; each computed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from hierlmm.frequentist.area.goodness import GoodnessOfFit, Moran
    from hierlmm.frequentist.area.influence import AreaInfluence
    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.area.selection import AreaSelection
    from hierlmm.frequentist.diagnostics.check import Check


def _fit(asked: AreaQuestions) -> AreaFit:
    return cast("AreaFit", asked)


class AreaQuestions:
    """The questions that an AreaFit answers about its model, each a line that leads to the module that computes it."""

    __slots__ = ()

    def selection(self, replicates: int = 0, *, seed: int | np.random.Generator | None = None) -> AreaSelection:
        """AIC, BIC and KIC from the likelihood of β and A; with replicates, their bootstrap corrections too.

        See `area.selection` for the formulas and `hl.compare_models` for several models side by side.
        """
        from hierlmm.frequentist.area.selection import selection

        return selection(_fit(self), replicates, seed)

    def check(self) -> Check:
        """What was looked at, what was found, and what to do: estimate of A, influence, residuals, direct estimates."""
        from hierlmm.frequentist.area.diagnostics import check

        return check(_fit(self))

    def influence(self, areas: Sequence[object] | None = None) -> AreaInfluence:
        """The fit without each area, or without each of `areas`, everything estimated again."""
        from hierlmm.frequentist.area.influence import area_influence

        return area_influence(_fit(self), areas)

    def goodness_of_fit(self) -> GoodnessOfFit:
        """Direct estimates against the model's: their regression, and the test of Brown et al.; see `area.goodness`."""
        from hierlmm.frequentist.area.goodness import goodness_of_fit

        return goodness_of_fit(_fit(self))

    def moran(self, proximity: object) -> Moran:
        """Moran's I of the residuals under a labelled square table of proximities, in any order of the areas."""
        from hierlmm.frequentist.area.goodness import moran

        return moran(_fit(self), proximity)

    def plot(self) -> Figure:
        """The plots of the report on one figure."""
        from hierlmm.report.area_overview import area_overview

        return area_overview(_fit(self))

    def report(self, path: str | Path, *, size: pd.Series | None = None) -> Path:
        """Write a self-contained HTML report; returns the path written.

        size  a Series by area, such as effective sample sizes, that the weights are drawn against
        """
        from hierlmm.report.area_page import write_area

        return write_area(_fit(self), path, size=size)

    def to_excel(self, path: str | Path) -> Path:
        """Write an .xlsx workbook with the sheets estimates, model, diagnostics and provenance; returns the path."""
        from hierlmm.report.workbook import write_workbook

        return write_workbook(_fit(self), path)

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Estimates of the kinds "fixed", "ran_pars", "ran_vals", "ran_coefs" or "all" in a frame: see `area.tidy`."""
        from hierlmm.frequentist.area.tidy import tidy

        return tidy(_fit(self), effects)

    def glance(self) -> pd.DataFrame:
        """The fit in one row, with the columns of every fit: see `lmm_tidy_glance`."""
        from hierlmm.frequentist.area.tidy import glance

        return glance(_fit(self))

    def augment(self) -> pd.DataFrame:
        """The areas with fitted values, residuals and leverage, with the columns of every fit: see `area.tidy`."""
        from hierlmm.frequentist.area.tidy import augment

        return augment(_fit(self))

    def to_latex(self, caption: str = "", label: str = "") -> str:
        """The fit as a LaTeX table for the package booktabs; `hierlmm.tabulate` sets several side by side."""
        from hierlmm.report.tables_lmm import tabulate

        return tabulate(_fit(self)).to_latex(caption, label)

    def to_html(self, caption: str = "") -> str:
        """The fit as an HTML table with its style; `hierlmm.tabulate` sets several side by side."""
        from hierlmm.report.tables_lmm import tabulate

        return tabulate(_fit(self)).to_html(caption)
