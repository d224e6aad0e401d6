"""The estimated prior with its errors: coefficients, and the parameters a reader knows it by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hierlmm.frequentist.area.tables import quantile
from hierlmm.frequentist.compound.counts import count_data
from hierlmm.frequentist.compound.normal import STEIN
from hierlmm.likelihood.compound.interval import profile_interval
from hierlmm.likelihood.compound.marginal import expit
from hierlmm.likelihood.compound.stein import least_squares

if TYPE_CHECKING:
    from hierlmm.frequentist.compound.results import CompoundFit

Row = tuple[str, str, float, float, float, float]


def prior_rows(fit: CompoundFit, level: float) -> Iterator[Row]:
    """The rows of `prior_frame`."""
    z = quantile(level)
    for k, term in enumerate(fit.design.fixed):
        estimate, se = float(fit.beta[k]), math.sqrt(fit.covariance[k, k])
        yield "fixed", term, estimate, se, estimate - z * se, estimate + z * se
    yield from _normal(fit, level) if fit.spec.family == "normal" else _counts(fit, level)


def _normal(fit: CompoundFit, level: float) -> Iterator[Row]:
    A, se = fit.dispersion, math.sqrt(fit.covariance[-1, -1])
    low, high = _variance_interval(fit, level, se)
    yield "prior", "A", A, se, low, high
    yield "prior", "tau", math.sqrt(A), se / (2 * math.sqrt(A)) if A > 0 else math.nan, math.sqrt(low), math.sqrt(high)


def _variance_interval(fit: CompoundFit, level: float, se: float) -> tuple[float, float]:
    """Profile likelihood (area-level estimators), exact by S ~ (A + D) χ² (Stein's rules), normal cut at 0 (Morris)."""
    if fit.area is not None:
        row = fit.area.A_table(level).iloc[0]
        return float(row["lower"]), float(row["upper"])
    if fit.method in STEIN:
        from scipy.special import chdtri

        into = fit.design.sampled
        D = float(fit.design.size[into].mean())
        least = least_squares(fit.design.y[into] - fit.design.offset[into], fit.design.X[into], D)
        ends = [least.S * D / float(chdtri(least.q, tail)) - D for tail in ((1 - level) / 2, (1 + level) / 2)]
        return max(0.0, ends[0]), max(0.0, ends[1])
    reach = quantile(level) * se
    return max(0.0, fit.dispersion - reach), fit.dispersion + reach


def _counts(fit: CompoundFit, level: float) -> Iterator[Row]:
    phi, z = fit.dispersion, quantile(level)
    se = math.sqrt(fit.covariance[-1, -1]) if phi > 0 else math.nan
    low, high = dispersion_interval(fit, level, se)
    name = "shape" if fit.spec.family == "poisson" else "precision"
    yield "prior", name, _over(1, phi), se / phi**2 if phi > 0 else math.nan, _over(1, high), _over(1, low)
    if common_mean(fit):
        yield from _common(fit, z)
    tau = math.sqrt(phi)
    yield "prior", "tau", tau, se / (2 * tau) if phi > 0 else math.nan, math.sqrt(low), math.sqrt(high)


def common_mean(fit: CompoundFit) -> bool:
    """Whether all units have one prior."""
    return fit.design.fixed == ("Intercept",) and not fit.spec.offset


def dispersion_interval(fit: CompoundFit, level: float, se: float) -> tuple[float, float]:
    """By the profile likelihood; for moments normal in the logarithm, from 0 at 0."""
    phi, z = fit.dispersion, quantile(level)
    if fit.certificate is not None:
        return profile_interval(count_data(fit.design), fit.certificate, z**2 / 2)
    if phi == 0 or not se > 0:
        return 0.0, math.nan
    return phi * math.exp(-z * se / phi), phi * math.exp(z * se / phi)


def _common(fit: CompoundFit, z: float) -> Iterator[Row]:
    """Parameters of the common prior by the delta method, normal on a scale on which they are free."""
    eta, phi = float(fit.beta[0]), fit.dispersion
    C = fit.covariance
    mu, nu = (math.exp(eta), 1.0) if fit.spec.family == "poisson" else (float(expit(np.array(eta))), 1.0)
    inverse: Callable[[float], float] = math.exp
    if fit.spec.family == "binomial":
        nu = 1 - mu
        inverse = lambda x: float(expit(np.array(x)))  # noqa: E731  # one of two functions
    se = math.sqrt(C[0, 0])
    yield "prior", "mean", mu, mu * nu * se, inverse(eta - z * se), inverse(eta + z * se)
    # (value, derivative of its logarithm in η and in φ)
    known = {
        "poisson": {
            "rate": (_over(1, phi * mu), (-1.0, _over(-1, phi))),
            "variance": (mu**2 * phi, (2.0, _over(1, phi))),
        },
        "binomial": {
            "alpha": (_over(mu, phi), (nu, _over(-1, phi))),
            "beta": (_over(nu, phi), (-mu, _over(-1, phi))),
            "variance": (mu * nu * phi / (1 + phi), (nu - mu, _over(1, phi * (1 + phi)))),
        },
    }[fit.spec.family]
    for term, (value, slopes) in known.items():
        if phi == 0:
            yield "prior", term, value, math.nan, math.nan, math.nan
            continue
        J = np.array(slopes)
        spread = math.sqrt(J @ C @ J)
        yield "prior", term, value, value * spread, value * math.exp(-z * spread), value * math.exp(z * spread)


def _over(a: float, b: float) -> float:
    return a / b if b else math.copysign(math.inf, a)
