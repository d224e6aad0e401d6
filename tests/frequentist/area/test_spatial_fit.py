"""Spatial area-level fits: published data, matrices by label, areas without data, boundaries, errors, tests, files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.frequentist.area.spatial import problem_of
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.likelihood.area.spatial_many import zero_statistics

DATA = Path(__file__).parents[2] / "data"
REFERENCE = json.loads((DATA / "spatial_exact.json").read_text())
GRAPES = hl.fay_herriot(
    "grapehect ~ 0 + area + workdays", sampling_variance="var", area="municipality", area_effects=hl.SAR("W")
)
DISTRICTS = hl.fay_herriot(
    "mean ~ cash + self_empl", sampling_variance="variance", area="domain", area_effects=hl.SAR("W")
)


def proximity(name, labels):
    pairs = pd.read_csv(DATA / f"{name}_proximity.csv.gz", dtype={"area": str, "neighbour": str})
    wide = pairs.pivot_table(index="area", columns="neighbour", values="weight", fill_value=0.0)
    return wide.reindex(index=labels, columns=labels, fill_value=0.0)


@pytest.fixture(scope="module")
def grapes():
    table = pd.read_csv(DATA / "grapes.csv")
    return table, proximity("grapes", table["municipality"])


@pytest.fixture(scope="module")
def fit(grapes):
    table, W = grapes
    return hl.fit(GRAPES, table, "reml", matrices={"W": W})


@pytest.fixture(scope="module")
def districts():
    table = pd.read_csv(DATA / "eusilcA_districts.csv")
    return table, proximity("eusilcA", table["domain"])


def small(seed, m=16, rho=0.5, A=2.0, factor=1.0):
    """Areas on a ring with two neighbours each, one island, two without data."""
    rng = np.random.default_rng(seed)
    labels = [f"r{k}" for k in range(m)]
    W = (np.roll(np.eye(m), 1, 1) + np.roll(np.eye(m), -1, 1)) / 2
    W[3], W[:, 3] = 0.0, 0.0
    W /= np.maximum(W.sum(axis=1), 1e-300)[:, None]
    x, D = rng.normal(size=m), rng.uniform(0.5, 1.5, m)
    v = np.linalg.solve(np.eye(m) - rho * W, np.sqrt(A) * rng.normal(size=m))
    y = factor * (1 + x + v + np.sqrt(D) * rng.normal(size=m))
    y[[5, 9]] = np.nan
    table = pd.DataFrame({"area": labels, "y": y, "x": x, "D": D})
    return table, pd.DataFrame(W, labels, labels)


SMALL = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", area_effects=hl.SAR("W"), unsampled="synthetic")


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_estimates_do_not_depend_on_the_order_of_table_and_matrix(districts, method):
    """Exact answers of tests/data/spatial_exact.json, both shuffled: matched by label, not the misaligned answer."""
    table, W = districts
    want = REFERENCE["exact"]["eusilcA"][method]

    got = hl.fit(
        DISTRICTS, table.sample(frac=1, random_state=1), method, matrices={"W": W.sample(frac=1, random_state=2)}
    )

    assert isinstance(got, SpatialAreaFit)
    assert got.outcome is AreaOutcome.INTERIOR
    assert_allclose([got.A_hat, got.rho_hat], [want["A"], want["rho"]], rtol=1e-9)
    assert_allclose(got.beta, want["beta"], rtol=1e-9)
    estimates = got.areas.set_index("area")["estimate"].loc[table["domain"]]
    assert_allclose(estimates, want["eblup"], rtol=1e-9)
    assert abs(got.rho_hat - REFERENCE["exact"]["eusilcA_misaligned"][method]["rho"]) > 0.05


def test_the_fit_of_grapes(fit):
    """sae's data: exact estimates and criterion, its published errors, and information criteria of p + 2 parameters."""
    want = REFERENCE["exact"]["grapes"]["reml"]

    assert_allclose([fit.A_hat, fit.rho_hat], [want["A"], want["rho"]], rtol=1e-10)
    assert_allclose([fit.loglik, fit.marginal_loglik], [want["criterion"], want["loglik_ML"]], rtol=1e-12)
    assert_allclose(fit.eblup, want["eblup"], rtol=1e-9)
    assert_allclose(np.linalg.inv(fit.vcov_psi), want["fisher_info"], rtol=1e-8)
    assert_allclose(fit.mean_squared_error("published").mse, REFERENCE["sae"]["mse_reml"], rtol=1e-8)
    assert_allclose(fit.marginal_aic, 2428.4007967152415, rtol=1e-12)  # sae 1.3
    assert_allclose(fit.marginal_bic, 2442.853309140794, rtol=1e-12)
    assert_allclose(fit.mse_unbiased, fit.g1 + fit.g2 + 2 * fit.g3 - fit.g4 - fit.g5)


