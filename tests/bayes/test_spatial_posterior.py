"""The posterior of spatial area effects: against double sums of dense Gaussian algebra, its draws, and in PyMC."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

import hierlmm as hl
from hierlmm.bayes.priors import Between, HalfCauchy, Normal, Priors, Uniform
from hierlmm.design import build
from hierlmm.errors import PriorError

M = 12
LABELS = [f"a{k}" for k in range(M)]
SPEC = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", area_effects=hl.SAR("W"), unsampled="synthetic")
PRIORS = {
    "default": None,
    "flat on A": Priors(preset="flat_variance"),
    "proper": Priors(fixed={"x": Normal(0.5, 0.3)}, sd=HalfCauchy(2), rho=Between(0, 1)),
    "uniform": Priors(sd=Uniform(3)),
}


def data(seed=1):
    """A ring of 12 areas with an island; two have no direct estimate."""
    rng = np.random.default_rng(seed)
    W = (np.roll(np.eye(M), 1, 1) + np.roll(np.eye(M), -1, 1)) / 2
    W[3], W[:, 3] = 0.0, 0.0
    W /= np.maximum(W.sum(axis=1), 1e-300)[:, None]
    x, D = rng.normal(size=M), rng.uniform(0.5, 1.5, M)
    v = np.linalg.solve(np.eye(M) - 0.6 * W, 1.5 * rng.normal(size=M))
    y = 1 + x + v + np.sqrt(D) * rng.normal(size=M)
    y[[1, 8]] = np.nan
    return pd.DataFrame({"area": LABELS, "y": y, "x": x, "D": D}), pd.DataFrame(W, LABELS, LABELS)


def by_hand(table, W, name):
    """Posterior means and parts of the variance by midpoints in ρ and a sum over log √A of dense moments."""
    s, X = table["y"].notna().to_numpy(), np.column_stack([np.ones(M), table["x"]])
    y, S, W = table["y"].to_numpy()[s], np.diag(table["D"][s]), W.to_numpy()
    ends = 1 / np.linalg.eigvals(W).real.min(), 1 / np.linalg.eigvals(W).real.max()
    precision, mean, low, high = np.zeros(2), np.zeros(2), *ends
    if name == "proper":
        precision[1], mean[1], low = 0.3**-2, 0.5, 0.0
    t = np.linspace(-2.15, 2.15, 60)  # double exponential in ρ
    place = (1 + np.tanh(np.pi / 2 * np.sinh(t))) / 2
    log_place = np.log(np.cosh(t)) - 2 * np.log(np.cosh(np.pi / 2 * np.sinh(t)))
    log_weight, rows = [], []
    u, log_step = np.linspace(-12, 8, 140), np.zeros(140)
    if name == "uniform":  # Gauss and Legendre up to the end of the prior
        u, step = np.polynomial.legendre.leggauss(70)
        u, log_step = -12 + (np.log(3) + 12) * (u + 1) / 2, np.log(step)
    for rho, slope in zip(low + (high - low) * place, log_place, strict=True):
        B = np.linalg.inv(np.eye(M) - rho * W)
        Omega = B @ B.T
        for log_tau, log_h in zip(u, log_step, strict=True):
            tau = np.exp(log_tau)
            G = tau**2 * Omega
            Vi = np.linalg.inv(G[np.ix_(s, s)] + S)
            cov = np.linalg.inv(X[s].T @ Vi @ X[s] + np.diag(precision))
            beta = cov @ (X[s].T @ Vi @ y + precision * mean)
            r, c = y - X[s] @ beta, G[:, s] @ Vi
            loglik = np.linalg.slogdet(Vi)[1] + np.linalg.slogdet(cov)[1] - r @ Vi @ r - precision @ (beta - mean) ** 2
            prior = {"flat on A": log_tau, "proper": -np.log1p(tau**2 / 4)}.get(name, 0.0)
            log_weight.append(loglik / 2 + prior + log_tau + slope + log_h)
            H = X - c @ X[s]
            rows.append(np.concatenate([
                X @ beta + c @ r, np.diagonal(G - c @ G[s]), ((H @ cov) * H).sum(axis=1), beta, [tau**2, rho, rho**2],
                np.diagonal(c @ np.eye(M)[s]),
            ]))  # fmt: skip
    weight = np.exp(np.array(log_weight) - max(log_weight))
    rows = np.array(rows)
    mean = weight @ rows / weight.sum()
    spread = weight @ (rows[:, :M] - mean[:M]) ** 2 / weight.sum()
    parts = np.split(mean, [M, 2 * M, 3 * M, 3 * M + 2, 3 * M + 3, 3 * M + 4, 3 * M + 5])
    names = ("theta", "g1", "g2", "beta", "A", "rho", "rho2", "gamma")
    return {**dict(zip(names, parts, strict=True)), "g3": spread}


@pytest.mark.parametrize("name", PRIORS)
def test_the_posterior_is_the_integral_over_both_parameters(name):
    """Means, parts of the variances, β, A and ρ to 1e-5, whatever the priors and the order of the matrix."""
    table, W = data()

    got = hl.posterior(SPEC, table, PRIORS[name], draws=0, seed=1, matrices={"W": W.sample(frac=1, random_state=1)})

    want = by_hand(table, W, name)
    rtol = 1e-5
    assert_allclose(got.areas["estimate"], want["theta"], rtol=rtol)
    for part in ("g1", "g2", "g3"):
        assert_allclose(got.areas[part], want[part], rtol=10 * rtol, atol=1e-7)
    assert_allclose(got.fixed["estimate"], want["beta"], rtol=rtol)
    assert_allclose(got.A["estimate"][0], want["A"][0], rtol=5 * rtol)
    assert_allclose(got.rho["estimate"], want["rho"], atol=rtol)
    assert_allclose(got.rho["se"] ** 2, want["rho2"] - want["rho"] ** 2, rtol=10 * rtol)
    assert_allclose(got.areas["gamma"], want["gamma"], atol=rtol)
    frame = got.predict(table)
    assert_allclose(frame["estimate"], want["theta"], rtol=rtol)
    assert_allclose(frame["mse"], want["g1"] + want["g2"] + want["g3"], rtol=10 * rtol)
    assert list(frame["basis"][[0, 1]]) == ["posterior", "neighbours"]


def test_draws_are_of_the_posterior_that_is_summarised():
    """8,000 draws: means, sds and quantiles of areas, A and ρ against the lattice, to five Monte Carlo errors."""
    table, W = data()

    got = hl.posterior(SPEC, table, "sd=halfcauchy(2)", draws=8000, seed=2, matrices={"W": W})

    drawn = {name: values[0] for name, (_, values) in got.sample.variables.items()}
    error = 5 / np.sqrt(8000)
    se = got.areas["se"].to_numpy()
    assert_allclose((drawn["theta"].mean(axis=0) - got.areas["estimate"]) / se, 0, atol=error)
    assert_allclose(drawn["theta"].std(axis=0) / se, 1, atol=2 * error)
    assert_allclose((drawn["rho"].mean() - got.rho["estimate"]) / got.rho["se"], 0, atol=error)
    for end, level in (("lower", 0.025), ("upper", 0.975)):
        assert_allclose((drawn["rho"] < got.rho[end][0]).mean(), level, atol=0.01)
        assert_allclose((drawn["tau"] < got.A[end][1]).mean(), level, atol=0.01)
        below = (drawn["theta"] < got.areas[end].to_numpy()).mean(axis=0)
        assert_allclose(below, level, atol=0.01)


def rings(parts):
    """Twelve areas in as many rings as asked for, all with data but the last, and one area of no ring."""
    k = M // parts
    ring = (np.roll(np.eye(k), 1, 1) + np.roll(np.eye(k), -1, 1)) / 2
    table, _ = data()
    table["y"] = table["y"].fillna(1.0).where(table.index < M - 1)
    alone = pd.DataFrame({"area": ["alone"], "y": [np.nan], "x": [0.3], "D": [np.nan]})
    W = np.zeros((M + 1, M + 1))
    W[:M, :M] = np.kron(np.eye(parts), ring)
    labels = [*LABELS, "alone"]
    return pd.concat([table, alone], ignore_index=True), pd.DataFrame(W, labels, labels)


def given(table, W, A, rho):
    """Likelihood with β integrated out, mean and covariance of β, of dense matrices."""
    s, X = table["y"].notna().to_numpy(), np.column_stack([np.ones(len(table)), table["x"]])
    B = np.linalg.inv(np.eye(len(W)) - rho * W.to_numpy())
    Vi = np.linalg.inv(A * (B @ B.T)[np.ix_(s, s)] + np.diag(table["D"][s]))
    cov = np.linalg.inv(X[s].T @ Vi @ X[s])
    beta = cov @ X[s].T @ Vi @ table["y"][s]
    r = table["y"][s] - X[s] @ beta
    return np.sqrt(np.linalg.det(Vi) * np.linalg.det(cov)) * np.exp(-(r @ Vi @ r) / 2), beta, cov


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_moments_that_the_end_of_rho_takes_away_are_not_reported(parts):
    """Density times δ^k at distance δ of ρ = 1: mean and sd of β₀, and of an area alone, exist where it is integrable.

    Slope, means of areas in the fit and of those connected to them stay; a normal prior, or an earlier end, gives back.
    """
    table, W = rings(parts)
    near, nearer = (given(table, W, 1.0, 1 - delta) for delta in (1e-3, 1e-4))
    falls = np.log10(near[0] / nearer[0])  # density like δ to this
    grows = np.log10(nearer[2][0, 0] / near[2][0, 0])  # variance of β₀ like δ to minus this
    mean_exists, sd_exists = falls - grows / 2 > -0.9, falls - grows > -0.9

    got = hl.posterior(SPEC, table, draws=0, seed=1, matrices={"W": W})

    rows = got.predict(pd.DataFrame({"area": ["a0", "a11", "alone", "new"], "x": 0.0}))
    assert rows["basis"].tolist() == ["posterior", "neighbours", "synthetic", "synthetic"]
    for found in (got.fixed_effects.estimate[0], *got.areas["estimate"][-1:], *rows["estimate"][2:]):
        assert np.isfinite(found) == mean_exists
    for found in (got.fixed_effects.se[0], got.cov_beta[0, 0], *got.areas["se"][-1:], *rows["se"][2:]):
        assert np.isfinite(found) == sd_exists
    assert np.isfinite([*got.areas["se"][:-1], *rows["se"][:2], got.fixed_effects.se[1]]).all()
    assert any("As rho nears 1" in note for note in got.notes) == (not sd_exists)
    for prior in (Priors(rho=Between(-1, 0.9)), Priors(fixed={"Intercept": Normal(0, 10)})):
        assert np.isfinite(hl.posterior(SPEC, table, prior, draws=0, seed=1, matrices={"W": W}).areas["se"]).all()


def test_intervals_stand_where_moments_do_not_exist():
    """2.5 and 97.5 % of the dense mixture over (A, ρ) lie below the ends that are given of β₀, to 1e-5."""
    table, W = rings(1)
    got = hl.posterior(SPEC, table, draws=0, seed=1, matrices={"W": W}).fixed_effects
    total = np.zeros(3)
    t = np.linspace(-2.15, 2.15, 60)  # double exponential in ρ
    for x, slope in zip(np.sinh(t) * np.pi / 2, np.cosh(t), strict=True):
        for tau in np.exp(np.linspace(-10, 6, 80)):
            weight, beta, cov = given(table, W, tau**2, np.tanh(x))
            below = norm.cdf([got.lower[0], got.upper[0]], beta[0], np.sqrt(cov[0, 0]))
            total += weight * tau * slope / np.cosh(x) ** 2 * np.array([1.0, *below])

    assert_allclose(total[1:] / total[0], [0.025, 0.975], atol=1e-5)


def test_with_rho_held_near_zero_it_is_the_ordinary_posterior():
    """ρ between −1e-7 and 1e-7: area means, A and the marginal likelihood of the model with independent effects."""
    table, W = data()
    plain = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")

    got = hl.posterior(SPEC, table, Priors(rho=Between(-1e-7, 1e-7)), draws=0, seed=1, matrices={"W": W})
    want = hl.posterior(plain, table, draws=0, seed=1)

    assert_allclose(got.areas["estimate"], want.areas["estimate"], rtol=1e-5)
    assert_allclose(got.areas["se"], want.areas["se"], rtol=1e-5)
    assert_allclose(got.A["estimate"], want.A["estimate"], rtol=1e-5)
    log_m = [p.diagnostics["log_marginal_likelihood"] for p in (got, want)]
    assert_allclose(log_m[0], log_m[1], atol=1e-5)


def test_priors_of_rho_are_stated_cut_and_refused():
    """The default is printed with its ends; one outside what W admits, or of a model without rho, is an error."""
    table, W = data()
    got = hl.posterior(SPEC, table, "rho=between(0, 5)", draws=0, seed=1, matrices={"W": W})
    plain = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic")

    assert "rho ~ between(0, 1)" in got.summary()
    assert got.rho["lower"][0] > 0
    with pytest.raises(PriorError, match="admits"):
        hl.posterior(SPEC, table, "rho=between(2, 3)", seed=1, matrices={"W": W})
    with pytest.raises(PriorError, match="Only spatial"):
        hl.posterior(plain, table, "rho=between(0, 1)", seed=1)
    with pytest.raises(PriorError, match="smaller first"):
        Between(1, 0)


def test_too_few_areas_are_refused_as_without_space():
    """Flat on √A needs m > p + 1 whatever ρ: three areas and two coefficients have no posterior."""
    table, W = data()
    few = table.assign(y=table["y"].where(table.index.isin([0, 2, 4])))

    with pytest.raises(PriorError, match="at least 4 areas"):
        hl.posterior(SPEC, few, seed=1, matrices={"W": W})


def test_the_comparison_adds_up_and_has_rho():
    """Steps from EBLUP to posterior mean sum exactly, ρ stands beside the fit's, and the file comes back."""
    table, W = data()
    fit = hl.fit(SPEC, table, "ml", matrices={"W": W})
    posterior = hl.posterior(SPEC, table, draws=0, seed=1, matrices={"W": W})

    both = hl.compare(fit, posterior)

    steps = both.attribution
    total = steps[["estimator", "averaging", "variance_prior", "fixed_prior", "monte_carlo"]].sum(axis=1)
    assert_allclose(total, steps["end"] - steps["start"], atol=1e-12)
    flat = hl.posterior(SPEC, table, "flat_variance", draws=0, seed=1, matrices={"W": W})
    assert_allclose(steps[["start", "estimator", "averaging"]].sum(axis=1), flat.areas["estimate"], rtol=1e-9)
    rho = both.table.set_index("quantity").loc["autocorrelation"]
    assert_allclose([rho["estimate"], rho["posterior"]], [fit.rho_hat, posterior.rho["estimate"][0]])


