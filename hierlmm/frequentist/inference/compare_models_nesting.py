"""Whether the model of one fit is a special case of another's: fixed part, random effects, residual structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.spec import residual as kinds

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Share of a column's length outside the span of others below which it lies in it.
OUTSIDE = 1e-9
# Structures of a block of random effects from the special to the general.
GENERALITY = {"identity": 0, "cs": 1, "general": 2}

# Each residual structure and those that it is directly a special case of, with the same group and occasions.
WIDER: dict[str, tuple[str, ...]] = {
    "CompoundSymmetry": ("HeterogeneousCompoundSymmetry", "Toeplitz"),
    "HeterogeneousCompoundSymmetry": ("Unstructured",),
    "AR1": ("HeterogeneousAR1", "Toeplitz"),
    "HeterogeneousAR1": ("Antedependence",),
    "Antedependence": ("Unstructured",),
    "Toeplitz": ("Unstructured",),
}
# Those that have a variance for each occasion, so that variances by occasion are a special case of them.
BY_OCCASION = {"HeterogeneousCompoundSymmetry", "HeterogeneousAR1", "Antedependence", "Unstructured"}


@dataclass(frozen=True, slots=True)
class Boundary:
    """What of the larger model's variances vanishes in the smaller one.

    kind  "none": parameters that vanish inside their range; "one": one variance with `covariances` covariances;
          "several": more than one variance
    """

    kind: Literal["none", "one", "several"]
    covariances: int = 0


def same_columns(small: LMMDesign, large: LMMDesign) -> bool:
    """Whether both fixed parts have the same columns, coded alike."""
    if small.streamed is not None or large.streamed is not None:
        return small.fixed == large.fixed
    if small.X.shape != large.X.shape:
        return False
    order = [large.fixed.index(name) if name in large.fixed else -1 for name in small.fixed]
    return -1 not in order and np.allclose(small.X, large.X[:, order], rtol=1e-12, atol=0.0)


def fixed_nested(small: LMMDesign, large: LMMDesign) -> bool:
    """Whether the columns of one X lie in the span of the other's, and the offsets agree."""
    if small.streamed is not None or large.streamed is not None:
        return set(small.fixed) <= set(large.fixed) and small.spec.offset == large.spec.offset
    away = np.column_stack([small.X, small.offset - large.offset])
    return _spanned(away, large.X)


def random_nested(small: LMMDesign, large: LMMDesign) -> Boundary | None:
    """What of the random effects vanishes in the smaller model; None where it is not a special case."""
    used = dict[tuple[int, int], list[tuple[int, ...]]]()
    for factor in small.factors:
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            place = _place(factor, block, structure, large)
            if place is None:
                return None
            used.setdefault(place, []).append(block)
    variances, covariances = 0, 0
    for f, factor in enumerate(large.factors):
        for number, (block, structure) in enumerate(zip(factor.blocks, factor.structures, strict=True)):
            held = used.get((f, number))
            if held is None:
                variances += len(block) if structure == "general" else 1 + (structure == "cs")
                covariances = len(block) - 1 if structure == "general" else 0
            elif structure == "general" and (added := len(block) - sum(map(len, held))):
                variances += added
                covariances = len(block) - 1
                variances += len(held) > 1  # and the covariances between the held blocks: no simple mixture
    if variances == 0:
        return Boundary("none")
    return Boundary("one", covariances) if variances == 1 else Boundary("several")


def residual_nested(small: LMMFit, large: LMMFit) -> Boundary | None:
    """What of the residual structure vanishes in the smaller model; None where it is not a special case."""
    a, b = small.spec.residual, large.spec.residual
    if a == b:
        return Boundary("none")
    if isinstance(a, kinds.ContinuousAR1) and isinstance(b, kinds.ContinuousAR1):
        alike = (a.group, a.time) == (b.group, b.time) and b.nugget
        return Boundary("one") if alike else None
    if isinstance(a, kinds.Independent):
        if isinstance(b, kinds.ContinuousAR1):  # correlation zero is the end of the range of a positive one
            return Boundary("several" if b.nugget else "one")
        return None if isinstance(b, kinds.KnownVariances) else Boundary("none")
    names, wider = _fields(a), _fields(b)
    if isinstance(a, kinds.Stratified):
        return Boundary("none") if type(b).__name__ in BY_OCCASION and wider[-1] == a.by else None
    if names != wider or type(b).__name__ not in _ancestors(type(a).__name__):
        return Boundary("none") if _occasions_nested(a, b) else None
    return Boundary("none")


def _occasions_nested(a: object, b: object) -> bool:
    """Compound symmetry asks for no occasions: it is a special case of structures of the same group that do."""
    alike = isinstance(a, kinds.CompoundSymmetry) and getattr(b, "group", None) == a.group
    return alike and type(b).__name__ in _ancestors("CompoundSymmetry")


def _fields(kind: object) -> tuple[object, ...]:
    return tuple(getattr(kind, name) for name in ("group", "occasion", "position", "time", "by") if hasattr(kind, name))


def _ancestors(name: str) -> set[str]:
    found = set[str]()
    for wider in WIDER.get(name, ()):
        found |= {wider} | _ancestors(wider)
    return found


def _place(factor: GroupingFactor, block: tuple[int, ...], structure: str, large: LMMDesign) -> tuple[int, int] | None:
    """Factor and block of the larger model that hold a block of the smaller one."""
    for f, other in enumerate(large.factors):
        if other.name != factor.name or not np.array_equal(other.codes, factor.codes):
            continue
        for number, (wide, kind) in enumerate(zip(other.blocks, other.structures, strict=True)):
            inside = _inside(factor, block, other, wide)
            if kind == "general" and inside and structure == "general":
                return f, number
            if inside and len(wide) == len(block) and GENERALITY[kind] >= GENERALITY[structure]:
                return f, number
    return None


def _inside(factor: GroupingFactor, block: tuple[int, ...], other: GroupingFactor, wide: tuple[int, ...]) -> bool:
    names, wider = [factor.coefficients[c] for c in block], [other.coefficients[c] for c in wide]
    if not len(factor.Z):
        return set(names) <= set(wider)
    return _spanned(factor.Z[:, block], other.Z[:, wide])


def _spanned(columns: Array, span: Array) -> bool:
    """Whether the columns (n, k) lie in the span of others (n, m)."""
    size = np.linalg.norm(columns, axis=0)
    if not span.shape[1]:
        return bool((size == 0).all())
    units = np.linalg.norm(span, axis=0)
    Q = np.linalg.qr(span / np.where(units > 0, units, 1.0))[0]
    away = columns - Q @ (Q.T @ columns)
    return bool((np.linalg.norm(away, axis=0) <= OUTSIDE * size).all())
