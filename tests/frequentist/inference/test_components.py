"""fit.test_component: published answers, which of them is exact, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import DesignError, FitError, SpecError


def fitted(name, formula, method="reml", **options):
    return hl.fit(hl.lmm(formula, **options), hl.load(name).data, method=method)


@pytest.mark.parametrize(
    ("method", "statistic", "mixture"), [("ml", 5.402826093645956, 0.01005), ("reml", 6.368955313621143, 0.0058067)]
)
def test_dyestuff_s_exact_answers_are_one(method, statistic, mixture):
    """Mixtures 0.01005 (ML) and 0.0058067 (REML) against the exact 0.0043975 of five tests (balanced one-way)."""
    tests = fitted("dyestuff", "Yield ~ 1 + (1 | Batch)", method).test_component("Batch", bootstrap=0)

    frame = tests.frame.set_index("test")
    exact = frame[frame["exact"]]
    label = {"ml": "LRT", "reml": "RLRT"}[method]
    assert len(exact) == 5
    assert exact["p"].to_numpy() == pytest.approx(0.004397531268306173, rel=1e-10)
    assert (exact["mc_error"] == 0).all()
    assert frame.loc[f"{label}, chi-bar-square mixture", "p"] == pytest.approx(mixture, abs=5e-6)
    assert frame.loc[f"{label}, exact", "statistic"] == pytest.approx(statistic, rel=1e-9)
    assert tests.answer.exact


def test_a_zero_estimate_has_likelihood_ratio_zero_and_p_one():
    """Dyestuff2: RLRT 0; F(5, 24) = 0.5578 keeps its own p, 0.7311."""
    frame = fitted("dyestuff2", "Yield ~ 1 + (1 | Batch)").test_component("Batch").frame.set_index("test")

    ratios = frame[frame.index.str.contains("LRT")]
    assert (ratios["statistic"] == 0).all()
    assert (ratios["p"] == 1).all()
    assert frame.loc["F by projections (Wald)", "p"] == pytest.approx(0.7310992306369248, rel=1e-10)


def test_a_slope_with_its_covariance():
    """Sitka: 39.80992 and 1.273288e-09 (nlme); the exact F is given, the exact likelihood ratio said not to be."""
    tests = fitted("sitka", "size ~ Time + (Time | tree)").test_component("tree", "Time", bootstrap=0)

    row = tests.frame.set_index("test").loc["RLRT, chi-bar-square mixture"]
    assert row["statistic"] == pytest.approx(39.80992, abs=5e-6)
    assert row["p"] == pytest.approx(1.2732898937971343e-09, rel=1e-6)
    assert row["reference"] == "½ chi²(1) + ½ chi²(2)"
    assert tests.answer.test == "F by projections (Wald)"
    assert "RLRT, exact" in dict(tests.inapplicable)


@pytest.mark.parametrize(
    ("name", "formula", "group", "term", "statistic", "p"),
    [
        ("politeness", "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)", "scenario", None,
         11.289203258100542, 0.00036),
        ("sleepstudy", "Reaction ~ Days + (Days || Subject)", "Subject", "Days", 42.79579181344002, 0.0),
    ],
)  # fmt: skip
def test_the_conditional_ratio_is_rlrsim_s(name, formula, group, term, statistic, p):
    """RLRsim 3.1.8 with m, mA, m0, 1e5 draws: p within four errors; said to be approximate."""
    row = (
        fitted(name, formula).test_component(group, term, bootstrap=0).frame.set_index("test").loc["RLRT, conditional"]
    )

    assert row["statistic"] == pytest.approx(statistic, rel=1e-8)
    assert abs(row["p"] - p) < 4 * np.sqrt(max(row["p"], 1e-9) / 1e5)
    assert not row["exact"]


def test_two_variances_at_once_use_the_correlation_of_their_information():
    """Penicillin: Z'PZ at the null is known in closed form, so are the two weights; balanced, so rho is near zero."""
    fit = fitted("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)")

    row = (
        fit.test_component(("plate", "sample"), bootstrap=0).frame.set_index("test").loc["RLRT, chi-bar-square mixture"]
    )

    # with sigma² eliminated: tr(A_i A_j) - tr A_i tr A_j / 143 for A = M ZZ' M, eigenvalues 6 (23 times), 24 (5 times)
    info = np.array([[23 * 36 - (23 * 6) ** 2 / 143, -(23 * 6) * (5 * 24) / 143], [0, 5 * 576 - (5 * 24) ** 2 / 143]])
    rho = -info[0, 1] / np.sqrt(info[0, 0] * info[1, 1])
    both = 0.25 + np.arcsin(rho) / (2 * np.pi)
    assert row["reference"] == f"{0.5 - both:.4f} chi²(0) + ½ chi²(1) + {both:.4f} chi²(2)"


