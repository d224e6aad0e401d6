"""Residual structures against R: gls of Sitka polished by Newton steps, and lme, gls and lmer as they end."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2
from structures import METHODS, REFERENCE, STRUCTURES, natural, sitka, sitka_with_gaps

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome

FITS = REFERENCE["fits"]["fits"]
RUNS = REFERENCE["runs"]["fits"]
COMBINED = REFERENCE["combined"]["fits"]


@pytest.fixture(scope="module")
def fits():
    """Both means, nine structures, REML and ML."""
    table = sitka()
    return {
        (case["mean"], case["structure"], case["method"]): hl.fit(
            hl.lmm(case["mean"], residual=STRUCTURES[case["structure"]]), table, case["method"].lower()
        )
        for case in FITS
    }


@pytest.mark.parametrize("case", FITS, ids=lambda case: "-".join((case["mean"], case["structure"], case["method"])))
def test_structures_reach_the_polished_optimum(fits, case):
    """Criterion 1e-9; estimates as far as the gradient that the reference is left with (grad_max) allows."""
    fit = fits[case["mean"], case["structure"], case["method"]]
    beta, se, Sigma = np.array(list(case["beta"].values())), np.array(list(case["se"].values())), case["Sigma"]
    left = case["grad_max"]

    assert fit.objective <= case["objective"] + 1e-8
    assert_allclose(fit.objective, case["objective"], rtol=1e-9)
    assert_allclose(fit.beta / se, beta / se, rtol=0, atol=max(1e-8, 0.3 * left))
    assert_allclose(np.sqrt(np.diag(fit.vcov_beta)), se, rtol=max(1e-9, 0.05 * left))
    V = fit.sigma2 * np.eye(5) if case["structure"] == "ind" else fit.marginal_covariance(1, "tree")
    assert_allclose(V, Sigma, rtol=0, atol=max(1e-8, 0.1 * left) * np.max(Sigma))
    if case["structure"] not in ("ind", "cs", "car1"):
        assert_allclose(fit.residual_covariance, V, rtol=1e-12)


@pytest.mark.parametrize("case", FITS, ids=lambda case: "-".join((case["mean"], case["structure"], case["method"])))
def test_parameters_are_counted_and_optima_certified(fits, case):
    """Of five occasions: CS 2, AR1 2, ARH1 6, UN 15; AIC and nlme's BIC follow."""
    fit = fits[case["mean"], case["structure"], case["method"]]

    assert fit.n_parameters - len(fit.beta) == case["n_cov_par"]
    assert_allclose([fit.aic, fit.bic_nlme], [case["AIC_all_par"], case["BIC_nlme"]], rtol=0, atol=2e-8)
    assert fit.certificate.certified
    assert fit.certificate.decrement < 1e-10
    assert fit.outcome is LMMOutcome.INTERIOR


@pytest.mark.parametrize("case", REFERENCE["lrt"], ids=lambda c: f"{c['mean']}-{c['method']}-{c['null']}-{c['alt']}")
def test_likelihood_ratios_of_nested_structures(fits, case):
    """Statistic, degrees of freedom and the chi-squared tail of the published tables."""
    null, alternative = (fits[case["mean"], case[side], case["method"]] for side in ("null", "alt"))
    statistic = null.objective - alternative.objective

    assert alternative.n_parameters - null.n_parameters == case["df"]
    assert_allclose(statistic, case["LRT"], rtol=0, atol=2e-8)
    assert_allclose(chi2.sf(statistic, case["df"]), case["p"], rtol=1e-7, atol=1e-300)


@pytest.mark.parametrize(("method", "other"), [("REML", 31.5722), ("ML", -0.8834)])
def test_other_optima_of_antedependence_are_noted(fits, method, other):
    """The surface with Time * treat has a second optimum; the lower one is reported, as the reference is."""
    fit = fits["size ~ Time * treat", "ante1", method]

    assert_allclose(fit.certificate.others, [other], atol=1e-4)
    assert any(
        note.startswith(f"The criterion has other optima, with larger values: {other:.4f}") for note in fit.notes
    )


