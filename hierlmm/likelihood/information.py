"""Information of the variance parameters of a linear mixed model, on the data scale.

psi = (elements of G, factor by factor and block by block, lower triangle column by column; sigma²). With
M = Z'P*Z (REML; V*⁻¹ for P* under ML) and V_r = dV/dpsi_r,

    expected  ½ tr(P V_r P V_s);        average  ½ y'P V_r P V_s P y.

Source: Searle, Casella & McCulloch (1992), Variance Components, ch. 6; Gilmour, Thompson & Cullis (1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts, Eliminated
from hierlmm.likelihood.lmm_derivatives import Derivatives, Method, Projected

Array = NDArray[np.float64]
Kind = Literal["expected", "average"]

# Random effects up to which Z'PZ is formed whole for the expected information: 32 MB; beyond, the average
# information is used, which needs products with a few vectors only.
WHOLE = 2000


@dataclass(frozen=True, slots=True)
class VarianceParameter:
    """One element of psi: G[factor][row, column], or sigma² where `factor` is -1."""

    factor: int
    row: int
    column: int


def variance_parameters(cp: CrossProducts) -> tuple[VarianceParameter, ...]:
    """The elements of psi in order; factors are counted in elimination order."""
    places = [
        VarianceParameter(f, block[r], block[c])
        for f, blocks in enumerate(cp.blocks)
        for block in blocks
        for c in range(len(block))
        for r in range(c, len(block))
    ]
    return (*places, VarianceParameter(-1, 0, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Information:
    """Information matrix (k, k) of `parameters`, and which kind it is."""

    parameters: tuple[VarianceParameter, ...]
    matrix: Array
    kind: Kind


def information(cp: CrossProducts, at: Derivatives, method: Method) -> Information:
    """Information of psi at a fitted point: expected where Z'PZ fits in memory, average beyond."""
    parameters = variance_parameters(cp)
    effects = sum(G * q for G, q in cp.sizes)
    if effects <= WHOLE and cp.cells is None:
        return Information(parameters, _expected(cp, at, method, parameters), "expected")
    return Information(parameters, _average(cp, at, method, parameters), "average")


def whole_projection(cp: CrossProducts, at: Derivatives, method: Method) -> Array:
    """(Q, Q) Z'P*Z over all random effects in elimination order, columns of Z on the data scale."""
    projected, state, R = at.projected, at.state, cp.rest.shape[0] - cp.p - 1
    assert isinstance(projected, Projected)
    assert isinstance(state, Eliminated)
    rows = slice(None) if method == "reml" else slice(0, R)
    G, q = cp.sizes[0]
    first = G * q
    M = np.empty((first + R, first + R))
    halves = np.concatenate([projected.half[rows], projected.half_rest[rows]], axis=1)
    M[:first, :first] = 0.0
    level = np.arange(G)
    M[:first, :first].reshape(G, q, G, q)[level, :, level, :] = projected.lead_N
    M[:first, first:] = projected.lead_F[..., :R].reshape(first, R)
    M[first:, :first] = M[:first, first:].T
    M[first:, first:] = state.after_lead[:R, :R]
    M -= halves.T @ halves
    start = 0
    for (levels, width), B in zip(cp.sizes, cp.Z_map, strict=True):
        here = slice(start, start + levels * width)
        start += levels * width
        back = np.linalg.solve(B.T, M[here].reshape(levels, width, -1)).reshape(levels * width, -1)
        M[here] = back
        M[:, here] = np.linalg.solve(B.T, M[:, here].T.reshape(levels, width, -1)).reshape(levels * width, -1).T
    return M


