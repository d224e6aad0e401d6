"""Sums of predictors, such as 1 + x*z - x:z, expanded to terms by formulaic's operators after their size is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierlmm.errors import FormulaError
from hierlmm.spec import guard
from hierlmm.spec.lexer import RESERVED, Token, is_offset, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

# Most terms that a sum may expand to, and most terms handled on the way: (x + z + a + g)**12 has 16 million.
MAX_TERMS = 1_000
MAX_WORK = 20_000
# Longest product, deepest nesting and highest power read.
MAX_PRODUCT = 500
MAX_NESTING = 50
MAX_POWER = 10

# The factors of one term, as text, in the order written.
Factors = tuple[str, ...]


@dataclass(slots=True)
class Piece:
    """A part of a sum: the tokens between two top-level + or -, whether a minus removes it, and where it starts."""

    removes: bool
    start: int
    tokens: list[Token]


def pieces(tokens: Sequence[Token], formula: str, end: int) -> Iterator[Piece]:
    """Split at top-level signs; "+ -" and "--" combine as in arithmetic. `end` is where an error at the end points."""
    piece = Piece(False, end, [])
    depth = 0
    signed = False
    for token in tokens:
        depth += {"open": 1, "close": -1}.get(token.kind, 0)
        if depth > MAX_NESTING:
            raise FormulaError(f"Parentheses nest at most {MAX_NESTING} deep.", formula, token.start)
        if depth == 0 and token.kind == "operator" and token.text in "+-":
            if piece.tokens:
                yield piece
                piece = Piece(False, end, [])
            piece.removes ^= token.text == "-"
            signed = True
        else:
            if not piece.tokens:
                piece.start = token.start
            piece.tokens.append(token)
    if piece.tokens:
        yield piece
    elif signed:
        raise FormulaError("A term is missing after the last sign.", formula, end)


@dataclass(slots=True)
class Budget:
    """What one formula may cost: terms handled on the way, over the fixed part and all random-effects terms."""

    formula: str
    work: int = 0

    def spend(self, largest: int, work: int, position: int) -> None:
        """Count the work of one expansion; raises FormulaError where a bound is passed."""
        self.work += work
        if largest > MAX_TERMS or self.work > MAX_WORK:
            raise FormulaError(
                f"A formula expands to at most {MAX_TERMS} terms; this one has more. Leave out the high interactions.",
                self.formula,
                position,
            )


class Terms:
    """The running sum: the intercept, and terms in the order in which they were first added."""

    def __init__(self, formula: str, budget: Budget) -> None:
        self.formula = formula
        self.budget = budget
        self.intercept = True
        self.terms: dict[frozenset[str], Factors] = {}

    def add(self, piece: Piece) -> None:
        """Add or remove one piece; a lone 1 or 0 concerns the intercept."""
        first = piece.tokens[0]
        if len(piece.tokens) == 1 and first.kind == "number" and first.text in ("0", "1"):
            self.intercept = (first.text == "1") != piece.removes
            return
        _check_grammar(piece.tokens, self.formula)
        expanded = {frozenset(factors): factors for factors in self.expand(piece)}
        if not piece.removes:
            for key, factors in expanded.items():
                self.terms.setdefault(key, factors)
        elif not (removed := self.terms.keys() & expanded.keys()):
            raise FormulaError(
                "Only a term that was added before can be removed; to subtract numbers write I(x - z).",
                self.formula,
                piece.start,
            )
        else:
            self.terms = {key: factors for key, factors in self.terms.items() if key not in removed}
        self.budget.spend(len(self.terms), 0, piece.start)

    def expand(self, piece: Piece) -> list[Factors]:
        """Terms of one piece, by formulaic's own operators; refused before expanding where there are too many."""
        operands = [factor(token, self.formula) if token.kind in OPERANDS else "" for token in piece.tokens]
        if len(piece.tokens) == 1:
            return [(operands[0],)]
        from formulaic.errors import FormulaicError
        from formulaic.formula import DEFAULT_PARSER

        raw = _formulaic_tokens(piece.tokens, operands)
        try:
            tree = DEFAULT_PARSER.get_ast_from_tokens(raw, context={})
            self.budget.spend(*_size(tree), piece.start)
            terms = DEFAULT_PARSER.get_terms_from_ast(tree, context={})
        except FormulaicError as error:
            reason = f"This part of the formula cannot be read: {str(error).splitlines()[0]}"
            raise FormulaError(reason, self.formula, piece.start) from None
        return [tuple(str(item.expr) for item in term.factors) for term in terms.root]

    def result(self) -> tuple[str, ...]:
        """Canonical terms: the intercept "1" first, then by number of factors, in the order written."""
        ordered = sorted(self.terms.values(), key=len)
        return (("1",) if self.intercept else ()) + tuple(":".join(factors) for factors in ordered)


