"""Bootstraps: laws of the responses against dense matrices, seeds, batches, interruption, intervals by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hierlmm as hl
from hierlmm.frequentist.bootstrap import run
from hierlmm.frequentist.bootstrap.results import Bootstrap
from hierlmm.frequentist.bootstrap.run import bootstrap
from hierlmm.frequentist.bootstrap.samplers import WEIGHTS, sampler
from hierlmm.frequentist.bootstrap.state import Batch
from hierlmm.frequentist.lmm_results import LMMOutcome

SLOPES = hl.lmm("Reaction ~ Days + (Days | Subject)")


@pytest.fixture(scope="module")
def slopes() -> hl.LMMFit:
    return hl.fit(SLOPES, hl.load("sleepstudy").data)


def generators(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in range(count)]


def marginal(fit: hl.LMMFit) -> np.ndarray:
    """V of all rows from the estimates, with n x n matrices; independent residuals."""
    V = fit.sigma2 * np.eye(len(fit.design.y))
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        V += (factor.codes[:, None] == factor.codes) * (factor.Z @ G @ factor.Z.T)
    return V


@pytest.mark.parametrize("kind", ["parametric", "residual"])
@pytest.mark.parametrize("name", ["sleepstudy", "penicillin"])
def test_responses_have_the_mean_and_covariance_of_the_fit(slopes, kind, name):
    """X beta and V, whitened: 20,000 draws, each element within 6 of its Monte Carlo errors. For the residual bootstrap
    this holds exactly in expectation, because what is drawn is reflated."""
    fit = slopes if name == "sleepstudy" else hl.fit(hl.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)"),
                                                     hl.load("penicillin").data)  # fmt: skip
    count, some = 20_000, np.arange(0, len(fit.design.y), 7)
    Y = sampler(fit, kind, "rademacher", None)(generators(3, count))
    L = np.linalg.cholesky(marginal(fit)[np.ix_(some, some)])
    white = np.linalg.solve(L, Y[some] - fit.marginal_fitted.to_numpy()[some, None])

    products = white[:, None] * white[None]

    assert_allclose(white.mean(axis=1), 0, atol=6 / np.sqrt(count))
    error = products.std(axis=2) / np.sqrt(count)
    assert (np.abs(products.mean(axis=2) - np.eye(len(some))) < 6 * error).all()


def test_residual_structures_are_drawn_too():
    """AR(1) residuals of Sitka: the covariance of a tree's rows in parametric and residual draws, 6 errors."""
    table = hl.load("sitka").data
    table = table.assign(occ=table.groupby("tree")["Time"].rank().astype(int))
    fit = hl.fit(hl.lmm("size ~ Time", residual=hl.AR1("tree", "occ")), table)
    V = fit.residual_covariance.to_numpy()
    rows = np.flatnonzero(table["tree"] == 5)
    rows = rows[np.argsort(table["occ"].to_numpy()[rows])]

    for kind in ("parametric", "residual"):
        Y = sampler(fit, kind, "rademacher", None)(generators(1, 20_000))
        white = np.linalg.solve(np.linalg.cholesky(V), (Y - fit.marginal_fitted.to_numpy()[:, None])[rows])
        products = white[:, None] * white[None]
        assert (np.abs(products.mean(axis=2) - np.eye(5)) < 6 * products.std(axis=2) / np.sqrt(20_000)).all()


def test_reflation_is_that_of_carpenter_goldstein_and_rasbash(slopes):
    """Section 3.2: u* = uA, A = (L_R L_S^-1)', L_R L_R' = G and L_S L_S' the covariance of the centred u."""
    u = slopes.b[0] - slopes.b[0].mean(axis=0)
    A = (np.linalg.cholesky(slopes.G[0]) @ np.linalg.inv(np.linalg.cholesky(u.T @ u / 18))).T
    residual = sampler(slopes, "residual", "rademacher", None)
    e = slopes.conditional_residuals.to_numpy()
    e = (e - e.mean()) / np.std(e)

    assert_allclose(residual.factors[0][2], u @ A, rtol=1e-9, atol=1e-9)
    assert_allclose(residual.errors, e, rtol=1e-9, atol=1e-12)


