"""The arrays and labels of a linear mixed model's design, against ones written out and against formulaic's."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from design_tables import INTERCEPTS, area_spec, areas, set_at, table
from formulaic import model_matrix
from numpy.testing import assert_allclose, assert_array_equal

from hierlmm.design import build, build_area, build_lmm
from hierlmm.errors import DesignError
from hierlmm.spec import ModelSpec, RandomTerm, lmm

SMALL = pd.DataFrame(
    {
        "y": [1.0, 2.0, 4.0, 3.0, 5.0, 7.0],
        "x": [0.0, 1.0, 2.0, 0.5, 1.5, 2.5],
        "h": ["v", "u", "v", "u", "u", "v"],
        "g": [20, 3, 3, 20, 3, 20],
        "k": ["p", "p", "q", "q", "q", "p"],
    },
    index=list("abcdef"),
)


def test_arrays_of_a_small_table_are_those_written_out():
    """By hand: sorted levels, codes, treatment coding against the first level, row labels from the index."""
    design = build_lmm(lmm("y ~ x + h + (1 + x | g)"), SMALL)

    assert design.fixed == ("Intercept", "x", "h[T.v]")
    assert_array_equal(design.X, [[1, 0, 1], [1, 1, 0], [1, 2, 1], [1, 0.5, 0], [1, 1.5, 0], [1, 2.5, 1]])
    assert_array_equal(design.y, [1, 2, 4, 3, 5, 7])
    assert_array_equal(design.offset, np.zeros(6))
    assert design.index.tolist() == list("abcdef")
    assert design.levels == {"h": ("u", "v")}
    factor = design.factors[0]
    assert (factor.name, factor.coefficients, factor.blocks) == ("g", ("Intercept", "x"), ((0, 1),))
    assert factor.levels.tolist() == [3, 20]
    assert_array_equal(factor.codes, [1, 0, 0, 1, 0, 1])
    assert_array_equal(factor.Z, np.column_stack([np.ones(6), SMALL["x"]]))


def test_levels_of_a_combination_are_its_observed_cells():
    """(1 | g:k): 3:p, 3:q, 20:p, 20:q in the order of g, then k."""
    design = build_lmm(lmm("y ~ x + (1 | g:k)"), SMALL[:5])

    assert design.factors[0].name == "g:k"
    assert design.factors[0].levels.tolist() == ["3:p", "3:q", "20:p", "20:q"]
    assert design.factors[0].codes.tolist() == [2, 0, 1, 3, 1]


def test_labels_of_combinations_never_collide():
    """("a:b", "c") and ("a", "b:c") are two groups."""
    data = table(p=["a:b", "a", "d"] * 24, q=["c", "b:c", "z"] * 24)

    factor = build_lmm(lmm("y ~ x + (1 | p:q)"), data).factors[0]

    assert factor.levels.is_unique
    assert factor.codes.tolist() == [1, 0, 2] * 24
    assert factor.levels.tolist() == ["a:b\\:c", "a\\:b:c", "d:z"]


def test_nested_groups_are_the_outer_factor_and_the_combination():
    """(1 | a/b) = (1 | a) + (1 | a:b)."""
    written = build_lmm(lmm("y ~ x + (1 | g/k)"), table(k=["p", "q"] * 36))
    spelled = build_lmm(lmm("y ~ x + (1 | g) + (1 | g:k)"), table(k=["p", "q"] * 36))

    assert [factor.name for factor in written.factors] == ["g", "g:k"]
    assert_array_equal(written.factors[1].codes, spelled.factors[1].codes)


def test_terms_of_one_factor_are_merged_into_blocks():
    """(x || g) is two independent blocks of one factor."""
    design = build_lmm(
        lmm("y ~ x + (x || g) + (0 + z | g) + (1 | k)"), table(z=np.arange(72) % 7, k=["p", "q", "r"] * 24)
    )

    assert [factor.name for factor in design.factors] == ["g", "k"]
    assert design.factors[0].coefficients == ("Intercept", "x", "z")
    assert design.factors[0].blocks == ((0,), (1,), (2,))


def test_categorical_slopes_have_a_column_a_level():
    """(0 + h | g) as lme4: one column for each level; (h | g): the intercept and a contrast."""
    data = table(h=["u", "v"] * 36)

    full = build_lmm(lmm("y ~ 1 + (0 + h | g)"), data).factors[0]
    contrast = build_lmm(lmm("y ~ 1 + (h | g)"), data).factors[0]

    assert full.coefficients == ("h[u]", "h[v]")
    assert_array_equal(full.Z, np.eye(2)[[0, 1] * 36])
    assert contrast.coefficients == ("Intercept", "h[T.v]")


def test_one_coefficient_may_not_vary_twice_over_a_factor():
    """A spec made by hand can ask for it; its variance would be split in two."""
    term = RandomTerm(("1",), ("g",))
    spec = ModelSpec(response="y", fixed=("1",), random=(term, RandomTerm(("1", "x"), ("g",))))

    with pytest.raises(DesignError, match="once; over g"):
        build_lmm(spec, table())


FORMULAS = [
    "x",
    "0 + x",
    "h",
    "0 + h",
    "x + h + k",
    "0 + x + h + k",
    "x * z",
    "x:z",
    "h * k",
    "x * h",
    "0 + x:h",
    "h + x:h + z",
    "C(w)",
    "C(w, contr.sum)",
    "C(h, contr.treatment('v'))",
    "C(flag)",
    "flag",
    "log(z) + exp(x)",
    "I(x ** 2) + I(x / z)",
    "poly(x, 2)",
    "bs(x, df=5)",
    "center(x) + scale(z)",
]


def wide_table():
    """Numbers, text in two orders, whole numbers and truth values."""
    rows = np.arange(72)
    return table(
        z=1.0 + rows % 11,
        w=rows % 4,
        h=[("v", "u", "w")[i % 3] for i in rows],
        k=pd.Categorical([("q", "p")[i // 2 % 2] for i in rows], categories=["q", "p"]),
        flag=rows % 5 == 0,
    )


@pytest.mark.parametrize("fixed", FORMULAS)
def test_fixed_part_is_formulaics(fixed):
    """Names and values of formulaic's own materialiser, whichever way the columns were built."""
    want = model_matrix(fixed, wide_table())

    design = build_lmm(lmm(f"y ~ {fixed} + (1 | g)"), wide_table())

    assert design.aliased == ()
    assert design.fixed == tuple(want.columns)
    assert_allclose(design.X, want.to_numpy(dtype=float), rtol=1e-12, atol=1e-14)


