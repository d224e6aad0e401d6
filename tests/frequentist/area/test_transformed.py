"""Fits on a transformed scale and their way back: exact answers, a package's figures at its own A, symmetries."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hierlmm as hl
from hierlmm.frequentist.area import fitting, transformed_bootstrap
from hierlmm.frequentist.area.transformed import own_areas
from hierlmm.likelihood.area.criterion import terms_and_factor
from hierlmm.likelihood.area.exponentials import exponential_errors
from hierlmm.likelihood.area.scales import SCALES
from hierlmm.likelihood.area.variance import Solved
from hierlmm.report.area_plots import plot_direct_model

DATA = Path(__file__).parents[2] / "data"
AREAS = pd.read_csv(DATA / "eusilcA_areas.csv")
EMDI = json.loads((DATA / "transformed_emdi.json").read_text())["cases"]
EXACT = json.loads((DATA / "fay_herriot_exact.json").read_text())["cases"]
MEANS = hl.fay_herriot(
    "Mean ~ cash + self_empl", sampling_variance="Var_Mean", area="area", transformation=hl.Log(), unsampled="synthetic"
)
SHARES = hl.fay_herriot(
    "MTMED ~ cash + age_ben + rent + house_allow", area="area", transformation=hl.ArcsineRoot(size="n")
)
ODDS = hl.fay_herriot("p ~ x", sampling_variance="D", area="area", transformation=hl.Logit())


@pytest.fixture
def at(monkeypatch):
    """A fit at a given value of A, so that what follows from it can be held to somebody else's optimum."""

    def fitted(spec, data, method, A):
        estimator = fitting.ON_WORKING[method]

        def moved(work):
            factored = terms_and_factor(np.array([A / work.basis.scale]), work)[1]
            return Solved(replace(estimator(work).estimate, A=A), factored)

        with monkeypatch.context() as patched:
            patched.setitem(fitting.ON_WORKING, method, moved)
            return hl.fit(spec, data, method)

    return fitted


def proportions(m=30, seed=1, spread=0.5):
    rng = np.random.default_rng(seed)
    x, n = rng.normal(size=m), rng.integers(30, 300, m)
    p = 1 / (1 + np.exp(-(-1 + x + spread * rng.normal(size=m))))
    y = np.clip(rng.binomial(n, p), 1, n - 1) / n
    return pd.DataFrame({"area": [f"a{i}" for i in range(m)], "p": y, "x": x, "n": n, "D": y * (1 - y) / n})


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(("spec", "name"), [(MEANS, "eusilcA_logMean"), (SHARES, "eusilcA_arcsinMTMED")])
def test_on_the_scale_of_the_model_a_fit_is_the_exact_one(method, spec, name):
    """40-digit answers to log(Mean) with D/Mean², and to asin √MTMED with 1/(4 n): A, EBLUP and mse."""
    want, every = EXACT[name][method], EXACT[name]["stride"]

    fit = hl.fit(spec, AREAS, method)

    assert_allclose(fit.A_hat, want["A"], rtol=1e-9)
    assert_allclose(fit.eblup[::every], want["eblup"], rtol=1e-9)
    assert_allclose(fit.mse_unbiased[::every], want["mse"], rtol=1e-9)
    assert_allclose(fit.model_scale["estimate"], fit.eblup, rtol=0)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_crude_estimates_of_incomes_are_emdi_s_at_its_own_A(method, at):
    """exp(θ̂ + mse/2) and its square times the mse."""
    want = EMDI[f"log_bc_crude_{method}"]

    got = at(MEANS, AREAS, method, want["A"]).back_transformed("crude").areas

    assert_allclose(got["estimate"], want["estimate"], rtol=1e-10)
    assert_allclose(got["mse"], want["mse"], rtol=1e-9)


def test_areas_without_a_direct_estimate_are_emdi_s_with_the_sign_of_the_bias_turned(at):
    """Under ML their mse is A + x'Cov(β)x - b, b < 0 the bias of A; emdi's is less by b where it should be more."""
    want = EMDI["outofsample_first10_log_bc_crude_ml"]
    table = AREAS.assign(Mean=AREAS["Mean"].where(~AREAS["area"].isin(want["unsampled"])))

    fit = at(MEANS, table, "ml", want["A"])

    got, out = fit.back_transformed("crude").areas, fit.design.role == "unsampled"
    theirs = np.exp(fit.eblup + (fit.mse + 2 * fit.bias_A) / 2)
    assert_array_equal(got["area"][out], want["unsampled"])
    assert_allclose(got["estimate"][~out], np.array(want["estimate"])[~out], rtol=1e-10)
    assert_allclose(got["mse"][~out], np.array(want["mse"])[~out], rtol=1e-9)
    assert_allclose(theirs[out], np.array(want["estimate"])[out], rtol=1e-10)
    assert_allclose((theirs**2 * (fit.mse + 2 * fit.bias_A))[out], np.array(want["mse"])[out], rtol=1e-9)


