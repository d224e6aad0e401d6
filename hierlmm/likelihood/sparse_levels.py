"""The system of the random effects whose first factor is block diagonal: it is eliminated level by level.

S = [N A; A' B] with N one (q, q) block a level and A sparse. With T = Lambda Lambda' of the first factor and
H_l = (N_l + T⁻¹)⁻¹ (also at a singular T), the other factors are left with B - A'H A, a system of the same kind:
full, or block diagonal again where a factor is nested in the next. For D = (S + T⁻¹)⁻¹ of all of them and D_o of
the others, level by level

    D_ll = H_l + H_l Q_l H_l,   Q_l = A_l D_o A_l',   D_lo = -H_l A_l D_o,
    (S - S D S)_ll = N_l - N_l H_l N_l - F_l Q_l F_l',   F_l = I - N_l H_l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.sparse_coupling import Coupling
from hierlmm.likelihood.sparse_systems import Inverse, Places, Sizes, System
from hierlmm.likelihood.triangular import cholesky_lower, log_diagonal, solve_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class LevelSystem:
    """One factor, block diagonal, and the system of the others without it.

    N (G, q, q); coupling A; Lambda (q, q); Yt (G, q, q) L⁻¹Lambda' with L L' = Lambda'N Lambda + I; H (G, q, q) =
    Yt'Yt; log_det of all Lambda'S Lambda + I.
    """

    N: Array
    coupling: Coupling
    Lambda: Array
    Yt: Array
    H: Array
    others: System
    log_det: float
    _moments: list[Moments] = field(default_factory=list)

    @classmethod
    def of(cls, N: Array, coupling: Coupling, raw: Array, factors: Sequence[Array]) -> LevelSystem:
        """Eliminate the levels; `raw` the products of the other factors' effects as `coupling.places` keeps them."""
        Lambda = factors[0]
        L = cholesky_lower(Lambda.T @ N @ Lambda + np.eye(len(Lambda)))
        Yt = solve_lower(L, np.broadcast_to(Lambda.T, L.shape))
        H = Yt.swapaxes(-1, -2) @ Yt
        taken = coupling.scatter(H).reshape(raw.shape)
        others = coupling.places.system(np.subtract(raw, taken, out=taken), factors[1:])
        return cls(N, coupling, Lambda, Yt, H, others, 2 * float(log_diagonal(L).sum()) + others.log_det)

    def _split(self, B: Array) -> tuple[Array, Array]:
        G, q, _ = self.N.shape
        return B[: G * q].reshape(G, q, -1), B[G * q :]

    def quadratic(self, B: Array) -> Array:
        """(k, k) B'D B for (Q, k) B."""
        own, rest = self._split(B)
        half = self.Yt @ own
        left = rest - self.coupling.transposed(self.Yt.swapaxes(-1, -2) @ half)
        flat = half.reshape(-1, B.shape[1])
        return np.asarray(flat.T @ flat + self.others.quadratic(left))

    def solve(self, B: Array) -> Array:
        """D B for (Q, k) B."""
        own, rest = self._split(B)
        last = self.others.solve(rest - self.coupling.transposed(self.H @ own))
        first = self.H @ (own - self.coupling.times(last))
        return np.concatenate([first.reshape(-1, B.shape[1]), last])

    def moments(self) -> Moments:
        """Diagonal blocks of D and sums of those of S - S D S: formed at the first call."""
        if not self._moments:
            self._moments.append(self._inverted(self.others.inverse()))
        return self._moments[0]

    def _inverted(self, inner: Inverse) -> Moments:
        Q = self.coupling.gather(inner.values)
        F = np.eye(self.N.shape[1]) - self.N @ self.H
        gram = (self.N - self.N @ self.H @ self.N).sum(axis=0) - (F @ Q @ F.swapaxes(-1, -2)).sum(axis=0)
        block = self.H + self.H @ Q @ self.H
        return Moments((block, *inner.blocks), (gram, *inner.grams))

    def inverse(self) -> Inverse:
        """D at the places of `NestedPlaces`: own blocks, cells, and those of the other factors."""
        inner = self.others.inverse()
        moments = self._inverted(inner)
        spread = self.coupling.spread(inner.values)
        cells = -(self.H[self.coupling.level] @ spread[:, :, None])[:, :, 0]
        values = np.concatenate([moments.blocks[0].ravel(), cells.ravel(), inner.values])
        return Inverse(values, moments.blocks, moments.grams)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Per factor: blocks (levels, q, q) of D on the diagonal, grams (q, q) the sums of those of S - S D S."""

    blocks: tuple[Array, ...]
    grams: tuple[Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NestedPlaces:
    """Places for trailing factors whose first is block diagonal: its blocks, its cells, then the others' places.

    key (c,) sorted, level * columns of the others + column, of the cells that occur.
    """

    sizes: Sizes
    key: Codes
    others: Places

    @property
    def columns(self) -> int:
        return sum(G * q for G, q in self.sizes)

    @property
    def _own(self) -> int:
        G, q = self.sizes[0]
        return G * q * q

    @property
    def length(self) -> int:
        return self._own + len(self.key) * self.sizes[0][1] + self.others.length

    @property
    def diagonal(self) -> Codes:
        every = np.arange(self.columns)
        return self.position(every, every)

    def position(self, i: Codes, j: Codes) -> Codes:
        """Places of pairs of columns i >= j; pairs of different levels of the first factor do not occur."""
        G, q = self.sizes[0]
        own = G * q
        out = np.empty(len(i), dtype=np.intp)
        inside, outside = i < own, j >= own
        across = ~inside & ~outside
        out[inside] = (i[inside] // q * q + i[inside] % q) * q + j[inside] % q
        cell = np.searchsorted(self.key, j[across] // q * self.others.columns + i[across] - own)
        out[across] = self._own + cell * q + j[across] % q
        last = self._own + len(self.key) * q
        out[outside] = last + self.others.position(i[outside] - own, j[outside] - own)
        return out

    def raw(self, rest: Array) -> Array:
        """The products of these columns as they are kept here, from the (R, R) matrix of them."""
        G, q = self.sizes[0]
        own = np.arange(G * q).reshape(G, q)
        blocks = rest[own[:, :, None], own[:, None, :]]
        level, column = np.divmod(self.key, self.others.columns)
        cells = rest[own[level], G * q + column[:, None]]
        inner = self.others.raw(rest[G * q :, G * q :])
        return np.concatenate([blocks.ravel(), cells.ravel(), inner.ravel()])

    def system(self, values: Array, factors: Sequence[Array]) -> LevelSystem:
        """The system from its (length,) values."""
        G, q = self.sizes[0]
        last = self._own + len(self.key) * q
        lower = values[: self._own].reshape(G, q, q)
        N = np.tril(lower) + np.tril(lower, -1).swapaxes(-1, -2)
        level, column = np.divmod(self.key, self.others.columns)
        cells = values[self._own : last].reshape(-1, q)
        coupling = Coupling(level, column, cells, G, self.others.columns, self.others)
        return LevelSystem.of(N, coupling, values[last:], factors)