LEVELS = [
    ("h", {"h": ("u", "v", "w")}),
    ("k", {"k": ("q", "p")}),
    ("C(w)", {"C(w)": (0, 1, 2, 3)}),
    ("C(flag)", {"C(flag)": (False, True)}),
    ("C(h, contr.treatment('v'))", {"C(h, contr.treatment('v'))": ("v", "u", "w")}),
    ("x * h", {"h": ("u", "v", "w")}),
    ("x", {}),
]


@pytest.mark.parametrize(("fixed", "levels"), LEVELS)
def test_levels_name_the_reference_first(fixed, levels):
    """Sorted; in the declared order for categories; the base of a treatment contrast first."""
    assert build_lmm(lmm(f"y ~ {fixed} + (1 | g)"), wide_table()).levels == levels


def test_variables_of_the_caller_do_not_reach_a_formula():
    """Only columns of the data are read, also where Python has a variable of the name."""
    secret = np.arange(72.0)

    with pytest.raises(DesignError, match="secret is missing"):
        build_lmm(lmm("y ~ secret + (1 | g)"), table())
    assert len(secret) == 72


def test_response_and_offset_may_be_expressions():
    """log(y), and the sum of two offsets."""
    data = table(y=np.exp(table()["y"]), t=np.arange(1.0, 73))

    design = build_lmm(lmm("log(y) ~ x + offset(log(t)) + offset(x) + (1 | g)"), data)

    assert_allclose(design.y, np.log(data["y"]), rtol=1e-15)
    assert_allclose(design.offset, np.log(data["t"]) + data["x"], rtol=1e-15)


def test_a_response_of_several_columns_is_refused():
    """A spec made by hand may ask for it."""
    spec = ModelSpec(response="poly(z, 2)", fixed=("1",), random=(RandomTerm(("1",), ("g",)),))

    with pytest.raises(DesignError, match="gives 2 columns"):
        build_lmm(spec, table(z=np.arange(72.0)))


