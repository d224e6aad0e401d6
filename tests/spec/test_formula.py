"""Formulas are read as lme4 and formulaic define them, and refused with the position where they cannot be."""

from __future__ import annotations

import pytest
from formulaic import Formula
from formulaic.errors import FormulaSyntaxError
from formulaic.formula import DEFAULT_PARSER

from hierlmm.errors import FormulaError
from hierlmm.spec import RandomTerm
from hierlmm.spec.formula import formulaic_formula, parse, term_columns
from hierlmm.spec.lexer import unquoted

# Bates, Maechler, Bolker and Walker (2015), J. Stat. Softw. 67(1), table 2, and the expansions of its section 2.3.
LME4_TABLE = {
    "(1 | g)": ["(1 | g)"],
    "(1 | g1/g2)": ["(1 | g1)", "(1 | g1:g2)"],
    "(1 | g1) + (1 | g1:g2)": ["(1 | g1)", "(1 | g1:g2)"],
    "(1 | g1) + (1 | g2)": ["(1 | g1)", "(1 | g2)"],
    "x + (x | g)": ["(1 + x | g)"],
    "1 + x + (1 + x | g)": ["(1 + x | g)"],
    "x + (x || g)": ["(1 | g)", "diag(0 + x | g)"],
    "1 + x + (1 | g) + (0 + x | g)": ["(1 | g)", "(0 + x | g)"],
    "(0 + x | g)": ["(0 + x | g)"],
    "(-1 + x | g)": ["(0 + x | g)"],
    "(x - 1 | g)": ["(0 + x | g)"],
    "(1 | a/b/c)": ["(1 | a)", "(1 | a:b)", "(1 | a:b:c)"],
    "(1 | a:b/c)": ["(1 | a:b)", "(1 | a:b:c)"],
    "(x || a/b)": ["(1 | a)", "diag(0 + x | a)", "(1 | a:b)", "diag(0 + x | a:b)"],
    "(x*z | g)": ["(1 + x + z + x:z | g)"],
    "(x*z || g)": ["(1 | g)", "diag(0 + x | g)", "diag(0 + z | g)", "diag(0 + x:z | g)"],
    "(f | g)": ["(1 + f | g)"],
    "(log(x) | `g h`)": ["(1 + log(x) | `g h`)"],
}

FIXED = [
    "x",
    "x + z",
    "x * z",
    "x * z * w - x:z:w",
    "x:z + z + x",
    "(x + z + w) ** 2",
    "(x + z + w)^3 - x:z",
    "x / z",
    "(x + w) / z",
    "z %in% x",
    "0 + x",
    "x - 1",
    "x + 0",
    "-1 + x",
    "x + -1",
    "x - 1 + 1",
    "1",
    "x:x",
    "log(x) * C(g)",
    "C(g, contr.sum) + poly(x, 2) + I(x ** 2)",
    "x * (z + w) - z",
    "((x))",
    "+ x",
]


@pytest.mark.parametrize(("text", "expected"), LME4_TABLE.items())
def test_random_effects_terms_are_those_of_lme4(text: str, expected: list[str]) -> None:
    """Each formula of lme4's paper expands to the terms that the paper gives."""
    parsed = parse(f"y ~ {text}")

    assert [str(term) for term in parsed.random] == expected


@pytest.mark.parametrize("text", FIXED)
def test_fixed_part_expands_as_formulaic_expands_it(text: str) -> None:
    """Witness: formulaic 1.2's own parser and term order on the same text."""
    expected = [str(term) for term in Formula(text)]

    assert list(parse(f"y ~ {text} + (1 | g)").fixed) == expected
    assert list(parse(f"y ~ (1 | g) + {text}").fixed) == expected
    assert [str(term) for term in formulaic_formula(parse(f"y ~ {text}").fixed)] == expected


