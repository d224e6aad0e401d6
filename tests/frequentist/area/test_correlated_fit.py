"""Correlated sampling errors: every estimator, prediction and error against dense algebra in V = A I + S."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.area.correlated_results import CorrelatedAreaFit
from hierlmm.likelihood.area.estimators import ESTIMATORS

LABELS = [f"area {k}" for k in range(18)]
UNSAMPLED = [4, 11]
SPEC = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", unsampled="synthetic")
DIAGONAL = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")


def data(seed, sd=1.5, blocks=((0, 5), (5, 6), (6, 12), (12, 18))):
    """18 areas in four blocks, two without a direct estimate."""
    rng = np.random.default_rng(seed)
    S = np.zeros((18, 18))
    for a, b in blocks:
        half = rng.normal(size=(b - a, b - a))
        S[a:b, a:b] = half @ half.T / 2 + 0.5 * np.eye(b - a)
    x = rng.normal(size=18)
    y = 40 + x + sd * rng.normal(size=18) + np.linalg.cholesky(S) @ rng.normal(size=18)
    y[UNSAMPLED] = np.nan
    table = pd.DataFrame({"area": LABELS, "y": y, "x": x, "D": np.diagonal(S)})
    return table, pd.DataFrame(S, LABELS, LABELS)


class Dense:
    """The estimator's answer at a given A by matrices of all areas."""

    def __init__(self, table, S, A):
        self.s = table["y"].notna().to_numpy()
        self.X = np.column_stack([np.ones(18), table["x"]])
        self.y, self.S = table["y"].to_numpy()[self.s], S.to_numpy()[np.ix_(self.s, self.s)]
        self.Vi = np.linalg.inv(A * np.eye(self.s.sum()) + self.S)
        X = self.X[self.s]
        self.cov = np.linalg.inv(X.T @ self.Vi @ X)
        self.beta = self.cov @ X.T @ self.Vi @ self.y
        G = A * np.eye(18)[:, self.s]
        self.c = G @ self.Vi
        self.r = self.y - X @ self.beta
        self.H = self.X - self.c @ X
        self.g1 = A * np.eye(18) - self.c @ G.T
        self.g2 = self.H @ self.cov @ self.H.T
        slope = np.eye(18)[:, self.s] @ self.Vi - G @ self.Vi @ self.Vi  # ∂c/∂A
        self.g3 = slope @ np.linalg.inv(self.Vi) @ slope.T
        E = np.eye(18) - self.c @ np.eye(18)[self.s]
        self.fall = E @ E.T

    def variance_and_bias(self, method):
        """The published asymptotic variance and bias of each estimator, in traces."""
        Vi, V, m = self.Vi, np.linalg.inv(self.Vi), len(self.y)
        w1, w2 = np.trace(Vi), np.trace(Vi @ Vi)
        if method == "pr":
            return 2 * np.trace(V @ V) / m**2, 0.0
        if method == "fh":
            return 2 * m / w1**2, 2 * (m * w2 - w1**2) / w1**3
        X = self.X[self.s]
        profile = -np.trace(self.cov @ X.T @ Vi @ Vi @ X) / w2 if method in ("ml", "ampl_ll", "ampl_yl") else 0.0
        A = (np.trace(V) - np.trace(self.S)) / m
        return 2 / w2, profile + (2 / (A * w2) if method.endswith("ll") else 0.0)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_predictions_and_errors_are_those_of_the_full_covariance(method):
    """At each estimator's Â: β, EBLUPs, weights, g1, g2, g3 and the mse of areas with and without data."""
    table, S = data(1)

    fit = hl.fit(SPEC, table, method, matrices={"S": S.sample(frac=1, random_state=2)})

    dense = Dense(table, S, fit.A_hat)
    assert isinstance(fit, CorrelatedAreaFit)
    assert fit.A_hat > 0
    assert_allclose(fit.beta, dense.beta, rtol=1e-10)
    assert_allclose(fit.vcov_beta, dense.cov, rtol=1e-9)
    assert_allclose(fit.eblup, dense.X @ dense.beta + dense.c @ dense.r, rtol=1e-11)
    assert_allclose(fit.gamma[dense.s], np.diagonal(dense.c[dense.s]), atol=1e-12)
    X = dense.X[dense.s]
    assert_allclose(fit.residual_variance[dense.s], np.diagonal(np.linalg.inv(dense.Vi) - X @ dense.cov @ X.T))
    variance, bias = dense.variance_and_bias("reml" if method == "mix" else method)
    assert_allclose([fit.var_A, fit.bias_A], [variance, bias], rtol=1e-9)
    assert_allclose(fit.g1, np.diagonal(dense.g1), atol=1e-11)
    assert_allclose(fit.g2, np.diagonal(dense.g2), atol=1e-11)
    assert_allclose(fit.g3, variance * np.diagonal(dense.g3), atol=1e-11)
    unbiased = np.diagonal(dense.g1 + dense.g2 + 2 * variance * dense.g3 - bias * dense.fall)
    assert_allclose(fit.mse_unbiased, unbiased, atol=1e-11)
    if bias <= 0:
        assert_allclose(fit.mse, unbiased, atol=1e-11)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_a_diagonal_covariance_is_the_ordinary_fit(method):
    """S = diag(D): every number of the fit and of its frames as without a matrix, to 1e-12."""
    table, _ = data(2)
    S = pd.DataFrame(np.diag(table["D"]), LABELS, LABELS)

    got = hl.fit(SPEC, table, method, matrices={"S": S})
    want = hl.fit(DIAGONAL, table, method)

    for name in ("A_hat", "var_A", "bias_A", "loglik", "marginal_loglik", "beta", "vcov_beta", "eblup", "gamma", "g1"):
        assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-11, atol=1e-12, err_msg=name)
    for name in ("g2", "g3", "mse_unbiased", "residual", "residual_variance", "effect", "synthetic"):
        assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-10, atol=1e-12, err_msg=name)
    if want.A_hat > 0 and want.outcome.name == "INTERIOR":
        assert_allclose(got.mse, want.mse, rtol=1e-11)
        assert_allclose(got.error_covariance(), want.error_covariance(), rtol=1e-9, atol=1e-12)
        assert_allclose(got.effect_errors(), want.effect_errors(), rtol=1e-10)
    assert_allclose(got.A_table()[["lower", "upper"]], want.A_table()[["lower", "upper"]], rtol=1e-9)
    assert_allclose(got.leverage(), want.leverage(), rtol=1e-10)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_log_likelihood_is_that_of_the_full_covariance(method):
    """All constants: REML with β integrated out; the interval of A ends where it has fallen by half of χ²₁(0.95)."""
    table, S = data(3)

    fit = hl.fit(SPEC, table, method, matrices={"S": S})

    def loglik(A):
        dense = Dense(table, S, A)
        m, p = len(dense.y), 2
        value = -(m * np.log(2 * np.pi) - np.linalg.slogdet(dense.Vi)[1] + dense.r @ dense.Vi @ dense.r) / 2
        return value + (p * np.log(2 * np.pi) + np.linalg.slogdet(dense.cov)[1]) / 2 * (method == "reml")

    assert_allclose(fit.loglik, loglik(fit.A_hat), rtol=1e-10)
    ends = fit.A_table()[["lower", "upper"]].to_numpy()[0]
    assert_allclose([2 * (fit.loglik - loglik(end)) for end in ends], 3.841458820694124, rtol=1e-7)
    curve = fit.profile()[0]
    assert_allclose(curve.criterion[::8], [2 * (fit.loglik - loglik(v**2)) for v in curve.values[::8]], atol=1e-8)


