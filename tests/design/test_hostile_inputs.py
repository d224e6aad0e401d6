"""Hostile inputs, case by case: an error that names columns, rows and the way out, a note, or the exact answer.

The numbers in the ids are those of the project's list of hostile inputs; what is correct for each stands there, and
the peers that answer otherwise. Types of columns (43) that are accepted are in test_column_types.
"""

import time

import numpy as np
import pandas as pd
import pytest
from design_tables import INTERCEPTS, area_spec, areas, set_at, table
from numpy.testing import assert_array_equal

from hierlmm.design import build_area, build_lmm, encode
from hierlmm.errors import DesignError, FormulaError
from hierlmm.spec import lmm

X = table()["x"].to_numpy()


def case(number, *values):
    return pytest.param(*values, id=number)


REFUSED = [
    case("1 one group", "y ~ x + (1 | g)", table(g="one"), "2 levels.*g has the single level one"),
    case("2 every row a group", "y ~ x + (1 | g)", table(g=range(72)), "every row is a level of g of its own"),
    case("6 inf in x", "y ~ x + (1 | g)", set_at(table(), 7, "x", np.inf), "column x is infinite in rows 7"),
    case("6 inf in a slope", "y ~ 1 + (x | g)", set_at(table(), 7, "x", np.inf), "column x is infinite in rows 7"),
    case("6 inf in an offset", "y ~ offset(x) + (1 | g)", set_at(table(), 7, "x", np.inf), "column x is infinite"),
    case("7 inf in y", "y ~ x + (1 | g)", set_at(table(), 5, "y", -np.inf), "column y is infinite in rows 5"),
    case(
        "7 inf in log(y)",
        "log(y) ~ x + (1 | g)",
        table(y=np.exp(X)).assign(y=lambda d: d.y * (d.index > 0)),
        r"log\(y\) is not in rows 0",
    ),
    case(
        "6 log of a negative", "y ~ log(x) + (1 | g)", table(x=np.arange(72) - 2.0), r"log\(x\) is not in rows 0, 1, 2"
    ),
    case("8 no rows", "y ~ x + (1 | g)", table()[:0], "at least 2 complete rows; the data have 0"),
    case("8 no complete rows", "y ~ x + (1 | g)", table(x=np.nan), "the data have 0; 72 rows were dropped.*in x"),
    case("9 one row", "y ~ x + (1 | g)", table()[:1], "at least 2 complete rows; the data have 1"),
    case(
        "14 slope of a two-valued group covariate",
        "y ~ x + (x | g)",
        table(x=np.repeat(np.arange(12) % 2, 6)),
        "variance of x over g cannot be told from",
    ),
    case("16 y is text", "y ~ x + (1 | g)", table(y=[f"{v} kg" for v in X]), "response must be numeric; column y.* kg"),
    case("16 y is categories", "y ~ x + (1 | g)", table(y=pd.Categorical(["u", "v"] * 36)), "response must be numeric"),
    case("16 y is dates", "y ~ x + (1 | g)", table(y=pd.date_range("2020", periods=72)), "response must be numeric"),
    case(
        "32 p > n", "y ~ k + (1 | g)", table(k=[f"k{i}" for i in range(72)]), r"72 rows and 72 effects.*k \(72 levels\)"
    ),
    case("32 X all zero", "y ~ 0 + x + (1 | g)", table(x=0.0), "not zero in all rows; x is"),
    case("33 1 and '1'", "y ~ x + (1 | g)", table(g=[1, "1"] * 36), "column g has int, str, such as 1, '1'"),
    case("33 '1' and ' 1'", "y ~ x + (1 | g)", table(g=["1", " 1", "2"] * 24), "column g has ' 1' and '1'"),
    case("33 two Unicode forms", "y ~ x + (1 | g)", table(g=["e\u0301", "\u00e9", "z"] * 24), "Unicode form; column g"),
    case("33 in a predictor", "y ~ h + (1 | g)", table(h=["1", " 1", "2"] * 24), "column h has ' 1' and '1'"),
    case("33 in categories", "y ~ x + (1 | g)", table(g=pd.Categorical([1, "1"] * 36)), "type.*column g has 1 and '1'"),
    case("43 complex", "y ~ x + (1 | g)", table(x=X + 0j), "column x holds complex128"),
    case("43 datetime", "y ~ x + (1 | g)", table(x=pd.date_range("2020-01-01", periods=72)), "column x holds dates"),
    case("43 timedelta", "y ~ x + (1 | g)", table(x=pd.to_timedelta(np.arange(72), "h")), "column x holds dates"),
    case("43 mixed objects", "y ~ x + (1 | g)", table(x=[1, "a"] * 36), "column x has int, str"),
    case("43 bytes", "y ~ x + (1 | g)", table(x=[b"a", b"b"] * 36), "column x has bytes"),
    case("43 lists", "y ~ x + (1 | g)", table(x=[[1], [2]] * 36), "column x has list"),
    case(
        "43 whole numbers beyond 2^53",
        "y ~ x + (1 | g)",
        table(x=2**53 + 1 + np.arange(72)),
        "beyond 2\\^53.*9007199254740993",
    ),
    case(
        "43 whole numbers beyond 64 bits",
        "y ~ x + (1 | g)",
        table(x=[10**30 + i for i in range(72)]),
        "more than 64 bits",
    ),
    case("44 a name twice", "y ~ x + (1 | g)", pd.concat([table(), table()["x"]], axis=1), "x stands 2 times"),
    case("44 a missing name", "y ~ speed + (1 | g)", table(speeds=X), "speed is missing. Did you mean speeds"),
    case(
        "44 a name like a level's",
        "y ~ a + `a[T.v]` + (1 | g)",
        table(**{"a": ["u", "v"] * 36, "a[T.v]": X}),
        "arises twice",
    ),
    case(
        "dependent slopes", "y ~ x + (x + z | g)", table(z=2 * X + 1), r"\(1 \+ x \+ z \| g\) z is zero or determined"
    ),
    case("zero slope", "y ~ x + (0 + z | g)", table(z=0.0), "z is zero or determined"),
    case("same groups twice", "y ~ x + (1 | g) + (1 | h)", table(h=table()["g"].str.upper()), "same groups under two"),
    case("groups as fixed effects", "y ~ g + (1 | g)", table(), "already give every level of g its own Intercept"),
    case(
        "categories beside the intercept",
        "y ~ a + (1 | g) + (0 + a | g)",
        table(a=["u", "v"] * 36),
        r"categorical x stands beside \(1 \| g\).*\(x \|\| g\)",
    ),
    case("text in arithmetic", "y ~ I(h * 2) + (1 | g)", table(h=["u", "v"] * 36), "computed from numbers.* h"),
    case("text in an offset", "y ~ x + offset(h) + (1 | g)", table(h=["u", "v"] * 36), "offset must be one numeric"),
    case(
        "levels not listed", "y ~ C(h, levels=['u']) + (1 | g)", table(h=["u", "v"] * 36), "outside its levels: {'v'}"
    ),
    case("more components than contrasts", "y ~ x + (1 | g)", table()[4:7].assign(x=[0.0, 1.0, 5.0]), "at most 1"),
    case("infinite key", "y ~ x + (1 | g)", table(g=np.repeat([1.0, 2.0, np.inf], 24)), "column g includes inf"),
]


