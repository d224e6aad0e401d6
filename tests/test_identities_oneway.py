"""One-way layouts, where the answer has a closed form, and the limits of the variance between groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from identity_cases import EXACT, METHODS, assert_close, checked, tables

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome

MODEL = hl.lmm("y ~ 1 + (1 | g)")


@st.composite
def layouts(draw: st.DrawFn) -> tuple[pd.DataFrame, int, int]:
    """a groups of k rows each; the standard deviation between groups from nothing to 100 times that within."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    a, k = draw(st.integers(3, 12)), draw(st.integers(2, 8))
    between = draw(st.sampled_from([0.0, 0.3, 1.0, 10.0, 100.0]))
    g = np.repeat(np.arange(a), k)
    y = draw(st.sampled_from([0.0, 50.0])) + between * rng.normal(size=a)[g] + rng.normal(size=a * k)
    return pd.DataFrame({"g": g, "y": y}), a, k


def squares(data: pd.DataFrame, a: int, k: int) -> tuple[float, float]:
    """Mean squares between and within, by two passes."""
    y = data["y"].to_numpy().reshape(a, k)
    means = y.mean(axis=1)
    return k * means.var(ddof=1), float(((y - means[:, None]) ** 2).sum() / (a * (k - 1)))


@given(layout=layouts())
@checked(60)
def test_balanced_reml_is_the_analysis_of_variance(layout):
    """(MSB - MSW)/k and MSW; exactly 0 and SST/(N - 1) where MSB <= MSW; se(mu)² = MSB/N (or SST/(N - 1)/N)."""
    data, a, k = layout
    msb, msw = squares(data, a, k)
    assume(abs(msb / msw - 1) > 1e-6)
    fit = hl.fit(MODEL, data, "reml")
    N = a * k

    assert fit.certificate.certified
    assert_close(fit.beta[0], data["y"].mean(), np.sqrt(msb))
    if msb <= msw:
        assert fit.outcome is LMMOutcome.AT_ZERO
        assert fit.G[0].item() == 0.0
        assert (fit.b[0] == 0.0).all()
        assert_close(fit.sigma2, data["y"].var(ddof=1))
        assert_close(fit.vcov_beta.item(), data["y"].var(ddof=1) / N)
    else:
        assert_close(fit.G[0].item(), (msb - msw) / k, msw)
        assert_close(fit.sigma2, msw)
        assert_close(fit.vcov_beta.item(), msb / N)


@given(layout=layouts())
@checked(40)
def test_likelihood_ratio_is_a_function_of_F(layout):
    """ML: 2 log ratio = N log(((a - 1) F + N - a)/N) - a log((a - 1) F/a) where (a - 1) F > a, else 0.

    The maximum has sigma² = MSW and sigma² + k G = SSB/a. Herbach (1959), Ann. Math. Stat. 30:939-959.
    """
    data, a, k = layout
    msb, msw = squares(data, a, k)
    N, F = a * k, msb / msw
    assume(abs((a - 1) * F / a - 1) > 1e-6)
    fit = hl.fit(MODEL, data, "ml")
    null = N * (1 + np.log(2 * np.pi * data["y"].var(ddof=0)))

    if (a - 1) * F <= a:
        assert fit.G[0].item() == 0.0
        assert_close(fit.objective, null, N)
    else:
        ratio = N * np.log(((a - 1) * F + N - a) / N) - a * np.log((a - 1) * F / a)
        assert_close(null - fit.objective, ratio, N)
        assert_close([fit.sigma2, fit.G[0].item()], [msw, ((a - 1) * msb / a - msw) / k], msw)


@given(data=tables(), method=METHODS)
@checked(40)
def test_group_means_are_shrunk_and_the_effects_sum_to_zero(data, method):
    """mu + b_i = mu + gamma_i (mean_i - mu), gamma_i = G/(G + sigma²/n_i) in [0, 1); the b_i sum to 0."""
    fit = hl.fit(MODEL, data, method)
    rows = data.groupby("g")["y"]
    means, n = rows.mean().to_numpy(), rows.size().to_numpy()
    mu, b, G = fit.beta[0], fit.b[0][:, 0], fit.G[0].item()
    gamma = G / (G + fit.sigma2 / n)

    assert_close(b, gamma * (means - mu), np.sqrt(fit.sigma2))
    assert abs(b.sum()) <= EXACT * np.sqrt(fit.sigma2)
    slack = EXACT * np.sqrt(fit.sigma2)
    assert (np.minimum(means, mu) - slack <= mu + b).all()
    assert (mu + b <= np.maximum(means, mu) + slack).all()
    # and mu is the mean of the group means weighted by the inverse of their variances
    weight = 1 / (G + fit.sigma2 / n)
    assert_close(mu, weight @ means / weight.sum(), 1.0)
    assert_close(fit.vcov_beta.item(), 1 / weight.sum())


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_without_variance_between_groups_it_is_least_squares(method):
    """gamma -> 0: groups that differ less than chance have G = 0 exactly, and beta, sigma², errors of OLS."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(10), 6)
    x, e = rng.normal(size=60), rng.normal(size=60)
    for column in (x, e):  # nothing differs between the means of groups
        column -= np.bincount(g, column)[g] / 6
    x += rng.normal(size=60) * 0.1
    data = pd.DataFrame({"g": g, "x": x, "y": 1 + 2 * x + e})
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), data, method)
    X = np.column_stack([np.ones(60), x])
    beta, rss, *_ = np.linalg.lstsq(X, data["y"], rcond=None)
    s2 = rss[0] / (58 if method == "reml" else 60)

    assert fit.outcome is LMMOutcome.AT_ZERO
    assert fit.G[0].item() == 0.0
    assert_close(fit.beta, beta)
    assert_close(fit.sigma2, s2)
    assert_close(fit.vcov_beta, s2 * np.linalg.solve(X.T @ X, np.eye(2)), s2 / 60)


@pytest.mark.parametrize("spread", [1e2, 1e3])
def test_with_all_variance_between_groups_it_is_the_within_estimator(spread):
    """gamma -> 1: the slope tends to that of fixed group effects, and sigma² to its residual variance.

    The information between groups is left with a weight of 1/spread², and says spread times as much about the slope.
    """
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(12), 5)
    x, e = rng.normal(size=60), rng.normal(size=60)
    y = 2 * x + spread * rng.normal(size=12)[g] + e
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), pd.DataFrame({"g": g, "x": x, "y": y}))
    dx, dy = (v - np.bincount(g, v)[g] / 5 for v in (x, y))
    slope = dx @ dy / (dx @ dx)
    s2 = ((dy - slope * dx) ** 2).sum() / (60 - 12 - 1)

    assert abs(fit.beta[1] - slope) < 0.1 / spread
    assert abs(fit.sigma2 / s2 - 1) < 10 / spread**2
    assert abs(fit.vcov_beta[1, 1] * (dx @ dx) / s2 - 1) < 10 / spread**2
    means = np.bincount(g, y - slope * x) / 5
    assert np.abs(fit.beta[0] + fit.b[0][:, 0] - means).max() < 1 / spread
