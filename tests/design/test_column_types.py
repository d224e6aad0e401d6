"""Columns of every type and tables of every library: converted exactly, or refused by name (hostile inputs 43, 44)."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from design_tables import INTERCEPTS, table
from numpy.testing import assert_array_equal

from hierlmm.design import build, build_lmm
from hierlmm.errors import DesignError
from hierlmm.spec import lmm

X = table()["x"].to_numpy()


def case(number, *values):
    return pytest.param(*values, id=number)


CONVERTED = [
    case("bool", X > 0, (X > 0).astype(float)),
    case("object bool", (X > 0).astype(object), (X > 0).astype(float)),
    case("nullable bool", pd.array(X > 0, dtype="boolean"), (X > 0).astype(float)),
    case("Decimal", [Decimal(str(v)) for v in X], X),
    case("float16", X.astype(np.float16), X.astype(np.float16).astype(float)),
    case("float32", X.astype(np.float32), X.astype(np.float32).astype(float)),
    case("long double of a double", X.astype(np.longdouble), X),
    case("int8", np.arange(72).astype(np.int8), np.arange(72.0)),
    case("uint64", np.arange(72).astype(np.uint64), np.arange(72.0)),
    case("masked int", pd.array(np.arange(72), dtype="Int32"), np.arange(72.0)),
    case("masked float", pd.array(X, dtype="Float64"), X),
    case("arrow float", pd.array(X, dtype="double[pyarrow]"), X),
    case("arrow int", pd.array(np.arange(72), dtype="int16[pyarrow]"), np.arange(72.0)),
    case("arrow decimal", pd.array([Decimal(str(v)) for v in X], dtype=pd.ArrowDtype(pa.decimal128(10, 3))), X),
    case("object", X.astype(object), X),
    case(
        "object of ints and floats",
        [int(v * 10) if i % 2 else float(v) for i, v in enumerate(X)],
        [float(int(v * 10)) if i % 2 else v for i, v in enumerate(X)],
    ),
    case("sparse", pd.arrays.SparseArray(X), X),
]


@pytest.mark.parametrize(("column", "exact"), CONVERTED)
def test_numbers_of_any_type_are_converted_exactly(column, exact):
    """43: every kind of numeric column gives the doubles it stands for."""
    assert_array_equal(build_lmm(INTERCEPTS, table(x=column)).X[:, 1], exact)


@pytest.mark.parametrize(
    "dtype",
    [
        object,
        "str",
        "string",
        "string[pyarrow]",
        "category",
        pd.ArrowDtype(pa.string()),
        pd.ArrowDtype(pa.large_string()),
    ],
)
def test_text_of_any_type_is_categorical(dtype):
    """43: formulaic reads pandas `string` columns as numbers."""
    design = build_lmm(lmm("y ~ h + (1 | g)"), table(h=pd.Series(["u", "v"] * 36).astype(dtype)))

    assert design.fixed == ("Intercept", "h[T.v]")
    assert design.levels == {"h": ("u", "v")}


@pytest.mark.parametrize(
    "missing",
    [
        pd.array([None, 2, *range(70)], dtype="Int64"),
        [None, True] + [False] * 70,
        [Decimal("NaN"), Decimal(2)] + [Decimal(i) for i in range(70)],
    ],
)
def test_missing_values_of_any_type_are_missing(missing):
    """43: pandas' NA, None, and the NaN of other types."""
    assert build_lmm(INTERCEPTS, table(x=missing)).dropped.rows == (0,)


def test_long_double_that_no_double_holds_is_refused():
    """43: exactly or not at all. (Where long double is double there is nothing to refuse.)"""
    x = np.arange(72).astype(np.longdouble) + np.longdouble(1) / 3
    if np.longdouble(1) / 3 == 1 / 3:
        return

    with pytest.raises(DesignError, match="column x of type"):
        build_lmm(INTERCEPTS, table(x=x))


@pytest.mark.parametrize("stamp", [pd.Timestamp, datetime.datetime, datetime.date])
def test_dates_may_name_groups(stamp):
    """43: a date is a label as good as another."""
    days = [stamp(2020, 1, 1 + i % 12) for i in range(72)]

    levels = build_lmm(INTERCEPTS, table(g=days)).factors[0].levels

    assert levels.tolist() == [pd.Timestamp(2020, 1, day) for day in range(1, 13)]


