"""Thinned direct estimates: two independent parts, scores without bias, and areas left out beside them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import ComparisonError, FitError, SpecError
from hierlmm.frequentist.area.thinning import area_design, draw, split
from hierlmm.frequentist.area.validation import _scored
from hierlmm.frequentist.area.validation_results import DIRECT

SPEC = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")
MEAN = hl.fay_herriot("y ~ 1", sampling_variance="D", area="area", unsampled="synthetic")


def table(m=20, seed=1, A=1.0):
    rng = np.random.default_rng(seed)
    D, x = rng.uniform(0.3, 3.0, m), rng.normal(size=m)
    y = 2 + x + rng.normal(size=m) * np.sqrt(A + D)
    return pd.DataFrame({"area": [f"a{i}" for i in range(m)], "y": y, "D": D, "x": x, "other": "kept out"})


def test_parts_have_the_variances_of_smaller_surveys_and_are_uncorrelated():
    """ε y₁ + (1 − ε) y₂ = y exactly; over 50,000 splits of one y the moments that independence over y asks for."""
    design = area_design(SPEC, table(m=4), None)
    noise, epsilon = draw(design, 50_000, np.random.default_rng(1)), 0.3
    one, two = (np.array(part) for part in zip(*(split(design, e, epsilon) for e in noise), strict=True))
    D = design.D

    assert_allclose(epsilon * one + (1 - epsilon) * two, np.broadcast_to(design.y, one.shape), rtol=1e-12)
    close = {"rtol": 0.03}
    assert_allclose(D + one.var(axis=0), D / epsilon, **close)
    assert_allclose(D + two.var(axis=0), D / (1 - epsilon), **close)
    covariance = D + np.mean((one - design.y) * (two - design.y), axis=0)
    assert_allclose(covariance, 0, atol=0.03 * D.max())


def test_thinned_tables_are_area_level_data_of_the_same_spec():
    """Variances over the shares; areas without a direct estimate as they were; rows and other areas in order."""
    data = table()
    data.loc[2, "y"] = np.nan

    parts = hl.thin(SPEC, data, 0.25, seed=3)

    for part, share in ((parts.train, 0.25), (parts.test, 0.75)):
        fit = hl.fit(SPEC, part)
        assert list(fit.areas["area"]) == list(data["area"])
        assert fit.areas["role"][2] == "unsampled"
        assert_allclose(part["D"].drop(2), data["D"].drop(2) / share)
    assert_allclose((0.25 * parts.train["y"] + 0.75 * parts.test["y"]).drop(2), data["y"].drop(2), rtol=1e-12)
    assert data["D"].iloc[0] == table()["D"].iloc[0]
    assert_allclose(hl.thin(SPEC, data, 0.25, seed=3).train["y"], parts.train["y"])


def test_correlated_sampling_errors_are_split_with_their_matrix():
    """S of two blocks by label: the matrices of the parts are S/ε and S/(1 − ε), the noise has covariance S."""
    data = table(m=6)
    S = pd.DataFrame(np.diag(data["D"].to_numpy()), data["area"], data["area"])
    S.iloc[0, 1] = S.iloc[1, 0] = 0.25
    spec = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area")
    design = area_design(spec, data, {"S": S.iloc[::-1, ::-1]})

    parts = hl.thin(spec, data, 0.5, seed=1, matrices={"S": S})
    noise = draw(design, 50_000, np.random.default_rng(1))

    assert_allclose(parts.train_matrices["S"], 2 * S)
    assert_allclose(np.cov(noise.T), S, atol=0.05)
    assert len(parts.train) == 6


def test_scores_of_a_linear_estimate_have_the_mean_that_algebra_gives():
    """θ̂ = B x'β + (1 − B) y₁ with B and β fixed: given y, E = (B(x'β − y))² + (1 − B)² D(1 − ε)/ε + 2(1 − B)D − D; and
    for the direct estimate, B = 0, D/ε."""
    design = area_design(SPEC, table(m=6), None)
    epsilon, R, y, D = 0.6, 40_000, design.y, design.D
    e = draw(design, R, np.random.default_rng(5))
    B, target = D / (1.5 + D), 2 + design.X[:, 1]
    one = y + np.sqrt((1 - epsilon) / epsilon) * e

    found = _scored("", "", design, B * target + (1 - B) * one, np.ones((R, 6)), e, epsilon, 0.95)
    direct = _scored("", "", design, one, np.ones((R, 6)), e, epsilon, 0.95)

    exact = (B * (target - y)) ** 2 + (1 - B) ** 2 * D * (1 - epsilon) / epsilon + 2 * (1 - B) * D - D
    for scores, expected in ((found, exact), (direct, D / epsilon)):
        mc = scores.squared.std(axis=0) / np.sqrt(R)
        assert (np.abs(scores.squared.mean(axis=0) - expected) < 4 * mc).all()


def test_scores_estimate_the_squared_error_of_the_fit_without_bias():
    """150 data sets with the truth known, two splits each: score less (θ̂ − θ)² has mean zero, whole areas likewise."""
    rng = np.random.default_rng(7)
    data = table(m=15)
    apart, ahead = [], []
    for k in range(150):
        theta = 2 + data["x"].to_numpy() + rng.normal(size=15)
        drawn = data.assign(y=theta + rng.normal(size=15) * np.sqrt(data["D"]))
        found = hl.validate(
            SPEC, drawn, "pr", seed=k, repetitions=2, leave_out="areas" if k < 30 else "nothing"
        )
        for r, e in enumerate(draw(area_design(SPEC, drawn, None), 2, np.random.default_rng(k))):
            one, _ = split(area_design(SPEC, drawn, None), e, found.epsilon)
            fit = hl.fit(SPEC, drawn.assign(y=one, D=drawn["D"] / found.epsilon), "pr")
            apart.append(np.mean(found.thinned[1].squared[r] - (fit.eblup - theta) ** 2))
        if k < 30:
            without = hl.fit(SPEC, drawn, "pr").influence().found.estimate
            ahead.append(np.mean(found.left_out[0].squared[0] - (without - theta) ** 2))

    for values in (np.array(apart).reshape(-1, 2).mean(axis=1), np.array(ahead)):
        assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))


def test_validation_fits_what_hl_fit_fits_and_a_function_may_do_it():
    """By name and by a function that calls hl.fit: one and the same; a posterior is close to it."""
    data = table()

    def by_reml(spec, part):
        return hl.fit(spec, part, "reml")

    def by_bayes(spec, part):
        return hl.posterior(spec, part, draws=0, seed=1)

    found = hl.validate(SPEC, data, ["reml", by_reml, by_bayes], seed=1, repetitions=3)

    frame = found.frame.set_index("method")
    assert_allclose(frame.loc["by_reml", ["mse", "log_score"]], frame.loc["reml", ["mse", "log_score"]], rtol=1e-9)
    assert_allclose(frame.loc["by_bayes", "mse"], frame.loc["reml", "mse"], rtol=0.2)
    assert len(found.left_out) == 1
    parts = hl.thin(SPEC, data, found.epsilon, seed=1)
    fit = hl.fit(SPEC, parts.train)
    inside = np.abs(parts.test["y"] - fit.eblup) <= 1.959963984540054 * np.sqrt(fit.mse + parts.test["D"])
    assert_allclose(found.thinned[1].inside[0], inside)


def test_left_out_areas_are_predicted_from_the_rest():
    """Squared distance less D, interval with D, log density: of the fit to the table without the area."""
    data = table()
    scores = hl.validate(SPEC, data, seed=1, repetitions=2).left_out[0]

    rest = hl.fit(SPEC, data.drop(4))
    row, y, D = rest.predict(data.iloc[[4]]).iloc[0], data["y"][4], data["D"][4]
    variance = row["mse"] + D
    assert_allclose(scores.squared[0, 4], (row["estimate"] - y) ** 2 - D, rtol=1e-9)
    expected = -(np.log(2 * np.pi * variance) + (row["estimate"] - y) ** 2 / variance) / 2
    assert_allclose(scores.log_score[0, 4], expected, rtol=1e-9)


def test_repetitions_depend_on_the_seed_and_their_number_and_models_share_them():
    """The first of ten splits are the five; the direct estimates score the same beside any model."""
    data = table()

    few, more = (hl.validate([SPEC, MEAN], data, seed=2, repetitions=n) for n in (5, 10))
    alone = hl.validate(MEAN, data, seed=2, repetitions=5, leave_out="nothing")

    for a, b in zip(few.thinned, more.thinned, strict=True):
        assert_allclose(a.squared, b.squared[:5], rtol=1e-12)
    assert_allclose(few.frame["relative"][1], np.mean(few.thinned[1].squared / data["D"].to_numpy()), rtol=1e-12)
    assert_allclose(alone.thinned[1].squared, few.thinned[2].squared, rtol=1e-12)
    assert alone.left_out == ()
    assert list(few.frame["model"]) == [DIRECT, "y ~ 1 + x", "y ~ 1"]
    assert len(few.by_area) == 5 * 20


def test_the_model_that_made_the_data_comes_first_and_the_summary_says_what_was_asked():
    """A covariate that explains half of the variance, by both ways; 80 columns; the other question is named."""
    found = hl.validate({"x": SPEC, "mean": MEAN, "fh": (SPEC, "fh")}, table(m=60, A=0.3), seed=1, repetitions=20)

    assert found.best in ("x", "fh")
    frame = found.frame.set_index("model")
    assert frame.loc["mean", "behind"] > 2 * frame.loc["mean", "behind_se"]
    assert 0.9 <= frame.loc["x", "coverage"] <= 1
    assert "asks another question" in found.summary()
    assert all(len(line) <= 80 for line in found.summary().splitlines())


def test_models_of_other_data_are_not_scored_together():
    """Another area in the fit, another scale; a linear mixed model; functions that return something else."""
    data = table()
    data.loc[3, "x"] = np.nan
    drop = {"sampling_variance": "D", "area": "area", "missing_covariates": "drop"}
    positive = table().assign(y=lambda t: np.exp(t["y"] / 4))
    log = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", transformation=hl.Log())

    with pytest.raises(ComparisonError, match=r"same areas in the fit; .* differ in a3"):
        hl.validate([hl.fay_herriot("y ~ 1", **drop), hl.fay_herriot("y ~ x", **drop)], data, seed=1)
    with pytest.raises(ComparisonError, match="same direct estimates"):
        hl.validate({"plain": SPEC, "log": log}, positive, seed=1)
    with pytest.raises(SpecError, match="takes an area-level model"):
        hl.validate(hl.lmm("y ~ x + (1 | area)"), table(), seed=1)
    with pytest.raises(FitError, match="frame with area, estimate and se"):
        hl.validate(SPEC, table(), lambda spec, part: 1, seed=1)
    with pytest.raises(SpecError, match="Use one of: reml, ml"):
        hl.validate(SPEC, table(), "rmel", seed=1)
    with pytest.raises(ComparisonError, match="need names"):
        hl.validate([SPEC, SPEC], table(), seed=1)
    for models, method in (({}, "reml"), (SPEC, [])):
        with pytest.raises(SpecError, match="found none of one or the other"):
            hl.validate(models, table(), method, seed=1)


def test_a_model_may_have_the_name_of_the_direct_estimates():
    """It is told apart, and is the best of the models."""
    found = hl.validate({DIRECT: SPEC}, table(), seed=1, repetitions=2, leave_out="nothing")

    assert found.frame["model"].nunique() == 2
    assert found.best == found.frame["model"][1]


@pytest.mark.parametrize("epsilon", [0, 1, -0.5, "half", np.nan])
def test_the_share_lies_between_0_and_1(epsilon):
    """Refused by both functions."""
    with pytest.raises(FitError, match="share of the information"):
        hl.thin(SPEC, table(), epsilon, seed=1)
    with pytest.raises(FitError, match="share of the information"):
        hl.validate(SPEC, table(), epsilon=epsilon, seed=1)


def test_what_cannot_be_put_in_a_table_is_refused_with_the_way_out():
    """A response that is an expression; a transformation, whose errors are normal on another scale."""
    expression = hl.fay_herriot("I(y * 2) ~ x", sampling_variance="D", area="area")
    log = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", transformation=hl.Log())
    positive = table().assign(y=lambda t: np.exp(t["y"] / 4))

    with pytest.raises(SpecError, match="response must be a column"):
        hl.thin(expression, table(), seed=1)
    with pytest.raises(SpecError, match="scale on which their errors are normal"):
        hl.thin(log, positive, seed=1)
    assert hl.validate(log, positive, seed=1, repetitions=2).frame["mse"].notna().all()
