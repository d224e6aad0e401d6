"""Other estimates of the mean squared errors of a fit: exact integrals, direct formulas, and what is said of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from test_area_fit import area_design

from hierlmm.errors import FitError
from hierlmm.frequentist.area import mse_bootstrap
from hierlmm.frequentist.area.fitting import FITS
from hierlmm.likelihood.area.many import ManyEstimates, estimate_many

CASES = json.loads((Path(__file__).parents[2] / "data" / "fay_herriot_exact.json").read_text())["cases"]
RESAMPLED = ("bootstrap", "bootstrap_naive", "double_bootstrap", "sumca")


def case_design(name):
    case = CASES[name]
    return area_design(np.array(case["y"]), np.array(case["X"]), np.array(case["D"]))


def balanced(m=12):
    """Equal D = 1 and a common mean: everything is a function of S = Σ(y - ȳ)², which is V times a χ²(m-1)."""
    y = np.random.default_rng(3).normal(size=m)
    return area_design(1.35 * (y - y.mean()) / y.std(), np.ones((m, 1)), np.ones(m))


def mean_over_S(function, B, m):
    """E f(S) with S = χ²(m-1)/B, V = 1/B: 4,000 equally likely values."""
    S = stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, m - 1) / np.atleast_1d(B)[:, None]
    return function(S).mean(axis=1)


def shrinkage(S, m):
    """REML's estimate of B = D/(A + D), at most 1."""
    return np.minimum(1.0, (m - 1) / S)


def moved(B, m):
    """E[(θ̂ - θ̃)²] of an area: (B̂ - B)² S/m."""
    return mean_over_S(lambda S: np.square(shrinkage(S, m) - np.atleast_1d(B)[:, None]) * S / m, B, m)


def leading(B, m):
    """g1 + g2 at B with D = 1."""
    return 1 - B * (1 - 1 / m)


def exact(kind, y):
    """leading - correction of each kind for the balanced design, by integrals over S."""
    m = len(y)
    B = float(shrinkage(np.square(y - y.mean()).sum(), m))
    S = stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, m - 1) / B
    B_star = shrinkage(S, m)
    plain = leading(B, m) + moved(B, m)[0]
    if kind == "bootstrap_naive":
        return np.full(m, plain)
    if kind == "bootstrap":
        return 2 * leading(B, m) - leading(B_star, m).mean() + np.square(B_star - B).mean() * np.square(y - y.mean())
    if kind == "sumca":
        return np.full(m, plain + (1 - B) - (1 - B_star).mean())
    M_star = leading(B_star[::20], m) + moved(B_star[::20], m)
    return np.full(m, 2 * plain - M_star.mean())


@pytest.mark.parametrize("kind", RESAMPLED)
def test_resampled_errors_meet_their_exact_expectations(kind):
    """Equal D, common mean: integrals over one χ²; 4,000 replicates within 4.5 Monte Carlo standard errors."""
    design = balanced()
    fit = FITS["reml"](design)

    found = fit.mean_squared_error(kind, replicates=4000, seed=5)

    want = exact(kind, design.y)
    assert (np.abs(found.unbiased - want) < 4.5 * found.mcse).all()
    assert found.replicates == 4000
    assert (found.mcse > 0).all()
    assert (np.abs(found.mse - found.unbiased) < 0.05 * found.mse).all()


def test_monte_carlo_errors_are_those_of_repetition():
    """Standard deviation of 60 runs of 200 replicates against the mean mcse of each; within 30 %, 3 of its errors."""
    fit = FITS["reml"](balanced())

    runs = [fit.mean_squared_error("sumca", replicates=200, seed=seed) for seed in range(60)]

    spread = np.std([run.mse.mean() for run in runs], ddof=1)
    # Areas share the correction, but not all of T: their mean varies as one area does, or somewhat less.
    claimed = np.mean([run.mcse.mean() for run in runs])
    assert 0.6 * claimed < spread < 1.3 * claimed


@pytest.mark.parametrize("kind", RESAMPLED)
def test_replicates_depend_on_the_seed_and_their_number_alone(kind, monkeypatch):
    """Batches of 7 give what batches of 250 give; the same seed the same numbers; a generator seeds once."""
    fit = FITS["fh"](case_design("milk"))

    whole = fit.mean_squared_error(kind, replicates=30, seed=9)
    monkeypatch.setattr(mse_bootstrap, "BATCH", 7)
    pieces = fit.mean_squared_error(kind, replicates=30, seed=9)

    assert_allclose(pieces.mse, whole.mse, rtol=1e-9)
    assert_allclose(pieces.mcse, whole.mcse, rtol=1e-6)
    drawn = fit.mean_squared_error(kind, replicates=30, seed=np.random.default_rng(1))
    again = fit.mean_squared_error(kind, replicates=30, seed=drawn.seed)
    assert_allclose(again.mse, drawn.mse, rtol=1e-9)
    assert not np.allclose(drawn.mse, whole.mse, rtol=1e-9)


