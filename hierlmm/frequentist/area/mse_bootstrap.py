"""Mean squared errors by resampling from the fitted model: parametric and double bootstrap, and Sumca.

y* = x'β̂ + v* + e* is drawn at Â and A estimated again, giving A*. As errors do not depend on β, β̂ may be taken as 0;
and as the error of the best predictor θ̃(A) is uncorrelated with θ̂ − θ̃(A), its part g1 + g2 is put in exactly and only
the rest is simulated. With T = E*[(θ̂* − θ̃*(Â))²], g(A) = g1(A) + g2(A):

    bootstrap_naive   g(Â) + T, the error under the model fitted; too small to second order, since E g1(Â) < g1(A)
    bootstrap         leading g(Â) + E*[(θ̂(y; A*) − θ̂(y; Â))²], correction E* g(A*) − g(Â)
                      (Butar and Lahiri 2003, J. Statist. Planning and Inference 112:63-76)
    double_bootstrap  leading M(Â) = g(Â) + T, correction E* M(A*) − M(Â), M(A*) by a second bootstrap within each
                      replicate (Hall and Maiti 2006, JRSS B 68:221-238)
    sumca             leading g(Â) + T, correction E* g1(A*) − g1(Â): the error given the data, Â for A, and its bias
                      under the fitted model (Jiang and Torabi 2020, JRSS B 82:467-485)

`unbiased` is leading − correction, which can be negative; the mse is leading exp(−correction/leading) where the
correction takes away. Both Monte Carlo errors follow from the replicates by the delta method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.mse import at_boundary
from hierlmm.frequentist.area.mse_results import AreaMSE, negative_note
from hierlmm.frequentist.bootstrap.arguments import check_count, generator_of
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.errors import leading_terms, positive
from hierlmm.likelihood.area.many import estimate_many, predict_many

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Replicates worked on at once, and numbers held at once: batches depend on the data alone.
BATCH, HELD = 250, 2_000_000

CONVENTIONS = {
    "bootstrap_naive": "parametric bootstrap without bias correction",
    "bootstrap": "parametric bootstrap, bias-corrected (Butar and Lahiri 2003), positive by construction",
    "double_bootstrap": "double bootstrap (Hall and Maiti 2006), positive by construction",
    "sumca": "Sumca: plug-in term and Monte Carlo correction (Jiang and Torabi 2020), positive by construction",
}
AT_BOUNDARY = (
    "The replicates are drawn at an Â at the boundary (0, or positive by its adjustment alone): they say what the "
    'error would be if A were that, not what it is over the A that the data leave open. kind="default" averages over '
    "those."
)


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """What replicates are drawn from: the m areas in the fit first in `rows` (k, p), then those without an estimate.

    g1, g2  (k,) at Â
    """

    method: str
    A: float
    y: Vector
    X: Matrix
    D: Vector
    rows: Matrix
    g1: Vector
    g2: Vector

    @classmethod
    def of(cls, fit: AreaFit) -> Population:
        """The population that a fit describes."""
        design = fit.design
        into = design.sampled
        rows = design.X[order_of(fit)]
        X, D = design.X[into], design.D[into]
        g1, g2 = leading_terms(np.array([fit.A_hat]), X, D, rows)
        return cls(fit.method, fit.A_hat, design.y[into] - design.offset[into], X, D, rows, g1[0], g2[0])

    def predicted(self, A: Vector, Y: Matrix) -> Matrix:
        """(B, k) best predictors at A (B,) from Y (B, m)."""
        return predict_many(A, Y, self.X, self.D, self.rows)[1]


def order_of(fit: AreaFit) -> NDArray[np.intp]:
    """(k,) positions of the areas in the fit, then of those without a direct estimate."""
    into = fit.design.sampled
    return np.concatenate([np.flatnonzero(into), np.flatnonzero(fit.design.role == "unsampled")])


@dataclass(slots=True, eq=False)
class Totals:
    """Running sums over replicates of leading terms u (k,) and corrections c (k,), and of their products."""

    used: int = 0
    failed: int = 0
    sums: list[Vector] = field(default_factory=list)

    def add(self, u: Matrix, c: Matrix, failed: int) -> None:
        """Take the replicates of a batch: u and c (B, k)."""
        parts = [u.sum(axis=0), c.sum(axis=0), (u * u).sum(axis=0), (u * c).sum(axis=0), (c * c).sum(axis=0)]
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)] if self.sums else parts
        self.used += len(u)
        self.failed += failed

    def result(self, base: Vector) -> tuple[Vector, Vector, Vector]:
        """mse, unbiased and mcse (k,), `base` (k,) being the part of the leading term that is known."""
        u, c, uu, uc, cc = (total / self.used for total in self.sums)
        leading = base + u
        x = np.where(c > 0, c / np.where(leading > 0, leading, 1.0), 0.0)
        kept = np.exp(-x)
        # d(mse) = kept ((1 + x) du − dc); x = 0 gives du − dc, what it is where nothing is taken away.
        a, b = kept * (1 + x), -kept
        variance = a * a * (uu - u * u) + 2 * a * b * (uc - u * c) + b * b * (cc - c * c)
        mcse = np.sqrt(np.maximum(variance, 0.0) / max(1, self.used - 1))
        return positive(leading, c), leading - c, mcse


# From a batch of A* (B,), Y* (B, m) and the generators of its replicates: leading terms less their known part and
# corrections, both (B, k), and which of the replicates (B,) have them.
Measure = Callable[
    [Population, Vector, Matrix, "list[np.random.Generator]", int], tuple[Matrix, Matrix, NDArray[np.bool_]]
]


def bootstrap_mse(
    fit: AreaFit, kind: str, replicates: int, seed: int | np.random.Generator, inner: int, progress: Progress
) -> AreaMSE:
    """Mean squared errors of one of the kinds above.

    replicates  of the bootstrap; inner of the second bootstrap within each of them
    seed        replicate b is drawn from numpy's SeedSequence(seed, spawn_key=(b,)); of a Generator, a seed it draws

    Ctrl-C ends it with the replicates that are done. Raises FitError for arguments that are none, and where no
    replicate could be used.
    """
    check_count("replicates", replicates, "replicates", least=2)
    check_count("inner", inner, "replicates within each replicate", 1)
    check_progress(progress)
    start = seed_of(seed)
    population = Population.of(fit)
    totals, interrupted = Totals(), False
    try:
        with shown(progress, replicates, name=kind) as advance:
            for numbers in batches(replicates, len(population.rows)):
                _batch(population, MEASURES[kind], numbers, start, inner, totals)
                advance(len(numbers))
    except KeyboardInterrupt:
        interrupted = True
    if totals.used < 2:
        raise FitError(
            f"A bootstrap needs two replicates or more with an estimate of A; there are {totals.used} of "
            f'{replicates} ({totals.failed} failed). Ask for more, or use kind="default".'
        )
    leading = population.g1 + population.g2
    mse, unbiased, mcse = (_everywhere(fit, values) for values in totals.result(leading))
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
        notes=(*((AT_BOUNDARY,) if at_boundary(fit.certificate) else ()), *negative_note(fit, unbiased)),
    )


def seed_of(seed: int | np.random.Generator) -> int:
    """The number that replicates are seeded by: the one given, or one drawn from the generator given."""
    rng = generator_of(seed)
    return int(rng.integers(2**63)) if isinstance(seed, np.random.Generator) else int(seed)


def batches(replicates: int, width: int) -> list[range]:
    """Numbers of the replicates that are worked on together, `width` numbers each."""
    size = max(1, min(BATCH, HELD // max(1, width)))
    return [range(a, min(a + size, replicates)) for a in range(0, replicates, size)]


def generators(seed: int, numbers: range) -> list[np.random.Generator]:
    """A generator for each replicate, by its number alone."""
    return [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(b,))) for b in numbers]


def drawn(A: Vector, D: Vector, streams: list[np.random.Generator]) -> Matrix:
    """(B, m) responses with variance A + D around 0, each from its own generator; A (B,)."""
    z = np.stack([stream.standard_normal(len(D)) for stream in streams])
    return np.asarray(np.sqrt(A[:, None] + D) * z)


def _batch(population: Population, measure: Measure, numbers: range, seed: int, inner: int, totals: Totals) -> None:
    streams = generators(seed, numbers)
    Y = drawn(np.full(len(numbers), population.A), population.D, streams)
    found = estimate_many(population.method, Y, population.X, population.D)
    sound = np.flatnonzero(found.converged)
    if not sound.size:
        totals.failed += len(numbers)
        return
    u, c, kept = measure(population, found.A[sound], Y[sound], [streams[b] for b in sound], inner)
    totals.add(u[kept], c[kept], len(numbers) - int(kept.sum()))


def _moved(population: Population, A: Vector, A_star: Vector, Y: Matrix) -> Matrix:
    """(B, k) squared (θ̂* − θ̃*(A)), A (B,) what Y (B, m) was drawn at."""
    return np.asarray(np.square(population.predicted(A_star, Y) - population.predicted(A, Y)))


def _naive(
    population: Population, A: Vector, Y: Matrix, streams: list[np.random.Generator], inner: int
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    u = _moved(population, np.full(len(A), population.A), A, Y)
    return u, np.zeros_like(u), np.ones(len(A), dtype=bool)


def _butar_lahiri(
    population: Population, A: Vector, Y: Matrix, streams: list[np.random.Generator], inner: int
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    y = np.broadcast_to(population.y, Y.shape)
    at = population.predicted(np.array([population.A]), population.y[None, :])
    g1, g2 = leading_terms(A, population.X, population.D, population.rows)
    u = np.square(population.predicted(A, y) - at)
    return u, g1 + g2 - population.g1 - population.g2, np.ones(len(A), dtype=bool)


def _double(
    population: Population, A: Vector, Y: Matrix, streams: list[np.random.Generator], inner: int
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    u = _moved(population, np.full(len(A), population.A), A, Y)
    g1, g2 = leading_terms(A, population.X, population.D, population.rows)
    within, kept = np.zeros_like(u), np.ones(len(A), dtype=bool)
    for _ in range(inner):
        again = drawn(A, population.D, streams)
        found = estimate_many(population.method, again, population.X, population.D)
        kept &= found.converged
        within += _moved(population, A, np.where(found.converged, found.A, A), again) / inner
    return u, g1 + g2 + within - (population.g1 + population.g2 + u), kept


def _sumca(
    population: Population, A: Vector, Y: Matrix, streams: list[np.random.Generator], inner: int
) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    u = _moved(population, np.full(len(A), population.A), A, Y)
    m = len(population.D)
    g1 = np.repeat(A[:, None], len(population.rows), axis=1)
    g1[:, :m] *= population.D / (A[:, None] + population.D)
    return u, g1 - population.g1, np.ones(len(A), dtype=bool)


MEASURES: dict[str, Measure] = {
    "bootstrap_naive": _naive,
    "bootstrap": _butar_lahiri,
    "double_bootstrap": _double,
    "sumca": _sumca,
}


def _everywhere(fit: AreaFit, values: Vector) -> Vector:
    """(M,) from values (k,) in the order of `order_of`; 0 where the direct estimate stands."""
    out = np.zeros(len(fit.design.areas))
    out[order_of(fit)] = values
    return out
