"""The jackknife estimate of the mean squared errors: every area in the fit left out once, A and β estimated again.

    leading     g1(Â) + (m−1)/m Σ_u [θ̂_i(−u) − θ̂_i]²
    correction  (m−1)/m Σ_u [g1(Â(−u)) − g1(Â)]
    unbiased    leading − correction

θ̂_i(−u) is the estimate of area i from its own y_i with the A and β of the areas other than u. Source: Jiang, Lahiri and
Wan (2002, Ann. Statist. 30:1782-1810). The difference can be negative; the mse is leading exp(−correction/leading)
where the correction takes away. No asymptotic variance of Â and no normal distribution enters beyond the predictor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.leave_one_out import determined, smallest
from hierlmm.frequentist.area.mse import at_boundary
from hierlmm.frequentist.area.mse_results import AreaMSE, negative_note
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.errors import positive
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.moments import blup

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]


def jackknife_mse(fit: AreaFit, progress: Progress) -> AreaMSE:
    """Mean squared errors by leaving out each of the m areas in the fit: O(m²), with no randomness.

    Raises FitError where the fit cannot be made without one of the areas.
    """
    check_progress(progress)
    _check(fit)
    design = fit.design
    into = np.flatnonzero(design.sampled)
    m = len(into)
    spread, change = np.zeros(len(design.areas)), np.zeros(len(design.areas))
    failed = 0
    with shown(progress, m, name="jackknife") as advance:
        for u in into:
            found = _without(fit, into[into != u])
            if found is None:
                failed += 1
            else:
                theta, g1 = found
                spread += np.square(theta - fit.eblup)
                change += g1 - fit.g1
            advance(1)
    if failed == m:
        raise FitError("The jackknife estimates A without each area; it was found without none. Look at the data.")
    # Areas without which A was not found are taken to move what the others do on average.
    weight = (m - 1) / m * m / (m - failed)
    leading, correction = fit.g1 + weight * spread, weight * change
    unbiased = leading - correction
    return AreaMSE(
        kind="jackknife",
        convention="jackknife over areas (Jiang, Lahiri and Wan 2002), positive by construction",
        information="not used",
        method=fit.method,
        areas=design.areas,
        estimate=fit.eblup,
        mse=positive(leading, correction),
        unbiased=unbiased,
        mcse=np.zeros(len(unbiased)),
        failed=failed,
        notes=(*_notes(fit, failed), *negative_note(fit, unbiased)),
    )


def _without(fit: AreaFit, kept: NDArray[np.intp]) -> tuple[Vector, Vector] | None:
    """Estimates and g1 (M,) of all areas with the A and β of the areas `kept`; None where A was not found."""
    design = fit.design
    y, X, D = design.y[kept] - design.offset[kept], design.X[kept], design.D[kept]
    estimate = ESTIMATORS[fit.method](y, X, D)
    if not estimate.converged:
        return None
    A = estimate.A
    synthetic = design.offset + blup(A, y, X, D, design.X).fitted
    into, direct = design.sampled, design.role == "direct"
    shrinkage = np.where(into, design.D / np.where(into, A + design.D, 1.0), 1.0)
    known = np.where(into, design.y, synthetic)
    theta = np.where(direct, design.y, known - shrinkage * (known - synthetic))
    return theta, np.where(direct, 0.0, A * shrinkage)


def _check(fit: AreaFit) -> None:
    design = fit.design
    into = design.sampled
    m = int(into.sum())
    if (needed := smallest(fit)) > m:
        raise FitError(
            f"The jackknife estimates A from all areas but one; with {fit.beta.size} coefficients and this method "
            f'{needed} areas are needed, and there are {m}. Use kind="default".'
        )
    alone = into & ~determined(fit)
    if alone.any():
        raise FitError(
            "The jackknife leaves out one area at a time, and the others must determine the coefficients; they do not "
            f'without {listed(design.areas[alone])}. Remove the covariate that is special to it, or use kind="default".'
        )


def _notes(fit: AreaFit, failed: int) -> tuple[str, ...]:
    lost = (f"A was not found without each of {failed} areas, which are left out.",) if failed else ()
    if not at_boundary(fit.certificate):
        return lost
    return (
        "Â is at the boundary: leaving out one area moves it to one side only, and the jackknife says little there. "
        'kind="default" holds.',
        *lost,
    )
