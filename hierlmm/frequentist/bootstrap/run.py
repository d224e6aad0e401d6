"""Runs a bootstrap: batches of replicates, each refitted at once, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import FitError
from hierlmm.frequentist.bootstrap.arguments import check_count, check_jobs, check_path, check_seed
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.frequentist.bootstrap.results import Bootstrap
from hierlmm.frequentist.bootstrap.samplers import WEIGHTS, Kind, Sampler, Weights, sampler
from hierlmm.frequentist.bootstrap.state import Batch, State
from hierlmm.frequentist.inference.confint_results import require_optimum
from hierlmm.frequentist.lmm_refits import LMMRefits, refits_of

if TYPE_CHECKING:
    from hierlmm.frequentist.lmm_results import LMMFit

# Replicates that are refitted together, and numbers of a response held at once: batches depend on the data alone, so
# that the last digits of a replicate do not depend on how many there are or where they are computed.
BATCH, HELD = 250, 4_000_000


def bootstrap(
    fit: LMMFit,
    kind: Kind = "parametric",
    *,
    draws: int = 1000,
    seed: int,
    weights: Weights = "rademacher",
    cluster: object = None,
    jobs: int = 1,
    progress: Progress = "none",
    path: str | os.PathLike[str] | None = None,
) -> Bootstrap:
    """`draws` refits of `fit` to new responses: see `samplers` for the kinds.

    seed     replicate i is drawn from numpy's SeedSequence(seed, spawn_key=(i,))
    weights  of the wild bootstrap; cluster what it clusters by (default: the outermost grouping factor)
    jobs     processes; results do not depend on it
    progress "bar" shows a bar on standard error
    path     file in which the replicates done are kept; a bootstrap that was interrupted goes on from there

    Ctrl-C ends it with the replicates that are done. Raises FitError for an unknown kind, weights or progress, for
    draws, seeds, jobs and paths that are none, and for fits without an optimum; DesignError for rows that were streamed
    and clusters that do not apply; FileError for a path that holds another bootstrap.
    """
    _check(kind, weights, progress)
    check_count("draws", draws, "replicates")
    check_seed(seed)
    check_jobs(jobs)
    check_path(path)
    require_optimum(fit, "A bootstrap")
    require_rows(fit.design, "Bootstraps")
    draw = sampler(fit, kind, weights, cluster)
    size = max(1, min(BATCH, HELD // len(fit.design.y)))
    edges = [*range(0, draws, size), draws]
    key = _key(fit, kind, seed, weights if kind == "wild" else "", cluster, size)
    state = State.at(path, key)
    spans = list(pairwise(edges))
    todo = [span for span in spans if not _done(state, span)]
    interrupted = False
    try:
        with shown(progress, draws, draws - sum(b - a for a, b in todo)) as advance:
            for batch in _batches(fit, draw, seed, todo, jobs):
                state.add(batch)
                advance(len(batch.outcomes))
    except KeyboardInterrupt:
        interrupted = True
    done = [state.batches[a] for a, b in spans if _done(state, (a, b))]
    return Bootstrap.of(fit, kind, weights, draws, seed, done, interrupted)


def _check(kind: str, weights: str, progress: str) -> None:
    if kind not in get_args(Kind):
        raise FitError(f"`kind` is one of {', '.join(get_args(Kind))}; found {kind!r}. Use one of these.")
    if weights not in WEIGHTS:
        raise FitError(f"`weights` is one of {', '.join(WEIGHTS)}; found {weights!r}. Use one of these.")
    check_progress(progress)


def _key(fit: LMMFit, kind: str, seed: int, weights: str, cluster: object, size: int) -> dict[str, str]:
    """What two runs must share for the one to go on from the other."""
    mark = fit.fingerprint
    parts = {name: getattr(mark, name) for name in ("spec", "rows", "response", "predictors", "variances")}
    by = cluster if isinstance(cluster, str) or cluster is None else np.unique(np.asarray(cluster), return_inverse=True)
    return parts | {
        "method": fit.method, "kind": kind, "seed": str(int(seed)), "weights": weights, "batch": str(size),
        "cluster": str(by if by is None or isinstance(by, str) else by[1].tolist()),
    }  # fmt: skip


def _done(state: State, span: tuple[int, int]) -> bool:
    """Whether a batch of these very replicates is there: one of fewer was fitted in other company."""
    held = state.batches.get(span[0])
    return held is not None and len(held.outcomes) == span[1] - span[0]


def _batches(fit: LMMFit, draw: Sampler, seed: int, spans: list[tuple[int, int]], jobs: int) -> Iterator[Batch]:
    if jobs == 1 or len(spans) < 2:
        yield from (_batch(fit, draw, seed, a, b) for a, b in spans)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, return_as="generator")(delayed(_batch)(fit, draw, seed, a, b) for a, b in spans)


def _batch(fit: LMMFit, draw: Sampler, seed: int, start: int, stop: int) -> Batch:
    """One batch: responses, refits, and what is kept of them."""
    generators = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in range(start, stop)]
    found = fit.refits(draw(generators))
    problems = tuple((start + int(str(label)), reason) for label, reason in found.problems)
    return Batch(start, values_of(found), tuple(outcome.name for outcome in found.outcomes), problems)


def values_of(found: LMMRefits) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(B, K) the parameters in the order of the long frame."""
    return found.frame["estimate"].to_numpy(dtype=np.float64).reshape(len(found), -1)


__all__ = ["Progress", "bootstrap", "refits_of", "values_of"]
