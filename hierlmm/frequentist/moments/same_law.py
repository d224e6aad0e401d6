"""Whether two random-effects structures give the same marginal law of y on a design.

y ~ N(X beta, V): structures with the same means and the same covariance matrices V cannot be told apart by any data on
this design. A cone of V contains another where its span does and every extreme ray of the other lies in it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import build
from hierlmm.design.types import LMMDesign
from hierlmm.errors import DesignError
from hierlmm.frequentist.moments.law import Law, entries
from hierlmm.frequentist.moments.law_restrictions import NEGATIVE, STREAM, TRIED, allowed, equations, inequalities
from hierlmm.spec.model import ModelSpec

Array = NDArray[np.float64]

WIDTH = 80
# Length of what one span leaves of a direction of the other, relative to its own, below which it is rounding.
WITHIN = 1e-8


class Relation(Enum):
    """How the sets of marginal laws of two structures lie; the value is the sentence the reader sees."""

    SAME = "The two structures give the same marginal laws: no data on this design can tell them apart."
    FIRST_CONTAINS_SECOND = "The first structure contains the second, which restricts it."
    SECOND_CONTAINS_FIRST = "The second structure contains the first, which restricts it."
    DIFFERENT = "The two structures give different marginal laws: neither contains the other."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LawComparison:
    """How the marginal laws of two structures are related on one design.

    relation      the verdict
    dimensions    numbers of covariance parameters of the first, of the second, and of the directions they share
    map           parameters of the contained structure (rows) in those of the other (columns); nan where they are not
    restrictions  equations and inequalities in the parameters of the containing structure that give the other one
    evidence      sentences: why neither contains the other, or what the verdict rests on
    """

    relation: Relation
    dimensions: tuple[int, int, int]
    map: pd.DataFrame
    restrictions: tuple[str, ...]
    evidence: tuple[str, ...]

    def __repr__(self) -> str:
        lines = textwrap.wrap(self.relation.value, WIDTH)
        first, second, shared = self.dimensions
        lines.append(f"covariance parameters: {first} and {second}; directions of V in common: {shared}")
        for text in self.restrictions:
            lines += textwrap.wrap(f"- restriction: {text}", WIDTH, subsequent_indent="  ")
        for text in self.evidence:
            lines += textwrap.wrap(f"- {text}", WIDTH, subsequent_indent="  ")
        return "\n".join(lines)


def same_marginal_law(
    first: ModelSpec | LMMDesign, second: ModelSpec | LMMDesign, data: object = None
) -> LawComparison:
    """Compare two structures on the same rows: two specs with `data`, or two designs (`fit.design`).

    Raises DesignError where the rows differ, a spec comes without data, or V is not linear in its parameters, as under
    serial correlation.
    """
    one, two = (_design(given, data) for given in (first, second))
    if not one.index.equals(two.index):
        raise DesignError(
            f"Marginal laws are compared on the same rows; the designs have {one.rows} and {two.rows} rows or other "
            "labels. Build both from the same complete rows."
        )
    laws = Law.of(one), Law.of(two)
    A, B = entries(laws)
    forward, left = _coordinates(A, B)
    backward, right = _coordinates(B, A)
    shared = (
        len(laws[0].names) + len(laws[1].names) - int(np.linalg.matrix_rank(_unit(np.column_stack([A, B])), tol=1e-7))
    )
    evidence = [*_means(one, two)]
    inside = [
        _contained(laws[0], laws[1], forward, left, "first", "second", evidence),
        _contained(laws[1], laws[0], backward, right, "second", "first", evidence),
    ]
    relation = _relation(inside, bool(_means(one, two)))
    outer = relation is Relation.FIRST_CONTAINS_SECOND
    small, large, M = (laws[1], laws[0], backward) if outer else (laws[0], laws[1], forward)
    restrictions: tuple[str, ...] = ()
    if relation in (Relation.FIRST_CONTAINS_SECOND, Relation.SECOND_CONTAINS_FIRST):
        restrictions = (*equations(M, large), *inequalities(M, small, large))
    frame = pd.DataFrame(M.T, list(small.names), list(large.names))
    spanned = (right if outer else left) <= WITHIN
    frame[~spanned] = np.nan
    return LawComparison(
        relation=relation,
        dimensions=(len(laws[0].names), len(laws[1].names), shared),
        map=frame,
        restrictions=restrictions,
        evidence=tuple(dict.fromkeys(evidence)),
    )


def _design(given: ModelSpec | LMMDesign, data: object) -> LMMDesign:
    design = given if isinstance(given, LMMDesign) else None
    if isinstance(given, ModelSpec) and data is not None and not given.is_area_level:
        built = build(given, data)
        design = built if isinstance(built, LMMDesign) else None
    if design is None:
        raise DesignError(
            "Marginal laws are compared on a design: give two specs of linear mixed models with their data, or two "
            f"designs; found {type(given).__name__}{' without data' if data is None else ''}."
        )
    return design


def _relation(inside: list[bool], means_differ: bool) -> Relation:
    if means_differ or not any(inside):
        return Relation.DIFFERENT
    if all(inside):
        return Relation.SAME
    return Relation.SECOND_CONTAINS_FIRST if inside[0] else Relation.FIRST_CONTAINS_SECOND


def _means(one: LMMDesign, two: LMMDesign) -> list[str]:
    """A sentence where the fixed parts span different means."""
    X, W = one.X, two.X
    alike = X.shape[1] == W.shape[1] and np.array_equal(one.offset, two.offset)
    if alike and (not X.shape[1] or _coordinates(X, W)[1].max() <= WITHIN):
        return []
    return ["The fixed parts span different means: compare structures with the same fixed effects."]


def _unit(columns: Array) -> Array:
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def _coordinates(A: Array, B: Array) -> tuple[Array, Array]:
    """(k_B, k_A) coordinates of the columns of A in those of B, and (k_A,) what is left of each, relative."""
    size = np.linalg.norm(B, axis=0)
    M = np.linalg.lstsq(B / size, A, rcond=None)[0] / size[:, None]
    left = np.linalg.norm(A - B @ M, axis=0) / np.linalg.norm(A, axis=0)
    M[np.abs(M) < 1e-10 * np.abs(M).max(axis=0, initial=0.0)] = 0.0
    return np.asarray(M), np.asarray(left)


def _contained(small: Law, large: Law, M: Array, left: Array, own: str, other: str, evidence: list[str]) -> bool:
    """Whether every V of `small` is one of `large`; the reason why not is added to the evidence."""
    if left.max() > WITHIN:
        k = int(left.argmax())
        evidence.append(
            f"{small.names[k]} of the {own} structure moves V as no parameters of the {other} do (sine of the angle to "
            f"their span {left[k]:.2g})."
        )
        return False
    for ray in small.rays:
        if not allowed(large, M @ ray):
            evidence.append(
                f"With {_point(small.names, ray)} alone the {other} structure would need "
                f"{_point(large.names, M @ ray)}, outside its parameter space."
            )
            return False
    return all(_family(small, large, M, family, own, other, evidence) for family in small.families)


def _family(
    small: Law, large: Law, M: Array, family: NDArray[np.intp], own: str, other: str, evidence: list[str]
) -> bool:
    """The rays u u' of a general covariance matrix: linear conditions exactly, matrix ones by their form."""
    q = len(family)
    unproved = False
    for limit in large.limits:
        form = np.tensordot(M.T, limit.parts, axes=1)  # (k_small, r, r)
        moved = form[family] * (0.5 + 0.5 * np.eye(q))[:, :, None, None]
        size = np.abs(moved).max()
        if limit.is_scalar:
            values, vectors = np.linalg.eigh(moved[:, :, 0, 0])
            if values[0] >= -NEGATIVE * size:
                continue
            u = vectors[:, 0]
        elif _is_congruence(moved, size):
            continue
        else:
            drawn = np.random.default_rng(STREAM).standard_normal((TRIED, q))
            images = np.einsum("na,nb,abrs->nrs", drawn, drawn, moved)
            least = np.linalg.eigvalsh(images)[:, 0]
            if least.min() >= -NEGATIVE * size * q:
                unproved = True
                continue
            u = drawn[int(least.argmin())]
        ray = np.zeros(len(small.names))
        np.add.at(ray, family, np.outer(u, u) * (0.5 + 0.5 * np.eye(q)))
        evidence.append(
            f"With {_point(small.names, ray)} the {other} structure would need {_point(large.names, M @ ray)}, outside "
            "its parameter space."
        )
        return False
    if unproved:
        evidence.append(
            f"That every covariance matrix of the {own} structure is allowed by the {other} was tried in {TRIED} "
            "directions, without a counterexample, not proved."
        )
    return True


def _is_congruence(moved: Array, size: float) -> bool:
    """Whether H -> sum H_ab moved_ab is H -> T H T': then a covariance matrix stays one."""
    q = len(moved)
    T = np.zeros((moved.shape[2], q))
    for a in range(q):
        values, vectors = np.linalg.eigh(moved[a, a])
        T[:, a] = np.sqrt(max(values[-1], 0.0)) * vectors[:, -1]
    for a in range(1, q):
        signs = [float(np.sum(moved[a, b] * np.outer(T[:, b], T[:, a]))) for b in range(a)]
        pivot = max(signs, key=abs)
        T[:, a] *= -1.0 if pivot < 0 else 1.0
    image = np.einsum("ra,sb->abrs", T, T)
    return bool(np.abs((image + image.swapaxes(0, 1)) / 2 - moved).max() <= 1e-8 * size)


def _point(names: tuple[str, ...], theta: Array) -> str:
    size = np.abs(theta).max()
    return ", ".join(
        f"{name} = {value:.3g}" for name, value in zip(names, theta, strict=True) if abs(value) > 1e-9 * size
    )
