"""Criteria of models with residual structures against the density of y written out with the whole matrix V."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import hierlmm as hl
from hierlmm.design import build
from hierlmm.design.types import LMMDesign
from hierlmm.frequentist.lmm_model import model_of, structure_of
from hierlmm.likelihood.lmm import LOG_2PI
from hierlmm.likelihood.optimum import Surface, optimise

Array = NDArray[np.float64]
RNG = np.random.default_rng(8)
N = 11
OCCASION = {"group": "plot", "occasion": "time"}
POSITION = {"group": "plot", "position": "time"}
STRUCTURES = {
    "cs": hl.CompoundSymmetry("plot"),
    "csh": hl.HeterogeneousCompoundSymmetry(**OCCASION),
    "ar1": hl.AR1(**POSITION),
    "arh1": hl.HeterogeneousAR1(**POSITION),
    "car1": hl.ContinuousAR1("plot", "day"),
    "nugget": hl.ContinuousAR1("plot", "day", nugget=True),
    "toeplitz": hl.Toeplitz(**POSITION),
    "ante": hl.Antedependence(**OCCASION),
    "un": hl.Unstructured(**OCCASION),
    "strata": hl.Stratified("time"),
}
FORMULAS = {
    "marginal": "y ~ x",
    "slope": "y ~ x + (0 + x | plot)",
    "crossed": "y ~ x + (0 + x | plot) + (1 | item)",
    "items only": "y ~ x + (1 | item)",
    "no intercept": "y ~ 0 + x + (1 | item)",
}


def table() -> pd.DataFrame:
    """Eleven plots at up to four times with gaps, items crossed with both."""
    rows = pd.DataFrame([(plot, time) for plot in range(N) for time in range(4)], columns=["plot", "time"])
    rows["day"] = np.array([0.0, 2.0, 3.0, 7.5])[rows["time"]] + 0.1 * rows["plot"]
    rows["x"] = RNG.normal(size=len(rows))
    rows["item"] = RNG.integers(0, 5, len(rows))
    rows["w"] = RNG.uniform(0.5, 3.0, len(rows))
    rows["y"] = 4.0 + rows["x"] + RNG.normal(size=N)[rows["plot"]] + RNG.normal(size=len(rows))
    return rows.drop(index=[2, 9, 10, 23]).sample(frac=1, random_state=1).reset_index(drop=True)


DATA = table()


def dense_covariance(design: LMMDesign, surface: Surface, psi: Array) -> Array:
    """V / sigma² = Z T Z' + R row by row on the data scale, (n, n)."""
    factors = surface.parameters.factors(psi[: len(surface.parameters)])
    phi, held, n = psi[len(surface.parameters) :], design.residual, len(design.y)
    structure = structure_of(design)
    V = np.zeros((n, n))
    series = held.codes if len(held.levels) else np.arange(n)
    for rows in (np.flatnonzero(series == one) for one in np.unique(series)):
        V[np.ix_(rows, rows)] = structure.relative(phi, held.place[rows][None], held.occasion[rows][None])[0][0]
    if design.scale is not None:
        V *= np.sqrt(np.outer(design.scale, design.scale))
    for f, Lambda in zip(surface.cp.order, factors, strict=True):
        if f >= 0:
            factor, B = design.factors[f], surface.cp.Z_map[surface.cp.order.index(f)]
            half = factor.Z @ B @ Lambda
            V += (half @ half.T) * (factor.codes[:, None] == factor.codes)
    return V


def dense_criterion(design: LMMDesign, surface: Surface, psi: Array, method: str) -> float:
    """-2 log (restricted) likelihood from V, sigma² profiled out."""
    V, X, y = dense_covariance(design, surface, psi), design.X, design.y
    n, p = X.shape
    VX, Vy = np.linalg.solve(V, X), np.linalg.solve(V, y)
    rss = float(y @ Vy - y @ VX @ np.linalg.solve(X.T @ VX, X.T @ Vy))
    nu = n - p if method == "reml" else n
    value = np.linalg.slogdet(V)[1] + nu * (1 + LOG_2PI + np.log(rss / nu))
    return float(value + (np.linalg.slogdet(X.T @ VX)[1] if method == "reml" else 0.0))


