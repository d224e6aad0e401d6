"""The criterion, its derivatives and the joint law of (b, beta) against dense n x n algebra."""

from __future__ import annotations

import numpy as np
import pytest
from lmm_cases import Dense, cases, design, factor, prepared, random_covariances
from numpy.testing import assert_allclose

from hierlmm.design.crossproducts import cross_products, with_response
from hierlmm.likelihood.blup import covariances, draw, means, sum_variance
from hierlmm.likelihood.information import _average, information, whole_projection
from hierlmm.likelihood.kackar import estimation_error
from hierlmm.likelihood.lmm import ml_criterion, reml_criterion
from hierlmm.likelihood.lmm_derivatives import derivatives
from hierlmm.likelihood.marginal import NormalPrior, marginal, relative_factor, restricted_loglik
from hierlmm.likelihood.optimum import optimise
from hierlmm.likelihood.parameters import Parameters

CASES = list(cases())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_profiled_criterion_equals_the_dense_one_at_its_profiled_variance(name, method):
    """Identity: profiling sigma² out of the dense criterion gives ours (Bates et al. 2015, eqs 34 and 41)."""
    d, cp = prepared(name)
    theta = np.random.default_rng(1).normal(0.6, 0.4, len(Parameters.of(cp)))

    at = derivatives(cp, Parameters.of(cp), theta, method)

    G = [at.sigma2 * (B @ L) @ (B @ L).T for B, L in zip(cp.Z_map, at.factors, strict=True)]
    dense = Dense.of(d, cp, G, at.sigma2)
    assert_allclose(at.value, getattr(dense, method)(), rtol=1e-11)
    criterion = {"ml": ml_criterion, "reml": reml_criterion}[method]
    assert_allclose(at.value, criterion(cp, at.factors), rtol=1e-13)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_gradient_equals_central_differences(name, method):
    """Differences of step h err by h² and by rounding / h; 1e-6 relative is what they can show."""
    _, cp = prepared(name)
    parameters = Parameters.of(cp)
    theta = np.random.default_rng(2).normal(0.6, 0.4, len(parameters))
    criterion = {"ml": ml_criterion, "reml": reml_criterion}[method]
    h = 1e-5

    gradient = derivatives(cp, parameters, theta, method).gradient

    steps = np.eye(len(theta)) * h
    numeric = [
        (criterion(cp, parameters.factors(theta + e)) - criterion(cp, parameters.factors(theta - e))) / (2 * h)
        for e in steps
    ]
    assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("prior", ["flat", "normal", "mixed"])
def test_integral_over_beta_and_the_joint_law_equal_the_dense_ones(name, prior):
    """Closed forms of the normal-normal model, by dense matrices (Henderson 1975)."""
    d, cp = prepared(name)
    rng = np.random.default_rng(3)
    G, sigma2 = random_covariances(d, cp, rng), 0.8
    p = d.X.shape[1]
    sd = {"flat": np.full(p, np.inf), "normal": np.full(p, 20.0), "mixed": np.where(np.arange(p) == 0, np.inf, 2.0)}
    mean = np.arange(p) + 1.0
    dense = Dense.of(d, cp, G, sigma2)
    Q = np.diag(1 / sd[prior] ** 2)

    found = marginal(cp, [g[None] for g in G], np.array([sigma2]), NormalPrior(mean, sd[prior]))
    where, spread = means(cp, found.at), covariances(cp, found.at)

    Vi = np.linalg.inv(dense.V)
    vcov = np.linalg.inv(d.X.T @ Vi @ d.X + Q)
    beta = vcov @ (d.X.T @ Vi @ d.y + Q @ mean)
    r = d.y - d.X @ beta
    proper = np.isfinite(sd[prior])
    minus_2l = (
        (len(d.y) - p + proper.sum()) * np.log(2 * np.pi) + np.linalg.slogdet(dense.V)[1]
        - np.linalg.slogdet(vcov)[1] + r @ Vi @ r + (beta - mean) @ Q @ (beta - mean)
        + 2 * np.log(sd[prior][proper]).sum()
    )  # fmt: skip
    assert_allclose(found.loglik[0], -0.5 * minus_2l, rtol=1e-11)
    loglik = restricted_loglik(cp, [g[None] for g in G], np.array([sigma2]), NormalPrior(mean, sd[prior]))
    assert_allclose(loglik, found.loglik)
    assert_allclose(where.beta[0], beta, rtol=1e-8)
    assert_allclose(spread.beta[0], vcov, rtol=1e-8, atol=1e-10 * np.abs(vcov).max())
    ZG = dense.Z @ dense.G
    b = ZG.T @ Vi @ r
    error = dense.G - ZG.T @ Vi @ ZG + ZG.T @ Vi @ d.X @ vcov @ d.X.T @ Vi @ ZG
    cross = -vcov @ d.X.T @ Vi @ ZG
    start = 0
    for f, (levels, q) in enumerate(cp.sizes):
        here = slice(start, start + levels * q)
        start += levels * q
        assert_allclose(where.b[f][0].ravel(), b[here], rtol=1e-7, atol=1e-9 * np.abs(b).max())
        block = error[here, here].reshape(levels, q, levels, q)
        own = np.array([block[level, :, level] for level in range(levels)])
        assert_allclose(spread.error[f][0], own, rtol=1e-7, atol=1e-9 * np.abs(own).max())
        with_beta = cross[:, here].reshape(p, levels, q).swapaxes(0, 1)
        assert_allclose(spread.with_beta[f][0], with_beta, rtol=1e-7, atol=1e-9 * np.abs(with_beta).max())


