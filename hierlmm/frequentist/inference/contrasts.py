"""Hypotheses of the terms of a formula: type I, II and III, as matrices over the coefficients, without refits.

Type I   each term after those before it: rows of the triangular factor of X'X, scaled to a unit diagonal.
Type II  each term after all that do not contain it: the same with the term and those that contain it moved to the end.
Type III the term's part in the equally weighted decomposition over the levels of all categorical factors, what
         sum-to-zero coding tests: differences to the first level over the term's own factors, means over the others.

Types I and II weigh levels by the rows X has (each counted by its frequency), type III weighs them equally. A term is
contained in another with the same numeric factors and more categorical ones. lmerTest's tables have the same rows.

Source: Goodnight (1980), Communications in Statistics A9:167-180, and SAS Technical Report R-101 (1978).
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import LMMDesign
from hierlmm.errors import FitError
from hierlmm.frequentist.inference.contrasts_terms import TermColumn, Terms

Array = NDArray[np.float64]
Type = Literal[1, 2, 3]
Over = Literal["differences", "each"]

# Elements of a contrast this small beside its largest are rounding.
NOTHING = 1e-10


def term_contrasts(design: LMMDesign, terms: Terms, kind: Type) -> dict[str, Array]:
    """Per term but the intercept, (q, p) contrasts of full rank over the columns of X; q = 0 where all are aliased.

    Raises FitError where a type III hypothesis is not determined by the rows: cells without observations.
    """
    tested = [t for t, name in enumerate(terms.names) if name != "Intercept"]
    if kind == 3:
        return {terms.names[t]: _marginal(terms, t) for t in tested}
    gram = _gram(design)
    return {terms.names[t]: _sequential(gram, terms, t, kind) for t in tested}


def _gram(design: LMMDesign) -> Array:
    """(p, p) X'X, each row counted by its frequency."""
    if design.streamed is None:
        weighted = design.X if design.frequency is None else design.X * design.frequency[:, None]
        return np.asarray(design.X.T @ weighted)
    cp = design.streamed.products
    R = cp.rest.shape[0] - cp.p - 1
    back = np.linalg.solve(cp.X_map.T, cp.rest[R:-1, R:-1])
    return np.asarray(np.linalg.solve(cp.X_map.T, back.T).T)


def _sequential(gram: Array, terms: Terms, term: int, kind: Type) -> Array:
    """Rows of the unit upper triangular factor of X'X that belong to the term."""
    p = len(gram)
    later = terms.containing(term) if kind == 2 else range(term + 1, len(terms.names))
    own = terms.positions(term)
    if kind == 2 and not later:  # after all others: its coefficients themselves
        return np.eye(p)[own]
    last = [j for t in sorted(later) for j in terms.positions(t)]
    if kind == 1:
        last = [j for j in range(p) if own and j > max(own)]
    first = [j for j in range(p) if j not in {*own, *last}]
    order = [*first, *own, *last]
    scale = np.sqrt(np.diagonal(gram))[order]
    upper = np.linalg.cholesky(gram[np.ix_(order, order)] / np.outer(scale, scale)).T * scale
    out = np.zeros((len(own), p))
    for row in range(len(own)):
        here = upper[len(first) + row]
        out[row, order] = here / here[len(first) + row]
    return out


def _marginal(terms: Terms, term: int) -> Array:
    """Rows of the type III hypothesis of one term."""
    monomials = dict.fromkeys(column.numeric for column in terms.columns if column.term == term)
    levels = {name: len(code) for column in terms.columns for name, code in column.coded.items()}
    parts = [_component(terms, monomial, part, levels) for monomial in monomials for part in _parts(terms, term)]
    return _independent(_estimable(terms, term, np.concatenate(parts)))


def _parts(terms: Terms, term: int) -> list[dict[str, Over]]:
    """What the term is tested over: differences of its factors, and all that terms missing from the model leave to it.

    In "1 + a + a:b" the term a:b stands for b within each level of a; in "0 + a" the term a for each of its means.
    """
    present = set(zip(terms.numeric, terms.categorical, strict=True))
    own = sorted(terms.categorical[term])
    subsets = [frozenset(s) for size in range(len(own) + 1) for s in combinations(own, size)]
    left = [s for s in subsets if len(s) == len(own) or (terms.numeric[term], s) not in present]
    inner = frozenset(name for name in own if (terms.numeric[term], terms.categorical[term] - {name}) in present)
    if set(left) == {s for s in subsets if s >= inner}:
        return [{name: "differences" if name in inner else "each" for name in own}]
    return [dict.fromkeys(sorted(s), "differences") for s in reversed(left)]


def _component(
    terms: Terms, monomial: tuple[tuple[str, str], ...], over: dict[str, Over], levels: dict[str, int]
) -> Array:
    """(r, k) contrasts over the factors of `over`, means over all others, of what multiplies `monomial`."""
    rows = int(np.prod([levels[name] - (kind == "differences") for name, kind in over.items()]))
    out = np.zeros((rows, len(terms.columns)))
    for j, column in enumerate(terms.columns):
        if column.numeric == monomial:
            out[:, j] = _values(column, over, levels)
    return out


def _values(column: TermColumn, over: dict[str, Over], levels: dict[str, int]) -> Array:
    value = np.ones(1)
    for name, kind in over.items():
        code = column.coded.get(name, np.ones(levels[name]))
        value = np.kron(value, code if kind == "each" else code[1:] - code[0])
    for name, code in column.coded.items():
        if name not in over:
            value = value * code.mean()
    return value


def _estimable(terms: Terms, term: int, whole: Array) -> Array:
    """The contrasts over the columns of X.

    Numeric columns that others determine are left out of the model; columns of cells without rows are what is missing.
    """
    kept = whole[:, terms.kept]
    size = np.abs(whole).max(initial=0.0)
    away = np.abs(whole[:, ~terms.kept] - kept @ terms.combinations).max(axis=0, initial=0.0)
    lost = [c for c, keep in zip(terms.columns, terms.kept, strict=True) if not keep]
    if any(c.coded and far > 1e-8 * max(size, 1.0) for c, far in zip(lost, away, strict=True)):
        names = ", ".join(c.name for c in lost if c.coded)
        raise FitError(
            "A type III hypothesis weighs all cells equally, and needs observations in each; in term "
            f"{terms.names[term]} some have none, so that {names} is aliased. "
            "Use type=2, or test contrasts of your own."
        )
    return kept


def _independent(L: Array) -> Array:
    """The rows of L that are not combinations of rows before them."""
    kept = list[int]()
    size = np.abs(L).max(initial=0.0)
    for row in range(len(L)):
        if np.abs(L[row]).max(initial=0.0) <= NOTHING * size:
            continue
        if np.linalg.matrix_rank(L[[*kept, row]]) == len(kept) + 1:
            kept.append(row)
    return L[kept]
