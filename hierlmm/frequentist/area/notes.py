"""What a reader of an area-level fit should be told, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import listed
from hierlmm.frequentist.area.mse import FitErrors
from hierlmm.frequentist.area.naming import HEADINGS
from hierlmm.likelihood.area.variance import VarianceEstimate

Vector = NDArray[np.float64]


def fit_notes(
    design: AreaDesign, method: str, estimate: VarianceEstimate, eblup: Vector, errors: FitErrors
) -> tuple[str, ...]:
    """Sentences on this fit, the most important first; eblup is (M,)."""
    return (
        *_on_method(method, estimate),
        *_on_variance(estimate),
        *_on_errors(errors),
        *_on_areas(design, eblup, errors.mse),
    )


def _on_method(method: str, estimate: VarianceEstimate) -> Iterator[str]:
    if estimate.raw < 0:
        yield f"{HEADINGS[method]} give {estimate.raw:.3g} for the area variance, cut at 0."
    if method == "fh" and estimate.A == 0:
        yield (
            "The moment equation has no root above 0: the weighted sum of squares at A = 0 is already "
            f"{1 + estimate.score:.3g} of the areas less the coefficients, its expectation."
        )
    if method == "mix":
        took = "zero, and Li and Lahiri's adjusted profile likelihood was taken" if estimate.lifted else "positive"
        yield f"MIX: the REML estimate is {took}."


def _on_variance(estimate: VarianceEstimate) -> Iterator[str]:
    if estimate.A == 0:
        yield (
            "At an area variance of exactly 0 the second-order formula (mse_unbiased) says nothing: it supposes a "
            "positive area variance. g2 alone is the error if the variance truly is 0; the mse here is averaged over "
            "what the data leave open about it."
        )
    if len(estimate.maxima) > 1:
        where = ", ".join(f"{A:.4g}" for A in estimate.maxima)
        yield f"What is maximised has {len(estimate.maxima)} local maxima in the area variance: {where}; Â is the best."


def _on_errors(errors: FitErrors) -> Iterator[str]:
    if (negative := errors.terms.unbiased < 0).any():
        yield (
            f"The second-order formula of the mse (mse_unbiased) is negative in {negative.sum()} areas; the mse is "
            f"{errors.kind}."
        )


def _on_areas(design: AreaDesign, eblup: Vector, mse: Vector) -> Iterator[str]:
    areas, role = design.areas, design.role
    if (unsampled := role == "unsampled").any():
        yield (
            f"No direct estimate, not in the fit: {listed(areas[unsampled])}. The estimate there is synthetic; its mse "
            "is that of a new draw of the area effect beside the coefficients."
        )
    if (direct := role == "direct").any():
        yield (f"Sampling variance 0, not in the fit: {listed(areas[direct])}. The direct estimate stands, with mse 0.")
    if (above := above_direct(design, mse)).any():
        yield (
            f"The mse is above the sampling variance in {above.sum()} of {design.sampled.sum()} areas: "
            f"{listed(areas[above])}. The direct estimate may serve better there."
        )
    direct_is_0 = design.y == 0 if design.direct is None else design.direct == 0
    if (zero := direct_is_0 | ((eblup == 0) & (design.direct is None))).any():
        yield f"A coefficient of variation is undefined (nan) where the estimate is 0: {listed(areas[zero])}."


def above_direct(design: AreaDesign, mse: Vector) -> NDArray[np.bool_]:
    """(M,) areas in the fit whose mean squared error is above their sampling variance."""
    return np.asarray(design.sampled & (mse > np.where(design.sampled, design.D, np.inf)))
