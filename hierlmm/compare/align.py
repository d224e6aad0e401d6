"""Every quantity of a fit beside the same quantity of a posterior, matched by label and never by position."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.bayes.spatial_results import SpatialAreaPosterior
from hierlmm.errors import ComparisonError, listed
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.frequentist.lmm_results import LMMFit

LABELS = ["part", "group", "level", "term", "term2", "quantity"]
VALUES = ["estimate", "se", "posterior", "sd", "lower", "upper", "mcse"]


# A Monte Carlo standard error this small beside the posterior sd is the rounding of equal draws: there is no error.
ROUNDING = 1e-10


def aligned(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior) -> pd.DataFrame:
    """The table of `Comparison.table`. Raises ComparisonError where the two do not have the same labels."""
    if isinstance(fit, AreaFit) and isinstance(posterior, AreaPosterior):
        parts = _area_parts(fit, posterior)
    elif isinstance(fit, LMMFit) and isinstance(posterior, LMMPosterior):
        parts = _lmm_parts(fit, posterior)
    else:
        raise ComparisonError(
            "A fit and a posterior must be of the same family; found "
            f"{type(fit).__name__} and {type(posterior).__name__}. Compute both from one spec."
        )
    table = pd.concat(parts, ignore_index=True)
    for column in ("gamma", "posterior_gamma"):
        if column not in table:
            table[column] = np.nan
    return differences(table[[*LABELS, *VALUES, "gamma", "posterior_gamma"]])


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with difference, in_sd and in_mcse; missing where a divisor is zero or absent."""
    difference = table["posterior"] - table["estimate"]
    sd = table["sd"].where(table["sd"] > 0)
    mcse = table["mcse"].where(table["mcse"] > ROUNDING * sd)
    return table.assign(difference=difference, in_sd=difference / sd, in_mcse=difference / mcse)


def _area_parts(fit: AreaFit, posterior: AreaPosterior) -> list[pd.DataFrame]:
    areas = _matched(fit.model_scale, posterior.model_scale, ["area"])
    areas = areas.rename(columns={"area": "level"}).assign(part="area", quantity="mean")
    areas = areas.rename(columns={"gamma_posterior": "posterior_gamma"})
    variance = _matched(_with_tau(fit.A), posterior.A, ["term"]).assign(part="variance", quantity=["variance", "sd"])
    parts = [_part(areas), _part(_matched(fit.fixed, posterior.fixed, ["term"]).assign(part="fixed")), _part(variance)]
    if isinstance(fit, SpatialAreaFit) and isinstance(posterior, SpatialAreaPosterior):
        rho = _matched(fit.rho, posterior.rho, ["term"])
        parts.append(_part(rho.assign(part="variance", quantity="autocorrelation")))
    return parts


def _with_tau(A: pd.DataFrame) -> pd.DataFrame:
    """The fit's row A, and tau = √A with its standard error by the delta method; missing at zero, where it fails."""
    row = A[["term", "estimate", "se"]]
    root = np.sqrt(row["estimate"])
    tau = row.assign(term="tau", estimate=root, se=row["se"] / (2 * root.where(root > 0)))
    return pd.concat([row, tau], ignore_index=True)


def _lmm_parts(fit: LMMFit, posterior: LMMPosterior) -> list[pd.DataFrame]:
    fixed = _matched(fit.fixed, posterior.fixed, ["term"]).assign(part="fixed")
    variance = _matched(
        fit.variance_components, posterior.variance_components, ["group", "term", "term2", "quantity"]
    ).assign(part="variance")
    labels = ["group", "level", "term"]
    random = _matched(fit.random_effects, posterior.random_effects, labels).assign(part="random effect")
    sums = _matched(fit.group_coefficients, posterior.group_coefficients, labels).assign(part="group coefficient")
    return [_part(fixed), _part(variance), _part(random), _part(sums)]


def _part(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of the table, labels that do not apply left empty."""
    out = frame.copy()
    for column in LABELS:
        if column not in out:
            out[column] = ""
    kept = [*LABELS, *VALUES, *(c for c in ("gamma", "posterior_gamma") if c in out)]
    return out[kept]


def _matched(ours: pd.DataFrame, theirs: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Rows of both frames side by side in the order of the fit's; theirs become posterior, sd, lower, upper, mcse."""
    names = {"estimate": "posterior", "se": "sd"}
    right = theirs.rename(columns=names)
    wanted = ["posterior", "sd", "lower", "upper", "mcse", *(["gamma"] if "gamma" in ours and "gamma" in right else [])]
    left = ours[[*labels, *(c for c in ("estimate", "se", "gamma") if c in ours)]]
    merged = left.merge(right[[*labels, *wanted]], on=labels, how="outer", indicator=True, sort=False,
                        suffixes=("", "_posterior"))  # fmt: skip
    lone = merged[merged["_merge"] != "both"]
    if len(lone):
        raise ComparisonError(
            "Every quantity of the fit must have its partner in the posterior; "
            f"{len(lone)} have none: {listed(lone[labels].astype(str).agg(' '.join, axis=1))}. "
            "Compute both from one spec and one table."
        )
    order = {tuple(row): i for i, row in enumerate(left[labels].itertuples(index=False, name=None))}
    place = [order[tuple(row)] for row in merged[labels].itertuples(index=False, name=None)]
    return merged.drop(columns="_merge").iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
