"""`benchmark`: estimates that add up to totals, with the mean squared error after they do.

With weights W (R, M), totals t (R,) and the slope Q of the method in the totals (WQ = 1), θ̂_b = θ̂ + Q(t − Wθ̂) and
the error is (I − QW) e + Q (error of t). So, Σ being the covariance matrix of e and T that of the totals,

    known exactly or with error   (I − QW) Σ (I − QW)' + Q T Q'
    internal, t = Wy, of a fit    Σ + Q W Cov(y − θ̂) W' Q'

Of a posterior, whose distribution is moved as it stands, factors f multiply its errors too: diag(f) Σ diag(f) is in
the place of Σ.

The internal one holds because the error of a best linear unbiased predictor is uncorrelated with y − θ̂, which estimates
nothing; it is what Steorts and Ghosh (2013, Statistica Sinica 23:749-767) call g4. Of a posterior, t = Wy is no news:
E[(θ − θ̂_b)² | y] is the posterior variance plus the squared adjustment (Datta, Ghosh, Steorts and Maiti 2011, TEST
20:574-588). See also Pfeffermann and Barnard (1991), Wang, Fuller and Qu (2008, Survey Methodology 34:29-36), You,
Rao and Hidiroglou (2013, Survey Methodology 39:217-229), Rao and Molina (2015, sec. 6.4.6).
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import FitError
from hierlmm.frequentist.area.tables import quantile, ratio
from hierlmm.frequentist.bootstrap.arguments import finite, generator_of
from hierlmm.publication.benchmark.adjustment import Adding, Adjustment, Scaling, refuse_stuck, spreading
from hierlmm.publication.benchmark.checking import benchmark_notes, check_units, total_checks
from hierlmm.publication.benchmark.results import Benchmarked, ErrorMethod, Method
from hierlmm.publication.benchmark.totals import Constraints, Of, Unlisted, constraints_of
from hierlmm.publication.estimates.covariance import (
    ROUNDING,
    Adjusted,
    ErrorCovariance,
    Factored,
    Rescaled,
    rescaled,
    root,
)
from hierlmm.publication.estimates.form import AreaEstimates
from hierlmm.publication.estimates.marginals import Marginals, normal
from hierlmm.publication.estimates.reading import estimates_of
from hierlmm.publication.keyed import numbers, refuse

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Array = NDArray[np.float64]


def benchmark(
    result: object,
    totals: object,
    weights: object,
    method: Method = "ratio",
    groups: object = None,
    *,
    of: Of = "mean",
    loss: object = "covariance",
    unlisted: Unlisted = "error",
    largest_factor: float = 2.0,
    mse: ErrorMethod = "linear",
    replicates: int = 1000,
    data: object = None,
    level: float = 0.95,
    seed: int | np.random.Generator | None = None,
) -> Benchmarked:
    """Move the estimates of areas so that they add up to totals, and say what error they have then.

    result   an area-level fit or posterior, or what hl.aggregate or an earlier hl.benchmark made of one
    totals   a number; numbers by group, as a mapping or Series; hl.EstimatedTotals(values, se=...) for totals with an
             error of their own; or "internal" for the weighted direct estimates of the same areas. For several
             groupings a mapping from the name of each to its totals
    weights  of the areas in the totals: a column of `data` (or of the table of the result), or a Series or mapping
             from area labels; 0 or more
    method   "ratio": θ̂ times one factor a group. "difference": plus one shift a group. "raking": ratio, over several
             groupings the product of one factor each, found by iteration. "optimal": the smallest Σ φ (θ̂_b − θ̂)²
    groups   the group of each area, given like the weights; a list of groupings, for every method but "ratio"; None for
             one total over all areas
    of       "mean": each total is Σ w θ with shares w that add up to 1 in the group, or they are refused. "total":
             each total is Σ w θ, whatever the sum of w
    loss     of "optimal": "covariance", the inverse of Σ in place of φ, which has the least mean squared error where
             totals are exact; "mse", φ = 1 / mse; or loss weights φ > 0 by area
    unlisted "keep" leaves the areas of groups without a total as they are; "error" refuses such groups
    largest_factor  a total further from the areas' own sum than by this factor, either way, is refused: it is in
             another unit, or of another population. Methods that add let it pass where it lies within the error
    mse      "linear": the matrices above, by linearisation for factors. "bootstrap": simulated from the fit
    replicates, seed  of the bootstrap; the seed also of the errors of EstimatedTotals in the draws of a posterior

    A fit has a normal interval, on the scale of the data also where the model is on another; a posterior has quantiles
    of the benchmarked posterior, and with "internal" totals a normal interval. Every draw is benchmarked by itself.
    Constraints hold to rounding. Raises DesignError naming areas or groups with both numbers where tables do not match,
    FitError where a method does not apply.
    """
    _check(method, loss, mse, largest_factor, level)
    estimates = estimates_of(result)
    constraints = constraints_of(estimates, totals, weights, groups, of, data, unlisted)
    if method == "ratio" and len(constraints.margins) > 1:
        raise FitError("A ratio has one factor a group, and here are several groupings. Use method='raking'.")
    W, target = constraints.W, constraints.target
    estimates.require(np.asarray((constraints.member > 0).any(axis=0)))
    before = np.where(estimates.exists, estimates.estimate, 0.0)
    checks = total_checks(estimates, constraints, before)
    check_units(checks, constraints, method, largest_factor)
    by = _adjustment(method, loss, estimates, constraints, data)
    after = by.apply(before, target)
    checks = checks.assign(after=W @ after, left=W @ after - target)
    moved = replace(
        estimates,
        source=f"{estimates.source}, benchmarked",
        estimate=np.where(estimates.exists, after, np.nan),
        errors=_errors(estimates, constraints, by, before, after),
        gap=None,
        nodes=None,
        bent=None,
        draws=_draws(estimates, constraints, by, seed),
    )
    simulated: tuple[str, ...] = ()
    if mse == "bootstrap":
        from hierlmm.publication.benchmark.bootstrap import bootstrap_mse

        squared, simulated = bootstrap_mse(result, by, replicates, seed)
        moved = replace(moved, errors=rescaled(moved.errors, squared))
    moved = replace(moved, marginals=_marginals(estimates, moved, by))
    return Benchmarked(
        frame=_frame(estimates, moved, level),
        checks=checks,
        method=method,
        of=of,
        mse_by=mse,
        level=level,
        constraints=constraints,
        estimates=moved,
        notes=(*simulated, *benchmark_notes(checks, before, after, estimates), *estimates.notes),
    )


def _check(method: str, loss: object, mse: str, largest_factor: float, level: float) -> None:
    for name, value, kind in (("method", method, Method), ("mse", mse, ErrorMethod)):
        if value not in get_args(kind):
            raise FitError(f"`{name}` is one of {', '.join(get_args(kind))}; found {value!r}. Use one of these.")
    if method != "optimal" and not (isinstance(loss, str) and loss == "covariance"):
        raise FitError(f"`loss` is for method 'optimal'; found it with {method!r}. Leave it out.")
    if not finite(largest_factor) or largest_factor < 1:
        raise FitError(f"`largest_factor` is a number of 1 or more; found {largest_factor!r}. Use for example 2.0.")
    quantile(level)


def _adjustment(
    method: Method, loss: object, estimates: AreaEstimates, constraints: Constraints, data: object
) -> Adjustment:
    if method in ("ratio", "raking"):
        return Scaling(constraints)
    if method == "difference":
        return Adding(constraints, spreading(constraints.member.T, constraints))
    if isinstance(loss, str) and loss == "covariance":
        spread = estimates.errors.times(constraints.W.T)
        return Adding(constraints, spreading(spread, constraints, _free(estimates, constraints)))
    if isinstance(loss, str) and loss == "mse":
        freedom = estimates.errors.diagonal()
    else:
        phi = numbers(loss, "loss weights", estimates.keys, data)
        refuse(phi <= 0, "loss weights", "must be above 0 for each", "not", estimates.keys, "Correct them.")
        freedom = 1 / phi
    return Adding(constraints, spreading(freedom[:, None] * constraints.W.T, constraints))


def _free(estimates: AreaEstimates, constraints: Constraints) -> NDArray[np.bool_]:
    """(R,) totals that have an error. Those without, as after an earlier benchmark, must be met already."""
    W, target = constraints.W, constraints.target
    before = np.where(estimates.exists, estimates.estimate, 0.0)
    free = np.diagonal(estimates.errors.between(W)) > 0
    missed = ~free & (np.abs(target - W @ before) > ROUNDING * (W @ np.abs(before)))
    if missed.any():
        refuse_stuck(np.array(constraints.names)[missed])
    return np.asarray(free)


def _errors(
    estimates: AreaEstimates, constraints: Constraints, by: Adjustment, before: Vector, after: Vector
) -> ErrorCovariance:
    """Covariance matrix of the errors after the adjustment: see the module."""
    W, Q = constraints.W, by.slope(after)
    if constraints.known != "internal":
        base = estimates.errors
        if estimates.half == "posterior" and isinstance(by, Scaling):
            base = Rescaled(base, by.factors(before, after))
        return Adjusted(base, Q, W, constraints.noise)
    if estimates.half == "posterior":
        moved = (after - before)[:, None]
        return Adjusted(estimates.errors, moved, np.zeros_like(moved.T), np.ones((1, 1)))
    if estimates.gap is None:
        raise FitError(
            "Internal totals are those of the direct estimates a fit was made from; these estimates were moved since. "
            "Benchmark the fit itself."
        )
    return Adjusted(estimates.errors, Q, np.zeros_like(W), estimates.gap.between(W))


def _draws(
    estimates: AreaEstimates, constraints: Constraints, by: Adjustment, seed: int | np.random.Generator | None
) -> Array | None:
    """Each draw of a posterior moved to the totals, themselves drawn where they have an error."""
    draws, target = estimates.draws, constraints.target
    if draws is None or constraints.known != "with error":
        return None if draws is None else by.apply(draws, target)
    z = generator_of(seed).standard_normal((*draws.shape[:2], target.size))  # type: ignore[arg-type]
    return by.apply(draws, target + z @ root(constraints.noise).T)


def _marginals(estimates: AreaEstimates, moved: AreaEstimates, by: Adjustment) -> Marginals | None:
    """The distribution of each area afterwards: normal for a fit and about internal totals, else as it was, moved."""
    nodes, here = estimates.nodes, by.constraints
    if estimates.half == "fit" or here.known == "internal":
        return normal(moved.estimate, moved.mse)
    if nodes is None:
        return None
    Q = by.slope(moved.estimate)
    factor = by.factors(estimates.estimate, moved.estimate) if isinstance(by, Scaling) else np.ones(moved.estimate.size)
    away = factor * nodes.away()
    given = (Rescaled(Factored(own, nodes.reach(k)), factor) for k, own in enumerate(nodes.own))
    variance = np.stack([Adjusted(one, Q, here.W, here.noise).diagonal() for one in given])
    return Marginals(nodes.weight, moved.estimate + away - (away @ here.W.T) @ Q.T, variance)


def _frame(estimates: AreaEstimates, moved: AreaEstimates, level: float) -> pd.DataFrame:
    se = np.sqrt(moved.mse)
    lower, upper = moved.interval(level)
    return pd.DataFrame(
        {
            "area": estimates.areas,
            "direct": estimates.direct,
            "before": np.where(estimates.exists, estimates.estimate, np.nan),
            "estimate": moved.estimate,
            "adjustment": moved.estimate - estimates.estimate,
            "se_before": np.sqrt(estimates.mse),
            "se": se,
            "mse": moved.mse,
            "lower": lower,
            "upper": upper,
            "cv": ratio(se, moved.estimate),
        }
    )
