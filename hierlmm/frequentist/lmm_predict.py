"""Fitted values, marginal covariances and simulations of a linear mixed model fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.residual import ResidualRows
from hierlmm.design.streamchecks import require_rows
from hierlmm.design.types import GroupingFactor
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_noise import covariance_among, noise

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]


def conditional_fitted(fit: LMMFit) -> pd.Series:
    """Xβ + offset + Zb, labelled by row."""
    require_rows(fit.design, "Fitted values and residuals")
    total = fit.design.X @ fit.beta + fit.design.offset
    for factor, b in zip(fit.design.factors, fit.b, strict=True):
        total += (factor.Z * b[factor.codes]).sum(axis=1)
    return pd.Series(total, fit.design.index, name="conditional_fitted")


def marginal_covariance(fit: LMMFit, level: object, group: str | None) -> pd.DataFrame:
    """Marginal covariance of the responses in one level's rows, all grouping factors and the residuals included.

    group  a grouping factor, or what groups the residuals; None: the first of them
    """
    require_rows(fit.design, "Covariances between responses")
    factors, residual = fit.design.factors, fit.design.residual
    groups: dict[str, GroupingFactor | ResidualRows] = {factor.name: factor for factor in factors}
    if residual is not None and residual.group:
        groups.setdefault(residual.group, residual)
    if group not in groups and (group is not None or not groups):
        raise DesignError(
            f"`group` must be a grouping factor of the model or of its residuals; found {group!r}, one of "
            f"{listed(groups) or 'none'}."
        )
    name = next(iter(groups)) if group is None else group
    chosen = groups[name]
    if level not in chosen.levels:
        raise DesignError(
            f"`level` must be an observed level of {name}; found {level!r}. Levels: {listed(chosen.levels)}."
        )
    rows = np.flatnonzero(chosen.codes == chosen.levels.get_loc(level))
    V = covariance_among(fit, rows)
    for factor, root in zip(factors, covariance_roots(fit), strict=True):
        half, codes = factor.Z[rows] @ root, factor.codes[rows]
        V += (half @ half.T) * (codes[:, None] == codes)
    labels = fit.design.index[rows]
    return pd.DataFrame(V, index=labels, columns=labels)


def simulate(fit: LMMFit, draws: int, rng: np.random.Generator, effects: Literal["new", "fitted"]) -> pd.DataFrame:
    """(n, draws) responses from the fitted model; random effects drawn anew or held at the BLUPs."""
    if effects not in ("new", "fitted"):
        raise FitError(f"`effects` is 'new' or 'fitted'; found {effects!r}. Use one of these.")
    check_count("draws", draws, "draws")
    design = fit.design
    out = np.repeat(fit.marginal_fitted.to_numpy()[:, None], draws, axis=1)
    for factor, root, b in zip(design.factors, covariance_roots(fit), fit.b, strict=True):
        if effects == "fitted":
            out += (factor.Z * b[factor.codes]).sum(axis=1)[:, None]
            continue
        z = rng.standard_normal((draws, *b.shape)) @ root.T
        for column in range(b.shape[1]):
            out += factor.Z[:, column, None] * z[:, factor.codes, column].T
    out += noise(fit, draws, rng)
    return pd.DataFrame(out, index=design.index)
