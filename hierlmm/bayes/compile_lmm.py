"""The linear mixed model in PyMC with its random effects as variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_covariance import Covariance, coords, covariance, part
from hierlmm.bayes.compile_mode import Centring, LMMMode, block_name
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import PriorError

Array = NDArray[np.float64]


def hierarchical_lmm(
    design: LMMDesign, priors: ResolvedPriors, mode: LMMMode, centring: Mapping[str, Centring]
) -> Any:
    """A pm.Model of y ~ N(X beta + offset + sum over factors of z'b, sigma²), b ~ N(0, G).

    Variables: `beta` (term), `sigma`, and per factor f `sd_f` (f_coef), `corr_f` (f_coef, f_coef_bis), `b_f`
    (f, f_coef). A non-centred block is L times `b_f_unit` ~ N(0, 1), L the lower factor of its covariance. Rows
    find their effects by integer codes: Z is never formed. Data that pm.set_data may replace: X, offset,
    y_observed and per factor Z_f and codes_f.
    """
    b = backend()
    with b.pm.Model(coords=coords(design)) as model:
        mu = linear_predictor(design, priors, mode)
        sigma = standard_deviation("sigma", residual(priors), mode.sigma)
        for f, factor in enumerate(design.factors):
            spread = covariance(factor, priors.factors[f], mode.sd[f])
            effects = _effects(factor, spread, mode.b[f], mode.b_root[f], centring)
            Z = b.pm.Data(f"Z_{factor.name}", factor.Z, dims=("row", f"{factor.name}_coef"))
            codes = b.pm.Data(f"codes_{factor.name}", factor.codes, dims="row")
            mu = mu + (Z * effects[codes]).sum(axis=1)
        y = b.pm.Data("y_observed", design.y, dims="row")
        b.pm.Normal("y", mu, sigma, observed=y, dims="row")
    return model


def linear_predictor(design: LMMDesign, priors: ResolvedPriors, mode: LMMMode) -> Any:
    """X beta + offset inside a model."""
    b = backend()
    offset = b.pm.Data("offset", design.offset, dims="row")
    if not design.fixed:
        return offset
    X = b.pm.Data("X", design.X, dims=("row", "term"))
    return b.pt.dot(X, fixed_effects(priors.fixed, mode.beta, mode.beta_root)) + offset


def residual(priors: ResolvedPriors) -> Any:
    """Prior of the residual standard deviation."""
    if priors.residual is None:
        raise PriorError(
            "A linear mixed model needs a prior of its residual sd; found none. Resolve the priors against this design."
        )
    return priors.residual


def _effects(
    factor: GroupingFactor, spread: Covariance, start: Array, root: Array, centring: Mapping[str, Centring]
) -> Any:
    """`b_f` (levels, q): a variable itself where there is one centred block, else put together from its blocks."""
    b = backend()
    parts = []
    for k, (block, L) in enumerate(zip(factor.blocks, spread.blocks, strict=True)):
        here = list(block)
        dims = (factor.name, part(f"{factor.name}_coef", factor, k))
        name = part(f"b_{factor.name}", factor, k)
        if centring[block_name([factor.coefficients[c] for c in here], factor.name)] == "centred":
            scale = np.linalg.cholesky((root @ root.T)[np.ix_(here, here)])
            parts.append(_centred(name, L, start[:, here], scale, dims))
            continue
        unit = b.pm.Normal(f"{name}_unit", 0.0, 1.0, dims=dims, initval=np.zeros(start[:, here].shape))
        parts.append(b.pt.dot(unit, L.T))
        if len(factor.blocks) == 1:
            parts[-1] = b.pm.Deterministic(name, parts[-1], dims=dims)
    if len(parts) == 1:
        return parts[0]
    order = np.argsort([c for block in factor.blocks for c in block])
    joined = b.pt.concatenate(parts, axis=1)[:, order]
    return b.pm.Deterministic(f"b_{factor.name}", joined, dims=(factor.name, f"{factor.name}_coef"))


def _centred(name: str, L: Any, start: Array, scale: Array, dims: tuple[str, str]) -> Any:
    """Effects (levels, q) with lower factor L of their covariance; the sampler moves in units of `scale` (q, q)."""
    b = backend()
    settings = {"dims": dims, "initval": start, "transform": b.Linear(scale, start)}
    if start.shape[1] == 1:
        return b.pm.Normal(name, 0.0, L[0, 0], **settings)
    return b.pm.MvNormal(name, mu=np.zeros(start.shape[1]), chol=L, **settings)
