"""LMM fits against 700-bit arithmetic (tests/data/lmm_highprec.json) and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError, FitError, SpecError
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome

HIGHPREC = json.loads((Path(__file__).parents[1] / "data" / "lmm_highprec.json").read_text())["cases"]
DATA = {"sleep": "sleepstudy", "polite": "politeness", "sitka": "sitka", "dyestuff": "dyestuff",
        "dyestuff2": "dyestuff2", "penicillin": "penicillin"}  # fmt: skip


def data_of(case: str) -> pd.DataFrame:
    """The catalogue's table for a reference case, with the derived column of the centred Sitka case."""
    table = hl.load(DATA[case.split("_")[0]]).data
    return table.assign(t100=(table["Time"] - 200) / 100) if case.startswith("sitka") else table


@pytest.fixture(scope="module")
def fits():
    return {
        (case, method): hl.fit(hl.lmm(reference["formula"]), data_of(case), method.lower())
        for case, reference in HIGHPREC.items()
        for method in ("REML", "ML")
    }


CASES = [(case, method) for case in HIGHPREC for method in ("REML", "ML")]


@pytest.mark.parametrize(("case", "method"), CASES)
def test_fit_equals_the_high_precision_optimum(fits, case, method):
    """Objective, beta and its errors to 1e-8 relative, variances, BLUPs and conditional variances to 1e-7."""
    fit, truth = fits[case, method], HIGHPREC[case][method]
    names = [fit.design.fixed.index(name) for name in HIGHPREC[case]["beta_names"]]

    assert_allclose(fit.objective, truth["objective"], rtol=1e-9)
    assert fit.objective <= truth["objective"] + 1e-8
    assert fit.certificate.certified
    assert_allclose(fit.beta[names], truth["beta"], rtol=1e-8)
    assert_allclose(np.sqrt(np.diag(fit.vcov_beta))[names], truth["se"], rtol=1e-8)
    vcov = np.array(truth["vcov_beta"])
    assert_allclose(fit.vcov_beta[np.ix_(names, names)], vcov, rtol=1e-7, atol=1e-9 * np.abs(vcov).max())
    assert_allclose(fit.sigma2, truth["sigma2"], rtol=1e-7)
    for group in {v["group"] for v in truth["varcomp"]}:
        f = [factor.name for factor in fit.design.factors].index(group)
        blocks = [np.array(v["vcov"]) for v in truth["varcomp"] if v["group"] == group]
        scale = np.sqrt(np.outer(np.diag(fit.G[f]), np.diag(fit.G[f]))) + 1e-300
        assert_allclose(fit.G[f] / scale, _block_diagonal(blocks) / scale, rtol=1e-7, atol=1e-7)
        parts = [v for v in truth["ranef"] if v["group"] == group]
        mode = np.column_stack([np.array(v["mode"]) for v in parts])
        spread = np.column_stack([np.array(v["condvar"]).reshape(len(mode), -1) for v in parts])
        levels = [[str(level) for level in fit.design.factors[f].levels].index(name) for name in parts[0]["levels"]]
        assert_allclose(fit.b[f][levels], mode, rtol=1e-7, atol=1e-7 * np.abs(mode).max(axis=0, initial=1e-300).min())
        own = np.diagonal(fit.b_conditional[f], axis1=1, axis2=2)
        assert_allclose(own[levels], spread, rtol=1e-6, atol=1e-12)


