"""Variance components: variances, standard deviations, correlations, shares, and their standard errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_frames import NORMAL_975, correlation, covariance_roots
from hierlmm.frequentist.lmm_structured import relative_variances, residual_variances, structured_rows
from hierlmm.frequentist.lmm_variance_rows import RESIDUAL, Row, covariance_row, variance_rows
from hierlmm.likelihood.information import VarianceParameter, information

if TYPE_CHECKING:
    from hierlmm.design.crossproducts import CrossProducts
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]


def shares(fit: LMMFit) -> pd.Series:
    """Share of the mean marginal variance of a row that each grouping factor and the residual carry.

    For a random intercept this is the intraclass correlation; with random slopes the factor's variance z'Gz depends
    on the row and is averaged over the rows of the fit.
    """
    if (streamed := fit.design.streamed) is not None:  # the means weighted by precision
        traces = [
            float(np.trace(root.T @ ZZ @ root))
            for ZZ, root in zip(streamed.squares, covariance_roots(fit), strict=True)
        ]
        residual = fit.sigma2 * streamed.variance * _mean_relative_variance(fit)
    else:
        traces = [
            float(np.square(factor.Z @ root).sum(axis=1).mean())
            for factor, root in zip(fit.design.factors, covariance_roots(fit), strict=True)
        ]
        residual = float(residual_variances(fit).mean())
    parts = dict(zip((factor.name for factor in fit.design.factors), traces, strict=True))
    parts[RESIDUAL] = residual
    total = sum(parts.values())
    return pd.Series(parts, name="share") / (total if total > 0 else 1.0)


def _mean_relative_variance(fit: LMMFit) -> float:
    """Mean over the rows of a stream of the residual variance of a row's stratum over that of the first."""
    assert fit.design.streamed is not None
    if not (strata := fit.design.streamed.strata):
        return 1.0
    return float(np.average(relative_variances(fit), weights=[part.n for part in strata]))


@dataclass(frozen=True, slots=True, eq=False)
class ParameterCovariance:
    """Asymptotic covariance (k, k) of the estimates of `parameters`, whose matrices are those of the working scale.

    There the columns of Z are orthonormal, so that no digits are lost; with x far from 0 those of the data scale are
    singular as far as doubles can tell. `maps` takes the working elements to those of the data scale, linearly.
    """

    parameters: tuple[VarianceParameter, ...]
    working: Array
    maps: Array

    def of(self, gradient: Array) -> float:
        """Variance of a function of the parameters with this gradient (k,) in the working elements."""
        return float(gradient @ self.working @ gradient)


def parameter_covariance(fit: LMMFit) -> ParameterCovariance | None:
    """Inverse information of the variance parameters.

    Parameters on the boundary (a singular block) are held: their rows are zero, and the others' covariance is
    conditional on them. None where the likelihood is unbounded.
    """
    if fit.at is None:
        return None
    found = information(working_scale(fit.equations), fit.at, fit.method)
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
    return ParameterCovariance(found.parameters, covariance, _maps(fit, found.parameters))


def working_scale(equations: CrossProducts) -> CrossProducts:
    """The same products with the working scale as that of the data."""
    return replace(equations, Z_map=tuple(np.eye(len(B)) for B in equations.Z_map))


def _maps(fit: LMMFit, parameters: tuple[VarianceParameter, ...]) -> Array:
    """(k, k) derivatives of the elements of G = B G_work B' and of sigma² in those of the working scale."""
    out = np.zeros((len(parameters), len(parameters)))
    for i, data in enumerate(parameters):
        if data.factor < 0:
            out[i, i] = 1.0
            continue
        B = fit.equations.Z_map[data.factor]
        out[i] = _elements(parameters, data.factor, np.outer(B[data.row], B[data.column]))
    return out


def _elements(parameters: tuple[VarianceParameter, ...], factor: int, D: Array) -> Array:
    """(k,) gradient in the elements of one factor's symmetric matrix of a function whose differential is tr(D dG)."""
    out = np.zeros(len(parameters))
    for i, parameter in enumerate(parameters):
        if parameter.factor == factor:
            a, b = parameter.row, parameter.column
            out[i] = D[a, a] if a == b else D[a, b] + D[b, a]
    return out


def _block_is_singular(fit: LMMFit, parameter: VarianceParameter) -> bool:
    assert fit.at is not None
    block = next(b for b in fit.equations.blocks[parameter.factor] if parameter.row in b)
    Lambda = fit.at.factors[parameter.factor][np.ix_(block, block)]
    return bool((np.diagonal(Lambda) == 0).any())