@pytest.mark.parametrize("text", FIXED)
def test_coefficients_before_the_bar_expand_like_the_fixed_part(text: str) -> None:
    """`(text | g)` lets vary what `y ~ text` estimates."""
    parsed = parse(f"y ~ {text} + ({text} | g)")

    assert parsed.random == (RandomTerm(parsed.fixed, ("g",)),)


def test_blanks_order_of_parts_and_an_explicit_intercept_do_not_matter() -> None:
    """One model has one reading, whatever the spelling."""
    spellings = [
        "y~x+(1|g)",
        "y ~ 1 + x + (1 | g)",
        "\ty ~ (1|g) +\n x ",
        "y ~ x + (+1 | `g`)",
        "`y` ~ (x) + ( 1 | g )",
    ]

    assert len({parse(text) for text in spellings}) == 1


def test_offsets_are_kept_apart_in_order() -> None:
    """Several offsets, of columns or expressions, enter with coefficient 1 (R: ?offset)."""
    parsed = parse("y ~ x + offset(log(t)) + offset( `u v` ) + offset(a/b) + (1 | g)")

    assert parsed.offset == ("log(t)", "`u v`", "I(a / b)")
    assert parsed.fixed == ("1", "x")


def test_a_plain_column_is_told_from_everything_else() -> None:
    """What reads a column directly, without evaluating anything, may only do so for these."""
    terms = ["x", "x.1", "`a b`", "1", "log(x)", "x:z", "`a b`:`c d`", "I(x)"]

    assert [unquoted(term) for term in terms] == ["x", "x.1", "a b", None, None, None, None, None]


def test_names_that_are_no_words_stand_in_backticks() -> None:
    """Blanks, dots, leading digits and keywords of Python are names in backticks, or as R writes them."""
    parsed = parse("`net income` ~ x.1 + `2019` + class + log(`x.1`) + `a (b)` + (1 | `post code`)")

    assert parsed.response == "`net income`"
    assert parsed.fixed == ("1", "x.1", "`2019`", "class", "log(`x.1`)", "`a (b)`")
    assert parsed.random == (RandomTerm(("1",), ("post code",)),)


@pytest.mark.parametrize(
    ("term", "columns"),
    [
        ("1", ()),
        ("x", ("x",)),
        ("`a b`:x", ("a b", "x")),
        ("C(MajorArea)", ("MajorArea",)),
        ("bs(x, df=4)", ("x",)),
        ("C(g, contr.treatment('a')):log(`a b` + np.exp(z))", ("g", "a b", "z")),
        ("I(x / x.real if False else 0)", None),
    ],
)
def test_columns_of_a_term_are_what_it_reads(term: str, columns: tuple[str, ...] | None) -> None:
    """Transforms, codings and options are no columns; an expression outside the guard is refused here as well."""
    if columns is None:
        with pytest.raises(FormulaError, match="Only columns, numbers"):
            term_columns(term)
    else:
        assert term_columns(term) == columns


