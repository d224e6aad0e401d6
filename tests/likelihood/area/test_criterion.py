"""The area-level likelihood against dense formulas, direct integration and limits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hierlmm.likelihood.area import criterion as area
from hierlmm.likelihood.area.moments import blup, moments


def problem(seed, m=14, p=3):
    """y, X, D of a small problem with sampling variances over two orders of magnitude."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(size=(m, p - 1))])
    D = 10.0 ** rng.uniform(-1, 1, m)
    y = X @ rng.normal(size=p) + rng.normal(size=m) * np.sqrt(D + 0.7)
    return y, X, D


def log_normal(y, cov):
    """log N(y; 0, cov) by the textbook formula."""
    quadratic = y @ np.linalg.solve(cov, y)
    return -(len(y) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + quadratic) / 2


def projector(A, X, D):
    """P = V⁻¹ − V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹, m x m."""
    W = np.diag(1 / (A + D))
    return W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)


GRID = np.array([0.0, 0.003, 0.4, 2.0, 75.0])


def test_ml_is_the_normal_density_at_the_gls_coefficients():
    """Definition: −2ℓ_ML = m log 2π + log|V| + r'V⁻¹r, evaluated densely."""
    y, X, D = problem(1)

    got = area.profile_loglik(GRID, y, X, D)

    for value, A in zip(got, GRID, strict=True):
        V = np.diag(A + D)
        beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
        assert_allclose(value, log_normal(y - X @ beta, V), rtol=1e-12)


def test_reml_is_the_density_of_error_contrasts_less_half_log_det_of_the_cross_products():
    """Harville (1974): contrasts K'y with K'K = I, K'X = 0 have density exp(ℓ_REML) |X'X|^(1/2)."""
    y, X, D = problem(2)
    K = np.linalg.qr(X, mode="complete")[0][:, X.shape[1] :]

    got = area.restricted_loglik(GRID, y, X, D)

    half = np.linalg.slogdet(X.T @ X)[1] / 2
    want = [log_normal(K.T @ y, K.T @ np.diag(A + D) @ K) - half for A in GRID]
    assert_allclose(got, want, rtol=1e-12)


def test_reml_with_an_intercept_alone_is_the_integral_of_the_likelihood_over_it():
    """∫ N(y; μ, V) dμ by the trapezoidal rule, which is exact to rounding for a Gaussian."""
    y, _, D = problem(3, m=6)
    mu = np.linspace(-60, 60, 20001)
    density = np.exp([log_normal(y - c, np.diag(0.5 + D)) for c in mu])

    got = np.exp(area.restricted_loglik(0.5, y, np.ones((6, 1)), D))

    assert_allclose(got, density.sum() * (mu[1] - mu[0]), rtol=1e-11)


def test_scores_and_informations_equal_the_trace_formulas():
    """Score ½[y'P²y − tr V⁻¹] and ½[y'P²y − tr P]; information ½ tr V⁻² and ½ tr P² (Rao and Molina 2015, ch. 6)."""
    y, X, D = problem(4)

    for A in GRID:
        P = projector(A, X, D)
        w = 1 / (A + D)
        yP2y = y @ P @ P @ y
        assert_allclose(area.ml_score(A, y, X, D), (yP2y - w.sum()) / 2, rtol=1e-10)
        assert_allclose(area.reml_score(A, y, X, D), (yP2y - np.trace(P)) / 2, rtol=1e-10)
        assert_allclose(area.ml_information(A, y, X, D), (w**2).sum() / 2, rtol=1e-12)
        assert_allclose(area.reml_information(A, y, X, D), np.trace(P @ P) / 2, rtol=1e-11)


@pytest.mark.parametrize(
    ("loglik", "score"), [(area.profile_loglik, area.ml_score), (area.restricted_loglik, area.reml_score)]
)
def test_scores_are_the_derivatives_of_their_log_likelihoods(loglik, score):
    """Central differences with Richardson's extrapolation, error of order h⁴."""
    y, X, D = problem(5)
    A = np.array([0.2, 1.0, 9.0])

    def slope(h):
        return (loglik(A + h, y, X, D) - loglik(A - h, y, X, D)) / (2 * h)

    assert_allclose(score(A, y, X, D), (4 * slope(1e-3) - slope(2e-3)) / 3, rtol=1e-8, atol=1e-9)