def test_a_whole_block_is_tested_in_any_basis():
    """Intercept and slope of Sitka at once: the mixture does not depend on the origin of Time, to simulation error."""
    table = hl.load("sitka").data
    fits = [
        hl.fit(hl.lmm("size ~ Time + (Time | tree)"), table.assign(Time=table["Time"] - origin)) for origin in (0, 200)
    ]

    rows = [fit.test_component("tree", bootstrap=0).frame.set_index("test") for fit in fits]

    for name in rows[0].index:
        a, b = (row.loc[name] for row in rows)
        assert a["statistic"] == pytest.approx(b["statistic"], rel=1e-7)
        assert a["p"] == pytest.approx(b["p"], rel=1e-5 + 8 * a["mc_error"] / a["p"])


def test_a_ratio_other_than_zero_is_two_sided_and_exact():
    """Dyestuff at the ratio 0.5: F / (1 + 5 · 0.5) is F(5, 24); at the REML ratio the likelihood ratio is zero."""
    from scipy import stats

    fit = fitted("dyestuff", "Yield ~ 1 + (1 | Batch)")
    F = 4.598266190719021 / 3.5

    frame = fit.test_component("Batch", value=0.5, draws=2000).frame.set_index("test")
    at_fit = fit.test_component("Batch", value=1764.05 / 2451.25, draws=100).frame.set_index("test")

    row = frame.loc["F by projections (Wald)"]
    assert row["statistic"] == pytest.approx(F, rel=1e-10)
    assert row["p"] == pytest.approx(2 * min(stats.f.sf(F, 5, 24), stats.f.cdf(F, 5, 24)), rel=1e-10)
    assert at_fit.loc["RLRT, exact", "statistic"] == pytest.approx(0.0, abs=1e-9)


def test_the_exact_ratio_at_another_value_has_its_size():
    """5 % points of the law at the ratio 0.5: plain draws of one-way data by hand, four errors."""
    from hierlmm.frequentist.inference.components_space import Pieces
    from hierlmm.frequentist.inference.rlrt import Law

    law = Law.of(Pieces(np.full(5, 5.0), np.ones(5), 1.0, 24, np.full(6, 5.0), 30, 1), "reml")
    draws = law.draws(100_000, np.random.default_rng(1), 0.5)
    rng = np.random.default_rng(2)

    S, R = 3.5 * rng.chisquare(5, 100_000), rng.chisquare(24, 100_000)
    a = np.maximum(S / 5 / (R / 24), 1.0)
    by_hand = 29 * np.log((S / 3.5 + R) / (S / a + R)) + 5 * np.log(3.5 / a)

    q = np.quantile(by_hand, 0.95)
    assert abs((draws >= q).mean() - 0.05) < 4 * np.sqrt(2 * 0.05 * 0.95 / 1e5)


@pytest.mark.parametrize(("value", "draws"), [(0.5, 100_000), (5.574, 100_000)])
def test_the_likelihood_ratio_at_a_ratio_is_two_f_tails_in_a_balanced_design(value, draws):
    """Dyestuff: p without simulation, within four errors of plain draws from the law."""
    from hierlmm.frequentist.inference.components_space import gram, pieces
    from hierlmm.frequentist.inference.rlrt import Law

    fit = fitted("dyestuff", "Yield ~ 1 + (1 | Batch)")
    products = gram(fit.equations)
    found = pieces(products, products.effects[0].ravel(), np.zeros(0, dtype=int))
    frame = fit.test_component("Batch", value=value).frame.set_index("test")

    for method in ("reml", "ml"):
        law = Law.of(found, method)
        reached = law.draws(draws, np.random.default_rng(7), value) >= law.observed(found, value)
        row = frame.loc["RLRT, exact" if method == "reml" else "LRT, exact"]
        assert row["mc_error"] == 0
        assert abs(reached.mean() - row["p"]) < 4 * np.sqrt(row["p"] * (1 - row["p"]) / draws)


def test_the_reported_test_at_a_ratio_is_the_one_that_the_interval_inverts():
    """Dyestuff: p 1.765e-07 at 1000, not a Monte Carlo floor; 0.05 at the upper end of the interval."""
    fit = fitted("dyestuff", "Yield ~ 1 + (1 | Batch)")
    far, end = fit.test_component("Batch", value=1000), fit.test_component("Batch", value=5.574)

    assert far.answer.test == end.answer.test == "F by projections (Wald)"
    assert far.answer.p == pytest.approx(1.765e-07, rel=1e-3)
    assert end.answer.p == pytest.approx(0.05, abs=2e-5)
    rlrt = far.frame.set_index("test").loc["RLRT, exact"]
    assert 8.8e-8 < rlrt["p"] < 1.5e-7
    assert any("invert F by projections" in note for note in end.notes)
    assert any("Is `value` meant as a variance?" in note and "0.408" in note for note in far.notes)
    assert not any("meant as a variance" in note for note in end.notes)
    assert max(map(len, far.summary().splitlines())) <= 80