# formula, position of the caret, what the message says
REFUSED = [
    ("", 0, "exactly one ~"),
    ("y", 1, "exactly one ~"),
    ("y ~ x ~ z", 6, "exactly one ~"),
    ("y ~ (x ~ z)", 7, "exactly one ~"),
    ("~ x + (1 | g)", 0, "response is missing"),
    ("y ~ ", 4, "Nothing stands after ~"),
    ("a + b ~ x", 2, "several responses"),
    ("(y) ~ x", 1, "several responses"),
    ("1 ~ x", 0, "several responses"),
    ("C(y) ~ x", 0, "one numeric column"),
    ("y ~ .", 4, "name the predictors"),
    ("y ~ x | z", 6, "stands alone in parentheses"),
    ("y ~ x + ((1 | g))", 12, "stands alone in parentheses"),
    ("y ~ (1 | g) * x", 7, "stands alone in parentheses"),
    ("y ~ x:(1 | g)", 9, "stands alone in parentheses"),
    ("y ~ (1 | g | h)", 11, "joined by : or /"),
    ("y ~ x - (1 | g)", 8, "cannot be removed"),
    ("y ~ ( | g)", 6, "Nothing stands before the bar"),
    ("y ~ (0 | g)", 7, "Nothing varies"),
    ("y ~ (1 | )", 9, "grouping factor is missing"),
    ("y ~ (1 | a:)", 11, "grouping factor is missing"),
    ("y ~ (1 | a + b)", 11, "two factors are two terms"),
    ("y ~ (1 | a * b)", 11, "two factors are two terms"),
    ("y ~ (1 | factor(g))", 9, "joined by : or /"),
    ("y ~ (1 | (a))", 9, "joined by : or /"),
    ("y ~ (1 | 2)", 9, "joined by : or /"),
    ("y ~ (1 | a:a)", 11, "twice in one grouping factor"),
    ("y ~ (1 | a/a)", 11, "twice in one grouping factor"),
    ("y ~ (1 | `a:b`)", 9, "colon joins columns"),
    ("y ~ (1 | Residual)", 9, "residual has that name"),
    ("y ~ (offset(x) | g)", 5, "no coefficient"),
    ("y ~ x * offset(z)", 8, "offset stands alone"),
    ("y ~ offset(z) * x", 4, "offset stands alone"),
    ("y ~ x - offset(z)", 8, "offset stands alone"),
    ("y ~ offset(C(z))", 4, "one numeric column"),
    ("y ~ x + offset( `a\\b` )", 16, "characters that a formula cannot carry"),
    ("y ~ x + offset( Intercept )", 16, "intercept's"),
    ("`a:b` ~ x", 0, "colon joins predictors"),
    ("y ~ offset()", 11, "not a complete expression"),
    ("y ~ (1 | g) + (1 + x | g)", 14, r"write \(1 \+ x \| g\) once, or .* \(1 \| g\) \+ \(0 \+ x \| g\)"),
    ("y ~ (x | g) + (x | g)", 14, r"write \(1 \+ x \| g\) once"),
    ("y ~ (1 | a:b) + (1 | b:a)", 16, "The intercept varies over a:b in two terms"),
    ("y ~ (x:z | g) + (0 + z:x | g)", 16, "z:x varies over g in two terms"),
    ("y ~ x + y", 8, "response cannot also"),
    ("y ~ x + (y | g)", 9, "response cannot also"),
    ("y ~ x + (1 | y)", 13, "response cannot also"),
    ("y ~ x +", 7, "missing after the last sign"),
    ("y ~ x * ", 6, "missing after the last sign"),
    ("y ~ * x", 4, "missing before '\\*'"),
    ("y ~ x * (z + )", 13, "missing before this parenthesis"),
    ("y ~ x z", 6, "sign .* is missing"),
    ("y ~ log (x)", 8, "sign .* is missing"),
    ("y ~ x + z)", 9, "no opening one"),
    ("y ~ (x + z", 4, "not closed"),
    ("y ~ `a b", 4, "opened and not closed"),
    ("y ~ log(x", 4, "opened and not closed"),
    ("y ~ ``", 4, "Nothing stands between"),
    ("y ~ x + {}", 8, "Nothing stands between"),
    ("y ~ x %% z", 6, "Nothing stands between|not closed"),
    ("y ~ ``x", 4, "Nothing stands between"),
    ("y ~ 2 * x", 4, "A number stands only"),
    ("y ~ x + 2", 8, "A number stands only"),
    ("y ~ x * (z + 0)", 13, "A number stands only"),
    ("y ~ 'x'", 4, "text stands only inside"),
    ("y ~ 1e5", 4, "needs backticks"),
    ("y ~ x[1]", 4, "Only columns, numbers"),
    ("y ~ [x]", 4, "Square brackets"),
    ("y ~ x @ z", 6, "not a sign of the formula language"),
    ("y ~ x == z", 6, "not a sign of the formula language"),
    ("y ~ x %o% z", 6, "not a sign of the formula language"),
    ("y ~ x ** z", 9, "power in a formula"),
    ("y ~ x ** 0", 9, "power in a formula"),
    ("y ~ (x + z) ** 1.5", 15, "power in a formula"),
    ("y ~ (x + z) ** 2 ** 2", 17, "power cannot be raised"),
    ("y ~ (x + z + a + b) ** 12", 23, "power in a formula"),
    ("y ~ (x + z + a + b) ** 6", 4, "at most 1000 terms"),
    ("y ~ x - z", 8, r"write I\(x - z\)"),
    ("y ~ x + `1`", 8, "intercept's"),
    ("y ~ Intercept", 4, "intercept's"),
    ("y ~ `x:z` + x*z", 4, "colon joins predictors"),
    ("y ~ `a\\b`", 4, "characters that a formula cannot carry"),
    ("y ~ `a\x00b`", 4, "characters that a formula cannot carry"),
    ("y ~ ` `", 4, "characters that a formula cannot carry"),
    ("y ~ log + log(x)", 4, "both a column and part of an expression"),
    ("y ~ `log(x)` + log(x)", 4, "both a column and part of an expression"),
    ("y ~ np.exp(x) + (1 | np)", 21, "both a column and part of an expression"),
]


