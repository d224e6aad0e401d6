"""Predicted random effects of many responses at given relative covariances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.refits_criterion import solve
from hierlmm.likelihood.refits_products import Replies, Shared

Array = NDArray[np.float64]


def predicted(shape: Shared, factors: Sequence[Array], data: Replies, by_level: Array) -> tuple[Array, ...]:
    """Per factor (n, levels, q) b = T Z'P*y on the working scale.

    factors   per factor (n, q, q) any square root of T; by_level (G, q, n) Z'y of the leading factor
    """
    roots = tuple(np.moveaxis(Lambda, 0, -1) for Lambda in factors)
    at = solve(shape, roots, data)
    fit = np.einsum("uak,kn->uan", shape.across, at.delta)
    u = np.empty(by_level.shape)
    for pattern in range(len(shape.count)):
        here = shape.of == pattern
        u[here] = np.einsum("abn,gbn->gan", at.keep[pattern], by_level[here] - fit[pattern])
    parts, R = [u], shape.R
    rest = at.hy[:R] - np.einsum("rkn,kn->rn", at.S[:R], at.delta)
    start = 0
    for G, q in shape.sizes[1:]:
        parts.append(rest[start : start + G * q].reshape(G, q, -1))
        start += G * q
    return tuple(
        np.einsum("acn,bcn,gbn->nga", root, root, part, optimize=True)
        for root, part in zip(roots, parts[: len(shape.sizes)], strict=True)
    )
