"""The directions in which the covariance parameters move the covariance matrix of y, and their inner products.

V is linear in the covariance matrices of the random effects, V = R + Σ G[a,b] S_ab with S_ab = Σ_levels (z_a z_b' +
z_b z_a'), and R moves in the directions of its own parameters. The inner products of these matrices need only the
per-level cross-products of Z and, for correlated residuals, the pairs of rows within a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.rank import moderate
from hierlmm.design.residual import ResidualRows
from hierlmm.design.residual_directions import Pairs, pair_directions
from hierlmm.design.types import GroupingFactor
from hierlmm.design.weights import RowWeights
from hierlmm.spec.residual import Correlated, KnownVariances, Residual

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Codes = NDArray[np.intp]

# Pairs of rows times directions of the residuals that are looked at: seconds of work. Beyond, what cannot be told
# apart is left to the certificate of the fit.
MOST = 300_000_000


@dataclass(frozen=True, slots=True)
class Residuals:
    """What is assumed of the residuals of n rows, and what the rows count for."""

    structure: Residual
    rows: ResidualRows | None
    weights: RowWeights


def inner_products(factors: tuple[GroupingFactor, ...], residuals: Residuals) -> tuple[list[str], Matrix]:
    """Names of the parameters of the residuals, then of the random effects, and the Gram matrix of their directions."""
    n = len(factors[0].codes)
    count = residuals.weights.frequency
    Z = [working(factor) for factor in factors]
    pairs = [entries_of(factor) for factor in factors]
    names, RR, RS = _residual_part(residuals, factors, Z, pairs, n)
    starts = np.cumsum([0, *map(len, pairs)])
    gram = np.empty((starts[-1], starts[-1]))
    for f, factor in enumerate(factors):
        here = slice(starts[f], starts[f + 1])
        gram[here, here] = products(_sums(factor.codes, len(factor.levels), Z[f], Z[f], count), pairs[f], pairs[f])
        for g in range(f):
            there = slice(starts[g], starts[g + 1])
            cells, found = pd.factorize(factors[g].codes * len(factor.levels) + factor.codes)
            gram[there, here] = products(_sums(cells, len(found), Z[g], Z[f], count), pairs[g], pairs[f])
            gram[here, there] = gram[there, here].T
    random, T = parameters(factors, pairs)
    cross = RS @ T.T
    return names + random, np.block([[RR, cross], [cross.T, T @ gram @ T.T]])


def working(factor: GroupingFactor) -> Matrix:
    """Columns of Z of unit length, general blocks centred where they have an intercept: an equivalent parametrisation.

    Blocks of one variance keep the proportions of their columns.
    """
    Z = np.array(moderate(factor.Z)[0])
    for block, structure in zip(factor.blocks, factor.structures, strict=True):
        columns = list(block)
        if structure != "general":
            Z[:, columns] /= np.sqrt((Z[:, columns] ** 2).mean())
            continue
        if any(factor.coefficients[c] == "Intercept" for c in block):
            for c in block:
                if factor.coefficients[c] != "Intercept":
                    Z[:, c] -= Z[0, c] + (Z[:, c] - Z[0, c]).mean()
        Z[:, columns] /= np.sqrt((Z[:, columns] ** 2).mean(axis=0))
    return Z


def entries_of(factor: GroupingFactor) -> list[tuple[int, int]]:
    """Entries of the covariance matrices of a factor's blocks, upper triangles."""
    return [(a, b) for block in factor.blocks for i, a in enumerate(block) for b in block[i:]]


def parameters(factors: tuple[GroupingFactor, ...], pairs: list[list[tuple[int, int]]]) -> tuple[list[str], Matrix]:
    """Names of the parameters of the random effects, and (parameters, entries) which entries each one moves."""
    names: list[str] = []
    rows: list[Vector] = []
    start, total = 0, sum(map(len, pairs))
    for factor, entries in zip(factors, pairs, strict=True):
        place = {entry: start + k for k, entry in enumerate(entries)}
        start += len(entries)
        for name, moved in _moved(factor):
            row = np.zeros(total)
            row[[place[entry] for entry in moved]] = 1.0
            names.append(name)
            rows.append(row)
    return names, np.array(rows).reshape(len(rows), total)


