"""Survey records as they arrive: missing values, codes, weights, sizes and labels that are not what they should be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hierlmm.errors import DesignError, SpecError
from hierlmm.survey.direct import direct_estimates

RECORDS = pd.DataFrame(
    {
        "area": ["b", "b", "a", "a", "c", "c", "c"],
        "y": [1.0, 2.0, 3.0, 5.0, 4.0, 4.5, 6.0],
        "poor": [0, 1, 0, 1, 1, 0, 0],
        "w": [10.0, 20.0, 15.0, 12.0, 30.0, 25.0, 11.0],
        "stratum": ["u", "v", "u", "u", "v", "v", "u"],
    },
    index=list("tuvwxyz"),
)


def test_missing_values_and_weights_of_zero_are_left_out_and_listed() -> None:
    """The estimates are those of the records that remain; the rows are named by their labels."""
    gaps = RECORDS.astype({"area": object}).copy()
    gaps.loc["t", "y"] = np.nan
    gaps.loc["x", "w"] = np.nan
    gaps.loc["y", "w"] = 0.0
    gaps.loc["v", "area"] = " "
    direct = direct_estimates(gaps, "y", area="area", weights="w")
    rest = direct_estimates(RECORDS.loc[["u", "w", "z"]], "y", area="area", weights="w")

    assert direct.dropped.rows == ("t", "v", "x")
    assert direct.dropped.columns == (("y",), ("area",), ("w",))
    assert direct.dropped.unweighted == ("y",)
    np.testing.assert_array_equal(direct.estimate, rest.estimate)
    assert "3 records left out for missing values in y, area, w: rows t, v, x." in direct.summary()
    assert "1 record of weight 0 left out: rows y." in direct.summary()


def test_an_area_of_one_record_has_an_estimate_and_no_variance() -> None:
    """nan with a role and a sentence; an area whose records are all incomplete stays in the table."""
    gaps = RECORDS.drop("w").assign(y=lambda d: d["y"].where(d["area"] != "b"))
    direct = direct_estimates(gaps, "y", area="area")

    assert direct.areas["area"].tolist() == ["a", "b", "c"]
    assert direct.role.tolist() == ["single_unit", "no_records", "estimated"]
    assert direct.estimate[0] == 3.0
    assert np.isnan(direct.variance[:2]).all()
    assert np.isnan(direct.lower[:2]).all()
    assert direct.areas.loc[1, ["estimate", "se", "design_effect", "weighting_effect", "effective_size"]].isna().all()
    assert direct.interval.tolist() == ["", "", "t"]
    assert any("from a single record" in note and note.endswith("areas a.") for note in direct.notes)
    assert any("no estimate: b" in note for note in direct.notes)


def test_an_area_within_one_unit_of_the_sample_has_no_variance() -> None:
    """A Hájek mean leaves a residual of 0 in the only cluster that holds it: no variance."""
    records = RECORDS.assign(psu=[1, 1, 1, 2, 2, 2, 3])
    direct = direct_estimates(records, "y", area="area", clusters="psu", areas="domains")

    assert direct.units.tolist() == [2, 1, 2]
    assert direct.role.tolist() == ["estimated", "single_unit", "estimated"]
    assert any("primary sampling unit" in note for note in direct.notes)


@pytest.mark.parametrize("make", [pl.from_pandas, lambda d: pl.from_pandas(d).lazy(), pa.Table.from_pandas])
def test_other_tables_give_the_same_estimates(make: object) -> None:
    """polars, eager and lazy, and pyarrow at the door."""
    table = make(RECORDS.reset_index(drop=True))  # type: ignore[operator]
    direct = direct_estimates(table, "y", area="area", weights="w")
    same = direct_estimates(RECORDS, "y", area="area", weights="w")

    pd.testing.assert_frame_equal(direct.areas, same.areas)


def test_areas_keep_their_type_and_the_order_of_categories() -> None:
    """Whole numbers stay numbers, and declared categories come in their order, unused ones not at all."""
    numbered = direct_estimates(RECORDS.assign(area=[2, 2, 1, 1, 10, 10, 10]), "y", area="area")
    order = pd.CategoricalDtype(["c", "x", "a", "b"])
    declared = direct_estimates(RECORDS.astype({"area": order}), "y", area="area")

    assert numbered.areas["area"].tolist() == [1, 2, 10]
    assert numbered.areas["area"].dtype == np.int64
    assert declared.areas["area"].tolist() == ["c", "a", "b"]


def test_codes_in_a_variable_of_zeros_and_ones() -> None:
    """8 and 9 for "not known": refused in a proportion, said in a mean, left out on request (and listed)."""
    coded = RECORDS.assign(poor=[0, 1, 0, 8, 1, 9, 0])

    with pytest.raises(DesignError, match=r"has 8 \(1 record\), 9 \(1 record\)"):
        direct_estimates(coded, "poor", area="area", quantity="proportion")
    assert any("look like codes" in note for note in direct_estimates(coded, "poor", area="area").notes)
    direct = direct_estimates(coded, "poor", area="area", quantity="proportion", missing_codes=(8, 9))
    assert direct.dropped.rows == ("w", "y")
    assert direct.n.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (["yes", "no"] * 3 + ["no"], "holds text such as 'yes', 'no'"),
        ([1.0, np.inf, 0, 0, 1, 1, 0], "infinite in rows u"),
        ([0.5, 1, 0, 0, 1, 1, 0], r"has 0.5 \(1 record\)"),
        ([50.0, 100, 0, 0, 100, 100, 0], r"has 50 \(1 record\), 100"),
    ],
)
def test_what_is_no_proportion_is_refused(values: list[object], match: str) -> None:
    """Text, infinite values, fractions and per cent, named with their rows or counts."""
    with pytest.raises(DesignError, match=match):
        direct_estimates(RECORDS.assign(poor=values), "poor", area="area", quantity="proportion")


def test_weights_that_cannot_be() -> None:
    """Negative, infinite, text; below 1 as inverse probabilities; another unit than the population sizes."""
    N = {"a": 40, "b": 40, "c": 70}
    for value, match in ((-1.0, "negative in rows t"), (np.inf, "infinite in rows t")):
        wrong = RECORDS.assign(w=RECORDS["w"].where(RECORDS.index != "t", value))
        with pytest.raises(DesignError, match=match):
            direct_estimates(wrong, "y", area="area", weights="w")
    with pytest.raises(DesignError, match="column w holds text"):
        direct_estimates(RECORDS.assign(w="heavy"), "y", area="area", weights="w")
    with pytest.raises(DesignError, match="7 weights in column w are below 1"):
        direct_estimates(
            RECORDS.assign(w=RECORDS["w"] / 100), "y", area="area", weights="w", quantity="total", variance="poisson"
        )
    with pytest.raises(DesignError, match="column w sums to 123000 and the population sizes to 150"):
        direct_estimates(
            RECORDS.assign(w=1000 * RECORDS["w"]),
            "y",
            area="area",
            weights="w",
            population=N,
            estimator="horvitz_thompson",
        )


def test_weights_that_look_unscaled_are_named() -> None:
    """Whole numbers of mean about a million, as v005 of the DHS files; and sums far from known sizes."""
    dhs = RECORDS.assign(w=(RECORDS["w"] * 57_000).round())
    notes = direct_estimates(dhs, "y", area="area", weights="w").notes
    assert any("to be divided by it. Means do not change." in note for note in notes)
    notes = direct_estimates(dhs, "y", area="area", weights="w", quantity="total").notes
    assert any("Totals are then a million times too large." in note for note in notes)
    notes = direct_estimates(RECORDS, "y", area="area", weights="w", population={"a": 27, "b": 30, "c": 166}).notes
    assert any("in areas c (0.398)" in note for note in notes)
    assert direct_estimates(RECORDS, "y", area="area", weights="w").notes == ()


def test_totals_of_weights_that_count_no_population_say_so() -> None:
    """Weights of mean 1, as of DHS files once divided by a million; and weights of records that are not there."""
    scaled = RECORDS.assign(w=RECORDS["w"] / RECORDS["w"].mean())
    notes = direct_estimates(scaled, "y", area="area", weights="w", quantity="total").notes
    assert any("in w 4 of 7 are below 1, and all sum to 7." in note for note in notes)
    assert direct_estimates(scaled, "y", area="area", weights="w").notes == ()
    gaps = RECORDS.assign(y=RECORDS["y"].where(RECORDS.index != "x"))
    notes = direct_estimates(gaps, "y", area="area", weights="w", quantity="total").notes
    assert any("1 record with missing values, which a Horvitz-Thompson estimate so counts as 0" in n for n in notes)
    assert direct_estimates(gaps, "y", area="area", weights="w").notes == ()


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_weights_of_any_unit_give_the_same_means(unit: float) -> None:
    """Their squares leave the range of doubles: Kish's design effect, too, is one of shares."""
    first = direct_estimates(RECORDS, "y", area="area", weights="w").areas
    second = direct_estimates(RECORDS.assign(w=RECORDS["w"] * unit), "y", area="area", weights="w").areas

    for column in ("estimate", "se", "design_effect", "weighting_effect"):
        np.testing.assert_allclose(second[column], first[column], rtol=1e-12)


