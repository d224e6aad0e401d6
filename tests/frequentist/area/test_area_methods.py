"""Fits by every estimator of the area variance: exact estimates, what a reader is told, files, and comparison."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.likelihood.area.interval import likelihood_of

DATA = Path(__file__).parents[2] / "data"
CASES = json.loads((DATA / "fay_herriot_exact.json").read_text())["cases"]
EXACT = json.loads((DATA / "area_estimators_exact.json").read_text())["cases"]
METHODS = ("reml", "ml", "fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl", "mix")


def case(name):
    """Spec and table of a case with exact answers; a constant is among the columns of X where there is one."""
    X = np.array(CASES[name]["X"])
    x = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    table = pd.DataFrame({"area": [f"a{i}" for i in range(len(X))], "y": CASES[name]["y"], "D": CASES[name]["D"], **x})
    return hl.fay_herriot("y ~ 0 + " + " + ".join(x), sampling_variance="D", area="area"), table


def answer(name, method):
    """The exact answer of a method; mix has REML's or, where that is 0, that of ampl_ll."""
    if method == "mix":
        method = "reml" if CASES[name]["reml"]["A"] else "ampl_ll"
    return CASES[name][method] if method in ("reml", "ml") else EXACT[name][method]


@pytest.mark.parametrize("name", ["milk", "grapes", "boundary_b8", "boundary_b9", "eusilcA_logMean"])
@pytest.mark.parametrize("method", METHODS)
def test_estimates_and_terms_equal_the_exact_answers(name, method):
    """tests/data/area_estimators_exact.json, 40 digits: EBLUPs, coefficients, g1, g2, g3 and log-likelihoods."""
    want, every = answer(name, method), slice(None, None, CASES[name]["stride"])
    fit = hl.fit(*case(name), method)

    assert_allclose(fit.A_hat, float(want["A"]), rtol=1e-12, atol=0)
    assert_allclose(fit.eblup[every], want["eblup"], rtol=1e-10)
    assert_allclose(fit.beta, want["beta"], rtol=1e-8)
    for term in ("g1", "g2", "g3"):
        assert_allclose(getattr(fit, term)[every], want[term], rtol=1e-9, err_msg=term)
    own = want["loglik_ML" if likelihood_of(method) == "ml" else "loglik_REML"]
    assert_allclose([fit.marginal_loglik, fit.loglik], [want["loglik_ML"], own], rtol=1e-11)
    assert fit.method == method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["milk", "boundary_b9"])
def test_the_summary_says_how_A_was_estimated_and_how_that_ended(name, method):
    """Milk is inside the range by all methods; boundary_b9 is at zero by the likelihoods and the moments."""
    fit = hl.fit(*case(name), method)

    text = fit.summary()

    assert HEADINGS[method] in text
    assert max(map(len, text.splitlines())) <= 80
    if name == "milk":
        outcome = AreaOutcome.INTERIOR
    elif method in ("reml", "ml", "fh", "pr"):
        outcome = AreaOutcome.AT_ZERO
    else:
        outcome = AreaOutcome.BY_ADJUSTMENT
    assert fit.outcome is outcome
    assert (fit.A_hat == 0) == (outcome is AreaOutcome.AT_ZERO)
    assert text.replace("\n", " ").startswith(outcome.value) or outcome is AreaOutcome.INTERIOR
    assert fit.glance()["method"].item() == method
    assert fit.certificate.lifted == (outcome is AreaOutcome.BY_ADJUSTMENT)


@pytest.mark.parametrize("method", METHODS)
def test_the_interval_of_A_is_of_the_likelihood_and_says_so(method):
    """One interval for all methods that go with a likelihood; boundary_b15, where REML is positive and ML zero."""
    fit = hl.fit(*case("boundary_b15"), method)
    base = hl.fit(*case("boundary_b15"), likelihood_of(method))

    assert_allclose(fit.A[["lower", "upper"]], base.A[["lower", "upper"]], rtol=0)
    assert fit.A.attrs["interval"].startswith(likelihood_of(method))
    curve = fit.profile()[0]
    assert_allclose(curve.criterion.min(), 0.0, atol=1e-12)
    assert_allclose(curve.values[np.argmin(curve.criterion)] ** 2, base.A_hat, rtol=1e-12)