def test_no_simulated_test_is_reported_against_a_ratio_where_f_is_exact():
    """Unbalanced scenario effects of politeness: the likelihood ratio is simulated, F is not."""
    fit = fitted("politeness", "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)")

    tests = fit.test_component("scenario", value=1.0, draws=2000)

    assert tests.answer.mc_error == 0
    assert "F by projections" in tests.summary().split("Report: ")[1]
    assert tests.frame.set_index("test").loc["RLRT, exact", "mc_error"] > 0


def test_a_simulated_exact_test_is_called_simulated():
    """Sleepstudy with unequal numbers of rows: more eigenvalues than a rule integrates over."""
    table = hl.load("sleepstudy").data.query("Days < 2 + index % 7")
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), table)

    tests = fit.test_component("Subject", bootstrap=0, draws=500)

    assert tests.answer.mc_error > 0
    assert "(exact test, simulated, error" in " ".join(tests.summary().split())


def test_a_ratio_that_no_test_is_for_says_so():
    """With a residual structure there is no test of a ratio: the text says it, `answer` refuses."""
    spec = hl.lmm("size ~ Time + (1 | tree)", residual=hl.ContinuousAR1(group="tree", time="Time"))
    tests = hl.fit(spec, hl.load("sitka").data).test_component("tree", value=0.5)

    assert "Report: none, no test applies." in tests.summary()
    with pytest.raises(FitError, match="No test of"):
        _ = tests.answer


def test_residual_structures_leave_the_asymptotic_tests():
    """Sitka with continuous AR(1) residuals: the exact tests are said not to apply."""
    table = hl.load("sitka").data
    spec = hl.lmm("size ~ Time + (1 | tree)", residual=hl.ContinuousAR1(group="tree", time="Time"))

    tests = hl.fit(spec, table).test_component("tree")

    assert list(tests.frame["test"]) == ["RLRT, chi-bar-square mixture"]
    assert "exact tests" in dict(tests.inapplicable)
    assert "no exact test applies" in tests.summary()


def test_the_text_is_narrow_and_says_which_answer_to_report():
    """At most 80 columns, each test with its law."""
    formula = "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)"

    text = fitted("politeness", formula).test_component("scenario").summary()

    assert max(map(len, text.splitlines())) <= 80
    assert "Report: RLRT, exact, p = 0.0002485 (exact)." in text


def test_seeds_give_the_same_answer():
    """Everything simulated comes from the seed."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), hl.load("sleepstudy").data.iloc[:-37])

    first, second, other = (
        fit.test_component("Subject", bootstrap=50, draws=500, seed=seed).frame["p"] for seed in (3, 3, 4)
    )

    assert (first == second).all()
    assert len(first) == len(other)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"group": "tree"}, DesignError, "must be in the model; found tree"),
        ({"group": "Subject", "term": "days"}, DesignError, "found Subject:days.*fit the larger model"),
        ({"group": ("Subject", "Subject")}, SpecError, "not against itself"),
        ({"group": "Subject", "term": ("Days", "Days")}, SpecError, "not against itself"),
        ({"group": ()}, SpecError, "names grouping factors"),
        ({"group": ("Subject", "x"), "term": "Days"}, SpecError, "terms of one of them"),
        ({"group": "Subject", "term": "Days", "value": -0.1}, SpecError, "not negative; found value=-0.1"),
        ({"group": "Subject", "term": "Days", "value": float("nan")}, SpecError, "finite"),
        ({"group": "Subject", "term": "Days", "value": 0.5}, SpecError, "independent of the others"),
        ({"group": "Subject", "draws": 1}, SpecError, "draws=1"),
        ({"group": "Subject", "bootstrap": -1}, SpecError, "bootstrap=-1"),
        ({"group": "Subject", "level": 1.0}, SpecError, "level=1.0"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(arguments, error, match):
    """Unknown or repeated components, values outside the space, numbers that make no sense."""
    fit = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)")

    with pytest.raises(error, match=match):
        fit.test_component(**arguments)


def test_a_fit_without_an_optimum_is_refused():
    """A response that the groups reproduce exactly has no likelihood ratio."""
    table = hl.load("dyestuff").data
    exact = table.assign(Yield=table["Batch"].astype("category").cat.codes.astype(float))

    with pytest.raises(FitError, match="optimum"):
        hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), exact).test_component("Batch")


def test_rows_that_passed_in_a_stream_keep_their_exact_tests():
    """Sums are enough for the exact tests; those that refit need the rows, and say so."""
    table = hl.load("sleepstudy").data.iloc[:-37]
    spec = hl.lmm("Reaction ~ Days + (1 | Subject)")
    whole = hl.fit(spec, table).test_component("Subject", bootstrap=0)

    streamed = hl.fit(spec, iter([table.iloc[:60], table.iloc[60:]])).test_component("Subject")

    a, b = (tests.frame.query("exact").set_index("test") for tests in (whole, streamed))
    assert list(a.index) == list(b.index)
    np.testing.assert_allclose(b["statistic"], a["statistic"], rtol=1e-9)
    np.testing.assert_allclose(b["p"], a["p"], rtol=1e-7)
    assert "stream" in dict(streamed.inapplicable)["likelihood ratio"]
