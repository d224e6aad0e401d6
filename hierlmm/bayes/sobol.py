"""Scrambled Sobol' points: evenly spread in the unit cube, each of them uniform, replicates independent.

Direction numbers of Joe & Kuo (2008, SIAM J. Sci. Comput. 30:2635); random linear scrambling with a digital shift
(Matoušek 1998, J. Complexity 14:527). scipy's generator is the same, and takes half a second to import.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bits = NDArray[np.int64]

BITS = 30
# Degree, inner coefficients of the primitive polynomial, and first direction numbers, from the second dimension on.
DIRECTIONS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (1, 0, (1,)),
    (2, 1, (1, 3)),
    (3, 1, (1, 3, 1)),
    (3, 2, (1, 1, 1)),
    (4, 1, (1, 1, 3, 3)),
    (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)),
    (5, 4, (1, 1, 5, 5, 5)),
    (5, 7, (1, 1, 7, 11, 19)),
    (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
    (5, 14, (1, 3, 5, 5, 31)),
    (6, 1, (1, 3, 3, 9, 7, 49)),
    (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)),
    (6, 19, (1, 1, 1, 15, 7, 5)),
    (6, 22, (1, 3, 1, 15, 13, 25)),
    (6, 25, (1, 1, 5, 5, 19, 61)),
    (7, 1, (1, 3, 7, 11, 23, 15, 103)),
    (7, 4, (1, 3, 7, 13, 13, 15, 69)),
)
DIMENSIONS = len(DIRECTIONS) + 1


def spread(points: int, dimensions: int, rng: np.random.Generator) -> Array:
    """(points, dimensions) of the open unit cube; best where `points` is a power of two.

    Beyond DIMENSIONS, where no direction numbers are kept, the further coordinates are plain random numbers.
    """
    used = min(dimensions, DIMENSIONS)
    vectors = _scrambled(direction_vectors(used), rng)
    index = np.arange(points)
    out = np.repeat(rng.integers(1 << BITS, size=(1, used)), points, axis=0)
    for bit in range(int(points - 1).bit_length()):
        out ^= np.where((index >> bit) & 1, 1, 0)[:, None] * vectors[:, bit]
    u = (out + 0.5) / (1 << BITS)
    return np.concatenate([u, rng.uniform(1e-12, 1.0, size=(points, dimensions - used))], axis=1)


def direction_vectors(dimensions: int) -> Bits:
    """(dimensions, BITS) integers v; point i is the exclusive or of v[:, k] over the bits k set in i."""
    v = np.zeros((dimensions, BITS), dtype=np.int64)
    v[0] = 1 << np.arange(BITS - 1, -1, -1)
    for row, (degree, inner, first) in enumerate(DIRECTIONS[: dimensions - 1], start=1):
        m = list(first)
        for k in range(degree, BITS):
            new = m[k - degree] ^ (m[k - degree] << degree)
            for j in range(1, degree):
                new ^= ((inner >> (degree - 1 - j)) & 1) * (m[k - j] << j)
            m.append(new)
        v[row] = [m[k] << (BITS - 1 - k) for k in range(BITS)]
    return v


def _scrambled(v: Bits, rng: np.random.Generator) -> Bits:
    """Each dimension's digits multiplied by a random lower triangular binary matrix with unit diagonal."""
    lower = np.tril(rng.integers(2, size=(len(v), BITS, BITS)), -1) + np.eye(BITS, dtype=np.int64)
    place = np.arange(BITS - 1, -1, -1)
    digits = (v[:, :, None] >> place) & 1
    mixed = np.einsum("dij,dkj->dki", lower, digits) & 1
    return np.asarray((mixed << place).sum(axis=-1))
