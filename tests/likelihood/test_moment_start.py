"""Starting values by moments: the equations against n x n matrices, and how close they come."""

from __future__ import annotations

import numpy as np
import pytest
from lmm_cases import cases, design, factor

from hierlmm.design import layout
from hierlmm.design.crossproducts import cross_products
from hierlmm.likelihood.moment_start import LARGEST, SMALLEST, moment_factors


@pytest.mark.parametrize("name", sorted(cases()))
@pytest.mark.parametrize("few", [0.0, 2.0], ids=["dense", "cells"])
def test_moment_equations(name: str, few: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """E|z'r|² = sigma² (tr z'z + sum of tau |z'z_j|²) solved with the matrices of each coefficient written out."""
    monkeypatch.setattr(layout, "MANY_EFFECTS", 0)
    monkeypatch.setattr(layout, "FEW_CELLS", few)
    d = cases()[name]
    cp = cross_products(d)
    kernels = []
    for f, B in zip(cp.order, cp.Z_map, strict=True):
        one = d.factors[f]
        same = one.codes[:, None] == one.codes
        kernels += [np.outer(z, z) * same for z in (one.Z @ B).T]
    kernels.append(np.eye(len(d.y)))
    r = d.y - d.X @ np.linalg.lstsq(d.X, d.y, rcond=None)[0]
    left = np.array([[(K * M).sum() for M in kernels] for K in kernels])
    left[-1, -1] -= d.X.shape[1]
    *tau, sigma2 = np.linalg.solve(left, [r @ K @ r for K in kernels])
    expected = np.sqrt(np.clip(np.array(tau) / sigma2, SMALLEST, LARGEST))
    found = np.concatenate([np.diag(Lambda) for Lambda in moment_factors(cp)])
    assert all(np.array_equal(Lambda, np.diag(np.diag(Lambda))) for Lambda in moment_factors(cp))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_close_to_the_ratios_of_a_large_table() -> None:
    """400 and 200 crossed levels with sd ratios 0.5 and 2 are found to a fifth."""
    rng = np.random.default_rng(11)
    n = 20_000
    a, b = rng.integers(0, 400, n), rng.integers(0, 200, n)
    one = np.ones(n)
    y = 5.0 + 3 * (0.5 * rng.normal(size=400)[a] + 2 * rng.normal(size=200)[b] + rng.normal(size=n))
    crossed = (factor("a", a, {"Intercept": one}, ((0,),)), factor("b", b, {"Intercept": one}, ((0,),)))
    first, second = moment_factors(cross_products(design(y, one[:, None], crossed)))
    assert first[0, 0] == pytest.approx(0.5, rel=0.2)
    assert second[0, 0] == pytest.approx(2.0, rel=0.2)


def test_no_random_effects_and_no_fixed_effects() -> None:
    """Nothing to start, and nothing to take off the response."""
    rng = np.random.default_rng(2)
    n = 200
    codes = rng.integers(0, 20, n)
    y = rng.normal(size=20)[codes] + rng.normal(size=n)
    assert moment_factors(cross_products(design(y, np.ones((n, 1)), ()))) == ()
    alone = design(y, np.zeros((n, 0)), (factor("a", codes, {"Intercept": np.ones(n)}, ((0,),)),))
    assert 0.3 < moment_factors(cross_products(alone))[0][0, 0] < 3.0
