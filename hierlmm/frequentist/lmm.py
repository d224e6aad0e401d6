"""Fits linear mixed models by ML and REML."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.design import with_response as design_with_response
from hierlmm.design.crossproducts import CrossProducts, products_of, with_response
from hierlmm.design.types import LMMDesign
from hierlmm.design.working import working_rows
from hierlmm.frequentist.lmm_joint import covariances, joint, means
from hierlmm.frequentist.lmm_limits import fit_without_residual, fit_without_variation
from hierlmm.frequentist.lmm_model import model_of, structure_of
from hierlmm.frequentist.lmm_noise_free import check_residual_variation
from hierlmm.frequentist.lmm_results import LMMFit, LMMOutcome
from hierlmm.likelihood.lmm import CrossProducts as Products
from hierlmm.likelihood.lmm import solve_fixed
from hierlmm.likelihood.lmm_derivatives import Method, solve
from hierlmm.likelihood.optimum import Certificate, Optimum, Surface, optimise
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.structured import ResidualModel

Array = NDArray[np.float64]

# A residual standard deviation this small, relative to the size of the response, is rounding of the response.
ROUNDING = 1e-13
# Share of the response's sum of squares below which the residual one, from products, may be nothing but rounding.
CANDIDATE = 1e-10
# Ratio of the residual sum of squares with the random effects unpenalised to that without them, below which the
# residual variance is zero as far as doubles can tell.
NO_RESIDUAL = 1e-11
# Standard deviation ratio at which the random effects are as good as fixed.
UNPENALISED = 1e6


def fit_reml(design: LMMDesign) -> LMMFit:
    """Restricted maximum likelihood (Patterson & Thompson 1971, Biometrika 58:545-554).

    Raises FitError where the residual variance is zero and the limit is not available.
    """
    return _fit(design, model_of(design), "reml", None)


def fit_ml(design: LMMDesign) -> LMMFit:
    """Maximum likelihood (Laird & Ware 1982, Biometrics 38:963-974).

    Raises FitError where the residual variance is zero and the limit is not available.
    """
    return _fit(design, model_of(design), "ml", None)


def refit(fit: LMMFit, y: ArrayLike) -> LMMFit:
    """`fit`'s model for another response of the same rows.

    y: (n,) in the order of `fit.design.index`. Raises DesignError where the length differs, a value is missing, or a
    Series has the labels of these rows in another order.
    """
    design = design_with_response(fit.design, y)
    model = model_of(design) if fit.at is None or len(fit.phi) else with_response(fit.equations, design, design.y)
    start = None if fit.at is None or fit.singular else np.concatenate([_theta(fit), fit.phi])
    return _fit(design, model, fit.method, start)


def _theta(fit: LMMFit) -> Array:
    assert fit.at is not None
    return Parameters.of(fit.equations).theta(fit.at.factors)


def restore(
    design: LMMDesign, method: Method, psi: Array, certificate: Certificate, origin: LMMDesign | None = None
) -> LMMFit:
    """The fit at a known optimum (working-scale theta and phi), without a search: for fits read from a file.

    origin  for a refit, the design of the first fit: the cross-products are then formed as the refit formed them
    """
    model = model_of(design if origin is None else origin)
    if isinstance(model, ResidualModel):
        model = model_of(design)
    elif origin is not None:
        model = with_response(model, design, design.y)
    if _explained(design, model):
        return _fit(design, model, method, None)
    surface = Surface.of(model, method)
    at = surface(psi)
    return assemble(design, Optimum(method, surface.parameters, psi, at.factors, at, certificate))


def _fit(design: LMMDesign, model: CrossProducts | ResidualModel, method: Method, start: Array | None) -> LMMFit:
    if _explained(design, model):
        return fit_without_variation(design, _products(design, model), method)
    check_residual_variation(design)
    optimum = optimise(model, method, start)
    runaway = not optimum.certificate.certified or float(optimum.theta.max(initial=0.0)) > 1e3
    estimated = _few_effects(model) if isinstance(model, ResidualModel) else not model.known_sigma2
    if runaway and estimated and _no_residual(_products(design, model)):
        return fit_without_residual(design, _products(design, model), method)
    return assemble(design, optimum)


def _few_effects(model: ResidualModel) -> bool:
    """Whether there are fewer effects than rows; as many reproduce any response, and the structure identifies them."""
    return model.base.p + sum(G * q for G, q in model.base.sizes) < model.base.n


def _products(design: LMMDesign, model: CrossProducts | ResidualModel) -> CrossProducts:
    """Cross-products of the rows, whatever the structure of their residuals."""
    if isinstance(model, CrossProducts):
        return model
    return products_of(working_rows(design)) if design.streamed is None else design.streamed.products


def _explained(design: LMMDesign, model: CrossProducts | ResidualModel) -> bool:
    """Whether X alone reproduces the response to rounding, and the residual variance is to be estimated."""
    cp = _products(design, model)
    if cp.known_sigma2:
        return False
    size = float(np.abs(design.y).max(initial=0.0)) + float(np.abs(design.offset).max(initial=0.0))
    R = cp.rest.shape[0] - cp.p - 1
    rss = solve_fixed(cp.rest[R:, R:]).rss
    if rss > CANDIDATE * cp.rest[-1, -1]:
        return False
    if design.streamed is not None:
        return bool(rss <= ROUNDING * cp.rest[-1, -1])
    # products know a residual to half the digits only, the rows to all of them
    rows = working_rows(design)
    residual = rows.y - rows.X @ np.linalg.lstsq(rows.X, rows.y, rcond=None)[0]
    return bool(residual @ residual <= cp.n * (ROUNDING * size) ** 2)


def _no_residual(cp: Products) -> bool:
    """Whether X and Z together reproduce the response to rounding."""

    def rss(scale: float) -> float:
        return float(solve(cp, [scale * np.eye(q) for _, q in cp.sizes])[1].rss)

    return rss(UNPENALISED) < NO_RESIDUAL * rss(0.0)


def assemble(design: LMMDesign, optimum: Optimum) -> LMMFit:
    """The result at an optimum: BLUPs and errors in the order and units of the design."""
    at = optimum.at
    cp = at.cp
    assert isinstance(cp, CrossProducts)
    structure = structure_of(design)
    labels = [] if design.residual is None else [str(label) for label in design.residual.occasions]
    bounds = () if structure is None else structure.at_bound(at.phi, labels)
    position = joint(cp, optimum.factors, at.state, at.solved, at.sigma2)
    where, spread = means(cp, position), covariances(cp, position)
    back = _design_order(cp)
    theta = [_lower(B @ Lambda) for B, Lambda in zip(cp.Z_map, optimum.factors, strict=True)]
    return LMMFit(
        spec=design.spec,
        design=design,
        method=optimum.method,
        outcome=_outcome(optimum, bounds),
        certificate=optimum.certificate,
        objective=at.value,
        beta=where.beta,
        vcov_beta=spread.beta,
        sigma2=at.sigma2,
        G=tuple(at.sigma2 * theta[f] @ theta[f].T for f in back),
        theta=tuple(theta[f] for f in back),
        b=tuple(where.b[f] for f in back),
        b_error=tuple(spread.error[f] for f in back),
        b_conditional=tuple(spread.conditional[f] for f in back),
        b_beta=tuple(spread.with_beta[f] for f in back),
        notes=(*design.notes, *(f"{text[0].upper()}{text[1:]}." for text in bounds), *_notes(optimum)),
        phi=at.phi,
        equations=cp,
        at=at,
        joint=position,
    )


def _design_order(cp: CrossProducts) -> tuple[int, ...]:
    """For each factor of the design, its position in the elimination order; -1 there is a placeholder."""
    return tuple(cp.order.index(f) for f in range(max(cp.order, default=-1) + 1))


def _lower(half: Array) -> Array:
    """Lower triangular factor, non-negative on the diagonal, of half half'; exact zeros where rank is missing."""
    L = np.array(np.linalg.qr(half.T).R.T)
    signs = np.where(np.diagonal(L) < 0, -1.0, 1.0)
    L = L * signs
    if not half.any():
        return np.zeros_like(half)
    L[np.abs(L) < 1e-14 * np.abs(L).max(axis=1, keepdims=True)] = 0.0
    return L


def _outcome(optimum: Optimum, bounds: tuple[str, ...]) -> LMMOutcome:
    if not optimum.certificate.certified:
        return LMMOutcome.BOUND_NOT_CERTIFIED if bounds else LMMOutcome.NOT_CERTIFIED
    blocks = zip(optimum.at.cp.blocks, optimum.factors, strict=True)
    if any((~Lambda[np.ix_(block, block)].any(axis=1)).any() for own, Lambda in blocks for block in own):
        return LMMOutcome.AT_ZERO
    if bounds:
        return LMMOutcome.RESIDUAL_BOUND
    return LMMOutcome.SINGULAR if optimum.singular else LMMOutcome.INTERIOR


def _notes(optimum: Optimum) -> tuple[str, ...]:
    others = optimum.certificate.others
    if not others:
        return ()
    values = ", ".join(f"{value:.4f}" for value in others)
    found = f"The criterion has other optima, with larger values: {values}."
    return (f"{found} The smallest, {optimum.at.value:.4f}, is reported.",)