@pytest.mark.parametrize(
    ("kind", "column", "ours"),
    [
        ("parametric", "mse", "bootstrap_naive"),
        ("parametric", "msebc", "bootstrap"),
        ("nonparametric", "mse", "nonparametric_naive"),
    ],
)
def test_bootstrap_errors_are_those_of_sae_to_monte_carlo_error(fit, kind, column, ours):
    """sae with 50 replicates: its naive errors have a relative Monte Carlo sd of 0.2 an area, and share no seed."""
    sae = np.array(REFERENCE["sae"][kind][column])

    got = fit.mean_squared_error(ours, replicates=50, seed=1)

    # means over 274 areas, whose errors neighbours share: some four standard errors of about 0.02
    ratio = sae / got.mse
    assert abs(np.mean(ratio) - 1) < 0.1
    assert np.std(ratio) < (0.1 if column == "msebc" else 0.45)
    assert_allclose(np.median(got.mse / fit.mse), 1.0, atol=0.03 if column == "msebc" else 0.1)
    assert got.failed == 0


def test_replicates_depend_on_their_number_alone(grapes):
    """Replicate b follows from the seed and b, so that 30 replicates are the first of 40."""
    table, W = small(1, A=4.0)
    fit = hl.fit(SMALL, table, "ml", matrices={"W": W})

    few, more = (fit.mean_squared_error("bootstrap_naive", replicates=n, seed=3) for n in (30, 40))
    again = fit.mean_squared_error("bootstrap_naive", replicates=30, seed=3)

    assert_allclose(again.mse, few.mse, rtol=0)
    assert (more.mse != few.mse).any()
    with pytest.raises(FitError, match="seed"):
        fit.mean_squared_error("bootstrap")
    with pytest.raises(FitError, match="one of"):
        fit.mean_squared_error("jackknife")


def test_areas_without_data_are_predicted_from_their_neighbours():
    """The BLUP of dense algebra for areas in W without y; one outside W is a new draw with variance A."""
    table, W = small(1, A=4.0)
    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})

    rows = fit.predict(pd.DataFrame({"area": ["r5", "r0", "elsewhere"], "x": [0.5, 0.5, 0.5]}))

    s = table["y"].notna().to_numpy()
    B = np.linalg.inv(np.eye(16) - fit.rho_hat * W.to_numpy())
    G, X = fit.A_hat * B @ B.T, np.column_stack([np.ones(16), table["x"]])
    Vi = np.linalg.inv(G[np.ix_(s, s)] + np.diag(table["D"][s]))
    cov = np.linalg.inv(X[s].T @ Vi @ X[s])
    beta = cov @ X[s].T @ Vi @ table["y"][s]
    effect = G[:, s] @ Vi @ (table["y"][s] - X[s] @ beta)
    assert abs(effect[5]) > 0.1
    assert_allclose(fit.eblup, X @ beta + effect, rtol=1e-10)
    assert list(rows["basis"]) == ["neighbours", "eblup", "synthetic"]
    assert_allclose(rows["estimate"], np.array([1, 0.5]) @ beta + [effect[5], effect[0], 0.0], rtol=1e-10)
    x = np.array([1, 0.5])
    assert_allclose(rows["mse"][2], fit.A_hat + x @ cov @ x - fit.bias_A, rtol=1e-9)
    assert_allclose(fit.predict()["mse"], fit.mse, rtol=1e-9)
    assert any("their neighbours" in note for note in fit.notes)
    assert any("Areas without neighbours" in note and "r3" in note for note in fit.notes)


