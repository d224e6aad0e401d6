"""The Fay-Herriot fit against exact answers, closed forms, simulation and its own limits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from hierlmm.design.types import AreaDesign, Dropped, Fingerprint, NewRows
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.area.fitting import fit_area_ml, fit_area_reml
from hierlmm.frequentist.area.prediction import predict_rows
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.likelihood.area.moments import moments
from hierlmm.spec.build import fay_herriot

CASES = json.loads((Path(__file__).parents[2] / "data" / "fay_herriot_exact.json").read_text())["cases"]
FITS = {"reml": fit_area_reml, "ml": fit_area_ml}


def area_design(y, X, D, role=None, areas=None, offset=None):
    """A design as `hierlmm.design.build` hands it on."""
    fixed = tuple(f"x{j}" for j in range(X.shape[1]))
    spec = fay_herriot(f"y ~ 0 + {' + '.join(fixed)}", sampling_variance="D", area="area")
    return AreaDesign(
        spec=spec,
        table=pd.DataFrame(),
        areas=pd.Index([f"a{i}" for i in range(len(y))] if areas is None else areas),
        y=np.asarray(y, float),
        offset=np.zeros(len(y)) if offset is None else offset,
        D=np.asarray(D, float),
        X=X,
        fixed=fixed,
        aliased=(),
        role=np.full(len(y), "sampled", dtype="<U9") if role is None else np.asarray(role),
        levels={},
        dropped=Dropped(),
        notes=(),
        fingerprint=Fingerprint("s", "r", "y", "x", "d"),
    )


def case_design(name):
    case = CASES[name]
    return area_design(np.array(case["y"]), np.array(case["X"]), np.array(case["D"]))


def new_rows(design, positions, X, offset=None):
    """Rows to predict for; position -1 is an area the design does not hold."""
    k = len(positions)
    labels = pd.Index(["new" if i < 0 else design.areas[i] for i in positions])
    return NewRows(
        index=pd.RangeIndex(k),
        X=np.asarray(X, float),
        offset=np.zeros(k) if offset is None else offset,
        Z=(np.ones((k, 1)),),
        codes=(np.asarray(positions),),
        groups=(labels,),
        D=np.full(k, np.nan),
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_estimates_and_error_terms_equal_the_40_digit_answers(name, method):
    """EBLUP, g1, g2, g3 and second-order MSE of 11 data sets; tests/data/fay_herriot_exact.json."""
    want, every = CASES[name][method], slice(None, None, CASES[name]["stride"])

    fit = FITS[method](case_design(name))

    got_of = {"eblup": fit.eblup, "g1": fit.g1, "g2": fit.g2, "g3": fit.g3, "mse": fit.mse_unbiased}
    for quantity, got in got_of.items():
        assert_allclose(got[every], want[quantity], rtol=1e-10, atol=0, err_msg=quantity)
    assert_allclose(fit.beta, want["beta"], rtol=1e-9)
    assert_allclose(fit.fixed["se"], want["se_beta"], rtol=1e-10)
    assert_allclose([fit.var_A, fit.bias_A], [want["var_A"], want["bias_A"]], rtol=1e-11)
    assert fit.outcome is (AreaOutcome.INTERIOR if want["A"] else AreaOutcome.AT_ZERO)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_likelihood_and_criteria_follow_the_stated_conventions(name, method):
    """The file's AIC and BIC are from the ML likelihood; a REML fit's own are −2ℓ_REML + 2(p+1) and + log(m)(p+1)."""
    want = CASES[name][method]
    design = case_design(name)
    k, m = design.X.shape[1] + 1, len(design.y)

    fit = FITS[method](design)

    own = want["loglik_REML" if method == "reml" else "loglik_ML"]
    assert_allclose([fit.marginal_loglik, fit.loglik], [want["loglik_ML"], own], rtol=1e-11)
    assert_allclose([fit.marginal_aic, fit.marginal_bic], [want["AIC"], want["BIC"]], rtol=1e-11)
    assert_allclose([fit.aic, fit.bic], [-2 * own + 2 * k, -2 * own + np.log(m) * k], rtol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_exact_information_of_reml_can_be_asked_for(name):
    """mse_trace in the exact answers has var(Â) = 2/tr P²; the frame says which it is."""
    want, every = CASES[name]["reml"], slice(None, None, CASES[name]["stride"])

    fit = fit_area_reml(case_design(name), information="trace")

    assert_allclose(fit.mse_unbiased[every], want["mse_trace"], rtol=1e-10)
    assert "2/tr P²" in fit.areas.attrs["g3"]
    assert "2/tr P²" in fit.summary()


def test_milk_coefficients_match_the_published_fit():
    """CRAN package saens 0.1.0, README, REML fit of the milk data, printed to six decimals."""
    fit = fit_area_reml(case_design("milk"))

    assert_allclose(fit.beta, [0.968189, 0.132780, 0.226946, -0.241301], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["milk", "boundary_b15", "eusilcA_Mean"])
def test_the_eblup_is_the_posterior_mean_with_the_area_variance_plugged_in(name):
    """E[θ | y, A = Â] under a flat β is the EBLUP, and its variance g1 + g2 (Harville 1976, Ann. Stat. 4:384)."""
    design = case_design(name)
    fit = fit_area_reml(design)

    at = moments(fit.A_hat, design.y, design.X, design.D)

    assert_allclose(at.theta, fit.eblup, rtol=1e-12)
    assert_allclose(at.g1 + at.g2, fit.g1 + fit.g2, rtol=1e-11)
    assert_allclose(at.loglik, fit.loglik, rtol=1e-12)


def test_zero_is_said_and_marked():
    """Exact zero: estimates are synthetic, g1 is 0, the formula is kept apart from an mse that says what it is."""
    fit = fit_area_reml(case_design("boundary_b1"))

    frame = fit.areas
    assert fit.A_hat == 0.0
    assert_allclose(frame["estimate"], frame["synthetic"], rtol=1e-12)
    assert (frame["g1"] == 0).all()
    assert frame["mse_valid"].all()
    assert "Â is 0" in frame.attrs["mse"]
    assert_allclose(frame["mse_unbiased"], frame["g2"] + 2 * frame["g3"], rtol=1e-14)
    assert fit.summary().replace("\n", " ").startswith(AreaOutcome.AT_ZERO.value)
    assert any("exactly 0" in note for note in fit.notes)
    assert fit.A["lower"].item() == 0.0 < fit.A["upper"].item()


def test_a_search_that_failed_is_said_first():
    """The summary's first words are the outcome's, whatever else there is to say."""
    fit = replace(fit_area_reml(case_design("milk")), outcome=AreaOutcome.NOT_CONVERGED)

    assert fit.summary().replace("\n", " ").startswith(AreaOutcome.NOT_CONVERGED.value)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_weights_fall_with_the_sampling_variance_and_errors_stay_above_g1(method):
    """γ_i = A/(A + D_i) decreases in D_i; mse >= g1 > 0; the estimate lies between direct and synthetic."""
    fit = FITS[method](case_design("milk"))

    frame = fit.areas.sort_values("sampling_variance")
    assert (np.diff(frame["gamma"]) <= 0).all()
    assert ((frame["mse"] >= frame["g1"]) & (frame["g1"] > 0)).all()
    between = (frame["estimate"] - frame["direct"]) * (frame["estimate"] - frame["synthetic"])
    assert (between <= 0).all()


@pytest.mark.parametrize("c", [1e-6, 1e6])
@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["milk", "boundary_b6"])
def test_the_fit_follows_the_units(name, method, c):
    """y -> c y, D -> c² D: estimates by c, errors by c², weights and coefficients of variation not at all."""
    design = case_design(name)
    fit = FITS[method](design)

    scaled = FITS[method](replace(design, y=c * design.y, D=c * c * design.D))

    assert_allclose(scaled.eblup, c * fit.eblup, rtol=1e-10)
    assert_allclose(scaled.mse, c * c * fit.mse, rtol=1e-10)
    assert_allclose(scaled.gamma, fit.gamma, rtol=1e-10)
    assert_allclose(scaled.areas["cv"], fit.areas["cv"], rtol=1e-10)
    assert scaled.outcome is fit.outcome


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_order_of_areas_goes_through_to_the_table(method):
    """A permutation of the rows permutes the frame."""
    design = case_design("milk")
    order = np.random.default_rng(5).permutation(len(design.y))
    fit = FITS[method](design).areas.set_index("area")

    shuffled = FITS[method](
        replace(design, areas=design.areas[order], y=design.y[order], X=design.X[order], D=design.D[order])
    )

    assert list(shuffled.areas["area"]) == list(design.areas[order])
    got = shuffled.areas.set_index("area").loc[design.areas]
    for column in ("estimate", "mse", "gamma", "g1", "g2", "g3"):
        assert_allclose(got[column], fit[column], rtol=1e-10)


def test_an_offset_moves_the_estimates_and_nothing_else():
    """θ_i = offset_i + x_i'β + v_i: the fit of y − offset, shifted."""
    design = case_design("milk")
    offset = np.linspace(-50, 80, len(design.y))
    fit = fit_area_reml(design)

    moved = fit_area_reml(replace(design, y=design.y + offset, offset=offset))

    assert_allclose(moved.A_hat, fit.A_hat, rtol=1e-10)
    assert_allclose(moved.eblup, fit.eblup + offset, rtol=1e-11)
    assert_allclose(moved.synthetic, fit.synthetic + offset, rtol=1e-11)
    assert_allclose(moved.mse, fit.mse, rtol=1e-10)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_unsampled_areas_are_the_limit_of_a_huge_sampling_variance(method):
    """D -> infinity gives γ = 0, mse = A + x'(X'V⁻¹X)⁻¹x − b(Â); the fit of the others does not move."""
    design = case_design("milk")
    role = np.full(43, "sampled", dtype="<U9")
    role[[4, 20]] = "unsampled"
    y, D = design.y.copy(), design.D.copy()
    y[[4, 20]], D[[4, 20]] = np.nan, np.nan
    limit = D.copy()
    limit[[4, 20]] = 1e13
    vague = FITS[method](replace(design, D=limit))
    kept = np.delete(np.arange(43), [4, 20])
    without = FITS[method](
        replace(
            design,
            areas=design.areas[kept],
            y=y[kept],
            X=design.X[kept],
            D=D[kept],
            role=role[kept],
            offset=design.offset[kept],
        )
    )

    fit = FITS[method](replace(design, y=y, D=D, role=role))

    assert_allclose(fit.A_hat, without.A_hat, rtol=1e-12)
    assert_allclose(fit.eblup[kept], without.eblup, rtol=1e-12)
    assert_allclose(fit.eblup[[4, 20]], (design.X @ without.beta)[[4, 20]], rtol=1e-12)
    cov = np.einsum("ij,jk,ik->i", design.X, without.vcov_beta, design.X)[[4, 20]]
    assert_allclose(fit.mse[[4, 20]], without.A_hat + cov - without.bias_A, rtol=1e-11)
    # The 43-area limit knows of two more areas, but learns nothing from them for β; A differs only under ML's m.
    if method == "reml":
        assert_allclose(vague.mse[[4, 20]], fit.mse[[4, 20]], rtol=1e-6)
    frame = fit.areas
    assert frame["direct"].isna().sum() == 2
    assert (frame["role"] == "unsampled").sum() == 2
    assert any("a4, a20" in note for note in fit.notes)
    assert fit.summary()


