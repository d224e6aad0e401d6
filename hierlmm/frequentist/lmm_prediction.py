"""Predictions of a linear mixed model fit, of means and of observations, with what their errors are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design import NewLevels, population_rows, rows_to_predict
from hierlmm.design.types import NewRows
from hierlmm.errors import FitError
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.lmm_frames import covariance_roots
from hierlmm.frequentist.lmm_joint import sum_variance
from hierlmm.frequentist.lmm_noise import observation_variances
from hierlmm.frequentist.lmm_prediction_error import estimation_variance

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Target = Literal["mean", "observation"]
Effects = Literal["conditional", "fixed"]
Parameters = Literal["known", "estimated"]


def predict(
    fit: LMMFit,
    new: object,
    *,
    target: Target = "mean",
    effects: Effects = "conditional",
    parameters: Parameters = "known",
    new_levels: NewLevels = "error",
    level: float = 0.95,
) -> pd.DataFrame:
    """estimate, se, lower, upper, population, new_levels; one row per row of `new`, in its order.

    effects     "conditional": of the groups that the rows name, x'β + offset + z'b̂; b = 0 for levels that were not
                observed. "fixed": over all groups, x'β + offset; the rows need no columns of grouping factors
    target      "mean": of observations under the same conditions, in the same groups, or over all of them where
                effects is "fixed". "observation": one more, whose groups are new where effects is "fixed"
    parameters  "known": the se takes the variance parameters as known. "estimated": it has what their estimation adds,
                by 2 g3 of Kackar and Harville (see `kackar_sums`), Kenward and Roger's adjustment where effects is
                "fixed"; second-order unbiased under REML. Parameters on the boundary are held there
    new_levels  levels of a grouping factor that are not in the fit: "error" refuses them, "population" takes them as
                draws from the population of levels
    level       of the intervals, estimate ± a normal quantile times se, whatever `parameters` is

    se          contains the uncertainty of β and of b (jointly, over all factors), the between-level variance of
                every new level and, for an observation, the residual variance. `frame.attrs["se_contains"]` says it
    population  x'β + offset
    new_levels  names of the grouping factors whose level was not observed

    Raises FitError for options that do not exist and where "estimated" is not available, DesignError for missing
    values, for categories that a fixed predictor did not have in the fit, and for levels that are refused.
    """
    _check_options(target=(target, Target), effects=(effects, Effects), parameters=(parameters, Parameters))
    reach = quantile(level)
    fixed = effects == "fixed"
    rows = population_rows(fit.design, new) if fixed else rows_to_predict(fit.design, new, new_levels)
    population = rows.X @ fit.beta + rows.offset
    estimate = population.copy()
    variance = _known_part(fit, rows)
    fresh = np.full(len(population), "", dtype=object)
    for factor, root, b, Z, codes in zip(
        fit.design.factors, covariance_roots(fit), fit.b, rows.Z, rows.codes, strict=True
    ):
        seen = codes >= 0
        estimate[seen] += (Z[seen] * b[codes[seen]]).sum(axis=1)
        if not fixed:
            fresh[~seen] = [f"{text}, {factor.name}" if text else factor.name for text in fresh[~seen]]
        if not fixed or target == "observation":
            variance[~seen] += np.square(Z[~seen] @ root).sum(axis=1)
    if target == "observation":
        variance += observation_variances(fit, rows)
    if parameters == "estimated":
        variance += 2 * estimation_variance(fit, rows)
    se = np.sqrt(variance)
    columns = {"estimate": estimate, "se": se, "lower": estimate - reach * se, "upper": estimate + reach * se}
    frame = pd.DataFrame(columns | {"population": population, "new_levels": fresh}, index=rows.index)
    if rows.notes:
        frame.attrs["group_means"] = " ".join(rows.notes)
    frame.attrs["se_contains"] = _contains(fit, target, effects, parameters)
    return frame


def _check_options(**given: tuple[object, object]) -> None:
    for name, (value, kind) in given.items():
        one, other = get_args(kind)
        if value not in (one, other):
            raise FitError(f"`{name}` is {one!r} or {other!r}; found {value!r}. Use one of these.")


def _contains(fit: LMMFit, target: Target, effects: Effects, parameters: Parameters) -> str:
    """What a standard error is made of, in words."""
    parts = ["uncertainty of the fixed effects"]
    if effects == "conditional":
        parts[0] += " and of the random effects"
        parts.append("the between-group variance of new levels")
    elif target == "observation":
        parts.append("the between-group variance of every factor")
    if target == "observation":
        parts.append("the residual variance")
    if parameters == "known":
        return f"{', '.join(parts)}; not the uncertainty of the variance parameters"
    bias = "" if fit.method == "reml" else "; not the bias of variance parameters by maximum likelihood"
    held = "; parameters on the boundary are held there, as if known" if fit.singular else ""
    added = "the uncertainty of the variance parameters (2 g3, Kackar and Harville 1984)"
    return f"{', '.join(parts)}, {added}{held}{bias}"


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
