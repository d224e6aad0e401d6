"""The exact posterior of the area-level model against integrals computed elsewhere, other rules, and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from bayes_cases import area_design, reference
from scipy import integrate, optimize, stats

from hierlmm.bayes import priors as hp
from hierlmm.bayes.areaposterior import area_posterior
from hierlmm.bayes.areaprediction import predict_rows
from hierlmm.design.types import NewRows
from hierlmm.errors import PriorError

REFERENCE = reference("bayes_area.json")
EXACT = [name for name in REFERENCE if name != "eight_schools"]
SCHOOLS = REFERENCE["eight_schools"]


def case(name):
    data = REFERENCE[name]
    return data, area_design(data["y"], data["D"], data["X"])


def schools(areas=8):
    return area_design(SCHOOLS["y"][:areas], np.square(SCHOOLS["sd"][:areas]), np.ones((areas, 1)))


def exact(design, priors, draws=0):
    return area_posterior(design, priors.resolve(design), draws, seed=20261121)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("preset", "key"), [("flat_variance", "HB_flat"), ("datta_rao_smith", "HB_datta_smith")])
def test_posterior_equals_gauss_legendre_quadrature_with_3200_nodes(name, preset, key):
    """exact_fh_*: hierarchical Bayes answers by 3200-node Gauss-Legendre quadrature, good to about 1e-10."""
    data, design = case(name)
    posterior = exact(design, hp.Priors(preset=preset))

    areas, answer = posterior.areas, data[key]
    A = posterior.A.set_index("term").loc["A"]
    np.testing.assert_allclose([A.estimate, A.se], [answer["mean_A"], answer["sd_A"]], rtol=1e-9)
    np.testing.assert_allclose(areas.estimate, answer["post_mean"], rtol=1e-9)
    # the reference subtracts squares of means, which costs digits where the variance is small beside them
    np.testing.assert_allclose(areas.mse, answer["post_var"], rtol=1e-8)
    np.testing.assert_allclose(1 - areas.gamma, answer["mean_B"], rtol=1e-9)
    np.testing.assert_allclose(posterior.fixed.estimate, answer["beta_mean"], rtol=1e-9)
    np.testing.assert_allclose(posterior.fixed.se, answer["beta_sd"], rtol=1e-9)


def test_eight_schools_equal_their_reference_to_seven_digits():
    """bayes/eight_schools: μ ~ N(0, 5), τ ~ half-Cauchy(0, 5), quadrature checked against posteriordb's draws."""
    posterior = exact(schools(), hp.Priors(fixed=hp.Normal(0, 5), sd=hp.HalfCauchy(5)))

    theta = np.array(SCHOOLS["theta"])
    np.testing.assert_allclose(posterior.areas[["estimate", "se"]], theta, rtol=1e-9)
    np.testing.assert_allclose(posterior.fixed[["estimate", "se"]].iloc[0], SCHOOLS["mu"], rtol=1e-9)
    np.testing.assert_allclose(posterior.A.loc[1, ["estimate", "se"]].astype(float), SCHOOLS["tau"], rtol=1e-9)


HARMONIC = math.sqrt(8 / sum(1 / s**2 for s in SCHOOLS["sd"]))


@pytest.mark.parametrize(
    ("priors", "tau", "A", "theta", "sd"),
    [
        (hp.Priors(preset="flat_variance"), 11.43, 193, 14.64, 10.45),
        (hp.Priors(preset="jeffreys"), 8.23, 95.2, 12.57, 8.99),
        (hp.Priors(preset="uniform_shrinkage"), 6.78, 62.5, 11.50, 8.09),
        (hp.Priors(preset="flat_sd"), 6.58, 75.2, 11.40, 8.34),
        (hp.Priors(sd=hp.HalfCauchy(HARMONIC)), 4.97, 41.6, 10.26, 7.19),
        (hp.Priors(sd=hp.HalfNormal(np.std(SCHOOLS["y"]))), 4.80, 36.8, 10.15, 7.01),
        (hp.Priors(sd=hp.Exponential(-math.log(0.05) / np.std(SCHOOLS["y"]))), 2.56, 12.1, 8.65, 5.35),
        (hp.Priors(sd=hp.InverseGamma(0.001, 0.001)), 1.83, 12.1, 8.46, 5.29),
        (hp.Priors(sd=hp.InverseGamma(1, 1)), 1.53, 3.8, 8.02, 4.52),
    ],
    ids=lambda value: value.preset if isinstance(value, hp.Priors) else "",
)
def test_eight_schools_under_nine_priors_equal_the_published_table_to_its_digits(priors, tau, A, theta, sd):
    """PRIORS section 4, flat β; printed to three or four digits."""
    posterior = exact(schools(), priors)

    found = [*posterior.A.estimate[::-1], posterior.areas.estimate[0], posterior.areas.se[0]]
    for value, printed in zip(found, [tau, A, theta, sd], strict=True):
        digits = 0 if printed == A and A == 193 else len(str(printed).split(".")[1])
        assert value == pytest.approx(printed, abs=0.51 * 10.0**-digits)