@pytest.mark.parametrize("name", CASES)
def test_variance_of_a_linear_predictor_uses_the_whole_joint_covariance(name):
    """x'beta + z'b over all factors at once, against the dense joint covariance; a new level adds nothing here."""
    d, cp = prepared(name)
    G, sigma2 = random_covariances(d, cp, np.random.default_rng(4)), 1.3
    dense = Dense.of(d, cp, G, sigma2)
    rows = np.array([0, 7, 31])
    codes = [d.factors[f].codes[rows].copy() for f in cp.order]
    codes[0][1] = -1

    found = marginal(cp, G, sigma2)
    variance = sum_variance(cp, found.at, d.X[rows], [d.factors[f].Z[rows] for f in cp.order], codes)

    ZG, Vi, vcov = dense.Z @ dense.G, np.linalg.inv(dense.V), dense.vcov
    cross = -vcov @ d.X.T @ Vi @ ZG
    error = dense.G - ZG.T @ Vi @ ZG + ZG.T @ Vi @ d.X @ vcov @ d.X.T @ Vi @ ZG
    whole = np.block([[vcov, cross], [cross.T, error]])
    L = np.hstack([d.X[rows], dense.Z[rows]])
    first = cp.sizes[0][0] * cp.sizes[0][1]
    L[1, d.X.shape[1] : d.X.shape[1] + first] = 0.0
    assert_allclose(variance, np.einsum("ij,jk,ik->i", L, whole, L), rtol=1e-8)


