"""Checks of Markov chains on draws made by hand: what must pass passes, what must be seen is seen."""

from __future__ import annotations

import numpy as np
import pytest

from hierlmm.bayes.diagnostics import check, energy_fractions
from hierlmm.bayes.results import Draws
from hierlmm.bayes.sample import NutsOptions
from hierlmm.bayes.sample_summaries import covariance, summarise
from hierlmm.errors import FitError

pytest.importorskip("arviz_stats")

CHAINS, NUMBER = 4, 500


def draws(x, diverging=None, energy=None):
    """Draws of `x` (chains, draws, 2) named mu[a], mu[b]."""
    shape = x.shape[:2]
    noise = np.random.default_rng(99).standard_normal(shape)
    return Draws(
        variables={"mu": (("term",), x)},
        coords={"term": ("a", "b")},
        stats={
            "diverging": np.zeros(shape, dtype=bool) if diverging is None else diverging,
            "energy": noise if energy is None else energy,
        },
    )


def checked(own, requested=NUMBER):
    return check(own, ["mu"], "pymc", requested, ())


@pytest.fixture
def iid():
    return np.random.default_rng(1).standard_normal((CHAINS, NUMBER, 2))


def autoregressive(rho, shape, seed=2):
    """Stationary AR(1) with unit variance along the second axis."""
    rng = np.random.default_rng(seed)
    out = np.empty(shape)
    out[:, 0] = rng.standard_normal(out[:, 0].shape)
    for t in range(1, shape[1]):
        out[:, t] = rho * out[:, t - 1] + np.sqrt(1 - rho**2) * rng.standard_normal(out[:, 0].shape)
    return out


def test_independent_draws_pass(iid):
    """2,000 independent normal draws: R-hat 1 and as many effective draws, within the noise of the estimators."""
    found = checked(draws(iid))

    assert found.passed
    assert found.failures == ()
    assert found.as_mapping()["failures"] == ""
    assert found.rhat[1] == pytest.approx(1.0, abs=0.01)
    assert found.ess_bulk[1] == pytest.approx(CHAINS * NUMBER, rel=0.2)


def test_a_chain_in_another_place_is_seen(iid):
    """One stuck chain (HOSTILE case 48): R-hat above 1.01, and its parameter named."""
    iid[0, :, 1] += 1.0

    found = checked(draws(iid))

    assert not found.passed
    assert found.rhat[0] == "mu[b]"
    assert "R-hat of mu[b]" in found.failures[0]


def test_a_chain_that_does_not_move_is_seen(iid):
    """A parameter that is the same in every draw has no R-hat; that is a failure, not a pass."""
    iid[:, :, 0] = 3.0

    found = checked(draws(iid))

    assert np.isnan(found.rhat[1])
    assert not found.passed


def test_divergences_are_counted_and_named(iid):
    """Any divergence is a failure."""
    diverging = np.zeros((CHAINS, NUMBER), dtype=bool)
    diverging[1, :7] = True

    found = checked(draws(iid, diverging=diverging))

    assert found.failures == (
        "7 of 2000 transitions diverged: part of the posterior was not reached; raise target_accept, or sample the "
        "marginal form.",
    )


def test_slow_chains_have_too_few_effective_draws():
    """AR(1) with rho = 0.99: effective draws N (1 - rho) / (1 + rho) = 10, where 400 are needed."""
    found = checked(draws(autoregressive(0.99, (CHAINS, NUMBER, 2))))

    assert any("Too few effective draws" in sentence for sentence in found.failures)


def test_interrupted_chains_are_not_enough(iid):
    """Draws that were asked for and not made."""
    found = checked(draws(iid), requested=1000)

    assert found.failures[0].startswith("Sampling was interrupted after 500 of 1000 draws")


def test_the_energy_fraction_is_that_of_autocorrelated_energies(iid):
    """Closed form: E(E_t - E_{t-1})² / Var E = 2 (1 - rho) for stationary AR(1) energies."""
    energy = autoregressive(0.95, (2, 200_000))

    assert energy_fractions(energy) == pytest.approx(np.full(2, 0.1), rel=0.05)
    found = checked(draws(iid, energy=autoregressive(0.95, (CHAINS, NUMBER))))
    assert any("E-BFMI" in sentence for sentence in found.failures)


def test_constants_of_a_correlation_matrix_are_left_out(iid):
    """The diagonal of a correlation matrix does not move and must not count as stuck."""
    R = np.broadcast_to(np.eye(2), (CHAINS, NUMBER, 2, 2)).copy()
    R[:, :, 0, 1] = R[:, :, 1, 0] = np.tanh(iid[..., 0])
    own = Draws(
        variables={"corr_g": (("g_coef", "g_coef_bis"), R)},
        coords={"g_coef": ("a", "b"), "g_coef_bis": ("a", "b")},
        stats=draws(iid).stats,
    )

    assert check(own, ["corr_g"], "pymc", NUMBER, ()).passed


def test_the_monte_carlo_error_of_independent_draws_is_that_of_a_mean(iid):
    """Closed form: sd / sqrt(N)."""
    found = summarise(iid)

    assert found.mcse == pytest.approx(found.se / np.sqrt(CHAINS * NUMBER), rel=0.1)
    assert found.estimate == pytest.approx(iid.reshape(-1, 2).mean(axis=0), abs=1e-15)


def test_the_monte_carlo_error_of_autocorrelated_draws_is_larger_by_the_known_factor():
    """Closed form: Var of the mean of AR(1) draws is sd² (1 + rho) / ((1 - rho) N)."""
    found = summarise(autoregressive(0.8, (4, 4000)))

    assert found.mcse == pytest.approx(np.sqrt(1.8 / 0.2 / 16000), rel=0.15)


def test_a_constant_has_no_monte_carlo_error():
    """An area reported directly is the same in every draw."""
    found = summarise(np.full((2, 100, 3), 4.0))

    assert found.mcse == pytest.approx(np.zeros(3), abs=0)
    assert found.se == pytest.approx(np.zeros(3), abs=0)


def test_the_covariance_of_draws_is_numpys(iid):
    """Witness: numpy.cov of the pooled draws."""
    assert covariance(iid) == pytest.approx(np.cov(iid.reshape(-1, 2).T), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"draws": 2}, "draws=2"),
        ({"tune": 0}, "tune=0"),
        ({"chains": 1}, "chains=1"),
        ({"cores": 0}, "cores=0"),
        ({"target_accept": 1.0}, "target_accept=1.0"),
        ({"sampler": "numpyro"}, "sampler='numpyro'"),
        ({"form": "centred"}, "form='centred'"),
        ({"retries": -1}, "retries=-1"),
    ],
)
def test_impossible_options_are_refused_by_name(options, named):
    """Each refusal names what was found."""
    with pytest.raises(FitError, match=named):
        NutsOptions(**options)
