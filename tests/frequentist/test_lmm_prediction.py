"""Predictions over groups and within them, and what their standard errors contain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.likelihood import kackar_sums


def crossed() -> pd.DataFrame:
    """96 rows of 8 groups g crossed with 6 groups h, unbalanced: intercepts of both, slopes and effects of f in g."""
    rng = np.random.default_rng(3)
    g, h, code = np.repeat(np.arange(8), 12), np.tile(np.arange(6), 16), rng.integers(0, 3, 96)
    x = 2 + rng.standard_normal(96)
    y = 1 + 0.4 * x + rng.standard_normal(8)[g] + 0.8 * rng.standard_normal(8)[g] * x + rng.standard_normal(6)[h]
    y += 0.5 * rng.standard_normal((8, 3))[g, code] + 0.6 * rng.standard_normal(96)
    f = np.array(list("abc"))[code]
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "f": f, "w": 1 + g % 2}).drop(index=[2, 3, 4, 31])


def elements(fit):
    """Derivatives of V in the elements of every G, as general blocks have them, and in sigma²; and V itself."""
    n = len(fit.design.y)
    R = np.eye(n) if fit.design.scale is None else np.diag(fit.design.scale)
    V, slopes, moves = fit.sigma2 * R, [], []
    for f, (factor, G) in enumerate(zip(fit.design.factors, fit.G, strict=True)):
        same = factor.codes[:, None] == factor.codes
        V = V + same * (factor.Z @ G @ factor.Z.T)
        for block, structure in zip(factor.blocks, factor.structures, strict=True):
            q = len(G)
            inside = []
            if structure == "general":
                for r in block:
                    for c in [c for c in block if c <= r]:
                        E = np.zeros((q, q))
                        E[r, c] = E[c, r] = 1.0
                        inside.append(E)
            else:
                own = np.zeros((q, q))
                own[np.ix_(block, block)] = 1.0
                inside = [np.diag(np.diagonal(own)), *([own - np.diag(np.diagonal(own))] if structure == "cs" else [])]
            for E in inside:
                slopes.append(same * (factor.Z @ E @ factor.Z.T))
                moves.append((f, E))
    return V, [*slopes, R], [*moves, (-1, np.zeros((1, 1)))]


def weights_of(fit, G, V, k, parts):
    """a of the predictor a'(y - offset) of k'beta + l'b, one row a prediction, with n x n matrices."""
    X = fit.design.X
    W = np.linalg.inv(V)
    gls = np.linalg.solve(X.T @ W @ X, X.T @ W)
    out = k @ gls
    for factor, own, z in zip(fit.design.factors, G, parts, strict=True):
        ZG = np.zeros((len(z), len(X)))
        for level in range(len(factor.levels)):
            here = factor.codes == level
            ZG[:, here] += z[:, level] @ own @ factor.Z[here].T
        out = out + ZG @ W @ (np.eye(len(X)) - X @ gls)
    return out


def written_out(fit, k, parts, kind):
    """g3 = tr[(da/dpsi) V (da/dpsi)' I⁻¹] with n x n matrices, da/dpsi by extrapolated differences."""
    V, slopes, moves = elements(fit)
    X, W = fit.design.X, np.linalg.inv(V)
    P = W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)
    y = fit.design.y - fit.design.offset
    if kind == "expected":
        Q = P if fit.method == "reml" else W
        information = np.array([[0.5 * np.trace(Q @ A @ Q @ B) for B in slopes] for A in slopes])
    else:
        information = np.array([[0.5 * y @ P @ A @ P @ B @ P @ y for B in slopes] for A in slopes])
    C = np.linalg.inv(information)

    def moved(r, step):
        f, E = moves[r]
        G = [own + step * E if g == f else own for g, own in enumerate(fit.G)]
        return weights_of(fit, G, V + step * slopes[r], k, parts)

    def slope(r, h):
        central = [(moved(r, s) - moved(r, -s)) / (2 * s) for s in (h, h / 2)]
        return (4 * central[1] - central[0]) / 3

    D = [slope(r, 1e-3 * np.sqrt(C[r, r])) for r in range(len(slopes))]
    return sum(C[i, j] * np.einsum("ij,jk,ik->i", D[i], V, D[j]) for i in range(len(D)) for j in range(len(D)))


def added(fit, new, **options):
    """g3 as `predict` has it: half of what "estimated" adds to the variance."""
    known, estimated = (fit.predict(new, parameters=of, **options)["se"] ** 2 for of in ("known", "estimated"))
    return ((estimated - known) / 2).to_numpy()


def sums(fit, rows):
    """k and l of x'beta + z'b at some rows of the fit, by position."""
    parts = []
    for factor in fit.design.factors:
        z = np.zeros((len(rows), len(factor.levels), factor.Z.shape[1]))
        z[np.arange(len(rows)), factor.codes[rows]] = factor.Z[rows]
        parts.append(z)
    return fit.design.X[rows], parts


