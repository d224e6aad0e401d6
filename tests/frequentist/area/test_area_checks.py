"""Checks of an area-level fit: dense matrices, simulation, refits of tables without an area, and planted faults."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.area.goodness import goodness_of_fit, moran
from hierlmm.frequentist.diagnostics.findings import Verdict

SPEC = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")


def table(m=30, seed=1, A=1.0):
    rng = np.random.default_rng(seed)
    D, x = rng.uniform(0.3, 3.0, m), rng.normal(size=m)
    y = 2 + x + rng.normal(size=m) * np.sqrt(A + D)
    return pd.DataFrame({"area": [f"a{i}" for i in range(m)], "y": y, "D": D, "x": x})


def dense(fit):
    """V, X, P and D of a fit as full matrices."""
    X, D = fit.design.X, np.diag(fit.design.D)
    V = fit.A_hat * np.eye(len(X)) + D
    W = np.linalg.inv(V)
    return V, X, W - W @ X @ np.linalg.inv(X.T @ W @ X) @ X.T @ W, D


def verdicts(fit):
    return {item.topic: item.verdict for item in fit.check().items}


def test_slope_and_mean_of_w_under_the_model_are_those_of_dense_matrices():
    """Cov(θ̂, y − θ̂) = A P D and Var(y − θ̂) = D P D, with P written out; W and the slope by least squares."""
    fit = hl.fit(SPEC, table())
    _, X, P, D = dense(fit)
    y, theta, m = fit.design.y, fit.eblup, len(X)
    centring = np.eye(m) - 1 / m

    found = fit.goodness_of_fit()

    squares = theta @ centring @ theta
    design = np.column_stack([np.ones(m), theta])
    intercept, slope = np.linalg.lstsq(design, y, rcond=None)[0]
    assert_allclose(theta, y - D @ P @ y, rtol=1e-9)
    assert_allclose([found.intercept, found.slope], [intercept, slope], rtol=1e-9)
    assert_allclose(found.expected, 1 + np.trace(centring @ (fit.A_hat * P @ D)) / squares, rtol=1e-9)
    assert_allclose(found.expected_W, np.sum(np.diag(D @ P @ D) / (fit.design.D + fit.mse)), rtol=1e-9)
    assert_allclose(found.W, np.sum((y - theta) ** 2 / (fit.design.D + fit.mse)), rtol=1e-12)


@pytest.mark.parametrize("exact", [400, 0])
def test_the_law_of_w_is_that_of_simulated_residuals(exact, monkeypatch):
    """20,000 draws of y from the model at Â, A known: the tail within three Monte Carlo errors, or two digits of it
    where only mean and variance are matched."""
    monkeypatch.setattr("hierlmm.frequentist.area.goodness.EXACT", exact)
    fit = hl.fit(SPEC, table(seed=8))
    V, X, P, D = dense(fit)
    found = goodness_of_fit(fit)
    Y = np.random.default_rng(2).standard_normal((20_000, len(X))) @ np.sqrt(V)

    W = (np.square(Y @ P @ D) / (fit.design.D + fit.mse)).sum(axis=1)

    share = np.mean(W > found.W)
    assert abs(found.p - share) < 3 * np.sqrt(share * (1 - share) / 20_000) + (0.01 if exact == 0 else 0)
    assert found.p_published > found.p


def test_direct_and_model_estimates_are_not_regressed_where_these_are_one_number():
    """Only an intercept and Â = 0: every estimate is the mean."""
    near = table().assign(y=lambda t: 2 + 0.1 * (t["y"] - 2 - t["x"]))
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), near)

    assert fit.A_hat == 0
    assert np.isnan(fit.goodness_of_fit().slope)
    found = verdicts(fit)
    assert found["direct against model"] is Verdict.NOT_CHECKED
    assert found["boundary"] is Verdict.LOOK


def test_moran_has_the_mean_and_sd_of_simulated_residuals_and_knows_areas_by_label():
    """A ring of areas: simulated residuals off X; the same table in another order of rows and columns."""
    data = table(m=20)
    fit = hl.fit(SPEC, data)
    V, _, P, _ = dense(fit)
    ring = np.roll(np.eye(20), 1, axis=1)
    W = pd.DataFrame(ring + ring.T, data["area"], data["area"])
    order = np.random.default_rng(0).permutation(20)

    found = fit.moran(W)

    half = np.sqrt(np.linalg.inv(V))
    Y = np.random.default_rng(1).standard_normal((40_000, 20)) @ np.sqrt(V)
    E = Y @ P @ np.linalg.inv(half)
    values = 20 / W.to_numpy().sum() * np.einsum("ri,ij,rj->r", E, W.to_numpy(), E) / np.square(E).sum(axis=1)
    assert_allclose(found.mean, values.mean(), atol=4 * values.std() / 200)
    assert_allclose(found.sd, values.std(), rtol=0.02)
    assert_allclose(moran(fit, W.iloc[order, order]).value, found.value, rtol=1e-12)
    with pytest.raises(DesignError, match="labelled"):
        fit.moran(W.to_numpy())
    with pytest.raises(FitError, match="neighbours"):
        fit.moran(W * 0)


@pytest.mark.parametrize("method", ["reml", "fh"])
def test_leaving_out_an_area_is_fitting_the_table_without_it(method):
    """A, coefficients, the area's own prediction and the other areas' moves, against hl.fit on the rest."""
    data = table()
    fit = hl.fit(SPEC, data, method)

    found = fit.influence()

    assert len(found.frame) == 30
    for k in (0, 17):
        rest = hl.fit(SPEC, data.drop(k), method)
        assert_allclose(found.found.A[k], rest.A_hat, rtol=1e-9)
        assert_allclose(found.dfbeta["estimate"].to_numpy().reshape(30, 2)[k], rest.beta, rtol=1e-9)
        ahead = rest.predict(data.iloc[[k]])
        assert_allclose([found.found.estimate[k], found.found.mse[k]], ahead[["estimate", "mse"]].iloc[0], rtol=1e-9)
        se = np.sqrt(np.delete(fit.mse, k))
        moves = np.abs(np.delete(fit.eblup, k) - rest.eblup) / se
        assert_allclose(found.frame["shift"][k], moves.max(), rtol=1e-9)
        assert found.frame["shifted"][k] == np.delete(data["area"].to_numpy(), k)[moves.argmax()]
        change = fit.beta - rest.beta
        assert_allclose(found.cook[k], change @ np.linalg.solve(fit.vcov_beta, change) / 2, rtol=1e-9)
    assert_allclose(fit.influence(["a17"]).frame["A"][0], found.frame["A"][17], rtol=1e-12)


def test_an_area_that_alone_determines_a_coefficient_is_named_and_not_left_out():
    """A dummy that is 1 in one area: nan there, numbers elsewhere, and a word in the check-list."""
    data = table().assign(only=lambda t: (t["area"] == "a4").astype(float))
    spec = hl.fay_herriot("y ~ x + only", sampling_variance="D", area="area")
    fit = hl.fit(spec, data)

    found = fit.influence()

    assert list(found.undetermined) == ["a4"]
    assert np.isfinite(found.frame.drop(index=4)["A"]).all()
    assert "Not determined without: a4" in str(found)
    assert "rests on one of them alone: a4" in " ".join(str(fit.check()).split())


def test_areas_to_leave_out_are_areas_in_the_fit():
    """Unknown labels, and areas without a direct estimate, by name; too few areas to leave one out."""
    data = table()
    data.loc[3, "y"] = np.nan
    spec = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")

    with pytest.raises(FitError, match="found nowhere, a3"):
        hl.fit(spec, data).influence(["nowhere", "a3", "a5"])
    for none in ([], "a5"):
        with pytest.raises(FitError, match="a list of one or more"):
            hl.fit(SPEC, table()).influence(none)
    with pytest.raises(FitError, match="must leave more areas than coefficients"):
        hl.fit(SPEC, table(m=3)).influence()


def test_a_fit_of_the_fewest_areas_is_checked_without_leaving_one_out():
    """Li and Lahiri's restricted estimate with p + 3 areas: there is none with p + 2."""
    fit = hl.fit(SPEC, table(m=5), "amrl_ll")

    assert verdicts(fit)["influential areas"] is Verdict.NOT_CHECKED
    with pytest.raises(FitError, match="method='amrl_ll' that takes 6 areas, and there are 5"):
        fit.influence()
    assert verdicts(hl.fit(SPEC, table(m=6), "amrl_ll"))["influential areas"] is not Verdict.NOT_CHECKED


