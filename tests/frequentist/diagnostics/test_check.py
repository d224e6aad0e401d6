"""The check-list finds what is wrong where something is, and little where nothing is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense_fit import FITS, fitted, matrices
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics.checks_predictors import between_statistic, slope_p
from hierlmm.frequentist.diagnostics.deletion import whole_clusters
from hierlmm.frequentist.diagnostics.findings import Verdict
from hierlmm.frequentist.diagnostics.normality import rank_correlation, shape
from hierlmm.frequentist.diagnostics.projection import projection


def grouped(seed: int, G: int = 40, m: int = 6) -> pd.DataFrame:
    """G groups of m rows: y = 1 + x + u + e, all of standard deviation 1."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"g": np.repeat(np.arange(G), m), "x": rng.normal(size=G * m)})
    table["u"] = rng.normal(size=G)[table["g"]]
    table["e"] = rng.normal(size=G * m)
    table["y"] = 1 + table["x"] + table["u"] + table["e"]
    return table


def verdicts(fit: hl.LMMFit) -> dict[str, str]:
    return dict(fit.check().frame[["topic", "verdict"]].to_numpy().tolist())


def test_components_are_those_of_lme4():
    """rePCA of lme4 for sleepstudy slopes: sds 0.966867972 and 0.230879814, whose theta has converged to about 1e-5."""
    frame = fitted("sleepstudy").principal_components()

    assert_allclose(frame["sd"], [0.966867972, 0.230879814], rtol=3e-5)
    assert_allclose(frame["Intercept"].abs(), [0.99986158, 0.01663769], rtol=2e-3)
    assert_allclose(frame["cumulative"], [frame["share"].iloc[0], 1.0])


@pytest.mark.parametrize("name", ["sleepstudy", "politeness/slopes", "weighted"])
def test_eigenvalues_and_loadings_rebuild_the_relative_covariance(name):
    """U diag(eigenvalue) U' = G / sigma²."""
    fit = FITS[name]()
    frame = fit.principal_components()
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        own = frame[frame["group"] == factor.name]
        U = own[list(factor.coefficients)].to_numpy().T
        assert_allclose(U @ np.diag(own["eigenvalue"]) @ U.T, G / fit.sigma2, atol=1e-9 * np.abs(G).max())


def test_shares_on_the_working_scale_do_not_depend_on_units_and_zero():
    """Days, hours since another day: the same model, the same shares there, and not on the data scale."""
    case = hl.load("sleepstudy")
    hours = case.data.assign(Days=24 * (case.data["Days"] + 100))
    fits = [fitted("sleepstudy"), hl.fit(case.spec, hours)]

    shares = [fit.principal_components("working")["share"].to_numpy() for fit in fits]

    assert_allclose(shares[0], shares[1], rtol=1e-5)
    assert not np.allclose(*(fit.principal_components()["share"] for fit in fits), rtol=0.1)
    with pytest.raises(hl.FitError, match=r"`scale` is data or working; found 'raw'"):
        fits[0].principal_components("raw")


@pytest.mark.parametrize("n", [8, 20, 61, 500])
def test_skewness_and_kurtosis_are_those_of_scipy(n):
    """scipy.stats.skewtest and kurtosistest (D'Agostino 1970; Anscombe & Glynn 1983)."""
    from scipy import stats

    x = np.random.default_rng(n).gamma(2.0, size=n)

    found = shape(np.append(x, np.nan))

    assert_allclose([found.skewness, found.kurtosis], [stats.skew(x), stats.kurtosis(x)], rtol=1e-12)
    assert_allclose(found.skewness_z, stats.skewtest(x).statistic, rtol=1e-12)
    if n >= 20:
        assert_allclose(found.kurtosis_z, stats.kurtosistest(x).statistic, rtol=1e-10)
    else:
        assert np.isnan(found.kurtosis_z)


def test_rank_correlation_is_spearmans():
    """scipy.stats.spearmanr, ties included; none where one side is constant."""
    from scipy import stats

    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 50).astype(float), rng.normal(size=50)

    assert_allclose(rank_correlation(x, y)[0], stats.spearmanr(x, y).statistic, rtol=1e-12)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0))[0])


@pytest.mark.parametrize("name", ["weighted", "penicillin", "sleepstudy"])
def test_the_score_of_a_slope_is_that_of_the_dense_formula(name):
    """Q = |A'Py|², tr M and tr M² with M = A'PA formed whole, referred to the scaled chi²."""
    from scipy import stats

    fit = FITS[name]()
    _, _, P = matrices(fit)
    factor, at = fit.design.factors[0], projection(fit, "Checks")
    x = np.cos(np.arange(len(at.Py)))
    A = x[:, None] * (factor.codes[:, None] == np.arange(len(factor.levels)))
    M, q = A.T @ P @ A, A.T @ P @ (fit.design.y - fit.design.offset)
    scale = (M**2).sum() / np.trace(M)

    found = slope_p(at, factor, x, nested=whole_clusters(at, factor.codes))

    assert_allclose(found, stats.chi2.sf(q @ q / scale, np.trace(M) / scale), rtol=1e-8)


def test_the_statistic_of_added_columns_is_that_of_the_larger_model_at_the_same_variances():
    """b'Var(b)⁻¹b of the columns added to X, V held."""
    fit = FITS["weighted"]()
    V, _, _ = matrices(fit)
    M = np.column_stack([np.sin(np.arange(90.0)), fit.design.X[:, 1], np.cos(np.arange(90.0))])
    X = np.column_stack([fit.design.X, M[:, [0, 2]]])
    covariance = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    b = (covariance @ X.T @ np.linalg.solve(V, fit.design.y))[2:]

    statistic, df, kept = between_statistic(projection(fit, "Checks"), M)

    assert (df, kept) == (2, [0, 2])
    assert_allclose(statistic, b @ np.linalg.solve(covariance[2:, 2:], b), rtol=1e-8)


