"""The criterion of many responses at once, against dense matrices and differences, and its search."""

from __future__ import annotations

import numpy as np
import pytest
from lmm_cases import cases

from hierlmm.design.crossproducts import cross_products
from hierlmm.design.responses import Regression
from hierlmm.likelihood.refits import optima
from hierlmm.likelihood.refits_criterion import Points, points
from hierlmm.likelihood.refits_layout import Layout
from hierlmm.likelihood.refits_products import Replies, replies, shared
from hierlmm.likelihood.refits_search import minimise

CASES = cases()
RESPONSES = 3


def problem(design, method):
    """What the design shares, its layout, and three responses that differ in everything."""
    rng = np.random.default_rng(5)
    Y = np.column_stack([design.y, 1e5 + rng.normal(size=len(design.y)), rng.gamma(2.0, size=len(design.y))])
    cp = cross_products(design)
    shape, layout = shared(cp, method), Layout.of(cp)
    found = Regression.of(design).products(Y)
    trailing = [*(part.reshape(-1, RESPONSES) for part in found.by_level[1:]), found.fixed]
    return cp, shape, layout, replies(shape, found.by_level[0], np.concatenate(trailing), found.square), Y


def dense_criterion(design, cp, factors, y, method):
    """The criterion by n x n matrices, on the data scale."""
    n = len(y)
    V = np.eye(n)
    for f, B, Lambda in zip(cp.order, cp.Z_map, factors, strict=True):
        factor = design.factors[f]
        same = factor.codes[:, None] == factor.codes[None]
        half = factor.Z @ B @ Lambda
        V += same * (half @ half.T)
    solve = np.linalg.solve(V, np.column_stack([design.X, y]))
    XVX = design.X.T @ solve[:, :-1]
    beta = np.linalg.solve(XVX, design.X.T @ solve[:, -1])
    residual = y - design.X @ beta
    rss = residual @ np.linalg.solve(V, residual)
    nu = n - cp.p if method == "reml" else n
    value = np.linalg.slogdet(V)[1] + nu * (1 + np.log(2 * np.pi * rss / nu))
    return value + (np.linalg.slogdet(XVX)[1] if method == "reml" else 0.0)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", CASES)
def test_the_criterion_is_that_of_dense_matrices(name, method):
    """-2 (restricted) log likelihood of each response at its own theta, from V itself."""
    design = CASES[name]
    cp, shape, layout, data, Y = problem(design, method)
    theta = np.random.default_rng(1).normal(size=(len(layout), RESPONSES))

    found = points(shape, layout, data, theta).value

    factors = layout.factors(theta)
    expected = [dense_criterion(design, cp, [L[..., i] for L in factors], Y[:, i], method) for i in range(RESPONSES)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_the_slope_of_the_criterion(name, method):
    """Central differences of fourth order of the criterion in each element of theta."""
    _, shape, layout, data, _ = problem(CASES[name], method)
    theta = np.random.default_rng(2).normal(size=(len(layout), RESPONSES))
    h = 1e-3

    found = points(shape, layout, data, theta).gradient

    for k in range(len(layout)):
        step = h * np.eye(len(layout))[:, [k]]
        value = {j: points(shape, layout, data, theta + j * step).value for j in (-2, -1, 1, 2)}
        slope = (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
        np.testing.assert_allclose(found[k], slope, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_stationary_and_no_other_start_is_better(name):
    """At the optimum of each response the criterion does not fall in 200 random directions."""
    _, shape, layout, data, _ = problem(CASES[name], "reml")
    found = optima(shape, layout, data)
    theta = layout.theta([np.moveaxis(L, 0, -1) for L in found.factors])
    rng = np.random.default_rng(3)

    assert found.certified.all()
    for size in (1e-3, 0.1, 1.0, 10.0):
        for _ in range(50):
            value = points(shape, layout, data, theta + size * rng.normal(size=theta.shape)).value
            assert (value >= found.value - 1e-9 * np.abs(found.value)).all()


def test_levels_with_the_same_products_are_one_pattern_whatever_the_order_of_rows():
    """A balanced design has one pattern; sums in another order differ by rounding only and are not told apart."""
    from dataclasses import replace

    from lmm_cases import design, factor

    codes = np.repeat(np.arange(30), 7)
    x = np.tile(np.linspace(1950.0, 2010.0, 7), 30)
    order = np.random.default_rng(4).permutation(len(x))
    Z = {"Intercept": np.ones(len(x)), "x": x[order]}
    balanced = design(
        np.sin(x), np.column_stack([np.ones(len(x)), x[order]]), (factor("a", codes[order], Z, ((0, 1),)),)
    )
    bent = Z | {"x": Z["x"] + 1e-6 * (codes[order] == 3)}
    other = replace(balanced, factors=(factor("a", codes[order], bent, ((0, 1),)),))

    assert len(shared(cross_products(balanced), "reml").count) == 1
    assert sorted(shared(cross_products(other), "reml").count) == [1, 29]


def test_sums_by_pattern_are_those_of_the_levels():
    """Z'y and Z'y y'Z summed level by level in a loop."""
    _, shape, _, _, _ = problem(CASES["slope"], "reml")
    z = np.random.default_rng(6).normal(size=(len(shape.of), 2, 4))

    found = replies(shape, z, np.zeros((3, 4)), np.ones(4))

    for u in range(len(shape.count)):
        levels = np.flatnonzero(shape.of == u)
        np.testing.assert_allclose(found.once[u], sum(z[g] for g in levels), rtol=1e-13)
        both = sum(z[g][:, None] * z[g][None] for g in levels)
        np.testing.assert_allclose(found.twice[u], both, rtol=1e-13)
    assert isinstance(found[np.array([1, 2])], Replies)
    assert len(found[np.array([1, 2])]) == 2


def test_the_search_leaves_a_saddle_point_and_finds_minima_that_are_known():
    """f(x, y) = (x² - a)² / 4 + (y - x)² / 2 has a saddle point at 0 for a > 0, and minima at x = y = ±√a."""
    a = np.array([4.0, 1.0, 1e-2, 25.0, -1.0])

    def evaluate(at, theta):
        x, y = theta
        b = a[at]
        gradient = np.stack([x * (x**2 - b) + x - y, y - x])
        hessian = np.stack([[3 * x**2 - b + 1, -np.ones_like(x)], [-np.ones_like(x), np.ones_like(x)]])
        return Points((x**2 - b) ** 2 / 4 + (y - x) ** 2 / 2, gradient, hessian)

    found = minimise(evaluate, np.zeros((2, 5)), np.ones((2, 5), dtype=bool))

    assert found.certified.all()
    np.testing.assert_allclose(np.abs(found.theta), np.tile(np.sqrt(np.maximum(a, 0)), (2, 1)), atol=1e-8)


def test_elements_that_are_held_stay_at_zero():
    """With y held, the minimum in x alone is where x (x² - a + 1) = 0: x² = a - 1."""
    a = np.array([5.0, 10.0])

    def evaluate(at, theta):
        x, y = theta
        b = a[at]
        gradient = np.stack([x * (x**2 - b) + x - y, y - x])
        hessian = np.stack([[3 * x**2 - b + 1, -np.ones_like(x)], [-np.ones_like(x), np.ones_like(x)]])
        return Points((x**2 - b) ** 2 / 4 + (y - x) ** 2 / 2, gradient, hessian)

    free = np.array([[True, True], [False, False]])
    found = minimise(evaluate, np.ones((2, 2)), free)

    np.testing.assert_allclose(found.theta, [np.sqrt(a - 1), [0.0, 0.0]], atol=1e-8)
