"""Directions in which the variance parameters of a fit move: tangents of the relative covariance T of each factor.

V = sigma² (Z T Z' + R). A direction r is a symmetric (q, q) matrix S_r of one factor, V_r = sigma² Z (I ⊗ S_r) Z', and
the first of all is V itself (sigma² with T held). What Kenward and Roger's and Satterthwaite's formulas give does not
depend on the linear parametrisation, so that a basis is chosen for convenience: elements e e' with e a unit vector, or
the sum of two, which are positive semi-definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """k directions beside V itself, working scale.

    factor     (k,) position of the factor in elimination order
    S          (k,) symmetric matrices (q, q)
    roots      (k,) for a direction on the boundary, where T = U U' has less than full rank, the matrix E of
               S = E U' + U E'; None where T moves along a straight line
    bases      (factors,) T's factor U (q, q) at the fit
    held       positions (factor, block) whose covariance matrix is singular, so that part of it is held
    """

    factor: tuple[int, ...]
    S: tuple[Array, ...]
    roots: tuple[Array | None, ...]
    bases: tuple[Array, ...]
    held: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.factor)


def linear_directions(cp: CrossProducts, factors: Sequence[Array]) -> Directions:
    """Every element of the covariance matrices, whether the fit lies on the boundary or not."""
    factor, S = list[int](), list[Array]()
    for f, (blocks, structures) in enumerate(zip(cp.blocks, cp.structures, strict=True)):
        for block, structure in zip(blocks, structures, strict=True):
            own = _elements(cp.sizes[f][1], block, structure)
            factor += [f] * len(own)
            S += own
    return Directions(tuple(factor), tuple(S), (None,) * len(S), tuple(factors))


def free_directions(cp: CrossProducts, factors: Sequence[Array]) -> Directions:
    """What can move without leaving the boundary that the fit lies on: all of T where it has full rank.

    An unstructured block of rank r moves among the matrices of rank r; a variance, or an eigenvalue of a compound
    symmetric block, that is zero is held there. Of a block of rank above 1 the directions are redundant (rotations).
    """
    factor, S, roots, bases = list[int](), list[Array](), list[Array | None](), list[Array]()
    held = list[tuple[int, int]]()
    for f, (blocks, structures, Lambda) in enumerate(zip(cp.blocks, cp.structures, factors, strict=True)):
        base = Lambda.copy()
        for number, (block, structure) in enumerate(zip(blocks, structures, strict=True)):
            here = np.ix_(block, block)
            if structure == "general" and np.linalg.matrix_rank(Lambda[here]) < len(block):
                U = _thin(Lambda[here])
                base[here] = 0.0
                base[np.ix_(block, block[: U.shape[1]])] = U
                moves = _columns(len(base), block, U.shape[1])
                own = [E @ base.T + base @ E.T for E in moves]
                roots += moves
                held.append((f, number))
            else:
                every = _elements(len(base), block, structure)
                own = [E for E in every if structure == "general" or np.abs(E @ Lambda).max() > 0]
                roots += [None] * len(own)
                held += [(f, number)] if len(own) < len(every) else []
            factor += [f] * len(own)
            S += own
        bases.append(base)
    return Directions(tuple(factor), tuple(S), tuple(roots), tuple(bases), tuple(held))


def curvature(directions: Directions, G_T: Sequence[Array]) -> Array:
    """(k, k) <G_T, d²T>: what the bend of the boundary adds to the Hessian of the criterion, G_T its slope in T."""
    k = len(directions)
    out = np.zeros((k, k))
    for i, (f, E) in enumerate(zip(directions.factor, directions.roots, strict=True)):
        for j, (g, F) in enumerate(zip(directions.factor[: i + 1], directions.roots[: i + 1], strict=True)):
            if E is not None and F is not None and f == g:
                out[i, j] = out[j, i] = 2 * float((G_T[f] * (E @ F.T)).sum())
    return out


def moved(directions: Directions, r: int, step: float) -> tuple[Array, ...]:
    """The factors with T moved by `step` in direction r."""
    f, E = directions.factor[r], directions.roots[r]
    base = directions.bases[f]
    changed = base + step * E if E is not None else _root(base @ base.T + step * directions.S[r])
    return tuple(changed if g == f else other for g, other in enumerate(directions.bases))


def reach(directions: Directions, r: int) -> float:
    """How far T can go against direction r before a variance vanishes; 0 where it lies there already."""
    base, S = directions.bases[directions.factor[r]], directions.S[r]
    if (E := directions.roots[r]) is not None:
        return float(np.abs(base).max() / np.abs(E).max())
    values, vectors = np.linalg.eigh(base @ base.T)
    ranged = values > 1e-12 * max(float(values[-1]), 1e-300)
    outside = vectors[:, ~ranged]
    if float(np.abs(outside.T @ S @ outside).max(initial=0.0)) > 1e-12 * float(np.abs(S).max()):
        return 0.0
    half = vectors[:, ranged] / np.sqrt(values[ranged])
    return float(1.0 / np.linalg.eigvalsh(half.T @ S @ half)[-1])


def _elements(q: int, block: Sequence[int], structure: str) -> list[Array]:
    """(q, q) positive semi-definite matrices that span the covariance matrices of a block."""
    size = len(block)
    if structure == "identity":
        inner = [np.eye(size)]
    elif structure == "cs":
        inner = [np.eye(size) - 1.0 / size, np.full((size, size), 1.0 / size)]
    else:
        unit = np.eye(size)
        vectors = [*unit, *(unit[a] + unit[b] for a, b in combinations(range(size), 2))]
        inner = [np.outer(v, v) for v in vectors]
    out = []
    for matrix in inner:
        whole = np.zeros((q, q))
        whole[np.ix_(block, block)] = matrix
        out.append(whole)
    return out


def _thin(Lambda: Array) -> Array:
    """(size, rank) U with U U' = Lambda Lambda'."""
    U, s, _ = np.linalg.svd(Lambda)
    rank = int(np.linalg.matrix_rank(Lambda))
    return np.asarray(U[:, :rank] * s[:rank])


def _columns(q: int, block: Sequence[int], rank: int) -> list[Array]:
    """Each element of the first `rank` columns of a block of U, as a (q, q) matrix of one entry."""
    out = []
    for a in block:
        for j in block[:rank]:
            E = np.zeros((q, q))
            E[a, j] = 1.0
            out.append(E)
    return out


def _root(T: Array) -> Array:
    """A (q, q) factor of a positive semi-definite T."""
    values, vectors = np.linalg.eigh(T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
