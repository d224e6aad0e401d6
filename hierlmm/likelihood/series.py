"""Residual structures over series of rows: repeated occasions of one subject, times of one plot.

The rows of a series are correlated, those of different series are not. Series of equal length are held together, and
those with the same pattern of occasions share the factorisation of R. Without random effects the series of one
pattern are compressed to as many as their columns can distinguish, so that a value of phi costs as much as there are
patterns, not series.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts
from hierlmm.likelihood.structured import Weighted
from hierlmm.likelihood.triangular import solve_lower

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Numbers of the largest intermediate array while the derivatives are formed: 160 MB.
LARGEST = 20_000_000

# Conditional variance of a row given the rows before it, as a part of its own, and variance of one row as a part of
# another's, below which R counts as singular. The products weighted by its inverse then lose the digits by which they
# exceed what random effects leave of them: at these limits the criterion has about 3 decimals left, beyond them the
# search would chase rounding.
SINGULAR = 1e-8
UNEQUAL = 1e-10


class Structure(Protocol):
    """R / sigma² of rows at given places and its derivatives, as the residual structures offer it."""

    @property
    def size(self) -> int: ...
    def relative(self, phi: Array, place: Array, occasion: Codes) -> tuple[Array, Array]: ...
    def start(self, groups: Sequence[tuple[Array, Codes, Array]]) -> Array: ...


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """N series of k rows each.

    rows      (N, k, q + m) columns [Z_lead, Z_rest, X, y] on the working scale, each row over the root of its known
              relative variance
    level     (N,) level of the leading factor, ascending; zeros where there is none
    place, occasion  (U, k) of the patterns; of (N,) the pattern of each series
    count     (U,) how many series of the data have the pattern
    residuals (N0, k) ordinary least squares residuals of the data's series and `origin` (N0,) their patterns: what the
              search starts from
    """

    rows: Array
    level: Codes
    place: Array
    occasion: Codes
    of: Codes
    count: Array
    residuals: Array
    origin: Codes


@dataclass(frozen=True, slots=True, eq=False)
class SeriesModel:
    """A linear mixed model whose residuals have `structure` within series; `base` has the shapes and maps."""

    base: CrossProducts
    structure: Structure
    batches: tuple[Series, ...]

    @property
    def size(self) -> int:
        return self.structure.size

    @property
    def work(self) -> int:
        """Numbers touched by one evaluation."""
        return sum(part.rows.size for part in self.batches) * (self.size + 1)

    def start(self) -> Array:
        """phi from the ordinary least squares residuals."""
        return self.structure.start(
            [(part.place[part.origin], part.occasion[part.origin], part.residuals) for part in self.batches]
        )

    def at(self, phi: Array) -> Weighted:
        """The weighted products at phi. A phi at which R is singular to rounding has products of nan."""
        base, K = self.base, self.size
        q = self.batches[0].rows.shape[-1] - base.rest.shape[0]
        total = _Sums.zeros(base, K, q)
        held = []
        for part in self.batches:
            R, slopes = self.structure.relative(phi, part.place, part.occasion)
            white, turned, log_det, trace = _whitening(R, slopes, part.count)
            rows = white[part.of] @ part.rows if len(white) > 1 else white[0] @ part.rows
            total.log_det += log_det
            total.log_det_slope += trace
            total.add(rows, rows, part.level, None)
            for here in _slices(K, rows.size):
                images = turned[here][:, part.of] if turned.shape[1] > 1 else turned[here]
                total.add(rows, -(images @ rows), part.level, here)
            held.append((rows, turned, part.of))

        def gram(b: Array, trailing: Array) -> Array:
            out = np.zeros((K, K))
            for (rows, turned, of), part in zip(held, self.batches, strict=True):
                r = rows[..., q:] @ trailing
                if q:
                    r = r - (rows[..., :q] @ b[part.level][..., None])[..., 0]
                images = turned[:, of] if turned.shape[1] > 1 else turned
                v = (images @ r[..., None])[..., 0].reshape(K, -1)
                out += v @ v.T
            return out

        products: Any = base  # a dataclass of the caller's; only its arrays are replaced
        cp = replace(
            products, lead=total.lead[0], lead_rest=total.lead_rest[0], rest=total.rest[0],
            log_scale=base.log_scale + total.log_det,
        )  # fmt: skip
        return Weighted(cp, total.lead[1:], total.lead_rest[1:], total.rest[1:], total.log_det_slope, gram)


def _whitening(R: Array, slopes: Array, count: Array) -> tuple[Array, Array, float, Array]:
    """W with W R W' = I (U, k, k), W R_r W' (K, U, k, k), and log|R| with its derivatives (K,) over all series."""
    try:
        L: Array = np.asarray(np.linalg.cholesky(R), dtype=np.float64)
    except np.linalg.LinAlgError:
        L = np.full_like(R, np.nan)
    left, variance = np.diagonal(L, axis1=-2, axis2=-1) ** 2, np.diagonal(R, axis1=-2, axis2=-1)
    if (left < SINGULAR * variance).any() or variance.min() < UNEQUAL * variance.max():
        L = np.full_like(R, np.nan)
    white = solve_lower(L, np.broadcast_to(np.eye(L.shape[-1]), L.shape))
    turned = white @ slopes @ white.swapaxes(-1, -2)
    log_det = 2 * float(count @ np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1))
    return white, turned, log_det, np.trace(turned, axis1=-2, axis2=-1) @ count


def _slices(K: int, size: int) -> Iterator[slice]:
    step = max(1, LARGEST // max(size, 1))
    for start in range(0, K, step):
        yield slice(start, min(start + step, K))


@dataclass(slots=True)
class _Sums:
    """Products (position 0) and their K derivatives while they are added up."""

    lead: Array
    lead_rest: Array
    rest: Array
    q: int
    log_det: float
    log_det_slope: Array

    @classmethod
    def zeros(cls, base: CrossProducts, K: int, q: int) -> _Sums:
        shape = K + 1
        return cls(
            np.zeros((shape, *base.lead.shape)), np.zeros((shape, *base.lead_rest.shape)),
            np.zeros((shape, *base.rest.shape)), q, 0.0, np.zeros(K),
        )  # fmt: skip

    def add(self, left: Array, right: Array, level: Codes, here: slice | None) -> None:
        """Add left'right: left (N, k, w), right (N, k, w) for the products or (K', N, k, w) for derivatives `here`."""
        q, width = self.q, left.shape[-1]
        trailing = left[..., q:].reshape(-1, width - q)
        place = slice(0, 1) if here is None else slice(here.start + 1, here.stop + 1)
        right = right[None] if here is None else right
        flat = right[..., q:].reshape(len(right), -1, width - q)
        self.rest[place] += trailing.T @ flat
        if q:
            own = left[..., :q].swapaxes(-1, -2) @ right
            first = np.flatnonzero(np.diff(level, prepend=-1))
            if len(first) < len(level):
                own = np.add.reduceat(own, first, axis=1)
            self.lead[place, level[first]] += own[..., :q]
            self.lead_rest[place, level[first]] += own[..., q:]


def compressed(part: Series) -> Series:
    """Series without random effects: those of one pattern as the fewest with the same sums of products."""
    _, k, w = part.rows.shape
    rows, of = [], []
    for u in range(len(part.count)):
        own = part.rows[part.of == u].reshape(-1, k * w)
        if len(own) > k * w:
            own = np.linalg.qr(own, mode="r")
        rows.append(own.reshape(-1, k, w))
        of.append(np.full(len(own), u, dtype=np.intp))
    kept = np.concatenate(of)
    return replace(part, rows=np.concatenate(rows), of=kept, level=np.zeros(len(kept), dtype=np.intp))