def case(formula: str, structure: str, weights: hl.Precision | None = None):
    """Design, model and a point psi away from the optimum."""
    design = build(hl.lmm(FORMULAS[formula], residual=STRUCTURES[structure], weights=weights), DATA)
    model = model_of(design)
    surface = Surface.of(model, "reml")
    size = len(surface.parameters) + model.size
    return design, model, 0.3 + 0.25 * np.sin(1.0 + np.arange(size))


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("formula", sorted(FORMULAS))
@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_criterion_is_the_density_of_y(structure: str, formula: str, method: str) -> None:
    """The value at a point, with series of different patterns, several lengths and an unordered table."""
    design, model, psi = case(formula, structure)
    surface = Surface.of(model, method)

    assert surface(psi).value == pytest.approx(dense_criterion(design, surface, psi, method), rel=1e-11)


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("formula", sorted(FORMULAS))
@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_gradient_is_that_of_the_criterion(structure: str, formula: str, method: str) -> None:
    """Fourth-order differences of the criterion, whose error is about 1e-9 of it."""
    _, model, psi = case(formula, structure)
    surface = Surface.of(model, method)
    at, h = surface(psi), 1e-3

    def slope(unit: Array) -> float:
        near, far = (surface(psi + k * h * unit).value - surface(psi - k * h * unit).value for k in (1, 2))
        return (8 * near - far) / (12 * h)

    numeric = np.array([slope(unit) for unit in np.eye(len(psi))])
    np.testing.assert_allclose(at.gradient, numeric, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("structure", ["ar1", "un", "strata"])
def test_precision_weights_scale_the_residual_matrix(structure: str) -> None:
    """R = V^(1/2) C V^(1/2) with V the inverse weights."""
    design, model, psi = case("crossed", structure, hl.Precision("w"))
    surface = Surface.of(model, "reml")

    assert surface(psi).value == pytest.approx(dense_criterion(design, surface, psi, "reml"), rel=1e-11)


@pytest.mark.parametrize("formula", ["marginal", "crossed"])
@pytest.mark.parametrize("structure", ["ar1", "csh", "strata", "ante"])
def test_average_information_is_the_quadratic_form(structure: str, formula: str) -> None:
    """y'P V_r P V_s P y and y'P V_r P y with P written out and V_r by fourth-order differences."""
    design, model, psi = case(formula, structure)
    surface = Surface.of(model, "reml")
    at, h = surface(psi), 1e-3
    V, X, y = dense_covariance(design, surface, psi), design.X, design.y
    W = np.linalg.inv(V)
    P = W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)

    def V_at(point: Array) -> Array:
        return dense_covariance(design, surface, point)

    def slope(unit: Array) -> Array:
        near, far = (
            dense_covariance(design, surface, psi + k * h * unit)
            - dense_covariance(design, surface, psi - k * h * unit)
            for k in (1, 2)
        )
        return np.asarray((8 * near - far) / (12 * h))

    images = np.array([slope(unit) @ (P @ y) for unit in np.eye(len(psi))])
    np.testing.assert_allclose(at.quadratic, images @ P @ images.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(at.slope, images @ P @ y, rtol=1e-8, atol=1e-8)


def test_an_optimum_is_certified_and_the_best_of_several() -> None:
    """Gradient zero, Hessian by differences positive definite, no lower point from other starts."""
    _, model, psi = case("slope", "arh1")
    best = optimise(model, "reml")

    assert best.certificate.certified
    assert best.certificate.decrement < 1e-10
    for seed in range(4):
        start = psi + np.random.default_rng(seed).normal(0, 0.5, len(psi))
        assert optimise(model, "reml", start).at.value >= best.at.value - 1e-9
