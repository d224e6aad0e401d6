"""Options of the transforms allowed in formulas: poly(x, 2), bs(x, df=4), C(g, contr.treatment("a"))."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Literal

from hierlmm.errors import FormulaError

Kind = Literal["flag", "count", "number", "numbers", "word", "values", "contrast"]
Refuse = Callable[[ast.AST, str], FormulaError]

# More columns than this from one transform are a slip, and cost memory before anything can be refused.
MAX_COUNT = 100

_CUBIC: dict[str, Kind] = {
    "df": "count",
    "knots": "numbers",
    "lower_bound": "number",
    "upper_bound": "number",
    "constraints": "word",
    "extrapolation": "word",
}
# Parameters after the first in the order of formulaic's signatures, with the kind of value each takes.
OPTIONS: dict[str, dict[str, Kind]] = {
    "C": {"contrasts": "contrast", "levels": "values", "spans_intercept": "flag"},
    "poly": {"degree": "count", "raw": "flag"},
    "bs": {
        "df": "count",
        "knots": "numbers",
        "degree": "count",
        "include_intercept": "flag",
        "lower_bound": "number",
        "upper_bound": "number",
        "extrapolation": "word",
    },
    "cr": _CUBIC,
    "cs": _CUBIC,
    "cc": _CUBIC,
    "scale": {"center": "flag", "scale": "flag", "ddof": "number"},
    "standardize": {"center": "flag", "rescale": "flag", "ddof": "number"},
}
CONTRASTS = frozenset({"Treatment", "Sum", "Helmert", "Diff", "Poly"})
CONTR = frozenset({"treatment", "SAS", "sum", "helmert", "diff", "poly"})

_WANTED: dict[Kind, str] = {
    "flag": "True or False",
    "count": f"a whole number from 0 to {MAX_COUNT}",
    "number": "a number",
    "numbers": "a list of numbers",
    "word": "a word in quotes",
    "values": "a list of numbers or quoted words",
    "contrast": "a coding such as contr.sum or contr.treatment('a')",
}


def check_options(name: str, call: ast.Call, refuse: Refuse) -> None:
    """Check everything after the first argument of a transform; raises `refuse(node, message)`."""
    known = OPTIONS.get(name, {})
    if len(call.args) - 1 > len(known):
        raise refuse(call.args[len(known) + 1], f"{name}(...) takes {len(known)} options at most.")
    given: dict[str, ast.expr] = dict(zip(known, call.args[1:], strict=False))
    for option in call.keywords:
        if option.arg not in known:
            allowed = f"its options are {', '.join(known)}" if known else "it has none"
            raise refuse(option.value, f"{name}(...) has no option {option.arg!r}; {allowed}.")
        if option.arg in given:
            raise refuse(option.value, f"The option {option.arg} is given twice.")
        given[option.arg] = option.value
    for option_name, value in given.items():
        if not _fits(known[option_name], value):
            raise refuse(value, f"The option {option_name} of {name}(...) takes {_WANTED[known[option_name]]}.")


def _fits(kind: Kind, node: ast.expr) -> bool:
    if kind == "contrast":
        return _is_contrast(node)
    if kind in ("numbers", "values"):
        test = _is_number if kind == "numbers" else _is_value
        return isinstance(node, ast.List | ast.Tuple) and all(test(item) for item in node.elts)
    if kind == "number":
        return _is_number(node)
    value = node.value if isinstance(node, ast.Constant) else None
    if kind == "count":
        return type(value) is int and 0 <= value <= MAX_COUNT
    return isinstance(value, bool if kind == "flag" else str)


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_value(node: ast.expr) -> bool:
    return _is_number(node) or isinstance(node, ast.Constant) and isinstance(node.value, str | bool)


def _is_contrast(node: ast.expr) -> bool:
    """contr.sum, Sum, or either called with plain values."""
    if isinstance(node, ast.Call):
        values = [*node.args, *(option.value for option in node.keywords if option.arg is not None)]
        complete = len(values) == len(node.args) + len(node.keywords)
        return complete and not isinstance(node.func, ast.Call) and _is_contrast(node.func) and all(map(_plain, values))
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "contr" and node.attr in CONTR
    return isinstance(node, ast.Name) and node.id in CONTRASTS


def _plain(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple):
        return all(_is_value(item) for item in node.elts)
    return _is_value(node)
