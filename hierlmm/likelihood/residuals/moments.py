"""Moments of ordinary least squares residuals by occasion, pair of occasions and lag: where an optimiser starts.

Nothing here needs to be efficient in the statistical sense. What matters is that every start lies well inside the
space, whatever is missing or constant, and that it does not depend on the order of rows or on units.
"""

from __future__ import annotations

import numpy as np

from hierlmm.likelihood.residuals.structure import Array, Codes, Groups

# Correlations start at most this far from 0, and variances within this factor of the pooled one.
LARGEST = 0.9
SPREAD = 1e3
# Pairs of rows further apart than this many rows say nothing about a single serial correlation.
NEIGHBOURS = 32
# Prior observations that pull a variance to the pooled one, so that an occasion seen once does not start at an extreme.
PULL = 1.0


def log_ratios(groups: Groups, occasions: int) -> Array:
    """Log standard deviations (T,) by occasion, less that of the first; 0 where nothing varies."""
    squares, count = np.zeros(occasions), np.zeros(occasions)
    for _, occasion, e in standardised(groups):
        squares += np.bincount(occasion.ravel(), (e**2).ravel(), minlength=occasions)
        count += np.bincount(occasion.ravel(), minlength=occasions)
    if not squares.any():
        return np.zeros(occasions)
    ratio = np.clip((squares + PULL) / (count + PULL), 1 / SPREAD, SPREAD)
    log_sd: Array = 0.5 * np.log(ratio)
    return np.asarray(log_sd - log_sd[0])


def standardised(groups: Groups, log_sd: Array | None = None) -> list[tuple[Array, Codes, Array]]:
    """The groups with residuals over their standard deviation (by occasion if given), of mean square 1 (or all 0)."""
    scaled = list(groups)
    if log_sd is not None:
        scaled = [(place, occasion, e * np.exp(-log_sd[occasion])) for place, occasion, e in groups]
    n = sum(e.size for _, _, e in scaled)
    largest = max((float(np.abs(e).max()) for _, _, e in scaled if e.size), default=0.0)
    if not (np.isfinite(largest) and largest > 0):
        return [(place, occasion, np.zeros(e.shape)) for place, occasion, e in scaled]
    # The largest first: squares of residuals of 1e-200 are 0.
    square = sum(float(((e / largest) ** 2).sum()) for _, _, e in scaled) / n
    return [(place, occasion, e / (largest * np.sqrt(square))) for place, occasion, e in scaled]


def intraclass(groups: Groups) -> tuple[float, float]:
    """Sum of products of standardised residuals over pairs of rows of a group, and the number of pairs."""
    total, pairs = 0.0, 0.0
    for _, _, e in groups:
        k = e.shape[1]
        total += float(0.5 * (e.sum(axis=1) ** 2 - (e**2).sum(axis=1)).sum())
        pairs += 0.5 * k * (k - 1) * len(e)
    return total, pairs


def neighbours(groups: Groups, farthest: int | None = NEIGHBOURS) -> tuple[Array, Array]:
    """Differences of place and products of residuals over pairs of rows of a group, by order of place.

    Pairs at most `farthest` rows apart; None: all of them.
    """
    gaps, products = [np.zeros(0)], [np.zeros(0)]
    for place, _, e in groups:
        order = np.argsort(place, axis=1, kind="stable")
        place, e = np.take_along_axis(place, order, 1), np.take_along_axis(e, order, 1)
        k = e.shape[1]
        for a in range(1, k if farthest is None else min(k, farthest + 1)):
            gaps.append((place[:, a:] - place[:, :-a]).ravel())
            products.append((e[:, a:] * e[:, :-a]).ravel())
    return np.concatenate(gaps), np.concatenate(products)


def by_lag(groups: Groups, lags: int | None) -> tuple[Array, Array]:
    """Mean product, pulled to 0, and number of pairs by whole lag 0, 1, ...; lag 0 stands for itself."""
    gaps, products = neighbours(groups, None if lags is not None else NEIGHBOURS)
    lag = np.rint(gaps).astype(np.intp)
    limit = NEIGHBOURS + 1 if lags is None else lags
    lag, products = lag[lag < limit], products[lag < limit]
    count = np.bincount(lag, minlength=limit).astype(np.float64)
    return np.bincount(lag, products, minlength=limit) / (count + PULL), count


def by_pair(groups: Groups, occasions: int) -> Array:
    """Mean products (T, T) of standardised residuals by pair of occasions, pulled to 0; unit diagonal."""
    products, count = np.zeros(occasions**2), np.zeros(occasions**2)
    for _, occasion, e in groups:
        pair = (occasion[:, :, None] * occasions + occasion[:, None, :]).ravel()
        products += np.bincount(pair, (e[:, :, None] * e[:, None, :]).ravel(), minlength=occasions**2)
        count += np.bincount(pair, minlength=occasions**2)
    C: Array = np.clip((products / (count + PULL)).reshape(occasions, occasions), -LARGEST, LARGEST)
    np.fill_diagonal(C, 1.0)
    return C


def positive_definite(C: Array) -> Array:
    """A correlation matrix C, pulled to the identity until its smallest eigenvalue is at least 1 - LARGEST."""
    smallest = float(np.linalg.eigvalsh(C)[0])
    floor = 1.0 - LARGEST
    if smallest >= floor:
        return C
    keep = (1.0 - floor) / (1.0 - smallest)
    return keep * C + (1.0 - keep) * np.eye(len(C))
