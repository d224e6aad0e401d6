"""Nine estimators of the area variance: exact answers, closed forms, what they maximise or solve, and invariances."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hierlmm.likelihood.area.estimators import ESTIMATORS, areas_needed
from hierlmm.likelihood.area.interval import likelihood_interval, likelihood_of
from hierlmm.likelihood.area.moments import blup

DATA = Path(__file__).parents[2] / "data"
CASES = json.loads((DATA / "fay_herriot_exact.json").read_text())["cases"]
EXACT = json.loads((DATA / "area_estimators_exact.json").read_text())["cases"]
OTHERS = ("fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl")
ADJUSTED = ("amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl")


def arrays(name):
    case = CASES[name]
    return np.array(case["y"]), np.array(case["X"]), np.array(case["D"])


def problem(seed, m=25, A=0.5):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(size=m)])
    D = 10.0 ** rng.uniform(-1, 0.5, m)
    return X @ [1.0, 2.0] + rng.normal(size=m) * np.sqrt(A + D), X, D


def wanted(name, method):
    """The 30-digit answer as a double."""
    if method in ("reml", "ml"):
        return CASES[name][method]["A"]
    if method == "mix":
        return CASES[name]["reml"]["A"] or float(EXACT[name]["ampl_ll"]["A"])
    return float(EXACT[name][method]["A"])


def adjusted_loglik(method, A, y, X, D):
    """log h + ℓ by dense formulas, without the constants of 2π: what the adjusted estimators maximise."""
    V = A + D
    W = X / V[:, None]
    beta = np.linalg.solve(X.T @ W, W.T @ y)
    value = -(np.log(V).sum() + ((y - X @ beta) ** 2 / V).sum()) / 2
    if method.startswith("amrl"):
        value -= np.linalg.slogdet(X.T @ W)[1] / 2
    return value + (np.log(A) if method.endswith("ll") else np.log(np.arctan((A / V).sum())) / len(y))


def score_of(method, A, y, X, D):
    """Derivative of `adjusted_loglik`, by the trace formulas."""
    V = A + D
    W = np.diag(1 / V)
    P = W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)
    value = (np.sum((P @ y) ** 2) - np.trace(P if method.startswith("amrl") else W)) / 2
    if method.endswith("ll"):
        return value + 1 / A
    S = (A / V).sum()
    return value + (D / V**2).sum() / ((1 + S**2) * np.arctan(S)) / len(y)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", OTHERS)
def test_estimates_equal_the_30_digit_answers(name, method):
    """tests/data/area_estimators_exact.json: A, the raw value of Prasad and Rao, log-likelihoods, maxima and EBLUPs."""
    want = EXACT[name][method]
    y, X, D = arrays(name)

    got = ESTIMATORS[method](y, X, D)

    assert_allclose(got.A, float(want["A"]), rtol=1e-12, atol=0)
    assert_allclose([got.loglik_ml, got.loglik_reml], [want["loglik_ML"], want["loglik_REML"]], rtol=1e-11)
    assert got.converged
    if method == "pr":
        assert_allclose(got.raw, want["raw"], rtol=1e-11)
    if method in ADJUSTED:
        assert len(got.maxima) == want["n_local_max"]
        assert_allclose(adjusted_loglik(method, got.A, y, X, D), _criterion(method, got, X, len(y)), rtol=1e-10)
    assert_allclose((y - D / (got.A + D) * blup(got.A, y, X, D, X).residual)[:: CASES[name]["stride"]], want["eblup"],
                    rtol=1e-11)  # fmt: skip


def _criterion(method, got, X, m):
    """log h + ℓ of the record, less the constants of 2π."""
    if method.startswith("amrl"):
        return got.log_h + got.loglik_reml + (m - X.shape[1]) * np.log(2 * np.pi) / 2
    return got.log_h + got.loglik_ml + m * np.log(2 * np.pi) / 2


@pytest.mark.parametrize("name", CASES)
def test_mix_is_reml_where_that_is_positive_and_otherwise_adjusted(name):
    """Rubin-Bleuer and You (2016): REML, or where REML is 0 Li and Lahiri's estimate on the profile likelihood."""
    got = ESTIMATORS["mix"](*arrays(name))

    assert_allclose(got.A, wanted(name, "mix"), rtol=1e-12)
    assert got.lifted == (CASES[name]["reml"]["A"] == 0)
    assert got.A > 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ADJUSTED)
