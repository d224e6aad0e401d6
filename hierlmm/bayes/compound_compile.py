"""Compound counts in PyMC: y_i ~ f(theta_i), theta_i from a gamma or beta prior with mean mu_i and dispersion tau²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundpriors import CompoundPriors, FlatProbability
from hierlmm.design.compound import CompoundDesign
from hierlmm.likelihood.compound.conjugate import posterior
from hierlmm.likelihood.compound.marginal import mean_of
from hierlmm.likelihood.compound.maximum import estimate, informative
from hierlmm.likelihood.compound.profile import CountData, hessian, profile, start

Array = NDArray[np.float64]

# Starting dispersion where the estimate is smaller, zero, or does not exist, over that of a count's own law.
SMALLEST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompoundMode:
    """Where sampling starts: beta (p,) with root (p, p) of its covariance, tau > 0, theta (m,) inside its range."""

    beta: Array
    beta_root: Array
    tau: float
    theta: Array


def compound_mode(target: CompoundTarget) -> CompoundMode:
    """The maximum of the marginal likelihood, or a point near it where that is on the boundary."""
    data = target.data
    typical = max(float(np.median(data.y)), 1.0)
    beta, phi = start(data, 1)[0], SMALLEST / typical
    if informative(data)[0]:
        found = estimate(data)
        if found.converged:
            phi = max(found.dispersion, phi)
            beta = profile(data, np.array([phi]), found.beta[None]).beta[0]
    phi = min(phi, (0.5 * target.priors.tau.largest) ** 2)
    mu = mean_of(data.family, data.X @ beta + data.offset)
    return CompoundMode(
        beta=beta,
        beta_root=_root(data, beta, phi),
        tau=float(np.sqrt(phi)),
        theta=posterior(data.family, data.y, data.size, mu, phi).mean,
    )


def _root(data: CountData, beta: Array, phi: float) -> Array:
    """Lower factor of the covariance of β given φ; the identity where its information is not positive definite."""
    p = len(beta)
    try:
        half = np.linalg.solve(np.linalg.cholesky(-hessian(data, beta, phi)[:p, :p]), np.eye(p))
    except np.linalg.LinAlgError:
        return np.eye(p)
    return np.asarray(np.linalg.cholesky(half.T @ half))


def compound_model(design: CompoundDesign, priors: CompoundPriors, form: str) -> Any:
    """A pm.Model with `beta` (term), `tau`, and in the hierarchical form `theta` (unit), the units in the fit.

    Deterministic: `mu` (unit), the prior means. Data that pm.set_data may replace: X, offset, exposure or trials,
    y_observed.
    """
    b, poisson = backend(), design.spec.family == "poisson"
    target = CompoundTarget.of(design, priors)
    data, mode = target.data, compound_mode(target)
    coords = {"term": list(design.fixed), "unit": design.units[design.sampled].tolist()}
    with b.pm.Model(coords=coords) as model:
        X = b.pm.Data("X", data.X, dims=("unit", "term"))
        eta = b.pm.Data("offset", data.offset, dims="unit")
        size = b.pm.Data(
            "exposure" if poisson else "trials", data.size if poisson else data.size.astype(np.int64), dims="unit"
        )
        y = b.pm.Data("y_observed", data.y.astype(np.int64), dims="unit")
        if design.fixed:
            eta = b.pt.dot(X, _beta(priors, mode)) + eta
        mu = b.pm.Deterministic("mu", b.pt.exp(eta) if poisson else b.pt.sigmoid(eta), dims="unit")
        precision = standard_deviation("tau", priors.tau, mode.tau) ** -2.0
        if form == "marginal":
            _marginal(poisson, mu, precision, size, y)
        else:
            _hierarchical(poisson, mu, precision, size, y, mode)
    model.parametrisation = {design.spec.unit: "integrated out" if form == "marginal" else "centred"}
    return model


def _beta(priors: CompoundPriors, mode: CompoundMode) -> Any:
    """Coefficients; a mean that is flat on the probability is a standard logistic variable on the logit."""
    if priors.fixed != (FlatProbability(),):
        normals = tuple(None if isinstance(prior, FlatProbability) else prior for prior in priors.fixed)
        return fixed_effects(normals, mode.beta, mode.beta_root)
    b = backend()
    move = b.Linear(mode.beta_root, mode.beta)
    return b.pm.Logistic("beta", 0.0, 1.0, dims="term", initval=mode.beta, transform=move)


def _marginal(poisson: bool, mu: Any, precision: Any, size: Any, y: Any) -> None:
    pm = backend().pm
    if poisson:
        pm.NegativeBinomial("y", mu=size * mu, alpha=precision, observed=y, dims="unit")
    else:
        pm.BetaBinomial("y", n=size, alpha=precision * mu, beta=precision * (1 - mu), observed=y, dims="unit")


def _hierarchical(poisson: bool, mu: Any, precision: Any, size: Any, y: Any, mode: CompoundMode) -> None:
    pm = backend().pm
    if poisson:
        theta = pm.Gamma("theta", alpha=precision, beta=precision / mu, dims="unit", initval=mode.theta)
        pm.Poisson("y", mu=size * theta, observed=y, dims="unit")
    else:
        theta = pm.Beta("theta", alpha=precision * mu, beta=precision * (1 - mu), dims="unit", initval=mode.theta)
        pm.Binomial("y", n=size, p=theta, observed=y, dims="unit")
