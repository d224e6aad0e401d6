"""The rows of a fit in clusters between which the responses are independent, and their covariance matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_noise import residual_blocks
from hierlmm.likelihood.triangular import dense_lower, dense_upper, solve_lower, solve_upper

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Rows of the largest covariance matrix that is formed whole: 32 MB, and under a second for its factor.
LARGEST = 2000
# Rows up to which triangular systems are solved for many clusters at once.
SMALL = 24
# Numbers in the covariance matrices that are held at once.
AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The finest partition of the n rows into sets of responses that are independent given the fit.

    Rows belong together where they share a level of a grouping factor whose variance is not zero, or a group of
    correlated residuals; with crossed factors often all of them do.

    codes (n,) cluster of each row; size (C,) rows in each
    """

    codes: Codes
    size: Codes

    @classmethod
    def of(cls, fit: LMMFit) -> Clusters:
        """The clusters of a fit's rows."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n, residual = len(fit.design.y), fit.design.residual
        shared = [factor.codes for factor, G in zip(fit.design.factors, fit.G, strict=True) if G.any()]
        if residual is not None and residual.group:
            shared.append(residual.codes)
        row, column, start = list[Codes](), list[Codes](), n
        for codes in shared:
            row.append(np.arange(n))
            column.append(start + codes)
            start += int(codes.max()) + 1
        if not shared:
            return cls(np.arange(n), np.ones(n, dtype=np.intp))
        places = np.concatenate(row), np.concatenate(column)
        graph = coo_array((np.ones(len(places[0])), places), shape=(start, start))
        labels = connected_components(graph, directed=False)[1][:n]
        codes = np.unique(labels, return_inverse=True)[1].astype(np.intp)
        return cls(codes, np.bincount(codes).astype(np.intp))

    @property
    def largest(self) -> int:
        """Rows in the largest cluster."""
        return int(self.size.max(initial=0))

    def batches(self) -> Iterator[Codes]:
        """(U, k) rows of U clusters of k rows each, in the order of the rows; few enough to hold their covariances."""
        order = np.argsort(self.codes, kind="stable")
        start = np.cumsum(self.size) - self.size
        for k in np.unique(self.size):
            rows = order[start[self.size == k][:, None] + np.arange(k)]
            step = max(1, AT_ONCE // int(k) ** 2)
            for first in range(0, len(rows), step):
                yield rows[first : first + step]


def covariances(fit: LMMFit, rows: Codes) -> tuple[Array, Array]:
    """V and R, (U, k, k) each, of U sets of k rows that are independent of each other."""
    U, k = rows.shape
    R = np.zeros((U, k, k))
    unit, place = (np.empty(len(fit.design.y), dtype=np.intp) for _ in range(2))
    unit[rows], place[rows] = np.arange(U)[:, None], np.arange(k)
    for group, block in residual_blocks(fit, rows.ravel()):
        at = place[group]
        R[unit[group][:, :1, None], at[:, :, None], at[:, None, :]] = block
    V = R.copy()
    for factor, root in zip(fit.design.factors, covariance_roots(fit), strict=True):
        half, codes = factor.Z[rows] @ root, factor.codes[rows]
        V += (half @ half.swapaxes(1, 2)) * (codes[:, :, None] == codes[:, None, :])
    return V, R


def cholesky(V: Array) -> Array:
    """(U, k, k) lower Cholesky factors of covariance matrices."""
    return np.asarray(np.linalg.cholesky(V), dtype=np.float64)


def lower(L: Array, B: Array) -> Array:
    """L⁻¹B for (U, k, k) L and (U, k, m) B: all at once where k is small, one after the other by LAPACK elsewhere."""
    if L.shape[1] <= SMALL:
        return solve_lower(L, B)
    return np.stack([dense_lower(one, right) for one, right in zip(L, B, strict=True)])


def upper(L: Array, B: Array) -> Array:
    """L'⁻¹B, likewise."""
    if L.shape[1] <= SMALL:
        return solve_upper(L, B)
    return np.stack([dense_upper(one, right) for one, right in zip(L, B, strict=True)])


def require_variances(fit: LMMFit, what: str) -> None:
    """Raise where there are no rows or no covariance matrix to scale them by; `what` needs them, as in "Leverages".

    DesignError where the rows passed in a stream; FitError where the residual variance is zero, or where a row stands
    for several.
    """
    require_rows(fit.design, what)
    if not fit.sigma2 > 0 or fit.joint is None:
        raise FitError(
            f"{what} are scaled by a residual variance, and that of this fit is zero: {fit.outcome.value} "
            'Use residuals(kind="conditional"), which are rounding, to see which rows fit exactly.'
        )
    frequency = fit.design.frequency
    if frequency is not None and (frequency > 1).any():
        raise FitError(
            f"{what} belong to single observations, and here rows stand for several: frequencies go up to "
            f"{frequency.max():g}. Write each row as often as it was seen, and fit that table."
        )
