"""Methods of moments against R's dense computations, closed forms, exact rational values and dense algebra here."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from moments_dense import Dense, crossed, nested
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError, FitError, SpecError
from hierlmm.frequentist.moments.fitting import fit_minque_at
from hierlmm.frequentist.moments.results import MomentsFit, MomentsOutcome

DATA = Path(__file__).parents[2] / "data"
# R 4.2.2, own dense computations by QR projections (tests/data/anova_estimators.json)
CASES = {case["name"]: case for case in json.loads((DATA / "anova_estimators.json").read_text())["results"]}
KEYS = {
    "henderson3": "henderson3_type1",
    "henderson3_partial": "henderson3_type3",
    "mivque0": "minque0",
    "minque": "minque1",
    "minque_iterated": "iterated_minque",
}
METHODS = ["anova", "henderson1", "henderson2", *KEYS]


def table_of(case: dict) -> pd.DataFrame:
    if case["dataset"] == "sim_unbalanced":
        return pd.read_csv(DATA / "sim_unbalanced.csv")
    return hl.load(case["dataset"].lower()).data


def spec_of(case: dict):
    return hl.lmm(" + ".join([case["fixed"], *(f"(1 | {group})" for group in case["random"])]))


@pytest.mark.parametrize("method", KEYS)
@pytest.mark.parametrize("name", CASES)
def test_estimates_are_those_of_dense_projections_in_r(name, method):
    """1e-9 relative, negative estimates included; iterated MINQUE in R stops at about 1e-10."""
    case = CASES[name]
    values = case[KEYS[method]]
    values = {"Residual": case["sigma2"], **values.get("estimates", values)}

    fit = hl.fit(spec_of(case), table_of(case), method)

    assert isinstance(fit, MomentsFit)
    assert_allclose(fit.estimates, [values[group] for group in (*case["random"], "Residual")], rtol=1e-9)


@pytest.mark.parametrize("method", ["henderson3", "henderson3_partial"])
@pytest.mark.parametrize("name", CASES)
def test_the_table_has_the_sums_of_squares_and_their_expectations(name, method):
    """Sums of squares, degrees of freedom, and coefficients df x E(MS) of the random effects."""
    case = CASES[name]
    reference = case[KEYS[method]]
    groups = case["random"]

    frame = hl.fit(spec_of(case), table_of(case), method).anova.set_index("source")

    assert list(frame.index) == [*groups, "Residual"]
    assert_allclose(frame.loc[groups, "sum_sq"], [reference["SS"][g] for g in groups], rtol=1e-9)
    assert frame.loc[groups, "df"].tolist() == [reference["df"][g] for g in groups]
    assert frame.loc["Residual", "df"] == case["residual_df"]
    assert_allclose(frame.loc["Residual", "sum_sq"], case["residual_SS"], rtol=1e-9)
    coefficients = frame.loc[groups, [f"E({g})" for g in groups]].to_numpy() * frame.loc[groups, ["df"]].to_numpy()
    assert_allclose(coefficients, reference["E_coef"], rtol=1e-9, atol=1e-9)
    assert_allclose(frame["E(Residual)"], 1.0, rtol=1e-12)
    assert_allclose(frame["mean_sq"], frame.filter(like="E(").to_numpy() @ frame["estimate"], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dyestuff", "penicillin"])
def test_all_methods_and_reml_agree_in_balanced_data(name, method):
    """THEORY: ANOVA = REML where balanced and inside; the fit says so."""
    fit = hl.fit(spec_of(CASES[name]), table_of(CASES[name]), method)

    assert fit.explicit
    assert fit.coincides_with_reml
    assert "no estimate is negative: REML is the same" in " ".join(fit.summary().split())
    assert_allclose(fit.beside_reml["estimate"], fit.beside_reml["reml"], rtol=1e-7)
    assert_allclose(fit.fixed[["estimate", "se"]], fit.reml.fixed[["estimate", "se"]], rtol=1e-7)


@pytest.mark.parametrize("name", ["polite_ag", "polite_a", "sim_unbalanced"])
def test_iterated_minque_is_reml_in_unbalanced_data(name):
    """Hocking & Kutner (1975): the fixed point solves the REML equations."""
    fit = hl.fit(spec_of(CASES[name]), table_of(CASES[name]), "minque_iterated")

    assert not fit.explicit
    assert_allclose(fit.estimates, [*(G[0, 0] for G in fit.reml.G), fit.reml.sigma2], rtol=1e-8)
    assert_allclose(fit.beta, fit.reml.beta, rtol=1e-9)


def test_a_negative_estimate_stays_and_is_labelled():
    """Dyestuff2: (MSB - MSW)/5 = -1.3219; REML 0; intraclass correlation -0.0970; V with the variance at zero."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff2").data, "anova")

    frame = fit.variance_components.set_index(["group", "quantity"])
    assert fit.outcome is MomentsOutcome.OUTSIDE
    assert fit.explicit
    assert not fit.coincides_with_reml
    assert_allclose(frame.loc[("Batch", "variance"), "estimate"], -1.3219127679999998, rtol=1e-12)
    assert not frame.loc[("Batch", "variance"), "inside"]
    assert np.isnan(frame.loc[("Batch", "sd"), "estimate"])
    assert_allclose(frame.loc[("Batch", "share"), "estimate"], -1.3219127679999998 / (14.9458896 - 1.321912768))
    assert fit.beside_reml.loc[0, "reml"] == 0.0
    assert_allclose(fit.fixed["se"], np.sqrt(14.9458896 / 30), rtol=1e-12)
    text = fit.summary()
    assert "OUTSIDE THE PARAMETER SPACE" in text
    assert "* negative" in text
    assert "1 Residual + 5 Batch" in text


