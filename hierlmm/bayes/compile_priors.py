"""Priors as PyMC variables: a distribution where PyMC has one, a flat variable with a potential where it has not.

Every variable is in natural units (a standard deviation, a coefficient) and carries a starting value, so that the
model can be sampled whatever the units of the response.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.areafamilies import DattaRaoSmith, GaneshLahiri, Jeffreys, UniformShrinkage
from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.families import (
    LKJ,
    Exponential,
    Flat,
    HalfCauchy,
    HalfNormal,
    HalfT,
    InverseGamma,
    Normal,
    SDPrior,
    Uniform,
)
from hierlmm.errors import PriorError

Array = NDArray[np.float64]
Settings = Mapping[str, Any]

LOG_2 = math.log(2.0)


def fixed_effects(priors: Sequence[Normal | None], start: Array, scale: Array) -> Any:
    """The variable `beta` (p,) along `term`, with normal or flat (None) priors.

    The sampler moves in w with beta = start + scale w; with `scale` (p, p) a factor of the covariance matrix of
    the estimate, an intercept far from the data and its slope are no longer correlated. The density in beta is
    untouched.
    """
    b = backend()
    settings = {"dims": "term", "initval": start, "transform": b.Linear(scale, start)}
    places = [k for k, prior in enumerate(priors) if prior is not None]
    mean = np.array([prior.mean for prior in priors if prior is not None], dtype=np.float64)
    sd = np.array([prior.sd for prior in priors if prior is not None], dtype=np.float64)
    if places and len(places) == len(priors):
        return b.pm.Normal("beta", mean, sd, **settings)
    beta = b.pm.Flat("beta", **settings)
    if places:
        density = -0.5 * ((beta[places] - mean) / sd) ** 2 - np.log(sd) - 0.5 * math.log(2 * math.pi)
        b.pm.Potential("beta_prior", density.sum())
    return beta


def standard_deviation(name: str, prior: SDPrior, start: float) -> Any:
    """One standard deviation, a scalar variable: the residual's, or that of the area effects."""
    return _variable(name, [prior], {"initval": start})


def standard_deviations(name: str, priors: Sequence[SDPrior], start: Array, labels: Sequence[str], dims: str) -> Any:
    """Standard deviations (q,) of one grouping factor along `dims`, one prior each in the order of `labels`.

    One vector variable where the priors are of one family; else a scalar variable each, and their vector.
    """
    b = backend()
    if len({type(prior) for prior in priors}) == 1:
        return _variable(name, priors, {"initval": start, "dims": dims})
    parts = [
        standard_deviation(f"{name}_{label}", prior, float(start[k]))
        for k, (prior, label) in enumerate(zip(priors, labels, strict=True))
    ]
    return b.pm.Deterministic(name, b.pt.stack(parts), dims=dims)


def _variable(name: str, priors: Sequence[SDPrior], settings: Settings) -> Any:
    """A variable whose priors are of one family: a vector where the settings name its dimension, else a scalar."""
    if (make := _DISTRIBUTIONS.get(type(priors[0]))) is not None:
        names = type(priors[0]).__dataclass_fields__  # type: ignore[attr-defined]
        values = {field: np.array([getattr(prior, field) for prior in priors], dtype=np.float64) for field in names}
        return make(name, values if "dims" in settings else {f: v[0] for f, v in values.items()}, settings)
    b = backend()
    sd = b.pm.HalfFlat(name, **settings)
    parts = sd if "dims" in settings else [sd]
    b.pm.Potential(f"{name}_prior", sum(_log_density(prior, parts[k]) for k, prior in enumerate(priors)))
    return sd


def has_sampler(prior: SDPrior) -> bool:
    """Whether the compiled variable is a distribution of PyMC, which can be drawn without data."""
    return type(prior) in _DISTRIBUTIONS


def _half_t(name: str, values: Settings, settings: Settings) -> Any:
    return backend().pm.HalfStudentT(name, nu=values["df"], sigma=values["scale"], **settings)


def _half_cauchy(name: str, values: Settings, settings: Settings) -> Any:
    return backend().pm.HalfCauchy(name, beta=values["scale"], **settings)


def _half_normal(name: str, values: Settings, settings: Settings) -> Any:
    return backend().pm.HalfNormal(name, sigma=values["scale"], **settings)


def _exponential(name: str, values: Settings, settings: Settings) -> Any:
    return backend().pm.Exponential(name, lam=values["rate"], **settings)


def _uniform(name: str, values: Settings, settings: Settings) -> Any:
    upper = values["upper"]
    inside = {**settings, "initval": np.minimum(settings["initval"], upper / 2)}
    return backend().pm.Uniform(name, lower=0.0 * upper, upper=upper, **inside)


