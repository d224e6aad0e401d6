"""Rotation of correlated sampling errors: exact, block by block, nothing m x m where blocks are small."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hierlmm.likelihood.area.correlated import blocks_of, gathered, independent, reduced, rotation
from hierlmm.likelihood.area.estimators import ESTIMATORS


def covariance(seed, sizes):
    """A block-diagonal covariance matrix with its areas shuffled."""
    rng = np.random.default_rng(seed)
    m = sum(sizes)
    S, start = np.zeros((m, m)), 0
    for k in sizes:
        half = rng.normal(size=(k, k))
        S[start : start + k, start : start + k] = half @ half.T + np.eye(k)
        start += k
    order = rng.permutation(m)
    return S[np.ix_(order, order)]


def data(seed, m):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(100.0, 1.0, m)])
    return X @ [5.0, 2.0] + 4 * rng.normal(size=m), X


def test_the_rotation_diagonalises_the_covariance_block_by_block():
    """U'SU = diag(d), and what is rotated forward comes back; blocks are found whatever the order of the areas."""
    S = covariance(1, [1, 3, 5, 3, 1, 2])
    values = np.random.default_rng(2).normal(size=(15, 4))

    turn = rotation(blocks_of(S))

    assert len(blocks_of(S)) == 6
    assert_allclose(turn.covariance(turn.d), S, atol=1e-12)
    assert_allclose(turn.back(turn.forward(values)), values, atol=1e-12)
    assert_allclose(turn.forward(turn.forward(S).T), np.diag(turn.d), atol=1e-12)
    assert_allclose(turn.diagonal(np.sqrt(turn.d)), np.diagonal(turn.covariance(np.sqrt(turn.d))), atol=1e-12)


def test_a_diagonal_covariance_is_not_rotated():
    """Independent errors keep place and sign, to the last bit."""
    D = np.array([3.0, 1.0, 2.0])

    turn = rotation(blocks_of(np.diag(D)))

    assert_array_equal(turn.d, D)
    assert_array_equal(turn.forward(np.arange(3.0)), np.arange(3.0))
    assert_array_equal(turn.d, independent(D).d)


def test_areas_are_taken_out_of_their_blocks():
    """The blocks of some areas are those of the submatrix."""
    S = covariance(3, [3, 2, 4])
    keep = np.arange(9) % 3 != 0

    turn = rotation(gathered(blocks_of(S), keep))

    assert_allclose(turn.covariance(turn.d), S[np.ix_(keep, keep)], atol=1e-12)


def dense_estimate(method, y, X, S):
    """Estimating equations of dense algebra, solved by bisection on A: the witness for one method each."""
    m, p = X.shape

    def parts(A):
        Vi = np.linalg.inv(A * np.eye(m) + S)
        cov = np.linalg.inv(X.T @ Vi @ X)
        return Vi, Vi - Vi @ X @ cov @ X.T @ Vi

    def score(A):
        Vi, P = parts(A)
        Py = P @ y
        if method in ("reml", "amrl_ll", "amrl_yl"):
            value = (Py @ Py - np.trace(P)) / 2
        elif method in ("ml", "ampl_ll", "ampl_yl"):
            value = (Py @ Py - np.trace(Vi)) / 2
        else:
            return y @ Py - (m - p)
        if method.endswith("ll"):
            value += 1 / A
        if method.endswith("yl"):
            total = A * np.trace(Vi)
            value += (np.trace(Vi) - A * np.trace(Vi @ Vi)) / ((1 + total**2) * np.arctan(total) * m)
        return value

    if method == "pr":
        H = X @ np.linalg.solve(X.T @ X, X.T)
        I_H = np.eye(m) - H
        return max(0.0, (y @ I_H @ y - np.trace(I_H @ S)) / (m - p))
    low, high = 1e-8, 1e4
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if score(middle) > 0 else (low, middle)
    return low


@pytest.mark.parametrize("method", [name for name in ESTIMATORS if name != "mix"])
def test_every_estimator_solves_its_equation_for_the_full_covariance(method):
    """Quadratic forms and traces do not see the rotation: each rotated estimate solves the equation in V = A I + S."""
    S = covariance(4, [6, 4, 1, 5])
    y, X = data(5, 16)
    turn = rotation(blocks_of(S))
    model = reduced(y, X, np.diagonal(S))

    got = ESTIMATORS[method](turn.forward(model.y), turn.forward(model.Q), turn.d)

    assert got.converged
    assert got.A > 0
    assert_allclose(got.A, dense_estimate(method, y, X, S), rtol=1e-7)


def test_the_reduced_regression_carries_back():
    """β, its covariance, x'β and the constant of the restricted likelihood are those of y and X themselves."""
    S = covariance(6, [5, 5])
    y, X = data(7, 10)
    turn = rotation(blocks_of(S))
    model = reduced(y, X, np.diagonal(S))
    V = 2.0 * np.eye(10) + S
    cov = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    beta = cov @ X.T @ np.linalg.solve(V, y)
    Q, w = turn.forward(model.Q), 1 / (2.0 + turn.d)

    cov_delta = np.linalg.inv((Q.T * w) @ Q)
    delta = cov_delta @ (Q.T @ (w * turn.forward(model.y)))

    assert_allclose(model.beta(delta), beta, rtol=1e-9)
    assert_allclose(model.cov_beta(cov_delta), cov, rtol=1e-8)
    assert_allclose(model.ols(X) + model.rows(X) @ delta, X @ beta, rtol=1e-10)
    assert_allclose(model.log_jacobian, -np.linalg.slogdet(X.T @ X)[1] / 2, rtol=1e-10)


def test_ten_thousand_areas_in_blocks_of_five():
    """Blocks of one size rotate together: no matrix of 10,000 x 10,000, and the estimate of A is near the truth 4."""
    rng = np.random.default_rng(8)
    half = rng.normal(size=(2000, 5, 5))
    S = half @ half.mT + np.eye(5)
    X = np.column_stack([np.ones(10_000), rng.normal(size=10_000)])
    errors = (np.linalg.cholesky(S) @ rng.normal(size=(2000, 5, 1))).ravel()
    y = X @ [1.0, 1.0] + 2 * rng.normal(size=10_000) + errors

    turn = rotation((np.arange(5 * k, 5 * k + 5), S[k]) for k in range(2000))
    got = ESTIMATORS["reml"](turn.forward(y), turn.forward(X), turn.d)

    assert abs(got.A - 4.0) < 4 / np.sqrt(got.information_trace)
