"""Parametric bootstrap of area means on the scale of the data (González-Manteiga et al. 2008, J. Stat. Comput. Simul.
78:443-462): errors and intervals that hold the estimation of A and β without an expansion.

A replicate draws θ* = offset + Xβ̂ + v* and y* = θ* + e*, estimates again, and takes the estimates back as they were
taken from the data. With T* the back-transformed estimate, the mean squared error is the mean of (T* − g(θ*))², and the
interval is g of θ̂ + the quantiles of θ* − θ̂*, so that it stays inside the range of the data. Replicate b depends on
(seed, b) only, and all of them are estimated at once.

The error is that of a world with A = Â, which is nearer 0 than A where Â is biased (ML): it is right to first order. At
Â = 0 the replicates have no area effects, and their errors are those of a world in which A is 0: a method that is
positive, such as "ampl_ll", is the better start there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed import back_transformed, estimates, kind_of, transformation_of
from hierlmm.frequentist.area.transformed_results import BackTransformed
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.correlated import Rotation, sampling_errors
from hierlmm.likelihood.area.many import estimate_many, predict_many
from hierlmm.likelihood.area.scales import SCALES

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit
    from hierlmm.frequentist.area.transformed import Kind

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Numbers of a batch of replicates: about 30 MB an array.
HELD = 4_000_000
# Replicates below which a quantile of 2.5 % rests on one or two of them.
FEWEST = 50


@dataclass(frozen=True, slots=True, eq=False)
class _World:
    """The fitted model as replicates are drawn from it: m areas in the fit first, then those without an estimate.

    order  (M,) positions in the design; mean (M,) offset + x'β̂; rotated what makes the sampling errors independent
    """

    order: NDArray[np.intp]
    mean: Vector
    offset: Vector
    X: Matrix
    rotated: Rotation
    m: int


def bootstrapped(
    fit: AreaFit,
    kind: str | None,
    replicates: int,
    seed: int | np.random.Generator | None,
    level: float,
    progress: Progress,
) -> BackTransformed:
    """Back-transformed areas with the error and the interval of `replicates` replicates.

    Raises FitError for spatially correlated effects, for kind "crude", whose error is a formula, and for no fit.
    """
    transformation = transformation_of(fit)
    chosen = kind_of(transformation, kind)
    _check(fit, chosen, replicates)
    check_progress(progress)
    quantile(level)
    rng, world = generator_of(cast("int", seed)), _world(fit)
    scale, M = SCALES[transformation.name], len(world.order)
    errors, shifts, failed = [], [], 0
    size = max(1, HELD // max(1, M + world.m))
    with shown(progress, replicates, 0) as advance:
        for start in range(0, replicates, size):
            count = min(size, replicates - start)
            theta, predicted, variance, converged = _replicates(fit, world, count, rng)
            T = estimates(scale, chosen, predicted, variance, variance)
            errors.append((T - scale.back(theta))[converged])
            shifts.append((theta - predicted)[converged])
            failed += int((~converged).sum())
            advance(count)
    return _result(fit, chosen, world, np.concatenate(errors), np.concatenate(shifts), replicates, failed, level)


def _check(fit: AreaFit, kind: Kind, replicates: int) -> None:
    check_count("replicates", replicates, "replicates", least=FEWEST)
    if fit.design.proximity is not None:
        raise FitError(
            "This bootstrap draws independent area effects; those of this fit are spatially correlated. Leave out "
            "`replicates` for errors and intervals by exact moments."
        )
    if kind == "crude":
        raise FitError(
            "The error of the crude back-transformation is a formula; a bootstrap is that of kind='bias_corrected' or "
            "'naive'. Use one of these, or leave out `replicates`."
        )
    if fit.outcome.name == "NOT_CONVERGED":
        raise FitError("A bootstrap needs an estimate; the search for the area variance did not converge.")


def _world(fit: AreaFit) -> _World:
    design = fit.design
    into, out = np.flatnonzero(design.sampled), np.flatnonzero(design.role == "unsampled")
    order = np.concatenate([into, out])
    rotated = sampling_errors(design.D, design.covariance, design.sampled)
    return _World(order, fit.synthetic[order], design.offset[order], design.X[order], rotated, into.size)


def _replicates(
    fit: AreaFit, world: _World, count: int, rng: np.random.Generator
) -> tuple[Matrix, Matrix, Matrix, NDArray[np.bool_]]:
    """θ*, θ̂* and the variance of θ* given y* (count, M) at Â*, and which replicates converged."""
    M, m, d = len(world.order), world.m, world.rotated.d
    noise = rng.standard_normal((count, M + m))
    theta = world.mean + np.sqrt(fit.A_hat) * noise[:, :M]
    # in the rotated areas the errors are independent: y* = U'(θ* − offset) + √d e
    y = world.rotated.forward((theta - world.offset)[:, :m].T).T + np.sqrt(d) * noise[:, M:]
    X = world.rotated.forward(world.X[:m])
    found = estimate_many(fit.method, y, X, d)
    A = np.where(found.converged, found.A, 0.0)
    _, predicted = predict_many(A, y, X, d, np.concatenate([X, world.X[m:]]))
    predicted[:, :m] = world.rotated.back(predicted[:, :m].T).T
    weight = A[:, None] / (A[:, None] + d)
    variance = np.concatenate(
        [world.rotated.diagonal((weight * d).T).T, np.broadcast_to(A[:, None], (count, M - m))], axis=1
    )
    return theta, predicted + world.offset, variance, found.converged


def _result(
    fit: AreaFit, kind: Kind, world: _World, errors: Matrix, shifts: Matrix, replicates: int, failed: int, level: float
) -> BackTransformed:
    if len(errors) < FEWEST:
        raise FitError(f"A bootstrap needs {FEWEST} replicates that converge; {len(errors)} of {replicates} did.")
    base = back_transformed(fit, kind, level)
    scale = SCALES[base.transformation]
    squares = np.square(errors)
    mse, mcse = np.zeros(len(base.mse)), np.zeros(len(base.mse))
    mse[world.order] = squares.mean(axis=0)
    mcse[world.order] = squares.std(axis=0, ddof=1) / np.sqrt(len(errors))
    direct = fit.design.as_given[0]
    lower, upper = direct.copy(), direct.copy()
    ends = np.quantile(shifts, [(1 - level) / 2, (1 + level) / 2], axis=0)
    lower[world.order], upper[world.order] = scale.back(fit.eblup[world.order] + ends)
    return replace(
        base,
        mse=mse,
        mse_kind=f"parametric bootstrap, {len(errors)} replicates",
        lower=lower,
        upper=upper,
        interval="quantiles of the bootstrap errors on the scale of the model, taken back",
        mcse=mcse,
        replicates=replicates,
        failed=failed,
    )
