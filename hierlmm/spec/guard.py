"""Expressions in formulas, such as log(x) or C(g, contr.sum): what is allowed to be evaluated, and nothing else.

A formula may come from a file or a command line, and formulaic evaluates its expressions as Python. So each is
read as a syntax tree and must consist of columns, numbers, + - * / ** and the transforms listed here.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from hierlmm.errors import FormulaError
from hierlmm.spec.lexer import QUOTED, check_name
from hierlmm.spec.options import check_options

# Longest expression and deepest nesting: far beyond use, far below what strains Python's own parser.
MAX_EXPRESSION = 1_000
MAX_DEPTH = 40

# numpy functions of one column, also reachable as np.<name>; whoever evaluates provides them under these names.
ELEMENTWISE = frozenset({"log", "log2", "log10", "log1p", "exp", "expm1", "sqrt", "abs"})
# formulaic's transforms with one column in and one out, which may stand inside arithmetic ...
SINGLE = frozenset({"I", "center", "scale", "standardize"})
# ... ours, of a numeric column and a column of groups: deviation from the group's mean, and that mean; whoever
# evaluates provides them under these names ...
GROUPED = frozenset({"within", "between"})
# ... and those that give several columns or categories, which must stand alone.
SEVERAL = frozenset({"C", "poly", "bs", "cr", "cs", "cc"})
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


@dataclass(frozen=True, slots=True)
class Expression:
    """A guarded expression.

    text     canonical text; columns: names of the columns it reads, in order; calls: other names it uses
    several  whether it may give several columns
    groups   those of the columns that within and between group by, and that are read for nothing else
    """

    text: str
    columns: tuple[str, ...]
    calls: frozenset[str]
    several: bool
    groups: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def read(source: str, formula: str = "", offset: int = 0) -> Expression:
    """Read `source`, found at `offset` in `formula`, as an expression that is safe to evaluate.

    The canonical text is Python's own spelling of the tree; arithmetic outside a call is wrapped in I(...).
    Raises FormulaError with the position of the part that is refused.
    """
    return _Reader(source, formula or source, offset).read()


@dataclass(slots=True)
class _Reader:
    """The walk over one expression; `origin` maps each character of the parsed code to its place in the formula."""

    source: str
    formula: str
    offset: int
    code: str = ""
    origin: list[int] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    read_at: set[ast.Name] = field(default_factory=set)

    def read(self) -> Expression:
        self.check_length(self.source)
        if "\\" in self.source:
            raise self.refuse("A backslash has no place in an expression.", self.source.index("\\"))
        self.substitute_quoted_names()
        tree = self.parse()
        name = _function(tree)
        several = name in SEVERAL
        if several and isinstance(tree, ast.Call):
            self.call(tree, str(name), 0)
        else:
            # Outside a call the canonical text is one level deeper, inside I(...).
            self.arithmetic(tree, 0 if isinstance(tree, ast.Call) else 1)
        if not self.columns:
            raise self.refuse("An expression must read at least one column of the data.", 0)
        text = ast.unparse(tree).replace("\n", " ")
        text = text if isinstance(tree, ast.Call) else f"I({text})"
        self.check_length(text)
        calls = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in self.read_at}
        groups = tuple(name for name in self.columns if name in self.groups and name not in self.computed)
        return Expression(text, tuple(self.columns), frozenset(calls), several, groups)

    def check_length(self, text: str) -> None:
        if len(text) > MAX_EXPRESSION:
            raise self.refuse(f"An expression has at most {MAX_EXPRESSION} characters; compute the column first.", 0)

    def refuse(self, message: str, place: int) -> FormulaError:
        """The error at `place` characters into the source."""
        return FormulaError(message, self.formula, self.offset + place)

    def at(self, node: ast.AST, message: str) -> FormulaError:
        """The error at a node of the tree, whose column Python counts in bytes."""
        prefix = self.code.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore")
        return self.refuse(message, self.origin[min(len(prefix), len(self.origin) - 1)])

    def substitute_quoted_names(self) -> None:
        """Put an identifier in place of each backticked name, so that Python's parser can read the rest."""
        stem = "q_"
        while stem in self.source:
            stem += "_"
        source, pieces, reached = re.sub(r"\s", " ", self.source), [], 0
        for match in QUOTED.finditer(source):
            if match[1] is None:
                continue
            alias = f"{stem}{len(self.aliases)}"
            self.aliases[alias] = self.quoted_name(match[1], match.start())
            pieces += [source[reached : match.start()], alias]
            self.origin += [*range(reached, match.start()), *[match.start()] * len(alias)]
            reached = match.end()
        self.code = "".join([*pieces, source[reached:]])
        self.origin += [*range(reached, len(source) + 1)]

    def quoted_name(self, name: str, place: int) -> str:
        """A backticked name, refused where formulaic could not turn it into a variable of the expression."""
        check_name(name, self.formula, self.offset + place)
        variable = re.sub(r"\W", "_", name)
        variable = f"_{variable}" if variable[0].isdigit() else variable
        normal = unicodedata.normalize("NFKC", variable) == variable
        if not variable.isidentifier() or not normal or keyword.iskeyword(name) or set(name) & set("'\""):
            raise self.refuse(f"The column {name!r} cannot be used inside an expression: rename it.", place)
        return name

    def parse(self) -> ast.expr:
        try:
            with warnings.catch_warnings(action="ignore"):
                return ast.parse(self.code, mode="eval").body
        except SyntaxError as error:
            place = min(max((error.offset or 1) - 1, 0), len(self.origin) - 1)
            raise self.refuse("This is not a complete expression.", self.origin[place]) from None
        except (ValueError, RecursionError, MemoryError):
            raise self.refuse("This expression cannot be read.", 0) from None

    def arithmetic(self, node: ast.expr, depth: int) -> bool:
        """Check a numeric expression; whether it reads a column."""
        if depth > MAX_DEPTH:
            raise self.at(node, f"Expressions nest at most {MAX_DEPTH} deep: compute the column first.")
        if isinstance(node, ast.Name):
            return self.column(node, self.computed)
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
            return self.arithmetic(node.operand, depth + 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            return self.binary(node, depth)
        if isinstance(node, ast.Call) and (name := _function(node)) in GROUPED:
            return self.grouped(node, str(name), depth)
        if isinstance(node, ast.Call) and name in ELEMENTWISE | SINGLE:
            return self.call(node, str(name), depth)
        raise self.at(node, _refusal(node))

    def column(self, node: ast.Name, role: set[str]) -> bool:
        name = self.aliases.get(node.id)
        if name is None:
            if node.id not in self.code:
                raise self.at(node, f"The column name {node.id!r} is not written in Unicode's normal form NFKC.")
            name = node.id
        if name.startswith("__"):
            raise self.at(node, "A name with two leading underscores cannot be used inside an expression: rename it.")
        node.id = name if name.isidentifier() else f"`{name}`"
        self.columns[name] = None
        role.add(name)
        self.read_at.add(node)
        return True

    def number(self, node: ast.Constant) -> bool:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.at(node, "Arithmetic knows columns and numbers only; text and True or False stand in options.")
        if isinstance(value, float) and not math.isfinite(value) or abs(value) > 1e300:
            raise self.at(node, "This number is too large to compute with.")
        return False

    def binary(self, node: ast.BinOp, depth: int) -> bool:
        left = self.arithmetic(node.left, depth + 1)
        right = self.arithmetic(node.right, depth + 1)
        if isinstance(node.op, ast.Pow) and not (left or right):
            raise self.at(node, "A power of a number is a number: write it out.")
        return left or right

    def call(self, node: ast.Call, name: str, depth: int) -> bool:
        if not node.args or isinstance(node.args[0], ast.Starred):
            raise self.at(node, f"{name}(...) takes a column first, as in {name}(x).")
        check_options(name, node, self.at)
        return self.arithmetic(node.args[0], depth + 1)

    def grouped(self, node: ast.Call, name: str, depth: int) -> bool:
        """Check within(x, g) or between(x, g): an elementwise expression, then a column of groups."""
        groups = node.args[-1] if len(node.args) == 2 and not node.keywords else None
        if not isinstance(groups, ast.Name):
            raise self.at(
                node,
                f"{name}(...) takes a numeric column and a column of groups, as in {name}(x, g); for groups by several "
                "columns make one column of them first.",
            )
        values = node.args[0]
        for inner in ast.walk(values):
            if isinstance(inner, ast.Call) and _function(inner) not in ELEMENTWISE | {"I"}:
                raise self.at(inner, f"Inside {name}(...) stand columns, arithmetic and {_listed(ELEMENTWISE)} only.")
        if not self.arithmetic(values, depth + 1):
            raise self.at(values, f"{name}(...) takes a column first, as in {name}(x, g).")
        return self.column(groups, self.groups)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _function(node: ast.expr) -> str | None:
    """Name of the transform that is called: "log" for log(x) and np.log(x)."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "np":
        return node.func.attr if node.func.attr in ELEMENTWISE else None
    return None


def _refusal(node: ast.expr) -> str:
    """Why a node is refused, and what to write."""
    name = _function(node)
    if name in SEVERAL:
        return f"{name}(...) gives several columns or categories, so it stands alone and not inside another expression."
    if isinstance(node, ast.Call):
        known = _listed(ELEMENTWISE | SINGLE | GROUPED | SEVERAL)
        return f"Formulas may call only these transforms: {known}. Compute anything else as a column first."
    if isinstance(node, ast.Attribute):
        return "Attributes are not read in formulas; a column whose name has a dot goes in backticks here: log(`a.b`)."
    return "Only columns, numbers and + - * / ** may be computed in a formula: compute this as a column first."
