"""Variance components of fits with covariance structures, of the random effects or of the residuals.

Everything is a function of (theta, phi, log sigma²), whose average information at the optimum is at hand; standard
errors follow by the delta method with exact derivatives. Elements of a singular block are held where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_model import structure_of
from hierlmm.frequentist.lmm_variance_rows import (
    RESIDUAL,
    Row,
    correlation_row,
    covariance_row,
    positive_row,
    variance_rows,
)
from hierlmm.likelihood.lmm_derivatives import freedom
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.residuals import CompoundSymmetry, HeterogeneousCompoundSymmetry, Natural
from hierlmm.likelihood.residuals.structure import AT_BOUND

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]

# Information on an element of phi, whose natural unit is 1, below which it is at the bound of its space and held there.
INFORMED = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """Asymptotic covariance (k, k) of (theta, phi, log sigma²); rows of what is held are zero."""

    parameters: Parameters
    covariance: Array

    def se(self, gradient: Array) -> float:
        """Standard error of a function with this gradient (k,); 0 where nothing it depends on is free."""
        return float(np.sqrt(max(float(gradient @ self.covariance @ gradient), 0.0)))


def uncertainty(fit: LMMFit) -> Uncertainty | None:
    """Inverse average information at the optimum; None where the likelihood is unbounded.

    What lies at the bound of its space is held there: the covariance matrix of an unstructured block of less than
    full rank, the eigenvalue of a compound symmetric one that is zero, and elements of phi on which nothing depends
    any more.
    """
    if fit.at is None:
        return None
    cp, at = fit.equations, fit.at
    parameters = Parameters.of(cp)
    k = len(at.slope)
    A = np.empty((k + 1, k + 1))
    A[:k, :k], A[:k, k] = at.quadratic / at.sigma2, at.slope / at.sigma2
    A[k, :k], A[k, k] = A[:k, k], freedom(cp, fit.method)
    free = np.ones(k + 1, dtype=bool)
    free[:k] = np.diagonal(at.quadratic) > 0
    free[len(parameters) : k] &= np.diagonal(A)[len(parameters) : k] > INFORMED
    held = _held(fit, parameters)
    free[held] = False
    free[k] = not cp.known_sigma2
    T = np.eye(k + 1)
    # of a block that is held G = sigma² Lambda Lambda' is, so that Lambda falls as sigma rises
    T[held, k] = -0.5 * parameters.theta(at.factors)[held]
    T = T[:, free]
    part = 0.5 * T.T @ A @ T
    scale = np.sqrt(np.diagonal(part))
    values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
    seen = values > 1e-15 * len(values) * values.max(initial=0.0)
    root = (T / scale) @ (vectors[:, seen] / np.sqrt(values[seen]))
    return Uncertainty(parameters, root @ root.T)


def _held(fit: LMMFit, parameters: Parameters) -> list[int]:
    """Elements of theta that belong to an unstructured block of less than full rank."""
    assert fit.at is not None
    held, start = list[int](), 0
    for E, Lambda, blocks in zip(parameters.basis, fit.at.factors, fit.equations.blocks, strict=True):
        for block in blocks:
            own = [start + k for k, matrix in enumerate(E) if matrix[np.ix_(block, block)].any()]
            if parameters.general[own[0]] and _is_singular(Lambda, block):
                held += own
        start += len(E)
    return held


def _is_singular(Lambda: Array, block: tuple[int, ...]) -> bool:
    """Whether a block of a covariance matrix has less than full rank."""
    return bool(np.linalg.matrix_rank(Lambda[np.ix_(block, block)]) < len(block))


def structured_rows(fit: LMMFit) -> Iterator[Row]:
    """The rows of every component: of the random effects, factor by factor, and of the residuals."""
    found = uncertainty(fit)
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        slopes = _covariance_slopes(fit, found, f)
        corr = correlation(G)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            singular = fit.at is not None and _is_singular(fit.at.factors[fit.equations.order.index(f)], block)
            # at a bound a variance may still be free, a correlation or any part of an unstructured block is not
            of_variance = None if singular and structure == "general" else found
            of_correlation = None if singular else found
            for a in block:
                variance = _se(of_variance, slopes[:, a, a]) ** 2
                yield from variance_rows(factor.name, factor.coefficients[a], G[a, a], variance)
            for c in range(len(block)):
                for r in block[c + 1 :]:
                    b = block[c]
                    names = factor.coefficients[r], factor.coefficients[b]
                    yield covariance_row(factor.name, names, G[r, b], _se(of_variance, slopes[:, r, b]))
                    rho = float(corr[r, b])
                    gradient = _correlation_slope(G, slopes, r, b, rho)
                    least = -1 / (len(block) - 1) if structure == "cs" else -1.0
                    yield correlation_row(factor.name, names, rho, _se(of_correlation, gradient), least)
    yield from residual_rows(fit, found)


def _se(found: Uncertainty | None, gradient: Array) -> float:
    return found.se(gradient) if found is not None else 0.0


def _covariance_slopes(fit: LMMFit, found: Uncertainty | None, f: int) -> Array:
    """(k, q, q) derivatives of G of factor f."""
    q = len(fit.G[f])
    if found is None or fit.at is None:
        return np.zeros((1, q, q))
    place = fit.equations.order.index(f)
    E, Lambda, B = found.parameters.basis[place], fit.at.factors[place], fit.equations.Z_map[place]
    out = np.zeros((len(found.covariance), q, q))
    start = sum(len(part) for part in found.parameters.basis[:place])
    half = E @ Lambda.T
    out[start : start + len(E)] = fit.sigma2 * (B @ (half + half.swapaxes(1, 2)) @ B.T)
    out[-1] = fit.G[f]
    return out


def _correlation_slope(G: Array, slopes: Array, r: int, c: int, rho: float) -> Array:
    if G[r, r] <= 0 or G[c, c] <= 0:
        return np.zeros(len(slopes))
    own = slopes[:, r, r] / G[r, r] + slopes[:, c, c] / G[c, c]
    return np.asarray(slopes[:, r, c] / np.sqrt(G[r, r] * G[c, c]) - 0.5 * rho * own)


def residual_rows(fit: LMMFit, found: Uncertainty | None) -> Iterator[Row]:
    """Variances by occasion or stratum, correlations, range and nugget of the residuals."""
    if fit.equations.known_sigma2:
        return
    k = 1 if found is None else len(found.covariance)
    scale = np.zeros(k)
    scale[-1] = fit.sigma2
    natural = natural_parameters(fit)
    labels = [] if fit.design.residual is None else [str(label) for label in fit.design.residual.occasions]
    varies = "variance_ratio" in natural.quantity
    yield from variance_rows(RESIDUAL, labels[0] if varies else "", fit.sigma2, _se(found, scale) ** 2)
    for quantity, index, value, slope in zip(
        natural.quantity, natural.index, natural.values, natural.jacobian, strict=True
    ):
        gradient = np.zeros(k)
        if found is not None:
            gradient[k - 1 - len(slope) : k - 1] = slope
        names = _names(quantity, index, labels)
        if quantity == "variance_ratio":
            total = fit.sigma2 * gradient + value * scale
            yield from variance_rows(RESIDUAL, names[0], fit.sigma2 * value, _se(found, total) ** 2)
        elif quantity == "correlation":
            yield correlation_row(RESIDUAL, names, float(value), _se(found, gradient), _least(fit))
        else:
            exact = 0.0 if quantity == "nugget" and value < AT_BOUND else float(value)
            yield positive_row(RESIDUAL, names, quantity, exact, _se(found, gradient))


def _least(fit: LMMFit) -> float:
    """The smallest correlation that the residual structure has."""
    structure = structure_of(fit.design)
    if isinstance(structure, CompoundSymmetry | HeterogeneousCompoundSymmetry):
        return -1 / (structure.largest - 1)
    return -1.0


def natural_parameters(fit: LMMFit) -> Natural:
    """The parameters of the residual structure as they are read; none for independent residuals, or without any."""
    structure = structure_of(fit.design)
    if structure is None or structure.size != len(fit.phi):
        return Natural((), (), np.zeros(0), np.zeros((0, 0)))
    return structure.natural(fit.phi)


def _names(quantity: str, index: tuple[int, ...], labels: list[str]) -> tuple[str, str]:
    """Labels of two occasions, of one, or of a lag; blanks where there is one parameter for all."""
    if len(index) == 2:
        return labels[index[0]], labels[index[1]]
    if not index:
        return "", ""
    return (labels[index[0]] if quantity == "variance_ratio" else f"lag {index[0]}"), ""


def residual_variances(fit: LMMFit) -> Array:
    """(n,) residual variance of each row, known relative variances included."""
    n = len(fit.design.y)
    out = np.full(n, fit.sigma2) if fit.design.scale is None else fit.sigma2 * fit.design.scale
    rows = fit.design.residual
    if rows is not None:
        out = out * relative_variances(fit)[rows.occasion] if len(rows.occasions) else out
    return np.asarray(out)


def relative_variances(fit: LMMFit) -> Array:
    """(T,) residual variance at each occasion or in each stratum over that at the first."""
    rows = fit.design.residual
    out = np.ones(0 if rows is None else len(rows.occasions))
    natural = natural_parameters(fit)
    for quantity, index, value in zip(natural.quantity, natural.index, natural.values, strict=True):
        if quantity == "variance_ratio":
            out[index[0]] = value
    return out
