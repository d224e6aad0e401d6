"""Mean squared errors by name of a fit with correlated sampling errors, and the run of a bootstrap of structured fits.

Replicates are drawn and refitted in turned coordinates, where errors are independent; their errors are turned back. The
two bootstraps are those of `mse_bootstrap` with these names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.correlated import Turned, inner_fit, reach
from hierlmm.frequentist.area.correlated_results import CorrelatedAreaFit
from hierlmm.frequentist.area.mse import PRINTED, Information, at_boundary
from hierlmm.frequentist.area.mse_analytic import OUTSIDE
from hierlmm.frequentist.area.mse_bootstrap import AT_BOUNDARY, CONVENTIONS, Totals, batches, drawn, generators, seed_of
from hierlmm.frequentist.area.mse_results import AreaMSE, negative_note
from hierlmm.frequentist.area.results import AreaFit
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.many import estimate_many, predict_many

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Streams = list[np.random.Generator]

CorrelatedKind = Literal["default", "second_order", "bootstrap", "bootstrap_naive"]
RESAMPLED = ("bootstrap", "bootstrap_naive")
REPLICATES = 1000
# One batch: leading terms less their known part and corrections (B, M) of the replicates that have them, and how many
# have none.
Batch = Callable[[Streams], tuple[Matrix, Matrix, int]]


def check_arguments(
    kind: str, kinds: tuple[str, ...], resampled: tuple[str, ...], replicates: object, seed: object, information: object
) -> None:
    """Refuse kinds, information, replicates and seeds that do not go together."""
    if kind not in kinds:
        raise FitError(f"Of this fit `kind` is one of {', '.join(kinds)}; found {kind!r}. Use one of these.")
    if information is not None and information not in PRINTED:
        raise FitError(f"`information` is 'sum' or 'trace'; found {information!r}. Use one of these.")
    if kind in resampled and seed is None:
        raise FitError(
            f"kind={kind!r} draws replicates, and each follows from a seed; found none. Give one, as seed=1."
        )
    if kind not in resampled and replicates is not None:
        raise FitError(f"kind={kind!r} draws no replicates; found replicates={replicates!r}. Leave it out.")


def run(
    fit: AreaFit,
    kind: str,
    convention: str,
    base: Vector,
    batch: Batch,
    replicates: int,
    seed: int | np.random.Generator,
    progress: Progress,
    notes: tuple[str, ...],
) -> AreaMSE:
    """The result of a bootstrap whose batches are given; base (M,) the known part of the leading terms.

    Replicate b is drawn from numpy's SeedSequence(seed, spawn_key=(b,)); of a Generator, from a seed it draws. Ctrl-C
    ends it with the replicates that are done. Raises FitError where fewer than two could be used.
    """
    check_count("replicates", replicates, "replicates", least=2)
    check_progress(progress)
    start = seed_of(seed)
    direct = fit.design.role == "direct"
    totals, interrupted = Totals(), False
    try:
        with shown(progress, replicates, name=kind) as advance:
            # an area is held up to a dozen times a replicate
            for numbers in batches(replicates, 12 * len(direct)):
                u, c, failed = batch(generators(start, numbers))
                if len(u):
                    totals.add(u, c, failed)
                else:
                    totals.failed += failed
                advance(len(numbers))
    except KeyboardInterrupt:
        interrupted = True
    if totals.used < 2:
        raise FitError(
            f"A bootstrap needs two replicates or more with an estimate of A; there are {totals.used} of "
            f'{replicates} ({totals.failed} failed). Ask for more, or use kind="default".'
        )
    mse, unbiased, mcse = (np.where(direct, 0.0, values) for values in totals.result(base))
    return AreaMSE(
        kind=kind,
        convention=convention,
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
        notes=(*notes, *negative_note(fit, unbiased)),
    )


def mean_squared_error(
    fit: CorrelatedAreaFit,
    kind: str,
    replicates: int | None,
    seed: int | np.random.Generator | None,
    information: Information | None,
    progress: Progress,
) -> AreaMSE:
    """See `CorrelatedAreaFit.mean_squared_error`."""
    check_arguments(kind, get_args(CorrelatedKind), RESAMPLED, replicates, seed, information)
    if information not in (None, fit.information):
        from hierlmm.frequentist.area.correlated import fit_correlated

        fit = fit_correlated(fit.method, fit.design, information or fit.information)
    boundary = at_boundary(fit.certificate)
    if kind in RESAMPLED and seed is not None:
        at, inner = inner_fit(fit)
        base = np.where(fit.design.role == "direct", 0.0, fit.g1 + fit.g2)
        notes = (AT_BOUNDARY,) if boundary else ()
        count = REPLICATES if replicates is None else replicates
        return run(fit, kind, CONVENTIONS[kind], base, _batch(fit, at, inner, kind), count, seed, progress, notes)
    held = kind == "default"
    return AreaMSE(
        kind=kind,
        convention=fit.mse_kind if held else "second order: g1 + g2 + 2 g3 − b diag[(I−c)(I−c)'], b the bias of Â",
        information="not used" if held and boundary else fit.variance_formula,
        method=fit.method,
        areas=fit.design.areas,
        estimate=fit.eblup,
        mse=fit.mse if held else fit.mse_unbiased,
        unbiased=fit.mse_unbiased,
        mcse=np.zeros(len(fit.mse)),
        notes=(OUTSIDE,) if boundary and not held else (),
    )


def _batch(fit: CorrelatedAreaFit, at: Turned, inner: AreaFit, kind: str) -> Batch:
    """Draws, refits and errors of one batch, in turned coordinates and back."""
    inside, role = at.inside, at.design.role
    out = np.flatnonzero(role == "unsampled")
    X, D = at.design.X[inside], at.errors.d
    rows = at.design.X[np.concatenate([inside, out])]
    base = fit.g1 + fit.g2

    def turned_back(values: Matrix) -> Matrix:
        """(B, M) from errors of the areas in the fit, turned, and then of those without a direct estimate."""
        found = np.zeros((len(values), len(role)))
        found[:, inside] = at.errors.back(values[:, : len(inside)].T).T
        found[:, out] = values[:, len(inside) :]
        return found

    def predicted(A: Vector, Y: Matrix) -> Matrix:
        return predict_many(A, Y, X, D, rows)[1]

    def batch(streams: Streams) -> tuple[Matrix, Matrix, int]:
        Y = drawn(np.full(len(streams), fit.A_hat), D, streams)
        estimate = estimate_many(fit.method, Y, X, D)
        sound = estimate.converged
        A, Y = estimate.A[sound], Y[sound]
        if kind == "bootstrap_naive":
            u = np.square(turned_back(predicted(A, Y) - predicted(np.full(len(A), fit.A_hat), Y)))
            return u, np.zeros_like(u), int((~sound).sum())
        y = at.design.y[inside][None]
        u = np.square(turned_back(predicted(A, np.broadcast_to(y, Y.shape)) - predicted(np.array([fit.A_hat]), y)))
        c = np.stack([_leading(at, one) for one in A]) - base if len(A) else u
        c[:, role == "direct"] = 0.0
        return u, c, int((~sound).sum())

    return batch


def _leading(at: Turned, A: float) -> Vector:
    """(M,) g1 + g2 at A."""
    role, inside = at.design.role, at.inside
    w = 1 / (A + at.errors.d)
    kept = np.where(role == "unsampled", 1.0, 0.0)
    kept[inside] = at.errors.d * w
    X = at.design.X[inside]
    cov = np.linalg.inv((X.T * w) @ X)
    g1 = np.where(role == "unsampled", A, 0.0)
    g1[inside] = at.errors.diagonal(A * at.errors.d * w)
    H = reach(at, kept)
    return np.asarray(g1 + ((H @ cov) * H).sum(axis=1))
