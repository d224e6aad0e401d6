"""The rows as the covariance of their residuals sees them: groups, places and occasions, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from design_tables import set_at, table
from numpy.testing import assert_array_equal

from hierlmm.design import build, build_lmm
from hierlmm.errors import DesignError
from hierlmm.spec import (
    AR1,
    Antedependence,
    CompoundSymmetry,
    ContinuousAR1,
    HeterogeneousAR1,
    HeterogeneousCompoundSymmetry,
    KnownVariances,
    Stratified,
    Toeplitz,
    Unstructured,
    lmm,
)

T = np.tile(np.arange(6), 12)
DATA = table(t=T, h=np.tile(list("uvw"), 24), k=["p", "q"] * 36)
POSITIONS = [AR1, HeterogeneousAR1, Toeplitz]
OCCASIONS = [HeterogeneousCompoundSymmetry, Antedependence, Unstructured]


def rows_of(residual, data=DATA, formula="y ~ x"):
    return build_lmm(lmm(formula, residual=residual), data).residual


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions_are_whole_steps_from_the_first(kind):
    """Ages 8, 10, 12, ... are positions 0, 1, 2, ...; their labels stay, and the step is said."""
    design = build_lmm(lmm("y ~ x", residual=kind("g", "t")), DATA.assign(t=8 + 2 * T))
    rows = design.residual

    assert_array_equal(rows.place, T)
    assert_array_equal(rows.occasion, T)
    assert rows.occasions.tolist() == [8, 10, 12, 14, 16, 18]
    assert (rows.group, rows.levels.tolist()[:2]) == ("g", ["a00", "a01"])
    assert_array_equal(rows.codes, np.repeat(np.arange(12), 6))
    assert any("Positions of t are 2 apart (8, 10, 12, 14, 16 and 1 more)" in note for note in design.notes)


def test_places_keep_the_gaps_and_occasions_do_not():
    """Positions 0, 1, 4 of every group: places 0, 1, 4 and codes 0, 1, 2."""
    rows = rows_of(HeterogeneousAR1("g", "t"), DATA[np.isin(T, [0, 1, 4])])

    assert_array_equal(rows.place, np.tile([0, 1, 4], 12))
    assert_array_equal(rows.occasion, np.tile([0, 1, 2], 12))
    assert rows.occasions.tolist() == [0, 1, 4]


def test_positions_of_categories_are_those_of_their_declared_order():
    """One that occurs in no complete row keeps its place: waves 1 and 3 are two steps apart."""
    waves = pd.Categorical([f"wave {i}" for i in T], categories=[f"wave {i}" for i in (5, 4, 3, 2, 1, 0)])
    seen = np.isin(T, [0, 1, 3])

    rows = rows_of(AR1("g", "t"), DATA.assign(t=waves)[seen])

    assert rows.occasions.tolist() == ["wave 3", "wave 1", "wave 0"]
    assert_array_equal(rows.place, np.tile([3, 2, 0], 12))


def test_positions_of_text_are_those_of_its_sorted_labels_and_this_is_said():
    """Months sort by the alphabet: whoever reads the note sees it."""
    design = build_lmm(lmm("y ~ x", residual=AR1("g", "t")), DATA.assign(t=np.array(list("abcdef"))[T]))

    assert_array_equal(design.residual.place, T)
    assert any("in the order of the labels of t: a, b, c, d, e, f" in note for note in design.notes)


@pytest.mark.parametrize("kind", OCCASIONS)
def test_occasions_are_labels_in_their_order(kind):
    """Numbers that are no whole steps, text and categories."""
    labels = np.array([0.5, 1.0, 7.0, 7.5, 30.0, 100.0])[T]
    for data, found in (
        (DATA.assign(t=labels), [0.5, 1.0, 7.0, 7.5, 30.0, 100.0]),
        (DATA.assign(t=pd.Categorical(np.array(list("fedcba"))[T], categories=list("fedcba"))), list("fedcba")),
        (DATA.assign(t=pd.to_datetime("2020-01-01") + pd.to_timedelta(T, "D")), None),
    ):
        rows = rows_of(kind("g", "t"), data)
        assert_array_equal(rows.place, T)
        assert_array_equal(rows.occasion, T)
        assert found is None or rows.occasions.tolist() == found


def test_times_strata_and_symmetry():
    """Times as they are; strata without a group; compound symmetry without places."""
    times = rows_of(ContinuousAR1("g", "t"), DATA.assign(t=T**1.5))
    strata = rows_of(Stratified("h"))
    cells = rows_of(Stratified("h:k"))
    symmetric = rows_of(CompoundSymmetry("g:k"))

    assert_array_equal(times.place, T**1.5)
    assert len(times.occasions) == 0
    assert (strata.group, len(strata.levels), strata.occasions.tolist()) == ("", 0, ["u", "v", "w"])
    assert_array_equal(strata.occasion, np.tile([0, 1, 2], 24))
    assert cells.occasions.tolist() == ["u:p", "u:q", "v:p", "v:q", "w:p", "w:q"]
    assert len(symmetric.levels) == 24
    assert_array_equal(symmetric.place, np.zeros(72))


@pytest.mark.parametrize(
    "residual",
    [kind("g", "t") for kind in (*POSITIONS, *OCCASIONS, ContinuousAR1)] + [CompoundSymmetry("g"), Stratified("h")],
    ids=repr,
)
def test_the_order_of_the_rows_does_not_matter(residual):
    """The rows of a permuted table are the permuted rows."""
    order = np.random.default_rng(5).permutation(72)
    one, other = rows_of(residual), rows_of(residual, DATA.iloc[order])

    assert other.occasions.equals(one.occasions)
    assert other.levels.equals(one.levels)
    for name in ("codes", "place", "occasion"):
        array = getattr(one, name)
        assert_array_equal(getattr(other, name), array[order] if len(array) else array)


SITKA = np.array([152.0, 174.0, 201.0, 227.0, 258.0, 300.0])[T]
WITHOUT_12 = DATA[(T != 1) | (np.repeat(np.arange(12), 6) < 6)]
WITHOUT_12 = WITHOUT_12[(WITHOUT_12["t"] != 2) | (WITHOUT_12["g"] >= "a06")]
REFUSED = [
    pytest.param(
        AR1("g", "t"), DATA.assign(t=T // 2), "position must occur once.*a00 has 0 twice", id="position twice"
    ),
    pytest.param(
        ContinuousAR1("g", "t"), set_at(DATA, 1, "t", 0), "time must occur once.*a00 has 0.0 twice", id="time twice"
    ),
    pytest.param(
        Unstructured("g", "h"), DATA, "occasion must occur once.*a00 has u twice, a00 has v twice", id="occasion twice"
    ),
    pytest.param(AR1("g", "t"), DATA.assign(t=T + 0.5), "whole numbers; column t has 0.5, 1.5", id="not whole"),
    pytest.param(
        AR1("g", "t"),
        DATA.assign(t=SITKA),
        r"no two rows of one level of g are one step apart in column t, whose values are 152, 174.*ContinuousAR1",
        id="unequal spacing",
    ),
    pytest.param(Toeplitz("g", "t"), DATA.assign(t=SITKA), "one step apart", id="unequal spacing for Toeplitz"),
    pytest.param(
        Toeplitz("g", "t"), DATA[np.isin(T, [0, 1, 4])], "are 2 steps apart in column t", id="distance never seen"
    ),
    pytest.param(
        AR1("g", "t"), DATA.assign(t=pd.Timestamp("2020-01-01")), "holds dates.*number of days", id="dates as positions"
    ),
    pytest.param(
        ContinuousAR1("g", "t"), DATA.assign(t=pd.Timestamp("2020-01-01")), "holds dates.*dt.days", id="dates as times"
    ),
    pytest.param(ContinuousAR1("g", "h"), DATA, "Times must be numbers; column h holds text", id="times of text"),
    pytest.param(
        AR1("g", "t"),
        DATA.assign(t=np.array(["1", "2", "3", "9", "10", "11"])[T]),
        "numbers as text, which sort as 1, 10, 11, 2, 3",
        id="numbers as text",
    ),
    pytest.param(
        Unstructured("g", "t"), WITHOUT_12, "no level of g has both 1 and 2", id="a pair that is never seen together"
    ),
    pytest.param(
        Antedependence("g", "t"),
        DATA[np.where(np.arange(72) < 36, T < 2, np.isin(T, [2, 3]))],
        "no level of g has both 1 and 2",
        id="broken chain",
    ),
    pytest.param(
        Unstructured("g", "t"), DATA[:30], "6 occasions needs at least 6 groups.*g has 5", id="fewer groups than needed"
    ),
    pytest.param(Stratified("k"), DATA.assign(k="p"), "at least 2 strata; k has the single level p", id="one stratum"),
    pytest.param(
        HeterogeneousAR1("k", "t"),
        DATA.assign(k="p", t=range(72)),
        "HeterogeneousAR1 of 72 occasions has 73 parameters, and there are 72 rows",
        id="an occasion a row",
    ),
    pytest.param(
        ContinuousAR1("g", "t", nugget=True), DATA[T < 2], "all pairs are 1 apart. Use nugget=False", id="nugget"
    ),
    *(
        pytest.param(kind, DATA.assign(g=range(72)), "every row is a level of g of its own", id=f"{kind} singletons")
        for kind in (CompoundSymmetry("g"), AR1("g", "t"), Unstructured("g", "t"), ContinuousAR1("g", "t"))
    ),
    *(
        pytest.param(kind, DATA[:6], "needs at least 2 groups; g has the single level a00", id=f"{kind} one group")
        for kind in (CompoundSymmetry("g"), HeterogeneousCompoundSymmetry("g", "t"), Toeplitz("g", "t"))
    ),
]


@pytest.mark.parametrize(("residual", "data", "message"), REFUSED)
def test_rows_that_do_not_determine_the_structure_are_refused(residual, data, message):
    """Each refusal names groups, values and the way out."""
    with pytest.raises(DesignError, match=message):
        rows_of(residual, data)


def test_pairs_in_a_chain_may_replace_one_another():
    """Occasions 1 and 2 are never together, but 0 with 1, and 0 with 2: ρ01 and ρ01 ρ12 determine ρ12."""
    data = DATA.query("t < 3")
    data = data[(data["t"] != 1) | (data["g"] < "a06")]
    data = data[(data["t"] != 2) | (data["g"] >= "a06")]

    assert rows_of(Antedependence("g", "t"), data).occasions.tolist() == [0, 1, 2]


def test_one_long_series_is_enough_for_a_serial_correlation():
    """A single group of 72 rows."""
    data = DATA.assign(g="one", t=range(72))

    assert len(rows_of(AR1("g", "t"), data).levels) == 1
    assert len(rows_of(ContinuousAR1("g", "t", nugget=True), data).levels) == 1


@pytest.mark.parametrize("residual", [Stratified("h"), HeterogeneousCompoundSymmetry("g", "t")])
def test_a_variance_of_a_single_row_is_noted(residual):
    """Stratum or occasion."""
    name = "h" if isinstance(residual, Stratified) else "t"
    data = set_at(DATA.astype({"t": int}), 0, name, "x" if name == "h" else 9)

    notes = build_lmm(lmm("y ~ x", residual=residual), data).notes

    assert [note for note in notes if f"A single row determines the residual variance of {name}" in note]


def test_missing_values_of_the_structure_drop_their_rows():
    """As those of any other column that the model reads."""
    design = build_lmm(lmm("y ~ x", residual=AR1("g", "t")), set_at(DATA.astype({"t": float}), 3, "t", np.nan))

    assert (design.dropped.rows, design.dropped.columns) == ((3,), (("t",),))
    assert design.residual.place[:5].tolist() == [0, 1, 2, 4, 5]


def test_independent_and_known_residuals_have_no_rows_of_their_own():
    """None, which is what a criterion of independent rows looks for."""
    assert rows_of(KnownVariances("w"), DATA.assign(w=1.0)) is None


def test_the_structure_is_part_of_the_fingerprint():
    """Its kind in the spec, its columns with the predictors."""
    base = build(lmm("y ~ x", residual=AR1("g", "t")), DATA).fingerprint

    other = build(lmm("y ~ x", residual=Toeplitz("g", "t")), DATA).fingerprint
    moved = build(lmm("y ~ x", residual=AR1("g", "t")), DATA.assign(t=2 * T)).fingerprint

    assert base.differences(other) == ("spec",)
    assert base.differences(moved) == ("predictors",)
