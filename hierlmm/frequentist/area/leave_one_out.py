"""Leaving out one area at a time: what the rest says about A, the coefficients, the other areas, and the one left out.

Nothing is held: A is estimated again without the area, by the method of the fit, and with it everything else. An area
that is left out is one without a direct estimate, so that what the rest says of it is the prediction for such an area,
synthetic or, where effects are spatial, from its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import AreaDesign
from hierlmm.errors import FitError, listed
from hierlmm.likelihood.area.estimators import areas_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

# Share of V below which the variance of a residual is rounding error: the area determines a coefficient alone.
UNDETERMINED = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Deleted:
    """K areas left out one at a time; rows of an area without which the coefficients are not determined are nan.

    where      (K,) positions of the areas in the design
    A          (K,) the area variance without each
    beta       (K, p) coefficients without each
    estimate   (K,) what the rest says of the area, on the scale of the model; mse (K,) its mean squared error
    shift      (K,) largest move of another area's estimate, over the root of that one's mean squared error
    moved      (K,) position of the area that moves so
    converged  (K,) whether the variance was found
    """

    where: Positions
    A: Vector
    beta: Matrix
    estimate: Vector
    mse: Vector
    shift: Vector
    moved: Positions
    converged: NDArray[np.bool_]


def deleted(
    fit: AreaFit, areas: Sequence[object] | None = None, advance: Callable[[int], None] = lambda _: None
) -> Deleted:
    """Leave out each of `areas`, by default every area in the fit, and fit again by the same method.

    advance  is told of each area that is done

    Raises FitError where too few areas are in the fit, for an area that is not, and for none at all.
    """
    where = positions(fit, areas)
    _check_size(fit)
    K, p = len(where), fit.beta.size
    A, estimate, mse, shift = (np.full(K, np.nan) for _ in range(4))
    beta, moved = np.full((K, p), np.nan), np.zeros(K, dtype=np.intp)
    converged = np.zeros(K, dtype=bool)
    free = determined(fit)
    scale = np.sqrt(np.where(fit.mse > 0, fit.mse, np.inf))
    for k in np.flatnonzero(free[where]):
        i = where[k]
        rest = fit_area(without(fit.design, i), fit.method)
        A[k], beta[k], converged[k] = rest.A_hat, rest.beta, rest.certificate.converged
        estimate[k], mse[k] = rest.eblup[i], rest.mse[i]
        change = np.abs(rest.eblup - fit.eblup) / scale
        change[i] = 0.0
        moved[k] = int(np.argmax(change))
        shift[k] = change[moved[k]]
        advance(1)
    return Deleted(where, A, beta, estimate, mse, shift, moved, converged)


def fit_area(design: AreaDesign, method: str) -> AreaFit:
    """The fit of an area-level design, whatever kind of effects and errors it has."""
    from hierlmm.frequentist.methods import fit_design

    return cast("AreaFit", fit_design(design, method))


def without(design: AreaDesign, i: int) -> AreaDesign:
    """The design with area i taken as one without a direct estimate."""
    y, role = design.y.copy(), design.role.astype("<U9")
    y[i], role[i] = np.nan, "unsampled"
    return replace(design, y=y, role=role)


def determined(fit: AreaFit) -> NDArray[np.bool_]:
    """(M,) areas in the fit without which all coefficients are determined."""
    design = fit.design
    with np.errstate(invalid="ignore"):
        free = fit.residual_variance > UNDETERMINED * (fit.A_hat + design.D)
    return np.asarray(design.sampled & free)


def positions(fit: AreaFit, areas: Sequence[object] | None) -> Positions:
    """Positions in the design of areas by label, or of all that are in the fit."""
    design = fit.design
    if areas is None:
        return np.flatnonzero(design.sampled)
    if isinstance(areas, str) or not len(areas):
        raise FitError(f"Areas to leave out are a list of one or more; found {areas!r}. Leave it out for all of them.")
    where = design.areas.get_indexer(pd.Index(list(areas)))
    unknown = [area for area, i in zip(areas, where, strict=True) if i < 0 or not design.sampled[i]]
    if unknown:
        raise FitError(
            f"Areas to leave out are areas in the fit; found {listed(unknown)}. Take them from fit.areas, role sampled."
        )
    return np.asarray(where, dtype=np.intp)


def _check_size(fit: AreaFit) -> None:
    m, p = int(fit.design.sampled.sum()), fit.beta.size
    if (needed := smallest(fit)) > m:
        raise FitError(
            "Leaving out an area must leave more areas than coefficients, and enough for the estimate of A; with "
            f"{p} coefficients and method={fit.method!r} that takes {needed} areas, and there are {m} in the fit. "
            "Remove covariates or add areas."
        )


def smallest(fit: AreaFit) -> int:
    """The fewest areas in a fit by its method of which one can be left out."""
    return areas_needed(fit.method, fit.beta.size) + 1
