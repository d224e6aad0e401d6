"""Predictions, simulations, fitted values and marginal covariances of a linear mixed model fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import NewLevels, rows_to_predict
from hierlmm.design.residual import ResidualRows
from hierlmm.design.streamchecks import require_rows
from hierlmm.design.types import GroupingFactor, NewRows
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.lmm_frames import covariance_roots, with_interval
from hierlmm.frequentist.lmm_joint import sum_variance
from hierlmm.frequentist.lmm_noise import covariance_among, noise, observation_variances

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


def predict(
    fit: LMMFit, new: object, target: Literal["mean", "observation"], new_levels: NewLevels = "error"
) -> pd.DataFrame:
    """estimate, se, lower, upper, population, new_levels; one row per row of `new`, in its order.

    A level of a grouping factor that is not in the fit is refused by new_levels "error", and a draw from the
    population by "population".

    estimate    x'β + offset + z'b̂, with b = 0 for levels that were not observed
    se          contains the uncertainty of β and of b (jointly, over all factors), the between-level variance of
                every new level and, for target "observation", the residual variance; not that of the variance
                parameters themselves. `frame.attrs["se_contains"]` says so in words.
    population  x'β + offset
    new_levels  names of the grouping factors whose level was not observed

    Raises DesignError for missing values, for categories that a fixed predictor did not have in the fit, and for
    levels that the fit did not have where these are refused.
    """
    if target not in ("mean", "observation"):
        raise FitError(f"`target` is 'mean' or 'observation'; found {target!r}. Use one of these.")
    rows = rows_to_predict(fit.design, new, new_levels)
    population = rows.X @ fit.beta + rows.offset
    estimate = population.copy()
    variance = _known_part(fit, rows)
    fresh = np.full(len(population), "", dtype=object)
    for factor, root, b, Z, codes in zip(
        fit.design.factors, covariance_roots(fit), fit.b, rows.Z, rows.codes, strict=True
    ):
        seen = codes >= 0
        estimate[seen] += (Z[seen] * b[codes[seen]]).sum(axis=1)
        variance[~seen] += np.square(Z[~seen] @ root).sum(axis=1)
        fresh[~seen] = [f"{text}, {factor.name}" if text else factor.name for text in fresh[~seen]]
    if target == "observation":
        variance += observation_variances(fit, rows)
    frame = with_interval(pd.DataFrame({"estimate": estimate, "se": np.sqrt(variance)}, index=rows.index))
    frame["population"] = population
    frame["new_levels"] = fresh
    residual = ", the residual variance" if target == "observation" else ""
    if rows.notes:
        frame.attrs["group_means"] = " ".join(rows.notes)
    frame.attrs["se_contains"] = (
        "uncertainty of the fixed effects and of the random effects, the between-group variance of new levels"
        f"{residual}; not the uncertainty of the variance parameters"
    )
    return frame


def _known_part(fit: LMMFit, rows: NewRows) -> Array:
    """Variance of the error of x'β̂ + z'b̂ over the observed levels."""
    if fit.joint is not None:
        order = fit.equations.order
        none = np.zeros((len(rows.X), 1)), np.full(len(rows.X), -1, dtype=np.intp)
        # -1 is the placeholder that leads where no factor holds the series of rows whole
        Z = [rows.Z[f] if f >= 0 else none[0] for f in order]
        codes = [rows.codes[f] if f >= 0 else none[1] for f in order]
        return sum_variance(fit.equations, fit.joint, rows.X, Z, codes)
    variance = np.einsum("ij,jk,ik->i", rows.X, fit.vcov_beta, rows.X)
    for error, with_beta, columns, levels in zip(fit.b_error, fit.b_beta, rows.Z, rows.codes, strict=True):
        seen = np.flatnonzero(levels >= 0)
        z, c = columns[seen], levels[seen]
        variance[seen] += np.einsum("ij,ijk,ik->i", z, error[c], z)
        variance[seen] += 2 * np.einsum("ip,ipk,ik->i", rows.X[seen], with_beta[c], z)
    return np.asarray(np.maximum(variance, 0.0))


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
    if draws < 1:
        raise FitError(f"`draws` is a number of draws, 1 or more; found {draws!r}. Use for example draws=1000.")
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
