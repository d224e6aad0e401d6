"""New rows are coded as those of the design were, or refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from design_tables import INTERCEPTS, area_spec, areas, set_at, table
from numpy.testing import assert_allclose, assert_array_equal

from hierlmm.design import build, build_area, build_lmm, encode, rows_to_predict
from hierlmm.errors import DesignError
from hierlmm.spec import lmm

ROWS = np.arange(72)
WIDE = table(
    z=1.0 + ROWS % 11,
    w=ROWS % 4,
    h=[("v", "u", "w")[i % 3] for i in ROWS],
    flag=ROWS % 5 == 0,
    k=["p", "q"] * 36,
)
FORMULAS = [
    "y ~ x + (x | g)",
    "y ~ h * x + (h | g)",
    "y ~ C(w) + flag + (1 | g/k)",
    "y ~ C(h, contr.sum) + C(flag) + (1 | g)",
    "y ~ scale(x) + center(z) + (scale(x) | g)",
    "y ~ poly(x, 2) + bs(z, df=4) + offset(log(z)) + (1 | g)",
    "y ~ x + I(2 * x) + h + (0 + h | g) + (1 | k)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_rows_of_the_design_are_coded_as_they_were(formula):
    """A subset of the rows, in another order, without the response: the states of transforms are the design's."""
    design = build(lmm(formula), WIDE)
    some = [40, 3, 17]

    rows = encode(design, WIDE.drop(columns="y").iloc[some])

    assert_allclose(rows.X, design.X[some], rtol=1e-14, atol=1e-15)
    assert_allclose(rows.offset, design.offset[some], rtol=1e-15)
    assert_array_equal(rows.index, some)
    assert np.isnan(rows.D).all()
    for Z, codes, groups, factor in zip(rows.Z, rows.codes, rows.groups, design.factors, strict=True):
        assert_allclose(Z, factor.Z[some], rtol=1e-14, atol=1e-15)
        assert_array_equal(codes, factor.codes[some])
        assert groups.tolist() == factor.levels[factor.codes[some]].tolist()


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_design_without_its_coding_makes_it_again(formula):
    """Saved files keep spec and table only."""
    design = build(lmm(formula), WIDE)

    rows = encode(replace(design, coding=None), WIDE[:5])

    assert_array_equal(rows.X, encode(design, WIDE[:5]).X)


def test_no_rows_are_coded_as_none():
    """The shapes stay."""
    rows = encode(build(lmm(FORMULAS[1]), WIDE), WIDE[:0])

    assert rows.X.shape == (0, 6)
    assert rows.Z[0].shape == (0, 3)
    assert rows.codes[0].shape == (0,)


UNSEEN = [
    ("y ~ h + (1 | g)", {"h": "new"}, "column h has new in rows 1. Known: u, v, w"),
    ("y ~ x * h + (1 | g)", {"h": "new"}, "column h has new in rows 1"),
    ("y ~ 1 + (h | g)", {"h": "new"}, "column h has new in rows 1"),
    ("y ~ C(w) + (1 | g)", {"w": 9}, "column w has 9 in rows 1. Known: 0, 1, 2, 3"),
    ("y ~ C(I(w + 1)) + (1 | g)", {"w": 9}, r"C\(I\(w \+ 1\)\) gave: categories outside its levels"),
    ("y ~ x + (1 | g)", {"x": np.nan}, "x is missing in rows 1"),
    ("y ~ x + (1 | g)", {"g": " "}, "g is missing in rows 1"),
    ("y ~ x + (1 | g)", {"x": np.inf}, "column x is infinite in rows 1"),
    ("y ~ log(z) + (1 | g)", {"z": -1.0}, r"log\(z\) is not in rows 1"),
    ("y ~ bs(x, df=4) + (1 | g)", {"x": 1e6}, r"bs\(x, df=4\) gave"),
    ("y ~ x + offset(z) + (1 | g)", {"z": np.nan}, "z is missing in rows 1"),
]


@pytest.mark.parametrize(("formula", "values", "message"), UNSEEN)
def test_rows_that_cannot_be_coded_are_refused(formula, values, message):
    """Unknown categories (formulaic codes them as the reference level), missing and infinite values."""
    design = build(lmm(formula), WIDE)
    (column, value), *_ = values.items()

    with pytest.raises(DesignError, match=message):
        encode(design, set_at(WIDE[:3], 1, column, value))


def test_a_predictor_of_another_kind_is_refused():
    """Text where there were numbers, and numbers where there was text."""
    with pytest.raises(DesignError, match="column x was numeric and is now text"):
        encode(build(INTERCEPTS, WIDE), WIDE.assign(x="a"))
    with pytest.raises(DesignError, match="column h has 1"):
        encode(build(lmm("y ~ h + (1 | g)"), WIDE), WIDE.assign(h=1))


