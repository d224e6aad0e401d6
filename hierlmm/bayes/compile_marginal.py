"""The linear mixed model in PyMC with its random effects integrated out: few variables, no funnel.

The likelihood is a function of the cross-products of the rows, formed once about the least-squares fit. With
L the lower factor of a factor's covariance G and sigma the residual's, |sigma² I + Z G Z'| and the quadratic form
follow from I + L'Z'ZL / sigma²: block by block for the factor with the most levels, from one dense matrix for the
effects of all the others together (Woodbury). Nothing of the size of the rows is formed in an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.compile_backend import backend
from hierlmm.bayes.compile_covariance import coords, covariance
from hierlmm.bayes.compile_mode import LMMMode
from hierlmm.bayes.compile_priors import fixed_effects, standard_deviation
from hierlmm.bayes.density import residual_prior
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.types import GroupingFactor, LMMDesign

Array = NDArray[np.float64]


def marginal_lmm(design: LMMDesign, priors: ResolvedPriors, mode: LMMMode) -> Any:
    """A pm.Model of y ~ N(X beta + offset, sigma² I + Z G Z').

    Variables `beta` (term), `sigma`, and per factor f `sd_f` (f_coef), `corr_f` (f_coef, f_coef_bis), as in the
    hierarchical form. The likelihood is the potential `y_marginal`; the cross-products in it are fixed, so that
    new data need a new model.
    """
    b = backend()
    labels = {name: values for name, values in coords(design).items() if name != "row"}
    with b.pm.Model(coords=labels) as model:
        beta = fixed_effects(priors.fixed, mode.beta, mode.beta_root) if design.fixed else np.zeros(0)
        sigma = standard_deviation("sigma", residual_prior(priors), mode.sigma)
        roots = [
            covariance(factor, priors.factors[f], mode.sd[f]).whole for f, factor in enumerate(design.factors)
        ]
        b.pm.Potential("y_marginal", marginal_loglik(products(design), beta, sigma, roots))
    return model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Products:
    """Cross-products about the least-squares fit, e = y - offset - X beta_ols; R columns of the other factors.

    n, order     rows, and positions of the factors in the design, the one with the most levels first
    beta_ols (p,), root (p, p) upper factor of X'X; ee = e'e
    lead (G, q, q) Z'Z, lead_X (G, q, p), lead_e (G, q), lead_rest (G, q, R) of the leading factor by level
    rest (R, R), rest_X (R, p), rest_e (R,) of the others; sizes (levels, q) of each of them
    """

    n: int
    order: tuple[int, ...]
    beta_ols: Array
    root: Array
    ee: float
    lead: Array
    lead_X: Array
    lead_e: Array
    lead_rest: Array
    rest: Array
    rest_X: Array
    rest_e: Array
    sizes: tuple[tuple[int, int], ...]


def products(design: LMMDesign) -> Products:
    """Cross-products of the rows of a design with at least one grouping factor."""
    X, y = design.X, design.y - design.offset
    Q, root = np.linalg.qr(X)
    Qy = Q.T @ y
    e = y - Q @ Qy
    e -= Q @ (Q.T @ e)
    order = sorted(range(len(design.factors)), key=lambda f: -len(design.factors[f].levels))
    lead, *others = (design.factors[f] for f in order)
    U = np.column_stack([X, e])
    p = X.shape[1]
    lead_U = _by_level(lead, U)
    rest_U = np.concatenate([_flat(_by_level(f, U)) for f in others]) if others else np.zeros((0, p + 1))
    W = [_between(lead, f) for f in others]
    return Products(
        n=len(y),
        order=tuple(order),
        beta_ols=np.linalg.solve(root, Qy),
        root=root,
        ee=float(e @ e),
        lead=_by_level(lead, lead.Z),
        lead_X=lead_U[..., :p],
        lead_e=lead_U[..., p],
        lead_rest=np.concatenate(W, axis=2) if W else np.zeros((*lead_U.shape[:2], 0)),
        rest=np.block([[_flat(_between(f, g)) for g in others] for f in others]) if others else np.zeros((0, 0)),
        rest_X=rest_U[:, :p],
        rest_e=rest_U[:, p],
        sizes=tuple((len(f.levels), f.Z.shape[1]) for f in others),
    )


def _flat(blocks: Array) -> Array:
    return blocks.reshape(-1, blocks.shape[-1])


def _by_level(factor: GroupingFactor, U: Array) -> Array:
    """(G, q, u) sums of z u' over the rows of each level."""
    out = np.zeros((len(factor.levels), factor.Z.shape[1], U.shape[1]))
    for a in range(factor.Z.shape[1]):
        for c in range(U.shape[1]):
            out[:, a, c] = np.bincount(factor.codes, factor.Z[:, a] * U[:, c], len(out))
    return out


def _between(first: GroupingFactor, second: GroupingFactor) -> Array:
    """(G, q, H r) sums of z w' over the rows that share a level of each."""
    G, H, r = len(first.levels), len(second.levels), second.Z.shape[1]
    out = np.zeros((G, first.Z.shape[1], H, r))
    cell = first.codes * H + second.codes
    for a in range(first.Z.shape[1]):
        for c in range(r):
            out[:, a, :, c] = np.bincount(cell, first.Z[:, a] * second.Z[:, c], G * H).reshape(G, H)
    return out.reshape(G, first.Z.shape[1], H * r)


def marginal_loglik(cp: Products, beta: Any, sigma: Any, roots: Sequence[Any]) -> Any:
    """log N(y; X beta + offset, sigma² I + Z G Z') as a PyTensor expression, all constants.

    beta (p,), sigma scalar, roots: lower factors (q, q) of G in the design's order.
    """
    pt = backend().pt
    away = beta - cp.beta_ols
    lead, others = roots[cp.order[0]], [roots[f] for f in cp.order[1:]]
    rr = cp.ee + (pt.dot(cp.root, away) ** 2).sum()
    u = pt.dot(cp.lead_e - pt.dot(cp.lead_X, away), lead) / sigma**2
    H = pt.tensordot(pt.tensordot(cp.lead, lead, [[2], [0]]), lead, [[1], [0]]) / sigma**2
    L = _factor(H, cp.lead.shape[1])
    z = _solve(L, [u[:, a] for a in range(cp.lead.shape[1])])
    log_det = 2 * sum(pt.log(L[a][a]).sum() for a in range(len(L)))
    explained = sum((row**2).sum() for row in z)
    if cp.sizes:
        C = pt.tensordot(cp.lead_rest, lead, [[1], [0]])
        W = _solve(L, [C[:, :, a] / sigma for a in range(len(L))])
        inner = cp.rest - sum(pt.dot(w.T, w) for w in W)
        left = cp.rest_e - pt.dot(cp.rest_X, away) - sigma * sum(pt.dot(w.T, row) for w, row in zip(W, z, strict=True))
        K = pt.linalg.cholesky(_turned(cp, others, _turned(cp, others, inner).T) / sigma**2 + np.eye(len(cp.rest)))
        half = pt.linalg.solve_triangular(K, _turned(cp, others, left[:, None]) / sigma**2, lower=True)
        log_det = log_det + 2 * pt.log(pt.diagonal(K)).sum()
        explained = explained + (half**2).sum()
    quadratic = rr / sigma**2 - explained
    return -0.5 * (cp.n * math.log(2 * math.pi) + 2 * cp.n * pt.log(sigma) + log_det + quadratic)


def _factor(H: Any, size: int) -> list[list[Any]]:
    """Lower Cholesky factor of I + H for H (G, q, q): entries (G,), by row. Unrolled, q being small."""
    pt = backend().pt
    L: list[list[Any]] = []
    for i in range(size):
        L.append([])
        for j in range(i):
            L[i].append((H[:, i, j] - sum(L[i][k] * L[j][k] for k in range(j))) / L[j][j])
        L[i].append(pt.sqrt(1.0 + H[:, i, i] - sum(L[i][k] ** 2 for k in range(i))))
    return L


def _solve(L: list[list[Any]], rows: Sequence[Any]) -> list[Any]:
    """L⁻¹ of right-hand sides given by row: entries (G,) or (G, R)."""
    out: list[Any] = []
    for i, row in enumerate(rows):
        scale = [entry if row.ndim == 1 else entry[:, None] for entry in L[i]]
        out.append((row - sum(scale[k] * out[k] for k in range(i))) / scale[i])
    return out


def _turned(cp: Products, roots: Sequence[Any], rows: Any) -> Any:
    """L' applied to the (R, k) rows that belong to the factors after the leading one."""
    pt = backend().pt
    parts, start = [], 0
    for (G, q), L in zip(cp.sizes, roots, strict=True):
        here = rows[start : start + G * q].reshape((G, q, rows.shape[1]))
        start += G * q
        parts.append(pt.tensordot(here, L, [[1], [0]]).transpose(0, 2, 1).reshape((G * q, rows.shape[1])))
    return pt.concatenate(parts, axis=0)
