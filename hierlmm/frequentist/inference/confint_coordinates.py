"""Which parameters of a fit have profiles, in which coordinates, and how their rows are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.profile_blocks import (
    Block,
    CompoundCorrelation,
    CompoundSd,
    GeneralCorrelation,
    GeneralSd,
    IdentitySd,
    basis,
)
from hierlmm.frequentist.inference.profile_coordinates import (
    Coordinates,
    OfBlock,
    OfEffect,
    OfResidual,
    OfResidualSd,
    Optimal,
)
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_model import structure_of
from hierlmm.frequentist.lmm_structured import residual_rows
from hierlmm.likelihood.lmm_derivatives import Derivatives
from hierlmm.likelihood.parameters import Parameters

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
# Two loadings of one coefficient on the working columns this nearly parallel are one direction.
PARALLEL = 1e-9


@dataclass(frozen=True, slots=True)
class Label:
    """The row of one parameter: names as in the variance components, or a fixed effect with quantity "effect"."""

    group: str
    term: str
    term2: str
    quantity: str
    estimate: float


def optimal(at: Derivatives) -> Optimal:
    """The optimum that a certificate was given for."""
    cp = at.cp
    return Optimal(cp, Parameters.of(cp).theta(at.factors), at.phi, 0.5 * float(np.log(at.sigma2)))


def of_variances(fit: LMMFit) -> Iterator[tuple[Label, Coordinates | None]]:
    """Label and coordinates of every sd, correlation and residual parameter; None where it is not defined."""
    assert fit.at is not None
    at = optimal(fit.at)
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        place, corr = fit.equations.order.index(f), correlation(G)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            rows = at.cp.Z_map[place][np.ix_(block, block)]
            for i, a in enumerate(block):
                of: Block = _sd(structure, rows, i, float(np.sqrt(fit.sigma2)))
                yield (
                    Label(factor.name, factor.coefficients[a], "", "sd", float(np.sqrt(G[a, a]))),
                    OfBlock(at, place, block, of),
                )
            for i, b in enumerate(block):
                for j, a in list(enumerate(block))[i + 1 :]:
                    if structure == "identity":
                        continue
                    names = factor.coefficients[a], factor.coefficients[b]
                    defined = G[a, a] > 0 and G[b, b] > 0
                    both = _correlation(structure, rows, j, i) if defined else None
                    estimate = float(corr[a, b]) if defined else np.nan
                    coordinates = None if both is None else OfBlock(at, place, block, both)
                    yield Label(factor.name, *names, "correlation", estimate), coordinates
    yield from _of_residuals(fit, at)


def _sd(structure: str, rows: Array, i: int, sigma: float) -> Block:
    m = len(rows)
    if structure == "general":
        return GeneralSd(basis(rows[[i]])[0], sigma * float(np.linalg.norm(rows[i])))
    unit = sigma * float(rows[0, 0])
    return IdentitySd(m, unit) if structure == "identity" else CompoundSd(m, unit)


def _correlation(structure: str, rows: Array, i: int, j: int) -> Block | None:
    if structure != "general":
        return CompoundCorrelation(len(rows))
    Q, coordinates = basis(rows[[i, j]])
    if abs(coordinates[1, 1]) < PARALLEL * np.linalg.norm(rows[j]):
        return None
    return GeneralCorrelation(Q, float(coordinates[1, 0]), float(coordinates[1, 1]))


def _of_residuals(fit: LMMFit, at: Optimal) -> Iterator[tuple[Label, Coordinates | None]]:
    """Sds by occasion, correlations, range and nugget of the residuals, in the order of the variance components."""
    if at.cp.known_sigma2:
        return
    structure = structure_of(fit.design)
    rows = [row for row in residual_rows(fit, None) if row[3] != "variance"]
    labels = [Label(*row[:4], row[4]) for row in rows]
    yield labels[0], OfResidualSd(at)
    if structure is None:
        return
    natural = structure.natural(at.phi)
    for i, (label, quantity, index) in enumerate(zip(labels[1:], natural.quantity, natural.index, strict=True)):
        if quantity == "variance_ratio":
            yield label, OfResidualSd(at, index[0], structure)
        else:
            one = OfResidual(at, structure, i, quantity)
            yield label, one if np.isfinite(one.start).all() and np.any(natural.jacobian[i]) else None


def of_effects(fit: LMMFit, ml: Derivatives) -> list[tuple[Label, Coordinates]]:
    """The fixed effects, from the ML optimum."""
    at, C = optimal(ml), ml.cp.X_map
    beta = C @ ml.solved.beta + ml.cp.X_shift
    root = np.linalg.solve(ml.solved.L_x, C.T)
    se = np.sqrt(ml.sigma2 * (root * root).sum(axis=0))
    labels = [Label("", term, "", "effect", b) for term, b in zip(fit.design.fixed, fit.beta.tolist(), strict=True)]
    return [(one, OfEffect(at, np.eye(len(C))[j], float(beta[j]), float(se[j]))) for j, one in enumerate(labels)]
