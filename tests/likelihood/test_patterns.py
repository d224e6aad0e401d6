"""Levels worked on by patterns: the same numbers as dense algebra on all rows, however many levels share a pattern."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierlmm.design.crossproducts import cross_products
from hierlmm.design.types import Dropped, Fingerprint, GroupingFactor, LMMDesign
from hierlmm.likelihood.marginal import NormalPrior
from hierlmm.likelihood.patterns import given, patterns
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.terms import RandomTerm

RNG = np.random.default_rng(20261121)
# Three patterns among five levels: two balanced ones, two short ones, one of its own.
TIMES = [[0.0, 1, 2, 3], [0.0, 1, 2, 3], [0.0, 2], [0.0, 2], [1.0, 5, 6]]
X_COLUMN = np.concatenate(TIMES)
CODES = np.repeat(np.arange(5), [len(t) for t in TIMES])
Y = 2 + 0.5 * X_COLUMN + RNG.normal(size=5)[CODES] + RNG.normal(size=len(CODES))
G = np.array([[[1.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.9]]])
SIGMA2 = np.array([0.7, 2.0])


def design() -> LMMDesign:
    Z = np.column_stack([np.ones(len(Y)), X_COLUMN])
    factor = GroupingFactor(
        name="g", levels=pd.RangeIndex(5), codes=CODES, coefficients=("Intercept", "x"), Z=Z, blocks=((0, 1),),
        structures=("general",),
    )
    return LMMDesign(
        spec=ModelSpec(response="y", fixed=("1", "x"), random=(RandomTerm(("1", "x"), ("g",)),)),
        table=pd.DataFrame(), index=pd.RangeIndex(len(Y)), y=Y, offset=np.zeros(len(Y)), X=Z, fixed=("Intercept", "x"),
        aliased=(), factors=(factor,), levels={}, dropped=Dropped(), notes=(),
        fingerprint=Fingerprint(spec="", rows="", response="", predictors="", variances=""),
    )  # fmt: skip


def dense(G, sigma2, prior):
    """Joint Gaussian of (β, b) given y by the dense precision of all unknowns, and log p(y)."""
    X = np.column_stack([np.ones(len(Y)), X_COLUMN])
    Z = np.zeros((len(Y), 10))
    Z[np.arange(len(Y)), 2 * CODES], Z[np.arange(len(Y)), 2 * CODES + 1] = 1.0, X_COLUMN
    all_columns = np.column_stack([X, Z])
    precision = np.zeros((12, 12))
    precision[2:, 2:] = np.kron(np.eye(5), np.linalg.inv(G))
    pull = np.zeros(12)
    if prior is not None:
        precision[:2, :2] = np.diag(prior.sd**-2.0)
        pull[:2] = prior.sd**-2.0 * prior.mean
    total = precision + all_columns.T @ all_columns / sigma2
    cov = np.linalg.inv(total)
    mean = cov @ (pull + all_columns.T @ Y / sigma2)
    V = sigma2 * np.eye(len(Y)) + Z @ np.kron(np.eye(5), G) @ Z.T
    n = len(Y)
    if prior is None:
        M = X.T @ np.linalg.solve(V, X)
        r = Y - X @ mean[:2]
        minus_2 = (n - 2) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + np.linalg.slogdet(M)[1]
    else:
        V = V + X @ np.diag(prior.sd**2) @ X.T
        r = Y - X @ prior.mean
        minus_2 = n * np.log(2 * np.pi) + np.linalg.slogdet(V)[1]
    return mean, cov, -0.5 * (minus_2 + r @ np.linalg.solve(V, r))


@pytest.mark.parametrize(
    "prior", [None, NormalPrior(np.array([1.0, 0.0]), np.array([2.0, 0.5]))], ids=["flat", "normal"]
)
def test_patterns_give_the_dense_posterior_of_the_coefficients(prior):
    """Dense precision matrix of (β, b): means, variances, variances of sums, log density of y; two ψ."""
    cp = cross_products(design())
    by = patterns(cp)

    found = given(cp, by, G, SIGMA2, prior)
    means, variances = found.means(), found.variances([((0, 0), (1, 1))])
    assert len(by.lead) == 3
    for k in range(2):
        mean, cov, log_density = dense(G[k], SIGMA2[k], prior)
        own = np.diagonal(cov)
        np.testing.assert_allclose(found.loglik[k], log_density, rtol=1e-11)
        np.testing.assert_allclose(means.beta[k], mean[:2], rtol=1e-10)
        np.testing.assert_allclose(means.b[0][k].ravel(), mean[2:], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(variances.cov_beta[k], cov[:2, :2], rtol=1e-9)
        np.testing.assert_allclose(variances.error[0][k].ravel(), own[2:], rtol=1e-9)
        for level in range(5):
            both = cov[:2, 2 + 2 * level : 4 + 2 * level]
            total = own[:2] + own[2 + 2 * level : 4 + 2 * level] + 2 * np.diagonal(both)
            np.testing.assert_allclose(variances.sums[0][k, level], total, rtol=1e-9)
        given_beta = np.linalg.inv(np.linalg.inv(cov)[2:, 2:])
        np.testing.assert_allclose(variances.conditional[0][k].ravel(), np.diagonal(given_beta), rtol=1e-9)


def test_draws_by_patterns_have_the_dense_mean_and_covariance():
    """40,000 draws of (β, b) at one ψ against the dense Gaussian: every mean |z| < 4.5, correlations within 0.03."""
    cp = cross_products(design())
    found = given(cp, patterns(cp), G, SIGMA2, None)[np.zeros(40_000, dtype=np.intp)]

    drawn = found.draw(np.random.default_rng(3))
    values = np.column_stack([drawn.beta, drawn.b[0].reshape(40_000, -1)])
    mean, cov, _ = dense(G[0], SIGMA2[0], None)
    sd = np.sqrt(np.diagonal(cov))
    assert np.abs((values.mean(axis=0) - mean) / sd * 200).max() < 4.5
    np.testing.assert_allclose(np.cov(values.T) / np.outer(sd, sd), cov / np.outer(sd, sd), atol=0.03)