@pytest.mark.parametrize(("formula", "data", "message"), REFUSED)
def test_data_that_cannot_support_the_model_are_refused(formula, data, message):
    """Each refusal names what was found and where; the ids carry the numbers of the list of hostile inputs."""
    with pytest.raises(DesignError, match=message):
        build_lmm(lmm(formula), data)


AREAS_REFUSED = [
    case("25 D = 0", areas(D=[0.0, *[1.0] * 9]), "column D is 0 for areas area 0.*zero_variance"),
    case("26 D negative", set_at(areas(), 3, "D", -0.1), "column D is negative for areas area 3"),
    case("26 D infinite", set_at(areas(), 3, "D", np.inf), "column D is infinite for areas area 3"),
    case("27 D missing", set_at(areas(), 2, "D", np.nan), "missing for areas area 2.*unsampled"),
    case("27 y missing", set_at(areas(), 2, "y", np.nan), "missing for areas area 2.*unsampled"),
    case("29 m = p", areas()[:2], "2 areas and 2 coefficients"),
    case("30 duplicate area", set_at(areas(), 4, "area", "area 7"), "area 7 stands more than once"),
    case("39 an area that did not match", set_at(areas(), 9, "D", None), "missing for areas area 9"),
    case("8 no areas", areas()[:0], "needs areas"),
    case("7 inf in y", set_at(areas(), 1, "y", np.inf), "column y is infinite in rows 1"),
    case("6 inf in x", set_at(areas(), 1, "x", np.inf), "column x is infinite in rows area 1"),
    case("16 y is text", areas(y=["1,5"] * 10), "response must be numeric"),
    case("16 D is text", areas(D=["0,1"] * 10), "Sampling variances must be numeric; column D holds text"),
    case("33 labels that look alike", set_at(areas(), 4, "area", "area 7 "), "column area has 'area 7' and 'area 7 '"),
    case("32 X all zero", areas(x=0.0), None),
]


