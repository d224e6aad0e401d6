"""Random tables of every shape, dense matrices of a fit's design, and what it means for two fits to be one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import hierlmm as hl

Array = NDArray[np.float64]

# Identities of the mathematics hold to this, relative to the size of the quantity.
EXACT = 1e-9
METHODS = st.sampled_from(["reml", "ml"])
FORMULAS = st.sampled_from(
    [
        "y ~ x + (1 | g)",
        "y ~ x + z + f + (1 | g)",
        "y ~ x + (x | g)",
        "y ~ x + f + (x || g)",
        "y ~ x + (1 | g) + (1 | h)",
        "y ~ x + (z | g) + (1 | h)",
    ]
)


def checked(examples: int) -> settings:
    """The same examples in every run: an identity that fails must fail again."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


@st.composite
def tables(draw: st.DrawFn, balanced: bool = False) -> pd.DataFrame:
    """Rows in 5 to 9 groups of uneven size; numbers x, z; a three-level f; a factor h crossed with g in part.

    The standard deviation between groups runs from nothing to five times that within, so that some fits lie on the
    boundary.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups, size = draw(st.integers(5, 9)), draw(st.integers(4, 7))
    between = draw(st.sampled_from([0.0, 0.4, 1.0, 5.0]))
    sizes = np.full(groups, size) if balanced else rng.integers(3, size + 3, groups)
    g = np.repeat(np.arange(groups), sizes)
    n = len(g)
    h = rng.permutation(np.arange(n) % 6)
    x, z = rng.normal(size=n), rng.uniform(1, 3, size=n)
    f = rng.permutation(np.arange(n) % 3)
    b = between * rng.normal(size=(groups, 2))
    y = 2 + 0.5 * x - z + 0.3 * f + b[g, 0] + 0.5 * b[g, 1] * x + 0.5 * between * rng.normal(size=6)[h]
    return pd.DataFrame(
        {
            "g": [f"g{i}" for i in g],
            "h": [f"h{i}" for i in h],
            "f": [f"f{i}" for i in f],
            "x": x,
            "z": z,
            "y": y + rng.normal(size=n),
        }
    )


def assert_close(actual: object, expected: object, size: float | Array = 0.0) -> None:
    """Equal to 1e-9 relative, or of `size` where the quantity itself may vanish."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    assert_allclose(actual, expected, rtol=EXACT, atol=EXACT * float(np.max(size)))


def assert_same_variances(one: hl.LMMFit, other: hl.LMMFit, scale: float = 1.0) -> None:
    """sigma² and every G, in the units of `one` times scale²; a covariance is as exact as the two variances."""
    assert_close(other.sigma2, scale**2 * one.sigma2)
    for G, H in zip(one.G, other.G, strict=True):
        assert_close(H, scale**2 * G, scale**2 * (np.diagonal(G).max() + one.sigma2))


def assert_same_model(one: hl.LMMFit, other: hl.LMMFit) -> None:
    """Two ways to say one model: criterion, variances, fitted values, fixed effects that share a name."""
    assert_close(other.objective, one.objective, 1.0)
    assert_close(other.sigma2, one.sigma2)
    sd = float(np.std(one.design.y))
    assert_close(other.conditional_fitted, one.conditional_fitted, sd)
    assert_close(np.diagonal(other.vcov_beta), np.diagonal(one.vcov_beta))


@dataclass(frozen=True)
class Dense:
    """The model of a fit with n x n matrices: y, X, and per factor its (n, levels q) columns."""

    y: Array
    X: Array
    Z: tuple[Array, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, fit: hl.LMMFit) -> Dense:
        """Written out row by row from the design."""
        design = fit.design
        Z = []
        for factor in design.factors:
            n, q = factor.Z.shape
            whole = np.zeros((n, len(factor.levels), q))
            whole[np.arange(n), factor.codes] = factor.Z
            Z.append(whole.reshape(n, -1))
        return cls(design.y - design.offset, design.X, tuple(Z), tuple(f.Z.shape[1] for f in design.factors))

    def V(self, G: tuple[Array, ...], sigma2: complex) -> Array:
        """(n, n) marginal covariance; complex arguments give the analytic continuation."""
        V = sigma2 * np.eye(len(self.y))
        for Z, g in zip(self.Z, G, strict=True):
            V = V + Z @ np.kron(np.eye(Z.shape[1] // len(g)), g) @ Z.T
        return V

    def criterion(self, V: Array, method: str) -> complex:
        """-2 log likelihood, or -2 restricted log likelihood with beta integrated out; without conjugation."""
        n, p = self.X.shape
        W = np.linalg.solve(V, np.column_stack([self.X, self.y]))
        M, r = self.X.T @ W[:, :p], self.X.T @ W[:, p]
        value = _log_det(V) + self.y @ W[:, p] - r @ np.linalg.solve(M, r)
        value += (n - p if method == "reml" else n) * np.log(2 * np.pi)
        return value + _log_det(M) if method == "reml" else value

    def P(self, V: Array, method: str) -> tuple[Array, Array]:
        """P = V⁻¹ - V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹, and what stands in traces: P under REML, V⁻¹ under ML."""
        W = np.linalg.solve(V, np.eye(len(V)))
        P = W - W @ self.X @ np.linalg.solve(self.X.T @ W @ self.X, self.X.T @ W)
        return P, P if method == "reml" else W


def _log_det(A: Array) -> complex:
    sign, log = np.linalg.slogdet(A)
    return log + (np.log(sign) if np.iscomplexobj(A) else 0.0)
