"""Ranks, exceedance and triple goals against closed forms, direct evaluation and identities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from publication_cases import by_area, fitted, posterior, shares, table
from scipy.stats import norm

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.publication.estimates import marginals


def expected_ranks(estimate: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """1 + Σ_j P(θ_j > θ_i) of a Gaussian: rank 1 the largest."""
    variance = np.diag(covariance)[:, None] + np.diag(covariance) - 2 * covariance
    sd = np.sqrt(np.maximum(variance, 1e-300))
    beats = norm.cdf((estimate[None, :] - estimate[:, None]) / sd)
    np.fill_diagonal(beats, 0.0)
    return 1 + beats.sum(axis=1)


def test_expected_ranks_of_a_fit_are_sums_of_pairwise_probabilities():
    """Closed form with the joint covariance matrix, within five Monte Carlo errors; they add up to M(M+1)/2."""
    fit = fitted()

    got = hl.ranks(fit, seed=1).frame

    error = 5 * got["mcse"] + 1e-9
    assert (np.abs(got["expected_rank"] - expected_ranks(fit.eblup, fit.error_covariance().to_numpy())) < error).all()
    assert_allclose(got["expected_rank"].sum(), 24 * 25 / 2, rtol=1e-12)


def test_expected_ranks_of_a_posterior_average_those_given_the_area_variance():
    """The exact mixture over the area variance, pair by pair, against its draws."""
    nodes = hl.aggregate(posterior(), by=by_area("x").rename("x"), weights=1.0).estimates.nodes
    parts = zip(nodes.weight, nodes.mean, nodes.roots, strict=True)
    exact = sum(weight * expected_ranks(mean, root.T @ root) for weight, mean, root in parts)
    order = np.argsort(table()["x"].to_numpy())

    got = hl.ranks(posterior()).frame

    error = 5 * got["mcse"].to_numpy()[order] + 1e-9
    assert (np.abs(got["expected_rank"].to_numpy()[order] - exact) < error).all()


def test_ranks_are_the_other_way_round_when_the_smallest_is_first():
    """Ranks, limits and probabilities turn over: P(rank <= M) = 1."""
    largest = hl.ranks(fitted(), top=[1, 24], seed=1).frame
    smallest = hl.ranks(fitted(), first="smallest", top=1, seed=1).frame

    assert_allclose(largest["expected_rank"] + smallest["expected_rank"], 25, rtol=1e-12)
    assert (largest["top_24"] == 1).all()
    assert_allclose(largest["top_1"].sum(), 1, rtol=1e-12)
    assert_allclose(smallest["top_1"].sum(), 1, rtol=1e-12)
    assert sorted(largest["rank"]) == list(range(1, 25))


def test_areas_measured_almost_exactly_have_their_rank():
    """Sampling variances of 1e-8: intervals of one rank, probabilities of 0 and 1."""
    data = pd.DataFrame({"area": list("cabd"), "y": [3.0, 1.0, 2.0, 4.0], "D": 1e-8})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)

    got = hl.ranks(fit, top=2, draws=500, seed=1).frame

    for column in ("rank", "expected_rank", "lower", "upper"):
        assert list(got[column]) == [2, 4, 3, 1]
    assert list(got["top_2"]) == [1, 0, 0, 1]
    assert list(got["area"]) == list("cabd")


def test_equal_areas_share_a_rank_whatever_their_order():
    """Two areas of variance 0 and one value: each has rank 1.5 in every draw."""
    data = table().assign(D=lambda d: d["D"].where(~d.index.isin([5, 6]), 0.0))
    data.loc[[5, 6], "y"] = 30.0

    got = hl.ranks(hl.fit(fitted().spec, data), draws=200, seed=1).frame

    assert_allclose(got.loc[[5, 6], "expected_rank"], 1.5, rtol=1e-12)
    assert list(got.loc[[5, 6], "rank"]) == [1, 1]
    assert_allclose(got["expected_rank"].sum(), 300, rtol=1e-12)


def test_probabilities_of_exceeding_a_threshold_are_normal_for_a_fit():
    """1 − Φ((c − θ̂)/√mse); above and below add up to one; an area known exactly is 0 or 1."""
    fit = fitted()

    got = hl.exceedance(fit, [11.0, 13.0])
    below = hl.exceedance(fit, [11.0, 13.0], side="below").frame

    at = got.frame[got.frame["threshold"] == 13.0].set_index("area")
    moving = fit.mse > 0
    assert_allclose(
        at["probability"][moving], norm.sf((13.0 - fit.eblup[moving]) / np.sqrt(fit.mse[moving])), rtol=1e-12
    )
    assert set(at["probability"][~moving]) <= {0.0, 1.0}
    assert_allclose(got.frame["probability"] + below["probability"], 1, rtol=1e-12)
    assert len(got.frame) == 48
    assert "mse" in got.notes[0]


def test_probabilities_of_an_exact_posterior_agree_with_its_draws_and_have_no_error():
    """Mixture over the area variance against 20,000 draws, five Monte Carlo errors; by area-specific thresholds too."""
    last_year = pd.Series(fitted().synthetic, by_area("y").index)
    draws = posterior().sample.variables["theta"][1][0]

    beside = last_year.rename("before").reset_index().iloc[::-1]
    for threshold, values in ((12.0, 12.0), (last_year, last_year.to_numpy()), ("before", last_year.to_numpy())):
        got = hl.exceedance(posterior(), threshold, data=beside).frame

        share = (draws > values).mean(axis=0)
        error = 5 * np.sqrt(np.maximum(share * (1 - share), 1e-4) / len(draws))
        assert (np.abs(got["probability"] - share) < error).all()
        assert (got["mcse"] == 0).all()


def test_benchmarked_and_aggregated_results_are_ranked_and_compared_too():
    """One ratio changes no rank; regions of a posterior are exact mixtures as well."""
    moved = hl.benchmark(fitted(), 12.5, shares())
    regions = hl.aggregate(posterior(), by="region", weights="pop", data=table())

    before, after = hl.ranks(fitted(), seed=1).frame, hl.ranks(moved, seed=1).frame
    above = hl.exceedance(regions, 12.2).frame

    assert np.corrcoef(before["expected_rank"], after["expected_rank"])[0, 1] > 0.99
    share = (regions.estimates.pooled > 12.2).mean(axis=0)
    assert_allclose(above["probability"], share, atol=5 * 0.5 / np.sqrt(20_000))
    assert (hl.exceedance(hl.benchmark(posterior(), 12.5, shares()), 12.0).frame["mcse"] == 0).all()


def test_triple_goal_estimates_are_quantiles_of_the_mean_distribution_function():
    """Shen and Louis (1998): Ḡ(U_j) = (2j−1)/2M by direct evaluation, given in the order of the expected ranks."""
    fit = fitted()

    got = hl.triple_goal(fit, seed=1)

    moving = fit.mse > 0
    sd = np.sqrt(np.where(moving, fit.mse, 1.0))
    G = [np.where(moving, norm.cdf((u - fit.eblup) / sd), u >= fit.eblup).mean() for u in got.edf["value"]]
    # one area is known exactly, so that Ḡ jumps by 1/M there
    assert (np.abs(G - got.edf["probability"]) < 1 / 24 + 1e-9).all()
    assert (np.abs(G - got.edf["probability"]) < 1e-9).sum() >= 22
    by_rank = got.frame.sort_values("rank", ascending=False)
    assert_allclose(by_rank["triple_goal"], got.edf["value"], rtol=1e-14)
    assert by_rank["expected_rank"].is_monotonic_decreasing
    assert_allclose(got.frame["expected_rank"].sum(), 300, rtol=1e-12)


def test_triple_goals_have_the_ranks_of_hl_ranks():
    """The same draws, the same ranks, the largest first in both; the estimates do not depend on who is first."""
    got = {first: hl.triple_goal(posterior(), first=first).frame for first in ("largest", "smallest")}

    for first, frame in got.items():
        places = hl.ranks(posterior(), first=first).frame
        assert_allclose(frame["expected_rank"], places["expected_rank"], rtol=1e-12)
        assert list(frame["rank"]) == list(places["rank"])
    assert_allclose(got["largest"]["triple_goal"], got["smallest"]["triple_goal"], rtol=0)


def test_the_distribution_of_an_exact_posterior_is_that_of_its_pooled_draws():
    """480,000 draws of 24 areas: the distribution function at each value within 0.004, but for the one of 24 areas
    that is known exactly, where it jumps by 1/24.
    """
    got = hl.triple_goal(posterior())

    pooled = np.sort(posterior().sample.variables["theta"][1].ravel())
    apart = np.abs(np.searchsorted(pooled, got.edf["value"]) / pooled.size - got.edf["probability"])
    assert (apart < 0.004).sum() >= 23
    assert apart.max() < 1 / 24


def test_constrained_estimates_have_the_expected_spread_of_the_areas():
    """Ghosh (1992): their variance over areas is the posterior mean of the areas' own, their mean the same."""
    draws = posterior().sample.variables["theta"][1][0]
    spread = draws.var(axis=1)

    got = hl.triple_goal(posterior()).frame

    assert_allclose(got["constrained"].mean(), got["estimate"].mean(), rtol=1e-13)
    assert abs(got["constrained"].var(ddof=0) - spread.mean()) < 5 * spread.std() / np.sqrt(len(spread))
    assert got["estimate"].var(ddof=0) < spread.mean()


