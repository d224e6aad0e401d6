"""The exact posterior of linear mixed models against published lattices, brute force and identities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from bayes_cases import factor, intercept_design, lmm_design, reference, slopes_design
from scipy import integrate

import hierlmm as hl
from hierlmm.bayes import priors as hp
from hierlmm.bayes.lmmposterior import lmm_posterior
from hierlmm.bayes.lmmprediction import predict_rows
from hierlmm.design import own_rows
from hierlmm.design.types import NewRows
from hierlmm.errors import FitError, PriorError

DATA = reference("bayes_lmm.json")
RADON_PRIORS = hp.Priors(fixed=hp.Normal(0, 10), sd=hp.HalfNormal(1), residual=hp.HalfNormal(1))


def posterior(design, priors, draws=0, seed=20261121):
    return lmm_posterior(design, priors.resolve(design), draws, seed)


def radon(floor=False, slopes=False):
    data = DATA["radon"]
    y, county, x = data["log_radon"], data["county"], np.asarray(data["floor"], float)
    if slopes:
        return slopes_design(y, x, county, "county", "floor", ((0,), (1,)))
    if floor:
        return intercept_design(y, county, np.column_stack([np.ones(len(y)), x]), ("Intercept", "floor"))
    return intercept_design(y, county)


def rats():
    data = DATA["rats"]
    x = np.asarray(data["x"], float) - data["xbar"]
    return slopes_design(data["y"], x, data["rat"], "rat", "x", ((0,), (1,)))


def sleepstudy():
    data = DATA["sleepstudy"]
    return slopes_design(data["y"], data["days"], data["subject"], "Subject", "Days")


def dyestuff(which="dyestuff", unit=1.0, shift=0.0):
    return intercept_design(unit * np.asarray(DATA[which]["y"]) + shift, DATA[which]["batch"])


def sds(result):
    frame = result.variance_components
    return frame[frame.quantity == "sd"]


def coefficients(result, term):
    frame = result.group_coefficients
    return frame[frame.term == term]


def answers(name, *keys):
    return np.array([DATA[name]["parameters"][key] for key in keys])


def numbered(name, letter):
    return answers(name, *[k for k in DATA[name]["parameters"] if k.startswith(letter + "[")])


@pytest.mark.parametrize(
    ("name", "floor", "fixed"),
    [("radon_partially_pooled", False, ["mu_alpha"]), ("radon_variable_intercept", True, ["mu_alpha", "beta"])],
)
def test_random_intercepts_equal_the_published_lattice(name, floor, fixed):
    """bayes/radon_*: 919 rows, 85 counties, lattice quadrature whose step sizes agree to 2e-11."""
    result = posterior(radon(floor), RADON_PRIORS)

    columns = ["estimate", "se"]
    np.testing.assert_allclose(sds(result)[columns], answers(name, "sigma_alpha", "sigma_y"), rtol=1e-9)
    np.testing.assert_allclose(result.fixed[columns], answers(name, *fixed), rtol=1e-9)
    np.testing.assert_allclose(coefficients(result, "Intercept")[columns], numbered(name, "alpha"), rtol=1e-9)
    assert (result.fixed.mcse == 0).all()


@pytest.mark.parametrize(
    ("name", "design", "priors", "slope"),
    [
        ("radon_variable_intercept_slope", radon(slopes=True), RADON_PRIORS, "floor"),
        ("rats_model", rats(), hp.Priors(fixed=hp.Normal(0, 100), preset="flat_sd"), "x"),
    ],
)
def test_random_slopes_agree_with_the_published_lattice_within_monte_carlo_error(name, design, priors, slope):
    """bayes/*: independent slopes, lattice quadrature good to 1e-9; importance sampling here, |z| < 4.5."""
    result = posterior(design, priors)

    assert result.diagnostics["pareto_k"] < 0.7
    assert result.diagnostics["effective_sample_size"] > 1500
    variances = answers(name, "sigma_alpha", "sigma_beta", "sigma_y")
    fixed = answers(name, "mu_alpha", "mu_beta")
    pairs = (("Intercept", "alpha"), (slope, "beta"))
    groups = [(coefficients(result, term), numbered(name, letter)) for term, letter in pairs]
    for frame, exact in ((sds(result), variances), (result.fixed, fixed), *groups):
        away = np.abs(frame.estimate - exact[:, 0])
        # a Monte Carlo error from 8 replicates is itself uncertain by a quarter; floor: one in a thousand sds
        assert (away < 4.5 * frame.mcse + 2e-3 * exact[:, 1]).all()
        assert (away < 0.03 * exact[:, 1]).all()
        np.testing.assert_allclose(frame.se, exact[:, 1], rtol=0.03)


def dense(design, priors):
    """log p(y, sd, σ) with β integrated out under a flat prior, by dense matrices, and E[β|·], E[b_1|·]."""
    one = design.X
    same = (design.factors[0].codes[:, None] == design.factors[0].codes).astype(float)
    n = len(design.y)
    first = (design.factors[0].codes == 0).astype(float)

    def pieces(sd, sigma):
        V = sd**2 * same + sigma**2 * np.eye(n)
        solved = np.linalg.solve(V, np.column_stack([one, design.y]))
        M = one.T @ solved[:, :-1]
        beta = np.linalg.solve(M, one.T @ solved[:, -1])
        residual = design.y - one @ beta
        square = residual @ np.linalg.solve(V, residual)
        value = -0.5 * (np.linalg.slogdet(V)[1] + np.linalg.slogdet(M)[1] + square + (n - 1) * math.log(2 * math.pi))
        value += float(priors.factors[0].sd[0].log_density(sd)) + float(priors.residual.log_density(sigma))
        return value, beta[0], sd**2 * first @ np.linalg.solve(V, residual)

    return pieces


@pytest.mark.parametrize("which", ["dyestuff", "dyestuff2"])
@pytest.mark.parametrize("preset", ["default", "flat_sd", "flat_variance"])
def test_one_way_posterior_equals_brute_force_in_two_dimensions(which, preset):
    """Gauss-Legendre product rule over (sd, σ) with dense 30 x 30 algebra; Dyestuff2 has its REML estimate at zero.

    Moments that the prior leaves infinite, or whose tail reaches beyond the box, are not compared.
    """
    design = dyestuff(which)
    priors = hp.Priors(preset=preset).resolve(design)
    value = dense(design, priors)
    sd_y = float(np.std(design.y, ddof=1))
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = np.zeros(4)
    top = value(0.5 * sd_y, sd_y)[0]
    sigma_nodes, sigma_weights = np.polynomial.legendre.leggauss(28)
    for low, high in itertools.pairwise([0.0, 0.5, 2.0, 8.0, 40.0, 250.0]):
        for a, w in zip(0.5 * (high - low) * nodes + 0.5 * (high + low), 0.5 * (high - low) * weights, strict=True):
            for u, wu in zip(0.9 * sigma_nodes + 0.1, 0.9 * sigma_weights, strict=True):
                sigma = sd_y * math.exp(u)
                log_p, _, b = value(a * sd_y, sigma)
                density = math.exp(log_p - top) * sigma * w * wu
                total += density * np.array([1.0, a * sd_y, sigma, b])
    result = posterior(design, hp.Priors(preset=preset))

    expected = total[1:] / total[0]
    frame = sds(result)
    limit = result.propriety.sd["g:Intercept"]
    # beyond 250 sd(y) the tail of sd·p(sd) carries a few times 250^-(limit - 1)
    rtol = max(1e-6, 3 * 250.0 ** -(limit - 1))
    if limit > 1:
        assert frame.estimate.iloc[0] == pytest.approx(expected[0], rel=rtol)
    assert frame.estimate.iloc[1] == pytest.approx(expected[1], rel=1e-6)
    assert result.random_effects.estimate[0] == pytest.approx(expected[2], rel=1e-6)


def test_balanced_one_way_posterior_mean_of_the_intercept_is_the_grand_mean():
    """Closed form: the GLS estimate of a balanced one-way layout does not depend on the variances; Σ E[b] = 0."""
    design = dyestuff()
    result = posterior(design, hp.Priors())

    assert result.fixed.estimate[0] == pytest.approx(design.y.mean(), rel=1e-12)
    assert result.random_effects.estimate.sum() == pytest.approx(0.0, abs=1e-8)
    # Var(μ|y) = E[(σ² + 5 A)/30 | y]
    variances = result.variance_components.query("quantity == 'variance'").estimate
    assert result.fixed.se[0] ** 2 == pytest.approx((variances.iloc[1] + 5 * variances.iloc[0]) / 30, rel=1e-9)


def test_lattice_intervals_hold_ninety_five_percent_of_many_draws():
    """Independent draws from the same lattice, 40,000: coverage of each interval within 4.5 standard errors."""
    result = posterior(dyestuff("dyestuff2"), hp.Priors(), draws=40_000)
    draws = result.draws["posterior"]
    sd, sigma = draws["sd_g"].values.ravel(), draws["sigma"].values.ravel()
    share = sd**2 / (sd**2 + sigma**2)
    beta, b = draws["beta"].values.ravel(), draws["b_g"].values[0, :, 2, 0]
    series = {"sd": sd, "sigma": sigma, "share": share, "beta": beta, "b": b}
    components = result.variance_components.set_index(["group", "quantity"])
    effects = result.random_effects
    ends = {
        "sd": components.loc[("g", "sd")], "sigma": components.loc[("Residual", "sd")],
        "share": components.loc[("g", "share")], "beta": result.fixed.loc[0], "b": effects.loc[2],
    }  # fmt: skip

    for name, values in series.items():
        row = ends[name]
        below, above = (values < row.lower).mean(), (values > row.upper).mean()
        assert [below, above] == pytest.approx([0.025, 0.025], abs=4.5 * math.sqrt(0.025 * 0.975 / 40_000)), name
        assert values.mean() == pytest.approx(row.estimate, abs=4.5 * values.std() / 200), name


def test_importance_draws_agree_with_the_averages_over_all_points():
    """The 20,000 draws against the weighted averages: |z| < 4.5 with the error of both, for every quantity."""
    result = posterior(sleepstudy(), hp.Priors(), draws=20_000)
    draws = result.draws["posterior"]
    error = 1.0 / 20_000 + 1.0 / result.diagnostics["effective_sample_size"]

    b = draws["b_Subject"].values[0].reshape(20_000, -1)
    effects = result.random_effects
    z = (b.mean(axis=0) - effects.estimate) / (effects.se * math.sqrt(error))
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(b.std(axis=0), effects.se, rtol=0.06)
    beta = draws["beta"].values[0]
    assert np.abs((beta.mean(axis=0) - result.fixed.estimate) / (result.fixed.se * math.sqrt(error))).max() < 4.5
    np.testing.assert_allclose(np.cov(beta.T), result.cov_beta, rtol=0.12, atol=0.5)
    sums = beta[:, None, :] + draws["b_Subject"].values[0]
    groups = result.group_coefficients
    np.testing.assert_allclose(sums.std(axis=0).ravel(), groups.se, rtol=0.06)
    correlation = draws["corr_Subject"].sel(Subject_coef="Days", Subject_coef_bis="Intercept").values.ravel()
    row = result.variance_components.query("quantity == 'correlation'").iloc[0]
    assert correlation.mean() == pytest.approx(row.estimate, abs=4.5 * row.se * math.sqrt(error))
    assert list(draws["Subject_coef"].values) == ["Intercept", "Days"]
    assert [str(level) for level in draws["Subject"].values] == [str(x) for x in result.design.factors[0].levels]


def test_posterior_follows_the_units_and_the_origin_of_the_response():
    """HOSTILE 11, 17: y x c and y + s change the posterior accordingly (the defaults scale with sd(y))."""
    base = posterior(dyestuff(), hp.Priors())
    for unit, shift in ((1e9, 0.0), (1e-9, 0.0), (1.0, 1e6)):
        other = posterior(dyestuff(unit=unit, shift=shift), hp.Priors())
        np.testing.assert_allclose(sds(other).estimate / unit, sds(base).estimate, rtol=1e-6)
        np.testing.assert_allclose(other.random_effects.estimate / unit, base.random_effects.estimate, rtol=1e-5)
        assert (other.fixed.estimate[0] - shift) / unit == pytest.approx(base.fixed.estimate[0], rel=1e-9)


def test_same_seed_gives_the_same_posterior():
    """STYLE 15: randomness enters by the seed alone, which the result keeps."""
    first, second = (posterior(sleepstudy(), hp.Priors(), draws=50, seed=7) for _ in range(2))

    pd.testing.assert_frame_equal(first.fixed, second.fixed)
    assert (first.draws["posterior"]["b_Subject"] == second.draws["posterior"]["b_Subject"]).all()


def test_monte_carlo_errors_are_as_large_as_the_spread_over_seeds():
    """Twelve seeds: root mean square of (estimate - mean)/mcse of variance components near one (0.4 to 1.8)."""
    results = [posterior(sleepstudy(), hp.Priors(), seed=seed) for seed in range(12)]
    frames = [result.variance_components for result in results]
    estimates = np.array([frame.estimate for frame in frames])
    errors = np.array([frame.mcse for frame in frames])

    z = (estimates - estimates.mean(axis=0)) / errors
    assert 0.4 < math.sqrt((z**2).mean()) < 1.8


def crossed():
    rng = np.random.default_rng(3)
    a, b = np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    y = rng.normal(size=8)[a] + 0.5 * rng.normal(size=6)[b] + rng.normal(size=48)
    one = np.ones((48, 1))
    factors = [factor(name, codes, one, ("Intercept",), ((0,),)) for name, codes in (("a", a), ("b", b))]
    return lmm_design(y, one, ("Intercept",), factors)


def test_crossed_factors_agree_with_brute_force_in_three_dimensions():
    """Gauss-Hermite-free product rule over three log sds with dense algebra; importance sampling within 4.5 mcse."""
    design = crossed()
    priors = hp.Priors(sd=hp.HalfNormal(1), residual=hp.HalfNormal(2))
    result = posterior(design, priors)
    one, n = design.X, 48
    A, B = ((f.codes[:, None] == f.codes).astype(float) for f in design.factors)
    total, step = np.zeros(4), 0.28
    for u in np.arange(-5.0, 1.8, step):
        for v in np.arange(-5.0, 1.8, step):
            for w in np.arange(-0.7, 0.75, 0.12):
                V = math.exp(2 * u) * A + math.exp(2 * v) * B + math.exp(2 * w) * np.eye(n)
                L = np.linalg.cholesky(V)
                both = np.linalg.solve(L, np.column_stack([one, design.y]))
                M = float(both[:, 0] @ both[:, 0])
                rss = float(both[:, 1] @ both[:, 1]) - float(both[:, 0] @ both[:, 1]) ** 2 / M
                log_p = -np.log(np.diagonal(L)).sum() - 0.5 * math.log(M) - 0.5 * rss + u + v + w
                log_p += -0.5 * (math.exp(2 * u) + math.exp(2 * v) + 0.25 * math.exp(2 * w))
                total += math.exp(log_p + 20) * np.array([1.0, math.exp(u), math.exp(v), math.exp(w)])

    frame = sds(result)
    # the box starts at e^-5: a mass of about e^-5 times the density at zero is left out of each axis
    assert (np.abs(frame.estimate - total[1:] / total[0]) < 4.5 * frame.mcse + 4e-3).all()


def test_predictions_of_the_rows_are_those_of_the_draws():
    """E and sd of x'β + z'b per row, of a new response, and of a new level, against 20,000 draws."""
    result = posterior(sleepstudy(), hp.Priors(), draws=20_000)
    design, draws = result.design, result.draws["posterior"]
    rows = own_rows(design)

    frame = predict_rows(result, rows, "mean")
    beta, b = draws["beta"].values[0], draws["b_Subject"].values[0]
    line = beta @ design.X.T + np.einsum("skq,kq->sk", b[:, design.factors[0].codes], design.factors[0].Z)
    np.testing.assert_allclose(frame.estimate, line.mean(axis=0), atol=0.08 * frame.se.max())
    np.testing.assert_allclose(frame.se, line.std(axis=0), rtol=0.06)
    observed = predict_rows(result, rows, "observation")
    residual = (draws["sigma"].values ** 2).mean()
    np.testing.assert_allclose(observed.se**2 - frame.se**2, residual, rtol=0.02)
    assert (frame.new_levels == "").all()


def test_a_new_level_adds_its_own_variance():
    """A level that was not observed: E = x'β, Var = Var(x'β|y) + E[z'Gz|y] (+ E[σ²|y])."""
    result = posterior(dyestuff(), hp.Priors())
    one = np.ones((1, 1))
    rows = NewRows(index=pd.Index(["new"]), X=one, offset=np.zeros(1), Z=(one,), codes=(np.array([-1]),),
                   groups=(pd.Index(["Z"]),), D=np.array([np.nan]))  # fmt: skip

    frame = predict_rows(result, rows, "mean")
    A = result.variance_components.query("group == 'g' and quantity == 'variance'").estimate.iloc[0]
    assert frame.estimate.iloc[0] == pytest.approx(result.fixed.estimate[0], rel=1e-10)
    assert frame.se.iloc[0] ** 2 == pytest.approx(result.fixed.se[0] ** 2 + A, rel=1e-9)
    assert list(frame.new_levels) == ["g"]
    assert list(frame.index) == ["new"]


def test_terms_that_vary_without_a_fixed_partner_and_fixed_terms_that_do_not_vary():
    """group_coefficients: a fixed effect that does not vary is itself in every level; a partnerless effect is b."""
    rng = np.random.default_rng(5)
    g, x, z = np.repeat(np.arange(12), 6), rng.normal(size=72), rng.normal(size=72)
    y = 1 + x + rng.normal(size=12)[g] * z + rng.normal(size=72)
    X, Z = np.column_stack([np.ones(72), x]), np.column_stack([np.ones(72), z])
    design = lmm_design(y, X, ("Intercept", "x"), [factor("g", g, Z, ("Intercept", "z"), ((0, 1),))])

    result = posterior(design, hp.Priors())
    frame = result.group_coefficients
    assert list(frame.term[:3]) == ["Intercept", "x", "z"]
    columns = ["estimate", "se", "lower", "upper", "mcse"]
    np.testing.assert_allclose(frame[frame.term == "x"][columns], np.repeat(result.fixed[columns][1:2], 12, axis=0))
    effects = result.random_effects
    np.testing.assert_allclose(frame[frame.term == "z"][columns], effects[effects.term == "z"][columns])


def test_a_block_of_three_correlated_coefficients_has_valid_correlations():
    """Seven variance parameters: every correlation matrix drawn is positive definite with unit diagonal."""
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(20), 8), np.tile(np.linspace(-1, 1, 8), 20)
    Z = np.column_stack([np.ones(160), x, x**2])
    y = (Z * rng.normal(size=(20, 3))[g]).sum(axis=1) + 0.5 * rng.normal(size=160)
    terms = ("Intercept", "x", "I(x ** 2)")
    design = lmm_design(y, Z, terms, [factor("g", g, Z, terms, ((0, 1, 2),))])

    result = posterior(design, hp.Priors(), draws=500)
    R = result.draws["posterior"]["corr_g"].values[0]
    assert np.linalg.eigvalsh(R).min() > 0
    np.testing.assert_allclose(np.diagonal(R, axis1=1, axis2=2), 1.0, atol=1e-12)
    assert result.diagnostics["pareto_k"] < 0.7


@pytest.mark.parametrize("case", ["constant in groups", "exactly linear"])
def test_a_response_that_is_fitted_exactly_is_refused(case):
    """HOSTILE 13: with no residual variation the likelihood has a pole at σ = 0 that a half-t does not tame."""
    g = np.repeat(np.arange(6), 4)
    x = np.tile(np.arange(4.0), 6)
    X = np.column_stack([np.ones(24), x])
    y = 2 + x if case == "exactly linear" else 2 + x + np.sin(g)
    design = lmm_design(y, X, ("Intercept", "x"), [factor("g", g, X[:, :1], ("Intercept",), ((0,),))])

    with pytest.raises(PriorError, match="fit exactly"):
        posterior(design, hp.Priors())


def test_an_untrusted_importance_sample_is_refused(monkeypatch):
    """k̂ above 0.7: averages converge too slowly to be shown (Vehtari et al. 2024)."""
    monkeypatch.setattr("hierlmm.bayes.importance.WIDTH", 1e-4)
    monkeypatch.setattr("hierlmm.bayes.importance.TOWARDS_ZERO", 1e-9)
    monkeypatch.setattr("hierlmm.bayes.importance.ROUNDS", 0)

    with pytest.raises(FitError, match="Pareto shape"):
        posterior(sleepstudy(), hp.Priors())


def test_summary_fits_eighty_columns_and_states_priors_and_diagnostics():
    """DESIGN: the prior is printed with every result; so is k̂."""
    text = posterior(sleepstudy(), hp.Priors(), draws=10).summary()

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "sd(Subject:Days) ~ halft(4, 19.61)" in text
    assert "pareto_k" in text


def test_marginal_likelihood_of_a_proper_prior_is_the_integral_of_likelihood_times_prior():
    """Closed-form β, adaptive quadrature over (sd, σ): log p(y) with every constant."""
    design = intercept_design([1.0, 1.4, -0.2, 0.3, 2.2, 1.9], list("aabbcc"))
    priors = hp.Priors(fixed=hp.Normal(0, 3), sd=hp.HalfNormal(1), residual=hp.Exponential(1))
    same = np.kron(np.eye(3), np.ones((2, 2)))

    def density(u, v):
        V = math.exp(2 * u) * same + math.exp(2 * v) * np.eye(6) + 9.0
        log_p = -0.5 * (np.linalg.slogdet(V)[1] + design.y @ np.linalg.solve(V, design.y) + 6 * math.log(2 * math.pi))
        log_p += float(hp.HalfNormal(1).log_density(math.exp(u))) + float(hp.Exponential(1).log_density(math.exp(v)))
        return math.exp(log_p + u + v)

    total = integrate.dblquad(density, -5, 2, -14, 2.5, epsabs=1e-14, epsrel=1e-8)[0]
    result = posterior(design, priors)
    assert result.diagnostics["log_marginal_likelihood"] == pytest.approx(math.log(total), abs=1e-5)


@pytest.mark.parametrize("levels", [3, 4])
def test_heavy_tails_of_few_levels_keep_the_mean_of_a_balanced_design(levels):
    """Flat on the sd: nodes reach far beyond 1e6 σ. GLS of a balanced one-way mean is ȳ at every one of them, so that
    E[β|y] = ȳ where it exists (J = 4) and its interval is symmetric about ȳ where it does not (J = 3).
    """
    y = np.add.outer(np.array([0.3, -0.4, 1.1, 0.2])[:levels], [1.0, 2.0, 2.5, 4.0, 0.2]).ravel()
    design = intercept_design(y, np.repeat(np.arange(levels), 5))

    fixed = posterior(design, hp.Priors(preset="flat_sd")).fixed.iloc[0]

    assert fixed.estimate == pytest.approx(y.mean() if levels == 4 else math.nan, rel=1e-9, nan_ok=True)
    assert (fixed.lower + fixed.upper) / 2 == pytest.approx(y.mean(), rel=1e-6)


def test_moments_that_exist_by_a_hair_are_left_out():
    """Inverse gamma(0.001, 0.001), J = 3: E[sd^k] exists for k < 2.002, of which E[sd²] is made of sds up to e^500."""
    y = np.add.outer([0.3, -0.4, 1.1], [1.0, 2.0, 2.5, 4.0, 0.2]).ravel()
    design = intercept_design(y, np.repeat(np.arange(3), 5))

    sd = sds(posterior(design, hp.Priors(sd=hp.InverseGamma(0.001, 0.001)))).iloc[0]

    assert math.isfinite(sd.estimate)
    assert math.isnan(sd.se)


def test_interval_ends_are_known_better_than_from_four_thousand_draws():
    """Sleepstudy slopes: ends of one effect's interval over 12 seeds vary by less than half of what they would from
    4,000 independent draws, sqrt(0.025 · 0.975 / 4000) / φ(1.96) = 0.042 sds for a normal.
    """
    runs = [posterior(sleepstudy(), hp.Priors(), seed=seed).random_effects for seed in range(12)]
    for end in ("lower", "upper"):
        varies = np.std([run[end] for run in runs], axis=0, ddof=1) / runs[0].se

        assert np.median(varies) < 0.008
        assert varies.max() < 0.042 / 2


def test_effect_within_groups_has_its_moments_where_the_intercept_has_none():
    """Three levels, flat sds: the slope of x is told apart from the levels' effects within them. Its mean and sd by a
    grid of 160 x 80 values of (log sd, log sigma), with the dense density written out here.
    """
    rng = np.random.default_rng(1)
    codes, x = np.repeat(np.arange(3), 5), rng.standard_normal(15)
    y = x + np.array([0.0, 2.0, 1.0])[codes] + rng.standard_normal(15)
    X, same = np.column_stack([np.ones(15), x]), np.equal.outer(codes, codes)
    log_tau, log_sigma = np.meshgrid(np.linspace(-9, 11, 160), np.linspace(-1.5, 2, 80), indexing="ij")
    tau2, sigma2 = np.exp(2 * log_tau).ravel(), np.exp(2 * log_sigma).ravel()
    V = tau2[:, None, None] * same + sigma2[:, None, None] * np.eye(15)
    XV = np.linalg.solve(V, np.broadcast_to(X, (len(V), 15, 2))).swapaxes(-1, -2)
    C = np.linalg.inv(XV @ X)
    beta = (C @ (XV @ y)[:, :, None])[:, :, 0]
    r = y - beta @ X.T
    rss = np.einsum("ki,ki->k", r, np.linalg.solve(V, r[:, :, None])[:, :, 0])
    log_p = -0.5 * (np.linalg.slogdet(V)[1] - np.linalg.slogdet(C)[1] + rss) + (log_tau + log_sigma).ravel()
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    mean = w @ beta[:, 1]
    sd = math.sqrt(w @ (C[:, 1, 1] + (beta[:, 1] - mean) ** 2))

    result = posterior(intercept_design(y, codes, X, ("Intercept", "x")), hp.Priors(preset="flat_sd"))
    fixed = result.fixed.set_index("term")

    assert math.isnan(fixed.loc["Intercept", "estimate"])
    np.testing.assert_allclose(fixed.loc["x", ["estimate", "se"]].astype(float), [mean, sd], rtol=1e-3)


def test_predictions_agree_between_seeds_as_their_monte_carlo_errors_say():
    """Sleepstudy, a new subject on day 5: estimates of 12 seeds within 5 of their own MCSE, sds within 1 percent."""
    case = hl.load("sleepstudy")
    new = pd.DataFrame({"Days": [5.0], "Subject": [-1]})

    frames = [
        hl.posterior(case.spec, case.data, draws=0, seed=seed).predict(new, new_levels="population")
        for seed in range(12)
    ]

    estimate, mcse, se = (np.array([frame[name].iloc[0] for frame in frames]) for name in ("estimate", "mcse", "se"))
    assert np.abs(estimate - estimate.mean()).max() < 5 * mcse.max()
    assert se.std(ddof=1) < 0.01 * se.mean()
