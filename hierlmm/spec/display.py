"""A spec in the notation of a textbook, at most 80 columns wide."""

from __future__ import annotations

import textwrap

from hierlmm.spec import guard
from hierlmm.spec.arealines import area_lines, modelled
from hierlmm.spec.covariance import CompoundSymmetric, Diagonal, Identity
from hierlmm.spec.formula import summands
from hierlmm.spec.laws import residual_lines, weight_lines
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import AreaResidual, Correlated
from hierlmm.spec.terms import RandomTerm

WIDTH = 80
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Joins the parts of one summand, so that lines break between summands; becomes a blank at the end.
TIE = "\N{NO-BREAK SPACE}"


def describe(spec: ModelSpec) -> str:
    """The model equation and its distributions, one a line, and the formula.

    A prime marks a vector of coefficients (β₁′C(g)); a categorical predictor has one coefficient a level but the
    first, which only the data can show. The area-level model is said to be the mixed model that it is.
    """
    residual = spec.residual
    if isinstance(residual, AreaResidual):
        title = "Fay-Herriot area-level model"
        lines = [_equation(spec, [f"v[{_tied(spec.random[0].factor)}]", "e"]), *area_lines(spec, residual)]
    else:
        title, lines = _title(spec), _mixed_lines(spec)
    parts = summands(spec.fixed, spec.offset, () if spec.is_area_level else spec.random)
    lines.append(f"Formula: {_tied(spec.response)} ~ {' + '.join(map(_tied, parts))}")
    return "\n".join([title, *(line for text in lines for line in _wrapped(text))])


def _title(spec: ModelSpec) -> str:
    if spec.random:
        return "Linear mixed model"
    return "Marginal linear model" if isinstance(spec.residual, Correlated) else "Linear model"


def _mixed_lines(spec: ModelSpec) -> list[str]:
    effects, distributions, number = [], list[str](), 0
    for place, term in enumerate(spec.random, start=1):
        symbols = [_indexed("b", number + step) for step in range(1, len(term.coefficients) + 1)]
        number += len(symbols)
        effects += [
            _product(f"{symbol}[{_tied(term.factor)}]", coefficient)
            for symbol, coefficient in zip(symbols, term.coefficients, strict=True)
        ]
        matrix = "G" if len(spec.random) == 1 else _indexed("G", place)
        vector = f"({', '.join(symbols)})" if len(symbols) > 1 else symbols[0]
        law = f"{vector}[{term.factor}] ~ N(0, {matrix})".replace(" ", TIE)
        distributions.append(f"{law}, one for each {term.factor}; {matrix}{TIE}is {_shape(term)}")
    equation = _equation(spec, [*effects, "ε"])
    return [equation, *distributions, *residual_lines(spec.residual), *weight_lines(spec.weights)]


def _shape(term: RandomTerm) -> str:
    """The covariance matrix of a term in words; a lone coefficient may still be several columns."""
    size = f"{len(term.coefficients)}{TIE}×{TIE}{len(term.coefficients)} " if len(term.coefficients) > 1 else ""
    if isinstance(term.covariance, Diagonal):
        return f"{size}diagonal"
    if isinstance(term.covariance, Identity):
        return f"{size}one variance times the identity"
    if isinstance(term.covariance, CompoundSymmetric):
        return f"{size}compound symmetric: one variance and one correlation"
    return f"{size}unstructured" if size else "a variance"


def _equation(spec: ModelSpec, random: list[str]) -> str:
    first = 0 if "1" in spec.fixed else 1
    fixed = [_product(_indexed("β", number), term) for number, term in enumerate(spec.fixed, start=first)]
    left = modelled(spec.response, spec.transformation)
    return f"{_tied(left)} = {' + '.join([*fixed, *map(_tied, spec.offset), *random])}"


def _product(symbol: str, term: str) -> str:
    """Coefficient times predictor; a prime where the predictor is several columns whatever the data."""
    if term == "1":
        return symbol
    several = any(term.startswith(f"{name}(") or f":{name}(" in term for name in guard.SEVERAL)
    return f"{symbol}′{_tied(term)}" if several else f"{symbol}{TIE}{_tied(term)}"


def _tied(text: str) -> str:
    return text.replace(" ", TIE)


def _indexed(symbol: str, number: int) -> str:
    return f"{symbol}{str(number).translate(SUBSCRIPTS)}"


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    return [line.replace(TIE, " ") for line in lines]
