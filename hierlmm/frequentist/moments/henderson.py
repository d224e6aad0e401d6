"""Henderson's three methods (1953, Biometrics 9:226-252): sums of squares and what each expects.

Searle, Casella & McCulloch (1992, Variance Components, chapter 5). Every factor has random intercepts alone; factors
are in the order of the formula, `order` gives their positions among the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import DesignError, listed
from hierlmm.frequentist.moments.annihilator import RANK, Sums, residual_projection, within_groups

Array = NDArray[np.float64]

# Coefficient of an expected sum of squares, relative to the largest, below which it is zero.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class SquaresTable:
    """Sums of squares of k factors and the residual, and their expectations.

    squares  (k + 1,); df (k + 1,) degrees of freedom of their lines, sums of coefficients of no chi-squared in I, II
    coefficients  (k + 1, k + 1) of the components, the residual variance last, in the expected sums of squares
    """

    squares: Array
    df: Array
    coefficients: Array

    @property
    def estimates(self) -> Array:
        """(k + 1,) components at which the sums of squares equal their expectations."""
        return np.asarray(np.linalg.solve(self.coefficients, self.squares))


def sequential(sums: Sums, order: tuple[int, ...], names: tuple[str, ...]) -> SquaresTable:
    """Henderson III: each factor's reduction after X and the factors before it."""
    steps = [order[:i] for i in range(len(order) + 1)]
    return _reductions(sums, order, names, list(pairwise(steps)), "the factors before it")


def partial(sums: Sums, order: tuple[int, ...], names: tuple[str, ...]) -> SquaresTable:
    """Henderson III: each factor's reduction after X and all other factors."""
    pairs = [(tuple(f for f in order if f != own), order) for own in order]
    return _reductions(sums, order, names, pairs, "all others")


def _reductions(
    sums: Sums,
    order: tuple[int, ...],
    names: tuple[str, ...],
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]],
    after: str,
) -> SquaresTable:
    k = len(order)
    found = {key: residual_projection(sums, key) for key in {part for pair in pairs for part in pair}}
    traces = {
        key: np.array([0.0 if f in key else float(A.own(f)[0, 0]) for f in order]) for key, A in found.items()
    }  # fmt: skip
    squares, df, coefficients = np.empty(k + 1), np.empty(k + 1), np.zeros((k + 1, k + 1))
    for i, (fewer, more) in enumerate(pairs):
        squares[i] = found[fewer].square - found[more].square
        df[i] = coefficients[i, k] = found[fewer].rank - found[more].rank
        coefficients[i, :k] = traces[fewer] - traces[more]
    squares[k] = found[order].square if order else residual_projection(sums, ()).square
    df[k] = coefficients[k, k] = found[order].rank
    if (none := df[:k] == 0).any():
        empty = [name for name, absent in zip(names, none, strict=True) if absent]
        raise DesignError(
            f"Each factor needs degrees of freedom after {after}; {listed(empty)} has none. Where groups are nested "
            "use sums in order and name the outer groups first, as (1 | a/b) does."
        )
    _check_residual(df[k])
    return SquaresTable(squares, df, _without_rounding(coefficients))


def _check_residual(df: float) -> None:
    if df <= 0:
        raise DesignError(
            "Analysis of variance needs degrees of freedom for the residual; fixed effects and groups take all of "
            "them. Leave out a term, or use method='reml' or 'mivque0'."
        )


def uncorrected(sums: Sums, order: tuple[int, ...]) -> SquaresTable:
    """Henderson I: sums of squares of totals, as in balanced data, for y = mu + random effects.

    Raises DesignError where there are fixed effects besides the mean.
    """
    if sums.p != 1 or _intercept(sums) is None:
        raise DesignError(
            f"Henderson's method I is for random effects and a mean alone; the model has {sums.p} fixed effects. Its "
            "sums of squares are not free of them. Use method='henderson2' or 'henderson3'."
        )
    totals = np.array([*(_totals(sums, f) @ (_totals(sums, f) / _sizes(sums, f)) for f in order), sums.rest[-1, -1]])
    mean = _ones(sums)[-1] ** 2 / sums.n
    residual = np.array([*(sums.widths[f][0] for f in order), sums.n], dtype=np.float64)
    return _table(sums, order, totals - mean, residual - 1.0)


