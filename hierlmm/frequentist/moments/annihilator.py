"""Quadratic forms in y that no fixed effect enters, by block algebra over cross-products.

Both the sums of squares of the analysis of variance and MINQUE need symmetric n x n matrices
    A = W - W B Phi B' W,   W = I - Z F Z',   B = [Z_rest, X],
with Z the leading grouping factor and F block diagonal over its levels: residual projections (F = (Z'Z)^-1 or 0, Phi a
generalised inverse) and P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1 (F = G (I + Z'Z G)^-1). Nothing of size n or levels of
the leading factor squared is formed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts, cross_products, dense
from hierlmm.design.types import LMMDesign

Array = NDArray[np.float64]

# Eigenvalue of the correlations of columns, after others are swept out, below which a direction is rounding.
RANK = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Cross-products on the working scale; m = R + p + 1 trailing columns [Z_rest, X, y].

    lead (G, q, q); lead_rest (G, q, m); rest (m, m); n rows; p columns of X
    widths  (levels, coefficients) of each factor, the leading one first
    """

    lead: Array
    lead_rest: Array
    rest: Array
    n: int
    p: int
    widths: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, design: LMMDesign) -> tuple[Sums, CrossProducts]:
        """The sums of a design and the working scale they are on. Raises DesignError where memory would not do."""
        cp = dense(cross_products(design))
        return cls(cp.lead, cp.lead_rest, cp.rest, cp.n, cp.p, cp.sizes), cp

    @property
    def R(self) -> int:
        """Effects of all factors but the leading one."""
        return len(self.rest) - self.p - 1

    def columns(self, f: int) -> slice:
        """Where the effects of factor f > 0 stand among the trailing columns."""
        start = sum(levels * q for levels, q in self.widths[1:f])
        levels, q = self.widths[f]
        return slice(start, start + levels * q)

    @property
    def X(self) -> slice:
        """Where X stands among the trailing columns."""
        return slice(self.R, self.R + self.p)

    def responding(self, effects: tuple[Array, ...], residual: float) -> Sums:
        """The same rows with y = sum of Z_f b_f plus something of squared length `residual` orthogonal to X and Z.

        effects  per factor (levels, q)
        """
        lead_rest, rest, R = self.lead_rest.copy(), self.rest.copy(), self.R
        others = np.concatenate([np.zeros(0), *(b.ravel() for b in effects[1:])])
        lead_rest[..., -1] = np.einsum("gab,gb->ga", self.lead, effects[0]) + self.lead_rest[..., :R] @ others
        right = np.einsum("gam,ga->m", self.lead_rest, effects[0]) + self.rest[:, :R] @ others
        rest[:-1, -1] = rest[-1, :-1] = right[:-1]
        rest[-1, -1] = (lead_rest[..., -1] * effects[0]).sum() + right[:R] @ others + residual
        return replace(self, lead_rest=lead_rest, rest=rest)


