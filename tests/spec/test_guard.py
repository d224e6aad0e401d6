"""Nothing but columns, numbers and named transforms is ever handed to an evaluator."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierlmm.errors import FormulaError
from hierlmm.spec import ModelSpec, lmm
from hierlmm.spec.formula import formulaic_formula, parse
from hierlmm.spec.guard import ELEMENTWISE, read

ATTACKS = [
    "__import__('os').system('touch pwned')",
    "eval('1')",
    "open(x)",
    "print(x)",
    "getattr(x, 'y')",
    "np.load(x)",
    "np.abs.__globals__(x)",
    "x.values(x)",
    "I(x.__class__)",
    "I(`x`.y)",
    "I(x)(y)",
    "I(x[0])",
    "I([c for c in x])",
    "I((c for c in x))",
    "I(lambda: x)",
    "I(x if y else z)",
    "I(x and y)",
    "I(not x)",
    "I(x > 1)",
    "I(x @ z)",
    "I(x % 2)",
    "I(x // 2)",
    "I(x << 2)",
    "I(~x)",
    "I((w := x))",
    "I(f'{x}')",
    "I(x, 'a')",
    "I('a')",
    "I(x + True)",
    "I(x + None)",
    "I(x + 1j)",
    "I(...)",
    "I({x: z})",
    "I(await x)",
    "log(*x)",
    "log(**x)",
    "log(x, out=z)",
    "log(x=z)",
    "log()",
    "log(poly(x, 2))",
    "I(C(x))",
    "C(x, z)",
    "C(x, eval('1'))",
    "C(x, contr.__class__)",
    "C(x, contr.sum(z))",
    "C(x, contr.sum()())",
    "C(x, contr.sum(*z))",
    "C(x, contr.sum(**z))",
    "C(x, levels=z)",
    "C(x, levels=[*z])",
    "C(x, levels=[z])",
    "C(x, levels=['a'], levels=['b'])",
    "C(x, _state=z)",
    "poly(x, z)",
    "poly(x, 1000000)",
    "poly(x, -1)",
    "poly(x, 2, raw=1)",
    "poly(x, 2, False, 3, 4)",
    "bs(x, df=10**9)",
    "bs(x, knots=range(9))",
    "scale(x, ddof='a')",
    "Q('x')",
    "hashed(x)",
    "lag(x)",
    "standardize(x, _state={})",
    "I(2 ** 3 ** 4 + x)",
    "I(9 ** 9 ** 9 * x)",
    "I(1e999 * x)",
    "I(x * 1" + "0" * 310 + ")",
    "I(2)",
    "log(1)",
    "I(__x__)",
    "I(x;z)",
    "I(x\\\n+ z)",
    "I(x +)",
    "I(x + '\ud800')",
    "I(\N{LATIN SMALL LIGATURE FI}n)",
    "I(`class`)",
    "I(`\N{LATIN SMALL LIGATURE FI}n 1`)",
    "I(`it's`)",
    "I(" + "-" * 60 + "x)",
    "I(" + "+".join(["x"] * 600) + ")",
    "I(" + "(" * 300 + "x" + ")" * 300 + ")",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_expressions_outside_the_list_are_refused_everywhere(text: str) -> None:
    """In the fixed part, in braces, as response, as offset, before a bar, and in terms made by hand."""
    braces = "{" + text + "}"
    for formula in (
        f"y ~ {text} + (1 | g)",
        f"y ~ {braces}",
        f"{text} ~ x",
        f"y ~ offset({text})",
        f"y ~ ({text} | g)",
    ):
        with pytest.raises(FormulaError):
            parse(formula)
    with pytest.raises(FormulaError):
        formulaic_formula((text,))


def test_a_spec_made_by_hand_is_guarded_when_it_is_used() -> None:
    """A frozen spec can be filled with any text; reading its columns refuses what the parser would."""
    spec = ModelSpec(response="y", fixed=("1", "__import__('os')"), random=lmm("y ~ (1 | g)").random)

    with pytest.raises(FormulaError, match="may call only these transforms"):
        spec.columns()


@pytest.mark.parametrize(
    ("source", "position", "message"),
    [
        ("y ~ log(x.a)", 8, r"goes in backticks here: log\(`a.b`\)"),
        ("y ~ log(`a b` + q.z)", 16, "goes in backticks"),
        ("y ~ I(`é` + `a b` * q.z)", 20, "goes in backticks"),
        ("y ~ sin(x)", 4, "may call only these transforms: C, I, abs"),
        ("y ~ I(x + poly(z, 2))", 10, "stands alone"),
        ("y ~ {x + poly(z, 2)}", 9, "stands alone"),
        ("y ~ poly(x, degree=200)", 19, "whole number from 0 to 100"),
        ("y ~ bs(x, dof=3)", 14, "has no option 'dof'; its options are df, knots"),
        ("y ~ offset(  sin(t))", 13, "may call only these transforms"),
        ("y ~ I(x ** (2 ** 3))", 12, "write it out"),
        ("y ~ I(x +)", 9, "not a complete expression"),
    ],
)
def test_refusals_point_into_the_expression(source: str, position: int, message: str) -> None:
    """Positions count characters of the formula, past backticks and letters of two bytes."""
    with pytest.raises(FormulaError, match=message) as caught:
        parse(source)

    assert caught.value.position == position


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("log( x )", "log(x)"),
        ("I(x**2)", "I(x ** 2)"),
        ("x+z", "I(x + z)"),
        ("I((x + z)/ 2)", "I((x + z) / 2)"),
        ("I(x ** (1/3))", "I(x ** (1 / 3))"),
        ("np.log1p(`a b`)", "np.log1p(`a b`)"),
        ("bs(x,df=4)", "bs(x, df=4)"),
        ("bs(x, knots=[1, -2.5])", "bs(x, knots=[1, -2.5])"),
        ('C(g, contr.treatment("a"))', "C(g, contr.treatment('a'))"),
        ("C(g, Sum, levels=['b', 'a'])", "C(g, Sum, levels=['b', 'a'])"),
        ("poly(center(x), 2, raw=True)", "poly(center(x), 2, raw=True)"),
        ("cr(x, df=4, constraints='center')", "cr(x, df=4, constraints='center')"),
        ("scale(x, ddof=0)", "scale(x, ddof=0)"),
        ("log(`x`)", "log(x)"),
        ("C(g, contr.poly([1, 2, 4]))", "C(g, contr.poly([1, 2, 4]))"),
        ("I(q_0 + `a b` + q__0)", "I(q_0 + `a b` + q__0)"),
        ("log(`x.y` + `it is`)", "log(`x.y` + `it is`)"),
        ("I(-x + 1.5e-3)", "I(-x + 0.0015)"),
    ],
)
def test_allowed_expressions_have_one_spelling(source: str, text: str) -> None:
    """The canonical text is Python's own; reading it again changes nothing."""
    expression = read(source)

    assert expression.text == text
    assert read(text).text == text


def test_every_elementwise_transform_is_numpys_function_of_that_name() -> None:
    """Through formulaic, each gives what numpy gives, with and without the prefix np."""
    data = pd.DataFrame({"a b": [0.5, 1.0, 2.0, 4.0]})
    context = {name: getattr(np, name) for name in ELEMENTWISE}
    terms = tuple(sorted(parse("y ~ 0 + " + " + ".join(f"{n}(`a b`) + np.{n}(`a b`)" for n in ELEMENTWISE)).fixed))

    matrix = formulaic_formula(terms).get_model_matrix(data, context=context)

    assert list(matrix.columns) == list(terms)
    for term in terms:
        function = getattr(np, term.removeprefix("np.").partition("(")[0])
        np.testing.assert_array_equal(matrix[term], function(data["a b"]))
