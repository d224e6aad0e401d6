"""The criterion at many points at once against one point after the other, and its slopes against differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.inference.confint_coordinates import of_effects, of_variances
from hierlmm.frequentist.inference.profile_coordinates import Coordinates
from hierlmm.frequentist.inference.profile_limits import evaluated, held
from hierlmm.frequentist.inference.profile_slopes import OneByOne, Together, criterion
from hierlmm.frequentist.lmm_model import model_of
from hierlmm.likelihood.optimum import Surface


def sitka() -> pd.DataFrame:
    table = hl.load("sitka").data
    return table.assign(
        occ=table.groupby("tree")["Time"].rank().astype(int), f=np.array(list("abc"))[np.arange(len(table)) % 3]
    )


CASES = {
    "slopes": hl.lmm("size ~ Time + (Time | tree)"),
    "crossed": hl.lmm("size ~ Time + (Time | occ) + (1 | tree)"),
    "cs": hl.lmm("size ~ f + cs(0 + f | tree)"),
    "identity": hl.lmm("size ~ f + identity(0 + f | tree)"),
    "structure": hl.lmm("size ~ Time + (1 | tree)", residual=hl.HeterogeneousAR1("tree", "occ")),
    "continuous": hl.lmm("size ~ Time", residual=hl.ContinuousAR1("tree", "Time")),
    "unstructured": hl.lmm("size ~ Time", residual=hl.Unstructured("tree", "occ")),
}


def coordinates(fit: hl.LMMFit, effects: bool) -> list[Coordinates]:
    if effects:
        return [one for _, one in of_effects(fit, fit.at)]
    return [one for _, one in of_variances(fit) if one is not None]


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_slopes_are_those_of_the_criterion(name, effects):
    """Fourth-order differences in every coordinate beside the optimum, for each parameter as the first coordinate."""
    fit = hl.fit(CASES[name], sitka(), "ml" if effects else "reml")
    of = criterion(Surface.of(model_of(fit.design), fit.method))
    rng = np.random.default_rng(1)
    for one in coordinates(fit, effects):
        x = one.start + 0.03 * rng.standard_normal(len(one.start))
        steps = 1e-4 * np.eye(len(x))
        points = [(one, x + m * step) for step in steps for m in (-2, -1, 1, 2)]
        values = np.array([value for value, _ in evaluated(of, points)]).reshape(-1, 4)

        slope = evaluated(of, [(one, x)])[0][1]

        differences = values @ [1, -8, 8, -1] / 1.2e-3
        assert_allclose(slope, differences, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("name", ["slopes", "crossed", "cs", "identity"])
def test_together_is_one_by_one(name, effects):
    """Two ways to the criterion and its slopes, also at a variance of zero."""
    fit = hl.fit(CASES[name], sitka(), "ml" if effects else "reml")
    surface = Surface.of(fit.equations, fit.method)
    rng = np.random.default_rng(2)
    points = []
    for one in coordinates(fit, effects):
        points.append((one, one.start + 0.05 * rng.standard_normal(len(one.start))))
        points.append((one, np.where(np.arange(len(one.start)) == 1, 0.0, one.start)))

    ours, theirs = (evaluated(way, points) for way in (Together(fit.equations, fit.method), OneByOne(surface)))

    for (value, slope), (other, other_slope) in zip(ours, theirs, strict=True):
        assert_allclose(value, other, rtol=1e-11)
        assert_allclose(slope, other_slope, rtol=1e-7, atol=1e-7)


def test_the_estimate_is_the_first_coordinate_and_the_optimum():
    """Every parameter's coordinate at the fit reads as the estimate; the criterion there is the objective, flat."""
    fit = hl.fit(CASES["slopes"], sitka())
    of = Together(fit.equations, fit.method)
    for label, one in of_variances(fit):
        value, slope = evaluated(of, [(one, one.start)])[0]

        assert_allclose(one.natural(float(one.start[0])), label.estimate, rtol=1e-10)
        assert_allclose(value, fit.objective, rtol=1e-12)
        assert np.abs(slope).max() < 1e-4


def test_the_profile_at_zero_is_the_model_without_the_term():
    """The sd of the slopes held at 0: the criterion of the random intercepts alone, fitted for itself."""
    table = hl.load("sleepstudy").data
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table)
    without = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), table)
    one = next(one for label, one in of_variances(fit) if label.term == "Days" and label.quantity == "sd")

    value, _ = held(Together(fit.equations, "reml"), one, 0.0, one.start[1:])

    assert_allclose(value, without.objective, rtol=1e-11)
