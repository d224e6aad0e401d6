"""Mean squared errors of a spatial fit by name: closed forms, and parametric and nonparametric bootstraps.

y* = Xβ̂ + v* + e* is drawn from the fit and (A, ρ) estimated again, giving ψ*; errors do not depend on β, so that β̂ may
be taken as 0. With g = g1 + g2, θ̂* the predictor at ψ*, θ̃* that at (Â, ρ̂), both from y*, T = E*[(θ̂* − θ̃*)²]:

    bootstrap_naive      g(ψ̂) + T, what E*(θ̂* − θ*)² is for normal draws, with its known part put in exactly
    bootstrap            leading g(ψ̂) + T, correction E* g(ψ*) − g(ψ̂)
    nonparametric_naive  E*(θ̂* − θ*)², with u* drawn with replacement from the standardised û = (I − ρ̂W)v̂, scaled to Â,
                         v* = (I − ρ̂W)⁻¹u*, and e* = S^½ r*, r* from the standardised residuals y − θ̂
    nonparametric        as bootstrap, with these draws

Standardised: turned by the inverse root of their covariance matrix to mean 0 and variance 1 (Pratesi and Salvati 2008;
Molina, Salvati and Pratesi 2009, Computational Statistics 24:441-458, who have all four). `unbiased` is leading −
correction; the mse is leading exp(−correction/leading) where the correction takes away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import PRINTED, Information
from hierlmm.frequentist.area.mse_bootstrap import Totals, batches, generators, seed_of
from hierlmm.frequentist.area.mse_results import AreaMSE, negative_note
from hierlmm.frequentist.area.spatial import check_method
from hierlmm.frequentist.area.spatial_prediction import Estimated, estimated, published_errors
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.spatial import weighted
from hierlmm.likelihood.area.spatial_many import estimate_many, predict_many
from hierlmm.likelihood.area.spatial_search import SpatialPlace

if TYPE_CHECKING:
    from hierlmm.frequentist.area.spatial_results import SpatialAreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SpatialKind = Literal[
    "default",
    "second_order",
    "published",
    "bootstrap",
    "bootstrap_naive",
    "nonparametric",
    "nonparametric_naive",
]
CONVENTIONS = {
    "second_order": "second order: g1 + g2 + 2 g3 − g4 − g5",
    "published": (
        "g1 + g2 + 2 g3 − g4, for ML less the part of g5 by the estimation of β (Molina, Salvati and Pratesi 2009)"
    ),
    "bootstrap_naive": "parametric bootstrap without bias correction",
    "bootstrap": "parametric bootstrap, bias-corrected, positive by construction",
    "nonparametric_naive": "nonparametric bootstrap without bias correction",
    "nonparametric": "nonparametric bootstrap, bias-corrected, positive by construction",
}
RESAMPLED = ("bootstrap", "bootstrap_naive", "nonparametric", "nonparametric_naive")
REPLICATES = 1000
OUTSIDE = (
    "The estimate is at a boundary (Â = 0 or rho at its end), where an expansion around it says nothing and replicates "
    'drawn at it say what the error would be if that were the truth. kind="default" averages over what the data leave '
    "open."
)


def mean_squared_error(
    fit: SpatialAreaFit,
    kind: str,
    replicates: int | None,
    seed: int | np.random.Generator | None,
    inner: int,
    information: Information | None,
    progress: Progress,
) -> AreaMSE:
    """See `SpatialAreaFit.mean_squared_error`."""
    if kind not in get_args(SpatialKind):
        raise FitError(
            f"Of a spatial fit `kind` is one of {', '.join(get_args(SpatialKind))}; found {kind!r}. Use one of these."
        )
    if information is not None and information not in PRINTED:
        raise FitError(f"`information` is 'sum' or 'trace'; found {information!r}. Use one of these.")
    if kind in RESAMPLED:
        if seed is None:
            raise FitError(
                f"kind={kind!r} draws replicates, and each follows from a seed; found none. Give one, as seed=1."
            )
        return bootstrap_mse(fit, kind, REPLICATES if replicates is None else replicates, seed, progress)
    if replicates is not None:
        raise FitError(f"kind={kind!r} draws no replicates; found replicates={replicates!r}. Leave it out.")
    return _closed_form(fit, kind, information or fit.information)


def _closed_form(fit: SpatialAreaFit, kind: str, information: Information) -> AreaMSE:
    if information != fit.information:
        from hierlmm.frequentist.area.spatial import fit_spatial

        fit = fit_spatial(fit.method, fit.design, information)
    inside = fit.estimate.place is SpatialPlace.INTERIOR
    unbiased = published_errors(fit, information) if kind == "published" else fit.mse_unbiased
    held = kind == "default"
    return AreaMSE(
        kind=kind,
        convention=fit.mse_kind if held else CONVENTIONS[kind],
        information=fit.variance_formula if inside or not held else "not used",
        method=fit.method,
        areas=fit.design.areas,
        estimate=fit.eblup,
        mse=fit.mse if held else np.where(fit.design.role == "direct", 0.0, unbiased),
        unbiased=unbiased,
        mcse=np.zeros(len(fit.mse)),
        notes=() if inside or held else (OUTSIDE,),
    )


# Draws responses (B, m) and the effects behind them (B, M), one replicate a generator.
Draw = Callable[[list[np.random.Generator]], tuple[Matrix, Matrix]]


@dataclass(frozen=True, slots=True, eq=False)
class _Population:
    """What replicates are drawn from and compared with."""

    now: Estimated
    A: float
    leading: Vector
    draw: Draw


def bootstrap_mse(
    fit: SpatialAreaFit, kind: str, replicates: int, seed: int | np.random.Generator, progress: Progress
) -> AreaMSE:
    """Mean squared errors of one of the kinds above.

    seed  replicate b is drawn from numpy's SeedSequence(seed, spawn_key=(b,)); of a Generator, a seed it draws

    Ctrl-C ends it with the replicates that are done. Raises FitError for arguments that are none, and where no
    replicate could be used.
    """
    check_count("replicates", replicates, "replicates", least=2)
    check_progress(progress)
    start = seed_of(seed)
    now = estimated(fit)
    draw = _nonparametric(fit, now) if kind.startswith("nonparametric") else _parametric(fit, now)
    out = fit.design.role == "direct"
    population = _Population(now, fit.A_hat, np.where(out, 0.0, fit.g1 + fit.g2), draw)
    totals, interrupted = Totals(), False
    try:
        with shown(progress, replicates, name=kind) as advance:
            # each area is held at the six nodes of its replicate
            for numbers in batches(replicates, 12 * len(out)):
                _batch(population, fit, kind, generators(start, numbers), totals)
                advance(len(numbers))
    except KeyboardInterrupt:
        interrupted = True
    if totals.used < 2:
        raise FitError(
            f"A bootstrap needs two replicates or more with an estimate of A and rho; there are {totals.used} of "
            f'{replicates} ({totals.failed} failed). Ask for more, or use kind="default".'
        )
    base = np.zeros(len(out)) if kind == "nonparametric_naive" else population.leading
    mse, unbiased, mcse = (np.where(out, 0.0, values) for values in totals.result(base))
    return AreaMSE(
        kind=kind,
        convention=CONVENTIONS[kind],
        information="not used",
        method=fit.method,
        areas=fit.design.areas,
        estimate=fit.eblup,
        mse=mse,
        unbiased=unbiased,
        mcse=mcse,
        requested=replicates,
        replicates=totals.used,
        failed=totals.failed,
        seed=start,
        interrupted=interrupted,
        notes=(*(() if fit.estimate.place is SpatialPlace.INTERIOR else (OUTSIDE,)), *negative_note(fit, unbiased)),
    )


def _batch(
    population: _Population, fit: SpatialAreaFit, kind: str, streams: list[np.random.Generator], totals: Totals
) -> None:
    Y, effects = population.draw(streams)
    found = estimate_many(population.now.problem, Y, check_method(fit.method))
    sound = found.converged
    if not sound.any():
        totals.failed += len(streams)
        return
    if kind == "nonparametric_naive":
        u = np.square(found.theta - effects)
    else:
        u = np.square(found.theta - predict_many(population.now.at, Y, population.A))
    c = found.leading - population.leading if kind in ("bootstrap", "nonparametric") else np.zeros_like(u)
    totals.add(u[sound], c[sound], int((~sound).sum()))


def _parametric(fit: SpatialAreaFit, now: Estimated) -> Draw:
    """Normal effects and errors at the estimate."""
    inside, errors = now.problem.inside, now.problem.errors
    half = now.change.L * math.sqrt(fit.A_hat)

    def draw(streams: list[np.random.Generator]) -> tuple[Matrix, Matrix]:
        z = np.stack([stream.standard_normal((2, len(half))) for stream in streams])
        effects = z[:, 0] @ half.T
        noise = errors.back((np.sqrt(errors.d) * z[:, 1, : len(inside)]).T).T
        return effects[:, inside] + noise, effects

    return draw


def _nonparametric(fit: SpatialAreaFit, now: Estimated) -> Draw:
    """Effects and errors drawn with replacement from the standardised predictions of them."""
    inside, errors, M = now.problem.inside, now.problem.errors, len(fit.gamma)
    if fit.A_hat == 0:
        raise FitError(
            "A nonparametric bootstrap draws from the predicted area effects, which are all 0 where that variance is; "
            'found an estimate of 0. Use kind="default", which averages over what the data leave open.'
        )
    F = np.eye(M) - fit.rho_hat * now.problem.W
    at, of = now.at, weighted(now.at, fit.A_hat)
    P = np.diag(of.w) - of.half.T @ of.half
    # û = F v̂ and r̂ = S^−½ (y − θ̂) as linear maps of P y, whose covariance is P V P = P in these coordinates
    to_u = fit.A_hat * F @ at.reach(np.eye(len(of.w)))
    to_r = errors.forward(at.back(np.diag(at.d))) / np.sqrt(errors.d)[:, None]
    u = math.sqrt(fit.A_hat) * _standardised(to_u @ of.Py, to_u @ P @ to_u.T)
    r = _standardised(to_r @ of.Py, to_r @ P @ to_r.T)
    back = np.linalg.inv(F)

    def draw(streams: list[np.random.Generator]) -> tuple[Matrix, Matrix]:
        drawn = np.stack([u[stream.integers(M, size=M)] for stream in streams])
        noise = np.stack([r[stream.integers(len(r), size=len(r))] for stream in streams])
        effects = drawn @ back.T
        return effects[:, inside] + errors.back((np.sqrt(errors.d) * noise).T).T, effects

    return draw


def _standardised(values: Vector, cov: Matrix) -> Vector:
    """`values` (k,) turned by the inverse root of their covariance matrix, where it has one; mean 0, variance 1."""
    sizes, vectors = np.linalg.eigh((cov + cov.T) / 2)
    root = np.where(sizes > 1e-10 * sizes[-1], 1 / np.sqrt(np.maximum(sizes, 1e-300)), 0.0)
    white = vectors @ (root * (vectors.T @ values))
    return np.asarray((white - white.mean()) / white.std())