def _block_diagonal(blocks):
    q = sum(len(block) for block in blocks)
    out, start = np.zeros((q, q)), 0
    for block in blocks:
        out[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return out


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_singular_slopes_have_correlation_one_and_the_exact_multiplier(fits, method):
    """Politeness slopes (Winter & Grawunder 2012): rank one for subject, second derivative in theta from 700 bits."""
    fit, truth = fits["polite_slopes", method], HIGHPREC["polite_slopes"][method]
    components = fit.variance_components.set_index(["group", "quantity"])

    assert fit.outcome is LMMOutcome.SINGULAR
    assert_allclose(components.loc[("subject", "correlation"), "estimate"], 1.0, rtol=1e-12)
    place = fit.equations.order.index(0)
    back = np.linalg.solve(fit.equations.Z_map[place].T, fit.at.G_T[place])
    multiplier = 2 * np.linalg.solve(fit.equations.Z_map[place].T, back.T)[1, 1]
    assert_allclose(multiplier, truth["kkt"][0], rtol=1e-6)


def test_zero_variance_is_exactly_zero_and_says_so(fits):
    """Dyestuff2 (Box & Tiao 1973): the between-batch variance is zero by ML and REML."""
    fit = fits["dyestuff2", "REML"]

    assert fit.outcome is LMMOutcome.AT_ZERO
    assert fit.G[0][0, 0] == 0.0
    assert (fit.b[0] == 0).all()
    assert_allclose(fit.sigma2, np.var(fit.design.y, ddof=1), rtol=1e-12)


def test_balanced_one_way_reml_is_anova():
    """Dyestuff (Davies 1949): REML variance 1764.05 = (MSB - MSW)/5, residual 2451.25 = MSW, se² of the mean MSB/30."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)
    table = hl.load("dyestuff").data
    means = table.groupby("Batch", observed=True)["Yield"].mean()
    msb = 5 * means.var(ddof=1)
    msw = table.groupby("Batch", observed=True)["Yield"].var(ddof=1).mean()

    assert_allclose(fit.G[0][0, 0], (msb - msw) / 5, rtol=1e-10)
    assert_allclose(fit.sigma2, msw, rtol=1e-10)
    assert_allclose(fit.vcov_beta[0, 0], msb / 30, rtol=1e-10)
    gamma = 5 * fit.G[0][0, 0] / (5 * fit.G[0][0, 0] + fit.sigma2)
    assert_allclose(fit.b[0][:, 0], gamma * (means - means.mean()), rtol=1e-10)


def test_standard_error_of_a_group_coefficient_is_that_of_the_sum():
    """Balanced one-way: Var(mu + b_i given the data) by the joint normal law, in closed form."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)
    tau2, s2, n, m = fit.G[0][0, 0], fit.sigma2, 5, 6
    gamma = n * tau2 / (n * tau2 + s2)

    se = fit.group_coefficients["se"].to_numpy()

    expected = gamma * s2 / n + (1 - gamma) ** 2 * (tau2 + s2 / n) / m
    assert_allclose(se, np.sqrt(expected), rtol=1e-10)


def test_prediction_for_a_new_group_is_a_draw_from_the_population():
    """Closed form, balanced one-way: estimate mu, variance Var(mu) + tau² (+ sigma² for an observation)."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)
    new = pd.DataFrame({"Batch": ["Z", "A"]})

    mean, observation = (fit.predict(new, target=of, new_levels="population") for of in ("mean", "observation"))

    assert_allclose(mean.loc[0, "estimate"], fit.beta[0])
    assert_allclose(mean.loc[0, "se"] ** 2, fit.vcov_beta[0, 0] + fit.G[0][0, 0], rtol=1e-12)
    assert_allclose(observation["se"] ** 2 - mean["se"] ** 2, fit.sigma2, rtol=1e-9)
    assert mean["new_levels"].tolist() == ["Batch", ""]
    coefficient = fit.group_coefficients.query("level == 'A'").iloc[0]
    assert_allclose(mean.loc[1, ["estimate", "se"]].astype(float), coefficient[["estimate", "se"]].astype(float))
    assert "not the uncertainty of the variance parameters" in mean.attrs["se_contains"]


def test_fitted_values_and_residuals_add_up_and_solve_the_mixed_model_equations(fits):
    """X'e = 0 and Z'e = sigma² G⁻¹b (Henderson 1975) hold at the conditional residuals e."""
    fit = fits["sleep_rs", "REML"]
    e = fit.conditional_residuals.to_numpy()
    factor = fit.design.factors[0]

    assert_allclose(fit.design.X.T @ e, 0, atol=1e-7)
    for level in (0, 7):
        Z = factor.Z[factor.codes == level]
        right = fit.sigma2 * np.linalg.solve(fit.G[0], fit.b[0][level])
        assert_allclose(Z.T @ e[factor.codes == level], right, rtol=1e-8)
    assert_allclose(fit.marginal_fitted + fit.marginal_residuals, fit.design.y)


def test_marginal_covariance_is_labelled_zgz_plus_r(fits):
    """V_i = Z_i G Z_i' + sigma² I, rows and columns labelled by the rows of the table."""
    fit = fits["sleep_rs", "REML"]
    V = fit.marginal_covariance(fit.design.factors[0].levels[0])
    Z = np.column_stack([np.ones(10), np.arange(10)])

    assert_allclose(V.to_numpy(), Z @ fit.G[0] @ Z.T + fit.sigma2 * np.eye(10), rtol=1e-12)
    assert V.index.tolist() == fit.design.index[:10].tolist()
    with pytest.raises(DesignError, match="observed level"):
        fit.marginal_covariance("nobody")
    with pytest.raises(DesignError, match="grouping factor"):
        fit.marginal_covariance("308", group="Nurse")


def test_information_criteria_follow_the_named_conventions(fits):
    """Sitka slopes: BIC 160.8402 with log n (lme4), 160.8098 with log(n - p) (nlme); REML AIC 136.9669."""
    fit = fits["sitka_rs", "REML"]

    assert_allclose([fit.aic, fit.bic, fit.bic_nlme], [136.9669, 160.8402, 160.8098], atol=5e-5)


def test_marginal_loglik_at_the_reml_point_is_lme4s():
    """Politeness slopes: logLik(REML = FALSE) of the REML fit, -397.6320725 (lme4 1.1-31 at the polished optimum)."""
    fit = hl.fit(hl.lmm(HIGHPREC["polite_slopes"]["formula"]), data_of("polite_slopes"))

    assert_allclose(fit.marginal_loglik, -397.6320725308863, rtol=1e-8)


def test_refit_equals_a_fit_of_the_new_response(fits):
    """refit(y) and fit on a table with that response give the same optimum."""
    fit = fits["sleep_rs", "REML"]
    table = data_of("sleep_rs")
    y = fit.simulate(1, seed=11)[0].to_numpy()

    again, anew = fit.refit(y), hl.fit(fit.spec, table.assign(Reaction=y))

    assert_allclose(again.objective, anew.objective, rtol=1e-11)
    assert_allclose(again.beta, anew.beta, rtol=1e-8)
    assert_allclose(again.G[0], anew.G[0], rtol=1e-6)
    with pytest.raises(DesignError, match="one value for each row"):
        fit.refit(y[:-1])


def test_simulated_responses_have_the_fitted_mean_and_covariance(fits):
    """20,000 draws of one subject's rows: means within 5 and covariances within 6 Monte Carlo standard errors."""
    fit = fits["sleep_rs", "REML"]
    N = 20_000
    rows = slice(0, 10)

    drawn = fit.simulate(N, seed=12).to_numpy()[rows]

    V = fit.marginal_covariance(fit.design.factors[0].levels[0]).to_numpy()
    mean = fit.marginal_fitted.to_numpy()[rows]
    assert np.abs((drawn.mean(1) - mean) / np.sqrt(np.diag(V) / N)).max() < 5
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / N)
    assert np.abs((np.cov(drawn) - V) / error).max() < 6


