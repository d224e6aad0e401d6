"""Cross-products against products of the dense matrices, and the rows that weights and cells stand for."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hierlmm.design.crossproducts import cross_products, dense, products_of, with_response
from hierlmm.design.rowsums import summed
from hierlmm.design.types import Dropped, Fingerprint, GroupingFactor, LMMDesign
from hierlmm.design.working import working_rows
from hierlmm.spec import ModelSpec

NOTHING = Fingerprint("", "", "", "", "")


def grouping(name, codes, Z, coefficients, blocks=None, structures=None) -> GroupingFactor:
    blocks = (tuple(range(Z.shape[1])),) if blocks is None else blocks
    return GroupingFactor(
        name=name, levels=pd.RangeIndex(codes.max() + 1), codes=codes.astype(np.intp), coefficients=coefficients, Z=Z,
        blocks=blocks, structures=("general",) * len(blocks) if structures is None else structures,
    )  # fmt: skip


def design_of(y, X, factors, **more) -> LMMDesign:
    return LMMDesign(
        spec=ModelSpec(response="y", fixed=("1",), random=()), table=pd.DataFrame(index=range(len(y))),
        index=pd.RangeIndex(len(y)), y=y, offset=np.zeros(len(y)), X=X,
        fixed=tuple(f"x{j}" for j in range(X.shape[1])), aliased=(), factors=factors, levels={}, dropped=Dropped(),
        notes=(), fingerprint=NOTHING, **more,
    )  # fmt: skip


def crossed(n=400, G=50, H=7, seed=3, **more) -> LMMDesign:
    """Two crossed factors, slopes over the smaller, columns far from zero."""
    rng = np.random.default_rng(seed)
    x = 40 + 3 * rng.normal(size=n)
    g, h = np.r_[np.arange(G), rng.integers(0, G, n - G)], np.r_[np.arange(H), rng.integers(0, H, n - H)]
    y = 1e4 + rng.normal(size=n) + x
    one = np.ones((n, 1))
    factors = (
        grouping("h", h, np.column_stack([one, x]), ("Intercept", "x")),
        grouping("g", g, one, ("Intercept",)),
    )
    return design_of(y, np.column_stack([one, x]), factors, **more)


def whole(cp) -> np.ndarray:
    """The dense cross-products [Z_lead, Z_rest, X, y]'[...] that the pieces make up."""
    G, q = cp.sizes[0]
    corner = np.zeros((G * q, G * q))
    for level in range(G):
        corner[level * q : level * q + q, level * q : level * q + q] = cp.lead[level]
    side = dense(cp).lead_rest.reshape(G * q, -1)
    return np.block([[corner, side], [side.T, cp.rest]])


def indicator(codes, Z, G) -> np.ndarray:
    out = np.zeros((len(codes), G, Z.shape[1]))
    out[np.arange(len(codes)), codes] = Z
    return out.reshape(len(codes), -1)


@pytest.mark.parametrize("weighted", ["frequency", "scale", "both", "neither"])
def test_products_are_those_of_the_mapped_columns(weighted: str) -> None:
    """Z B, X C and y - X shift of the data, multiplied out densely with the weights on the diagonal."""
    rng = np.random.default_rng(5)
    more = {}
    if weighted in ("frequency", "both"):
        more["frequency"] = rng.integers(1, 5, 400).astype(float)
    if weighted in ("scale", "both"):
        more["scale"] = rng.uniform(0.1, 4, 400)
    design = crossed(**more)
    cp = cross_products(design)
    w = more.get("frequency", np.ones(400)) / more.get("scale", np.ones(400))
    Z = [indicator(design.factors[f].codes, design.factors[f].Z @ B, G) for f, (G, _), B in
         zip(cp.order, cp.sizes, cp.Z_map, strict=True)]  # fmt: skip
    columns = np.column_stack([*Z, design.X @ cp.X_map, design.y - design.X @ cp.X_shift])
    expected = columns.T @ (columns * w[:, None])

    np.testing.assert_allclose(whole(cp), expected, atol=1e-9 * np.abs(expected).max())
    assert cp.n == more.get("frequency", np.ones(400)).sum()
    assert cp.log_scale == pytest.approx(
        float(more.get("frequency", np.ones(400)) @ np.log(more.get("scale", np.ones(400)))), rel=1e-12
    )


def test_a_frequency_is_the_row_as_often() -> None:
    """HOSTILE 1: duplicated rows against frequency weights, every array of the products."""
    often = np.random.default_rng(8).integers(1, 4, 400)
    plain = crossed()
    take = np.repeat(np.arange(400), often)
    repeated = replace(
        plain, y=plain.y[take], X=plain.X[take], offset=plain.offset[take], index=plain.index[take],
        factors=tuple(replace(f, codes=f.codes[take], Z=f.Z[take]) for f in plain.factors),
    )  # fmt: skip
    a, b = cross_products(crossed(frequency=often.astype(float))), cross_products(repeated)

    for name in ("n", "lead", "lead_rest", "rest", "X_map", "X_shift", "y_shift", "log_det_X_map"):
        first, second = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-11 * np.abs(second).max(), err_msg=name)


