"""Whether these rows can tell the variance components apart at all, whatever the responses are.

The covariance of y is linear in its parameters, V = σ²I + Σ G[a,b] S_ab with S_ab = Σ_levels (z_a z_b' + z_b z_a'), so
the parameters are determined by V exactly when these matrices are linearly independent (Demidenko 2013, Mixed Models,
sec. 3.2). Their inner products need only the per-level cross-products of Z.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.rank import independent, moderate
from hierlmm.design.types import GroupingFactor
from hierlmm.errors import DesignError, listed

Matrix = NDArray[np.float64]

# Squared sine of the angle between one S_ab and those before it below which they are one. Rounding makes it about
# 1e-14; n rows of which two share a level make it 2 / n.
INDISTINCT = 1e-11

# Length of a column of Z, relative to its own, that X leaves over, below which X contains it.
CONTAINED = 1e-8


def check_factors(factors: tuple[GroupingFactor, ...], X: Matrix) -> None:
    """Raise DesignError for grouping factors of one level or contained in X, and for components that are confounded."""
    for factor in factors:
        if len(factor.levels) == 1:
            raise DesignError(
                "A grouping factor must have at least 2 levels, or its variance is not identified; "
                f"{factor.name} has the single level {factor.levels[0]}. Leave its terms out of the model."
            )
        _check_not_in_fixed(factor, X)
    if factors:
        _check_distinct_components(factors, X)


def _check_not_in_fixed(factor: GroupingFactor, X: Matrix) -> None:
    """X contains a factor only where it has at least as many columns as the factor levels."""
    n, p = X.shape
    G = len(factor.levels)
    if p < G or n * G > 10_000_000:
        return
    size = np.sqrt((X**2).sum(axis=0))
    Q = np.linalg.qr(X / size)[0]
    for name, z in zip(factor.coefficients, factor.Z.T, strict=True):
        dense = np.zeros((n, G))
        dense[np.arange(n), factor.codes] = z
        left = dense - Q @ (Q.T @ dense)
        if np.abs(left).max() <= CONTAINED * np.abs(z).max():
            raise DesignError(
                "A random effect must not be contained in the fixed part; the fixed effects already give every level "
                f"of {factor.name} its own {name}. Leave out the one or the other."
            )


def _check_distinct_components(factors: tuple[GroupingFactor, ...], X: Matrix) -> None:
    names, gram = _inner_products(factors)
    n, p = X.shape
    free = (n - p) * (n - p + 1) // 2
    if len(names) > free:
        raise DesignError(
            f"There must be rows enough for the variance components; {n} rows less {p} fixed effects determine at "
            f"most {free}, and the model has {len(names)}. Use fewer terms."
        )
    size = np.sqrt(np.diagonal(gram))
    gram = gram / np.outer(size, size)
    if _pivots_exceed(gram, INDISTINCT):
        return
    for j in range(1, len(names)):
        weights = np.linalg.lstsq(gram[:j, :j], gram[:j, j], rcond=None)[0]
        if gram[j, j] - weights @ gram[:j, j] < INDISTINCT:
            others = [name for name, weight in zip(names, weights, strict=False) if abs(weight) > np.sqrt(INDISTINCT)]
            raise DesignError(
                f"The rows must tell the variance components apart; here {names[j]} cannot be told from "
                f"{listed(others)}, whatever the responses are: {_why(factors, names[j])}"
            )


def _pivots_exceed(gram: Matrix, least: float) -> bool:
    """Whether a matrix is positive definite with all squared Cholesky pivots above `least`."""
    try:
        return bool((np.diagonal(np.linalg.cholesky(gram)) ** 2 > least).all())
    except np.linalg.LinAlgError:
        return False


def _why(factors: tuple[GroupingFactor, ...], name: str) -> str:
    for factor in factors:
        if len(factor.levels) == len(factor.codes):
            return f"every row is a level of {factor.name} of its own. Use a factor with several rows a level."
    for first, second in combinations(factors, 2):
        pairs = len(np.unique(first.codes * len(second.levels) + second.codes))
        if pairs == len(first.levels) == len(second.levels):
            return f"{first.name} and {second.name} are the same groups under two names. Leave one out."
    for factor in factors:
        if len(factor.blocks) > 1 and not independent(factor.Z).all():
            return (
                f"the columns {listed(factor.coefficients)} of separate terms over {factor.name} are dependent, as "
                f"where a categorical x stands in (x || {factor.name}). Leave out the intercept, or code x as numbers."
            )
    return "too few different values within or between the levels. Simplify the random-effects term."


def _inner_products(factors: tuple[GroupingFactor, ...]) -> tuple[list[str], Matrix]:
    """Names of the residual variance and of every free entry of the covariance matrices, and their Gram matrix."""
    names = ["the residual variance"]
    pairs: list[list[tuple[int, int]]] = []
    for factor in factors:
        pairs.append([(a, b) for block in factor.blocks for i, a in enumerate(block) for b in block[i:]])
        names += [_entry(factor, a, b) for a, b in pairs[-1]]
    Z = [_working(factor) for factor in factors]
    starts = np.cumsum([1, *map(len, pairs)])
    gram = np.empty((len(names), len(names)))
    gram[0, 0] = len(factors[0].codes)
    for f, factor in enumerate(factors):
        here = slice(starts[f], starts[f + 1])
        C = _sums(factor.codes, len(factor.levels), Z[f], Z[f])
        gram[0, here] = gram[here, 0] = [2 * C[a, b].sum() for a, b in pairs[f]]
        gram[here, here] = _products(C, pairs[f], pairs[f])
        for g in range(f):
            there = slice(starts[g], starts[g + 1])
            cells, found = pd.factorize(factors[g].codes * len(factor.levels) + factor.codes)
            gram[there, here] = _products(_sums(cells, len(found), Z[g], Z[f]), pairs[g], pairs[f])
            gram[here, there] = gram[there, here].T
    return names, gram


def _entry(factor: GroupingFactor, a: int, b: int) -> str:
    if a == b:
        return f"the variance of {factor.coefficients[a]} over {factor.name}"
    return f"the covariance of {factor.coefficients[a]} and {factor.coefficients[b]} over {factor.name}"


def _working(factor: GroupingFactor) -> Matrix:
    """Columns of Z of unit length, centred where their block has an intercept: an equivalent parametrisation."""
    Z = np.array(moderate(factor.Z)[0])
    for block in factor.blocks:
        if any(factor.coefficients[c] == "Intercept" for c in block):
            for c in block:
                if factor.coefficients[c] != "Intercept":
                    Z[:, c] -= Z[0, c] + (Z[:, c] - Z[0, c]).mean()
    scaled: Matrix = Z / np.sqrt((Z**2).mean(axis=0))
    return scaled


def _sums(codes: NDArray[np.intp], G: int, Z: Matrix, W: Matrix) -> Matrix:
    """(q, r, G) sums of z w' over the rows of each level."""
    out = np.empty((Z.shape[1], W.shape[1], G))
    for a in range(Z.shape[1]):
        for c in range(W.shape[1]):
            out[a, c] = out[c, a] if Z is W and c < a else np.bincount(codes, Z[:, a] * W[:, c], G)
    return out


def _products(C: Matrix, first: list[tuple[int, int]], second: list[tuple[int, int]]) -> Matrix:
    """⟨S_ab, S_cd⟩ = 2 Σ (C_ac C_bd + C_ad C_bc) for the pairs of two factors."""
    return np.array([[2 * (C[a, c] @ C[b, d] + C[a, d] @ C[b, c]) for c, d in second] for a, b in first])
