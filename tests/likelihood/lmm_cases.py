"""Small designs with every structure, and the same model written with dense matrices as an independent witness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.crossproducts import CrossProducts, cross_products
from hierlmm.design.types import Dropped, Fingerprint, GroupingFactor, LMMDesign
from hierlmm.spec.model import ModelSpec

Array = NDArray[np.float64]


def factor(name: str, codes: Array, columns: dict[str, Array], blocks: tuple[tuple[int, ...], ...]) -> GroupingFactor:
    """A grouping factor with the given codes and random-effects columns."""
    return GroupingFactor(
        name=name,
        levels=pd.Index(np.arange(codes.max() + 1)),
        codes=codes.astype(np.intp),
        coefficients=tuple(columns),
        Z=np.column_stack(list(columns.values())).astype(float),
        blocks=blocks,
        structures=("general",) * len(blocks),
    )


def design(y: Array, X: Array, factors: tuple[GroupingFactor, ...]) -> LMMDesign:
    """An LMM design of the arrays; the spec says nothing."""
    n = len(y)
    return LMMDesign(
        spec=ModelSpec(response="y", fixed=("1",), random=()),
        table=pd.DataFrame(index=range(n)),
        index=pd.RangeIndex(n),
        y=y,
        offset=np.zeros(n),
        X=X,
        fixed=tuple(f"x{i}" for i in range(X.shape[1])),
        aliased=(),
        factors=factors,
        levels={},
        dropped=Dropped(),
        notes=(),
        fingerprint=Fingerprint("", "", "", "", ""),
    )


def cases() -> dict[str, LMMDesign]:
    """Single, vector-valued, diagonal, nested, crossed and crossed vector-valued designs with uneven groups."""
    rng = np.random.default_rng(20261121)
    n = 60
    a, b = np.sort(rng.integers(0, 9, n)), rng.integers(0, 5, n)
    a[:9], b[:5] = np.arange(9), np.arange(5)
    x = 150 + 30 * rng.random(n)
    one = np.ones(n)
    X = np.column_stack([one, x, rng.random(n) < 0.5]).astype(float)
    y = 1e3 + X @ [1.0, 0.02, -1.0] + rng.normal(size=9)[a] + 0.5 * rng.normal(size=5)[b] + rng.normal(size=n)
    slope = {"Intercept": one, "x": x}
    return {
        "intercept": design(y, X, (factor("a", a, {"Intercept": one}, ((0,),)),)),
        "slope": design(y, X, (factor("a", a, slope, ((0, 1),)),)),
        "diagonal": design(y, X, (factor("a", a, slope, ((0,), (1,))),)),
        "no intercept": design(y, X[:, 1:], (factor("a", a, {"x": x}, ((0,),)),)),
        "indicators": design(
            y, np.column_stack([b == 0, b == 1, b > 1, x]).astype(float), (factor("a", a, slope, ((0, 1),)),)
        ),
        "crossed": design(
            y, X, (factor("b", b, {"Intercept": one}, ((0,),)), factor("a", a, {"Intercept": one}, ((0,),)))
        ),
        "crossed slopes": design(y, X, (factor("b", b, slope, ((0, 1),)), factor("a", a, slope, ((0, 1),)))),
        "nested": design(
            y, X, (factor("c", a // 3, {"Intercept": one}, ((0,),)), factor("a", a, {"Intercept": one}, ((0,),)))
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class Dense:
    """The model at given data-scale covariances, by n x n matrices: V, P, and the joint law of (b, beta)."""

    y: Array
    X: Array
    Z: Array
    G: Array
    V: Array

    @classmethod
    def of(cls, d: LMMDesign, cp: CrossProducts, G: list[Array], sigma2: float) -> Dense:
        """Stack every factor's effects in elimination order, level by level."""
        n = len(d.y)
        parts, blocks = [], []
        for f, g in zip(cp.order, G, strict=True):
            one = d.factors[f]
            wide = np.zeros((n, len(one.levels), one.Z.shape[1]))
            wide[np.arange(n), one.codes] = one.Z
            parts.append(wide.reshape(n, -1))
            blocks.append(np.kron(np.eye(len(one.levels)), g))
        size = sum(len(block) for block in blocks)
        whole, start = np.zeros((size, size)), 0
        for block in blocks:
            whole[start : start + len(block), start : start + len(block)] = block
            start += len(block)
        Z = np.hstack(parts)
        return cls(d.y, d.X, Z, whole, sigma2 * np.eye(n) + Z @ whole @ Z.T)

    @property
    def vcov(self) -> Array:
        return np.linalg.inv(self.X.T @ np.linalg.solve(self.V, self.X))

    @property
    def beta(self) -> Array:
        return self.vcov @ self.X.T @ np.linalg.solve(self.V, self.y)

    @property
    def residual(self) -> Array:
        return self.y - self.X @ self.beta

    def ml(self) -> float:
        """-2 log likelihood at beta-hat."""
        quadratic = self.residual @ np.linalg.solve(self.V, self.residual)
        return float(len(self.y) * np.log(2 * np.pi) + np.linalg.slogdet(self.V)[1] + quadratic)

    def reml(self) -> float:
        """-2 restricted log likelihood: beta integrated out under a flat prior."""
        p = self.X.shape[1]
        return self.ml() - p * np.log(2 * np.pi) - float(np.linalg.slogdet(self.vcov)[1])


def random_covariances(d: LMMDesign, cp: CrossProducts, rng: np.random.Generator) -> list[Array]:
    """Covariance matrices on the scale of the data, one per factor in elimination order, with the blocks' zeros."""
    out = []
    for f, B in zip(cp.order, cp.Z_map, strict=True):
        q = d.factors[f].Z.shape[1]
        half = np.abs(np.diag(B))[:, None] * (rng.normal(size=(q, q)) + np.eye(q))
        mask = np.zeros((q, q))
        for block in d.factors[f].blocks:
            mask[np.ix_(block, block)] = 1.0
        out.append(half @ half.T * mask + np.diag(1e-3 * np.diag(half @ half.T)))
    return out


def prepared(name: str) -> tuple[LMMDesign, CrossProducts]:
    """A named case and its cross-products."""
    d = cases()[name]
    return d, cross_products(d)