def test_incomes_by_slud_and_maiti_are_emdi_s_at_its_own_A(at):
    """The predictor; emdi's error, which counts the bias of A twice, is in test_exponentials."""
    want = EMDI["log_bc_sm_ml"]

    fit = at(MEANS, AREAS, "ml", want["A"])

    assert_allclose(fit.areas["estimate"], want["estimate"], rtol=1e-10)
    assert_allclose(fit.back_transformed("slud_maiti").estimate, want["estimate"], rtol=1e-10)
    assert (fit.areas["mse"] < want["mse"]).all()


def test_shares_are_emdi_s_at_its_own_A_but_where_its_integral_stops(at):
    """Naive shares agree; bias-corrected ones to the 1e-6 of its quadrature, except that emdi reports two districts
    whose EBLUP lies beyond π/2 as shares of 0 (its integral of sin² stops there): they are 1."""
    naive, corrected = EMDI["arcsin_naive_ml"], EMDI["arcsin_bc_ml"]
    fit = at(SHARES, AREAS, "ml", naive["A"])
    beyond = fit.eblup > np.pi / 2

    assert_allclose(fit.back_transformed("naive").estimate, naive["estimate"], atol=1e-13)
    assert_allclose(fit.areas["estimate"][~beyond], np.array(corrected["estimate"])[~beyond], atol=2e-6)
    assert beyond.sum() == 2
    assert (np.array(corrected["estimate"])[beyond] < 1e-9).all()
    assert_allclose(fit.areas["estimate"][beyond], 1.0, atol=1e-4)


def test_units_of_an_income_do_not_matter():
    """Cents for euros: estimates, synthetic ones and interval ends scale, errors scale squared."""
    cents = AREAS.assign(Mean=AREAS["Mean"] * 100, Var_Mean=AREAS["Var_Mean"] * 1e4)

    a, b = hl.fit(MEANS, AREAS).areas, hl.fit(MEANS, cents).areas

    for column in ("estimate", "lower", "upper", "synthetic", "se"):
        assert_allclose(b[column], 100 * a[column], rtol=1e-9)
    assert_allclose(b["cv"], a["cv"], rtol=1e-9)


@pytest.mark.parametrize(
    "spec", [ODDS, hl.fay_herriot("p ~ x", area="area", transformation=hl.ArcsineRoot("n"))], ids=["odds", "arcsine"]
)
@pytest.mark.parametrize("kind", ["bias_corrected", "naive"])
def test_a_proportion_and_its_complement_are_estimated_alike(spec, kind):
    """p -> 1 - p: estimates and intervals are mirrored, errors stay."""
    table = proportions()

    a = hl.fit(spec, table).back_transformed(kind).areas
    b = hl.fit(spec, table.assign(p=1 - table["p"])).back_transformed(kind).areas

    assert_allclose(b["estimate"], 1 - a["estimate"], rtol=1e-9)
    assert_allclose(b["mse"], a["mse"], rtol=1e-7)
    assert_allclose(b["lower"], 1 - a["upper"], rtol=1e-9)
    assert a["lower"].gt(0).all()
    assert a["upper"].lt(1).all()


@pytest.mark.parametrize("name", SCALES)
def test_rows_to_predict_for_are_taken_back_like_the_areas(name):
    """Own rows are as in `areas`; an area that is not in the fit is E g of a new draw from the population."""
    table = proportions().assign(y=lambda t: 100 * t["p"], V=lambda t: 1e4 * t["D"])
    spec = {
        "log": hl.fay_herriot("y ~ x", sampling_variance="V", area="area", transformation=hl.Log()),
        "arcsine_root": hl.fay_herriot("p ~ x", area="area", transformation=hl.ArcsineRoot(size="n")),
        "logit": ODDS,
    }[name]
    fit = hl.fit(spec, table)

    own, new = fit.predict(), fit.predict(pd.DataFrame({"area": ["new"], "x": [0.3]}))

    for column in ("estimate", "mse", "lower", "upper"):
        assert_allclose(own[column], fit.areas[column], rtol=1e-9)
    mean = fit.beta @ [1.0, 0.3]
    assert_allclose(new["estimate"], SCALES[name].moments(mean, np.array(fit.A_hat))[0], rtol=1e-12)
    assert new["basis"].tolist() == ["synthetic"]
    assert new["lower"][0] < new["estimate"][0] < new["upper"][0]


