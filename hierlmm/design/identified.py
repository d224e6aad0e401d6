"""Whether these rows can tell the variance components apart at all, whatever the responses are.

The parameters of the covariance matrix of y are determined by it exactly when the directions in which they move it
are linearly independent (Demidenko 2013, Mixed Models, sec. 3.2): hierlmm.design.directions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.directions import Residuals, inner_products
from hierlmm.design.rank import independent
from hierlmm.design.types import GroupingFactor
from hierlmm.errors import DesignError, listed
from hierlmm.spec.residual import Correlated, KnownVariances

Matrix = NDArray[np.float64]

# Squared sine of the angle between one S_ab and those before it below which they are one. Rounding makes it about
# 1e-14; n rows of which two share a level make it 2 / n.
INDISTINCT = 1e-11

# Length of a column of Z, relative to its own, that X leaves over, below which X contains it.
CONTAINED = 1e-8


def check_factors(factors: tuple[GroupingFactor, ...], X: Matrix, residuals: Residuals) -> None:
    """Raise DesignError for grouping factors contained in X or, unless the residual variances are known, of one level,
    and for variance components that are confounded with each other or with parameters of the residuals."""
    known = isinstance(residuals.structure, KnownVariances)
    for factor in factors:
        if len(factor.levels) == 1 and not known:
            raise DesignError(
                "A grouping factor must have at least 2 levels, or its variance is not identified; "
                f"{factor.name} has the single level {factor.levels[0]}. Leave its terms out of the model."
            )
        _check_not_in_fixed(factor, X)
    if factors:
        _check_distinct_components(factors, X, residuals)


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


def _check_distinct_components(factors: tuple[GroupingFactor, ...], X: Matrix, residuals: Residuals) -> None:
    names, gram = inner_products(factors, residuals)
    check_directions(names, gram, residuals.weights.total(len(X)), X.shape[1], lambda: _why(factors, residuals))


def check_directions(names: list[str], gram: Matrix, n: int, p: int, why: Callable[[], str]) -> None:
    """Raise DesignError for variance components whose directions depend on each other; `why` says how that comes."""
    free = (n - p) * (n - p + 1) // 2
    if len(names) > free:
        raise DesignError(
            f"There must be rows enough for the variance components; {n} rows less {p} fixed effects determine at "
            f"most {free}, and the model has {len(names)}. Use fewer terms."
        )
    size = np.sqrt(np.diagonal(gram))
    if (nowhere := size == 0).any():
        absent = [name for name, missing in zip(names, nowhere, strict=True) if missing]
        raise DesignError(
            "The rows must tell the variance components apart; here no two rows depend on "
            f"{listed(absent)}: no level has rows of both. Give the coefficients a variance each, as in diag(0 + f | "
            "g), or leave the term out."
        )
    gram = gram / np.outer(size, size)
    if _pivots_exceed(gram, INDISTINCT):
        return
    for j in range(1, len(names)):
        weights = np.linalg.lstsq(gram[:j, :j], gram[:j, j], rcond=None)[0]
        if gram[j, j] - weights @ gram[:j, j] < INDISTINCT:
            others = [name for name, weight in zip(names, weights, strict=False) if abs(weight) > np.sqrt(INDISTINCT)]
            raise DesignError(
                f"The rows must tell the variance components apart; here {names[j]} cannot be told from "
                f"{listed(others)}, whatever the responses are: {why()}"
            )


def _pivots_exceed(gram: Matrix, least: float) -> bool:
    """Whether a matrix is positive definite with all squared Cholesky pivots above `least`."""
    try:
        return bool((np.diagonal(np.linalg.cholesky(gram)) ** 2 > least).all())
    except np.linalg.LinAlgError:
        return False


def _why(factors: tuple[GroupingFactor, ...], residuals: Residuals) -> str:
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
                f"where (0 + x | {factor.name}) of a categorical x stands beside (1 | {factor.name}). Leave out the "
                f"intercept, or write (x || {factor.name})."
            )
    if isinstance(residuals.structure, Correlated):
        kind = type(residuals.structure).__name__
        return f"{kind}(...) of the residuals has these covariances already. Leave out the one or the other."
    return "too few different values within or between the levels. Simplify the random-effects term."
