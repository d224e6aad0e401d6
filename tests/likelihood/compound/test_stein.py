"""Stein's rules and Morris's: closed forms, risk by simulation, and what a limit on the translation costs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from hierlmm.likelihood.compound.morris import morris
from hierlmm.likelihood.compound.stein import (
    bound_for,
    james_stein,
    least_squares,
    limited_translation,
    positive_part,
    savings,
)

RNG = np.random.default_rng(11)
Y = RNG.normal(size=12) * 1.7 + 3
MEAN, ZERO = np.ones((12, 1)), np.zeros((12, 0))
SLOPE = np.column_stack([np.ones(12), np.linspace(-1, 1, 12)])


@pytest.mark.parametrize(("X", "p"), [(ZERO, 0), (MEAN, 1), (SLOPE, 2)])
def test_the_factor_is_q_minus_two_over_s(X: np.ndarray, p: int) -> None:
    """James and Stein (1961) about a point, (m − 3)/S about the mean, (m − p − 2)/S about a regression."""
    D = 0.8
    fitted = X @ np.linalg.lstsq(X, Y, rcond=None)[0] if p else np.zeros(12)
    S = np.sum((Y - fitted) ** 2) / D
    found = james_stein(least_squares(Y, X, D), D)

    assert found.B == pytest.approx((12 - p - 2) / S, rel=1e-12)
    assert found.estimate == pytest.approx(fitted + (1 - found.B) * (Y - fitted), rel=1e-12)


def test_the_positive_part_stops_at_the_prior_mean() -> None:
    """Where S < q − 2 the plain rule goes beyond; both agree elsewhere."""
    near = 3 + 0.01 * Y
    fit = least_squares(near, MEAN, 1.0)

    assert james_stein(fit, 1.0).B > 1
    assert positive_part(fit, 1.0).estimate == pytest.approx(np.full(12, near.mean()), rel=1e-12)
    wide = least_squares(Y, MEAN, 0.1)
    assert (positive_part(wide, 0.1).estimate == james_stein(wide, 0.1).estimate).all()


@pytest.mark.parametrize("theta", [np.zeros(8), np.array([0.0, 0, 0, 0, 0, 0, 0, 5]), np.linspace(-3, 3, 8)])
def test_the_rules_dominate_and_their_risk_estimates_are_unbiased(theta: np.ndarray) -> None:
    """10,000 draws: total squared error below that of y, whatever θ; Stein's identity within four standard errors."""
    rng = np.random.default_rng(2)
    bound = bound_for(0.8, 8)
    losses = []
    for y in theta + rng.normal(size=(10_000, 8)):
        fit = least_squares(y, np.zeros((8, 0)), 1.0)
        found = (james_stein(fit, 1.0), positive_part(fit, 1.0), limited_translation(fit, 1.0, bound))
        losses.append([(np.sum((rule.estimate - theta) ** 2), rule.risk) for rule in found])
    values = np.array(losses)
    risk = values[..., 0].mean(axis=0)
    gap = values[..., 0] - values[..., 1]

    assert (risk < 8).all()
    assert risk[1] <= risk[0] + 1e-12
    assert (np.abs(gap.mean(axis=0)) < 4 * gap.std(axis=0) / np.sqrt(len(values))).all()


def test_no_mean_is_moved_further_than_the_bound() -> None:
    """d √(B (1 − h)) standard deviations; an infinite bound is the positive-part rule."""
    y = np.append(Y, 30.0)
    fit = least_squares(y, np.ones((13, 1)), 1.0)
    found = limited_translation(fit, 1.0, 0.5)
    B = min(found.B, 1.0)

    assert np.abs(found.estimate - y).max() == pytest.approx(0.5 * np.sqrt(B * 12 / 13), rel=1e-12)
    free = limited_translation(fit, 1.0, np.inf)
    assert free.estimate == pytest.approx(positive_part(fit, 1.0).estimate, rel=1e-14)


@pytest.mark.parametrize("q", [3, 4, 17, 500])
@pytest.mark.parametrize("bound", [1e-3, 0.3, 0.9, 2.0])
def test_savings_are_the_integral_over_a_beta_variable(q: int, bound: float) -> None:
    """Efron and Morris (1972), by adaptive quadrature; the bound for given savings inverts it."""
    law = beta(1.5, (q - 1) / 2)
    low = min(1.0, bound**2 / (q - 2))
    top = min(1.0, low + 80 / q)
    lost = quad(lambda v: (1 - bound / np.sqrt((q - 2) * v)) ** 2 * law.pdf(v), low, top, limit=400)[0]

    assert savings(bound, q) == pytest.approx(1 - lost, abs=2e-7)
    if 0.01 < 1 - lost < 0.99:
        assert bound_for(savings(bound, q), q) == pytest.approx(bound, rel=1e-9)


def test_the_bound_of_the_batting_averages() -> None:
    """Efron and Morris (1975) print 0.786 for the bound that keeps 80 % of the savings among 17."""
    assert bound_for(0.8, 17) == pytest.approx(0.786, abs=1.5e-3)


def test_with_equal_variances_morris_is_james_and_stein() -> None:
    """Estimates equal, variance D[1 − (1 − 1/m)B] + 2/(m − 3) B²(y − ȳ)²."""
    D = 0.6
    found, plain = morris(Y, MEAN, np.full(12, D)), james_stein(least_squares(Y, MEAN, D), D)

    assert found.estimate == pytest.approx(plain.estimate, rel=1e-12)
    variance = D * (1 - 11 / 12 * plain.B) + 2 / 9 * plain.B**2 * (Y - Y.mean()) ** 2
    assert found.variance == pytest.approx(variance, rel=1e-12)


def test_morris_solves_his_equation_and_is_zero_without_a_root() -> None:
    """Â = Σ W [m/(m − p) r² − D]/Σ W at the estimate; 0 for data less spread than their errors."""
    D = np.linspace(0.1, 2, 12)
    found = morris(Y, SLOPE, D)
    W, r = 1 / (found.A + D), Y - found.fitted

    assert found.A == pytest.approx(np.sum(W * (12 / 10 * r**2 - D)) / W.sum(), rel=1e-10)
    assert morris(3 + 0.1 * Y, MEAN, D).A == 0.0
    assert morris(1e6 * Y, SLOPE, 1e12 * D).A == pytest.approx(1e12 * found.A, rel=1e-10)
