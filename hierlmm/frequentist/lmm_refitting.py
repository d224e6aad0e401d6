"""Fits one linear mixed model to many responses: all at once where the design allows, else one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.response import check_numbers
from hierlmm.design.responses import Regression, ResponseProducts
from hierlmm.design.streamchecks import require_rows
from hierlmm.errors import DesignError, FitError, listed
from hierlmm.frequentist.bootstrap.arguments import check_jobs
from hierlmm.frequentist.lmm_refits import LMMRefits
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.likelihood.refits import Optima, optima
from hierlmm.likelihood.refits_effects import predicted
from hierlmm.likelihood.refits_layout import Layout
from hierlmm.likelihood.refits_products import Replies, Shared, batchable, replies, shared

Array = NDArray[np.float64]

# Numbers of responses and of their products by level that are held at once: 64 MB.
CHUNK = 8_000_000
# Share of a response's sum of squares below which the residual one may be nothing but rounding, and a relative
# standard deviation above which the residual variance may be zero: such responses are fitted one by one.
EXPLAINED = 1e-10
RUNAWAY = 1e3


def refits(fit: LMMFit, Y: object, jobs: int = 1) -> LMMRefits:
    """`fit`'s model for each column of Y (n, B), an array or a data frame, rows in the order of `fit.design.index`.

    jobs  processes for designs whose responses are fitted one after the other
    Raises DesignError where the number of rows differs, a value is missing or not a number, or a data frame has the
    labels of these rows in another order, and where the rows passed in a stream; FitError for jobs that are none.
    """
    require_rows(fit.design, "Fits of other responses")
    check_jobs(jobs)
    values, labels = _responses(fit, Y)
    out = _Estimates(fit, values.shape[1])
    if _together(fit):
        _fit_together(fit, values, out)
    else:
        out.open[:] = True
    problems = _fit_one_by_one(fit, values, labels, out, jobs)
    return LMMRefits(
        origin=fit, replicates=labels, responses=values, beta=out.beta, se=out.se, sigma2=out.sigma2,
        theta=out.theta, G=out.G, phi=out.phi, objective=out.objective, decrement=out.decrement,
        outcomes=tuple(out.outcomes), problems=problems,
    )  # fmt: skip


def _responses(fit: LMMFit, Y: object) -> tuple[Array, pd.Index]:
    """The responses as a (n, B) copy, and their labels."""
    index = fit.design.index
    rows = len(index)
    _check_order(Y, index)
    check_numbers(Y)
    try:
        values = np.array(Y, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise DesignError(f"New responses must be numeric; {error}. Convert them to numbers.") from None
    if values.ndim != 2 or len(values) != rows:
        raise DesignError(
            f"New responses have one row for each of the design's and one column each; found shape {values.shape} for "
            f"{rows} rows. Give the rows in the order of the design; for one response use refit."
        )
    missing = ~np.isfinite(values)
    if missing.any():
        at, columns = np.flatnonzero(missing.any(axis=1)), int(missing.any(axis=0).sum())
        raise DesignError(
            f"New responses must be finite; {int(missing.sum())} values in {columns} of {values.shape[1]} columns "
            f"are not, for {listed(index[at])}. Correct them, or fit anew without these rows."
        )
    labels = Y.columns if isinstance(Y, pd.DataFrame) else pd.RangeIndex(values.shape[1])
    return values, labels


def _check_order(Y: object, index: pd.Index) -> None:
    """Refuse a table labelled as the rows are, but in another order: its values would go to the wrong rows."""
    if not isinstance(Y, pd.DataFrame) or len(Y) != len(index) or Y.index.equals(index):
        return
    if Y.index.is_unique and index.is_unique and index.isin(Y.index).all():
        raise DesignError(
            "New responses have their rows in the order of the design; the labels of this table are those of the "
            f"design in another order (from {Y.index[0]}, not {index[0]}). Reorder it with .loc, or drop its labels "
            "with .to_numpy()."
        )


class _Estimates:
    """Arrays of LMMRefits while they are being filled; `open` marks the responses that are still to be fitted."""

    def __init__(self, fit: LMMFit, B: int) -> None:
        p, widths = len(fit.beta), [len(G) for G in fit.G]
        self.beta, self.se = np.full((B, p), np.nan), np.full((B, p), np.nan)
        self.sigma2, self.objective, self.decrement = (np.full(B, np.nan) for _ in range(3))
        self.theta, self.G = (tuple(np.full((B, q, q), np.nan) for q in widths) for _ in range(2))
        self.phi = np.full((B, len(fit.phi)), np.nan)
        self.outcomes = [LMMOutcome.NOT_CERTIFIED] * B
        self.open = np.zeros(B, dtype=bool)

    def forget(self, i: int) -> None:
        """A response without an answer: nothing of its search is kept."""
        for values in (self.beta, self.se, self.sigma2, self.objective, self.decrement, self.phi, *self.theta, *self.G):
            values[i] = np.nan
        self.outcomes[i] = LMMOutcome.NOT_CERTIFIED

    def take(self, i: int, fit: LMMFit) -> None:
        """The estimates of one whole fit."""
        self.beta[i], self.se[i], self.sigma2[i] = fit.beta, np.sqrt(np.diagonal(fit.vcov_beta)), fit.sigma2
        self.objective[i], self.decrement[i], self.outcomes[i] = fit.objective, fit.certificate.decrement, fit.outcome
        self.phi[i] = fit.phi if len(fit.phi) else np.nan  # a response that X reproduces has none
        for f, (theta, G) in enumerate(zip(fit.theta, fit.G, strict=True)):
            self.theta[f][i], self.G[f][i] = theta, G


def _together(fit: LMMFit) -> bool:
    return fit.design.residual is None and batchable(fit.equations)


def _chunks(fit: LMMFit, values: Array) -> Iterator[slice]:
    """Slices of the responses that keep memory bounded."""
    each = len(values) + sum(G * q for G, q in fit.equations.sizes)
    size = max(1, CHUNK // max(each, 1))
    return (slice(start, min(start + size, values.shape[1])) for start in range(0, values.shape[1], size))


def _replies(shape: Shared, found: ResponseProducts) -> Replies:
    """The products of one chunk in the form that the likelihood reads."""
    n = len(found.square)
    rest = [part.reshape(-1, n) for part in found.by_level[1:]]
    lead = found.by_level[0] if found.by_level else np.zeros((0, 1, n))
    return replies(shape, lead, np.concatenate([*rest, found.fixed]), found.square)


def _fit_together(fit: LMMFit, values: Array, out: _Estimates) -> None:
    """Fit all responses in batches; those that need more patience or another kind of answer stay open."""
    cp = fit.equations
    regression, shape, layout = Regression.of(fit.design), shared(cp, fit.method), Layout.of(cp)
    start = _start(fit, layout)
    for here in _chunks(fit, values):
        found = regression.products(values[:, here])
        explained = (found.square <= EXPLAINED * found.around) & (not cp.known_sigma2)
        clear = np.flatnonzero(~explained)
        best = optima(shape, layout, _replies(shape, found)[clear], start)
        at = clear + here.start
        _put(fit, at, found.beta[:, clear].T, best, out)
        out.open[here] = explained
        out.open[at] |= ~best.certified | _runaway(best)


def _runaway(best: Optima) -> NDArray[np.bool_]:
    """Responses whose relative standard deviations went off: their residual variance may be zero."""
    out = np.zeros(len(best.value), dtype=bool)
    for Lambda in best.factors:
        out |= Lambda.max(axis=(1, 2), initial=0.0) > RUNAWAY
    return out


def _start(fit: LMMFit, layout: Layout) -> Array | None:
    """theta of the fit itself, which is where most new responses end up; None where it lies on the boundary."""
    if fit.outcome is not LMMOutcome.INTERIOR or fit.at is None:
        return None
    return layout.theta([Lambda[..., None] for Lambda in fit.at.factors])[:, 0]


def _put(fit: LMMFit, here: NDArray[np.intp], regression: Array, best: Optima, out: _Estimates) -> None:
    """Estimates on the data scale, factors in the order of the design."""
    cp = fit.equations
    out.beta[here] = best.beta @ cp.X_map.T + regression
    spread = best.beta_root @ cp.X_map.T
    out.se[here] = np.sqrt(best.sigma2[:, None] * (spread**2).sum(axis=1))
    out.sigma2[here], out.objective[here], out.decrement[here] = best.sigma2, best.value, best.decrement
    for f, B, Lambda in zip(cp.order, cp.Z_map, best.factors, strict=True):
        theta = _lower(B @ Lambda)
        out.theta[f][here] = theta
        out.G[f][here] = best.sigma2[:, None, None] * (theta @ theta.swapaxes(1, 2))
    kinds = np.where(best.zero, 1, np.where(best.singular, 2, 0)).tolist()
    names = (LMMOutcome.INTERIOR, LMMOutcome.AT_ZERO, LMMOutcome.SINGULAR)
    for i, kind in zip(here.tolist(), kinds, strict=True):
        out.outcomes[i] = names[kind]


def _lower(half: Array) -> Array:
    """(B, q, q) lower factors of half half', non-negative on the diagonal; exact zeros where rank is missing."""
    L = np.linalg.qr(half.swapaxes(1, 2)).R.swapaxes(1, 2)
    L = L * np.where(np.diagonal(L, axis1=1, axis2=2) < 0, -1.0, 1.0)[:, None]
    return np.where(np.abs(L) < 1e-14 * np.abs(L).max(axis=2, keepdims=True), 0.0, L)


