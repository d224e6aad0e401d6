"""REML by error contrasts, and the pairs of Neyman and Scott."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError
from hierlmm.frequentist.moments.contrasts import contrast_constant, contrast_loglik, error_contrasts
from hierlmm.frequentist.moments.neyman_scott import neyman_scott


@pytest.fixture(scope="module")
def fit():
    return hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data)


def marginal(fit, scale=1.0):
    """V of the fit with the covariance of the random effects times `scale`."""
    (factor,) = fit.design.factors
    same = factor.codes[:, None] == factor.codes
    return fit.sigma2 * np.eye(len(same)) + same * (factor.Z @ (scale * fit.G[0]) @ factor.Z.T)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_likelihood_of_any_contrasts_is_the_restricted_one(fit, seed):
    """Harville (1974): up to ½ log|X'X| - ½ log|A'A|, here for orthonormal, rotated and stretched A."""
    A = error_contrasts(fit.design.X, seed)
    if seed == 2:
        A = A @ np.random.default_rng(8).normal(size=(178, 178))

    found = contrast_loglik(A, fit.design.y, marginal(fit)) - contrast_constant(A, fit.design.X)

    assert_allclose(A.T @ fit.design.X, 0, atol=1e-10 * np.abs(A).max() * 180)
    assert_allclose(found, fit.loglik, rtol=1e-10)


def test_differences_between_variances_do_not_depend_on_the_contrasts(fit):
    one, two = (error_contrasts(fit.design.X, seed) for seed in (3, 4))
    far, near = marginal(fit, 4.0), marginal(fit)

    drops = [contrast_loglik(A, fit.design.y, near) - contrast_loglik(A, fit.design.y, far) for A in (one, two)]

    assert not np.allclose(one, two)
    assert drops[0] > 1
    assert_allclose(drops[0], drops[1], rtol=1e-9)


def test_contrasts_do_not_see_the_fixed_effects(fit):
    A, V = error_contrasts(fit.design.X), marginal(fit)

    shifted = fit.design.y + fit.design.X @ np.array([1000.0, -20.0])

    assert_allclose(contrast_loglik(A, shifted, V), contrast_loglik(A, fit.design.y, V), rtol=1e-9)


def test_a_matrix_of_lower_rank_leaves_more_contrasts():
    X = np.column_stack([np.ones(5), np.arange(5), 1 + np.arange(5)])

    assert error_contrasts(X).shape == (5, 3)


def test_wrong_contrasts_are_refused(fit):
    X = fit.design.X
    A = error_contrasts(X)
    with pytest.raises(DesignError, match="A'X = 0; these are not"):
        contrast_constant(A + 0.01, X)
    with pytest.raises(DesignError, match="n - p = 178 columns"):
        contrast_constant(A[:, 1:], X)
    with pytest.raises(DesignError, match="same n rows"):
        contrast_loglik(A, fit.design.y[1:], np.eye(180))
    with pytest.raises(DesignError, match="positive definite"):
        contrast_loglik(A, fit.design.y, -np.eye(180))
    with pytest.raises(DesignError, match="more rows than fixed effects"):
        error_contrasts(np.eye(3))
    with pytest.raises(DesignError, match="matrix of finite numbers"):
        error_contrasts([1.0, np.nan])
    with pytest.raises(DesignError, match="at most 4000 rows"):
        error_contrasts(np.ones((5000, 1)))


def test_maximum_likelihood_tends_to_half_the_variance():
    """Neyman & Scott (1948): within four standard errors sigma² sqrt(2/m) at each number of pairs beyond 100."""
    result = neyman_scott(200_000, 3.0, seed=1)

    path = result.path[result.path["pairs"] > 100]
    assert (np.abs(path["reml"] - 9) < 4 * path["reml_se"]).all()
    assert (np.abs(path["ml"] - 4.5) < 2 * path["reml_se"]).all()
    assert_allclose(result.ml, result.reml / 2, rtol=1e-12)
    assert_allclose(result.reml, ((result.pairs[:, 0] - result.pairs[:, 1]) ** 2).sum() / 400_000, rtol=1e-10)
    assert result.path["pairs"].iloc[-1] == 200_000
    assert max(map(len, repr(result).splitlines())) <= 80


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_the_fits_of_the_engine_are_the_closed_forms(method):
    result = neyman_scott(12, 1.5, seed=2)

    fit = hl.fit(hl.lmm("y ~ 0 + pair"), result.table, method)

    assert_allclose(fit.sigma2, getattr(result, method), rtol=1e-10)


def test_pairs_need_a_number_and_a_spread():
    with pytest.raises(DesignError, match="whole number of at least 1; found 0"):
        neyman_scott(0, 1.0, 1)
    with pytest.raises(DesignError, match="positive and finite; found -1"):
        neyman_scott(5, -1.0, 1)