GROUPS = [
    case("dates with a zone", pd.date_range("2020", periods=12, tz="UTC").repeat(6)),
    case("periods", pd.period_range("2020", periods=12, freq="M").repeat(6)),
    case(
        "Arrow dates", pd.array([datetime.date(2020, 1, 1 + i // 6) for i in range(72)], dtype="date32[day][pyarrow]")
    ),
    case("large unsigned", np.repeat(np.arange(12, dtype=np.uint64) + np.uint64(2**63), 6)),
    case("large signed", np.repeat(np.arange(12) + 2**60, 6)),
    case("doubles", np.repeat(np.arange(12) + 0.5, 6)),
    case("float categories", pd.Categorical(np.repeat(np.arange(12.0), 6))),
    case("bins", pd.cut(np.repeat(np.arange(12), 6), 12)),
    case("whole numbers", [i // 6 for i in range(72)]),
]


@pytest.mark.parametrize("g", GROUPS)
def test_labels_of_any_type_name_the_same_groups(g):
    """Twelve groups of six rows, in the order of the labels; the kept table gives them again."""
    design = build_lmm(INTERCEPTS, table(g=g))

    assert_array_equal(design.factors[0].codes, np.repeat(np.arange(12), 6))
    assert design.factors[0].levels.is_unique
    assert build_lmm(INTERCEPTS, design.table).fingerprint == design.fingerprint


def test_whole_float_categories_are_named_as_whole_numbers():
    """1.0, 2.0 is what a gap makes of 1, 2."""
    design = build_lmm(lmm("y ~ k + (1 | g)"), table(k=pd.Categorical([1.0, 2.0] * 36)))

    assert design.fixed == ("Intercept", "k[T.2]")


def test_a_column_of_nulls_leaves_no_rows():
    """Arrow has a type for it."""
    data = pa.Table.from_pandas(table()).drop_columns("x").append_column("x", pa.nulls(72))

    with pytest.raises(DesignError, match="72 rows were dropped for missing values in x"):
        build_lmm(INTERCEPTS, data)


def test_intervals_are_no_predictor():
    """Unless as categories."""
    with pytest.raises(DesignError, match="column x holds interval"):
        build_lmm(INTERCEPTS, table(x=pd.IntervalIndex.from_breaks(range(73))))


NOT_TABLES = [
    case("dict", {"g": ["a"], "x": [1.0], "y": [2.0]}),
    case("array", np.zeros((3, 3))),
    case("series", pd.Series([1.0])),
    case("path", "milk.csv"),
    case("None", None),
    case("polars series", pl.Series("x", [1.0])),
    case("list", [1, 2]),
]


@pytest.mark.parametrize("data", NOT_TABLES)
def test_anything_but_a_table_is_refused_by_name(data):
    """The message says what is accepted."""
    with pytest.raises(DesignError, match="pandas DataFrame, a polars DataFrame or LazyFrame, or a pyarrow Table"):
        build(INTERCEPTS, data)


ARROW_ONLY = [
    case("list column", pa.table({"g": table()["g"], "x": [[1.0]] * 72, "y": X}), "column x holds list"),
    case("binary column", pa.table({"g": table()["g"], "x": [b"1"] * 72, "y": X}), "column x holds binary"),
    case(
        "time of day",
        pl.DataFrame({"g": table()["g"].tolist(), "x": [datetime.time(1)] * 72, "y": X}),
        "column x holds time",
    ),
    case("a name twice", pa.Table.from_arrays([pa.array(X)] * 4, names=["g", "x", "x", "y"]), "x stands 2 times"),
    case("missing name", pl.DataFrame({"g": ["a"], "y": [1.0]}), "x is missing"),
    case("missing name, lazy", pl.LazyFrame({"g": ["a"], "y": [1.0]}), "x is missing"),
    case(
        "Python objects",
        pl.DataFrame({"g": table()["g"].tolist(), "x": pl.Series([object()] * 72, dtype=pl.Object), "y": X}),
        "column x holds objects",
    ),
]


@pytest.mark.parametrize(("data", "message"), ARROW_ONLY)
def test_columns_of_polars_and_pyarrow_that_no_model_can_use_are_refused(data, message):
    """43 and 44 for the other libraries."""
    with pytest.raises(DesignError, match=message):
        build(INTERCEPTS, data)
