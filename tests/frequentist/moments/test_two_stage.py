"""Two stages against lmList of R, closed forms, the mixed model in balanced data, and dense algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError
from hierlmm.frequentist.moments.two_stage import two_stage

DATA = Path(__file__).parents[2] / "data"
SLOPES = hl.lmm("Reaction ~ Days + (Days | Subject)")
UNBALANCED = hl.lmm("y ~ x + (x | g)")


@pytest.fixture(scope="module")
def unbalanced():
    return pd.read_csv(DATA / "sim_unbalanced.csv")


def test_group_regressions_are_those_of_lm_list():
    """nlme 3.1.162, lmList(Reaction ~ Days | Subject): coefficients, pooled errors, residual standard error, df."""
    result = two_stage(SLOPES, hl.load("sleepstudy").data)

    frame = result.group_coefficients.head(6)
    estimates = [244.192669090909, 21.76470242424241, 205.054945454546, 2.26178545454545, 203.484225454545, 6.11489878787879]  # fmt: skip  # noqa: E501
    assert_allclose(frame["estimate"], estimates, rtol=1e-12)
    assert_allclose(frame["se"], [15.0416872327141, 2.81756616888191] * 3, rtol=1e-12)
    assert_allclose(np.sqrt(result.sigma2), 25.5918156267252, rtol=1e-12)
    assert result.df == 144
    # qt(0.975, 144) = 1.97657541 (R 4.2.2)
    assert_allclose(frame["upper"] - frame["estimate"], 1.976575066 * frame["se"], rtol=1e-6)


def test_groups_of_unequal_size_are_those_of_lm_list(unbalanced):
    """nlme 3.1.162, lmList(y ~ x | g), groups of 2 to 7 rows."""
    result = two_stage(UNBALANCED, unbalanced)

    intercepts = [4.82876086956522, 5.17422752304214, 3.35334460666444, 3.13842765485021,
                  5.27309356667697, 5.79446851797856, 4.01854203000852, 6.53659322033898]  # fmt: skip
    slopes = [2.239130434782604, 2.736131238768771, 3.059955503319280, 4.435267010712423,
              -0.708068648083295, 0.159606756156586, 4.473792040768887, -0.169491525423731]  # fmt: skip
    assert_allclose(result.coefficients, np.column_stack([intercepts, slopes]), rtol=1e-11)
    se = result.group_coefficients.query("level == 3")["se"]
    assert_allclose(se, [0.824984941674875, 1.23681519795404], rtol=1e-12)
    assert_allclose(np.sqrt(result.sigma2), 0.922606108326195, rtol=1e-12)
    assert result.df == 16


@pytest.mark.parametrize(
    ("name", "spec"), [("sleepstudy", SLOPES), ("sitka", hl.lmm("size ~ Time * treat + (Time | tree)"))]
)
def test_balanced_data_give_the_mixed_model_itself(name, spec):
    """Equal Z_i: both second stages are GLS, and G by moments is REML, here inside the parameter space."""
    data = hl.load(name).data
    result, fit = two_stage(spec, data), hl.fit(spec, data)

    p = len(fit.beta)
    assert result.inside
    assert_allclose(result.sigma2, fit.sigma2, rtol=1e-9)
    assert_allclose(result.G, fit.G[0], rtol=1e-6)
    for stage in ("ols", "weighted"):
        frame = result.fixed[result.fixed["stage"] == stage]
        assert len(frame) == p
        assert_allclose(frame["estimate"], fit.beta, rtol=1e-8)
        assert_allclose(frame["se"], fit.fixed["se"], rtol=1e-6)


def test_coefficients_have_their_mean_and_covariance():
    """Closed form for sleepstudy: means, and Cov(beta_i) - sigma² (Z'Z)^-1, of the 18 regressions."""
    result = two_stage(SLOPES, hl.load("sleepstudy").data)

    assert_allclose(result.beta_ols, result.coefficients.mean(axis=0), rtol=1e-12)
    Z = np.column_stack([np.ones(10), np.arange(10)])
    G = np.cov(result.coefficients.T) - result.sigma2 * np.linalg.inv(Z.T @ Z)
    assert_allclose(result.G, G, rtol=1e-10)


def test_the_moment_equations_are_unbiased_in_unbalanced_data(unbalanced):
    """E sum r r' by the (mq, mq) matrix of the residuals, at the estimated G and sigma², is what was observed."""
    data = unbalanced.assign(z=lambda d: d["g"] % 3)
    result = two_stage(hl.lmm("y ~ x * z + (x | g)"), data)
    m, q, p = result.predictors.shape
    K = result.predictors.reshape(m * q, p)
    M = np.eye(m * q) - K @ np.linalg.pinv(K)
    spread = np.zeros((m * q, m * q))
    for i in range(m):
        spread[i * q : (i + 1) * q, i * q : (i + 1) * q] = result.G + result.sigma2 * result.unscaled[i]

    r = (M @ result.coefficients.ravel()).reshape(m, q)
    expected = np.einsum("iaib->ab", (M @ spread @ M).reshape(m, q, m, q))

    assert_allclose(r.T @ r, expected, rtol=1e-9)
    W = np.linalg.inv(spread - np.kron(np.eye(m), result.G - result.G_inside))
    assert_allclose(
        result.beta_weighted, np.linalg.solve(K.T @ W @ K, K.T @ W @ result.coefficients.ravel()), rtol=1e-9
    )
    assert_allclose(result.vcov_weighted, np.linalg.inv(K.T @ W @ K), rtol=1e-9)


def test_the_weighted_stage_is_gls_of_the_rows(unbalanced):
    """Laird & Ware (1982): with every group fitted, GLS with V_i = Z_i G Z_i' + sigma² I."""
    result = two_stage(UNBALANCED, unbalanced)
    (factor,) = result.design.factors
    X, y = result.design.X, result.design.y
    same = factor.codes[:, None] == factor.codes
    V = result.sigma2 * np.eye(len(y)) + same * (factor.Z @ result.G_inside @ factor.Z.T)
    W = np.linalg.solve(V, X)

    assert not result.inside
    assert "NOT A COVARIANCE MATRIX" in result.summary()
    assert_allclose(result.beta_weighted, np.linalg.solve(X.T @ W, W.T @ y), rtol=1e-9)
    assert_allclose(result.vcov_weighted, np.linalg.inv(X.T @ W), rtol=1e-9)


def test_groups_that_cannot_be_fitted_are_listed(unbalanced):
    more = pd.DataFrame({"g": [20, 21, 21], "x": [0.5, 0.25, 0.25], "y": [1.0, 2.0, 3.0]})
    whole = two_stage(UNBALANCED, pd.concat([unbalanced, more], ignore_index=True))

    assert whole.unfitted["level"].tolist() == [20, 21]
    assert whole.unfitted["rows"].tolist() == [1, 2]
    assert whole.unfitted["reason"].tolist() == [
        "1 row for 2 coefficients",
        "Intercept, x are linearly dependent in it",
    ]
    assert_allclose(whole.beta_ols, two_stage(UNBALANCED, unbalanced).beta_ols, rtol=1e-12)
    assert max(map(len, whole.summary().splitlines())) <= 80


def test_frequencies_are_repeated_rows(unbalanced):
    data = unbalanced.assign(w=lambda d: 1 + d.index % 2)
    repeated = data.loc[data.index.repeat(data["w"])].reset_index(drop=True)

    one = two_stage(hl.lmm("y ~ x + (x | g)", weights=hl.Frequency("w")), data)
    two = two_stage(UNBALANCED, repeated)

    assert one.df == two.df
    assert_allclose(one.G, two.G, rtol=1e-9)
    assert_allclose(one.beta_weighted, two.beta_weighted, rtol=1e-9)


@pytest.mark.parametrize(
    ("formula", "match"),
    [
        ("y ~ x + (1 | g)", "every fixed effect is explained by coefficients that vary by group; x varies within"),
        ("y ~ x + (x | g) + (1 | h)", "one grouping factor; the model has g, h"),
        ("y ~ x", "one grouping factor; the model has none"),
    ],
)
def test_models_outside_two_stages_are_refused(unbalanced, formula, match):
    with pytest.raises(DesignError, match=match):
        two_stage(hl.lmm(formula), unbalanced.assign(h=lambda d: d.index % 4))


def test_specs_structures_and_streams_are_checked(unbalanced):
    with pytest.raises(DesignError, match=r"made by hl\.lmm"):
        two_stage("y ~ x + (x | g)", unbalanced)
    with pytest.raises(DesignError, match="independent residuals of one variance"):
        two_stage(hl.lmm("y ~ x + (x | g)", residual=hl.Stratified("h")), unbalanced.assign(h=lambda d: d.index % 2))


def test_too_few_rows_or_groups_are_refused(unbalanced):
    short = unbalanced.assign(i=lambda d: d.groupby("g").cumcount())
    with pytest.raises(DesignError, match="more rows than coefficients; all 8 have 2 rows or fewer"):
        two_stage(UNBALANCED, short[short["i"] < 2])
    with pytest.raises(DesignError, match="more coefficients of groups than fixed effects; 1 groups can be fitted"):
        two_stage(UNBALANCED, short[(short["i"] < 1) | (short["g"] == 5)])
    with pytest.raises(DesignError, match="their predictors are dependent"):
        two_stage(
            hl.lmm("y ~ z * x + (x | g)"), short[(short["i"] < 1) | (short["g"] > 4)].assign(z=lambda d: d["g"] < 3)
        )
    three = short[(short["i"] < 1) | short["g"].isin([4, 5, 6])].assign(z=lambda d: d["g"] % 2, w=lambda d: d["g"] > 5)
    with pytest.raises(DesignError, match="more groups than the second stage has predictors"):
        two_stage(hl.lmm("y ~ x + z + w + (x | g)"), three)
