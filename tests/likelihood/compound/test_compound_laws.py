"""Posteriors of units: conjugate laws against scipy's, their limits, and quantiles of mixtures of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hierlmm.likelihood.compound import mixtures
from hierlmm.likelihood.compound.conjugate import matched, posterior, prior
from hierlmm.likelihood.compound.unitlaw import UnitPosterior

P = np.array([0.01, 0.3, 0.975])


def test_laws_are_gamma_beta_and_normal() -> None:
    """Parameters by conjugacy; mean, variance, quantile, cdf and density by scipy."""
    mu, phi = 0.3, 0.4
    cases = {
        ("poisson", 5.0, 7.0): stats.gamma(1 / phi + 5, scale=1 / (1 / (phi * mu) + 7)),
        ("binomial", 5.0, 7.0): stats.beta(mu / phi + 5, (1 - mu) / phi + 2),
        ("normal", 0.9, 0.5): stats.norm(0.9 - 0.5 / 0.9 * 0.6, np.sqrt(0.4 * 0.5 / 0.9)),
    }
    for (family, y, size), law in cases.items():
        found = posterior(family, y, size, mu, phi)
        assert (found.mean, found.variance) == (pytest.approx(law.mean()), pytest.approx(law.var()))
        assert found.quantile(P) == pytest.approx(law.ppf(P), rel=1e-9)
        assert found.cdf(law.ppf(P)) == pytest.approx(P, rel=1e-9)
        assert found.density(law.ppf(P)) == pytest.approx(law.pdf(law.ppf(P)), rel=1e-9)
        direct = y if family == "normal" else y / size
        assert found.mean == pytest.approx(found.gamma * direct + (1 - found.gamma) * mu, rel=1e-12)


@pytest.mark.parametrize("family", ["poisson", "binomial", "normal"])
def test_limits_are_a_point_the_prior_and_the_direct_estimate(family: str) -> None:
    """φ = 0, no observations, φ to infinity."""
    y, size = 3.0, 10.0
    point, far = posterior(family, y, size, 0.4, 0.0), posterior(family, y, size, 0.4, 1e9)
    alone = posterior(family, np.nan, np.nan, 0.4, 0.2)

    assert (point.mean, point.variance, point.quantile(0.9), point.cdf(0.4), point.cdf(0.39)) == (0.4, 0, 0.4, 1, 0)
    assert far.mean == pytest.approx(y if family == "normal" else y / size, rel=1e-6)
    assert (alone.mean, alone.gamma) == (0.4, 0.0)
    assert alone.variance == pytest.approx(prior(family, 0.4, 0.2).variance)
    variance = {"poisson": 0.4**2 * 0.2, "binomial": 0.24 * 0.2 / 1.2, "normal": 0.2}[family]
    assert alone.variance == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_very_narrow_laws_are_normal(family: str) -> None:
    """Shapes at which gamma functions lose their digits: quantiles continue smoothly across the change."""
    sides = [posterior(family, 3.0, 10.0, 0.4, phi) for phi in (1.001e-9 / 2.5, 0.999e-9 / 2.5)]
    z = [(law.quantile(0.975) - law.mean) / np.sqrt(law.variance) for law in sides]

    assert z[0] == pytest.approx(z[1], abs=1e-4)
    assert sides[1].cdf(sides[1].quantile(0.1)) == pytest.approx(0.1, abs=1e-9)


def test_matched_laws_have_the_moments_asked_for() -> None:
    """Gamma, beta and normal of given mean and variance; a beta cannot be wider than its range."""
    mean, variance = np.array([0.3]), np.array([0.02])
    for family, law in (
        ("poisson", stats.gamma(0.09 / 0.02, scale=0.02 / 0.3)),
        ("binomial", stats.beta(0.3 * 9.5, 0.7 * 9.5)),
        ("normal", stats.norm(0.3, np.sqrt(0.02))),
    ):
        assert matched(family, mean, variance).quantile(P) == pytest.approx(law.ppf(P), rel=1e-9)
    assert matched("binomial", mean, np.array([0.5])).variance[0] < 0.21


def test_quantiles_of_mixtures_are_roots_of_their_distribution_function() -> None:
    """Gammas of many priors, points among them; the mixture's cdf at the quantile is the probability."""
    rng = np.random.default_rng(1)
    weight = rng.dirichlet(np.ones(40))
    mu, phi = np.exp(rng.normal(0, 0.3, (40, 1))), np.exp(rng.normal(-1, 0.7, 40))
    y, size = np.array([0.0, 4.0, 30.0, np.nan]), np.array([0.5, 3.0, 20.0, np.nan])

    found = mixtures.quantiles("poisson", weight, y, size, mu, phi, P)

    law = posterior("poisson", y, size, mu, phi[:, None])
    for row, p in zip(found, P, strict=True):
        assert (weight[:, None] * law.cdf(row)).sum(axis=0) == pytest.approx(np.full(4, p), abs=1e-12)
    phi[:20] = 0.0
    stepped = mixtures.quantiles("poisson", weight, y, size, mu, phi, 0.5)
    law = posterior("poisson", y, size, mu, phi[:, None])
    below, above = ((weight[:, None] * law.cdf(stepped[0] * (1 + e))).sum(axis=0) for e in (-1e-9, 1e-9))
    assert (below <= 0.5 + 1e-7).all()
    assert (above >= 0.5 - 1e-7).all()


def test_a_unit_posterior_knows_its_law() -> None:
    """Mean, sd, interval and exceedance of a mixture of two, by hand."""
    law = posterior("poisson", np.array([[4.0], [4.0]]), 3.0, np.array([[1.0], [2.0]]), np.array([[0.5], [0.1]]))
    unit = UnitPosterior("a", np.array([0.25, 0.75]), law)
    parts = [stats.gamma(6, scale=1 / 5), stats.gamma(14, scale=1 / 8)]
    mean = 0.25 * 1.2 + 0.75 * 1.75

    assert unit.mean == pytest.approx(mean)
    assert unit.sd**2 == pytest.approx(0.25 * (0.24 + (1.2 - mean) ** 2) + 0.75 * (14 / 64 + (1.75 - mean) ** 2))
    assert unit.above(1.5) == pytest.approx(0.25 * parts[0].sf(1.5) + 0.75 * parts[1].sf(1.5))
    assert unit.density([1.0])[0] == pytest.approx(0.25 * parts[0].pdf(1) + 0.75 * parts[1].pdf(1))
    low, high = unit.interval(0.9)
    assert (unit.cdf(low), unit.cdf(high)) == (pytest.approx(0.05), pytest.approx(0.95))
    assert np.isnan(UnitPosterior("a", np.ones(2) / 2, law, (False, False)).mean)


def test_a_shape_far_below_the_trials_keeps_its_digits() -> None:
    """All trials are successes and the prior mean is near 1: the second shape is (1 - μ)/φ, whatever n is."""
    law = posterior("binomial", 3.0, 3.0, 1 - 2.0**-50, 0.5)

    assert float(law.b) == 2.0**-49
    assert 0 < float(law.quantile(0.5)) <= 1