def test_reflation_holds_directions_without_variance():
    """Politeness with slopes, a correlation of 1: subjects are reflated within the direction that has variance."""
    spec = hl.lmm("frequency ~ attitude + gender + (attitude | subject) + (attitude | scenario)")
    fit = hl.fit(spec, hl.load("politeness").data)
    for (_, _, b), G in zip(sampler(fit, "residual", "rademacher", None).factors, fit.G, strict=True):
        assert_allclose(b.T @ b / len(b), G, rtol=1e-9, atol=1e-9 * np.trace(G))

    assert fit.outcome is LMMOutcome.SINGULAR


@pytest.mark.parametrize("name", WEIGHTS)
def test_wild_weights_have_mean_0_and_variance_1(name):
    """Mammen's also a third moment of 1; Webb's six points are ±sqrt(½), ±1, ±sqrt(1½)."""
    values, probabilities = (np.array(part) for part in WEIGHTS[name])

    moments = [float(probabilities @ values**k) for k in range(4)]

    assert_allclose(moments[:3], [1, 0, 1], atol=1e-15)
    assert_allclose(moments[3], 1.0 if name == "mammen" else 0.0, atol=1e-15)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_wild_covariance_of_a_balanced_design_is_the_sandwich(slopes, weights):
    """Every subject has the same X, so that GLS is least squares whatever V: the covariance of the replicates is the
    sandwich of residuals over root one less leverage, to Monte Carlo error (4000 draws: 2.2 %, kurtosis included)."""
    X, r = slopes.design.X, slopes.marginal_residuals.to_numpy()
    r = r / np.sqrt(1 - np.diag(X @ np.linalg.solve(X.T @ X, X.T)))
    codes = slopes.design.factors[0].codes
    scores = np.array([X[codes == i].T @ r[codes == i] for i in range(18)])
    bread = np.linalg.inv(X.T @ X)
    expected = bread @ scores.T @ scores @ bread

    found = slopes.bootstrap("wild", draws=4000, seed=8, weights=weights)

    assert [quantity for *_, quantity in found.names] == ["effect", "se", "effect", "se"]
    assert_allclose(np.cov(found.values[:, [0, 2]].T), expected, rtol=0.09, atol=0.05 * np.sqrt(expected[0, 0]))
    assert "Only fixed effects are reported" in found.summary()


def test_replicates_are_refits_of_responses_drawn_from_their_own_seeds(slopes):
    """Replicate 260 (of the second batch) is the fit of the response that SeedSequence(7, spawn_key=(260,)) gives."""
    found = slopes.bootstrap(draws=270, seed=7)
    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(260,)))
    b = rng.standard_normal((18, 2)) @ (np.sqrt(slopes.sigma2) * slopes.theta[0]).T
    factor = slopes.design.factors[0]
    mean = slopes.marginal_fitted.to_numpy() + (factor.Z * b[factor.codes]).sum(axis=1)
    refit = slopes.refit(mean + np.sqrt(slopes.sigma2) * rng.standard_normal(180))
    row = found.frame.query("replicate == 260").set_index(["term", "quantity"])["estimate"]

    assert_allclose(row[[("Intercept", "effect"), ("Days", "effect")]], refit.beta, rtol=1e-8)
    assert_allclose(row[("", "sd")], np.sqrt(refit.sigma2), rtol=1e-7)


def test_standard_errors_of_a_balanced_design_are_exact(slopes):
    """beta* has covariance vcov_beta exactly there, and sigma's sd is near sigma / sqrt(2 * 144): 2000 draws."""
    table = slopes.bootstrap(draws=2000, seed=5).table.set_index(["term", "quantity"])
    error = 1 / np.sqrt(2 * 2000)

    assert_allclose(table.loc[("Days", "effect"), "se"], np.sqrt(slopes.vcov_beta[1, 1]), rtol=4 * error)
    assert_allclose(table.loc[("", "sd"), "se"], np.sqrt(slopes.sigma2 / 288), rtol=4 * error + 0.02)
    assert abs(table.loc[("Days", "effect"), "bias"]) < 4 * np.sqrt(slopes.vcov_beta[1, 1] / 2000)


