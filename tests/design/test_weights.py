"""Weights that say what they are: what they become in a design, and what is refused or left out."""

import numpy as np
import pandas as pd
import pytest
from design_tables import set_at, table
from numpy.testing import assert_allclose, assert_array_equal

from hierlmm.design import build, build_lmm, encode, observation_scale
from hierlmm.errors import DesignError
from hierlmm.spec import Frequency, KnownVariances, Precision, lmm

W = 1.0 + np.arange(72) % 3
FREQUENCY = lmm("y ~ x + (1 | g)", weights=Frequency("w"))
PRECISION = lmm("y ~ x + (1 | g)", weights=Precision("w"))
KNOWN = lmm("y ~ x + (1 | g)", residual=KnownVariances("w"))


def test_weights_become_counts_and_relative_variances():
    """w, 1/w and v as they stand; without weights there is neither."""
    counted, weighted, known = (build_lmm(spec, table(w=W)) for spec in (FREQUENCY, PRECISION, KNOWN))
    plain = build_lmm(lmm("y ~ x + (1 | g)"), table())

    assert_array_equal(counted.frequency, W)
    assert_array_equal(weighted.scale, 1 / W)
    assert_array_equal(known.scale, W)
    assert (counted.scale, weighted.frequency, known.frequency) == (None, None, None)
    assert (plain.frequency, plain.scale, plain.residual) == (None, None, None)


@pytest.mark.parametrize("spec", [FREQUENCY, PRECISION])
def test_22_a_weight_of_zero_drops_the_row_and_lists_it(spec):
    """HOSTILE 22: the design is that of the table without the row; lme4 gives another variance."""
    zero = set_at(set_at(table(w=W), 7, "w", 0.0), 30, "x", np.nan)

    design, without = build_lmm(spec, zero), build_lmm(spec, zero.drop(index=7))

    assert design.dropped.unweighted == (7,)
    assert design.dropped.rows == (30,)
    assert "1 row was left out because the weight w is 0: 7." in design.notes
    assert design.fingerprint == without.fingerprint
    for name in ("X", "y", "index"):
        assert_array_equal(getattr(design, name), getattr(without, name))


def test_a_group_whose_rows_all_have_weight_zero_goes():
    """Its level is not in the model."""
    design = build_lmm(PRECISION, table(w=np.where(np.arange(72) < 6, 0.0, 1.0)))

    assert "a00" not in design.factors[0].levels
    assert any("left out: a00" in note for note in design.notes)


REFUSED = [
    pytest.param(spec, value, message, id=f"{type(spec.weights).__name__} {value}")
    for spec in (FREQUENCY, PRECISION)
    for value, message in ((-1.0, "column w is negative in rows 5"), (np.inf, "column w is infinite in rows 5"))
] + [
    pytest.param(FREQUENCY, 2.5, r"whole number; column w holds 2.5 in rows 5.*hl.Precision\('w'\)", id="not whole"),
    pytest.param(KNOWN, -1.0, "column w is negative in rows 5", id="known negative"),
    pytest.param(KNOWN, 0.0, "column w is 0 in rows 5", id="known zero"),
    pytest.param(KNOWN, np.inf, "column w is infinite in rows 5", id="known infinite"),
]


@pytest.mark.parametrize(("spec", "value", "message"), REFUSED)
def test_23_values_that_are_no_weights_are_refused_and_named(spec, value, message):
    """HOSTILE 23, and its like."""
    with pytest.raises(DesignError, match=message):
        build_lmm(spec, set_at(table(w=W), 5, "w", value))


@pytest.mark.parametrize("spec", [FREQUENCY, PRECISION, KNOWN])
def test_weights_of_text_are_refused_and_missing_ones_drop_their_row(spec):
    """As any other column that the model reads."""
    with pytest.raises(DesignError, match="must be numeric; column w holds text"):
        build_lmm(spec, table(w="1"))

    design = build_lmm(spec, set_at(table(w=W), 5, "w", np.nan))

    assert (design.dropped.rows, design.dropped.columns) == ((5,), (("w",),))


def test_all_weights_zero_leave_no_rows():
    """Said as such."""
    with pytest.raises(DesignError, match="the data have 0; 72 rows have weight 0"):
        build_lmm(PRECISION, table(w=0.0))


