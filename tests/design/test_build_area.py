"""Area-level designs: order, roles, and what the areas outside the fit may not decide."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from design_tables import area_spec, areas, set_at
from numpy.testing import assert_array_equal

from hierlmm.design import build_area
from hierlmm.errors import DesignError


def test_areas_stay_in_table_order_with_their_keys():
    """Key type of the input; nothing is sorted."""
    design = build_area(area_spec(), areas(area=[30, 10, 20, *range(100, 107)]))

    assert design.areas.tolist() == [30, 10, 20, *range(100, 107)]
    assert design.areas.dtype == np.int64
    assert_array_equal(design.X, np.column_stack([np.ones(10), areas()["x"]]))
    assert_array_equal(design.y, areas()["y"])
    assert_array_equal(design.D, areas()["D"])
    assert design.sampled.all()


def test_a_missing_covariate_or_label_is_refused_or_drops_the_row():
    """Listed by row label; the unsampled policy does not extend to covariates."""
    data = set_at(set_at(areas(), 2, "x", np.nan), 5, "area", "")

    design = build_area(area_spec(unsampled="synthetic", missing_covariates="drop"), data)

    with pytest.raises(DesignError, match=r"x, area is missing for areas area 2 and rows 5.*missing_covariates"):
        build_area(area_spec(unsampled="synthetic"), data)
    assert design.dropped.rows == (2, 5)
    assert design.dropped.columns == (("x",), ("area",))
    assert "area 2" not in design.areas
    assert any("area 2" in note for note in design.notes)


def test_unsampled_areas_do_not_decide_what_is_aliased():
    """x2 = 2 x among the sampled areas: dropped, and an unsampled area that breaks this is refused."""
    data = areas(x2=lambda d: 2 * d["x"]).assign(y=lambda d: d["y"].where(d.index != 3))

    design = build_area(area_spec("y ~ x + x2", unsampled="synthetic"), data)

    assert design.aliased == ("x2",)
    with pytest.raises(DesignError, match="x2 adds nothing in the fit but does in rows area 3"):
        build_area(area_spec("y ~ x + x2", unsampled="synthetic"), set_at(data, 3, "x2", 9.0))


def test_a_category_seen_in_unsampled_areas_only_is_refused():
    """Its effect is not determined: no synthetic estimate exists."""
    data = areas(region=["n", "s"] * 4 + ["w", "n"]).assign(y=lambda d: d["y"].where(d.index != 8))

    with pytest.raises(DesignError, match=r"region\[T.w\] adds nothing in the fit but does in rows area 8"):
        build_area(area_spec("y ~ region", unsampled="synthetic"), data)


def test_unsampled_areas_do_not_count():
    """m > p among the sampled."""
    data = areas().assign(y=lambda d: d["y"].where(d.index < 2))

    with pytest.raises(DesignError, match="found 2 areas and 2 coefficients"):
        build_area(area_spec(unsampled="synthetic"), data)


def test_values_of_an_unsampled_area_are_missing_only_where_they_are():
    """An area with y but no variance keeps its y."""
    design = build_area(area_spec(unsampled="synthetic"), set_at(areas(), 4, "D", np.nan))

    assert design.y[4] == areas()["y"][4]
    assert np.isnan(design.D[4])
    assert design.role[4] == "unsampled"


def test_transformed_response_may_be_missing():
    """log(y) of the areas that have y."""
    data = set_at(areas(), 6, "y", np.nan)

    design = build_area(area_spec("log(y) ~ x", unsampled="synthetic"), data)

    assert_array_equal(np.isnan(design.y), np.arange(10) == 6)
    assert_array_equal(design.y[:6], np.log(areas()["y"][:6]))


def test_three_libraries_give_one_design():
    """Gaps included: ints with nulls, floats with nan."""
    data = set_at(areas(area=np.arange(10), n=np.arange(10) + 5), 4, "y", np.nan)
    nulls = pl.from_pandas(data).with_columns(pl.col("y").fill_nan(None))
    spec = area_spec("y ~ x + n", unsampled="synthetic")
    first = build_area(spec, data)

    for other in (
        pl.from_pandas(data),
        nulls,
        nulls.lazy(),
        pa.Table.from_pandas(data),
        data.convert_dtypes(),
        first.table,
    ):
        design = build_area(spec, other)

        assert design.fingerprint == first.fingerprint
        assert_array_equal(design.X, first.X)
        assert_array_equal(design.y, first.y)
        assert_array_equal(design.D, first.D)
        assert design.areas.equals(first.areas)
        assert design.role.tolist() == first.role.tolist()


def test_index_of_the_table_does_not_name_areas():
    """The area column does."""
    design = build_area(area_spec(), areas().set_axis(pd.Index(range(100, 110))))

    assert design.areas.tolist() == areas()["area"].tolist()
