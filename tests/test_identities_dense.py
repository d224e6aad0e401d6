"""Criterion, score, information and effects against n x n matrices, on random tables and deep hierarchies.

Derivatives of the written-out criterion are taken in complex arithmetic, f'(t) = Im f(t + ih)/h with h = 1e-30, which
has no error of its own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from identity_cases import FORMULAS, METHODS, Dense, assert_close, checked, tables
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.lmm_variances import parameter_covariance
from hierlmm.likelihood.information import information
from hierlmm.likelihood.lmm_derivatives import derivatives
from hierlmm.likelihood.parameters import Parameters

STEP = 1e-30


def three_levels() -> pd.DataFrame:
    """Students in schools in boards, uneven; schools numbered anew in each board."""
    rng = np.random.default_rng(11)
    schools = [(b, s) for b in range(5) for s in range(int(rng.integers(2, 5)))]
    rows = [(b, s, k) for b, s in schools for k in range(int(rng.integers(2, 6)))]
    rows = [(b, s, k) for b, s, k in rows for _ in range(int(rng.integers(1, 4)))]
    board, school, student = (np.array(column) for column in zip(*rows, strict=True))
    own = {key: rng.normal() for key in {(b, s) for b, s, _ in rows} | set(rows)}
    n = len(rows)
    x = rng.normal(size=n)
    effects = [own[b, s] + 0.7 * own[b, s, k] for b, s, k in rows]
    y = 1 + 0.3 * x + 1.5 * rng.normal(size=5)[board] + effects + rng.normal(size=n)
    return pd.DataFrame({"board": board, "school": school, "student": student, "x": x, "y": y})


def partially_crossed() -> pd.DataFrame:
    """Pupils who changed school: 12 pupils, 4 schools, some pupils in one and some in several."""
    rng = np.random.default_rng(12)
    pupil = np.repeat(np.arange(12), 5)
    school = np.where(rng.random(60) < 0.3, rng.integers(0, 4, 60), pupil % 4)
    x = rng.normal(size=60)
    y = x + rng.normal(size=12)[pupil] + rng.normal(size=4)[school] + rng.normal(size=60)
    return pd.DataFrame({"pupil": pupil, "school": school, "x": x, "y": y})


DEEP = {
    "boards / schools / students": ("y ~ x + (1 | board/school/student)", three_levels),
    "slopes at two of three levels": (
        "y ~ x + (x | board) + (x || board:school) + (1 | board:school:student)", three_levels,
    ),
    "partially crossed": ("y ~ x + (1 | pupil) + (1 | school)", partially_crossed),
    "partially crossed slopes": ("y ~ x + (x | pupil) + (0 + x | school)", partially_crossed),
}  # fmt: skip


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", DEEP)
def test_deep_and_crossed_models_are_the_written_out_ones(name, method):
    """Criterion, beta, its covariance and the BLUPs G Z'V⁻¹(y - X beta) at the fitted variances, and the score there.

    The derivative in each free element of Lambda is zero, in complex arithmetic.
    """
    formula, table = DEEP[name]
    fit = hl.fit(hl.lmm(formula), table(), method)
    dense = Dense.of(fit)
    V = dense.V(fit.G, fit.sigma2)
    W = np.linalg.solve(V, np.eye(len(V)))
    cov = np.linalg.solve(dense.X.T @ W @ dense.X, np.eye(len(fit.beta)))
    residual = dense.y - dense.X @ fit.beta

    assert fit.certificate.certified
    assert_close(fit.objective, dense.criterion(V, method))
    assert_close(fit.beta, cov @ dense.X.T @ W @ dense.y, 1.0)
    assert_close(fit.vcov_beta, cov, cov.max())
    for Z, G, b in zip(dense.Z, fit.G, fit.b, strict=True):
        effects = (Z.T @ W @ residual).reshape(-1, len(G)) @ G
        assert_close(b, effects, np.sqrt(fit.sigma2))
    size = np.abs(W).sum()
    for f, L in enumerate(fit.theta):
        for i, j in zip(*np.nonzero(L), strict=True):
            E = np.zeros_like(L, dtype=complex)
            E[i, j] = 1j * STEP
            G = [g.astype(complex) for g in fit.G]
            G[f] = fit.sigma2 * (L + E) @ (L + E).T
            slope = dense.criterion(dense.V(tuple(G), fit.sigma2), method).imag / STEP
            assert abs(slope) < 1e-9 * size * np.abs(L).max()


def profiled(fit: hl.LMMFit, theta: np.ndarray, method: str) -> complex:
    """The written-out criterion with sigma² profiled out, at theta on the working scale of the columns of Z."""
    cp, dense = fit.equations, Dense.of(fit)
    n, p = dense.X.shape
    nu = n - p if method == "reml" else n
    T = [np.zeros((1, 1))] * len(cp.order)
    for f, B, L in zip(cp.order, cp.Z_map, Parameters.of(cp).factors(theta), strict=True):
        T[f] = B @ L @ L.T @ B.T
    V = dense.V(tuple(T), 1.0)
    W = np.linalg.solve(V, np.column_stack([dense.X, dense.y]))
    M, r = dense.X.T @ W[:, :p], dense.X.T @ W[:, p]
    rss = dense.y @ W[:, p] - r @ np.linalg.solve(M, r)
    return dense.criterion(V, method) - rss + nu * (1 + np.log(rss / nu))


def score(fit: hl.LMMFit, theta: np.ndarray, method: str) -> np.ndarray:
    """Its gradient."""
    return np.array([profiled(fit, theta + 1j * STEP * unit, method).imag / STEP for unit in np.eye(len(theta))])


@given(data=tables(), formula=FORMULAS, method=METHODS)
@checked(25)
def test_score_away_from_the_optimum_is_the_complex_derivative(data, formula, method):
    """d/dtheta of the profiled criterion at a random theta."""
    fit = hl.fit(hl.lmm(formula), data, method)
    parameters = Parameters.of(fit.equations)
    theta = np.random.default_rng(len(data)).normal(0.6, 0.4, len(parameters))

    at = derivatives(fit.equations, parameters, theta, method)

    assert_close(at.value, profiled(fit, theta, method))
    expected = score(fit, theta, method)
    assert_close(at.gradient, expected, np.abs(expected).max())


@given(data=tables(), formula=FORMULAS, method=METHODS)
@checked(40)
def test_the_score_at_the_optimum_is_zero(data, formula, method):
    """To 1e-8 in every element of theta, also where the average information is far from the Hessian.

    A variance that is held at zero has no score by symmetry, and its multiplier is not negative.
    """
    fit = hl.fit(hl.lmm(formula), data, method)

    assert fit.certificate.certified
    assert fit.certificate.multipliers >= -1e-6
    theta = Parameters.of(fit.equations).theta(fit.at.factors)
    assert_allclose(score(fit, theta, method), 0.0, atol=1e-8)


@given(data=tables(), formula=FORMULAS, method=METHODS)
@checked(15)
def test_information_is_half_the_trace_of_the_written_out_products(data, formula, method):
    """½ tr(P V_r P V_s) in the elements of G and sigma², P = V⁻¹ under ML; its inverse where no block is singular."""
    fit = hl.fit(hl.lmm(formula), data, method)
    found = information(fit.equations, fit.at, method)
    dense = Dense.of(fit)
    _, P = dense.P(dense.V(fit.G, fit.sigma2), method)
    products = []
    for parameter in found.parameters:
        if parameter.factor < 0:
            products.append(P)
            continue
        f = fit.equations.order[parameter.factor]
        D = np.zeros_like(fit.G[f])
        D[parameter.row, parameter.column] = D[parameter.column, parameter.row] = 1.0
        Z = dense.Z[f]
        products.append(P @ Z @ np.kron(np.eye(Z.shape[1] // len(D)), D) @ Z.T)
    expected = 0.5 * np.array([[np.sum(R * S.T) for S in products] for R in products])

    assert found.kind == "expected"
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    assert_allclose(found.matrix / scale, expected / scale, rtol=0, atol=1e-9)
    if not fit.singular:
        covariance = parameter_covariance(fit)
        data_scale = covariance.maps @ covariance.working @ covariance.maps.T
        assert_allclose(data_scale @ expected, np.eye(len(expected)), atol=1e-7 * np.linalg.cond(expected / scale))
