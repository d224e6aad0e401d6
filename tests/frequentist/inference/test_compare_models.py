"""Comparison of models against lme4, nlme and published values, and the comparisons that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import hierlmm as hl
from hierlmm.errors import ComparisonError

REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "fixed_inference.json").read_text())
SITKA = hl.load("sitka").data
SITKA = SITKA.assign(occ=SITKA.groupby("tree")["Time"].rank().astype(int))
STRUCTURES = {
    "ind": hl.Independent(),
    "cs": hl.CompoundSymmetry("tree"),
    "csh": hl.HeterogeneousCompoundSymmetry("tree", "occ"),
    "ar1": hl.AR1("tree", "occ"),
    "arh1": hl.HeterogeneousAR1("tree", "occ"),
    "toep": hl.Toeplitz("tree", "occ"),
    "ante1": hl.Antedependence("tree", "occ"),
    "un": hl.Unstructured("tree", "occ"),
}


def fit(formula, data=SITKA, method="reml", **options):
    return hl.fit(hl.lmm(formula, **options), data, method)


@pytest.mark.parametrize("case", REFERENCE["lrt"], ids=lambda case: case["name"])
def test_likelihood_ratio_tests_of_the_reference(case):
    """lme4's criteria at refined optima: statistic to 1e-8, chi-square and mixture tails."""
    data = hl.load(case["data"]).data
    fits = [fit(case[which], data, case["method"].lower()) for which in ("null", "alt")]

    row = hl.compare_models(*fits).table.iloc[1]

    assert_allclose(row["statistic"], case["LRT"], rtol=1e-8, atol=1e-8)
    assert row["df"] == case["df"]
    assert_allclose(row["p_naive"], case["p_chisq"], rtol=1e-7)
    assert_allclose(row["p"], case.get("p_mixture", case["p_chisq"]), rtol=1e-7)


def test_published_tests():
    """Winter & Grawunder's politeness data, and Sitka: chi-square(1) = 11.618, 6.7082, 1.99634; 39.80992."""
    polite = hl.load("politeness").data
    plain = "(1 | subject) + (1 | scenario)"
    slopes = "(1 + attitude | subject) + (1 + attitude | scenario)"
    three = [
        fit(f"frequency ~ {x} + {plain}", polite, "ml") for x in ("gender", "attitude + gender", "attitude * gender")
    ]
    two = [fit(f"frequency ~ {x} + {slopes}", polite, "ml") for x in ("gender", "attitude + gender")]
    sitka = hl.compare_models(fit("size ~ Time + (1 | tree)"), fit("size ~ Time + (Time | tree)")).table

    table, other = hl.compare_models(*three).table, hl.compare_models(*two).table

    assert [f"{x:.3f}" for x in table["statistic"][1:2]] == ["11.618"]
    assert [f"{p:.4g}" for p in table["p"][1:2]] == ["0.0006532"]
    assert (f"{table['statistic'][2]:.5f}", f"{table['p'][2]:.5f}") == ("1.99634", "0.15768")
    assert (f"{other['statistic'][1]:.4f}", f"{other['p'][1]:.4g}") == ("6.7082", "0.009597")
    assert f"{sitka['statistic'][1]:.5f}" == "39.80992"
    # printed as 1.273288e-09 from a statistic that ended 2e-6 from the optimum
    assert_allclose(sitka["p"][1], 1.273288e-09, rtol=3e-6)
    # nlme prints four decimals of a criterion that ends within 1e-5 of the optimum
    assert_allclose(sitka["bic_nlme"], [188.6720, 160.8098], atol=1e-4)


@pytest.mark.parametrize(
    "case", REFERENCE["lrt_residual"], ids=lambda c: f"{c['mean']}-{c['method']}-{c['null']}-{c['alt']}"
)
def test_residual_structures_of_the_reference(case):
    """gls of nlme: independence, AR(1), ARH(1), antedependence, unstructured; CS, CSH; Toeplitz."""
    fits = [fit(case["mean"], method=case["method"].lower(), residual=STRUCTURES[case[w]]) for w in ("null", "alt")]

    found = hl.compare_models(*fits)

    row = found.table.iloc[1]
    assert_allclose(row["statistic"], case["LRT"], rtol=1e-7, atol=1e-7)
    assert row["df"] == case["df"]
    assert row["reference"] == f"chi²({case['df']})"
    assert_allclose(row["p"], case["p"], rtol=1e-6)


def test_parameters_of_residual_structures_are_stated():
    """Covariance parameters 1, 2, 6, 15 of independence, AR(1), ARH(1) and unstructured at five occasions."""
    found = hl.compare_models(*(fit("size ~ Time", residual=STRUCTURES[k]) for k in ("un", "ind", "arh1", "ar1")))

    assert found.table["n_parameters"].tolist() == [3, 4, 8, 17]
    assert "model 1: 1, model 2: 2, model 3: 6, model 4: 15" in found.notes[-1]
    assert (found.table["reference"][1:] == [f"chi²({k})" for k in (1, 4, 9)]).all()