def _expected(cp: CrossProducts, at: Derivatives, method: Method, parameters: tuple[VarianceParameter, ...]) -> Array:
    """½ tr(P V_r P V_s) with P = P*/sigma²."""
    nu = cp.n - cp.p if method == "reml" else cp.n
    M = whole_projection(cp, at, method) if cp.sizes else np.zeros((0, 0))
    T = _relative(cp, at)
    MT = M @ T
    squared = M - MT @ M
    offsets = np.concatenate([[0], np.cumsum([G * q for G, q in cp.sizes])]).astype(int)
    k = len(parameters)
    out = np.empty((k, k))
    out[-1, -1] = nu - 2 * np.trace(MT) + (MT * MT.T).sum()
    for i, r in enumerate(parameters[:-1]):
        out[i, -1] = out[-1, i] = _paired(squared, cp, offsets, r)
        for j, s in enumerate(parameters[: i + 1]):
            out[i, j] = out[j, i] = _quadruple(M, cp, offsets, r, s)
    return out / (2 * at.sigma2**2)


def _relative(cp: CrossProducts, at: Derivatives) -> Array:
    """Block diagonal T on the data scale, all levels."""
    parts = []
    for (G, _), B, Lambda in zip(cp.sizes, cp.Z_map, at.factors, strict=True):
        half = B @ Lambda
        parts.append(np.kron(np.eye(G), half @ half.T))
    size = sum(len(part) for part in parts)
    out = np.zeros((size, size))
    start = 0
    for part in parts:
        out[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return out


def _paired(S: Array, cp: CrossProducts, offsets: NDArray[np.int_], r: VarianceParameter) -> float:
    """tr(S E_r): twice the off-diagonal element, since E_r = e_a e_c' + e_c e_a' for a covariance."""
    G, q = cp.sizes[r.factor]
    rows = offsets[r.factor] + np.arange(G) * q
    total = float(S[rows + r.row, rows + r.column].sum())
    return total if r.row == r.column else 2 * total


def _quadruple(
    M: Array, cp: CrossProducts, offsets: NDArray[np.int_], r: VarianceParameter, s: VarianceParameter
) -> float:
    """tr(M E_r M E_s) over all pairs of levels."""

    def part(a: int, b: int) -> Array:
        G, q = cp.sizes[r.factor]
        H, w = cp.sizes[s.factor]
        return np.asarray(M[offsets[r.factor] + a : offsets[r.factor] + G * q : q,
                            offsets[s.factor] + b : offsets[s.factor] + H * w : w])  # fmt: skip

    first = [(r.row, r.column)] if r.row == r.column else [(r.row, r.column), (r.column, r.row)]
    second = [(s.row, s.column)] if s.row == s.column else [(s.row, s.column), (s.column, s.row)]
    return float(sum((part(a, d) * part(c, b)).sum() for a, c in first for b, d in second))


def _average(cp: CrossProducts, at: Derivatives, method: Method, parameters: tuple[VarianceParameter, ...]) -> Array:
    """½ y'P V_r P V_s P y by solves: for designs whose Z'PZ would not fit."""
    projected = at.projected
    u = [np.linalg.solve(B.T, part[..., None])[..., 0] for B, part in zip(cp.Z_map, projected.u, strict=True)]
    k = len(parameters)
    images = [np.zeros((G * q, k)) for G, q in cp.sizes]
    for i, r in enumerate(parameters[:-1]):
        G, q = cp.sizes[r.factor]
        e = np.zeros((G, q))
        e[:, r.row] += u[r.factor][:, r.column]
        if r.row != r.column:
            e[:, r.column] += u[r.factor][:, r.row]
        images[r.factor][:, i] = np.linalg.solve(cp.Z_map[r.factor], e[..., None])[..., 0].ravel()
    # sigma²: V_r = I = V* - Z T Z', so P V_r P y = P y - P Z T Z'P y.
    for f, (Lambda, part) in enumerate(zip(at.factors, projected.u, strict=True)):
        images[f][:, -1] = -(part @ (Lambda @ Lambda.T)).ravel()
    gram = projected.inner(images)
    # y'P in front of P Z e: the sigma² direction also carries y itself (V* P y = y up to columns of X).
    slope = np.concatenate([part.ravel() for part in projected.u]) @ np.concatenate(images)
    unit = np.zeros(k)
    unit[-1] = 1.0
    rss = at.sigma2 * (cp.n - cp.p if method == "reml" else cp.n)
    gram += np.outer(unit, slope) + np.outer(slope, unit) + rss * np.outer(unit, unit)
    return np.asarray(gram / (2 * at.sigma2**3))
