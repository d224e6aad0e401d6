"""ML and REML of a linear mixed model whose residuals have a covariance structure R(phi), with derivatives in phi.

V* = Z T Z' + R. At each phi the products of the rows weighted by Q = R⁻¹ stand for the rows, so that everything
known about independent residuals holds for them; what is new is how the criterion changes with phi. With c the
coefficients of the conditional residual r = Ac, A = [Z, X, y], and C the joint inverse of the mixed model equations,

    tr(P R_r)        = d log|R| + <C, A'Q_r A>,        y'P R_r P y = -c'A'Q_r A c,
    y'P R_r P R_s P y = r'Q_r R Q_s r - g_r'C g_s,      g_r = [Z, X]'Q_r r,

where R_r and Q_r are the derivatives of R and of its inverse. So the derivatives need the products A'Q_r A, formed
with those of Q, and no matrix with a row for each observation and a column for each other.

Source: Gilmour, Thompson & Cullis (1995), Biometrics 51:1440-1450; Jennrich & Schluchter (1986), Biometrics
42:805-820, for the structures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Joint, joint
from hierlmm.likelihood.lmm import CrossProducts, Eliminated, apply_rest, turn_columns
from hierlmm.likelihood.lmm_derivatives import (
    Derivatives,
    Method,
    average_information,
    derivatives,
    directions,
    theta_curvature,
    weight,
)
from hierlmm.likelihood.parameters import Parameters
from hierlmm.likelihood.triangular import dense_lower

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """Products of the rows weighted by Q(phi) and their derivatives in the K elements of phi.

    cp         the products A'QA, with log|R| in its log_scale
    lead (K, G, q, q), lead_rest (K, G, q, m), rest (K, m, m): the derivatives A'Q_r A
    log_det    (K,) derivatives of log|R|
    gram       r'Q_r R Q_s r, (K, K), of the residual with coefficients -b (G, q) of the leading columns and (m,) of
               the trailing ones
    """

    cp: CrossProducts
    lead: Array
    lead_rest: Array
    rest: Array
    log_det: Array
    gram: Callable[[Array, Array], Array]


@runtime_checkable
class ResidualModel(Protocol):
    """A design whose residuals have a structure."""

    @property
    def base(self) -> CrossProducts: ...
    @property
    def size(self) -> int: ...
    @property
    def work(self) -> int:
        """Numbers touched by one evaluation."""
        ...

    def start(self) -> Array: ...
    def at(self, phi: Array) -> Weighted: ...


def structured_derivatives(model: ResidualModel, parameters: Parameters, psi: Array, method: Method) -> Derivatives:
    """Criterion, exact gradient and average-information Hessian at psi = (theta, phi)."""
    k = len(parameters)
    theta, phi = psi[:k], psi[k:]
    weighted = model.at(phi)
    at = derivatives(weighted.cp, parameters, theta, method)
    part = _residual_part(weighted, at, parameters, method)
    quadratic = np.block([[at.quadratic, part.across], [part.across.T, part.quadratic]])
    slope = np.concatenate([at.slope, part.slope])
    hessian = average_information(weighted.cp, quadratic, slope, at.solved, method)
    hessian[:k, :k] += theta_curvature(parameters, at.G_T)
    gradient = part.trace - weight(weighted.cp, at.solved, method) * part.slope
    return replace(
        at,
        gradient=np.concatenate([at.gradient, gradient]),
        hessian=hessian,
        quadratic=quadratic,
        slope=slope,
        phi=phi,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _ResidualPart:
    """tr(P R_r) (K,), y'P R_r P y (K,), y'P R_r P R_s P y (K, K), and (k, K) the same across theta and phi."""

    trace: Array
    slope: Array
    quadratic: Array
    across: Array


def _residual_part(weighted: Weighted, at: Derivatives, parameters: Parameters, method: Method) -> _ResidualPart:
    cp = weighted.cp
    state = at.state
    assert isinstance(state, Eliminated)
    position = joint(cp, at.factors, state, at.solved, 1.0)
    b, trailing = _coefficients(cp, position)
    g_lead = weighted.lead_rest @ trailing - (weighted.lead @ b[..., None])[..., 0]
    g_rest = weighted.rest @ trailing - np.tensordot(weighted.lead_rest, b, axes=([1, 2], [0, 1]))
    slope = (g_lead * b).sum(axis=(1, 2)) - g_rest @ trailing
    solved_lead, solved_rest = _solved(cp, position, g_lead, g_rest[:, :-1])
    flat, flat_solved = g_lead.reshape(len(slope), -1), solved_lead.reshape(len(slope), -1)
    quadratic = weighted.gram(b, trailing) - flat @ flat_solved.T - g_rest[:, :-1] @ solved_rest.T
    trace = weighted.log_det + _inner(cp, weighted, position, method)
    across = _across(cp, parameters, at, (g_lead, g_rest), (solved_lead, solved_rest))
    return _ResidualPart(trace, slope, 0.5 * (quadratic + quadratic.T), across)


def _coefficients(cp: CrossProducts, at: Joint) -> tuple[Array, Array]:
    """BLUPs (G, q) of the leading factor and (m,) coefficients of [Z_rest, X, y] in the conditional residual."""
    R = cp.rest.shape[0] - cp.p - 1
    leading = at.W_y - at.W_J @ at.centre
    b = (at.Yt.swapaxes(-1, -2) @ leading[..., None])[..., 0]
    rest = _spread(cp, at, at.centre[None])[0, :R]
    return b, np.concatenate([-rest, -at.centre[R:], [1.0]])


def _spread(cp: CrossProducts, at: Joint, trailing: Array) -> Array:
    """(K, R + p) trailing unknowns with the other factors' effects multiplied by their Lambda."""
    out = trailing.copy()
    start = 0
    for (G, q), Lambda in zip(cp.sizes[1:], at.factors[1:], strict=True):
        here = slice(start, start + G * q)
        out[:, here] = (trailing[:, here].reshape(-1, G, q) @ Lambda.T).reshape(-1, G * q)
        start += G * q
    return out