RANDOM = {
    "ri_ar1": ("(1 | tree)", STRUCTURES["ar1"]),
    "ri_car1": ("(1 | tree)", STRUCTURES["car1"]),
    "rs_ar1": ("(1 + Time | tree)", STRUCTURES["ar1"]),
    "ri_varident": ("(1 | tree)", hl.Stratified("occ")),
    "ri_exp_nugget": ("(1 | tree)", hl.ContinuousAR1("tree", "Time", nugget=True)),
}
# How far above the optimum nlme stopped, in -2 log likelihood: ri_car1 kept its starting range, rs_ar1 has a slope
# variance next to 0 and no correlation.
SHORT = {"ri_car1": 90.0, "rs_ar1": 0.12}


@pytest.mark.parametrize("name", COMBINED)
def test_random_effects_beside_residual_structures(name):
    """lme's optimum or a better one; where it is the same, its estimates to 1e-4."""
    kind, method = name.split()
    random, residual = RANDOM[kind]
    reference = COMBINED[name]
    fit = hl.fit(hl.lmm(f"size ~ Time * treat + {random}", residual=residual), sitka(), method.lower())

    assert fit.objective <= -2 * reference["logLik"] + 1e-8
    assert fit.certificate.certified
    if kind in SHORT:
        assert fit.objective < -2 * reference["logLik"] - SHORT[kind]
        return
    assert_allclose(fit.objective, -2 * reference["logLik"], rtol=0, atol=2e-7)
    assert_allclose(fit.beta, list(reference["beta"].values()), rtol=1e-4)
    assert_allclose(np.sqrt(fit.G[0][0, 0]), float(reference["VarCorr"]["table"][0][1]), rtol=1e-4)
    assert_allclose(np.sqrt(fit.sigma2), reference["sigma"], rtol=1e-4)
    if kind == "ri_ar1":
        assert_allclose(natural(fit, "correlation"), reference["corStruct"], rtol=1e-4)
    elif kind == "ri_varident":
        ratios = np.sqrt(natural(fit, "variance") / fit.sigma2)
        assert_allclose(ratios, list(reference["varStruct"].values()), rtol=1e-4)
    else:
        assert_allclose(natural(fit, "range"), reference["corStruct"][:1], rtol=1e-3)
        assert fit.outcome is LMMOutcome.RESIDUAL_BOUND
        assert natural(fit, "nugget")[0] < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_negative_intraclass_correlation(method):
    """Dyestuff2: the variance of batches that ANOVA estimates is negative, -0.097 of the total under REML."""
    reference, anova = REFERENCE["negative_icc"][method], REFERENCE["negative_icc"]["anova"]
    fit = hl.fit(hl.lmm("Yield ~ 1", residual=hl.CompoundSymmetry("Batch")), hl.load("dyestuff2").data, method.lower())
    rho = natural(fit, "correlation")[0]

    assert_allclose(rho, reference["rho"], rtol=2e-7)
    assert_allclose(fit.sigma2, reference["sigma2_total"], rtol=1e-8)
    assert_allclose(fit.objective, reference["objective"], rtol=1e-12)
    assert fit.certificate.certified
    if method == "REML":  # a balanced design: REML is ANOVA
        assert_allclose(rho, anova["rho"], rtol=1e-11)


SITKA_RUNS = [name for name in RUNS if RUNS[name]["data"] == "sitka_gaps"]


