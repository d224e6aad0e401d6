"""A verdict for every variance component: where it stands, the evidence from both sides, and what to report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.arearesults import AreaPosterior
from hierlmm.bayes.lmmresults import LMMPosterior
from hierlmm.frequentist.area.correlated_prediction import working_data
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.area.spatial_results import SpatialAreaFit
from hierlmm.frequentist.boundary_test import BoundaryTest, area_boundary_test, boundary_test
from hierlmm.frequentist.lmm_frames import correlation
from hierlmm.frequentist.lmm_results import LMMFit
from hierlmm.likelihood.area.criterion import ml_score, reml_score
from hierlmm.likelihood.area.interval import likelihood_of

Array = NDArray[np.float64]

# A random effect whose sd is below this share of the residual (or typical sampling) sd explains less than one
# percent of the variance beside it: for the reader it is zero.
NEGLIGIBLE = 0.1
# Posterior probability of a negligible sd, and p-value of the boundary test, from which on zero is not excluded.
DOUBT = 0.05
# Correlation this close to one in absolute value is a singular direction.
PERFECT = 1 - 1e-6


class Verdict(Enum):
    """Where a variance component stands; the value is the advice, completed by the numbers of the row."""

    INTERIOR = "Report the estimate with its interval; both analyses agree that it is not zero."
    NEAR_ZERO = (
        "Zero is not excluded: report the posterior interval of the sd, not a standard error of the variance, and "
        "keep the term if the design calls for it."
    )
    AT_ZERO = (
        "The estimate is exactly zero, which is not evidence that the variance is zero: report the posterior "
        "distribution of the sd, and do not use intervals that plug zero in."
    )
    SINGULAR_DIRECTION = (
        "One combination of the random effects has no variance in the fit: report the posterior of sd and correlation, "
        "or fit without the correlation; a correlation of exactly 1 or -1 is a boundary, not a finding."
    )
    NEGATIVE_MOMENT = (
        "The moment estimate is negative: a covariance between members of one group below zero, or too few groups; "
        "report it as it is, beside the REML answer."
    )
    UNIDENTIFIED = (
        "The data leave the sd open: its posterior has no mean, so the prior decides. Report medians under several "
        "priors, or find more groups."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    group: str
    term: str
    verdict: str
    estimate: float
    multiplier: float
    statistic: float
    df: str
    p: float
    posterior_near_zero: float
    direction: str
    advice: str


def boundary(fit: LMMFit | AreaFit, posterior: LMMPosterior | AreaPosterior) -> pd.DataFrame:
    """The frame of `Comparison.boundary`.

    estimate the variance, units of y squared per unit of the term squared; multiplier: the derivative of the
    criterion (-2 log likelihood) in that variance where the estimate is zero, positive where the data push it there,
    missing elsewhere; posterior_near_zero: posterior probability that the term's sd (times the root mean square of
    its column) is below a tenth of the residual sd (area level: of the median sampling sd).
    """
    if isinstance(fit, AreaFit) and isinstance(posterior, AreaPosterior):
        rows = [_area_row(fit, posterior)]
    elif isinstance(fit, LMMFit) and isinstance(posterior, LMMPosterior):
        rows = list(_lmm_rows(fit, posterior))
    else:
        rows = []
    return pd.DataFrame([asdict(row) for row in rows])


def _area_row(fit: AreaFit, posterior: AreaPosterior) -> _Row:
    test = area_boundary_test(fit)
    scale = float(np.sqrt(np.median(fit.design.D[fit.design.sampled])))
    near = probability_below(np.sqrt(posterior.A_nodes), posterior.weight, NEGLIGIBLE * scale)
    name = next(iter(posterior.propriety.sd))
    verdict = _verdict(fit.A_hat, test, near, posterior.propriety.sd[name] <= 1, "")
    return _row(test, verdict, fit.A_hat, _area_multiplier(fit) if fit.A_hat == 0 else np.nan, near, "")


def _area_multiplier(fit: AreaFit) -> float:
    """Derivative in A at 0 of −2 the log-likelihood of the method; moments may give 0 where it is negative."""
    if isinstance(fit, SpatialAreaFit):  # the largest over rho
        return -2 * fit.certificate.score
    score = reml_score if likelihood_of(fit.method) == "reml" else ml_score
    return float(-2 * score(0.0, *working_data(fit)))


def _lmm_rows(fit: LMMFit, posterior: LMMPosterior) -> Iterator[_Row]:
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        psi, weight = posterior.points.psi, posterior.points.weight
        rms = np.sqrt((factor.Z**2).mean(axis=0))
        for c, term in enumerate(factor.coefficients):
            near = probability_below(psi.sd[f][:, c] * rms[c] / psi.sigma, weight, NEGLIGIBLE)
            test = boundary_test(fit, factor.name, term) if fit.at is not None else _no_test(factor.name, term)
            block = next(b for b in factor.blocks if c in b)
            direction = _direction(G[np.ix_(block, block)], [factor.coefficients[i] for i in block])
            limit = posterior.propriety.sd.get(f"{factor.name}:{term}", np.inf)
            verdict = _verdict(G[c, c], test, near, limit <= 1, direction)
            multiplier = _multiplier(fit, f, c) if G[c, c] == 0 else np.nan
            yield _row(test, verdict, float(G[c, c]), multiplier, near, direction)


def probability_below(values: Array, weight: Array, bound: float) -> float:
    """P(value < bound) for positive weighted values (K,): nodes of an integration rule, or draws.

    A node stands for the stretch around it, so that half its weight lies below it; between nodes the distribution
    function is a power of the value, which it is exactly where it nears zero.
    """
    order = np.argsort(values, kind="stable")
    share = weight[order]
    middle = np.cumsum(share) - 0.5 * share
    used = middle > 0
    at, F = values[order][used], middle[used]
    return float(np.exp(np.interp(np.log(bound), np.log(at), np.log(F), left=-np.inf)))


def _row(
    test: BoundaryTest, verdict: Verdict, estimate: float, multiplier: float, near: float, direction: str
) -> _Row:
    return _Row(
        group=test.group,
        term=test.term,
        verdict=verdict.name.lower().replace("_", " "),
        estimate=estimate,
        multiplier=multiplier,
        statistic=test.statistic,
        df=f"{test.df[0]}, {test.df[1]}",
        p=test.p,
        posterior_near_zero=near,
        direction=direction,
        advice=verdict.value,
    )


def _verdict(estimate: float, test: BoundaryTest, near: float, no_mean: bool, direction: str) -> Verdict:
    """The first that applies, from the least to the most ordinary."""
    if no_mean:
        return Verdict.UNIDENTIFIED
    if estimate < 0:
        return Verdict.NEGATIVE_MOMENT
    if estimate == 0:
        return Verdict.AT_ZERO
    if direction:
        return Verdict.SINGULAR_DIRECTION
    if near > DOUBT or test.p > DOUBT:
        return Verdict.NEAR_ZERO
    return Verdict.INTERIOR


def _no_test(group: str, term: str) -> BoundaryTest:
    """Where the likelihood has no upper bound the statistic is infinite."""
    return BoundaryTest(group=group, term=term, statistic=np.inf, df=(0, 1), p=0.0)


def _direction(G: Array, names: list[str]) -> str:
    """The combination of random effects that has no variance, "" where the block has full rank.

    Coefficients are relative to the sds, so that they do not depend on units: Intercept - Time is a correlation of 1.
    """
    if len(names) < 2 or (np.diagonal(G) == 0).any():
        return ""
    values, vectors = np.linalg.eigh(correlation(G))
    if values[0] > 1 - PERFECT:
        return ""
    null = vectors[:, 0] / np.abs(vectors[:, 0]).max()
    null = null * np.sign(null[np.argmax(np.abs(null))])
    named = [(v, name) for v, name in zip(null, names, strict=True) if abs(v) > 1e-3]
    parts = [f"{'-' if v < 0 else '+'} {abs(v):.2g} {name}/sd" for v, name in named]
    return " ".join(parts).removeprefix("+ ")


def _multiplier(fit: LMMFit, factor: int, column: int) -> float:
    """Derivative of -2 log likelihood in the variance of one coefficient, data scale."""
    if fit.at is None:
        return np.nan
    place = fit.equations.order.index(factor)
    back = np.linalg.solve(fit.equations.Z_map[place].T, fit.at.G_T[place])
    slope = np.linalg.solve(fit.equations.Z_map[place].T, back.T).T
    return float(slope[column, column] / fit.sigma2)
