"""Which columns of X each term of the formula made, and out of which categorical codings and numeric columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.design import build
from hierlmm.design.coding import Coding
from hierlmm.design.types import LMMDesign
from hierlmm.errors import FitError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TermColumn:
    """One column of X before aliased ones were removed.

    term     position of its term; name as formulaic writes it
    numeric  the numeric columns that it multiplies, each by factor and column
    coded    per categorical factor (levels,) the values that its levels have in this column
    """

    term: int
    name: str
    numeric: tuple[tuple[str, str], ...]
    coded: Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Terms of the fixed part in order and the columns of X, aliased ones included, that they made.

    names        (t,) "Intercept" for the intercept
    categorical, numeric  (t,) the factors of each term
    columns      (k,) in order; kept (k,) whether the column is in X
    combinations (p, k - p) what the aliased columns are of those kept
    """

    names: tuple[str, ...]
    categorical: tuple[frozenset[str], ...]
    numeric: tuple[frozenset[str], ...]
    columns: tuple[TermColumn, ...]
    kept: NDArray[np.bool_]
    combinations: Array

    def positions(self, term: int) -> list[int]:
        """Positions among the p columns of X of one term."""
        place = np.cumsum(self.kept) - 1
        return [int(place[j]) for j, c in enumerate(self.columns) if c.term == term and self.kept[j]]

    def containing(self, term: int) -> list[int]:
        """Terms with the same numeric factors and more categorical ones, this term's among them: SAS's containment."""
        return [
            other
            for other in range(len(self.names))
            if self.numeric[other] == self.numeric[term] and self.categorical[other] > self.categorical[term]
        ]


def terms_of(design: LMMDesign) -> Terms:
    """The terms of a design's fixed part."""
    coding = design.coding or _coded_again(design)
    encoder = coding.fixed
    if encoder.steps is not None:
        columns = _direct(encoder.steps, encoder.names, encoder.known)
        factors = [(frozenset(names), first) for names, first in encoder.steps]
        categorical = [names if first is not None else frozenset[str]() for names, first in factors]
        numeric = [frozenset[str]() if first is not None else names for names, first in factors]
    else:
        columns = _structured(encoder.state, encoder.names)
        split = [_split(encoder.state, entry.scoped_terms) for entry in encoder.state.structure]
        categorical, numeric = [part[0] for part in split], [part[1] for part in split]
    names = tuple("Intercept" if term == "1" else term for term in encoder.terms)
    kept = np.asarray(coding.keep, dtype=bool)
    combinations: Array = np.zeros((int(kept.sum()), int((~kept).sum())))
    if not kept.all():
        found = np.linalg.lstsq(coding.fitted[:, kept], coding.fitted[:, ~kept], rcond=None)[0]
        combinations = np.asarray(found, dtype=np.float64)
    return Terms(names, tuple(categorical), tuple(numeric), tuple(columns), kept, combinations)


def _coded_again(design: LMMDesign) -> Coding:
    """The coding of a design that carries none, by building it again from the table it keeps."""
    built = build(design.spec, design.table)
    assert built.coding is not None
    return built.coding


def _direct(steps: Sequence[Any], names: Sequence[str], known: Mapping[str, Any]) -> list[TermColumn]:
    out = list[TermColumn]()
    for term, (factors, first) in enumerate(steps):
        if first is None:
            out.append(TermColumn(term, names[len(out)], tuple((name, "") for name in factors), {}))
            continue
        levels = len(known[factors[0]])
        for level in range(first, levels):
            out.append(TermColumn(term, names[len(out)], (), {factors[0]: np.eye(levels)[level]}))
    return out


def _split(state: Any, scoped: Sequence[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """Categorical and numeric factors of a term."""
    every = {f.factor.expr for part in scoped for f in part.factors}
    labelled = frozenset(expr for expr in every if _levels(state, expr) is not None)
    return labelled, frozenset(every) - labelled


def _levels(state: Any, expr: str) -> Any:
    """formulaic's contrasts of a categorical factor; None of a numeric one."""
    kind, held = state.encoder_state.get(expr, (None, {}))
    return held["contrasts"] if kind is not None and kind.value == "categorical" else None


def _structured(state: Any, names: Sequence[str]) -> list[TermColumn]:
    out = list[TermColumn]()
    for term, entry in enumerate(state.structure):
        own, start = list(entry.columns), 0
        for part in entry.scoped_terms:
            factors = [(f.factor.expr, bool(f.reduced)) for f in part.factors]
            parsed = list[tuple[str, ...]]()
            while start < len(own) and (labels := _labels(own[start], [expr for expr, _ in factors])) is not None:
                if labels in parsed:
                    break
                parsed.append(labels)
                start += 1
            out += _scoped(state, term, factors, parsed, own[start - len(parsed) : start])
    if [column.name for column in out] != list(names):
        raise FitError(
            "A table of terms needs to know which term made which column; the columns "
            f"{', '.join(sorted(set(names) - {c.name for c in out})) or 'of this formula'} could not be told apart. "
            "Test their coefficients by name."
        )
    return out


def _scoped(
    state: Any, term: int, factors: Sequence[tuple[str, bool]], parsed: Sequence[tuple[str, ...]], names: Sequence[str]
) -> list[TermColumn]:
    """The columns of one part of a term, from the labels that its factors have in each."""
    order = [list(dict.fromkeys(labels[i] for labels in parsed)) for i in range(len(factors))]
    codes = {}
    for expr, reduced in factors:
        contrasts = _levels(state, expr)
        if contrasts is not None:
            matrix = contrasts.contrasts.get_coding_matrix(list(contrasts.levels), reduced_rank=reduced, sparse=False)
            codes[expr] = np.asarray(matrix, dtype=np.float64)
    out = []
    for labels, name in zip(parsed, names, strict=True):
        coded = {
            expr: codes[expr][:, order[i].index(labels[i])] for i, (expr, _) in enumerate(factors) if expr in codes
        }
        numeric = tuple(sorted((expr, labels[i]) for i, (expr, _) in enumerate(factors) if expr not in codes))
        out.append(TermColumn(term, name, numeric, coded))
    return out


def _labels(name: str, factors: Sequence[str]) -> tuple[str, ...] | None:
    """What stands in brackets behind each factor in a column's name "a[T.x]:z:poly(w, 2)[1]"; None: other factors."""
    if not factors:
        return () if name == "Intercept" else None
    first, rest = factors[0], factors[1:]
    if not name.startswith(first):
        return None
    tail = name[len(first) :]
    if not rest:
        return (tail,) if not tail or tail[0] == "[" and tail[-1] == "]" else None
    for cut in range(len(tail)):
        if tail[cut] == ":" and (cut == 0 or tail[0] == "[" and tail[cut - 1] == "]"):
            inner = _labels(tail[cut + 1 :], rest)
            if inner is not None:
                return (tail[:cut], *inner)
    return None