def test_zeros_and_ones_taken_as_any_other_number_are_named() -> None:
    """The mean of a 0/1 variable has limits of a proportion only when it is called one."""
    assert any('quantity="proportion"' in note for note in direct_estimates(RECORDS, "poor", area="area").notes)
    assert not direct_estimates(RECORDS, "poor", area="area", quantity="proportion").notes


def test_clusters_that_cross_areas_are_named() -> None:
    """Without strata each area is one, and a label in two areas two clusters."""
    records = RECORDS.assign(psu=[1, 2, 1, 3, 4, 5, 6])
    notes = direct_estimates(records, "y", area="area", clusters="psu").notes
    assert any("1 label of psu occurs in more than one area" in note for note in notes)
    assert direct_estimates(records, "y", area="area", clusters="psu", areas="domains").notes == ()


def test_population_sizes_come_by_key() -> None:
    """A column, a mapping, a Series and a table give the same; areas without records are named."""
    N = pd.Series({"c": 70.0, "z": 5.0, "a": 40.0, "b": 35.0}, name="N")
    table = N.rename_axis("area").reset_index()
    column = RECORDS.assign(N=RECORDS["area"].map(N))
    results = [
        direct_estimates(column, "y", area="area", population=N_)
        for N_ in (N, N.to_dict(), table, pl.from_pandas(table))
    ]
    by_column = direct_estimates(column, "y", area="area", population="N")

    for result in results:
        pd.testing.assert_frame_equal(result.areas, by_column.areas)
        assert any("no direct estimate: z" in note for note in result.notes)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"a": 40, "b": 35}, "c has none"),
        ({"a": 40, "b": 35, "c": 2}, r"fewer in areas c \(N = 2, n = 3\)"),
        ({"a": 40, "b": 35, "c": -7}, r"not for areas c \(-7\)"),
        ({"a": 40, "b": np.nan, "c": 7}, r"not for areas b \(nan\)"),
        ({"a": 40, "b": 35, "c ": 70}, "differ by type, blanks or Unicode form alone"),
        (pd.Series([1.0, 2, 3, 4], index=list("abca")), "a stands more than once"),
        (pd.Series(["1", "2", "3"], index=list("abc")), "must be numeric"),
        (pd.DataFrame({"area": ["a"], "N": [1], "M": [1]}), "a table of two columns"),
    ],
)
def test_population_sizes_that_do_not_fit_are_refused(sizes: object, match: str) -> None:
    """By the names of the areas."""
    with pytest.raises(DesignError, match=match):
        direct_estimates(RECORDS, "y", area="area", population=sizes)


