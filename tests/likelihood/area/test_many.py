"""Estimates of many responses at once against the single estimators, and predictions against the single ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.many import estimate_many, predict_many
from hierlmm.likelihood.area.moments import blup
from hierlmm.likelihood.area.working import CHUNK


def problem(seed, m=20, B=60, spread=0.5):
    """Responses with area variances from 0 to 2, so that some estimates are 0 and some are not."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(size=m), rng.uniform(5, 9, m)])
    D = 10.0 ** rng.uniform(-spread, spread, m)
    A = np.linspace(0, 2, B)[:, None]
    return X @ [1.0, -2.0, 0.3] + rng.normal(size=(B, m)) * np.sqrt(A + D), X, D


@pytest.mark.parametrize("method", ESTIMATORS)
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_each_response_gets_the_answer_of_the_single_estimator(method, spread):
    """60 responses; sampling variances within one order of magnitude, and over eight."""
    Y, X, D = problem(1, spread=spread)
    single = [ESTIMATORS[method](y, X, D) for y in Y]

    got = estimate_many(method, Y, X, D)

    A = np.array([one.A for one in single])
    assert_allclose(got.A, A, rtol=1e-10, atol=0)
    assert list(got.converged) == [one.converged for one in single]
    assert got.converged.all()
    assert (A > 0).any()
    assert (A == 0).any() == (method in ("reml", "ml", "fh", "pr"))


@pytest.mark.parametrize("method", ESTIMATORS)
def test_an_answer_does_not_depend_on_what_else_is_asked(method):
    """Responses in several pieces, and alone: same answers."""
    Y, X, D = problem(2, m=600, B=2 * CHUNK // 600 + 3)

    got = estimate_many(method, Y, X, D)
    alone = estimate_many(method, Y[-2:], X, D)

    assert_allclose(got.A[-2:], alone.A, rtol=1e-11)
    assert estimate_many(method, Y[:0], X, D).A.shape == (0,)


def test_the_highest_of_several_maxima_is_taken_for_each_response():
    """Two clusters of areas: for some responses the maximum near 0 is the higher one, for others that far out."""
    D = np.concatenate([np.full(10, 0.01), np.full(3, 40.0)])
    X = np.ones((13, 1))
    near = np.tile([0.1, -0.1], 5)
    Y = np.array([np.concatenate([near, [far, -far, 1.0]]) for far in (5.0, 40.0, 60.0, 90.0)])
    single = [ESTIMATORS["reml"](y, X, D) for y in Y]

    got = estimate_many("reml", Y, X, D)

    assert {len(one.maxima) for one in single} == {1, 2}
    assert_allclose(got.A, [one.A for one in single], rtol=1e-11)


@pytest.mark.parametrize("spread", [0.5, 6.0])
def test_predictions_equal_those_of_one_response_at_a_time(spread):
    """β and y − (1−γ)(y − x'β), and x'β for areas without a direct estimate, at estimates and at A = 0."""
    Y, X, D = problem(3, spread=spread)
    A = estimate_many("reml", Y, X, D).A
    others = np.column_stack([np.ones(4), np.arange(4.0), np.full(4, 6.0)])

    beta, theta = predict_many(A, Y, X, D)
    again, theta_all = predict_many(A, Y, X, D, np.concatenate([X, others]))

    assert theta_all.shape == (60, 24)
    assert_allclose(again, beta, rtol=0)
    assert_allclose(theta_all[:, :20], theta, rtol=0)
    for b in range(0, 60, 7):
        at = blup(A[b], Y[b], X, D, others)
        assert_allclose(beta[b], at.beta, rtol=1e-11)
        assert_allclose(theta_all[b, 20:], at.fitted, rtol=1e-11)
        assert_allclose(theta[b], Y[b] - D / (A[b] + D) * at.residual, rtol=1e-12)


def test_no_coefficients_at_all():
    """p = 0: the estimates of a plain normal, and a prediction that shrinks towards 0."""
    rng = np.random.default_rng(4)
    Y, X, D = rng.normal(size=(5, 12)) * 1.5, np.zeros((12, 0)), np.full(12, 0.4)

    for method in ("reml", "ml", "fh", "pr"):
        got = estimate_many(method, Y, X, D)
        assert_allclose(got.A, np.maximum(np.square(Y).mean(axis=1) - 0.4, 0), rtol=1e-11)
    beta, theta = predict_many(got.A, Y, X, D)
    assert beta.shape == (5, 0)
    assert_allclose(theta, Y * (got.A / (got.A + 0.4))[:, None], rtol=1e-12)