def _moved(factor: GroupingFactor) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Each parameter of a factor with the entries of the covariance matrix that it moves."""
    for block, structure in zip(factor.blocks, factor.structures, strict=True):
        variances = [(a, a) for a in block]
        covariances = [(a, b) for i, a in enumerate(block) for b in block[i + 1 :]]
        if structure == "general":
            yield from ((_entry(factor, a, b), [(a, b)]) for a, b in _upper(block))
            continue
        shown = ", ".join(factor.coefficients[c] for c in block)
        yield f"the variance of {shown} over {factor.name}", variances
        if structure == "cs":
            yield f"the correlation of {shown} over {factor.name}", covariances


def _upper(block: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(a, b) for i, a in enumerate(block) for b in block[i:]]


def _entry(factor: GroupingFactor, a: int, b: int) -> str:
    if a == b:
        return f"the variance of {factor.coefficients[a]} over {factor.name}"
    return f"the covariance of {factor.coefficients[a]} and {factor.coefficients[b]} over {factor.name}"


def _sums(codes: Codes, G: int, Z: Matrix, W: Matrix, count: Vector | None) -> Matrix:
    """(q, r, G) sums of z w' over the rows of each level, each row as often as it counts."""
    out = np.empty((Z.shape[1], W.shape[1], G))
    for a in range(Z.shape[1]):
        z = Z[:, a] if count is None else Z[:, a] * count
        for c in range(W.shape[1]):
            out[a, c] = out[c, a] if Z is W and c < a else np.bincount(codes, z * W[:, c], G)
    return out


def products(C: Matrix, first: list[tuple[int, int]], second: list[tuple[int, int]]) -> Matrix:
    """⟨S_ab, S_cd⟩ = 2 Σ (C_ac C_bd + C_ad C_bc) for the pairs of two factors."""
    found = [[2 * (C[a, c] @ C[b, d] + C[a, d] @ C[b, c]) for c, d in second] for a, b in first]
    return np.array(found).reshape(len(first), len(second))


def _residual_part(
    residuals: Residuals,
    factors: tuple[GroupingFactor, ...],
    Z: list[Matrix],
    pairs: list[list[tuple[int, int]]],
    n: int,
) -> tuple[list[str], Matrix, Matrix]:
    """Names of the residuals' parameters, their inner products, and those with every entry S_ab."""
    entries = sum(map(len, pairs))
    if isinstance(residuals.structure, KnownVariances):
        return [], np.empty((0, 0)), np.empty((0, entries))
    rows, scale = residuals.rows, residuals.weights.scale
    v = np.ones(n) if scale is None else scale / scale.mean()
    if rows is None or not rows.group:
        return _diagonal(rows, residuals.weights.frequency, v, Z, pairs)
    assert isinstance(residuals.structure, Correlated)
    names, directions = pair_directions(residuals.structure, rows)
    if int((np.bincount(rows.codes).astype(float) ** 2).sum()) * len(names) > MOST:
        return [], np.empty((0, 0)), np.empty((0, entries))
    RR, RS = np.zeros((len(names), len(names))), np.zeros((len(names), entries))
    for i, j in _rows_of_groups(rows.codes):
        D = directions(Pairs.of(rows, i, j)) * np.sqrt(v[i] * v[j])
        both = 1.0 if i is j else 2.0
        RR += both * D @ D.T
        RS += both * D @ _same_level(factors, Z, pairs, i, j)
    return names, RR, RS


def _diagonal(
    rows: ResidualRows | None, count: Vector | None, v: Vector, Z: list[Matrix], pairs: list[list[tuple[int, int]]]
) -> tuple[list[str], Matrix, Matrix]:
    """Independent residuals of one variance, or of one for each stratum."""
    names = ["the residual variance"]
    counted = v if count is None else v * count
    if rows is None:
        both = [2 * float((counted * z[:, a]) @ z[:, b]) for z, own in zip(Z, pairs, strict=True) for a, b in own]
        return names, np.array([[float(counted @ v)]]), np.array([both])
    names = [f"the residual variance of {label}" for label in rows.occasions]
    stratum = rows.occasion
    sums = np.array(
        [
            np.bincount(stratum, 2 * counted * z[:, a] * z[:, b], len(names))
            for z, entries in zip(Z, pairs, strict=True)
            for a, b in entries
        ],
        dtype=np.float64,
    )
    return names, np.diag(np.bincount(stratum, counted * v, len(names))), sums.T


def _rows_of_groups(codes: Codes) -> Iterator[tuple[Codes, Codes]]:
    """Every row with itself, then the pairs of different rows of one group, each once."""
    every = np.arange(len(codes))
    yield every, every
    order = np.argsort(codes, kind="stable")
    for step in range(1, int(np.bincount(codes).max())):
        same = codes[order[step:]] == codes[order[:-step]]
        yield order[:-step][same], order[step:][same]


def _same_level(
    factors: tuple[GroupingFactor, ...], Z: list[Matrix], pairs: list[list[tuple[int, int]]], i: Codes, j: Codes
) -> Matrix:
    """(pairs, entries) the entry of each S_ab in row i and column j: zero where the rows are of different levels."""
    columns = [
        (factor.codes[i] == factor.codes[j]) * (z[i, a] * z[j, b] + z[i, b] * z[j, a])
        for factor, z, entries in zip(factors, Z, pairs, strict=True)
        for a, b in entries
    ]
    return np.array(columns).T
