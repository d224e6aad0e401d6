"""Fits with weights and known variances, against rows written out and against dense algebra."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl

METHODS = ["ml", "reml"]


def table() -> pd.DataFrame:
    """90 rows of 15 groups in two strata, with counts, precisions and variances."""
    rng = np.random.default_rng(11)
    g, x, rows = np.repeat(np.arange(15), 6), rng.normal(size=90), np.arange(90)
    v = 0.5 + rows % 4
    y = 1 + 0.5 * x + rng.normal(size=15)[g] + np.sqrt(v) * rng.normal(size=90)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": rows % 2, "count": 1 + rows % 3, "w": 1 / v, "v": v})


def dense(data: pd.DataFrame, V: np.ndarray, method: str) -> tuple[float, np.ndarray]:
    """-2 log (restricted) likelihood and generalised least squares coefficients from n x n matrices."""
    X, y = np.column_stack([np.ones(len(data)), data["x"]]), data["y"].to_numpy()
    W = np.linalg.inv(V)
    information = X.T @ W @ X
    beta = np.linalg.solve(information, X.T @ W @ y)
    e = y - X @ beta
    value = np.linalg.slogdet(V)[1] + e @ W @ e + len(y) * np.log(2 * np.pi)
    if method == "reml":
        value += np.linalg.slogdet(information)[1] - X.shape[1] * np.log(2 * np.pi)
    return float(value), beta


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ x + (1 | g)", hl.Independent()),
        ("y ~ x + (x | g)", hl.Independent()),
        ("y ~ within(x, g) + between(x, g) + (x || g)", hl.Independent()),
        ("y ~ x + (1 | g)", hl.Stratified("h")),
        ("y ~ x + (1 | g)", hl.KnownVariances("v")),
        ("y ~ scale(x)", hl.Independent()),
    ],
    ids=str,
)
def test_a_frequency_of_two_equals_the_row_twice(formula, residual, method):
    """Criterion, estimates and errors."""
    data = table()
    written = data.loc[np.repeat(data.index, data["count"])].reset_index(drop=True)

    one = hl.fit(hl.lmm(formula, residual=residual, weights=hl.Frequency("count")), data, method=method)
    other = hl.fit(hl.lmm(formula, residual=residual), written, method=method)

    assert_allclose(one.objective, other.objective, rtol=1e-10)
    assert_allclose(one.beta, other.beta, rtol=1e-7, atol=1e-10)
    assert_allclose(one.vcov_beta, other.vcov_beta, rtol=1e-6, atol=1e-12)
    assert_allclose(one.sigma2, other.sigma2, rtol=1e-6)
    for G, H in zip(one.G, other.G, strict=True):
        assert_allclose(G, H, rtol=1e-5, atol=1e-8)
    assert_allclose(one.bic, other.bic, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights", [hl.Frequency("count"), hl.Precision("w")], ids=repr)
def test_22_a_weight_of_zero_equals_dropping_the_row(weights, method):
    """HOSTILE 22: lme4 gives a variance of .411 with the weight and .180 without the row."""
    data = table().astype({"count": float})
    data.loc[[4, 50], weights.column] = 0.0
    spec = hl.lmm("y ~ x + (x | g)", weights=weights)

    one, other = (hl.fit(spec, rows, method=method) for rows in (data, data.drop(index=[4, 50])))

    assert one.objective == other.objective
    assert_allclose(one.beta, other.beta, rtol=0)
    assert one.design.dropped.unweighted == (4, 50)
    assert "2 rows were left out because the weight" in one.summary()
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("known", [False, True])
def test_precisions_and_known_variances_enter_as_their_matrices(known, method):
    """Dense criterion and coefficients at the estimates, and no better point near them."""
    data = table()
    spec = (
        hl.lmm("y ~ x + (1 | g)", residual=hl.KnownVariances("v"))
        if known
        else hl.lmm("y ~ x + (1 | g)", weights=hl.Precision("w"))
    )
    J = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)

    fit = hl.fit(spec, data, method=method)
    tau2, s2 = fit.G[0].item(), fit.sigma2
    value, beta = dense(data, tau2 * J + s2 * np.diag(data["v"]), method)

    assert_allclose(fit.objective, value, rtol=1e-11)
    assert_allclose(fit.beta, beta, rtol=1e-8)
    assert not known or s2 == 1
    for a, b in ((1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)):
        if not (known and b != 1):
            assert dense(data, a * tau2 * J + b * s2 * np.diag(data["v"]), method)[0] > value


def test_weighted_regression_is_a_model_without_random_effects():
    """Weighted least squares in closed form: β = (X'WX)⁻¹X'Wy, σ² = e'We/(n - p)."""
    data = table()
    X, w, y = np.column_stack([np.ones(90), data["x"]]), data["w"].to_numpy(), data["y"].to_numpy()
    A = X.T @ (w[:, None] * X)
    beta = np.linalg.solve(A, X.T @ (w * y))
    s2 = (w * (y - X @ beta) ** 2).sum() / 88

    fit = hl.fit(hl.lmm("y ~ x", weights=hl.Precision("w")), data)

    assert_allclose(fit.beta, beta, rtol=1e-10)
    assert_allclose(fit.sigma2, s2, rtol=1e-10)
    assert_allclose(fit.vcov_beta, s2 * np.linalg.inv(A), rtol=1e-9)


def test_each_row_its_own_group_is_a_meta_analysis_where_variances_are_known():
    """Random-effects meta-analysis: REML estimate of τ² solves its own score equation (closed form of the score)."""
    data = table().iloc[:20].assign(g=range(20))
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)", residual=hl.KnownVariances("v")), data)
    tau2, y, v = fit.G[0].item(), data["y"].to_numpy(), data["v"].to_numpy()
    w = 1 / (v + tau2)
    mu = (w * y).sum() / w.sum()

    score = -w.sum() + (w**2).sum() / w.sum() + (w**2 * (y - mu) ** 2).sum()

    assert tau2 > 0
    assert_allclose(fit.beta[0], mu, rtol=1e-9)
    assert abs(score) < 1e-6 * w.sum()
    assert_allclose(fit.random_effects["estimate"], tau2 * w * (y - mu), rtol=1e-7)
