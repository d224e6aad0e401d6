"""Maxima of marginal likelihoods of counts: to all digits, at the boundary, the best of several, one by one or many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hierlmm.likelihood.compound.interval import profile_interval
from hierlmm.likelihood.compound.maximum import estimate, estimate_many, informative
from hierlmm.likelihood.compound.moments import estimate_moments, moment_covariance
from hierlmm.likelihood.compound.profile import CountData, profile

WITNESS = json.loads((Path(__file__).parents[2] / "data" / "compound.json").read_text(encoding="utf-8"))
MAXIMA = {
    "lip cancer ml": "poisson", "baseball ml": "binomial", "poisson regression": "poisson",
    "binomial regression": "binomial", "huge trials ml": "binomial",
}  # fmt: skip


def data_of(name: str) -> CountData:
    """The data of a witness."""
    case = WITNESS[name]
    y, size = np.array(case["y"], dtype=np.float64), np.array(case["size"])
    X = np.column_stack([np.ones(len(y)), np.array(case["x"]).reshape(len(y), -1)])
    return CountData(MAXIMA[name], y, size, X, np.zeros(len(y)))


def counts(family: str, y: object, size: object) -> CountData:
    """Counts with a common mean."""
    values = np.array(y, dtype=np.float64)
    m = values.shape[-1]
    sizes = np.broadcast_to(np.asarray(size, dtype=np.float64), (m,))
    return CountData(family, values, sizes, np.ones((m, 1)), np.zeros(m))


@pytest.mark.parametrize("name", MAXIMA)
def test_the_maximum_is_that_of_fifty_digits(name: str) -> None:
    """mpmath: the gradient made zero in another parametrisation, by gamma functions."""
    case, found = WITNESS[name], estimate(data_of(name))
    concentration = case.get("shape", case.get("precision"))

    assert found.converged
    assert 1 / found.dispersion == pytest.approx(concentration, rel=2e-12)
    assert found.beta == pytest.approx(case["beta"], rel=1e-11, abs=1e-13)
    assert found.loglik == pytest.approx(case["loglik"], rel=1e-14)
    assert (found.gradient, found.decrement) == (pytest.approx(0, abs=1e-13), pytest.approx(0, abs=1e-20))


@pytest.mark.parametrize("name", MAXIMA)
def test_the_scale_of_exposures_moves_the_mean_alone(name: str) -> None:
    """Person-years or thousands of them; for trials: successes and failures exchanged."""
    data = data_of(name)
    found = estimate(data)
    if data.family == "poisson":
        other = estimate(CountData("poisson", data.y, 1e6 * data.size, data.X, data.offset))
        shift = np.append(np.log(1e6), np.zeros(data.X.shape[1] - 1))
        assert other.beta == pytest.approx(found.beta - shift, rel=1e-10, abs=1e-11)
    else:
        other = estimate(CountData("binomial", data.size - data.y, data.size, data.X, data.offset))
        assert other.beta == pytest.approx(-found.beta, rel=1e-10)
    assert other.dispersion == pytest.approx(found.dispersion, rel=1e-10)


def test_counts_less_spread_than_poisson_end_at_exactly_zero() -> None:
    """No overdispersion: φ = 0.0 with the KKT multiplier; equal counts are the extreme."""
    for y in ([5, 5, 5, 5, 5, 5], [4, 6, 5, 5, 4, 6]):
        found = estimate(counts("poisson", y, 1.0))
        assert (found.dispersion, found.converged) == (0.0, True)
        assert found.multiplier == pytest.approx(sum(v - (v - 5) ** 2 for v in y) / 2, rel=1e-12)
        assert found.beta[0] == pytest.approx(np.log(5), rel=1e-14)
    found = estimate(counts("binomial", [4, 5, 6, 5, 5], 10.0))
    assert (found.dispersion, found.converged, found.beta[0]) == (0.0, True, pytest.approx(0, abs=1e-12))


def test_equal_exposures_have_the_boundary_where_the_variance_is_the_mean() -> None:
    """The maximum is inside iff Σ(y − ȳ)² > Σy (Levin and Reeds 1977): one step either side."""
    inside, at = [1, 1, 5, 9, 9], [3, 4, 5, 6, 7]

    assert estimate(counts("poisson", inside, 2.0)).dispersion > 0
    assert estimate(counts("poisson", at, 2.0)).dispersion == 0.0


@pytest.mark.parametrize("family", ["poisson", "binomial"])
@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_fine_grid_is_better(family: str, seed: int) -> None:
    """Small hostile tables with exposures over four orders of magnitude; the profile by brute force."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(3, 9))
    if family == "poisson":
        size = np.exp(rng.uniform(-4, 5, m))
        y = rng.poisson(size * rng.gamma(0.5, 2, m))
        y[0] += 1
    else:
        size = rng.integers(2, 60, m).astype(np.float64)
        y = rng.binomial(size.astype(int), rng.beta(0.7, 1.2, m))
        y[0] = 1
    data = counts(family, y, size)
    found = estimate(data)
    phi = np.concatenate([[0.0], np.exp(np.linspace(-14, 8, 400))])
    brute = profile(data, phi, np.repeat(found.beta[None], len(phi), axis=0)).value.max()

    assert found.converged
    assert found.loglik >= brute - 1e-10