def test_balanced_errors_are_those_of_independent_mean_squares():
    """Var = 2/k² (MSB²/(a - 1) + MSW²/(n - a)); residual interval df MSW / chi-squared."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data, "anova")

    msb, msw = 56357.5 / 5, 58830 / 24
    frame = fit.variance_components.query("quantity == 'variance'").set_index("group")
    assert_allclose(frame.loc["Batch", "se"] ** 2, 2 / 25 * (msb**2 / 5 + msw**2 / 24), rtol=1e-12)
    assert_allclose(frame.loc["Residual", "se"] ** 2, 2 * msw**2 / 24, rtol=1e-12)
    # chi-squared with 24 df: 12.401150217444435 and 39.36407702660391 (R 4.2.2, qchisq)
    interval = frame.loc["Residual", ["lower", "upper"]].astype(float)
    assert_allclose(interval, [58830 / 39.36407702660391, 58830 / 12.401150217444435], rtol=1e-12)


def test_unbalanced_one_way_errors_are_searles():
    """Searle (1971, Linear Models, ch. 11): sampling variance of the ANOVA estimator, any n_i, at the estimates."""
    y = np.random.default_rng(5).normal(size=17) + np.repeat([0.0, 2.0, 1.0, -1.0], [2, 3, 5, 7])
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), pd.DataFrame({"y": y, "g": np.repeat(list("abcd"), [2, 3, 5, 7])}), "anova")

    n, N, a = np.array([2, 3, 5, 7]), 17, 4
    S2, S3 = (n**2).sum(), (n**3).sum()
    sa, se = fit.estimates
    part = N * (N - 1) * (a - 1) / ((N - a) * (N**2 - S2)) * se**2 + 2 * se * sa
    part += (N**2 * S2 + S2**2 - 2 * N * S3) / (N * (N**2 - S2)) * sa**2
    assert_allclose(fit.vcov[0, 0], 2 * N / (N**2 - S2) * part, rtol=1e-10)
    assert_allclose(fit.vcov[1, 1], 2 * se**2 / (N - a), rtol=1e-10)


DENSE = [(crossed, method) for method in METHODS]
# outer groups have no degrees of freedom after inner ones
DENSE += [(nested, method) for method in METHODS if method != "henderson3_partial"]


@pytest.mark.parametrize(("table", "method"), DENSE)
def test_estimates_and_their_covariance_are_those_of_dense_matrices(table, method):
    """Quadratic forms y'A_i y written as n x n matrices, and 2 tr(A_i V A_j V)."""
    data, formula, fixed = table()
    if method == "henderson1":
        formula = formula.replace("x + ", "")
        fixed = fixed[:, :1]
    fit = hl.fit(hl.lmm(formula), data, method)
    indicators = [np.eye(len(factor.levels))[factor.codes] for factor in fit.design.factors]
    dense = Dense(data["y"].to_numpy(), fixed, indicators)

    theta, covariance = dense.estimate(method)

    assert_allclose(fit.estimates, theta, rtol=1e-9)
    assert_allclose(fit.vcov, covariance, rtol=1e-7, atol=1e-9 * np.abs(covariance).max())
    assert_allclose(fit.beta, dense.fixed_effects(theta), rtol=1e-9)


