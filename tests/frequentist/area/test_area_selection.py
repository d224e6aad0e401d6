"""Criteria of area-level fits: a package's figures, plain formulas written out, and what must not matter."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import ComparisonError, FitError
from hierlmm.frequentist.area.selection import CORRECTED, penalties
from hierlmm.likelihood.area.estimators import ESTIMATORS

SAE = json.loads((Path(__file__).parents[2] / "data" / "area_selection_sae.json").read_text())
MEAN = hl.fay_herriot("yi ~ 1", sampling_variance="vardir", area="SmallArea")


def milk(method="reml"):
    case = hl.load("milk")
    return hl.fit(case.spec, case.data, method)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_criteria_without_simulation_are_those_of_sae(method):
    """sae prints AIC, BIC and KIC from the likelihood of β and A at its estimates, found to a relative 1e-12."""
    found = milk(method).selection()

    assert set(found.values) == {"AIC", "BIC", "KIC"}
    for name, value in found.values.items():
        assert_allclose(value, SAE[method][name], rtol=1e-9)
    assert_allclose(found.loglik, SAE[method]["loglike"], rtol=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_corrected_criteria_are_those_of_sae_within_monte_carlo_error(method):
    """sae drew 500 replicates. Its averages lack the known mean of Σ z², of variance 2 m, that ours has put in."""
    found = milk(method).selection(4000, seed=1)

    for name in CORRECTED:
        ours = found.errors[name]
        one = ours * np.sqrt(found.replicates) + np.sqrt(2 * 43)
        assert abs(found.values[name] - SAE[method][name]) < 3 * np.hypot(ours, one / np.sqrt(500))


@pytest.mark.parametrize("method", ["ml", "fh"])
def test_each_replicate_adds_what_the_formulas_say(method):
    """Marhuenda, Morales and Pardo's formulas, one replicate at a time, with Σ z² − m added where it is said."""
    fit = milk(method)
    y, X, D = fit.design.y, fit.design.X, fit.design.D
    V, m = fit.A_hat + D, len(y)
    noise = np.random.default_rng(3).standard_normal((5, m))

    found = penalties(fit, 5, np.random.default_rng(3))

    def loglik(y, beta, V):
        return -0.5 * np.sum(np.log(2 * np.pi * V) + (y - X @ beta) ** 2 / V)

    for z, row in zip(noise, found, strict=True):
        drawn = X @ fit.beta + np.sqrt(V) * z
        V_b = ESTIMATORS[method](drawn, X, D).A + D
        beta = np.linalg.solve(X.T / V_b @ X, X.T / V_b @ drawn)
        between, above = (X @ (fit.beta - beta)) ** 2, z @ z - m
        b1 = np.sum((V + between - (drawn - X @ beta) ** 2) / V_b) + above
        b2 = np.sum(np.log(V) + (V_b + between) / V - np.log(V_b) - (drawn - X @ beta) ** 2 / V_b)
        cross = 2 * (loglik(drawn, beta, V_b) - loglik(y, beta, V_b)) + above
        own = 4 * (fit.marginal_loglik - loglik(y, beta, V_b))
        assert_allclose(row, [b1, cross, own, b1 + b2, cross + b2, own + b2], rtol=1e-8, atol=1e-8)


def test_a_replicate_depends_on_the_seed_and_its_number_alone():
    """The first of more replicates are the replicates; another seed gives others."""
    fit = milk()
    few, more, other = (penalties(fit, n, np.random.default_rng(seed)) for n, seed in ((7, 1), (20, 1), (7, 2)))

    assert_allclose(few, more[:7], rtol=1e-12)
    assert not np.allclose(few, other)


def test_units_and_order_of_areas_do_not_matter_to_what_is_chosen():
    """y in thousandths: every criterion moves by 2 m log 1000; a permuted table: not at all."""
    case = hl.load("milk")
    small = case.data.assign(yi=case.data["yi"] * 1e3, vardir=case.data["vardir"] * 1e6)
    turned = case.data.iloc[::-1]

    plain, moved = (hl.fit(case.spec, table).selection(50, seed=1).frame for table in (case.data, small))
    reverse = hl.fit(case.spec, turned).selection().frame

    assert_allclose(moved["value"] - plain["value"], 2 * 43 * np.log(1000), rtol=1e-9)
    assert_allclose(moved["penalty"], plain["penalty"], rtol=1e-7)
    assert_allclose(reverse["value"], plain["value"][:3], rtol=1e-9)


