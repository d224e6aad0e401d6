"""Densities, proposals, weights and lattices that the exact engine is made of, each against an independent witness."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from bayes_cases import slopes_design
from scipy import integrate, stats

from hierlmm.bayes import lattice, mixture, plane
from hierlmm.bayes import priors as hp
from hierlmm.bayes.density import correlation_root, log_partial, target
from hierlmm.bayes.mode import find_mode
from hierlmm.bayes.proposal import DF, fitted, joined, single
from hierlmm.bayes.psis import smoothed
from hierlmm.bayes.ranks import present_levels
from hierlmm.bayes.sobol import DIMENSIONS, direction_vectors, spread

RNG = np.random.default_rng(20261121)
COVARIANCE = np.array([[1.0, 0.6, 0.1], [0.6, 2.0, -0.3], [0.1, -0.3, 0.5]])


def test_correlation_matrices_have_the_lkj_density_in_their_partial_correlations():
    """Change of variables by finite differences: log p(z) = log LKJ(R) + log|∂R/∂z|, 3 x 3."""
    def lower(z):
        L = correlation_root(np.tanh(z)[None], 3)[0]
        return (L @ L.T)[np.tril_indices(3, -1)]

    for eta, z in itertools.product((0.6, 1.0, 3.0), RNG.normal(size=(4, 3))):
        L = correlation_root(np.tanh(z)[None], 3)[0]
        h = 1e-6
        J = np.column_stack([(lower(z + e) - lower(z - e)) / (2 * h) for e in h * np.eye(3)])
        expected = float(hp.LKJ(eta).log_density(L @ L.T)) + math.log(abs(np.linalg.det(J)))
        assert float(log_partial(hp.LKJ(eta), z[None], 3)[0]) == pytest.approx(expected, abs=1e-6)


def test_the_prior_in_unbounded_coordinates_integrates_to_one():
    """Normalised priors keep their mass under the change of coordinates, bounded support included."""
    x, g = np.tile(np.arange(4.0), 5), np.repeat(np.arange(5), 4)
    design = slopes_design(RNG.normal(size=20) + x, x, g)
    sd = {"g:Intercept": hp.Uniform(3), "g:x": hp.HalfT(3, 2)}
    priors = hp.Priors(sd=sd, correlation=hp.LKJ(2), residual=hp.HalfNormal(1))
    of = target(design, priors.resolve(design))

    at_zero = float(of.log_prior(np.zeros((1, 4)))[0])

    def along(v, axis):
        return math.exp(float(of.log_prior(v * np.eye(4)[axis : axis + 1])[0]) - at_zero)

    # the prior factorises over the coordinates
    parts = [integrate.quad(along, -40, 40, args=(axis,), points=[-5, 0, 5], limit=400)[0] for axis in range(4)]
    assert math.log(np.prod(parts)) + at_zero == pytest.approx(0.0, abs=1e-7)
    assert of.names == ("sd(g:Intercept)", "sd(g:x)", "corr(g:x, Intercept)", "sd(Residual)")


def test_flat_variance_posterior_is_the_restricted_likelihood_in_the_elements_of_G():
    """THEORY 2: exp(ℓ_REML) is the posterior of (G, σ²) under flat priors: density in v less the Jacobian."""
    x, g = np.tile(np.arange(4.0), 6), np.repeat(np.arange(6), 4)
    design = slopes_design(RNG.normal(size=24) + x, x, g)
    of = target(design, hp.Priors(preset="flat_variance").resolve(design))

    def elements(v):
        psi = of.variances(v[None])
        G = psi.G[0][0]
        return np.array([G[0, 0], G[1, 0], G[1, 1], psi.sigma[0] ** 2])

    difference = []
    for v in RNG.normal(scale=0.5, size=(5, 4)):
        h = 1e-6
        J = np.column_stack([(elements(v + e) - elements(v - e)) / (2 * h) for e in h * np.eye(4)])
        restricted = float(of.log_likelihood(of.variances(v[None]))[0])
        difference.append(float(of.log_density(v[None])[0]) - math.log(abs(np.linalg.det(J))) - restricted)
    np.testing.assert_allclose(difference, difference[0], atol=1e-6)


def test_newton_finds_the_mode_and_curvature_of_a_gaussian():
    """Closed form: mode and covariance of a Gaussian log density."""
    precision = np.linalg.solve(COVARIANCE, np.eye(3))
    centre = np.array([1.0, -2.0, 0.5])

    def log_density(v):
        return -0.5 * np.einsum("ki,ij,kj->k", v - centre, precision, v - centre)

    found = find_mode(log_density, np.array([4.0, 4.0, 4.0]))
    np.testing.assert_allclose(found.v, centre, atol=1e-6)
    np.testing.assert_allclose(found.covariance, COVARIANCE, rtol=1e-5)


def test_t_mixtures_have_scipys_density_and_their_points_have_it_too():
    """scipy.stats.multivariate_t; and ∫ over the points of p/q = 1 for another mixture p."""
    a, b = single(np.zeros(3), COVARIANCE), single(np.array([2.0, 1.0, -1.0]), 0.4 * COVARIANCE)
    both = joined([(3.0, a), (1.0, b)])
    v = RNG.normal(size=(50, 3))
    expected = 0.75 * stats.multivariate_t(np.zeros(3), COVARIANCE, DF).pdf(v) + 0.25 * stats.multivariate_t(
        [2.0, 1.0, -1.0], 0.4 * COVARIANCE, DF
    ).pdf(v)

    np.testing.assert_allclose(both.log_density(v), np.log(expected), rtol=1e-10)
    points = both.points(spread(1 << 14, 5, RNG))
    ratio = np.exp(b.log_density(points) - both.log_density(points))
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert (ratio[:, None] * points).mean(axis=0) == pytest.approx([2.0, 1.0, -1.0], abs=0.03)


def test_a_fitted_mixture_recovers_two_separate_groups_of_points():
    """Two Gaussian clouds, 3 to 1: centres and shares of a two-component fit."""
    v = np.concatenate([RNG.normal(size=(3000, 2)), RNG.normal(size=(1000, 2)) * 0.5 + [8.0, 8.0]])

    found = fitted(v, np.full(4000, 1 / 4000), 2)
    order = np.argsort(found.centre[:, 0])
    np.testing.assert_allclose(found.centre[order], [[0, 0], [8, 8]], atol=0.1)
    np.testing.assert_allclose(found.share[order], [0.75, 0.25], atol=0.02)


def test_unscrambled_points_are_those_of_scipy():
    """scipy.stats.qmc.Sobol without scrambling, every dimension: the same 256 points in another order."""
    from scipy.stats import qmc

    v = direction_vectors(DIMENSIONS)
    index = np.arange(256)
    ours = np.zeros((256, DIMENSIONS), dtype=np.int64)
    for bit in range(8):
        ours ^= ((index >> bit) & 1)[:, None] * v[:, bit]
    theirs = qmc.Sobol(DIMENSIONS, scramble=False).random_base2(8)

    ours = ours / 2.0**30
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)], atol=1e-8)


def test_scrambled_points_put_one_in_each_cell_of_every_axis_and_integrate_far_better_than_random_ones():
    """A scrambled net: 128 points, one in each 128th of every axis; error of E[z1 z2] a fifth of the random one."""
    from scipy.special import ndtri

    errors = []
    for seed in range(40):
        u = spread(128, 6, np.random.default_rng(seed))
        assert (np.sort(np.floor(u * 128), axis=0) == np.arange(128)[:, None]).all()
        z = ndtri(u)
        errors.append((z[:, 0] * z[:, 1]).mean())
    assert math.sqrt(np.mean(np.square(errors))) < 0.2 / math.sqrt(128) * 2
    # beyond the direction numbers the points are random, and still uniform
    assert spread(64, DIMENSIONS + 3, RNG).shape == (64, DIMENSIONS + 3)


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.0])
def test_smoothed_weights_and_shape_equal_arviz(scale):
    """arviz_stats.psislw on the same log ratios (Vehtari et al. 2024), heavy, equal-ish and light tails."""
    pytest.importorskip("arviz_stats")
    import xarray as xr

    x = np.random.default_rng(5).normal(size=4000) * scale
    log_ratio = stats.norm.logpdf(x) - stats.norm.logpdf(x, scale=scale)
    if scale == 1.0:
        log_ratio = 0.3 * x

    ours = smoothed(log_ratio)
    # arviz_stats weighs by the reciprocal of the likelihood it is given
    theirs, k = xr.DataArray(-log_ratio[None, :], dims=("chain", "draw")).azstats.psislw(r_eff=1.0)
    assert ours.k == pytest.approx(float(k), abs=1e-6)
    theirs = np.exp(np.asarray(theirs).ravel())
    np.testing.assert_allclose(ours.weight, theirs / theirs.sum(), rtol=1e-6)


def test_line_integrals_are_exact_to_rounding():
    """Gumbel density (double-exponential left, exponential right): mean is Euler's constant, quantiles closed form."""
    def log_density(v):
        return -v - np.exp(-v)

    found = lattice.integrate(log_density, 3.0, (math.inf, 1.0), lambda v: np.stack([1 / (1 + np.exp(v))]))
    assert found.converged
    assert found.log_mass == pytest.approx(0.0, abs=1e-12)
    assert found.weight @ found.v == pytest.approx(np.euler_gamma, abs=1e-11)
    p = np.array([0.001, 0.025, 0.5, 0.975, 0.999])
    np.testing.assert_allclose(lattice.quantiles(found, p), -np.log(-np.log(p)), atol=1e-9)
    draws = lattice.draw(found, 20_000, np.random.default_rng(2))
    assert stats.kstest(draws, stats.gumbel_r.cdf).pvalue > 1e-4


