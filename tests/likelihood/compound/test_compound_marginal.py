"""Marginal densities of compound counts, against gamma functions in many digits, sums over θ, and differences."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import betabinom, binom, nbinom, poisson

from hierlmm.likelihood.compound.marginal import (
    LOG_DENSITY,
    TERMS,
    binomial_terms,
    link_of,
    mean_of,
    null_weights,
    poisson_terms,
)
from hierlmm.likelihood.compound.rising import rising

FAMILIES = ("poisson", "binomial")
WITNESS = json.loads((Path(__file__).parents[2] / "data" / "compound.json").read_text(encoding="utf-8"))["densities"]


def arrays(*values: float) -> list[np.ndarray]:
    return [np.array([value], dtype=np.float64) for value in values]


@pytest.mark.parametrize("t", [0.0, 1e-300, 1e-9, 1e-3, 0.0624, 0.0626, 0.3, 2.0, 1e4])
def test_rising_factorials_are_the_sums_that_they_stand_for(t: float) -> None:
    """Derivatives of Σ log(1 + jt) in t, from no overdispersion to any amount of it, by exact sums."""
    for y in (0, 1, 2, 7, 88, 3000):
        j = np.arange(y)
        found = rising(y, t)
        exact = [j / (1 + j * t), -((j / (1 + j * t)) ** 2), 1 / (1 + j * t), -j / (1 + j * t) ** 2]

        for value, terms in zip(found, exact, strict=True):
            total = math.fsum(terms)
            assert float(value) == pytest.approx(total, rel=3e-12, abs=3e-12 * abs(terms).max(initial=1.0))


@pytest.mark.parametrize("phi", [1e-6, 0.02, 0.7, 5.0])
def test_the_densities_are_negative_binomial_and_beta_binomial(phi: float) -> None:
    """scipy's distributions, all constants."""
    y, E, eta = 4.0, 2.5, 0.3
    m, mu = E * math.exp(eta), float(mean_of("binomial", np.array(eta)))
    expected = {
        "poisson": nbinom.logpmf(y, 1 / phi, 1 / (1 + phi * m)),
        "binomial": betabinom.logpmf(y, 9, mu / phi, (1 - mu) / phi),
    }

    for family, size in (("poisson", E), ("binomial", 9.0)):
        own = TERMS[family](*arrays(y, size, eta, phi)).value[0]
        assert own == pytest.approx(expected[family], abs=1e-8 if phi < 1e-4 else 1e-12)
        assert LOG_DENSITY[family](*arrays(y, size, eta, phi))[0] == pytest.approx(own, abs=1e-13)


@pytest.mark.parametrize("case", WITNESS, ids=lambda case: f"{case['family']} {case['y']} of {case['size']:g}")
def test_densities_of_huge_counts_keep_their_digits(case: dict[str, float]) -> None:
    """Gamma functions in 60 digits: counts and trials to a thousand million, dispersions from 1e-12 to 900. Rounding
    the logarithm of the mean to 1e-16 alone moves the value by its derivative times that, and so on."""
    y, size, eta, phi = arrays(case["y"], case["size"], case["eta"], case["phi"])
    found = TERMS[case["family"]](y, size, eta, phi)
    blur = 4e-16 * (abs(case["eta"]) + 1) * (case["y"] + 1)

    assert found.value[0] == pytest.approx(case["value"], rel=2e-13, abs=abs(case["eta_1"]) * 4e-15)
    assert LOG_DENSITY[case["family"]](y, size, eta, phi)[0] == found.value[0]
    assert found.eta[0] == pytest.approx(case["eta_1"], rel=1e-12, abs=blur / (1 + case["phi"] * case["size"]))
    for name, known in (("eta_eta", "eta_2"), ("eta_phi", "cross"), ("phi", "phi_1"), ("phi_phi", "phi_2")):
        least = 1e-15 * found.size[0] * {"phi": 1.0, "phi_phi": 1 / case["phi"]}.get(name, 0.0)
        assert getattr(found, name)[0] == pytest.approx(case[known], rel=1e-7, abs=least), name