def test_blocks_in_a_sequence_are_the_full_matrix():
    """Blocks of any order and the full matrix give one fit; rows of other areas are refused by name."""
    table, S = data(4)
    blocks = [S.iloc[a:b, a:b] for a, b in ((12, 18), (0, 5), (5, 6), (6, 12))]

    full, parts = (hl.fit(SPEC, table, "reml", matrices={"S": given}) for given in (S, blocks))

    assert_allclose(parts.eblup, full.eblup, rtol=1e-12)
    with pytest.raises(DesignError, match="area 17"):
        hl.fit(SPEC, table, "reml", matrices={"S": S.iloc[:17, :17]})


def test_the_matrix_of_errors_is_second_order_in_sums_too():
    """Errors of a sum against simulation from the model: 4,000 responses refitted in turned coordinates."""
    from hierlmm.frequentist.area.correlated import turned
    from hierlmm.likelihood.area.many import estimate_many, predict_many

    table, S = data(5, sd=2.0)
    fit = hl.fit(SPEC, table, "reml", matrices={"S": S})
    at = turned(fit.design)
    rng = np.random.default_rng(6)
    v = np.sqrt(fit.A_hat) * rng.normal(size=(4000, 16))
    Y = v + np.sqrt(at.errors.d) * rng.normal(size=v.shape)
    X = at.design.X[at.inside]

    found = estimate_many("reml", Y, X, at.errors.d)
    error = at.errors.back((predict_many(found.A, Y, X, at.errors.d)[1] - v).T).T
    true = np.cov(error.T, bias=True) + np.outer(error.mean(0), error.mean(0))

    W = np.array([np.ones(16), np.arange(16) % 2])
    matrix = fit.error_matrix()
    assert_allclose(np.diagonal(matrix.dense()), fit.mse, rtol=1e-10)
    inside = matrix.dense()[np.ix_(at.inside, at.inside)]
    # the estimate of the mse at the truth exceeds the mse by g3 (twice in the estimate, once in the truth): 10 %
    assert_allclose(np.diagonal(W @ inside @ W.T), np.diagonal(W @ true @ W.T), rtol=0.15)
    full = np.zeros((2, 18))
    full[:, at.inside] = W
    assert_allclose(matrix.quadratic(full), W @ inside @ W.T, rtol=1e-10)
    assert_allclose(matrix.times(np.eye(18)), matrix.dense(), atol=1e-12)
    draws = matrix.sample(20_000, np.random.default_rng(7))
    assert_allclose(np.cov(draws.T, bias=True), matrix.dense(), atol=0.06)