def test_simulations_need_a_draw(fits):
    """A number of draws below 1 is refused by name, for both families."""
    milk = hl.load("milk")
    for fit in (fits["sleep_rs", "REML"], hl.fit(milk.spec, milk.data)):
        with pytest.raises(FitError, match="1 or more"):
            fit.simulate(0, seed=1)


def test_response_without_residual_variation_gives_the_exact_limit():
    """y = b_g + 2 x exactly: sigma² is 0, the slope 2, and group means give OLS on their intercepts, divisor m - 1."""
    rng = np.random.default_rng(13)
    group = np.repeat(np.arange(6), 4)
    effect = rng.normal(size=6)
    table = pd.DataFrame({"g": group, "x": rng.normal(size=24)})
    table["y"] = 5 + effect[group] + 2 * table["x"]

    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table)

    assert fit.outcome is LMMOutcome.NO_RESIDUAL
    assert fit.sigma2 == 0.0
    assert_allclose(fit.beta, [5 + effect.mean(), 2.0], rtol=1e-10)
    assert_allclose(fit.G[0][0, 0], effect.var(ddof=1), rtol=1e-10)
    assert_allclose(fit.b[0][:, 0], effect - effect.mean(), rtol=1e-9, atol=1e-9)
    ml = hl.fit(hl.lmm("y ~ x + (1 | g)"), table, "ml")
    assert_allclose(ml.G[0][0, 0], effect.var(), rtol=1e-10)


def test_response_that_slopes_reproduce_is_refused_with_the_reason():
    """Two random coefficients and no residual variation: the limit depends on the path."""
    group = np.repeat(np.arange(6), 4)
    x = np.tile(np.arange(4.0), 6)
    rng = np.random.default_rng(14)
    table = pd.DataFrame({"g": group, "x": x, "y": rng.normal(size=6)[group] + rng.normal(size=6)[group] * x})

    with pytest.raises(FitError, match="residual variance must be positive"):
        hl.fit(hl.lmm("y ~ x + (x | g)"), table)


def test_constant_response_has_no_variance_at_all():
    """y = 3: every variance is 0 and the mean is exact."""
    table = pd.DataFrame({"g": np.repeat(np.arange(5), 3), "y": 3.0})

    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), table)

    assert fit.outcome is LMMOutcome.NO_VARIATION
    assert (fit.sigma2, fit.G[0][0, 0], fit.beta[0]) == (0.0, 0.0, 3.0)
    assert fit.predict(pd.DataFrame({"g": [0, 99]}), new_levels="population")["estimate"].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1e-9), (0.0, 1e9), (1e10, 1.0), (-3e4, 7.0)])
