"""Fingerprints tell apart what differs, part by part, and nothing else; and the new response they go with."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from design_tables import INTERCEPTS, area_spec, areas, set_at, table
from numpy.testing import assert_array_equal

from hierlmm.design import build, build_area, build_lmm, with_response
from hierlmm.errors import DesignError
from hierlmm.spec import lmm

BASE = build(INTERCEPTS, table())
CHANGES = {
    "y": (set_at(table(), 3, "y", 9.0), INTERCEPTS, ("response",)),
    "x": (set_at(table(), 3, "x", 9.0), INTERCEPTS, ("predictors",)),
    "g": (set_at(table(), 3, "g", "a11"), INTERCEPTS, ("predictors",)),
    "label of a level": (table(g=lambda d: d["g"].replace("a11", "b")), INTERCEPTS, ("predictors",)),
    "labels of the rows": (table().set_axis(range(1, 73)), INTERCEPTS, ("rows",)),
    "a row fewer": (table()[:-1], INTERCEPTS, ("rows", "response", "predictors")),
    "slopes": (table(), lmm("y ~ x + (x | g)"), ("spec", "predictors")),
    "blocks": (table(), lmm("y ~ x + (x || g)"), ("spec", "predictors")),
    "a column the model does not read": (table(z=1.0), INTERCEPTS, ()),
    "order of columns": (table()[["y", "x", "g"]], INTERCEPTS, ()),
    "type of y": (table(y=lambda d: d["y"].astype(object)), INTERCEPTS, ()),
    "declared order of levels": (table(g=lambda d: pd.Categorical(d["g"])), INTERCEPTS, ()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_shows_in_its_part(change):
    """Each cell, label and term belongs to one part."""
    data, spec, parts = change

    assert BASE.fingerprint.differences(build(spec, data).fingerprint) == parts


def test_known_variances_have_a_part_of_their_own():
    """Empty where the residual variance is estimated."""
    one = build(area_spec(), areas()).fingerprint
    other = build(area_spec(), set_at(areas(), 0, "D", 0.2)).fingerprint

    assert one.differences(other) == ("variances",)
    assert BASE.fingerprint.variances == ""


def test_negative_zero_is_zero():
    """-0.0 and 0.0 are equal values."""
    one, other = (build(INTERCEPTS, set_at(table(), 0, "x", zero)) for zero in (0.0, -0.0))

    assert one.fingerprint == other.fingerprint


def test_neighbouring_columns_cannot_trade_values():
    """The column's name goes with its values."""
    spec, z = lmm("y ~ x + z + (1 | g)"), np.arange(72.0)
    one, other = build(spec, table(z=z)), build(spec, table(x=z, z=table()["x"]))

    assert one.fingerprint.differences(other.fingerprint) == ("predictors",)


def test_fingerprints_are_the_same_in_another_process():
    """No hash of Python's, which is salted."""
    code = (
        "from design_tables import *; from hierlmm.design import build;"
        "f = build(INTERCEPTS, table()).fingerprint; print(f.spec, f.rows, f.response, f.predictors)"
    )
    path = [p for p in sys.path if p]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"]

    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    f = BASE.fingerprint
    assert out == [f.spec, f.rows, f.response, f.predictors]


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "`y` ~ x + (1 | g)"])
def test_a_response_put_in_place_of_another_has_the_fingerprint_of_its_table(formula):
    """with_response(design, y) is the design of the table with that column."""
    y = table()["y"].to_numpy()[::-1]

    design = with_response(build_lmm(lmm(formula), table()), y)

    assert design.fingerprint == build_lmm(lmm(formula), table(y=y)).fingerprint
    assert_array_equal(design.y, y)
    assert with_response(design, table()["y"]).fingerprint == BASE.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        design.y[0] = 1


def test_a_new_response_leaves_unsampled_areas_without():
    """Their values are not read."""
    design = build_area(area_spec(unsampled="synthetic"), set_at(areas(), 4, "y", np.nan))
    y = np.arange(10.0)
    y[4] = np.inf

    new = with_response(design, y)

    assert np.isnan(new.y[4])
    assert new.fingerprint == build_area(design.spec, areas(y=np.where(np.arange(10) == 4, np.nan, y))).fingerprint


def test_a_new_response_of_another_length_or_not_finite_is_refused():
    """Named by the rows' labels."""
    with pytest.raises(DesignError, match=r"found shape \(3,\) for 72 rows"):
        with_response(BASE, np.zeros(3))
    with pytest.raises(DesignError, match=r"for 7\."):
        with_response(BASE, np.where(np.arange(72) == 7, np.nan, 1.0))
