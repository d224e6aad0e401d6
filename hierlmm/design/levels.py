"""Sums over the rows of each level, and the pairs of levels that occur."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Codes

Array = NDArray[np.float64]


def occurring(first: Codes, second: Codes, G: int, H: int) -> tuple[Codes, Codes]:
    """Position (n,) of each row's pair of levels among those that occur, and these (c,) as first * H + second."""
    pair = first * H + second
    if G * H <= 4 * len(pair) + 1000:
        labels = np.flatnonzero(np.bincount(pair, minlength=G * H))
        position = np.empty(G * H, dtype=np.intp)
        position[labels] = np.arange(len(labels))
        return position[pair], labels
    cell, labels = pd.factorize(pair)
    return cell, np.asarray(labels, dtype=np.intp)


def by_level(codes: Codes, G: int, Z: Array, U: Array, symmetric: bool = False) -> Array:
    """(G, q, u) sums over the rows of each level of z u'; `symmetric`: those of the upper triangle are the lower's."""
    out = np.empty((G, Z.shape[1], U.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(U.shape[1]):
            if symmetric and c < a:
                out[:, a, c] = out[:, c, a]
            else:
                out[:, a, c] = np.bincount(codes, Z[:, a] * U[:, c], G)
    return out
