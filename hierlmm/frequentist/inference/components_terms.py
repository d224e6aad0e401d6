"""Which variances a test sets to zero, the model without them, and the directions in which they may leave zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import DesignError, SpecError, listed
from hierlmm.frequentist.boundary_test import without
from hierlmm.frequentist.inference.components_space import Gram, Positions
from hierlmm.frequentist.inference.mixtures import Cone
from hierlmm.likelihood.information import VarianceParameter, information
from hierlmm.likelihood.optimum import Surface
from hierlmm.likelihood.parameters import Parameters

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Names = str | Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """The random coefficients under test: per factor of `design` the columns of Z, none where it is not tested."""

    design: LMMDesign
    columns: tuple[tuple[int, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """group:term of each coefficient."""
        pairs = zip(self.design.factors, self.columns, strict=True)
        return tuple(f"{factor.name}:{factor.coefficients[c]}" for factor, own in pairs for c in own)

    @property
    def one_variance(self) -> bool:
        """Whether a single variance multiplies all tested columns, uncorrelated with others."""
        terms = variance_terms(self.design)
        return terms is not None and sum(set(own) == set(self.columns[f]) for f, own in terms if self.columns[f]) == 1 \
            and sum(bool(own) for own in self.columns) == 1  # fmt: skip

    def positions(self, products: Gram) -> Positions:
        """Where their effects are among the cross-products."""
        return _positions(products, self.columns)

    def others(self, products: Gram) -> Positions:
        """Where all other random effects are."""
        rest = [
            tuple(c for c in range(len(factor.coefficients)) if c not in own)
            for factor, own in zip(self.design.factors, self.columns, strict=True)
        ]
        return _positions(products, rest)

    def removed(self) -> LMMDesign:
        """The design without them."""
        design = self.design
        for factor, own in zip(self.design.factors, self.columns, strict=True):
            for column in sorted(own, reverse=True):
                design = without(design, next(f for f in design.factors if f.name == factor.name), column)
        return design

    def cone(self) -> Cone | None:
        """The admissible directions; None where a block with compound symmetry is tested."""
        free, blocks = 0, list[int]()
        for factor, own in zip(self.design.factors, self.columns, strict=True):
            for block, structure in zip(factor.blocks, factor.structures, strict=True):
                s = len(set(block) & set(own))
                if s and structure == "cs" and len(block) > 1:
                    return None
                if s:
                    blocks.append(s if structure == "general" else 1)
                    free += s * (len(block) - s) if structure == "general" else 0
        return Cone(free, tuple(blocks))


def _positions(products: Gram, columns: Sequence[tuple[int, ...]]) -> Positions:
    parts = [places[:, list(own)].ravel() for places, own in zip(products.effects, columns, strict=True)]
    return np.concatenate([np.zeros(0, dtype=np.intp), *parts])


def variance_terms(design: LMMDesign) -> list[tuple[int, tuple[int, ...]]] | None:
    """(factor, columns) of each variance where all random terms are independent; None where some are correlated."""
    out = []
    for f, factor in enumerate(design.factors):
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            if len(block) > 1 and structure != "identity":
                return None
            out.append((f, tuple(block)))
    return out


def tested(fit: LMMFit, group: Names, term: Names | None) -> Tested:
    """The coefficients that `group` and `term` name.

    Raises DesignError for unknown names, SpecError where one is named twice, and where part of a block that has a
    covariance structure is named.
    """
    groups = (group,) if isinstance(group, str) else tuple(group)
    terms = None if term is None else (term,) if isinstance(term, str) else tuple(term)
    factors = fit.design.factors
    known = listed(f"{f.name}:{c}" for f in factors for c in f.coefficients)
    if not groups or terms == () or (terms is not None and len(groups) != 1):
        raise SpecError(
            f"A test names grouping factors, or terms of one of them; found group={group!r}, term={term!r}. "
            f"The model has {known or 'no random effects'}."
        )
    twice = sorted({name for names in (groups, terms or ()) for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            f"A component can be tested once, not against itself; {listed(twice)} is named twice in group={group!r}, "
            f"term={term!r}. Name each once."
        )
    unknown = [name for name in groups if name not in {f.name for f in factors}]
    asked = [name for name in terms or () if all(name not in f.coefficients for f in factors if f.name == groups[0])]
    if unknown or asked:
        found = listed(unknown or [f"{groups[0]}:{name}" for name in asked])
        raise DesignError(
            f"The component to test must be in the model; found {found}. The model has {known or 'no random effects'}. "
            "Name one of these, or fit the larger model, which has the component, and test it there."
        )
    chosen = Tested(fit.design, tuple(_columns(f, f.name in groups, terms) for f in factors))
    _whole(chosen)
    return chosen


def _columns(factor: GroupingFactor, named: bool, terms: tuple[str, ...] | None) -> tuple[int, ...]:
    return tuple(c for c, name in enumerate(factor.coefficients) if named and (terms is None or name in terms))


def _whole(chosen: Tested) -> None:
    """Refuse part of a block whose coefficients share their variance."""
    for factor, own in zip(chosen.design.factors, chosen.columns, strict=True):
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            if structure != "general" and 0 < len(set(block) & set(own)) < len(block):
                names = listed(factor.coefficients[c] for c in block)
                raise SpecError(
                    "Coefficients that share a variance are tested together; of those of "
                    f"{factor.name} ({names}) only some are named. Give term=None, or name them all."
                )


def efficient_information(fit: LMMFit, null: LMMFit, chosen: Tested) -> Array:
    """(k, k) information of the variances under test at the null fit, all other parameters eliminated.

    Elements follow `Cone`: lower triangles of the tested blocks, for the working columns of Z: the cone is the same
    in any basis, and in an orthonormal one its projections are fast. Blocks of other terms that are singular at the
    null fit are held there.
    """
    cp = fit.equations
    at = Surface.of(cp, fit.method)(Parameters.of(cp).theta(_null_factors(fit, null, chosen)))
    found = information(cp, at, fit.method)
    constrained, others = list[Array](), list[Array]()
    for f, (factor, own) in enumerate(zip(chosen.design.factors, chosen.columns, strict=True)):
        e = cp.order.index(f)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            for tied, all_tested, none in _elements(block, structure, set(own)):
                direction = np.array([float(p.factor == e and _place(p) in tied) for p in found.parameters])
                if all_tested:
                    constrained.append(direction)
                elif not none or not _singular(null, factor.name, block, factor):
                    others.append(direction)
    if not cp.known_sigma2:
        others.append(np.array([float(p.factor < 0) for p in found.parameters]))
    T = np.array([*constrained, *others]).T
    J, k = T.T @ found.matrix @ T, len(constrained)
    turn = np.eye(len(J))
    turn[:k, :k] = _working_basis(fit, chosen)
    J = turn.T @ J @ turn
    if k == J.shape[0]:
        return np.asarray(J)
    scale = np.sqrt(np.diagonal(J)[k:])
    half = J[:k, k:] / scale
    solved = np.linalg.lstsq(J[k:, k:] / np.outer(scale, scale), half.T, rcond=1e-15 * len(J))[0]
    return np.asarray(J[:k, :k] - half @ solved)


def _working_basis(fit: LMMFit, chosen: Tested) -> Array:
    """(k, k) elements of the tested blocks on the data scale from those on the working scale, C = B C_work B'."""
    cp, parts = fit.equations, list[Array]()
    for f, (factor, own) in enumerate(zip(chosen.design.factors, chosen.columns, strict=True)):
        B = cp.Z_map[cp.order.index(f)]
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            inside = [c for c in block if c in own]
            if inside and structure != "general":
                parts.append(np.eye(1))
            elif inside:
                c, r = np.triu_indices(len(inside))
                D = B[np.ix_(inside, inside)]
                part = D[r][:, r] * D[c][:, c]
                part = part + np.where(r != c, D[r][:, c] * D[c][:, r], 0.0)
                parts.append(part)
    out, start = np.zeros((sum(map(len, parts)), sum(map(len, parts)))), 0
    for part in parts:
        out[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return out


def _place(p: VarianceParameter) -> tuple[int, int]:
    return p.row, p.column


def _elements(block: tuple[int, ...], structure: str, own: set[int]) -> list[tuple[list[tuple[int, int]], bool, bool]]:
    """Elements of G that move together, whether both indices of them are tested, and whether neither is."""
    places = [(block[r], block[c]) for c in range(len(block)) for r in range(c, len(block))]
    if structure == "general":
        return [([place], set(place) <= own, not set(place) & own) for place in places]
    diagonal = [place for place in places if place[0] == place[1]]
    whole = bool(set(block) & own)
    parts = [diagonal] if structure == "identity" else [diagonal, [place for place in places if place not in diagonal]]
    return [(part, whole, not whole) for part in parts if part]


def _null_factors(fit: LMMFit, null: LMMFit, chosen: Tested) -> list[Array]:
    """Lambda per factor in elimination order on the working scale of `fit`, rows of the tested coefficients zero."""
    names = [factor.name for factor in null.design.factors]
    out = []
    for f, B in zip(fit.equations.order, fit.equations.Z_map, strict=True):
        factor, own = chosen.design.factors[f], chosen.columns[f]
        q = len(factor.coefficients)
        kept = [c for c in range(q) if c not in own]
        half = np.zeros((q, q))
        if kept:
            half[np.ix_(kept, kept)] = null.theta[names.index(factor.name)]
        L = np.linalg.qr(np.linalg.solve(B, half).T).R.T
        out.append(np.asarray(L * np.where(np.diagonal(L) < 0, -1.0, 1.0)))
    return out


def _singular(null: LMMFit, name: str, block: tuple[int, ...], factor: GroupingFactor) -> bool:
    """Whether the block's covariance matrix lost rank at the null fit."""
    position = [f.name for f in null.design.factors].index(name)
    left = null.design.factors[position].coefficients
    here = [left.index(factor.coefficients[c]) for c in block if factor.coefficients[c] in left]
    return bool((np.diagonal(null.theta[position])[here] == 0).any())
