"""The exact posterior of compound models against integrals taken elsewhere, identities, limits, and repetition."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundlattice import integrate
from hierlmm.bayes.compoundposterior import draw
from hierlmm.bayes.compoundpriors import CompoundPriors, FlatProbability, resolve_compound
from hierlmm.bayes.compoundpropriety import compound_propriety
from hierlmm.bayes.priors import Flat, HalfT, Normal, Priors, Uniform, priors_from
from hierlmm.design.compound import build_compound
from hierlmm.errors import PriorError, SpecError

WITNESS = json.loads((Path(__file__).parents[1] / "data" / "compound.json").read_text(encoding="utf-8"))
CASES = {"lip cancer": ("lip-cancer", 1e-10, 1e-9), "baseball": ("baseball/hits", 1e-9, 5e-6)}
NAMES = [name for name in WITNESS if "posterior" in name]
RATES = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"), unsampled="synthetic")
SHARES = hl.compound("y ~ 1", unit="u", sampling=hl.BinomialSampling("n"), unsampled="synthetic")
TABLE = pd.DataFrame(
    {
        "u": list("abcdefgh"), "y": [3, 0, 9, 1, 4, 12, 2, 6], "E": [2.0, 1.5, 3, 4, 2, 5, 3.5, 2],
        "n": [9, 8, 12, 14, 14, 14, 14, 14],
    }
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_posterior_is_that_of_gauss_legendre_rules(name: str) -> None:
    """Means, sds and quantiles computed elsewhere on other coordinates; quantiles of narrow laws to what those are
    good for."""
    case = next(value for key, value in CASES.items() if name.startswith(key))
    catalogue, exact, of_quantiles = hl.load(case[0]), case[1], case[2]
    known = WITNESS[name]

    post = hl.posterior(catalogue.spec, catalogue.data, priors=tuple(known["priors"]), draws=0, seed=1)

    rows = post.hyperparameters.set_index("term")
    rows = rows.loc[["Intercept", "tau"]]
    assert rows["estimate"].tolist() == pytest.approx([known["beta"], known["tau"]], rel=exact)
    assert rows["se"].tolist() == pytest.approx([known["beta_sd"], known["tau_sd"]], rel=1e-8)
    units = post.units
    assert units["estimate"].to_numpy() == pytest.approx(known["theta"], rel=exact)
    assert units["se"].to_numpy() == pytest.approx(known["theta_sd"], rel=1e-8)
    for place, quantiles in zip((0, len(units) - 1), known["theta_quantiles"], strict=True):
        unit = post.posterior_of(units["unit"][place])
        assert unit.quantile([0.025, 0.5, 0.975]) == pytest.approx(quantiles, rel=of_quantiles)
        ends = [units["lower"][place], units["upper"][place]]
        assert ends == pytest.approx([quantiles[0], quantiles[2]], rel=max(of_quantiles, 1e-6))


def test_a_normal_twin_is_the_area_level_posterior() -> None:
    """Field by field, and the unit's posterior as a mixture of normals."""
    case = hl.load("baseball")
    data = case.data.assign(D=case.spec.known)
    area = hl.posterior(hl.fay_herriot("average ~ 1", sampling_variance="D", area="player"), data, draws=50, seed=4)
    post = hl.posterior(case.spec, data, draws=50, seed=4)

    for column in ("estimate", "se", "lower", "upper", "gamma"):
        assert post.units[column].to_numpy() == pytest.approx(area.areas[column].to_numpy(), rel=1e-13)
    assert (post.draws["posterior"]["theta"].values == area.draws["posterior"]["theta"].values).all()
    unit = post.posterior_of("Santo")
    row = post.units.set_index("unit").loc["Santo"]
    assert [unit.mean, unit.sd, *unit.interval()] == pytest.approx(
        [row["estimate"], row["se"], row["lower"], row["upper"]], rel=1e-8
    )
    rows = post.hyperparameters.set_index("term")
    assert rows.loc["A", "median"] == pytest.approx(rows.loc["tau", "median"] ** 2, rel=1e-12)


@pytest.mark.parametrize("spec", [RATES, SHARES])
def test_a_known_mean_needs_one_integral(spec: hl.CompoundSpec) -> None:
    """"y ~ 0": tau alone, by adaptive quadrature of its density times the conjugate mean."""
    from scipy.integrate import quad

    whole = hl.compound("y ~ 0 + offset(o)", unit="u", sampling=spec.sampling)
    data = TABLE.assign(o=0.2)
    post = hl.posterior(whole, data, priors="sd=halfnormal(1)", draws=0, seed=1)
    target = CompoundTarget.of(build_compound(whole, data), post.priors)
    size = data["E"] if spec is RATES else data["n"]
    mu = math.exp(0.2) if spec is RATES else 1 / (1 + math.exp(-0.2))

    def density(tau: float) -> float:
        return math.exp(float(target.log_density(np.array([[math.log(tau)]]))[0]) + 20) / tau

    def mean(tau: float) -> float:
        rate, share = mu * (1 + tau**2 * 9) / (1 + tau**2 * size[2] * mu), (mu + tau**2 * 9) / (1 + tau**2 * 12)
        return (rate if spec is RATES else share) * density(tau)

    total, first = (quad(of, 1e-9, 8, limit=300, points=[0.3, 1])[0] for of in (density, mean))
    assert post.units["estimate"][2] == pytest.approx(first / total, rel=1e-7)
    assert post.diagnostics["log_marginal_likelihood"] == pytest.approx(math.log(total) - 20, abs=1e-7)


