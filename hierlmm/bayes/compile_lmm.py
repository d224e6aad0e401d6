"""The linear mixed model in PyMC with its random effects as variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_covariance import Covariance, coords, covariance, part
from hierlmm.bayes.compile_mode import Effect, LMMMode
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.density import residual_prior
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import GroupingFactor, LMMDesign

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
        sigma = standard_deviation("sigma", residual_prior(priors), mode.sigma)
        for f, factor in enumerate(design.factors):
            spread = covariance(factor, priors.factors[f], mode.sd[f])
            effects = _effects(f, factor, spread, beta, mode)
            Z = b.pm.Data(f"Z_{factor.name}", factor.Z, dims=("row", f"{factor.name}_coef"))
            codes = b.pm.Data(f"codes_{factor.name}", factor.codes, dims="row")
            mu = mu + (Z * effects[codes]).sum(axis=1)
        y = b.pm.Data("y_observed", design.y, dims="row")
        b.pm.Normal("y", mu, sigma, observed=y, dims="row")
    return model


def _effects(f: int, factor: GroupingFactor, spread: Covariance, beta: Any, mode: LMMMode) -> Any:
    """`b_f` (levels, q), from one variable a covariance block where all of it is centred, else one a coefficient."""
    b = backend()
    columns: dict[int, Any] = {}
    for k, (block, L) in enumerate(zip(factor.blocks, spread.blocks, strict=True)):
        around = _Around.of(f, factor, block, beta, mode)
        if all(effect.centring == "centred" for effect in around.effects):
            name = part(f"coef_{factor.name}", factor, k)
            columns |= _together(name, L, around, (factor.name, part(f"{factor.name}_coef", factor, k)))
        else:
            columns |= _in_turn(factor, L, around)
    joined = b.pt.stack([columns[c] for c in range(len(columns))], axis=1)
    return b.pm.Deterministic(f"b_{factor.name}", joined, dims=(factor.name, f"{factor.name}_coef"))


@dataclass(frozen=True, slots=True, eq=False)
class _Around:
    """What the effects of one covariance block vary around, and where they start.

    block   positions of its q coefficients; effects their coordinates
    mean    q expressions (levels,): fixed part w'beta that goes with a coefficient, zero where none does
    centre  (levels, q) starting values of fixed + random; conditional (q, q) their covariance given the data
    """

    block: tuple[int, ...]
    effects: tuple[Effect, ...]
    mean: tuple[Any, ...]
    centre: Array
    conditional: Array

    @classmethod
    def of(cls, f: int, factor: GroupingFactor, block: tuple[int, ...], beta: Any, mode: LMMMode) -> _Around:
        pt = backend().pt
        effects = tuple(mode.effects[f"{factor.name}:{factor.coefficients[c]}"] for c in block)
        columns = [list(effect.columns) for effect in effects]
        mean = tuple(
            pt.dot(effect.weight, beta[here]) if here else pt.zeros(len(factor.levels))
            for effect, here in zip(effects, columns, strict=True)
        )
        fixed = [effect.weight @ mode.beta[here] for effect, here in zip(effects, columns, strict=True)]
        centre = mode.b[f][:, list(block)] + np.column_stack(fixed)
        return cls(block, effects, mean, centre, mode.conditional[f][np.ix_(block, block)])


def _together(name: str, L: Any, around: _Around, dims: tuple[str, str]) -> dict[int, Any]:
    """Centred effects from one variable `coef_f` ~ N(w'beta, LL'), the fixed and the random part together."""
    b = backend()
    mean = b.pt.stack(list(around.mean), axis=1)
    transform = b.Linear(np.linalg.cholesky(around.conditional), around.centre)
    settings = {"dims": dims, "initval": around.centre, "transform": transform}
    if len(around.block) == 1:
        coef = b.pm.Normal(name, mean, L[0, 0], **settings)
    else:
        # pm.MvNormal solves level by level in Python under PyMC 5: a hundred times slower
        coef = b.pm.CustomDist(name, mean, L, logp=_logp, random=_random, signature="(q),(r,q)->(q)", **settings)
    return {c: coef[:, k] - around.mean[k] for k, c in enumerate(around.block)}


def _logp(value: Any, mean: Any, L: Any) -> Any:
    """(levels,) log density of N(mean, LL') rows; the triangular solve is unrolled, q being small."""
    pt = backend().pt
    q = value.type.shape[-1]
    units: list[Any] = []
    for k in range(q):
        away = value[:, k] - mean[:, k] - sum(L[..., k, j] * units[j] for j in range(k))
        units.append(away / L[..., k, k])
    scale = sum(pt.log(L[..., k, k]) for k in range(q)) + 0.5 * q * np.log(2 * np.pi)
    return -0.5 * sum(u**2 for u in units) - scale


def _random(mean: Array, L: Array, rng: np.random.Generator, size: object = None) -> Array:
    """Draws of N(mean, LL') rows; `size` is the shape that the parameters already have."""
    return np.asarray(mean + (L @ rng.standard_normal(mean.shape)[..., None])[..., 0])


def _in_turn(factor: GroupingFactor, L: Any, around: _Around) -> dict[int, Any]:
    """Effects coefficient after coefficient, each with a variable of its own given those before it.

    With L the lower factor of the block's covariance, b_k = m_k + L_kk u_k, m_k the sum of L_kj u_j over j < k and u
    independent N(0, 1). A non-centred coefficient has the variable `b_f_k_unit` = u_k, a centred one `coef_f_k` ~
    N(w'beta + m_k, L_kk²), the fixed and the random part together.
    """
    b = backend()
    out: dict[int, Any] = {}
    units: list[Any] = []
    for k, (c, effect) in enumerate(zip(around.block, around.effects, strict=True)):
        label = f"{factor.name}_{factor.coefficients[c]}"
        given = sum((L[k, j] * units[j] for j in range(k)), b.pt.zeros(len(factor.levels)))
        if effect.centring == "non-centred":
            start = np.zeros(len(factor.levels))
            units.append(b.pm.Normal(f"b_{label}_unit", 0.0, 1.0, dims=factor.name, initval=start))
            out[c] = given + L[k, k] * units[k]
            continue
        centre = around.centre[:, k]
        transform = b.Elementwise(np.full(len(centre), effect.scale), centre)
        settings = {"dims": factor.name, "initval": centre, "transform": transform}
        out[c] = b.pm.Normal(f"coef_{label}", around.mean[k] + given, L[k, k], **settings) - around.mean[k]
        units.append((out[c] - given) / L[k, k])
    return out
