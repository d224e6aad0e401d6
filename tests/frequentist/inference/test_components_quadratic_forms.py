"""Inverted distributions of quadratic forms against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hierlmm.frequentist.inference.quadraticforms import lower_tail, upper_tail

RELATIVE = 1e-11


@pytest.mark.parametrize("df", [1, 2, 3, 7, 50, 400])
@pytest.mark.parametrize("share", [1e-3, 0.1, 0.5, 1.0, 2.0, 6.0, 20.0])
def test_one_chi_squared_has_both_tails(df, share):
    """weight 1: chi²(df), relative accuracy in either tail."""
    x = share * df

    np.testing.assert_allclose(upper_tail([1.0], [df], x), stats.chi2.sf(x, df), rtol=RELATIVE)
    np.testing.assert_allclose(lower_tail([1.0], [df], x), stats.chi2.cdf(x, df), rtol=RELATIVE)


@pytest.mark.parametrize(("r1", "r2"), [(5, 24), (1, 1), (1, 30), (77, 314), (2, 3)])
@pytest.mark.parametrize("F", [0.01, 0.3, 1.0, 5.0, 50.0, 500.0])
def test_a_ratio_of_two_has_the_f_distribution(r1, r2, F):
    """P(chi²(r1) - (F r1 / r2) chi²(r2) > 0) = P(F(r1, r2) > F), down to 1e-140."""
    weights = [1.0, -F * r1 / r2]

    np.testing.assert_allclose(upper_tail(weights, [r1, r2]), stats.f.sf(F, r1, r2), rtol=RELATIVE)
    np.testing.assert_allclose(lower_tail(weights, [r1, r2]), stats.f.cdf(F, r1, r2), rtol=RELATIVE)


@pytest.mark.parametrize(("a", "b"), [(3.0, 1.0), (3.0, 1e-3), (1.0, 0.999)])
@pytest.mark.parametrize("x", [0.1, 3.0, 40.0])
def test_two_exponentials_have_their_closed_form(a, b, x):
    """a chi²(2)/2 + b chi²(2)/2 > x has probability (a exp(-x/a) - b exp(-x/b)) / (a - b)."""
    expected = (a * np.exp(-x / a) - b * np.exp(-x / b)) / (a - b)

    np.testing.assert_allclose(upper_tail([a / 2, b / 2], [2, 2], x), expected, rtol=1e-10)


@pytest.mark.parametrize(("x", "p"), [(0.1, 0.9458), (0.7, 0.5064), (2.0, 0.1240)])
def test_imhof_s_first_form(x, p):
    """Imhof (1961), Biometrika 48:419-426, table 1: .6 chi²(1) + .3 chi²(1) + .1 chi²(1), four digits."""
    assert upper_tail([0.6, 0.3, 0.1], [1, 1, 1], x) == pytest.approx(p, abs=5e-5)


def test_tails_outside_the_support_are_certain():
    """Sums of one sign never reach the other side; an empty sum is zero."""
    assert upper_tail([1.0, 2.0], [1, 1], -0.5) == 1.0
    assert lower_tail([-1.0], [3], 0.0) == 1.0
    assert upper_tail([0.0], [3], 0.0) == 0.0
    assert upper_tail([], [], -1.0) == 1.0


def test_units_do_not_matter():
    """Weights and x in another unit give the same probability."""
    weights, df = np.array([3.0, 1.0, -0.5]), np.array([1, 4, 7])

    np.testing.assert_allclose(upper_tail(weights * 1e9, df, 2e9), upper_tail(weights, df, 2.0), rtol=1e-12)
