"""Formula text as tokens with positions: formulaic's tokeniser behind limits, and how column names are quoted."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from hierlmm.errors import FormulaError

# Longest formula read. Real ones stay below a few hundred characters; at this length every step takes milliseconds.
MAX_LENGTH = 10_000
# Most tokens read: with the limits of `algebra`, what keeps reading any text below two seconds.
MAX_TOKENS = 4_000

BARE_NAME = re.compile(r"[^\W\d][\w.]*")
OPERATORS = frozenset({"~", "+", "-", "*", "/", ":", "**", "^", "|", "||", "%in%"})
# formulaic looks these up as if they were the intercept's own names.
RESERVED = {"1": "1", "Intercept": "Intercept"}
CLOSER = {"`": "`", "{": "}", "%": "%"}

Kind = Literal["name", "call", "braces", "number", "operator", "open", "close"]


class Token(NamedTuple):
    """One token: `text` is the column name without backticks, or source text; `start` its offset in the formula."""

    kind: Kind
    text: str
    start: int


def quoted(name: str) -> str:
    """The column name as a formula writes it: in backticks unless it is a plain word (dots allowed, as in R)."""
    return name if BARE_NAME.fullmatch(name) else f"`{name}`"


def unquoted(text: str) -> str | None:
    """The column that a factor or response stands for, or None where it is an expression: "`a b`" -> "a b"."""
    if text.startswith("`"):
        return text[1:-1]
    return text if BARE_NAME.fullmatch(text) else None


def lex(formula: str) -> tuple[Token, ...]:
    """Tokens of a formula in order; brackets are matched. Raises FormulaError with the position."""
    if not isinstance(formula, str):
        raise FormulaError(f"A formula is text such as 'y ~ x + (1 | g)'; found {type(formula).__name__}.")
    if len(formula) > MAX_LENGTH:
        raise FormulaError(
            f"A formula has at most {MAX_LENGTH} characters; this one has {len(formula)}. "
            "Join predictors into fewer columns.",
            formula,
            MAX_LENGTH,
        )
    tokens = _tokens(formula)
    _check_brackets(tokens, formula)
    return tokens


def _tokens(formula: str) -> tuple[Token, ...]:
    from formulaic.errors import FormulaSyntaxError
    from formulaic.parser.algos.tokenize import tokenize

    found: list[Token] = []
    reached = 0
    try:
        for raw in tokenize(formula):
            found.extend(_read(raw.kind.value, raw.token, raw.source_start, formula))
            reached = raw.source_end + 1
            if len(found) > MAX_TOKENS:
                raise FormulaError(f"A formula has at most {MAX_TOKENS} names and signs.", formula, found[-1].start)
    except FormulaSyntaxError:
        while reached < len(formula) and (formula[reached].isspace() or formula[reached] in "`}%"):
            reached += 1
        raise FormulaError(
            "A quote, backtick, brace or parenthesis is opened and not closed, or stands in the middle of a word.",
            formula,
            min(reached, len(formula) - 1),
        ) from None
    return tuple(found)


def _read(kind: str, text: str, start: int, formula: str) -> list[Token]:
    """Our tokens for one of formulaic's; a run of signs becomes one token each."""
    opener = formula[start]
    if opener in CLOSER:
        stop = start + 1 + len(text)
        if not text or formula[start + 1 : stop] != text or formula[stop : stop + 1] != CLOSER[opener]:
            raise FormulaError(f"Nothing stands between {opener} and {CLOSER[opener]}.", formula, start)
    if kind == "operator":
        return [Token("operator", f"%{text}%", start)] if opener == "%" else _signs(text, start, formula)
    if kind == "context":
        return [_bracket(text, start, formula)]
    if kind == "name":
        return [_name(text, start, formula)]
    if kind == "value":
        return [_number(text, start, formula)]
    return [Token("braces" if opener == "{" else "call", text, start)]


def _signs(text: str, start: int, formula: str) -> list[Token]:
    """Split a run of signs, which formulaic joins across blanks: "~ -" arrives as "~-"."""
    tokens: list[Token] = []
    position = start
    for sign in text:
        position = formula.index(sign, position)
        last = tokens[-1] if tokens else None
        if last and sign in "*|" and last.text == sign and last.start == position - 1:
            tokens[-1] = Token("operator", sign * 2, last.start)
        else:
            tokens.append(Token("operator", sign, position))
        position += 1
    for token in tokens:
        if token.text not in OPERATORS:
            raise FormulaError(
                f"{token.text!r} is not a sign of the formula language (+ - * / : ** ^ | || ~ and offset()). "
                "A column name with other characters goes in backticks.",
                formula,
                token.start,
            )
    return tokens


def _bracket(text: str, start: int, formula: str) -> Token:
    if text in "[]":
        raise FormulaError("Square brackets have no meaning in a formula: use parentheses.", formula, start)
    return Token("open" if text == "(" else "close", text, start)


def _name(text: str, start: int, formula: str) -> Token:
    if formula[start] == "`":
        check_name(text, formula, start)
    elif not BARE_NAME.fullmatch(text):
        raise FormulaError(f"The column name {text!r} needs backticks: `{text}`.", formula, start)
    return Token("name", text, start)


def check_name(name: str, formula: str, position: int) -> None:
    """Refuse a column name that no formula can carry: unprintable characters, a backtick or a backslash."""
    if not name.isprintable() or "`" in name or "\\" in name or not name.strip():
        raise FormulaError(
            f"The column name {name!r} has characters that a formula cannot carry: rename the column.",
            formula,
            position,
        )


def _number(text: str, start: int, formula: str) -> Token:
    if text == ".":
        raise FormulaError("'.' (all other columns) is not supported: name the predictors.", formula, start)
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        raise FormulaError(f"{text} is no column, number or sign: text stands only inside C(...).", formula, start)
    return Token("number", text, start)


def _check_brackets(tokens: tuple[Token, ...], formula: str) -> None:
    opened: list[int] = []
    for token in tokens:
        if token.kind == "open":
            opened.append(token.start)
        elif token.kind == "close":
            if not opened:
                raise FormulaError("A closing parenthesis has no opening one.", formula, token.start)
            opened.pop()
    if opened:
        raise FormulaError("A parenthesis is opened and not closed.", formula, opened[-1])
