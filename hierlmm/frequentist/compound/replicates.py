"""Bootstraps of the prior: data drawn anew, the prior estimated from them by the method of the fit.

"prior" draws θ from the estimated prior and y given θ: Laird and Louis's type III. "units" resamples the units with
what is known of them: their type I (1987, JASA 82:739-750). Replicate b is drawn from numpy's SeedSequence(seed,
spawn_key=(b,)), so that it depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.compound import CompoundDesign
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.bootstrap.arguments import check_count, check_seed
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.frequentist.compound.counts import count_data
from hierlmm.frequentist.compound.normal import STEIN
from hierlmm.likelihood.area.estimators import ESTIMATORS
from hierlmm.likelihood.area.many import estimate_many as area_many
from hierlmm.likelihood.area.many import predict_many
from hierlmm.likelihood.area.moments import blup
from hierlmm.likelihood.compound.conjugate import prior
from hierlmm.likelihood.compound.marginal import link_of, mean_of
from hierlmm.likelihood.compound.maximum import estimate_many
from hierlmm.likelihood.compound.moments import estimate_moments
from hierlmm.likelihood.compound.profile import CountData
from hierlmm.likelihood.compound.stein import least_squares

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Counts = NDArray[np.float64]
Resample = Literal["prior", "units"]
# Priors estimated from data sets: counts of units in the rows (N, m), or how often each unit counts.
Estimator = Callable[[Matrix | None, Matrix | None], tuple[Matrix, Vector]]

# Replicates that are estimated together.
BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PriorReplicates:
    """B replicates of the estimated prior.

    beta (B, p), dispersion (B,)  estimates of the replicates that have one
    theta, y (B, m)  what they were drawn as, units in the fit; empty where units were resampled
    requested, failed  replicates asked for, and those without an estimate; interrupted: the rest was not drawn
    seed, resample     as asked for; terms: names of the columns of beta
    """

    beta: Matrix
    dispersion: Vector
    theta: Matrix
    y: Matrix
    requested: int
    failed: int
    interrupted: bool
    seed: int
    resample: Resample
    terms: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dispersion)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a replicate: the coefficients by name, and `dispersion`."""
        return pd.DataFrame({**dict(zip(self.terms, self.beta.T, strict=True)), "dispersion": self.dispersion})

    @property
    def at_zero(self) -> float:
        """Share of the replicates whose dispersion is exactly zero."""
        return float((self.dispersion == 0).mean())


def replicates(
    fit: CompoundFit, number: int, *, seed: int, resample: Resample = "prior", progress: Progress = "none"
) -> PriorReplicates:
    """Draw `number` data sets and estimate the prior from each; Ctrl-C ends it with those that are done.

    Raises FitError for arguments that are none, and where no replicate has an estimate; SpecError for Morris's
    estimator and limited translation, which are rules for estimates and no estimates of a prior.
    """
    check_count("replicates", number, "replicates")
    check_seed(seed)
    check_progress(progress)
    if resample not in get_args(Resample):
        raise FitError(f"`resample` is one of {', '.join(get_args(Resample))}; found {resample!r}. Use one of these.")
    if fit.method in ("morris", "limited_translation"):
        raise SpecError(
            f"A bootstrap of the prior estimates it anew; {fit.method!r} is a rule for the units' estimates. "
            'Fit by "reml", "ml" or "positive_part".'
        )
    estimate = _estimator(fit)
    parts: list[tuple[Matrix, Vector, Matrix, Matrix]] = []
    interrupted = False
    try:
        with shown(progress, number, 0) as advance:
            for first, last in pairwise([*range(0, number, BATCH), number]):
                parts.append(_batch(fit, estimate, seed, resample, range(first, last)))
                advance(last - first)
    except KeyboardInterrupt:
        interrupted = True
    beta, dispersion, theta, y = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else _nothing(fit)
    fine = np.isfinite(dispersion) & np.isfinite(beta).all(axis=1)
    if not fine.any():
        raise FitError(
            f"None of {len(fine)} replicates has an estimate of the prior: the data drawn are all zeros, or of one "
            "kind. Use hl.posterior(...) for so few counts."
        )
    drawn = resample == "prior"
    return PriorReplicates(
        beta=beta[fine], dispersion=dispersion[fine], theta=theta[fine] if drawn else theta[:0],
        y=y[fine] if drawn else y[:0], requested=number, failed=int((~fine).sum()), interrupted=interrupted, seed=seed,
        resample=resample, terms=fit.design.fixed,
    )  # fmt: skip


def _nothing(fit: CompoundFit) -> tuple[Matrix, Vector, Matrix, Matrix]:
    m = int(fit.design.sampled.sum())
    return np.empty((0, fit.beta.size)), np.empty(0), np.empty((0, m)), np.empty((0, m))


