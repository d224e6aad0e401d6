"""Whether the posterior of a compound model of counts is a probability distribution, and which moments exist.

Let the prior of tau behave like tau^(a-1) at 0 and tau^(c-1) at infinity. As tau -> 0 the likelihood tends to that of
the model without overdispersion, so that a > 0 is needed. As tau -> infinity, with ν = tau^-2 and p0 coefficients under
a flat prior:

Poisson   a unit with a count has density like ν, and in μ the likelihood falls like μ^(-mν) only: integrated over the
          flat coefficients it falls like ν^(r - p0), r the units with a count. Proper iff c < 2(r - p0); E[tau^k | y]
          exists iff c + k < 2(r - p0). With a flat log μ no E[μ^k | y] exists, since mν <= k has probability.
binomial  a unit with hits and misses has density like ν, one with hits alone like μ, one with misses alone like 1 - μ.
          Proper iff c < 2s, s the units with both; E[tau^k] exists iff c + k < 2s. Moments of μ all exist.

Flat coefficients must besides be separated by no direction along which every unit's density stays.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import priortext
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundpriors import CompoundPriors
from hierlmm.bayes.propriety import Propriety, computable
from hierlmm.errors import PriorError
from hierlmm.likelihood.compound.profile import CountData

Array = NDArray[np.float64]


def compound_propriety(target: CompoundTarget) -> Propriety:
    """Why the posterior is proper, and the moments of tau ("tau") and of the coefficients that exist.

    Raises PriorError where it is improper.
    """
    data, priors = target.data, target.priors
    text = priortext.shown(priors.tau)
    at_zero, at_infinity = priors.tau.orders
    if not at_zero > 0:
        raise PriorError(
            "The prior of tau must have finite mass near zero, because the likelihood does not vanish there; found "
            f"{text}, so the posterior is improper whatever the data. Use a prior that is flat on tau or proper."
        )
    inside = informative_units(data)
    count = int(inside.sum())
    what = "with a count" if data.family == "poisson" else "with both successes and failures"
    _check_location(data, priors, inside)
    flat = priors.flat if data.family == "poisson" else 0
    fall = 2 * (count - flat)
    if not at_infinity < fall:
        needed = flat + math.floor(at_infinity / 2) + 1
        raise PriorError(
            f"The posterior of tau is proper only with at least {needed} units {what} under the prior {text}; found "
            f"{count} of {len(data.y)}. Use a proper prior of tau (halft, halfnormal, exponential)."
        )
    limit = computable(fall - at_infinity)
    tail = "the prior's tail is lighter than any power"
    if math.isfinite(fall - at_infinity):
        tail = f"the tail of tau falls like tau^-{fall - at_infinity + 1:g}"
    own = limit / 2 if data.family == "poisson" else math.inf
    return Propriety(
        rule=f"tau ~ {text} with {count} units {what}: {tail}.",
        sd={"tau": limit},
        fixed={
            term: own if prior is None else math.inf for term, prior in zip(priors.terms, priors.fixed, strict=True)
        },
    )


def informative_units(data: CountData) -> NDArray[np.bool_]:
    """(m,) units whose density vanishes as tau goes to infinity."""
    return np.asarray(data.y > 0 if data.family == "poisson" else (data.y > 0) & (data.y < data.size))


def _check_location(data: CountData, priors: CompoundPriors, inside: NDArray[np.bool_]) -> None:
    """Refuse flat coefficients along which the likelihood does not fall."""
    flat = np.array([prior is None for prior in priors.fixed], dtype=bool)
    if not flat.any():
        return
    X = data.X[:, flat]
    if np.linalg.matrix_rank(X[inside]) == X.shape[1] or not _separated(data, X, inside):
        return
    names = [term for term, prior in zip(priors.terms, priors.fixed, strict=True) if prior is None]
    raise PriorError(
        f"Under flat priors of {', '.join(names)} the posterior is improper: along some direction of them the units' "
        "counts stay as likely as they are, because all are 0 (or all are successes) where it changes the mean. Give "
        "the coefficients a normal prior, as in 'fixed=normal(0, 5)'."
    )


def _separated(data: CountData, X: Array, inside: NDArray[np.bool_]) -> bool:
    """Whether Xβ = 0 for informative units, <= 0 for those without a count and >= 0 for those without a failure."""
    from scipy.optimize import linprog

    none = data.y == 0
    rest = X[~inside] * np.where(none[~inside], 1.0, -1.0)[:, None]
    if not len(rest):
        return False
    equal = X[inside] if inside.any() else None
    found = linprog(
        rest.sum(axis=0), A_ub=rest, b_ub=np.zeros(len(rest)), A_eq=equal,
        b_eq=None if equal is None else np.zeros(len(equal)), bounds=[(-1, 1)] * X.shape[1], method="highs",
    )  # fmt: skip
    return bool(found.status == 0 and float(found.fun or 0.0) < -1e-9)


def mean_limit(target: CompoundTarget) -> float:
    """E[μ^k | y] exists iff k is below this, μ the prior mean of a unit without observations."""
    if target.data.family == "binomial" or not target.priors.flat:
        return math.inf
    return len(target.data.y) / target.priors.tau.largest**2
