"""Mean squared errors of area estimates against exact answers, dense matrices, brute-force integrals and draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hierlmm.likelihood.area.errors import Asymptotics, asymptotics, error_terms, leading_terms, positive
from hierlmm.likelihood.area.errors_integrated import integrated_errors, integrated_factor
from hierlmm.likelihood.area.errors_interval import own_variances
from hierlmm.likelihood.area.errors_kurtosis import fourth_cumulant, kurtosis_terms
from hierlmm.likelihood.area.errors_matrix import ErrorMatrix, error_matrix
from hierlmm.likelihood.area.moments import blup

DATA = Path(__file__).parents[2] / "data"
CASES = json.loads((DATA / "fay_herriot_exact.json").read_text())["cases"]
EXACT = json.loads((DATA / "area_estimators_exact.json").read_text())["cases"]
METHODS = ("reml", "ml", "fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl")


def case(name):
    return (np.array(CASES[name][key]) for key in ("y", "X", "D"))


def dense(A, X, D):
    """V, C = (X'V⁻¹X)⁻¹ and P by inverses."""
    Vi = np.diag(1 / (A + D))
    C = np.linalg.inv(X.T @ Vi @ X)
    return np.diag(A + D), C, Vi - Vi @ X @ C @ X.T @ Vi


def brute_force(A_hat, y, X, D, x, i, prior):
    """∫ of E[(x'β̂ + v̂ - x'β - v_i)² | A] p(A | y) by 40,001 points in A/(1 + A), everything dense; i < 0: unsampled."""
    s = np.linspace(0, 1, 40_002)[1:-1] ** 2
    A = s / (1 - s)
    w = 1 / (A[:, None] + D)
    M = np.einsum("ni,ip,iq->npq", w, X, X)
    C = np.linalg.inv(M)
    beta = np.einsum("npq,nq->np", C, (w * y) @ X)
    loglik = (np.log(w).sum(1) - np.linalg.slogdet(M)[1] - (w * np.square(y - beta @ X.T)).sum(1)) / 2
    log_p = loglik - 2 * np.log(A + np.median(D)) + prior(A) + np.log(np.sqrt(s)) - 2 * np.log(1 - s)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    gamma = A / (A + D[i]) if i >= 0 else np.zeros_like(A)
    own, y_own = (X[i], y[i]) if i >= 0 else (np.zeros(X.shape[1]), 0.0)
    tilt = x - gamma[:, None] * own
    g = A * (1 - gamma) + np.einsum("np,npq,nq->n", tilt, C, tilt)
    at = np.einsum("np,np->n", tilt, beta) + gamma * y_own
    _, C0, _ = dense(A_hat, X, D)
    beta0 = C0 @ X.T @ (y / (A_hat + D))
    gamma0 = A_hat / (A_hat + D[i]) if i >= 0 else 0.0
    made = x @ beta0 + gamma0 * (y_own - own @ beta0)
    return p @ (g + np.square(at - made))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_terms_equal_the_40_digit_answers_at_the_exact_estimate(name, method):
    """Variance and bias of Â, g1, g2, g3 and the second-order MSE of every estimator, 11 data sets."""
    y, X, D = case(name)
    want = CASES[name][method] if method in ("reml", "ml") else EXACT[name][method]
    every = slice(None, None, CASES[name]["stride"])
    A = float(want["A"])
    half = blup(A, y, X, D, X).half

    of_A = asymptotics(method, A, D, half)
    terms = error_terms(A, of_A, D, half)

    assert_allclose(of_A.variance, want["var_A"], rtol=1e-10)
    assert_allclose(of_A.bias, want["bias_A"], rtol=1e-9)
    got = {"g1": terms.g1, "g2": terms.g2, "g3": terms.g3, "mse": terms.unbiased}
    for term, values in got.items():
        assert_allclose(values[every], want[term], rtol=1e-9, err_msg=term)


def test_leading_terms_at_many_A_equal_dense_algebra():
    """g1 and g2 of areas in the fit and of one that was not sampled, at three values of A with 0 among them."""
    _, X, D = case("boundary_b8")
    x = np.array([1.0, -3.0])
    A = np.array([0.0, 0.3, 20.0])

    g1, g2 = leading_terms(A, X, D, np.vstack([X, x]))

    for k, a in enumerate(A):
        C = dense(a, X, D)[1]
        assert_allclose(g1[k], [*(a * D / (a + D)), a], rtol=1e-12)
        assert_allclose(g2[k, :-1], np.square(D / (a + D)) * np.einsum("ip,pq,iq->i", X, C, X), rtol=1e-10)
        assert_allclose(g2[k, -1], x @ C @ x, rtol=1e-10)


def test_the_positive_form_is_positive_and_differs_in_the_third_order_alone():
    """0 < u exp(-c/u), and within c²/(2u) of u - c; a correction that adds is added."""
    rng = np.random.default_rng(1)
    u, c = rng.exponential(size=1000), rng.normal(size=1000)

    value = positive(u, c)

    assert (value > 0).all()
    takes = c > 0
    assert ((value - (u - c))[takes] >= 0).all()
    assert (np.abs(value - (u - c))[takes] <= np.square(c[takes]) / (2 * u[takes])).all()
    assert_allclose(value[~takes], (u - c)[~takes])
    assert positive(np.zeros(1), np.zeros(1)) == 0


@pytest.mark.parametrize("bias", [-0.13, 0.0])
def test_the_matrix_of_errors_is_its_formula_and_its_draws_have_it(bias):
    """D - DPD + 2v DP³D - b DP²D by dense algebra; 100,000 draws within 6 Monte Carlo standard errors."""
    y, X, D = case("boundary_b1")
    A, v = 0.37, 0.2
    Dm, P = np.diag(D), dense(A, X, D)[2]
    want = Dm - Dm @ P @ Dm + 2 * v * Dm @ P @ P @ P @ Dm - bias * Dm @ P @ P @ Dm

    found = error_matrix(A, Asymptotics(v, bias), D, blup(A, y, X, D, X).half, np.ones(len(D), dtype=bool))

    assert_allclose(found.dense(), want, rtol=1e-10, atol=1e-12)
    assert_allclose(found.diagonal(), np.diagonal(want), rtol=1e-10)
    W = np.random.default_rng(2).normal(size=(3, len(D)))
    assert_allclose(found.quadratic(W), W @ want @ W.T, rtol=1e-10)
    assert_allclose(found.times(W.T), want @ W.T, rtol=1e-10)
    draws = found.sample(100_000, np.random.default_rng(3))
    error = np.sqrt((np.outer(np.diagonal(want), np.diagonal(want)) + want**2) / 100_000)
    assert (np.abs(draws.T @ draws / 100_000 - want) < 6 * error).all()


def test_an_unsampled_area_is_the_limit_of_a_large_sampling_variance_in_the_matrix_too():
    """D_i = 1e9 against an area outside the fit, covariances through the coefficients among them."""
    y, X, D = case("boundary_b1")
    A, of_A = 0.37, Asymptotics(0.2, -0.1)
    large, into = D.copy(), np.arange(len(D)) != 3
    large[3] = 1e9
    limit = error_matrix(A, of_A, large, blup(A, y, X, large, X).half, np.ones(len(D), dtype=bool)).dense()
    outside = D.copy()
    outside[3] = np.inf

    found = error_matrix(A, of_A, outside, blup(A, y[into], X[into], D[into], X).half, into).dense()

    assert_allclose(found, limit, rtol=1e-6, atol=1e-9)
    exact = D.copy()
    exact[3] = 0.0
    known = error_matrix(A, of_A, exact, blup(A, y[into], X[into], D[into], X).half, into).dense()
    assert (known[3] == 0).all()
    assert_allclose(known[np.ix_(into, into)], found[np.ix_(into, into)], rtol=1e-12)


def test_rows_and_columns_are_scaled_to_a_given_diagonal():
    """diag(own) + factor core factor' with the diagonal asked for; the correlations stay; zero rows stay zero."""
    rng = np.random.default_rng(4)
    matrix = ErrorMatrix(np.array([1.0, 2.0, 0.0]), np.vstack([rng.normal(size=(2, 2)), np.zeros(2)]), np.eye(2))

    scaled = matrix.with_diagonal(np.array([5.0, 7.0, 0.0]))

    assert_allclose(scaled.diagonal(), [5.0, 7.0, 0.0])
    before, after = matrix.dense(), scaled.dense()
    assert_allclose(after[0, 1] / np.sqrt(35), before[0, 1] / np.sqrt(before[0, 0] * before[1, 1]))


@pytest.mark.parametrize("name", ["boundary_b1", "boundary_b15"])
@pytest.mark.parametrize("A_hat", [0.0, 0.4])
def test_averaged_errors_equal_a_brute_force_integral(name, A_hat):
    """An area's own mean, a mean elsewhere, an area effect, and an unsampled area; prior (A + D_i)²/(A + D̃)²."""
    y, X, D = case(name)
    i, x = 2, np.array([1.0, 0.3])
    rows = np.vstack([X[i], x, np.zeros(2), x])
    own = np.array([i, i, i, -1])

    got = integrated_errors(A_hat, y, X, D, rows, own)

    want = [
        brute_force(A_hat, y, X, D, row, k, (lambda A: 2 * np.log(A + D[i])) if k >= 0 else (lambda A: 0.0))
        for row, k in zip(rows, own, strict=True)
    ]
    assert_allclose(got, want, rtol=2e-6)


def test_the_averaged_matrix_is_that_of_one_posterior():
    """Its diagonal is the integral under a flat prior; it is positive definite; unsampled areas covary through β."""
    y, X, D = case("boundary_b1")
    rows, own = np.vstack([X, [1.0, 2.0]]), np.append(np.arange(len(D)), -1)

    d, F = integrated_factor(0.0, y, X, D, rows, own)

    want = [brute_force(0.0, y, X, D, rows[k], own[k], lambda A: 2 * np.log(A + np.median(D))) for k in (0, 5, -1)]
    matrix = np.diag(d) + F @ F.T
    assert_allclose(np.diagonal(matrix)[[0, 5, -1]], want, rtol=2e-6)
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert F.shape[1] <= len(rows)


@pytest.mark.parametrize("m", [3, 4, 5, 6, 7, 40])
def test_averaged_errors_exist_for_any_number_of_areas_and_follow_the_units(m):
    """p = 2, D over six orders of magnitude; y times c gives errors times c², and the order of areas goes through."""
    rng = np.random.default_rng(m)
    X, D = np.column_stack([np.ones(m), rng.normal(size=m)]), 10 ** rng.uniform(-4, 2, m)
    y = np.sqrt(D) * rng.normal(size=m)
    rows, own = np.vstack([X, X, np.zeros_like(X)]), np.concatenate([np.arange(m), np.full(m, -1), np.arange(m)])

    errors = integrated_errors(0.0, y, X, D, rows, own)

    assert (np.isfinite(errors) & (errors > 0)).all()
    scaled = integrated_errors(0.0, 1e6 * y, X, 1e12 * D, rows, own)
    assert_allclose(scaled, 1e12 * errors, rtol=1e-9)
    order = rng.permutation(m)
    shuffled = integrated_errors(0.0, y[order], X[order], D[order], X[order], np.arange(m))
    assert_allclose(shuffled, errors[:m][order], rtol=1e-9)


def test_kurtosis_leaves_the_errors_of_prasad_and_rao_alone():
    """Lahiri and Rao (1995): the normal formula stays right. Under equal D it does so for every estimator."""
    rng = np.random.default_rng(5)
    D = rng.uniform(0.3, 3, 12)

    assert_allclose(kurtosis_terms("pr", 0.8, D, 2.0)[0], 0, atol=1e-15)
    assert kurtosis_terms("pr", 0.8, D, 2.0)[1] == 0
    for method in ("fh", "reml"):
        assert_allclose(kurtosis_terms(method, 0.8, np.full(12, 0.7), 2.0)[0], 0, atol=1e-15)
        assert np.abs(kurtosis_terms(method, 0.8, D, 2.0)[0]).max() > 0


@pytest.mark.parametrize(("shape", "excess"), [("normal", 0.0), ("two points", -2.0), ("exponential", 6.0)])
def test_the_fourth_cumulant_is_found_with_many_areas(shape, excess):
    """Known excess kurtosis times A², within 5 standard errors by 30 data sets of 2,000 areas."""
    rng = np.random.default_rng(6)
    m, A = 2000, 1.5
    D = rng.uniform(0.2, 1.0, m)
    draw = {
        "normal": lambda: rng.normal(size=m),
        "two points": lambda: rng.choice([-1.0, 1.0], m),
        "exponential": lambda: rng.exponential(size=m) - 1,
    }[shape]

    found = []
    for _ in range(30):
        r = np.sqrt(A) * draw() + np.sqrt(D) * rng.normal(size=m)
        found.append(fourth_cumulant(A, r, A + D, D))

    # The estimate is cut at −2 A², which two points reach: half of their estimates are there.
    slack = 5 * np.std(found) / np.sqrt(30)
    assert abs(np.mean(found) - excess * A**2) < max(slack, 0.1 * A**2)
    assert min(found) >= -2 * A**2


@pytest.mark.parametrize("name", ["milk", "boundary_b15", "grapes"])
@pytest.mark.parametrize("z", [1.6448536269514722, 2.807033768343811])
def test_each_area_has_the_A_that_its_own_adjusted_likelihood_is_highest_at(name, z):
    """The score of Yoshimori and Lahiri's adjusted likelihood, dense, is 0 there; θ̂ and g1 are those at this A."""
    y, X, D = case(name)
    m = len(y)
    own, rows = np.append(np.arange(m), -1), np.vstack([X, X[0]])

    found = own_variances(z, y, X, D, rows, own)

    for i in (0, 3, m // 2, m - 1, m):
        A, reach = found.A[i], D[i] if i < m else np.inf
        _, C, P = dense(A, X, D)
        h = (
            (1 + z * z) / (4 * A)
            + (7 - z * z) / (4 * (A + reach))
            + rows[i] @ C @ rows[i] * ((A + D) ** -2.0).sum() / 2
        )
        score = (y @ P @ P @ y - np.trace(P)) / 2 + h
        assert abs(score) < 1e-7 * h
        beta = C @ X.T @ (y / (A + D))
        gamma = A / (A + reach)
        assert_allclose(found.theta[i], rows[i] @ beta + gamma * ((y[i] if i < m else 0) - rows[i] @ beta), rtol=1e-7)
        assert_allclose(found.g1[i], A * (1 - gamma), rtol=1e-12)


def test_an_area_without_an_own_estimate_is_nan():
    """m = 7, p = 2, one leverage near 1: m <= (4 + p)/(1 - q) for that area, and for all with m = 6."""
    X = np.column_stack([np.ones(7), [0, 0.1, 0.2, 0.1, 0, 0.2, 9]])
    y, D = np.array([1.0, 2, 0.5, 3, 1.5, 2.2, 4]), np.linspace(0.5, 1.5, 7)

    found = own_variances(1.96, y, X, D, X, np.arange(7))

    leverage = np.diagonal(X @ np.linalg.inv(X.T @ X) @ X.T)
    assert list(np.isnan(found.A)) == list(7 * (1 - leverage) <= 6)
    assert np.isnan(found.A).any()
    assert not np.isnan(own_variances(1.96, np.tile(y, 3), np.tile(X, (3, 1)), np.tile(D, 3), X, np.arange(7)).A).all()
