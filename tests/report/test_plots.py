"""Every plot draws the numbers of the result it is given, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from report_cases import comparison, hostile

from hierlmm.errors import DesignError
from hierlmm.report.appearance import FIT, POSTERIOR, plain
from hierlmm.report.density import sd_density
from hierlmm.report.overview import overview
from hierlmm.report.predicted import LIMIT, predicted
from hierlmm.report.profile import plot_profile
from hierlmm.report.quantiles import plot_effect_quantiles, plot_residual_quantiles, standardised_effects
from hierlmm.report.shrinkage import APART, plot_caterpillar, plot_shrinkage
from hierlmm.report.waterfall import chosen, plot_attribution, plot_waterfall


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def points(ax, label):
    """x and y of the points with this label."""
    return next(line for line in ax.lines if line.get_label() == label).get_xydata()


def segments(ax, label):
    """Ends (K, 2) of the horizontal lines with this label."""
    lines = next(c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() == label)
    return np.array([[segment[0, 0], segment[1, 0]] for segment in lines.get_segments()])


def test_shrinkage_draws_direct_estimate_eblup_and_posterior_with_their_intervals(ax):
    """Milk: the frames of fit and posterior, areas in the order of their sampling variances."""
    milk = comparison("milk")
    order = np.argsort(milk.fit.areas["sampling_variance"], kind="stable")
    ours, theirs = milk.fit.areas.iloc[order], milk.posterior.areas.iloc[order]

    returned = plot_shrinkage(milk, ax=ax)

    assert returned is ax
    assert_allclose(points(ax, "direct")[:, 0], ours["direct"])
    assert_allclose(points(ax, "regression")[:, 0], ours["synthetic"])
    assert_allclose(points(ax, "fit"), np.column_stack([ours["estimate"], np.arange(43) - APART]))
    assert_allclose(points(ax, "posterior"), np.column_stack([theirs["estimate"], np.arange(43) + APART]))
    assert_allclose(segments(ax, "fit, 95 %"), ours[["lower", "upper"]])
    assert_allclose(segments(ax, "posterior, 95 %"), theirs[["lower", "upper"]])
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(area) for area in ours["area"]]


def test_shrinkage_of_a_mixed_model_draws_fixed_plus_random(ax):
    """Sleepstudy slopes: beta + b of each subject, and beta as the line they are pulled to."""
    sleep = comparison("sleepstudy")
    ours = sleep.fit.group_coefficients
    days = ours[ours["term"] == "Days"].sort_values("estimate", ascending=False)

    plot_shrinkage(sleep, ax=ax, group="Subject", term="Days")

    assert_allclose(points(ax, "fit")[:, 0], days["estimate"])
    assert_allclose(segments(ax, "fit, 95 %"), days[["lower", "upper"]])
    assert_allclose(points(ax, "fixed effect")[:, 0], sleep.fit.fixed.set_index("term").loc["Days", "estimate"])


def test_caterpillar_is_sorted_and_has_both_intervals(ax):
    """Sleepstudy slopes: BLUPs from the largest, the posterior of the same subject beside each."""
    sleep = comparison("sleepstudy")
    ours, theirs = sleep.fit.random_effects, sleep.posterior.random_effects
    both = ours.merge(theirs, on=["group", "level", "term"], suffixes=("", "_y"))
    both = both[both["term"] == "Days"].sort_values("estimate", ascending=False)

    plot_caterpillar(sleep, ax=ax, group="Subject", term="Days")

    assert_allclose(points(ax, "fit")[:, 0], both["estimate"])
    assert_allclose(points(ax, "posterior")[:, 0], both["estimate_y"])
    assert_allclose(segments(ax, "posterior, 95 %"), both[["lower_y", "upper_y"]])
    assert [label.get_text() for label in ax.get_yticklabels()] == [str(level) for level in both["level"]]


def test_a_plot_of_many_areas_shows_those_that_differ_most(ax):
    """78 areas, 60 rows: none left out differs more than one that is shown."""
    frame = predicted(hostile())
    size = frame["in_sd"].abs().sort_values(ascending=False).to_numpy()

    plot_caterpillar(hostile(), ax=ax)

    shown = points(ax, "fit")[:, 0]
    left_out = frame[~frame["estimate"].isin(shown)]
    assert len(shown) == LIMIT
    assert left_out["in_sd"].abs().max() <= size[LIMIT - 1]


def test_waterfall_steps_lead_from_the_estimate_to_the_posterior_mean(ax):
    """Each bar starts where the one before ends; the first starts at the EBLUP, the last ends at the posterior mean."""
    milk = comparison("milk", "ml", "fixed=normal(0, 1)", "sd=halfnormal(0.1)")
    row = chosen(milk)
    distance = (milk.posterior.areas["estimate"] - milk.fit.areas["estimate"]).abs() / milk.posterior.areas["se"]

    plot_waterfall(milk, ax=ax)

    starts = np.array([bar.get_x() for bar in ax.patches])
    widths = np.array([bar.get_width() for bar in ax.patches])
    assert row == int(distance.argmax())
    assert_allclose(starts[0], milk.fit.areas["estimate"].iloc[row])
    assert_allclose(starts[1:], (starts + widths)[:-1])
    assert_allclose((starts + widths)[-1], milk.posterior.areas["estimate"].iloc[row], rtol=1e-12)
    assert np.all(widths[:4] != 0)


def test_stacked_steps_add_up_to_the_difference_in_posterior_sds(ax):
    """Bars above zero less bars below are the diamonds, which are (posterior mean - EBLUP) / posterior sd."""
    milk = comparison("milk", "ml", "fixed=normal(0, 1)", "sd=halfnormal(0.1)")
    theirs = milk.posterior.areas
    expected = np.sort((theirs["estimate"] - milk.fit.areas["estimate"]) / theirs["se"])

    plot_attribution(milk, ax=ax)

    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(5, 43)
    assert_allclose(points(ax, "difference")[:, 1], expected, rtol=1e-12)
    assert_allclose(heights.sum(axis=0), expected, atol=1e-12)


def test_reml_profile_is_the_posterior_density_under_a_flat_prior(ax):
    """Harville (1974), Biometrika 61:383-385: with √A flat the posterior of √A is the restricted likelihood."""
    milk = comparison("milk")
    (curve,) = milk.fit.profile()

    plot_profile(milk, curve, ax=ax)

    profile = points(ax, "profile of the fit")
    density = next(line for line in ax.lines if line.get_color() == POSTERIOR).get_xydata()
    inside = (density[:, 0] > curve.values[0]) & (density[:, 0] < curve.values[-1])
    at = np.interp(density[inside, 0], profile[:, 0], profile[:, 1])
    assert_allclose(profile[:, 1], np.exp(-curve.criterion / 2))
    assert_allclose(density[inside, 1], at, atol=5e-3)


@pytest.mark.parametrize(("name", "group", "term"), [("milk", "", ""), ("sleepstudy", "Subject", "Days"),
                                                     ("sleepstudy", "Residual", "")])  # fmt: skip
def test_densities_integrate_to_one_and_have_the_posterior_mean(name, group, term):
    """Trapezoids over the lattice to 1e-3; histograms leave out the upper half percent of the draws."""
    result = comparison(name)
    table = result.table[result.table["part"] == "variance"]
    mean = table[(table["quantity"] == "sd") & (table["group"] == group) & (table["term"].isin([term, "tau"]))]

    x, density = sd_density(result.posterior, group, term)

    assert_allclose(np.trapezoid(density, x), 1, atol=6e-3)
    assert_allclose(np.trapezoid(x * density, x), mean["posterior"].iloc[0], rtol=0.03)


def test_density_without_draws_comes_from_the_points_of_the_integral():
    """The same posterior asked for with and without draws: two histograms of one density."""
    import hierlmm as hl

    case = hl.load("dyestuff")
    x, density = sd_density(hl.posterior(case.spec, case.data, draws=0, seed=1), "Batch", "Intercept")

    assert_allclose(np.trapezoid(density, x), 1, atol=1e-2)


def test_residual_quantiles_are_the_ordered_standardised_residuals(ax):
    """Milk: residual over its exact sd against the normal quantile of (i - ½) / 43."""
    milk = comparison("milk")
    expected = np.sort(milk.fit.residuals["standardised"])

    plot_residual_quantiles(milk.fit, ax=ax)

    drawn = next(line for line in ax.lines if line.get_color() == FIT).get_xydata()
    assert_allclose(drawn[:, 1], expected)
    assert_allclose(drawn[:, 0], [NormalDist().inv_cdf((i + 0.5) / 43) for i in range(43)])


def test_standardised_effects_of_a_balanced_model_have_the_closed_form():
    """Dyestuff, balanced one-way: b̂ = κ (ȳ_i - ȳ) with Var(b̂) = κ² (1 - 1/6) (σ_b² + σ²/5), so κ cancels."""
    fit = comparison("dyestuff").fit
    y = fit.design.y.reshape(6, 5).mean(axis=1)
    spread = np.sqrt((1 - 1 / 6) * (fit.G[0][0, 0] + fit.sigma2 / 5))

    labels, effects = standardised_effects(fit, "Batch", "Intercept")

    assert labels == list("ABCDEF")
    assert_allclose(effects, (y - y.mean()) / spread, rtol=1e-9)


def test_a_variance_of_zero_leaves_no_effects_to_draw(ax):
    """Dyestuff2: every effect is zero, and an empty plot is no error."""
    fit = comparison("dyestuff2").fit

    plot_effect_quantiles(fit, ax=ax, group="Batch", term="Intercept")

    assert standardised_effects(fit, "Batch", "Intercept")[1].size == 0


@pytest.mark.parametrize("name", ["milk", "dyestuff2", "politeness/slopes", "penicillin"])
def test_overview_has_every_kind_of_plot(name):
    """Two plots of predicted means, two of the attribution, profiles and residuals, drawn without an error."""
    figure = overview(comparison(name))

    figure.canvas.draw()

    labels = [axes.get_xlabel() for axes in figure.axes]
    assert len(labels) >= 6
    assert "normal quantile" in labels


@pytest.mark.parametrize("name", ["$\\frac{1}{", "a\nb", "x" * 500, "{}", "\x00\x1b[31m", ""])
def test_names_are_drawn_letter_for_letter(ax, name):
    """No mathematics, no line breaks, no control characters, at most 26 letters; matplotlib can draw it."""
    text = plain(name)
    ax.set_xlabel(text)

    ax.figure.canvas.draw()

    assert text.isprintable()
    assert len(text.replace("\\$", "$")) <= 26


def test_a_report_never_loads_pyplot(tmp_path):
    """Neither the figures nor the page touch matplotlib's global state."""
    code = (
        "import sys, hierlmm as hl\n"
        "case = hl.load('dyestuff')\n"
        "c = hl.compare(hl.fit(case.spec, case.data), hl.posterior(case.spec, case.data, draws=10, seed=1))\n"
        f"c.report({str(tmp_path / 'r.html')!r}); c.plot()\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_effect_quantiles_default_to_the_first_group_and_coefficient(ax):
    """As the other plots of effects do, whose errors for unknown ones are these too."""
    fit = comparison("penicillin").fit
    first = fit.design.factors[0]

    plot_effect_quantiles(fit, ax=ax)

    drawn = next(line for line in ax.lines if line.get_color() == FIT).get_ydata()
    assert_allclose(drawn, np.sort(standardised_effects(fit, first.name, first.coefficients[0])[1]))
    assert first.name in ax.get_ylabel()
    with pytest.raises(DesignError, match=r"grouping factor of the model; found 'no', one of .*plate"):
        plot_effect_quantiles(fit, ax=ax, group="no")
    with pytest.raises(DesignError, match=r"random coefficient of .*found 'no', and it has Intercept"):
        plot_effect_quantiles(fit, ax=ax, term="no")