def test_slopes_used_by_newton_are_the_derivatives_of_the_scores():
    """Central differences of the score, extrapolated."""
    from hierlmm.likelihood.area.working import working

    work = working(*problem(6))
    A = np.array([0.2, 1.0, 9.0])
    at = area.terms(A, work)

    for name in ("ml", "reml"):

        def slope(h, name=name):
            up, down = (getattr(area.terms(A + s * h, work), f"score_{name}") for s in (1, -1))
            return (up - down) / (2 * h)

        assert_allclose(getattr(at, f"slope_{name}"), (4 * slope(1e-3) - slope(2e-3)) / 3, rtol=1e-7)


def test_the_three_ways_to_the_same_terms_agree():
    """Many values of A by batches, one by itself, and scores from cross-products: m = 5,000, so in two pieces."""
    from dataclasses import fields

    from hierlmm.likelihood.area.scan import Scores, quick_scores
    from hierlmm.likelihood.area.working import working

    for m in (14, 5000):
        work = working(*problem(17, m=m))
        A = np.array([0.0, 0.2, 1.0, 9.0])
        many = area.terms(A, work)
        quick = quick_scores(A, work)
        for name in (field.name for field in fields(Scores)):
            assert_allclose(getattr(quick, name), getattr(many, name), rtol=1e-9, atol=1e-9 * many.size[0])
        for k in range(4):
            one, fit = area.terms_and_factor(A[[k]], work)
            for field in fields(area.Terms):
                assert_allclose(getattr(one, field.name), getattr(many, field.name)[[k]], rtol=1e-11, atol=1e-12 * m)
            M = (work.basis.Q.T / (A[k] + work.basis.D)) @ work.basis.Q
            assert_allclose(fit.root[0].T @ fit.root[0] @ M, np.eye(3), atol=1e-12)


def test_values_have_the_shape_of_A_and_do_not_depend_on_what_else_is_asked_for():
    """Evaluating 700 values of A at 400 areas goes through several pieces; one at a time it does not."""
    y, X, D = problem(7, m=400)
    A = np.linspace(0, 5, 700).reshape(7, 100)

    got = area.restricted_loglik(A, y, X, D)
    at = moments(A, y, X, D)

    assert got.shape == (7, 100)
    assert at.theta.shape == (7, 100, 400)
    assert at.cov_beta.shape == (7, 100, 3, 3)
    assert_allclose(got[3, 17], area.restricted_loglik(A[3, 17], y, X, D), rtol=1e-13)
    assert_allclose(at.loglik, got, rtol=1e-12)
    assert_allclose(at.theta[6, 99], moments(A[6, 99], y, X, D).theta, rtol=1e-12)


def conditional(y, mean, prior_cov, A, D, X):
    """E and Cov of θ = Xβ + v given y, and log p(y), by conditioning one joint normal (dense)."""
    cov_theta = A * np.eye(len(y)) + X @ prior_cov @ X.T
    V = cov_theta + np.diag(D)
    gain = np.linalg.solve(V, cov_theta).T
    expected = X @ mean + gain @ (y - X @ mean)
    return expected, cov_theta - gain @ cov_theta, log_normal(y - X @ mean, V)


@pytest.mark.parametrize("A", [0.0, 0.3, 20.0])
def test_moments_under_a_normal_prior_condition_one_joint_normal(A):
    """(θ, y) are jointly normal given A: the conditional law by dense linear algebra."""
    y, X, D = problem(8)
    mean = np.array([0.5, -1.0, 2.0])
    root = np.array([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.2, 0.1, 1.5]])
    expected, cov, loglik = conditional(y, mean, root @ root.T, A, D, X)

    at = moments(A, y, X, D, mean, root @ root.T)

    assert_allclose(at.theta, expected, rtol=1e-11)
    assert_allclose(at.g1 + at.g2, np.diag(cov), rtol=1e-10)
    assert_allclose(at.loglik, loglik, rtol=1e-12)


def test_a_coefficient_of_infinite_prior_variance_is_flat():
    """Limit: variance c on a coefficient gives log p(y) + ½ log(2π c) -> the flat one, error of order 1/c."""
    y, X, D = problem(9)
    mean, c = np.array([0.5, -1.0, 2.0]), 1e7
    wide = moments(0.6, y, X, D, mean, np.diag([1.0, c, 2.0]))

    flat = moments(0.6, y, X, D, mean, np.diag([1.0, np.inf, 2.0]))

    assert_allclose(flat.loglik, wide.loglik + np.log(2 * np.pi * c) / 2, rtol=1e-6)
    assert_allclose(flat.beta, wide.beta, rtol=1e-5)
    assert_allclose(flat.theta, wide.theta, rtol=1e-5)