@pytest.mark.parametrize("spec", [RATES, SHARES])
def test_the_default_prior_is_the_stated_one_in_other_coordinates(spec: hl.CompoundSpec) -> None:
    """p(α, β) ∝ (α + β)^(-5/2) for the beta (BDA 5.3); μ^-1 ν^(-3/2) in (μ, ν) for the gamma."""
    design = build_compound(spec, TABLE)
    priors = resolve_compound(Priors(), design)
    points = np.array([[-0.7, 0.3], [0.4, -1.1], [1.2, 0.1]])  # (η, log tau)
    own = priors.log_density(points[:, :1], points[:, 1])

    def stated(eta: float, log_tau: float) -> float:
        M = math.exp(-2 * log_tau)
        if spec is RATES:
            # in (μ, ν), times |∂(μ, ν)/∂(η, log tau)|
            return -eta - 1.5 * math.log(M) + math.log(math.exp(eta) * 2 * M)
        mu = 1 / (1 + math.exp(-eta))
        return -2.5 * math.log(M) + math.log(M) + math.log(mu * (1 - mu) * 2 * M)  # (α, β) -> (μ, M) -> (η, log tau)

    theirs = np.array([stated(*point) for point in points])
    assert own - theirs == pytest.approx(np.full(3, own[0] - theirs[0]), abs=1e-12)


def test_default_priors_are_resolved_stated_and_read_back() -> None:
    """Flat on the mean's own scale for the beta, on its logarithm for the gamma; texts and presets as everywhere."""
    shares, rates = (resolve_compound(Priors(), build_compound(spec, TABLE)) for spec in (SHARES, RATES))
    given = resolve_compound(priors_from(["fixed=normal(0, 2)", "sd(u)=halft(3, 1)"]), build_compound(SHARES, TABLE))

    assert shares.fixed == (FlatProbability(),)
    assert rates.fixed == (None,)
    assert rates.describe() == ("Intercept ~ flat", "sd(u) = tau ~ flat")
    assert (given.fixed, given.tau) == ((Normal(0, 2),), HalfT(3, 1))
    assert resolve_compound(priors_from("fixed=flat"), build_compound(SHARES, TABLE)).fixed == (None,)
    assert resolve_compound(Priors(preset="flat_variance"), build_compound(RATES, TABLE)).tau == Flat("variance")
    for priors in (shares, rates, given):
        assert CompoundPriors.from_mapping(priors.to_mapping()) == priors