def test_sumca_goes_below_zero_where_its_report_does_not():
    """boundary_b15 under Prasad-Rao moments, Â = 0: plug-in less correction is negative, and the reader is told."""
    found = FITS["pr"](case_design("boundary_b15")).mean_squared_error("sumca", replicates=2000, seed=1)

    assert found.unbiased.min() < -4 * found.mcse[np.argmin(found.unbiased)]
    assert (found.mse > 0).all()
    text = found.summary()
    assert "below 0" in text
    assert "at the boundary" in text
    assert "seed 1" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("kind", RESAMPLED)
def test_replicates_without_an_estimate_are_counted_and_left_out(kind, monkeypatch):
    """Every fifth estimation fails: 8 of 40, said in the summary; with all failing there is no answer."""
    fit = FITS["reml"](case_design("milk"))

    def failing(method, Y, X, D, every=5):
        found = estimate_many(method, Y, X, D)
        lost = np.arange(len(Y)) % every == 0
        return ManyEstimates(np.where(lost, np.nan, found.A), found.converged & ~lost)

    monkeypatch.setattr(mse_bootstrap, "estimate_many", failing)
    found = fit.mean_squared_error(kind, replicates=40, seed=1)
    monkeypatch.setattr(mse_bootstrap, "estimate_many", lambda *data: failing(*data, every=1))

    assert found.replicates + found.failed == 40
    assert found.failed >= 8
    assert f"{found.failed} without an estimate" in found.summary()
    assert np.isfinite(found.mse).all()
    with pytest.raises(FitError, match="two replicates or more"):
        fit.mean_squared_error(kind, replicates=10, seed=1)


def test_an_interrupted_bootstrap_keeps_what_is_done(monkeypatch):
    """Ctrl-C in the third batch of 10: 20 replicates, said so."""
    fit = FITS["reml"](case_design("milk"))
    calls = []

    def interrupted(*data):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return estimate_many(*data)

    monkeypatch.setattr(mse_bootstrap, "BATCH", 10)
    monkeypatch.setattr(mse_bootstrap, "estimate_many", interrupted)

    found = fit.mean_squared_error("sumca", replicates=50, seed=2)

    assert (found.replicates, found.requested, found.interrupted) == (20, 50, True)
    assert "20 of 50 replicates (interrupted)" in found.summary()


def prasad_rao(y, X, D):
    """A and β by the closed form, with numpy alone."""
    H = X @ np.linalg.solve(X.T @ X, X.T)
    A = max(0.0, (np.square(y - H @ y).sum() - D @ (1 - np.diagonal(H))) / (len(y) - X.shape[1]))
    w = 1 / (A + D)
    return A, np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (w * y))


def test_the_jackknife_is_its_formula():
    """Jiang, Lahiri and Wan (2002) with Prasad-Rao moments, 43 deletions written out; an unsampled area among them."""
    design = case_design("milk")
    role, y, D = np.full(43, "sampled", dtype="<U9"), design.y.copy(), design.D.copy()
    role[7], y[7], D[7] = "unsampled", np.nan, np.nan
    design = replace(design, role=role, y=y, D=D)
    into, X = design.sampled, design.X

    def predicted(A, beta):
        gamma = np.where(into, A / (A + np.where(into, D, 1.0)), 0.0)
        return X @ beta + gamma * (np.where(into, y, 0.0) - X @ beta), np.where(into, gamma * np.nan_to_num(D), A)

    theta, g1 = predicted(*prasad_rao(y[into], X[into], D[into]))
    leaving = [into & (np.arange(43) != u) for u in np.flatnonzero(into)]
    without = [predicted(*prasad_rao(y[kept], X[kept], D[kept])) for kept in leaving]
    spread = sum(np.square(t - theta) for t, _ in without) * 41 / 42
    change = sum(g - g1 for _, g in without) * 41 / 42

    found = FITS["pr"](design).mean_squared_error("jackknife")

    assert_allclose(found.unbiased, g1 - change + spread, rtol=1e-9)
    taken = change > 0
    assert_allclose(found.mse[~taken], found.unbiased[~taken], rtol=1e-12)
    assert (found.mse > 0).all()
    assert (found.frame["mcse"] == 0).all()


