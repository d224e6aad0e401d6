"""Transformed, spatial and correlated models: the same steps, each on the scale and with the errors of its fit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from publication_cases import blup_given, by_area, fitted, posterior, shares, table
from scipy.stats import norm

import hierlmm as hl
from hierlmm.publication.estimates.transformed import back, forward

LOG = hl.fay_herriot(
    "income ~ x", sampling_variance="D", area="area", transformation=hl.Log(), unsampled="synthetic"
)


@cache
def incomes() -> pd.DataFrame:
    """30 areas with a lognormal mean, the last not sampled."""
    rng = np.random.default_rng(3)
    x = rng.uniform(0, 1, 30)
    income = np.exp(7 + x + rng.normal(0, 0.2, 30) + rng.normal(0, 0.15, 30))
    data = pd.DataFrame({"area": [f"b{k}" for k in range(30)], "x": x, "income": income, "D": (0.15 * income) ** 2})
    data.loc[29, ["income", "D"]] = np.nan
    return data


@cache
def log_fit() -> hl.AreaFit:
    return hl.fit(LOG, incomes())


@cache
def chain() -> pd.DataFrame:
    """Areas in a row, each a neighbour of the next."""
    labels = table()["area"]
    W = np.diag(np.ones(23), 1) + np.diag(np.ones(23), -1)
    return pd.DataFrame(W / W.sum(axis=1, keepdims=True), labels, labels)


@cache
def special(kind: str) -> hl.AreaFit:
    """A spatial fit, or one with sampling errors correlated 0.4 within the region."""
    data = table().assign(y=lambda d: d["y"] + np.cumsum(np.sin(np.arange(24.0))))
    if kind == "spatial":
        spec = hl.fay_herriot(
            "y ~ x", sampling_variance="D", area="area", area_effects=hl.SAR("W"), unsampled="synthetic",
            zero_variance="direct",
        )  # fmt: skip
        return hl.fit(spec, data, matrices={"W": chain()})
    S = correlated_errors(data)
    spec = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", unsampled="synthetic")
    return hl.fit(spec, data.drop(columns="D"), matrices={"S": S})


def correlated_errors(data: pd.DataFrame) -> pd.DataFrame:
    known = data[data["y"].notna()]
    sd = np.sqrt(known["D"].where(known["D"] > 0, 0.3).to_numpy())
    same = known["region"].to_numpy()[:, None] == known["region"].to_numpy()
    S = np.outer(sd, sd) * np.where(same, 0.4, 0.0)
    np.fill_diagonal(S, sd**2)
    return pd.DataFrame(S, known["area"], known["area"])


@pytest.mark.parametrize("name", ["log", "arcsine_root", "logit"])
def test_thresholds_are_carried_to_the_scale_of_the_model(name):
    """The way forward undoes the way back; beyond the range of the data every area is above, or none."""
    c = np.array([0.02, 0.3, 0.97])

    assert_allclose(back(name, forward(name, c)), c, rtol=1e-12)
    assert forward(name, np.array([-1.0]))[0] == -np.inf
    if name != "log":
        assert list(forward(name, np.array([1.0, 2.0]))) == [np.inf, np.inf]


def test_a_logarithmic_fit_is_published_on_the_scale_of_the_data():
    """Sums of the back-transformed estimates; errors with its mean squared errors and the model's correlations."""
    fit = log_fit()
    w = pd.Series(1 / 30, fit.design.areas)

    got = hl.aggregate(fit, weights=w).frame.iloc[0]
    published = hl.publish(fit).frame

    areas = fit.areas
    sd = np.sqrt(np.diag(fit.error_covariance()))
    correlation = fit.error_covariance().to_numpy() / np.outer(sd, sd)
    assert_allclose(got["estimate"], areas["estimate"].mean(), rtol=1e-13)
    assert_allclose(got["mse"], areas["se"] / 30 @ correlation @ areas["se"] / 30, rtol=1e-11)
    for column in ("estimate", "se", "lower", "upper", "direct"):
        assert_allclose(published[column], areas[column], rtol=1e-12, err_msg=column)