def adjusted(sums: Sums, order: tuple[int, ...], names: tuple[str, ...]) -> SquaresTable:
    """Henderson II: method I on y less fixed effects estimated with the random effects as fixed.

    Raises DesignError without an intercept, or where groups determine a fixed effect, as an interaction of groups
    with a fixed factor does.
    """
    ones = _intercept(sums)
    if ones is None:
        raise DesignError(
            "Henderson's method II needs an intercept, which the fixed part does not span. Use method='henderson3'."
        )
    X1 = less_the_mean(sums)
    within = within_groups(sums, order)
    U = sums.rest[sums.X, sums.X]
    A, whole = X1.T @ within.among(sums.X, sums.X) @ X1, X1.T @ U @ X1
    size = np.sqrt(np.diagonal(whole))
    if len(A) and np.linalg.eigvalsh(A / np.outer(size, size))[0] <= RANK:
        raise DesignError(
            "Henderson's method II estimates the fixed effects within the groups; here the groups of "
            f"{listed(names)} determine some of them: a predictor that is constant within groups, or an interaction "
            "of groups with a fixed factor. Use method='henderson3'."
        )
    C = np.linalg.solve(A, np.eye(len(A)))
    beta = X1 @ C @ X1.T @ within.among(sums.X, slice(len(sums.rest) - 1, None))[:, 0]
    away = np.zeros(len(sums.rest))
    away[sums.X], away[-1] = -beta, 1.0
    squares, residual = [], []
    for f in order:
        n, Z = _sizes(sums, f), _against(sums, f)
        squares.append(float(((Z @ away) ** 2 / n).sum()))
        ZX = Z[:, sums.X] @ X1
        residual.append(len(n) + float(np.trace(C @ (ZX.T @ (ZX / n[:, None])))))
    squares.append(float(away @ sums.rest @ away))
    residual.append(sums.n - 2.0 * len(A) + float(np.trace(C @ whole)))
    mean = float(_ones(sums) @ away) ** 2 / sums.n
    return _table(sums, order, np.array(squares) - mean, np.array(residual) - 1.0)


def less_the_mean(sums: Sums) -> Array:
    """(p, p - 1) orthonormal coefficients of combinations of the columns of X that sum to zero over the rows."""
    total = _ones(sums)[sums.X]
    return np.asarray(np.linalg.qr(total[:, None], mode="complete")[0][:, 1:])


def counts(sums: Sums, order: tuple[int, ...]) -> tuple[Array, Array]:
    """(k, k) sum over levels g of r and h of s of n_gh² / n_g, and (k,) sum over h of n_h² / n."""
    held = np.full((len(order), len(order)), float(sums.n))
    for i, r in enumerate(order):
        for j, s in enumerate(order):
            if r != s:
                held[i, j] = (_meeting(sums, r, s) ** 2 / _sizes(sums, r)[:, None]).sum()
    return held, np.array([float((_sizes(sums, s) ** 2).sum()) / sums.n for s in order])


def margins(sums: Sums, order: tuple[int, ...]) -> Array:
    """(k + 1, k + 1) L that takes totals less the mean's to the lines of the table.

    The line of a factor is its total less the lines of factors it is nested in, that of the residual less all lines.
    """
    k = len(order)
    coarser = [[s != r and _is_nested(sums, r, s) for s in order] for r in order]
    L = np.eye(k + 1)
    done: dict[int, Array] = {}
    for i in sorted(range(k), key=lambda i: sum(coarser[i])):
        L[i] -= sum((done[j] for j in range(k) if coarser[i][j]), np.zeros(k + 1))
        done[i] = L[i]
    L[k] -= sum(done.values(), np.zeros(k + 1))
    return L


def _table(sums: Sums, order: tuple[int, ...], totals: Array, residual: Array) -> SquaresTable:
    """The lines of the table from totals (k + 1,) less the mean's, whose residual coefficients are `residual`."""
    k = len(order)
    held, mean = counts(sums, order)
    expected = np.empty((k + 1, k + 1))
    expected[:k, :k], expected[k, :k], expected[:, k] = held - mean, sums.n - mean, residual
    L = margins(sums, order)
    df = L @ np.array([*(sums.widths[f][0] - 1 for f in order), sums.n - sums.p])
    _check_residual(df[k])
    return SquaresTable(L @ totals, df, _without_rounding(L @ expected))


def _without_rounding(coefficients: Array) -> Array:
    size = np.abs(coefficients).max(axis=1, keepdims=True)
    return np.where(np.abs(coefficients) < ROUNDING * size, 0.0, coefficients)


def _is_nested(sums: Sums, r: int, s: int) -> bool:
    """Whether each level of r lies within one level of s."""
    return bool((np.count_nonzero(_meeting(sums, r, s), axis=1) == 1).all())


def _against(sums: Sums, f: int) -> Array:
    """(levels, m) products of the indicators of a factor with the trailing columns."""
    return sums.lead_rest[:, 0] if f == 0 else sums.rest[sums.columns(f)]


def _meeting(sums: Sums, r: int, s: int) -> Array:
    """(levels of r, levels of s) how many rows two levels of different factors share."""
    return _against(sums, s)[:, sums.columns(r)].T if s == 0 else _against(sums, r)[:, sums.columns(s)]


def _sizes(sums: Sums, f: int) -> Array:
    return sums.lead[:, 0, 0] if f == 0 else np.diagonal(sums.rest)[sums.columns(f)]


def _totals(sums: Sums, f: int) -> Array:
    return _against(sums, f)[:, -1]


def _ones(sums: Sums) -> Array:
    """(m,) sums of the trailing columns over all rows."""
    return np.asarray(sums.lead_rest[:, 0].sum(axis=0))


def _intercept(sums: Sums) -> Array | None:
    """(p,) k with X k = 1, or None."""
    if not sums.p:
        return None
    total = _ones(sums)[sums.X]
    k = np.linalg.solve(sums.rest[sums.X, sums.X], total)
    return np.asarray(k) if abs(total @ k / sums.n - 1.0) < 1e-9 else None