def test_area_specific_errors_are_their_formulas():
    """g3* = D²(A+D)⁻⁴ (y - x'β)² v for an area in the fit, nothing for an unsampled one; means of g3* and g3 agree."""
    design = case_design("milk")
    role, y, D = np.full(43, "sampled", dtype="<U9"), design.y.copy(), design.D.copy()
    role[7], y[7], D[7] = "unsampled", np.nan, np.nan
    fit = FITS["ml"](replace(design, role=role, y=y, D=D))
    V = fit.A_hat + D
    own = np.nan_to_num(D**2 / V**4 * np.square(y - design.X @ fit.beta) * fit.var_A)
    bias = fit.bias_A * np.square(1 - fit.gamma)

    once, twice = (fit.mean_squared_error(kind) for kind in ("area_specific", "area_specific_double"))

    assert_allclose(once.mse, fit.g1 + fit.g2 + fit.g3 + own - bias, rtol=1e-10)
    assert_allclose(twice.mse, fit.g1 + fit.g2 + 2 * own - bias, rtol=1e-10)
    assert 0.5 < own.sum() / fit.g3.sum() < 2
    assert "2/Σ V⁻²" in once.summary()


@pytest.mark.parametrize("information", ["sum", "trace"])
def test_closed_forms_take_either_information_and_say_which(information):
    """mse_trace of the exact answers has 2/tr P²; the default repeats what the fit holds."""
    want = CASES["milk"]["reml"]
    fit = FITS["reml"](case_design("milk"))

    found = fit.mean_squared_error("second_order", information=information)

    assert_allclose(found.mse, want["mse_trace" if information == "trace" else "mse"], rtol=1e-9)
    assert found.information == {"sum": "2/Σ V⁻²", "trace": "2/tr P²"}[information]
    default = fit.mean_squared_error(information=information)
    assert_allclose(default.mse, found.mse, rtol=1e-12)
    assert_allclose(fit.mean_squared_error().mse, fit.mse, rtol=0)


def test_errors_of_moments_without_normal_effects_are_those_of_prasad_and_rao():
    """Under pr the kurtosis cancels: the second-order formula; under fh it does not; the fourth cumulant is told."""
    design = case_design("milk")
    pr, fh = FITS["pr"](design), FITS["fh"](design)

    assert_allclose(pr.mean_squared_error("non_normal").mse, pr.mse_unbiased, rtol=1e-9)
    found = fh.mean_squared_error("non_normal")
    assert not np.allclose(found.unbiased, fh.mse_unbiased, rtol=1e-4)
    assert "excess kurtosis" in found.summary()
    assert "2 m/(Σ V⁻¹)²" in found.summary()


def test_frames_have_normal_intervals_of_a_level():
    """lower and upper are estimate ∓ 1.6449 se at 90 %; a table by area in the order of the fit."""
    fit = FITS["reml"](case_design("milk"))
    table = fit.mean_squared_error("area_specific").table(0.9)

    assert list(table["area"]) == list(fit.design.areas)
    assert_allclose((table["upper"] - table["estimate"]) / table["se"], 1.6448536269514722, rtol=1e-10)
    assert_allclose(table["se"] ** 2, table["mse"], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "taylor"}, "`kind` is one of default"),
        ({"kind": "sumca"}, "follows from a seed; found none"),
        ({"kind": "sumca", "seed": 1, "replicates": 1}, "2 or more"),
        ({"kind": "double_bootstrap", "seed": 1, "inner": 0}, "`inner` is a whole number"),
        ({"kind": "bootstrap", "seed": -1}, "`seed` is a whole number"),
        ({"kind": "bootstrap", "seed": 1, "progress": "loud"}, "`progress` is 'none' or 'bar'"),
        ({"kind": "jackknife", "replicates": 5}, "draws no replicates"),
        ({"seed": 5}, "draws no replicates"),
        ({"kind": "sumca", "seed": 1, "inner": 5}, "goes with kind=\"double_bootstrap\" alone"),
        ({"kind": "second_order", "information": "observed"}, "`information` is 'sum' or 'trace'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, words):
    """Each message says the rule, what was found, and what to write instead."""
    fit = FITS["reml"](case_design("milk"))

    with pytest.raises(FitError, match=words):
        fit.mean_squared_error(**arguments)


def test_a_jackknife_that_cannot_leave_an_area_out_says_which():
    """An area alone in its covariate determines its coefficient; and with p + 1 areas none can be left out."""
    X = np.column_stack([np.ones(8), np.arange(8) == 2])
    y = np.array([1.0, -0.5, 4.0, 0.3, 2.0, -1.0, 0.8, 1.5])

    with pytest.raises(FitError, match="without a2"):
        FITS["reml"](area_design(y, X, np.full(8, 0.5))).mean_squared_error("jackknife")
    with pytest.raises(FitError, match="3 areas are needed, and there are 2"):
        FITS["reml"](area_design(y[:2], X[:2, :1], [0.5, 0.5])).mean_squared_error("jackknife")
