"""Crossed factors with thousands of levels, by cells, against lme4 refined to stationarity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

DATA = Path(__file__).parents[1] / "data"
REFERENCE = json.loads((DATA / "insteval.json").read_text())["fits"]


@pytest.fixture(scope="module")
def ratings() -> pd.DataFrame:
    """73,421 ratings of 1,128 lecturers by 2,972 students (InstEval of lme4)."""
    return pd.read_csv(DATA / "InstEval.csv.gz")


@pytest.mark.parametrize("reference", REFERENCE, ids=lambda one: f"{one['formula'][-14:]} {one['method']}")
def test_insteval(ratings: pd.DataFrame, reference: dict) -> None:
    """Criterion 1e-9 and never above by 1e-8 of it; estimates to the reference's gradient of about 1e-4 over 4e3."""
    fit = hl.fit(hl.lmm(reference["formula"]), ratings, method=reference["method"])

    assert fit.certificate.certified
    assert fit.certificate.decrement < 1e-10
    assert fit.equations.cells is not None
    assert fit.objective == pytest.approx(reference["objective"], rel=1e-9)
    assert fit.objective <= reference["objective"] + 1e-8
    np.testing.assert_allclose(fit.beta, reference["beta"], rtol=1e-7)
    np.testing.assert_allclose(fit.vcov_beta, reference["vcov_beta"], rtol=2e-6)
    frame = fit.variance_components
    found = frame[frame["quantity"] == "variance"].set_index("group")["estimate"]
    for group, value in reference["variance"].items():
        assert found[group] == pytest.approx(value, rel=3e-6)
    np.testing.assert_allclose(fit.conditional_fitted[:50], reference["fitted_first"], rtol=1e-6)
    assert (fit.conditional_residuals**2).sum() == pytest.approx(reference["residual_sum_of_squares"], rel=1e-7)


def test_prediction_errors_of_cells_are_those_of_dense_products(ratings: pd.DataFrame) -> None:
    """On a part of the ratings small enough for both ways: BLUPs, their errors and those of sums of effects."""
    part = ratings[ratings["s"] <= 70]
    spec = hl.lmm("y ~ service + (1 | s) + (1 | d)")
    fit = hl.fit(spec, part)
    assert fit.equations.cells is not None

    V = fit.sigma2 * np.eye(len(part))
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        V += G[0, 0] * (factor.codes[:, None] == factor.codes)
    X, y = fit.design.X, fit.design.y
    VX = np.linalg.solve(V, X)
    cov = np.linalg.inv(X.T @ VX)
    np.testing.assert_allclose(fit.vcov_beta, cov, rtol=1e-8)
    P = np.linalg.inv(V) - VX @ cov @ VX.T
    for factor, G, b, error in zip(fit.design.factors, fit.G, fit.b, fit.b_error, strict=True):
        Z = (factor.codes[:, None] == np.arange(len(factor.levels))).astype(float)
        np.testing.assert_allclose(b[:, 0], G[0, 0] * Z.T @ P @ y, rtol=1e-7, atol=1e-9)
        expected = G[0, 0] - G[0, 0] ** 2 * np.einsum("ig,ij,jg->g", Z, P, Z)
        np.testing.assert_allclose(error[:, 0, 0], expected, rtol=1e-8)