def test_draws_have_the_mean_and_covariance_of_the_joint_law():
    """20,000 draws: means within 5 Monte Carlo standard errors, sds within 5 / sqrt(2 N)."""
    d, cp = prepared("crossed slopes")
    N = 20_000
    G = [np.broadcast_to(g, (N, *g.shape)) for g in random_covariances(d, cp, np.random.default_rng(5))]

    found = marginal(cp, G, np.full(N, 0.9))
    drawn = draw(cp, found.at, np.random.default_rng(6))

    one = marginal(cp, [g[0] for g in G], 0.9)
    where, spread = means(cp, one.at), covariances(cp, one.at)
    for f in range(2):
        sd = np.sqrt(np.diagonal(spread.error[f], axis1=1, axis2=2))
        assert np.abs((drawn.b[f].mean(0) - where.b[f]) / sd).max() < 5 / np.sqrt(N)
        assert np.abs(drawn.b[f].std(0) / sd - 1).max() < 5 / np.sqrt(2 * N)
    sd = np.sqrt(np.diag(spread.beta))
    assert np.abs((drawn.beta.mean(0) - where.beta) / sd).max() < 5 / np.sqrt(N)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_information_and_estimation_error_equal_their_dense_definitions(name, method):
    """½ tr(P V_r P V_s), ½ y'P V_r P V_s P y, and Kackar & Harville's term from A_r Z'V⁻¹ (all dense)."""
    d, cp = prepared(name)
    parameters = Parameters.of(cp)
    at = derivatives(cp, parameters, np.random.default_rng(7).normal(0.7, 0.2, len(parameters)), method)
    G = [at.sigma2 * (B @ L) @ (B @ L).T for B, L in zip(cp.Z_map, at.factors, strict=True)]
    dense = Dense.of(d, cp, G, at.sigma2)

    found = information(cp, at, method)
    average = _average(cp, at, method, found.parameters)
    unit = np.sqrt(np.diag(found.matrix))
    inverse = np.linalg.inv(found.matrix / np.outer(unit, unit)) / np.outer(unit, unit)
    added = estimation_error(cp, at, inverse, found.parameters)

    Vi = np.linalg.inv(dense.V)
    P = Vi - Vi @ d.X @ dense.vcov @ d.X.T @ Vi
    A = P if method == "reml" else Vi
    starts = np.concatenate([[0], np.cumsum([levels * q for levels, q in cp.sizes])])
    E = []
    for r in found.parameters[:-1]:
        levels, q = cp.sizes[r.factor]
        block = np.zeros((q, q))
        block[r.row, r.column] = block[r.column, r.row] = 1.0
        whole = np.zeros_like(dense.G)
        here = slice(starts[r.factor], starts[r.factor + 1])
        whole[here, here] = np.kron(np.eye(levels), block)
        E.append(whole)
    V_r = [dense.Z @ e @ dense.Z.T for e in E] + [np.eye(len(d.y))]
    expected = np.array([[0.5 * np.trace(A @ r @ A @ s) for s in V_r] for r in V_r])
    y = d.y - d.X @ np.linalg.lstsq(d.X, d.y, rcond=None)[0]
    quadratic = np.array([[0.5 * y @ P @ r @ P @ s @ P @ y for s in V_r] for r in V_r])
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert_allclose(found.matrix / scale, expected / scale, atol=1e-8)
    assert_allclose(average / scale, quadratic / scale, atol=1e-8)
    N = dense.Z.T @ Vi @ dense.Z
    rest = np.eye(len(N)) - dense.G @ N
    A_r = [rest @ e for e in E] + [-rest @ dense.G / at.sigma2]
    total = sum(inverse[i, j] * a @ N @ b.T for i, a in enumerate(A_r) for j, b in enumerate(A_r))
    assert added is not None
    for f, (levels, q) in enumerate(cp.sizes):
        block = total[starts[f] : starts[f + 1], starts[f] : starts[f + 1]].reshape(levels, q, levels, q)
        own = np.array([block[level, :, level] for level in range(levels)])
        assert_allclose(added[f], own, rtol=1e-6, atol=1e-8 * np.abs(own).max())
    assert whole_projection(cp, at, method).shape == N.shape


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["ml", "reml"])
def test_optimum_is_certified_and_no_start_does_better(name, method):
    """KKT conditions by the certificate, and 20 random points and a derivative-free search from each as witness."""
    from scipy.optimize import minimize

    _, cp = prepared(name)
    criterion = {"ml": ml_criterion, "reml": reml_criterion}[method]

    best = optimise(cp, method)

    assert best.certificate.certified
    assert best.certificate.decrement < 1e-10
    assert best.certificate.multipliers >= 0
    rng = np.random.default_rng(8)
    for _ in range(3):
        start = rng.normal(0.8, 0.5, len(best.theta))
        other = minimize(lambda t: float(criterion(cp, best.parameters.factors(t))), start, method="Nelder-Mead",
                         options={"maxiter": 400})  # fmt: skip
        assert best.at.value <= other.fun + 1e-9 * abs(other.fun)


@pytest.mark.parametrize("name", CASES)
def test_new_response_changes_only_the_products_with_y(name):
    """with_response equals forming the cross-products anew."""
    from dataclasses import replace

    d, cp = prepared(name)
    y = 3 * d.y + np.random.default_rng(9).normal(size=len(d.y))

    updated = with_response(cp, d, y)

    fresh = cross_products(replace(d, y=y))
    assert_allclose(updated.rest, fresh.rest, rtol=1e-12, atol=1e-10 * np.abs(fresh.rest).max())
    assert_allclose(updated.lead_rest, fresh.lead_rest, rtol=1e-12, atol=1e-10 * np.abs(fresh.lead_rest).max())
    assert_allclose(updated.X_shift, fresh.X_shift, rtol=1e-14)


def test_relative_factor_of_a_singular_covariance_reproduces_it():
    """L L' = B⁻¹ G B⁻ᵀ / sigma² also where G has rank one."""
    _, cp = prepared("slope")
    half = np.array([[2.0], [-0.01]])

    L = relative_factor(half @ half.T, cp.Z_map[0], np.array(4.0))

    back = 4.0 * (cp.Z_map[0] @ L) @ (cp.Z_map[0] @ L).T
    assert_allclose(back, half @ half.T, rtol=1e-8)


def test_directions_between_independent_blocks_are_not_held_against_a_zero():
    """Two independent random coefficients without effect: each variance is zero, and the optimum is certified.

    The derivative in their covariance may have any sign there; the model has no such parameter.
    """
    rng = np.random.default_rng(10)
    found = []
    for _ in range(40):
        y, x = rng.normal(size=40), rng.normal(size=40)
        codes = np.repeat(np.arange(8), 5)
        d = design(y, np.column_stack([np.ones(40), x]),
                   (factor("a", codes, {"Intercept": np.ones(40), "x": x}, ((0,), (1,))),))  # fmt: skip
        found.append(optimise(cross_products(d), "reml"))

    assert all(optimum.certificate.certified for optimum in found)
    zeros = [optimum for optimum in found if optimum.certificate.ranks == (0,)]
    assert any(abs(optimum.at.G_T[0][0, 1]) > np.diag(optimum.at.G_T[0]).min() for optimum in zeros)
