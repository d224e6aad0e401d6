"""The area-level model in PyMC: y_i ~ N(theta_i, D_i), theta_i = x_i'beta + offset_i + v_i, v_i ~ N(0, A)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_mode import AreaMode, Centring
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import AreaDesign
from hierlmm.spec.transformation import ArcsineRoot, Log, Transformation


def hierarchical_area_model(design: AreaDesign, priors: ResolvedPriors, mode: AreaMode, centring: Centring) -> Any:
    """A pm.Model with the area means as variables: `beta` (term), `tau`, `A` = tau², `theta` (area).

    Where non-centred, theta is mu + tau * `v_unit` with v_unit ~ N(0, 1). The areas are those in the fit (D > 0);
    the others are predicted from the draws. On a transformed scale `mean` (area) is g(theta), on the scale of the data,
    and y is the transformed direct estimate. Data that pm.set_data may replace: X, offset, D, y_observed; a known
    covariance S of the sampling errors is a constant, and D is not read then.
    """
    b = backend()
    with b.pm.Model(coords=_coords(design)) as model:
        mu, tau, D, y = _common(design, priors, mode)
        if centring == "centred":
            transform = b.Elementwise(mode.theta_scale, mode.theta)
            theta = b.pm.Normal("theta", mu, tau, dims="area", initval=mode.theta, transform=transform)
        else:
            unit = b.pm.Normal("v_unit", 0.0, 1.0, dims="area", initval=np.zeros(len(mode.theta)))
            theta = b.pm.Deterministic("theta", mu + tau * unit, dims="area")
        sampling_errors(design, theta, D, y)
        if design.spec.transformation is not None:
            b.pm.Deterministic("mean", on_data_scale(design.spec.transformation, theta), dims="area")
    return model


def sampling_errors(design: AreaDesign, theta: Any, D: Any, y: Any) -> None:
    """The likelihood `y` of the direct estimates given the area means, inside the model."""
    b = backend()
    if design.covariance is None:
        b.pm.Normal("y", theta, b.pt.sqrt(D), observed=y, dims="area")
    else:
        b.pm.MvNormal("y", theta, chol=np.linalg.cholesky(sampling_covariance(design)), observed=y, dims="area")


def sampling_covariance(design: AreaDesign) -> NDArray[np.float64]:
    """(m, m) known covariance of the sampling errors of the areas in the fit."""
    into = design.sampled
    return np.diag(design.D[into]) if design.covariance is None else np.array(design.covariance[np.ix_(into, into)])


def on_data_scale(transformation: Transformation, theta: Any) -> Any:
    """g(θ), the area means on the scale of the data, as `likelihood.area.scales` has them."""
    pt = backend().pt
    if isinstance(transformation, Log):
        return pt.exp(theta)
    if isinstance(transformation, ArcsineRoot):
        return pt.sqr(pt.sin(pt.clip(theta, 0.0, np.pi / 2)))
    return pt.sigmoid(theta)


def marginal_area_model(design: AreaDesign, priors: ResolvedPriors, mode: AreaMode) -> Any:
    """A pm.Model with the area effects integrated out: y_i ~ N(x_i'beta + offset_i, A + D_i), or y ~ N(., A I + S).

    Variables `beta` (term), `tau` and `A` = tau²; areas and data as in the hierarchical form.
    """
    b = backend()
    with b.pm.Model(coords=_coords(design)) as model:
        mu, tau, D, y = _common(design, priors, mode)
        if design.covariance is None:
            b.pm.Normal("y", mu, b.pt.sqrt(tau**2 + D), observed=y, dims="area")
        else:
            cov = tau**2 * np.eye(len(mode.theta)) + sampling_covariance(design)
            b.pm.MvNormal("y", mu, cov=cov, observed=y, dims="area")
    return model


def _coords(design: AreaDesign) -> dict[str, list[object]]:
    return {"term": list(design.fixed), "area": design.areas[design.sampled].tolist()}


def _common(design: AreaDesign, priors: ResolvedPriors, mode: AreaMode) -> tuple[Any, Any, Any, Any]:
    """Linear predictor, tau, sampling variances and direct estimates, inside the model."""
    pm, pt = backend().pm, backend().pt
    into = design.sampled
    X = pm.Data("X", design.X[into], dims=("area", "term"))
    mu = pm.Data("offset", design.offset[into], dims="area")
    D = pm.Data("D", design.D[into], dims="area")
    y = pm.Data("y_observed", design.y[into], dims="area")
    if design.fixed:
        mu = pt.dot(X, fixed_effects(priors.fixed, mode.beta, mode.beta_root)) + mu
    tau = standard_deviation("tau", priors.factors[0].sd[0], mode.tau)
    pm.Deterministic("A", tau**2)
    return mu, tau, D, y