def test_what_an_adjustment_lifts_from_zero_is_said(name, method):
    """`lifted` where the exact maximum of the likelihood itself is at 0."""
    got = ESTIMATORS[method](*arrays(name))

    assert got.lifted == (CASES[name][likelihood_of(method)]["A"] == 0)
    assert got.decrement < 1e-18
    assert got.multiplier == 0.0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("c", [1e-6, 1e6])
@pytest.mark.parametrize("method", ESTIMATORS)
def test_estimates_follow_the_units(name, c, method):
    """y -> c y + X d, D -> c² D gives c² Â, and zero stays zero."""
    y, X, D = arrays(name)
    d = c * np.abs(y).max() * np.resize([3.0, -1.0], X.shape[1]) / np.abs(X).max(axis=0)

    got = ESTIMATORS[method](c * y + X @ d, X, c * c * D)

    assert_allclose(got.A, c * c * wanted(name, method), rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ESTIMATORS)
def test_order_of_areas_and_the_basis_of_the_covariates_do_not_matter(seed, method):
    """A permutation of the areas and X -> XB leave Â where it is."""
    y, X, D = problem(seed, A=0.2)
    order = np.random.default_rng(seed).permutation(len(y))
    A = ESTIMATORS[method](y, X, D).A

    assert_allclose(ESTIMATORS[method](y[order], X[order], D[order]).A, A, rtol=1e-11)
    assert_allclose(ESTIMATORS[method](y, X @ np.array([[2.0, 5.0], [0.1, -1.0]]), D).A, A, rtol=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_equal_sampling_variances_have_closed_forms(seed):
    """With D_i = D, t = A + D, S the residual sum of squares, ν = m − p: fh and pr are max(0, S/ν − D). The maximum of
    log A − (k/2) log t − S/(2t) solves (2 − k) A² + (4D − kD + S) A + 2D² = 0, k = ν or m."""
    rng = np.random.default_rng(seed)
    m, D = 14, 0.9
    X = np.column_stack([np.ones(m), rng.normal(size=m)])
    y = X @ [3.0, -1.0] + rng.normal(size=m) * np.sqrt(D + 0.3)
    S = np.sum((y - X @ np.linalg.lstsq(X, y)[0]) ** 2)
    variances = np.full(m, D)

    for method in ("fh", "pr"):
        assert_allclose(ESTIMATORS[method](y, X, variances).A, max(0.0, S / (m - 2) - D), rtol=1e-11)
    for method, k in (("amrl_ll", m - 2), ("ampl_ll", m)):
        root = max(np.roots([2 - k, (4 - k) * D + S, 2 * D * D]))
        assert_allclose(ESTIMATORS[method](y, X, variances).A, root, rtol=1e-11)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ADJUSTED)
def test_no_point_of_a_fine_grid_is_better_and_the_score_changes_sign_at_the_maximum(seed, method):
    """Dense formulas on 600 values of A from 1e-9 on; score from plus to minus within a relative 1e-9 of Â."""
    y, X, D = problem(seed, A=0.01)

    got = ESTIMATORS[method](y, X, D)

    best = adjusted_loglik(method, got.A, y, X, D)
    assert best >= max(adjusted_loglik(method, A, y, X, D) for A in np.geomspace(1e-9, 1e3, 600)) - 1e-10
    assert score_of(method, got.A * (1 - 1e-9), y, X, D) > 0 > score_of(method, got.A * (1 + 1e-9), y, X, D)


