"""The formula language: lme4's random-effects terms around formulaic's fixed part, read into canonical text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hierlmm.errors import FormulaError
from hierlmm.spec import guard
from hierlmm.spec.algebra import OPERANDS, Budget, Piece, Terms, expression, factor, pieces
from hierlmm.spec.bars import bar_position, check_repeats, read_bar
from hierlmm.spec.lexer import MAX_LENGTH, Token, check_name, is_offset, lex, quoted, unquoted
from hierlmm.spec.terms import RandomTerm

if TYPE_CHECKING:
    from formulaic.formula import SimpleFormula


class Parsed(NamedTuple):
    """A formula in canonical parts, each text a column name (in backticks where needed) or a guarded expression."""

    response: str
    fixed: tuple[str, ...]
    offset: tuple[str, ...]
    random: tuple[RandomTerm, ...]


def parse(formula: str) -> Parsed:
    """Read `response ~ predictors + (coefficients | group) + offset(x)`.

    Fixed part and coefficients expand by formulaic's operators; "1" is the intercept, there unless 0 or -1 removes
    it. Terms are ordered by their number of factors, then as written. Two texts of one model give equal parts.
    Raises FormulaError, and nothing else, with the position; any text is answered within two seconds.
    """
    if not isinstance(formula, str):
        raise FormulaError(f"A formula is text such as 'y ~ x + (1 | g)'; found {type(formula).__name__}.")
    return _parse(formula)


@lru_cache(maxsize=1024)
def _parse(formula: str) -> Parsed:
    tokens = lex(formula)
    left, right = _sides(tokens, formula)
    response = _response(left, formula)
    terms, offset, random = Terms(formula, budget := Budget(formula)), list[str](), list[tuple[RandomTerm, int]]()
    for piece in pieces(right, formula, len(formula)):
        if bar_position(piece.tokens) is not None:
            random.extend((term, piece.start) for term in read_bar(piece, formula, budget))
        elif is_offset(piece.tokens[0]):
            offset.append(_offset(piece, formula))
        else:
            terms.add(piece)
    check_repeats(random, formula)
    _check_names(tokens, offset, formula)
    parsed = Parsed(response, terms.result(), tuple(offset), tuple(term for term, _ in random))
    _check_response(parsed, tokens, formula)
    if (length := len(canonical(*parsed))) > MAX_LENGTH:
        raise FormulaError(
            f"Written out, a formula has at most {MAX_LENGTH} characters; this one has {length}. "
            "Leave out the high interactions.",
            formula,
        )
    return parsed


def canonical(response: str, fixed: Sequence[str], offset: Sequence[str], random: Sequence[RandomTerm]) -> str:
    """The formula text that parses to these parts: "y ~ 1 + x + offset(t) + (1 + x | g)"."""
    return f"{response} ~ {' + '.join(summands(fixed, offset, random))}"


def summands(fixed: Sequence[str], offset: Sequence[str], random: Sequence[RandomTerm]) -> list[str]:
    """What stands between the plus signs of the canonical formula."""
    predictors = list(fixed) if "1" in fixed else ["0", *fixed]
    return [*predictors, *(f"offset({one})" for one in offset), *map(str, random)]


def first_bar(formula: str) -> int:
    """Position of the first bar of a formula that has one."""
    return bar_position(lex(formula)) or 0


@lru_cache(maxsize=4096)
def term_columns(term: str) -> tuple[str, ...]:
    """Data columns that a canonical term, response or offset reads, in order: "log(x):`a b`" -> ("x", "a b")."""
    if term == "1":
        return ()
    found: dict[str, None] = {}
    for token in _factors(term):
        found.update(dict.fromkeys([token.text] if token.kind == "name" else expression(token, term).columns))
    return tuple(found)


@lru_cache(maxsize=4096)
def term_groups(term: str) -> tuple[str, ...]:
    """Those of a canonical term's columns that within and between group by, and that are read for nothing else."""
    if term == "1":
        return ()
    read = [expression(token, term) for token in _factors(term) if token.kind != "name"]
    names = {token.text for token in _factors(term) if token.kind == "name"}
    used = names.union(*(set(one.columns) - set(one.groups) for one in read))
    return tuple(dict.fromkeys(name for one in read for name in one.groups if name not in used))


@lru_cache(maxsize=1024)
def formulaic_formula(terms: tuple[str, ...]) -> SimpleFormula:
    """formulaic's formula of canonical terms, in their order; evaluate it with `.get_model_matrix(data, context=)`.

    The names of guard.ELEMENTWISE must be in the context as numpy's functions. Terms are guarded again here, so a
    spec that was not made from a formula is as safe. Raises FormulaError. The result is shared: do not change it.
    """
    from formulaic.formula import SimpleFormula
    from formulaic.parser.types import Factor, Term

    built = []
    for term in terms:
        if term == "1":
            built.append(Term([Factor("1", eval_method="literal")]))
            continue
        parts = [(token, factor(token, term)) for token in _factors(term)]
        built.append(
            Term(
                Factor(token.text, eval_method="lookup") if token.kind == "name" else Factor(text, eval_method="python")
                for token, text in parts
            )
        )
    return SimpleFormula(built, _ordering="none")


