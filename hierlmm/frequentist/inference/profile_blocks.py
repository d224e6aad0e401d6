"""One sd or correlation of a covariance block as a coordinate: the block with that coordinate held is free otherwise.

A block's relative covariance on the working scale is T = H H'; on the data scale G = sigma² B T B'. In an orthonormal
basis Q of the working coefficients that starts with the rows of B of the held coefficients, H = QL with L lower
triangular, and

    sd of the first coefficient = sigma |v| L_00,
    row of the second = (a L_00 + b L_10, b L_11) = s (cos w, sin w),     correlation = cos w,

so that what is left is free, and the ends of the range (sd 0, correlation ±1) are ordinary points where the criterion
is even in the coordinate. Blocks of one variance, or of one variance and one correlation, have their eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hierlmm.frequentist.inference.profile_slopes import triangular

Array = NDArray[np.float64]


class Block(Protocol):
    """A covariance block of m coefficients: one coordinate c, others h (k,), ratio = sigma at the fit / sigma."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The range of c."""
        ...

    def start(self, Lambda: Array) -> tuple[float, Array]:
        """c and h of a block (m, m) at the fit."""
        ...

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        """H (m, m) with T = H H'."""
        ...

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        """Derivatives in c, h and log ratio of a function with derivative S (m, m) in H."""
        ...

    def natural(self, c: float) -> float:
        """The sd or correlation at c."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class GeneralSd:
    """c = sd / (sigma at the fit |v|) of the first coefficient of the basis Q (m, m); `unit` sigma at the fit |v|."""

    Q: Array
    unit: float

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf

    @property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows, columns = (index.astype(np.intp) for index in np.tril_indices(len(self.Q)))
        return rows[1:], columns[1:]

    def start(self, Lambda: Array) -> tuple[float, Array]:
        L = triangular(self.Q.T @ Lambda)
        return float(L[0, 0]), L[self.places]

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        L = np.zeros_like(self.Q)
        L[self.places] = h
        L[0, 0] = c * ratio
        return self.Q @ L

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        P = self.Q.T @ S
        return float(P[0, 0] * ratio), P[self.places], float(P[0, 0] * c * ratio)

    def natural(self, c: float) -> float:
        return c * self.unit


@dataclass(frozen=True, slots=True, eq=False)
class GeneralCorrelation:
    """c = w, the angle whose cosine is the correlation of the first two coefficients of the basis Q."""

    Q: Array
    a: float
    b: float

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.pi

    @property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows, columns = (index.astype(np.intp) for index in np.tril_indices(len(self.Q)))
        return rows[3:], columns[3:]

    def start(self, Lambda: Array) -> tuple[float, Array]:
        L = triangular(self.Q.T @ Lambda)
        first, second = self.a * L[0, 0] + self.b * L[1, 0], self.b * L[1, 1]
        return float(np.arctan2(second, first)), np.concatenate([[L[0, 0], np.hypot(first, second)], L[self.places]])

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        L = np.zeros_like(self.Q)
        L[0, 0] = h[0]
        L[1, 0], L[1, 1] = (h[1] * np.cos(c) - self.a * h[0]) / self.b, h[1] * np.sin(c) / self.b
        L[self.places] = h[2:]
        return self.Q @ L

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        P = self.Q.T @ S
        x, y = P[1, 0] / self.b, P[1, 1] / self.b
        own = [P[0, 0] - self.a * x, x * np.cos(c) + y * np.sin(c)]
        return float(h[1] * (y * np.cos(c) - x * np.sin(c))), np.concatenate([own, P[self.places]]), 0.0

    def natural(self, c: float) -> float:
        return float(np.cos(c))


@dataclass(frozen=True, slots=True, eq=False)
class IdentitySd:
    """c = sd / unit of m coefficients of one variance."""

    size: int
    unit: float

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf

    def start(self, Lambda: Array) -> tuple[float, Array]:
        return float(abs(Lambda[0, 0])), np.zeros(0)

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        return c * ratio * np.eye(self.size)

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        slope = float(np.trace(S))
        return slope * ratio, np.zeros(0), slope * c * ratio

    def natural(self, c: float) -> float:
        return c * self.unit


@dataclass(frozen=True, slots=True, eq=False)
class CompoundSd:
    """c = sd / unit of m coefficients of one variance and correlation; h the angle of the two eigenvalues' roots."""

    size: int
    unit: float

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, np.inf

    @property
    def scales(self) -> tuple[float, float]:
        return float(np.sqrt(self.size / (self.size - 1))), float(np.sqrt(self.size))

    def start(self, Lambda: Array) -> tuple[float, Array]:
        a, b = _roots(Lambda)
        x, y = (root / scale for root, scale in zip((a, b), self.scales, strict=True))
        return float(np.hypot(x, y)), np.array([np.arctan2(y, x)])

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        x, y = self.scales
        return _compound(self.size, c * ratio * x * np.cos(h[0]), c * ratio * y * np.sin(h[0]))

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        (x, y), (da, db) = self.scales, _slopes(S)
        along = da * x * np.cos(h[0]) + db * y * np.sin(h[0])
        turn = db * y * np.cos(h[0]) - da * x * np.sin(h[0])
        return float(along * ratio), np.array([c * ratio * turn]), float(along * c * ratio)

    def natural(self, c: float) -> float:
        return c * self.unit