def test_plane_integrals_and_draws_follow_a_correlated_density():
    """exp of a sheared product of Gumbel and normal: moments closed form, draws by Kolmogorov-Smirnov on both axes."""
    def log_density(v):
        a, b = v[:, 0], v[:, 1] - 0.8 * v[:, 0]
        return -a - np.exp(-a) - 0.5 * b**2

    found = plane.integrate(
        log_density, np.zeros(2), np.array([1.2, 1.4]), ((math.inf, 1.0), (1.0, 1.0)),
        lambda v: np.stack([1 / (1 + np.exp(v[:, 0])), 1 / (1 + np.exp(v[:, 1]))]),
    )  # fmt: skip
    nodes, weight = found.nodes(), found.weight.ravel()
    assert found.converged
    assert found.log_mass == pytest.approx(0.5 * math.log(2 * math.pi), abs=1e-10)
    np.testing.assert_allclose(weight @ nodes, np.euler_gamma * np.array([1.0, 0.8]), atol=1e-9)
    draws = plane.draw(found, 20_000, np.random.default_rng(4))
    assert stats.kstest(draws[:, 0], stats.gumbel_r.cdf).pvalue > 1e-4
    assert stats.kstest(draws[:, 1] - 0.8 * draws[:, 0], stats.norm.cdf).pvalue > 1e-4


def test_levels_without_any_value_of_a_slope_are_not_counted():
    """A slope column that is zero in a level leaves that level without the effect."""
    x = np.array([0.0, 0.0, 1.0, 2.0, 0.0, 3.0])
    design = slopes_design(np.arange(6.0), x, list("aabbcc"))

    assert present_levels(design.factors[0], [1]) == 2
    assert present_levels(design.factors[0], [0]) == 3


def test_quantiles_of_gaussian_mixtures_invert_their_distribution_function():
    """F(F⁻¹(p)) = p to rounding, for mixtures from smooth to ones of near point masses far apart."""
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(300))
    mean = rng.standard_normal((300, 200)) * rng.gamma(1, 2, 200)
    variance = np.exp(2 * rng.standard_normal((300, 200)) - rng.gamma(1, 3, 200))

    found = mixture.quantiles(weight, mean, variance, (0.025, 0.5, 0.975))

    F = np.einsum("k,pkj->pj", weight, stats.norm.cdf(found[:, None], mean, np.sqrt(variance)))
    np.testing.assert_allclose(F, np.tile([[0.025], [0.5], [0.975]], 200), rtol=0, atol=1e-12)
