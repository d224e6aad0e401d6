"""The spatial area-level model in PyMC: theta = x'beta + offset + v, v = rho W v + u, u_i ~ N(0, A), y ~ N(theta, S).

The log density of v is that of u = (I - rho W) v and log|det(I - rho W)|, which is read off the eigenvalues of W, so
that a step costs a product with W; in non-centred coordinates it costs the solution of one system.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_area import on_data_scale, sampling_covariance
from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_mode import SMALLEST_START, Centring, choose
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.spatial_surface import problem_of
from hierlmm.design.types import AreaDesign
from hierlmm.likelihood.area.spatial import eigenvalues, node
from hierlmm.likelihood.area.spatial_derivatives import curvature, derivatives
from hierlmm.likelihood.area.spatial_errors import predict
from hierlmm.likelihood.area.spatial_search import maximise

Array = NDArray[np.float64]

# Share of its interval by which the start of rho stays away from an end.
INSIDE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpatialMode:
    """The M areas at the REML estimate, moved inside where that is at a boundary.

    beta (p,), beta_root (p, p) lower factor of its covariance, tau > 0, rho; theta (M,) with offset, theta_scale (M,)
    centring  {"area:Intercept": coordinates}
    """

    beta: Array
    beta_root: Array
    tau: float
    rho: float
    theta: Array
    theta_scale: Array
    centring: dict[str, Centring]


def spatial_mode(design: AreaDesign, priors: ResolvedPriors | None = None) -> SpatialMode:
    """The restricted mode of a spatial area-level model, inside the interval that the prior of rho leaves."""
    given = problem_of(design)
    found = maximise(given, "reml")
    low, high = given.ends if priors is None or priors.rho is None else (priors.rho.low, priors.rho.high)
    margin = INSIDE * (high - low)
    rho = float(np.clip((low + high) / 2 if math.isnan(found.rho) else found.rho, low + margin, high - margin))
    A = max(found.A, SMALLEST_START * float(np.median(given.errors.d)))
    at = node(given, rho)
    blup = predict(at, A)
    change = curvature(at)
    at_zero = derivatives(at, change, 0.0, "reml").loglik
    w = 1 / (A + at.d)
    kept = np.ones(len(given.W))
    kept[: len(w)] = at.d * w
    variance = np.square(change.L) @ (A * kept)
    name = f"{design.spec.random[0].factor}:Intercept"
    return SpatialMode(
        beta=blup.beta,
        beta_root=np.asarray(np.linalg.cholesky(blup.cov_beta), dtype=np.float64),
        tau=math.sqrt(A),
        rho=rho,
        theta=design.offset + blup.synthetic + blup.effect,
        theta_scale=np.sqrt(variance),
        centring={name: choose(float(np.mean(blup.weight)) if found.A > 0 else 0.0, found.loglik_reml - at_zero)},
    )


def hierarchical_spatial_model(
    design: AreaDesign, priors: ResolvedPriors, mode: SpatialMode, centring: Centring
) -> Any:
    """A pm.Model with the means of all areas as variables: `beta` (term), `tau`, `A` = tau², `rho`, `theta` (area).

    Areas without a direct estimate are among them: their neighbours inform them. `y` is along `sampled`, the areas in
    the fit. Where non-centred, theta is mu + tau (I - rho W)⁻¹ `v_unit`, v_unit ~ N(0, 1). Data that pm.set_data may
    replace: X, offset, y_observed.
    """
    b = backend()
    W = np.array(design.proximity)
    with b.pm.Model(coords=_coords(design)) as model:
        mu, tau, rho, y = _common(design, priors, mode)
        if centring == "centred":
            theta = b.pm.CustomDist(
                "theta", mu, tau, rho, logp=_log_density(W), random=_random(W), signature="(n),(),()->(n)",
                dims="area", initval=mode.theta, transform=b.Linear(np.diag(mode.theta_scale), mode.theta),
            )  # fmt: skip
        else:
            unit = b.pm.Normal("v_unit", 0.0, 1.0, dims="area", initval=np.zeros(len(W)))
            effect = tau * b.pt.linalg.solve(np.eye(len(W)) - rho * W, unit)
            theta = b.pm.Deterministic("theta", mu + effect, dims="area")
        into = np.flatnonzero(design.sampled)
        chol = np.linalg.cholesky(sampling_covariance(design))
        b.pm.MvNormal("y", theta[into], chol=chol, observed=y, dims="sampled")
        if design.spec.transformation is not None:
            b.pm.Deterministic("mean", on_data_scale(design.spec.transformation, theta), dims="area")
    return model


def marginal_spatial_model(design: AreaDesign, priors: ResolvedPriors, mode: SpatialMode) -> Any:
    """A pm.Model with the area effects integrated out: y ~ N(Xbeta + offset, A Omega + S) over the areas in the fit."""
    b = backend()
    W = np.array(design.proximity)
    into = np.flatnonzero(design.sampled)
    with b.pm.Model(coords=_coords(design)) as model:
        mu, tau, rho, y = _common(design, priors, mode)
        half = b.pt.linalg.inv(np.eye(len(W)) - rho * W)[into]
        cov = tau**2 * b.pt.dot(half, half.T) + sampling_covariance(design)
        b.pm.MvNormal("y", mu[into], cov=cov, observed=y, dims="sampled")
    return model


def _coords(design: AreaDesign) -> dict[str, list[object]]:
    labels = design.areas.tolist()
    return {"term": list(design.fixed), "area": labels, "sampled": design.areas[design.sampled].tolist()}


def _common(design: AreaDesign, priors: ResolvedPriors, mode: SpatialMode) -> tuple[Any, Any, Any, Any]:
    """Linear predictor of all areas, tau, rho and direct estimates, inside the model."""
    pm, pt = backend().pm, backend().pt
    X = pm.Data("X", design.X, dims=("area", "term"))
    mu = pm.Data("offset", design.offset, dims="area")
    y = pm.Data("y_observed", design.y[design.sampled], dims="sampled")
    if design.fixed:
        mu = pt.dot(X, fixed_effects(priors.fixed, mode.beta, mode.beta_root)) + mu
    tau = standard_deviation("tau", priors.factors[0].sd[0], mode.tau)
    pm.Deterministic("A", tau**2)
    assert priors.rho is not None
    rho = pm.Uniform("rho", priors.rho.low, priors.rho.high, initval=mode.rho)
    return mu, tau, rho, y


def _log_density(W: Array) -> Any:
    """Log density of theta (M,) given mu, tau and rho, as a PyTensor expression."""
    roots = eigenvalues(W)
    real, imaginary = roots.real, roots.imag

    def logp(value: Any, mu: Any, tau: Any, rho: Any) -> Any:
        pt = backend().pt
        v = value - mu
        u = (v - rho * pt.dot(W, v)) / tau
        log_det = 0.5 * pt.log((1 - rho * real) ** 2 + (rho * imaginary) ** 2).sum()
        return log_det - 0.5 * (u**2).sum() - len(W) * (pt.log(tau) + 0.5 * math.log(2 * math.pi))

    return logp


def _random(W: Array) -> Any:
    """Draws of theta given mu, tau and rho."""

    def random(mu: Array, tau: Any, rho: Any, rng: np.random.Generator | None = None, size: Any = None) -> Array:
        noise = np.random.default_rng(rng).standard_normal(len(W))
        return np.asarray(mu + tau * np.linalg.solve(np.eye(len(W)) - rho * W, noise))

    return random
