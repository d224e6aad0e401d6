"""Envelopes by simulation: what they are made of, and that they hold what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense_fit import FITS, fitted
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.diagnostics.envelope import effect_envelope, residual_envelope, simultaneous


@pytest.mark.parametrize("name", ["sleepstudy", "weighted", "ar1"])
def test_residuals_of_the_simulated_fits_are_those_of_whole_refits(name):
    """Mean and extremes of the sorted Pearson residuals of fit.refit(y), one simulated y at a time."""
    fit = FITS[name]()
    found = residual_envelope(fit, 39, seed=4, level=0.999999)
    draws = fit.simulate(39, seed=4).to_numpy()
    whole = np.sort([fit.refit(y).residuals("pearson").to_numpy() for y in draws.T], axis=1)

    assert_allclose(found.middle, whole.mean(axis=0), atol=2e-4)
    assert_allclose(found.lower, whole.min(axis=0), atol=2e-3)
    assert_allclose(found.values, np.sort(fit.residuals("pearson")))


def test_effects_of_the_simulated_fits_are_blups_in_their_units():
    """Sorted BLUPs of whole refits, slopes of sleepstudy."""
    fit = fitted("sleepstudy")
    found = effect_envelope(fit, "Subject", "Days", 39, seed=4, level=0.9)
    draws = fit.simulate(39, seed=4).to_numpy()
    whole = np.sort([fit.refit(y).b[0][:, 1] for y in draws.T], axis=1)

    assert_allclose(found.middle, whole.mean(axis=0), atol=1e-3)
    assert_allclose(found.values, np.sort(fit.b[0][:, 1]))
    assert list(found.labels) == list(fit.design.factors[0].levels[np.argsort(fit.b[0][:, 1])])


def test_the_simultaneous_band_holds_the_share_of_curves_it_says():
    """Bands from 400 curves of 30 ordered normals judged by 2000 fresh ones, over 25 bands: 0.95 within 0.012."""
    rng = np.random.default_rng(8)
    fresh = np.sort(rng.normal(size=(2000, 30)), axis=1)
    inside = []
    for _ in range(25):
        low, high = simultaneous(np.sort(rng.normal(size=(400, 30)), axis=1), 0.95)
        inside.append(((fresh >= low) & (fresh <= high)).all(axis=1).mean())

    assert_allclose(np.mean(inside), 0.95, atol=0.012)


def test_the_same_seed_gives_the_same_envelope_and_outliers_are_outside():
    """Rows 56, 59 and 7 of sleepstudy are its known outliers; labels of the rows start at 0."""
    first, second = (residual_envelope(fitted("sleepstudy"), 99, seed=1) for _ in range(2))

    assert_allclose(first.all_upper, second.all_upper, rtol=0)
    assert {56, 59} <= set(first.outside)


def test_bad_requests_are_refused():
    """Too few draws, levels out of range, unknown groups and terms, and no residual variance."""
    fit = fitted("sleepstudy")
    exact = pd.DataFrame({"g": np.repeat(list("abcd"), 3), "x": np.tile([0.0, 1, 2], 4)})
    exact["y"] = 2 * exact["x"] + np.repeat([1.0, 4, 2, 7], 3)
    with pytest.raises(hl.FitError, match=r"39 or more.*found 20"):
        residual_envelope(fit, 20, seed=1)
    with pytest.raises(hl.FitError, match=r"`level` is a number between 0 and 1; found 95"):
        residual_envelope(fit, seed=1, level=95)
    with pytest.raises(hl.DesignError, match=r"`group` must be a grouping factor.*found 'Tree', one of Subject"):
        effect_envelope(fit, "Tree", seed=1)
    with pytest.raises(hl.DesignError, match=r"`term` must be a random coefficient of Subject; found 'days'"):
        effect_envelope(fit, "Subject", "days", seed=1)
    with pytest.raises(hl.FitError, match="needs a residual variance"):
        residual_envelope(hl.fit(hl.lmm("y ~ x + (1 | g)"), exact), seed=1)
