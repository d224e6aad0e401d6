"""The marginal covariance matrices that a random-effects structure allows on a design: a convex cone.

V is linear in the parameters of most structures, V = sum of theta_j D_j, and the parameters run over a product of
cones: covariance matrices (q x q), and pairs of a variance and a covariance of compound symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import DesignError
from hierlmm.spec.residual import CompoundSymmetry, Independent, Stratified, Unstructured

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]

# Pairs of rows that share a level, above which the matrices are too large to compare.
MOST_PAIRS = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """A condition on the parameters: the symmetric matrix sum of theta_j parts_j (r, r) has no negative eigenvalue."""

    parts: Array

    @property
    def is_scalar(self) -> bool:
        """Whether it is one inequality, linear in the parameters."""
        return bool(self.parts.shape[1] == 1)

    def least(self, theta: Array) -> float:
        """Smallest eigenvalue at parameters (k,)."""
        return float(np.linalg.eigvalsh(np.tensordot(theta, self.parts, axes=1))[0])


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """The cone of covariance matrices of a design.

    names  (k,) parameters; directions (k,) sparse (n, n) what each multiplies
    limits of the cone; rays  (r, k) extreme rays of the parts with finitely many; families  index matrices (q, q) of
           the parameters of general covariance matrices with q > 1, whose extreme rays are all u u'
    """

    names: tuple[str, ...]
    directions: tuple[csr_array, ...]
    limits: tuple[Limit, ...]
    rays: Array
    families: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, design: LMMDesign) -> Law:
        """Raises DesignError where V is not linear in its parameters, or has too many entries."""
        return _Builder(design).law()


class _Builder:
    """Collects parameters block by block."""

    def __init__(self, design: LMMDesign) -> None:
        self.design = design
        self.names: list[str] = []
        self.directions: list[csr_array] = []
        self.blocks: list[tuple[str, list[int], int]] = []

    def law(self) -> Law:
        _check(self.design)
        for factor in self.design.factors:
            self._factor(factor)
        self._residual()
        k = len(self.names)
        limits, rays, families = [], [], []
        for kind, indices, q in self.blocks:
            if kind == "cs":
                v, c = np.eye(k)[indices]
                limits += [Limit((v - c)[:, None, None]), Limit((v + (q - 1) * c)[:, None, None])]
                rays += [v + c, v - c / (q - 1)]
                continue
            where = _symmetric(indices, q)
            parts = np.stack([(where == j).astype(np.float64) for j in range(k)])
            limits.append(Limit(parts))
            if q == 1:
                rays.append(np.eye(k)[indices[0]])
            else:
                families.append(where)
        return Law(
            tuple(self.names), tuple(self.directions), tuple(limits), np.array(rays).reshape(-1, k), tuple(families)
        )

    def _add(self, name: str, direction: csr_array) -> int:
        self.names.append(name)
        self.directions.append(direction)
        return len(self.names) - 1

    def _factor(self, factor: GroupingFactor) -> None:
        columns = [_by_level(factor.codes, z, len(factor.levels)) for z in factor.Z.T]
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            names = [factor.coefficients[a] for a in block]
            own = [columns[a] for a in block]
            if structure == "general":
                self._general(own, names, factor.name)
                continue
            equal = sum((z @ z.T for z in own[1:]), own[0] @ own[0].T)
            found = [self._add(f"Var({_shared(names)} | {factor.name})", equal)]
            if structure == "cs":
                total = sum(own[1:], own[0])
                found.append(self._add(f"Cov({_shared(names)} | {factor.name})", total @ total.T - equal))
            self.blocks.append(("cs" if structure == "cs" else "psd", found, len(block) if structure == "cs" else 1))

    def _general(self, columns: list[csr_array], names: list[str], group: str) -> None:
        found = []
        for j, second in enumerate(columns):
            for i, first in enumerate(columns[: j + 1]):
                if i == j:
                    label = group if names == ["Intercept"] else f"{names[i]} | {group}"
                    found.append(self._add(f"Var({label})", first @ first.T))
                else:
                    cross = first @ second.T
                    found.append(self._add(f"Cov({names[i]}, {names[j]} | {group})", cross + cross.T))
        self.blocks.append(("psd", found, len(columns)))

    def _residual(self) -> None:
        kind, rows, n = self.design.spec.residual, self.design.residual, self.design.rows
        scale = np.ones(n) if self.design.scale is None else np.sqrt(self.design.scale)
        every = np.arange(n)
        if rows is None:
            self.blocks.append(("psd", [self._add("Var(Residual)", _own(every, scale))], 1))
        elif isinstance(kind, Stratified):
            for s, label in enumerate(rows.occasions):
                own = _own(every, scale * (rows.occasion == s))
                self.blocks.append(("psd", [self._add(f"Var(Residual | {label})", own)], 1))
        elif isinstance(kind, CompoundSymmetry):
            own, group = _own(every, scale), _by_level(rows.codes, scale, len(rows.levels))
            found = [self._add("Var(Residual)", own), self._add(f"Cov(Residual | {kind.group})", group @ group.T - own)]
            self.blocks.append(("cs", found, int(np.bincount(rows.codes).max())))
        else:
            indicators = [
                _by_level(rows.codes, scale * (rows.occasion == t), len(rows.levels))
                for t in range(len(rows.occasions))
            ]
            self._general(indicators, [str(label) for label in rows.occasions], f"Residual of {rows.group}")


def _check(design: LMMDesign) -> None:
    kind = design.spec.residual
    if not isinstance(kind, Independent | Stratified | CompoundSymmetry | Unstructured):
        raise DesignError(
            "Marginal laws are compared where V is linear in its parameters: independent, stratified, compound "
            f"symmetric or unstructured residuals; found {kind}. Compare such fits by their fitted covariances."
        )
    if design.streamed is not None:
        raise DesignError("Marginal laws need the rows; these passed in a stream. Give the data as one table.")
    if design.frequency is not None:
        raise DesignError("Marginal laws are of single rows; the model has frequency weights. Repeat the rows instead.")
    pairs = sum(float((np.bincount(factor.codes) ** 2.0).sum()) for factor in design.factors)
    if pairs > MOST_PAIRS:
        raise DesignError(
            f"Marginal laws compare every two rows that share a level, at most {MOST_PAIRS} pairs; found {pairs:.0f}. "
            "Compare the structures on a part of the groups: the answer is the same."
        )


def entries(laws: tuple[Law, Law]) -> Iterator[Array]:
    """Per law (pairs, k) what its parameters multiply in the entries of V that are not zero throughout; equal rows of
    both once, weighted by the root of their number."""
    from scipy.sparse import triu

    every = [triu(direction, format="csr") for law in laws for direction in law.directions]
    occupied = sum((abs(direction) for direction in every[1:]), abs(every[0])).tocoo()
    values = np.column_stack([np.asarray(direction[occupied.row, occupied.col]).ravel() for direction in every])
    found, number = np.unique(values, axis=0, return_counts=True)
    weighted = found * np.sqrt(number)[:, None]
    k = len(laws[0].names)
    yield from (weighted[:, :k], weighted[:, k:])


def _symmetric(indices: list[int], q: int) -> NDArray[np.intp]:
    """(q, q) which parameter stands where, from the upper triangle column by column."""
    out = np.empty((q, q), dtype=np.intp)
    place = iter(indices)
    for j in range(q):
        for i in range(j + 1):
            out[i, j] = out[j, i] = next(place)
    return out


def _by_level(codes: NDArray[np.intp], values: Array, levels: int) -> csr_array:
    from scipy.sparse import csr_array

    n = len(codes)
    found = csr_array((np.asarray(values, dtype=np.float64), (np.arange(n), codes)), shape=(n, levels))
    found.eliminate_zeros()
    return found


def _own(every: NDArray[np.intp], scale: Array) -> csr_array:
    return _by_level(every, scale**2, len(every))


def _shared(names: list[str]) -> str:
    first, bracket, _ = names[0].partition("[")
    return first if bracket and all(name.startswith(first + bracket) for name in names) else "+".join(names)
