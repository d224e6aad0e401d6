"""Which variance components lie on the boundary of their parameter space, in words, with the evidence."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import listed
from hierlmm.frequentist.lmm_frames import correlation

if TYPE_CHECKING:
    from hierlmm.design.types import GroupingFactor
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
WIDTH = 80


def boundary_lines(fit: LMMFit) -> list[str]:
    """One sentence a block of random effects whose covariance matrix is singular, or one that there is none.

    Nothing where there are no random effects, and where the point is no optimum.
    """
    from hierlmm.frequentist.lmm_results import LMMOutcome

    if not fit.design.factors or fit.at is None or fit.outcome is LMMOutcome.NOT_CERTIFIED:
        return []
    found = list(_verdicts(fit))
    if fit.outcome in (LMMOutcome.RESIDUAL_BOUND, LMMOutcome.BOUND_NOT_CERTIFIED):
        found.append("Residual: the parameters of its structure are at their bound; the notes say where.")
    if not found:
        return ["", "Boundary: every variance component is inside its parameter space."]
    lines = ["", "Boundary"]
    for sentence in found:
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _verdicts(fit: LMMFit) -> Iterator[str]:
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        for block in factor.blocks:
            here = np.ix_(block, block)
            zero = [a for a in block if G[a, a] == 0]
            if zero:
                yield f"{_names(factor, zero)} has variance 0{_slope(fit, f, block)}: no level differs from another."
            elif (rank := int(np.linalg.matrix_rank(fit.theta[f][here]))) < len(block):
                yield _deficient(factor, block, correlation(G), rank)


def _names(factor: GroupingFactor, coefficients: list[int]) -> str:
    return f"{factor.name}: {listed([factor.coefficients[a] for a in coefficients])}"


def _slope(fit: LMMFit, f: int, block: tuple[int, ...]) -> str:
    """How the criterion changes with a single variance at zero."""
    if len(block) > 1:
        return ""
    assert fit.at is not None
    place, a = fit.equations.order.index(f), block[0]
    slope = fit.at.G_T[place][a, a] / (fit.equations.Z_map[place][a, a] ** 2 * fit.at.sigma2)
    return f", where the criterion rises by {slope:.4g} per unit of it"


def _deficient(factor: GroupingFactor, block: tuple[int, ...], corr: Array, rank: int) -> str:
    """Which correlation is 1 or -1, or that a combination of more effects has no variance."""
    names = [factor.coefficients[a] for a in block]
    if len(block) == 2:
        sign = "1" if corr[block[0], block[1]] > 0 else "-1"
        return f"{factor.name}: {names[0]} and {names[1]} have correlation {sign}."
    return f"{factor.name}: the covariance matrix of {listed(names)} has rank {rank} of {len(block)}."