def test_shift_and_scale_of_the_response_change_units_only(fits, shift, scale):
    """y -> a + c y (HOSTILE: y + 1e10, y in 1e±9 units); 1e10 leaves six digits of y."""
    fit = fits["sleep_rs", "REML"]
    table = data_of("sleep_rs")
    digits = 1e-9 if abs(shift) < 1e6 else 1e-5

    other = hl.fit(fit.spec, table.assign(Reaction=shift + scale * table["Reaction"]))

    assert_allclose(other.G[0], scale**2 * fit.G[0], rtol=digits * 100)
    assert_allclose(other.sigma2, scale**2 * fit.sigma2, rtol=digits)
    assert_allclose(other.beta, [shift + scale * fit.beta[0], scale * fit.beta[1]], rtol=digits)


@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1.0), (0.0, 1e-9), (0.0, 1e6)])
def test_shift_and_scale_of_a_predictor_change_units_only(fits, shift, scale):
    """x -> a + c x leaves fitted values and the random-slope model's variances (in their units) as they were."""
    fit = fits["sleep_rs", "REML"]
    table = data_of("sleep_rs")

    other = hl.fit(fit.spec, table.assign(Days=shift + scale * table["Days"]))

    assert_allclose(other.objective - 2 * np.log(scale) * 0, fit.objective - 2 * np.log(1 / scale), rtol=1e-9)
    assert_allclose(other.beta[1], fit.beta[1] / scale, rtol=1e-8)
    assert_allclose(other.G[0][1, 1], fit.G[0][1, 1] / scale**2, rtol=1e-7)
    assert_allclose(other.conditional_fitted, fit.conditional_fitted, rtol=1e-6)


def test_powers_of_raw_years_are_fitted_as_well_as_of_centred_ones():
    """y on year, year², year³: the same model in the basis (year - 2000)^k, whose columns are far from collinear."""
    rng = np.random.default_rng(15)
    year = np.tile(np.arange(1990, 2011), 8).astype(float)
    g = np.repeat(np.arange(8), 21)
    t = year - 2000
    table = pd.DataFrame({"g": g, "year": year, "t": t})
    table["y"] = rng.normal(size=8)[g] + 0.1 * t + 0.01 * t**2 - 0.002 * t**3 + rng.normal(size=len(g))

    raw = hl.fit(hl.lmm("y ~ year + I(year**2) + I(year**3) + (1 | g)"), table)
    centred = hl.fit(hl.lmm("y ~ t + I(t**2) + I(t**3) + (1 | g)"), table)

    assert_allclose(raw.sigma2, centred.sigma2, rtol=1e-9)
    assert_allclose(raw.G[0], centred.G[0], rtol=1e-8)
    assert_allclose(raw.beta[3], centred.beta[3], rtol=1e-7)
    assert_allclose(raw.marginal_fitted, centred.marginal_fitted, rtol=1e-6, atol=1e-6)


def test_order_of_rows_and_names_of_groups_do_not_matter(fits):
    """Permuting rows and relabelling groups permute the BLUPs and change nothing else."""
    fit = fits["polite_attitude_gender", "REML"]
    table = data_of("polite_attitude_gender")
    names = {"F1": "z", "F2": "y", "F3": "x", "M3": "w", "M4": "v", "M7": "u"}
    shuffled = table.sample(frac=1, random_state=5).assign(subject=lambda t: t["subject"].astype(str).map(names))

    other = hl.fit(fit.spec, shuffled)

    assert_allclose(other.objective, fit.objective, rtol=1e-12)
    ours = fit.random_effects.query("group == 'subject'").set_index("level")["estimate"]
    theirs = other.random_effects.query("group == 'subject'").set_index("level")["estimate"]
    assert_allclose([theirs[names[k]] for k in names], [ours[k] for k in names], rtol=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"),
        ("Reaction ~ Days + (1 | half/Subject)", "Reaction ~ Days + (1 | half) + (1 | half:Subject)"),
    ],
)
def test_shorthands_equal_what_they_stand_for(one, other):
    """lme4's `||` and `/` as sums of terms (Bates et al. 2015, table 2)."""
    table = data_of("sleep_rs").assign(half=lambda t: np.where(t["Days"] < 5, "early", "late"))

    first, second = hl.fit(hl.lmm(one), table), hl.fit(hl.lmm(other), table)

    assert first.fingerprint == second.fingerprint
    assert_allclose(first.objective, second.objective, rtol=1e-13)


def test_unknown_method_is_refused_with_the_list():
    """SpecError names the estimators of the family."""
    with pytest.raises(SpecError, match="reml, ml"):
        hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data, "bayes")


def test_summary_fits_eighty_columns_and_names_what_was_left_out(fits):
    """Printed form: criterion, outcome and the dropped row of politeness."""
    text = fits["polite_slopes", "ML"].summary()

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "singular" in text
    assert "794.8969" in text
    assert "dropped" in text
    assert isinstance(fits["polite_slopes", "ML"], LMMFit)
