"""V⁻¹ times a matrix by way of the random effects, for rows whose covariance matrix is too large to form.

V = Z G Z' + R with R diagonal gives V⁻¹ = R⁻¹ - R⁻¹ Z D Z' R⁻¹, D = (Z'R⁻¹Z + G⁻¹)⁻¹ the conditional covariance of the
random effects, which the elimination behind the fit has factored.

Source: Henderson, Kempthorne, Searle & von Krosigk (1959), Biometrics 15:192-218.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Joint
from hierlmm.likelihood.lmm import apply_rest
from hierlmm.likelihood.triangular import dense_lower

if TYPE_CHECKING:
    from hierlmm.design.crossproducts import CrossProducts
    from hierlmm.frequentist.lmm_results import LMMFit

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def solved(fit: LMMFit, Z: Sequence[Array], R: Array, A: Array) -> Array:
    """V⁻¹A for (n, k) A, in the units of A over those of y squared.

    Z per factor in elimination order (n, q): columns on the working scale over the roots of R / sigma²; R (n,) the
    residual variances
    """
    root = np.sqrt(R / fit.sigma2)[:, None]
    weighted = A / root
    codes = [fit.design.factors[f].codes for f in fit.equations.order]
    b = conditional(fit, [_sums(code, z, weighted) for z, code in zip(Z, codes, strict=True)])
    left = weighted.copy()
    for z, code, own in zip(Z, codes, b, strict=True):
        for column in range(z.shape[1]):
            left -= z[:, column, None] * own[code, column]
    return np.asarray(left / root / fit.sigma2)


def _sums(codes: Codes, Z: Array, A: Array) -> Array:
    """(G, q, k) sums over the rows of each level of z times A."""
    from scipy.sparse import coo_array

    n, levels = len(codes), int(codes.max()) + 1
    parts = [coo_array((z, (codes, np.arange(n))), shape=(levels, n)).tocsr() @ A for z in Z.T]
    return np.stack(parts, axis=1)


def conditional(fit: LMMFit, sums: Sequence[Array]) -> list[Array]:
    """D/sigma² on the working scale times right-hand sides, per factor in elimination order (G, q, k): the same."""
    cp, at = fit.equations, fit.joint
    k = sums[0].shape[2] if sums else 0
    if not sums:
        return []
    if isinstance(at, Joint):
        return _dense(cp, at, sums)
    assert at is not None
    found = at.system.solve(np.concatenate([part.reshape(-1, k) for part in sums]))
    out, start = [], 0
    for G, q in cp.sizes:
        out.append(found[start : start + G * q].reshape(G, q, k))
        start += G * q
    return out


def _dense(cp: CrossProducts, at: Joint, sums: Sequence[Array]) -> list[Array]:
    """The same from the dense elimination, whose trailing system has beta as its last unknowns: they stay known."""
    R, k = cp.rest.shape[0] - cp.p - 1, sums[0].shape[2]
    own = at.Yt @ sums[0]
    if not R:
        return [at.Yt.swapaxes(-1, -2) @ own]
    W = at.W_J[..., :R]
    rest = apply_rest(cp, at.factors, np.concatenate([part.reshape(-1, k) for part in sums[1:]]))
    half = dense_lower(at.K[:R, :R], rest - np.tensordot(W, own, axes=([0, 1], [0, 1])))
    trailing = dense_lower(at.K[:R, :R], np.eye(R)).T @ half
    out = [at.Yt.swapaxes(-1, -2) @ (own - W @ trailing)]
    start = 0
    for (G, q), Lambda in zip(cp.sizes[1:], at.factors[1:], strict=True):
        out.append(Lambda @ trailing[start : start + G * q].reshape(G, q, k))
        start += G * q
    return out


def block(fit: LMMFit, Z: Sequence[Array], R: Array, rows: Codes) -> Array:
    """(k, k) rows and columns `rows` (k,) of V⁻¹; Z and R as in `solved`."""
    cp, k = fit.equations, len(rows)
    root = np.sqrt(R[rows] / fit.sigma2)
    codes = [fit.design.factors[f].codes[rows] for f in cp.order]
    sums = []
    for z, code, (G, q) in zip(Z, codes, cp.sizes, strict=True):
        right = np.zeros((G, q, k))
        right[code, :, np.arange(k)] = z[rows]
        sums.append(right)
    left = np.eye(k)
    for z, code, own in zip(Z, codes, conditional(fit, sums), strict=True):
        left -= (z[rows][:, :, None] * own[code]).sum(axis=1)
    return np.asarray(left / (root[:, None] * root) / fit.sigma2)
