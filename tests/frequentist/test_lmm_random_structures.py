"""Random effects of one variance, or of one variance and one correlation, against dense matrices and equal models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome

METHODS = ("reml", "ml")


def table(correlation: float, groups: int = 14, seed: int = 5) -> pd.DataFrame:
    """Three treatments f, twice each in every group, with correlated effects of group and treatment; unbalanced."""
    rng = np.random.default_rng(seed)
    g, f = np.repeat(np.arange(groups), 6), np.tile(np.repeat(np.arange(3), 2), groups)
    G = 2.0 * ((1 - correlation) * np.eye(3) + correlation)
    b = rng.multivariate_normal(np.zeros(3), G, groups)
    x = rng.standard_normal(len(g))
    y = 1 + 0.5 * x + f + b[g, f] + 0.7 * rng.standard_normal(len(g))
    whole = pd.DataFrame({"y": y, "x": x, "f": np.array(list("abc"))[f], "g": g})
    return whole.drop(index=[3, 10, 11, 40, 66])


def dense(data: pd.DataFrame, method: str, structure: str):
    """-2 log likelihood of (log variance, correlation, log sigma²), from n x n matrices written out."""
    y = data["y"].to_numpy()
    X = np.column_stack([np.ones(len(y)), data["x"], data["f"] == "b", data["f"] == "c"]).astype(float)
    same_g = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    same_f = data["f"].to_numpy()[:, None] == data["f"].to_numpy()
    n, p = X.shape

    def criterion(values):
        variance, sigma2 = np.exp(values[0]), np.exp(values[-1])
        rho = 0.0 if structure == "identity" else 1.5 / (1 + np.exp(-values[1])) - 0.5  # (-1/2, 1): three levels
        V = variance * same_g * np.where(same_f, 1.0, rho) + sigma2 * np.eye(n)
        XVX = X.T @ np.linalg.solve(V, X)
        r = y - X @ np.linalg.solve(XVX, X.T @ np.linalg.solve(V, y))
        value = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)
        if method == "ml":
            return value + n * np.log(2 * np.pi)
        return value + np.linalg.slogdet(XVX)[1] + (n - p) * np.log(2 * np.pi)

    return criterion


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("structure", "correlation"), [("identity", 0.0), ("cs", 0.4), ("cs", -0.3)])
def test_the_optimum_is_that_of_the_written_out_likelihood(structure, correlation, method):
    """scipy's best from four starts is not lower than ours, and equal to it."""
    data = table(correlation)
    fit = hl.fit(hl.lmm(f"y ~ x + f + {structure}(0 + f | g)"), data, method)
    criterion = dense(data, method, structure)
    size = 2 if structure == "identity" else 3
    runs = [minimize(criterion, start * np.ones(size), method="BFGS") for start in (-1.0, 0.0, 0.5, 1.0)]
    best = min(runs, key=lambda run: run.fun)

    assert fit.certificate.certified
    assert fit.outcome is LMMOutcome.INTERIOR
    assert_allclose(fit.objective, best.fun, rtol=0, atol=1e-7)
    assert fit.objective <= best.fun + 1e-9
    assert_allclose(np.log(fit.G[0][0, 0]), best.x[0], atol=1e-3)
    assert_allclose(np.log(fit.sigma2), best.x[-1], atol=1e-3)
    rho = fit.G[0][0, 1] / fit.G[0][0, 0]
    at = [np.log(fit.G[0][0, 0]), *([np.log((rho + 0.5) / (1 - rho))] if size == 3 else []), np.log(fit.sigma2)]
    assert_allclose(criterion(np.array(at)), fit.objective, rtol=1e-11)
    assert_allclose(fit.G[0], fit.G[0][0, 0] * ((1 - rho) * np.eye(3) + rho), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_variance_for_indicators_is_an_intercept_for_each_cell(method):
    """identity(0 + f | g) is (1 | g:f)."""
    data = table(0.0)
    one = hl.fit(hl.lmm("y ~ x + f + identity(0 + f | g)"), data, method)
    other = hl.fit(hl.lmm("y ~ x + f + (1 | g:f)"), data, method)

    assert_allclose(one.objective, other.objective, rtol=0, atol=1e-9)
    assert_allclose(one.beta, other.beta, rtol=1e-8)
    assert_allclose(one.vcov_beta, other.vcov_beta, rtol=1e-7)
    assert_allclose(one.G[0][0, 0], other.G[0][0, 0], rtol=1e-7)
    assert_allclose(one.conditional_fitted, other.conditional_fitted, rtol=1e-7)
    assert one.n_parameters == other.n_parameters


@pytest.mark.parametrize("method", METHODS)
def test_positive_compound_symmetry_is_two_intercepts(method):
    """cs(0 + f | g) is (1 | g) + (1 | g:f): the covariance is the first variance, the rest is the second."""
    data = table(0.5)
    one = hl.fit(hl.lmm("y ~ x + f + cs(0 + f | g)"), data, method)
    other = hl.fit(hl.lmm("y ~ x + f + (1 | g) + (1 | g:f)"), data, method)
    between, within = (other.G[[f.name for f in other.design.factors].index(name)][0, 0] for name in ("g", "g:f"))

    assert one.G[0][0, 1] > 0
    assert_allclose(one.objective, other.objective, rtol=0, atol=1e-9)
    assert_allclose([one.G[0][0, 1], one.G[0][0, 0]], [between, between + within], rtol=1e-6)
    assert_allclose(one.conditional_fitted, other.conditional_fitted, rtol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_negative_compound_symmetry_is_below_what_two_intercepts_reach(method):
    """A negative covariance is no variance: (1 | g) stays at zero."""
    data = table(-0.4, groups=30)
    one = hl.fit(hl.lmm("y ~ x + f + cs(0 + f | g)"), data, method)
    other = hl.fit(hl.lmm("y ~ x + f + (1 | g) + (1 | g:f)"), data, method)

    assert one.G[0][0, 1] < 0
    assert one.objective < other.objective - 0.1
    assert other.outcome is LMMOutcome.AT_ZERO


@pytest.mark.parametrize("method", METHODS)
def test_both_bounds_of_the_correlation_are_reached_and_said(method):
    """Effects equal over f, so that rho = 1, and effects that sum to zero in each group, so that rho = -1/2."""
    data = table(0.0)
    rng = np.random.default_rng(3)
    noise = 0.7 * rng.standard_normal(len(data))
    c = rng.standard_normal((data["g"].max() + 1, 3))
    g, f = data["g"].to_numpy(), data["f"].map({"a": 0, "b": 1, "c": 2}).to_numpy()
    equal = hl.fit(hl.lmm("y ~ x + f + cs(0 + f | g)"), data.assign(y=3 * c[g, 0] + noise), method)
    zero = hl.fit(
        hl.lmm("y ~ x + f + cs(0 + f | g)"), data.assign(y=3 * (c - c.mean(1)[:, None])[g, f] + noise), method
    )

    for fit, bound in ((equal, 1.0), (zero, -0.5)):
        rho = fit.G[0][0, 1] / fit.G[0][0, 0]
        assert fit.certificate.certified
        assert rho == pytest.approx(bound, abs=0.05)
        if fit.singular:
            assert_allclose(rho, bound, rtol=1e-9)
            assert "boundary" in fit.summary()
            assert np.isnan(fit.variance_components.query("quantity == 'correlation'")["se"]).all()


@pytest.mark.parametrize("method", METHODS)
def test_two_levels_of_equal_variance(method):
    """cs(0 + f | g) of two levels against sum and difference, which are independent with variances v (1 ± rho)."""
    data = table(0.3).query("f != 'c'").assign(s=1.0, d=lambda t: np.where(t["f"] == "a", 1.0, -1.0))
    one = hl.fit(hl.lmm("y ~ x + f + cs(0 + f | g)"), data, method)
    other = hl.fit(hl.lmm("y ~ x + f + diag(0 + s + d | g)"), data, method)
    v, c = one.G[0][0]

    assert_allclose(one.objective, other.objective, rtol=0, atol=1e-9)
    assert_allclose([(v + c) / 2, (v - c) / 2], np.diag(other.G[0]), rtol=1e-6)


@pytest.mark.parametrize("covariance", ["identity", "cs"])
def test_units_and_predictions(covariance):
    """Scaling the response scales the variances; a new group is predicted with the variance of the block."""
    data = table(0.3)
    spec = hl.lmm(f"y ~ x + f + {covariance}(0 + f | g)")
    fit, scaled = hl.fit(spec, data), hl.fit(spec, data.assign(y=1e6 * data["y"]))
    assert_allclose(scaled.G[0] / 1e12, fit.G[0], rtol=1e-8)

    new = data.iloc[:1].assign(g=99)
    known = fit.predict(new, new_levels="population")["se"].item() ** 2
    x = np.array([1.0, new["x"].item(), 0.0, 0.0])
    assert_allclose(known, x @ fit.vcov_beta @ x + fit.G[0][0, 0], rtol=1e-12)
    assert len(fit.random_effects) == 3 * 14


def test_one_variance_of_numeric_slopes():
    """identity(0 + x + z | g) against dense algebra at the estimates, and its gradient there by differences."""
    rng = np.random.default_rng(11)
    g = np.repeat(np.arange(12), 7)
    x, z = rng.standard_normal((2, len(g)))
    b = rng.standard_normal((12, 2))
    y = 1 + b[g, 0] * x + b[g, 1] * z + 0.5 * rng.standard_normal(len(g))
    data = pd.DataFrame({"y": y, "x": x, "z": z, "g": g})
    fit = hl.fit(hl.lmm("y ~ x + z + identity(0 + x + z | g)"), data)
    X = np.column_stack([np.ones(len(y)), x, z])
    K = (g[:, None] == g) * (np.outer(x, x) + np.outer(z, z))

    def criterion(log_variance, log_sigma2):
        V = np.exp(log_variance) * K + np.exp(log_sigma2) * np.eye(len(y))
        XVX = X.T @ np.linalg.solve(V, X)
        r = y - X @ np.linalg.solve(XVX, X.T @ np.linalg.solve(V, y))
        log_det = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XVX)[1]
        return log_det + r @ np.linalg.solve(V, r) + (len(y) - 3) * np.log(2 * np.pi)

    at = np.log([fit.G[0][0, 0], fit.sigma2])
    assert_allclose(criterion(*at), fit.objective, rtol=1e-12)
    for step in np.eye(2) * 1e-4:
        assert abs(criterion(*(at + step)) - criterion(*(at - step))) / 2e-4 < 1e-6
