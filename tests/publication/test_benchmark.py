"""Benchmarked estimates: closed forms, dense matrices, a published formula, simulation, identities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from publication_cases import blup_given, by_area, fitted, posterior, shares, table
from scipy.optimize import LinearConstraint, minimize

import hierlmm as hl
from hierlmm.likelihood.area.many import estimate_many, predict_many

METHODS = ("ratio", "difference", "raking", "optimal")
TOTALS = {"north": 12.6, "south": 12.3, "west": 11.9}


def by_region(result, method, totals=None, **options):
    """Benchmarked to three regional means."""
    totals = TOTALS if totals is None else totals
    return hl.benchmark(result, totals, shares("region"), method, groups=by_area("region"), **options)


def internal_weights() -> pd.Series:
    """Shares over the areas that have a direct estimate."""
    w = by_area("pop").where(by_area("y").notna(), 0.0).astype(float)
    return w / w.sum()


def matrices(got: hl.Benchmarked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, t and the estimates before."""
    return got.constraints.W, got.constraints.target, got.frame["before"].to_numpy()


def test_one_ratio_multiplies_and_one_difference_adds():
    """With one total the factor is t / Σwθ̂ and the shift t − Σwθ̂, the same for every area."""
    w = shares()
    before = fitted().eblup

    ratio = hl.benchmark(fitted(), 12.5, w, "ratio").frame
    difference = hl.benchmark(fitted(), 12.5, w, "difference").frame

    assert_allclose(ratio["estimate"], before * 12.5 / (w @ before), rtol=1e-14)
    assert_allclose(difference["estimate"], before + 12.5 - w @ before, rtol=1e-14)
    assert_allclose(difference["adjustment"], difference["estimate"] - difference["before"], atol=1e-14)


def test_optimal_estimates_solve_the_constrained_least_squares_problem():
    """min Σ φ (θ_b − θ̂)² with Wθ_b = t, by a general optimiser and by the closed form of Datta et al. (2011)."""
    phi = pd.Series(np.linspace(0.5, 3, 24), index=by_area("y").index)

    got = by_region(fitted(), "optimal", loss=phi)

    W, t, before = matrices(got)
    found = minimize(
        lambda b: (phi * (b - before) ** 2).sum(), before, jac=lambda b: 2 * phi * (b - before),
        constraints=LinearConstraint(W, t, t), method="trust-constr", options={"gtol": 1e-10},
    )  # fmt: skip
    inverse = np.diag(1 / phi)
    closed = before + inverse @ W.T @ np.linalg.solve(W @ inverse @ W.T, t - W @ before)
    assert_allclose(got.frame["estimate"], found.x, rtol=1e-6)
    assert_allclose(got.frame["estimate"], closed, rtol=1e-13)


def test_difference_and_ratio_are_optimal_for_loss_weights_w_and_w_over_the_estimate():
    """Datta, Ghosh, Steorts and Maiti (2011, TEST 20, sec. 2): φ_i = w_i, and φ_i = w_i / θ̂_i."""
    w = shares("region")
    for method, loss in (("difference", w), ("ratio", w / fitted().eblup)):
        pd.testing.assert_frame_equal(
            by_region(fitted(), method).frame, by_region(fitted(), "optimal", loss=loss).frame, rtol=1e-11
        )


def test_raking_meets_every_margin_and_is_a_product_of_factors():
    """Iterative proportional fitting in the test (Deming and Stephan 1940) ends at the same estimates."""
    pop, region, kind = by_area("pop").astype(float), by_area("region"), by_area("type")
    start = pd.Series(fitted().eblup, index=pop.index)
    goal = start * np.exp(np.random.default_rng(3).normal(0, 0.1, 24))
    totals = {"region": (pop * goal).groupby(region).sum(), "type": (pop * goal).groupby(kind).sum()}

    got = hl.benchmark(fitted(), totals, pop, "raking", groups=[region, kind], of="total")

    ipf = start.copy()
    for _ in range(500):
        for name, groups in (("region", region), ("type", kind)):
            ipf = ipf * groups.map(totals[name] / (pop * ipf).groupby(groups).sum())
    assert_allclose(got.frame["estimate"], ipf, rtol=1e-11)
    assert (got.checks["left"].abs() <= 1e-12 * got.checks["target"]).all()
    assert list(got.checks["margin"]) == ["region"] * 3 + ["type"] * 2
    assert "region north" in " ".join(repr(got).split())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("half", [fitted, posterior])