def test_the_test_of_rho_compares_with_the_fit_of_independent_effects():
    """Twice the difference of the two restricted likelihoods, χ²₁; an interval that holds 0 goes with p above 5 %."""
    table, W = small(2, A=4.0, rho=0.0)
    plain = hl.fit(hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic"), table, "reml")
    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})

    test = fit.test("rho")

    assert_allclose(test.statistic, 2 * (fit.loglik - plain.loglik), atol=1e-8)
    from scipy.stats import chi2

    assert_allclose(test.p, chi2.sf(test.statistic, 1), rtol=1e-10)
    lower, upper = fit.rho[["lower", "upper"]].to_numpy()[0]
    assert (lower < 0 < upper) == (test.p > 0.05)


@pytest.mark.parametrize("level", [1.0, 0.0])
def test_an_island_without_data_is_synthetic(level):
    """No neighbour informs it: estimate x'b, error A and that of x'b, said so; where A is 0 its mse is warned of."""
    table, W = small(1)
    table.loc[3, "y"] = np.nan
    if not level:
        table["y"] = 1 + table["x"] + 0.1 * np.sqrt(table["D"]) * (-1) ** table.index.to_numpy()
        table.loc[[3, 5, 9], "y"] = np.nan

    got = hl.fit(SMALL, table, "reml", matrices={"W": W})

    x = np.array([1.0, table["x"][3]])
    assert_allclose(got.eblup[3], x @ got.beta, rtol=1e-12)
    assert got.predict(table)["basis"].iloc[[3, 5]].tolist() == ["synthetic", "neighbours"]
    said = [note for note in got.notes if "not connected to any area" in note]
    assert [note.endswith("r3.") for note in said] == [True]
    assert (got.A_hat > 0) == bool(level)
    assert any("grows without bound" in note for note in got.notes) == (got.A_hat == 0)
    if level:
        assert_allclose(got.g1[3] + got.g2[3], got.A_hat + x @ got.vcov_beta @ x, rtol=1e-10)


def test_zero_variance_leaves_rho_undetermined():
    """Â = 0: ρ nan and said to be so, its interval all that is admissible, errors positive and above g2."""
    table, W = small(3, A=0.0, factor=0.3)

    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})

    assert fit.A_hat == 0.0
    assert np.isnan(fit.rho_hat)
    assert fit.outcome is AreaOutcome.AT_ZERO
    assert tuple(fit.rho[["lower", "upper"]].to_numpy()[0]) == fit.estimate.ends
    assert any("not identified" in note for note in fit.notes)
    assert "averaged" in fit.mse_kind
    assert (fit.mse > fit.g2).all()
    assert_allclose(fit.predict()["mse"], fit.mse, rtol=1e-8)
    assert_allclose(np.diagonal(fit.error_covariance()), fit.mse, rtol=1e-10)
    assert fit.test("A", simulations=19, seed=1).p == 1.0
    assert fit.test("rho").p == 1.0
    with pytest.raises(FitError, match="all 0"):
        fit.mean_squared_error("nonparametric", replicates=10, seed=1)


