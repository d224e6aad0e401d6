"""Formula text as tokens with positions: formulaic's tokeniser behind limits, and how column names are quoted."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from hierlmm.errors import FormulaError

# Longest formula read. Real ones stay below a few hundred characters; at this length every step takes milliseconds.
MAX_LENGTH = 10_000

BARE_NAME = re.compile(r"[^\W\d][\w.]*")
CALL = re.compile(r"[\w.]+\(")
OPERATORS = frozenset({"~", "+", "-", "*", "/", ":", "**", "^", "|", "||", "%in%"})
# formulaic takes a column of the first name for the intercept and gives the intercept's column the second.
RESERVED = frozenset({"1", "Intercept"})
QUOTED = re.compile(r"`([^`]*)`|\"[^\"]*\"|'[^']*'")
CLOSER = {"`": "`", "{": "}", "%": "%"}

# "word" is that before the parenthesis of a random-effects term, as diag in diag(x | g).
Kind = Literal["name", "call", "braces", "number", "operator", "open", "close", "word"]


class Token(NamedTuple):
    """One token: `text` is the column name without backticks, or source text; `start` its offset in the formula."""

    kind: Kind
    text: str
    start: int


def quoted(name: str) -> str:
    """The column name as a formula writes it: in backticks unless it is a plain word (dots allowed, as in R)."""
    return name if BARE_NAME.fullmatch(name) else f"`{name}`"


def unquoted(text: str) -> str | None:
    """The column that a term or response stands for, or None where it is anything else: "`a b`" -> "a b"."""
    if re.fullmatch(r"`[^`]+`", text):
        return text[1:-1]
    return text if BARE_NAME.fullmatch(text) else None


def is_offset(token: Token) -> bool:
    """Whether a token is offset(...)."""
    return token.kind == "call" and token.text.startswith("offset(")


def lex(formula: str) -> tuple[Token, ...]:
    """Tokens of a formula in order; brackets are matched. Raises FormulaError with the position."""
    if len(formula) > MAX_LENGTH:
        raise FormulaError(
            f"A formula has at most {MAX_LENGTH} characters; this one has {len(formula)}. "
            "Join predictors into fewer columns.",
            formula,
            MAX_LENGTH,
        )
    found = list[Token]()
    for token in _tokens(formula, 0, len(formula)):
        found.extend(_opened(token, formula) if token.kind == "call" and _has_bar(token.text) else [token])
    tokens = tuple(found)
    _check_brackets(tokens, formula)
    return tokens


def _has_bar(call: str) -> bool:
    """Whether a bar stands directly inside the parentheses of a call, as in diag(x | g)."""
    if "|" not in call or not CALL.match(call) or not call.endswith(")"):
        return False
    depth = 0
    for char in QUOTED.sub("", call):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and depth == 1:
            return True
    return False


def _opened(call: Token, formula: str) -> list[Token]:
    """The tokens of a random-effects term with a word before it, which formulaic's tokeniser takes for a call."""
    first, last = formula.index("(", call.start), call.start + len(call.text) - 1
    word = Token("word", formula[call.start : first], call.start)
    return [word, Token("open", "(", first), *_tokens(formula, first + 1, last), Token("close", ")", last)]


def _tokens(formula: str, first: int, last: int) -> tuple[Token, ...]:
    """Tokens of formula[first:last]; calls stay as they are."""
    from formulaic.errors import FormulaSyntaxError
    from formulaic.parser.algos.tokenize import tokenize

    found: list[Token] = []
    reached = first
    try:
        for raw in tokenize(formula[first:last]):
            start = first + raw.source_start
            _check_gap(formula, reached, start)
            found.extend(_read(raw.kind.value, raw.token, start, formula))
            reached = start + len(raw.token) + 2 if formula[start] in CLOSER else first + raw.source_end + 1
    except FormulaSyntaxError:
        opened = last - len(formula[reached:last].lstrip())
        raise FormulaError(
            "A quote, backtick, brace or parenthesis is opened and not closed, or stands in the middle of a word.",
            formula,
            opened,
        ) from None
    _check_gap(formula, reached, last)
    return tuple(found)


def _check_gap(formula: str, reached: int, start: int) -> None:
    """Between tokens is nothing but blanks: formulaic passes over empty quotes."""
    if between := formula[reached:start].strip():
        position = formula.index(between, reached)
        raise FormulaError("Nothing stands between these quotes.", formula, position)


def _read(kind: str, text: str, start: int, formula: str) -> list[Token]:
    """Our tokens for one of formulaic's; a run of signs becomes one token each."""
    opener = formula[start]
    if opener in CLOSER:
        stop = start + 1 + len(text)
        if formula[start + 1 : stop] != text or formula[stop : stop + 1] != CLOSER[opener]:
            raise FormulaError("Nothing stands between these quotes.", formula, start)
        text = f"%{text}%" if opener == "%" else text
    if kind == "operator":
        return [_sign(text, start, formula)] if opener == "%" else _signs(text, start, formula)
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
    return [_sign(token.text, token.start, formula) for token in tokens]


def _sign(text: str, start: int, formula: str) -> Token:
    if text not in OPERATORS:
        raise FormulaError(
            f"{text!r} is not a sign of the formula language (+ - * / : ** ^ %in% | || ~). "
            "A column name with other characters goes in backticks.",
            formula,
            start,
        )
    return Token("operator", text, start)


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