def test_estimates_that_are_all_equal_cannot_be_stretched():
    """Â = 0 without covariates: the stretch is undefined and says so, the distribution is not."""
    data = pd.DataFrame({"area": range(8), "y": np.resize([1.0, 1.1], 8), "D": 1.0})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)
    assert fit.A_hat == 0

    got = hl.triple_goal(fit, draws=200, seed=1)

    assert np.isnan(got.stretch)
    assert "undefined" in got.notes[0]
    assert np.isfinite(got.edf["value"]).all()


def test_what_has_no_joint_distribution_is_refused():
    """Fits without a seed, posteriors without draws, thresholds and options that are none."""
    bare = hl.posterior(posterior().spec, table(), draws=0, seed=1)
    for call, error, message in (
        (lambda: hl.ranks(fitted()), FitError, "seed"),
        (lambda: hl.ranks(bare), FitError, "draws=4000"),
        (lambda: hl.triple_goal(bare), FitError, "draws=4000"),
        (lambda: hl.ranks(fitted(), first="best", seed=1), FitError, "'largest' or 'smallest'"),
        (lambda: hl.ranks(fitted(), top=0, seed=1), FitError, "`top`"),
        (lambda: hl.ranks(fitted(), top=5.0, seed=1), FitError, "`top`"),
        (lambda: hl.ranks(fitted(), top=25, seed=1), FitError, "there are 24; found 25"),
        (lambda: hl.triple_goal(fitted(), first="best", seed=1), FitError, "'largest' or 'smallest'"),
        (lambda: hl.ranks(fitted(), draws=1, seed=1), FitError, "`draws`"),
        (lambda: hl.exceedance(fitted(), float("nan")), FitError, "finite number"),
        (lambda: hl.exceedance(fitted(), []), FitError, "finite number"),
        (lambda: hl.exceedance(fitted(), [1.0, "2"]), FitError, "finite number"),
        (lambda: hl.exceedance(fitted(), (c for c in (1.0, np.nan))), FitError, "found 1.0, nan"),
        (lambda: hl.exceedance(fitted(), {"a00": 1.0}), DesignError, "23 of 24 have none"),
        (lambda: hl.exceedance(fitted(), 1.0, side="over"), FitError, "'above' or 'below'"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_results_say_what_they_are_in_80_columns():
    """Summaries of ranks, probabilities and triple goals."""
    for text in (
        repr(hl.ranks(fitted(), top=[1, 3], seed=1)),
        repr(hl.exceedance(fitted(), 12.0)),
        repr(hl.triple_goal(fitted(), seed=1)),
    ):
        assert max(map(len, text.splitlines())) <= 80
        assert "normal" in text


def test_quantiles_of_many_areas_are_interpolated_between_exact_ones(monkeypatch):
    """Many areas, 2,000 here: distribution function at the interpolated values by direct evaluation, within 1e-6."""
    monkeypatch.setattr(marginals, "LARGEST", 400_000)
    rng = np.random.default_rng(1)
    mean, variance = rng.gamma(4.0, 1.0, 2_000), rng.uniform(0.1, 1.0, 2_000)
    probability = (2 * np.arange(1, 2_001) - 1) / 4_000

    value = marginals.normal(mean, variance).pooled_quantiles(probability)

    some = np.arange(0, 2_000, 97)
    G = norm.cdf((value[some, None] - mean) / np.sqrt(variance)).mean(axis=1)
    assert_allclose(G, probability[some], atol=1e-6)
    assert (np.diff(value) > 0).all()


def test_more_draws_than_memory_holds_are_refused():
    """The message says how many would do."""
    with pytest.raises(FitError, match="Use draws=4166666 or fewer"):
        hl.ranks(fitted(), draws=10_000_000, seed=1)
