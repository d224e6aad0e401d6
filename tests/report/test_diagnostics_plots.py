"""The pictures of diagnostics draw the numbers of the result they are given."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics.envelope import residual_envelope
from hierlmm.frequentist.diagnostics.type1 import exact_rate
from hierlmm.report.appearance import FIT, POSTERIOR
from hierlmm.report.diagnostics_groups import plot_fitted_lines, plot_group_boxes, plot_spaghetti
from hierlmm.report.diagnostics_influence import plot_effects, plot_influence, plot_type1
from hierlmm.report.diagnostics_quantiles import plot_effect_envelope, plot_residual_envelope
from hierlmm.report.diagnostics_residuals import local_trend, plot_residuals_fitted, plot_residuals_predictor
from hierlmm.report.quantiles import normal_quantiles


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@cache
def fitted(name: str) -> hl.LMMFit:
    case = hl.load(name)
    return hl.fit(case.spec, case.data)


def points(ax, color=FIT):
    """x and y of all marked points of a colour."""
    return np.concatenate(
        [line.get_xydata() for line in ax.lines if line.get_color() == color and line.get_linestyle() == "None"]
    )


def test_quantile_plots_draw_every_residual_once(ax):
    """Inside and outside points together are the ordered Pearson residuals at normal quantiles of (i - ½) / n."""
    fit = fitted("sleepstudy")
    found = residual_envelope(fit, 99, seed=3)

    assert plot_residual_envelope(fit, ax=ax, draws=99, seed=3) is ax

    drawn = np.concatenate([points(ax), points(ax, POSTERIOR)])
    drawn = drawn[np.argsort(drawn[:, 0])]
    assert_allclose(drawn, np.column_stack([normal_quantiles(180), found.values]))
    assert len(points(ax, POSTERIOR)) == len(found.outside)
    assert {"56", "59"} <= {text.get_text() for text in ax.texts}


def test_effects_of_no_variance_are_said_to_be_zero(ax):
    """Dyestuff2."""
    plot_effect_envelope(fitted("dyestuff2"), ax=ax, draws=99)

    assert_allclose(points(ax)[:, 1], 0)
    assert any("estimated as zero" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize(("kind", "fitted_by"), [("studentised", "conditional"), ("cholesky", "marginal")])
def test_residuals_stand_over_their_fitted_values(ax, kind, fitted_by):
    """What contains the random effects is drawn over Xβ, what does not over Xβ + Zb."""
    fit = fitted("sleepstudy")

    plot_residuals_fitted(fit, ax=ax, kind=kind)

    assert_allclose(points(ax), np.column_stack([getattr(fit, f"{fitted_by}_fitted"), fit.residuals(kind)]))


def test_residuals_stand_over_a_predictor_at_the_rows_of_the_fit(ax):
    """Politeness has a missing response: the predictor is read at the other 83 rows; categories have boxes."""
    fit = fitted("politeness/slopes")
    residuals = fit.residuals("studentised")
    polite = fit.design.table["attitude"].loc[fit.design.index].to_numpy() == "pol"

    plot_residuals_predictor(fit, "attitude", ax=ax)

    drawn = points(ax)
    assert len(drawn) == 83
    assert_allclose(np.sort(drawn[drawn[:, 0] > 0.5, 1]), np.sort(residuals[polite]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["inf", "pol"]


def test_the_local_trend_of_a_line_is_the_line():
    """Local linear fits reproduce lines; x far from zero, and with ties."""
    x = 1e6 + np.random.default_rng(1).integers(0, 30, 200).astype(float)

    at, trend = local_trend(x, 3 - 2 * (x - 1e6))

    assert_allclose(trend, 3 - 2 * (at - 1e6), atol=1e-6)


def test_lines_of_a_random_intercept_are_parallel_and_the_fixed_line_is_among_them(ax):
    """Each subject's line has the fixed slope; the thick one is Xβ."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), hl.load("sleepstudy").data)

    plot_fitted_lines(fit, "Days", ax=ax)

    lines = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "-" and line.get_color() == FIT]
    (thick,) = [line.get_xydata() for line in ax.lines if line.get_color() == POSTERIOR]
    assert len(lines) == 18
    for line in lines:
        assert_allclose(np.diff(line[:, 1]), fit.beta[1], rtol=1e-9)
    assert_allclose(thick[:, 1], fit.beta[0] + fit.beta[1] * np.arange(10))


def test_spaghetti_joins_the_rows_of_each_group_and_the_mean_of_all(ax):
    """Sitka: 79 trees at five times; the thick line is the mean of the trees."""
    fit = fitted("sitka")
    data = hl.load("sitka").data

    plot_spaghetti(fit, "Time", ax=ax)

    *trees, mean = [line.get_xydata() for line in ax.lines]
    assert len(trees) == 79
    assert_allclose(np.concatenate(trees)[:, 1].sum(), data["size"].sum())
    assert_allclose(mean[:, 1], data.groupby("Time")["size"].mean())


