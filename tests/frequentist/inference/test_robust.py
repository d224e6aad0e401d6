"""Cluster-robust covariances against clubSandwich and dense formulas, and what they are unbiased for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import t as student

import hierlmm as hl

# clubSandwich 0.5.8 for lmer fits: see "provenance" in the file.
REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "intervals.json").read_text())["robust"]
TYPES = ("CR0", "CR1", "CR2", "CR3")
SLOPES, TREAT = "Reaction ~ Days + (Days | Subject)", "size ~ Time * treat + (1 | tree)"


def gaps() -> pd.DataFrame:
    table = hl.load("sleepstudy").data
    return table[(7 * np.arange(180)) % 11 != 3]


@pytest.fixture(scope="module")
def fits() -> dict[str, hl.LMMFit]:
    sleepstudy, sitka = hl.load("sleepstudy").data, hl.load("sitka").data
    return {
        "sleep_rs": hl.fit(hl.lmm(SLOPES), sleepstudy),
        "sleep_gaps": hl.fit(hl.lmm(SLOPES), gaps()),
        "sitka_ri_treat": hl.fit(hl.lmm(TREAT), sitka),
        "sitka_ri_treat_ml": hl.fit(hl.lmm(TREAT), sitka, "ml"),
    }


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["sleep_rs", "sleep_gaps", "sitka_ri_treat", "sitka_ri_treat_ml"])
def test_covariance_and_freedom_are_those_of_clubsandwich(fits, name, kind):
    """vcovCR and coef_test with Satterthwaite's degrees of freedom; 1e-7, which is what lmer's optimum allows where
    the design is unbalanced."""
    case, found = REFERENCE[name][kind], fits[name].robust(kind)

    assert_allclose(found.covariance, case["vcov"], rtol=1e-7)
    for column in ("se", "t", "df", "p"):
        assert_allclose(found.frame[column], case[column], rtol=2e-7)


def marginal(fit: hl.LMMFit) -> np.ndarray:
    """V by n x n matrices."""
    scale = np.ones(len(fit.design.y)) if fit.design.scale is None else fit.design.scale
    V = np.diag(fit.sigma2 * scale)
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        V += (factor.codes[:, None] == factor.codes) * (factor.Z @ G @ factor.Z.T)
    return V


def root_adjustment(V: np.ndarray, S: np.ndarray) -> np.ndarray:
    """The symmetric A with A S A = V: S^-½ (S^½ V S^½)^½ S^-½."""

    def power(M, k):
        values, vectors = np.linalg.eigh(M)
        return (vectors * values**k) @ vectors.T

    half, back = power(S, 0.5), power(S, -0.5)
    return back @ power(half @ V @ half, 0.5) @ back


@pytest.mark.parametrize("kind", TYPES)
def test_nested_factors_and_weights_against_dense_formulas(kind):
    """Rooms within houses, precision weights: the outermost factor is the cluster; n x n matrices, CR2 as the solution
    of A S A = V, df as (tr)²/tr of squares of the matrix of p_i'V p_j."""
    rng = np.random.default_rng(2)
    house = np.sort(rng.integers(0, 9, 70))
    room = 3 * house + rng.integers(0, 3, 70)
    table = pd.DataFrame({"x": rng.normal(size=70), "house": house, "room": room, "w": rng.uniform(0.5, 2, 70)})
    table["y"] = table["x"] + rng.normal(size=9)[house] + rng.normal(size=27)[room] + rng.normal(size=70)
    fit = hl.fit(hl.lmm("y ~ x + (1 | room) + (1 | house)", weights=hl.Precision("w")), table)
    X, V = fit.design.X, marginal(fit)
    W = np.linalg.inv(V)
    M = np.linalg.inv(X.T @ W @ X)
    H = X @ M @ X.T @ W
    e = table["y"].to_numpy() - H @ table["y"].to_numpy()
    meat, P = np.zeros((2, 2)), []
    for i in range(9):
        rows = np.flatnonzero(house == i)
        inner = np.ix_(rows, rows)
        A = {
            "CR2": lambda inner=inner, rows=rows: root_adjustment(V[inner], V[inner] - X[rows] @ M @ X[rows].T),
            "CR3": lambda inner=inner, rows=rows: np.linalg.inv(np.eye(len(rows)) - H[inner]),
        }.get(kind, lambda rows=rows: np.eye(len(rows)))()
        G = A.T @ np.linalg.inv(V[inner]) @ X[rows]
        meat += G.T @ np.outer(e[rows], e[rows]) @ G
        P.append((np.eye(70) - H)[rows].T @ G @ M)
    if kind == "CR1":
        meat *= 9 / 8
    products = np.array([[[(p[:, j] @ V @ q[:, j]) for q in P] for p in P] for j in range(2)])
    df = np.trace(products, axis1=1, axis2=2) ** 2 / (products**2).sum(axis=(1, 2))

    found = fit.robust(kind)

    assert found.cluster == "house"
    assert found.clusters == 9
    assert_allclose(found.covariance, M @ meat @ M, rtol=1e-8, atol=1e-14)
    assert_allclose(found.frame["df"], df, rtol=1e-8)
    half = found.frame["se"] * student.ppf(0.975, df)
    assert_allclose(found.frame["upper"] - found.frame["estimate"], half, rtol=1e-8)


