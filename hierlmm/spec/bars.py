"""Random-effects terms in lme4's notation: (1 | g), (x | g), (0 + x | g), (x || g), (1 | a/b), (1 | a:b).

A word before the parenthesis states the covariance of the coefficients, as in glmmTMB: us(x | g), diag(x | g),
identity(0 + f | g), cs(0 + f | g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from hierlmm.errors import FormulaError
from hierlmm.spec.algebra import Budget, Piece, Terms, expression, pieces
from hierlmm.spec.covariance import WORDS, CompoundSymmetric, Covariance, Diagonal, General, Identity
from hierlmm.spec.lexer import Token, is_offset, lex
from hierlmm.spec.terms import RandomTerm

BARS = ("|", "||")
# Most columns in one grouping factor; a/b/c/... makes a factor of each depth.
MAX_COLUMNS = 20
# Words of other programs for what is a residual structure here.
SERIAL = {
    "ar1": "AR1(group, position)",
    "hetar1": "HeterogeneousAR1(group, position)",
    "ou": "ContinuousAR1(group, time)",
    "toep": "Toeplitz(group, position)",
    "homtoep": "Toeplitz(group, position)",
    "ante1": "Antedependence(group, occasion)",
    "un": "Unstructured(group, occasion)",
}
# The name that tables give to the residual's row.
RESIDUAL = "Residual"


def bar_position(tokens: Sequence[Token]) -> int | None:
    """Where the first bar stands in the formula, or None where there is none."""
    return next((token.start for token in tokens if token.kind == "operator" and token.text in BARS), None)


def read_bar(piece: Piece, formula: str, budget: Budget) -> list[RandomTerm]:
    """The terms of one parenthesis with a bar: a || and each level of a/b become terms of their own."""
    covariance = _covariance(piece.tokens[0], formula)
    tokens = piece.tokens if covariance is None else piece.tokens[1:]
    position = bar_position(tokens) or piece.start
    split = next(index for index, token in enumerate(tokens) if token.start == position)
    depths = _depths(tokens)
    if depths.index(0) != len(tokens) - 1 or depths[split] != 1:
        raise FormulaError(
            "A random-effects term stands alone in parentheses, joined by +: y ~ x + (1 + x | g).", formula, position
        )
    if piece.removes:
        raise FormulaError("A random-effects term cannot be removed: leave it out.", formula, piece.start)
    inside, group = tokens[1:split], tokens[split + 1 : -1]
    coefficients = _coefficients(inside, formula, position, budget)
    groups = _groups(group, formula, tokens[-1].start)
    budget.spend(len(coefficients), len(coefficients) * len(groups), piece.start)
    blocks = [(coefficients, covariance or General())]
    if tokens[split].text == "||":
        if covariance is not None:
            raise FormulaError(f"|| means independent already: {_SAYS} with one bar.", formula, position)
        blocks = [((name,), Diagonal()) for name in coefficients]
    return [_term(block, columns, kind, formula, position) for columns in groups for block, kind in blocks]


_SAYS = f"write {', '.join(f'{word}(x | g)' for word in WORDS)}"


def _covariance(first: Token, formula: str) -> Covariance | None:
    """The covariance that the word before the parenthesis states; None where there is no word."""
    if first.kind != "word":
        return None
    if (known := WORDS.get(first.text)) is not None:
        return known
    known_words = f"The words before a random-effects term are {', '.join(WORDS)}; found {first.text!r}."
    if first.text in SERIAL:
        message = f"{known_words} For errors correlated within groups use lmm(..., residual=hl.{SERIAL[first.text]})."
    elif first.text.startswith(("hom", "het")) and first.text[3:] in WORDS:
        message = f"{known_words} One variance for all coefficients is identity(0 + f | g), one each diag(x | g)."
    else:
        message = f"{known_words} (x | g) and us(x | g) have any covariance matrix."
    raise FormulaError(message, formula, first.start)


def _term(
    coefficients: tuple[str, ...], group: tuple[str, ...], covariance: Covariance, formula: str, position: int
) -> RandomTerm:
    """One term; a covariance that says nothing about a single coefficient is the general one, or refused."""
    if coefficients == ("1",) and isinstance(covariance, Diagonal):
        return RandomTerm(coefficients, group)
    if isinstance(covariance, Identity | CompoundSymmetric) and len(coefficients) == 1 and _is_single(coefficients[0]):
        word = str(RandomTerm(coefficients, group, covariance))
        raise FormulaError(
            f"{word} has one coefficient, and so nothing to share a variance with: write "
            f"{RandomTerm(coefficients, group)}, or let several vary, or a categorical predictor.",
            formula,
            position,
        )
    return RandomTerm(coefficients, group, covariance)


def _is_single(coefficient: str) -> bool:
    """Whether a coefficient is one column whatever the data; a plain name may be a categorical predictor."""
    tokens = [token for token in lex(coefficient) if token.text != ":"]
    return coefficient == "1" or all(
        token.kind in ("call", "braces") and not expression(token, coefficient).several for token in tokens
    )


def _depths(tokens: Sequence[Token]) -> list[int]:
    """How many parentheses are open after each token."""
    return list(accumulate({"open": 1, "close": -1}.get(token.kind, 0) for token in tokens))


def _coefficients(tokens: Sequence[Token], formula: str, end: int, budget: Budget) -> tuple[str, ...]:
    """What varies, in canonical order; the intercept unless 0 or -1 removes it."""
    if not tokens:
        raise FormulaError("Nothing stands before the bar: write (1 | g) for a random intercept.", formula, end)
    terms = Terms(formula, budget)
    for piece in pieces(tokens, formula, end):
        if is_offset(piece.tokens[0]):
            raise FormulaError("An offset has no coefficient that could vary: move it out.", formula, piece.start)
        terms.add(piece)
    if not (result := terms.result()):
        raise FormulaError("Nothing varies here: write (1 | g) for a random intercept.", formula, end)
    return result


def _groups(tokens: Sequence[Token], formula: str, end: int) -> list[tuple[str, ...]]:
    """Columns of each grouping factor: a/b/c is a, a:b and a:b:c."""
    nested: list[list[str]] = [[]]
    wanted = True
    for token in tokens:
        if wanted and token.kind == "name":
            nested[-1].append(_group_column(token, nested, formula))
        elif not wanted and token.text == "/":
            nested.append([*nested[-1]])
        elif wanted or token.text != ":":
            raise FormulaError(
                "After the bar stand columns joined by : or /, as in (1 | g), (1 | a:b) or (1 | a/b). "
                "Make another grouping a column first; two factors are two terms, (1 | a) + (1 | b).",
                formula,
                token.start,
            )
        wanted = not wanted
    if wanted:
        raise FormulaError("The grouping factor is missing, as g in (1 | g).", formula, end)
    return [tuple(columns) for columns in nested]


def _group_column(token: Token, nested: Sequence[Sequence[str]], formula: str) -> str:
    name = token.text
    if ":" in name or name == RESIDUAL:
        reason = "a colon joins columns" if ":" in name else "the residual has that name in tables"
        raise FormulaError(f"A grouping column cannot be called {name!r} ({reason}): rename it.", formula, token.start)
    if len(nested[-1]) == MAX_COLUMNS:
        raise FormulaError(f"A grouping factor has at most {MAX_COLUMNS} columns.", formula, token.start)
    if name in nested[-1]:
        raise FormulaError(f"The column {name!r} occurs twice in one grouping factor.", formula, token.start)
    return name


def check_repeats(terms: Sequence[tuple[RandomTerm, int]], formula: str) -> None:
    """Refuse a coefficient that varies twice over the same groups: its two variances could not be told apart."""
    seen: dict[tuple[frozenset[str], frozenset[str]], RandomTerm] = {}
    for term, position in terms:
        for coefficient in term.coefficients:
            key = frozenset(term.group), frozenset(coefficient.split(":"))
            if (earlier := seen.setdefault(key, term)) is not term:
                raise FormulaError(_repeat_message(coefficient, earlier, term), formula, position)


def _repeat_message(coefficient: str, earlier: RandomTerm, later: RandomTerm) -> str:
    name = "The intercept" if coefficient == "1" else coefficient
    rest = tuple(one for one in later.coefficients if one not in earlier.coefficients)
    joined = replace(earlier, coefficients=(*earlier.coefficients, *rest))
    apart = f", or for independent effects {earlier} + {replace(later, coefficients=rest)}" if rest else ""
    return f"{name} varies over {earlier.factor} in two terms, {earlier} and {later}: write {joined} once{apart}."