def test_without_overdispersion_they_are_poisson_and_binomial() -> None:
    """φ = 0 is a point like any other."""
    eta = 0.3
    mu = float(mean_of("binomial", np.array(eta)))

    assert poisson_terms(*arrays(4, 2.5, eta, 0)).value[0] == pytest.approx(
        poisson.logpmf(4, 2.5 * math.exp(eta)), abs=1e-13
    )
    assert binomial_terms(*arrays(4, 9, eta, 0)).value[0] == pytest.approx(binom.logpmf(4, 9, mu), abs=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_sum_to_one(family: str) -> None:
    """Over all counts."""
    size, phi = (3.0, 0.6) if family == "poisson" else (12.0, 0.6)
    y = np.arange(400.0) if family == "poisson" else np.arange(13.0)

    total = np.exp(TERMS[family](y, np.full_like(y, size), np.full_like(y, 0.2), np.full_like(y, phi)).value).sum()

    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("phi", [0.0, 1e-3, 0.06, 0.4, 3.0])
def test_derivatives_agree_with_differences(family: str, phi: float) -> None:
    """Central differences in η and φ, one-sided at φ = 0."""
    y, size, eta = 5.0, 11.0, -0.4
    h = 1e-5

    def terms(e: float, p: float):
        return TERMS[family](*arrays(y, size, e, p))

    at = terms(eta, phi)
    assert at.eta[0] == pytest.approx((terms(eta + h, phi).value[0] - terms(eta - h, phi).value[0]) / (2 * h), rel=1e-6)
    assert at.eta_eta[0] == pytest.approx((terms(eta + h, phi).eta[0] - terms(eta - h, phi).eta[0]) / (2 * h), rel=1e-6)
    assert at.eta_phi[0] == pytest.approx((terms(eta + h, phi).phi[0] - terms(eta - h, phi).phi[0]) / (2 * h), rel=1e-6)
    low = phi if phi == 0 else phi - h
    step, middle = phi + h - low, terms(eta, 0.5 * (low + phi + h))
    above, below = terms(eta, phi + h), terms(eta, low)
    assert middle.phi[0] == pytest.approx((above.value[0] - below.value[0]) / step, rel=1e-5)
    assert middle.phi_phi[0] == pytest.approx((above.phi[0] - below.phi[0]) / step, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_of_no_overdispersion_is_the_classical_one(family: str) -> None:
    """Dean (1992) for counts, ½[(y − m)² − y]; Tarone (1979) for proportions; information as the mean of its square."""
    eta, size = np.array([0.2]), np.array([6.0])
    mu = float(mean_of(family, eta)[0])
    y = np.arange(80.0) if family == "poisson" else np.arange(7.0)
    score = TERMS[family](y, size, eta, np.zeros(1)).phi
    mass = poisson.pmf(y, 6 * mu) if family == "poisson" else binom.pmf(y, 6, mu)

    if family == "poisson":
        assert score == pytest.approx(((y - 6 * mu) ** 2 - y) / 2, rel=1e-12)
    else:
        pairs = y * (y - 1) / mu + (6 - y) * (5 - y) / (1 - mu) - 30
        assert score == pytest.approx(pairs / 2, rel=1e-12)
    assert mass @ score == pytest.approx(0.0, abs=1e-10)
    assert mass @ score**2 == pytest.approx(null_weights(family, size, eta)[1][0], rel=1e-10)


def test_links_and_means_are_inverse() -> None:
    """log and logit."""
    for family in FAMILIES:
        assert link_of(family, mean_of(family, np.array([-3.0, 0.4]))) == pytest.approx([-3.0, 0.4], rel=1e-14)


def test_far_predictors_do_not_overflow() -> None:
    """Tails of posteriors reach predictors beyond the range of exp: the density falls like μ^(-ν) there."""
    far = [LOG_DENSITY["poisson"](*arrays(3, 2, eta, 2.0))[0] for eta in (1000.0, 2000.0)]

    assert np.isfinite(far).all()
    assert far[1] - far[0] == pytest.approx(-500.0, rel=1e-12)
