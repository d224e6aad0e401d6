"""Areas of two tables joined by their labels: never by position, never by likeness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hierlmm.errors import DesignError, SpecError
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.join import join_areas
from hierlmm.survey.smoothing import smooth_variances

DIRECT = pd.DataFrame({"area": ["b", "a", "c"], "y": [2.0, 1.0, 3.0], "n": [20, 10, 30]})
COVARIATES = pd.DataFrame({"area": ["c", "a", "b"], "x": [30, 10, 20], "N": [300, 100, 200]})


def test_areas_are_joined_by_label_in_the_order_of_the_covariates() -> None:
    """Rows are those of the covariates, or of the direct estimates on request; the numbers follow the labels."""
    joined = join_areas(DIRECT, COVARIATES, area="area")
    other = join_areas(DIRECT, COVARIATES, area="area", order="direct")

    assert joined["area"].tolist() == ["c", "a", "b"]
    assert joined["y"].tolist() == [3.0, 1.0, 2.0]
    assert other["area"].tolist() == ["b", "a", "c"]
    assert other["x"].tolist() == [20, 10, 30]
    assert joined.attrs["joined"]["areas"] == 3


@pytest.mark.parametrize("order", ["covariates", "direct"])
def test_areas_of_one_table_alone_are_refused_or_follow_the_choice(order: Any) -> None:
    """Named; dropped and listed; kept without an estimate and listed."""
    more = pd.concat([COVARIATES, pd.DataFrame({"area": ["z"], "x": [5], "N": [50]})])
    with pytest.raises(DesignError, match=r"z has none\. Use unsampled="):
        join_areas(DIRECT, more, area="area")
    with pytest.raises(DesignError, match="a is not among them"):
        join_areas(DIRECT, COVARIATES[COVARIATES["area"] != "a"], area="area")

    kept = join_areas(DIRECT, more, area="area", unsampled="synthetic", order=order).set_index("area")
    assert np.isnan(kept.loc["z", "y"])
    assert kept.loc["z", "x"] == 5
    assert kept["y"].drop("z").sort_index().tolist() == [1.0, 2.0, 3.0]
    assert kept.attrs["joined"]["without_estimate"] == ("z",)
    less = more[more["area"] != "a"]
    dropped = join_areas(DIRECT, less, area="area", unsampled="drop", uncovered="drop", order=order)
    assert sorted(dropped["area"]) == ["b", "c"]
    assert dropped.attrs["joined"]["dropped_from_direct"] == ("a",)
    assert dropped.attrs["joined"]["dropped_from_covariates"] == ("z",)


@pytest.mark.parametrize(
    ("ours", "theirs", "match"),
    [
        ([1, 2, 3], ["1", "2", "3"], "1 and '1'"),
        (["1", "2", "3"], [1, 2, 3], "'1' and 1"),
        (["a", "b", "c"], ["a ", "b", "c"], "'a' and 'a '"),
        (["\u00e9", "b", "c"], ["e\u0301", "b", "c"], "differ by type, blanks or Unicode form"),
        ([True, False], [1, 0], "True, False is not among them"),
        (["a", "a ", "c"], ["a", "b", "c"], "blanks around them or Unicode form"),
        (["a", "b", "a"], ["a", "b", "c"], "one row in the direct estimates; in area a stands more than once"),
        (["a", "b", "c"], ["a", "c", "c"], "one row in the covariates; in area c stands more than once"),
        (["a", None, "c"], ["a", "b", "c"], "the label in area is missing in rows 1"),
        (["a", "b", "c"], ["x", "y", "z"], "a, b, c is not among them"),
    ],
)
def test_labels_that_would_have_to_be_guessed_are_refused(ours: list[Any], theirs: list[Any], match: str) -> None:
    """A number and its text, blanks, two Unicode forms, truth values, doubled and missing labels."""
    with pytest.raises(DesignError, match=match):
        join_areas(
            pd.DataFrame({"area": ours, "y": range(len(ours))}),
            pd.DataFrame({"area": theirs, "x": range(len(theirs))}),
            area="area",
        )


def test_whole_numbers_are_equal_whatever_type_holds_them() -> None:
    """1.0 of a table with gaps is the area 1; the key keeps the type of the table whose order is taken."""
    ours = pd.DataFrame({"area": [1, 2], "y": [0.1, 0.2]})
    theirs = pd.DataFrame({"area": [2.0, 1.0], "x": [20, 10]})

    assert join_areas(ours, theirs, area="area")["area"].dtype == np.float64
    assert join_areas(ours, theirs, area="area", order="direct")["area"].dtype == np.int64
    assert join_areas(ours, theirs, area="area")["y"].tolist() == [0.2, 0.1]


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas])
def test_other_tables_at_the_door(make: Any) -> None:
    """polars and pyarrow on either side, and keys of different names."""
    plain = join_areas(DIRECT, COVARIATES, area="area")
    joined = join_areas(make(DIRECT), make(COVARIATES.rename(columns={"area": "id"})), area="area", covariate_area="id")

    assert joined.columns.tolist() == plain.columns.tolist()
    assert joined["y"].tolist() == plain["y"].tolist()
    assert joined["area"].tolist() == plain["area"].tolist()


def test_results_bring_their_columns() -> None:
    """Direct estimates and smoothed variances, whose area is called "area", under the name asked for."""
    records = pd.DataFrame({"district": np.repeat(["a", "b", "c"], 8), "y": np.random.default_rng(1).normal(size=24)})
    covariates = COVARIATES.rename(columns={"area": "district"})
    direct = direct_estimates(records, "y", area="district")
    joined = join_areas(direct, covariates, area="district", population="N")
    smoothed = join_areas(smooth_variances(direct_frame(direct)), covariates, area="district")

    assert joined.columns.tolist()[:4] == ["district", "estimate", "se", "variance"]
    assert joined.attrs["joined"]["direct"] == "mean of y"
    assert {"variance", "raw_variance", "smoothed_variance", "x"} <= set(smoothed.columns)


def direct_frame(direct: Any) -> pd.DataFrame:
    """Direct estimates as a table with sample sizes that differ, so that a variance function has a slope."""
    return direct.areas.assign(n=[5, 8, 11])


def test_columns_of_both_tables_and_populations_below_samples_are_refused() -> None:
    """By name; sizes by area with both numbers."""
    with pytest.raises(DesignError, match="both have y"):
        join_areas(DIRECT, COVARIATES.assign(y=1), area="area")
    with pytest.raises(DesignError, match=r"fewer in areas b \(N = 2, n = 20\)"):
        join_areas(DIRECT, COVARIATES.assign(N=[300, 100, 2]), area="area", population="N")
    with pytest.raises(DesignError, match="province is missing"):
        join_areas(DIRECT, COVARIATES, area="province")
    with pytest.raises(SpecError, match="`unsampled` is one of"):
        join_areas(DIRECT, COVARIATES, area="area", unsampled="keep")  # type: ignore[arg-type]
    with pytest.raises(DesignError, match=r"of 3 \(a, b, c\) none is among the 3 of the covariates"):
        join_areas(DIRECT.sort_values("area"), COVARIATES.assign(area=["x", "y", "z"]), area="area", uncovered="drop",
                   unsampled="drop")  # fmt: skip


def test_areas_in_the_index_and_doubled_columns_are_named() -> None:
    """The result of a groupby has its key in the index; a table with a column twice is refused."""
    with pytest.raises(DesignError, match=r"area is its index\. Call \.reset_index\(\)"):
        join_areas(DIRECT, COVARIATES.groupby("area").mean(), area="area")
    with pytest.raises(DesignError, match="x stands twice in the covariates"):
        join_areas(DIRECT, pd.concat([COVARIATES, COVARIATES[["x"]]], axis=1), area="area")