@pytest.mark.parametrize("form", ["centred", "non-centred", "marginal"])
def test_the_compiled_model_has_the_dense_density(form):
    """PyMC against scipy's multivariate normal at 20 points: one constant between them, to 1e-8."""
    pytest.importorskip("pymc")
    from compile_cases import differences
    from scipy.stats import halfcauchy, multivariate_normal, norm

    from hierlmm.bayes.compile_spatial import hierarchical_spatial_model, marginal_spatial_model, spatial_mode

    table, W = data()
    design = build(SPEC, table, {"W": W})
    priors = Priors(fixed=Normal(0, 5), sd=HalfCauchy(2)).resolve(design)
    mode = spatial_mode(design, priors)
    model = (
        marginal_spatial_model(design, priors, mode)
        if form == "marginal"
        else hierarchical_spatial_model(design, priors, mode, form)
    )
    s, X, y = design.sampled, design.X, design.y[design.sampled]
    S = np.diag(design.D[s])

    def dense(values):
        mean, tau, rho = X @ values["beta"], float(values["tau"]), float(values["rho"])
        B = np.linalg.inv(np.eye(M) - rho * W.to_numpy())
        G = tau**2 * B @ B.T
        value = norm(0, 5).logpdf(values["beta"]).sum() + halfcauchy(scale=2).logpdf(tau)
        if form == "marginal":
            return value + multivariate_normal(mean[s], G[np.ix_(s, s)] + S).logpdf(y)
        value += multivariate_normal(values["theta"][s], S).logpdf(y)
        value += multivariate_normal(mean, G).logpdf(values["theta"])
        return value + (np.linalg.slogdet(G)[1] / 2 if form == "non-centred" else 0.0)

    pairs = differences(model, dense, points=20)

    assert np.ptp(pairs[:, 0] - pairs[:, 1]) < 1e-8 * np.abs(pairs).max()