@pytest.mark.parametrize("method", ["amrl_yl", "ampl_yl"])
def test_a_maximum_made_by_the_adjustment_near_zero_is_found_beside_that_of_the_likelihood(method):
    """Ten precise areas on the line and three vague ones far from it: the likelihood rises towards 0 and again far out.

    Near 0, log h is (1/m) log A + const, so the inner maximum is near A = 1/(m |ℓ'(0)|): far below every D.
    """
    y = np.concatenate([np.tile([0.1, -0.1], 5), [60.0, -60.0, 1.0]])
    X, D = np.ones((13, 1)), np.concatenate([np.full(10, 0.01), np.full(3, 40.0)])
    y[:10] *= 0.3
    at = np.geomspace(1e-9, 1e5, 20001)
    values = np.array([adjusted_loglik(method, A, y, X, D) for A in at])
    peaks = at[1:-1][(values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])]

    got = ESTIMATORS[method](y, X, D)

    assert len(peaks) == 2
    assert peaks[0] < 1e-3 < 100 < peaks[1]
    assert_allclose(got.maxima, peaks, rtol=1e-3)
    assert_allclose(got.A, at[np.argmax(values)], rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_fay_herriot_moments_solve_their_equation_and_zero_is_where_they_cannot(seed):
    """Σ (y − x'β̃)²/(A + D) = m − p with β̃ by dense least squares; at Â = 0 the left side is below m − p already."""
    y, X, D = problem(seed, A=0.15 * seed)

    got = ESTIMATORS["fh"](y, X, D)

    V = got.A + D
    beta = np.linalg.solve(X.T @ (X / V[:, None]), X.T @ (y / V))
    left = np.sum((y - X @ beta) ** 2 / V) / (len(y) - 2)
    assert_allclose(got.score, left - 1, atol=1e-12)
    assert_allclose(left, 1.0, rtol=1e-12) if got.A else None
    assert (got.A == 0) == (got.multiplier > 0)


@pytest.mark.parametrize("seed", range(4))
def test_prasad_rao_moments_are_unbiased_before_they_are_cut(seed):
    """raw = [y'(I−H)y − Σ D(1−h)]/(m−p) by a dense hat matrix; it is a quadratic form of expectation A."""
    y, X, D = problem(seed, A=0.0)
    H = X @ np.linalg.solve(X.T @ X, X.T)
    rest = np.eye(len(y)) - H

    got = ESTIMATORS["pr"](y, X, D)

    assert_allclose(got.raw, (y @ rest @ y - D @ np.diag(rest)) / (len(y) - 2), rtol=1e-11, atol=1e-13)
    assert got.A == max(0.0, got.raw)
    assert_allclose(got.multiplier, max(0.0, -got.raw), rtol=1e-12)


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_sampling_variances_over_many_orders_of_magnitude_are_no_obstacle(method, seed):
    """D from 1e-8 to 1e8: what is left of the score, or of the moment equation, is nothing at Â."""
    rng = np.random.default_rng(seed)
    D = 10.0 ** np.linspace(-8, 8, 17)
    y = 3 + rng.normal(size=17) * np.sqrt(D + 1.0)

    got = ESTIMATORS[method](y, np.ones((17, 1)), D)

    assert got.converged
    assert got.A > 0 or method == "pr"
    if method in ADJUSTED:
        args = (y, np.ones((17, 1)), D)
        assert score_of(method, got.A * (1 - 1e-6), *args) > 0 > score_of(method, got.A * (1 + 1e-6), *args)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_the_interval_is_that_of_the_likelihood_itself(method):
    """For the moments, mix and the adjusted likelihoods it is the one of REML or ML, whatever Â is."""
    y, X, D = arrays("boundary_b15")

    got = likelihood_interval(method, 0.95, y, X, D)

    assert got == likelihood_interval(likelihood_of(method), 0.95, y, X, D)
    assert likelihood_of(method) == ("ml" if method in ("ml", "ampl_ll", "ampl_yl") else "reml")


@pytest.mark.parametrize("method", ["amrl_ll", "ampl_ll"])
def test_with_fewer_areas_than_needed_the_adjusted_likelihood_has_no_maximum(method):
    """A times the likelihood falls as A^(1 − k/2): not at all for k = 2 contrasts, where no maximum is reported."""
    p = 1
    m = areas_needed(method, p) - 1 if method == "amrl_ll" else 2
    y, X, D = np.arange(float(m)), np.ones((m, p)), np.full(m, 0.5)

    assert not ESTIMATORS[method](y, X, D).converged

    m = areas_needed(method, p)
    assert ESTIMATORS[method](np.arange(float(m)), np.ones((m, p)), np.full(m, 0.5)).converged
