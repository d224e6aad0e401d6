"""The linear mixed model with one grouping factor at thousands of values of ψ, by patterns of levels.

Levels with the same Z'Z and Z'X (all of them in a balanced design) share every factorisation; only Z'y differs, and it
enters linearly or through sums formed once. So a value of ψ costs as much as there are patterns, not levels. The
numbers are those of `marginal` and `blup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.blup import Means
from hierlmm.likelihood.blup_variances import Pairs, Variances
from hierlmm.likelihood.lmm import CrossProducts, Eliminated, Solved
from hierlmm.likelihood.marginal import NormalPrior, integrate_fixed, relative_factor
from hierlmm.likelihood.triangular import cholesky_lower, log_diagonal, solve_lower, solve_upper

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """U patterns of the G levels of one factor, working scale.

    lead (U, q, q) Z'Z; ZX (U, q, p); of (G,) pattern of each level; count (U,) levels of each; Zy (G, q)
    sums (U q q, (p + 1)²) per pattern and pair (a, b) of coefficients, the sum over its levels of row a of
    Z'[X, y] times row b: what [X, y]'V*⁻¹[X, y] is linear in
    """

    lead: Array
    ZX: Array
    of: NDArray[np.intp]
    count: Array
    Zy: Array
    sums: Array


def patterns(cp: CrossProducts) -> Patterns | None:
    """The patterns of a design with one grouping factor; None where there are more factors, or none."""
    if len(cp.sizes) != 1:
        return None
    G, q = cp.sizes[0]
    both = cp.lead_rest
    m = both.shape[-1]
    key = np.concatenate([cp.lead.reshape(G, -1), both[:, :, : cp.p].reshape(G, -1)], axis=1)
    _, first, of = np.unique(key, axis=0, return_index=True, return_inverse=True)
    of = of.ravel()
    U = len(first)
    sums = np.zeros((U, q, q, m, m))
    np.add.at(sums, of, both[:, :, None, :, None] * both[:, None, :, None, :])
    return Patterns(
        cp.lead[first], both[first, :, : cp.p], of, np.bincount(of, minlength=U).astype(np.float64), both[:, :, cp.p],
        sums.reshape(U * q * q, m * m),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The joint distribution of (b, β) given ψ at K values of ψ.

    Y (K, U, q, q) L⁻¹Λ' by pattern, so that Y'Y = Λ(Λ'Z'ZΛ + I)⁻¹Λ'; solved: β; sigma2 (K,)
    """

    cp: CrossProducts
    patterns: Patterns
    loglik: Array
    Y: Array
    solved: Solved
    sigma2: Array

    def __getitem__(self, place: NDArray[np.intp]) -> Given:
        solved = self.solved
        part = Solved(solved.beta[place], solved.L_x[place], solved.rss[place], solved.log_det_x[place])
        return Given(self.cp, self.patterns, self.loglik[place], self.Y[place], part, self.sigma2[place])

    def means(self) -> Means:
        """GLS β (K, p) and BLUPs (K, G, q), data scale."""
        return self._with(self.solved.beta, None)

    def draw(self, rng: np.random.Generator) -> Means:
        """One exact draw of (β, b) at each value of ψ."""
        scale = np.sqrt(self.sigma2)[:, None]
        noise = rng.standard_normal(self.solved.beta.shape)
        beta = self.solved.beta + scale * solve_upper(self.solved.L_x, noise[:, :, None])[:, :, 0]
        own = scale[:, :, None] * rng.standard_normal((len(scale), *self.patterns.Zy.shape))
        return self._with(beta, own)

    def _with(self, beta: Array, noise: Array | None) -> Means:
        """b = Y'(Y Z'(y - Xβ) + noise), level by level, and both on the data scale."""
        cp, by = self.cp, self.patterns
        q = by.Zy.shape[1]
        turn = cp.Z_map[0] @ self.Y.swapaxes(-1, -2)
        gain = turn @ self.Y
        offset = -(gain @ (by.ZX @ beta[:, None, :, None]))[..., 0]
        b = np.empty((len(beta), *by.Zy.shape))
        for k in range(q):
            total = offset[:, by.of, k]
            for a in range(q):
                total += gain[:, by.of, k, a] * by.Zy[:, a]
                if noise is not None:
                    total += turn[:, by.of, k, a] * noise[:, :, a]
            b[:, :, k] = total
        return Means(beta @ cp.X_map.T + cp.X_shift, (b,))

    def variances(self, pairs: Sequence[Pairs]) -> Variances:
        """Variances of b and of β + b, as `blup_variances.variances`, which are those of their pattern."""
        cp, by, q = self.cp, self.patterns, self.Y.shape[-1]
        scale = self.sigma2[:, None, None]
        eye = np.broadcast_to(np.eye(cp.p), self.solved.L_x.shape)
        root = cp.X_map @ solve_lower(self.solved.L_x, eye).swapaxes(-1, -2) if cp.p else eye
        spread = self.Y @ cp.Z_map[0].T
        rows = spread.swapaxes(-1, -2) @ (self.Y @ by.ZX)
        half = [solve_lower(self.solved.L_x, rows[:, :, k].swapaxes(-1, -2)) for k in range(q)]
        inside = (spread**2).sum(-2)
        outside = np.stack([(h**2).sum(-2) for h in half], axis=-1)
        own = (root**2).sum(-1)
        total = [
            own[:, i, None] + inside[..., k] + outside[..., k] - 2.0 * (root[:, None, i] @ half[k])[:, 0]
            for i, k in pairs[0]
        ]
        sums = np.stack(total, axis=-1) if total else inside[..., :0]
        by_level = (scale * part[:, by.of] for part in (inside + outside, inside, sums))
        error, conditional, both = by_level
        return Variances(scale * (root @ root.swapaxes(-1, -2)), (error,), (conditional,), (both,))


def given(cp: CrossProducts, by: Patterns, G: Array, sigma2: Array, prior: NormalPrior | None) -> Given:
    """Integrate β and b out at K values of ψ: G (K, q, q) on the data scale, sigma2 (K,)."""
    Lambda = relative_factor(G, cp.Z_map[0], sigma2)
    across = Lambda.swapaxes(-1, -2)[:, None]
    L = cholesky_lower(across @ by.lead @ Lambda[:, None] + np.eye(Lambda.shape[-1]))
    Y = solve_lower(L, np.broadcast_to(across, L.shape))
    K, m = len(sigma2), cp.p + 1
    inner = (Y.swapaxes(-1, -2) @ Y).reshape(K, -1)
    products = cp.rest - (inner @ by.sums).reshape(K, m, m)
    log_det = 2 * (by.count * log_diagonal(L)).sum(-1)
    none = np.zeros((K, 0, 0))
    state = Eliminated(L, none, products, none, none, products, log_det)
    loglik, _, solved = integrate_fixed(cp, state, sigma2, prior)
    return Given(cp, by, loglik, Y, solved, sigma2)
