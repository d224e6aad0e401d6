"""Linear hypotheses L beta = c about the fixed effects, read from text, names of terms, or a matrix.

    text      equations separated by commas, semicolons or lines: "x1 - x2 = 0, 2 * x3 = 1"; without "=", "= 0";
              an equation that is the name of a term stands for all of its coefficients
    numbers   one contrast (p,), several (k, p), or a data frame whose columns are names of coefficients

Names are those of the coefficients (`fit.fixed`), in backticks or not; the longest name that fits is read. No part of
the text is evaluated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import SpecError, listed

Array = NDArray[np.float64]

NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
SEPARATORS, SIGNS = ",;\n", "+-*/="
# Characters after which a name has not ended: "x" is not read in "x1" or in "x:z".
INSIDE = re.compile(r"[\w.:\[(]")


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """L (k, p), c (k,) and a label for each row of L beta = c, without the right side where c is not zero."""

    L: Array
    c: Array
    labels: tuple[str, ...]


def hypothesis_of(
    given: str | Sequence[str] | ArrayLike | pd.DataFrame,
    value: ArrayLike,
    names: Sequence[str],
    terms: Mapping[str, Sequence[int]],
    aliased: Sequence[str],
) -> Hypothesis:
    """The hypothesis that `given` states about coefficients `names` (p,).

    value  scalar or (k,): the right-hand sides of numbers, which must be 0 where text has its own
    terms  positions of the coefficients of each term; aliased names that the rows do not determine

    Raises SpecError for text that cannot be read, unknown names, and numbers of another shape.
    """
    texts = _texts(given)
    if texts is None:
        return _numbers(given, value, names)
    if np.any(np.asarray(value) != 0):
        raise SpecError('A hypothesis in text has its own right-hand sides: write "x = 1" and leave `value` out.')
    rows, labels = list[tuple[Array, float]](), list[str]()
    for text in texts:
        for tokens, source in _equations(text, names, terms, aliased):
            for row, label in _read(tokens, source, names, terms):
                rows.append(row)
                labels.append(label)
    if not rows:
        raise SpecError(
            f"A hypothesis must state at least one equation; found {given!r}. Write for instance {_example(names)}."
        )
    return Hypothesis(np.array([row for row, _ in rows]), np.array([c for _, c in rows]), tuple(labels))


def is_text(given: object) -> bool:
    """Whether a hypothesis is stated in words, so that names of terms may stand in it."""
    return _texts(given) is not None


def _texts(given: object) -> list[str] | None:
    """The texts that a hypothesis consists of; None where it is numbers."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list | tuple) and given and all(isinstance(part, str) for part in given):
        return [str(part) for part in given]
    return None


def _example(names: Sequence[str]) -> str:
    return f'"{names[-1]} = 0"' if len(names) else "a matrix"


def _numbers(given: object, value: ArrayLike, names: Sequence[str]) -> Hypothesis:
    p = len(names)
    labels: Sequence[str] | None = None
    if isinstance(given, pd.DataFrame):
        if unknown := [str(column) for column in given.columns if column not in names]:
            raise SpecError(_unknown(unknown[0], names, (), ()))
        labels = None if isinstance(given.index, pd.RangeIndex) else [str(label) for label in given.index]
        given = given.reindex(columns=list(names), fill_value=0.0).to_numpy()
    try:
        L = np.atleast_2d(np.array(given, dtype=np.float64))
    except (TypeError, ValueError):
        raise SpecError(
            f"A hypothesis must be text, names or a matrix of numbers; found {type(given).__name__}. "
            f"Write for instance {_example(names)}."
        ) from None
    if L.ndim != 2 or L.shape[1] != p or not len(L) or not np.isfinite(L).all():
        raise SpecError(
            f"A matrix of contrasts must have a column for each of the {p} fixed effects and finite numbers; found "
            f"shape {L.shape}. Its columns are those of fit.fixed: {listed(names)}."
        )
    c = np.array(value, dtype=np.float64)
    if c.ndim > 1 or c.ndim == 1 and len(c) != len(L) or not np.isfinite(c).all():
        raise SpecError(f"There must be one right-hand side, or one for each of the {len(L)} rows; found {value!r}.")
    c = np.broadcast_to(c, len(L)).copy()
    return Hypothesis(L, c, tuple(labels or [_written(row, names) for row in L]))


