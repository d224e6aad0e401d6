"""The mean squared errors that a fit reports: exact answers, the posterior that they average over, and simulation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_area_fit import area_design, new_rows

from hierlmm.errors import FitError
from hierlmm.frequentist.area import mse_matrix
from hierlmm.frequentist.area.fitting import FITS
from hierlmm.frequentist.area.prediction import predict_rows
from hierlmm.likelihood.area.errors import asymptotics, error_terms
from hierlmm.likelihood.area.errors_integrated import integrated_errors
from hierlmm.likelihood.area.errors_kurtosis import fourth_cumulant, kurtosis_terms
from hierlmm.likelihood.area.errors_matrix import error_matrix
from hierlmm.likelihood.area.many import estimate_many, predict_many
from hierlmm.likelihood.area.moments import blup

DATA = Path(__file__).parents[2] / "data"
CASES = json.loads((DATA / "fay_herriot_exact.json").read_text())["cases"]
EXACT = json.loads((DATA / "area_estimators_exact.json").read_text())["cases"]
BAYES = json.loads((DATA / "bayes_area.json").read_text())
METHODS = ("reml", "ml", "fh", "pr", "amrl_ll", "ampl_ll", "amrl_yl", "ampl_yl")


def case_design(name):
    case = CASES[name]
    return area_design(np.array(case["y"]), np.array(case["X"]), np.array(case["D"]))


@pytest.mark.parametrize("name", ["milk", "grapes", "boundary_b1", "boundary_b15", "eusilcA_logMean"])
@pytest.mark.parametrize("method", METHODS)
def test_the_second_order_formula_of_a_fit_equals_the_exact_answers(name, method):
    """40-digit answers; what is reported is that formula, or says why it is not, and is positive."""
    want = CASES[name][method] if method in ("reml", "ml") else EXACT[name][method]
    every = slice(None, None, CASES[name]["stride"])

    fit = FITS[method](case_design(name))

    assert_allclose(fit.mse_unbiased[every], want["mse"], rtol=1e-9)
    assert_allclose([fit.var_A, fit.bias_A], [want["var_A"], want["bias_A"]], rtol=1e-9)
    assert (fit.mse > 0).all()
    assert fit.mse_valid.all()
    zero = fit.A_hat == 0 or fit.certificate.lifted
    assert ("averaged over" in fit.mse_kind) == zero
    if method in ("reml", "ml", "pr", "amrl_yl", "ampl_yl") and not zero:
        assert_allclose(fit.mse, fit.mse_unbiased, rtol=1e-14)
    assert zero or fit.variance_formula in fit.mse_kind


def test_where_the_formula_is_negative_the_report_is_averaged():
    """Fay-Herriot moments with one precise area: Â = 0.037 inside the range, but b(Â) = 0.27 beside it."""
    D, y = np.array([1e-6, *np.full(9, 1.0)]), np.array([0.0, *np.resize([1.02, -1.02], 9)])

    fit = FITS["fh"](area_design(y, np.ones((10, 1)), D))

    assert fit.A_hat > 0.03
    assert fit.mse_unbiased.min() < 0 < fit.mse.min()
    assert "the second-order formula is negative" in fit.mse_kind
    assert any("negative" in note for note in fit.notes)
    assert (fit.mse[1:] > fit.g1[1:]).all()


@pytest.mark.parametrize("method", ["amrl_ll", "ampl_ll"])
def test_adjusted_estimates_that_the_adjustment_alone_makes_positive_have_positive_errors(method):
    """15 areas, A = 0.1, the data set of 60 at which the formula is lowest: below 0, as emdi prints it."""
    X, D, _, Y = replicates(0.1, 400, 3)

    fit = FITS[method](area_design(Y[26], X, D))

    assert fit.mse_unbiased.min() < 0 < fit.mse.min()
    assert "by its adjustment alone" in fit.mse_kind


@pytest.mark.parametrize("method", ["reml", "mix"])
def test_at_zero_the_mse_is_the_variance_of_a_posterior_and_the_distance_to_its_mean(method):
    """The prior is flat for an area at the median D: hierarchical Bayes answers by 3200-node quadrature."""
    for name in ("boundary_b1", "boundary_b6", "boundary_b9"):
        flat = BAYES[name]["HB_flat"]
        fit = FITS[method](case_design(name))

        i = int(np.argsort(fit.design.D)[len(fit.design.D) // 2])

        assert fit.design.D[i] == np.median(fit.design.D)
        want = flat["post_var"][i] + (flat["post_mean"][i] - fit.eblup[i]) ** 2
        assert_allclose(fit.mse[i], want, rtol=1e-8)


def test_too_few_areas_at_zero_are_said_to_be_too_few():
    """m = p + 2: the matching prior leaves no posterior; a proper one stands in, and the mse is not called valid."""
    fit = FITS["reml"](area_design([0.1, -0.1, 0.05], np.ones((3, 1)), [1.0, 1.0, 2.0]))

    assert fit.A_hat == 0
    assert (fit.mse > 0).all()
    assert not fit.mse_valid.any()
    assert "it needs m > p + 2" in fit.mse_kind


def test_predictions_at_zero_have_errors_of_the_same_kind():
    """Own rows repeat the fit's mse; an area elsewhere and a new area have the average's, not the formula's."""
    design = case_design("boundary_b1")
    fit = FITS["reml"](design)
    x = np.array([1.0, 2.0])

    frame = predict_rows(fit, new_rows(design, [4, 4, -1], [design.X[4], x, x]), 0.95)

    assert_allclose(frame["mse"][0], fit.mse[4], rtol=1e-11)
    own = np.array([4, -1])
    want = integrated_errors(0.0, design.y, design.X, design.D, np.vstack([x, x]), own)
    assert_allclose(frame["mse"][1:], want, rtol=1e-11)
    effects = fit.tidy("ran_vals")
    want = integrated_errors(0.0, design.y, design.X, design.D, np.zeros_like(design.X), np.arange(11))
    assert_allclose(np.square(effects["se"]), want, rtol=1e-11)