def test_probabilities_and_ranks_of_a_logarithmic_fit_are_those_of_its_logarithm():
    """The exponential rises: P(exp θ > c) = P(θ > log c), and ranks are those of θ, draw by draw."""
    fit = log_fit()

    above = hl.exceedance(fit, [-5.0, 2000.0]).frame
    ranks = hl.ranks(fit, seed=2).frame

    expected = norm.sf((np.log(2000.0) - fit.eblup) / np.sqrt(fit.mse))
    assert_allclose(above["probability"], np.concatenate([np.ones(30), expected]), rtol=1e-12)
    assert all("scale of the model (log)" in r.notes[0] for r in (hl.exceedance(fit, 1.0), hl.ranks(fit, seed=2)))
    drawn = fit.eblup + fit.error_matrix().sample(10_000, np.random.default_rng(2))
    places = (-drawn).argsort(axis=1).argsort(axis=1) + 1
    assert_allclose(ranks["expected_rank"], places.mean(axis=0), rtol=1e-12)
    goal = hl.triple_goal(fit, seed=2)
    cdf = norm.cdf((np.log(goal.edf["value"].to_numpy())[:, None] - fit.eblup) / np.sqrt(fit.mse)).mean(axis=1)
    assert_allclose(cdf, goal.edf["probability"], rtol=1e-9)


def test_a_logarithmic_posterior_is_published_on_the_scale_of_the_data():
    """Means as the posterior gives them, probabilities against its draws, benchmarked draws that add up."""
    sampled = incomes().iloc[:29]
    post = hl.posterior(LOG, sampled, draws=10_000, seed=4)
    w = pd.Series(1 / 29, sampled["area"])
    draws = post.sample.variables["mean"][1][0]

    above = hl.exceedance(post, 2000.0).frame["probability"]
    total = hl.aggregate(post, weights=w).frame.iloc[0]
    moved = hl.benchmark(post, 1.03 * post.areas["estimate"].mean(), w)

    assert_allclose(above, (draws > 2000.0).mean(axis=0), atol=5 * 0.5 / 100)
    assert_allclose(total["estimate"], post.areas["estimate"].mean(), rtol=1e-12)
    assert_allclose(total["se"], draws.mean(axis=1).std(), rtol=0.05)
    assert np.abs(moved.estimates.pooled @ w.to_numpy() / moved.constraints.target - 1).max() < 1e-12
    assert_allclose(hl.publish(post).frame[["lower", "upper"]], post.areas[["lower", "upper"]], rtol=1e-9)


@pytest.mark.parametrize("kind", ["spatial", "correlated"])
def test_errors_of_spatial_and_correlated_fits_are_those_of_their_own_matrix(kind):
    """W Σ W' with Σ written out by the fit; exact benchmarks leave no error in the totals."""
    fit = special(kind)
    pop = by_area("pop")

    got = hl.aggregate(fit, by=by_area("region"), weights=pop, of="total")
    moved = hl.benchmark(fit, 1.02 * got.frame["estimate"].sum(), pop, "optimal", of="total")

    W = np.stack([pop.to_numpy() * (by_area("region") == g).to_numpy() for g in got.frame["area"]])
    assert_allclose(got.covariance, W @ fit.error_covariance().to_numpy() @ W.T, rtol=1e-9)
    assert_allclose(got.frame["estimate"], W @ fit.eblup, rtol=1e-12)
    assert hl.aggregate(moved, weights=pop, of="total").frame["se"].item() == 0
    assert hl.ranks(fit, seed=1, draws=100).frame["expected_rank"].sum() == pytest.approx(300, rel=1e-12)


