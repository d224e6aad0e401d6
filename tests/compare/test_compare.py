"""Comparisons: every number from one of the two sides, exact steps, verdicts with independent evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.compare import Agreement, compare, exact
from hierlmm.compare.attribute import STEPS
from hierlmm.compare.reconcile import check_same
from hierlmm.errors import ComparisonError, FitError
from hierlmm.frequentist.boundary_test import boundary_test, mixture_p

EXACT = json.loads((Path(__file__).parents[1] / "data" / "bayes_area.json").read_text())


def pair(name: str, method: str = "reml", priors=(), draws: int = 0):
    """Fit and exact posterior of a catalogue model."""
    case = hl.load(name)
    fit = hl.fit(case.spec, case.data, method)
    return fit, hl.posterior(case.spec, case.data, priors=priors, draws=draws, seed=1)


@pytest.fixture(scope="module")
def milk():
    return compare(*pair("milk"))


@pytest.fixture(scope="module")
def dyestuff2():
    return compare(*pair("dyestuff2"))


@pytest.fixture(scope="module")
def slopes():
    return compare(*pair("politeness/slopes"))


def test_averaging_step_ends_at_the_posterior_mean_under_flat_priors(milk):
    """Milk, flat on A: 3200-node quadrature made for hierlmm (HB_flat)."""
    frame = milk.attribution
    reached = frame["start"] + frame["estimator"] + frame["averaging"]

    assert_allclose(reached, EXACT["milk"]["HB_flat"]["post_mean"], rtol=1e-8)


@pytest.mark.parametrize("name", ["milk", "dyestuff2", "slopes"])
def test_steps_add_up_to_the_whole_difference(name, request):
    """A telescoping sum: start + steps = end, to rounding, also where steps are merged."""
    comparison = request.getfixturevalue(name)
    frame = comparison.attribution

    assert_allclose(frame["start"] + frame[list(STEPS)].sum(axis=1), frame["end"], rtol=1e-12, atol=1e-12)
    assert np.isfinite(frame[[*STEPS, "start", "end"]].to_numpy()).all()


def test_estimator_step_is_the_way_from_ml_to_reml():
    """Milk by ML: the first step leads to the EBLUPs of the REML fit."""
    fit, posterior = pair("milk", "ml")
    reml = hl.fit(fit.spec, hl.load("milk").data, "reml")

    frame = compare(fit, posterior).attribution

    assert_allclose(frame["start"], fit.areas["estimate"])
    assert_allclose(frame["start"] + frame["estimator"], reml.areas["estimate"], rtol=1e-12)


def test_prior_of_the_fixed_effects_is_a_step_of_its_own():
    """Eight schools under N(0, 5) for the mean: means before that step are those under a flat mean."""
    fit, posterior = pair("eight-schools", priors=["fixed=normal(0, 5)", "sd=halfcauchy(5)"])
    case = hl.load("eight-schools")
    flat = hl.posterior(case.spec, case.data, priors=["sd=halfcauchy(5)"], draws=0, seed=1)

    frame = compare(fit, posterior).attribution

    before = frame["end"] - frame["monte_carlo"] - frame["fixed_prior"]
    assert_allclose(before, flat.areas["estimate"], rtol=1e-8)
    assert np.abs(frame["fixed_prior"]).max() > 0.5


def test_improper_or_absent_means_are_merged_and_said(slopes):
    """Politeness slopes, 6 and 7 levels: under priors flat on G the means of the effects do not exist."""
    frame = slopes.attribution

    assert "merged" in slopes.merged
    assert (frame["averaging"] == 0).all()
    assert any("prior of the variances, which cannot be told apart" in sentence for sentence in slopes.findings)
    assert np.abs(frame["variance_prior"]).max() > 0.1


def test_rows_are_matched_by_label(milk):
    """Every area stands beside itself: estimates and posterior means equal those of the results by key."""
    table = milk.table.query("part == 'area'").set_index("level")
    fit, posterior = milk.fit.areas.set_index("area"), milk.posterior.areas.set_index("area")

    assert_allclose(table["estimate"], fit.loc[table.index, "estimate"])
    assert_allclose(table["posterior"], posterior.loc[table.index, "estimate"])
    assert_allclose(table["in_sd"], (table["posterior"] - table["estimate"]) / table["sd"])
    assert_allclose(table["posterior_gamma"], posterior.loc[table.index, "gamma"])


def test_posterior_variance_is_the_sum_of_its_three_terms(milk, dyestuff2, slopes):
    """E[g1|y] + E[g2|y] + Var[BLUP|y] = Var(θ|y) (law of total variance)."""
    for comparison in (milk, dyestuff2, slopes):
        mse = comparison.mse
        total = mse["posterior_g1"] + mse["posterior_g2"] + mse["posterior_g3"]
        assert_allclose(total, mse["posterior_variance"], rtol=1e-9)
        assert (mse[["posterior_g1", "posterior_g2", "posterior_g3"]] > -1e-12).to_numpy().all()


def test_error_terms_of_a_balanced_one_way_model_in_closed_form():
    """Dyestuff: g1 = (1 - γ)τ², g2 = (1 - γ)² Var(μ̂), g3 by the delta method on γ(ψ) (Kackar & Harville 1984)."""
    fit, posterior = pair("dyestuff")
    tau2, s2, n, m = fit.G[0][0, 0], fit.sigma2, 5, 6
    v = s2 + n * tau2
    gamma = n * tau2 / v
    var_s2, var_v = 2 * s2**2 / (m * (n - 1)), 2 * v**2 / (m - 1)
    # γ = 1 - s2 / v with independent mean squares; b̂ = γ(ȳ - μ), Var(ȳ) = v / n.
    var_gamma = var_s2 / v**2 + var_v * s2**2 / v**4

    mse = compare(fit, posterior).mse

    assert_allclose(mse["g1"], (1 - gamma) * tau2, rtol=1e-10)
    assert_allclose(mse["g2"], gamma**2 * v / (n * m), rtol=1e-10)
    assert_allclose(mse["g3"], var_gamma * v / n, rtol=1e-8)
    assert_allclose(mse["mse"], mse["g1"] + mse["g2"] + 2 * mse["g3"])


def test_zero_variance_gets_a_verdict_with_evidence(dyestuff2):
    """Dyestuff2: estimate 0, multiplier > 0 and equal to a difference of the criterion, LRT 0 with p = 1."""
    row = dyestuff2.boundary.iloc[0]
    fit = dyestuff2.fit
    y = fit.design.y.reshape(6, 5)
    s2, n, N = fit.sigma2, 5, 30

    # d(-2 l)/d tau² at 0 under REML: tr(Z'PZ)/s2 - y'PZZ'Py/s2² with P the centring matrix
    slope = n * 6 * (1 - n / N) / s2 - (n * (y.mean(1) - y.mean())).__pow__(2).sum() / s2**2

    assert row["verdict"] == "at zero"
    assert_allclose(row["multiplier"], slope, rtol=1e-8)
    assert (row["statistic"], row["p"]) == (0.0, 1.0)
    assert 0.1 < row["posterior_near_zero"] < 0.6
    assert dyestuff2.agreement is Agreement.EXPLAINED


def test_singular_direction_is_named(slopes):
    """Politeness slopes: for subject, intercept and slope have correlation 1, so their difference has no variance."""
    rows = slopes.boundary.set_index(["group", "term"])

    assert rows.loc[("subject", "attitude[T.pol]"), "verdict"] == "singular direction"
    assert rows.loc[("subject", "attitude[T.pol]"), "direction"] == "1 Intercept/sd - 1 attitude[T.pol]/sd"
    assert rows.loc[("scenario", "attitude[T.pol]"), "verdict"] == "near zero"


def test_boundary_likelihood_ratio_of_sitka_slopes_is_the_published_one():
    """REML 39.80992 and mixture p 1.273288e-09 (½χ²₁ + ½χ²₂); politeness scenario 11.28921, p 0.00038980."""
    case = hl.load("sitka/slopes")
    test = boundary_test(hl.fit(case.spec, case.data), "tree", "Time")
    polite = hl.load("politeness/gender")
    scenario = boundary_test(hl.fit(polite.spec, polite.data), "scenario", "Intercept")

    assert_allclose([test.statistic, test.p], [39.80991724301791, 1.2732898937971343e-09], rtol=1e-7)
    assert test.df == (1, 2)
    assert_allclose([scenario.statistic, scenario.p], [11.28920325810941, 0.0003897956520814583], rtol=1e-7)
    assert mixture_p(0.0, (0, 1)) == 1.0


def test_sensitivity_table_has_four_priors_and_the_fit(milk, slopes):
    """Rows for REML and at least four priors; an improper or unavailable posterior has its reason."""
    for comparison in (milk, slopes):
        table = comparison.sensitivity
        answered = table[table["reason"] == ""]
        assert answered["prior"].nunique() >= 6 - (comparison is slopes)
        assert table["prior"].iloc[0] == "REML"
        assert (table.loc[table["reason"] != "", "estimate"].isna()).all()
    flat = milk.sensitivity.query("prior == 'flat on variances' and label == 'A'").iloc[0]
    assert_allclose(flat["estimate"], EXACT["milk"]["HB_flat"]["mean_A"], rtol=1e-8)


def test_different_data_or_specs_are_refused_by_name():
    """ComparisonError names the response, the rows or the model."""
    case = hl.load("dyestuff")
    fit = hl.fit(case.spec, case.data)
    other = hl.posterior(case.spec, case.data.assign(Yield=case.data["Yield"] + 1), draws=0, seed=1)
    fewer = hl.posterior(case.spec, case.data.iloc[:-1], draws=0, seed=1)
    weights = np.arange(30.0)
    spec = hl.lmm("Yield ~ w + (1 | Batch)")
    more = hl.posterior(spec, case.data.assign(w=weights), draws=0, seed=1)

    with pytest.raises(ComparisonError, match="values of the response"):
        check_same(fit, other)
    with pytest.raises(ComparisonError, match="The fit used 30 rows, the posterior 29"):
        compare(fit, fewer)
    with pytest.raises(ComparisonError, match="the model specification"):
        compare(fit, more)


def test_areas_of_other_matrices_or_scales_are_refused_by_name():
    """The matrix beside the table, and what two specs of one formula differ in."""
    table = pd.DataFrame({"a": list("bcdefgh"), "y": [3.0, 4, 6, 5, 4, 7, 6], "v": 0.5})
    covariance = pd.DataFrame(np.diag(table["v"]), table["a"], table["a"])
    matrix = hl.fay_herriot("y ~ 1", sampling_covariance="S", area="a")
    plain = hl.fay_herriot("y ~ 1", sampling_variance="v", area="a")
    log = replace(plain, transformation=hl.Log())
    fits = hl.fit(matrix, table, matrices={"S": covariance}), hl.fit(log, table)

    with pytest.raises(ComparisonError, match="differ in the matrices beside the table"):
        compare(fits[0], hl.posterior(matrix, table, matrices={"S": covariance * 1.1}, draws=0))
    with pytest.raises(ComparisonError, match=r"fit has transformation Log\(\), the posterior transformation None"):
        compare(fits[1], hl.posterior(plain, table, draws=0))


def test_failed_sampler_is_never_called_agreement(milk):
    """A posterior whose checks failed gives no conclusion, however close its means (HOSTILE 48)."""
    failed = replace(milk.posterior, diagnostics={**milk.posterior.diagnostics, "failures": "12 divergences."})

    comparison = compare(milk.fit, failed)

    assert milk.agreement is Agreement.CLOSE
    assert comparison.agreement is Agreement.SAMPLER
    assert comparison.findings[0] == "12 divergences."


def test_sample_that_contradicts_the_exact_posterior_is_a_sampler_failure(milk):
    """Means shifted by 8 Monte Carlo errors while the exact posterior agrees (HOSTILE 49)."""
    theta = milk.posterior.terms.theta
    error = np.full_like(theta.estimate, 0.001)
    moved = replace(theta, estimate=theta.estimate + 8 * error, mcse=error)
    drifted = replace(milk.posterior, engine="nuts", terms=replace(milk.posterior.terms, theta=moved))

    comparison = compare(milk.fit, drifted)

    assert comparison.agreement is Agreement.SAMPLER
    assert_allclose(comparison.attribution["monte_carlo"], 0.008, rtol=1e-6)


def test_monte_carlo_error_does_not_turn_agreement_into_difference(milk):
    """Draws 0.15 posterior sds from the exact means, 3 of their Monte Carlo errors: the two analyses still agree."""
    theta = milk.posterior.terms.theta
    error = 0.05 * theta.se
    moved = replace(theta, estimate=theta.estimate + 3 * error, mcse=error)
    noisy = replace(milk.posterior, engine="nuts", terms=replace(milk.posterior.terms, theta=moved))

    assert compare(milk.fit, noisy).agreement is Agreement.CLOSE


@pytest.mark.parametrize(("largest", "agreement"), [(0.106, Agreement.CLOSE), (0.114, Agreement.EXPLAINED)])
def test_bound_of_agreement_may_be_passed_by_two_monte_carlo_errors(milk, largest, agreement):
    """Means at `largest` sds from the EBLUPs, known to 0.005: at 0.106, another seed may well find less than 0.1."""
    theta = milk.posterior.terms.theta
    moved = replace(theta, estimate=milk.fit.areas["estimate"].to_numpy() + largest * theta.se, mcse=0.005 * theta.se)
    near = replace(milk.posterior, terms=replace(milk.posterior.terms, theta=moved))

    assert compare(milk.fit, near).agreement is agreement


def test_sampler_is_not_blamed_where_there_is_no_exact_posterior_to_contradict(milk, monkeypatch):
    """Where the exact engine gives up, the last step holds all that differs and is no evidence against the draws."""

    def give_up(*_, **__):
        raise FitError("k̂ is 0.9.")

    error = np.full_like(milk.posterior.terms.theta.estimate, 1e-6)
    theta = replace(milk.posterior.terms.theta, mcse=error)
    sampled = replace(milk.posterior, engine="nuts", terms=replace(milk.posterior.terms, theta=theta))
    monkeypatch.setattr(exact, "of_design", give_up)

    comparison = compare(milk.fit, sampled)

    assert comparison.agreement is Agreement.CLOSE
    assert comparison.merged.count("k̂ is 0.9.") == 2
    total = comparison.attribution["end"] - comparison.attribution["start"]
    assert_allclose(comparison.attribution["monte_carlo"], total, rtol=1e-12)


@pytest.mark.parametrize(("levels", "agreement"), [(3, Agreement.UNDEFINED), (4, Agreement.EXPLAINED)])
def test_agreement_is_not_claimed_where_moments_do_not_exist(levels, agreement):
    """Flat on the sd, J levels, one mean: E[sd^k | y] needs k < J - 2 (Gelman 2006), and with it E[b^k | y]."""
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 5), "y": np.tile([1.0, 2.0, 4.0, 5.0, 9.0], 4)})
    data["y"] += data["g"].map({"a": 0.0, "b": 2.0, "c": 7.0, "d": 3.0})
    data = data[data["g"] < "abcde"[levels]]
    spec = hl.lmm("y ~ 1 + (1 | g)")

    comparison = compare(hl.fit(spec, data), hl.posterior(spec, data, priors="flat_sd", draws=0, seed=1))

    assert comparison.agreement is agreement


def test_sensitivity_does_not_depend_on_the_units_of_a_predictor():
    """Days in units of 1/1000: sds of slopes are 1000 times smaller under every prior, the rest as before."""
    case = hl.load("sleepstudy/slopes")
    tables = []
    for scale in (1.0, 1000.0):
        data = case.data.assign(Days=case.data["Days"] * scale)
        frame = compare(hl.fit(case.spec, data), hl.posterior(case.spec, data, draws=0, seed=1)).sensitivity
        tables.append(frame[frame["label"] == "sd(Subject:Days)"].set_index("prior")["estimate"] * scale)

    assert len(tables[0]) == 7
    assert_allclose(tables[1], tables[0], rtol=1e-6)


def test_posterior_probability_of_a_negligible_sd_is_an_integral(milk):
    """Eight schools and milk, flat on τ: 40,001-point trapezoid of the integrated likelihood, written out here."""
    for comparison in (compare(*pair("eight-schools")), milk):
        y, X, D = (getattr(comparison.fit.design, name) for name in ("y", "X", "D"))
        v = np.linspace(-25, 12, 40001) + 0.5 * np.log(np.median(D))
        w = 1 / (np.exp(2 * v)[:, None] + D)
        XVX = np.einsum("ki,ip,iq->kpq", w, X, X)
        XVy = np.einsum("ki,ip,i->kp", w, X, y)
        fitted = np.einsum("kp,kp->k", XVy, np.linalg.solve(XVX, XVy[:, :, None])[:, :, 0])
        log_p = 0.5 * (np.log(w).sum(1) - np.linalg.slogdet(XVX)[1] - w @ y**2 + fitted) + v
        p = np.exp(log_p - log_p.max())
        expected = p[np.exp(v) < 0.1 * np.sqrt(np.median(D))].sum() / p.sum()

        assert_allclose(comparison.boundary["posterior_near_zero"], [expected], rtol=6e-3)


def test_comparison_needs_no_data():
    """compare(fit, posterior) works on results alone, and the table survives a change of the caller's frame."""
    case = hl.load("dyestuff")
    data = case.data.copy()
    fit, posterior = hl.fit(case.spec, data), hl.posterior(case.spec, data, draws=0, seed=1)
    before = compare(fit, posterior).table
    data["Yield"] = 0.0

    after = compare(fit, posterior).table

    pd.testing.assert_frame_equal(before, after)


def test_a_comparison_integrates_each_posterior_once(monkeypatch):
    """No prior is asked of the engine twice: attribution and sensitivity share them, and the posterior given is one."""
    fit, posterior = pair("dyestuff")
    asked = []
    engine = exact.of_design

    def counted(design, priors, **settings):
        asked.append(priors)
        return engine(design, priors, **settings)

    monkeypatch.setattr(exact, "of_design", counted)

    table = compare(fit, posterior).sensitivity

    assert len(asked) == len(set(asked)) == table["prior"].nunique() - 3  # less REML, the posterior, and its own prior
    assert posterior.priors not in asked
