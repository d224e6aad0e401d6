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
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.correlated_bootstrap import Streams, check_arguments, run
from hierlmm.frequentist.area.mse import Information
from hierlmm.frequentist.area.mse_results import AreaMSE
from hierlmm.frequentist.area.spatial import check_method
from hierlmm.frequentist.area.spatial_prediction import Estimated, estimated, published_errors
from hierlmm.frequentist.bootstrap.progress import Progress
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
    information: Information | None,
    progress: Progress,
) -> AreaMSE:
    """See `SpatialAreaFit.mean_squared_error`."""
    check_arguments(kind, get_args(SpatialKind), RESAMPLED, replicates, seed, information)
    if kind in RESAMPLED and seed is not None:
        return bootstrap_mse(fit, kind, REPLICATES if replicates is None else replicates, seed, progress)
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


def bootstrap_mse(
    fit: SpatialAreaFit, kind: str, replicates: int, seed: int | np.random.Generator, progress: Progress
) -> AreaMSE:
    """Mean squared errors of one of the kinds above; arguments and errors as `correlated_bootstrap.run`."""
    now, method = estimated(fit), check_method(fit.method)
    draw = _nonparametric(fit, now) if kind.startswith("nonparametric") else _parametric(fit, now)
    direct = fit.design.role == "direct"
    leading = np.where(direct, 0.0, fit.g1 + fit.g2)

    def batch(streams: Streams) -> tuple[Matrix, Matrix, int]:
        Y, effects = draw(streams)
        found = estimate_many(now.problem, Y, method)
        of = effects if kind == "nonparametric_naive" else predict_many(now.at, Y, fit.A_hat)
        u = np.where(direct, 0.0, np.square(found.theta - of))
        c = found.leading - leading if kind in ("bootstrap", "nonparametric") else np.zeros_like(u)
        sound = found.converged
        return u[sound], np.where(direct, 0.0, c)[sound], int((~sound).sum())

    base = np.zeros(len(direct)) if kind == "nonparametric_naive" else leading
    notes = () if fit.estimate.place is SpatialPlace.INTERIOR else (OUTSIDE,)
    return run(fit, kind, CONVENTIONS[kind], base, batch, replicates, seed, progress, notes)


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