def test_many_data_sets_are_estimated_as_one_by_one() -> None:
    """To 1e-10, ties with the boundary and data without information included; resampled units by their weights."""
    rng = np.random.default_rng(3)
    E = rng.gamma(2, 4, 15)
    Y = rng.poisson(E * rng.gamma(2, 0.5, (40, 15))).astype(np.float64)
    Y[0], Y[1] = 0.0, np.round(E)
    many = estimate_many(counts("poisson", Y, E))
    single = [estimate(counts("poisson", y, E)) for y in Y[1:]]

    assert np.isnan(many.dispersion[0])
    assert not many.converged[0]
    assert many.converged[1:].all()
    assert many.dispersion[1:] == pytest.approx([found.dispersion for found in single], rel=1e-10)
    assert many.dispersion[1] == 0.0
    assert many.loglik[1:] == pytest.approx([found.loglik for found in single], rel=1e-12)

    weight = rng.multinomial(15, np.full(15, 1 / 15), size=5).astype(np.float64)
    data = CountData("poisson", Y[2], E, np.ones((15, 1)), np.zeros(15), weight)
    repeated = [np.repeat(np.arange(15), w.astype(int)) for w in weight]
    assert estimate_many(data).dispersion == pytest.approx(
        [estimate(counts("poisson", Y[2][i], E[i])).dispersion for i in repeated], rel=1e-10
    )


def test_informative_units_are_those_that_bound_the_dispersion() -> None:
    """A count; hits and misses both."""
    assert informative(counts("poisson", [0, 3, 1], 1.0)) == 2
    assert informative(counts("binomial", [0, 3, 1, 4], 4.0)) == 2


def test_a_profile_interval_ends_where_the_likelihood_has_fallen() -> None:
    """By the value of the profile at both ends; 0 where the likelihood there is high enough."""
    data = data_of("lip cancer ml")
    found = estimate(data)
    low, high = profile_interval(data, found, 1.92)
    ends = profile(data, np.array([low, high]), np.repeat(found.beta[None], 2, axis=0)).value

    assert ends == pytest.approx(found.loglik - 1.92, abs=1e-9)
    assert low < found.dispersion < high
    assert profile_interval(data_of("baseball ml"), estimate(data_of("baseball ml")), 1.92)[0] == 0.0


def test_moment_estimates_are_the_published_formulas() -> None:
    """Marshall (1991): with equal exposures the variance of the rates less the mean over E; Kleinman (1973): with equal
    trials the classical analysis-of-variance form, and both have expectation what they estimate."""
    y = np.array([3.0, 9, 1, 14, 6])
    found = estimate_moments("poisson", y, np.full(5, 2.0))
    mean, A = 3.3, np.var(y / 2) - 3.3 / 2

    assert (found.mean[0], found.raw[0]) == (pytest.approx(mean), pytest.approx(A))
    assert found.dispersion[0] == pytest.approx(A / mean**2)
    k, n, m = np.array([3.0, 9, 1, 8, 6]), 10.0, 5
    p = k.sum() / 50
    S = 10 * np.sum((k / 10 - p) ** 2)
    rho = (S / (p * (1 - p)) - (m - 1)) / ((m - 1) * (n - 1))
    assert estimate_moments("binomial", k, np.full(5, n)).raw[0] == pytest.approx(rho, rel=1e-12)
    assert estimate_moments("poisson", np.array([5.0, 5, 5]), np.ones(3)).dispersion[0] == 0.0


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_moment_standard_errors_are_those_of_repetition(family: str) -> None:
    """The sandwich against the spread over 4,000 data sets of 400 units, within 15 %."""
    rng = np.random.default_rng(5)
    m, sets = 400, 4000
    if family == "poisson":
        size = rng.gamma(3, 4, m)
        Y = rng.poisson(size * 1.3 * rng.gamma(4, 0.25, (sets, m)))
    else:
        size = rng.integers(5, 40, m).astype(np.float64)
        Y = rng.binomial(size.astype(int), rng.beta(3, 6, (sets, m)))
    found = estimate_moments(family, Y.astype(np.float64), size)
    eta = np.log(found.mean) if family == "poisson" else np.log(found.mean / (1 - found.mean))
    spread = [eta.std(), found.dispersion.std()]
    own = [
        np.sqrt(np.diagonal(moment_covariance(family, y, size, float(mean), float(phi))))
        for y, mean, phi in zip(Y[:200].astype(np.float64), found.mean, found.dispersion, strict=False)
    ]

    assert np.mean(own, axis=0) == pytest.approx(spread, rel=0.15)
