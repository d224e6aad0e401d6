"""Residuals and leverages against matrices of all rows by all rows, lme4, and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense_fit import FITS, fitted, matrices
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics import projection as module
from hierlmm.frequentist.diagnostics.projection import projection

ROUTES = {"by clusters": 200, "by effects": 0}


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Dense algebra by cluster, and by way of the random effects."""
    monkeypatch.setattr(module, "DENSE", ROUTES[request.param])
    return request.param


@pytest.mark.parametrize("name", FITS)
def test_studentised_residuals_are_those_of_the_dense_formula(name, route):
    """R P y over the root of the diagonal of R P R, V formed whole from its definition."""
    fit = FITS[name]()
    _, R, P = matrices(fit)
    residual = R @ P @ (fit.design.y - fit.design.offset)

    found = fit.residuals("studentised")

    assert_allclose(found, residual / np.sqrt(np.diagonal(R @ P @ R)), rtol=1e-9, atol=1e-9)
    assert found.index.equals(fit.design.index)


@pytest.mark.parametrize("name", FITS)
def test_leverages_are_diagonals_of_the_hat_matrices(name, route):
    """Demidenko & Stukel (2005): H1 = X(X'V⁻¹X)⁻¹X'V⁻¹, H2 = ZGZ'P; trace of H1 is p."""
    fit = FITS[name]()
    V, R, P = matrices(fit)
    X = fit.design.X
    H1 = X @ np.linalg.solve(X.T @ np.linalg.solve(V, X), np.linalg.solve(V, X).T)

    found = fit.leverage()

    assert_allclose(found["fixed"], np.diagonal(H1), rtol=1e-9, atol=1e-12)
    assert_allclose(found["random"], np.diagonal((V - R) @ P), rtol=1e-9, atol=1e-12)
    assert_allclose(found["joint"], found["fixed"] + found["random"], rtol=1e-12)
    assert_allclose(found["fixed"].sum(), X.shape[1], rtol=1e-10)


def test_joint_leverages_are_those_of_lme4():
    """hatvalues(lmer(Reaction ~ Days + (Days | Subject))), lme4 1.1: theta there has converged to 1e-5 or so."""
    found = fitted("sleepstudy").leverage()["joint"]

    assert_allclose(found.iloc[:4], [0.2293040377, 0.1697299938, 0.1268237150, 0.1005852014], rtol=2e-5)
    assert_allclose(found.sum(), 29.0221239506, rtol=5e-6)


def test_the_sum_of_leverages_has_a_closed_form_in_a_balanced_one_way_model():
    """Hodges & Sargent (2001), section 2: 1 + (a - 1) kappa with kappa = n tau² / (n tau² + sigma²)."""
    fit = fitted("dyestuff")
    kappa = 5 * fit.G[0][0, 0] / (5 * fit.G[0][0, 0] + fit.sigma2)

    assert_allclose(fit.leverage()["joint"].sum(), 1 + 5 * kappa, rtol=1e-10)


@pytest.mark.parametrize("name", FITS)
def test_cholesky_residuals_solve_for_the_marginal_ones(name):
    """Their squares sum to r'V⁻¹r, and L of the rows in a cluster's order gives each of them in turn."""
    fit = FITS[name]()
    V, _, _ = matrices(fit)
    r = fit.marginal_residuals.to_numpy()

    found = fit.residuals("cholesky").to_numpy()

    assert_allclose(found @ found, r @ np.linalg.solve(V, r), rtol=1e-9)
    # V of all rows is block diagonal up to their order, so that its own factor gives the same values in place
    assert_allclose(found, np.linalg.solve(np.linalg.cholesky(V), r), rtol=1e-7, atol=1e-8)