@pytest.mark.parametrize(("data", "message"), AREAS_REFUSED)
def test_area_data_that_cannot_support_the_model_are_refused(data, message):
    """Fay-Herriot inputs that peers fit in silence: negative variances, areas that stand twice, m = p."""
    if message is None:
        assert build_area(area_spec(), data).aliased == ("x",)
        return
    with pytest.raises(DesignError, match=message):
        build_area(area_spec(), data)


NOTED = [
    case("3 y constant", "y ~ x + (1 | g)", table(y=3.0), "y is 3 in every row"),
    case(
        "14 slope of a group covariate",
        "y ~ x + (x | g)",
        table(x=np.repeat(np.arange(12.0) ** 2, 6)),
        "x is constant within every level of g",
    ),
    case("15 two groups", "y ~ x + (1 | g)", table(g=np.repeat(["u", "v"], 36)), "g has only 2 levels"),
    case("32 no intercept", "y ~ 0 + x + (1 | g)", table(), "no intercept"),
    case("32 nothing fixed", "y ~ 0 + (1 | g)", table(), "no fixed effects"),
    case(
        "35 declared level unused",
        "y ~ x + (1 | g)",
        table(g=pd.Categorical(table()["g"], categories=[*table()["g"].unique(), "zz"])),
        "left out: zz",
    ),
    case(
        "35 level without complete rows",
        "y ~ x + (1 | g)",
        table(x=np.where(np.arange(72) < 6, np.nan, X)),
        "left out: a00",
    ),
    case(
        "35 numeric level without complete rows",
        "y ~ x + (1 | g)",
        table(g=np.repeat(np.arange(12), 6), x=np.where(np.arange(72) < 6, np.nan, X)),
        "left out: 0",
    ),
    case(
        "35 unused level of a predictor",
        "y ~ h + (1 | g)",
        table(h=pd.Categorical(["u", "v"] * 36, categories=list("uvw"))),
        "Levels of h .* left out: w",
    ),
    case(
        "36 numbers reused across parents",
        "y ~ x + (1 | district) + (1 | school)",
        table(district=np.repeat(list("stuvwx"), 12), school=np.tile(np.repeat([1, 2, 3, 4], 3), 6)),
        r"\(1 \| district/school\)",
    ),
]


@pytest.mark.parametrize(("formula", "data", "message"), NOTED)
def test_data_that_support_the_model_with_a_caveat_are_noted(formula, data, message):
    """A note on the design, one each."""
    import re

    notes = build_lmm(lmm(formula), data).notes

    assert len([note for note in notes if re.search(message, note)]) == 1


def test_a_clean_table_has_no_notes():
    """The notes are for what is unusual."""
    assert build_lmm(INTERCEPTS, table()).notes == ()
    assert build_area(area_spec(), areas()).notes == ()


def test_nested_numbers_are_not_taken_for_reused_ones():
    """36: with (1 | a/b) written out nothing is suggested."""
    data = table(district=np.repeat(list("stuvwx"), 12), school=np.tile(np.repeat([1, 2, 3, 4], 3), 6))

    assert not build_lmm(lmm("y ~ x + (1 | district/school)"), data).notes


def test_sd_given_as_variance_is_noted():
    """37: when the standard error exceeds most estimates, the variances may be something else."""
    notes = build_area(area_spec(), areas(y=lambda d: d["y"] / 100)).notes

    assert len(notes) == 1
    assert "10 of 10 areas" in notes[0]


