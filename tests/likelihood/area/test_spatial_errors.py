"""Predictors of spatial area-level models and the covariance of their errors, intervals, and many fits at once."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from spatial_cases import REFERENCE, published, published_problem, simulated

from hierlmm.likelihood.area.spatial import node
from hierlmm.likelihood.area.spatial_derivatives import curvature, derivatives
from hierlmm.likelihood.area.spatial_errors import errors, moments_of_psi, predict
from hierlmm.likelihood.area.spatial_interval import rho_interval, variance_interval
from hierlmm.likelihood.area.spatial_many import estimate_many
from hierlmm.likelihood.area.spatial_search import maximise

A, RHO = 1.7, 0.4


@pytest.fixture(scope="module")
def dense():
    return simulated(1)


@pytest.fixture(scope="module")
def at(dense):
    return node(dense.problem(), RHO)


def test_predictions_are_those_of_dense_algebra(dense, at):
    """θ̂ = Xβ̂ + G_·s V⁻¹(y − Xβ̂) for areas with and without data, and what residuals, weights and β are made of."""
    Vi, cov, beta, c, _ = dense.at(A, RHO)
    X, s = dense.X[dense.inside], dense.inside
    r = dense.y - X @ beta

    got = predict(at, A)

    assert_allclose(got.beta, beta, rtol=1e-9)
    assert_allclose(got.cov_beta, cov, rtol=1e-8)
    assert_allclose(got.synthetic, dense.X @ beta, rtol=1e-11)
    assert_allclose(got.effect, c @ r, atol=1e-10)
    assert_allclose(got.rest, r - (c @ r)[s], atol=1e-10)
    assert_allclose(got.weight, np.diagonal(c[s]), atol=1e-12)
    assert_allclose(got.residual, r, atol=1e-10)
    assert_allclose(got.residual_variance, np.diagonal(np.linalg.inv(Vi) - X @ cov @ X.T), rtol=1e-9)


def mixed(f, at, p, q):
    """Second difference of f along the steps p and q over the product of their lengths."""
    total = f(*(at + p + q)) - f(*(at + p - q)) - f(*(at - p + q)) + f(*(at - p - q))
    return total / (4 * np.linalg.norm(p) * np.linalg.norm(q))


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["grapes", "eusilcA"])
def test_eblups_equal_the_polished_answers(name, method):
    """At the exact (Â, ρ̂) of tests/data/spatial_exact.json, with D over eight orders of magnitude in grapes."""
    want = REFERENCE["exact"][name][method]
    y = published(name)[0]

    got = predict(node(published_problem(name), want["rho"]), want["A"])

    assert_allclose(got.beta, want["beta"], rtol=1e-9)
    assert_allclose(y - got.rest, want["eblup"], rtol=1e-9)


def test_the_parts_of_the_error_are_those_of_dense_algebra(dense, at):
    """G1 = G − cG_s·, G2 by x − cX, G3 by numerical derivatives of c, G4 and G5 by those of G1."""
    h = 1e-4
    s = dense.inside
    Vi, cov, _, c, _ = dense.at(A, RHO)
    V = np.linalg.inv(Vi)

    got = errors(at, curvature(at), A, "ml", "sum", predict(at, A))

    def G1(A, rho):
        return dense.G(A, rho) - dense.at(A, rho)[3] @ dense.G(A, rho)[s]

    points = [np.array(p) for p in ((h, 0.0), (0.0, h))]
    psi = np.array([A, RHO])
    dc = [(dense.at(*(psi + p))[3] - dense.at(*(psi - p))[3]) / (2 * h) for p in points]
    dG1 = [(G1(*(psi + p)) - G1(*(psi - p))) / (2 * h) for p in points]
    G3 = sum(got.vcov[j, k] * dc[j] @ V @ dc[k].T for j in (0, 1) for k in (0, 1))
    half = sum(got.vcov[j, k] * mixed(G1, psi, points[j], points[k]) for j in (0, 1) for k in (0, 1)) / 2
    H = dense.X - c @ dense.X[s]
    assert_allclose(got.G1, G1(A, RHO), atol=1e-10)
    assert_allclose(got.G2, H @ cov @ H.T, atol=1e-10)
    assert_allclose(got.G3, G3, atol=1e-6)
    assert_allclose(got.G4 - got.G3, half, atol=1e-5)
    assert_allclose(got.G5, got.bias[0] * dG1[0] + got.bias[1] * dG1[1], atol=1e-6)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_published_formulas_are_the_parts_that_they_name(method):
    """sae 1.3 prints G1 + G2 + 2 G3 − G4, and for ML less the part of the bias that comes from estimating β.

    Both with ½ tr(P V_k P V_l) as the information; the part of the bias by the curvature of V is in neither.
    """
    want = REFERENCE["exact"]["grapes"][method]
    at = node(published_problem("grapes"), want["rho"])
    change = curvature(at)

    got = errors(at, change, want["A"], method, "trace", predict(at, want["A"]))

    mse = got.G1 + got.G2 + 2 * got.G3 - got.G4
    if method == "ml":  # what is left of the bias when that by the curvature of V is taken off
        curved, _ = moments_of_psi(at, change, want["A"], "reml", "trace")
        share = got.bias - curved
        m = len(at.d)
        b = np.diag(at.d / (want["A"] + at.d))
        first = share[0] * np.eye(m) + share[1] * want["A"] * change.slope
        mse = mse - change.L @ b @ first @ b @ change.L.T
    assert_allclose(np.diagonal(mse), REFERENCE["sae"][f"mse_{method}"], rtol=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_second_order_error_does_not_depend_on_how_the_parameters_are_written(dense, method):
    """The formulas by dense algebra and differences in (log A, tanh⁻¹ρ): the same G4 + G5, though another G4.

    The published estimate for REML, with G4 and without the bias, does depend on it.
    """
    at = node(dense.problem(), RHO)
    blup = predict(at, A)

    got = errors(at, curvature(at), A, method, "trace", blup)

    G4, G5 = dense_corrections(dense, method)
    assert_allclose(got.G4 + got.G5, G4 + G5, atol=2e-5)
    assert np.abs(got.G4 - G4).max() > 0.05


def dense_corrections(dense, method):
    """G4 and G5 with φ = (log A, tanh⁻¹ρ) for ψ, derivatives by differences."""
    h, phi, s = 1e-3, np.array([np.log(A), np.arctanh(RHO)]), dense.inside
    steps = [np.array(p) for p in ((h, 0.0), (0.0, h))]

    def G(a, t):
        return dense.G(np.exp(a), np.tanh(t))

    first = [(G(*(phi + p)) - G(*(phi - p))) / (2 * h) for p in steps]
    second = [[mixed(G, phi, p, q) for q in steps] for p in steps]
    Vi, cov, _, c, P = dense.at(A, RHO)
    V = [own[np.ix_(s, s)] for own in first]
    vcov = np.linalg.inv([[np.trace(P @ V[j] @ P @ V[k]) / 2 for k in (0, 1)] for j in (0, 1)])
    total = sum(vcov[j, k] * second[j][k] for j in (0, 1) for k in (0, 1))
    pull = np.array([np.trace(P @ own @ P @ total[np.ix_(s, s)]) / 4 for own in V])
    if method == "ml":
        half = Vi @ dense.X[s]
        pull += [np.trace(cov @ half.T @ own @ half) / 2 for own in V]
    bias = -vcov @ pull
    R = np.eye(len(c)) - c @ np.eye(len(c))[s]
    return R @ total @ R.T / 2, R @ (bias[0] * first[0] + bias[1] * first[1]) @ R.T


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_interval_ends_lie_on_the_edge_of_the_likelihood_set(method):
    """2 max ℓ − 2 ℓ = χ²₁(0.95) at each end, ℓ maximised over the other parameter by a scan and golden section."""
    from scipy.optimize import minimize_scalar

    model = published_problem("eusilcA")
    best = maximise(model, method)
    top = best.loglik_reml if method == "reml" else best.loglik_ml

    of_rho, of_A = rho_interval(best, 0.95, model, method), variance_interval(best, 0.95, model, method)

    def loglik(A, rho):
        at = node(model, rho)
        return derivatives(at, curvature(at), A, method).loglik

    drops = [
        minimize_scalar(lambda u, rho=rho: -loglik(best.A * np.exp(u), rho), bounds=(-2, 2), method="bounded").fun
        for rho in of_rho
    ]
    drops += [
        minimize_scalar(lambda rho, A=A: -loglik(A, rho), bounds=(-1.2, 0.9), method="bounded").fun for A in of_A
    ]
    assert_allclose(2 * (top + np.array(drops)), 3.841458820694124, atol=1e-7)


def test_where_the_variance_is_zero_every_rho_is_admissible():
    """The interval of ρ is all that is admissible; that of A begins at 0."""
    dense = simulated(2, A=0.0)
    model = dense.problem()
    model = replace(model, model=replace(model.model, y=0.2 * model.model.y))
    best = maximise(model, "reml")

    assert best.A == 0.0
    assert rho_interval(best, 0.95, model, "reml") == model.ends
    lower, upper = variance_interval(best, 0.95, model, "reml")
    assert lower == 0.0
    assert upper > 0


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_many_fits_at_once_are_the_single_fits(method):
    """Six-point polynomials along the profile: A, ρ and predictions to 1e-6 of a standard error, zeros exact."""
    dense = simulated(4, M=30, outside=(1, 8, 20), A=3.0, rho=0.4)
    model = dense.problem()
    rng = np.random.default_rng(5)
    at = node(model, 0.4)
    Y = at.back(np.sqrt(rng.uniform(0, 4, 12)) * rng.standard_normal((27, 12))).T
    Y = Y + (np.linalg.cholesky(dense.S) @ rng.standard_normal((27, 12))).T

    got = estimate_many(model, Y, method)

    assert got.converged.all()
    for b, y in enumerate(Y):
        alone = replace(model, model=replace(model.model, y=y))
        want = maximise(alone, method)
        blup = predict(node(alone, 0.0 if np.isnan(want.rho) else want.rho), want.A)
        here = blup.synthetic - alone.model.ols(dense.X) + blup.effect
        assert (got.A[b] == 0) == (want.A == 0)
        assert_allclose(got.A[b], want.A, rtol=1e-5)
        assert_allclose(got.rho[b], want.rho, atol=1e-5)
        assert_allclose((got.theta[b] - here) / np.sqrt(got.leading[b]), 0, atol=1e-5)