@pytest.mark.parametrize(
    "priors",
    [hp.Priors(sd=hp.Uniform(20)), hp.Priors(sd=hp.Uniform(0.5), fixed=hp.Normal(3, 4)), hp.Priors(sd=hp.HalfT(3.5, 7)),
     hp.Priors(preset="ganesh_lahiri"), hp.Priors(sd=hp.DattaRaoSmith(at=100.0))],
    ids=str,
)  # fmt: skip
def test_posterior_equals_adaptive_quadrature_of_dense_normal_densities(priors):
    """Independent: dense m x m covariance, Gauss-Kronrod quadrature in τ."""
    design = schools()
    prior = priors.resolve(design).factors[0].sd[0]
    y, D, one = design.y, design.D, np.ones(8)
    precision, mean = (0.0, 0.0) if priors.fixed is None else (priors.fixed.sd**-2, priors.fixed.mean)

    def pieces(tau):
        W = np.diag(1 / (tau**2 + D))
        M = one @ W @ one + precision
        mu = (one @ W @ y + precision * mean) / M
        square = (y - mu) @ W @ (y - mu) + precision * (mu - mean) ** 2
        log_density = 0.5 * (np.linalg.slogdet(W)[1] - math.log(M) - square) + float(prior.log_density(tau))
        return math.exp(log_density + 30.0) * np.array([1.0, tau, mu + tau**2 / (tau**2 + D[0]) * (y[0] - mu)])

    ends = [0.0, 2.0, 10.0, 50.0, 400.0, math.inf]
    parts = [integrate.quad_vec(pieces, a, min(b, prior.largest), epsrel=1e-10)[0]
             for a, b in itertools.pairwise(ends) if a < prior.largest]  # fmt: skip
    total = np.sum(parts, axis=0)
    posterior = exact(design, priors)
    assert posterior.A.estimate[1] == pytest.approx(total[1] / total[0], rel=1e-8)
    assert posterior.areas.estimate[0] == pytest.approx(total[2] / total[0], rel=1e-8)


def test_terms_of_the_posterior_variance_add_up_and_gamma_is_the_mean_weight():
    """Var(θ|y) = E[g1|y] + E[g2|y] + Var[θ̂|y] (law of total variance); E[g1|y] = D E[γ|y]."""
    _, design = case("milk")
    areas = exact(design, hp.Priors()).areas

    np.testing.assert_allclose(areas.g1 + areas.g2 + areas.g3, areas.mse, rtol=1e-12)
    np.testing.assert_allclose(areas.g1, areas.gamma * areas.sampling_variance, rtol=1e-12)


def test_intervals_leave_exactly_two_and_a_half_percent_on_each_side():
    """The posterior of θ as a mixture, integrated by Gauss-Kronrod in log τ with scipy's normal distribution."""
    design = schools()
    posterior = exact(design, hp.Priors(fixed=hp.Normal(0, 5), sd=hp.HalfCauchy(5)))

    def cdf_parts(log_tau, x):
        V = np.diag(math.exp(2 * log_tau) + design.D) + 25.0
        weight = stats.multivariate_normal(np.zeros(8), V).pdf(design.y) * 1e15
        weight *= stats.halfcauchy(scale=5).pdf(math.exp(log_tau)) * math.exp(log_tau)
        cross = math.exp(2 * log_tau) * np.eye(8)[0] + 25.0
        mean = cross @ np.linalg.solve(V, design.y)
        variance = math.exp(2 * log_tau) + 25.0 - cross @ np.linalg.solve(V, cross)
        return weight * np.array([1.0, stats.norm.cdf((x - mean) / math.sqrt(variance))])

    for x, probability in ((posterior.areas.lower[0], 0.025), (posterior.areas.upper[0], 0.975)):
        starts = (-15.0, -10.0, -5.0, 0.0, 5.0)
        total = sum(integrate.quad_vec(lambda t, x=x: cdf_parts(t, x), a, a + 5.0, epsrel=1e-9)[0] for a in starts)
        assert total[1] / total[0] == pytest.approx(probability, abs=1e-6)


