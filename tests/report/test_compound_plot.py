"""The picture of compound sampling draws the numbers of its result."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import hierlmm as hl


def axes() -> Axes:
    """Empty axes."""
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@pytest.mark.parametrize("full", [False, True])
def test_every_unit_is_drawn_with_its_direct_estimate_interval_and_prior_mean(full: bool) -> None:
    """From the largest estimate to the smallest, in the order of the axis."""
    case = hl.load("baseball/hits")
    result = hl.posterior(case.spec, case.data, draws=0, seed=1) if full else hl.fit(case.spec, case.data)
    units = result.units.sort_values("estimate", ascending=False, kind="stable")

    ax = result.plot(ax=axes())

    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}
    assert_allclose(lines["direct"][:, 0], units["direct"])
    assert_allclose(lines["posterior" if full else "empirical Bayes"][:, 0], units["estimate"])
    assert_allclose(lines["prior mean"][:, 0], units["prior_mean"])
    drawn = [np.asarray(path)[:, 0] for collection in ax.collections for path in collection.get_segments()]
    assert_allclose(drawn[len(units) :], units[["lower", "upper"]])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == units["unit"].tolist()


def test_of_many_units_those_with_the_largest_pull_are_drawn() -> None:
    """56 districts, 12 rows; labels and unit names that look like markup stay text."""
    from hierlmm.report.compound import plot_units

    case = hl.load("lip-cancer")
    fit = hl.fit(case.spec, case.data)
    ax = plot_units(fit, ax=axes(), limit=12)

    shown = {tick.get_text() for tick in ax.get_yticklabels()}
    pull = (fit.units["direct"] - fit.units["estimate"]).abs()
    assert shown == set(fit.units["unit"][pull.sort_values(ascending=False).index[:12]].astype(str))


def test_results_do_not_load_matplotlib() -> None:
    """Only drawing does."""
    code = (
        "import sys, hierlmm as hl; case = hl.load('lip-cancer'); str(hl.fit(case.spec, case.data)); "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