def _fit_one_by_one(
    fit: LMMFit, values: Array, labels: pd.Index, out: _Estimates, jobs: int
) -> tuple[tuple[object, str], ...]:
    """Fit the responses that are open by the ordinary search; those without an answer are named with the reason."""
    left = np.flatnonzero(out.open)
    problems: list[tuple[object, str]] = []
    for i, found in zip(left.tolist(), _ordinary(fit, values[:, left], jobs), strict=True):
        if isinstance(found, LMMFit):
            out.take(i, found)
        else:
            problems.append((labels[i], found))
            out.forget(i)
    return tuple(problems)


def _ordinary(fit: LMMFit, values: Array, jobs: int) -> Iterator[LMMFit | str]:
    """Each response's fit, or why there is none; nearly all of the time of one is its search."""
    if jobs == 1 or values.shape[1] < 2:
        return (_one(fit, y) for y in values.T)
    from joblib import Parallel, delayed, effective_n_jobs

    # one piece of work a process: the design travels with each
    parts = np.array_split(values, min(effective_n_jobs(jobs), values.shape[1]), axis=1)
    found = Parallel(n_jobs=jobs)(delayed(_several)(fit, part) for part in parts)
    return (one for part in found for one in part)


def _several(fit: LMMFit, values: Array) -> list[LMMFit | str]:
    return [_one(fit, y) for y in values.T]