def test_nothing_is_found_in_data_that_follow_the_model():
    """Over 60 simulated tables no topic is flagged in more than 9 (the rates measured over 200 are 0.06 at most)."""
    flagged: dict[str, int] = {}
    for seed in range(60):
        for topic, verdict in verdicts(hl.fit(hl.lmm("y ~ x + (1 | g)"), grouped(seed, 20, 5))).items():
            flagged[topic] = flagged.get(topic, 0) + (verdict in ("look", "act"))

    assert max(flagged.values()) <= 9, flagged


def test_skewed_errors_are_found():
    """Exponential errors squared: skewness 6.6, which no method for symmetric errors bears."""
    table = grouped(1)
    table["y"] += np.random.default_rng(2).exponential(size=240) ** 2 * 3

    assert verdicts(hl.fit(hl.lmm("y ~ x + (1 | g)"), table))["normal residuals"] == "act"


def test_spread_that_grows_is_found():
    """An error whose sd is exp(mean / 2)."""
    table = grouped(3)
    table["y"] = 2 * table["x"] + table["u"] + np.exp(table["x"] / 2) * table["e"]

    assert verdicts(hl.fit(hl.lmm("y ~ x + (1 | g)"), table))["spread by fitted values"] == "look"


def test_a_slope_that_varies_is_hinted_at_and_not_where_it_is_fitted():
    """Sleepstudy: LRT of the slopes 42.1 (Bates et al. 2015), so the random-intercept fit must be told."""
    intercepts = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), hl.load("sleepstudy").data)

    assert verdicts(intercepts)["slopes over Subject"] == "look"
    assert "slopes over Subject" not in verdicts(fitted("sleepstudy"))


def test_an_effect_that_differs_between_groups_is_found():
    """x with group means that go with the random effects: Mundlak's test, quiet once within and between are there."""
    table = grouped(4)
    table["x"] += table["u"]
    table["y"] = 1 + table["x"] + table["u"] + table["e"]
    spec = "y ~ {} + (1 | g)"

    found = verdicts(hl.fit(hl.lmm(spec.format("x")), table))
    split = verdicts(hl.fit(hl.lmm(spec.format("within(x, g) + between(x, g)")), table))

    assert found["within and between g"] == "look"
    assert "within and between g" not in split


def test_collinear_and_far_off_predictors_are_told_apart():
    """x and x plus noise are collinear; years are far from zero: the first is not mended by centring, the second is."""
    table = grouped(5)
    table["z"] = table["x"] + 0.01 * np.random.default_rng(1).normal(size=240)
    table["year"] = 2000 + table["x"]

    both = verdicts(hl.fit(hl.lmm("y ~ x + z + (1 | g)"), table))
    far = verdicts(hl.fit(hl.lmm("y ~ year + (1 | g)"), table))

    assert (both["collinearity"], both["centring"]) == ("look", "ok")
    assert (far["collinearity"], far["centring"]) == ("ok", "look")


def test_boundary_few_levels_and_empty_dimensions_are_named():
    """Dyestuff2 has a variance of zero, politeness slopes a correlation of one; four groups are few."""
    table = grouped(6, 4, 20)
    empty = fitted("politeness/slopes").check().frame.set_index("topic")

    assert "Batch:Intercept" in fitted("dyestuff2").check().frame.set_index("topic").loc["boundary", "value"]
    assert empty.loc["dimensions of subject", "verdict"] == "look"
    assert verdicts(hl.fit(hl.lmm("y ~ x + (1 | g)"), table))["levels of g"] == "look"


@pytest.mark.parametrize("name", FITS)
def test_the_list_prints_in_eighty_columns(name):
    """A mark, a topic, what was found and what to do; the frame has the same items."""
    found = FITS[name]().check()

    assert max(map(len, str(found).splitlines())) <= 80
    assert list(found.frame.columns) == ["topic", "verdict", "value", "advice"]
    for value in found.frame.query("topic.str.match('normal|spread')")["value"]:
        assert value.count("(limit ") == 2 * value.count(" z ")  # of the size, and of its z
    assert len(found.frame) == len(found.items)
    assert found.verdict in Verdict


def test_a_fit_without_residual_variance_is_to_be_acted_on():
    """The response is reproduced: that is said, and what cannot be looked at is named with the reason."""
    table = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": np.tile([0.0, 1, 2], 4)})
    table["y"] = 2 * table["x"] + np.repeat([1.0, 4, 2, 7], 3)

    found = hl.fit(hl.lmm("y ~ x + (1 | g)"), table).check()

    assert found.verdict is Verdict.ACT
    assert "not_checked" in set(found.frame["verdict"])


def test_rows_of_a_stream_cannot_be_checked():
    """Sums were kept, rows were not."""
    spec = hl.lmm("y ~ x + (1 | g)")
    table = grouped(7)
    fit = hl.fit(spec, hl.moments(spec, table.iloc[:100]) + hl.moments(spec, table.iloc[100:]))

    for ask in (fit.check, fit.influence, fit.leverage, fit.residuals):
        with pytest.raises(hl.DesignError, match="passed in a stream and were not kept"):
            ask()
