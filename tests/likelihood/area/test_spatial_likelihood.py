"""Spatial area-level models: likelihood and derivatives, the maximum over all admissible ρ, predictors, errors."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from spatial_cases import DATA, REFERENCE, published, published_problem, simulated

from hierlmm.likelihood.area.correlated import independent
from hierlmm.likelihood.area.criterion import ml_criterion, reml_criterion
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.spatial import admissible, node, problem, rough_node
from hierlmm.likelihood.area.spatial_derivatives import curvature, derivatives, slope
from hierlmm.likelihood.area.spatial_search import SpatialPlace, maximise

SETS = ["grapes", "eusilcA"]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_estimates_equal_the_polished_answers(name, method):
    """Exact answers in tests/data/spatial_exact.json; the criterion of REML has β integrated out, as ours."""
    want = REFERENCE["exact"][name][method]

    got = maximise(published_problem(name), method)

    own = got.loglik_reml if method == "reml" else got.loglik_ml
    assert got.converged
    assert got.place is SpatialPlace.INTERIOR
    assert len(got.optima) == 1
    assert_allclose([got.A, got.rho], [want["A"], want["rho"]], rtol=1e-10)
    assert_allclose([own, got.loglik_ml], [want["criterion"], want["loglik_ML"]], rtol=1e-12)
    assert_allclose(got.information, want["fisher_info"], rtol=1e-9)


def test_a_misaligned_matrix_is_another_model():
    """emdi 2.2.2 sorts the areas and leaves the matrix: its answer is that of W beside rows in another order."""
    y, X, D, W = published("eusilcA")
    want = REFERENCE["exact"]["eusilcA_misaligned"]["reml"]
    labels = pd.Index(pd.read_csv(DATA / "eusilcA_districts.csv")["domain"])

    order = labels.get_indexer(REFERENCE["eusilcA_order_of_emdi"])
    got = maximise(problem(W, y[order], X[order], independent(D[order]), np.ones(len(y), dtype=bool)), "reml")

    assert abs(got.rho - REFERENCE["exact"]["eusilcA"]["reml"]["rho"]) > 0.1
    assert_allclose([got.A, got.rho], [want["A"], want["rho"]], rtol=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(("A", "share"), [(2.0, 0.3), (0.5, -0.6), (30.0, 0.97)])
def test_log_likelihood_and_derivatives_are_those_of_dense_algebra(method, A, share):
    """Areas without data and correlated errors included; the gradient by differences of the dense log likelihood."""
    dense = simulated(1)
    model = dense.problem()
    rho = share * model.ends[int(share > 0)] * np.sign(share) * np.sign(model.ends[int(share > 0)])
    h = 1e-5

    at = node(model, rho)
    got = derivatives(at, curvature(at), A, method)

    f = lambda A, rho: dense.loglik(A, rho, method)  # noqa: E731
    moved = [node(model, rho + side * h) for side in (1, -1)]
    ahead, behind = (derivatives(other, curvature(other), A, method).gradient for other in moved)
    assert_allclose(got.loglik, f(A, rho), rtol=1e-11)
    assert_allclose(got.gradient[0], (f(A + h, rho) - f(A - h, rho)) / (2 * h), rtol=1e-6, atol=1e-7)
    assert_allclose(got.gradient[1], (f(A, rho + h) - f(A, rho - h)) / (2 * h), rtol=1e-5, atol=1e-7)
    assert_allclose(got.hessian[1], (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-7)
    assert_allclose(slope(at, A, method), got.gradient[1], rtol=1e-10)


def test_a_rough_node_is_the_same_model():
    """By eigenvalues of the square instead of singular values: the same log likelihood to nine digits."""
    model = published_problem("eusilcA")

    exact, rough = (ESTIMATORS["reml"](at.y, at.Q, at.d) for at in (node(model, -0.3), rough_node(model, -0.3)))

    assert_allclose(rough.A, exact.A, rtol=1e-8)


@pytest.mark.parametrize(
    ("W", "ends"),
    [
        (np.roll(np.eye(6), 1, 1) / 2 + np.roll(np.eye(6), -1, 1) / 2, (-1.0, 1.0)),
        (np.roll(np.eye(5), 1, 1) / 2 + np.roll(np.eye(5), -1, 1) / 2, (1 / np.cos(4 * np.pi / 5), 1.0)),
        (np.roll(np.eye(5), 1, 1), (-1.0, 1.0)),
        (np.triu(np.full((5, 5), 0.25), 1), (-1.0, 1.0)),
        (np.kron(np.eye(2), np.full((3, 3), 0.5) - 0.5 * np.eye(3)), (-2.0, 1.0)),
    ],
    ids=["even ring", "odd ring", "one-way ring", "chain without return", "two complete parts"],
)
def test_the_admissible_interval_comes_from_the_real_eigenvalues(W, ends):
    """Closed forms: rings have cos(2πk/n); one-way rings and chains no negative one, so the largest row sum bounds."""
    assert_allclose(admissible(W), ends, rtol=1e-12)


def test_no_variance_between_areas_is_an_exact_zero_without_rho():
    """Responses closer than their errors: Â is exactly 0, ρ is nan, and no ρ has a positive derivative in A."""
    dense = simulated(2, A=0.0)
    model = problem(dense.W, 0.2 * dense.y, dense.X, dense.problem().errors, dense.inside)

    got = maximise(model, "reml")

    assert got.A == 0.0
    assert got.place is SpatialPlace.ZERO
    assert np.isnan(got.rho)
    assert got.multiplier > 0
    nodes = [node(model, rho) for rho in (-0.5, 0.5)]
    assert max(derivatives(at, curvature(at), 0.0, "reml").gradient[0] for at in nodes) <= got.score


def test_a_likelihood_that_rises_to_the_end_is_an_answer_at_the_end():
    """Areas in two clusters that differ far more than areas within one: ρ goes to 1, whose limit REML has."""
    rng = np.random.default_rng(3)
    W = np.kron(np.eye(2), (np.ones((8, 8)) - np.eye(8)) / 7)
    y = np.repeat([0.0, 30.0], 8) + 0.01 * rng.normal(size=16)

    got = maximise(problem(W, y, np.ones((16, 1)), independent(np.full(16, 1.0)), np.ones(16, dtype=bool)), "reml")

    assert got.place is SpatialPlace.END
    assert got.rho > 0.999
    assert got.gradient[1] > 0


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_and_order_do_not_matter(factor):
    """y times c: A times c², ρ as it was; areas in another order: the same."""
    dense = simulated(5, correlated=False)
    base = maximise(dense.problem(), "reml")
    order = np.random.default_rng(0).permutation(len(dense.W))
    inside = dense.inside[order]
    full = np.full((2, len(dense.W)), np.nan)
    full[:, dense.inside] = dense.y * factor, np.diagonal(dense.S) * factor**2
    y, D = full[:, order][:, inside]

    got = maximise(problem(dense.W[np.ix_(order, order)], y, dense.X[order], independent(D), inside), "reml")

    assert_allclose([got.A, got.rho], [base.A * factor**2, base.rho], rtol=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_no_point_of_a_fine_grid_is_higher(seed):
    """Brute force over (A, ρ), A = 0 and both ends among them, for few areas, where corners and zeros are common."""
    rng = np.random.default_rng(seed)
    method, true_A = ("reml", "ml")[seed % 2], [0.0, 0.1, 1.0, 10.0][seed % 4]
    rho = rng.uniform(-0.9, 0.95)
    model = simulated(100 + seed, M=8 + seed, outside=(2,), A=true_A, rho=rho, correlated=False).problem()

    got = maximise(model, method)

    A, (low, high) = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 150)]), model.ends
    criterion = reml_criterion if method == "reml" else ml_criterion
    best = -np.inf
    for share in np.concatenate([[1e-5], np.linspace(0.005, 0.995, 50), [1 - 1e-5]]):
        at = node(model, low + (high - low) * share)
        constant = at.log_det_T + (model.model.log_jacobian if method == "reml" else 0.0)
        best = max(best, float((-criterion(A, at.y, at.Q, at.d) / 2).max()) + constant)
    own = got.loglik_reml if method == "reml" else got.loglik_ml
    assert got.converged
    assert own > best - 1e-6