def _one(fit: LMMFit, y: Array) -> LMMFit | str:
    try:
        return fit.refit(y)
    except FitError as error:
        return str(error)


def blups(refits: LMMRefits) -> tuple[Array, ...]:
    """Per factor of the design (B, levels, q) BLUPs on the data scale; nan where there is no estimate."""
    fit, values = refits.origin, refits.responses
    cp, B = fit.equations, len(refits)
    out = tuple(np.full((B, len(f.levels), len(f.coefficients)), np.nan) for f in fit.design.factors)
    sound = np.isfinite(refits.objective) & np.isfinite(refits.sigma2)
    if not _together(fit) or not fit.design.factors:
        sound[:] = False
    regression, shape = Regression.of(fit.design), shared(cp, fit.method)
    for here in _chunks(fit, values):
        at = np.arange(len(sound))[here][sound[here]]
        for start in range(0, len(at), shape.batch):
            part = at[start : start + shape.batch]
            found = regression.products(values[:, part])
            roots = [
                np.asarray(np.linalg.solve(M, refits.theta[f][part]), dtype=np.float64)
                for f, M in zip(cp.order, cp.Z_map, strict=True)
            ]
            b = predicted(shape, roots, _replies(shape, found), found.by_level[0])
            for f, M, effects in zip(cp.order, cp.Z_map, b, strict=True):
                out[f][part] = effects @ M.T
    for i in np.flatnonzero(~sound & ~np.isnan(refits.objective)):
        for into, b_one in zip(out, refits.fit(int(i)).b, strict=True):
            into[i] = b_one
    return out
