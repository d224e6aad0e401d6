"""How hypotheses about fixed effects are written, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.inference.fixed_hypothesis import hypothesis_of

NAMES = ("Intercept", "x1", "x2", "a[T.p, q]", "x1:x2", "poly(z, 2)[1]", "my col")
TERMS = {"x1": [1], "x2": [2], "a": [3], "x1:x2": [4], "poly(z, 2)": [5], "`my col`": [6]}


def read(text, value=0.0):
    return hypothesis_of(text, value, NAMES, TERMS, ("x3",))


@pytest.fixture(scope="module")
def polite():
    spec = hl.lmm("frequency ~ attitude * gender + (1 | subject) + (1 | scenario)")
    return hl.fit(spec, hl.load("politeness").data)


@pytest.mark.parametrize(
    ("text", "coefficients", "value"),
    [
        ("x1 = 0", {1: 1}, 0),
        ("x1", {1: 1}, 0),
        ("x1 - x2 = 0", {1: 1, 2: -1}, 0),
        ("2 * x1 - x2/4 = 1e-1", {1: 2, 2: -0.25}, 0.1),
        ("x1 + x2 = x1:x2 + 3", {1: 1, 2: 1, 4: -1}, 3),
        ("-x1 = --2", {1: -1}, 2),
        ("a[T.p, q] - 2 x1 = 0", {3: 1, 1: -2}, 0),
        ("`my col` = 1", {6: 1}, 1),
        ("my col = 1", {6: 1}, 1),
        ("poly(z,2)[1] = 0", {5: 1}, 0),
        ("3 = x2", {2: -1}, -3),
        ("x1 - 1 = 0", {1: 1}, 1),
        ("x1*2*3 = 0", {1: 6}, 0),
    ],
)
def test_an_equation_is_read_as_written(text, coefficients, value):
    """Names are matched whole, the longest first; numbers, products with numbers and both sides of '='."""
    found = read(text)

    expected = np.zeros((1, len(NAMES)))
    for place, weight in coefficients.items():
        expected[0, place] = weight
    assert_allclose(found.L, expected)
    assert_allclose(found.c, [value])


def test_equations_are_separated_and_terms_stand_for_their_coefficients():
    """Commas, semicolons and lines; a term of one or several columns."""
    found = read("x1 = 1, a; poly(z, 2)\nx1 - x2")

    assert found.L.shape == (4, len(NAMES))
    assert found.L[1, 3] == found.L[2, 5] == 1
    assert found.labels == ("x1", "a[T.p, q]", "poly(z, 2)[1]", "x1 - x2")
    assert_allclose(found.c, [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x4 = 0", r"must name fixed effects.*'x4'"),
        ("x11 = 0", r"'x11'.*Did you mean x1"),
        ("x3 = 0", "aliased"),
        ("x1:x3 = 0", "must name fixed effects"),
        ("x1 = 0 = 1", "one '='"),
        ("x1 * x2 = 0", "sum of coefficients times numbers"),
        ("1 / x1 = 0", "sum of coefficients times numbers"),
        ("x1 / 0 = 0", "cannot be read at '0'"),
        ("x1 + = 0", "its end"),
        ("x1 x2 = 0", "a sign is missing"),
        ("poly(z, 2) + x1 = 0", "only single coefficients"),
        ("", "at least one equation"),
        ("__import__('os').system('true')", "must name fixed effects"),
        ("x1 = (2)", "must name fixed effects"),
    ],
)
def test_text_that_is_no_hypothesis_is_refused(text, message):
    """The rule, what was found and what to write instead; nothing is evaluated."""
    with pytest.raises(SpecError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("given", "value", "message"),
    [
        (np.ones((2, 3)), 0, "column for each"),
        (np.full((1, 7), np.nan), 0, "finite"),
        (np.ones((1, 7)), [1, 2], "one right-hand side"),
        (3.5j, 0, "text, names or a matrix"),
        (pd.DataFrame({"nosuch": [1.0]}), 0, "nosuch"),
        ("x1", 1, "its own right-hand sides"),
    ],
)
def test_numbers_that_are_no_hypothesis_are_refused(given, value, message):
    """Shapes, names and right-hand sides."""
    with pytest.raises(SpecError, match=message):
        read(given, value)


def test_matrix_frame_and_text_agree(polite):
    """One hypothesis in three ways."""
    name = "attitude[T.pol]"
    text = polite.test(f"{name} - 2 gender[T.M] = 3")
    matrix = polite.test([0, 1, -2, 0], 3)
    frame = polite.test(pd.DataFrame({name: [1], "gender[T.M]": [-2]}), 3)

    for other in (matrix, frame):
        assert_allclose(other.table.iloc[:, 1:], text.table.iloc[:, 1:], rtol=1e-12)
    assert matrix.table["term"][0] == "attitude[T.pol] - 2 gender[T.M]"


@pytest.mark.parametrize(
    ("given", "value", "line"),
    [
        ("attitude[T.pol] = -20", 0, "attitude[T.pol] = -20 "),
        ("attitude[T.pol]", 0, "attitude[T.pol]  "),
        ("attitude[T.pol] + 20 = 0", 0, "attitude[T.pol] = -20 "),
        ([0, 1, 0, 0], -20, "attitude[T.pol] = -20 "),
        ("2 * attitude[T.pol] - gender[T.M] = 1.5", 0, "2 * attitude[T.pol] - gender[T.M] = 1.5\n"),
        ("gender[T.M] = 3 + attitude[T.pol]", 0, "-attitude[T.pol] + gender[T.M] = 3\n"),
        ("gender[T.M] = attitude[T.pol]", 0, "gender[T.M] = attitude[T.pol]\n"),
    ],
)
def test_the_label_says_what_is_tested_and_is_never_cut(polite, given, value, line):
    """The value where it is not 0; a label that is too long for its column on a line of its own."""
    assert f"\n{line}" in str(polite.test(given, value))


def test_redundant_rows_are_left_out_and_said(polite):
    """A row that follows from others adds nothing to F; one that contradicts them is refused."""
    both = polite.test("attitude[T.pol] = 0, gender[T.M] = 0")
    three = polite.test("attitude[T.pol] = 0, gender[T.M] = 0, attitude[T.pol] - 3 gender[T.M] = 0")

    assert three.num_df == both.num_df == 2
    assert_allclose([three.statistic, three.den_df], [both.statistic, both.den_df], rtol=1e-12)
    assert "follows from the equations before it" in three.notes[0]
    assert len(three.table) == 3
    with pytest.raises(SpecError, match="contradict"):
        polite.test("attitude[T.pol] = 0, 2 * attitude[T.pol] = 1")
    with pytest.raises(SpecError, match="not zero"):
        polite.test("attitude[T.pol] - attitude[T.pol] = 0")


def test_normal_reference_is_chi_square(polite):
    """Wald's statistic and its tail: b'C⁻¹b against chi-square(2), and z for each row."""
    from scipy import stats

    found = polite.test("attitude[T.pol], gender[T.M]", df="normal")

    b, C = polite.beta[1:3], polite.vcov_beta[1:3, 1:3]
    wald = b @ np.linalg.solve(C, b)
    assert_allclose(2 * found.statistic, wald, rtol=1e-10)
    assert_allclose(found.p, stats.chi2.sf(wald, 2), rtol=1e-10)
    assert_allclose(found.table["p"], 2 * stats.norm.sf(np.abs(b) / np.sqrt(np.diag(C))), rtol=1e-10)
    assert_allclose(found.table["upper"] - found.table["estimate"], 1.959963984540054 * np.sqrt(np.diag(C)), rtol=1e-12)


def test_what_is_not_available_is_refused_with_a_way_out(polite):
    """Unknown kinds, Kenward-Roger for ML and for residual structures, levels, types, exact fits."""
    data = hl.load("politeness").data
    by_ml = hl.fit(polite.spec, data, "ml")
    serial = hl.fit(hl.lmm("frequency ~ attitude", residual=hl.HeterogeneousCompoundSymmetry("block", "scenario")),
                    data.assign(block=data["subject"].astype(str) + data["attitude"].astype(str)))  # fmt: skip
    edge = hl.fit(hl.lmm("frequency ~ attitude + (1 + attitude | subject)", residual=hl.Stratified("gender")), data)
    exact = hl.fit(hl.lmm("y ~ x"), pd.DataFrame({"x": [1.0, 2.0, 3.0, 5.0], "y": [2.0, 4.0, 6.0, 10.0]}))
    empty = hl.fit(hl.lmm("frequency ~ 0 + (1 | subject)"), data)

    with pytest.raises(SpecError, match=r"known kind.*satterthwaite, kenward-roger"):
        polite.test("attitude", df="kr")
    with pytest.raises(FitError, match=r'derived for REML.*method="reml"'):
        by_ml.anova(df="kenward-roger")
    with pytest.raises(FitError, match=r"linear in its parameters.*HeterogeneousCompoundSymmetry"):
        serial.anova(df="kenward-roger")
    with pytest.raises(FitError, match="inside its parameter space"):
        edge.anova(df="kenward-roger")
    with pytest.raises(SpecError, match="between 0 and 1"):
        polite.test("attitude", level=95)
    with pytest.raises(SpecError, match="must be 1, 2 or 3"):
        polite.anova(type=4)
    with pytest.raises(FitError, match="residual variance"):
        exact.test("x")
    with pytest.raises(FitError, match="this model has none"):
        empty.anova()


def test_printed_forms_fit_80_columns(polite):
    """Every line, for each kind of degrees of freedom."""
    for df in ("satterthwaite", "kenward-roger", "normal", "residual"):
        texts = [str(polite.test(np.eye(4), df=df)), *(str(polite.anova(type=kind, df=df)) for kind in (1, 2, 3))]

        assert max(len(line) for text in texts for line in text.splitlines()) <= 80


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "text",
    [
        "1e999*x1",
        "x1 = 1e999",
        "1e200 * 1e200 x1 = 0",
        "1e308 x1 + 1e308 x1 = 0",
        "1e999 x1 - 1e999 x1",
        "x1/1e-200/1e-200",
    ],
)
def test_numbers_beyond_double_precision_are_refused(text):
    """Alone, in products, quotients and sums, and where two of them would cancel."""
    with pytest.raises(SpecError, match="finite in double precision; found"):
        read(text)