@pytest.mark.nuts
def test_nuts_agrees_with_the_integral():
    """Two short chains: the means of areas and of ρ within five Monte Carlo errors of the exact ones."""
    pytest.importorskip("pymc")
    table, W = data()
    priors = Priors(sd=HalfCauchy(2))
    exact = hl.posterior(SPEC, table, priors, draws=0, seed=1, matrices={"W": W})

    got = hl.posterior(
        SPEC, table, priors, engine="nuts", seed=1, matrices={"W": W},
        nuts=hl.NutsOptions(draws=200, tune=200, chains=2, cores=1, retries=0, form="marginal"),
    )  # fmt: skip

    away = (got.areas["estimate"] - exact.areas["estimate"]) / got.areas["mcse"]
    assert np.abs(away).max() < 5
    assert abs(got.rho["estimate"][0] - exact.rho["estimate"][0]) < 5 * got.rho["mcse"][0]
    assert_allclose(got.areas["g1"], exact.areas["g1"], rtol=0.25)


def test_a_posterior_comes_back_from_its_file(tmp_path):
    """Saved with its matrix and read: the same frames."""
    table, W = data()
    got = hl.posterior(SPEC, table, draws=5, seed=1, matrices={"W": W})

    got.save(tmp_path / "p.hlm")
    back = hl.read(tmp_path / "p.hlm")

    pd.testing.assert_frame_equal(back.areas, got.areas)
    pd.testing.assert_frame_equal(back.rho, got.rho)
    assert_allclose(back.predict(table)["estimate"], got.areas["estimate"])