@dataclass(frozen=True, slots=True, eq=False)
class Annihilator:
    """Products of A with the columns of a model; f = 0 is the leading factor, U = [Z_rest, X, y] the others.

    E (G, q, q), L (G, q, m) and N (m, m) are Z'WZ, Z'WU and U'WU, and A = W - W B Phi B'W
    rank  of A, for a residual projection
    """

    sums: Sums
    E: Array
    L: Array
    N: Array
    Phi: Array
    rank: int

    @property
    def square(self) -> float:
        """y'Ay."""
        b = len(self.Phi)
        return float(self.N[-1, -1] - self.N[-1, :b] @ self.Phi @ self.N[:b, -1])

    def among(self, first: slice, second: slice) -> Array:
        """U'AU for some trailing columns and others."""
        b = len(self.Phi)
        return np.asarray(self.N[first, second] - self.N[first, :b] @ (self.Phi @ self.N[:b, second]))

    def leading(self, second: slice) -> Array:
        """(G, q, columns) Z'AU for some trailing columns."""
        b = len(self.Phi)
        G, q, m = self.L.shape
        flat = self.L.reshape(G * q, m)
        return np.asarray(flat[:, second] - flat[:, :b] @ (self.Phi @ self.N[:b, second])).reshape(G, q, -1)

    def scores(self, f: int) -> Array:
        """(levels, q) Z_f'Ay."""
        levels, q = self.sums.widths[f]
        last = slice(len(self.N) - 1, len(self.N))
        return self.leading(last)[..., 0] if f == 0 else self.among(self.sums.columns(f), last).reshape(levels, q)

    def own(self, f: int) -> Array:
        """(q, q) sum over the levels of the diagonal blocks of Z_f'AZ_f."""
        levels, q = self.sums.widths[f]
        if f == 0:
            return np.asarray(self.E.sum(axis=0) - self._within().sum(axis=0))
        where = self.sums.columns(f)
        return np.asarray(np.einsum("gagb->ab", self.among(where, where).reshape(levels, q, levels, q)))

    def fourfold(self, f: int, h: int) -> Array:
        """(q, q, r, r) sums over pairs of levels of C[a, c] C[b, d], C the blocks of Z_f'AZ_h; f <= h."""
        if h == 0:
            return self._fourfold_leading()
        levels, q = self.sums.widths[f]
        others, r = self.sums.widths[h]
        where = self.sums.columns(h)
        block = self.leading(where) if f == 0 else self.among(self.sums.columns(f), where)
        C = block.reshape(levels, q, others, r)
        out = np.empty((q, q, r, r))
        for a, b, c, d in np.ndindex(q, q, r, r):
            out[a, b, c, d] = (C[:, a, :, c] * C[:, b, :, d]).sum()
        return out

    def _within(self) -> Array:
        """(G, q, q) diagonal blocks of L Phi L'."""
        G, q, _ = self.L.shape
        L = self.L[..., : len(self.Phi)]
        return np.asarray((L.reshape(G * q, -1) @ self.Phi).reshape(L.shape) @ L.swapaxes(1, 2))

    def _fourfold_leading(self) -> Array:
        E, q, b = self.E, self.L.shape[1], len(self.Phi)
        within = self._within()
        by_coefficient = [np.ascontiguousarray(self.L[:, a, :b]) for a in range(q)]
        J = [[one.T @ two for two in by_coefficient] for one in by_coefficient]
        out = np.einsum("gac,gbd->abcd", E, E) - np.einsum("gac,gbd->abcd", E, within)
        out -= np.einsum("gac,gbd->abcd", within, E)
        for a, e in np.ndindex(q, q):
            K = self.Phi @ J[a][e] @ self.Phi
            for c, d in np.ndindex(q, q):
                out[a, e, c, d] += (K * J[c][d]).sum()
        return np.asarray(out)


def residual_projection(sums: Sums, factors: tuple[int, ...]) -> Annihilator:
    """I less the projection on X and the columns of `factors` (0: the leading one, whose blocks must be invertible)."""
    return _projection(sums, factors, np.arange(sums.R, sums.R + sums.p))


def within_groups(sums: Sums, factors: tuple[int, ...]) -> Annihilator:
    """I less the projection on the columns of `factors` alone."""
    return _projection(sums, factors, np.arange(0))


def _projection(sums: Sums, factors: tuple[int, ...], fixed: NDArray[np.intp]) -> Annihilator:
    F = np.zeros_like(sums.lead)
    if 0 in factors:
        F = np.asarray(np.linalg.solve(sums.lead, np.broadcast_to(np.eye(sums.lead.shape[1]), sums.lead.shape)))
    E, L, N = _swept(sums, F)
    if 0 in factors:
        E, L = np.zeros_like(E), np.zeros_like(L)
    columns = [np.arange(len(sums.rest))[sums.columns(f)] for f in factors if f > 0]
    chosen = np.concatenate([*columns, fixed])
    Phi = np.zeros((sums.R + sums.p, sums.R + sums.p))
    inverse, rank = _generalised(N[np.ix_(chosen, chosen)], np.diagonal(sums.rest)[chosen])
    Phi[np.ix_(chosen, chosen)] = inverse
    leading = sums.lead.shape[0] * sums.lead.shape[1] if 0 in factors else 0
    return Annihilator(sums, E, L, N, Phi, sums.n - leading - rank)


