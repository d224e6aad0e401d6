"""Moments of a Gaussian on the scale of the data, against integrals, closed forms and limits."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from hierlmm.likelihood.area.scales import HALF_PI, SCALES, sine_moments

MEANS = np.array([-0.3, 0.01, 0.4, 1.5, 1.62])
SDS = np.array([0.01, 0.4, 2.0])


def integral(function, mean, sd):
    """E function(θ) by adaptive quadrature, split at the ends of the range and around the mean."""
    ends = [p for p in (0.0, HALF_PI, mean - sd, mean, mean + sd) if abs(p - mean) < 11 * sd]
    points = [mean - 11 * sd, *sorted(ends), mean + 11 * sd]
    parts = [
        quad(lambda t: function(np.array(t)) * norm.pdf(t, mean, sd), a, b, epsabs=1e-14, epsrel=1e-13, limit=200)[0]
        for a, b in pairwise(points)
        if b > a
    ]
    return sum(parts)


@pytest.mark.parametrize("name", SCALES)
def test_moments_are_the_integrals(name):
    """E g and E g² for means inside, at and beyond the range of the arcsine, and spreads from narrow to wide."""
    scale = SCALES[name]
    mean, sd = (grid.ravel() for grid in np.meshgrid(MEANS, SDS if name != "log" else SDS[:2]))

    first, second = scale.moments(mean, sd**2)

    assert_allclose(first, [integral(scale.back, m, s) for m, s in zip(mean, sd, strict=True)], rtol=1e-10, atol=1e-13)
    squares = [integral(lambda t: scale.back(t) ** 2, m, s) for m, s in zip(mean, sd, strict=True)]
    assert_allclose(second, squares, rtol=1e-10, atol=1e-13)
    centre, spread = scale.spread(mean, sd**2)
    assert_allclose(spread, second - first**2, rtol=1e-7, atol=1e-13)
    assert_array_equal(centre, first)


@pytest.mark.parametrize("name", SCALES)
def test_without_spread_a_moment_is_the_value(name):
    """Variance 0 is a point: E g(θ) = g(θ), and nothing varies."""
    scale = SCALES[name]

    first, second = scale.moments(MEANS, np.zeros(MEANS.size))

    assert_allclose(first, scale.back(MEANS), rtol=1e-14)
    assert_allclose(second, scale.back(MEANS) ** 2, rtol=1e-14)
    assert_allclose(scale.spread(MEANS, np.zeros(MEANS.size))[1], 0.0, atol=1e-15)


def test_inside_its_range_the_sine_has_the_textbook_mean():
    """(1 - cos(2m) exp(-2v))/2 where 0 and π/2 are ten standard deviations away (Hadam, Würz and Kreutzmann 2020)."""
    mean, variance = np.linspace(0.3, 1.2, 10), np.full(10, 0.03**2)

    assert_allclose(sine_moments(mean, variance)[0], (1 - np.cos(2 * mean) * np.exp(-2 * variance)) / 2, rtol=1e-13)


def test_means_rise_with_theta_beyond_the_end_of_the_range():
    """A share does not fall again where the model's mean passes π/2, as sin² does, and as an integral that stops there
    does."""
    mean = np.linspace(1.4, 2.0, 61)

    first = sine_moments(mean, np.full(61, 0.01**2))[0]

    assert (np.diff(first) >= 0).all()
    assert_allclose(first[-1], 1.0)


@pytest.mark.parametrize("name", SCALES)
def test_slopes_are_derivatives(name):
    """Against central differences, away from the ends of the range."""
    theta, h = np.array([0.2, 0.7, 1.3]), 1e-6
    scale = SCALES[name]

    assert_allclose(scale.slope(theta), (scale.back(theta + h) - scale.back(theta - h)) / (2 * h), rtol=1e-8)
