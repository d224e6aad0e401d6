"""Compiled PyMC models against our own log density, at random points of the sampler's space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bayes_cases import area_design, factor, lmm_design

from hierlmm.bayes.compile_area import hierarchical_area_model, marginal_area_model
from hierlmm.bayes.compile_lmm import hierarchical_lmm
from hierlmm.bayes.compile_marginal import marginal_lmm
from hierlmm.bayes.compile_mode import area_mode, lmm_mode
from hierlmm.bayes.joint_density import (
    AreaPoint,
    LMMPoint,
    log_jacobian_partial,
    log_joint_area,
    log_joint_lmm,
    log_marginal_area,
    log_marginal_lmm,
)

POINTS = 50
# Compiling to machine code would take longer than the 50 evaluations.
MODE = "FAST_COMPILE"


def area_model(design, priors, form):
    """form: "centred", "non-centred" or "marginal"."""
    mode = area_mode(design)
    if form == "marginal":
        return marginal_area_model(design, priors, mode)
    return hierarchical_area_model(design, priors, mode, form)


def lmm_model(design, priors, form):
    """form: "centred", "non-centred", "mixed" (every other coefficient centred) or "marginal"."""
    mode = lmm_mode(design)
    if form == "marginal":
        return marginal_lmm(design, priors, mode)
    names = list(mode.effects)
    ways = {
        name: ("centred", "non-centred")[k % 2] if form == "mixed" else form for k, name in enumerate(names)
    }
    effects = {name: replace(effect, centring=ways[name]) for name, effect in mode.effects.items()}
    return hierarchical_lmm(design, priors, replace(mode, effects=effects))


def differences(model, own_log_density, points=POINTS, width=0.7):
    """(points, 2): the model's log density without Jacobians, and our own at the natural values there."""
    rng = np.random.default_rng(20261121)
    named = [*model.free_RVs, *model.deterministics]
    natural = model.compile_fn(model.replace_rvs_by_values(named), inputs=model.value_vars, mode=MODE)
    logp = model.compile_logp(jacobian=False, mode=MODE)
    start = model.initial_point()
    out = []
    for _ in range(points):
        point = {name: value + width * rng.standard_normal(np.shape(value)) for name, value in start.items()}
        values = {v.name: np.asarray(x) for v, x in zip(named, natural(point), strict=True)}
        out.append((float(logp(point)), own_log_density(values)))
    return np.array(out)


def area_density(design, priors, form):
    """Our own log density of an area model's values by name, in the coordinates of `form`."""

    def own(values):
        if form == "marginal":
            return log_marginal_area(design, priors, values["beta"], float(values["tau"]))
        at = AreaPoint(beta=values["beta"], tau=float(values["tau"]), theta=values["theta"])
        jacobian = len(at.theta) * np.log(at.tau) if form == "non-centred" else 0.0
        return log_joint_area(design, priors, at) + jacobian

    return own


def lmm_density(design, priors, form):
    """Our own log density of a mixed model's values by name; u of a non-centred coefficient has Jacobian L_kk."""

    def own(values):
        sd = tuple(values[f"sd_{f.name}"] for f in design.factors)
        R = tuple(values.get(f"corr_{f.name}", np.eye(f.Z.shape[1])) for f in design.factors)
        b = tuple(values.get(f"b_{f.name}", np.zeros((len(f.levels), f.Z.shape[1]))) for f in design.factors)
        beta = values.get("beta", np.zeros(0))
        at = LMMPoint(beta=beta, sigma=float(values["sigma"]), sd=sd, correlation=R, b=b)
        jacobian = 0.0
        for f, G in zip(design.factors, at.G, strict=True):
            for k, block in enumerate(f.blocks):
                unit = f"corr_{f.name}_unit" + (f"_{k + 1}" if len(f.blocks) > 1 else "")
                if unit in values:
                    z = 2 * values[unit] - 1
                    jacobian += log_jacobian_partial(z, len(block)) + len(z) * np.log(2)
                L = np.linalg.cholesky(G[np.ix_(block, block)])
                for j, c in enumerate(block):
                    if f"b_{f.name}_{f.coefficients[c]}_unit" in values:
                        jacobian += len(f.levels) * np.log(L[j, j])
        if form == "marginal":
            return log_marginal_lmm(design, priors, at) + jacobian
        return log_joint_lmm(design, priors, at) + jacobian

    return own


def areas(m=9, seed=3):
    """Areas with unequal sampling variances, one without a direct estimate and one without sampling error."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(m), rng.normal(5, 2, m)])
    D = rng.uniform(0.2, 3, m)
    y = X @ [1.0, 0.5] + rng.normal(0, 1, m) + rng.normal(0, np.sqrt(D))
    role = np.array(["sampled"] * (m - 2) + ["unsampled", "direct"])
    y[-2], D[-2], D[-1] = np.nan, np.nan, 0.0
    return area_design(y, D, X, role=role, fixed=("Intercept", "x"), offset=rng.normal(0, 0.1, m))


def crossed_slopes(n=80, seed=5):
    """(1 + w | h), crossed with (1 + x + w || g) whose first block has three coefficients and whose second has one."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 7, n), rng.integers(0, 4, n)
    x, w, one = rng.normal(3, 1, n), rng.normal(0, 1, n), np.ones(n)
    y = 2 + x + rng.normal(size=7)[g] + 0.5 * x * rng.normal(size=7)[g] + rng.normal(size=4)[h] * w + rng.normal(size=n)
    Zg = np.column_stack([one, x, x * w, w])
    factors = [
        factor("h", h, np.column_stack([one, w]), ("Intercept", "w"), ((0, 1),)),
        factor("g", g, Zg, ("Intercept", "x", "x:w", "w"), ((0, 1, 3), (2,))),
    ]
    return replace(lmm_design(y, np.column_stack([one, x]), ("Intercept", "x"), factors), offset=0.3 * w)


def one_slope(n=40, seed=7):
    """(1 + x | g) with x far from zero, so that intercepts and slopes are strongly correlated."""
    rng = np.random.default_rng(seed)
    g, x = np.arange(n) % 6, rng.uniform(150, 260, n)
    Z = np.column_stack([np.ones(n), x])
    y = 2 + 0.01 * x + rng.normal(size=6)[g] + rng.normal(0, 0.2, n)
    return lmm_design(y, Z, ("Intercept", "x"), [factor("g", g, Z, ("Intercept", "x"), ((0, 1),))])


def crossed(n=36, seed=9):
    """(1 | a) + (1 | b), balanced."""
    rng = np.random.default_rng(seed)
    a, b, one = np.arange(n) // 4, np.arange(n) % 4, np.ones((n, 1))
    y = 20 + rng.normal(0, 1, 9)[a] + rng.normal(0, 2, 4)[b] + rng.normal(0, 0.5, n)
    own = [factor(name, codes, one, ("Intercept",), ((0,),)) for name, codes in (("a", a), ("b", b))]
    return lmm_design(y, one, ("Intercept",), own)


def no_fixed_effects(n=24, seed=10):
    """y ~ 0 + (1 | g)."""
    rng = np.random.default_rng(seed)
    g, one = np.arange(n) % 5, np.ones((n, 1))
    y = rng.normal(size=5)[g] + rng.normal(0, 0.5, n)
    return lmm_design(y, np.zeros((n, 0)), (), [factor("g", g, one, ("Intercept",), ((0,),))])