def _solved(cp: CrossProducts, at: Joint, lead: Array, rest: Array) -> tuple[Array, Array]:
    """C g for right-hand sides lead (K, G, q) and rest (K, R + p): the same shapes."""
    R = cp.rest.shape[0] - cp.p - 1
    turned = rest.copy()
    turned[:, :R] = apply_rest(cp, at.factors, rest[:, :R].T).T if R else rest[:, :R]
    own = (at.Yt @ lead[..., None])[..., 0]
    half = dense_lower(at.K, (turned - np.tensordot(own, at.W_J, axes=([1, 2], [0, 1]))).T)
    inverse = dense_lower(at.K, np.eye(len(at.K)))
    trailing = (inverse.T @ half).T
    leading = own - np.moveaxis(at.W_J @ trailing.T, -1, 0)
    return (at.Yt.swapaxes(-1, -2) @ leading[..., None])[..., 0], _spread(cp, at, trailing)


def _inner(cp: CrossProducts, weighted: Weighted, at: Joint, method: Method) -> Array:
    """(K,) <C, A'Q_r A>, where under ML beta counts as known."""
    R = cp.rest.shape[0] - cp.p - 1
    K = at.K if method == "reml" else at.K[:R, :R]
    inverse = dense_lower(K, np.eye(len(K)))
    C = np.zeros_like(at.K)
    C[: len(K), : len(K)] = inverse.T @ inverse
    B = at.Yt.swapaxes(-1, -2) @ at.W_J
    BC = B @ C
    C_lead = at.Yt.swapaxes(-1, -2) @ at.Yt + BC @ B.swapaxes(-1, -2)
    lead_J = np.concatenate(
        [turn_columns(cp, at.factors, weighted.lead_rest[..., :R]), weighted.lead_rest[..., R:-1]], axis=-1
    )
    rest = weighted.rest[:, :-1, :-1]
    if R:
        turned = np.concatenate([apply_rest(cp, at.factors, rest[:, :R]), rest[:, R:]], axis=1).swapaxes(1, 2)
        rest = np.concatenate([apply_rest(cp, at.factors, turned[:, :R]), turned[:, R:]], axis=1)
    sums = (C_lead * weighted.lead).sum(axis=(1, 2, 3)) - 2 * (BC * lead_J).sum(axis=(1, 2, 3))
    return np.asarray(sums + (C * rest).sum(axis=(1, 2)))


def _across(
    cp: CrossProducts,
    parameters: Parameters,
    at: Derivatives,
    g: tuple[Array, Array],
    solved: tuple[Array, Array],
) -> Array:
    """(k, K) average information of theta with phi: -(T_k u)'(g - A'QA C g), rows of the random effects."""
    if not len(parameters):
        return np.zeros((0, len(g[0])))
    R = cp.rest.shape[0] - cp.p - 1
    lead, rest = solved
    left = g[0] - (cp.lead @ lead[..., None])[..., 0] - np.moveaxis(cp.lead_rest[..., :-1] @ rest.T, -1, 0)
    images = directions(parameters, at.factors, at.projected.u)
    out = images[0].T @ left.reshape(len(left), -1).T
    if R:
        products = np.tensordot(lead, cp.lead_rest[..., :R], axes=([1, 2], [0, 1]))
        below = g[1][:, :R] - products - rest @ cp.rest[:-1, :R]
        out = out + np.concatenate(images[1:]).T @ below.T
    return -out