def test_a_covariate_far_from_zero_changes_no_check():
    """x + 1e8, whose columns are the same space: Cook's distances, leverages, slopes and errors of the effects."""
    near, far = (hl.fit(SPEC, table().assign(x=lambda t, by=by: t["x"] + by)) for by in (0.0, 1e8))

    assert_allclose(far.influence().cook, near.influence().cook, rtol=1e-5, atol=1e-9)
    assert_allclose(far.leverage(), near.leverage(), rtol=1e-6)
    assert_allclose(far.effect_errors(), near.effect_errors(), rtol=1e-6)
    assert_allclose(far.goodness_of_fit().expected, near.goodness_of_fit().expected, rtol=1e-6)
    assert verdicts(far) == verdicts(near)


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("outlying areas", lambda t: t.assign(y=t["y"] + 12 * (t["area"] == "a5"))),
        ("influential areas", lambda t: t.assign(x=t["x"] + 30 * (t["area"] == "a5"))),
        ("normal residuals and area effects", lambda t: t.assign(y=np.exp(0.9 * t["y"]), D=t["D"] / 10)),
        (
            "spread by sampling variance",
            lambda t: t.assign(y=2 + t["x"] + (t["y"] - 2 - t["x"]) * np.where(t["D"] > 1.5, 9.0, 0.2)),
        ),
    ],
)
def test_planted_faults_are_seen(topic, fault):
    """60 areas that pass, and the same with one fault each."""
    sound, wrong = (hl.fit(SPEC, make(table(m=60, seed=5))) for make in (lambda t: t, fault))

    assert verdicts(sound)[topic] is Verdict.OK
    assert verdicts(wrong)[topic] in (Verdict.LOOK, Verdict.ACT)


def test_milk_is_found_to_rest_on_area_11():
    """Arora and Lahiri's data: without area 11, at −3.2 standard deviations, A is about half of what it is with it."""
    case = hl.load("milk")
    fit = hl.fit(case.spec, case.data)

    found = fit.influence()

    assert found.named["level"].tolist()[0] == 11
    assert 0.009 < found.frame.set_index("level")["A"][11] < 0.011
    assert str(found).splitlines()[4].startswith("11 ")
    assert all(len(line) <= 80 for text in (str(found), str(fit.check())) for line in text.splitlines())
    assert fit.augment()["studentised_residual"].abs().idxmax() == 11
