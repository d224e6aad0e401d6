"""Mean squared error after benchmarking by parametric bootstrap, the totals simulated with the areas.

Replicate b: θ* = x'β̂ + v*, v* ~ N(0, Â), y* = θ* + e*; the area variance and the estimates are computed again from
y*, the totals are those of θ* (with their own error, or Σ w y* where internal), and the estimates are benchmarked to
them. The mean of (θ̂_b* − θ*)² is the mean squared error under the fitted model: free of linearisation, and with the
bias of any bootstrap from Â in place of A (Steorts and Ghosh 2013 correct it, after Butar and Lahiri 2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of, whole
from hierlmm.likelihood.area.many import estimate_many, predict_many
from hierlmm.publication.benchmark.adjustment import Adjustment
from hierlmm.publication.estimates.covariance import root
from hierlmm.publication.estimates.reading import fit_behind, is_plain

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Replicates times areas that are worked on together: about 16 MB an array.
SLAB = 2_000_000


def bootstrap_mse(
    result: object, by: Adjustment, replicates: int, seed: int | np.random.Generator | None
) -> tuple[Vector, tuple[str, ...]]:
    """Mean squared error (M,) of the benchmarked estimates, and notes on the replicates.

    Replicate b is drawn from numpy's SeedSequence(seed, spawn_key=(b,)). A fixed Q, as of the optimal method, stays
    that of the fit. Replicates whose area variance was not found are counted in a note and left out.
    """
    fit = fit_behind(result)
    if not isinstance(fit, AreaFit) or not is_plain(fit.design):
        raise FitError(
            "A bootstrap of the error after benchmarking simulates from a Fay-Herriot fit with independent areas and "
            f"sampling errors, on the scale of the data; found {_described(fit)}. Use mse='linear'."
        )
    check_count("replicates", replicates, "replicates")
    start = int(seed) if whole(seed) else int(generator_of(seed).integers(2**62))  # type: ignore[arg-type]
    size = max(1, SLAB // len(fit.design.areas))
    total, used = np.zeros(len(fit.design.areas)), 0
    for first in range(0, replicates, size):
        numbers = range(first, min(first + size, replicates))
        streams = [np.random.default_rng(np.random.SeedSequence(start, spawn_key=(b,))) for b in numbers]
        error, good = _errors(fit, by, streams)
        total += np.square(error[good]).sum(axis=0)
        used += int(good.sum())
    if not used:
        raise FitError("No replicate of the bootstrap found an area variance: use mse='linear'.")
    return total / used, _notes(fit, replicates, used)


def _described(result: object) -> str:
    """What was given instead."""
    if not isinstance(result, AreaFit):
        return type(result).__name__
    given = result.design.spec.transformation
    return "correlated areas or errors" if given is None else f"the transformation {given.name}"


def _errors(fit: AreaFit, by: Adjustment, streams: list[np.random.Generator]) -> tuple[Matrix, Mask]:
    """Errors (B, M) of the benchmarked estimates, and which replicates (B,) have them."""
    design, here = fit.design, by.constraints
    into, out = design.sampled, design.role == "unsampled"
    M, R = len(design.areas), len(here.target)
    z = np.stack([rng.standard_normal(2 * M + R) for rng in streams])
    theta = fit.synthetic + np.sqrt(fit.A_hat) * z[:, :M]
    theta[:, design.role == "direct"] = design.y[design.role == "direct"]
    y = theta + np.sqrt(np.where(into, design.D, 0.0)) * z[:, M : 2 * M]
    X, D = design.X, design.D[into]
    response = y[:, into] - design.offset[into]
    found = estimate_many(fit.method, response, X[into], D)
    A = np.where(found.converged, found.A, 0.0)
    _, predicted = predict_many(A, response, X[into], D, np.concatenate([X[into], X[out]]))
    estimate = theta.copy()
    estimate[:, into], estimate[:, out] = np.split(predicted, [D.size], axis=1)
    estimate[:, into | out] += design.offset[into | out]
    known = y if here.known == "internal" else theta
    target = known @ here.W.T + z[:, 2 * M :] @ root(here.noise).T
    return by.apply(estimate, target) - theta, found.converged


def _notes(fit: AreaFit, replicates: int, used: int) -> tuple[str, ...]:
    error = np.sqrt(2 / used)
    notes = [f"mse by parametric bootstrap, {used} replicates; its own relative error is about {error:.1%}."]
    if used < replicates:
        notes.append(f"In {replicates - used} of {replicates} replicates the area variance was not found; left out.")
    if fit.A_hat == 0:
        notes.append("The area variance is 0: the bootstrap simulates areas that do not differ, and so errs low.")
    return tuple(notes)