def _factors(term: str) -> list[Token]:
    """Tokens of the factors of one canonical term."""
    tokens = lex(term)
    if len(tokens) % 2 == 0 or any(
        token.kind not in OPERANDS if index % 2 == 0 else token.text != ":" for index, token in enumerate(tokens)
    ):
        raise FormulaError("A term is one column or expression, or several joined by a colon.", term, 0)
    return list(tokens[::2])


def _sides(tokens: Sequence[Token], formula: str) -> tuple[Sequence[Token], Sequence[Token]]:
    tildes = [index for index, token in enumerate(tokens) if token == ("operator", "~", token.start)]
    if len(tildes) != 1:
        position = tokens[tildes[1]].start if tildes else len(formula)
        raise FormulaError(
            "A formula has exactly one ~, between the response and the predictors: y ~ x + (1 | g).", formula, position
        )
    left, right = tokens[: tildes[0]], tokens[tildes[0] + 1 :]
    if not left:
        raise FormulaError("The response is missing before ~.", formula, tokens[tildes[0]].start)
    if not right:
        raise FormulaError("Nothing stands after ~: write 1 for an intercept alone.", formula, len(formula))
    return left, right


def _response(tokens: Sequence[Token], formula: str) -> str:
    first = tokens[0]
    if len(tokens) > 1 or first.kind not in OPERANDS:
        position = tokens[1].start if len(tokens) > 1 else first.start
        raise FormulaError(
            "The response is one column or one expression such as log(y) or I(y / n); "
            "models with several responses are not supported.",
            formula,
            position,
        )
    if first.kind == "name":
        return factor(first, formula)
    read = expression(first, formula)
    if read.several:
        raise FormulaError("The response must be one numeric column.", formula, first.start)
    _refuse_grouped(read, "response", formula, first.start)
    return read.text


def _refuse_grouped(read: guard.Expression, what: str, formula: str, position: int) -> None:
    """within and between learn means from the rows that are fitted, so they are predictors."""
    if taken := sorted(guard.GROUPED & read.calls):
        raise FormulaError(
            f"{taken[0]}(...) is a predictor, in the fixed part or before a bar, and cannot be part of the {what}: "
            "make it a column first.",
            formula,
            position,
        )


def _offset(piece: Piece, formula: str) -> str:
    """Canonical text of what stands inside offset(...)."""
    token = piece.tokens[0]
    if len(piece.tokens) > 1 or piece.removes:
        raise FormulaError("An offset stands alone, joined by +: y ~ x + offset(log(t)).", formula, piece.start)
    inner = token.text[len("offset(") : -1]
    place = token.start + len(token.text) - 1 - len(inner.lstrip())
    if (name := unquoted(inner.strip())) is not None:
        check_name(name, formula, place)
        return factor(Token("name", name, place), formula)
    read = guard.read(inner.strip(), formula, place)
    if read.several:
        raise FormulaError("An offset must be one numeric column.", formula, token.start)
    _refuse_grouped(read, "offset", formula, token.start)
    return read.text


def _check_names(tokens: Sequence[Token], offset: Sequence[str], formula: str) -> None:
    """Refuse a column called like an expression or a transform of the same formula: formulaic would mix them up."""
    read = [expression(token, formula) for token in tokens if token.kind in ("call", "braces") and not is_offset(token)]
    read += [guard.read(text, text) for text in offset if unquoted(text) is None]
    columns = {token.text: token.start for token in tokens if token.kind == "name"}
    for one in read:
        columns = {**dict.fromkeys(one.columns, 0), **columns}
    for one in read:
        if taken := columns.keys() & {one.text, *one.calls}:
            name = min(taken)
            raise FormulaError(
                f"{name!r} is both a column and part of an expression, {one.text}: rename the column.",
                formula,
                columns[name],
            )


def _check_response(parsed: Parsed, tokens: Sequence[Token], formula: str) -> None:
    """Refuse the response as a predictor of itself."""
    groups = {quoted(column) for term in parsed.random for column in term.group}
    slopes = {coefficient for term in parsed.random for coefficient in term.coefficients}
    if parsed.response in {*parsed.fixed, *slopes, *groups, *parsed.offset}:
        position = [token.start for token in tokens if token.text == tokens[0].text][-1]
        raise FormulaError("The response cannot also stand on the right of ~.", formula, position)