@pytest.mark.parametrize("method", ["reml", "fh"])
def test_the_naive_bootstrap_has_the_error_under_the_fitted_model(method):
    """g1 + g2 + g3 of the full covariance, to Monte Carlo error and terms of third order."""
    table, S = data(12, sd=3.0)
    fit = hl.fit(SPEC, table, method, matrices={"S": S})

    got = fit.mean_squared_error("bootstrap_naive", replicates=2000, seed=1)

    s = fit.design.sampled
    assert_allclose(got.mse[s], (fit.g1 + fit.g2 + fit.g3)[s], rtol=0.06)
    assert (got.mcse[s] < 0.02 * got.mse[s]).all()
    with pytest.raises(FitError, match="one of default, second_order"):
        fit.mean_squared_error("sumca", seed=1)


@pytest.mark.parametrize("kind", ["bootstrap", "bootstrap_naive", "second_order"])
def test_errors_by_name_of_a_diagonal_covariance_are_the_ordinary_ones(kind):
    """The replicates of a seed are the same, and so is every number made of them."""
    table, _ = data(2)
    S = pd.DataFrame(np.diag(table["D"]), LABELS, LABELS)
    asked = {} if kind == "second_order" else {"replicates": 30, "seed": 1}

    got = hl.fit(SPEC, table, "reml", matrices={"S": S}).mean_squared_error(kind, **asked)
    want = hl.fit(DIAGONAL, table, "reml").mean_squared_error(kind, **asked)

    assert_allclose(got.mse, want.mse, rtol=1e-8)
    assert_allclose(got.unbiased, want.unbiased, rtol=1e-8)
    assert_allclose(got.mcse, want.mcse, rtol=1e-6, atol=1e-12)