def test_structures_that_are_not_nested_share_the_table_without_a_test():
    """Compound symmetry and AR(1) have as many parameters; CSH is not known to be a special case of antedependence."""
    same = hl.compare_models(*(fit("size ~ Time", residual=STRUCTURES[k]) for k in ("cs", "ar1")))
    apart = hl.compare_models(*(fit("size ~ Time", residual=STRUCTURES[k]) for k in ("csh", "ante1")))

    assert "as many parameters" in same.table["reference"][1]
    assert "nesting of the two is not established" in apart.table["reference"][1]
    for found in (same, apart):
        assert np.isnan(found.table["p"][1])
        assert found.table[["aic", "bic"]].notna().all(axis=None)


def test_predictors_that_are_not_nested_have_no_test():
    """Same response, other predictors: AIC and BIC only."""
    found = hl.compare_models(fit("size ~ Time + (1 | tree)", method="ml"),
                              fit("size ~ treat * occ + (1 | tree)", method="ml"))  # fmt: skip

    assert "not nested" in found.table["reference"][1]
    assert "not nested" in str(found)


def test_columns_in_the_span_of_others_are_nested_by_value():
    """ML: a centred predictor and its square hold the plain predictor; names do not decide."""
    first = fit("size ~ Time + (1 | tree)", method="ml")
    second = fit("size ~ I(Time - 200) + I((Time - 200) ** 2) + (1 | tree)", method="ml")

    row = hl.compare_models(second, first).table.iloc[1]

    assert row["df"] == 1
    assert row["reference"] == "chi²(1)"


@pytest.mark.parametrize(
    ("small", "large", "reference"),
    [
        ("(1 | Subject)", "(Days | Subject)", "½ chi²(1) + ½ chi²(2)"),
        ("(1 | Subject)", "(Days || Subject)", "½ chi²(0) + ½ chi²(1)"),
        ("(Days || Subject)", "(Days | Subject)", "chi²(1)"),
        ("(0 + Days | Subject)", "(Days | Subject)", "½ chi²(1) + ½ chi²(2)"),
        ("(1 | Subject)", "(Days + I(Days ** 2) | Subject)", "chi²(5), too large a p"),
    ],
)
def test_reference_distribution_follows_what_vanishes(small, large, reference):
    """Self & Liang (1987), Stram & Lee (1994): one variance with its covariances, covariances alone, several."""
    data = hl.load("sleepstudy").data
    found = hl.compare_models(*(fit(f"Reaction ~ Days + {random}", data) for random in (small, large)))

    row = found.table.iloc[1]
    assert row["reference"].startswith(reference)
    part = "test_component('Subject', ['Days', 'I(Days ** 2)']) of the larger one"
    assert (part in row["reference"]) == ("I(Days" in large)
    naive = stats.chi2.sf(row["statistic"], row["df"])
    assert_allclose(row["p_naive"], naive, rtol=1e-8)


@pytest.mark.parametrize(
    ("random", "residual"),
    [("1", "toep"), ("1", "un"), ("1", "csh"), ("1 + occ", "un"), ("1 + occ", "toep"), ("1 + Time2", "un")],
)
def test_random_coefficients_are_nested_in_structures_that_hold_them(random, residual):
    """A random intercept is compound symmetry; what the occasion fixes is part of any covariance by occasion."""
    data = SITKA.assign(Time2=SITKA["Time"] + SITKA["tree"].astype(int) % 2)
    small = fit(f"size ~ Time + ({random} | tree)", data)
    large = fit("size ~ Time", data, residual=STRUCTURES[residual])

    row = hl.compare_models(small, large).table.iloc[1]

    if (random, residual) in (("1 + occ", "toep"), ("1 + Time2", "un")):
        assert row["reference"].startswith("no test: nesting of the two is not established.")
        return
    df = large.n_parameters - small.n_parameters
    assert row["reference"] == f"chi²({df})"
    assert_allclose(row["p"], stats.chi2.sf(small.objective - large.objective, df), rtol=1e-8)


def test_correlations_by_time_are_nested_where_the_occasion_fixes_the_time():
    """ContinuousAR1 within Unstructured of the same trees: with the times of Sitka, not with times of each tree."""
    late = SITKA.assign(Time=SITKA["Time"] + SITKA["tree"].astype(int) % 2)
    found = [
        hl.compare_models(
            fit("size ~ occ", data, residual=hl.ContinuousAR1("tree", "Time")),
            fit("size ~ occ", data, residual=STRUCTURES["un"]),
        ).table["reference"][1]
        for data in (SITKA, late)
    ]

    assert found[0] == "chi²(13)"
    assert found[1].startswith("no test: nesting of the two is not established.")


@pytest.mark.parametrize(
    ("small", "large", "call"),
    [
        ("", " + (1 | subject) + (1 | scenario)", "test_component(['subject', 'scenario'])"),
        ("", " + (attitude | subject)", "test_component('subject')"),
        (" + (1 | subject)", " + (attitude | subject) + (1 | scenario)", "bootstrap_lrt"),
    ],
)
def test_several_variances_name_the_way_to_their_p(small, large, call):
    """The test of the larger fit that has the same null model, where there is one; else the simulation."""
    data = hl.load("politeness").data
    reference = hl.compare_models(*(fit("frequency ~ 1" + x, data) for x in (small, large))).table["reference"][1]

    assert "too large a p" in reference
    assert call in reference