@pytest.mark.parametrize("blank", ["", "  ", None, np.nan])
def test_missing_values_in_y_x_and_key_drop_three_rows_and_list_them(blank):
    """5: lme4 drops two and makes the blank key a group."""
    data = set_at(set_at(set_at(table(), 1, "y", np.nan), 20, "x", np.nan), 40, "g", blank)

    design = build_lmm(INTERCEPTS, data)

    assert design.dropped.rows == (1, 20, 40)
    assert design.dropped.columns == (("y",), ("x",), ("g",))
    assert len(design.y) == 69
    assert len(design.factors[0].levels) == 12
    assert_array_equal(design.index, np.setdiff1d(np.arange(72), [1, 20, 40]))


def test_a_row_missing_several_values_lists_them_all():
    """5: columns in the order in which the model reads them."""
    design = build_lmm(INTERCEPTS, set_at(set_at(table(), 1, "y", np.nan), 1, "g", None))

    assert design.dropped.columns == (("y", "g"),)


def test_float_key_with_nan_drops_its_rows_and_names_whole_numbers_whole():
    """19: a table with gaps holds whole numbers as doubles."""
    data = table(g=np.repeat(np.arange(12.0), 6))
    data.loc[[3, 50], "g"] = np.nan

    design = build_lmm(INTERCEPTS, data)

    assert design.dropped.rows == (3, 50)
    assert design.factors[0].levels.tolist() == list(range(12))
    assert design.factors[0].levels.dtype == np.int64


def test_collinear_column_is_dropped_and_named():
    """10: x2 = 2 x + 1; Bambi fits it."""
    design = build_lmm(lmm("y ~ x + x2 + (1 | g)"), table(x2=2 * X + 1))

    assert design.fixed == ("Intercept", "x")
    assert design.aliased == ("x2",)
    assert_array_equal(design.X, np.column_stack([np.ones(72), X]))


@pytest.mark.parametrize("shift", [1e8, -1e8, 1e10])
def test_covariate_far_from_zero_is_kept(shift):
    """12: x + 1e8 (an epoch, a year in days); lme4 drops it."""
    design = build_lmm(INTERCEPTS, table(x=X + shift))

    assert design.fixed == ("Intercept", "x")
    assert_array_equal(design.X[:, 1], X + shift)


@pytest.mark.parametrize("unit", [1e9, 1e-9, 1e150, 1e-300])
def test_units_decide_nothing(unit):
    """11: y x 1e9, x 1e-9."""
    design = build_lmm(lmm("y ~ x + z + (x | g)"), table(x=X * unit, z=X**2, y=table()["y"] / unit))

    assert design.fixed == ("Intercept", "x", "z")


def test_response_is_kept_to_the_last_bit():
    """17: y + 1e10."""
    y = table()["y"].to_numpy() + 1e10

    assert_array_equal(build_lmm(INTERCEPTS, table(y=y)).y, y)


def test_one_large_group_and_many_singletons_are_accepted():
    """20: a group of 5,000 and 200 groups of one."""
    g = np.concatenate([np.zeros(5000, dtype=int), np.arange(1, 201)])
    rng = np.random.default_rng(20)

    design = build_lmm(INTERCEPTS, pd.DataFrame({"g": g, "x": rng.normal(size=5200), "y": rng.normal(size=5200)}))

    assert len(design.factors[0].levels) == 201


def test_permuted_rows_give_the_permuted_design():
    """21."""
    order = np.random.default_rng(21).permutation(72)

    one, other = build_lmm(INTERCEPTS, table()), build_lmm(INTERCEPTS, table().iloc[order])

    assert_array_equal(other.X, one.X[order])
    assert_array_equal(other.factors[0].codes, one.factors[0].codes[order])
    assert other.factors[0].levels.equals(one.factors[0].levels)
    assert_array_equal(other.index, order)


def test_new_group_is_coded_as_unknown():
    """24: never as an observed one."""
    rows = encode(build_lmm(INTERCEPTS, table()), pd.DataFrame({"g": ["a03", "new"], "x": [0.0, 1.0]}))

    assert rows.codes[0].tolist() == [3, -1]
    assert rows.groups[0].tolist() == ["a03", "new"]


def test_zero_variance_direct_keeps_the_area_outside_the_fit():
    """25."""
    design = build_area(area_spec(zero_variance="direct"), set_at(areas(), 0, "D", 0.0))

    assert design.role.tolist() == ["direct"] + ["sampled"] * 9
    assert design.D[0] == 0