CASES = {
    "one intercept": ("y ~ x + (1 | g)", None, "expected"),
    "slopes": ("y ~ x + (1 + x | g)", None, "expected"),
    "uncorrelated slopes": ("y ~ x + (1 + x || g)", None, "expected"),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", None, "expected"),
    "crossed slopes": ("y ~ x + (1 | h) + (1 + x | g)", None, "expected"),
    "weights": ("y ~ x + (1 | g)", hl.Precision("w"), "expected"),
    "no fixed effects": ("y ~ 0 + (1 | g)", None, "expected"),
    "one variance": ("y ~ x + f + identity(0 + f | g) + (1 | h)", None, "average"),
    "compound symmetry": ("y ~ x + f + cs(0 + f | g)", None, "average"),
}


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", CASES)
def test_the_added_error_is_that_of_dense_matrices(name, method):
    """Kackar & Harville (1984): derivative of the predictor's weights, its variance, and the inverse information."""
    formula, weights, kind = CASES[name]
    fit = hl.fit(hl.lmm(formula, weights=weights), crossed(), method)
    assert not fit.singular
    rows = np.array([0, 7, 20, 41, 55])
    k, parts = sums(fit, rows)

    ours = added(fit, None)[rows]

    assert_allclose(ours, written_out(fit, k, parts, kind), rtol=2e-5)
    nothing = [np.zeros_like(z) for z in parts]
    over = added(fit, None, effects="fixed")[rows]
    assert_allclose(over, written_out(fit, k, nothing, kind), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "model"),
    [("polite_attitude", "politeness/attitude"), ("polite_attitude_gender", "politeness/gender"),
     ("sleep_rs", "sleepstudy/slopes"), ("sleep_ri", "sleepstudy/intercepts")],
)  # fmt: skip
def test_means_over_groups_have_kenward_and_rogers_covariance(case, model):
    """R 4.2.2, pbkrtest 0.5.2, vcovAdj at lme4's optimum refined to stationarity; printed to all digits of a double."""
    loaded = hl.load(model)
    fit = hl.fit(loaded.spec, loaded.data)
    adjusted = np.array(KENWARD_ROGER[case])

    frame = fit.predict(effects="fixed", parameters="estimated")

    expected = np.einsum("ij,jk,ik->i", fit.design.X, adjusted, fit.design.X)
    assert_allclose(frame["se"] ** 2, expected, rtol=1e-6)


KENWARD_ROGER = json.loads((Path(__file__).parents[1] / "data" / "kenward_roger.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("new", [None, [(1.0, 2, 9), (3.0, 8, 3), (5.0, 9, 9)]])
def test_one_factor_by_levels_agrees_with_all_effects_at_once(new):
    """Two roads to one form: a factor alone, and the same beside a second one whose variance is zero."""
    data = crossed()
    table = None if new is None else pd.DataFrame(new, columns=["x", "g", "h"])
    alone = hl.fit(hl.lmm("y ~ x + (1 + x | g)"), data)
    residual = alone.conditional_residuals
    centred = data.assign(y=data["y"] - residual.groupby(data["h"]).transform("mean"))
    one, two = (hl.fit(hl.lmm(f"y ~ x + (1 + x | g){more}"), centred) for more in ("", " + (1 | h)"))
    assert two.G[1][0, 0] == 0

    first, second = (added(fit, table, new_levels="population") for fit in (one, two))

    assert_allclose(first, second, rtol=1e-5)


def test_a_mean_of_a_balanced_layout_has_its_textbook_error():
    """One way, k groups of m: b̂ shrinks by 1 - MSE/MSA, whose estimate has variance 2 (1-γ)² (1/(k-1) + 1/(k(m-1)))
    to first order, so g3 = that times Var(ȳ_i - ȳ) = (k-1)/k MSA/m (Kackar & Harville 1984; Prasad & Rao 1990)."""
    rng = np.random.default_rng(1)
    k, m = 8, 5
    g = np.repeat(np.arange(k), m)
    y = 2 * rng.standard_normal(k)[g] + rng.standard_normal(k * m)
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), pd.DataFrame({"y": y, "g": g}))
    MSE, MSA = fit.sigma2, fit.sigma2 + m * fit.G[0][0, 0]

    expected = 2 * (MSE / MSA) ** 2 * (1 / (k - 1) + 1 / (k * (m - 1))) * (k - 1) / k * MSA / m

    assert_allclose(added(fit, None), expected, rtol=1e-8)


