"""Intervals of area means: closed forms, the integral that calibration solves, and coverage in simulation."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from test_area_fit import area_design, case_design

from hierlmm.errors import FitError
from hierlmm.frequentist.area import eb_intervals
from hierlmm.frequentist.area.fitting import FITS, fit_area_reml
from hierlmm.likelihood.area.many import ManyEstimates, estimate_many


def test_normal_and_naive_intervals_are_estimate_and_quantile():
    """θ̂ ± z √mse and θ̂ ± z √(γD), z = 1.2815515655446004 at 80 %; labelled by what they are."""
    fit = fit_area_reml(case_design("milk"))

    normal, naive = fit.area_intervals("normal", 0.8), fit.area_intervals("naive", 0.8)

    assert_allclose(normal["upper"] - fit.eblup, 1.2815515655446004 * np.sqrt(fit.mse), rtol=1e-10)
    assert_allclose(fit.eblup - naive["lower"], 1.2815515655446004 * np.sqrt(fit.gamma * fit.design.D), rtol=1e-10)
    assert (naive["upper"] - naive["lower"] < normal["upper"] - normal["lower"]).all()
    assert "too short" in naive.attrs["convention"]
    assert fit.mse_kind in normal.attrs["convention"]
    assert normal.attrs["level"] == 0.8


@pytest.mark.parametrize("name", ["milk", "boundary_b15"])
def test_yoshimori_and_lahiris_interval_is_shorter_than_the_direct_one(name):
    """g1 < D; centred on the estimate at an A above REML's; the areas keep their order."""
    fit = fit_area_reml(case_design(name))

    table = fit.area_intervals("yoshimori_lahiri")

    length = (table["upper"] - table["lower"]).to_numpy()
    assert (length < 2 * 1.959963984540054 * np.sqrt(fit.design.D)).all()
    assert (length > 0).all()
    assert (table["A"] > fit.A_hat).all()
    assert list(table["area"]) == list(fit.design.areas)
    assert_allclose(table["centre"], (table["lower"] + table["upper"]) / 2, rtol=1e-12)


def test_the_calibrated_ends_solve_their_equation_in_a_balanced_design():
    """Equal D, common mean: coverage of the ends in 100,000 data sets drawn here, within 4 Monte Carlo errors.

    Li and Lahiri's Â is a root of a quadratic in S = Σ(y - ȳ)²: see `_root`. θ given the data is normal.
    """
    m, level = 15, 0.9
    y = np.random.default_rng(3).normal(size=m)
    fit = FITS["amrl_ll"](area_design(1.3 * (y - y.mean()) / y.std(), np.ones((m, 1)), np.ones(m)))
    A = fit.A_hat

    table = fit.area_intervals("calibrated", level, replicates=4000, seed=1)

    reach = (table["upper"] - table["centre"]).to_numpy() / np.sqrt(A / (A + 1))
    errors = table["mcse_upper"].to_numpy() / np.sqrt(A / (A + 1))
    rng = np.random.default_rng(2)
    Y = np.sqrt(A + 1) * rng.normal(size=(100_000, m))
    S = Y.var(axis=1) * m
    B_star, B = 1 / (_root(S, m) + 1), 1 / (A + 1)
    away = Y[:, 0] - Y.mean(axis=1)
    # θ*_1 given y*: mean (1 - B) y_1 at the true mean 0, variance A/(A+1).
    shift = Y.mean(axis=1) + (1 - B_star) * away - (1 - B) * Y[:, 0]
    t = np.mean(reach)
    ratio = np.sqrt((1 - B_star) / (1 - B))
    covered = stats.norm.cdf(shift / np.sqrt(1 - B) + t * ratio).mean()
    slope = (ratio * stats.norm.pdf(shift / np.sqrt(1 - B) + t * ratio)).mean()
    assert abs(covered - (1 + level) / 2) < 4 * slope * errors.mean() + 0.001
    assert_allclose(table["centre"], fit.eblup, rtol=1e-9)
    assert_allclose(table["centre"] - table["lower"], table["upper"] - table["centre"], rtol=0.15)


def _root(S, m):
    """Largest A with 1/A - (m-1)/(2(A+1)) + S/(2(A+1)²) = 0: 2(A+1)² - (m-1)A(A+1) + S A = 0."""
    a, b, c = 2 - (m - 1), 4 - (m - 1) + S, 2.0
    return (-b - np.sqrt(b * b - 4 * a * c)) / (2 * a)