def test_boxes_are_sorted_by_their_median_and_hold_every_row(ax):
    """Penicillin by sample."""
    fit = fitted("penicillin")
    medians = hl.load("penicillin").data.groupby("sample", observed=True)["diameter"].median()

    plot_group_boxes(fit, ax=ax, group="sample")

    names = [label.get_text() for label in ax.get_xticklabels()]
    assert medians[names].is_monotonic_increasing
    assert len(points(ax)) == 144


def test_influence_plots_draw_cooks_distance_and_mark_what_is_named(ax):
    """Forty groups, one far off."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"g": np.repeat(np.arange(40), 6), "x": rng.normal(size=240)})
    table["y"] = table["x"] + rng.normal(size=40)[table["g"]] + rng.normal(size=240)
    table.loc[table["g"] == 7, "y"] += 9
    found = hl.fit(hl.lmm("y ~ x + (1 | g)"), table).influence("g")

    plot_influence(found, ax=ax)

    assert_allclose(points(ax, POSTERIOR), [[7, found.frame["cook"].iloc[7]]])
    assert len(points(ax)) == 39
    assert "7" in {text.get_text() for text in ax.texts}


def test_caterpillars_are_sorted_and_have_the_intervals_of_the_frame(ax):
    """Sleepstudy slopes."""
    fit = fitted("sleepstudy")
    frame = fit.random_effects.query("term == 'Days'").sort_values("estimate")

    plot_effects(fit, ax=ax, group="Subject", term="Days")

    bars = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert_allclose([[s[0, 0], s[1, 0]] for s in bars.get_segments()], frame[["lower", "upper"]])
    assert_allclose(points(ax)[:, 0], frame["estimate"])
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(level) for level in frame["level"]]


def test_of_many_levels_the_lowest_and_the_highest_are_shown(ax):
    """79 trees, 60 rows, and the title says so."""
    fit = fitted("sitka")
    estimates = np.sort(fit.b[0][:, 0])

    plot_effects(fit, ax=ax)

    assert_allclose(points(ax)[:, 0], np.r_[estimates[:30], estimates[-30:]])
    assert "60 of 79" in ax.get_title()


def test_the_price_of_ignoring_groups_is_drawn_with_its_exact_curve(ax):
    """Points are the simulated rates, curves the exact ones, at any correlation between."""
    result = hl.simulate_type1([0, 0.1, 0.3], [5, 20], 8, 500, seed=1)

    plot_type1(result, ax=ax)

    curve = next(line for line in ax.lines if line.get_color() == FIT and len(line.get_xdata()) > 50).get_xydata()
    assert_allclose(curve[50, 1], exact_rate(curve[50, 0], 5, 8, 0.05))


def test_columns_and_groups_that_are_not_there_are_refused(ax):
    """The rule, what was found, and what there is."""
    fit, polite = fitted("sleepstudy"), fitted("politeness/slopes")
    with pytest.raises(hl.DesignError, match=r"columns that its model reads; found 'Age'"):
        plot_residuals_predictor(fit, "Age", ax=ax)
    with pytest.raises(hl.DesignError, match=r"`group` must be what the rows are grouped by; found 'Tree'"):
        plot_spaghetti(fit, "Days", ax=ax, group="Tree")
    with pytest.raises(hl.DesignError, match="Lines are drawn along a numeric column; attitude holds"):
        plot_fitted_lines(polite, "attitude", ax=ax)
    with pytest.raises(hl.FitError, match=r"`fitted` is 'conditional' or 'marginal'; found 'both'"):
        plot_residuals_fitted(fit, ax=ax, fitted="both")
    doubled = hl.load("politeness").data.set_index(np.zeros(84, dtype=int))
    with pytest.raises(hl.DesignError, match=r"labels of this one are not unique.*reset_index"):
        plot_residuals_predictor(hl.fit(hl.load("politeness").spec, doubled), "attitude", ax=ax)


def test_other_predictors_are_held_along_a_fitted_line(ax):
    """With a second predictor that jumps about, the fixed line is still straight, at that predictor's mean."""
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "x": np.tile(np.arange(8.0), 12), "z": rng.normal(size=96)})
    table["y"] = table["x"] + 5 * table["z"] + rng.normal(size=12)[table["g"]] + rng.normal(size=96)
    fit = hl.fit(hl.lmm("y ~ x + z + (1 | g)"), table)

    plot_fitted_lines(fit, "x", ax=ax)

    (thick,) = [line.get_xydata() for line in ax.lines if line.get_color() == POSTERIOR]
    assert_allclose(thick[:, 1], fit.beta[0] + fit.beta[1] * np.arange(8) + fit.beta[2] * table["z"].mean())


def test_of_many_values_those_beyond_the_whiskers_are_drawn_beside_the_box(ax):
    """500 rows of each category: no more than one in twenty is a point; names are letter for letter."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {"g": np.repeat(np.arange(20), 50), "k": np.tile(["$x$", "b"], 500), "y": rng.normal(size=1000)}
    )
    fit = hl.fit(hl.lmm("y ~ k + (1 | g)"), table)

    plot_residuals_predictor(fit, "k", ax=ax)
    ax.figure.canvas.draw()

    assert len(points(ax)) < 50
    assert [label.get_text() for label in ax.get_xticklabels()] == [r"\$x\$", "b"]
