"""within(x, g) and between(x, g): deviations from group means and the means, in the fit and for new rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from design_tables import set_at, table
from numpy.testing import assert_allclose, assert_array_equal

import hierlmm as hl
from hierlmm.design import build_lmm, encode
from hierlmm.errors import DesignError
from hierlmm.spec import lmm

ROWS = np.arange(72)
DATA = table(z=np.cos(ROWS), n=np.repeat(np.arange(12) * 7, 6), k=["p", "q"] * 36)
MEAN = DATA.groupby("g")["x"].transform("mean").to_numpy()
SPEC = lmm("y ~ within(x, g) + between(x, g) + (1 | g)")


def test_columns_are_deviations_and_means():
    """Against pandas' group means; names as the formula writes them."""
    design = build_lmm(SPEC, DATA)

    assert design.fixed == ("Intercept", "within(x, g)", "between(x, g)")
    assert_allclose(design.X[:, 1], DATA["x"] - MEAN, rtol=1e-13, atol=1e-15)
    assert_allclose(design.X[:, 2], MEAN, rtol=1e-13)


def test_expressions_interactions_and_coefficients():
    """within(log(..), g), within(x, g):z, (1 + within(x, g) | g), and arithmetic around it."""
    spec = lmm("y ~ within(exp(x), g):z + I(between(x, g) ** 2) + (1 + within(x, g) | g)")
    e = np.exp(DATA["x"])

    design = build_lmm(spec, DATA)

    assert design.fixed == ("Intercept", "I(between(x, g) ** 2)", "within(exp(x), g):z")
    assert_allclose(design.X[:, 2], (e - e.groupby(DATA["g"]).transform("mean")) * DATA["z"], rtol=1e-12)
    assert_allclose(design.X[:, 1], MEAN**2, rtol=1e-12)
    assert design.factors[0].coefficients == ("Intercept", "within(x, g)")
    assert_allclose(design.factors[0].Z[:, 1], DATA["x"] - MEAN, rtol=1e-12, atol=1e-15)


def test_digits_are_kept_far_from_zero():
    """x + 2^33 is exact for these x: the deviations are those of x to the last bits of x + 2^33."""
    x = np.round(DATA["x"] * 1024) / 1024

    near, far = (build_lmm(SPEC, DATA.assign(x=x + shift)).X[:, 1] for shift in (0.0, 2.0**33))

    assert_allclose(far, near, rtol=0, atol=1e-15)


@pytest.mark.parametrize("convert", [None, pl.from_pandas, lambda d: d.astype({"g": "category"})])
@pytest.mark.parametrize("group", ["g", "n"])
def test_groups_are_labels_of_any_kind(group, convert):
    """Text, categories and numbers; the grouping column need not be a grouping factor."""
    data = DATA if convert is None else convert(DATA)

    design = build_lmm(lmm(f"y ~ within(x, {group}) + (1 | k)"), data)

    assert_allclose(design.X[:, 1], DATA["x"] - MEAN, rtol=1e-13, atol=1e-15)


def test_a_grouping_column_may_be_a_predictor_too():
    """Its own levels are coded as ever."""
    design = build_lmm(lmm("y ~ k + within(x, k) + (1 | g)"), DATA)

    assert design.fixed == ("Intercept", "k[T.q]", "within(x, k)")
    assert_allclose(design.X[:, 2], DATA["x"] - DATA.groupby("k")["x"].transform("mean"), rtol=1e-12, atol=1e-15)


def test_rows_with_missing_values_have_no_part_in_the_means():
    """They are dropped first, whatever is missing."""
    gaps = set_at(set_at(DATA, 0, "y", np.nan), 9, "x", np.nan)
    kept = gaps.dropna()

    design = build_lmm(SPEC, gaps)

    assert_allclose(design.X[:, 2], kept.groupby("g")["x"].transform("mean"), rtol=1e-13)


