"""Sums over the rows of each level, and the pairs of levels that occur."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.types import Codes

Array = NDArray[np.float64]

# Rows a level from which its sums are added up in so many interleaved runs: rounding grows with the length of a run.
LONG, RUNS = 64, 32


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
    runs = RUNS if len(codes) > LONG * G else 1
    slots = codes if runs == 1 else codes * runs + np.arange(len(codes)) % runs
    out = np.empty((G, Z.shape[1], U.shape[1]))
    for a in range(Z.shape[1]):
        for c in range(U.shape[1]):
            if symmetric and c < a:
                out[:, a, c] = out[:, c, a]
            else:
                sums = np.bincount(slots, Z[:, a] * U[:, c], G * runs)
                out[:, a, c] = sums if runs == 1 else sums.reshape(G, runs).sum(axis=1)
    return out