@pytest.mark.parametrize("name", ["SiRstv", "SmLs01", "SmLs03", "AtmWtAg", "SmLs04", "SmLs06", "SmLs07", "SmLs09"])
@pytest.mark.parametrize("method", ["anova", "henderson1", "mivque0"])
def test_nist_variances_have_thirteen_digits_of_the_doubles(name, method):
    """NIST StRD in rational arithmetic: (MSB - MSW)/k and MSW of the data as doubles."""
    text = pd.read_csv(DATA / "nist.csv.gz", dtype=str)
    rows = text[text["set"] == name]
    exact = json.loads((DATA / "nist.json").read_text())["sets"][name]["exact_of_doubles"]

    fit = hl.fit(hl.lmm("y ~ 1 + (1 | group)"), rows.assign(y=[float(y) for y in rows["y"]]), method)

    for value, truth in zip(fit.estimates, (exact["var_group"], exact["msw"]), strict=True):
        assert abs(Fraction(float(value)) / Fraction(Decimal(truth)) - 1) < Fraction(1, 10**12)


def test_slopes_by_mivque_are_reml_in_balanced_data():
    """sleepstudy: lme4's 612.0899, 35.0717, 9.6043 and 654.9410 (60-digit reference) without iteration."""
    truth = json.loads((DATA / "lmm_highprec.json").read_text())["cases"]["sleep_rs"]["REML"]
    G = np.array(truth["varcomp"][0]["vcov"], dtype=float)

    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data, "mivque0")

    assert fit.coincides_with_reml
    assert_allclose(fit.G[0], G, rtol=1e-9)
    assert_allclose(fit.sigma2, float(truth["sigma2"]), rtol=1e-10)
    assert_allclose(fit.beta, np.array(truth["beta"], dtype=float), rtol=1e-10)


def test_a_priori_ratios_of_slopes_are_on_the_scale_of_the_data():
    """Unbalanced slopes at a priori G: dense MINQUE equations in the original columns."""
    generator = np.random.default_rng(11)
    data = pd.DataFrame({"g": np.repeat(range(8), [3, 4, 5, 6, 3, 4, 5, 6]), "x": generator.uniform(5, 9, 36)})
    data["y"] = generator.normal(size=36) + data["x"] * generator.normal(size=8)[data["g"]]
    prior = np.array([[2.0, -0.3], [-0.3, 0.5]])
    design = hl.fit(hl.lmm("y ~ x + (x | g)"), data).design
    Z = (np.eye(8)[data["g"]][:, :, None] * np.column_stack([np.ones(36), data["x"]])[:, None]).reshape(36, -1)
    E = [np.array(M, dtype=float) for M in ([[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [1, 0]])]
    dense = Dense(data["y"].to_numpy(), np.column_stack([np.ones(36), data["x"]]), [])

    theta = dense.minque([Z @ np.kron(np.eye(8), M) @ Z.T for M in E], Z @ np.kron(np.eye(8), prior) @ Z.T)[0]

    assert_allclose(fit_minque_at(design, (prior,)).estimates, theta, rtol=1e-8)


def test_frequencies_are_repeated_rows():
    data = pd.read_csv(DATA / "sim_unbalanced.csv").assign(w=lambda d: 1 + d.index % 3)
    repeated = data.loc[data.index.repeat(data["w"])].reset_index(drop=True)

    for method in ("anova", "henderson2", "mivque0"):
        one = hl.fit(hl.lmm("y ~ x + (1 | g)", weights=hl.Frequency("w")), data, method)
        two = hl.fit(hl.lmm("y ~ x + (1 | g)"), repeated, method)
        assert_allclose(one.estimates, two.estimates, rtol=1e-11)
        assert_allclose(one.vcov, two.vcov, rtol=1e-9)


def test_precision_weights_are_rows_divided_by_their_scale():
    """Rows times sqrt(w), with indicators likewise, are of one variance: the dense table of those."""
    data = pd.read_csv(DATA / "sim_unbalanced.csv").assign(w=lambda d: 1.0 + d.index % 3)
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)", weights=hl.Precision("w")), data, "henderson3")
    root = np.sqrt(data["w"].to_numpy())
    Z = np.eye(8)[fit.design.factors[0].codes] * root[:, None]
    X = np.column_stack([root, root * data["x"]])

    theta, covariance = Dense(root * data["y"].to_numpy(), X, [Z]).estimate("henderson3")

    assert_allclose(fit.estimates, theta, rtol=1e-10)
    assert_allclose(fit.vcov, covariance, rtol=1e-8)


