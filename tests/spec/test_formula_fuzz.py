"""Whatever the text: a model or a FormulaError, within two seconds; and a model's text gives the same model."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hierlmm.errors import FormulaError
from hierlmm.spec import ModelSpec, lmm
from hierlmm.spec.formula import formulaic_formula, parse

LIMIT = 2.0  # seconds for any text
EXAMPLES = settings(max_examples=300, deadline=timedelta(seconds=LIMIT), database=None, derandomize=True)

NAMES = st.sampled_from(["x", "z", "w", "x.1", "`a b`", "`2019`", "`é (%)`"])
CALLS = st.sampled_from(
    [
        *("log(x)", "I(x**2)", "{x + z}", "C(f)", "C(f, contr.sum)", "poly(z, 2)", "np.sqrt(`a b`)", "bs(w, df=4)"),
        *("within(x, m)", "between(log(z) + x, `post code`)", "I(within(x, m) * w)"),
    ]
)
FACTORS = NAMES | CALLS
SUMS = st.recursive(
    FACTORS,
    lambda inner: st.builds("{} {} {}".format, inner, st.sampled_from("+*:/"), inner) | inner.map("({})".format),
    max_leaves=4,
)
INTERCEPTS = st.sampled_from(["", "1 + ", "0 + ", "-1 + "])
COEFFICIENTS = st.just("1") | st.builds(str.__add__, INTERCEPTS, SUMS)
GROUPS = st.permutations(["g", "h", "`post code`", "k.2"])
WORDS = st.sampled_from(["", "", "us", "diag", "identity", "cs"])
RESPONSES = st.sampled_from(["y", "log(y)", "`net income`", "{y / n}"])


@st.composite
def formulas(draw: st.DrawFn) -> str:
    """A formula of the language: fixed part, offsets, and random terms that share no grouping factor."""
    parts = [draw(SUMS) for _ in range(draw(st.integers(0, 3)))]
    parts += draw(st.lists(st.sampled_from(["offset(t)", "offset(log(t))", "offset(t / u)"]), max_size=2))
    groups = draw(GROUPS)
    kinds = draw(st.lists(st.sampled_from(["{}", "{}:m", "{}/m/n"]), min_size=1, max_size=4))
    for kind, group in zip(kinds, groups, strict=False):
        word, bar = draw(WORDS), draw(st.sampled_from(["|", "||"]))
        first = "x + z + " if word in ("identity", "cs") else ""  # these are of several coefficients
        sum_of = first + draw(SUMS if first else COEFFICIENTS)
        parts.append(f"{word}({sum_of} {'|' if word else bar} {kind.format(group)})")
    blank = draw(st.sampled_from(["", " ", "  \n"]))
    return f"{draw(RESPONSES)}{blank}~{blank}{draw(INTERCEPTS)}{f'{blank}+{blank}'.join(draw(st.permutations(parts)))}"


@given(formulas())
@EXAMPLES
def test_canonical_text_parses_back_to_an_equal_spec(formula: str) -> None:
    """Also through TOML; the printed model keeps to 80 columns; its terms are formulaic's."""
    spec = lmm(formula)

    assert lmm(spec.formula) == spec
    assert lmm(spec.formula).formula == spec.formula
    assert ModelSpec.from_toml(spec.to_toml()) == spec
    assert max(map(len, str(spec).splitlines())) <= 80
    assert len(formulaic_formula(spec.fixed)) == len(spec.fixed)
    assert set(spec.columns().all) <= {
        *("y", "n", "net income", "x", "z", "w", "x.1", "a b", "2019", "é (%)", "f", "t", "u"),
        *("g", "h", "post code", "k.2", "m"),
    }


def assert_answered(text: str) -> None:
    """The text is a model or a FormulaError with a position inside it, in time."""
    start = time.perf_counter()
    position = 0
    try:
        parse(text)
    except FormulaError as error:
        position = error.position
    assert 0 <= position <= len(text)
    assert time.perf_counter() - start < LIMIT


