"""Whether the posterior is a probability distribution at all, and which of its moments exist, decided beforehand.

An improper posterior does not stop a sampler, and a moment that does not exist does not stop an average
(Hobert & Casella 1996, JASA 91:1461). So the tails are read off before anything is returned.

With sd = τ, likelihood × prior ~ τ^(a-1) as τ -> 0 and ~ τ^(c-1-ν) as τ -> infinity, where ν is the number of
contrasts of the data that lose all weight. It is proper iff a > 0 and c < ν, and E[τ^k | y] exists iff c + k < ν.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes import priortext
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.errors import PriorError

Vector = NDArray[np.float64]

# Distance in log τ from the scale of the data at which a slope is the slope of the tail: terms left out are e^-2·FAR.
FAR = 14.0
# A moment counts as existing where its integrand falls at least like this power of the sd. Below, it is made of sds
# beyond e^(1/SLOW) times the data, and no computation in floating point reaches them: inversegamma(0.001, 0.001).
SLOW = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Propriety:
    """A proper posterior, with the reason and the moments that exist.

    rule    why it is proper, with the numbers of this design in it
    sd      per standard deviation "group:coefficient" (and "Residual"): E[sd^k | y] exists iff k is below this
    fixed   per coefficient of the fixed effects the same for E[|β|^k | y]
    slopes  slope of the log posterior density of log sd at both ends, from evaluating it there; empty where the
            tails have more than one dimension
    """

    rule: str
    sd: Mapping[str, float]
    fixed: Mapping[str, float]
    slopes: tuple[float, ...] = ()

    def missing(self) -> tuple[str, ...]:
        """One sentence for each mean or standard deviation of a parameter that does not exist."""
        lines = []
        for name, limit in self.sd.items():
            sd = "the residual sd" if name == "Residual" else f"sd({name})"
            variance = sd.replace("sd", "variance", 1) if name == "Residual" else f"variance({name})"
            absent = [
                text
                for order, text in (
                    (1, f"the mean of {sd}"), (2, f"the sd of {sd} and the mean of {variance}"),
                    (4, f"the sd of {variance}"),
                )
                if not order < limit
            ]
            if absent:
                lines.append(
                    f"The posterior has moments of {sd} below order {limit:g} only: not finite: {', '.join(absent)}."
                )
        short = {term: limit for term, limit in self.fixed.items() if not limit > 2}
        if short:
            what = "sd" if min(short.values()) > 1 else "mean and sd"
            lines.append(f"The posterior {what} of the fixed effects ({', '.join(short)}) is not finite.")
        return tuple(lines)


def area_propriety(priors: ResolvedPriors, m: int, log_density: Callable[[Vector], Vector], centre: float) -> Propriety:
    """Propriety of the posterior of an area-level model with m areas in the fit.

    log_density  log posterior density (up to a constant) of log τ, vectorised; centre: log τ typical of the data.
    With p₀ coefficients under a flat prior, ν = m − p₀ (PRIORS of Gelman 2006, Datta & Smith 2003: flat on A needs
    m > p + 2, flat on √A m > p + 1, 1/A is improper always).
    Raises PriorError where the posterior is improper.
    """
    factor = priors.factors[0]
    prior, name = factor.sd[0], f"{factor.name}:{factor.coefficients[0]}"
    at_zero, at_infinity = prior.orders
    flat = [term for term, normal in zip(priors.terms, priors.fixed, strict=True) if normal is None]
    nu = m - len(flat)
    text = priortext.shown(prior)
    if not at_zero > 0:
        raise PriorError(
            "The prior of √A must have finite mass near zero, because the likelihood does not vanish there; found "
            f"{text} for the area variance, so the posterior is improper whatever the data. Use a prior "
            "that is flat on √A (flat) or proper (halft, exponential, ...)."
        )
    if not at_infinity < nu:
        needed = len(flat) + math.floor(at_infinity) + 1
        raise PriorError(
            f"The posterior of the area variance is proper only with at least {needed} areas under the prior {text} of "
            f"√A and {len(flat)} coefficients with a flat prior; found {m} areas in the fit. Use a proper prior of √A "
            "(halft, halfnormal, exponential, uniform_shrinkage), or a model with fewer coefficients."
        )
    decay = nu - at_infinity
    limit = computable(decay)
    tail = "the prior's tail is lighter than any power"
    if math.isfinite(decay):
        tail = f"the tail of √A falls like √A^-{decay + 1:g}"
    rule = f"√A ~ {text} with {m} areas and {len(flat)} flat coefficients: {tail}."
    slopes = () if math.isfinite(prior.largest) else _slopes(log_density, centre)
    return Propriety(
        rule=rule,
        sd={name: limit},
        fixed={term: limit if term in flat else math.inf for term in priors.terms},
        slopes=slopes,
    )


def computable(limit: float) -> float:
    """The order below which moments exist, lowered to an order of interest that it exceeds by less than SLOW."""
    return next((float(k) for k in (1, 2, 4) if 0.0 < limit - k < SLOW), limit)


def _slopes(log_density: Callable[[Vector], Vector], centre: float) -> tuple[float, float]:
    """Slope of a log density at both ends, from four evaluations."""
    at = centre + np.array([-FAR - 0.5, -FAR + 0.5, FAR - 0.5, FAR + 0.5])
    values = log_density(at)
    with np.errstate(invalid="ignore"):
        low, high = values[1] - values[0], values[3] - values[2]
    return float(low), float(high)