def test_areas_without_sampling_error_keep_their_direct_estimate():
    """D = 0 with zero_variance="direct": estimate = direct, every error term 0, the rest as without the area."""
    design = case_design("boundary_b8")
    role, D = np.full(13, "sampled", dtype="<U9"), design.D.copy()
    role[3], D[3] = "direct", 0.0
    kept = np.delete(np.arange(13), 3)
    without = fit_area_reml(
        replace(
            design,
            areas=design.areas[kept],
            y=design.y[kept],
            X=design.X[kept],
            D=design.D[kept],
            role=role[kept],
            offset=design.offset[kept],
        )
    )

    fit = fit_area_reml(replace(design, D=D, role=role))

    row = fit.areas.iloc[3]
    assert row["estimate"] == design.y[3]
    assert row["gamma"] == 1.0
    assert (row[["mse", "se", "g1", "g2", "g3"]] == 0).all()
    assert row["role"] == "direct"
    assert row["mse_valid"]
    assert_allclose(fit.eblup[kept], without.eblup, rtol=1e-12)
    assert any("a3" in note and "variance 0" in note for note in fit.notes)


def test_a_coefficient_of_variation_at_zero_is_nan_and_said():
    """se/|0| has no value; no warning, no infinity."""
    design = case_design("milk")
    y = design.y.copy()
    y[7] = 0.0

    fit = fit_area_reml(replace(design, y=y))

    assert np.isnan(fit.areas["direct_cv"][7])
    assert np.isfinite(fit.areas["cv"][7])
    assert any("undefined" in note and "a7" in note for note in fit.notes)


