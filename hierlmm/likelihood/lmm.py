"""ML and REML criteria of the linear mixed model from its cross-products.

y = X beta + Z b + e, b ~ N(0, sigma² T), e ~ N(0, sigma² I), V* = Z T Z' + I. Everything here is on the working
scale of the cross-products; `marginal.py` speaks the data scale. T is given by its factor: one lower triangular
(q, q) template Lambda per grouping factor, T = Lambda Lambda', repeated over the levels. Leading axes of Lambda
are evaluated at once, so an optimiser passes (q, q) and an integral over the variances (draws, q, q).

Source: Bates, Mächler, Bolker & Walker (2015), J. Stat. Software 67(1), for the profiled criterion;
Harville (1977), JASA 72:320-338, for REML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.triangular import (
    cholesky_lower,
    dense_cholesky,
    dense_lower,
    dense_upper,
    log_diagonal,
    solve_lower,
    solve_upper,
)

Array = NDArray[np.float64]
LOG_2PI = float(np.log(2 * np.pi))
# Share of a column's sum of squares below which the part within levels is rounding: the column is constant in them.
CONSTANT = 1e-14


class CrossProducts(Protocol):
    """What the likelihood reads of a design: cross-products on the working scale and the maps to the data scale.

    lead (G, q, q), lead_rest (G, q, m), rest (m, m) with m = R + p + 1 trailing columns [Z_rest, X, y];
    sizes (levels, coefficients) per factor, the leading factor first; blocks the covariance blocks of each and
    structures what they are; log_scale the log determinant of the known relative residual variances; known_sigma2
    whether sigma² is 1 rather than estimated;
    Z_map (q, q) per factor, X_map (p, p), X_shift (p,): b = B b_work, beta = C beta_work + shift.
    """

    @property
    def n(self) -> int: ...
    @property
    def p(self) -> int: ...
    @property
    def lead(self) -> Array: ...
    @property
    def lead_rest(self) -> Array: ...
    @property
    def rest(self) -> Array: ...
    @property
    def sizes(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def blocks(self) -> tuple[tuple[tuple[int, ...], ...], ...]: ...
    @property
    def Z_map(self) -> tuple[Array, ...]: ...
    @property
    def X_map(self) -> Array: ...
    @property
    def X_shift(self) -> Array: ...
    @property
    def log_det_X_map(self) -> float: ...
    @property
    def structures(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def log_scale(self) -> float: ...
    @property
    def known_sigma2(self) -> bool: ...
    @property
    def cells(self) -> Cells | None: ...


class Cells(Protocol):
    """Products of the leading factor with the other factors' effects where few pairs of levels meet.

    level (c,) ascending, column (c,) among the R effects, values (c, q): lead_rest then holds [X, y] only.
    """

    @property
    def level(self) -> NDArray[np.intp]: ...
    @property
    def column(self) -> NDArray[np.intp]: ...
    @property
    def values(self) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class Eliminated:
    """The system after both random-effects blocks have been eliminated; leading axes as in Lambda.

    L_lead     (..., G, q, q) Cholesky factors of Lambda' Z'Z Lambda + I, level by level
    W_lead     (..., G, q, m) L⁻¹ Lambda' Z'[Z_rest, X, y] of the leading factor
    after_lead (..., m, m) [Z_rest, X, y]' V_lead⁻¹ [Z_rest, X, y]
    L_rest     (..., R, R) Cholesky factor of the other factors' block, (0, 0) where there is one factor
    W_rest     (..., R, p + 1) L_rest⁻¹ Lambda' Z_rest' V_lead⁻¹ [X, y]
    products   (..., p + 1, p + 1) [X, y]' V*⁻¹ [X, y]
    log_det    (...) log |V*|
    """

    L_lead: Array
    W_lead: Array
    after_lead: Array
    L_rest: Array
    W_rest: Array
    products: Array
    log_det: Array


def eliminate(cp: CrossProducts, factors: Sequence[Array]) -> Eliminated:
    """Eliminate the random effects at the relative factors Lambda, one (..., q, q) array per grouping factor."""
    lead = factors[0] if factors else np.eye(1)
    R = cp.rest.shape[0] - cp.p - 1
    across = lead[..., None, :, :].swapaxes(-1, -2)
    H = across @ cp.lead @ lead[..., None, :, :] + np.eye(lead.shape[-1])
    L = cholesky_lower(H)
    W = solve_lower(L, across @ cp.lead_rest)
    log_det = 2 * log_diagonal(L).sum(-1)
    if R == 0 and lead.shape[-1] == 1 and cp.sizes:
        after = _within_and_between(cp, lead[..., 0, 0])
    else:
        flat = W.reshape(*W.shape[:-3], -1, W.shape[-1])
        after = cp.rest - flat.swapaxes(-1, -2) @ flat
    if R == 0:
        batch = lead.shape[:-2]
        return Eliminated(L, W, after, np.zeros((*batch, 0, 0)), np.zeros((*batch, 0, cp.p + 1)), after, log_det)
    scaled = apply_rest(cp, factors, after[..., :R, :])
    inner = apply_rest(cp, factors, scaled[..., :R].swapaxes(-1, -2)) + np.eye(R)
    L_rest: Array = np.asarray(np.linalg.cholesky(inner), dtype=np.float64)
    W_rest = dense_lower(L_rest, scaled[..., R:])
    products = after[..., R:, R:] - W_rest.swapaxes(-1, -2) @ W_rest
    return Eliminated(L, W, after, L_rest, W_rest, products, log_det + 2 * log_diagonal(L_rest))


def _within_and_between(cp: CrossProducts, lead: Array) -> Array:
    """(..., p + 1, p + 1) [X, y]'V*⁻¹[X, y] of one factor with one coefficient, Lambda (...).

    V* is the identity within a level and 1 + a Lambda² between levels, a = Z_l'Z_l. As rest - W'W a large variance
    would cost the digits by which it shrinks the part between levels; a sum of the two parts loses none.
    """
    a, sums = cp.lead[:, 0], cp.lead_rest[:, 0]
    means = np.divide(sums, a, out=np.zeros_like(sums), where=a > 0)
    shrunk = means.T / (1 + a[:, 0] * lead[..., None] ** 2)[..., None, :]
    within = cp.rest - means.T @ sums
    constant = np.flatnonzero(np.diagonal(within)[:-1] <= CONSTANT * np.diagonal(cp.rest)[:-1])
    within[constant] = 0.0
    within[:, constant] = 0.0
    return np.asarray(within + shrunk @ sums)


def apply_rest(cp: CrossProducts, factors: Sequence[Array], rows: Array) -> Array:
    """Lambda' applied to the (..., R, k) rows that belong to the factors after the leading one."""
    parts, start = [], 0
    for (G, q), Lambda in zip(cp.sizes[1:], factors[1:], strict=True):
        here = rows[..., start : start + G * q, :]
        start += G * q
        stacked = here.reshape(*here.shape[:-2], G, q, here.shape[-1])
        turned = Lambda[..., None, :, :].swapaxes(-1, -2) @ stacked
        parts.append(turned.reshape(*turned.shape[:-3], G * q, turned.shape[-1]))
    return np.concatenate(parts, axis=-2) if len(parts) != 1 else parts[0]


