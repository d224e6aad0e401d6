"""The optimal F ratio of balanced designs: mean squares of the joint strata of all random terms.

Where the matrices M Z_i Z_i'M of the random terms commute, they share eigenspaces. The projections of the response on
these are independent, with sums of squares SS_j / E_j ~ chi²(d_j) and expected mean squares
E_j = sigma² + sum of c_ij sigma_i². A variance sigma_i² is tested by the ratio of two mean squares whose expectations
differ by a multiple of it alone; where the pair is unique the test is uniformly most powerful among unbiased and
invariant ones.

Source: Mathew & Sinha (1988), J. Stat. Plan. Inference 19:163-175; Khuri, Mathew & Sinha (1998), Statistical Tests for
Mixed Linear Models, ch. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.components_space import DEPENDENT, Gram, Positions, without_columns
from hierlmm.frequentist.inference.exactf import FTest

Array = NDArray[np.float64]

# Share of the largest eigenvalue to which matrices must commute, and eigenvalues agree, in a balanced design.
BALANCED = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Stratum:
    """Coefficients c (terms,) of the variances in the expected mean square, sum of squares, degrees of freedom."""

    coefficients: Array
    square: float
    df: int


def strata(products: Gram, terms: Sequence[Positions]) -> tuple[Stratum, ...] | None:
    """The strata of the random terms at these positions, the residual's last; None where they do not commute."""
    S, rank = without_columns(products, products.fixed)
    every = np.unique(np.concatenate(list(terms)))
    values, vectors = np.linalg.eigh(S[np.ix_(every, every)])
    kept = values > DEPENDENT * np.diagonal(products.S)[every].max()
    half = vectors[:, kept] / np.sqrt(values[kept])
    basis = [half.T @ S[np.ix_(every, term)] for term in terms]
    forms = [B @ B.T for B in basis]
    sizes = [float(np.abs(A).max()) or 1.0 for A in forms]
    for i, A in enumerate(forms):
        for j, B in enumerate(forms[:i]):
            if np.abs(A @ B - B @ A).max() > BALANCED * sizes[i] * sizes[j]:
                return None
    # a combination with incommensurable weights has one eigenvalue a stratum
    mixed = sum((np.sqrt(i + 2.0) * A / size for i, (A, size) in enumerate(zip(forms, sizes, strict=True))), 0.0)
    at, E = np.linalg.eigh(np.atleast_2d(mixed))
    group = np.cumsum(np.concatenate([[0], np.diff(at) > BALANCED * max(float(at[-1]), 1.0)])).astype(int)
    coordinates = (E.T @ (half.T @ S[every, -1])) ** 2
    found = []
    for g in range(group[-1] + 1):
        own = E[:, group == g]
        means = [own.T @ A @ own for A in forms]
        c = np.array([float(np.trace(m)) / own.shape[1] for m in means])
        spread = [np.abs(m - x * np.eye(len(m))).max() / size for m, x, size in zip(means, c, sizes, strict=True)]
        if max(spread) > BALANCED**0.5:
            return None
        c[c < BALANCED * np.array(sizes)] = 0.0
        found.append(Stratum(c, float(coordinates[group == g].sum()), own.shape[1]))
    df = products.n - rank - len(values[kept])
    rest = float(S[-1, -1] - coordinates.sum())
    return (*found, Stratum(np.zeros(len(terms)), max(rest, 0.0), df))


def optimal_f(found: Sequence[Stratum], term: int) -> FTest | None:
    """The ratio of the two mean squares whose expectations differ by the variance of `term` alone.

    None where there is no such pair, or more than one: then no single ratio is optimal.
    """
    from scipy.special import fdtrc

    pairs = []
    for top in found:
        for bottom in found:
            gap = top.coefficients - bottom.coefficients
            scale = np.maximum(np.abs(top.coefficients), 1.0)
            others = np.delete(np.abs(gap) / scale, term)
            if gap[term] > BALANCED * scale[term] and (others <= BALANCED).all() and bottom.df > 0:
                pairs.append((top, bottom))
    if len(pairs) != 1:
        return None
    top, bottom = pairs[0]
    F = (top.square / top.df) / (bottom.square / bottom.df)
    return FTest(F, top.df, bottom.df, float(fdtrc(top.df, bottom.df, F)))
