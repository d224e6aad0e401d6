"""Mixed models whose leading factor meets few of the other factors' effects: the work of `lmm.py` on the cells.

Students and lecturers, or classes in schools: of all pairs of levels a few per cent occur. The leading factor is
eliminated level by level over the cells alone, and no array of its levels by the other effects is ever formed.
One Lambda per factor, no leading axes; the numbers are those of `lmm`, `lmm_derivatives` and `blup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import Cells, CrossProducts, Solved
from hierlmm.likelihood.sparse_coupling import Coupling
from hierlmm.likelihood.sparse_dense import DensePlaces
from hierlmm.likelihood.sparse_levels import LevelSystem, Moments, NestedPlaces
from hierlmm.likelihood.sparse_systems import Places, Sizes
from hierlmm.likelihood.triangular import solve_lower

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Method = Literal["ml", "reml"]

# Effects of a nested factor from which it is worth eliminating level by level: one small Cholesky factor a level
# costs more than its share of a full one before that.
NESTED = 200
# Share of products of the trailing factors that are not zero below which they are kept without the zeros.
FEW = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class SparseEliminated:
    """The system at one Lambda.

    gram Z'Z; ZU (Q, p + 1) Z'[X, y] of all factors' effects in order; products (p + 1, p + 1) [X, y]'V*⁻¹[X, y];
    log_det log |V*|.
    """

    gram: RandomProducts
    system: LevelSystem
    ZU: Array
    products: Array
    log_det: float


def eliminate(cp: CrossProducts, factors: Sequence[Array]) -> SparseEliminated:
    """Eliminate the random effects at the relative factors Lambda, one (q, q) array per grouping factor.

    Raises LinAlgError where rounding leaves no positive definite system.
    """
    R = cp.rest.shape[0] - cp.p - 1
    gram = random_products(cp)
    coupling = gram.coupling
    system = LevelSystem.of(cp.lead, coupling, coupling.places.raw(cp.rest[:R, :R]), factors)
    ZU = np.concatenate([cp.lead_rest.reshape(-1, cp.p + 1), cp.rest[:R, R:]])
    return SparseEliminated(gram, system, ZU, cp.rest[R:, R:] - system.quadratic(ZU), system.log_det)


@dataclass(frozen=True, slots=True, eq=False)
class SparseProjected:
    """Z'P*Z and Z'P*y in the pieces that the derivatives and the predictions need.

    u per factor (levels, q) Z'P*y; E (Q, p) Z'V*⁻¹X; L_x (p, p) Cholesky factor of X'V*⁻¹X.
    """

    state: SparseEliminated
    moments: Moments
    u: tuple[Array, ...]
    E: Array
    L_x: Array

    def gram(self, f: int, method: Method) -> Array:
        """(q, q) sum over the levels of factor f of the diagonal blocks of Z'P*Z (REML) or Z'V*⁻¹Z (ML)."""
        whole = self.moments.grams[f]
        if method == "ml":
            return whole
        q = self.u[f].shape[1]
        start = sum(part.size for part in self.u[:f])
        E = self.E[start : start + self.u[f].size]
        half = solve_lower(self.L_x, E.T).reshape(-1, q) if E.shape[1] else np.zeros((0, q))
        total: Array = whole - half.T @ half
        return total

    def inner(self, D: Sequence[Array]) -> Array:
        """(k, k) D'Z'P*Z D for D per factor (levels * q, k)."""
        whole = np.concatenate(D)
        SD = self.state.gram.times(whole)
        fixed = solve_lower(self.L_x, self.E.T @ whole)
        total: Array = whole.T @ SD - self.state.system.quadratic(SD) - fixed.T @ fixed
        return total


def project(cp: CrossProducts, factors: Sequence[Array], state: SparseEliminated, solved: Solved) -> SparseProjected:
    """Project the random-effects columns off what has been eliminated."""
    p = cp.p
    VZU = state.ZU - state.gram.times(state.system.solve(state.ZU))
    u = VZU[:, p] - VZU[:, :p] @ solved.beta
    return SparseProjected(state, state.system.moments(), split(cp.sizes, u), VZU[:, :p], solved.L_x)


def split(sizes: Sizes, stacked: Array) -> tuple[Array, ...]:
    """Per factor (levels, q, ...) of the (Q, ...) rows of all effects in order."""
    parts, start = [], 0
    for G, q in sizes:
        parts.append(stacked[start : start + G * q].reshape(G, q, *stacked.shape[1:]))
        start += G * q
    return tuple(parts)


@dataclass(frozen=True, slots=True, eq=False)
class RandomProducts:
    """Z'Z of all effects, which no Lambda changes: lead (G, q, q), `coupling` and rest (R, R), sparse where it is."""

    lead: Array
    coupling: Coupling
    rest: csr_array | Array

    def times(self, B: Array) -> Array:
        """Z'Z B for (Q, k) B, all factors' effects in order."""
        G, q, _ = self.lead.shape
        own, rest = B[: G * q].reshape(G, q, -1), B[G * q :]
        first = self.lead @ own + self.coupling.times(rest)
        return np.concatenate([first.reshape(G * q, -1), self.coupling.transposed(own) + self.rest @ rest])


# What is derived from the cells, for as long as they live: every evaluation needs it, and every refit.
_KNOWN: WeakKeyDictionary[Cells, RandomProducts] = WeakKeyDictionary()


def random_products(cp: CrossProducts) -> RandomProducts:
    """Z'Z as the elimination reads it: formed once for the cells of `cp`."""
    from scipy.sparse import csr_array

    cells = cp.cells
    assert cells is not None, "without cells the dense functions are called"
    known = _KNOWN.get(cells)
    if known is None:
        R = cp.rest.shape[0] - cp.p - 1
        rest = cp.rest[:R, :R]
        places = _places(cp.sizes[1:], cells.level, cells.column, rest)
        coupling = Coupling(cells.level, cells.column, cells.values, cp.sizes[0][0], R, places)
        few = np.count_nonzero(rest) < FEW * rest.size
        known = RandomProducts(cp.lead, coupling, csr_array(rest) if few else rest)
        _KNOWN[cells] = known
    return known


def _places(sizes: Sizes, level: Codes, column: Codes, rest: Array) -> Places:
    """Where to keep the products of the trailing factors, each `level` of what was eliminated touching `column`s.

    A full matrix, unless the eliminated levels are nested in the first trailing factor's: then that factor stays
    block diagonal, and the same question is asked of those after it.
    """
    G, q = sizes[0] if sizes else (0, 1)
    own = G * q
    inside = column < own
    if own < NESTED:
        return DensePlaces(sizes)
    touched = np.full(int(level.max()) + 1, -1, dtype=np.intp)
    touched[level[inside]] = column[inside] // q
    if (touched[level[inside]] != column[inside] // q).any():
        return DensePlaces(sizes)
    others = rest.shape[0] - own
    rows, columns = np.nonzero(rest[:own, own:])
    outside = ~inside
    left, right = touched[level[outside]], column[outside] - own
    known = left >= 0
    key = np.unique(np.concatenate([rows // q * others + columns, left[known] * others + right[known]]))
    # levels that touch no column of this factor still tie the later ones together
    up = np.concatenate([key // max(others, 1), G + level[outside][~known]])
    across = np.concatenate([key % max(others, 1), right[~known]])
    return NestedPlaces(sizes, key, _places(sizes[1:], up, across, rest[own:, own:]))
