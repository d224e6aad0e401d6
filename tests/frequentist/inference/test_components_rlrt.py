"""Exact finite-sample likelihood ratios of one component: published masses, F tails, simulation, brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import hierlmm as hl
from hierlmm.frequentist.boundary_test import boundary_test
from hierlmm.frequentist.inference.components_space import Pieces, gram, pieces
from hierlmm.frequentist.inference.rlrt import Law

NONE = np.zeros(0, dtype=int)


def law_of(mu, df, n, rank, method="reml", xi=None):
    mu = np.asarray(mu, dtype=float)
    return Law.of(Pieces(mu, mu, 1.0, df, mu if xi is None else np.asarray(xi, dtype=float), n, rank), method)


# RLRsim 3.1.8 on lme4 1.1.31 (R 4.2.2), 1e5 draws: eigenvalues of Z'PZ with their number, n, rank of X, statistic,
# p by simulation; the mass at zero by inversion of the quadratic form (CompQuadForm's method), 1e-12.
REFERENCE = {
    "Sitka trees": ([(5.0, 77)], 395, 4, 624.9427560521373, 0.0, 0.5145080775672325),
    "Dyestuff": ([(5.0, 5)], 30, 1, 6.368955313621143, 0.00421, 0.5610892301448389),
    "sleepstudy": ([(10.0, 17)], 180, 2, 107.19857807718745, 0.0, 0.5388744154786396),
    "politeness": ([(12.0, 5), (100 / 9, 1)], 83, 3, 11.289203258100542, 0.00036, 0.5681680116424047),
    "one way": ([(4.0, 11)], 48, 1, 8.421316078103303, 0.00159, 0.53467151727446),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_mass_at_zero_and_p_agree_with_rlrsim(name):
    """The mass to 1e-11, p within four Monte Carlo standard errors of the reference."""
    values, n, rank, statistic, p, mass = REFERENCE[name]
    mu = np.concatenate([np.full(count, value) for value, count in values])

    law = law_of(mu, n - rank - len(mu), n, rank)
    tail = law.tail(statistic, 10, np.random.default_rng(1))

    assert law.mass_at_zero == pytest.approx(mass, abs=1e-11)
    assert tail.mc_error == 0
    assert abs(tail.p - p) < 4 * np.sqrt(max(tail.p, 1e-9) / 1e5)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_one_eigenvalue_gives_an_f_tail(method):
    """Dyestuff: the mass is an F(5, 24) probability, at 1 by REML and at 6 / 5 by ML; p is that of the F test."""
    law = law_of(np.full(5, 5.0), 24, 30, 1, method, np.full(6, 5.0))
    F = 4.598266190719021
    t = F * 5 / 24
    # closed-form supremum: gamma puts 1 + gamma mu at (S / k) / (R / 24), k = 5 or 6 log terms
    k, N = (5, 29) if method == "reml" else (6, 30)
    a = t * 24 / k
    statistic = N * np.log((t + 1) / (t / a + 1)) - k * np.log(a)

    assert law.mass_at_zero == pytest.approx(stats.f.cdf(k / 5, 5, 24), rel=1e-12)
    assert law.statistic(np.array([[t]]), np.array([1.0]))[0] == pytest.approx(statistic, rel=1e-12)
    assert law.tail(statistic, 10, np.random.default_rng(1)).p == pytest.approx(stats.f.sf(F, 5, 24), rel=1e-12)
    assert statistic == pytest.approx({"reml": 6.368955313621143, "ml": 5.402826093645956}[method], rel=1e-10)


def test_a_zero_statistic_has_p_one():
    """RLRT 0 is in the point mass at zero: nothing is more likely under the null hypothesis."""
    assert law_of([5.0] * 5, 24, 30, 1).tail(0.0, 10, np.random.default_rng(1)).p == 1.0


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_supremum_is_that_of_a_fine_search(method):
    """Unequal eigenvalues: the statistic against a bounded search from many starts (scipy), 1e-9."""
    rng = np.random.default_rng(3)
    mu, xi = np.sort(rng.uniform(0.05, 9, 8))[::-1], np.sort(rng.uniform(0.05, 9, 9))[::-1]
    law = law_of(mu, 25, 35, 2, method, xi)
    squares, rest = rng.chisquare(1, (40, 8)) * (1 + 0.4 * mu), rng.chisquare(25, 40)

    found = law.statistic(squares, rest)

    logs, N = (mu, 33) if method == "reml" else (xi, 35)
    for w, R, value in zip(squares, rest, found, strict=True):

        def f(x, w=w, R=R):
            return N * np.log((w / (1 + np.exp(x) * mu)).sum() + R) + np.log1p(np.exp(x) * logs).sum()

        ends = np.linspace(-14, 12, 27)
        best = min(
            optimize.minimize_scalar(f, bounds=(a, b), method="bounded", options={"xatol": 1e-10}).fun
            for a, b in pairwise(ends)
        )
        assert value == pytest.approx(max(N * np.log(w.sum() + R) - best, 0.0), abs=1e-6)


@pytest.mark.parametrize("mu", [[12.0] * 5 + [3.0], [9.0, 9.0, 2.0, 0.5], list(np.linspace(0.2, 6, 15))])
@pytest.mark.parametrize("q", [0.01, 1.0, 4.0])
def test_p_is_the_frequency_of_simulated_statistics(mu, q):
    """By quadrature (two and three eigenvalues) and by directions (fifteen): 2e5 plain draws, four errors."""
    law = law_of(mu, 20, 20 + len(mu) + 1, 1)

    tail = law.tail(q, 20_000, np.random.default_rng(1))
    draws = law.draws(200_000, np.random.default_rng(2))

    frequency = float((draws >= q).mean())
    error = np.sqrt(frequency * (1 - frequency) / len(draws))
    assert abs(tail.p - frequency) < 4 * np.hypot(error, tail.mc_error)
    assert abs((draws == 0).mean() - law.mass_at_zero) < 4 * 0.5 / np.sqrt(len(draws))
    assert (tail.mc_error > 0) == (len(set(mu)) > 3)


def test_small_tails_keep_their_accuracy():
    """Nearly equal eigenvalues, simulated by directions: the F tail of equal ones, 1e-12 in size, to 1 %."""
    mu = 5 * (1 + 1e-6 * np.arange(6))

    tail = law_of(mu, 40, 47, 1).tail(50.0, 2000, np.random.default_rng(1))

    exact = law_of([5.0] * 6, 40, 47, 1).tail(50.0, 10, np.random.default_rng(1)).p
    assert exact < 1e-10
    assert tail.p == pytest.approx(exact, rel=1e-2)


def test_eigenvalues_of_a_dense_design():
    """Unbalanced, crossed, weighted: mu, w² and R from cross-products against n x n projections."""
    rng = np.random.default_rng(5)
    n = 60
    table = {"y": rng.normal(size=n), "x": rng.normal(size=n), "g": rng.integers(0, 6, n), "h": rng.integers(0, 5, n)}
    table["v"] = rng.uniform(0.5, 2, n)
    spec = hl.lmm("y ~ x + (x || g) + (1 | h)", weights=hl.Precision("v"))
    fit = hl.fit(spec, pd.DataFrame(table))
    products = gram(fit.equations)
    design = fit.design

    g = next(i for i, f in enumerate(design.factors) if f.name == "g")
    slope = design.factors[g].coefficients.index("x")
    tested = products.effects[g][:, slope]
    others = np.setdiff1d(np.concatenate([places.ravel() for places in products.effects]), tested)
    found = pieces(products, tested, others)

    root = 1 / np.sqrt(design.scale)[:, None]
    onehot = [np.eye(len(f.levels))[f.codes] for f in design.factors]
    columns = [f.Z[:, [c]] * Z for f, Z in zip(design.factors, onehot, strict=True) for c in range(f.Z.shape[1])]
    at = sum(len(f.coefficients) for f in design.factors[:g]) + slope
    Z1 = columns.pop(at) * root
    W = np.column_stack([design.X, *columns]) * root
    M = np.eye(n) - W @ np.linalg.pinv(W)
    y = design.y * root[:, 0]
    mu = np.linalg.eigvalsh(Z1.T @ M @ Z1)[::-1]
    kept = mu > 1e-9 * mu[0]
    explained = M @ Z1 @ np.linalg.pinv(M @ Z1) @ y
    np.testing.assert_allclose(found.mu, mu[kept], rtol=1e-9)
    assert found.squares.sum() == pytest.approx(explained @ explained, rel=1e-9)
    assert found.rest == pytest.approx(y @ M @ y - explained @ explained, rel=1e-10)
    assert found.df == n - np.linalg.matrix_rank(W) - kept.sum()


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_statistic_is_that_of_two_fits(method):
    """One component, unequal group sizes: spectral statistic against the difference of the fitted criteria."""
    table = hl.load("sleepstudy").data.iloc[:-37]
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), table, method=method)
    products = gram(fit.equations)

    found = pieces(products, products.effects[0].ravel(), NONE)

    assert Law.of(found, method).observed(found) == pytest.approx(
        boundary_test(fit, "Subject", "Intercept").statistic, rel=1e-9
    )
