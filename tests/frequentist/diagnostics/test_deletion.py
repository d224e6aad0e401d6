"""Deletion by update formulas against generalised least squares on the rows that are left."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense_fit import FITS, fitted, matrices
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics import projection as module

ROUTES = {"by clusters": 200, "by effects": 0}


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Dense algebra by cluster, and by way of the random effects."""
    monkeypatch.setattr(module, "DENSE", ROUTES[request.param])
    return request.param


def without(fit: hl.LMMFit, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """beta and its covariance matrix from the rows kept, variances as fitted."""
    V = matrices(fit)[0][np.ix_(keep, keep)]
    X, y = fit.design.X[keep], (fit.design.y - fit.design.offset)[keep]
    W = np.linalg.solve(V, X)
    return np.linalg.solve(X.T @ W, W.T @ y), np.linalg.inv(X.T @ W)


def groups(fit: hl.LMMFit) -> list[str]:
    return ["row", *(factor.name for factor in fit.design.factors)]


@pytest.mark.parametrize("name", FITS)
def test_every_measure_is_that_of_the_brute_deletion(name, route):
    """Cook's distance, MDFFITS, covariance ratio and trace, DFBETA: rows and groups of every factor, to 1e-9."""
    fit = FITS[name]()
    inverse, n, p = np.linalg.inv(fit.vcov_beta), len(fit.design.y), len(fit.beta)
    for by in groups(fit):
        found = fit.influence(by)
        codes = np.arange(n) if by == "row" else next(f.codes for f in fit.design.factors if f.name == by)
        for unit in range(0, len(found.units), 1 if by != "row" else 17):
            beta, covariance = without(fit, codes != unit)
            change, frame = fit.beta - beta, found.frame.iloc[unit]
            assert_allclose(found.deletion.change[unit] / found.se, change / found.se, atol=1e-9)
            assert_allclose(found.deletion.covariance[unit], covariance, rtol=1e-9, atol=1e-9 * covariance.max())
            assert_allclose(frame["cook"], change @ inverse @ change / p, atol=1e-9)
            assert_allclose(frame["mdffits"], change @ np.linalg.solve(covariance, change) / p, atol=1e-9)
            assert_allclose(
                frame["covariance_ratio"], np.linalg.det(covariance) / np.linalg.det(fit.vcov_beta), rtol=1e-9
            )
            assert_allclose(frame["covariance_trace"], np.trace(inverse @ covariance) - p, atol=1e-9)


def test_dfbeta_is_tidy():
    """One row a unit and term; estimate + change is the estimate with all rows."""
    fit = fitted("sleepstudy")
    frame = fit.influence("Subject").dfbeta

    assert list(frame.columns) == ["group", "level", "term", "estimate", "se", "change", "in_se"]
    assert len(frame) == 18 * 2
    assert_allclose((frame["estimate"] + frame["change"]).to_numpy().reshape(18, 2), np.tile(fit.beta, (18, 1)))


def test_holding_the_variances_is_close_to_a_full_refit():
    """25 groups of 2 to 14 rows: held variances against REML anew without each group.

    Changes of up to 0.46 standard errors differ by 0.0075 at most. In a balanced design as sleepstudy both agree
    exactly, since beta does not depend on the variances there; with six groups and a singular covariance matrix
    (politeness, random slopes) the two differ by up to 0.3, because the variances jump.
    """
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(25), rng.integers(2, 15, 25))
    table = pd.DataFrame({"g": g, "x": rng.normal(size=len(g))})
    table["y"] = 1 + 0.5 * table["x"] + rng.normal(size=25)[g] + rng.normal(size=len(g))
    spec = hl.lmm("y ~ x + (1 | g)")
    fit = hl.fit(spec, table)
    found = fit.influence("g")
    refitted = np.array([hl.fit(spec, table[table["g"] != unit]).beta for unit in found.units])

    full = (fit.beta - refitted) / found.se

    assert np.abs(full).max() > 0.4
    assert np.abs(full - found.in_se).max() < 0.01


def test_a_unit_that_alone_determines_an_effect_is_named():
    """A predictor that varies in one group only: without it the effect is not there."""
    table = hl.load("sleepstudy").data.copy()
    table["dose"] = np.where(table["Subject"].astype(str) == "309", table["Days"], 0.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days + dose + (1 | Subject)"), table)

    found = fit.influence("Subject")

    assert [str(unit) for unit in found.undetermined] == ["309"]
    assert np.isnan(found.frame["cook"]).sum() == 1
    assert "Not determined without: 309" in str(found)


def test_an_outlying_group_is_the_one_that_is_named():
    """Forty groups, one of them moved by six of its standard deviations."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"g": np.repeat(np.arange(40), 6), "x": rng.normal(size=240)})
    table["y"] = table["x"] + rng.normal(size=40)[table["g"]] + rng.normal(size=240)
    table.loc[table["g"] == 7, "y"] += 8
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table)

    found = fit.influence("g")

    assert found.named["level"].tolist() == [7]
    assert "1 of 40 move a fixed effect by more than" in str(found)
    assert "The 5 of 40 with the largest Cook's distance are shown" in str(found)
    assert max(map(len, str(found).splitlines())) <= 80


def test_groups_of_the_residuals_can_be_left_out_and_other_names_are_refused():
    """The residuals' group of a model without random effects; a name that is no group is refused with those there."""
    table = hl.load("sitka").data.assign(occ=lambda t: t.groupby("tree")["Time"].rank().astype(int))
    fit = hl.fit(hl.lmm("size ~ Time", residual=hl.AR1("tree", "occ")), table)

    assert len(fit.influence("tree").units) == 79
    with pytest.raises(hl.DesignError, match=r'`by` is "row" or what the rows are grouped by; found .bush., .*tree'):
        fit.influence("bush")


def test_a_model_without_fixed_effects_has_nothing_to_move():
    """p = 0: no changes, no error."""
    fit = hl.fit(hl.lmm("Reaction ~ 0 + (1 | Subject)"), hl.load("sleepstudy").data)

    found = fit.influence("Subject")

    assert len(found.dfbeta) == 0
    assert found.named.empty
    assert str(found)