@pytest.mark.parametrize("name", SITKA_RUNS)
def test_missing_occasions(name):
    """gls of Sitka without 36 rows: criterion 2e-7, coefficients and correlations as far as gls converged."""
    structure, method = name.split()
    reference = RUNS[name]
    fit = hl.fit(hl.lmm("size ~ Time * treat", residual=STRUCTURES[structure]), sitka_with_gaps(), method.lower())

    _assert_as_good(fit, reference)
    quantity = "range" if structure == "car1" else "correlation"
    assert_allclose(natural(fit, quantity), np.atleast_1d(reference["corr"]), rtol=2e-5)
    if reference["sd_ratio"]:
        ratios = np.sqrt(natural(fit, "variance") / fit.sigma2)
        assert_allclose(ratios, [reference["sd_ratio"][str(k)] for k in range(1, 6)], rtol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "random", "by"),
    [
        ("strata", "", "occ"),
        ("strata by treat", "", "treat"),
        ("random intercept and strata", " + (1 | tree)", "treat"),
    ],
)
def test_strata_against_varident(name, random, by, method):
    """gls and lme with varIdent; their first level is that of the first row, ours the first of the levels."""
    reference = RUNS[f"{name} {method}"]
    fit = hl.fit(hl.lmm(f"size ~ Time * treat{random}", residual=hl.Stratified(by)), sitka(), method.lower())

    _assert_as_good(fit, reference)
    sds = {label: reference["sigma"] * ratio for label, ratio in reference["sd_ratio"].items()}
    levels = map(str, fit.design.residual.occasions)
    assert_allclose(np.sqrt(natural(fit, "variance")), [sds[level] for level in levels], rtol=2e-5)
    if random:
        assert_allclose(np.sqrt(fit.G[0][0, 0]), float(reference["random"][0]), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_precision_weights_beside_a_residual_structure(method):
    """gls with corAR1 and varFixed(~occ): the weight is 1 / occ."""
    table = sitka().assign(w=lambda t: 1 / t["occ"])
    fit = hl.fit(
        hl.lmm("size ~ Time * treat", residual=STRUCTURES["ar1"], weights=hl.Precision("w")), table, method.lower()
    )
    reference = RUNS[f"ar1 and precision weights {method}"]

    _assert_as_good(fit, reference)
    assert_allclose(natural(fit, "correlation")[0], reference["corr"], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_an_inner_nugget(method):
    """gls with corExp(nugget = TRUE) on sleepstudy: range and nugget both inside their space."""
    residual = hl.ContinuousAR1("Subject", "Days", nugget=True)
    fit = hl.fit(hl.lmm("Reaction ~ Days", residual=residual), hl.load("sleepstudy").data, method.lower())
    reference = RUNS[f"nugget {method}"]

    _assert_as_good(fit, reference)
    assert_allclose([natural(fit, "range")[0], natural(fit, "nugget")[0]], reference["corr"], rtol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_precision_weights_against_lmer(method):
    """lmer(Reaction ~ Days + (Days | Subject), weights = 1 + Days %% 3): criterion, estimates, errors, BLUPs."""
    table = hl.load("sleepstudy").data.assign(w=lambda t: 1 + t["Days"] % 3)
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)", weights=hl.Precision("w")), table, method.lower())
    reference = RUNS[f"lmer weights {method}"]

    assert fit.objective <= reference["objective"] + 1e-8
    assert_allclose(fit.objective, reference["objective"], rtol=1e-11)
    assert_allclose(fit.beta, list(reference["beta"].values()), rtol=1e-11)
    assert_allclose(np.sqrt(np.diag(fit.vcov_beta)), list(reference["se"].values()), rtol=1e-6)
    assert_allclose(np.sqrt(fit.sigma2), reference["sigma"], rtol=1e-7)
    assert_allclose(fit.G[0], reference["G"], rtol=1e-5)
    assert_allclose(fit.b[0][:, 1], reference["b"], rtol=1e-5)


def _assert_as_good(fit, reference):
    """The criterion of R's optimum, which is up to 3e-8 above ours, and its coefficients."""
    assert fit.certificate.certified
    assert fit.objective <= reference["objective"] + 1e-8
    assert_allclose(fit.objective, reference["objective"], rtol=0, atol=1e-7)
    se = np.sqrt(np.diag(fit.vcov_beta))
    assert_allclose(fit.beta / se, np.array(list(reference["beta"].values())) / se, rtol=0, atol=1e-4)