def test_sizes_in_a_column_are_one_number_an_area() -> None:
    """A column that varies within an area is no size of it."""
    with pytest.raises(DesignError, match="several in areas a, c"):
        direct_estimates(RECORDS.assign(N=[50, 50, 50, 60, 50, 50, 70]), "y", area="area", population="N")


def test_labels_that_differ_by_blanks_alone_are_refused() -> None:
    """ "a" and "a " in the records would be two areas."""
    with pytest.raises(DesignError, match="blanks around them"):
        direct_estimates(RECORDS.assign(area=["a ", "b", "a", "a", "c", "c", "c"]), "y", area="area")


def test_single_units_in_strata_are_named_or_follow_the_policy() -> None:
    """A stratum of one unit by its name; crossed with areas, both names; "missing" takes the variance away."""
    alone = RECORDS.assign(stratum=["u", "q", "u", "u", "v", "v", "u"])
    with pytest.raises(DesignError, match="one in stratum q\\. Join"):
        direct_estimates(alone, "y", area="area", strata="stratum")
    with pytest.raises(DesignError, match="stratum u of area b, stratum q of area b, stratum u of area c"):
        direct_estimates(alone, "y", area="area", strata="stratum", areas="strata")
    gaps = RECORDS.assign(y=RECORDS["y"].where(~RECORDS.index.isin(["u", "x"])))
    with pytest.raises(DesignError, match="one in stratum v once 2 records with missing values or weight 0 are left"):
        direct_estimates(gaps, "y", area="area", strata="stratum")
    direct = direct_estimates(alone, "y", area="area", strata="stratum", single_psu="missing")
    assert direct.role.tolist() == ["estimated", "single_unit", "estimated"]


def test_records_without_a_complete_row_are_refused() -> None:
    """And so is a table that has none of the columns."""
    with pytest.raises(DesignError, match="none of 7 is complete"):
        direct_estimates(RECORDS.assign(y=np.nan), "y", area="area")
    with pytest.raises(DesignError, match="income is missing"):
        direct_estimates(RECORDS, "income", area="area")


def test_arguments_that_are_no_names_or_lists_are_refused() -> None:
    """One column in two roles, codes that are text, an argument that does not exist, values whose squares overflow."""
    with pytest.raises(SpecError, match="variable and the weights are different columns; both are 'y'"):
        direct_estimates(RECORDS, "y", area="area", weights="y")
    for codes in ("89", 8, (float("nan"),)):
        with pytest.raises(SpecError, match="`missing_codes` is a sequence of numbers"):
            direct_estimates(RECORDS, "y", area="area", missing_codes=codes)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weigths"):
        direct_estimates(RECORDS, "y", area="area", weigths="w")  # type: ignore[call-arg]
    for unit in (1e150, 1e-150):
        with pytest.raises(DesignError, match="Choose another unit"):
            direct_estimates(RECORDS.assign(y=RECORDS["y"] * unit), "y", area="area")
    with pytest.raises(DesignError, match="with the labels of their areas"):
        direct_estimates(RECORDS, "y", area="area", population=[40, 35, 70])