def variance_frame(fit: LMMFit) -> pd.DataFrame:
    """group, term, term2, quantity, estimate, se, lower, upper.

    Standard errors are asymptotic, from the expected information (the average information for very large crossed
    designs and for covariance structures: it lies between the expected and the observed one, on which nlme's intervals
    rest, and all three agree where the structure fits and the data say much of its parameters). Intervals are 95 % by
    the delta method on log scale for variances and sds, atanh for correlations. Where a component lies on the boundary
    neither exists and both are missing; `outcome` says so. A residual structure adds, for group Residual, a variance
    for each occasion or stratum (term), its correlations (term and term2 two occasions, or term "lag 1"), range and
    nugget.
    """
    rows = list(_component_rows(fit, parameter_covariance(fit)) if is_plain(fit) else structured_rows(fit))
    frame = pd.DataFrame(rows, columns=["group", "term", "term2", "quantity", "estimate", "se", "lower", "upper"])
    share = shares(fit)
    more = pd.DataFrame({"group": share.index, "term": "", "term2": "", "quantity": "share", "estimate": share.values})
    more[["se", "lower", "upper"]] = np.nan
    return pd.concat([frame, more], ignore_index=True)


def is_plain(fit: LMMFit) -> bool:
    """Whether the residuals are independent with one unknown variance and every random block is unstructured."""
    cp = fit.equations
    general = all(structure == "general" for own in cp.structures for structure in own)
    return general and not len(fit.phi) and not cp.known_sigma2


def _component_rows(fit: LMMFit, found: ParameterCovariance | None) -> Iterator[Row]:
    variance = _data_variances(found)
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        place = fit.equations.order.index(f)
        corr = correlation(G)
        for block in factor.blocks:
            for a in block:
                own = variance.get(VarianceParameter(place, a, a), 0.0)
                yield from variance_rows(factor.name, factor.coefficients[a], G[a, a], own)
            for c in range(len(block)):
                for r in block[c + 1 :]:
                    names = factor.coefficients[r], factor.coefficients[block[c]]
                    se = np.sqrt(variance.get(VarianceParameter(place, r, block[c]), 0.0))
                    yield covariance_row(factor.name, names, G[r, block[c]], se)
                    rho = float(corr[r, block[c]])
                    if se <= 0 or found is None:
                        yield factor.name, *names, "correlation", rho, np.nan, np.nan, np.nan
                    else:
                        yield _correlation_row(factor.name, names, rho, place, (r, block[c]), fit, found)
    yield from variance_rows(RESIDUAL, "", fit.sigma2, variance.get(VarianceParameter(-1, 0, 0), 0.0))


def _data_variances(found: ParameterCovariance | None) -> dict[VarianceParameter, float]:
    """Asymptotic variance of the estimate of each element on the data scale."""
    if found is None:
        return {}
    variance = np.einsum("ij,jk,ik->i", found.maps, found.working, found.maps)
    return dict(zip(found.parameters, np.maximum(variance, 0.0).tolist(), strict=True))


def _correlation_row(
    group: str,
    names: tuple[str, str],
    rho: float,
    place: int,
    pair: tuple[int, int],
    fit: LMMFit,
    found: ParameterCovariance,
) -> Row:
    """A correlation that is not exactly 1, with the delta-method error and an interval on the scale of atanh.

    Near ±1, where x lies far from 0, 1 - rho² = det / (v1 v2) keeps its digits, and drho follows from its logarithm:
    drho = (1 - rho²) / (2 rho) (dlog v1 + dlog v2 - dlog det).
    """
    assert fit.at is not None
    W = fit.equations.Z_map[place][list(pair)]
    half = np.sqrt(fit.sigma2) * fit.at.factors[place]
    first, second = W @ half
    both = np.outer(W[0], W[0]) / (first @ first) + np.outer(W[1], W[1]) / (second @ second)
    R = np.linalg.qr((W @ half).T).R
    left = float(R[1, 1] ** 2 / (second @ second))  # 1 - rho²
    if left < 0.5:
        Q = np.linalg.qr(W.T).Q
        inner = Q @ np.linalg.solve((Q.T @ half) @ (Q.T @ half).T, Q.T)
        D = left / (2 * rho) * (both - inner)
    else:
        D = np.outer(W[0], W[1]) / np.sqrt((first @ first) * (second @ second)) - rho / 2 * both
    se = np.sqrt(found.of(_elements(found.parameters, place, D)))
    z, half_width = np.copysign(np.log1p(abs(rho)) - 0.5 * np.log(left), rho), NORMAL_975 * se / left
    return (
        group, *names, "correlation", rho, float(se), float(np.tanh(z - half_width)), float(np.tanh(z + half_width))
    )  # fmt: skip
