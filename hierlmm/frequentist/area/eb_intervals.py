"""Intervals for the area means of a fit, naive ones beside those whose coverage is right to second order.

    normal            θ̂ ± z √mse with the mse that the fit reports
    naive             θ̂ ± z √g1, Â taken for A and β̂ for β: too short, by terms of order 1/m and all of it at Â = 0
    calibrated        θ̂ + t √g1 with t the quantiles of (θ* − θ̂*)/√g1* under the fitted model (Chatterjee, Lahiri and Li
                      2008, Ann. Statist. 36:1221-1245)
    yoshimori_lahiri  θ̂_i ± z √g1_i at an estimate of A of each area's own, never longer than the direct interval
                      (2014, Ann. Statist. 42:1233-1261); see `likelihood.area.errors_interval`

The calibrated interval divides by √g1*, and needs an estimate of A that is positive in every replicate. It takes that
of Li and Lahiri (2010, J. Multivariate Analysis 101:882-892), made for this: in simulations with 15 areas and A from a
twentieth of a typical D to all of it, its coverage was nearest to the nominal among the positive estimators here, and
its intervals the shortest. So it is centred on the estimate at that A. The distribution of θ* given the replicate is
normal and known, so that it is put in exactly: t solves mean_b Φ((θ̂*_b + t √g1*_b − θ̃*_b)/√g1) = (1 ∓ level)/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError, listed
from hierlmm.frequentist.area.mse import places
from hierlmm.frequentist.area.mse_bootstrap import batches, drawn, generators, order_of, seed_of
from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.area.transformed import intervals_on_data_scale
from hierlmm.frequentist.bootstrap.arguments import check_count
from hierlmm.frequentist.bootstrap.progress import Progress, check_progress, shown
from hierlmm.likelihood.area.errors_interval import own_variances
from hierlmm.likelihood.area.estimators import ESTIMATORS, areas_needed
from hierlmm.likelihood.area.many import estimate_many, predict_many

if TYPE_CHECKING:
    from hierlmm.frequentist.area.results import AreaFit

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

Kind = Literal["normal", "naive", "calibrated", "yoshimori_lahiri"]
REPLICATES = 1000
# Numbers that a calibration may hold: replicates times areas.
LARGEST = 100_000_000
# Halvings of [-LIMIT, LIMIT], in which a quantile in units of √g1 lies.
LIMIT, HALVINGS = 64.0, 52

CONVENTIONS = {
    "normal": "normal, from the mse: ",
    "naive": "naive: estimate ± z √g1, the estimated A and coefficients taken for the true ones; too short",
    "calibrated": "calibrated by parametric bootstrap (Chatterjee, Lahiri and Li 2008), A estimated by Li and Lahiri's "
    "adjusted {likelihood} likelihood",
    "yoshimori_lahiri": "estimate ± z √g1 at an estimate of A for each area (Yoshimori and Lahiri 2014)",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """Intervals of M areas: what they are made around, the A they are made at, ends and their Monte Carlo errors."""

    centre: Vector
    A: Vector
    lower: Vector
    upper: Vector
    mcse: Matrix | None = None
    notes: tuple[str, ...] = ()


def area_intervals(
    fit: AreaFit,
    kind: Kind,
    level: float,
    replicates: int | None,
    seed: int | np.random.Generator | None,
    progress: Progress,
) -> pd.DataFrame:
    """One row an area: area, estimate, lower, upper, centre, A; and mcse_lower, mcse_upper where they are simulated.

    estimate is the fit's, centre what the interval is made around, and A the area variance that it is made at. attrs:
    "kind", "convention" in words, "level", "notes". Where the direct estimate stands, the interval is that number. On a
    transformed scale all of these are taken back to that of the data.
    """
    if kind not in get_args(Kind):
        raise FitError(f"`kind` is one of {', '.join(get_args(Kind))}; found {kind!r}. Use one of these.")
    z = quantile(level)
    if kind in ("calibrated", "yoshimori_lahiri") and not _independent(fit):
        raise FitError(
            f"kind={kind!r} is of a model with independent area effects and sampling errors; this fit has a matrix for "
            'one of them. Use kind="normal".'
        )
    if kind == "calibrated":
        ends = _calibrated(fit, level, REPLICATES if replicates is None else replicates, seed, progress)
    elif replicates is not None or seed is not None:
        raise FitError(f"kind={kind!r} draws no replicates; found replicates or a seed. Leave them out.")
    else:
        ends = _own(fit, z) if kind == "yoshimori_lahiri" else _around(fit, z, fit.mse if kind == "normal" else fit.g1)
    frame = pd.DataFrame(
        {
            "area": fit.design.areas,
            "estimate": fit.eblup,
            "lower": ends.lower,
            "upper": ends.upper,
            "centre": ends.centre,
            "A": ends.A,
        }
    )
    if ends.mcse is not None:
        frame["mcse_lower"], frame["mcse_upper"] = ends.mcse
    likelihood = "profile" if fit.method == "ampl_ll" else "restricted"
    convention = CONVENTIONS[kind].format(likelihood=likelihood) + (fit.mse_kind if kind == "normal" else "")
    frame.attrs.update(kind=kind, convention=convention, level=level, notes=ends.notes)
    return frame if fit.spec.transformation is None else intervals_on_data_scale(fit, frame)


def _independent(fit: AreaFit) -> bool:
    return fit.design.covariance is None and fit.design.proximity is None


def _around(fit: AreaFit, z: float, variance: Vector) -> _Ends:
    reach = z * np.sqrt(variance)
    A = np.full(len(reach), fit.A_hat)
    return _Ends(fit.eblup, A, fit.eblup - reach, fit.eblup + reach)


def _own(fit: AreaFit, z: float) -> _Ends:
    design = fit.design
    into, direct = design.sampled, design.role == "direct"
    y = design.y[into] - design.offset[into]
    found = own_variances(z, y, design.X[into], design.D[into], design.X, places(design))
    centre = np.where(direct, design.y, design.offset + found.theta)
    reach = np.where(direct, 0.0, z * np.sqrt(found.g1))
    notes: tuple[str, ...] = ()
    if (missing := np.isnan(reach)).any():
        notes = (
            "The estimate of A behind the interval exists where m > (4 + p)/(1 − q), q the leverage of the area; not "
            f'for {listed(design.areas[missing])}. Use kind="calibrated" there.',
        )
    return _Ends(centre, found.A, centre - reach, centre + reach, notes=notes)


def _calibrated(
    fit: AreaFit, level: float, replicates: int, seed: int | np.random.Generator | None, progress: Progress
) -> _Ends:
    check_count("replicates", replicates, "replicates", least=2)
    check_progress(progress)
    if seed is None:
        raise FitError("kind='calibrated' draws replicates, and each follows from a seed; found none. Give seed=1.")
    method = "ampl_ll" if fit.method == "ampl_ll" else "amrl_ll"
    design = fit.design
    into, order = design.sampled, order_of(fit)
    _check_size(design.X[into], method, replicates * len(order))
    y, X, D = design.y[into] - design.offset[into], design.X[into], design.D[into]
    rows = design.X[order]
    A = ESTIMATORS[method](y, X, D).A
    theta = predict_many(np.array([A]), y[None, :], X, D, rows)[1][0]
    root = np.sqrt(_g1(np.array([A]), D, len(rows))[0])
    start = seed_of(seed)
    shift, ratio, lost, stopped = _replicates(method, A, X, D, rows, root, replicates, start, progress)
    ends, errors = zip(*(_quantile(shift, ratio, p) for p in ((1 - level) / 2, (1 + level) / 2)), strict=True)
    lower, upper = (_everywhere(fit, theta + t * root, design.offset, design.y) for t in ends)
    mcse = np.stack([_everywhere(fit, e * root, 0 * design.offset, np.zeros(len(lower))) for e in errors])
    centre = _everywhere(fit, theta, design.offset, design.y)
    notes = [f"{len(shift)} of {replicates} replicates, seed {start}" + (", interrupted." if stopped else ".")]
    if lost:
        notes.append(f"{lost} replicates had no estimate of A and are left out.")
    return _Ends(centre, np.full(len(lower), A), lower, upper, mcse, tuple(notes))


def _check_size(X: Matrix, method: str, numbers: int) -> None:
    m, p = X.shape
    if m < areas_needed(method, p):
        raise FitError(
            f"The calibrated interval needs {areas_needed(method, p)} areas with {p} coefficients, for an estimate of "
            f'A that is always positive; there are {m}. Use kind="normal".'
        )
    if numbers > LARGEST:
        raise FitError(
            f"A calibration holds replicates times areas numbers, {LARGEST:,} at most; asked for are {numbers:,}. Ask "
            'for fewer replicates, or use kind="yoshimori_lahiri", which needs none.'
        )


def _replicates(
    method: str,
    A: float,
    X: Matrix,
    D: Vector,
    rows: Matrix,
    root: Vector,
    replicates: int,
    seed: int,
    progress: Progress,
) -> tuple[Matrix, Matrix, int, bool]:
    """(θ̂* − θ̃*)/√g1 and √g1*/√g1 (B, k); how many replicates were lost, and whether it was interrupted.

    θ̃* is the mean of θ* given the replicate, γ y* for an area in the fit with β = 0, and 0 for another.
    """
    shifts, ratios, lost, stopped = [], [], 0, False
    m, k = len(D), len(rows)
    known = np.concatenate([A / (A + D), np.zeros(k - m)])
    try:
        with shown(progress, replicates, name="calibration") as advance:
            for numbers in batches(replicates, k):
                Y = drawn(np.full(len(numbers), A), D, generators(seed, numbers))
                found = estimate_many(method, Y, X, D)
                Y, A_star = Y[found.converged], found.A[found.converged]
                lost += len(numbers) - len(A_star)
                best = np.zeros((len(Y), k))
                best[:, :m] = known[:m] * Y
                shifts.append((predict_many(A_star, Y, X, D, rows)[1] - best) / root)
                ratios.append(np.sqrt(_g1(A_star, D, k)) / root)
                advance(len(numbers))
    except KeyboardInterrupt:
        stopped = True
    if sum(map(len, shifts)) < 2:
        raise FitError(
            "A calibration needs two replicates or more with an estimate of A; there are none. Ask for more."
        )
    return np.concatenate(shifts), np.concatenate(ratios), lost, stopped


def _g1(A: Vector, D: Vector, k: int) -> Matrix:
    """(B, k) g1 at A (B,): of the m areas in the fit first, then A itself."""
    g1 = np.repeat(A[:, None], k, axis=1)
    g1[:, : len(D)] *= D / (A[:, None] + D)
    return g1


def _quantile(shift: Matrix, ratio: Matrix, p: float) -> tuple[Vector, Vector]:
    """t (k,) with mean_b Φ(shift_b + t ratio_b) = p, and its Monte Carlo standard error, for shift and ratio (B, k)."""
    from scipy.special import ndtr

    low, high = np.full(shift.shape[1], -LIMIT), np.full(shift.shape[1], LIMIT)
    for _ in range(HALVINGS):
        t = (low + high) / 2
        below = ndtr(shift + t * ratio).mean(axis=0) < p
        low, high = np.where(below, t, low), np.where(below, high, t)
    at = shift + t * ratio
    slope = (ratio * np.exp(-np.square(at) / 2)).mean(axis=0) / np.sqrt(2 * np.pi)
    return t, ndtr(at).std(axis=0, ddof=1) / np.sqrt(len(at)) / slope


def _everywhere(fit: AreaFit, values: Vector, offset: Vector, known: Vector) -> Vector:
    """(M,) values (k,) in the order of `order_of`, with the offset; `known` where the direct estimate stands."""
    order = order_of(fit)
    out = np.array(known, dtype=np.float64)
    out[order] = values + offset[order]
    return out
