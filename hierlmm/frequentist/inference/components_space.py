"""What the data say about one random term once X and the other random effects are projected out.

With M the projection off the columns of X and of the other effects Z2, and mu_1 .. mu_r1 the eigenvalues that are not
zero of Z1'M Z1, the response falls into independent pieces

    w_s ~ N(0, sigma² (1 + gamma mu_s)),  s = 1 .. r1,        R ~ sigma² chi²(r2),

gamma the ratio of the term's variance to sigma². Every exact test of the term is a function of them. They are read
off the cross-products: nothing has as many rows as the data.

Source: Crainiceanu & Ruppert (2004), JRSS B 66:165-185, Theorem 1; Seely & El-Bassiouni (1983), Ann. Stat. 11:197-201.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts, dense

Array = NDArray[np.float64]
Positions = NDArray[np.intp]

# Random effects up to which their cross-products are decomposed whole: half a minute and 32 MB.
WHOLE = 2000
# Squared length of a column outside the span of others, relative to its own, below which it is rounding.
DEPENDENT = 1e-10
# Eigenvalues closer than this, relatively, are one eigenvalue with a multiplicity.
SAME = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """Cross-products S (Q + p + 1, Q + p + 1) of [Z, X, y], columns of Z on the data scale, and where they are.

    effects  per factor of the design (levels, q) positions of its columns
    fixed    (p,) positions of X; the response is last
    n        rows, each counted as often as its frequency says
    """

    S: Array
    effects: tuple[Positions, ...]
    fixed: Positions
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The independent pieces of the response for one term.

    mu       (r1,) eigenvalues of Z1'M Z1 that are not zero, descending; squares (r1,) w_s², units of y squared
    rest     R, units of y squared; df its degrees of freedom r2
    xi       (K,) eigenvalues of Z1'Z1
    n, rank  number of rows; rank of what was projected out
    """

    mu: Array
    squares: Array
    rest: float
    df: int
    xi: Array
    n: int
    rank: int


def gram(cp: CrossProducts) -> Gram:
    """The cross-products as one matrix; random effects of up to `WHOLE` levels in total."""
    cp = dense(cp)
    (G, q), u = (cp.sizes[0] if cp.sizes else (0, 1)), cp.p + 1
    first, R = G * q, len(cp.rest) - cp.p - 1
    S = np.zeros((first + R + u, first + R + u))
    level = np.arange(G)
    S[:first, :first].reshape(G, q, G, q)[level, :, level, :] = cp.lead[:G]
    S[:first, first:] = cp.lead_rest.reshape(first, R + u)
    S[first:, :first] = S[:first, first:].T
    S[first:, first:] = cp.rest
    start, places = 0, []
    for (levels, width), B in zip(cp.sizes, cp.Z_map, strict=True):
        here = slice(start, start + levels * width)
        S[here] = np.linalg.solve(B.T, S[here].reshape(levels, width, -1)).reshape(levels * width, -1)
        S[:, here] = np.linalg.solve(B.T, S[:, here].T.reshape(levels, width, -1)).reshape(levels * width, -1).T
        places.append(np.arange(start, start + levels * width).reshape(levels, width))
        start += levels * width
    effects = tuple(places[cp.order.index(f)] for f in range(max(cp.order, default=-1) + 1))
    return Gram(S, effects, np.arange(first + R, first + R + cp.p), cp.n)


def without_columns(products: Gram, columns: Positions) -> tuple[Array, int]:
    """Cross-products of all columns with `columns` projected out of them, and the rank of these."""
    S = products.S
    if not len(columns):
        return S, 0
    scale = np.sqrt(np.diagonal(S)[columns])
    scale[scale == 0] = 1.0
    values, vectors = np.linalg.eigh(S[np.ix_(columns, columns)] / np.outer(scale, scale))
    kept = values > DEPENDENT * max(float(values[-1]), 1.0)
    half = (vectors[:, kept] / np.sqrt(values[kept])).T @ (S[columns] / scale[:, None])
    return S - half.T @ half, int(kept.sum())


def pieces(products: Gram, tested: Positions, others: Positions) -> Pieces:
    """The pieces for the effects at `tested` with X and the effects at `others` projected out."""
    out = np.concatenate([products.fixed, others])
    S, rank = without_columns(products, out)
    before = products.S[np.ix_(tested, tested)]
    mu, V = np.linalg.eigh(S[np.ix_(tested, tested)])
    kept = np.flatnonzero(mu > DEPENDENT * np.diagonal(before).max(initial=0.0))[::-1]
    mu = mu[kept]
    squares = (V[:, kept].T @ S[tested, -1]) ** 2 / mu
    xi = np.clip(np.linalg.eigvalsh(before), 0.0, None)
    rest = float(S[-1, -1] - squares.sum())
    return Pieces(mu, squares, max(rest, 0.0), products.n - rank - len(mu), xi, products.n, rank)


def distinct(values: Array) -> tuple[Array, NDArray[np.intp]]:
    """Descending values merged where they agree to rounding, and how many each stands for."""
    if not len(values):
        return values, np.zeros(0, dtype=np.intp)
    ordered = np.sort(values)[::-1]
    new = np.concatenate([[True], ordered[:-1] - ordered[1:] > SAME * ordered[0]])
    group = np.cumsum(new) - 1
    counts = np.bincount(group)
    return np.bincount(group, weights=ordered) / counts, counts