def test_counted_rows_are_rows_where_numbers_of_rows_matter():
    """Two rows that count twice stand for four: more than two effects. Written out, the table is accepted too."""
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 5.0], "g": ["u", "u", "v"], "w": [2, 2, 2]})
    spec = lmm("y ~ x + I(x ** 2)", weights=Frequency("w"))

    assert build_lmm(spec, data).X.shape == (3, 3)
    with pytest.raises(DesignError, match="3 rows and 3 effects"):
        build_lmm(lmm("y ~ x + I(x ** 2)"), data)


TRANSFORMS = ["center(x)", "scale(x)", "poly(x, 2)", "bs(x, df=4)", "within(x, g)", "between(x, g)", "I(x * 2)"]


@pytest.mark.parametrize("term", TRANSFORMS)
def test_transforms_learn_from_rows_as_often_as_they_count(term):
    """A weight of 2 equals the row twice, also in the means and quantiles that a transform learns."""
    counted = table(w=W.astype(int))
    written = counted.loc[np.repeat(counted.index, counted["w"])].reset_index(drop=True)

    one = build_lmm(lmm(f"y ~ {term} + (1 | g)", weights=Frequency("w")), counted)
    other = build_lmm(lmm(f"y ~ {term} + (1 | g)"), written)

    assert_allclose(np.repeat(one.X, counted["w"], axis=0), other.X, rtol=1e-12, atol=1e-12)
    assert_allclose(encode(one, counted[:4]).X, encode(other, counted[:4]).X, rtol=1e-12, atol=1e-12)


def test_rows_of_their_own_groups_are_told_apart_by_their_weights():
    """σ²/w_i + τ² is determined where the w_i differ, or where variances are known; not where they are equal."""
    own = table(g=range(72), w=W)

    assert len(build_lmm(PRECISION, own).factors[0].levels) == 72
    assert len(build_lmm(KNOWN, own.assign(w=1.0)).factors[0].levels) == 72
    assert len(build_lmm(FREQUENCY, own).factors[0].levels) == 72  # rows that count twice share a group
    for spec in (PRECISION, FREQUENCY):
        with pytest.raises(DesignError, match="every row is a level of g of its own"):
            build_lmm(spec, own.assign(w=1.0))


def test_one_group_is_refused_unless_the_residual_variances_are_known():
    """HOSTILE 1. With known variances it is contained in the intercept, or a model of its own."""
    with pytest.raises(DesignError, match=r"2 levels.*g has the single level one"):
        build_lmm(PRECISION, table(g="one", w=W))
    with pytest.raises(DesignError, match="already give every level of g its own Intercept"):
        build_lmm(KNOWN, table(g="one", w=W))

    assert build_lmm(lmm("y ~ 0 + x + (1 | g)", residual=KnownVariances("w")), table(g="one", w=W)).factors


def test_new_rows_have_the_variance_of_their_own_weight():
    """1/w, or v; the column may be absent where only means are predicted."""
    new = table(w=W)[:3]
    for spec, scale in ((PRECISION, 1 / W[:3]), (KNOWN, W[:3]), (FREQUENCY, np.ones(3))):
        design = build_lmm(spec, table(w=W))
        assert_array_equal(observation_scale(design, encode(design, new)), scale)
    design = build_lmm(PRECISION, table(w=W))
    without = encode(design, new.drop(columns="w"))

    assert np.isnan(without.scale).all()
    with pytest.raises(DesignError, match=r'column w has no positive number in rows 0, 1, 2.*target="mean"'):
        observation_scale(design, without)
    assert np.isnan(encode(design, set_at(new, 1, "w", 0.0)).scale).tolist() == [False, True, False]


def test_weights_have_a_part_of_the_fingerprint_and_of_the_spec():
    """Fits that differ in them are different fits."""
    prints = [build(spec, table(w=W)).fingerprint for spec in (FREQUENCY, PRECISION, KNOWN)]
    plain = build(lmm("y ~ x + (1 | g)"), table(w=W)).fingerprint
    other = build(PRECISION, set_at(table(w=W), 3, "w", 9.0)).fingerprint

    assert len({one.spec for one in (*prints, plain)}) == 4
    assert plain.variances == ""
    assert prints[1].differences(other) == ("variances",)
