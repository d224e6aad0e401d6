"""Variance components: variances, standard deviations, correlations, shares, and their standard errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_frames import NORMAL_975, correlation
from hierlmm.likelihood.information import Information, VarianceParameter, information

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
RESIDUAL = "Residual"


def shares(fit: LMMFit) -> pd.Series:
    """Share of the mean marginal variance of a row that each grouping factor and the residual carry.

    For a random intercept this is the intraclass correlation; with random slopes the factor's variance z'Gz depends
    on the row and is averaged over the rows of the fit.
    """
    parts = {
        factor.name: float(np.einsum("ij,jk,ik->i", factor.Z, G, factor.Z).mean())
        for factor, G in zip(fit.design.factors, fit.G, strict=True)
    }
    parts[RESIDUAL] = fit.sigma2
    total = sum(parts.values())
    return pd.Series(parts, name="share") / (total if total > 0 else 1.0)


def parameter_covariance(fit: LMMFit) -> tuple[Information, Array] | None:
    """Information of the variance parameters and the asymptotic covariance of their estimates.

    Parameters on the boundary (a singular block) are held: their rows are zero, and the others' covariance is
    conditional on them. None where the likelihood is unbounded.
    """
    if fit.at is None:
        return None
    found = information(fit.equations, fit.at, fit.method)
    held = {
        i
        for i, parameter in enumerate(found.parameters)
        if parameter.factor >= 0 and _block_is_singular(fit, parameter)
    }
    free = [i for i in range(len(found.parameters)) if i not in held]
    covariance = np.zeros_like(found.matrix)
    part = found.matrix[np.ix_(free, free)]
    scale = np.sqrt(np.diagonal(part))
    covariance[np.ix_(free, free)] = np.linalg.solve(part / np.outer(scale, scale), np.diag(1 / scale)) / scale[:, None]
    return found, covariance


def _block_is_singular(fit: LMMFit, parameter: VarianceParameter) -> bool:
    assert fit.at is not None
    block = next(b for b in fit.equations.blocks[parameter.factor] if parameter.row in b)
    Lambda = fit.at.factors[parameter.factor][np.ix_(block, block)]
    return bool((np.diagonal(Lambda) == 0).any())


def variance_frame(fit: LMMFit) -> pd.DataFrame:
    """group, term, term2, quantity, estimate, se, lower, upper.

    Standard errors are asymptotic, from the expected information (the average information for very large crossed
    designs); intervals are 95 % by the delta method on log scale for variances and sds, atanh for correlations.
    Where a component lies on the boundary neither exists and both are missing; `outcome` says so.
    """
    found = parameter_covariance(fit)
    rows = list(_component_rows(fit, found))
    frame = pd.DataFrame(rows, columns=["group", "term", "term2", "quantity", "estimate", "se", "lower", "upper"])
    share = shares(fit)
    more = pd.DataFrame({"group": share.index, "term": "", "term2": "", "quantity": "share", "estimate": share.values})
    more[["se", "lower", "upper"]] = np.nan
    return pd.concat([frame, more], ignore_index=True)


Row = tuple[str, str, str, str, float, float, float, float]


def _component_rows(fit: LMMFit, found: tuple[Information, Array] | None) -> Iterator[Row]:
    positions = {} if found is None else {p: i for i, p in enumerate(found[0].parameters)}
    covariance = np.zeros((0, 0)) if found is None else found[1]
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        place = fit.equations.order.index(f)
        corr = correlation(G)
        for block in factor.blocks:
            for a in range(len(block)):
                index = positions.get(VarianceParameter(place, block[a], block[a]))
                variance = 0.0 if index is None else float(covariance[index, index])
                yield from _variance_rows(factor.name, factor.coefficients[block[a]], G[block[a], block[a]], variance)
            for c in range(len(block)):
                for r in range(c + 1, len(block)):
                    names = factor.coefficients[block[r]], factor.coefficients[block[c]]
                    index_three = [
                        positions.get(VarianceParameter(place, i, j))
                        for i, j in ((block[r], block[c]), (block[r], block[r]), (block[c], block[c]))
                    ]
                    yield from _pair_rows(
                        factor.name, names, G[block[r], block[c]], corr[block[r], block[c]],
                        G[block[r], block[r]], G[block[c], block[c]], covariance, index_three,
                    )  # fmt: skip
    last = positions.get(VarianceParameter(-1, 0, 0))
    yield from _variance_rows(RESIDUAL, "", fit.sigma2, 0.0 if last is None else float(covariance[last, last]))


def _variance_rows(group: str, term: str, value: float, variance: float) -> Iterator[Row]:
    """A variance and its square root with standard errors and log-scale intervals."""
    sd = float(np.sqrt(value))
    if variance <= 0 or value <= 0:
        yield group, term, "", "variance", float(value), np.nan, np.nan, np.nan
        yield group, term, "", "sd", sd, np.nan, np.nan, np.nan
        return
    se = float(np.sqrt(variance))
    spread = float(np.exp(NORMAL_975 * se / value))
    yield group, term, "", "variance", float(value), se, value / spread, value * spread
    yield group, term, "", "sd", sd, se / (2 * sd), sd / np.sqrt(spread), sd * np.sqrt(spread)


def _pair_rows(
    group: str,
    names: tuple[str, str],
    covariance: float,
    rho: float,
    first: float,
    second: float,
    asymptotic: Array,
    index: list[int | None],
) -> Iterator[Row]:
    """A covariance and its correlation; `index` are the positions of (covariance, both variances) in psi."""
    places = [i for i in index if i is not None]
    part = asymptotic[np.ix_(places, places)] if len(places) == 3 else np.zeros((3, 3))
    if part[0, 0] <= 0 or first <= 0 or second <= 0:
        yield group, *names, "covariance", float(covariance), np.nan, np.nan, np.nan
        yield group, *names, "correlation", float(rho), np.nan, np.nan, np.nan
        return
    se = float(np.sqrt(part[0, 0]))
    yield group, *names, "covariance", float(covariance), se, covariance - NORMAL_975 * se, covariance + NORMAL_975 * se
    slope = np.array([1 / np.sqrt(first * second), -rho / (2 * first), -rho / (2 * second)])
    rho_se = float(np.sqrt(max(slope @ part @ slope, 0.0)))
    z, half = np.arctanh(rho), NORMAL_975 * rho_se / (1 - rho**2)
    yield group, *names, "correlation", float(rho), rho_se, float(np.tanh(z - half)), float(np.tanh(z + half))