def test_quantiles_of_tau_are_those_of_its_density():
    """Gauss-Kronrod quadrature of the REML likelihood in τ, flat prior, milk."""
    _, design = case("milk")
    posterior = exact(design, hp.Priors())
    tau = posterior.A.set_index("term").loc["tau"]

    def density(t):
        w = 1 / (t**2 + design.D)
        M = design.X.T @ (w[:, None] * design.X)
        r = design.y - design.X @ np.linalg.solve(M, design.X.T @ (w * design.y))
        return math.exp(0.5 * (np.log(w).sum() - np.linalg.slogdet(M)[1] - (w * r**2).sum()) - 60.0)

    total = integrate.quad(density, 0, 1, points=[0.1, 0.2], epsrel=1e-11)[0]
    below = [integrate.quad(density, 0, x, epsrel=1e-11)[0] / total for x in (tau.lower, tau.upper)]
    np.testing.assert_allclose(below, [0.025, 0.975], atol=1e-8)


PROPER_WHEN = [
    # m, p, prior of √A, proper, order below which E[τ^k | y] exists
    (2, 1, hp.Flat("sd"), False, 0), (3, 1, hp.Flat("sd"), True, 1), (4, 1, hp.Flat("sd"), True, 2),
    (3, 1, hp.Flat("variance"), False, 0), (4, 1, hp.Flat("variance"), True, 1), (6, 1, hp.Flat("variance"), True, 3),
    (4, 2, hp.Flat("variance"), False, 0), (5, 2, hp.Flat("variance"), True, 1),
    (8, 1, hp.Flat("log"), False, 0), (30, 1, hp.Flat("log"), False, 0),
    (2, 1, hp.HalfCauchy(5), True, 2), (2, 1, hp.HalfT(3, 5), True, 4), (2, 1, hp.HalfNormal(5), True, math.inf),
    (2, 1, hp.InverseGamma(0.5, 1), True, 2), (3, 1, hp.Jeffreys(), True, 2), (2, 1, hp.Jeffreys(), True, 1),
    (3, 1, hp.GaneshLahiri(), False, 0), (4, 1, hp.GaneshLahiri(), True, 1), (2, 1, hp.UniformShrinkage(), True, 3),
    (2, 1, hp.DattaRaoSmith(), True, 3),
]  # fmt: skip


@pytest.mark.parametrize(("m", "p", "prior", "proper", "limit"), PROPER_WHEN, ids=str)
def test_propriety_and_moments_follow_the_rule_and_the_slopes_of_the_density(m, p, prior, proper, limit):
    """THEORY 5, PRIORS 2 (Hobert & Casella 1996; Gelman 2006): a < m - p, E[τ^k] iff a + k < m - p; HOSTILE 47."""
    X = np.column_stack([np.ones(m), np.arange(m)])[:, :p]
    design = area_design(SCHOOLS["y"][:m] if m <= 8 else np.arange(m), np.full(m, 9.0) + np.arange(m), X)

    if not proper:
        with pytest.raises(PriorError, match=r"improper|proper only"):
            exact(design, hp.Priors(sd=prior))
        return
    posterior = exact(design, hp.Priors(sd=prior))
    assert posterior.propriety.sd["area:Intercept"] == limit
    assert math.isnan(posterior.A.estimate[1]) == (not limit > 1)
    assert math.isnan(posterior.A.estimate[0]) == (not limit > 2)
    assert math.isnan(posterior.A.se[0]) == (not limit > 4)
    assert np.isfinite(posterior.areas[["estimate", "se", "lower", "upper"]]).all(axis=None)
    assert np.isfinite(posterior.A[["lower", "upper"]]).all(axis=None)
    assert bool(posterior.notes) == (limit <= 4)
    if math.isfinite(limit):
        # likelihood x prior ~ τ^(-limit) d log τ at infinity
        assert posterior.propriety.slopes[1] == pytest.approx(-limit, abs=1e-4)


def test_missing_moments_are_explained_in_the_notes():
    """PRIORS 2: three schools under a flat sd have no posterior mean of τ, nor of μ."""
    posterior = exact(schools(3), hp.Priors())

    text = " ".join(posterior.notes)
    assert "mean of sd(area:Intercept)" in text
    assert "fixed effects (x0)" in text
    assert posterior.fixed.estimate.isna().all()
    assert "nan" in posterior.summary().lower()


def test_posterior_follows_the_units_of_the_response():
    """HOSTILE 31: y in units of 1e-6 or 1e6 gives the same posterior in those units."""
    design = schools()
    base = exact(design, hp.Priors()).areas
    for unit in (1e-6, 1e6):
        scaled = area_design(design.y * unit, design.D * unit**2, design.X)
        areas = exact(scaled, hp.Priors()).areas
        columns = ["estimate", "se", "lower", "upper"]
        np.testing.assert_allclose(areas[columns] / unit, base[columns], rtol=1e-9)


