"""The posterior under correlated sampling errors: against sums over A of dense Gaussian algebra, and in PyMC."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.bayes.compile_area import hierarchical_area_model, marginal_area_model
from hierlmm.bayes.compile_mode import area_mode
from hierlmm.bayes.priors import HalfCauchy, Normal, Priors
from hierlmm.design import build

LABELS = [f"a{k}" for k in range(14)]
SPEC = hl.fay_herriot("y ~ x", sampling_covariance="S", area="area", unsampled="synthetic")
DIAGONAL = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")
PRIORS = {
    "default": None,
    "flat on A": Priors(preset="flat_variance"),
    "proper": Priors(fixed={"x": Normal(0.5, 0.3)}, sd=HalfCauchy(2)),
}


def data(seed=1):
    """14 areas in blocks of 5, 1 and 8; the second and the ninth have no direct estimate."""
    rng = np.random.default_rng(seed)
    S = np.zeros((14, 14))
    for a, b in ((0, 5), (5, 6), (6, 14)):
        half = rng.normal(size=(b - a, b - a))
        S[a:b, a:b] = half @ half.T / 2 + 0.5 * np.eye(b - a)
    x = rng.normal(size=14)
    y = 4 + x + 1.5 * rng.normal(size=14) + np.linalg.cholesky(S) @ rng.normal(size=14)
    y[[1, 8]] = np.nan
    return pd.DataFrame({"area": LABELS, "y": y, "x": x, "D": np.diagonal(S)}), pd.DataFrame(S, LABELS, LABELS)


def by_hand(table, S, priors):
    """Posterior means, sds and the parts of the variance by a fine sum over log √A of dense conditional moments."""
    s = table["y"].notna().to_numpy()
    X, y = np.column_stack([np.ones(14), table["x"]]), table["y"].to_numpy()[s]
    S, precision, mean = S.to_numpy()[np.ix_(s, s)], np.zeros(2), np.zeros(2)
    if priors == "proper":
        precision[1], mean[1] = 0.3**-2, 0.5
    log_weight, rows = [], []
    for u in np.linspace(-20, 6, 3001):
        tau = np.exp(u)
        Vi = np.linalg.inv(tau**2 * np.eye(s.sum()) + S)
        cov = np.linalg.inv(X[s].T @ Vi @ X[s] + np.diag(precision))
        beta = cov @ (X[s].T @ Vi @ y + precision * mean)
        r = y - X[s] @ beta
        away = beta - mean
        value = np.linalg.slogdet(Vi)[1] + np.linalg.slogdet(cov)[1] - r @ Vi @ r - precision @ away**2
        prior = {"flat on A": u, "proper": -np.log1p(tau**2 / 4)}.get(priors, 0.0)
        log_weight.append(value / 2 + prior + u)
        c = tau**2 * np.eye(14)[:, s] @ Vi
        H = X - c @ X[s]
        G1, G2 = tau**2 * (np.eye(14) - c @ np.eye(14)[s]), H @ cov @ H.T
        gamma = np.diagonal(c @ np.eye(14)[s])
        parts = np.diagonal(G1), np.diagonal(G2), beta, np.diagonal(cov)
        rows.append((X @ beta + c @ r, *parts, tau**2, gamma, G1 + G2))
    weight = np.exp(np.array(log_weight) - max(log_weight))
    theta, g1, g2, beta, var_beta, A, gamma, joint = (np.array(part) for part in zip(*rows, strict=True))

    def average(values):
        return np.tensordot(weight / weight.sum(), values, 1)

    centre, fixed = average(theta), average(beta)
    return {
        "theta": centre,
        "covariance": average(joint + (theta - centre)[:, :, None] * (theta - centre)[:, None, :]),
        "g1": average(g1),
        "g2": average(g2),
        "g3": average((theta - centre) ** 2),
        "beta": fixed,
        "sd_beta": np.sqrt(average(var_beta) + average((beta - fixed) ** 2)),
        "A": average(A),
        "gamma": average(gamma),
    }


@pytest.mark.parametrize("name", PRIORS)
def test_the_posterior_is_the_integral_over_the_area_variance(name):
    """Means, three parts of each variance, β and A to 1e-7, whatever the prior and the order of the matrix."""
    table, S = data()

    got = hl.posterior(
        SPEC, table, PRIORS[name], draws=0, seed=1, matrices={"S": S.sample(frac=1, random_state=1)}
    )

    want = by_hand(table, S, name)
    assert_allclose(got.areas["estimate"], want["theta"], rtol=1e-7)
    for part in ("g1", "g2", "g3"):
        assert_allclose(got.areas[part], want[part], rtol=1e-6, atol=1e-9)
    assert_allclose(got.fixed["estimate"], want["beta"], rtol=1e-7)
    assert_allclose(got.fixed["se"], want["sd_beta"], rtol=1e-7)
    assert_allclose(got.A["estimate"][0], want["A"], rtol=1e-6)
    assert_allclose(got.areas["gamma"], want["gamma"], atol=1e-8)
    frame = got.predict(table)
    assert_allclose(frame["estimate"], want["theta"], rtol=1e-7)
    assert_allclose(frame["mse"], want["g1"] + want["g2"] + want["g3"], rtol=1e-6)


def test_a_diagonal_covariance_is_the_ordinary_posterior():
    """S = diag(D), under a prior that depends on the sampling variances too: every summary as without a matrix."""
    table, _ = data(2)
    S = pd.DataFrame(np.diag(table["D"]), LABELS, LABELS)

    got = hl.posterior(SPEC, table, "jeffreys", draws=0, seed=1, matrices={"S": S})
    want = hl.posterior(DIAGONAL, table, "jeffreys", draws=0, seed=1)

    for column in ("estimate", "se", "lower", "upper", "gamma", "g1", "g2", "g3"):
        assert_allclose(got.areas[column], want.areas[column], rtol=1e-8, atol=1e-12, err_msg=column)
    assert_allclose(got.diagnostics["log_marginal_likelihood"], want.diagnostics["log_marginal_likelihood"], rtol=1e-9)


def test_draws_have_the_covariances_that_errors_have():
    """20,000 draws: means and covariance matrix of the area means against the sum, areas of a block together."""
    table, S = data()
    got = hl.posterior(SPEC, table, "flat_variance", draws=20_000, seed=2, matrices={"S": S})

    theta = got.sample.variables["theta"][1][0]

    want = by_hand(table, S, "flat on A")
    sd = np.sqrt(np.diagonal(want["covariance"]))
    error = 5 / np.sqrt(20_000)
    assert_allclose((theta.mean(axis=0) - want["theta"]) / sd, 0, atol=error)
    assert_allclose(np.cov(theta.T) / np.outer(sd, sd), want["covariance"] / np.outer(sd, sd), atol=2 * error)


def test_the_comparison_adds_up():
    """Steps from EBLUP to posterior mean sum exactly; the parts of the mse face those of the variance; A is tested."""
    table, S = data()
    fit = hl.fit(SPEC, table, "fh", matrices={"S": S})
    posterior = hl.posterior(SPEC, table, draws=0, seed=1, matrices={"S": S})

    both = hl.compare(fit, posterior)

    steps = both.attribution
    total = steps[["estimator", "averaging", "variance_prior", "fixed_prior", "monte_carlo"]].sum(axis=1)
    assert_allclose(total, steps["end"] - steps["start"], atol=1e-12)
    assert_allclose(steps["start"] + steps["estimator"], hl.fit(SPEC, table, "reml", matrices={"S": S}).eblup)
    assert_allclose(both.mse["posterior_variance"], posterior.areas["mse"])
    s = table["y"].notna().to_numpy()
    reml = hl.fit(SPEC, table, "reml", matrices={"S": S})
    X, y, S0 = np.column_stack([np.ones(14), table["x"]])[s], table["y"].to_numpy()[s], S.to_numpy()[np.ix_(s, s)]
    Vi = np.linalg.inv(S0)
    cov = np.linalg.inv(X.T @ Vi @ X)
    r = y - X @ cov @ X.T @ Vi @ y
    at_zero = (np.linalg.slogdet(Vi)[1] + np.linalg.slogdet(cov)[1] - r @ Vi @ r - 10 * np.log(2 * np.pi)) / 2
    assert_allclose(both.boundary["statistic"][0], 2 * (reml.loglik - at_zero), rtol=1e-8)


@pytest.mark.parametrize("form", ["centred", "non-centred", "marginal"])
def test_the_compiled_model_has_the_dense_density(form):
    """PyMC against scipy's multivariate normal at 20 points: one constant between them, to 1e-8."""
    pytest.importorskip("pymc")
    from compile_cases import differences
    from scipy.stats import halfcauchy, multivariate_normal, norm

    table, S = data()
    design = build(SPEC, table, {"S": S})
    priors = Priors(fixed=Normal(0, 5), sd=HalfCauchy(2)).resolve(design)
    mode = area_mode(design)
    model = (
        marginal_area_model(design, priors, mode)
        if form == "marginal"
        else hierarchical_area_model(design, priors, mode, form)
    )
    s = design.sampled
    X, y, S0 = design.X[s], design.y[s], S.to_numpy()[np.ix_(s, s)]

    def dense(values):
        mean, tau = X @ values["beta"], float(values["tau"])
        value = norm(0, 5).logpdf(values["beta"]).sum() + halfcauchy(scale=2).logpdf(tau)
        if form == "marginal":
            return value + multivariate_normal(mean, tau**2 * np.eye(12) + S0).logpdf(y)
        value += multivariate_normal(values["theta"], S0).logpdf(y) + norm(mean, tau).logpdf(values["theta"]).sum()
        return value + (12 * np.log(tau) if form == "non-centred" else 0.0)

    pairs = differences(model, dense, points=20)

    assert np.ptp(pairs[:, 0] - pairs[:, 1]) < 1e-8 * np.abs(pairs).max()


def test_a_posterior_comes_back_from_its_file(tmp_path):
    """Saved with its matrix and read: the same areas and the same prediction."""
    table, S = data()
    got = hl.posterior(SPEC, table, draws=10, seed=1, matrices={"S": S})

    got.save(tmp_path / "p.hlm")
    back = hl.read(tmp_path / "p.hlm")

    pd.testing.assert_frame_equal(back.areas, got.areas)
    pd.testing.assert_frame_equal(back.predict(table), got.predict(table))
