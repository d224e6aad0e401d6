"""Responses without residual variation beside a residual structure, and what is said where no optimum is certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome

RNG = np.random.default_rng(4)


def table() -> pd.DataFrame:
    """Twenty groups of five, a factor of three categories, a response with noise."""
    rows = pd.DataFrame({"g": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5), 20)})
    rows["x"] = RNG.normal(size=100)
    rows["f"] = RNG.choice(list("pqr"), 100)
    rows["y"] = 1 + rows["x"] + RNG.normal(size=20)[rows["g"]] + RNG.normal(size=100)
    return rows


DATA = table()
SERIES = {"group": "g", "position": "t"}
OCCASIONS = {"group": "g", "occasion": "t"}


@pytest.mark.parametrize(
    "residual",
    [
        hl.CompoundSymmetry("g"),
        hl.HeterogeneousCompoundSymmetry(**OCCASIONS),
        hl.AR1(**SERIES),
        hl.HeterogeneousAR1(**SERIES),
        hl.ContinuousAR1("g", "t"),
        hl.Toeplitz(**SERIES),
        hl.Antedependence(**OCCASIONS),
        hl.Unstructured(**OCCASIONS),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_response_without_variation_within_series_is_refused(residual) -> None:
    """y = 1 + x + u_g: the likelihood grows without bound as the correlations go to one."""
    exact = DATA.assign(y=1 + DATA["x"] + np.random.default_rng(1).normal(size=20)[DATA["g"]])

    with pytest.raises(hl.FitError, match=r"must vary within the levels of g; .* Use a random intercept, \(1 \| g\)"):
        hl.fit(hl.lmm("y ~ x", residual=residual), exact)


def test_a_stratum_that_the_fixed_effects_reproduce_is_refused() -> None:
    """Its variance would go to zero and the likelihood with it to infinity."""
    exact = DATA.assign(y=np.where(DATA["f"] == "p", 1.0 + DATA["x"], DATA["y"]))

    with pytest.raises(hl.FitError, match="reproduce all responses of f p"):
        hl.fit(hl.lmm("y ~ x + f", residual=hl.Stratified("f")), exact)


def test_exact_slopes_are_told_from_too_many_effects() -> None:
    """Forty effects for a hundred rows are not too many; the response is a function of groups and x."""
    a, b = np.random.default_rng(2).normal(size=(2, 20))
    exact = DATA.assign(y=1 + DATA["x"] * a[DATA["g"]] + b[DATA["g"]])

    with pytest.raises(hl.FitError, match="a function of the groups and predictors"):
        hl.fit(hl.lmm("y ~ x + (x | g)"), exact)


def test_a_fit_at_a_bound_without_certificate_says_so_first() -> None:
    """Before any number is printed."""
    fit = hl.fit(hl.lmm("y ~ x", residual=hl.AR1(**SERIES)), DATA)
    lost = replace(fit, outcome=LMMOutcome.BOUND_NOT_CERTIFIED).summary()

    assert lost.index("NOT CERTIFIED") < lost.index("criterion")


def test_every_uncertified_fit_has_an_outcome_that_says_so() -> None:
    """Structures on small random tables, where bounds are common."""
    seen = 0
    for seed in range(10, 16):
        rng = np.random.default_rng(seed)
        small = DATA[DATA["g"] < 6].assign(y=rng.normal(size=30) + rng.normal(size=6).repeat(5))
        for residual in (hl.Antedependence(**OCCASIONS), hl.HeterogeneousCompoundSymmetry(**OCCASIONS)):
            fit = hl.fit(hl.lmm("y ~ x + (1 | g)", residual=residual), small)
            uncertified = fit.outcome in (LMMOutcome.NOT_CERTIFIED, LMMOutcome.BOUND_NOT_CERTIFIED)
            assert uncertified == (not fit.certificate.certified)
            seen += uncertified
    assert seen


def test_responses_that_are_no_real_numbers_are_refused() -> None:
    """Complex numbers and text, as in a table."""
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), DATA)
    for wrong in (DATA["y"].to_numpy() + 1j, DATA["y"].to_numpy().astype(str)):
        with pytest.raises(hl.DesignError, match="must be numeric"):
            fit.refit(wrong)
        with pytest.raises(hl.DesignError, match="must be numeric"):
            fit.refits(wrong[:, None])


def test_an_explained_response_among_structured_refits_keeps_the_others() -> None:
    """A constant column has no parameters of the residuals; the first column is that of the fit."""
    fit = hl.fit(hl.lmm("y ~ x", residual=hl.AR1(**SERIES)), DATA)
    refits = fit.refits(np.column_stack([DATA["y"], np.ones(100)]))

    assert refits.objective[0] == pytest.approx(fit.objective, rel=1e-12)
    assert [outcome.name for outcome in refits.outcomes] == ["INTERIOR", "NO_VARIATION"]
