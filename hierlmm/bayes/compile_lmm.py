"""The linear mixed model in PyMC with its random effects as variables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_covariance import Covariance, coords, covariance
from hierlmm.bayes.compile_mode import Effect, LMMMode
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import GroupingFactor, LMMDesign
from hierlmm.errors import PriorError

Array = NDArray[np.float64]


def hierarchical_lmm(design: LMMDesign, priors: ResolvedPriors, mode: LMMMode) -> Any:
    """A pm.Model of y ~ N(X beta + offset + sum over factors of z'b, sigma²), b ~ N(0, G).

    Variables: `beta` (term), `sigma`, and per factor f `sd_f` (f_coef), `corr_f` (f_coef, f_coef_bis), `b_f`
    (f, f_coef), the latter put together from the variables that `_effects` names. Rows find their effects by
    integer codes: Z is never formed. Data that pm.set_data may replace: X, offset, y_observed and per factor Z_f
    and codes_f.
    """
    b = backend()
    with b.pm.Model(coords=coords(design)) as model:
        offset = b.pm.Data("offset", design.offset, dims="row")
        X = b.pm.Data("X", design.X, dims=("row", "term"))
        beta = fixed_effects(priors.fixed, mode.beta, mode.beta_root) if design.fixed else np.zeros(0)
        mu = b.pt.dot(X, beta) + offset if design.fixed else offset
        sigma = standard_deviation("sigma", residual(priors), mode.sigma)
        for f, factor in enumerate(design.factors):
            spread = covariance(factor, priors.factors[f], mode.sd[f])
            effects = _effects(factor, spread, beta, mode.b[f], mode)
            Z = b.pm.Data(f"Z_{factor.name}", factor.Z, dims=("row", f"{factor.name}_coef"))
            codes = b.pm.Data(f"codes_{factor.name}", factor.codes, dims="row")
            mu = mu + (Z * effects[codes]).sum(axis=1)
        y = b.pm.Data("y_observed", design.y, dims="row")
        b.pm.Normal("y", mu, sigma, observed=y, dims="row")
    return model


def residual(priors: ResolvedPriors) -> Any:
    """Prior of the residual standard deviation."""
    if priors.residual is None:
        raise PriorError(
            "A linear mixed model needs a prior of its residual sd; found none. Resolve the priors against this design."
        )
    return priors.residual


def _effects(factor: GroupingFactor, spread: Covariance, beta: Any, start: Array, mode: LMMMode) -> Any:
    """`b_f` (levels, q), coefficient after coefficient: each has a variable of its own given those before it.

    With L the lower factor of a block's covariance, b_k = m_k + L_kk u_k, m_k the sum of L_kj u_j over j < k and u
    independent N(0, 1). A non-centred coefficient has the variable `b_f_k_unit` = u_k. A centred one has
    `coef_f_k` ~ N(w beta + m_k, L_kk²), the fixed and the random part together, and b_k = coef_f_k - w beta.
    """
    b = backend()
    columns: dict[int, Any] = {}
    for block, L in zip(factor.blocks, spread.blocks, strict=True):
        units: list[Any] = []
        for k, c in enumerate(block):
            effect = mode.effects[f"{factor.name}:{factor.coefficients[c]}"]
            label = f"{factor.name}_{factor.coefficients[c]}"
            given = sum((L[k, j] * units[j] for j in range(k)), b.pt.zeros(len(start)))
            if effect.centring == "centred":
                columns[c] = _centred(f"coef_{label}", given, L[k, k], beta, start[:, c], effect, mode.beta, factor.name)
                units.append((columns[c] - given) / L[k, k])
            else:
                units.append(b.pm.Normal(f"b_{label}_unit", 0.0, 1.0, dims=factor.name, initval=np.zeros(len(start))))
                columns[c] = given + L[k, k] * units[k]
    joined = b.pt.stack([columns[c] for c in range(len(columns))], axis=1)
    return b.pm.Deterministic(f"b_{factor.name}", joined, dims=(factor.name, f"{factor.name}_coef"))


def _centred(
    name: str, given: Any, sd: Any, beta: Any, start: Array, effect: Effect, beta_start: Array, dims: str
) -> Any:
    """Effects (levels,) from a variable around the mean to which they and their fixed effects add up."""
    b = backend()
    columns = list(effect.columns)
    centre = effect.weight @ beta_start[columns] + start
    mean = b.pt.dot(effect.weight, beta[columns]) if columns else b.pt.zeros(len(start))
    scale = np.full(len(start), effect.scale)
    transform = b.Elementwise(scale, centre)
    return b.pm.Normal(name, mean + given, sd, dims=dims, initval=centre, transform=transform) - mean