@pytest.mark.parametrize(
    ("spec", "y", "priors", "needed"),
    [
        (RATES, [3, 0, 0, 0], (), "at least 2 units with a count .*; found 1 of 4"),
        (RATES, [3, 1, 0, 0], "flat_variance", "at least 3 units with a count .*; found 2 of 4"),
        (RATES, [0, 0, 0, 0], "sd=halfnormal(1)", "Under flat priors of Intercept the posterior is improper"),
        (SHARES, [0, 9, 0, 9], (), "at least 1 units with both successes and failures .*; found 0 of 4"),
        (SHARES, [3, 9, 0, 9], "flat_variance", "at least 2 units with both successes and failures"),
        (SHARES, [9, 9, 9, 9], ("fixed=flat", "sd=halfnormal(1)"), "Under flat priors of Intercept"),
        (RATES, [3, 1, 2, 5], "sd=flat(log)", "finite mass near zero"),
        (RATES, [3, 1, 2, 5], "ganesh_lahiri", "one of the area variance under known sampling variances"),
        (RATES, [3, 1, 2, 5], "residual=halfnormal(1)", "has the priors `fixed`"),
        (RATES, [3, 1, 2, 5], "sd(v)=halfnormal(1)", "named by u"),
    ],
)
def test_improper_posteriors_and_foreign_priors_are_refused(
    spec: hl.CompoundSpec, y: list[int], priors: object, needed: str
) -> None:
    """Before anything is integrated, with the count that is needed."""
    data = pd.DataFrame({"u": list("abcd"), "y": y, "E": [2.0, 1, 3, 2], "n": 9})

    with pytest.raises(PriorError, match=needed):
        hl.posterior(spec, data, priors=priors, draws=0, seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("priors", ["", "flat_variance", "sd=halft(3, 1)"])
@pytest.mark.parametrize("spec", [RATES, SHARES])
def test_the_tail_of_tau_falls_as_the_rule_says(spec: hl.CompoundSpec, priors: str) -> None:
    """The slope of the log density of log tau, β integrated out by a fine rule, at tau around 1e4 and 1e5."""
    data = TABLE.head(4)  # three counts; one, two or three units with hits and misses
    design = build_compound(spec, data)
    resolved = resolve_compound(priors_from(priors or None), design)
    target = CompoundTarget.of(design, resolved)
    limit = compound_propriety(target).sd["tau"]

    def marginal(log_tau: float) -> float:
        reach = 40 * math.exp(2 * log_tau) if spec is RATES else 60.0
        z = np.sinh(np.linspace(-6, math.asinh(reach), 40_001)) if spec is RATES else np.linspace(-60, 60, 40_001)
        values = target.log_density(np.stack([z, np.full_like(z, log_tau)], axis=1))
        top = values.max()
        return float(top + np.log(np.trapezoid(np.exp(values - top), z)))

    slope = (marginal(10.5) - marginal(9.5)) / 1.0

    assert slope == pytest.approx(-limit, abs=0.02)


def test_moments_that_do_not_exist_are_missing_and_said() -> None:
    """E[μ|y] under a flat log μ, and the mean of a shape where tau may be 0; medians exist, and a bound brings them."""
    post = hl.posterior(RATES, TABLE, draws=0, seed=1)
    rows = post.hyperparameters.set_index("term")
    bounded, proper = (
        hl.posterior(RATES, TABLE, priors=priors, draws=0, seed=1).hyperparameters.set_index("term")
        for priors in ("sd=uniform(1.5)", "fixed=normal(0, 1)")
    )

    assert rows.loc[["shape", "mean", "rate"], "estimate"].isna().all()
    assert rows[["lower", "upper", "median"]].notna().all(axis=None)
    assert any("No posterior mean exists of shape, mean" in note for note in post.notes)
    assert bounded.loc["tau", "upper"] < 1.5
    assert proper.loc["mean", "estimate"] > 0


def test_quantiles_of_the_prior_agree_with_draws() -> None:
    """20,000 independent draws: every row's interval holds 95 % of them within four Monte Carlo standard errors, and
    quantities of both hyperparameters, mixed over lines of tau, are no exception."""
    for spec in (RATES, SHARES):
        post = hl.posterior(spec, TABLE, draws=20_000, seed=6)
        drawn = post.draws["posterior"]
        eta, tau = drawn["beta"].values[0, :, 0], drawn["tau"].values[0]
        mu = np.exp(eta) if spec is RATES else 1 / (1 + np.exp(-eta))
        values = {
            "Intercept": eta, "tau": tau, "mean": mu, "shape": tau**-2, "rate": tau**-2 / mu, "precision": tau**-2,
            "variance": mu**2 * tau**2, "alpha": mu / tau**2, "beta": (1 - mu) / tau**2,
        }  # fmt: skip
        for row in post.hyperparameters.itertuples():
            inside = np.mean((values[row.term] > row.lower) & (values[row.term] < row.upper))
            half = np.mean(values[row.term] < row.median)
            assert inside == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 20_000)), row.term
            assert half == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000)), row.term


def test_draws_of_units_have_the_exact_moments() -> None:
    """Independent draws of θ, a unit without observations among them where its law allows."""
    data = pd.concat([TABLE, pd.DataFrame({"u": ["new"], "y": [0], "E": [0.0], "n": [0]})], ignore_index=True)
    post = hl.posterior(SHARES, data, draws=20_000, seed=2)
    theta = post.draws["posterior"]["theta"].values[0]
    units = post.units

    assert np.abs((theta.mean(axis=0) - units["estimate"]) / units["se"] * math.sqrt(20_000)).max() < 4.5
    assert theta.std(axis=0) == pytest.approx(units["se"].to_numpy(), rel=0.03)
    inside = (theta > units["lower"].to_numpy()) & (theta < units["upper"].to_numpy())
    assert inside.mean() == pytest.approx(0.95, abs=0.002)
    assert units["shrinkage"].iloc[-1] == 1.0
    rates = hl.posterior(RATES, data, draws=0, seed=2)
    assert math.isnan(rates.units["estimate"].iloc[-1])
    assert rates.units["upper"].iloc[-1] > rates.units["lower"].iloc[-1] > 0
    assert math.isnan(rates.posterior_of("new").mean)