def inverse(sums: Sums, G: tuple[Array, ...]) -> Annihilator:
    """V^-1 for V = I + sum of Z_f (I x G_f) Z_f'; G per factor (q, q), which may be indefinite while V is not."""
    E, L, N = _swept(sums, _shrinking(sums, G))
    R = sums.R
    Phi = np.zeros((R + sums.p, R + sums.p))
    if R:
        Gamma = relative(sums, G)
        J = np.linalg.solve(np.eye(R) + Gamma @ N[:R, :R], Gamma)
        Phi[:R, :R] = (J + J.T) / 2
    return Annihilator(sums, E, L, N, Phi, sums.n)


def restricted(sums: Sums, G: tuple[Array, ...]) -> Annihilator:
    """P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1 for the V of `inverse`."""
    if not sums.p:
        return inverse(sums, G)
    before = inverse(sums, G)
    E, L, N = before.E, before.L, before.N
    b = sums.R + sums.p
    H = np.eye(b)[:, sums.X] - before.Phi @ N[:b, sums.X]
    Phi = before.Phi + H @ np.linalg.solve(before.among(sums.X, sums.X), H.T)
    return Annihilator(sums, E, L, N, (Phi + Phi.T) / 2, sums.n - sums.p)


def is_positive_definite(sums: Sums, G: tuple[Array, ...]) -> bool:
    """Whether V = I + sum of Z_f (I x G_f) Z_f' is a covariance matrix."""
    if not G:
        return True
    lead = np.eye(len(G[0])) + sums.lead @ G[0]
    if np.linalg.eigvals(lead).real.min() <= 0:
        return False
    if not sums.R or all(np.linalg.eigvalsh(part)[0] >= 0 for part in G):
        return True
    N = _swept(sums, _shrinking(sums, G))[2][: sums.R, : sums.R]
    return bool(np.linalg.eigvals(np.eye(sums.R) + N @ relative(sums, G)).real.min() > 0)


def relative(sums: Sums, G: tuple[Array, ...]) -> Array:
    """(R, R) block diagonal covariance matrix of all effects but those of the leading factor."""
    out = np.zeros((sums.R, sums.R))
    for f in range(1, len(G)):
        where = sums.columns(f)
        out[where, where] = np.kron(np.eye(sums.widths[f][0]), G[f])
    return out


def _shrinking(sums: Sums, G: tuple[Array, ...]) -> Array:
    """(levels, q, q) F = G (I + Z'Z G)^-1 of the leading factor."""
    lead = G[0] if G else np.zeros((1, 1))
    F = np.linalg.solve(np.eye(len(lead)) + lead @ sums.lead, np.broadcast_to(lead, sums.lead.shape))
    return np.asarray((F + F.swapaxes(1, 2)) / 2)


def _swept(sums: Sums, F: Array) -> tuple[Array, Array, Array]:
    """Z'WZ, Z'WU and U'WU for W = I - Z F Z'."""
    DF = sums.lead @ F
    E = sums.lead - DF @ sums.lead
    L = sums.lead_rest - DF @ sums.lead_rest
    m = len(sums.rest)
    N = sums.rest - sums.lead_rest.reshape(-1, m).T @ (F @ sums.lead_rest).reshape(-1, m)
    return E, L, N


def _generalised(N: Array, size: Array) -> tuple[Array, int]:
    """Generalised inverse of a swept Gram matrix and its rank; `size` are the squared lengths before the sweep."""
    if not len(N):
        return N, 0
    scale = 1.0 / np.sqrt(size)
    values, vectors = np.linalg.eigh(N * np.outer(scale, scale))
    kept = values > RANK * max(1.0, float(values[-1]))
    half = vectors[:, kept] / np.sqrt(values[kept]) * scale[:, None]
    return half @ half.T, int(kept.sum())
