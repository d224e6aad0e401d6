"""Tests of ρ = 0 and of A = 0 in the spatial area-level model.

    ρ = 0   2 log likelihood ratio against the model with independent effects; χ²₁, ρ = 0 being inside its interval
    A = 0   2 log likelihood ratio against no area effects. ρ is not identified there, so that the statistic is the
            largest of many dependent ones and no mixture of χ² is its law. With A = 0 the sampling covariance is all
            there is, and it is known: the law of the statistic has no unknown parameter (β does not enter it) and is
            simulated, which makes the test exact for any number of simulations (Dufour 2006, J. Econometrics
            133:443-477)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.errors import FitError
from hierlmm.frequentist.area.spatial import check_method, problem_of
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.spatial import node
from hierlmm.likelihood.area.spatial_many import zero_statistics
from hierlmm.likelihood.area.spatial_search import loglik_at

if TYPE_CHECKING:
    from hierlmm.frequentist.area.spatial_results import SpatialAreaFit


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialTest:
    """A test of one variance parameter of a spatial fit.

    parameter    "rho" or "A", which is 0 under the null hypothesis
    statistic    2 log likelihood ratio of the criterion that was fitted, not negative
    p            its p-value; law, in words, where that comes from
    simulations  0 where the law is χ²₁
    """

    parameter: str
    statistic: float
    p: float
    law: str
    simulations: int = 0

    def __str__(self) -> str:
        return f"{self.parameter} = 0: LRT {self.statistic:.4f}, {self.law}, p = {self.p:.4g}"


def test_of(
    fit: SpatialAreaFit, parameter: str, simulations: int, seed: int | np.random.Generator | None
) -> SpatialTest:
    """The test of "rho" or "A". Raises FitError for another parameter, and for a seed that A needs and is not given."""
    if parameter == "rho":
        return rho_test(fit)
    if parameter != "A":
        raise FitError(f"A test is of 'rho' or of 'A'; found {parameter!r}. Use one of these.")
    if seed is None:
        raise FitError("The test of A = 0 simulates, and each draw follows from a seed; found none. Give seed=1.")
    return variance_test(fit, simulations, seed)


def rho_test(fit: SpatialAreaFit) -> SpatialTest:
    """Against independent effects, by the likelihood ratio; exactly 1 where Â is 0 and nothing depends on ρ."""
    from scipy.special import gammaincc

    at = node(problem_of(fit.design), 0.0)
    null = loglik_at(at, ESTIMATORS[check_method(fit.method)](at.y, at.Q, at.d), fit.method)
    statistic = 0.0 if fit.A_hat == 0 else max(0.0, 2 * (fit.loglik - null))
    return SpatialTest(parameter="rho", statistic=statistic, p=float(gammaincc(0.5, statistic / 2)), law="chi²(1)")


def variance_test(fit: SpatialAreaFit, simulations: int, seed: int | np.random.Generator) -> SpatialTest:
    """Against no area effects, by simulation at A = 0: p = (1 + simulated statistics not below)/(1 + simulations)."""
    check_count("simulations", simulations, "simulations", 999)
    given = problem_of(fit.design)
    m = len(given.inside)
    z = generator_of(seed).standard_normal((simulations, m))
    Y = given.errors.back((np.sqrt(given.errors.d) * z).T).T
    method = check_method(fit.method)
    # the observed statistic on the points that the simulated ones are computed on: the same function of the data
    values = zero_statistics(given, np.concatenate([given.model.y[None], Y]), method)
    # equal zeros are ties, whatever their rounding
    tied = values[1:] >= values[0] - 1e-9 * max(1.0, abs(fit.loglik))
    p = (1 + int(tied.sum())) / (1 + simulations)
    statistic = 0.0 if fit.A_hat == 0 else max(0.0, 2 * (fit.loglik - _null(fit)))
    return SpatialTest(
        parameter="A", statistic=statistic, p=1.0 if fit.A_hat == 0 else p,
        law=f"{simulations} simulations at A = 0", simulations=simulations,
    )  # fmt: skip


def _null(fit: SpatialAreaFit) -> float:
    """Log likelihood at A = 0."""
    from hierlmm.likelihood.area.spatial_derivatives import curvature, derivatives

    at = node(problem_of(fit.design), 0.0)
    value = derivatives(at, curvature(at), 0.0, check_method(fit.method)).loglik
    return value if math.isfinite(value) else -math.inf
