"""The words before a random-effects term, the double bar, and the transforms by groups."""

from __future__ import annotations

import pytest

from hierlmm.errors import FormulaError, SpecError
from hierlmm.spec import CompoundSymmetric, Diagonal, General, Identity, RandomTerm, lmm
from hierlmm.spec.formula import formulaic_formula, parse, term_columns

# Text, and the terms it stands for. The words are glmmTMB's; the double bar is one block a coefficient, diagonal.
TERMS = {
    "us(x | g)": [RandomTerm(("1", "x"), ("g",), General())],
    "(x | g)": [RandomTerm(("1", "x"), ("g",), General())],
    "us(1 | g)": [RandomTerm(("1",), ("g",), General())],
    "diag(x | g)": [RandomTerm(("1", "x"), ("g",), Diagonal())],
    "diag(0 + f | g)": [RandomTerm(("f",), ("g",), Diagonal())],
    "diag(1 | g)": [RandomTerm(("1",), ("g",), General())],
    "identity(0 + f | g)": [RandomTerm(("f",), ("g",), Identity())],
    "identity(bs(x, df=4) - 1 | g)": [RandomTerm(("bs(x, df=4)",), ("g",), Identity())],
    "cs(0 + f:h | g)": [RandomTerm(("f:h",), ("g",), CompoundSymmetric())],
    "cs(0 + x + z | g)": [RandomTerm(("x", "z"), ("g",), CompoundSymmetric())],
    "cs(0+f|a/b)": [RandomTerm(("f",), one, CompoundSymmetric()) for one in (("a",), ("a", "b"))],
    "identity(x | a:b)": [RandomTerm(("1", "x"), ("a", "b"), Identity())],
    "(x || g)": [RandomTerm(("1",), ("g",)), RandomTerm(("x",), ("g",), Diagonal())],
    "(0 + x || g)": [RandomTerm(("x",), ("g",), Diagonal())],
    "(f || a/b)": [
        term for one in (("a",), ("a", "b")) for term in (RandomTerm(("1",), one), RandomTerm(("f",), one, Diagonal()))
    ],
    "diag(0 + `a (|b` + log(`x.1`) | `my g`)": [RandomTerm(("`a (|b`", "log(`x.1`)"), ("my g",), Diagonal())],
}


@pytest.mark.parametrize(("text", "expected"), TERMS.items())
def test_a_word_states_the_covariance_of_its_term(text: str, expected: list[RandomTerm]) -> None:
    """And the canonical text reads as the same terms."""
    spec = lmm(f"y ~ x + {text}")

    assert list(spec.random) == expected
    assert lmm(spec.formula) == spec


def test_cs_with_a_bar_is_a_covariance_and_without_one_a_spline() -> None:
    """formulaic's cubic spline keeps its name: cs(x, df=4)."""
    parsed = parse("y ~ cs(x, df=4) + cs(0 + f | g)")

    assert parsed.fixed == ("1", "cs(x, df=4)")
    assert parsed.random == (RandomTerm(("f",), ("g",), CompoundSymmetric()),)


@pytest.mark.parametrize(
    ("covariance", "text"),
    [
        (General(), "(0 + x | g)"),
        (Diagonal(), "diag(0 + x | g)"),
        (Identity(), "identity(0 + x | g)"),
        (CompoundSymmetric(), "cs(0 + x | g)"),
    ],
)
def test_a_term_prints_as_a_formula_writes_it(covariance: General, text: str) -> None:
    """One text for each type."""
    assert str(RandomTerm(("x",), ("g",), covariance)) == text


# formula, position of the caret, what the message says
REFUSED = [
    ("y ~ ar1(0 + t | g)", 4, r"are us, diag, identity, cs; found 'ar1'.*residual=hl\.AR1\(group, position\)"),
    ("y ~ x + ou(t | g)", 8, r"residual=hl\.ContinuousAR1"),
    ("y ~ toep(t | g)", 4, r"residual=hl\.Toeplitz"),
    ("y ~ homdiag(f | g)", 4, r"found 'homdiag'. One variance for all coefficients is identity\(0 \+ f \| g\)"),
    ("y ~ hetcs(f | g)", 4, "found 'hetcs'. One variance"),
    ("y ~ mystery(f | g)", 4, r"found 'mystery'. \(x \| g\) and us\(x \| g\)"),
    ("y ~ log(x | g)", 4, "found 'log'"),
    ("y ~ offset(x | g)", 4, "found 'offset'"),
    ("y ~ diag(x || g)", 11, r"\|\| means independent already"),
    ("y ~ us(x || g)", 9, r"\|\| means independent already"),
    ("y ~ identity(1 | g)", 15, r"one coefficient, and so nothing to share a variance with: write \(1 \| g\)"),
    ("y ~ cs(0 + log(x) | g)", 18, r"write \(0 \+ log\(x\) \| g\)"),
    ("y ~ identity(0 + {x + z}:log(x) | g)", 32, "nothing to share"),
    ("y ~ diag(| g)", 9, "Nothing stands before the bar"),
    ("y ~ diag(0 | g)", 11, "Nothing varies"),
    ("y ~ diag(x | )", 13, "grouping factor is missing"),
    ("y ~ diag(x | g", 4, "opened and not closed"),
    ("y ~ diag(x $ 1 | g)", 11, "not a sign of the formula language"),
    ("y ~ diag(`` | g)", 9, "Nothing stands between"),
    ("y ~ diag(x | g):z", 11, "stands alone in parentheses"),
    ("y ~ (diag(x | g) | h)", 12, "stands alone in parentheses"),
    ("y ~ us((x | g))", 4, "may call only these transforms"),
    ("y ~ us(cs(x | g) | h)", 10, "Only columns, numbers"),
    ("y ~ diag (x | g)", 12, "stands alone in parentheses"),
    ("y ~ x - diag(x | g)", 8, "cannot be removed"),
    ("y ~ x * diag(x | g)", 15, "stands alone in parentheses"),
    ("diag(y | g) ~ x", 4, "one column or one expression"),
    ("y ~ diag(y | g)", 9, "response cannot also"),
    ("y ~ (1 | g) + diag(x | g)", 14, r"write \(1 \+ x \| g\) once, or .* \(1 \| g\) \+ diag\(0 \+ x \| g\)"),
    ("y ~ cs(0 + f | g) + (0 + f | g)", 20, r"f varies over g in two terms.*write cs\(0 \+ f \| g\) once"),
]