def test_what_a_moment_estimator_cuts_or_cannot_solve_is_said():
    """Raw Prasad-Rao estimate of arcsin eusilcA: -0.00385391..., in the exact answers; the fh equation has no root."""
    pr, fh = (hl.fit(*case("eusilcA_arcsinMTMED"), method) for method in ("pr", "fh"))

    assert any("-0.00385 for the area variance, cut at 0" in note for note in pr.notes)
    assert_allclose(pr.certificate.raw, EXACT["eusilcA_arcsinMTMED"]["pr"]["raw"], rtol=1e-11)
    assert any("no root above 0" in note for note in fh.notes)
    assert np.isnan(fh.certificate.raw)


def test_mix_says_which_estimate_it_took():
    """REML is positive on milk and zero on boundary_b9."""
    assert any("REML estimate is positive" in note for note in hl.fit(*case("milk"), "mix").notes)
    assert any("REML estimate is zero" in note for note in hl.fit(*case("boundary_b9"), "mix").notes)


@pytest.mark.parametrize(("method", "m", "needed"), [("amrl_ll", 4, 5), ("ampl_ll", 2, 3)])
def test_too_few_areas_for_a_maximum_are_refused(method, m, needed):
    """A times a likelihood of two contrasts or fewer has no maximum."""
    table = pd.DataFrame({"area": range(m), "y": np.arange(m) ** 2.0, "x": np.cos(np.arange(m)), "D": 1.0})
    spec = hl.fay_herriot("y ~ x" if m > 2 else "y ~ 1", sampling_variance="D", area="area")

    with pytest.raises(FitError, match=f"needs {needed} areas"):
        hl.fit(spec, table, method)
    assert hl.fit(spec, table, method[:4] + "_yl").A_hat > 0


def test_an_unknown_method_is_refused_with_the_nine():
    """The message names every estimator."""
    with pytest.raises(SpecError, match=", ".join(METHODS)):
        hl.fit(*case("milk"), "eblup")


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_fit_is_read_as_it_was(method, tmp_path):
    """Every number, the certificate and the words, and a refit of the read fit."""
    fit = hl.fit(*case("boundary_b9"), method)
    fit.save(tmp_path / "fit.hlm")

    again = hl.read(tmp_path / "fit.hlm")

    assert again.summary() == fit.summary()
    for name in ("A", "score", "log_h", "raw", "lifted"):
        assert_allclose(getattr(again.certificate, name), getattr(fit.certificate, name), rtol=0)
    assert_allclose(again.refit(fit.design.y).mse, fit.mse, rtol=1e-12)


@pytest.mark.parametrize("method", ["fh", "amrl_ll", "mix"])
def test_a_comparison_attributes_what_the_estimator_does(method):
    """Its first step is EBLUP at the REML estimate less EBLUP at the estimate used, and all steps add up."""
    spec, table = case("boundary_b9")
    fit, reml = hl.fit(spec, table, method), hl.fit(spec, table, "reml")

    comparison = hl.compare(fit, hl.posterior(spec, table))

    steps = comparison.attribution
    assert_allclose(steps["estimator"], reml.eblup - fit.eblup, rtol=1e-9, atol=1e-12)
    total = steps[["estimator", "averaging", "variance_prior", "fixed_prior", "monte_carlo"]].sum(axis=1)
    assert_allclose(steps["start"] + total, steps["end"], rtol=1e-10)
    assert method.upper() in comparison.summary()


@pytest.mark.parametrize("method", ["fh", "pr", "ampl_yl"])
def test_a_refit_uses_the_same_estimator(method):
    """`refit` of other direct estimates is the fit of a table that holds them."""
    spec, table = case("boundary_b8")
    fit = hl.fit(spec, table, method)
    y = fit.simulate(seed=3)[0]

    again = fit.refit(y)

    assert again.method == method
    assert_allclose(again.eblup, hl.fit(spec, table.assign(y=y.to_numpy()), method).eblup, rtol=1e-12)