@pytest.mark.parametrize("name", ["arcsine_root", "logit"])
def test_errors_of_proportions_are_those_of_repeated_samples(name):
    """300 responses of 40 areas from the model: the mean error reported over the mean squared error made."""
    rng = np.random.default_rng(7)
    m, A = 40, 0.01 if name == "arcsine_root" else 0.2
    n, x = rng.integers(40, 200, m), rng.normal(size=m)
    scale = SCALES[name]
    mean = 0.5 + 0.1 * x if name == "arcsine_root" else -1 + 0.4 * x
    D = 1 / (4 * n) if name == "arcsine_root" else 1 / (n * 0.2)
    table = pd.DataFrame({"area": range(m), "x": x, "n": n, "p": scale.back(mean)})
    table["D"] = D * (table["p"] * (1 - table["p"])) ** 2
    transformation = hl.ArcsineRoot(size="n") if name == "arcsine_root" else hl.Logit()
    variance = {} if name == "arcsine_root" else {"sampling_variance": "D"}
    fit = hl.fit(hl.fay_herriot("p ~ x", area="area", transformation=transformation, **variance), table)
    made, told, covered = [], [], []

    for _ in range(300):
        theta = mean + np.sqrt(A) * rng.normal(size=m)
        got = fit.refit(theta + np.sqrt(D) * rng.normal(size=m)).back_transformed()
        truth = scale.back(theta)
        made.append(np.square(got.estimate - truth).mean())
        told.append(got.mse.mean())
        covered.append(((got.lower <= truth) & (truth <= got.upper)).mean())

    noise = np.std(np.array(made) - np.array(told)) / np.mean(made) / np.sqrt(300)
    assert noise < 0.02
    assert abs(np.mean(told) / np.mean(made) - 1) < 0.02 + 3 * noise
    assert abs(np.mean(covered) - 0.95) < 0.01


def test_at_an_area_variance_of_zero_the_error_is_positive_and_says_what_it_is():
    """ML gives exactly 0 for the shares: the second-order expansion is not used."""
    fit = hl.fit(SHARES, AREAS, "ml")
    back = fit.back_transformed()

    assert fit.A_hat == 0.0
    assert_allclose(back.estimate, fit.back_transformed("naive").estimate, rtol=1e-12)
    assert (back.mse > 0).all()
    assert "θ ~ N(θ̂, mse)" in back.mse_kind
    zero = at_zero(hl.fit(MEANS, AREAS.assign(Var_Mean=AREAS["Var_Mean"] * 40), "ml"))
    assert "second order" not in zero.back_transformed().mse_kind


def at_zero(fit):
    assert fit.A_hat == 0.0
    return fit


def test_areas_known_exactly_keep_their_direct_estimate():
    """D = 0 with zero_variance="direct": the estimate as given, to the last digit, with error 0."""
    spec = replace(ODDS, residual=replace(ODDS.residual, zero_variance="direct"))
    table = proportions()
    table.loc[3, "D"] = 0.0

    row = hl.fit(spec, table).areas.iloc[3]

    assert row[["estimate", "lower", "upper"]].tolist() == [table["p"][3]] * 3
    assert row["mse"] == 0.0
    assert row["role"] == "direct"


def test_a_bootstrap_finds_the_error_of_the_fitted_model_and_depends_on_the_seed_only(monkeypatch):
    """L + M of Slud and Maiti at the estimates is the error in that world: 1,000 replicates agree within 4 standard
    errors and 1 % on average; they are the same in batches of any size."""
    fit = hl.fit(MEANS, AREAS, "ml")
    here = own_areas(fit)
    want = exponential_errors(fit.A_hat, fit.var_A, 0.0, here.D, here.mu, here.theta, here.leverage, here.g2).known

    got = fit.back_transformed(replicates=1000, seed=5)
    monkeypatch.setattr(transformed_bootstrap, "HELD", 10_000)
    again = fit.back_transformed(replicates=1000, seed=5)

    assert np.abs((got.mse - want) / got.mcse).max() < 4
    assert abs(np.mean(got.mse / want) - 1) < 0.01
    assert_allclose(again.mse, got.mse, rtol=1e-10)
    assert_allclose(again.lower, got.lower, rtol=1e-10)
    width = (got.upper - got.lower) / (fit.areas["upper"] - fit.areas["lower"])
    assert_allclose(width, 1.0, atol=0.15)
    assert got.failed == 0
    assert "1000 replicates" in got.summary()