def test_units_and_labels_do_not_matter():
    """y times c gives variances times c²; a constant added to y changes nothing."""
    case = CASES["polite_ag"]
    data = table_of(case)
    one = hl.fit(spec_of(case), data, "henderson3")
    two = hl.fit(spec_of(case), data.assign(frequency=1e6 + 1e-3 * data["frequency"]), "henderson3")

    assert_allclose(two.estimates, 1e-6 * one.estimates, rtol=1e-6)  # 1e6 leaves 10 digits of the differences


def test_rows_that_pass_once_give_the_same():
    data = hl.load("penicillin").data
    spec = hl.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)")

    one = hl.fit(spec, iter([data[:70], data[70:]]), "henderson3")

    assert_allclose(one.estimates, hl.fit(spec, data, "henderson3").estimates, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS[:1] + METHODS[3:])
def test_summaries_are_eighty_columns_wide(method):
    fit = hl.fit(spec_of(CASES["polite_ag"]), table_of(CASES["polite_ag"]), method)

    assert max(map(len, fit.summary().splitlines())) <= 80
    assert list(fit.fixed.columns) == ["term", "estimate", "se", "lower", "upper", "t"]
    assert list(fit.variance_components.columns[:8]) == list(fit.reml.variance_components.columns[:8])


def test_anova_of_unbalanced_data_says_that_it_is_henderson_three():
    fit = hl.fit(spec_of(CASES["polite_ag"]), table_of(CASES["polite_ag"]), "anova")

    assert "Henderson's method III" in fit.title
    assert any("no one analysis of variance" in note for note in fit.notes)


SLEEP = "Reaction ~ Days + (1 | Subject)"


@pytest.mark.parametrize(
    ("formula", "method", "match"),
    [
        (SLEEP, "henderson1", "random effects and a mean alone; the model has 2 fixed effects"),
        ("Reaction ~ Days + (Days | Subject)", "anova", "random intercepts; the model has Subject: Inter"),
        ("Reaction ~ 0 + Days + (1 | Subject)", "henderson2", "needs an intercept"),
    ],
)  # fmt: skip
def test_methods_refuse_what_they_do_not_cover(formula, method, match):
    with pytest.raises(DesignError, match=match):
        hl.fit(hl.lmm(formula), hl.load("sleepstudy").data, method)


def test_the_second_method_refuses_what_groups_determine():
    with pytest.raises(DesignError, match=r"groups of subject, scenario determine some of them"):
        hl.fit(hl.lmm("frequency ~ gender + (1 | subject) + (1 | scenario)"), hl.load("politeness").data, "henderson2")
    interaction = hl.lmm("frequency ~ attitude + (1 | subject) + (1 | subject:attitude)")
    with pytest.raises(DesignError, match="an interaction of groups with a fixed factor"):
        hl.fit(interaction, hl.load("politeness").data, "henderson2")


def test_groups_in_the_wrong_order_are_named():
    data, _, _ = nested()
    with pytest.raises(DesignError, match=r"after the factors before it; a has none.*name the outer groups first"):
        hl.fit(hl.lmm("y ~ x + (1 | a:b) + (1 | a)"), data, "henderson3")
    with pytest.raises(DesignError, match="after all others; a has none"):
        hl.fit(hl.lmm("y ~ x + (1 | a/b)"), data, "henderson3_partial")


