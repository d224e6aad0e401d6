"""The mean squared errors that an area-level fit holds, and what they are: in words, with the reason.

    second order   g1 + g2 + 2 g3 − b(Â)(1−γ)², without bias to second order: see `likelihood.area.errors`
    positive       u exp(−c/u), u = g1 + g2 + 2 g3 and c = b(Â)(1−γ)², for the estimators whose b(Â) can be positive,
                   so that u − c can be negative: fh (its b is a sum of squares), amrl_ll, ampl_ll. For all others
                   b <= 0 and u − c >= u > 0
    averaged       where the likelihood or the moment equation itself says A = 0, whether or not an adjustment then
                   makes Â positive, an expansion around Â says nothing; nor does it where the second-order formula is
                   negative. There the error is averaged over what the data leave open about A, as
                   `likelihood.area.errors_integrated` does. It is positive, too

Simulation with 15 areas chose among them, D from nearly equal to three areas far more precise than the others. Given
Â = 0, and A 0.4 times a typical D, the average was 0.8 to 1.2 times the mean squared error there, the formula in the
median area from 0.85 down to a twelfth of it. At smaller A the average is above: 1.0 to 1.8 times at 0.2 D; at A = 0,
where the error itself is nearly nothing, 4 to 8 times in the median area and more in a precise one, the formula 1 to
4 times. So a fit is cautious where effects are small: over all data sets, Â = 0 or not, its errors by REML were 1.2
to 1.3 times the true ones at A = 0.3 D and 2.4 to 3.7 times at A = 0. tests/frequentist/area/test_mse.py holds a
small simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.errors import Asymptotics, ErrorTerms, asymptotics, error_terms, positive
from hierlmm.likelihood.area.errors_integrated import integrated_errors, matching_exists
from hierlmm.likelihood.area.moments import blup
from hierlmm.likelihood.area.variance import VarianceEstimate

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

# Which information the asymptotic variance of Â, and so g3, is the inverse of: Σ V⁻²/2 (its leading term, and what
# other programs use for ML and REML alike) or tr(P²)/2 (the exact expected information of REML).
Information = Literal["sum", "trace"]
PRINTED: dict[str, str] = {"sum": "2/Σ V⁻²", "trace": "2/tr P²"}
# Moment estimators have a variance of their own, whichever information is asked for.
MOMENTS: dict[str, str] = {"fh": "2 m/(Σ V⁻¹)²", "pr": "2 Σ V²/m²"}

SECOND_ORDER = "second order: g1 + g2 + 2 g3"
WITH_BIAS = "second order: g1 + g2 + 2 g3 − b(1−γ)², b the bias of Â"
POSITIVE = (
    "second order, positive by construction: u exp(−c/u), u = g1 + g2 + 2 g3, c = b(1−γ)², b the bias of Â; u − c can "
    "be negative for this estimator"
)
AVERAGED = (
    "averaged over what the data leave open about A, prior (A+D)²/(A+D̃)², D̃ the median D: {why}, where an expansion "
    "around Â does not hold"
)
FEW = (
    "; with {m} areas and {p} coefficients that prior leaves no posterior (it needs m > p + 2), and its proper factor "
    "(A+D̃)⁻² stands in"
)
VARIANCE = "; variance of Â behind g3: {}"
AT_ZERO = "Â is 0"
NEGATIVE = "the second-order formula is negative"
LIFTED = "the likelihood is highest at A = 0 and Â is positive by its adjustment alone"


@dataclass(frozen=True, slots=True, eq=False)
class FitErrors:
    """The terms, the variance and bias of Â behind them, and the mean squared errors (M,) to report; see `AreaFit`."""

    terms: ErrorTerms
    of_A: Asymptotics
    mse: Vector
    valid: NDArray[np.bool_]
    kind: str


def printed(method: str, information: Information) -> str:
    """The formula of the variance of Â behind g3."""
    return MOMENTS.get(method, PRINTED[information])


def variance_and_bias(
    method: str, estimate: VarianceEstimate, D: Vector, half: Matrix, information: Information
) -> Asymptotics:
    """v and b of Â: D (m,) and half (m, p) of the areas in the fit. The information is a choice for v alone."""
    found = asymptotics(_estimator(method, estimate), estimate.A, D, half)
    if information == "sum" or method in MOMENTS:
        return found
    return Asymptotics(1 / estimate.information_trace, found.bias)


def fit_errors(
    method: str, estimate: VarianceEstimate, information: Information, design: AreaDesign, half: Matrix
) -> FitErrors:
    """Mean squared errors of the M areas of a design; half (M, p), |row i|² = x_i'(X'V⁻¹X)⁻¹x_i at Â."""
    into = design.sampled
    of_A = variance_and_bias(method, estimate, design.D[into], half[into], information)
    known = np.where(design.role == "unsampled", np.inf, design.D)
    terms = error_terms(estimate.A, of_A, known, half)
    direct = design.role == "direct"
    fails = expansion_fails(estimate, terms.unbiased)
    if fails:
        mse = np.where(direct, 0.0, _averaged(design, estimate.A, design.X, places(design)))
    else:
        mse = reported(method, terms.unbiased, of_A, terms.shrinkage)
    few = fails and not matching_exists(int(into.sum()), half.shape[1])
    kind = kind_of(method, estimate, information, design, fails=fails)
    return FitErrors(terms, of_A, mse, direct | (estimate.converged and not few), kind)


def reported(method: str, unbiased: Vector, of_A: Asymptotics, shrinkage: Vector) -> Vector:
    """`unbiased` (k,) itself, or made positive for the estimators of which it can be negative; shrinkage (k,) 1 − γ."""
    if method not in CAN_BE_NEGATIVE:
        return unbiased
    correction = of_A.bias * np.square(shrinkage)
    return positive(unbiased + correction, correction)


# The estimators whose b(Â) can be positive. mix is ampl_ll only where the likelihood is highest at 0.
CAN_BE_NEGATIVE = ("fh", "amrl_ll", "ampl_ll")


def row_errors(fit: AreaFit, rows: Matrix, area: Positions, half: Matrix) -> Vector:
    """(k,) mean squared errors of x'β̂ + v̂ for x'β + v, of the kind that the fit holds.

    rows  (k, p) covariates x; all 0 for the area effect alone
    area  (k,) position in `design.areas` of the area whose effect v is; -1, or an area that is not in the fit: a new
          draw of the effect
    half  (k, p) with |row|² = |x − γ x_i|² in the metric (X'V⁻¹X)⁻¹ at Â
    """
    design = fit.design
    own = np.where(area >= 0, places(design)[area], -1)
    if expansion_fails(fit.certificate, fit.mse_unbiased):
        return _averaged(design, fit.A_hat, rows, own)
    known = own >= 0
    shrinkage = np.where(known, 1 - fit.gamma[area], 1.0)
    g1, g3 = np.where(known, fit.g1[area], fit.A_hat), np.where(known, fit.g3[area], 0.0)
    unbiased = g1 + np.square(half).sum(axis=1) + 2 * g3 - fit.bias_A * np.square(shrinkage)
    return reported(fit.method, unbiased, Asymptotics(fit.var_A, fit.bias_A), shrinkage)


def half_of(fit: AreaFit) -> Matrix:
    """(M, p) with half_i'half_j = x_i'(X'V⁻¹X)⁻¹x_j, of centred columns: a covariate far from 0 costs no digits."""
    design, into = fit.design, fit.design.sampled
    y = design.y[into] - design.offset[into]
    return blup(fit.A_hat, y, design.X[into], design.D[into], design.X).half


def at_boundary(estimate: VarianceEstimate) -> bool:
    """Whether the data themselves put A at 0."""
    return estimate.A == 0 or estimate.lifted


def expansion_fails(estimate: VarianceEstimate, unbiased: Vector) -> bool:
    """Whether an expansion around Â says nothing: at the boundary, or where its formula (M,) is negative somewhere."""
    return at_boundary(estimate) or bool((unbiased < 0).any())


def _estimator(method: str, estimate: VarianceEstimate) -> str:
    """The estimator whose variance and bias Â has."""
    if method != "mix":
        return method
    return "ampl_ll" if estimate.lifted else "reml"


def places(design: AreaDesign) -> Positions:
    """(M,) position of each area among those in the fit, -1 outside it."""
    into = design.sampled
    return np.where(into, np.cumsum(into) - 1, -1)


def _averaged(design: AreaDesign, A: float, rows: Matrix, own: Positions) -> Vector:
    into = design.sampled
    y = design.y[into] - design.offset[into]
    return integrated_errors(A, y, design.X[into], design.D[into], rows, own)


def kind_of(
    method: str, estimate: VarianceEstimate, information: Information, design: AreaDesign, *, fails: bool = False
) -> str:
    """What the mean squared errors of a fit are, and why, with the variance of Â behind g3."""
    m, p = int(design.sampled.sum()), design.X.shape[1]
    if at_boundary(estimate) or fails:
        few = "" if matching_exists(m, p) else FEW.format(m=m, p=p)
        why = AT_ZERO if estimate.A == 0 else LIFTED if estimate.lifted else NEGATIVE
        return AVERAGED.format(why=why) + few
    kind = WITH_BIAS if method in ("ml", "ampl_yl") else SECOND_ORDER
    return (POSITIVE if method in CAN_BE_NEGATIVE else kind) + VARIANCE.format(printed(method, information))
