"""Nine estimators of the area variance A, by name: functions of y (m,), X (m, p) of full rank with p < m, D (m,) > 0.

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

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.area.criterion import terms
from hierlmm.likelihood.area.moment_equations import equation_root, left_over, raw_moment
from hierlmm.likelihood.area.objective import OBJECTIVES
from hierlmm.likelihood.area.variance import VarianceEstimate, at_one, maximise
from hierlmm.likelihood.area.working import Working, working

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# What is left of a moment equation, as a share of m − p, where it counts as solved.
SOLVED = 1e-10


def estimate_reml(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises ℓ_REML over A >= 0."""
    return maximise(OBJECTIVES["reml"], working(y, X, D))


def estimate_ml(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises ℓ_ML over A >= 0."""
    return maximise(OBJECTIVES["ml"], working(y, X, D))


def estimate_fh(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that solves Σ (y_i − x_i'β̃(A))²/(A + D_i) = m − p; 0 where the left side is below m − p from A = 0 on."""
    work = working(y, X, D)
    A, evaluations = equation_root(work)
    return _moment(float(A[0]), work, float(left_over(A, work)[0]), evaluations=evaluations)


def estimate_pr(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Prasad and Rao's unbiased quadratic estimate of A, cut at 0; `raw` is what it was before."""
    work = working(y, X, D)
    raw = float(raw_moment(work)[0])
    A = max(0.0, raw)
    scale = work.basis.scale
    return replace(_moment(A, work, (raw - A) * scale, evaluations=0), raw=raw * scale)


def _moment(A: float, work: Working, rest: float, *, evaluations: int) -> VarianceEstimate:
    """The record of a moment estimate A in working units that leaves `rest` of its equation."""
    at = terms(np.array([A]), work)
    return VarianceEstimate(
        A=A * work.basis.scale,
        score=rest,
        multiplier=max(0.0, -rest) if A == 0 else 0.0,
        decrement=0.0,
        converged=A == 0 or abs(rest) <= SOLVED,
        maxima=(A * work.basis.scale,),
        evaluations=evaluations + 1,
        lifted=False,
        **at_one(at, 0, work),
    )


def estimate_amrl_ll(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises log A + ℓ_REML; m − p > 2."""
    return maximise(OBJECTIVES["amrl_ll"], working(y, X, D))


def estimate_ampl_ll(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises log A + ℓ_ML; m > 2."""
    return maximise(OBJECTIVES["ampl_ll"], working(y, X, D))


def estimate_amrl_yl(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises (1/m) log arctan Σ γ_i + ℓ_REML."""
    return maximise(OBJECTIVES["amrl_yl"], working(y, X, D))


def estimate_ampl_yl(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â that maximises (1/m) log arctan Σ γ_i + ℓ_ML."""
    return maximise(OBJECTIVES["ampl_yl"], working(y, X, D))


def estimate_mix(y: Vector, X: Matrix, D: Vector) -> VarianceEstimate:
    """Â of REML where that is positive, otherwise that of `estimate_ampl_ll`, whose certificate it then carries."""
    work = working(y, X, D)
    estimate = maximise(OBJECTIVES["reml"], work)
    return estimate if estimate.A > 0 else replace(maximise(OBJECTIVES["ampl_ll"], work), lifted=True)


ESTIMATORS: dict[str, Callable[[Vector, Matrix, Vector], VarianceEstimate]] = {
    "reml": estimate_reml,
    "ml": estimate_ml,
    "fh": estimate_fh,
    "pr": estimate_pr,
    "amrl_ll": estimate_amrl_ll,
    "ampl_ll": estimate_ampl_ll,
    "amrl_yl": estimate_amrl_yl,
    "ampl_yl": estimate_ampl_yl,
    "mix": estimate_mix,
}