def test_offset_shifts_the_areas_and_leaves_the_rest():
    """θ = offset + x'β + v: adding o to y and to the offset adds o to θ."""
    design, shift = schools(), np.arange(8.0)
    moved = area_design(design.y + shift, design.D, design.X, offset=shift)
    base, other = exact(design, hp.Priors()), exact(moved, hp.Priors())

    np.testing.assert_allclose(other.areas.estimate - shift, base.areas.estimate, rtol=1e-10)
    np.testing.assert_allclose(other.A.estimate, base.A.estimate, rtol=1e-10)


def mixed_roles():
    y, sd = [*SCHOOLS["y"], np.nan, 7.5], [*SCHOOLS["sd"], np.nan, 0.0]
    role = ["sampled"] * 8 + ["unsampled", "direct"]
    return area_design(y, np.square(sd), np.ones((10, 1)), role=role)


def test_areas_outside_the_fit_are_synthetic_or_direct():
    """HOSTILE 25, 27: without a direct estimate θ = x'β + v, so Var = E[A|y] + Var(β|y); D = 0 is exact."""
    priors = hp.Priors(sd=hp.HalfNormal(10))
    inside, both = exact(schools(), priors), exact(mixed_roles(), priors, draws=4000)

    np.testing.assert_allclose(both.areas.estimate[:8], inside.areas.estimate, rtol=1e-12)
    synthetic, direct = both.areas.loc[8], both.areas.loc[9]
    assert synthetic.estimate == pytest.approx(inside.fixed.estimate[0], rel=1e-12)
    assert synthetic.mse == pytest.approx(inside.A.estimate[0] + inside.fixed.se[0] ** 2, rel=1e-12)
    assert (synthetic.gamma, direct.gamma) == (0.0, 1.0)
    assert (direct.estimate, direct.se, direct.lower, direct.upper) == (7.5, 0.0, 7.5, 7.5)
    theta = both.draws["posterior"]["theta"]
    assert (theta.sel(area=10) == 7.5).all()
    assert float(theta.sel(area=9).std()) == pytest.approx(synthetic.se, rel=0.06)


def new_rows(X, codes):
    k = len(codes)
    return NewRows(
        index=pd.Index([f"row{i}" for i in range(k)]), X=np.asarray(X, float), offset=np.zeros(k), Z=(np.ones((k, 1)),),
        codes=(np.asarray(codes),), groups=(pd.Index(codes),), D=np.full(k, np.nan),
    )  # fmt: skip


def test_prediction_of_the_rows_of_the_fit_is_the_posterior_of_its_areas():
    """An area with its own covariates is itself; a new area is x'β plus a new effect."""
    _, design = case("boundary_b1")
    posterior = exact(design, hp.Priors(sd=hp.HalfT(4, 1.0)))
    m = len(design.y)
    rows = new_rows(np.vstack([design.X, design.X[:1]]), [*range(m), -1])

    frame = predict_rows(posterior, rows)
    columns = ["estimate", "se", "lower", "upper"]
    np.testing.assert_allclose(frame[columns][:m], posterior.areas[columns], rtol=1e-9)
    np.testing.assert_allclose(frame.gamma[:m], posterior.areas.gamma, rtol=1e-12)
    x = design.X[0]
    assert frame.estimate.iloc[m] == pytest.approx(x @ posterior.fixed.estimate, rel=1e-12)
    assert frame.mse.iloc[m] == pytest.approx(posterior.A.estimate[0] + x @ posterior.cov_beta @ x, rel=1e-12)
    assert list(frame.basis) == ["posterior"] * m + ["synthetic"]
    assert list(frame.index) == list(rows.index)