@pytest.mark.parametrize("column", ["y", "D"])
def test_unsampled_areas_are_exempt_from_the_complete_case_mask(column):
    """27."""
    design = build_area(area_spec(unsampled="synthetic"), set_at(areas(), 4, column, np.nan))

    assert design.role.tolist() == ["sampled"] * 4 + ["unsampled"] + ["sampled"] * 5
    assert len(design.dropped) == 0
    assert len(design.areas) == 10


def test_extreme_range_of_variances_is_accepted():
    """psi from 1e-12 to 1e12."""
    D = np.logspace(-12, 12, 10)

    assert_array_equal(build_area(area_spec(), areas(D=D)).D, D)


def test_small_units_are_accepted():
    """31: y in 1e-6 units."""
    design = build_area(area_spec(), areas(y=lambda d: d.y * 1e-6, D=lambda d: d.D * 1e-12))

    assert (design.role == "sampled").all()


def test_a_million_groups_long_keys_and_unique_strings_are_quick():
    """34: within seconds, and no dense matrix of indicators (which would have 10^12 entries)."""
    n = 1_000_000
    rng = np.random.default_rng(34)
    data = pd.DataFrame({"g": np.arange(n) // 2 * 2, "x": rng.normal(size=n), "y": rng.normal(size=n)})

    start = time.perf_counter()
    design = build_lmm(INTERCEPTS, data)

    assert len(design.factors[0].levels) == n // 2
    assert time.perf_counter() - start < 20

    keys = build_lmm(INTERCEPTS, table(g=[c * 10_000 for c in "abcdef"] * 12)).factors[0].levels

    assert keys.tolist() == [c * 10_000 for c in "abcdef"]


NAMES = ["it's", 'a "quoted" one', "a b", "x.y", "größe", "g[T.x]", "log", "T", "C", "class", "np"]


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_any_name_work(name):
    """44: as predictor, slope, response and group."""
    data = table().rename(columns={"x": name})

    design = build_lmm(lmm(f"y ~ `{name}` + (1 + `{name}` | g)"), data)

    assert design.fixed == ("Intercept", name)
    assert_array_equal(design.X[:, 1], X)
    assert_array_equal(encode(design, data).X, design.X)
    assert build_lmm(lmm(f"`{name}` ~ y + (1 | g)"), data).y.tolist() == X.tolist()
    assert build_lmm(lmm(f"y ~ x + (1 | `{name}`)"), table(**{name: table()["g"]})).factors[0].name == name


@pytest.mark.parametrize(
    "formula", ["y ~ Intercept + (1 | g)", "y ~ `1` + (1 | g)", "y ~ `x:y` + (1 | g)", "y ~ x + (1 | `x:y`)"]
)
def test_names_that_formulas_cannot_carry_are_refused(formula):
    """44."""
    with pytest.raises(FormulaError, match=r"[Rr]ename"):
        lmm(formula)


def test_two_columns_of_one_name_that_the_model_does_not_read_do_no_harm():
    """44."""
    data = pd.concat([table(), pd.Series(X, name="z"), pd.Series(X, name="z")], axis=1)

    assert build_lmm(INTERCEPTS, data).fixed == ("Intercept", "x")


def test_a_table_changed_afterwards_changes_no_design():
    """45: what is kept is copied, the arrays cannot be written."""
    x, y = X.copy(), table()["y"].to_numpy(copy=True)
    data = pd.DataFrame({"g": table()["g"], "x": x, "y": y}, copy=False)
    design = build_lmm(INTERCEPTS, data)

    for change in (x, y):
        change[:] = -1.0
    data.loc[:, ["x", "y"]] = -2.0

    assert_array_equal(design.X[:, 1], X)
    assert_array_equal(design.y, table()["y"])
    assert_array_equal(design.table["x"], X)
    again = build_lmm(INTERCEPTS, design.table)
    assert again.fingerprint == design.fingerprint == build_lmm(INTERCEPTS, table()).fingerprint
    for array in (design.y, design.X, design.offset, design.factors[0].Z, design.factors[0].codes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_names_of_areas_are_kept_as_they_are():
    """50: a hostile name is a label like another; whoever writes files escapes it."""
    names = ["<script>", '=HYPERLINK("x")', "../../x", *areas()["area"][3:]]

    assert build_area(area_spec(), areas(area=names)).areas.tolist() == names