@dataclass(frozen=True, slots=True, eq=False)
class CompoundCorrelation:
    """c = atan(b / a) of the roots of the two eigenvalues a² (m - 1 times) and b²; h their size."""

    size: int

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, 0.5 * np.pi

    def start(self, Lambda: Array) -> tuple[float, Array]:
        a, b = _roots(Lambda)
        return float(np.arctan2(b, a)), np.array([np.hypot(a, b)])

    def matrix(self, c: float, h: Array, ratio: float) -> Array:
        return _compound(self.size, h[0] * np.cos(c), h[0] * np.sin(c))

    def pull(self, c: float, h: Array, ratio: float, S: Array) -> tuple[float, Array, float]:
        da, db = _slopes(S)
        slope = h[0] * (db * np.cos(c) - da * np.sin(c))
        return float(slope), np.array([da * np.cos(c) + db * np.sin(c)]), 0.0

    def natural(self, c: float) -> float:
        a, b = np.cos(c) ** 2, np.sin(c) ** 2
        return float((b - a) / ((self.size - 1) * a + b))


def _roots(Lambda: Array) -> tuple[float, float]:
    """a, b of Lambda = a (I - J/m) + b J/m, both taken as positive."""
    total = float(Lambda[0].sum())
    return abs(float(Lambda[0, 0] - Lambda[0, -1])), abs(total)


def _compound(size: int, a: float, b: float) -> Array:
    mean = np.full((size, size), 1.0 / size)
    return np.asarray(a * (np.eye(size) - mean) + b * mean)


def _slopes(S: Array) -> tuple[float, float]:
    mean = float(S.sum()) / len(S)
    return float(np.trace(S)) - mean, mean


def basis(rows: Array) -> tuple[Array, Array]:
    """Orthonormal (m, m) Q whose first columns span the rows (r, m), and the (r, r) lower coordinates of the rows."""
    m = rows.shape[1]
    lengths = np.linalg.norm(rows, axis=1)
    columns = np.column_stack([(rows / lengths[:, None]).T, np.eye(m)])
    kept: list[Array] = []
    for column in columns.T:
        rest = column
        for _ in range(2):
            for q in kept:
                rest = rest - q * (q @ rest)
        size = float(np.linalg.norm(rest))
        if len(kept) < m and (len(kept) < len(rows) or size > 0.5 / np.sqrt(m)):
            kept.append(rest / size)
    Q = np.column_stack(kept)
    return Q, np.tril(rows @ Q[:, : len(rows)])
