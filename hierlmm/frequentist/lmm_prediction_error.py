"""What the estimation of the variance parameters adds to the variance of a prediction, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import NewRows
from hierlmm.errors import FitError
from hierlmm.frequentist.lmm_structured import uncertainty
from hierlmm.frequentist.lmm_variances import is_plain, parameter_covariance, working_scale
from hierlmm.likelihood.information import WHOLE, VarianceParameter
from hierlmm.likelihood.kackar_sums import Moves, added_variance, is_available

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]


def estimation_variance(fit: LMMFit, rows: NewRows) -> Array:
    """(k,) g3 of x'beta + sum of z'b over the observed levels, which a mean squared error has twice.

    Variance parameters on the boundary are held there. Raises FitError where it is not available: correlated
    residuals, large crossed designs, and fits without a likelihood.
    """
    _check(fit)
    assert fit.at is not None
    cp = working_scale(fit.equations)
    order = fit.equations.order
    Z = [rows.Z[f] @ fit.equations.Z_map[place] for place, f in enumerate(order)]
    codes = [rows.codes[f] for f in order]
    return added_variance(cp, fit.at, _moves(fit), rows.X @ fit.equations.X_map, Z, codes)


def _check(fit: LMMFit) -> None:
    if fit.at is None:
        reason = "this fit has no residual variance, and its likelihood no upper bound"
    elif len(fit.phi):
        reason = f"the residuals have the structure {type(fit.spec.residual).__name__}, whose parameters move V as well"
    elif not is_available(fit.equations):
        reason = f"the grouping factors are crossed, and large (more than {WHOLE} effects together, or kept in cells)"
    else:
        return
    raise FitError(
        "What the variance parameters add to the error of a prediction is computed for residuals independent between "
        f'rows, from sums over the effects of all factors; here {reason}. Use parameters="known", which takes them as '
        "known, or simulate from the fit and refit."
    )


def _moves(fit: LMMFit) -> Moves:
    """Directions of the relative covariances T, and the covariance of the estimates along them."""
    assert fit.at is not None
    T = tuple(Lambda @ Lambda.T for Lambda in fit.at.factors)
    if is_plain(fit):
        found = parameter_covariance(fit)
        assert found is not None
        return Moves(tuple(_relative(T, r, fit.at.sigma2) for r in found.parameters), found.working)
    structured = uncertainty(fit)
    assert structured is not None
    moves = []
    for f, (basis, Lambda) in enumerate(zip(structured.parameters.basis, fit.at.factors, strict=True)):
        for E in basis:
            moves.append(tuple(E @ Lambda.T + Lambda @ E.T if g == f else np.zeros_like(t) for g, t in enumerate(T)))
    k = len(moves)
    return Moves(tuple(moves), structured.covariance[:k, :k])


def _relative(T: tuple[Array, ...], parameter: VarianceParameter, sigma2: float) -> tuple[Array, ...]:
    """Derivative of every T = G / sigma² in an element of one G, or in sigma²."""
    if parameter.factor < 0:
        return tuple(-t / sigma2 for t in T)
    out = tuple(np.zeros_like(t) for t in T)
    here = out[parameter.factor]
    here[parameter.row, parameter.column] = here[parameter.column, parameter.row] = 1.0 / sigma2
    return out
