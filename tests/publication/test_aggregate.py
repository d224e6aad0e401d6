"""Larger areas: dense matrices, an integral written apart, simulation, identities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose
from publication_cases import blup_given, by_area, fitted, posterior, restricted_loglik, rows_of, shares, table
from scipy.stats import norm

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.likelihood.area.many import estimate_many, predict_many


def test_mean_squared_error_of_a_larger_area_is_the_quadratic_form_of_all_errors():
    """w'Σw with Σ written out by the fit, above its part at known A, Var(Hy − θ) of dense matrices."""
    fit = fitted()
    W = rows_of(shares("region"), "region")
    estimate, known, _ = blup_given(fit.A_hat)

    got = hl.aggregate(fit, by="region", weights="pop", data=table())

    assert_allclose(got.frame["estimate"], W @ estimate, rtol=1e-12)
    assert_allclose(got.covariance, W @ fit.error_covariance().to_numpy() @ W.T, rtol=1e-11, atol=1e-14)
    assert (got.frame["mse"] > np.diagonal(W @ known @ W.T)).all()


def test_groups_of_one_area_are_the_areas():
    """Aggregation over single areas changes nothing, fit or posterior, intervals included."""
    own = pd.Series(table()["area"].to_numpy(), table()["area"], name="one")
    for result in (fitted(), posterior()):
        areas = result.areas.set_index("area")
        got = hl.aggregate(result, by=own, weights=3.0).frame.set_index("area")

        for column in ("estimate", "mse", "lower", "upper"):
            assert_allclose(got[column], areas[column].loc[got.index], rtol=1e-10, err_msg=column)


def test_mean_and_total_differ_by_the_weight_and_totals_of_parts_add_up():
    """Σwθ = (Σw) mean; the total of all is the sum of the totals of the regions, and so is its error."""
    by_region = hl.aggregate(fitted(), by="region", weights="pop", of="total", data=table())
    mean = hl.aggregate(fitted(), by="region", weights="pop", data=table()).frame
    whole = hl.aggregate(fitted(), weights=by_area("pop"), of="total").frame

    assert_allclose(by_region.frame["estimate"], mean["estimate"] * mean["weight"], rtol=1e-13)
    assert_allclose(by_region.frame["se"], mean["se"] * mean["weight"], rtol=1e-12)
    assert_allclose(whole["estimate"], by_region.frame["estimate"].sum(), rtol=1e-13)
    assert_allclose(whole["mse"], by_region.covariance.to_numpy().sum(), rtol=1e-11)


def test_posterior_of_a_larger_area_is_the_integral_over_the_area_variance():
    """Default prior, flat on √A: trapezoids in √A of dense conditional Gaussians, mean, variance and both limits."""
    w = shares().to_numpy()
    tau = np.linspace(1e-6, 10, 801)
    density = np.array([restricted_loglik(t**2) for t in tau])
    p = np.exp(density - density.max())
    p /= p.sum()
    parts = [blup_given(t**2) for t in tau]
    mean, variance = np.array([w @ e for e, _, _ in parts]), np.array([w @ S @ w for _, S, _ in parts])

    got = hl.aggregate(posterior(), weights=shares()).frame.iloc[0]

    centre = p @ mean
    assert_allclose(got["estimate"], centre, rtol=1e-7)
    assert_allclose(got["mse"], p @ (variance + (mean - centre) ** 2), rtol=1e-5)
    for limit, probability in ((got["lower"], 0.025), (got["upper"], 0.975)):
        assert_allclose(p @ norm.cdf(limit, mean, np.sqrt(variance)), probability, rtol=1e-5)
    assert got["mcse"] == 0


def test_exact_aggregates_agree_with_the_draws():
    """Two routes to one posterior: covariance matrix of the groups and their means, within five Monte Carlo errors."""
    got = hl.aggregate(posterior(), by="region", weights="pop", data=table())

    draws = got.estimates.pooled
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - got.frame["estimate"]) < 5 * error).all()
    assert_allclose(np.cov(draws.T), got.covariance, atol=5 * np.sqrt(2 / len(draws)) * got.covariance.to_numpy().max())


def test_estimated_error_of_a_total_over_all_areas_is_unbiased():
    """4000 data sets of 40 areas from the model: mean w'Σ̂w against the mean squared error of Σ w θ̂, four errors."""
    rng = np.random.default_rng(11)
    m, B, A = 40, 4000, 1.0
    D, x, w = np.resize([0.4, 0.8, 1.2, 2.0], m), np.linspace(0, 1, m), np.full(m, 1 / m)
    X = np.column_stack([np.ones(m), x])
    theta = X @ [1.0, 2.0] + np.sqrt(A) * rng.standard_normal((B, m))
    y = theta + np.sqrt(D) * rng.standard_normal((B, m))
    found = estimate_many("reml", y, X, D)
    _, eblup = predict_many(found.A, y, X, D)
    squared = ((eblup - theta) @ w) ** 2
    spec = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")

    data = pd.DataFrame({"area": range(m), "x": x, "D": D})
    estimated = [
        hl.aggregate(hl.fit(spec, data.assign(y=y[b])), weights=1.0).frame["mse"].iloc[0] for b in range(0, B, 40)
    ]

    error = np.hypot(squared.std() / np.sqrt(B), np.std(estimated) / np.sqrt(len(estimated)))
    assert abs(np.mean(estimated) - squared.mean()) < 4 * error