@pytest.mark.parametrize(("formula", "position", "message"), REFUSED)
def test_what_is_no_model_is_refused_where_it_stops_being_one(formula: str, position: int, message: str) -> None:
    """The error carries the text and the place, and its message shows both with a caret."""
    with pytest.raises(FormulaError, match=message) as caught:
        parse(formula)

    assert caught.value.position == position
    assert caught.value.formula == formula
    if formula:
        assert str(caught.value).endswith(f"\n  {formula}\n  {' ' * position}^")


def test_a_formula_that_is_no_text_is_refused() -> None:
    """Numbers, None and formulaic's own objects are not read."""
    for value in (3, None, b"y ~ x", ["y ~ x"]):
        with pytest.raises(FormulaError, match="A formula is text"):
            parse(value)  # type: ignore[arg-type]


def test_a_formula_that_grows_too_long_is_refused_with_both_numbers() -> None:
    """The limit holds for the text and for what it expands to, so that canonical text can always be read again."""
    with pytest.raises(FormulaError, match="at most 10000 characters; this one has 1000002"):
        parse("y~" + "x" * 1_000_000)
    with pytest.raises(FormulaError, match="Written out, a formula has at most 10000 characters"):
        parse(f"y ~ ({'*'.join('abcdefghi')} | g/h/i/j/k/l)".replace("i/", "w/"))
    with pytest.raises(FormulaError, match="at most 20 columns"):
        parse(f"y ~ (1 | {'/'.join(f'g{level}' for level in range(30))})")
    with pytest.raises(FormulaError, match="nest at most 50 deep"):
        parse(f"y ~ {'(' * 60}x{')' * 60}")
    with pytest.raises(FormulaError, match="at most 500 names and signs"):
        parse(f"y ~ {':'.join(['x'] * 300)}")


def test_words_of_formulaic_come_with_our_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should formulaic refuse what the grammar let through, its reason is kept and its error class is not."""

    def refuse(*_: object, **__: object) -> None:
        raise FormulaSyntaxError("a reason\nand more")

    monkeypatch.setattr(DEFAULT_PARSER, "get_terms_from_ast", refuse)

    with pytest.raises(FormulaError, match="cannot be read: a reason\n") as caught:
        parse("y ~ 1 + only * here")
    assert caught.value.position == 8


def test_a_term_is_never_a_sum() -> None:
    """Terms made by hand are read by the same rules; text that is no product of factors is refused."""
    for term in ("x + z", "x:", "", "(x)", "x*z"):
        with pytest.raises(FormulaError, match="A term is one column or expression"):
            formulaic_formula((term,))