def test_error_afterwards_is_that_of_dense_matrices(method, half):
    """(I − QW) Σ (I − QW)' + Q T Q' with Q by finite differences in the totals; Σ of the fit, T as given.

    Of a posterior Σ is that of its draws, times the factors of methods that multiply.
    """
    result = half()
    se = {"north": 0.05, "south": 0.2, "west": 0.0}
    T = np.diag([0.05**2, 0.2**2, 0.0])

    got = by_region(result, method, hl.EstimatedTotals(TOTALS, se=se), seed=1)

    W = got.constraints.W
    step = 1e-5
    Q = np.stack(
        [
            (
                by_region(result, method, TOTALS | {name: TOTALS[name] + step}).frame["estimate"]
                - by_region(result, method, TOTALS | {name: TOTALS[name] - step}).frame["estimate"]
            )
            / (2 * step)
            for name in sorted(TOTALS)
        ],
        axis=1,
    )
    drawn = posterior().sample.variables["theta"][1][0]
    sigma = fitted().error_covariance().to_numpy() if half is fitted else np.cov(drawn.T)
    factor = (got.frame["estimate"] / got.frame["before"]).to_numpy()
    if half is posterior and method in ("ratio", "raking"):
        sigma = sigma * np.outer(factor, factor)
    left = np.eye(24) - Q @ W
    dense = left @ sigma @ left.T + Q @ T @ Q.T
    rtol = 1e-7 if half is fitted else 0.06
    assert_allclose(got.frame["mse"], np.diag(dense), rtol=rtol, atol=1e-12)
    assert_allclose(got.covariance, dense, rtol=rtol, atol=rtol * dense.max())
    assert_allclose(W @ got.covariance @ W.T, T, atol=1e-12)


def test_least_error_is_that_of_the_optimal_method():
    """Gauss and Markov: with exact totals no method that adds or scales has a smaller linear error in any area."""
    best = by_region(fitted(), "optimal").frame["mse"]

    for method in ("ratio", "difference", "raking"):
        assert (best <= by_region(fitted(), method).frame["mse"] + 1e-12).all()
    for loss in ("mse", shares("region") + 0.1):
        assert (best <= by_region(fitted(), "optimal", loss=loss).frame["mse"] + 1e-12).all()


def test_internal_totals_add_g4_of_steorts_and_ghosh():
    """Statistica Sinica 23 (2013) 749-767, theorem 1: mse + s⁻² r_i² g4, with r = w/φ, s = Σ w²/φ and
    g4 = Σ w_i² B_i² V_i − Σ_i Σ_j w_i w_j B_i V_i h_ij V_j B_j, h = V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹, written out here.
    """
    fit, data = fitted(), table()
    w = internal_weights()
    phi = pd.Series(np.linspace(0.5, 3, 24), index=w.index)
    into = (data["D"] > 0).to_numpy()
    D = data["D"].to_numpy()[into]
    V, X = fit.A_hat + D, np.column_stack([np.ones(into.sum()), data["x"][into]])
    u = w.to_numpy()[into] * D / V
    g4 = u**2 @ V - u @ X @ np.linalg.solve(X.T @ (X / V[:, None]), X.T @ u)
    r = (w / phi).to_numpy()

    got = hl.benchmark(fit, "internal", w, "optimal", loss=phi)

    assert_allclose(got.frame["mse"], fit.mse + (r / (w @ r)) ** 2 * g4, rtol=1e-11, atol=1e-18)
    target = w[into] @ data["y"][into].to_numpy() + w[data["D"].to_numpy() == 0] @ data["y"][data["D"] == 0].to_numpy()
    assert_allclose(got.checks["after"], target, rtol=1e-14)


