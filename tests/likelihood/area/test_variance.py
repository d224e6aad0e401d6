"""The estimate of the area variance and its interval: exact answers, closed forms and invariances."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hierlmm.likelihood.area import criterion as area
from hierlmm.likelihood.area.estimators import estimate_ml, estimate_reml
from hierlmm.likelihood.area.interval import likelihood_interval

CASES = json.loads((Path(__file__).parents[2] / "data" / "fay_herriot_exact.json").read_text())["cases"]
ESTIMATORS = {"reml": estimate_reml, "ml": estimate_ml}
CRITERIA = {"reml": area.reml_criterion, "ml": area.ml_criterion}
SCORES = {"reml": area.reml_score, "ml": area.ml_score}


def arrays(name):
    case = CASES[name]
    return np.array(case["y"]), np.array(case["X"]), np.array(case["D"])


def problem(seed, m=25, A=0.5):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(size=m)])
    D = 10.0 ** rng.uniform(-1, 0.5, m)
    return X @ [1.0, 2.0] + rng.normal(size=m) * np.sqrt(A + D), X, D


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_estimates_equal_the_40_digit_answers(name, method):
    """Exact answers in tests/data/fay_herriot_exact.json; zeros are exact zeros."""
    want = CASES[name][method]

    got = ESTIMATORS[method](*arrays(name))

    assert_allclose(got.A, want["A"], rtol=1e-12, atol=0)
    assert (got.A == 0.0) == (want["A"] == 0.0)
    assert_allclose([got.loglik_ml, got.loglik_reml], [want["loglik_ML"], want["loglik_REML"]], rtol=1e-12)
    assert len(got.maxima) == want["n_local_max"]
    assert got.converged


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_certificate_says_why_it_is_an_optimum(name, method):
    """Interior: a Newton step gains nothing. Zero: the multiplier is minus the exact score there."""
    want = CASES[name][method]

    got = ESTIMATORS[method](*arrays(name))

    if got.A > 0:
        assert got.decrement < 1e-20
        assert got.multiplier == 0.0
    else:
        assert_allclose(got.multiplier, -want["score_at_0"], rtol=1e-10)
        assert got.score == -got.multiplier


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("method", "divisor"), [("reml", 18), ("ml", 20)])
def test_equal_sampling_variances_have_the_closed_form(seed, method, divisor):
    """With D_i = D, Â = max(0, SSE/(m−p) − D) by REML (Prasad and Rao's moments), SSE/m − D by ML; m = 20, p = 2."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(20), rng.normal(size=20)])
    D = 0.9
    y = X @ [3.0, -1.0] + rng.normal(size=20)
    sse = np.sum((y - X @ np.linalg.lstsq(X, y)[0]) ** 2)

    got = ESTIMATORS[method](y, X, np.full(20, D))

    want = max(0.0, sse / divisor - D)
    assert_allclose(got.A, want, rtol=1e-11)
    assert (got.A == 0.0) == (want == 0.0)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_highest_of_several_local_maxima_is_found(method):
    """Ten precise areas on the line and three vague ones far from it: one maximum at each end, told by a fine grid."""
    y = np.concatenate([np.tile([0.1, -0.1], 5), [60.0, -60.0, 1.0]])
    D = np.concatenate([np.full(10, 0.01), np.full(3, 40.0)])
    X = np.ones((13, 1))
    grid = np.concatenate([[0.0], np.geomspace(1e-6, 1e5, 40001)])
    criterion = CRITERIA[method](grid, y, X, D)
    lowest = np.flatnonzero(
        (np.diff(criterion, prepend=np.inf) < 0) & (np.diff(criterion, append=np.inf) > 0)
    )

    got = ESTIMATORS[method](y, X, D)

    assert len(lowest) == 2
    assert len(got.maxima) == 2
    assert_allclose(got.maxima, grid[lowest], rtol=1e-3, atol=1e-6)
    assert_allclose(got.A, grid[np.argmin(criterion)], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["milk", "boundary_b1", "eusilcA_arcsinMTMED"])
@pytest.mark.parametrize("c", [1e-6, 1e-3, 1e6])
def test_the_estimate_follows_the_units(name, method, c):
    """y -> c y, D -> c² D gives c² Â, and zero stays zero."""
    y, X, D = arrays(name)

    got = ESTIMATORS[method](c * y, X, c * c * D)

    assert_allclose(got.A, c * c * CASES[name][method]["A"], rtol=1e-11, atol=0)
    assert (got.A == 0.0) == (CASES[name][method]["A"] == 0.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_order_of_areas_covariate_basis_and_a_shift_along_it_do_not_matter(seed, method):
    """A permutation, X -> XB and y -> y + Xd leave Â where it is."""
    y, X, D = problem(seed)
    order = np.random.default_rng(seed).permutation(len(y))
    estimate = ESTIMATORS[method]
    A = estimate(y, X, D).A

    assert_allclose(estimate(y[order], X[order], D[order]).A, A, rtol=1e-11)
    assert_allclose(estimate(y, X @ np.array([[2.0, 5.0], [0.1, -1.0]]), D).A, A, rtol=1e-11)
    assert_allclose(estimate(y + X @ [300.0, -7.0], X, D).A, A, rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_no_point_of_a_fine_grid_is_better(seed, method):
    """The criterion on 4,000 values of A, evaluated apart from the search."""
    y, X, D = problem(seed, A=0.05)
    grid = np.concatenate([[0.0], np.geomspace(1e-8, 1e4, 4000)])

    got = ESTIMATORS[method](y, X, D)

    assert CRITERIA[method](got.A, y, X, D) <= CRITERIA[method](grid, y, X, D).min() + 1e-10


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_a_perfect_fit_has_variance_zero(method):
    """y on the line exactly: any A > 0 only widens the density."""
    X = np.column_stack([np.ones(9), np.arange(9.0)])

    got = ESTIMATORS[method](X @ [1.0, 2.0], X, np.full(9, 0.3))

    assert got.A == 0.0
    assert got.converged


@pytest.mark.parametrize("seed", range(3))
def test_sampling_variances_over_24_orders_of_magnitude_still_give_the_stationary_point(seed):
    """Score in exact rational arithmetic (fractions) changes sign within 1e-6 of Â; D runs from 1e-12 to 1e12."""
    from fractions import Fraction

    rng = np.random.default_rng(seed)
    D = 10.0 ** np.linspace(-12, 12, 12)
    y = 3 + rng.normal(size=12) * np.sqrt(D + 1.0)

    got = estimate_reml(y, np.ones((12, 1)), D)

    def score(A):
        w = [1 / (Fraction(A) + Fraction(d)) for d in D]
        total = sum(w)
        mean = sum(wi * Fraction(yi) for wi, yi in zip(w, y, strict=True)) / total
        residual = sum((wi * (Fraction(yi) - mean)) ** 2 for wi, yi in zip(w, y, strict=True))
        return residual - total + sum(wi * wi for wi in w) / total

    assert got.converged
    assert score(got.A * (1 - 1e-6)) > 0 > score(got.A * (1 + 1e-6))


@pytest.mark.parametrize("name", ["milk", "grapes", "boundary_b1", "boundary_b8", "eusilcA_arcsinMTMED"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_profile_interval_is_where_the_criterion_has_risen_by_the_quantile(name, method):
    """χ²₁ 95 % quantile 3.841458820694124 (tables); zero is an end point where the rise there is smaller."""
    y, X, D = arrays(name)
    A = CASES[name][method]["A"]

    lower, upper = likelihood_interval(method, 0.95, y, X, D)

    best, at_lower, at_upper, at_zero = CRITERIA[method](np.array([A, lower, upper, 0.0]), y, X, D)
    assert lower <= A < upper
    assert_allclose(at_upper - best, 3.841458820694124, rtol=1e-9)
    if at_zero - best > 3.841458820694124:
        assert_allclose(at_lower - best, 3.841458820694124, rtol=1e-9)
    else:
        assert lower == 0.0


def test_profile_interval_with_equal_variances_follows_the_closed_criterion():
    """−2ℓ_REML = ν log t + S/t + const with t = A + D, so the ends solve ν log(t/t̂) + S (1/t − 1/t̂) = 3.8414588."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(3)
    y, D = 2 * rng.normal(size=16), 0.5
    S, nu = np.sum((y - y.mean()) ** 2), 15
    t_hat = S / nu
    ends = [
        brentq(lambda t: nu * np.log(t / t_hat) + S * (1 / t - 1 / t_hat) - 3.841458820694124, a, b, xtol=1e-14)
        for a, b in ((t_hat / 50, t_hat), (t_hat, 50 * t_hat))
    ]

    got = likelihood_interval("reml", 0.95, y, np.ones((16, 1)), np.full(16, D))

    assert_allclose(got, np.array(ends) - D, rtol=1e-10)