def test_weights_are_part_of_what_a_model_is():
    """Weighted beside unweighted: no test, and labels that tell the two apart; weights of 1 are none."""
    data = SITKA.assign(w=1.0 + SITKA.index % 3, one=1.0, f=1, g=1 + SITKA.index % 2, h=2 - SITKA.index % 2)
    data = data.iloc[:-1]
    plain = fit("size ~ Time + (1 | tree)", data)
    weighted, ones = (fit("size ~ Time + (Time | tree)", data, weights=hl.Precision(w)) for w in ("w", "one"))
    counted = [fit("size ~ Time + (1 | tree)", data, weights=hl.Frequency(w)) for w in "gh"]

    text = str(hl.compare_models(plain, weighted))
    assert (
        "model 1: size ~ 1 + Time + (1 | tree)\nmodel 2: size ~ 1 + Time + (1 + Time | tree), precision weights w\n"
        in text
    )
    assert "not nested, for their weights or known variances differ" in " ".join(text.split())
    assert hl.compare_models(plain, ones).table["reference"][1].startswith("½ chi²(1)")
    with pytest.raises(ComparisonError, match=r"count the rows alike(.|\n)*frequency weights h$"):
        hl.compare_models(*counted)


def test_reml_fits_of_other_means_are_refused():
    """The reason and the way out; AIC and BIC would be as wrong as the test."""
    refused = r'REML.*treat\[T.ozone\].*method="ml"\.\n  model 1: size .*\n  model 2: .*treat'
    with pytest.raises(ComparisonError, match=refused):
        hl.compare_models(fit("size ~ Time + (1 | tree)"), fit("size ~ Time + treat + (1 | tree)"))
    with pytest.raises(ComparisonError, match="coded alike"):
        hl.compare_models(fit("size ~ Time + (1 | tree)"), fit("size ~ I(Time / 100) + (Time | tree)"))
    with pytest.raises(ComparisonError, match=r"one method(.|\n)*\n  model 2: size .*, residual AR1$"):
        hl.compare_models(fit("size ~ Time"), fit("size ~ Time", method="ml", residual=STRUCTURES["ar1"]))


def test_other_rows_or_responses_are_refused_and_named():
    """Missing predictors leave rows out of one model: which; another response: where."""
    base = fit("size ~ Time + (1 | tree)", method="ml")
    holes = SITKA.assign(z=np.where(SITKA.index == 7, np.nan, 1.0 + SITKA.index % 5))
    changed = SITKA.assign(size=SITKA["size"] + (SITKA.index == 11))
    counted = SITKA.assign(w=1 + (SITKA.index == 3))

    with pytest.raises(ComparisonError, match=r"same rows.*395.*394.*7 \(model 1\)"):
        hl.compare_models(base, fit("size ~ Time + z + (1 | tree)", holes, "ml"))
    with pytest.raises(ComparisonError, match=r"same response.*1 rows: 11"):
        hl.compare_models(base, fit("size ~ Time + treat + (1 | tree)", changed, "ml"))
    with pytest.raises(ComparisonError, match=r"log\(size\)"):
        hl.compare_models(base, fit("log(size) ~ Time + treat + (1 | tree)", method="ml"))
    with pytest.raises(ComparisonError, match="another order"):
        hl.compare_models(base, fit("size ~ Time + treat + (1 | tree)", SITKA[::-1], "ml"))
    with pytest.raises(ComparisonError, match="count the rows alike"):
        hl.compare_models(base, fit("size ~ Time + treat + (1 | tree)", counted, "ml", weights=hl.Frequency("w")))


def test_what_is_no_fit_is_refused():
    """One model, other objects, names that do not fit."""
    base = fit("size ~ Time + (1 | tree)", method="ml")
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 5.0], "y": [2.0, 4.0, 6.0, 10.0]})
    exact, other = fit("y ~ x", data, "ml"), fit("y ~ 1", data, "ml")

    with pytest.raises(ComparisonError, match="two or more fits"):
        hl.compare_models(base)
    with pytest.raises(ComparisonError, match="found LMMFit, DataFrame"):
        hl.compare_models(base, SITKA)
    with pytest.raises(ComparisonError, match="one name a model"):
        hl.compare_models(base, base, names=["a", "a"])
    with pytest.raises(ComparisonError, match="bounded"):
        hl.compare_models(exact, other)


def test_printed_table_fits_80_columns_and_names_the_reference():
    """The familiar table, with the models above and the distributions below."""
    found = hl.compare_models(fit("size ~ Time + (1 | tree)"), fit("size ~ Time + (Time | tree)"), names=["ri", "rs"])

    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "rs against ri: ½ chi²(1) + ½ chi²(2)" in text
    assert "(naive chi²(2): p = " in " ".join(text.split())
    assert "\n\nFixed parts are the same" in text
