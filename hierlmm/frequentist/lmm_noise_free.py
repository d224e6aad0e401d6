"""Responses without residual variation where a residual structure needs some: the likelihood has no upper bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import LMMDesign
from hierlmm.errors import FitError, listed
from hierlmm.spec.residual import Stratified

Array = NDArray[np.float64]

# A residual standard deviation this small, relative to the size of the response, is rounding of the response.
ROUNDING = 1e-13


def check_residual_variation(design: LMMDesign) -> None:
    """Refuse a response that is constant within series after X, or that X reproduces throughout a stratum.

    Raises FitError naming the groups or strata. Plain residuals have their own limits: see `lmm_limits`.
    """
    held = design.residual
    if held is None or design.streamed is not None:
        return
    response = design.y - design.offset
    limit = ROUNDING * (float(np.abs(design.y).max()) + float(np.abs(design.offset).max()))
    if isinstance(design.spec.residual, Stratified):
        exact = [
            held.occasions[s]
            for s in range(len(held.occasions))
            if _reproduced(design.X[held.occasion == s], response[held.occasion == s], limit)
        ]
        if exact:
            raise FitError(
                "The residual variance of each stratum must be positive; the fixed effects reproduce all responses of "
                f"{design.spec.residual.by} {listed(exact)}, so that the likelihood has no upper bound. Check these "
                "rows for a computed response, or leave them out."
            )
        return
    # beside random effects the search runs away, and what it finds there is told from this
    if not len(held.levels) or design.factors:
        return
    if _reproduced(_within(design.X, held.codes), _within(response, held.codes), limit):
        raise FitError(
            f"The residuals must vary within the levels of {held.group}; the response is reproduced exactly by X and a "
            f"constant for each, so that the likelihood has no upper bound. Use a random intercept, (1 | {held.group})."
        )


def _within(values: Array, codes: NDArray[np.intp]) -> Array:
    """Deviations of (n,) or (n, p) values from the means of their groups."""
    count = np.bincount(codes)
    if values.ndim == 1:
        return np.asarray(values - (np.bincount(codes, values) / count)[codes])
    return np.column_stack([_within(column, codes) for column in values.T]) if values.shape[1] else values


def _reproduced(X: Array, y: Array, limit: float) -> bool:
    """Whether columns of X give more responses than they can fit by chance, to rounding."""
    if not X.shape[1]:
        return bool(np.abs(y).max(initial=0.0) <= limit)
    scale = np.abs(X).max(axis=0)
    columns = X / np.where(scale > 0, scale, 1.0)
    fitted, _, rank, _ = np.linalg.lstsq(columns, y, rcond=1e-12)
    return bool(len(y) > rank and np.abs(y - columns @ fitted).max(initial=0.0) <= limit)
