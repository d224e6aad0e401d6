"""The residuals of a fit: their covariance among its rows, their variance in new rows, and draws of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design import observation_scale
from hierlmm.design.types import NewRows
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.lmm_model import structure_of
from hierlmm.likelihood.residuals import Structure
from hierlmm.spec.residual import AR1, CompoundSymmetry, ContinuousAR1, Toeplitz

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def observation_variances(fit: LMMFit, rows: NewRows) -> Array:
    """(k,) residual variances of new observations.

    Raises DesignError where a row lacks what its variance depends on: a weight, a known variance, or an occasion or
    stratum of the fit.
    """
    variance = fit.sigma2 * observation_scale(fit.design, rows)
    structure, seen = _structure(fit), fit.design.residual
    equal = isinstance(fit.spec.residual, CompoundSymmetry | AR1 | ContinuousAR1 | Toeplitz)
    if structure is None or seen is None or equal:
        return variance
    occasion = np.full(len(variance), -1, dtype=np.intp) if rows.occasion is None else rows.occasion
    if (lost := occasion < 0).any():
        raise DesignError(
            "The residual variance of an observation must be known; the fit has none at the occasion or stratum of "
            f"rows {listed(rows.index[lost])}. It knows {listed(seen.occasions)}. Give the rows one of these, or "
            'predict means with target="mean".'
        )
    each = np.arange(len(seen.occasions))[:, None]
    relative = structure.relative(fit.phi, each.astype(float), each)[0][:, 0, 0]
    return np.asarray(variance * relative[occasion])


def covariance_among(fit: LMMFit, rows: Codes) -> Array:
    """(k, k) covariance matrix of the residuals of some rows of the fit, by position."""
    out = np.zeros((len(rows), len(rows)))
    position = np.empty(len(fit.design.y), dtype=np.intp)
    position[rows] = np.arange(len(rows))
    for group, R in residual_blocks(fit, rows):
        at = position[group]
        out[at[:, :, None], at[:, None, :]] = R
    return out


def noise(fit: LMMFit, draws: int, rng: np.random.Generator) -> Array:
    """(n, draws) residuals. Raises FitError where rows stand for several, whose residuals differ."""
    frequency = fit.design.frequency
    if frequency is not None and (frequency > 1).any():
        raise FitError(
            "Responses are drawn for each row, and here rows stand for several: frequencies go up to "
            f"{frequency.max():g}. Write each row as often as it was seen, and fit that table."
        )
    z = rng.standard_normal((len(fit.design.y), draws))
    if fit.design.residual is None:
        return np.asarray(_sds(fit)[:, None] * z)
    out = np.empty_like(z)
    for group, R in residual_blocks(fit, np.arange(len(z))):
        out[group] = _root(R) @ z[group]
    return out


def _root(R: Array) -> Array:
    """(U, k, k) symmetric square roots, of singular matrices too."""
    values, vectors = np.linalg.eigh(R)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ np.swapaxes(vectors, 1, 2))


def residual_blocks(fit: LMMFit, chosen: Codes) -> Iterator[tuple[Codes, Array]]:
    """Of the chosen rows, those (U, k) of U groups of one size, and the covariance matrices (U, k, k) of their
    residuals, size by size."""
    rows, structure, sd = fit.design.residual, _structure(fit), _sds(fit)
    if rows is None or structure is None:
        yield chosen[:, None], (sd[chosen] ** 2)[:, None, None]
        return
    codes = rows.codes[chosen] if rows.group else np.arange(len(chosen))
    order = chosen[np.argsort(codes, kind="stable")]
    size = np.bincount(codes)
    start = np.cumsum(size) - size
    for k in np.unique(size[size > 0]):
        group = order[start[size == k][:, None] + np.arange(k)]
        R = structure.relative(fit.phi, rows.place[group], rows.occasion[group])[0]
        yield group, R * sd[group][:, :, None] * sd[group][:, None, :]


def _structure(fit: LMMFit) -> Structure | None:
    """The structure of the residuals; None where they are independent of one variance, as in a limit without any."""
    structure = structure_of(fit.design)
    return structure if structure is not None and structure.size == len(fit.phi) else None


def _sds(fit: LMMFit) -> Array:
    """(n,) root of sigma² times the known relative variances."""
    scale = np.ones(len(fit.design.y)) if fit.design.scale is None else fit.design.scale
    return np.asarray(np.sqrt(fit.sigma2 * scale))