def test_cells_are_listed_where_few_of_many_occur() -> None:
    """70 x 300 cells of which at most 400 occur: the list holds the same products as the dense array."""
    design = crossed(G=300, H=70)
    cp = cross_products(design)
    assert cp.cells is not None
    assert cp.lead_rest.shape == (300, 1, 3)
    assert (np.diff(cp.cells.level) >= 0).all()
    g, h = design.factors[1], design.factors[0]
    expected = indicator(g.codes, g.Z @ cp.Z_map[0], 300).T @ indicator(h.codes, h.Z @ cp.Z_map[1], 70)

    np.testing.assert_allclose(dense(cp).lead_rest[:, 0, :140], expected, atol=1e-12)
    assert cross_products(crossed(G=50, H=7)).cells is None


@pytest.mark.parametrize("structure", ["identity", "cs"])
def test_blocks_of_one_variance_keep_their_columns_up_to_one_scale(structure: str) -> None:
    """Recombined columns would not have one variance any more."""
    design = crossed()
    h = replace(design.factors[0], structures=(structure,))
    cp = cross_products(replace(design, factors=(h, design.factors[1])))
    B = cp.Z_map[cp.order.index(0)]

    np.testing.assert_allclose(B, B[0, 0] * np.eye(2), rtol=1e-14)
    assert np.mean((h.Z @ B) ** 2) == pytest.approx(1, rel=1e-12)
    assert cp.structures[cp.order.index(0)] == (structure,)


@pytest.mark.parametrize("shape", [{}, {"G": 300, "H": 70}, {"scale": np.linspace(0.5, 2, 400)}])
def test_another_response_gives_the_products_of_its_design(shape: dict) -> None:
    """Only the products with y are formed again: the same as from the beginning."""
    design = crossed(**shape)
    y = np.random.default_rng(1).normal(50, 2, 400)
    again, fresh = with_response(cross_products(design), design, y), cross_products(replace(design, y=y))

    for name in ("lead_rest", "rest", "X_shift", "y_shift"):
        np.testing.assert_allclose(getattr(again, name), getattr(fresh, name), rtol=1e-11, atol=1e-9, err_msg=name)


def test_rows_whitened_elsewhere_are_multiplied_as_they_are() -> None:
    """What residual structures do: rows replaced, maps and codes kept."""
    rows = working_rows(crossed())
    half = replace(rows, X=rows.X / 2, y=rows.y / 2, Z=tuple(Z / 2 for Z in rows.Z))
    a, b = products_of(rows), products_of(half)

    np.testing.assert_allclose(whole(b), whole(a) / 4, rtol=1e-14)
    assert b.X_map is a.X_map


def both_ways(design: LMMDesign) -> tuple:
    return products_of(working_rows(design)), summed(design)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"G": 300, "H": 70},
        {"frequency": np.arange(400) % 3 + 1.0, "scale": np.linspace(0.2, 3, 400)},
        {"n": 150_000, "G": 9},
    ],
)
def test_sums_over_chunks_give_the_products_of_the_rows(more: dict) -> None:
    """The working scale applied to sums by level, against the same applied to the rows."""
    rows, sums = both_ways(crossed(**more))

    for name in ("n", "lead", "lead_rest", "rest", "X_map", "X_shift", "y_shift", "log_det_X_map", "log_scale"):
        first, second = np.asarray(getattr(sums, name)), np.asarray(getattr(rows, name))
        np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-11 * np.abs(second).max(), err_msg=name)
    for first, second in zip(sums.Z_map, rows.Z_map, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-11 * np.abs(second).max())
    assert (rows.cells is None) == (sums.cells is None)
    if rows.cells is not None:
        np.testing.assert_allclose(sums.cells.values, rows.cells.values, rtol=1e-11)


def test_sums_refuse_collinear_columns() -> None:
    """Sums of products of x and x + 0.01 z know their difference to fewer digits than the rows: the rows are used."""
    design = crossed()
    z = np.random.default_rng(2).normal(size=400)
    close = np.column_stack([design.X, design.X[:, 1] + 0.01 * z])

    assert summed(replace(design, X=close, fixed=("x0", "x1", "x2"))) is None


def test_full_sets_of_indicators_are_seen_to_span_the_constant() -> None:
    """Without an intercept column the shift of y still falls to them: 1 in each."""
    design = crossed()
    h = design.factors[0].codes
    X = np.column_stack([h == level for level in range(7)] + [design.X[:, 1]]).astype(float)
    rows, sums = both_ways(replace(design, X=X, fixed=tuple(f"x{j}" for j in range(8))))

    np.testing.assert_allclose(sums.X_shift, np.r_[np.full(7, sums.y_shift), 0])
    np.testing.assert_allclose(sums.rest, rows.rest, rtol=1e-11, atol=1e-8)