def _batch(
    fit: CompoundFit, estimate: Estimator, seed: int, resample: Resample, which: range
) -> tuple[Matrix, Vector, Matrix, Matrix]:
    """beta, dispersion, theta and y of these replicates; nan where a replicate has no estimate."""
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(b,))) for b in which]
    m = int(fit.design.sampled.sum())
    if resample == "units":
        weight = np.stack([rng.multinomial(m, np.full(m, 1 / m)) for rng in generators]).astype(np.float64)
        empty = np.zeros((len(which), m))
        return *estimate(None, weight), empty, empty
    drawn = [draw(fit, rng) for rng in generators]
    theta, y = (np.stack(part) for part in zip(*drawn, strict=True))
    return *estimate(y, None), theta, y


def draw(fit: CompoundFit, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """θ and y (m,) of the units in the fit, from the fitted model."""
    design, into = fit.design, fit.design.sampled
    family, size, mu = design.spec.family, design.size[into], fit.prior_mean[into]
    theta = prior(family, mu, fit.dispersion).draw(rng, mu.shape)
    if family == "normal":
        return theta, rng.normal(theta, np.sqrt(size))
    if family == "poisson":
        return theta, rng.poisson(size * theta).astype(np.float64)
    return theta, rng.binomial(size.astype(np.int64), theta).astype(np.float64)


def _estimator(fit: CompoundFit) -> Estimator:
    if fit.spec.family == "normal":
        return _normal(fit.design, fit.method)
    data = count_data(fit.design)
    moments = fit.method == "moments"

    def counts(y: Matrix | None, weight: Matrix | None) -> tuple[Matrix, Vector]:
        given = CountData(data.family, data.y if y is None else y, data.size, data.X, data.offset, weight)
        return _by_moments(given) if moments else _by_likelihood(given)

    return counts


def _by_likelihood(data: CountData) -> tuple[Matrix, Vector]:
    counted = data.counted()
    beta, phi = np.full((len(counted), data.X.shape[1]), np.nan), np.full(len(counted), np.nan)
    whole = np.array([np.linalg.matrix_rank(data.X[row > 0]) == data.X.shape[1] for row in counted])
    if data.weight is None:
        whole[:] = True
    found = estimate_many(data.rows(np.flatnonzero(whole)) if data.weight is not None else data)
    beta[whole], phi[whole] = found.beta, np.where(found.converged, found.dispersion, np.nan)
    return beta, phi


def _by_moments(data: CountData) -> tuple[Matrix, Vector]:
    found = estimate_moments(data.family, data.y, data.size, data.weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = link_of(data.family, found.mean)
    phi = np.where(np.isfinite(beta) & np.isfinite(found.dispersion), found.dispersion, np.nan)
    return beta[:, None], phi


def _normal(design: CompoundDesign, method: str) -> Estimator:
    into = design.sampled
    X, D, offset = design.X[into], design.size[into], design.offset[into]
    own = design.y[into] - offset

    def together(y: Matrix | None, weight: Matrix | None) -> tuple[Matrix, Vector]:
        if y is not None and method not in STEIN:
            A = area_many(method, y - offset, X, D)
            found = np.where(A.converged, A.A, np.nan)
            return predict_many(np.where(A.converged, A.A, 0.0), y - offset, X, D)[0], found
        rows = y - offset if y is not None else np.broadcast_to(own, (len(weight), len(own)))  # type: ignore[arg-type]
        pairs = [_one(method, rows[b], X, D, None if weight is None else weight[b]) for b in range(len(rows))]
        return np.stack([beta for beta, _ in pairs]), np.array([A for _, A in pairs])

    return together


def _one(method: str, y: Vector, X: Matrix, D: Vector, weight: Vector | None) -> tuple[Vector, float]:
    """β and A of one data set, units repeated as `weight` says; nan where there is none."""
    if weight is not None:
        which = np.repeat(np.arange(len(y)), weight.astype(np.intp))
        y, X, D = y[which], X[which], D[which]
        if np.linalg.matrix_rank(X) < X.shape[1]:
            return np.full(X.shape[1], np.nan), np.nan
    if method in STEIN:
        fit = least_squares(y, X, float(D.mean()))
        return fit.beta, max(fit.S / (fit.q - 2) - 1, 0.0) * float(D.mean())
    found = ESTIMATORS[method](y, X, D)
    return blup(found.A, y, X, D, X[:1]).beta, found.A if found.converged else np.nan


def prior_means(fit: CompoundFit, beta: Matrix) -> Matrix:
    """(B, M) prior means of all units at coefficients (B, p)."""
    eta = beta @ fit.design.X.T + fit.design.offset
    family = fit.spec.family
    return eta if family == "normal" else mean_of(family, eta)