def test_a_bootstrap_takes_shares_and_areas_without_an_estimate():
    """Areas outside the fit get the error of a new draw, which their formula has too: within 4 standard errors."""
    table = proportions(m=60)
    table.loc[:4, "p"] = np.nan
    spec = replace(ODDS, residual=replace(ODDS.residual, unsampled="synthetic"))

    fit = hl.fit(spec, table)
    got, formula = fit.back_transformed("naive", replicates=400, seed=1).areas, fit.back_transformed("naive").areas

    assert got["role"].tolist()[:6] == ["unsampled"] * 5 + ["sampled"]
    assert (np.abs(got["mse"] - formula["mse"])[:5] < 4 * got["mcse"][:5]).all()
    assert got[["lower", "estimate", "upper"]].apply(lambda row: row.is_monotonic_increasing, axis=1).all()


def test_without_their_estimates_neighbours_are_a_draw_of_the_spatial_effects():
    """`synthetic` is E exp(x'β + v), Var v = A times the diagonal of BB', B = Σ ρᵏWᵏ; an island keeps A."""
    rng = np.random.default_rng(2)
    m, labels = 30, [f"r{k}" for k in range(30)]
    W = (np.roll(np.eye(m), 1, 1) + np.roll(np.eye(m), -1, 1)) / 2
    W[3], W[:, 3] = 0.0, 0.0
    W[[2, 4]] *= 2
    x = rng.normal(size=m)
    y = np.exp(3 + 0.2 * x + np.linalg.solve(np.eye(m) - 0.7 * W, 0.4 * rng.normal(size=m)))
    table = pd.DataFrame({"area": labels, "y": y, "x": x, "D": (0.1 * y) ** 2})
    spec = hl.fay_herriot(
        "y ~ x", sampling_variance="D", area="area", transformation=hl.Log(), area_effects=hl.SAR("W")
    )

    fit = hl.fit(spec, table, matrices={"W": pd.DataFrame(W, labels, labels)})

    B = sum(np.linalg.matrix_power(fit.rho_hat * W, k) for k in range(400))
    variance = fit.A_hat * np.square(B).sum(axis=1)
    assert abs(fit.rho_hat) > 0.3
    assert variance[3] == fit.A_hat
    assert_allclose(fit.areas["synthetic"], np.exp(fit.synthetic + variance / 2), rtol=1e-9)


