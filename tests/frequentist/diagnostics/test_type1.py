"""The t test that ignores groups: simulated, exact, and by the design effect."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics.type1 import exact_rate


@pytest.mark.parametrize(("groups", "size", "icc"), [(4, 6, 0.3), (2, 3, 0.9), (10, 50, 0.2), (30, 2, 0.05)])
def test_the_exact_rate_is_the_integral_over_the_beta_law(groups, size, icc):
    """scipy's adaptive quadrature of tails of t over the Beta density."""
    from scipy import integrate, stats

    nu = 2 * groups * size - 2
    c, ratio = stats.t.isf(0.025, nu), (1 - icc) / (1 + (size - 1) * icc)

    def integrand(u: float) -> float:
        tail = 2 * stats.t.sf(c * np.sqrt(u + ratio * (1 - u)), nu)
        return float(stats.beta.pdf(u, groups - 1, groups * (size - 1)) * tail)

    expected = integrate.quad(integrand, 0, 1, epsabs=1e-13, limit=500)[0]

    assert_allclose(exact_rate(icc, size, groups, 0.05), expected, atol=1e-11)


def test_the_exact_rate_is_that_of_t_tests_on_responses():
    """40,000 tables of rows and scipy's t test, four Monte Carlo standard errors."""
    from scipy import stats

    rng = np.random.default_rng(3)
    J, m, icc, B = 4, 6, 0.3, 40_000
    y = np.sqrt(icc) * rng.normal(size=(B, 2, J, 1)) + np.sqrt(1 - icc) * rng.normal(size=(B, 2, J, m))
    rows = y.reshape(B, 2, -1)

    rate = (stats.ttest_ind(rows[:, 0], rows[:, 1], axis=1).pvalue < 0.05).mean()

    exact = exact_rate(icc, m, J, 0.05)
    assert abs(rate - exact) < 4 * np.sqrt(exact * (1 - exact) / B)


def test_without_correlation_or_with_one_row_a_group_the_test_keeps_its_level():
    """icc = 0, or m = 1: exactly alpha."""
    assert_allclose(exact_rate(0.0, 20, 7, 0.05), 0.05, rtol=1e-12)
    assert_allclose(exact_rate(0.6, 1, 7, 0.01), 0.01, rtol=1e-12)


def test_simulated_rates_are_the_exact_ones_and_the_design_effect_is_close_for_many_groups():
    """Each of 12 rates within 4 Monte Carlo standard errors; Kish's approximation to 1e-4 with 2000 groups."""
    frame = hl.simulate_type1([0, 0.05, 0.2, 1], [1, 5, 30], 10, 100_000, seed=1).frame
    many = hl.simulate_type1(0.1, 20, 2000, 10, seed=1).frame

    assert (np.abs(frame["estimate"] - frame["exact"]) < 4 * frame["se"]).all()
    assert_allclose(frame["design_effect"], 1 + (frame["group_size"] - 1) * frame["icc"])
    assert_allclose(many["approximate"], many["exact"], atol=1e-4)


def test_one_group_per_arm_is_allowed_and_has_its_closed_form():
    """Nothing between groups enters the pooled variance: P(|t| > c sqrt(ratio)) with t of 2m - 2 degrees of freedom."""
    from scipy import stats

    expected = 2 * stats.t.sf(stats.t.isf(0.025, 18) * np.sqrt(0.9 / 1.9), 18)

    assert_allclose(exact_rate(0.1, 10, 1, 0.05), expected, rtol=1e-12)


def test_the_same_seed_gives_the_same_rates_and_the_text_fits_the_screen():
    """Frozen, printed in 80 columns."""
    first, second = (hl.simulate_type1(seed=5, draws=200) for _ in range(2))

    assert first.frame.equals(second.frame)
    assert max(map(len, str(first).splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"icc": 1.5}, r"`icc` is a number from 0 to 1; found 1.5"),
        ({"icc": [0.1, float("nan")]}, r"`icc` is a number from 0 to 1; found nan"),
        ({"icc": []}, "at least one value"),
        ({"group_size": 2.5}, r"`group_size` is a whole number, 1 or more; found 2.5"),
        ({"group_size": 1, "groups": 1}, "2 or more where there is one group per arm"),
        ({"groups": 0}, r"`groups` is a whole number of groups per arm, 1 or more; found 0"),
        ({"draws": 0}, r"`draws` is a whole number, 1 or more; found 0"),
        ({"level": 5}, r"`level` is a number between 0 and 1; found 5"),
    ],
)
def test_values_out_of_range_are_refused(arguments, words):
    """The rule and what was found."""
    with pytest.raises(hl.SpecError, match=words):
        hl.simulate_type1(**arguments, seed=1)