def test_averaged_errors_are_those_of_the_integral_over_both_parameters():
    """Â = 0: against a plain double sum of dense posterior moments under the priors that are named."""
    table, W = small(3, m=12, A=0.0, factor=0.3)
    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})
    s, X = table["y"].notna().to_numpy(), np.column_stack([np.ones(12), table["x"]])
    y, S = table["y"][s].to_numpy(), np.diag(table["D"][s])

    ends, log_weight, moments = fit.estimate.ends, [], []
    for share in (np.arange(40) + 0.5) / 40:
        rho = ends[0] + (ends[1] - ends[0]) * share
        B = np.linalg.inv(np.eye(12) - rho * W.to_numpy())
        Omega = B @ B.T
        for u in np.linspace(-9.0, 25.0, 170):
            A = np.exp(u)
            G = A * Omega
            Vi = np.linalg.inv(G[np.ix_(s, s)] + S)
            cov = np.linalg.inv(X[s].T @ Vi @ X[s])
            beta = cov @ X[s].T @ Vi @ y
            c, r = G[:, s] @ Vi, y - X[s] @ beta
            H = X - c @ X[s]
            loglik = (np.linalg.slogdet(Vi)[1] - r @ Vi @ r + np.linalg.slogdet(cov)[1]) / 2
            log_weight.append(loglik + u)  # flat on A: ten areas with data and two coefficients
            spread = np.diagonal(G - c @ G[s]) + ((H @ cov) * H).sum(axis=1)
            moments.append(spread + (X @ beta + c @ r - fit.eblup) ** 2)
    weight = np.exp(np.array(log_weight) - max(log_weight))
    assert fit.A_hat == 0.0
    assert_allclose(fit.mse, weight @ np.array(moments) / weight.sum(), rtol=0.003)


def test_rho_at_its_end_is_said_first():
    """Two clusters that differ by more than areas within: REML rises to ρ = 1; errors averaged, finite and positive."""
    rng = np.random.default_rng(3)
    labels = [f"r{k}" for k in range(16)]
    W = pd.DataFrame(np.kron(np.eye(2), (np.ones((8, 8)) - np.eye(8)) / 7), labels, labels)
    table = pd.DataFrame({"area": labels, "y": np.repeat([0.0, 30.0], 8) + 0.01 * rng.normal(size=16), "D": 1.0})
    spec = hl.fay_herriot("y ~ 1", sampling_variance="D", area="area", area_effects=hl.SAR("W"))

    fit = hl.fit(spec, table, "reml", matrices={"W": W})

    assert fit.outcome is AreaOutcome.RHO_AT_END
    assert fit.summary().startswith("The likelihood of the spatial autocorrelation rho rises to an end")
    assert np.isfinite(fit.mse).all()
    assert (fit.mse > 0).all()
    assert fit.rho["upper"][0] == fit.estimate.ends[1]
    assert_allclose(np.diagonal(fit.error_covariance()), fit.mse, rtol=1e-10)


def test_correlated_sampling_errors_beside_spatial_effects():
    """SAR with a full S: the estimate is a maximum of the dense restricted likelihood, by differences."""
    table, W = small(6, A=6.0)
    rng = np.random.default_rng(1)
    half = rng.normal(size=(16, 16)) / 4
    S = pd.DataFrame(half @ half.T + 0.4 * np.eye(16), table["area"], table["area"])
    spec = hl.fay_herriot(
        "y ~ x", sampling_covariance="S", area="area", area_effects=hl.SAR("W"), unsampled="synthetic"
    )

    fit = hl.fit(spec, table, "reml", matrices={"W": W, "S": S})

    s, X = table["y"].notna().to_numpy(), np.column_stack([np.ones(16), table["x"]])
    X, y = X[s], table["y"][s].to_numpy()

    def loglik(A, rho):
        B = np.linalg.inv(np.eye(16) - rho * W.to_numpy())
        Vi = np.linalg.inv((A * B @ B.T + S.to_numpy())[np.ix_(s, s)])
        cov = np.linalg.inv(X.T @ Vi @ X)
        r = y - X @ (cov @ X.T @ Vi @ y)
        return (np.linalg.slogdet(Vi)[1] - r @ Vi @ r + np.linalg.slogdet(cov)[1]) / 2

    best = loglik(fit.A_hat, fit.rho_hat)
    near = [loglik(fit.A_hat * (1 + a), fit.rho_hat + b) for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01))]
    assert fit.outcome is AreaOutcome.INTERIOR
    assert (best > np.array(near)).all()
    assert_allclose(near[0] - near[1], 0, atol=1e-4)
    assert_allclose(fit.loglik, best - 12 / 2 * np.log(2 * np.pi), rtol=1e-10)