def test_group_keys_of_another_kind_are_refused():
    """As text every one of them would pass for a new group."""
    design = build(lmm("y ~ x + (1 | w)"), WIDE)

    with pytest.raises(DesignError, match="column w had numbers such as 0, 1 and now has text such as 0, 1"):
        encode(design, WIDE.assign(w=WIDE["w"].astype(str)))
    assert_array_equal(encode(design, WIDE.assign(w=WIDE["w"].astype(float))).codes[0], design.factors[0].codes)


def test_new_groups_and_new_combinations_have_no_code():
    """A combination of known parts may be new."""
    design = build(lmm("y ~ x + (1 | g:k)"), WIDE[WIDE.index != 1])
    rows = encode(design, pd.DataFrame({"x": 0.0, "g": ["a00", "a00", "zz", "a01"], "k": ["p", "q", "p", "r"]}))

    assert rows.codes[0].tolist() == [0, 1, -1, -1]
    assert rows.groups[0].tolist() == ["a00:p", "a00:q", "zz:p", "a01:r"]

    fewer = build(lmm("y ~ x + (1 | g:k)"), WIDE[(WIDE["g"] != "a00") | (WIDE["k"] == "p")])

    assert encode(fewer, pd.DataFrame({"x": [0.0], "g": ["a00"], "k": ["q"]})).codes[0].tolist() == [-1]


def test_rows_that_break_an_alias_are_refused():
    """x2 = 2 x + 1 in the fit: where that does not hold, the linear predictor is not determined."""
    design = build_lmm(lmm("y ~ x + x2 + (1 | g)"), table(x2=lambda d: 2 * d["x"] + 1))

    rows = encode(design, pd.DataFrame({"g": ["a00"], "x": [7.0], "x2": [15.0]}))

    assert_array_equal(rows.X, [[1.0, 7.0]])
    with pytest.raises(DesignError, match="x2 adds nothing in the fit but does in rows 1"):
        encode(design, pd.DataFrame({"g": ["a00"] * 2, "x": [7.0, 7.0], "x2": [15.0, 15.5]}))


def test_rows_in_an_empty_cell_are_refused():
    """The interaction of two levels that never met is not estimable."""
    design = build_lmm(lmm("y ~ h * k + (1 | g)"), table(h=["u", "v"] * 36, k=["p", "p", "q", "p"] * 18))

    with pytest.raises(DesignError, match=r"h\[T.v\]:k\[T.q\] adds nothing"):
        encode(design, pd.DataFrame({"g": ["a00"], "h": ["v"], "k": ["q"]}))


def test_areas_are_coded_by_their_place_in_the_design():
    """Table order, not sorted order; the sampling variance where there is one."""
    design = build_area(area_spec(), areas().iloc[::-1])

    rows = encode(design, pl.DataFrame({"area": ["area 9", "elsewhere", "area 0"], "x": [0.0, 1.0, 2.0]}))

    assert rows.codes[0].tolist() == [0, -1, 9]
    assert rows.groups[0].tolist() == ["area 9", "elsewhere", "area 0"]
    assert_array_equal(rows.Z[0], np.ones((3, 1)))
    assert np.isnan(rows.D).all()
    assert_array_equal(encode(design, areas()[:2]).D, areas()["D"][:2])


def test_new_levels_are_refused_unless_they_are_asked_for():
    """The refusal names levels, rows and the option; combinations of known parts are new levels too."""
    design = build(lmm("y ~ x + (1 | g) + (1 | g:k)"), WIDE[(WIDE["g"] != "a00") | (WIDE["k"] == "p")])
    new = pd.DataFrame({"x": 0.0, "g": ["a01", "zz", "a00", "zz"], "k": ["p", "p", "q", "q"]}, index=list("rstu"))

    with pytest.raises(DesignError, match=r'; g has zz in rows s, u\..*new_levels="population"'):
        rows_to_predict(design, new, "error")
    with pytest.raises(DesignError, match=r"; g:k has a00:q in rows t\."):
        rows_to_predict(design, new.drop(index=["s", "u"]), "error")
    with pytest.raises(DesignError, match="`new_levels` is 'error' or 'population'; found 'new'"):
        rows_to_predict(design, new, "new")

    rows = rows_to_predict(design, new, "population")
    assert rows.codes[0].tolist() == [1, -1, 0, -1]
    assert (rows.codes[1] >= 0).tolist() == [True, False, False, False]
    assert_array_equal(rows_to_predict(design, None, "error").X, design.X)