TOKENS = (
    *("y ~ ", "x", "z", "`a b`", "+", "-", "*", "/", ":", "**", "^", "%in%", "%", "(", ")", "|", "||", "~", "0", "1"),
    *("2", "12", "1.5", "(1 | g)", "(x || a/b)", "offset(", "offset(x)", "log(", "log(x)", "I(", "C(g)", "np.", "x.y"),
    *("us(", "diag(", "identity(x | g)", "cs(0 + f | g)", "ar1(x | g)", "within(", "within(x, g)", "between(x, "),
    *(".", "[", "]", "{", "}", "`", "'", '"', "'a'", "\\", "lambda", ":=", "__import__('os')", "é", "²", "\n", "\x00"),
    *("\ud800", "🐍", "in", "not", "1e5", "1j", "=", "<", ",", "@", "#", "$", "!", "None", "x if y else z", "()", ";"),
)


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
@example("y ~ (x+z)**2**2")
@example("y ~ ``(x)")
@example("y ~ {}x")
@example("y ~ %%x")
@EXAMPLES
def test_token_soup_is_a_model_or_a_formula_error(text: str) -> None:
    """Where formulaic, patsy and formulae let foreign exceptions out."""
    assert_answered(text)
    assert_answered(f"y ~ x + {text}")
    assert_answered(f"y ~ ({text} | g)")


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
@EXAMPLES
def test_random_text_is_a_model_or_a_formula_error(text: str) -> None:
    """Any Unicode, lone surrogates and control characters included."""
    assert_answered(text)
    assert_answered(f"y ~ I({text})")


BOMBS = {
    "power": "y ~ (x+z+a+g)**12",
    "powers": "y~(x+z)**9" + "+(x+z)**9" * 800,
    "long name": "y ~ " + "x" * 1_000_000,
    "long name in limit": "y ~ " + "x" * 9_990,
    "product of all": "y~" + "*".join("abcdefghijklmnopqrst"),
    "products": "y~" + "+".join(["*".join("abcdefghi")] * 400),
    "products in bars": "y~" + "+".join(f"({'*'.join('abcdefgh')}|g{group})" for group in range(400)),
    "bar of a chain": f"y~({'*'.join('abcdefghi')}||{'/'.join(f'g{group}' for group in range(1_400))})",
    "interaction": "y~" + ":".join(f"x{column}" for column in range(1_600)),
    "product, then factors": "y~" + "*".join("abcdefghi") + ":x" * 200,
    "sum": "y~" + "+".join(f"x{column}" for column in range(1_500)),
    "long bar": "y~(" + "+".join(f"x{column}" for column in range(1_400)) + "|g)",
    "many bars": "y~" + "+".join(f"(1|g{group})" for group in range(900)),
    "offsets": "y~" + "offset(x)+" * 900 + "1",
    "ten thousand terms": "y~" + "+".join(f"x{column}" for column in range(10_000)),
    "square of a sum": "y~(" + "+".join(f"x{column}" for column in range(240)) + ")**2",
    "parentheses": "y~" + "(" * 4_900 + "x" + ")" * 4_900,
    "nested products": "y~" + "(" * 49 + "x" + "*x)" * 49,
    "calls": "y~" + "log(" * 200 + "x" + ")" * 200,
    "signs": "y~" + "-" * 9_990 + "x",
    "signs in a call": "y~I(" + "-" * 900 + "x)",
    "powers in a call": "y~I(" + "**".join(["x"] * 190) + ")",
    "powers of numbers": "y~I(x*9**9**9**9)",
    "tildes": "y" + "~" * 9_000,
    "bars": "y~" + "|" * 9_000,
    "bars in calls": "y~" + "a(" * 2_400 + "x" + "|g)" * 2_400,
    "many words": "y~" + "+".join(f"cs(x+z|g{group})" for group in range(600)),
    "words in a word": "y~diag(" + "+".join(["cs(x|g)"] * 1_000) + "|g)",
    "bars in a word": "y~diag(" + "|" * 9_000 + ")",
    "groups in groups": "y~" + "within(" * 120 + "x" + ",g)" * 120,
    "backticks": "y~" + "`" * 9_000,
    "braces": "y~" + "{" * 9_000,
    "there and back": "y~x" + "-x+x" * 2_000,
    "expressions": "y~" + "+".join(f"I(x+{number})" for number in range(900)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_no_text_takes_longer_than_two_seconds(text: str) -> None:
    """Time bombs that hold other parsers for 20 s and more, or end them with RecursionError."""
    parse("y ~ x")  # loads formulaic, which is no part of the limit

    assert_answered(text)