@pytest.mark.parametrize("kind", ["spatial", "correlated", "independent"])
def test_internal_totals_add_the_variance_of_what_is_left_over(kind):
    """Var(y − θ̂) = (I − H) V (I − H)' with H y = θ̂ in dense matrices; added to the error along Q."""
    fit = fitted() if kind == "independent" else special(kind)
    design = fit.design
    into = design.sampled
    X = design.X[into]
    S = np.diag(design.D[into]) if kind != "correlated" else design.covariance[np.ix_(into, into)]
    effects = np.eye(24)
    if kind == "spatial":
        turn = np.eye(24) - fit.rho_hat * design.proximity
        effects = np.linalg.inv(turn.T @ turn)
    effects = fit.A_hat * effects[np.ix_(into, into)]
    V = effects + S
    beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), np.linalg.solve(V, X).T)
    H = X @ beta + effects @ np.linalg.solve(V, np.eye(len(V)) - X @ beta)
    left = (np.eye(len(V)) - H) @ V @ (np.eye(len(V)) - H).T
    w = by_area("pop").where(into, 0.0).astype(float)
    w /= w.sum()

    got = hl.benchmark(fit, "internal", w, "difference")

    assert_allclose(H @ design.y[into], fit.eblup[into], rtol=1e-9)
    u = w.to_numpy()[into]
    assert_allclose(got.frame["mse"], fit.mse + u @ left @ u, rtol=1e-8)
    assert_allclose(got.checks["z"] ** 2, got.checks["difference"] ** 2 / (u @ left @ u), rtol=1e-8)


def test_a_posterior_disagrees_with_its_direct_estimates_as_a_fit_does():
    """Also of a posterior z is in standard errors of direct − estimate, w'(I − H) V (I − H)'w at the median of A, and
    not in posterior sds, which would hide a disagreement; after a benchmark, which moved the estimates, it is nan.
    """
    post, into = posterior(), (table()["D"] > 0).to_numpy()
    w = by_area("pop").where(into, 0.0).astype(float)
    w /= w.sum()
    order = np.argsort(post.A_nodes)
    A = np.interp(0.5, np.cumsum(post.weight[order]), post.A_nodes[order])
    H = blup_given(A)[2][into]
    left = np.eye(len(H)) - H
    u = w.to_numpy()[into]

    checks = hl.benchmark(post, "internal", w, "difference").checks.iloc[0]
    again = hl.benchmark(hl.benchmark(post, 12.5, shares()), "internal", w).checks.iloc[0]

    V = np.diag(A + table()["D"].to_numpy()[into])
    assert_allclose(checks["z"], checks["difference"] / np.sqrt(u @ left @ V @ left.T @ u), rtol=1e-2)
    assert np.isnan(again["z"])


def test_a_fit_from_survey_records_is_published_as_the_fit_within_it():
    """Every function takes it, bootstrap included; columns of its table are at hand by name."""
    rng = np.random.default_rng(4)
    records = pd.DataFrame({"area": np.repeat(np.arange(12), 8), "w": 1.0})
    records["income"] = 50 + records["area"] + rng.normal(0, 5, 96)
    result = hl.fit_records(records, "income", area="area", weights="w", formula="~ 1")
    sizes = hl.PublicationRules(effective_size=(9, 8))

    for function in (
        lambda r: hl.aggregate(r, weights=1.0),
        lambda r: hl.benchmark(r, "internal", pd.Series(1 / 12, range(12)), mse="bootstrap", replicates=5, seed=1),
        lambda r: hl.ranks(r, draws=50, seed=1),
        lambda r: hl.exceedance(r, 55.0),
        lambda r: hl.triple_goal(r, draws=50, seed=1),
        lambda r: hl.publish(r),
    ):
        pd.testing.assert_frame_equal(function(result).frame, function(result.fit).frame)
    assert set(hl.publish(result, sizes, effective_size="n").frame["status"]) == {"publish with caution"}


def test_covariances_of_direct_estimates_enter_that_of_their_sum():
    """w'Sw beside the aggregate, S as given with the model."""
    fit = special("correlated")
    w = by_area("pop").where(fit.design.sampled, 0.0).astype(float)

    got = hl.aggregate(fit, weights=w).frame.iloc[0]

    into = fit.design.sampled
    share = (w / w.sum()).to_numpy()[into]
    S = fit.design.covariance[np.ix_(into, into)]
    assert_allclose(got["direct_se"] ** 2, share @ S @ share, rtol=1e-10)