def _inverse_gamma(name: str, values: Settings, settings: Settings) -> Any:
    """Root of an inverse gamma variance, so that the variable is the standard deviation."""
    b = backend()
    return b.pm.CustomDist(
        name,
        values["shape"],
        values["scale"],
        dist=lambda shape, scale, size: b.pt.sqrt(b.pm.InverseGamma.dist(shape, scale, size=size)),
        transform=b.pm.distributions.transforms.log,
        **settings,
    )


# Families that PyMC can draw from; the others are improper or known by their density only.
_DISTRIBUTIONS: dict[type[SDPrior], Callable[[str, Settings, Settings], Any]] = {
    HalfT: _half_t,
    HalfCauchy: _half_cauchy,
    HalfNormal: _half_normal,
    Exponential: _exponential,
    Uniform: _uniform,
    InverseGamma: _inverse_gamma,
}


def _log_density(prior: SDPrior, sd: Any) -> Any:
    """`prior.log_density` as a PyTensor expression, for the families without a distribution."""
    pt = backend().pt
    if isinstance(prior, Flat):
        power = {"sd": 0, "variance": 1, "covariance": prior.size, "log": -1}[prior.on]
        return (0.0 if prior.on in ("sd", "log") else LOG_2) + power * pt.log(sd)
    if (in_A := _AREA_DENSITIES.get(type(prior))) is not None:
        return in_A(prior, sd**2, np.asarray(prior.D, dtype=np.float64)) + LOG_2 + pt.log(sd)  # type: ignore[attr-defined]
    raise PriorError(
        f"A prior must be one that a PyMC model can state; found {type(prior).__name__}. "
        'Use engine="integrate", which needs only its density.'
    )


def _concentration(A: Any, D: Array) -> Any:
    """log of the sum of (A + D_i)^-2."""
    return backend().pt.log(((A + D) ** -2.0).sum())


def _uniform_shrinkage(_: UniformShrinkage, A: Any, D: Array) -> Any:
    d = float(len(D) / (1.0 / D).sum())
    return math.log(d) - 2.0 * backend().pt.log(A + d)


def _ganesh_lahiri(_: GaneshLahiri, A: Any, D: Array) -> Any:
    return _concentration(A, D) - backend().pt.log(((D / (A + D)) ** 2).sum())


def _jeffreys(_: Jeffreys, A: Any, D: Array) -> Any:
    return 0.5 * _concentration(A, D)


def _datta_rao_smith(prior: DattaRaoSmith, A: Any, D: Array) -> Any:
    own = -math.log((1.0 / D).sum()) if prior.at is None else 2.0 * backend().pt.log(A + prior.at)
    return _concentration(A, D) + own


# Log density in A of the priors that depend on the sampling variances D.
_AREA_DENSITIES: dict[type[SDPrior], Callable[[Any, Any, Array], Any]] = {
    UniformShrinkage: _uniform_shrinkage,
    GaneshLahiri: _ganesh_lahiri,
    Jeffreys: _jeffreys,
    DattaRaoSmith: _datta_rao_smith,
}


def correlation_factor(name: str, prior: LKJ, size: int, dims: str) -> Any:
    """Cholesky factor (q, q) of a correlation matrix R with the LKJ(eta) prior, from its partial correlations.

    The partial correlation of coefficients i > j given those before j is 2u - 1 with independent u ~ Beta(a, a),
    a = eta + (q - 2 - j) / 2, which is LKJ(eta) on R exactly (Lewandowski, Kurowicka & Joe 2009, JMVA 100:1989).
    The variable is u, by rows of R below the diagonal; with two coefficients 2u - 1 is the correlation itself.
    """
    b = backend()
    pairs = [(i, j) for i in range(1, size) for j in range(i)]
    a = np.array([prior.eta + 0.5 * (size - 2 - j) for _, j in pairs])
    z = 2.0 * b.pm.Beta(name, a, a, dims=dims, initval=np.full(len(pairs), 0.5)) - 1.0
    zero, one = (b.pt.as_tensor(np.float64(value)) for value in (0.0, 1.0))
    rows = [[one] + [zero] * (size - 1)]
    for i in range(1, size):
        row, left = [], one
        for j in range(i):
            partial = z[pairs.index((i, j))]
            row.append(partial * left)
            left = left * b.pt.sqrt((1.0 - partial) * (1.0 + partial))
        rows.append([*row, left] + [zero] * (size - 1 - i))
    return b.pt.stack([b.pt.stack(row) for row in rows])
