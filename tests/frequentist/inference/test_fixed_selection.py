"""Criteria for the choice of a model, each from its definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import FitError

CASES = {
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", "reml"),
    "dyestuff by ml": ("dyestuff", "Yield ~ 1 + (1 | Batch)", "ml"),
    "dyestuff": ("dyestuff", "Yield ~ 1 + (1 | Batch)", "reml"),
    "at zero": ("dyestuff2", "Yield ~ 1 + (1 | Batch)", "reml"),
    "singular, crossed": ("politeness", "frequency ~ attitude + (1 + attitude | subject) + (1 | scenario)", "reml"),
}


@pytest.mark.parametrize("case", CASES)
def test_conditional_aic_counts_the_derivative_of_the_fitted_values(case):
    """Greven & Kneib (2010): the trace of dŷ/dy, here by refits with each response moved up and down."""
    data, formula, method = CASES[case]
    table = hl.load(data).data
    fit = hl.fit(hl.lmm(formula), table[table["scenario"] <= 4] if data == "politeness" else table, method)
    assert fit.singular == (case in ("at zero", "singular, crossed"))
    y, n = fit.design.y, len(fit.design.y)
    h = 2e-3 * float(np.std(y))
    trace = 0.0
    for i in range(n):
        up, down = (fit.refit(y + sign * h * (np.arange(n) == i)).conditional_fitted.iloc[i] for sign in (1, -1))
        trace += (up - down) / (2 * h)

    found = fit.conditional_aic()

    assert_allclose(found.corrected, trace, rtol=1e-5)
    e = fit.conditional_residuals.to_numpy()
    loglik = -0.5 * (n * np.log(2 * np.pi * fit.sigma2) + e @ e / fit.sigma2)
    assert_allclose(found.loglik, loglik, rtol=1e-10)
    assert_allclose(found.value, -2 * loglik + 2 * (trace + 1), rtol=1e-6)


def test_effective_degrees_of_freedom_of_known_variances_are_the_hat_matrix():
    """Vaida & Blanchard (2005): for the balanced one-way layout 1 + (m - 1) n G / (n G + sigma²)."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)
    weight = 5 * fit.G[0][0, 0] / (5 * fit.G[0][0, 0] + fit.sigma2)

    found = fit.conditional_aic()

    assert_allclose(found.rho, 1 + 5 * weight, rtol=1e-10)
    assert_allclose(found.vaida, -2 * found.loglik + 2 * (found.rho + 1), rtol=1e-12)


def test_without_random_effects_the_conditional_aic_is_the_aic():
    """Least squares by ML: p effective degrees of freedom and the residual variance."""
    fit = hl.fit(hl.lmm("Reaction ~ Days"), hl.load("sleepstudy").data, "ml")

    assert_allclose(fit.conditional_aic().value, fit.aic, rtol=1e-12)


def test_criteria_follow_their_conventions():
    """AICc of Hurvich & Tsai (1989), BIC with log n and log(n - p)."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data)
    table = fit.criteria.set_index("criterion")["value"]

    assert_allclose(table["aic"], fit.objective + 12)
    assert_allclose(table["aicc"], fit.objective + 12 + 2 * 6 * 7 / (178 - 7))
    assert_allclose(table["bic"] - table["bic_nlme"], 6 * np.log(180 / 178))
    assert_allclose(table["caic"], fit.conditional_aic().value)
    assert fit.aicc == table["aicc"]


def test_residual_structures_have_no_conditional_aic():
    """Their conditional likelihood is another one: refused, with the way out."""
    fit = hl.fit(hl.lmm("frequency ~ attitude + (1 | subject)", residual=hl.Stratified("gender")),
                 hl.load("politeness").data)  # fmt: skip

    with pytest.raises(FitError, match=r"residual structure.*marginal AIC"):
        fit.conditional_aic()
    assert "caic" not in set(fit.criteria["criterion"])
