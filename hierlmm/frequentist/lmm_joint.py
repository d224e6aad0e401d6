"""The joint distribution of beta and b at a fit, from dense products or from cells: one call for both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts
from hierlmm.likelihood import blup, sparse_blup
from hierlmm.likelihood.blup import Covariances, Joint, Means
from hierlmm.likelihood.lmm import Eliminated, Solved
from hierlmm.likelihood.lmm_derivatives import State
from hierlmm.likelihood.sparse import SparseEliminated
from hierlmm.likelihood.sparse_blup import SparseJoint

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def joint(
    cp: CrossProducts, factors: Sequence[Array], state: State, solved: Solved, sigma2: float
) -> Joint | SparseJoint:
    """Mean and factored covariance of (b, beta) given y."""
    if isinstance(state, SparseEliminated):
        return sparse_blup.joint(state, solved, sigma2)
    assert isinstance(state, Eliminated)
    return blup.joint(cp, factors, state, solved, sigma2)


def means(cp: CrossProducts, at: Joint | SparseJoint) -> Means:
    """beta-hat and the BLUPs, data scale."""
    return blup.means(cp, at) if isinstance(at, Joint) else sparse_blup.means(cp, at)


def covariances(cp: CrossProducts, at: Joint | SparseJoint) -> Covariances:
    """Second moments of their errors, data scale."""
    return blup.covariances(cp, at) if isinstance(at, Joint) else sparse_blup.covariances(cp, at)


def sum_variance(
    cp: CrossProducts, at: Joint | SparseJoint, X: Array, Z: Sequence[Array], codes: Sequence[Codes]
) -> Array:
    """(k,) variance of the error of x'beta + sum of z'b at k rows, over all factors jointly."""
    if isinstance(at, Joint):
        return blup.sum_variance(cp, at, X, Z, codes)
    return sparse_blup.sum_variance(cp, at, X, Z, codes)