def test_cholesky_residuals_of_simulated_responses_are_white():
    """L⁻¹(y - X beta) at the true beta and psi: 4000 draws, entries of the covariance within 5.5 Monte Carlo sds."""
    fit = FITS["weighted"]()
    draws = fit.simulate(4000, seed=1).to_numpy()
    V, _, _ = matrices(fit)
    L = np.linalg.cholesky(V)

    white = np.linalg.solve(L, draws - fit.marginal_fitted.to_numpy()[:, None])

    n = len(white)
    S = white @ white.T / 4000
    assert np.abs(S - np.eye(n))[~np.eye(n, dtype=bool)].max() < 5.5 / np.sqrt(4000)
    assert np.abs(np.diagonal(S) - 1).max() < 5.5 * np.sqrt(2 / 4000)


def test_studentised_residuals_of_simulated_responses_have_variance_one():
    """At held variances the conditional residual is linear in y: its variance over 4000 draws, row by row."""
    fit = FITS["weighted"]()
    _, R, P = matrices(fit)
    draws = fit.simulate(4000, seed=2).to_numpy()
    at = projection(fit, "Residuals")

    z = (R @ P @ draws) / np.sqrt(at.residual_variance)[:, None]

    assert np.abs((z**2).mean(axis=1) - 1).max() < 5 * np.sqrt(2 / 4000)


def test_pearson_residuals_are_scaled_by_the_residual_sd_of_the_row():
    """With precision weights w the residual sd is sigma / sqrt(w)."""
    fit = FITS["weighted"]()
    w = fit.design.table["w"].to_numpy()

    expected = fit.conditional_residuals * np.sqrt(w / fit.sigma2)

    assert_allclose(fit.residuals("pearson"), expected, rtol=1e-12)
    assert_allclose(fit.residuals("marginal"), fit.marginal_residuals)
    assert_allclose(fit.residuals(), fit.conditional_residuals)


def test_a_row_that_is_fitted_exactly_has_no_studentised_residual():
    """A predictor that picks one row out: its residual is zero whatever its value."""
    table = hl.load("sleepstudy").data.copy()
    table["only"] = (np.arange(180) == 17).astype(float)
    fit = hl.fit(hl.lmm("Reaction ~ Days + only + (1 | Subject)"), table)

    found = fit.residuals("studentised").to_numpy()

    assert np.isnan(found[17])
    assert np.isfinite(np.delete(found, 17)).all()
    assert_allclose(fit.leverage()["joint"].iloc[17], 1, rtol=1e-9)


def test_a_large_nested_design_is_worked_on_without_its_covariance_matrix():
    """20,000 rows in four groups: the closed form of a random intercept gives one row's leverage."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"g": np.repeat(np.arange(4), 5000), "y": rng.normal(size=20_000)})
    table["y"] += table["g"]
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), table)
    tau2, s2, m = fit.G[0][0, 0], fit.sigma2, 5000
    kappa = m * tau2 / (m * tau2 + s2)

    found = fit.leverage()

    assert_allclose(found["joint"], (kappa + (1 - kappa) / 4) / m, rtol=1e-9)
    with pytest.raises(hl.FitError, match=r"here 5000 rows do, as with crossed factors, and 2000 is the limit"):
        fit.residuals("cholesky")


def test_unknown_kinds_and_frequencies_are_refused():
    """The rule, what was found, and the way out."""
    fit = fitted("sleepstudy")
    counted = hl.load("sleepstudy").data.assign(n=2)
    with pytest.raises(hl.FitError, match=r"`kind` is one of marginal, .*found 'deviance'"):
        fit.residuals("deviance")
    twice = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)", weights=hl.Frequency("n")), counted)
    with pytest.raises(hl.FitError, match=r"Leverages belong to single observations.*frequencies go up to 2"):
        twice.leverage()


def test_a_fit_without_residual_variance_has_no_scaled_residuals():
    """A response that the model reproduces: the raw ones are there, the scaled ones refused."""
    table = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": np.tile([0.0, 1, 2], 4)})
    table["y"] = 2 * table["x"] + np.repeat([1.0, 4, 2, 7], 3)
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table)

    assert np.abs(fit.residuals("conditional")).max() < 1e-9
    for kind in ("studentised", "cholesky", "pearson"):
        with pytest.raises(hl.FitError, match="residual"):
            fit.residuals(kind)