def test_areas_worse_than_their_direct_estimate_are_flagged():
    """The flag is mse > D, area by area; the 40-digit answers for boundary_b15 by REML say which areas these are."""
    case = CASES["boundary_b15"]
    want = np.array(case["reml"]["mse"]) > np.array(case["D"])[:: case["stride"]]

    fit = fit_area_reml(case_design("boundary_b15"))

    assert list(fit.areas["above_direct"][:: case["stride"]]) == list(want)
    assert want.any()


def test_as_many_coefficients_as_areas_is_refused_by_name():
    """Nothing is left over to estimate A from."""
    design = area_design([1.0, 2.0], np.eye(2), [0.1, 0.2])

    with pytest.raises(FitError, match="2 areas in the fit and 2 coefficients"):
        fit_area_reml(design)


def test_intervals_are_normal_with_the_level_asked_for():
    """Normal quantiles from tables: 1.959963984540054 at 95 %, 1.6448536269514722 at 90 %."""
    fit = fit_area_reml(case_design("milk"))

    for frame in (fit.areas, fit.fixed):
        assert_allclose((frame["upper"] - frame["estimate"]) / frame["se"], 1.959963984540054, rtol=1e-10)
    ninety = fit.area_table(level=0.90)
    assert_allclose((ninety["estimate"] - ninety["lower"]) / ninety["se"], 1.6448536269514722, rtol=1e-10)
    wald = fit.A_table(interval="wald")
    assert_allclose((wald["upper"] - wald["estimate"]) / wald["se"], 1.959963984540054, rtol=1e-12)
    with pytest.raises(FitError, match="between 0 and 1"):
        fit.area_table(level=95)