@pytest.mark.parametrize("priors", [hp.Priors(), hp.Priors(fixed=hp.Normal(0, 5), sd=hp.HalfCauchy(5))], ids=str)
def test_draws_have_the_moments_and_quantiles_of_the_integral(priors):
    """Independent draws against the exact answer: |z| < 4.5 for every mean and every coverage."""
    posterior = exact(schools(), priors, draws=20_000)
    draws = posterior.draws["posterior"]

    for values, frame in ((draws["theta"][0], posterior.areas), (draws["beta"][0], posterior.fixed)):
        z = (values.mean("draw") - frame.estimate) / (frame.se / math.sqrt(20_000))
        assert np.abs(z).max() < 4.5
        inside = ((values >= frame.lower.to_numpy()) & (values <= frame.upper.to_numpy())).mean("draw")
        assert np.abs(inside - 0.95).max() < 4.5 * math.sqrt(0.95 * 0.05 / 20_000)
    tau = np.sort(draws["tau"].values.ravel())
    lower, upper = posterior.A.lower[1], posterior.A.upper[1]
    assert np.searchsorted(tau, [lower, upper]) / 20_000 == pytest.approx([0.025, 0.975], abs=0.005)
    assert (draws["A"] == draws["tau"] ** 2).all()
    # seed kept on the result repeats them
    again = area_posterior(posterior.design, posterior.priors, 20_000, posterior.seed)
    assert (again.draws["posterior"]["theta"] == draws["theta"]).all()


def test_posterior_of_an_area_with_a_huge_sampling_variance_is_its_synthetic_mean():
    """γ -> 0 as D -> infinity (HOSTILE 1): E[θ|y] -> E[x'β|y]; and γ -> 1 as D -> 0."""
    D = np.square(SCHOOLS["sd"]) * np.array([1e14, 1e-14, 1, 1, 1, 1, 1, 1])
    areas = exact(area_design(SCHOOLS["y"], D, np.ones((8, 1))), hp.Priors()).areas

    assert areas.estimate[0] == pytest.approx(areas.synthetic[0], rel=1e-6)
    assert areas.estimate[1] == pytest.approx(SCHOOLS["y"][1], rel=1e-9)


def test_results_cannot_be_changed_in_place():
    """STYLE 16: results are read-only."""
    posterior = exact(schools(), hp.Priors(), draws=3)

    with pytest.raises(ValueError, match="read-only"):
        posterior.terms.gamma[0] = 0.5
    with pytest.raises(AttributeError):
        posterior.seed = 3
    frame = posterior.areas
    frame.loc[0, "estimate"] = 0.0
    assert posterior.areas.estimate[0] != 0.0


def test_mixture_quantiles_solve_the_mixture_distribution_function():
    """scipy's normal distribution and Brent's root finder, over unequal components and a point mass."""
    from hierlmm.bayes import mixture

    weight = np.array([0.2, 0.5, 0.3])
    mean = np.array([[0.0, 5.0], [1.0, 5.0], [10.0, 5.0]])
    sd = np.array([[1.0, 0.0], [0.1, 0.0], [3.0, 0.0]])

    found = mixture.quantiles(weight, mean, sd**2, [0.025, 0.5, 0.975])
    for row, probability in enumerate([0.025, 0.5, 0.975]):

        def excess(x, probability=probability):
            return weight @ stats.norm.cdf(x, mean[:, 0], sd[:, 0]) - probability

        root = optimize.brentq(excess, -20, 40, xtol=1e-13)
        assert found[row, 0] == pytest.approx(root, abs=1e-9)
    np.testing.assert_allclose(found[:, 1], 5.0)


def test_summary_fits_eighty_columns_and_states_the_prior():
    """DESIGN: the prior is printed with every result."""
    _, design = case("milk")
    text = exact(design, hp.Priors(), draws=10).summary()

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "sd(area:Intercept) ~ flat" in text


@pytest.mark.parametrize("areas", [3, 5])
def test_moments_that_exist_by_a_hair_do_not_stop_the_integral(areas):
    """Inverse gamma(0.001, 0.001) on A, one mean: E[√A^k] exists for k < m - 1 + 0.002, so E[A] (m = 3) and sd(A)
    (m = 5) are made of values up to e^500. Quantiles: 80,001-point trapezoid in log τ of the density written out here.
    """
    design = schools(areas)
    y, D = design.y, design.D
    v = np.linspace(-12, 40, 80001)
    w = 1 / (np.exp(2 * v)[:, None] + D)
    rss = w @ y**2 - (w @ y) ** 2 / w.sum(axis=1)
    log_p = 0.5 * (np.log(w).sum(axis=1) - np.log(w.sum(axis=1)) - rss) - 0.002 * v - 0.001 * np.exp(-2 * v)
    F = np.cumsum(np.exp(log_p - log_p.max()))

    A = exact(design, hp.Priors(sd=hp.InverseGamma(0.001, 0.001))).A.set_index("term")

    np.testing.assert_allclose(A.loc["tau", ["lower", "upper"]].astype(float),
                               np.exp(np.interp([0.025, 0.975], F / F[-1], v)), rtol=1e-3)  # fmt: skip
    assert math.isfinite(A.loc["tau", "estimate"])
    assert math.isnan(A.loc["A", "estimate" if areas == 3 else "se"])