def test_a_prior_with_all_variances_infinite_is_the_flat_prior():
    """The same model said twice."""
    y, X, D = problem(10)

    said = moments(GRID, y, X, D, np.zeros(3), np.diag([np.inf] * 3))
    flat = moments(GRID, y, X, D)

    assert_allclose(said.loglik, flat.loglik, rtol=1e-13)
    assert_allclose(said.cov_beta, flat.cov_beta, rtol=1e-12)


def test_a_sharp_prior_pins_the_coefficients():
    """As the prior variance goes to 0 the synthetic part is X mean, and θ follows the known-β formula."""
    y, X, D = problem(11)
    mean, A = np.array([0.5, -1.0, 2.0]), 0.8

    at = moments(A, y, X, D, mean, 1e-24 * np.eye(3))

    gamma = A / (A + D)
    assert_allclose(at.beta, mean, rtol=1e-10)
    assert_allclose(at.theta, gamma * y + (1 - gamma) * (X @ mean), rtol=1e-10)
    assert_allclose(at.g2, 0, atol=1e-20)


def test_at_zero_theta_is_synthetic_and_far_out_it_is_direct():
    """Limits of γ: 0 gives x'β̂, infinity gives y."""
    y, X, D = problem(12)

    at = moments(np.array([0.0, 1e300]), y, X, D)

    assert_allclose(at.theta[0], X @ at.beta[0], rtol=1e-12)
    assert_allclose(at.theta[1], y, rtol=0, atol=0)
    assert_allclose(at.g1[1], D, rtol=1e-14)
    assert (at.g1[0] == 0).all()


def test_covariates_may_be_far_from_zero_and_on_any_scale():
    """x -> 1e8 + 1e-3 x' changes coefficients, not fitted values; x' are multiples of 2^-10: no digit is lost."""
    rng = np.random.default_rng(13)
    y, _, D = problem(13)
    x = rng.integers(-4000, 4000, len(y)) / 1024
    near = np.column_stack([np.ones(len(y)), x])
    far = np.column_stack([np.ones(len(y)), 2.0**27 + x])

    at_near, at_far = moments(GRID, y, near, D), moments(GRID, y, far, D)
    blup_far = blup(0.4, y, far, D, far)

    assert_allclose(at_far.theta, at_near.theta, rtol=1e-12)
    assert_allclose(at_far.beta[:, 1], at_near.beta[:, 1], rtol=1e-12)
    assert_allclose(at_far.g2, at_near.g2, rtol=1e-12)
    assert_allclose(at_far.loglik, at_near.loglik, rtol=1e-12)
    assert_allclose(np.square(blup_far.half).sum(axis=1), np.square(blup(0.4, y, near, D, near).half).sum(axis=1))


def test_the_restricted_likelihood_changes_by_the_determinant_under_a_new_basis():
    """X -> XB adds −log|B| to ℓ_REML and changes neither ℓ_ML nor θ."""
    y, X, D = problem(14)
    B = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.0, 1.0, 0.5]])

    assert_allclose(
        area.restricted_loglik(GRID, y, X @ B, D), area.restricted_loglik(GRID, y, X, D) - np.log(3.0), rtol=1e-12
    )
    assert_allclose(area.profile_loglik(GRID, y, X @ B, D), area.profile_loglik(GRID, y, X, D), rtol=1e-12)
    assert_allclose(moments(GRID, y, X @ B, D).theta, moments(GRID, y, X, D).theta, rtol=1e-11)


def test_a_model_without_coefficients_is_a_plain_normal():
    """p = 0: ML and REML are one density."""
    y, _, D = problem(15)
    X = np.zeros((len(y), 0))

    assert_allclose(area.restricted_loglik(0.7, y, X, D), log_normal(y, np.diag(0.7 + D)), rtol=1e-13)
    assert_allclose(area.profile_loglik(0.7, y, X, D), log_normal(y, np.diag(0.7 + D)), rtol=1e-13)
    assert_allclose(moments(0.7, y, X, D).theta, y * 0.7 / (0.7 + D), rtol=1e-13)


def test_weights_over_many_orders_of_magnitude_keep_the_fit():
    """Two areas of nearly no sampling error fix the line; at A = 0 β is the line through them (exact in the limit)."""
    rng = np.random.default_rng(16)
    x = np.arange(8.0)
    y, D = rng.normal(size=8), np.ones(8)
    D[[2, 5]] = 1e-16
    X = np.column_stack([np.ones(8), x])

    beta, _ = area.gls(0.0, y, X, D)

    slope = (y[5] - y[2]) / 3
    assert_allclose(beta, [y[2] - 2 * slope, slope], rtol=1e-11)