def test_internal_totals_of_a_posterior_add_the_squared_adjustment():
    """Datta et al. (2011): E[(θ − θ_b)² | y] = Var(θ | y) + (θ_b − E[θ | y])², from the draws before benchmarking."""
    got = hl.benchmark(posterior(), "internal", internal_weights(), "difference").frame

    draws = posterior().sample.variables["theta"][1][0]
    loss = np.square(draws - got["estimate"].to_numpy())
    error = loss.std(axis=0) / np.sqrt(len(loss))
    assert (np.abs(loss.mean(axis=0) - got["mse"]) <= 5 * error + 1e-12).all()
    assert_allclose(got["mse"], posterior().areas["mse"] + got["adjustment"] ** 2, rtol=1e-10, atol=1e-20)


@pytest.mark.parametrize("known", ["exactly", "with error", "internal"])
def test_estimated_error_is_unbiased_in_repeated_samples(known):
    """6000 data sets of 50 areas from the model, REML, ratio to one total: the mean over areas of the estimated mse
    against that of (θ_b − θ)², within four Monte Carlo errors and 0.5 per cent, the order of what is left out.
    """
    rng = np.random.default_rng(7)
    m, B, A, se = 50, 6000, 1.0, 0.3
    D, x = np.resize([0.3, 0.6, 1.0, 1.5, 2.5], m), np.linspace(0, 1, m)
    X, w = np.column_stack([np.ones(m), x]), rng.dirichlet(np.full(m, 5.0))
    theta = X @ [10.0, 3.0] + np.sqrt(A) * rng.standard_normal((B, m))
    y = theta + np.sqrt(D) * rng.standard_normal((B, m))
    _, eblup = predict_many(estimate_many("reml", y, X, D).A, y, X, D)
    noise = se * rng.standard_normal(B) if known == "with error" else 0.0
    target = y @ w if known == "internal" else theta @ w + noise
    squared = np.square(eblup * (target / (eblup @ w))[:, None] - theta).mean(axis=1)
    spec = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")
    data = pd.DataFrame({"area": np.arange(m), "x": x, "D": D})

    estimated = []
    for b in range(0, B, 60):
        fit = hl.fit(spec, data.assign(y=y[b]))
        total = {"exactly": target[b], "with error": hl.EstimatedTotals(target[b], se=se), "internal": "internal"}
        estimated.append(hl.benchmark(fit, total[known], pd.Series(w, data["area"])).frame["mse"].mean())

    error = np.hypot(squared.std() / np.sqrt(B), np.std(estimated) / np.sqrt(len(estimated)))
    assert abs(np.mean(estimated) - squared.mean()) < 4 * error + 0.005 * squared.mean()


@pytest.mark.parametrize("method", METHODS)
def test_bootstrap_error_is_the_linear_one_at_the_fitted_model(method):
    """Simulated from Â, the error has one g3 where its estimate has two: the linear error with Σ less half of what
    estimating A adds, within four Monte Carlo errors and 2 per cent of second order.
    """
    fit = fitted()
    _, known, _ = blup_given(fit.A_hat)
    sigma = (known + fit.error_covariance().to_numpy()) / 2
    linear = by_region(fit, method)
    W, _, _ = matrices(linear)
    Q = linear.estimates.errors.Q
    left = np.eye(24) - Q @ W
    expected = np.diag(left @ sigma @ left.T)

    got = by_region(fit, method, mse="bootstrap", replicates=4000, seed=1)

    error = 4 * np.sqrt(2 / 4000) + 0.02
    moving = expected > 1e-9
    assert_allclose(got.frame["mse"][moving], expected[moving], rtol=error)
    assert_allclose(got.frame["mse"].sum(), expected.sum(), rtol=0.03)
    assert "4000 replicates" in got.notes[0]
    assert_allclose(np.diag(got.covariance), got.frame["mse"], rtol=1e-12)