def test_a_known_area_is_predicted_with_its_effect_and_a_new_one_is_not():
    """At an area's own covariates the prediction is its EBLUP and mse; a new area has x'β̂ and A + x'(X'V⁻¹X)⁻¹x."""
    design = case_design("milk")
    fit = fit_area_ml(design)
    x = np.array([1.0, 0.5, 0.25, 0.25])

    frame = predict_rows(fit, new_rows(design, [11, -1], [design.X[11], x]), 0.95)

    assert_allclose(frame["estimate"], [fit.eblup[11], x @ fit.beta], rtol=1e-12)
    assert_allclose(frame["mse"], [fit.mse[11], fit.A_hat + x @ fit.vcov_beta @ x - fit.bias_A], rtol=1e-11)
    assert list(frame["basis"]) == ["eblup", "synthetic"]
    assert set(frame.attrs["se_contains"]) == {"eblup", "synthetic"}


def test_a_known_area_at_other_covariates_has_the_error_of_that_combination():
    """Var(x'β̂ + γ(y_i − x_i'β̂) − x'β − v_i) computed densely from y's joint law, given A."""
    design = case_design("boundary_b8")
    fit = fit_area_reml(design)
    i, x = 2, np.array([1.0, -3.0])
    V = np.diag(fit.A_hat + design.D)
    gain = fit.vcov_beta @ design.X.T @ np.linalg.inv(V)
    weights = x @ gain - fit.gamma[i] * design.X[i] @ gain
    weights[i] += fit.gamma[i]
    error = weights @ V @ weights - 2 * weights[i] * fit.A_hat + fit.A_hat

    frame = predict_rows(fit, new_rows(design, [i], [x]), 0.95)

    assert_allclose(frame["mse"], error + 2 * fit.g3[i], rtol=1e-10)
    assert_allclose(frame["estimate"], x @ fit.beta + fit.gamma[i] * (design.y[i] - design.X[i] @ fit.beta))


def test_areas_outside_the_fit_are_predicted_as_the_table_has_them():
    """An unsampled area of the table is synthetic, an area without sampling error keeps its direct estimate."""
    design = case_design("milk")
    role, y, D = np.full(43, "sampled", dtype="<U9"), design.y.copy(), design.D.copy()
    role[4], y[4], D[4] = "unsampled", np.nan, np.nan
    role[9], D[9] = "direct", 0.0
    fit = fit_area_reml(replace(design, y=y, D=D, role=role))

    frame = predict_rows(fit, new_rows(design, [4, 9], design.X[[4, 9]]), 0.95)

    assert_allclose(frame["estimate"], fit.eblup[[4, 9]], rtol=1e-12)
    assert_allclose(frame["mse"], fit.mse[[4, 9]], rtol=1e-12)
    assert list(frame["basis"]) == ["synthetic", "direct"]
    own = fit.predict()
    assert_allclose(own["estimate"], fit.eblup, rtol=1e-12)
    assert_allclose(own["mse"], fit.mse, rtol=1e-11)
    assert list(own["area"]) == list(design.areas)


def test_simulated_direct_estimates_have_the_fitted_mean_and_variance():
    """Mean offset + Xβ̂ and variance Â + D_i, each within 5 Monte Carlo standard errors; 20,000 draws."""
    fit = fit_area_reml(case_design("boundary_b15"))
    V = fit.A_hat + fit.design.D

    draws = fit.simulate(20_000, seed=11)

    assert draws.shape == (15, 20_000)
    assert draws.index.equals(fit.design.areas)
    assert (np.abs(draws.mean(axis=1) - fit.synthetic) < 5 * np.sqrt(V / 20_000)).all()
    assert (np.abs(draws.var(axis=1) / V - 1) < 5 * np.sqrt(2 / 20_000)).all()
    assert_allclose(fit.simulate(3, seed=11), draws[[0, 1, 2]], rtol=0)


