"""Nine estimators of the area variance A, by name.

    reml, ml          restricted and full maximum likelihood over A >= 0
    fh                Σ (y_i − x_i'β̃(A))²/(A + D_i) = m − p, 0 where there is no positive root (Fay and Herriot 1979,
                      JASA 74:269-277)
    pr                [Σ r_i² − Σ D_i (1 − h_ii)]/(m − p), r and h of ordinary least squares, cut at 0 (Prasad and Rao
                      1990, JASA 85:163-171)
    amrl_ll, ampl_ll  restricted and profile likelihood times A (Li and Lahiri 2010, JMVA 101:882-892)
    amrl_yl, ampl_yl  the same times [arctan Σ γ_i]^(1/m) (Yoshimori and Lahiri 2014, JMVA 124:281-294)
    mix               REML where it is positive, otherwise ampl_ll (Rubin-Bleuer and You 2016, Survey Methodology
                      42:63-85)

The five last are positive whatever the data. Li and Lahiri's need m − p > 2 on the restricted and m > 2 on the profile
likelihood: with fewer areas A times the likelihood has no maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import terms_and_factor
from hierlmm.likelihood.area.moment_equations import equation_root, left_over, raw_moment
from hierlmm.likelihood.area.objective import OBJECTIVES
from hierlmm.likelihood.area.variance import Solved, VarianceEstimate, at_one, maximise
from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# What is left of a moment equation, as a share of m − p, where it counts as solved.
SOLVED = 1e-10


def _fay_herriot(work: Working) -> Solved:
    A, evaluations = equation_root(work)
    return _moment(float(A[0]), work, float(left_over(A, work)[0]), math.nan, evaluations)


def _prasad_rao(work: Working) -> Solved:
    raw, scale = float(raw_moment(work)[0]), work.basis.scale
    A = max(0.0, raw)
    return _moment(A, work, (raw - A) * scale, raw * scale, 0)


def _moment(A: float, work: Working, rest: float, raw: float, evaluations: int) -> Solved:
    """The record of a moment estimate A in working units that leaves `rest` of its equation."""
    at, fit = terms_and_factor(np.array([A]), work)
    estimate = VarianceEstimate(
        A=A * work.basis.scale,
        score=rest,
        multiplier=max(0.0, -rest) if A == 0 else 0.0,
        decrement=0.0,
        converged=A == 0 or abs(rest) <= SOLVED,
        maxima=(A * work.basis.scale,),
        evaluations=evaluations + 1,
        raw=raw,
        lifted=False,
        **at_one(at, 0, work),
    )
    return Solved(estimate, fit)


def _mix(work: Working) -> Solved:
    """Where REML is zero the certificate is that of ampl_ll."""
    solved = maximise(OBJECTIVES["reml"], work)
    if solved.estimate.A > 0:
        return solved
    solved = maximise(OBJECTIVES["ampl_ll"], work)
    return Solved(replace(solved.estimate, lifted=True), solved.fit)


ON_WORKING: dict[str, Callable[[Working], Solved]] = {
    "reml": partial(maximise, OBJECTIVES["reml"]),
    "ml": partial(maximise, OBJECTIVES["ml"]),
    "fh": _fay_herriot,
    "pr": _prasad_rao,
    "amrl_ll": partial(maximise, OBJECTIVES["amrl_ll"]),
    "ampl_ll": partial(maximise, OBJECTIVES["ampl_ll"]),
    "amrl_yl": partial(maximise, OBJECTIVES["amrl_yl"]),
    "ampl_yl": partial(maximise, OBJECTIVES["ampl_yl"]),
    "mix": _mix,
}


def estimate(method: str, y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â by a method of `ESTIMATORS`; y (m,), X (m, p) of full column rank with p < m, D (m,) positive."""
    return ON_WORKING[method](working(y, X, D)).estimate


ESTIMATORS: dict[str, Callable[[Vector, Matrix, Vector], VarianceEstimate]] = {
    method: partial(estimate, method) for method in ON_WORKING
}
estimate_reml, estimate_ml = ESTIMATORS["reml"], ESTIMATORS["ml"]


def areas_needed(method: str, p: int) -> int:
    """The fewest areas with which the estimate exists, p the number of coefficients."""
    return {"amrl_ll": p + 3, "ampl_ll": max(3, p + 1), "mix": max(3, p + 1)}.get(method, p + 1)