@pytest.mark.parametrize("kind", ["parametric", "residual", "wild"])
def test_results_do_not_depend_on_processes_or_on_how_many_follow(slopes, kind):
    """Bit by bit: two processes or one; and the first 250 of 600 or of 500."""
    one = slopes.bootstrap(kind, draws=600, seed=1)
    two = slopes.bootstrap(kind, draws=600, seed=1, jobs=2)
    fewer = slopes.bootstrap(kind, draws=500, seed=1)

    assert_array_equal(one.values, two.values)
    assert_array_equal(one.values[:500], fewer.values)
    assert not np.array_equal(one.values, slopes.bootstrap(kind, draws=600, seed=2).values)


def test_an_interrupted_bootstrap_returns_what_is_done_and_goes_on(slopes, tmp_path, monkeypatch):
    """Ctrl-C in the third batch: 500 replicates, said so; from the file the rest, equal to an undisturbed run."""
    path, whole, batch = tmp_path / "state.npz", slopes.bootstrap(draws=900, seed=4), run._batch

    def stopped(*arguments):
        if arguments[3] == 500:
            raise KeyboardInterrupt
        return batch(*arguments)

    monkeypatch.setattr(run, "_batch", stopped)
    part = slopes.bootstrap(draws=900, seed=4, path=path)
    monkeypatch.setattr(run, "_batch", batch)
    rest = slopes.bootstrap(draws=900, seed=4, path=path)
    monkeypatch.setattr(run, "_batch", None)
    again = slopes.bootstrap(draws=900, seed=4, path=path)

    assert part.interrupted
    assert len(part) == 500
    assert "Interrupted: 500 of 900 replicates are done." in part.summary()
    assert_array_equal(part.values, whole.values[:500])
    assert not rest.interrupted
    assert_array_equal(rest.values, whole.values)
    assert_array_equal(again.values, whole.values)


def test_files_of_other_bootstraps_are_refused(slopes, tmp_path):
    path, broken = tmp_path / "state.npz", tmp_path / "broken.npz"
    slopes.bootstrap(draws=20, seed=4, path=path)
    broken.write_bytes(path.read_bytes()[:200])

    with pytest.raises(hl.FileError, match=r"that of another: seed differ"):
        slopes.bootstrap(draws=20, seed=5, path=path)
    with pytest.raises(hl.FileError, match=r"another: kind differ"):
        slopes.bootstrap("residual", draws=20, seed=4, path=path)
    with pytest.raises(hl.FileError, match=r"cannot be read as one"):
        slopes.bootstrap(draws=20, seed=4, path=broken)
    with pytest.raises(hl.FileError, match=r"folder .* does not exist"):
        slopes.bootstrap(draws=20, seed=4, path=tmp_path / "no" / "state.npz")


def by_hand(slopes: hl.LMMFit, values: np.ndarray, outcomes: list[str]) -> Bootstrap:
    """A bootstrap whose first quantity (the intercept) and its se are given."""
    whole = np.tile(slopes.bootstrap(draws=1, seed=1).values, (len(values), 1))
    whole[:, :2] = values
    batch = Batch(0, whole, tuple(outcomes), ((1, "no answer"),) if "NOT_CERTIFIED" in outcomes else ())
    return Bootstrap.of(slopes, "parametric", "", len(values), 1, [batch], False)


def test_intervals_are_those_of_the_textbook(slopes):
    """Davison & Hinkley (1997), ch. 5, of replicates 0, 1, ..., 100 above the estimate and se 1 to 2."""
    t, s = slopes.beta[0], np.sqrt(slopes.vcov_beta[0, 0])
    steps = np.arange(101.0) - 30
    se = np.linspace(1, 2, 101)
    found = by_hand(slopes, np.column_stack([t + steps, se]), ["INTERIOR"] * 101)
    rows = {kind: found.intervals(kind, 0.9).frame.iloc[0] for kind in ("percentile", "basic", "normal", "studentized")}
    z, sd = 1.6448536269514722, np.std(steps, ddof=1)
    q = np.quantile(steps / se, [0.05, 0.95])

    assert_allclose(rows["percentile"][["lower", "upper"]].astype(float), [t - 25, t + 65], rtol=1e-12)
    assert_allclose(rows["basic"][["lower", "upper"]].astype(float), [t - 65, t + 25], rtol=1e-12)
    assert_allclose(rows["normal"][["lower", "upper"]].astype(float), [t - 20 - z * sd, t - 20 + z * sd], rtol=1e-12)
    assert_allclose(rows["studentized"][["lower", "upper"]].astype(float), [t - q[1] * s, t - q[0] * s], rtol=1e-12)
    assert set(found.intervals("studentized").frame["quantity"]) == {"effect"}
    assert set(found.intervals().frame["by"]) == {"percentile bootstrap"}


