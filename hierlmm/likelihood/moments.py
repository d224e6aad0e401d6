"""Standard deviation ratios by the method of moments: where the search for the optimum begins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.lmm import CrossProducts, solve_fixed

Array = NDArray[np.float64]

# The ratios that a search begins at: away from zero, where the criterion is stationary whatever the data say.
SMALLEST, LARGEST = 0.05, 20.0
# Least share of the variance that is left to the residuals.
LEAST_RESIDUAL = 0.02


def sd_ratios(cp: CrossProducts) -> list[Array]:
    """Per factor a diagonal (q, q) of sd ratios of each coefficient, as if it were the only one that varied.

    With r the ordinary least squares residuals and u = z'r of one column within one level, the products of different
    rows in sum u² estimate the variance of the coefficient, because independent residuals have none.
    """
    p, R = cp.p, cp.rest.shape[0] - cp.p - 1
    fixed = solve_fixed(cp.rest[R:, R:])
    total = max(float(fixed.rss), 0.0) / max(cp.n - p, 1)
    c = np.append(-fixed.beta, 1.0)
    rest_u, rest_N = cp.rest[:R, R:] @ c, np.diagonal(cp.rest)[:R]
    found, start = list[Array](), 0
    for f, (G, q) in enumerate(cp.sizes):
        if f == 0:
            u, N = cp.lead_rest[..., -p - 1 :] @ c, np.diagonal(cp.lead, axis1=1, axis2=2)
        else:
            here = slice(start, start + G * q)
            start += G * q
            u, N = rest_u[here].reshape(G, q), rest_N[here].reshape(G, q)
        pairs = np.maximum((N**2).sum(axis=0) - N.sum(axis=0), 1e-300)
        found.append(np.maximum((u**2).sum(axis=0) - total * N.sum(axis=0), 0.0) / pairs)
    random = sum(float(variances.sum()) for variances in found)
    left = max(total - random, LEAST_RESIDUAL * total, 1e-300)
    return [np.diag(np.clip(np.sqrt(variances / left), SMALLEST, LARGEST)) for variances in found]
