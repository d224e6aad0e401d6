"""Slud and Maiti's predictor of exp θ and its mean squared error: a package's figures, limits and a simulation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from hierlmm.likelihood.area.errors import asymptotics, error_terms
from hierlmm.likelihood.area.exponentials import exponential_errors
from hierlmm.likelihood.area.many import estimate_many, predict_many
from hierlmm.likelihood.area.moments import blup

DATA = Path(__file__).parents[2] / "data"
EMDI = json.loads((DATA / "transformed_emdi.json").read_text())["cases"]


def eusilc():
    """log(Mean) ~ cash + self_empl over 94 synthetic districts."""
    table = pd.read_csv(DATA / "eusilcA_areas.csv")
    X = np.column_stack([np.ones(len(table)), table["cash"], table["self_empl"]])
    return np.log(table["Mean"].to_numpy()), X, (table["Var_Mean"] / table["Mean"] ** 2).to_numpy()


def at(A, y, X, D):
    fit = blup(A, y, X, D, X)
    leverage = np.square(fit.half).sum(axis=1)
    theta = fit.fitted + A / (A + D) * fit.residual
    return fit.fitted, theta, leverage, asymptotics("ml", A, D, fit.half), error_terms_of(A, D, fit.half)


def error_terms_of(A, D, half):
    return error_terms(A, asymptotics("ml", A, D, half), D, half)


def test_emdi_has_the_predictor_and_counts_the_bias_of_A_twice_in_its_error():
    """At emdi's own A its estimates agree; its mse is this formula with twice the bias of the ML estimator."""
    want = EMDI["log_bc_sm_ml"]
    y, X, D = eusilc()
    mu, theta, leverage, of_A, terms = at(want["A"], y, X, D)

    right = exponential_errors(want["A"], of_A.variance, of_A.bias, D, mu, theta, leverage, terms.g2)
    twice = exponential_errors(want["A"], of_A.variance, 2 * of_A.bias, D, mu, theta, leverage, terms.g2)

    assert_allclose(right.estimate, want["estimate"], rtol=1e-11)
    assert_allclose(twice.mse, want["mse"], rtol=1e-11)
    assert 0.02 < np.mean(want["mse"] / right.mse - 1) < 0.03


def test_mse_is_unbiased_to_second_order_and_with_twice_the_bias_it_is_not():
    """20,000 responses of 47 areas: the mean estimate over the true error, which is L plus the mean of (T(Â) - T)²."""
    rng = np.random.default_rng(2006)
    X, A, D = np.column_stack([np.ones(47), rng.normal(size=(47, 2))]), 0.05, rng.uniform(0.01, 0.1, 47)
    mu, gamma = X @ [1.0, 0.3, 0.2], A / (A + D)
    Y = mu + np.sqrt(A + D) * rng.standard_normal((20_000, 47))
    left = np.exp(2 * mu + 2 * A) * -np.expm1(-gamma * D)

    A_hat = estimate_many("ml", Y, X, D).A[:, None]
    beta, theta = predict_many(A_hat[:, 0], Y, X, D)
    T = np.exp(theta + A_hat * D / (A_hat + D) / 2) - np.exp(mu + gamma * (Y - mu) + gamma * D / 2)
    true = left + np.square(T).mean(axis=0)
    w = 1 / (A_hat + D)
    leverage = np.einsum("ip,bpq,iq->bi", X, np.linalg.inv(np.einsum("bi,ip,iq->bpq", w, X, X)), X)
    v, g2 = 2 / np.square(w).sum(axis=1, keepdims=True), np.square(D * w) * leverage
    bias = -v / 2 * (leverage * w**2).sum(axis=1, keepdims=True)
    ratio = {
        k: (exponential_errors(A_hat, v, k * bias, D, beta @ X.T, theta, leverage, g2).mse / true).mean(axis=1)
        for k in (1, 2)
    }

    noise = ratio[1].std() / np.sqrt(20_000)
    assert noise < 0.003
    assert abs(ratio[1].mean() - 1) < 0.01
    assert ratio[2].mean() - 1 > 0.03


def test_an_area_with_a_huge_variance_is_one_that_was_not_sampled():
    """D -> infinity: T = exp(x'β + A/2); D -> 0: nothing is left to estimate."""
    y, X, D = eusilc()
    mu, _, leverage, of_A, _ = at(0.01, y, X, D)
    ends = np.array([1e12, np.inf, 1e-300, 0.0])

    h, mu = leverage[:4], mu[:4]
    g2 = np.array([(1e12 / (1e12 + 0.01)) ** 2, 1, 0, 0]) * h
    got = exponential_errors(0.01, of_A.variance, of_A.bias, ends, mu, mu, h, g2)
    same = exponential_errors(0.01, of_A.variance, of_A.bias, np.full(4, np.inf), mu, mu, h, h)

    assert_allclose(got.estimate[:2], np.exp(mu[:2] + 0.005), rtol=1e-12)
    assert_allclose(got.mse[:2], same.mse[:2], rtol=1e-9)
    assert_allclose(got.mse[2:], 0.0, atol=1e-290)


def test_where_the_logarithm_is_a_straight_line_it_is_the_mse_of_the_mean():
    """For coefficients of variation of 1e-4 the mse over exp(2μ) is g1 + g2 + 2 g3 - bB²."""
    y, X, D = eusilc()
    small = 1e-8
    mu, theta, leverage, of_A, terms = at(0.01, y, X, D)
    shrunk = D * small, mu, theta, leverage * small, terms.g2 * small

    got = exponential_errors(0.01 * small, of_A.variance * small**2, of_A.bias * small, *shrunk)

    assert_allclose(got.mse / np.exp(2 * mu) / small, terms.unbiased, rtol=1e-5)