def test_coverage_with_fifteen_areas_and_a_small_area_variance():
    """A = 0.15, D from 0.3 to 2.5, 95 %: 80 data sets; Monte Carlo errors below 1.5 %, and 5 % for the naive one.

    Second-order intervals and the normal one cover 92 % or more, the naive one less than two thirds.
    """
    rng = np.random.default_rng(5)
    D = np.repeat([0.3, 0.6, 1.0, 1.5, 2.5], 3)
    X = np.column_stack([np.ones(15), rng.permutation(np.linspace(-1, 1, 15))])
    kinds = {"normal": {}, "naive": {}, "yoshimori_lahiri": {}, "calibrated": {"replicates": 100, "seed": 1}}
    covered = {kind: [] for kind in kinds}
    for _ in range(80):
        theta = np.sqrt(0.15) * rng.normal(size=15)
        fit = fit_area_reml(area_design(theta + np.sqrt(D) * rng.normal(size=15), X, D))
        for kind, more in kinds.items():
            table = fit.area_intervals(kind, **more)
            covered[kind].append(((table["lower"] <= theta) & (theta <= table["upper"])).mean())

    rate = {kind: np.mean(values) for kind, values in covered.items()}
    error = {kind: np.std(values) / np.sqrt(80) for kind, values in covered.items()}
    assert max(error[kind] for kind in ("normal", "yoshimori_lahiri", "calibrated")) < 0.015
    for kind in ("normal", "yoshimori_lahiri", "calibrated"):
        assert 0.92 < rate[kind] < 0.995
    assert rate["naive"] < 0.67


@pytest.mark.parametrize("kind", ["normal", "naive", "yoshimori_lahiri", "calibrated"])
def test_unsampled_and_known_areas_have_their_intervals(kind):
    """An area without a direct estimate has the widest one; where the direct estimate stands it is that number."""
    design = case_design("milk")
    role, y, D = np.full(43, "sampled", dtype="<U9"), design.y.copy(), design.D.copy()
    role[3], y[3], D[3] = "unsampled", np.nan, np.nan
    role[5], D[5] = "direct", 0.0
    offset = np.linspace(-2, 2, 43)
    shifted = replace(design, role=role, y=y + offset, D=D, offset=offset)
    more = {"replicates": 200, "seed": 1} if kind == "calibrated" else {}

    table = FITS["reml"](shifted).area_intervals(kind, **more)

    length = (table["upper"] - table["lower"]).to_numpy()
    assert np.argmax(length) == 3
    assert (table.loc[5, ["lower", "upper", "centre"]] == y[5] + offset[5]).all()
    plain = FITS["reml"](replace(design, role=role, y=y, D=D)).area_intervals(kind, **more)
    assert_allclose(table["lower"] - offset, plain["lower"], rtol=1e-7)


def test_units_and_seeds_of_the_calibrated_interval(monkeypatch):
    """y times 1e3 gives ends times 1e3; batches of 7 the same ends; replicates without an estimate are told."""
    design = case_design("boundary_b15")
    fit = FITS["reml"](design)
    whole = fit.area_intervals("calibrated", replicates=60, seed=4)

    scaled = FITS["reml"](replace(design, y=1e3 * design.y, D=1e6 * design.D))
    assert_allclose(
        scaled.area_intervals("calibrated", replicates=60, seed=4)["lower"], 1e3 * whole["lower"], rtol=1e-6
    )
    monkeypatch.setattr("hierlmm.frequentist.area.mse_bootstrap.BATCH", 7)
    pieces = fit.area_intervals("calibrated", replicates=60, seed=4)
    assert_allclose(pieces["upper"], whole["upper"], rtol=1e-7)

    def failing(method, Y, X, D):
        found = estimate_many(method, Y, X, D)
        return ManyEstimates(found.A, found.converged & (np.arange(len(Y)) > 0))

    monkeypatch.setattr(eb_intervals, "estimate_many", failing)
    notes = fit.area_intervals("calibrated", replicates=60, seed=4).attrs["notes"]
    assert "51 of 60 replicates" in notes[0]
    assert "9 replicates had no estimate" in notes[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "exact"}, "`kind` is one of normal"),
        ({"kind": "calibrated"}, "follows from a seed; found none"),
        ({"kind": "calibrated", "seed": 1, "replicates": 10**8}, "100,000,000 at most"),
        ({"kind": "naive", "seed": 1}, "draws no replicates"),
        ({"kind": "normal", "level": 95}, "between 0 and 1"),
        ({"kind": "normal", "level": "0.95"}, "between 0 and 1; it is '0.95'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, words):
    """Each message says the rule, what was found, and what to write instead."""
    fit = fit_area_reml(case_design("milk"))

    with pytest.raises(FitError, match=words):
        fit.area_intervals(**arguments)
    with pytest.raises(FitError, match="between 0 and 1"):
        fit.likelihood_interval(1.0)


def test_too_few_areas_for_a_positive_estimate_are_refused():
    """Li and Lahiri's estimate needs m > p + 2."""
    fit = fit_area_reml(area_design([1.0, 2.0, 4.0], np.ones((3, 1)), [0.5, 0.5, 0.5]))

    with pytest.raises(FitError, match="needs 4 areas with 1 coefficients"):
        fit.area_intervals("calibrated", seed=1)
    assert fit.area_intervals("yoshimori_lahiri")["lower"].isna().all()