def test_at_zero_the_error_is_averaged_over_the_variance():
    """Â = 0: the mse against numerical integration of dense posterior moments over A, flat on A."""
    table, S = data(8, sd=0.0)
    table["y"] = 40 + 0.3 * (table["y"] - 40)

    fit = hl.fit(SPEC, table, "reml", matrices={"S": S})

    u = np.linspace(-14.0, 12.0, 4501)
    log_weight, moments = [], []
    for A in np.exp(u):
        dense = Dense(table, S, A)
        loglik = (np.linalg.slogdet(dense.Vi)[1] - dense.r @ dense.Vi @ dense.r + np.linalg.slogdet(dense.cov)[1]) / 2
        log_weight.append(loglik + np.log(A))
        moved = dense.X @ dense.beta + dense.c @ dense.r - fit.eblup
        moments.append(np.diagonal(dense.g1 + dense.g2) + moved**2)
    weight = np.exp(np.array(log_weight) - max(log_weight))
    assert fit.A_hat == 0.0
    assert "averaged" in fit.mse_kind
    assert_allclose(fit.mse, weight @ np.array(moments) / weight.sum(), rtol=1e-4)
    assert_allclose(fit.predict()["mse"], fit.mse, rtol=1e-8)
    assert_allclose(np.diagonal(fit.error_covariance()), fit.mse, rtol=1e-10)


def test_predictions_of_rows_have_the_area_of_their_label():
    """The fit's own rows give its EBLUPs; other covariates move g2 by x − c X; another area is a new draw."""
    table, S = data(9)
    fit = hl.fit(SPEC, table, "reml", matrices={"S": S})
    new = pd.DataFrame({"area": ["area 2", "elsewhere"], "x": [3.0, 3.0]})

    own, rows = fit.predict(), fit.predict(new)

    dense = Dense(table, S, fit.A_hat)
    x = np.array([1.0, 3.0])
    moved = x - (dense.c @ dense.X[dense.s])[2]
    assert_allclose(own["estimate"], fit.eblup, rtol=1e-12)
    assert_allclose(own["mse"], fit.mse, rtol=1e-9)
    assert list(own["basis"][UNSAMPLED]) == ["synthetic", "synthetic"]
    assert_allclose(rows["mse"][0], fit.g1[2] + moved @ dense.cov @ moved + 2 * fit.g3[2], rtol=1e-10)
    assert_allclose(rows["mse"][1], fit.A_hat + x @ dense.cov @ x, rtol=1e-10)
    assert_allclose(rows["estimate"], [x @ fit.beta + fit.effect[2], x @ fit.beta], rtol=1e-11)


def test_simulated_responses_have_the_covariance_of_the_model():
    """Var y* = A I + S between areas with data, nan elsewhere; columns do not depend on their number; refits work."""
    table, S = data(10)
    fit = hl.fit(SPEC, table, "reml", matrices={"S": S})

    draws = fit.simulate(20_000, seed=1)

    into = fit.design.sampled
    V = fit.A_hat * np.eye(16) + S.to_numpy()[np.ix_(into, into)]
    assert_allclose(np.cov(draws[into].to_numpy()), V, atol=0.15)
    assert draws[~into].isna().all(axis=None)
    assert_allclose(fit.simulate(2, seed=1), draws.iloc[:, :2])
    again = fit.refit(draws[0])
    assert isinstance(again, CorrelatedAreaFit)
    assert again.A_hat != fit.A_hat


def test_a_fit_comes_back_from_its_file(tmp_path):
    """Saved and read: the same numbers, the matrix by label with it, and its criterion checked."""
    table, S = data(11)
    fit = hl.fit(SPEC, table, "amrl_yl", matrices={"S": S})

    fit.save(tmp_path / "fit.hlm")
    back = hl.read(tmp_path / "fit.hlm")

    assert isinstance(back, CorrelatedAreaFit)
    pd.testing.assert_frame_equal(back.areas, fit.areas)
    assert_allclose(back.error_covariance(), fit.error_covariance())
    assert "known covariance" in fit.summary()