@pytest.mark.parametrize(("formula", "position", "message"), REFUSED)
def test_what_is_no_term_is_refused_where_it_stops_being_one(formula: str, position: int, message: str) -> None:
    """Positions inside the parentheses of a word count characters of the whole formula."""
    with pytest.raises(FormulaError, match=message) as caught:
        parse(formula)

    assert caught.value.position == position


def test_a_covariance_that_is_no_type_is_refused() -> None:
    """In a term made by hand."""
    spec = lmm("y ~ (x | g)")
    with pytest.raises(SpecError, match="one of General, Diagonal, Identity, CompoundSymmetric; found 'diag'"):
        type(spec)(response="y", fixed=("1",), random=(RandomTerm(("1",), ("g",), "diag"),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "canonical", "columns"),
    [
        ("within(x, g)", "within(x, g)", ("x", "g")),
        ("between( x,g )", "between(x, g)", ("x", "g")),
        ("within(log(x) + `a.b`, `my g`)", "within(log(x) + `a.b`, `my g`)", ("x", "a.b", "my g")),
        ("between(I(x*2), g):z", "between(I(x * 2), g):z", ("x", "g", "z")),
        ("I(within(x, g)**2)", "I(within(x, g) ** 2)", ("x", "g")),
        ("{between(x, g) - between(x, h)}", "I(between(x, g) - between(x, h))", ("x", "g", "h")),
    ],
)
def test_group_means_have_one_spelling_and_read_two_columns(
    text: str, canonical: str, columns: tuple[str, ...]
) -> None:
    """In the fixed part and before a bar; formulaic takes the text as it is."""
    parsed = parse(f"y ~ {text} + ({text} | g)")

    assert parsed.fixed == ("1", canonical)
    assert parsed.random == (RandomTerm(("1", canonical), ("g",)),)
    assert term_columns(canonical) == columns
    assert [str(term) for term in formulaic_formula((canonical,))] == [canonical]


@pytest.mark.parametrize(
    ("formula", "position", "message"),
    [
        ("y ~ within(x)", 4, r"takes a numeric column and a column of groups, as in within\(x, g\)"),
        ("y ~ within(x, g, h)", 4, "a numeric column and a column of groups"),
        ("y ~ within(x, g=g)", 4, "a numeric column and a column of groups"),
        ("y ~ between(x, 2)", 4, "a numeric column and a column of groups"),
        ("y ~ between(x, a/b)", 4, "several columns make one column"),
        ("y ~ within(2, g)", 11, "takes a column first"),
        ("y ~ within(*x, g)", 11, "Only columns"),
        ("y ~ within(center(x), g)", 11, r"Inside within\(...\) stand columns, arithmetic and abs, exp"),
        ("y ~ between(x + within(z, g), g)", 16, r"Inside between\(...\)"),
        ("y ~ within(poly(x, 2), g)", 11, r"Inside within\(...\)"),
        ("y ~ poly(within(x, g), 2) + within", 28, "both a column and part of an expression"),
        ("within(y, g) ~ x", 0, "cannot be part of the response"),
        ("y ~ offset(1 + between(x, g))", 4, "cannot be part of the offset"),
        ("y ~ within(__x, g)", 11, "two leading underscores"),
        ("y ~ within(x, __g)", 14, "two leading underscores"),
    ],
)
def test_group_means_of_anything_else_are_refused(formula: str, position: int, message: str) -> None:
    """A numeric column or elementwise expression, and one column of groups."""
    with pytest.raises(FormulaError, match=message) as caught:
        parse(formula)

    assert caught.value.position == position