OPERANDS = frozenset({"name", "call", "braces"})


def factor(token: Token, formula: str) -> str:
    """Canonical text of one predictor: a column name, quoted where needed, or a guarded expression."""
    if token.kind == "name":
        if token.text in RESERVED:
            raise FormulaError(f"The name {token.text!r} is the intercept's: rename the column.", formula, token.start)
        if ":" in token.text:
            raise FormulaError(
                f"A predictor cannot be called {token.text!r}, for a colon joins predictors: rename the column.",
                formula,
                token.start,
            )
        return quoted(token.text)
    if is_offset(token):
        raise FormulaError("An offset stands alone, joined by +: y ~ x + offset(log(t)).", formula, token.start)
    return expression(token, formula).text


def expression(token: Token, formula: str) -> guard.Expression:
    """The guarded expression of a call or of braces."""
    return guard.read(token.text, formula, token.start + (token.kind == "braces"))


def _check_grammar(tokens: Sequence[Token], formula: str) -> None:
    """Operand and operator alternate; numbers stand only as powers. Brackets are known to match."""
    if len(tokens) > MAX_PRODUCT:
        raise FormulaError(f"One term has at most {MAX_PRODUCT} names and signs.", formula, tokens[MAX_PRODUCT].start)
    wanted, power = True, False
    for token in tokens:
        if token.kind == "operator":
            if wanted:
                raise FormulaError(f"A predictor is missing before {token.text!r}.", formula, token.start)
            if power and token.text in ("**", "^"):
                raise FormulaError("A power cannot be raised to a power: write one.", formula, token.start)
            wanted, power = True, token.text in ("**", "^")
            continue
        if token.kind == "close":
            if wanted:
                raise FormulaError("A predictor is missing before this parenthesis.", formula, token.start)
            continue
        if not wanted:
            raise FormulaError("A sign (+ - * : /) is missing before this.", formula, token.start)
        if power or token.kind == "number":  # after ** stands a number, and nowhere else
            _check_number(token, power, formula)
        wanted, power = token.kind == "open", power and token.kind == "number"
    if wanted:
        raise FormulaError("A predictor is missing after the last sign.", formula, tokens[-1].start)


def _check_number(token: Token, power: bool, formula: str) -> None:
    if not power:
        raise FormulaError(
            "A number stands only as the intercept (0 or 1, at the top level) or as a power; "
            "to compute write I(2 * x) or I(x + 1).",
            formula,
            token.start,
        )
    if token.kind != "number" or not token.text.isdecimal() or not 1 <= int(token.text[:4]) <= MAX_POWER:
        raise FormulaError(
            f"A power in a formula is a whole number from 1 to {MAX_POWER}, and means interactions up to that "
            "order; to raise a number write I(x ** 2).",
            formula,
            token.start,
        )


def _formulaic_tokens(tokens: Sequence[Token], operands: Sequence[str]) -> list[Any]:
    """Tokens for formulaic's parser; every operand goes as a name, so that only its operators act."""
    from formulaic.parser.types import Token as Raw

    kinds = {"number": "value", "operator": "operator", "open": "context", "close": "context"}
    return [
        Raw(operand or token.text.strip("%"), kind=kinds.get(token.kind, "name"))
        for token, operand in zip(tokens, operands, strict=True)
    ]


def _size(tree: Any) -> tuple[int, int]:
    """Upper bounds on the terms of the largest part of a product and on all terms made on the way."""
    order, stack = [], [tree]
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(getattr(node, "args", ()))
    sizes: dict[int, int] = {}
    largest = work = 0
    for node in reversed(order):
        sizes[id(node)] = size = min(_node_size(node, sizes), MAX_TERMS + 1)
        largest, work = max(largest, size), work + size
    return largest, work


def _node_size(node: Any, sizes: dict[int, int]) -> int:
    if not hasattr(node, "operator"):
        return 1
    left, right = (sizes[id(argument)] for argument in node.args)
    symbol = node.operator.symbol
    if symbol in ("**", "^"):
        return int(left ** int(node.args[1].token))
    if symbol == "*":
        return left + right + left * right
    return left * right if symbol == ":" else left + right