def test_the_test_of_no_area_effects_keeps_its_level():
    """Under A = 0 its p-value is uniform: 100 data sets with 39 simulations each, at 20 % within 4 standard errors."""

    table, W = small(7, A=0.0)
    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})
    rng = np.random.default_rng(8)
    given = problem_of(fit.design)
    y = np.sqrt(given.errors.d) * rng.normal(size=(4000, 14))
    values = zero_statistics(given, y, "reml")

    # p-values of 100 data sets, each beside 39 of its own simulations
    own = values.reshape(100, 40)
    p = (1 + (own[:, 1:] >= own[:, :1] - 1e-9).sum(axis=1)) / 40
    assert abs((p <= 0.2).mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 100)
    strong = hl.fit(SMALL, small(7, A=30.0)[0], "reml", matrices={"W": W})
    assert strong.test("A", simulations=99, seed=1).p == 0.01


def test_only_likelihoods_estimate_two_parameters(districts):
    """Other methods are refused before data are read, naming the two."""
    table, W = districts

    with pytest.raises(SpecError, match="reml, ml"):
        hl.fit(DISTRICTS, table, "fh", matrices={"W": W})


def test_a_fit_comes_back_from_its_file(tmp_path, districts):
    """Saved and read: the frames, the certificate with its profile, the matrix; the criterion is checked on reading."""
    table, W = districts
    fit = hl.fit(DISTRICTS, table, "ml", matrices={"W": W})

    fit.save(tmp_path / "fit.hlm")
    back = hl.read(tmp_path / "fit.hlm")

    pd.testing.assert_frame_equal(back.areas, fit.areas)
    pd.testing.assert_frame_equal(back.rho, fit.rho)
    assert_allclose(back.estimate.optima, fit.estimate.optima)
    assert_allclose(back.error_covariance(), fit.error_covariance())


def test_frames_say_rho_and_summaries_fit_the_page(fit):
    """tidy, glance, augment and simulate have the shapes of any area fit; the summary has ρ in 80 columns."""
    draws = fit.simulate(3, seed=1)

    assert max(map(len, fit.summary().splitlines())) <= 80
    assert "\nrho " in fit.summary()
    assert fit.glance()["n_parameters"][0] == 4
    assert len(fit.augment()) == 274
    assert len(fit.tidy("ran_vals")) == 274
    assert_allclose(fit.simulate(2, seed=1), draws.iloc[:, :2])
    assert fit.profile()[0].criterion.min() == 0.0
    assert_allclose(fit.rho_table(interval="wald")["se"][0], np.sqrt(fit.vcov_psi[1, 1]))


def test_leverage_is_the_derivative_of_an_estimate_in_its_own_data():
    """∂θ̂_i/∂y_i at fixed (A, ρ) by exact linearity of the BLUP."""
    from hierlmm.frequentist.area.spatial_prediction import estimated
    from hierlmm.likelihood.area.spatial_many import predict_many

    table, W = small(1, A=4.0)
    fit = hl.fit(SMALL, table, "reml", matrices={"W": W})
    now = estimated(fit)
    smoother = predict_many(now.at, np.eye(14), fit.A_hat).T

    assert_allclose(fit.leverage()[fit.design.sampled], np.diagonal(smoother[now.problem.inside]), rtol=1e-9)
    assert_allclose(fit.effect_errors() > 0, True)