def test_the_scale_of_exposures_moves_nothing_but_the_mean() -> None:
    """E in thousands: θ a thousandth, the same shape."""
    one, other = (hl.posterior(RATES, TABLE.assign(E=TABLE["E"] * c), draws=0, seed=1) for c in (1, 1000))

    assert other.units["estimate"].to_numpy() * 1000 == pytest.approx(one.units["estimate"].to_numpy(), rel=1e-9)
    assert other.units["upper"].to_numpy() * 1000 == pytest.approx(one.units["upper"].to_numpy(), rel=1e-6)
    rows = [post.hyperparameters.set_index("term").loc["tau", "estimate"] for post in (one, other)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-9)


def test_with_many_units_full_and_empirical_bayes_meet() -> None:
    """300 units of one prior: posterior means within a thirtieth of a posterior sd of the estimates at the maximum."""
    rng = np.random.default_rng(3)
    E = rng.gamma(3, 3, 300)
    data = pd.DataFrame({"u": range(300), "y": rng.poisson(E * rng.gamma(5, 0.2, 300)), "E": E})
    fit, post = hl.fit(RATES, data), hl.posterior(RATES, data, draws=0, seed=1)

    assert np.abs((post.units["estimate"] - fit.estimate) / post.units["se"]).max() < 0.03


def test_several_coefficients_are_sampled_by_importance() -> None:
    """Against the lattice: a covariate whose prior is a spike at zero leaves the model with an intercept."""
    data = TABLE.assign(x=np.linspace(-1, 1, 8))
    spec = hl.compound("y ~ x", unit="u", sampling=hl.PoissonSampling("E"))
    lattice = hl.posterior(RATES, data, draws=0, seed=1)
    post = hl.posterior(spec, data, priors=["fixed(x)=normal(0, 1e-4)"], draws=500, seed=1)

    assert post.diagnostics["pareto_k"] < 0.7
    gap = (post.units["estimate"] - lattice.units["estimate"]) / post.units["mcse"]
    assert np.abs(gap).max() < 5
    assert post.units["mcse"].max() < 0.02
    assert list(post.hyperparameters["term"]) == ["Intercept", "x", "shape", "tau"]


@pytest.mark.parametrize("spec", [RATES, SHARES])
def test_ranks_are_uniform_over_repetitions(spec: hl.CompoundSpec) -> None:
    """Simulation-based calibration: 60 draws of hyperparameters, units and counts from proper priors; the posterior
    distribution function of tau, the coefficient and a unit at the truth is uniform (Kolmogorov-Smirnov)."""
    from scipy.stats import kstest

    rng = np.random.default_rng(9)
    size = np.array([1.0, 2, 4, 8, 3, 5]) if spec is RATES else np.array([4.0, 6, 10, 15, 8, 5])
    ranks = []
    for _ in range(60):
        eta, tau = rng.normal(0.3, 0.4), rng.uniform(0, 1.2)
        if spec is RATES:
            theta = rng.gamma(tau**-2, math.exp(eta) * tau**2, 6)
            y = rng.poisson(size * theta)
        else:
            mu = 1 / (1 + math.exp(-eta))
            theta = rng.beta(mu / tau**2, (1 - mu) / tau**2, 6)
            y = rng.binomial(size.astype(int), np.clip(theta, 0, 1))
        design = build_compound(spec, pd.DataFrame({"u": list("abcdef"), "y": y, "E": size, "n": size.astype(int)}))
        target = CompoundTarget.of(design, resolve_compound(Priors(fixed=Normal(0.3, 0.4), sd=Uniform(1.2)), design))
        beta, drawn = integrate(target, compound_propriety(target)).draw(199, rng)
        units = draw(design, beta, drawn, rng).variables["theta"][1][0]
        ranks.append([(drawn < tau).mean(), (beta[:, 0] < eta).mean(), (units[:, 2] < theta[2]).mean()])

    for column in np.array(ranks).T:
        assert kstest(column, "uniform").pvalue > 0.001


def test_results_are_labelled_printed_and_refuse_what_is_not_there() -> None:
    """Text of 80 columns; quantiles and exceedances agree with a unit's own law."""
    post = hl.posterior(RATES, TABLE, draws=10, seed=1)
    unit = post.posterior_of("c")

    assert max(map(len, str(post).splitlines())) <= 80
    assert post.quantile([0.3])["0.3"][2] == pytest.approx(unit.quantile(0.3), rel=1e-6)
    assert post.exceedance(2.0)["probability"][2] == pytest.approx(unit.above(2.0), rel=1e-9)
    assert post.draws["posterior"]["theta"].dims == ("chain", "draw", "unit")
    with pytest.raises(hl.FitError, match="named by its label"):
        post.posterior_of("z")
    with pytest.raises(SpecError, match="found matrices W"):
        hl.posterior(RATES, TABLE, matrices={"W": None})
    with pytest.raises(hl.FitError, match="`engine` is 'integrate' or 'nuts'"):
        hl.posterior(RATES, TABLE, engine="exact")  # type: ignore[call-overload]