def test_correlated_sampling_errors_are_turned_and_spatial_effects_refused():
    """Replicates of data with covariances S: their law in turned coordinates, by dense matrices one at a time."""
    case = hl.load("milk")
    labels, D = case.data["SmallArea"], case.data["vardir"].to_numpy()
    fours = (np.arange(43) // 4 == np.c_[:43] // 4) & (np.eye(43) == 0)
    S = np.diag(D) + 0.4 * np.sqrt(np.outer(D, D)) * fours
    S = pd.DataFrame(S, labels, labels)
    spec = hl.fay_herriot("yi ~ C(MajorArea)", sampling_covariance="S", area="SmallArea")
    fit = hl.fit(spec, case.data, matrices={"S": S})

    row = penalties(fit, 1, np.random.default_rng(5))[0]

    d, U = np.linalg.eigh(S.to_numpy())
    z, X, y = np.random.default_rng(5).standard_normal(43), fit.design.X, fit.design.y
    drawn = X @ fit.beta + U @ (np.sqrt(fit.A_hat + d) * z)
    again = hl.fit(spec, case.data.assign(yi=drawn), matrices={"S": S})
    V, V_b = (A * np.eye(43) + S.to_numpy() for A in (fit.A_hat, again.A_hat))
    moved = X @ (fit.beta - again.beta)
    independent = np.trace(np.linalg.solve(V_b, V)) + moved @ np.linalg.solve(V_b, moved)
    assert_allclose(row[0], independent - again.residual @ np.linalg.solve(V_b, again.residual) + z @ z - 43, rtol=1e-7)
    rest = y - X @ again.beta
    loglik = -(43 * np.log(2 * np.pi) + np.linalg.slogdet(V_b)[1] + rest @ np.linalg.solve(V_b, rest)) / 2
    assert_allclose(row[2], 4 * (fit.marginal_loglik - loglik), rtol=1e-7)
    ring = pd.DataFrame(np.roll(np.eye(43), 1, axis=1), labels, labels)
    sar = hl.fay_herriot(
        "yi ~ C(MajorArea)", sampling_variance="vardir", area="SmallArea", area_effects=hl.SAR("W")
    )  # fmt: skip
    spatial = hl.fit(sar, case.data, matrices={"W": ring})
    assert_allclose(spatial.selection().values["AIC"], -2 * spatial.marginal_loglik + 2 * 6, rtol=1e-12)
    with pytest.raises(FitError, match="these are spatial"):
        spatial.selection(10, seed=1)


def test_models_stand_side_by_side_on_the_same_random_numbers():
    """The row of a model is its own selection; two fits by ML with nested covariates are tested."""
    case = hl.load("milk")
    fits = [hl.fit(spec, case.data, "ml") for spec in (case.spec, MEAN)]

    found = hl.compare_models(*fits, names=["areas", "mean"], replicates=30, seed=4)

    assert list(found.table["model"]) == ["mean", "areas"]
    alone = fits[0].selection(30, seed=4)
    row = found.table.set_index("model").loc["areas"]
    assert_allclose(row[[name.lower() for name in alone.values]].astype(float), list(alone.values.values()), rtol=1e-12)
    assert_allclose(row["statistic"], 2 * (fits[0].loglik - fits[1].loglik), rtol=1e-12)
    assert row["df"] == 3
    assert set(found.best["model"]) == {"areas"}
    assert "chi²(3)" in str(found)


def test_fits_of_other_areas_or_other_direct_estimates_are_not_compared():
    """Named: the areas in which they differ; several kinds of difference."""
    case = hl.load("milk")
    fit, data = milk(), case.data
    other = data.assign(yi=data["yi"].where(data["SmallArea"] != 7, 1.0))
    variance = data.assign(vardir=data["vardir"].where(data["SmallArea"] != 9, 0.1))

    with pytest.raises(ComparisonError, match=r"same areas in the fit; .* differ in 43"):
        hl.compare_models(fit, hl.fit(MEAN, data[:-1]))
    with pytest.raises(ComparisonError, match=r"same direct estimates.* differ for 7"):
        hl.compare_models(fit, hl.fit(MEAN, other))
    with pytest.raises(ComparisonError, match=r"same sampling variances.* differ for 9"):
        hl.compare_models(fit, hl.fit(MEAN, variance))
    with pytest.raises(ComparisonError, match="two or more fits of linear mixed models, or of area-level models"):
        hl.compare_models(fit, hl.fit(hl.lmm("y ~ (1 | g)"), pd.DataFrame({"y": [1.0, 2, 4, 3], "g": [1, 1, 2, 2]})))
    dye = hl.load("dyestuff")
    with pytest.raises(ComparisonError, match="Bootstrap corrections of criteria are of area-level models"):
        hl.compare_models(*[hl.fit(dye.spec, dye.data)] * 2, replicates=5, seed=1)


def test_bootstraps_need_a_seed_and_a_count():
    """Refused before anything is drawn."""
    with pytest.raises(FitError, match="drawn from a seed"):
        milk().selection(10)
    with pytest.raises(FitError, match="whole number of replicates"):
        milk().selection(-1, seed=1)
    with pytest.raises(FitError, match="same random numbers"):
        hl.compare_models(milk(), milk("ml"), replicates=5, seed=np.random.default_rng(1))