REFUSED = [
    (lambda f: f.back_transformed("crude"), "`kind` is one of bias_corrected, naive for Logit"),
    (lambda f: f.back_transformed(replicates=100), "`seed` is a whole number"),
    (lambda f: f.back_transformed(replicates=10, seed=1), "`replicates` is a whole number"),
    (lambda f: f.back_transformed(level=95), "level of an interval"),
    (lambda f: f.back_transformed(replicates=100, seed=1, progress="x"), "`progress`"),
    (lambda f: hl.fit(MEANS, AREAS).back_transformed("crude", replicates=100, seed=1), "crude back-transformation"),
    (lambda f: f.back_transformed("x"), "found 'x'"),
    (lambda f: f.back_transformed(seed=1), "found seed=1 and no replicates"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_cannot_be_taken_back_is_refused(call, message):
    """Kinds of another transformation, bootstraps without a seed, and what has no bootstrap."""
    with pytest.raises(hl.FitError, match=message):
        call(hl.fit(ODDS, proportions()))


def test_a_fit_without_a_transformation_is_not_taken_back():
    """Its areas are on the scale of the data."""
    spec = hl.fay_herriot("p ~ x", sampling_variance="D", area="area")

    with pytest.raises(hl.FitError, match="this one has none"):
        hl.fit(spec, proportions()).back_transformed()


@pytest.mark.parametrize("spec", [MEANS, SHARES])
def test_a_fit_in_a_file_is_taken_back_as_before(spec, tmp_path):
    """The scale is in the spec, direct estimates on both scales are made again from the table."""
    table = AREAS.assign(MTMED=AREAS["MTMED"].where(AREAS.index > 2), Mean=AREAS["Mean"].where(AREAS.index > 2))
    fit = hl.fit(replace(spec, residual=replace(spec.residual, unsampled="synthetic")), table)

    fit.save(tmp_path / "fit.hlm")
    back = hl.read(tmp_path / "fit.hlm")

    pd.testing.assert_frame_equal(back.areas, fit.areas)
    pd.testing.assert_frame_equal(back.model_scale, fit.model_scale)


@pytest.mark.parametrize("kind", ["normal", "naive", "calibrated", "yoshimori_lahiri"])
def test_intervals_of_every_kind_are_taken_back(kind):
    """Their ends are g of those of the model, which is the same fit to transformed columns; shares stay shares."""
    table = proportions()
    p, D = table["p"], table["D"]
    there = table.assign(y=np.log(p / (1 - p)), V=D / (p * (1 - p)) ** 2)
    draws = {"replicates": 200, "seed": 3} if kind == "calibrated" else {}

    model = hl.fit(hl.fay_herriot("y ~ x", sampling_variance="V", area="area"), there).area_intervals(kind, **draws)
    data = hl.fit(ODDS, table).area_intervals(kind, **draws)

    for name in ("lower", "upper", "centre"):
        assert_allclose(data[name], 1 / (1 + np.exp(-model[name])), rtol=1e-9)
    if draws:
        slope = data["lower"] * (1 - data["lower"])
        assert_allclose(data["mcse_lower"], slope * model["mcse_lower"], rtol=1e-6)
    assert_allclose(data["estimate"], hl.fit(ODDS, table).areas["estimate"], rtol=1e-12)


def test_what_is_on_the_scale_of_the_model_says_so():
    """Mean squared errors by name, and the summary's line about the errors of `areas`."""
    fit = hl.fit(MEANS, AREAS)

    assert any("on the scale of the model" in note for note in fit.mean_squared_error("second_order").notes)
    text = " ".join(fit.summary().split())
    assert "mse, on the scale of Mean: Slud and Maiti (2006), second order" in text


def test_uncorrelated_errors_in_a_matrix_are_those_in_a_column():
    """A diagonal S: estimates, errors and bootstrap replicates agree."""
    spec = hl.fay_herriot("Mean ~ cash + self_empl", sampling_covariance="S", area="area", transformation=hl.Log())
    S = pd.DataFrame(np.diag(AREAS["Var_Mean"]), AREAS["area"], AREAS["area"])

    column, matrix = hl.fit(MEANS, AREAS), hl.fit(spec, AREAS, matrices={"S": S.iloc[::-1]})

    for name in ("estimate", "mse", "lower", "upper"):
        assert_allclose(matrix.areas[name], column.areas[name], rtol=1e-9)
    one, other = (fit.back_transformed(replicates=60, seed=2) for fit in (column, matrix))
    assert_allclose(other.mse, one.mse, rtol=1e-8)


def test_a_spatial_fit_is_taken_back_with_errors_by_moments():
    """Its own EBLUP and g1 go into the mean; replicates of independent effects are refused."""
    W = pd.DataFrame(np.eye(94, k=1) + np.eye(94, k=-1), AREAS["area"], AREAS["area"])
    spec = replace(MEANS, area_effects=hl.SAR("W", standardise="rows"))

    fit = hl.fit(spec, AREAS.assign(Mean=AREAS["Mean"].where(AREAS.index != 5)), matrices={"W": W})

    assert_allclose(fit.areas["estimate"], np.exp(fit.eblup + fit.g1 / 2), rtol=1e-12)
    for column in ("estimate", "mse", "lower", "upper"):
        assert_allclose(fit.predict()[column], fit.areas[column], rtol=1e-9)
    assert "θ ~ N(θ̂, mse)" in fit.back_transformed().mse_kind
    with pytest.raises(hl.FitError, match="spatially correlated"):
        fit.back_transformed(replicates=100, seed=1)


def test_shares_of_0_and_1_are_drawn(recwarn):
    """Their estimated sampling variance is 0; the picture of direct against model estimates divides by none."""
    plt = pytest.importorskip("matplotlib.figure")
    fit = hl.fit(SHARES, AREAS)

    plot_direct_model(fit, ax=plt.Figure().add_subplot())

    assert not recwarn.list