def turn_columns(cp: CrossProducts, factors: Sequence[Array], columns: Array) -> Array:
    """(..., G, q, R) columns that belong to the factors after the leading one times their Lambda."""
    parts, start = [columns[..., :0]], 0
    for (G, q), Lambda in zip(cp.sizes[1:], factors[1:], strict=True):
        here = columns[..., start : start + G * q]
        start += G * q
        stacked = here.reshape(*here.shape[:-1], G, q) @ Lambda[..., None, None, :, :]
        parts.append(stacked.reshape(here.shape))
    return np.concatenate(parts, axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """Generalised least squares at one Lambda (or many): leading axes as given.

    beta     (..., p) on the working scale; L_x (..., p, p) Cholesky factor of X'V*⁻¹X
    rss      (...) y'P*y, the generalised residual sum of squares
    log_det_x (...) log |X'V*⁻¹X|
    """

    beta: Array
    L_x: Array
    rss: Array
    log_det_x: Array


def solve_fixed(products: Array) -> Solved:
    """beta-hat and the residual sum of squares from [X, y]' V*⁻¹ [X, y]."""
    p = products.shape[-1] - 1
    L = dense_cholesky(products[..., :p, :p])
    if products.ndim == 2 and p:
        half = dense_lower(L, products[:p, p:])
        beta = dense_upper(L, half)[:, 0]
        return Solved(beta, L, products[p, p] - half[:, 0] @ half[:, 0], 2 * log_diagonal(L))
    z = solve_lower(L, products[..., :p, p:]) if p else products[..., :0, p:]
    rss = products[..., p, p] - (z[..., 0] ** 2).sum(-1)
    beta = solve_upper(L, z)[..., 0] if p else z[..., 0]
    return Solved(beta, L, rss, 2 * log_diagonal(L))


def trailing_factor(state: Eliminated, solved: Solved) -> Array:
    """(..., R + p, R + p) lower Cholesky factor of the system of the other factors' effects and beta."""
    R, p = state.L_rest.shape[-1], solved.L_x.shape[-1]
    K = np.zeros((*state.products.shape[:-2], R + p, R + p))
    K[..., :R, :R] = state.L_rest
    K[..., R:, :R] = state.W_rest[..., :p].swapaxes(-1, -2)
    K[..., R:, R:] = solved.L_x
    return K


def ml_criterion(cp: CrossProducts, factors: Sequence[Array]) -> Array:
    """-2 log likelihood with beta and sigma² profiled out: log|V*| + n (1 + log(2 pi rss / n)).

    Where sigma² is known to be 1: log|V*| + n log(2 pi) + rss.
    """
    state = eliminate(cp, factors)
    solved = solve_fixed(state.products)
    return np.asarray(state.log_det + cp.log_scale + residual_term(cp, solved.rss, cp.n))


def reml_criterion(cp: CrossProducts, factors: Sequence[Array]) -> Array:
    """-2 restricted log likelihood with sigma² profiled out, all constants kept, X on the data scale.

    log|V*| + log|X'V*⁻¹X| + (n - p)(1 + log(2 pi rss / (n - p))): the density of y with beta integrated out
    under a flat prior. The error-contrast form subtracts log|X'X| from it.
    """
    state = eliminate(cp, factors)
    solved = solve_fixed(state.products)
    log_det_x = solved.log_det_x - 2 * cp.log_det_X_map
    return np.asarray(state.log_det + cp.log_scale + log_det_x + residual_term(cp, solved.rss, cp.n - cp.p))


def residual_term(cp: CrossProducts, rss: Array | float, nu: int) -> Array:
    """What the residual sum of squares and the nu degrees of freedom add to a criterion."""
    return np.asarray(nu * LOG_2PI + (rss if cp.known_sigma2 else nu * (1 + np.log(rss / nu))))