def test_direct_estimate_stands_beside_only_where_every_part_has_one():
    """Weighted direct estimates and Σ w² D; nan for the group with an area that was not sampled."""
    data = table()
    w = pd.Series(np.where(data["y"].isna(), 0.0, data["pop"]), index=data["area"])

    partly = hl.aggregate(fitted(), by="region", weights="pop", data=data)
    wholly = hl.aggregate(fitted(), weights=w).frame.iloc[0]

    lacking = set(data.loc[data["y"].isna(), "region"])
    assert set(partly.frame.loc[partly.frame["direct"].isna(), "area"]) == lacking
    assert any(str(region) in note for region in lacking for note in partly.notes[:1])
    assert hl.publish(partly).notes == partly.notes
    into = data["y"].notna()
    share = w[into.to_numpy()].to_numpy() / w.sum()
    assert_allclose(wholly["direct"], share @ data.loc[into, "y"], rtol=1e-13)
    assert_allclose(wholly["direct_se"] ** 2, share**2 @ data.loc[into, "D"], rtol=1e-13)
    assert wholly["parts"] == into.sum()


def test_tables_are_matched_by_label_in_any_order_and_form():
    """A shuffled table, a polars table, Series and mappings give the same numbers."""
    data = table()
    shuffled = data.sample(frac=1, random_state=1)
    reference = hl.aggregate(fitted(), by="region", weights="pop", data=data).frame

    for by, weights, beside in (
        ("region", "pop", shuffled),
        ("region", "pop", pl.from_pandas(shuffled)),
        (shuffled.set_index("area")["region"], dict(zip(shuffled["area"], shuffled["pop"], strict=True)), None),
    ):
        pd.testing.assert_frame_equal(hl.aggregate(fitted(), by=by, weights=weights, data=beside).frame, reference)


def test_weights_and_groups_that_do_not_match_are_refused_by_name():
    """HOSTILE 39-41: labels in one table only, twice, missing, negative, without labels, groups without weight."""
    pop, region = by_area("pop").astype(float), by_area("region")
    twice = pd.concat([pop, pop[:1]])
    first = pop.index[0]
    for weights, message in (
        (pop.drop(first), f"1 of 24 have none: {first}"),
        (pd.concat([pop, pd.Series({"zz": 1.0})]), "1 are not in it: zz.*unsampled"),
        (twice, f"{first} stands more than once"),
        (pop.where(pop.index != first), f"missing or infinite for {first}"),
        (pop.where(pop.index != first, -1.0), "0 or more"),
        (pop.to_numpy(), "matched by label"),
        (pop.to_frame(), "found DataFrame. Give the table as `data=` and name the column"),
        (0.0 * pop, "zero total"),
        (pop.astype(str), "must be numbers"),
        (float("nan"), "must be finite"),
        (pop.rename(index=lambda a: int(a[1:])), "of the kind it had"),
        ("population", "not among those the result holds"),
    ):
        with pytest.raises(DesignError, match=message):
            hl.aggregate(fitted(), by=region, weights=weights)
    with pytest.raises(DesignError, match="0; they are in north"):
        hl.aggregate(fitted(), by=region, weights=pop.where(region != "north", 0.0))
    with pytest.raises(DesignError, match=f"missing for {first}"):
        hl.aggregate(fitted(), by=region.where(region.index != first), weights=pop)


def test_what_is_no_area_level_result_is_refused():
    """Also unknown options; the message says what to make first."""
    with pytest.raises(FitError, match="area-level fit or posterior"):
        hl.aggregate(table(), weights=1.0)
    with pytest.raises(FitError, match="Only a fit that converged"):
        hl.aggregate(replace(fitted(), outcome=AreaOutcome.NOT_CONVERGED), weights=1.0)
    with pytest.raises(FitError, match="'mean' or 'total'"):
        hl.aggregate(fitted(), weights=1.0, of="sum")
    with pytest.raises(FitError, match="level"):
        hl.aggregate(fitted(), weights=1.0, level=95)


def test_a_result_says_what_it_is_in_80_columns():
    """The summary is what a terminal shows."""
    for result in (fitted(), posterior()):
        text = repr(hl.aggregate(result, by="region", weights="pop", data=table()))

        assert "Means of larger areas" in text
        assert max(map(len, text.splitlines())) <= 80


def test_a_posterior_without_draws_serves_as_far_as_it_is_exact():
    """Sums and what was benchmarked to internal totals need none; what does says so."""
    bare = hl.posterior(posterior().spec, table(), draws=0, seed=1)
    w = by_area("pop").where(by_area("y").notna(), 0.0).astype(float)
    w /= w.sum()

    regions = hl.aggregate(bare, by="region", weights="pop", data=table()).frame
    inside = hl.aggregate(hl.benchmark(bare, "internal", w), weights=w).frame.iloc[0]

    assert_allclose(regions["estimate"], hl.aggregate(posterior(), by="region", weights="pop", data=table()).frame[
        "estimate"], rtol=1e-12)  # fmt: skip
    assert inside["mcse"] == 0
    assert_allclose(inside["estimate"], inside["direct"], rtol=1e-12)
    with pytest.raises(FitError, match="draws=4000"):
        hl.aggregate(hl.benchmark(bare, 12.5, shares()), by="region", weights="pop", data=table())