def test_combinations_beyond_counting_are_refused():
    """50,000^4 cells do not fit in 64 bits."""
    data = pd.DataFrame(dict.fromkeys("yabcd", np.arange(50_000.0)))

    with pytest.raises(DesignError, match="50000:50000:50000:50000 levels are too many"):
        build_lmm(lmm("y ~ 1 + (1 | a:b:c:d)"), data)


def test_a_model_without_groups_has_no_factors():
    """The null model of a boundary test."""
    spec = ModelSpec(response="y", fixed=("1", "x"), random=())

    assert build_lmm(spec, table()).factors == ()


def test_builders_refuse_specs_of_the_other_family():
    """build(...) chooses; the typed builders do not guess."""
    with pytest.raises(DesignError, match="Use build"):
        build_lmm(area_spec(), areas())
    with pytest.raises(DesignError, match="Use build"):
        build_area(INTERCEPTS, table())


def test_empty_cells_of_an_interaction_are_dropped_and_named():
    """R's lm gives NA for them."""
    data = table(h=["u", "v"] * 36, k=["p", "p", "q", "p"] * 18)

    design = build_lmm(lmm("y ~ h * k + (1 | g)"), data)

    assert design.aliased == ("h[T.v]:k[T.q]",)


SPECS = {
    "slopes": "y ~ x + (x | g)",
    "expression": "log(y + 10) ~ x + offset(z) + (1 | g)",
    "categories": "y ~ h * x + C(w) + flag + (1 | g) + (0 + x | k)",
    "combination": "y ~ x + (1 | g/h)",
}


@pytest.mark.parametrize("formula", SPECS.values(), ids=SPECS)
def test_pandas_polars_and_pyarrow_give_one_design(formula):
    """Same arrays, labels and fingerprints from each library, lazy frames included, and from the table kept."""
    spec, data = lmm(formula.replace("log(y + 10)", "log(y10)")), wide_table().assign(y10=lambda d: d["y"] + 10)
    data = set_at(set_at(data.assign(k=data["k"].astype(str)), 3, "x", np.nan), 5, "h", None)
    first = build(spec, data)
    others = [
        pl.from_pandas(data),
        pl.from_pandas(data).lazy(),
        pa.Table.from_pandas(data),
        data.convert_dtypes(),
        data.convert_dtypes(dtype_backend="pyarrow"),
        data.astype({"w": "float64", "h": object}),
        first.table,
    ]

    for other in others:
        design = build(spec, other)

        assert design.fingerprint == first.fingerprint
        assert design.fixed == first.fixed
        assert_array_equal(design.X, first.X)
        assert_array_equal(design.y, first.y)
        assert design.dropped == first.dropped
        assert dict(design.levels) == dict(first.levels)
        for one, two in zip(design.factors, first.factors, strict=True):
            assert one.levels.tolist() == two.levels.tolist()
            assert_array_equal(one.codes, two.codes)
            assert_array_equal(one.Z, two.Z)


def test_enum_and_dictionary_columns_keep_their_order():
    """polars' Enum and Arrow's dictionaries declare one; a polars Categorical does not."""
    text = ["q", "p"] * 36
    base = pl.from_pandas(table())
    enum = base.with_columns(k=pl.Series(text, dtype=pl.Enum(["q", "p"])))
    loose = base.with_columns(k=pl.Series(text, dtype=pl.Categorical))
    dictionary = enum.to_arrow()

    levels = [build_lmm(lmm("y ~ k + (1 | g)"), data).levels["k"] for data in (enum, dictionary, loose)]

    assert levels == [("q", "p"), ("q", "p"), ("p", "q")]


def test_a_null_in_an_arrow_dictionary_is_missing():
    """As an index and as an entry."""
    codes = pa.array([0, 1, 2, None, *[0, 1] * 34], type=pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, pa.array(["u", "v", None]))
    data = pa.Table.from_pandas(table()).append_column("k", column)

    assert build_lmm(lmm("y ~ k + (1 | g)"), data).dropped.rows == (2, 3)
