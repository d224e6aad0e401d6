"""Where a search begins: variance ratios by the method of moments, from the cross-products alone.

With r = y - X beta of ordinary least squares and z_i the columns of one coefficient of one factor, the expectation
of |z_i'r|² is sigma² (tr z_i'z_i + sum over j of tau_j |z_i'z_j|²) where X is left out of it, and that of r'r is
sigma² (n - p + sum over j of tau_j |z_j|²): linear equations in sigma² and the variances, one for each coefficient.
They cost less than one evaluation of a criterion and save several, because a variance ratio far from its value has
a long way to go.

Source: Rao (1972), J. Am. Stat. Assoc. 67:112-115, with all variance ratios zero a priori (MIVQUE(0)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts

Array = NDArray[np.float64]

# Smallest and largest variance ratio to begin at: zero is a stationary point, and moments may be negative or huge.
SMALLEST, LARGEST = 1e-2, 1e2


def moment_factors(cp: CrossProducts) -> tuple[Array, ...]:
    """Diagonal relative factors Lambda (q, q), one per grouping factor, at the estimated variance ratios."""
    widths = [q for _, q in cp.sizes]
    k = sum(widths)
    equations, right = np.empty((k + 1, k + 1)), np.empty(k + 1)
    equations[:k, :k] = _squares(cp)
    equations[:k, k] = equations[k, :k] = np.concatenate([_traces(cp, f) for f in range(len(widths))] or [np.empty(0)])
    equations[k, k] = cp.n - cp.p
    right[:k], right[k] = _moments(cp)
    solution = np.linalg.lstsq(equations, right, rcond=None)[0]
    floor = 1e-3 * right[k] / max(cp.n, 1)
    sigma2 = 1.0 if cp.known_sigma2 else max(float(solution[k]), floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(solution[:k] / sigma2, nan=1.0)
    sd = np.sqrt(np.clip(ratios, SMALLEST, LARGEST))
    return tuple(np.diag(part) for part in np.split(sd, np.cumsum(widths)[:-1])) if widths else ()


def _moments(cp: CrossProducts) -> tuple[Array, float]:
    """Sums over levels of (z'r)² per coefficient, all factors in order, and r'r."""
    p, R = cp.p, len(cp.rest) - cp.p - 1
    X = slice(R, R + p)
    beta = np.linalg.lstsq(cp.rest[X, X], cp.rest[X, -1], rcond=None)[0]
    away = np.append(-beta, 1.0)
    lead = cp.lead_rest[..., -p - 1 :] @ away
    rest = cp.rest[:R, R:] @ away
    parts, start = [(lead**2).sum(axis=0)] if cp.sizes else [], 0
    for G, q in cp.sizes[1:]:
        parts.append((rest[start : start + G * q].reshape(G, q) ** 2).sum(axis=0))
        start += G * q
    return np.concatenate(parts or [np.empty(0)]), float(away @ cp.rest[R:, R:] @ away)


def _traces(cp: CrossProducts, f: int) -> Array:
    """(q,) sum of squares of each column of Z of factor f, over all levels."""
    if f == 0:
        return np.asarray(np.einsum("gaa->a", cp.lead))
    G, q = cp.sizes[f]
    start = sum(levels * width for levels, width in cp.sizes[1:f])
    return np.asarray(np.diagonal(cp.rest)[start : start + G * q].reshape(G, q).sum(axis=0))


def _squares(cp: CrossProducts) -> Array:
    """(k, k) sums over pairs of levels of (z_i'z_j)² for the coefficients i and j of all factors in order."""
    widths = [q for _, q in cp.sizes]
    ends = np.cumsum([0, *widths])
    starts = np.cumsum([0, *(G * q for G, q in cp.sizes[1:])])
    out = np.zeros((ends[-1], ends[-1]))
    for f, (G, q) in enumerate(cp.sizes):
        rows = slice(ends[f], ends[f + 1])
        if f == 0:
            out[rows, rows] = (cp.lead**2).sum(axis=0)
            out[rows, ends[1] :] = _lead_squares(cp)
            out[ends[1] :, rows] = out[rows, ends[1] :].T
            continue
        here = slice(starts[f - 1], starts[f])
        for g in range(f, len(cp.sizes)):
            H, r = cp.sizes[g]
            block = cp.rest[here, starts[g - 1] : starts[g]].reshape(G, q, H, r)
            columns = slice(ends[g], ends[g + 1])
            out[rows, columns] = np.einsum("gahb,gahb->ab", block, block)
            out[columns, rows] = out[rows, columns].T
    return out


def _lead_squares(cp: CrossProducts) -> Array:
    """(q, k - q) the same between the leading factor's coefficients and those of the others."""
    offset, coefficient = 0, []
    for H, r in cp.sizes[1:]:
        coefficient.append(np.tile(np.arange(offset, offset + r), H))
        offset += r
    which = np.concatenate(coefficient or [np.empty(0, dtype=np.intp)])
    if cp.cells is None:
        squares = np.einsum("gac,gac->ac", *[cp.lead_rest[..., : len(which)]] * 2)
    else:
        which, squares = which[cp.cells.column], cp.cells.values.T**2
    return np.stack([np.bincount(which, row, offset) for row in squares])