def test_failed_replicates_are_counted_and_said(slopes):
    """One of five without a certified optimum: left out of moments, missing in the frame, named with its number."""
    values = np.column_stack([np.array([1.0, 1e9, 2.0, 3.0, 4.0]), np.ones(5)])
    found = by_hand(slopes, values, ["INTERIOR", "NOT_CERTIFIED", "SINGULAR", "INTERIOR", "INTERIOR"])

    assert found.failures == 1
    assert found.problems == ((1, "no answer"),)
    assert_allclose(found.table.loc[0, "bias"], 2.5 - slopes.beta[0])
    assert found.frame.query("replicate == 1")["estimate"].isna().all()
    text = " ".join(found.intervals().summary().split())
    assert "1 of 5 replicates FAILED" in text
    assert "survivors alone are not a random sample" in text
    assert "on the boundary" in found.summary()
    assert max(len(line) for line in found.summary().splitlines()) <= 80


def test_confint_by_bootstrap_is_the_percentile_interval(slopes):
    ours = slopes.confint("bootstrap", 0.9, draws=50, seed=3, kind="residual")

    assert_array_equal(
        ours.frame["lower"], slopes.bootstrap("residual", draws=50, seed=3).intervals(level=0.9).frame["lower"]
    )


def test_a_bar_is_shown_on_standard_error_when_asked(slopes, capsys):
    slopes.bootstrap(draws=5, seed=1)
    silent = capsys.readouterr()
    slopes.bootstrap(draws=5, seed=1, progress="bar")
    shown = capsys.readouterr()

    assert silent.err == silent.out == shown.out == ""
    assert "bootstrap" in shown.err


def test_bad_requests_are_refused(slopes):
    table = hl.load("penicillin").data
    crossed = hl.fit(hl.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)"), table)
    few = pd.DataFrame({"f": list("aabbcc") * 2, "g": np.repeat([0, 1], 6)})
    few["y"] = 3.0 * np.repeat([1, -1, 2, -2, 3, 1], 2) + 0.1 * np.arange(12) % 0.3

    with pytest.raises(hl.FitError, match=r"one of parametric, residual, wild; found 'case'"):
        slopes.bootstrap("case", seed=1)
    with pytest.raises(hl.FitError, match=r"whole number of replicates, 1 or more; found 0"):
        slopes.bootstrap(draws=0, seed=1)
    with pytest.raises(hl.FitError, match=r"`seed` is a whole number.*found 1.5"):
        slopes.bootstrap(seed=1.5)
    with pytest.raises(hl.FitError, match=r"one of rademacher, webb, mammen; found 'normal'"):
        slopes.bootstrap("wild", seed=1, weights="normal")
    with pytest.raises(hl.FitError, match=r"'none' or 'bar'; found True"):
        slopes.bootstrap(seed=1, progress=True)
    refused = r"wild bootstrap needs clusters.*plate, sample are crossed.*Use kind=.parametric."
    with pytest.raises(hl.DesignError, match=refused):
        crossed.bootstrap("wild", seed=1)
    with pytest.raises(hl.FitError, match=r"percentile, basic, normal, studentized; found 'bca'"):
        slopes.bootstrap(draws=2, seed=1).intervals("bca")
    with pytest.raises(hl.FitError, match=r"two replicates or more; found 1"):
        bootstrap(slopes, draws=1, seed=1).intervals()
    with pytest.raises(hl.FitError, match=r"more levels than coefficients; g has 2 levels for 3"):
        hl.fit(hl.lmm("y ~ 1 + identity(0 + f | g)"), few).bootstrap("residual", seed=1)
    frequent = table.assign(w=2)
    with pytest.raises(hl.FitError, match=r"rows stand for several: frequencies go up to 2"):
        hl.fit(hl.lmm("diameter ~ 1 + (1 | plate)", weights=hl.Frequency("w")), frequent).bootstrap(seed=1)
