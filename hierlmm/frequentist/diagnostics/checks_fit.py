"""Checks of the fit itself: its certificate, the boundary, the number of levels, directions without variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hierlmm.design.notes import FEW_LEVELS
from hierlmm.errors import listed
from hierlmm.frequentist.diagnostics.components import principal_components
from hierlmm.frequentist.diagnostics.findings import Finding, Verdict, graded

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Share of the variance of a factor's random effects below which a principal component is called empty.
EMPTY = 1e-3


def fit_findings(fit: LMMFit) -> Iterator[Finding]:
    """Findings that need no residuals."""
    yield _certificate(fit)
    yield _boundary(fit)
    yield from _levels(fit)
    yield from _components(fit)


def _certificate(fit: LMMFit) -> Finding:
    from hierlmm.frequentist.lmm_results import LMMOutcome

    degenerate = fit.outcome in (LMMOutcome.NO_RESIDUAL, LMMOutcome.NO_VARIATION)
    if degenerate:
        return Finding(
            topic="optimum",
            value="the residual variance is zero: the model reproduces the response",
            verdict=Verdict.ACT,
            advice="Check whether a factor has a level for each row, or the response is computed from the predictors.",
        )
    certified = fit.outcome not in (LMMOutcome.NOT_CERTIFIED, LMMOutcome.BOUND_NOT_CERTIFIED)
    others = f"; {len(fit.certificate.others)} other optima were found" if fit.certificate.others else ""
    return graded(
        "optimum",
        f"{'certified' if certified else 'NOT certified'}, Newton decrement {fit.certificate.decrement:.1e}{others}",
        "Compare the criteria of the optima in the notes of the fit." if certified else
        "Do not report these estimates. Rescale the predictors or simplify the random effects.",
        look=bool(fit.certificate.others),
        act=not certified,
    )  # fmt: skip


def _boundary(fit: LMMFit) -> Finding:
    if not fit.singular:
        return Finding(topic="boundary", value="no covariance matrix is singular", verdict=Verdict.OK)
    zero = [
        f"{factor.name}:{name}"
        for factor, G in zip(fit.design.factors, fit.G, strict=True)
        for name, variance in zip(factor.coefficients, G.diagonal(), strict=True)
        if variance == 0
    ]
    value = f"variance of exactly zero: {listed(zero)}" if zero else "a correlation or combination is degenerate"
    return Finding(
        topic="boundary",
        value=value,
        verdict=Verdict.LOOK,
        advice="The estimate is valid; its standard errors treat the variance as known to be zero. Give a profile "
        "interval, whose end point may be zero, or leave out what the design does not support.",
    )


def _levels(fit: LMMFit) -> Iterator[Finding]:
    for factor in fit.design.factors:
        G = len(factor.levels)
        yield graded(
            f"levels of {factor.name}",
            f"{G} levels; a variance needs {FEW_LEVELS} or more",
            f"The variance between {G} levels is hardly known: give its interval, or make {factor.name} fixed.",
            look=G < FEW_LEVELS,
        )


def _components(fit: LMMFit) -> Iterator[Finding]:
    frame = principal_components(fit, "working")
    for factor in fit.design.factors:
        if len(factor.coefficients) < 2:
            continue
        share = frame.loc[frame["group"] == factor.name, "share"].to_numpy()
        empty = int((~(share >= EMPTY)).sum())
        yield graded(
            f"dimensions of {factor.name}",
            f"{len(share) - empty} of {len(share)} components carry 0.1 % or more of the variance (columns of Z made "
            "orthonormal)",
            "The data do not support all of these random effects: drop a slope or its correlations, and compare.",
            look=empty > 0,
        )
