"""Whether the model of one fit is a special case of another's: fixed part, random effects, residual structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.frequentist.inference.compare_models_residuals import Boundary, absorbed, residual_nested

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
# A grouping factor and some of its coefficients; None: all.
_Group = tuple[str, tuple[str, ...] | None]

# Share of a column's length outside the span of others below which it lies in it.
OUTSIDE = 1e-9
# Structures of a block of random effects from the special to the general.
GENERALITY = {"identity": 0, "cs": 1, "general": 2}


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


def same_weights(small: LMMDesign, large: LMMDesign) -> bool:
    """Whether rows count alike and known variances agree."""
    if small.streamed is not None or large.streamed is not None:
        alike = small.fingerprint.variances == large.fingerprint.variances
        return alike and type(small.spec.weights) is type(large.spec.weights)
    return equal_or_one(small.frequency, large.frequency) and equal_or_one(small.scale, large.scale)


def equal_or_one(a: Array | None, b: Array | None) -> bool:
    """Whether weights of the same rows agree; None: all of them 1."""
    if a is None or b is None:
        other = b if a is None else a
        return other is None or bool((other == 1).all())
    return np.array_equal(a, b)


def nesting(small: LMMFit, large: LMMFit) -> Boundary | None:
    """What vanishes in the smaller model at a boundary; None where it is not known to be a special case."""
    if not fixed_nested(small.design, large.design) or not same_weights(small.design, large.design):
        return None
    random, residual = random_nested(small, large), residual_nested(small, large)
    if random is None or residual is None:
        return None
    if random.kind == "none" or residual.kind == "none":
        return residual if random.kind == "none" else random
    return Boundary("several")


def obstacles(small: LMMFit, large: LMMFit) -> list[str]:
    """What of the smaller model is not known to be part of the larger one."""
    out = list[str]()
    if not fixed_nested(small.design, large.design):
        outside = [
            name for i, name in enumerate(small.design.fixed) if not _spanned(small.design.X[:, [i]], large.design.X)
        ]
        out += outside or ["offset"]
    if not same_weights(small.design, large.design):
        out.append("weights")
    known = {factor.name for factor in large.design.factors}
    for factor in small.design.factors:
        if not all(_held(factor, *pair, small, large) for pair in zip(factor.blocks, factor.structures, strict=True)):
            out.append(f"random {'coefficients' if factor.name in known else 'effects'} of {factor.name}")
    if residual_nested(small, large) is None:
        out.append(f"residual structure {type(small.spec.residual).__name__}")
    return out


def random_nested(small: LMMFit, large: LMMFit) -> Boundary | None:
    """What of the random effects vanishes in the smaller model; None where it is not a special case."""
    used = dict[tuple[int, int], list[tuple[GroupingFactor, tuple[int, ...]]]]()
    for factor in small.design.factors:
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            place = _place(factor, block, structure, large.design)
            if place is not None:
                used.setdefault(place, []).append((factor, block))
            elif not absorbed(factor, block, small, large):
                return None
    variances, covariances, freed, vanished = 0, 0, 0, list[tuple[str, tuple[str, ...]]]()
    for f, factor in enumerate(large.design.factors):
        for number, (block, structure) in enumerate(zip(factor.blocks, factor.structures, strict=True)):
            held = used.get((f, number), [])
            added = len(block) - sum(len(own) for _, own in held)
            if held and (structure != "general" or not added):
                # covariances between the held blocks are inside their range
                continue
            variances += added if structure == "general" else 1 + (structure == "cs")
            covariances = len(block) - 1 if structure == "general" else 0
            variances += len(held) > 1  # and the covariances between the held blocks: no simple mixture
            before = {own.coefficients[c] for own, columns in held for c in columns}
            names = tuple(factor.coefficients[c] for c in block if factor.coefficients[c] not in before)
            vanished.append((factor.name, names if len(names) == added and structure != "cs" else ()))
            freed += added * (2 * len(block) - added + 1) // 2 if structure == "general" else 1
    if variances == 0:
        return Boundary("none")
    if variances == 1:
        return Boundary("one", covariances)
    alone = freed == large.n_parameters - small.n_parameters
    return Boundary("several", tested=_by_group(vanished, large.design) if alone else ())


def _by_group(vanished: list[tuple[str, tuple[str, ...]]], design: LMMDesign) -> tuple[_Group, ...]:
    """Coefficients that vanish, by group; empty where they are named otherwise in the smaller model, or where no
    single test has them: some of several groups."""
    if not all(names for _, names in vanished):
        return ()
    out = list[_Group]()
    for factor in design.factors:
        names = [name for group, own in vanished if group == factor.name for name in own]
        if names:
            out.append((factor.name, None if len(names) == len(factor.coefficients) else tuple(names)))
    return tuple(out) if len(out) == 1 or all(names is None for _, names in out) else ()


def _held(factor: GroupingFactor, block: tuple[int, ...], structure: str, small: LMMFit, large: LMMFit) -> bool:
    return _place(factor, block, structure, large.design) is not None or absorbed(factor, block, small, large)


def _place(factor: GroupingFactor, block: tuple[int, ...], structure: str, large: LMMDesign) -> tuple[int, int] | None:
    """Factor and block of the larger model that hold a block of the smaller one."""
    for f, other in enumerate(large.factors):
        if other.name != factor.name or not np.array_equal(other.codes, factor.codes):
            continue
        for number, (wide, kind) in enumerate(zip(other.blocks, other.structures, strict=True)):
            inside = _inside(factor, block, other, wide)
            if kind == "general" and inside and structure == "general":
                return f, number
            if not inside or len(wide) != len(block):
                continue
            special = GENERALITY[kind] >= GENERALITY[structure] and (kind == "general" or _alike(factor, other))
            if special or len(block) == 1:
                return f, number
    return None


def _inside(factor: GroupingFactor, block: tuple[int, ...], other: GroupingFactor, wide: tuple[int, ...]) -> bool:
    names, wider = [factor.coefficients[c] for c in block], [other.coefficients[c] for c in wide]
    if not len(factor.Z):
        return set(names) <= set(wider)
    return _spanned(factor.Z[:, block], other.Z[:, wide])


def _alike(factor: GroupingFactor, other: GroupingFactor) -> bool:
    """Whether columns in the same span are the same ones: one variance or correlation depends on their coding."""
    return set(factor.coefficients) == set(other.coefficients)


def _spanned(columns: Array, span: Array) -> bool:
    """Whether the columns (n, k) lie in the span of others (n, m)."""
    size = np.linalg.norm(columns, axis=0)
    if not span.shape[1]:
        return bool((size == 0).all())
    units = np.linalg.norm(span, axis=0)
    Q = np.linalg.qr(span / np.where(units > 0, units, 1.0))[0]
    away = columns - Q @ (Q.T @ columns)
    return bool((np.linalg.norm(away, axis=0) <= OUTSIDE * size).all())