def _written(row: Array, names: Sequence[str]) -> str:
    """A contrast as text: "x1 - 0.5 x2"."""
    parts = list[str]()
    for weight, name in zip(row, names, strict=True):
        if weight:
            sign = "- " if weight < 0 else "+ " if parts else ""
            parts.append(f"{sign}{'' if abs(weight) == 1 else f'{abs(weight):.6g} '}{name}")
    text = " ".join(parts) or "0"
    return f"-{text[2:]}" if text.startswith("- ") else text


Token = tuple[str, str]


def _equations(
    text: str, names: Sequence[str], terms: Mapping[str, Sequence[int]], aliased: Sequence[str]
) -> list[tuple[list[Token], str]]:
    """Tokens (kind, text) of each equation, and its source."""
    known = sorted({*names, *terms}, key=len, reverse=True)
    out: list[tuple[list[Token], str]] = []
    tokens, start, at = list[Token](), 0, 0
    while at < len(text):
        if text[at] in SEPARATORS:
            out.append((tokens, text[start:at].strip()))
            tokens, start, at = [], at + 1, at + 1
        elif text[at].isspace():
            at += 1
        elif (name := _name_at(text, at, known)) is not None:
            tokens.append(("name", name[0]))
            at = name[1]
        elif number := NUMBER.match(text, at):
            tokens.append(("number", number.group()))
            at = number.end()
        elif text[at] in SIGNS:
            tokens.append(("sign", text[at]))
            at += 1
        else:
            found = re.split(r"[,;\n=]|\s[-+*/]\s", text[at:], maxsplit=1)[0].strip()
            raise SpecError(_unknown(found, names, tuple(terms), aliased))
    out.append((tokens, text[start:].strip()))
    return [part for part in out if part[0]]


def _name_at(text: str, at: int, known: Sequence[str]) -> tuple[str, int] | None:
    """The longest known name that stands at a position, and where it ends."""
    if text[at] == "`":
        end = text.find("`", at + 1)
        inner = text[at + 1 : end]
        return (inner, end + 1) if end > 0 and inner in known else None
    for name in known:  # as it stands first: patterns of thousands of names would take their time
        end = at + len(name)
        if text.startswith(name, at) and not INSIDE.match(text, end):
            return name, end
    for name in known:
        found = _pattern(name).match(text, at)
        if found and not INSIDE.match(text, found.end()):
            return name, found.end()
    return None


@lru_cache(maxsize=4096)
def _pattern(name: str) -> re.Pattern[str]:
    """A name, with or without blanks around what is no letter or digit: "poly(x,2)[1]" for "poly(x, 2)[1]"."""
    pieces = re.findall(r"\w+|[^\w\s]", name)
    pattern = re.escape(pieces[0]) if pieces else re.escape(name)
    for before, piece in pairwise(pieces):
        words = re.match(r"\w", before[-1]) and re.match(r"\w", piece)
        pattern += (r"\s+" if words else r"\s*") + re.escape(piece)
    return re.compile(pattern)


