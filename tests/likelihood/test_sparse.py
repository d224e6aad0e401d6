"""The elimination over cells against dense n x n algebra: criterion, derivatives, predictions and their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from lmm_cases import Dense, design, factor
from numpy.typing import NDArray

from hierlmm.design import layout
from hierlmm.design.crossproducts import CrossProducts, cross_products
from hierlmm.design.types import LMMDesign
from hierlmm.likelihood import sparse, sparse_blup, sparse_coupling
from hierlmm.likelihood.lmm import LOG_2PI, solve_fixed
from hierlmm.likelihood.sparse_dense import DensePlaces
from hierlmm.likelihood.sparse_levels import NestedPlaces

Array = NDArray[np.float64]
EXACT = 1e-10
SIGMA2 = 1.7


@pytest.fixture(autouse=True)
def everything_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Designs small enough for n x n matrices take the way of large ones."""
    monkeypatch.setattr(layout, "MANY_EFFECTS", 0)
    monkeypatch.setattr(layout, "FEW_CELLS", 2.0)
    monkeypatch.setattr(sparse, "NESTED", 1)


def _codes(kind: str, rng: np.random.Generator, n: int) -> list[Array]:
    """Levels of 30, 12 and 5: drawn freely, in few combinations, or each in one of the next (beside a fourth)."""
    a = np.concatenate([np.arange(30), rng.integers(0, 30, n - 30)])
    if kind == "nested":
        return [a, a * 12 // 30, (a * 12 // 30) * 5 // 12]
    if kind == "nested beside crossed":
        return [a, a * 12 // 30, np.concatenate([np.arange(5), rng.integers(0, 5, n - 5)])]
    if kind == "nested in one":
        return [a, a * 12 // 30]
    b = np.concatenate([np.arange(12), rng.integers(0, 12, n - 12)])
    if kind == "partially crossed":
        b[30:] = (a[30:] * 12 // 30 + rng.integers(0, 2, n - 30)) % 12
    return [a, b, np.concatenate([np.arange(5), rng.integers(0, 5, n - 5)])]


KINDS = ("crossed", "partially crossed", "nested", "nested beside crossed", "nested in one")
WIDTHS = ((1, 1, 1), (2, 1, 1), (1, 2, 1), (3, 2, 2))


def _design(kind: str, widths: tuple[int, ...]) -> LMMDesign:
    rng = np.random.default_rng([len(kind), *widths])
    n = 140
    x = 1 + rng.normal(size=n)
    columns = {"Intercept": np.ones(n), "x": x, "w": rng.normal(size=n)}
    X = np.column_stack([np.ones(n), x, rng.random(n) < 0.5]).astype(float)
    y = X @ [1.0, 0.5, -1.0] + rng.normal(size=n)
    factors = []
    for name, codes, q in zip("abc", _codes(kind, rng, n), widths, strict=False):
        chosen = dict(list(columns.items())[:q])
        factors.append(factor(name, codes, chosen, (tuple(range(q)),)))
        y = y + (factors[-1].Z * rng.normal(size=(codes.max() + 1, q))[codes]).sum(axis=1)
    return design(y, X, tuple(factors))


@dataclass(frozen=True)
class Witness:
    """One design at one Lambda, both ways; everything dense on the working scale of the cross-products."""

    d: LMMDesign
    cp: CrossProducts
    factors: list[Array]
    dense: Dense
    ZB: Array
    P: Array

    @classmethod
    def of(cls, kind: str, widths: tuple[int, ...], singular: str) -> Witness:
        d = _design(kind, widths)
        cp = cross_products(d)
        rng = np.random.default_rng([5, *widths])
        factors = [np.tril(0.4 * rng.normal(size=(q, q)) + 0.5 * np.eye(q)) for _, q in cp.sizes]
        if singular == "rank":
            factors = [Lambda * (np.arange(len(Lambda)) < max(1, len(Lambda) - 1)) for Lambda in factors]
        elif singular == "small":
            factors[1:] = [1e-4 * Lambda for Lambda in factors[1:]]
        elif singular:
            factors[int(singular)] = 0.0 * factors[int(singular)]
        halves = [B @ Lambda for B, Lambda in zip(cp.Z_map, factors, strict=True)]
        dense = Dense.of(d, cp, [SIGMA2 * half @ half.T for half in halves], SIGMA2)
        maps = [np.kron(np.eye(G), B) for (G, _), B in zip(cp.sizes, cp.Z_map, strict=True)]
        ends = np.cumsum([len(B) for B in maps])[:-1]
        ZB = np.hstack([part @ B for part, B in zip(np.split(dense.Z, ends, axis=1), maps, strict=True)])
        VX = np.linalg.solve(dense.V, dense.X)
        P = np.linalg.inv(dense.V) - VX @ dense.vcov @ VX.T
        return cls(d, cp, factors, dense, ZB, SIGMA2 * P)


@pytest.fixture(params=["", "rank", "small", "0", "1"], ids=lambda s: s or "full")
def singular(request: pytest.FixtureRequest) -> str:
    """Which part of the covariances is missing: none, a dimension of each, nearly all but the first, or a factor."""
    return str(request.param)


def _solved(w: Witness) -> tuple[sparse.SparseEliminated, sparse.SparseProjected, sparse_blup.SparseJoint]:
    state = sparse.eliminate(w.cp, w.factors)
    solved = solve_fixed(state.products)
    return state, sparse.project(w.cp, w.factors, state, solved), sparse_blup.joint(state, solved, SIGMA2)


def assert_near(found: Array, expected: Array, tolerance: float = EXACT) -> None:
    size = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(size, 1e-12))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_criterion_and_derivatives(kind: str, widths: tuple[int, ...], singular: str) -> None:
    """log|V|, y'Py, Z'Py, and Z'PZ where a gradient and a Hessian need it."""
    w = Witness.of(kind, widths, singular)
    state, projected, _ = _solved(w)
    solved = solve_fixed(state.products)
    n = len(w.d.y)
    assert state.log_det == pytest.approx(np.linalg.slogdet(w.dense.V / SIGMA2)[1], rel=EXACT)
    assert solved.rss == pytest.approx(w.d.y @ w.P @ w.d.y, rel=1e-9)
    given = state.log_det + n * (LOG_2PI + np.log(SIGMA2)) + float(solved.rss) / SIGMA2
    assert given == pytest.approx(w.dense.ml(), rel=EXACT)
    assert_near(np.concatenate([u.ravel() for u in projected.u]), w.ZB.T @ w.P @ w.d.y, 1e-9)
    start = 0
    for method, inner in (("reml", w.P), ("ml", SIGMA2 * np.linalg.inv(w.dense.V))):
        M, start = w.ZB.T @ inner @ w.ZB, 0
        for f, (G, q) in enumerate(w.cp.sizes):
            blocks = [M[i : i + q, i : i + q] for i in range(start, start + G * q, q)]
            start += G * q
            assert_near(projected.gram(f, method), np.sum(blocks, axis=0))  # type: ignore[arg-type]
    rng = np.random.default_rng(3)
    D = [rng.normal(size=(G * q, 4)) for G, q in w.cp.sizes]
    whole = w.ZB @ np.concatenate(D)
    assert_near(projected.inner(D), whole.T @ w.P @ whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_predictions_and_their_errors(kind: str, widths: tuple[int, ...], singular: str) -> None:
    """BLUPs G Z'Py; errors and variances of sums from [Var(b|y) and beta's share] written with n x n matrices."""
    w = Witness.of(kind, widths, singular)
    _, _, at = _solved(w)
    dense, p = w.dense, w.cp.p
    means, spread = sparse_blup.means(w.cp, at), sparse_blup.covariances(w.cp, at)
    GZ = dense.G @ dense.Z.T
    assert_near(means.beta, dense.beta, 1e-9)
    assert_near(np.concatenate([b.ravel() for b in means.b]), GZ @ np.linalg.solve(dense.V, dense.residual), 1e-9)
    across = -dense.vcov @ dense.X.T @ np.linalg.solve(dense.V, GZ.T)
    given = dense.G - GZ @ np.linalg.solve(dense.V, GZ.T)
    error = given + across.T @ np.linalg.solve(dense.vcov, across)
    assert_near(spread.beta, dense.vcov, 1e-9)
    start, size = 0, float(np.abs(dense.G).max())
    for f, (G, q) in enumerate(w.cp.sizes):
        places = np.arange(start, start + G * q).reshape(G, q)
        start += G * q
        own = places[:, :, None], places[:, None, :]
        np.testing.assert_allclose(spread.conditional[f], given[own], rtol=0, atol=EXACT * size)
        np.testing.assert_allclose(spread.error[f], error[own], rtol=0, atol=EXACT * size)
        assert_near(spread.with_beta[f], np.moveaxis(across[:, places], 0, 1), 1e-8)
    joint = np.block([[dense.vcov, across], [across.T, error]])
    codes = [w.d.factors[f].codes.copy() for f in w.cp.order]
    np.random.default_rng(8).shuffle(codes[0])
    for f, c in enumerate(codes):
        c[f::7] = -1
    Z = [w.d.factors[f].Z for f in w.cp.order]
    rows = np.zeros((len(w.d.y), p + len(dense.G)))
    rows[:, :p], start = w.d.X, p
    for (G, q), z, c in zip(w.cp.sizes, Z, codes, strict=True):
        for a in range(q):
            rows[c >= 0, start + c[c >= 0] * q + a] = z[c >= 0, a]
        start += G * q
    assert_near(sparse_blup.sum_variance(w.cp, at, w.d.X, Z, codes), ((rows @ joint) * rows).sum(axis=1), 1e-9)


def _reml(cp: CrossProducts, factors: list[Array]) -> float:
    state = sparse.eliminate(cp, factors)
    solved = solve_fixed(state.products)
    nu = cp.n - cp.p
    return state.log_det + float(solved.log_det_x) + nu * float(np.log(solved.rss))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_against_differences(kind: str) -> None:
    """Differences of the criterion in every element of every Lambda, extrapolated once."""
    w = Witness.of(kind, (3, 2, 2), "")
    state, projected, _ = _solved(w)
    rss = float(solve_fixed(state.products).rss)
    for f, Lambda in enumerate(w.factors):
        slope = projected.gram(f, "reml") - (w.cp.n - w.cp.p) / rss * projected.u[f].T @ projected.u[f]
        for r, c in zip(*np.tril_indices(len(Lambda)), strict=True):

            def difference(h: float, f: int = f, r: int = r, c: int = c) -> float:
                ends = []
                for sign in (1, -1):
                    moved = [part.copy() for part in w.factors]
                    moved[f][r, c] += sign * h
                    ends.append(_reml(w.cp, moved))
                return (ends[0] - ends[1]) / (2 * h)

            expected = (4 * difference(1e-3) - difference(2e-3)) / 3
            assert 2 * slope[r] @ Lambda[:, c] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", ["crossed", "nested beside crossed"])
def test_many_pairs_are_formed_in_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that may not all be kept give the same numbers, run by run."""
    w = Witness.of(kind, (2, 2, 1), "")
    _, kept, at = _solved(w)
    monkeypatch.setattr(sparse_coupling, "LARGEST_PAIRS", 100)
    monkeypatch.setattr(sparse_coupling, "AT_ONCE", 40)
    again = Witness.of(kind, (2, 2, 1), "")
    _, formed, other = _solved(again)
    for f in range(3):
        assert_near(formed.gram(f, "reml"), kept.gram(f, "reml"), 1e-13)
        assert_near(
            sparse_blup.covariances(again.cp, other).error[f], sparse_blup.covariances(w.cp, at).error[f], 1e-13
        )


def test_nested_factors_stay_block_diagonal() -> None:
    """Where a factor is nested in the next no full matrix of it is kept; where it is not, one is."""
    nested, crossed = (
        sparse.random_products(cross_products(_design(kind, (1, 2, 1)))).coupling for kind in ("nested", "crossed")
    )
    assert isinstance(nested.places, NestedPlaces)
    assert isinstance(nested.places.others, NestedPlaces)
    # twelve 2 x 2 blocks, one cell of two coefficients a level, and the five of the last factor
    assert nested.places.length == 12 * 4 + 12 * 2 + 5
    assert isinstance(crossed.places, DensePlaces)


def test_pairs_are_kept_for_the_response_of_a_refit() -> None:
    """The same cells with other products of y use the pairs that are there, and forget them with the cells."""
    cp = cross_products(_design("crossed", (1, 1, 1)))
    first = sparse.random_products(cp)
    assert sparse.random_products(cp) is first
    before = len(sparse._KNOWN)
    del cp
    assert len(sparse._KNOWN) == before - 1