def test_bootstrap_replicates_depend_on_seed_and_number_alone():
    """The first thousand of two thousand are those of a run of one thousand: mean squares combine."""
    short, long, again = (
        by_region(fitted(), "ratio", mse="bootstrap", replicates=n, seed=4).frame["mse"] for n in (50, 100, 50)
    )
    other = by_region(fitted(), "ratio", mse="bootstrap", replicates=50, seed=5).frame["mse"]

    assert_allclose(short, again, rtol=0)
    assert (2 * long >= short * (1 - 1e-12)).all()
    assert not np.allclose(short, other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("half", [fitted, posterior])
def test_benchmarking_twice_changes_nothing(method, half):
    """Idempotence of estimates, errors and draws."""
    once = by_region(half(), method)

    twice = by_region(once, method)

    assert_allclose(twice.frame["estimate"], once.frame["estimate"], rtol=1e-14)
    assert_allclose(twice.frame["mse"], once.frame["mse"], rtol=1e-10, atol=1e-14)
    assert (twice.checks["z"] == 0).all()


def test_totals_without_error_left_cannot_be_met_by_the_optimal_method():
    """After exact totals the errors of the totals are 0; the message says what else to use."""
    once = by_region(fitted(), "optimal")

    with pytest.raises(hl.FitError, match=r"free to move; none is in north.*'difference'"):
        by_region(once, "optimal", TOTALS | {"north": 12.7})


@pytest.mark.parametrize("method", METHODS)
def test_every_draw_of_a_posterior_meets_the_totals(method):
    """To 1e-12, and their means are the benchmarked estimates within five Monte Carlo errors."""
    got = by_region(posterior(), method)

    draws = got.draws["posterior"]["theta"].to_numpy()[0]
    W, t, _ = matrices(got)
    assert np.abs(draws @ W.T / t - 1).max() < 1e-12
    error = draws.std(axis=0) / np.sqrt(len(draws))
    curved = 2e-3 if method in ("ratio", "raking") else 0.0
    assert (np.abs(draws.mean(axis=0) - got.frame["estimate"]) <= 5 * error + curved + 1e-10).all()
    assert_allclose(draws.std(axis=0), got.frame["se"], rtol=0.04, atol=1e-10)
    limits = np.quantile(draws, [0.025, 0.975], axis=0)
    assert_allclose(limits, got.frame[["lower", "upper"]].to_numpy().T, atol=0.12)


def test_draws_carry_the_error_of_the_totals():
    """EstimatedTotals: W θ over the draws has the mean and covariance matrix that were given."""
    T = pd.DataFrame([[0.04, 0.01, 0.0], [0.01, 0.09, 0.02], [0.0, 0.02, 0.16]], sorted(TOTALS), sorted(TOTALS))

    got = by_region(posterior(), "difference", hl.EstimatedTotals(TOTALS, covariance=T), seed=2)

    sums = got.estimates.pooled @ got.constraints.W.T
    assert_allclose(sums.mean(axis=0), got.constraints.target, atol=5 * 0.4 / np.sqrt(len(sums)))
    assert_allclose(np.cov(sums.T), T, atol=5 * 0.16 * np.sqrt(2 / len(sums)))
    assert_allclose(got.checks["target_se"], np.sqrt(np.diag(T)), rtol=1e-14)


def test_an_exact_posterior_needs_no_draws():
    """Estimates, errors and intervals of a benchmarked posterior come from the mixture, with or without draws."""
    bare = hl.posterior(posterior().spec, table(), draws=0, seed=1)

    for method in METHODS:
        pd.testing.assert_frame_equal(by_region(bare, method).frame, by_region(posterior(), method).frame, rtol=1e-9)


@settings(max_examples=25)
@given(
    exponent=st.integers(-6, 6),
    method=st.sampled_from(METHODS),
    shift=st.floats(0.7, 1.4),
    of=st.sampled_from(["mean", "total"]),
)
def test_totals_are_met_in_any_unit(exponent, method, shift, of):
    """To 1e-12 of the total, for responses from 1e-6 to 1e6 and totals up to 40 per cent away."""
    unit = 10.0**exponent
    data = table().assign(y=lambda d: d["y"] * unit, D=lambda d: d["D"] * unit**2)
    fit = hl.fit(fitted().spec, data)
    weights = shares("region") if of == "mean" else by_area("pop")
    totals = {name: total * unit * shift for name, total in TOTALS.items()}
    if of == "total":
        totals = {n: t * by_area("pop").groupby(by_area("region")).sum()[n] for n, t in totals.items()}

    got = hl.benchmark(fit, totals, weights, method, by_area("region"), of=of, largest_factor=3)

    assert (got.checks["left"].abs() <= 1e-12 * got.checks["target"].abs()).all()
    plain = {name: total / unit for name, total in totals.items()}
    reference = hl.benchmark(fitted(), plain, weights, method, by_area("region"), of=of, largest_factor=3)
    assert_allclose(got.frame["estimate"] / unit, reference.frame["estimate"], rtol=1e-7)


def test_groups_without_a_total_can_be_kept_as_they_are():
    """Only the areas of the two regions move; the others keep estimate and error."""
    some = {name: TOTALS[name] for name in ("north", "west")}

    for method in METHODS[:3]:
        got = by_region(fitted(), method, some, unlisted="keep").frame.set_index("area")

        kept = (by_area("region") == "south").reindex(got.index)
        assert (got.loc[kept, "adjustment"] == 0).all()
        assert_allclose(got.loc[kept, "se"], got.loc[kept, "se_before"], rtol=1e-12)
        assert (got.loc[~kept, "adjustment"] != 0).any()


def test_difference_over_two_groupings_shifts_each_margin():
    """A two-way table of shifts: adjustments are additive in region and type, and all five totals are met."""
    pop, region, kind = by_area("pop").astype(float), by_area("region"), by_area("type")
    goal = pd.Series(fitted().eblup, pop.index) + region.map({"north": 0.3, "south": -0.2, "west": 0.1})
    goal = goal + kind.map({"town": 0.15, "rural": -0.1})
    totals = {"region": (pop * goal).groupby(region).sum(), "type": (pop * goal).groupby(kind).sum()}

    got = hl.benchmark(fitted(), totals, pop, "difference", groups=[region, kind], of="total")

    assert_allclose(got.frame["estimate"], goal, rtol=1e-11)
    assert (got.checks["left"].abs() <= 1e-12 * got.checks["target"]).all()


def test_larger_areas_can_be_benchmarked_and_benchmarked_areas_added_up():
    """The regions of a benchmarked country add up to it, without error left; regions themselves move alike."""
    pop = by_area("pop")
    regions = hl.aggregate(fitted(), by="region", weights="pop", of="total", data=table())
    total = 1.02 * regions.frame["estimate"].sum()

    of_regions = hl.benchmark(regions, total, 1.0, "ratio", of="total")
    of_areas = hl.benchmark(fitted(), total, pop, "ratio", of="total")
    added = hl.aggregate(of_areas, weights=pop, of="total").frame

    assert_allclose(of_regions.frame["estimate"].sum(), total, rtol=1e-14)
    assert_allclose(of_regions.frame["estimate"], 1.02 * regions.frame["estimate"], rtol=1e-13)
    assert_allclose(added["estimate"], total, rtol=1e-14)
    assert added["se"].item() < 1e-5 * total


def test_a_disagreement_beyond_the_errors_is_said():
    """z is the difference in its standard errors; beyond three a note names the group."""
    got = by_region(fitted(), "ratio", TOTALS | {"south": 15.0})

    z = got.checks.set_index("group")["z"]
    assert_allclose(z, got.checks.set_index("group").eval("difference / before_se"), rtol=1e-12)
    assert "south" in got.notes[0]
    assert "does not mend" in got.notes[0]


def test_a_benchmark_says_what_it_did_in_80_columns():
    """The summary of fits and posteriors, of exact and internal totals."""
    for result in (fitted(), posterior()):
        for totals, weights in ((12.5, shares()), ("internal", internal_weights())):
            text = repr(hl.benchmark(result, totals, weights))

            assert text.startswith("Benchmarked by ratio: one factor for each group\nMeans known")
            assert max(map(len, text.splitlines())) <= 80
