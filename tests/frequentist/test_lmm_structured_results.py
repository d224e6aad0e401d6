"""What is done with a fit of structured residuals or effects: tests of a component, files, refits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chi2
from structures import METHODS, REFERENCE, STRUCTURES, sitka

import hierlmm as hl
from hierlmm.errors import DesignError, SpecError
from hierlmm.frequentist.boundary_test import boundary_test
from hierlmm.frequentist.lmm_results import LMMOutcome

GLS = {(case["structure"], case["method"]): case["objective"] for case in REFERENCE["fits"]["fits"]
       if case["mean"] == "size ~ Time * treat"}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_variance_is_tested_beside_the_same_residual_structure(method):
    """lme's random intercept beside AR1 against gls's AR1 alone: half chi²(0) + half chi²(1)."""
    fit = hl.fit(hl.lmm("size ~ Time * treat + (1 | tree)", residual=STRUCTURES["ar1"]), sitka(), method.lower())
    statistic = GLS["ar1", method] + 2 * REFERENCE["combined"]["fits"][f"ri_ar1 {method}"]["logLik"]

    test = boundary_test(fit, "tree", "Intercept")

    assert_allclose(test.statistic, statistic, rtol=0, atol=1e-8)
    assert test.df == (0, 1)
    assert_allclose(test.p, 0.5 * chi2.sf(statistic, 1), rtol=1e-7)


def test_a_slope_is_tested_beside_strata_and_at_zero():
    """(1 + Time | tree) against (1 | tree) in the same strata; a variance of zero has statistic 0 and p = 1."""
    strata = hl.Stratified("treat")
    fit = hl.fit(hl.lmm("size ~ Time * treat + (1 + Time | tree)", residual=strata), sitka())
    smaller = hl.fit(hl.lmm("size ~ Time * treat + (1 | tree)", residual=strata), sitka())
    test = boundary_test(fit, "tree", "Time")
    assert_allclose(test.statistic, smaller.objective - fit.objective, rtol=1e-9)
    assert test.df == (1, 2)

    zero = hl.fit(hl.lmm("size ~ Time * treat + (Time || tree)", residual=STRUCTURES["ar1"]), sitka())
    test = boundary_test(zero, "tree", "Time")
    assert (test.statistic, test.p) == (0.0, 1.0)


def test_components_of_structured_blocks_are_tested_as_whole_terms():
    """A coefficient of an identity block has no variance of its own."""
    fit = hl.fit(hl.lmm("size ~ Time + identity(0 + treat | occ)"), sitka())
    with pytest.raises(DesignError, match="Fit the model without the whole term"):
        boundary_test(fit, "occ", "treat[control]")


SAVED = {
    **{name: hl.lmm("size ~ Time * treat", residual=residual) for name, residual in STRUCTURES.items()},
    "strata": hl.lmm("size ~ Time + (1 | tree)", residual=hl.Stratified("treat")),
    "nugget": hl.lmm("size ~ Time", residual=hl.ContinuousAR1("tree", "Time", nugget=True)),
    "known": hl.lmm("size ~ Time + (1 | tree)", residual=hl.KnownVariances("v")),
    "frequency": hl.lmm("size ~ Time + (1 | tree)", weights=hl.Frequency("w")),
    "precision": hl.lmm("size ~ Time + (1 | tree)", residual=STRUCTURES["ar1"], weights=hl.Precision("w")),
    "identity": hl.lmm("size ~ Time + identity(0 + treat | occ) + (1 | tree)"),
    "cs": hl.lmm("size ~ Time + cs(0 + treat | occ) + (1 | tree)"),
    "crossed": hl.lmm("size ~ Time + (1 | tree) + (1 | occ)", residual=STRUCTURES["car1"]),
    "within": hl.lmm("size ~ within(Time, tree) + between(Time, tree) + treat", residual=STRUCTURES["cs"]),
}


def table() -> pd.DataFrame:
    """Sitka with a missing row, weights and variances."""
    whole = sitka().assign(w=lambda t: 1 + t["occ"] % 2, v=lambda t: 0.05 + 0.01 * t["occ"])
    whole.loc[17, "size"] = np.nan
    return whole.drop(index=[3, 40, 41])


# The products of the rows are formed again when a file is read, and BLAS may add them in another order.
REREAD = 1e-10


@pytest.mark.parametrize("name", SAVED)
def test_every_structure_is_read_as_it_was_saved(name, tmp_path):
    """Frames, text, predictions and simulations: estimates bit by bit, what is computed again to rounding."""
    fit = hl.fit(SAVED[name], table())
    fit.save(tmp_path / "fit.hlm")

    again = hl.read(tmp_path / "fit.hlm")

    assert again.summary() == fit.summary()
    np.testing.assert_array_equal(again.phi, fit.phi)
    for frame in ("fixed", "variance_components", "random_effects", "group_coefficients"):
        pd.testing.assert_frame_equal(getattr(again, frame), getattr(fit, frame), rtol=REREAD)
    new = table().dropna().iloc[:7]
    pd.testing.assert_frame_equal(
        again.predict(new, target="observation"), fit.predict(new, target="observation"), rtol=REREAD
    )
    if name != "frequency":
        pd.testing.assert_frame_equal(again.simulate(2, seed=1), fit.simulate(2, seed=1), rtol=REREAD)
    if fit.design.factors or fit.design.residual is not None and fit.design.residual.group:
        level = (fit.design.factors[0] if fit.design.factors else fit.design.residual).levels[0]
        pd.testing.assert_frame_equal(again.marginal_covariance(level), fit.marginal_covariance(level), rtol=REREAD)


@pytest.mark.parametrize("name", ["un", "arh1", "precision", "strata", "crossed"])
def test_a_refit_of_the_same_response_is_the_fit(name):
    """Started at the optimum, the search stays there; another response moves it to its own optimum."""
    fit = hl.fit(SAVED[name], table())
    assert_allclose(fit.refit(fit.design.y).objective, fit.objective, rtol=1e-12)

    y = fit.simulate(1, seed=4).iloc[:, 0]
    fresh = hl.fit(SAVED[name], table().loc[fit.design.index].assign(size=y))
    assert_allclose(fit.refit(y).objective, fresh.objective, rtol=0, atol=1e-8)


CONFOUNDED = [
    ("(1 | tree)", "cs"), ("(1 | tree)", "toep"), ("(1 | tree)", "un"), ("(1 + Time | tree)", "un"),
    ("(0 + C(occ) | tree)", "ind"), ("(0 + C(occ) | tree)", "ar1"), ("diag(0 + C(occ) | tree)", "csh"),
    ("diag(0 + C(occ) | tree)", "ante1"), ("identity(0 + C(occ) | tree)", "ind"), ("cs(0 + C(occ) | tree)", "cs"),
]  # fmt: skip


@pytest.mark.parametrize(("random", "structure"), CONFOUNDED)
def test_what_data_cannot_tell_apart_is_refused(random, structure):
    """Before anything is fitted, with what to leave out."""
    with pytest.raises((SpecError, DesignError), match=r"cannot be told (apart )?from.*(Leave out|Simplify)"):
        hl.fit(hl.lmm(f"size ~ Time + {random}", residual=STRUCTURES[structure]), sitka())


def test_white_noise_beside_autocorrelation_is_no_structure_too_many():
    """Five variances, one autocorrelation, a variance of trees and one of cells: five occasions tell them apart."""
    spec = hl.lmm("size ~ Time + identity(0 + C(occ) | tree) + (1 | tree)", residual=STRUCTURES["arh1"])

    assert hl.fit(spec, sitka()).n_parameters == 2 + 2 + 6


def test_a_random_intercept_beside_two_positions_is_refused():
    """AR1 over two positions is compound symmetry."""
    pairs = sitka().query("occ <= 2")
    with pytest.raises(DesignError, match="cannot be told from"):
        hl.fit(hl.lmm("size ~ Time + (1 | tree)", residual=STRUCTURES["ar1"]), pairs)
    with pytest.raises(DesignError, match="nugget needs pairs of rows at several distances"):
        hl.fit(hl.lmm("size ~ treat", residual=hl.ContinuousAR1("tree", "occ", nugget=True)), pairs)


@pytest.mark.parametrize(("method", "supremum"), [("reml", -28.62100), ("ml", -61.58426)])
def test_beside_a_singular_residual_matrix_the_criterion_is_not_rounding(method, supremum):
    """Antedependence and (1 | tree): the likelihood grows up to a correlation of -1, to what scipy's BFGS finds there.

    Beyond, the criterion as the engine computes it loses its digits, and was once 400 below the dense one.
    """
    fit = hl.fit(hl.lmm("size ~ Time * treat + (1 | tree)", residual=STRUCTURES["ante1"]), sitka(), method)
    V, X = np.kron(np.eye(79), fit.marginal_covariance(1, "tree")), fit.design.X
    XVX = X.T @ np.linalg.solve(V, X)
    r = fit.design.y - X @ np.linalg.solve(XVX, X.T @ np.linalg.solve(V, fit.design.y))
    dense = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r) + len(r) * np.log(2 * np.pi)
    dense += np.linalg.slogdet(XVX)[1] - 4 * np.log(2 * np.pi) if method == "reml" else 0.0

    assert fit.outcome in (LMMOutcome.RESIDUAL_BOUND, LMMOutcome.BOUND_NOT_CERTIFIED)
    assert "correlation of occasions 1 and 2 is at the bound" in fit.summary().replace("\n  ", " ")
    assert_allclose(fit.objective, dense, rtol=0, atol=5e-3)
    assert_allclose(dense, supremum, rtol=0, atol=1e-3)