def test_intervals_with_the_added_error_cover_more_nearly_as_often_as_they_say():
    """500 data sets of 8 groups of 4, group variance 2.25, residual variance 1: the means of all
    groups, 95 % intervals. The estimated mean squared error, averaged, is that of the predictions within its Monte
    Carlo error.
    """
    rng = np.random.default_rng(20)
    k, m, B = 8, 4, 500
    g = np.repeat(np.arange(k), m)
    first = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), pd.DataFrame({"y": rng.standard_normal(k * m), "g": g}))
    new = pd.DataFrame({"g": np.arange(k)})
    error, mse, covered = [], [], []
    for _ in range(B):
        b = 1.5 * rng.standard_normal(k)
        fit = first.refit(b[g] + rng.standard_normal(k * m))
        for of in ("known", "estimated"):
            frame = fit.predict(new, parameters=of)
            covered.append(((frame["lower"] <= b) & (b <= frame["upper"])).mean())
            mse.append((frame["se"] ** 2).mean())
        error.append(((frame["estimate"] - b) ** 2).mean())

    (plain, full), (low, high) = np.reshape(mse, (B, 2)).T, np.reshape(covered, (B, 2)).mean(axis=0)
    gap = full - error
    assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(B)
    assert (plain - error).mean() < -3 * (plain - error).std() / np.sqrt(B)
    assert low < high
    assert abs(high - 0.95) < 0.02


def test_means_over_groups_need_no_columns_of_groups():
    """x'beta with the covariance of beta; an observation adds the variance of new groups and of the residual."""
    fit = hl.fit(hl.lmm("y ~ x + (1 + x | g) + (1 | h)"), crossed())
    new = pd.DataFrame({"x": [1.0, 4.0]})
    X = np.column_stack([np.ones(2), new["x"]])

    mean = fit.predict(new, effects="fixed")
    observation = fit.predict(new, effects="fixed", target="observation")

    assert_allclose(mean["estimate"], X @ fit.beta, rtol=1e-12)
    assert_allclose(mean["se"] ** 2, np.einsum("ij,jk,ik->i", X, fit.vcov_beta, X), rtol=1e-9)
    between = np.einsum("ij,jk,ik->i", X, fit.G[0], X) + fit.G[1][0, 0]
    assert_allclose(observation["se"] ** 2 - mean["se"] ** 2, between + fit.sigma2, rtol=1e-9)
    assert (mean["new_levels"] == "").all()
    same = fit.predict(new.assign(g=99, h=99), new_levels="population", target="observation")
    assert_allclose(observation["se"], same["se"], rtol=1e-12)
    with pytest.raises(hl.DesignError, match="g"):
        fit.predict(new)


def test_intervals_have_the_level_that_is_asked_for():
    """Normal intervals; a level outside (0, 1) has none."""
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), crossed())

    half = fit.predict(level=0.5)

    assert_allclose((half["upper"] - half["lower"]) / 2, 0.6744897501960817 * half["se"], rtol=1e-12)
    for level in (0, 1, 95, float("nan")):
        with pytest.raises(hl.FitError, match="level of an interval"):
            fit.predict(level=level)


def test_the_frame_says_what_its_errors_contain():
    """In words, for each combination."""
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), crossed(), "ml")

    said = fit.predict(parameters="estimated", target="observation").attrs["se_contains"]

    assert "Kackar and Harville 1984" in said
    assert "residual variance" in said
    assert "bias" in said
    assert "random effects" not in fit.predict(effects="fixed").attrs["se_contains"]
    at_zero = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff2").data)
    assert "boundary are held there" in at_zero.predict(parameters="estimated").attrs["se_contains"]
    assert "boundary" not in at_zero.predict().attrs["se_contains"] + said


def test_what_is_not_available_is_refused_with_the_reason(monkeypatch):
    """Options that do not exist, correlated residuals, limits without a likelihood, large crossed designs."""
    data = crossed()
    fit = hl.fit(hl.lmm("y ~ x + (1 | g) + (1 | h)"), data)
    for options in ({"effects": "random"}, {"parameters": True}, {"target": "response"}):
        with pytest.raises(hl.FitError, match=f"`{next(iter(options))}` is "):
            fit.predict(**options)
    series = hl.fit(hl.lmm("y ~ x + (1 | g)", residual=hl.CompoundSymmetry("h")), data)
    with pytest.raises(hl.FitError, match="the residuals have the structure CompoundSymmetry"):
        series.predict(parameters="estimated")
    exact = hl.fit(hl.lmm("y ~ x + (1 | g)"), data.assign(y=data["g"] + data["x"]))
    with pytest.raises(hl.FitError, match="no residual variance"):
        exact.predict(parameters="estimated")
    monkeypatch.setattr(kackar_sums, "WHOLE", 10)
    with pytest.raises(hl.FitError, match="crossed"):
        fit.predict(parameters="estimated")


def test_variances_on_the_boundary_are_held():
    """Dyestuff2: the between-batch variance is zero, and what is left is the linear model."""
    case = hl.load("dyestuff2")
    fit = hl.fit(case.spec, case.data)

    assert_allclose(added(fit, None), 0.0, atol=1e-15)