def test_models_without_moments_are_refused():
    sitka = hl.load("sitka").data
    with pytest.raises(DesignError, match="independent residuals of one unknown variance"):
        hl.fit(hl.lmm("size ~ Time", residual=hl.CompoundSymmetry("tree")), sitka, "anova")
    with pytest.raises(DesignError, match="need a random-effects term"):
        hl.fit(hl.lmm("size ~ Time"), sitka, "minque")
    with pytest.raises(DesignError, match="precision weights Time"):
        hl.fit(hl.lmm("size ~ 1 + (1 | tree)", weights=hl.Precision("Time")), sitka, "henderson1")
    with pytest.raises(DesignError, match="at least 2 levels"):
        hl.fit(hl.lmm("size ~ Time + (1 | g)"), sitka.assign(g=1), "anova")
    small = pd.DataFrame(
        {"y": [1.0, 2, 1.5, 3, 0, 2.5], "g": list("aabbcc"), "h": list("xyyzzx"), "x": [1, 2, 4, 7, 2, 2]}
    )
    with pytest.raises(DesignError, match="degrees of freedom for the residual"):
        hl.fit(hl.lmm("y ~ x + (1 | g) + (1 | h)"), small, "henderson3")
    with pytest.raises(SpecError, match="henderson3, henderson3_partial, mivque0"):
        hl.fit(hl.lmm("size ~ Time + (1 | tree)"), sitka, "henderson4")


def test_minque_has_no_table_and_iteration_may_leave_the_space():
    data = pd.DataFrame({"g": np.repeat(range(6), [1, 2, 3, 4, 5, 15])})
    data["y"] = np.where(data.index % 2, 1.0, -1.0) + 0.01 * data.index
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), data, "mivque0")

    assert fit.estimates[0] < 0
    with pytest.raises(FitError, match="MIVQUE"):
        _ = fit.anova
    with pytest.raises(FitError, match="left the parameter space"):
        hl.fit(hl.lmm("y ~ 1 + (1 | g)"), data, "minque_iterated")


def test_a_priori_matrices_are_checked():
    design = hl.fit(hl.lmm(SLEEP), hl.load("sleepstudy").data).design

    with pytest.raises(DesignError, match="one matrix a grouping factor"):
        fit_minque_at(design, (np.eye(2),))
    with pytest.raises(DesignError, match="positive definite"):
        fit_minque_at(design, (np.array([[-0.2]]),))


@pytest.mark.parametrize(("name", "method"), [("polite_ag", "henderson3"), ("dyestuff2", "minque")])
def test_a_fit_comes_back_from_its_file(tmp_path, name, method):
    fit = hl.fit(spec_of(CASES[name]), table_of(CASES[name]), method)

    fit.save(tmp_path / "fit.hlm")
    read = hl.read(tmp_path / "fit.hlm")

    assert read.summary() == fit.summary()
    assert read.fingerprint == fit.fingerprint
    pd.testing.assert_frame_equal(read.variance_components, fit.variance_components)
    pd.testing.assert_frame_equal(read.beside_reml, fit.beside_reml)


@pytest.mark.parametrize("method", METHODS)
def test_a_response_without_residuals_has_no_moments(method):
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 4), "y": np.repeat([1.0, 2, 3, 5], 4)})
    for table in (data, data.assign(y=2.0)):
        with pytest.raises(FitError, match="need variation of the residuals"):
            hl.fit(hl.lmm("y ~ 1 + (1 | g)"), table, method)


@pytest.mark.parametrize("random", ["cs(0 + f | a)", "identity(0 + f | a)", "(1 | a) + (1 | a:f)"])
def test_structured_blocks_by_mivque_are_reml_in_balanced_data(random):
    """Every term that LMMFit estimates, those of a common variance included."""
    data = pd.MultiIndex.from_product([range(6), list("xyz"), range(4)], names=["a", "f", "r"]).to_frame(index=False)
    generator = np.random.default_rng(2)
    effects = generator.normal(size=6)[data["a"]] + generator.normal(size=(6, 3))[data["a"], data.index % 12 // 4]
    data["y"] = 2 * effects + generator.normal(size=len(data))

    fit = hl.fit(hl.lmm(f"y ~ 1 + {random}"), data, "mivque0")

    assert fit.coincides_with_reml
    shown = fit.variance_components.query("quantity != 'share'")
    other = fit.reml.variance_components
    other = other[~other["quantity"].isin(["share", "correlation"])]
    other = other[(other["quantity"] != "covariance") | (other["estimate"] != 0)]  # those of one variance, known zero
    keys = ["group", "term", "term2", "quantity"]
    assert shown[keys].to_numpy().tolist() == other[keys].to_numpy().tolist()
    assert_allclose(shown["estimate"], other["estimate"], rtol=1e-6)
