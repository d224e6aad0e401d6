"""Tests of fixed effects where the answer is known exactly, and properties that hold for every design."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import hierlmm as hl
from hierlmm.design import layout
from hierlmm.errors import FitError
from hierlmm.frequentist.inference.kenward_roger import kenward_roger
from hierlmm.frequentist.inference.satterthwaite import fai_cornelius, satterthwaite

SLEEP = hl.load("sleepstudy").data


def crossed(seed: int = 1, n: int = 600) -> pd.DataFrame:
    """Two crossed factors of many levels, few of whose pairs occur, and a slope."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"g": rng.integers(0, 120, n), "h": rng.integers(0, 80, n), "x": rng.normal(size=n)})
    slope = rng.normal(0.3, 0.6, 120)[table["g"]]
    effects = rng.normal(size=120)[table["g"]] + rng.normal(0, 0.8, 80)[table["h"]]
    return table.assign(y=effects + slope * table["x"] + rng.normal(size=n))


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger", "residual"])
def test_without_random_effects_the_tests_are_those_of_regression(df):
    """Least squares: t with n - p degrees of freedom, exactly, and F for several coefficients."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + I(Days ** 2)"), SLEEP)
    X = np.column_stack([np.ones(180), SLEEP["Days"], SLEEP["Days"] ** 2])
    beta, rss = np.linalg.lstsq(X, SLEEP["Reaction"], rcond=None)[:2]
    rss0 = float(((SLEEP["Reaction"] - SLEEP["Reaction"].mean()) ** 2).sum())
    F = (rss0 - rss[0]) / 2 / (rss[0] / 177)

    found = fit.test("Days, I(Days ** 2)", df=df)

    assert_allclose(found.table["estimate"], beta[1:], rtol=1e-8)
    assert (found.num_df, found.den_df) == (2, pytest.approx(177, rel=1e-10))
    assert_allclose([found.statistic, found.p], [F, stats.f.sf(F, 2, 177)], rtol=1e-8)


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_balanced_split_plot_has_the_degrees_of_freedom_of_its_strata(df):
    """Whole plots carry `a`, plots within them `b`: F tests with 6 and 16 degrees of freedom, as by anova tables."""
    rng = np.random.default_rng(4)
    rows = [(a, f"{a}{r}", b) for a in "uv" for r in range(4) for b in "pqr"]
    table = pd.DataFrame(rows, columns=["a", "plot", "b"])
    table["y"] = rng.normal(size=24) + table["plot"].map(
        dict(zip(table["plot"].unique(), rng.normal(size=8), strict=True))
    )
    cell = table.groupby(["a", "b"])["y"].transform("mean")
    plot, a_mean = table.groupby("plot")["y"].transform("mean"), table.groupby("a")["y"].transform("mean")
    whole = 3 * ((plot - a_mean)[::3] ** 2).sum() / 6
    within = ((table["y"] - plot - cell + a_mean) ** 2).sum() / 12
    b_mean, grand = table.groupby("b")["y"].transform("mean"), table["y"].mean()
    assert whole > within
    expected = {
        "a": (1, 6, ((a_mean - grand) ** 2).sum() / whole),
        "b": (2, 12, ((b_mean - grand) ** 2).sum() / 2 / within),
        "a:b": (2, 12, ((cell - a_mean - b_mean + grand) ** 2).sum() / 2 / within),
    }

    for kind in (1, 2, 3):
        found = hl.fit(hl.lmm("y ~ a * b + (1 | plot)"), table).anova(type=kind, df=df).table.set_index("term")
        for term, (num_df, den_df, F) in expected.items():
            assert found.loc[term, "num_df"] == num_df
            assert_allclose(found.loc[term, ["den_df", "statistic"]].astype(float), [den_df, F], rtol=1e-6)


def test_satterthwaite_is_that_of_a_dense_likelihood_by_differences():
    """The formula itself on 60 rows: Hessian and Cov(beta) of a likelihood written out with full matrices."""
    table = crossed(3, 60).assign(g=lambda t: t["g"] % 7)
    table["y"] += np.linspace(-2, 2, 7)[table["g"]]
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table)
    X, g = fit.design.X, fit.design.factors[0].codes
    same = (g[:, None] == g).astype(float)

    def parts(psi):
        V = psi[0] * same + psi[1] * np.eye(60)
        inverse = np.linalg.inv(V)
        C = np.linalg.inv(X.T @ inverse @ X)
        e = fit.design.y - X @ (C @ X.T @ inverse @ fit.design.y)
        logs = np.linalg.slogdet(V)[1] - np.linalg.slogdet(C)[1]
        return logs + e @ inverse @ e, C

    psi = np.array([fit.G[0][0, 0], fit.sigma2])
    h = 1e-3 * psi
    unit = np.eye(2)
    H = np.array([[(parts(psi + h * (unit[i] + unit[j]))[0] - parts(psi + h * (unit[i] - unit[j]))[0]
                    - parts(psi - h * (unit[i] - unit[j]))[0] + parts(psi - h * (unit[i] + unit[j]))[0])
                   / (4 * h[i] * h[j]) for j in range(2)] for i in range(2)])  # fmt: skip
    slopes = [(parts(psi + h * e)[1] - parts(psi - h * e)[1]) / (2 * h @ e) for e in unit]
    A = 2 * np.linalg.inv(H)
    for j in range(2):
        gradient = np.array([slope[j, j] for slope in slopes])
        expected = 2 * fit.vcov_beta[j, j] ** 2 / (gradient @ A @ gradient)

        assert_allclose(satterthwaite(fit).df(np.eye(2)[j]), expected, rtol=1e-4)


def test_kenward_roger_is_the_formula_with_full_matrices():
    """Kenward & Roger (1997) term by term with n x n matrices, for crossed factors with slopes."""
    table = crossed(5, 90).assign(g=lambda t: t["g"] % 8, h=lambda t: t["h"] % 5)
    fit = hl.fit(hl.lmm("y ~ x + (x | g) + (1 | h)"), table)
    X = fit.design.X
    moves, V = [np.eye(90)], fit.sigma2 * np.eye(90)
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        Z = np.einsum("il,iq->ilq", np.eye(len(factor.levels))[factor.codes], factor.Z)
        q = len(G)
        V = V + np.einsum("ila,ab,jlb->ij", Z, G, Z)
        for a in range(q):
            for b in range(a + 1):
                E = np.zeros((q, q))
                E[a, b] = E[b, a] = 1
                moves.append(np.einsum("ila,ab,jlb->ij", Z, E, Z))
    W = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ W @ X)
    P = W - W @ X @ Phi @ X.T @ W
    info = 0.5 * np.array([[np.sum((P @ r) * (P @ s).T) for s in moves] for r in moves])
    weights = np.linalg.inv(info)
    slopes = [-X.T @ W @ r @ W @ X for r in moves]
    Lambda = sum(weights[i, j] * (X.T @ W @ r @ W @ s @ W @ X - slopes[i] @ Phi @ slopes[j])
                 for i, r in enumerate(moves) for j, s in enumerate(moves))  # fmt: skip

    found = kenward_roger(fit)

    assert_allclose(found.adjusted, Phi + 2 * Phi @ Lambda @ Phi, rtol=1e-8)
    # for one contrast the degrees of freedom are 2 / A2 and the scale is 1
    turned = [Phi[1] @ s @ Phi[1] / Phi[1, 1] for s in slopes]
    A2 = np.array(turned) @ weights @ np.array(turned)
    assert_allclose(found.joint(np.array([[0.0, 1.0]])), [2 / A2, 1.0], rtol=1e-8)


def dense_adjusted(X: np.ndarray, V: np.ndarray, moves: list[np.ndarray]) -> np.ndarray:
    """Kenward & Roger (1997) with n x n matrices, V linear in the coefficients of `moves`."""
    W = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ W @ X)
    P = W - W @ X @ Phi @ X.T @ W
    weights = np.linalg.inv(0.5 * np.array([[np.sum((P @ r) * (P @ s).T) for s in moves] for r in moves]))
    slopes = [-X.T @ W @ r @ W @ X for r in moves]
    added = sum(weights[i, j] * (X.T @ W @ r @ W @ s @ W @ X - slopes[i] @ Phi @ slopes[j])
                for i, r in enumerate(moves) for j, s in enumerate(moves))  # fmt: skip
    return Phi + 2 * Phi @ added @ Phi


@pytest.mark.parametrize("structure", [hl.Unstructured, hl.Toeplitz])
def test_kenward_roger_of_residual_structures_is_the_formula_with_full_matrices(structure):
    """Sitka with gaps: covariances by occasion or by lag, differentiated against written out."""
    data = hl.load("sitka").data
    data = data.assign(occ=data.groupby("tree")["Time"].rank().astype(int))[(7 * np.arange(len(data))) % 11 != 3]
    data = data[data["tree"].isin(data["tree"].unique()[::3])]
    fit = hl.fit(hl.lmm("size ~ Time * treat", residual=structure("tree", "occ")), data)
    tree, occ = data["tree"].to_numpy(), data["occ"].to_numpy() - 1
    same = tree[:, None] == tree
    V = same * fit.residual_covariance.to_numpy()[np.ix_(occ, occ)]
    if structure is hl.Toeplitz:
        moves = [same * (np.abs(occ[:, None] - occ) == lag) for lag in range(5)]
    else:
        pairs = [((occ == i)[:, None] & (occ == j)) for i in range(5) for j in range(i + 1)]
        moves = [same * (pair | pair.T) for pair in pairs]

    found = kenward_roger(fit)

    expected = dense_adjusted(fit.design.X, V, [move.astype(float) for move in moves])
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert_allclose(found.adjusted / scale, expected / scale, rtol=0, atol=1e-7)


def test_kenward_roger_of_strata_is_the_formula_with_full_matrices():
    """A random intercept beside a residual variance for each gender."""
    data = hl.load("politeness").data.dropna()
    fit = hl.fit(hl.lmm("frequency ~ attitude * gender + (1 | subject)", residual=hl.Stratified("gender")), data)
    same = (data["subject"].to_numpy()[:, None] == data["subject"].to_numpy()).astype(float)
    strata = [np.diag((data["gender"] == g).to_numpy().astype(float)) for g in "FM"]
    variances = fit.variance_components.query("group == 'Residual' and quantity == 'variance'")["estimate"]
    V = fit.G[0][0, 0] * same + sum(v * part for v, part in zip(variances, strata, strict=True))

    assert_allclose(kenward_roger(fit).adjusted, dense_adjusted(fit.design.X, V, [same, *strata]), rtol=1e-7)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g) + (1 | h)", "y ~ x + (1 | g) + (x || h)"])
def test_cells_give_what_dense_products_give(formula, monkeypatch):
    """Traces by extrapolated differences over cells against block algebra: degrees of freedom to 1e-8."""
    unit, found = np.eye(2), []
    for few in (1.0, 0.0):
        monkeypatch.setattr(layout, "FEW_CELLS", few)
        fit = hl.fit(hl.lmm(formula), crossed())
        assert (fit.equations.cells is not None) == bool(few)
        kr, own = kenward_roger(fit), satterthwaite(fit)
        found.append([*kr.joint(unit), *kr.adjusted.ravel(), *(own.df(row) for row in unit), own.joint_df(unit)])

    assert_allclose(found[0], found[1], rtol=1e-8)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g) + (1 | h)"])
def test_cells_on_the_boundary_give_what_dense_products_give(formula, monkeypatch):
    """A response without effects: variances of zero, from which differences go one way."""
    table = crossed().assign(y=np.random.default_rng(8).normal(size=600))
    unit, found = np.eye(2), []
    for few in (1.0, 0.0):
        monkeypatch.setattr(layout, "FEW_CELLS", few)
        fit = hl.fit(hl.lmm(formula), table)
        assert fit.singular
        kr, own = kenward_roger(fit), satterthwaite(fit)
        found.append([*kr.joint(unit), *kr.adjusted.ravel(), *(own.df(row) for row in unit)])

    assert_allclose(found[0], found[1], rtol=1e-5)


def test_degrees_of_freedom_do_not_depend_on_units_origin_or_order():
    """Days in hours from another origin, responses in seconds, rows reversed: the same tests of the same hypotheses."""
    moved = SLEEP.assign(hours=24 * SLEEP["Days"] - 3000.0, y=SLEEP["Reaction"] / 1000)[::-1]
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), SLEEP)
    other = hl.fit(hl.lmm("y ~ hours + (hours | Subject)"), moved)
    for df in ("satterthwaite", "kenward-roger"):
        first, second = fit.test("Days", df=df), other.test("hours", df=df)

        assert_allclose(
            [first.statistic, first.den_df, first.p], [second.statistic, second.den_df, second.p], rtol=1e-7
        )


def test_kenward_roger_does_not_depend_on_how_the_hypothesis_is_written():
    """The same space of contrasts in another basis: the same F, scale and degrees of freedom."""
    fit = hl.fit(hl.lmm("y ~ x + I(x ** 2) + (1 | g)"), crossed())
    L = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    first = fit.test(L, df="kenward-roger")
    second = fit.test(np.array([[3.0, 1.0], [-2.0, 5.0]]) @ L, df="kenward-roger")

    assert_allclose([first.statistic, first.den_df], [second.statistic, second.den_df], rtol=1e-9)


def test_compound_symmetry_of_residuals_is_the_random_intercept():
    """The same covariance matrix written as residuals: differences of gradients against block algebra."""
    sitka = hl.load("sitka").data
    residual = hl.fit(hl.lmm("size ~ Time * treat", residual=hl.CompoundSymmetry("tree")), sitka)
    random = hl.fit(hl.lmm("size ~ Time * treat + (1 | tree)"), sitka)

    for df in ("satterthwaite", "kenward-roger"):
        first, second = residual.anova(df=df), random.anova(df=df)

        assert_allclose(first.table.iloc[:, 1:].astype(float), second.table.iloc[:, 1:].astype(float), rtol=1e-7)


def test_unstructured_residuals_of_complete_data_leave_groups_less_treatments():
    """Multivariate analysis of variance: 79 trees in two treatments, 77 degrees of freedom for every coefficient."""
    sitka = hl.load("sitka").data
    sitka = sitka.assign(occ=sitka.groupby("tree")["Time"].rank().astype(int))
    fit = hl.fit(hl.lmm("size ~ Time * treat", residual=hl.Unstructured("tree", "occ")), sitka)

    assert_allclose(fit.test(np.eye(4)).table["df"], 77.0, rtol=1e-7)


def test_frequencies_count_as_rows_written_out():
    """Tables of all types with frequency weights and with each row as often as it counts."""
    table = crossed(n=200).assign(f=np.arange(200) % 3, a=np.array(list("pqr"))[np.arange(200) * 7 % 11 % 3])
    weighted = hl.fit(hl.lmm("y ~ a * x + (1 | g)", weights=hl.Frequency("f")), table)
    written = hl.fit(hl.lmm("y ~ a * x + (1 | g)"), table.loc[table.index.repeat(table["f"])].reset_index(drop=True))
    for kind in (1, 2, 3):
        first, second = weighted.anova(type=kind).table, written.anova(type=kind).table

        assert_allclose(first.iloc[:, 1:].astype(float), second.iloc[:, 1:].astype(float), rtol=1e-7)


def test_type_three_does_not_depend_on_the_coding():
    """Treatment, sum and Helmert coding of the same factors: one table, that of the coefficients under sum coding."""
    table = crossed(n=300).assign(a=lambda t: (t["g"] * 5 % 3).map({0: "u", 1: "v", 2: "w"}), b=lambda t: t["h"] % 2)
    table["b"] = table["b"].map({0: "k", 1: "m"})
    plain = hl.fit(hl.lmm("y ~ a * b + a:x + (1 | g)"), table).anova(df="residual").table
    summed = hl.fit(hl.lmm("y ~ C(a, contr.sum) * C(b, contr.sum) + C(a, contr.sum):x + (1 | g)"), table)
    helmert = hl.fit(hl.lmm("y ~ C(a, contr.helmert) * C(b, contr.sum) + C(a, contr.helmert):x + (1 | g)"), table)
    by_hand = [summed.test([n for n in summed.design.fixed if n.startswith("C(a") and ":" not in n], df="residual")]

    for other in (summed, helmert):
        assert_allclose(plain["statistic"], other.anova(df="residual").table["statistic"], rtol=1e-8)
    assert_allclose(plain["statistic"][0], by_hand[0].statistic, rtol=1e-8)


def test_missing_cells_refuse_type_three_and_allow_type_two():
    """A cell without rows: equal weights over cells are not estimable, the comparison of models is."""
    data = hl.load("politeness").data
    data = data[~((data["scenario"] == 3) & (data["attitude"] == "pol"))]
    fit = hl.fit(hl.lmm("frequency ~ C(scenario) * attitude + (1 | subject)"), data)

    assert fit.anova(type=2).table["num_df"].tolist() == [6, 1, 5]
    with pytest.raises(FitError, match=r"equally.*aliased.*type=2"):
        fit.anova(type=3)


def test_fai_and_cornelius_match_the_mean_of_f():
    """E F(q, df) = df / (df - 2) is the mean of the expected squared t."""
    single = np.array([5.0, 9.0, 30.0])

    df = fai_cornelius(single)

    assert_allclose(df / (df - 2), (single / (single - 2)).mean(), rtol=1e-12)
    assert fai_cornelius(np.array([7.0, 7.0])) == 7.0
    assert fai_cornelius(np.array([1.5, 50.0])) == 2.0


def test_kenward_roger_holds_its_level_where_wald_does_not():
    """Six groups, a predictor between them, 300 samples: 5 % of rejections within 4 Monte Carlo errors, Wald many."""
    rng = np.random.default_rng(11)
    table = pd.DataFrame({"g": np.repeat(np.arange(6), 5), "z": np.repeat([0, 1, 0, 1, 0, 1], 5)})
    table["y"] = rng.normal(size=6)[table["g"]] + rng.normal(size=30)
    fit = hl.fit(hl.lmm("y ~ z + (1 | g)"), table)
    draws = rng.normal(size=(300, 6))[:, table["g"]] + rng.normal(size=(300, 30))
    p = {"kenward-roger": [], "normal": []}
    for y in draws:
        other = fit.refit(y)
        for df, found in p.items():
            found.append(other.test("z", df=df).p)

    level = {df: np.mean(np.array(found) < 0.05) for df, found in p.items()}
    assert abs(level["kenward-roger"] - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)
    assert level["normal"] > 0.1


def test_boundary_is_said():
    """A correlation of 1 is held by Satterthwaite and free for Kenward-Roger; both say so."""
    fit = hl.fit(hl.lmm("frequency ~ attitude + gender + (1 + attitude | subject) + (1 | scenario)"),
                 hl.load("politeness").data)  # fmt: skip

    assert "subject" in fit.test("attitude").notes[0]
    assert "boundary" in fit.test("attitude", df="kenward-roger").notes[0]