def test_a_bootstrap_is_for_independent_areas_on_their_own_scale():
    """Elsewhere the message names the linear error."""
    for fit in (special("spatial"), special("correlated")):
        total = float(shares() @ fit.eblup)
        with pytest.raises(hl.FitError, match="mse='linear'"):
            hl.benchmark(fit, total, shares(), mse="bootstrap", seed=1)
    with pytest.raises(hl.FitError, match="mse='linear'"):
        hl.benchmark(log_fit(), 2000.0, pd.Series(1 / 30, incomes()["area"]), mse="bootstrap", seed=1)


def test_rates_of_units_are_ranked_published_and_added_up():
    """Poisson counts, mean rate with a prior flat in its logarithm: scaling all rates and their mean leaves the prior
    as it is, so that E[Σ E θ | y] = Σ y exactly. Probabilities against the exact ones of the posterior's own mixture.
    """
    rng = np.random.default_rng(1)
    E = rng.uniform(2, 50, 30)
    data = pd.DataFrame({"unit": [f"u{k}" for k in range(30)], "y": rng.poisson(E * rng.gamma(4, 0.25, 30)), "E": E})
    spec = hl.compound("y ~ 1", unit="unit", sampling=hl.PoissonSampling(exposure="E"))
    post = hl.posterior(spec, data, draws=8000, seed=1)

    total = hl.aggregate(post, weights="E", of="total").frame.iloc[0]
    above = hl.exceedance(post, 1.2).frame
    published = hl.publish(post).frame

    assert_allclose(total["estimate"], data["y"].sum(), rtol=1e-6)
    assert_allclose(total["direct"], data["y"].sum(), rtol=1e-12)
    assert_allclose(total["direct_se"] ** 2, data["y"].sum(), rtol=1e-12)
    assert (np.abs(above["probability"] - post.exceedance(1.2)["probability"]) <= 5 * above["mcse"] + 1e-3).all()
    assert_allclose(published[["estimate", "se"]], post.units[["estimate", "se"]], rtol=1e-12)
    assert_allclose(published["direct_cv"], 1 / np.sqrt(data["y"]), rtol=1e-12)
    assert hl.triple_goal(post).frame["expected_rank"].sum() == pytest.approx(465, rel=1e-12)
    with pytest.raises(hl.FitError, match=r"poisson sampling by 'ml', has none. Use hl\.posterior"):
        hl.ranks(hl.fit(spec, data), seed=1)


def test_normal_units_are_the_areas_of_their_area_level_model():
    """Batting averages and the like: the same numbers as from hl.fay_herriot."""
    data = table().dropna().query("D > 0")
    units = hl.compound("y ~ x", unit="area", sampling=hl.NormalSampling(variance="D"))
    areas = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")

    for analyse in (lambda spec: hl.fit(spec, data, "reml"), lambda spec: hl.posterior(spec, data, seed=1)):
        pd.testing.assert_frame_equal(
            hl.ranks(analyse(units), seed=3).frame, hl.ranks(analyse(areas), seed=3).frame, rtol=1e-9
        )


@pytest.mark.nuts
def test_a_sampled_posterior_is_published_from_its_draws():
    """NUTS against the exact engine: totals, benchmarks, probabilities and ranks within five Monte Carlo errors."""
    chains = hl.posterior(posterior().spec, table(), engine="nuts", draws=4000, seed=3)
    exact, drawn = (hl.aggregate(p, by="region", weights="pop", data=table()).frame for p in (posterior(), chains))
    moved = hl.benchmark(chains, 12.5, shares())

    assert (np.abs(exact["estimate"] - drawn["estimate"]) < 5 * drawn["mcse"]).all()
    assert_allclose(drawn["se"], exact["se"], rtol=0.1)
    assert (drawn["mcse"] > 0).all()
    above = hl.exceedance(chains, 12.0).frame
    reference = hl.exceedance(posterior(), 12.0).frame["probability"]
    assert (np.abs(above["probability"] - reference) <= 5 * above["mcse"] + 1e-3).all()
    assert_allclose(hl.ranks(chains).frame["expected_rank"], hl.ranks(posterior()).frame["expected_rank"], atol=0.8)
    assert np.abs(moved.estimates.pooled @ shares().to_numpy() / 12.5 - 1).max() < 1e-12
    assert (np.abs(moved.frame["lower"] - hl.benchmark(posterior(), 12.5, shares()).frame["lower"]) < 0.2).all()