def test_a_refit_is_the_fit_of_the_new_response():
    """Same model, same method, other y; the fingerprint tells the two apart."""
    fit = fit_area_ml(case_design("boundary_b15"))
    y = fit.simulate(seed=2)[0]

    again = fit.refit(y)

    direct = fit_area_ml(replace(fit.design, y=y.to_numpy()))
    assert again.A_hat == direct.A_hat
    assert_allclose(again.eblup, direct.eblup, rtol=0)
    assert fit.fingerprint.differences(again.fingerprint) == ("response",)


def test_a_refit_refuses_a_response_that_does_not_fit():
    """Wrong length and values that are not finite are named."""
    fit = fit_area_reml(case_design("milk"))
    y = fit.design.y.copy()
    y[3] = np.inf

    with pytest.raises(DesignError, match="43 areas"):
        fit.refit(np.zeros(42))
    with pytest.raises(DesignError, match=r"finite; 1 .*a3"):
        fit.refit(y)


def test_residuals_are_standardised_by_their_exact_variance():
    """Var(y − Xβ̂) = diag(V − X(X'V⁻¹X)⁻¹X'); an area alone in its category has residual 0 and no standardised one."""
    design = case_design("milk")
    X = np.column_stack([design.X, np.arange(43) == 6]).astype(float)
    fit = fit_area_reml(replace(design, X=X, fixed=(*design.fixed, "x4")))
    variance = fit.A_hat + design.D - np.einsum("ij,jk,ik->i", X, fit.vcov_beta, X)

    frame = fit.residuals

    others = np.arange(43) != 6
    want = (design.y - X @ fit.beta)[others] / np.sqrt(variance[others])
    assert_allclose(frame["standardised"][others], want, rtol=1e-9, atol=1e-12)
    assert np.isnan(frame["standardised"][6])
    assert_allclose(frame["effect"], fit.gamma * (design.y - X @ fit.beta), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_second_order_mse_is_the_mean_squared_error_in_simulation(method):
    """2,000 fits of data simulated at A = 1 with m = 40: mean over areas of (EBLUP − θ)² against the mean of the
    formula at the true A and the mean of the mse given, within 4 Monte Carlo standard errors (g3 is 5 of them).
    """
    rng = np.random.default_rng(20)
    m, A, reps = 40, 1.0, 2000
    X = np.column_stack([np.ones(m), rng.normal(size=m)])
    D = np.tile([0.5, 1.0, 1.5, 2.5], 10)
    theta = rng.normal(size=(reps, m)) * np.sqrt(A)
    y = theta + rng.normal(size=(reps, m)) * np.sqrt(D)
    V = A + D
    C = np.linalg.inv(X.T @ (X / V[:, None]))
    leverage = np.einsum("ij,jk,ik->i", X, C, X)
    g3 = D**2 / V**3 * 2 / np.sum(V**-2)
    expected = np.mean(A * D / V + (D / V) ** 2 * leverage + g3)

    design = area_design(y[0], X, D)
    squared, claimed = np.empty(reps), np.empty(reps)
    for i in range(reps):
        fit = FITS[method](replace(design, y=y[i]))
        squared[i], claimed[i] = np.mean((fit.eblup - theta[i]) ** 2), np.mean(fit.mse)

    # E[mse formula at Â] is the MSE itself; the MSE is g1 + g2 + g3 at the true A (Prasad and Rao 1990).
    assert abs(squared.mean() - expected) < 4 * squared.std() / np.sqrt(reps)
    gap = squared - claimed
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(reps)


def test_the_summary_fits_a_terminal_and_names_its_conventions():
    """At most 80 columns, whatever the length of a name."""
    design = case_design("milk")
    long = ("Intercept", "C(MajorArea, contr.treatment(base='the first of the major areas'))[T.2]", "c", "d")

    text = fit_area_reml(replace(design, fixed=long)).summary()

    assert max(len(line) for line in text.splitlines()) <= 80
    for said in ("2/Σ V⁻²", "profile likelihood", "REML", "gamma"):
        assert said in text


def test_results_cannot_be_written_to():
    """Arrays are read-only copies: neither the fit nor the design it was made from can change the other."""
    fit = fit_area_reml(case_design("milk"))

    with pytest.raises(ValueError, match="read-only"):
        fit.eblup[0] = 0.0
    with pytest.raises(AttributeError):
        fit.A_hat = 1.0