def _unknown(found: str, names: Sequence[str], terms: Sequence[str], aliased: Sequence[str]) -> str:
    rule = f"A hypothesis must name fixed effects of the model; found {found!r}"
    if found in aliased:
        return f"{rule}, which the data do not determine beside the others (aliased). Leave it out."
    close = difflib.get_close_matches(found, [*names, *terms], 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{rule}.{hint} The effects are: {listed(names)}."


def _read(
    tokens: Sequence[Token], source: str, names: Sequence[str], terms: Mapping[str, Sequence[int]]
) -> list[tuple[tuple[Array, float], str]]:
    """Rows of one equation: one, or one for each coefficient of a term that is named alone."""
    rest = list(tokens)
    kind, name = rest[0]
    alone = rest[1:] in ([], [("sign", "="), ("number", "0")]) and kind == "name" and name in terms
    if alone and (name not in names or len(terms[name]) != 1):
        return [((np.eye(len(names))[j], 0.0), names[j]) for j in terms[name]]
    if rest.count(("sign", "=")) > 1:
        raise SpecError(f"An equation has one '='; found {source!r}. Separate equations by commas.")
    if ("sign", "=") in rest:
        cut = rest.index(("sign", "="))
        left, right = _side(rest[:cut], source, names, terms), _side(rest[cut + 1 :], source, names, terms)
    else:
        left, right = _side(rest, source, names, terms), (np.zeros(len(names)), 0.0)
    with np.errstate(over="ignore"):
        row, c = left[0] - right[0], right[1] - left[1]
    if not (np.isfinite(row).all() and np.isfinite(c)):
        raise SpecError(_too_large(source))
    if not right[0].any() and not left[1]:
        return [((row, float(c)), source.split("=")[0].strip())]
    return [((row, float(c)), _written(row, names) if c else source)]


def _too_large(source: str) -> str:
    return f"Numbers of a hypothesis are finite in double precision; found {source!r}. Write smaller ones."


def _side(
    tokens: Sequence[Token], source: str, names: Sequence[str], terms: Mapping[str, Sequence[int]]
) -> tuple[Array, float]:
    """Coefficients and constant of a sum of numbers, names, and numbers times or names over numbers."""
    row, constant = np.zeros(len(names)), 0.0
    at = 0
    while at < len(tokens) or at == 0:
        sign, at = _signs(tokens, at)
        weight, name, at = _product(tokens, at, source)
        if name is None:
            constant += sign * weight
        elif name in names:
            row[names.index(name)] = float(row[names.index(name)]) + sign * weight
        else:
            raise SpecError(
                f"In a sum only single coefficients can stand; found the term {name} in {source!r}, which has "
                f"{listed(names[j] for j in terms[name])}. Name one of these, or test the term by itself."
            )
    return row, constant


def _signs(tokens: Sequence[Token], at: int) -> tuple[float, int]:
    sign = 1.0
    while at < len(tokens) and tokens[at] in (("sign", "+"), ("sign", "-")):
        sign = -sign if tokens[at][1] == "-" else sign
        at += 1
    return sign, at


def _product(tokens: Sequence[Token], at: int, source: str) -> tuple[float, str | None, int]:
    """Weight and name of a product that starts at a position, and where it ends."""
    weight, name, divide = 1.0, None, False
    while True:
        kind, text = tokens[at] if at < len(tokens) else ("end", "")
        if kind == "number" and not (divide and float(text) == 0):
            weight = weight / float(text) if divide else weight * float(text)
        elif kind == "name" and name is None and not divide:
            name = text
        else:
            raise SpecError(
                f"A hypothesis is a sum of coefficients times numbers, as in '2 * x1 - x2 = 0'; found {source!r}, "
                f"which cannot be read at {text or 'its end'!r}."
            )
        at += 1
        following = tokens[at] if at < len(tokens) else ("end", "")
        if following[0] == "name" and name is None:  # "2 x": the sign is left out
            divide = False
        elif following in (("sign", "*"), ("sign", "/")):
            divide = following[1] == "/"
            at += 1
        elif following[0] in ("name", "number"):
            raise SpecError(f"Between {text!r} and {following[1]!r} a sign is missing in {source!r}.")
        elif not np.isfinite(weight):
            raise SpecError(_too_large(source))
        else:
            return weight, name, at