FIFTEEN = np.repeat([0.3, 0.6, 1.0, 1.5, 2.5], 3)


def replicates(A, n, seed, m=15):
    """X (m, 2), D (m,), effects and responses (n, m) around 0."""
    rng = np.random.default_rng(seed)
    D = np.tile(FIFTEEN, m // 15)
    X = np.column_stack([np.ones(m), rng.permutation(np.linspace(-1, 1, m))])
    v = np.sqrt(A) * rng.standard_normal((n, m))
    return X, D, v, v + np.sqrt(D) * rng.standard_normal((n, m))


@pytest.mark.parametrize("design", ["even", "uneven"])
@pytest.mark.parametrize("A", [0.1, 0.4])
def test_what_is_reported_at_zero_against_the_formula_by_simulation(A, design):
    """15 areas, REML; errors given Â = 0 against both, relative to their mean. Uneven: one D is 0.01, the others 1.

    The formula is the same whatever the data are: at A = 0.4 it is 35 or 52 % too small, and the average within 15 %.
    At A = 0.1 the average is above, by more than half; the formula is above by a third, or a third too small.
    """
    X, D, _, Y = replicates(A, 1500, 11)
    if design == "uneven":
        Y, D = Y / np.sqrt(A + D), np.array([0.01, *np.ones(14)])
        Y = Y * np.sqrt(A + D)
    zero = Y[estimate_many("reml", Y, X, D).A == 0][:200]
    w = 1 / D
    C = np.linalg.inv(X.T @ (w[:, None] * X))
    formula = np.einsum("ip,pq,iq->i", X, C, X) + 2 * w * 2 / np.square(w).sum()
    best = predict_many(np.full(len(zero), A), zero, X, D)[1]
    made = predict_many(np.zeros(len(zero)), zero, X, D)[1]
    realised = np.diagonal(error_matrix_of(A, X, D)) + np.square(best - made)

    averaged = np.array([integrated_errors(0.0, y, X, D, X, np.arange(15)) for y in zero])

    size = realised.mean(axis=0)
    bias = [(values / size - 1).mean() for values in (formula, averaged.mean(axis=0))]
    error = ((averaged - realised) / size).mean(axis=1).std() / np.sqrt(len(zero))
    assert len(zero) == 200
    assert error < 0.08
    if A == 0.4:
        assert bias[0] < -0.3
        assert abs(bias[1]) < 0.15
    else:
        assert bias[1] > 0.5
        assert (bias[0] < -0.25) == (design == "uneven")


def error_matrix_of(A, X, D):
    """D - DPD, the errors of the best predictor at the true A, dense."""
    Vi = np.diag(1 / (A + D))
    P = Vi - Vi @ X @ np.linalg.inv(X.T @ Vi @ X) @ X.T @ Vi
    return np.diag(D) - np.diag(D) @ P @ np.diag(D)


def test_the_sign_of_the_bias_term_out_of_sample_under_ml():
    """A + x'Cov(β)x - b, b < 0 the bias of Â_ML: 10,000 data sets of 45 areas, A = 1.5, and a new area.

    The mean of the estimates meets the mean of the squared errors within 3 Monte Carlo standard errors (1 %), and 1 %
    for what is of third order; with the other sign it is 14 % too small.
    """
    A, x = 1.5, np.array([1.0, 0.4])
    X, D, _, Y = replicates(A, 10_000, 12, m=45)
    found = estimate_many("ml", Y, X, D).A
    beta, _ = predict_many(found, Y, X, D)
    squared = A + np.square(beta @ x)
    V = found[:, None] + D
    C = np.linalg.inv(np.einsum("ni,ip,iq->npq", 1 / V, X, X))
    spread = np.einsum("p,npq,q->n", x, C, x)
    leverage = np.einsum("ni,ip,npq,iq->n", V**-2, X, C, X)
    bias = -leverage / np.square(1 / V).sum(axis=1)

    claimed, other = found + spread - bias, found + spread + bias

    error = np.hypot(squared.std(), claimed.std()) / np.sqrt(10_000)
    assert abs(claimed.mean() - squared.mean()) < 3 * error + 0.01 * squared.mean()
    assert other.mean() < 0.9 * squared.mean()


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_matrix_of_errors_holds_for_sums_of_areas(method):
    """Mean and contrast of 30 areas, A = 1: realised squared errors of the sums against W Σ̂ W', 4,000 data sets.

    The error of the best predictor is put in exactly, so that 4 Monte Carlo standard errors are about 1 %.
    """
    A = 1.0
    X, D, _, Y = replicates(A, 4000, 13, m=30)
    W = np.vstack([np.full(30, 1 / 30), np.sign(np.arange(30) - 14.5) / 30, np.where(D < 0.5, 1 / 6, 0)])
    found = estimate_many(method, Y, X, D).A
    moved = predict_many(found, Y, X, D)[1] - predict_many(np.full(4000, A), Y, X, D)[1]
    squared = np.diagonal(W @ error_matrix_of(A, X, D) @ W.T) + np.square(moved @ W.T)

    claimed = []
    for a in found[:1000]:
        half = blup(a, np.zeros(30), X, D, X).half
        of_A = asymptotics(method, a, D, half)
        claimed.append(np.diagonal(error_matrix(a, of_A, D, half, np.ones(30, dtype=bool)).quadratic(W)))

    error = np.hypot(squared.std(axis=0) / np.sqrt(4000), np.std(claimed, axis=0) / np.sqrt(1000))
    gap = np.mean(claimed, axis=0) - squared.mean(axis=0)
    assert (np.abs(gap) < 4 * error + 0.01 * squared.mean(axis=0)).all()


@pytest.mark.parametrize("method", ["reml", "ml", "fh", "ampl_ll"])
@pytest.mark.parametrize("name", ["milk", "boundary_b1"])
def test_the_matrix_of_a_fit_has_its_mse_on_the_diagonal(name, method):
    """Labelled, symmetric, positive semidefinite; unsampled areas covary with others, known ones with none."""
    design = case_design(name)
    role, y, D = np.full(len(design.y), "sampled", dtype="<U9"), design.y.copy(), design.D.copy()
    role[3], y[3], D[3] = "unsampled", np.nan, np.nan
    role[5], D[5] = "direct", 0.0
    fit = FITS[method](replace(design, role=role, y=y, D=D))

    table = fit.error_covariance()

    matrix = table.to_numpy()
    assert table.index.equals(design.areas)
    assert_allclose(np.diagonal(matrix), fit.mse, rtol=1e-12)
    assert (matrix == matrix.T).all()
    assert np.linalg.eigvalsh(matrix).min() > -1e-12 * fit.mse.max()
    assert (matrix[5] == 0).all()
    assert np.abs(np.delete(matrix[3], [3, 5])).min() > 0
    W = np.random.default_rng(1).normal(size=(2, len(y)))
    assert_allclose(fit.error_matrix().quadratic(W), W @ matrix @ W.T, rtol=1e-10)


def test_a_matrix_too_large_to_write_out_is_refused(monkeypatch):
    """The message says how many areas are too many, and what holds the same in factors."""
    monkeypatch.setattr(mse_matrix, "DENSE", 10)

    with pytest.raises(FitError, match=r"up to 10 areas; there are 43. Use fit.error_matrix"):
        FITS["reml"](case_design("milk")).error_covariance()


def test_kurtosis_of_the_effects_is_met_where_the_normal_formula_is_not():
    """Fay-Herriot moments, 60 areas, effects 0 but for a fifth of them (excess kurtosis 12): 12,000 data sets.

    Areas of D = 3: the normal formula is 6 % too small in the mean (Chen, Lahiri and Rao, arXiv:2409.16409, say that
    it is not right to second order), the one with the estimated kurtosis 2 %. Monte Carlo errors are about 1 %.
    """
    rng = np.random.default_rng(1)
    m, n, A = 60, 12_000, 1.0
    X, D = np.ones((m, 1)), np.tile([0.1, 0.5, 1.0, 3.0, 10.0], 12)
    v = np.where(rng.random((n, m)) < 0.2, np.sqrt(5) * rng.normal(size=(n, m)), 0.0)
    Y = v + np.sqrt(D) * rng.normal(size=(n, m))
    found = estimate_many("fh", Y, X, D).A
    beta, theta = predict_many(found, Y, X, D)
    best = Y * A / (A + D)
    excess = np.square(theta - v) - np.square(best - v)
    realised = (A * D / (A + D) + excess.mean(axis=0))[D == 3].mean()
    noise = excess[:, D == 3].mean(axis=1).std() / np.sqrt(n)

    normal, aware = [], []
    for a, y, b in zip(found[:1200], Y, beta, strict=False):
        half = blup(a, np.zeros(m), X, D, X).half
        terms = error_terms(a, asymptotics("fh", a, D, half), D, half)
        kappa = fourth_cumulant(a, y - X @ b, a + D - np.square(half).sum(axis=1), D)
        normal.append(terms.unbiased[D == 3].mean())
        aware.append((terms.unbiased + kurtosis_terms("fh", a, D, kappa)[0])[D == 3].mean())

    gap = [np.mean(values) / realised - 1 for values in (normal, aware)]
    error = np.hypot(np.std(normal) / np.sqrt(1200), noise) / realised
    assert gap[0] < -3 * error
    assert abs(gap[1]) < abs(gap[0]) / 1.5