def test_cr2_is_unbiased_where_the_model_is_true(fits):
    """E of the estimate under V of the fit is vcov_beta: the mean over responses from e with that covariance, formed
    exactly as trace, not by simulation: sum of M X'W A (V - X M X') A'W X M over clusters."""
    fit = fits["sleep_gaps"]
    M, total = fit.vcov_beta, np.zeros((2, 2))
    X, V = fit.design.X, marginal(fit)
    # the estimator is quadratic in e: replace e e' of each cluster by its expectation, through unit responses
    rng = np.random.default_rng(0)
    draws = 3000
    root = np.linalg.cholesky(V)
    for _ in range(draws):
        y = X @ fit.beta + root @ rng.standard_normal(len(V))
        beta = M @ X.T @ np.linalg.solve(V, y)
        total += _cr2(fit, V, M, y - X @ beta)
    error = np.abs(np.diag(M)) * np.sqrt(2 / 15 / draws)

    assert (np.abs(np.diag(total / draws) - np.diag(M)) < 5 * error).all()


def _cr2(fit, V, M, e):
    X, codes, meat = fit.design.X, fit.design.factors[0].codes, np.zeros((2, 2))
    for i in range(18):
        rows = np.flatnonzero(codes == i)
        own = V[np.ix_(rows, rows)]
        score = X[rows].T @ np.linalg.solve(own, root_adjustment(own, own - X[rows] @ M @ X[rows].T) @ e[rows])
        meat += np.outer(score, score)
    return M @ meat @ M


def test_residual_structures_are_clustered_by_their_groups():
    """Compound symmetry of the residuals is the random intercept model: the same numbers by another way to V_i."""
    table = hl.load("sitka").data
    structured = hl.fit(hl.lmm("size ~ Time * treat", residual=hl.CompoundSymmetry("tree")), table)
    random = hl.fit(hl.lmm(TREAT), table)

    assert_allclose(structured.robust().covariance, random.robust().covariance, rtol=1e-7)


def test_clusters_by_name_column_or_labels_agree(fits):
    """A factor, its column, its labels in order, and a Series of labels in another order."""
    fit, table = fits["sleep_gaps"], gaps()
    expected = fit.robust().covariance

    for cluster in ("Subject", table["Subject"].to_numpy(), table["Subject"].iloc[::-1]):
        assert_allclose(fit.robust(cluster=cluster).covariance, expected, rtol=1e-12)
    pairs = (pd.factorize(table["Subject"])[0] // 2).astype(str)
    assert fit.robust(cluster=pairs).clusters == 9
    plain = hl.fit(hl.lmm("Reaction ~ Days"), table)
    X, e = plain.design.X, plain.marginal_residuals.to_numpy()
    bread = np.linalg.inv(X.T @ X)
    scores = np.array([X[table["Subject"] == s].T @ e[table["Subject"] == s] for s in table["Subject"].unique()])
    assert_allclose(
        plain.robust("CR0", cluster=table["Subject"]).covariance, bread @ scores.T @ scores @ bread, rtol=1e-10
    )


def test_few_degrees_of_freedom_are_said(fits):
    """A treatment that one of nine clusters carries."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(9), 4)
    table = pd.DataFrame({"y": rng.normal(size=36) + rng.normal(size=9)[g], "d": (g == 0) * 1.0, "g": g})
    text = hl.fit(hl.lmm("y ~ d + (1 | g)"), table).robust("CR3").summary()

    assert "Degrees of freedom below 4 (d)" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 80


def test_what_is_not_block_diagonal_is_refused(fits):
    crossed = hl.fit(hl.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)"), hl.load("penicillin").data)
    fit, table = fits["sleep_rs"], hl.load("sleepstudy").data
    exact = hl.fit(hl.lmm("y ~ x"), pd.DataFrame({"x": np.arange(5.0), "y": 1 + 2 * np.arange(5.0)}))

    with pytest.raises(hl.DesignError, match=r"plate, sample are crossed, and none holds the others"):
        crossed.robust()
    with pytest.raises(hl.DesignError, match=r"sample has 6 levels with rows in several clusters of plate"):
        crossed.robust(cluster="plate")
    with pytest.raises(hl.DesignError, match=r"Subject has 18 levels with rows in several clusters of Days"):
        fit.robust(cluster="Days")
    with pytest.raises(hl.DesignError, match=r"found 'subject'. The fit has Subject, "):
        fit.robust(cluster="subject")
    with pytest.raises(hl.DesignError, match=r"found 3 for 180 rows"):
        fit.robust(cluster=[1, 2, 3])
    with pytest.raises(hl.DesignError, match=r"several clusters; the labels given has 1"):
        fit.robust(cluster=np.ones(180))
    with pytest.raises(hl.DesignError, match=r"is missing for 0"):
        fit.robust(cluster=table["Subject"].astype(object).where(table.index != 0))
    with pytest.raises(hl.DesignError, match=r"no grouping factor"):
        hl.fit(hl.lmm("Reaction ~ Days"), table).robust()
    with pytest.raises(hl.FitError, match=r"one of CR0, CR1, CR2, CR3; found 'HC3'"):
        fit.robust("HC3")
    with pytest.raises(hl.FitError, match=r"needs a residual variance"):
        exact.robust(cluster=np.array([0, 0, 1, 1, 2]))
    with pytest.raises(hl.DesignError, match=r"frequencies go up to 2"):
        hl.fit(hl.lmm(SLOPES, weights=hl.Frequency("w")), table.assign(w=2)).robust()