def test_new_rows_of_known_groups_take_the_means_of_the_fit():
    """One row of a00 alone is not its own mean; also where the design makes its coding again, as one that was read."""
    design = build_lmm(SPEC, DATA)
    new = pd.DataFrame({"g": ["a00", "a05"], "x": [5.0, -1.0]})
    want = np.column_stack([[1, 1], new["x"] - MEAN[[0, 30]], MEAN[[0, 30]]])

    for one in (design, replace(design, coding=None)):
        rows = encode(one, new)
        assert_allclose(rows.X, want, rtol=1e-12)
        assert rows.notes == ()
    assert_allclose(encode(design, DATA[::-1]).X, design.X[::-1], rtol=1e-13, atol=1e-15)


def test_new_groups_take_the_means_of_their_rows_given():
    """Said in the notes, by name; unused categories of the fit's column make no difference."""
    new = pd.DataFrame({"g": ["zz", "a00", "zz", "yy"], "x": [5.0, 0.0, 7.0, 2.0]})
    for data in (DATA, DATA.astype({"g": "category"})):
        rows = encode(build_lmm(SPEC, data), new)

        assert_allclose(rows.X[:, 2], [6.0, MEAN[0], 6.0, 2.0], rtol=1e-13)
        assert_allclose(rows.X[:, 1], [-1.0, -MEAN[0], 1.0, 0.0], rtol=1e-13)
        assert rows.notes == (
            "Levels of g that are not in the fit (yy, zz): within(...) and between(...) take their means over the rows "
            "given here.",
        )


def test_keys_of_another_kind_and_keys_that_look_alike_are_refused():
    """As for a grouping factor."""
    design = build_lmm(lmm("y ~ within(x, n) + (1 | g)"), DATA)

    with pytest.raises(DesignError, match="column n had numbers such as 0, 7 and now has text"):
        encode(design, DATA.assign(n=DATA["n"].astype(str)))
    with pytest.raises(DesignError, match="column k has ' p' and 'p'"):
        build_lmm(lmm("y ~ within(x, k) + (1 | g)"), DATA.assign(k=["p", " p"] * 36))
    with pytest.raises(DesignError, match=r"computed from numbers.* k"):
        build_lmm(lmm("y ~ within(k, g) + (1 | g)"), DATA)


def test_predictions_of_new_groups_say_how_they_were_centred(tmp_path):
    """In attrs; a fit that was read predicts the same."""
    fit = hl.fit(SPEC, DATA)
    new = pd.DataFrame({"g": ["zz", "a00"], "x": [5.0, 0.0]})
    fit.save(tmp_path / "f.hlm")

    frame = fit.predict(new, new_levels="population")
    again = hl.read(tmp_path / "f.hlm").predict(new, new_levels="population")

    assert "not in the fit (zz)" in frame.attrs["group_means"]
    assert "group_means" not in fit.predict(new[1:]).attrs
    assert_array_equal(again["estimate"], frame["estimate"])
    at = np.array([1.0, 0.0, 5.0])
    assert_allclose(frame["estimate"][0], at @ fit.beta, rtol=1e-12)


def test_the_contextual_effect_is_between_less_within():
    """y ~ within + between and y ~ x + between span one space: within = x - between (Mundlak 1978, Econometrica 46).

    Criterion and predictions agree; the coefficient of between in the second is the difference in the first.
    """
    split, contextual = (
        hl.fit(lmm(f"y ~ {fixed} + (1 | g)"), DATA) for fixed in ("within(x, g) + between(x, g)", "x + between(x, g)")
    )

    assert_allclose(split.objective, contextual.objective, rtol=1e-9)
    assert_allclose(split.beta[2] - split.beta[1], contextual.beta[2], rtol=1e-7)
    assert_allclose(split.beta[1], contextual.beta[1], rtol=1e-7)
    assert_allclose(split.predict()["estimate"], contextual.predict()["estimate"], rtol=1e-7)


def test_the_within_effect_is_that_of_regression_on_group_dummies():
    """The within coefficient of a balanced-or-not linear model is the fixed-effects (least squares dummy) estimate."""
    fit = hl.fit(SPEC, DATA)
    dummies = np.column_stack([DATA["x"], pd.get_dummies(DATA["g"]).to_numpy(dtype=float)])
    slope = np.linalg.lstsq(dummies, DATA["y"].to_numpy(), rcond=None)[0][0]

    assert_allclose(fit.beta[1], slope, rtol=1e-9)
