"""Empirical-Bayes fits of compound models: the right numbers, limits, refusals and labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import FitError, SpecError

LIP = hl.load("lip-cancer")
BASEBALL = hl.load("baseball")
RATES = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"), unsampled="synthetic")
SHARES = hl.compound("y ~ 1", unit="u", sampling=hl.BinomialSampling("n"), unsampled="synthetic")


def normal_table(m: int = 15) -> pd.DataFrame:
    """Observations of unequal variance about a line."""
    k = np.arange(m)
    x = np.cos(1.3 * k)
    D = 0.2 + 0.1 * (k % 5)
    return pd.DataFrame({"u": [f"u{i}" for i in k], "x": x, "y": 1 + x + 1.1 * np.sin(2.9 * k * k), "D": D, "c": 0.5})


@pytest.mark.parametrize("method", ["reml", "ml", "fh", "pr", "amrl_yl"])
@pytest.mark.parametrize("formula", ["y ~ 1", "y ~ x", "y ~ 0 + offset(c)"])
def test_normal_fits_are_those_of_the_area_level_engine(method: str, formula: str) -> None:
    """The same numbers to 1e-12 as hl.fit(fay_herriot): estimate, error, A, likelihood, interval of A."""
    data = normal_table()
    area = hl.fit(hl.fay_herriot(formula, sampling_variance="D", area="u"), data, method)
    fit = hl.fit(hl.compound(formula, unit="u", sampling=hl.NormalSampling("D")), data, method)

    units, areas = fit.units, area.areas
    for column in ("estimate", "se", "lower", "upper", "gamma"):
        assert units[column].to_numpy() == pytest.approx(areas[column].to_numpy(), rel=1e-12, abs=1e-14)
    assert (fit.dispersion, fit.loglik) == pytest.approx((area.A_hat, area.loglik), rel=1e-12)
    own = fit.hyperparameters.set_index("term").loc["A", ["estimate", "se", "lower", "upper"]].tolist()
    assert own == pytest.approx(area.A.loc[0, ["estimate", "se", "lower", "upper"]].tolist(), rel=1e-12)


def test_moments_of_normal_observations_are_prasad_and_rao() -> None:
    """One name for the simple moment estimator in all families."""
    spec = hl.compound("y ~ x", unit="u", sampling=hl.NormalSampling("D"))

    assert hl.fit(spec, normal_table(), "moments").dispersion == hl.fit(spec, normal_table(), "pr").dispersion


def test_the_default_method_is_that_of_the_family() -> None:
    """REML for normal observations, maximum likelihood for counts."""
    assert hl.fit(LIP.spec, LIP.data).method == "ml"
    assert hl.fit(BASEBALL.spec, BASEBALL.data).method == "reml"


def test_stein_rules_meet_where_they_must() -> None:
    """James-Stein, its positive part and Morris agree on the batting averages; full savings are the rule itself."""
    fits = [hl.fit(BASEBALL.spec, BASEBALL.data, method) for method in ("james_stein", "positive_part", "morris")]

    for other in fits[1:]:
        assert other.estimate == pytest.approx(fits[0].estimate, rel=1e-12)
        assert other.variance == pytest.approx(fits[0].variance, rel=1e-12)
    limited = fits[0].limited_translation(bound=100.0)
    assert limited.estimate == pytest.approx(fits[0].estimate, rel=1e-12)
    eighty = hl.fit(BASEBALL.spec, BASEBALL.data, "limited_translation")
    assert eighty.bound == pytest.approx(fits[0].limited_translation(0.8).bound)
    assert abs(eighty.units["estimate"] - eighty.units["direct"]).max() == pytest.approx(
        eighty.bound * math.sqrt((1 - fits[0].gamma[0]) * 17 / 18 * BASEBALL.spec.known), rel=1e-9
    )
    assert fits[0].risk < 18 * BASEBALL.spec.known


def test_the_interval_of_A_under_stein_rules_is_exact() -> None:
    """S ~ (A + D) χ²_q: 2,000 data sets, coverage within three standard errors."""
    from scipy.stats import chi2

    rng = np.random.default_rng(4)
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(1.0))
    data = pd.DataFrame({"u": range(10), "y": rng.normal(0, 1.5, 10)})
    fit = hl.fit(spec, data, "positive_part")
    row = fit.hyperparameters.set_index("term").loc["A"]
    S = ((data["y"] - data["y"].mean()) ** 2).sum()

    assert row["upper"] == pytest.approx(S / chi2.ppf(0.025, 9) - 1, rel=1e-9)
    assert row["lower"] == pytest.approx(max(0, S / chi2.ppf(0.975, 9) - 1), abs=1e-12)


def test_errors_of_counts_are_the_delta_method_by_differences() -> None:
    """Var(θ|y, η̂) + J C J' with J by differences of the posterior means and C the inverse of minus the Hessian."""
    fit = hl.fit(LIP.spec, LIP.data)
    y, E = fit.design.y, fit.design.size
    eta, phi = float(fit.beta[0]), fit.dispersion

    def mean(e: float, p: float) -> np.ndarray:
        return (1 / p + y) / (1 / (p * math.exp(e)) + E)

    h = 1e-6
    differences = [mean(eta + h, phi) - mean(eta - h, phi), mean(eta, phi + h) - mean(eta, phi - h)]
    J = np.stack(differences, axis=1) / (2 * h)
    C = np.linalg.inv(-fit.certificate.hessian)
    conditional = mean(eta, phi) / (1 / (phi * math.exp(eta)) + E)

    assert fit.conditional_variance == pytest.approx(conditional, rel=1e-12)
    assert fit.variance == pytest.approx(conditional + np.einsum("ij,jk,ik->i", J, C, J), rel=1e-7)


def test_standard_errors_of_the_prior_are_those_of_its_parametrisation() -> None:
    """The delta method carried from (log μ, φ) to shape and rate equals the Hessian taken in them, by differences."""
    from scipy.special import gammaln

    fit = hl.fit(LIP.spec, LIP.data)
    y, E = fit.design.y, fit.design.size
    rows = fit.hyperparameters.set_index("term")
    at = rows.loc[["shape", "rate"], "estimate"].to_numpy()

    def loglik(v: np.ndarray) -> float:
        nu, a = v
        return float(np.sum(gammaln(y + nu) - gammaln(nu) + nu * np.log(a) - (y + nu) * np.log(a + E)))

    h = 1e-3 * at
    H = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            e, f = np.eye(2)[i] * h, np.eye(2)[j] * h
            corners = loglik(at + e + f) - loglik(at + e - f) - loglik(at - e + f) + loglik(at - e - f)
            H[i, j] = corners / (4 * h[i] * h[j])

    expected = np.sqrt(np.diagonal(np.linalg.inv(-H)))
    assert rows.loc[["shape", "rate"], "se"].to_numpy() == pytest.approx(expected, rel=1e-4)


def test_no_overdispersion_is_an_exact_answer_with_honest_errors() -> None:
    """At φ = 0: every unit at the pooled rate, points as posteriors, positive standard errors, shape infinite."""
    data = pd.DataFrame({"u": list("abcdefgh"), "y": [4, 6, 5, 5, 4, 6, 5, 5], "E": [1.0] * 8})
    fit = hl.fit(RATES, data)
    rows = fit.hyperparameters.set_index("term")

    assert (fit.outcome.name, fit.dispersion) == ("AT_ZERO", 0.0)
    assert fit.estimate == pytest.approx(np.full(8, 5.0), rel=1e-13)
    assert (fit.conditional_variance == 0).all()
    assert (fit.variance > 5 / 8).all()
    assert math.isinf(rows.loc["shape", "estimate"])
    assert rows.loc["shape", "lower"] > 1
    assert rows.loc["tau", "lower"] == 0.0
    assert fit.posterior_of("a").quantile([0.1, 0.9]).tolist() == pytest.approx([5.0, 5.0])
    assert str(fit).startswith("The units differ by no more than sampling makes them")


def test_errors_at_zero_are_averages_over_the_dispersion() -> None:
    """∫ [Var(θ|φ) + ...] L(φ) dφ / ∫ L(φ) dφ by adaptive quadrature, for equal exposures: β̂ is the same at all φ."""
    from scipy.integrate import quad
    from scipy.special import gammaln

    y = np.array([4.0, 6, 5, 5, 4, 6, 5, 5])
    fit = hl.fit(RATES, pd.DataFrame({"u": range(8), "y": y, "E": 1.0}))

    def likelihood(phi: float) -> float:
        nu = 1 / phi
        terms = gammaln(y + nu) - gammaln(nu) + nu * np.log(nu / (nu + 5)) + y * np.log(5 / (nu + 5))
        return math.exp(float(terms.sum()) - 24.0)

    def inside(phi: float) -> float:
        w = 5 * phi
        mean = 5 * (1 + phi * y[0]) / (1 + w)
        of_beta = (5 * (1 + phi * y[0]) / (1 + w) ** 2) ** 2 / np.sum(5 * (1 + phi * y) / (1 + w) ** 2)
        return (mean * 5 * phi / (1 + w) + of_beta + (mean - 5) ** 2) * likelihood(phi)

    parts = ((1e-7, 0.3), (0.3, 3.0), (3.0, 100.0), (100.0, 1e5))
    expected, mass = (sum(quad(f, *part, limit=300)[0] for part in parts) for f in (inside, likelihood))
    expected /= mass

    assert fit.variance[0] == pytest.approx(expected, rel=1e-5)


def test_units_without_observations_get_the_prior() -> None:
    """Exposure 0, no trials, nothing observed: the prior mean and its spread; the others as if these were absent."""
    rates = pd.DataFrame({"u": list("abcdef"), "y": [9, 0, 2, 7, 0, np.nan], "E": [3.0, 4, 3, 2, 0, 2]})
    fit, without = hl.fit(RATES, rates), hl.fit(RATES, rates.head(4))

    assert fit.estimate[:4] == pytest.approx(without.estimate, rel=1e-13)
    assert fit.estimate[4:] == pytest.approx(np.full(2, math.exp(fit.beta[0])), rel=1e-13)
    assert fit.conditional_variance[4] == pytest.approx(math.exp(2 * fit.beta[0]) * fit.dispersion, rel=1e-12)
    assert list(fit.units["shrinkage"][4:]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (RATES, {"y": [0, 0, 0, 0], "E": 1.0}, "y is 0 for all 4 units"),
        (SHARES, {"y": [0, 0, 0, 0], "n": 3}, "y is 0 for all 4 units"),
        (SHARES, {"y": [3, 3, 3, 3], "n": 3}, "every trial of all 4 units is a success"),
        (SHARES, {"y": [1, 0, 0, 1], "n": 1}, "no u has more than one trial"),
        (SHARES, {"y": [3, 0, 0, 3], "n": 3}, "only successes or only failures"),
    ],
)
@pytest.mark.parametrize("method", ["ml", "moments"])
def test_counts_that_say_nothing_of_a_prior_are_refused(
    spec: hl.CompoundSpec, values: dict[str, object], message: str, method: str
) -> None:
    """HOSTILE, row 46: an error that says why, and what else to do."""
    with pytest.raises(FitError, match=message):
        hl.fit(spec, pd.DataFrame({"u": list("abcd"), **values}), method)


def test_methods_that_do_not_exist_or_apply_are_refused() -> None:
    """Naming those that do."""
    with pytest.raises(SpecError, match=r"poisson sampling; found 'reml'\. Use one of: ml, moments"):
        hl.fit(LIP.spec, LIP.data, "reml")
    with pytest.raises(SpecError, match=r"equal sampling variances; those in 'D' run from 0\.2 to 0\.6"):
        hl.fit(hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling("D")), normal_table(), "james_stein")
    with pytest.raises(FitError, match="at least 3 units more than coefficients"):
        hl.fit(hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(1.0)), normal_table(3), "james_stein")
    with pytest.raises(SpecError, match="one common mean"):
        hl.fit(hl.compound("y ~ x", unit="u", sampling=hl.PoissonSampling("E")), _regression(), "moments")
    with pytest.raises(SpecError, match="found matrices W"):
        hl.fit(LIP.spec, LIP.data, matrices={"W": None})
    with pytest.raises(SpecError, match="restrains one of Stein's rules"):
        hl.fit(BASEBALL.spec, BASEBALL.data).limited_translation(0.5)
    with pytest.raises(SpecError, match="a share between 0 and 1"):
        hl.fit(BASEBALL.spec, BASEBALL.data, "james_stein").limited_translation(1.5)


def _regression() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    x = rng.normal(size=30)
    E = rng.gamma(2, 5, 30)
    y = rng.poisson(E * np.exp(0.2 + 0.5 * x) * rng.gamma(3, 1 / 3, 30))
    return pd.DataFrame({"u": range(30), "y": y, "E": E, "x": x, "f": ["a"] * 29 + ["b"], "o": np.log(E)})


def test_a_regression_of_counts_shrinks_to_its_own_mean() -> None:
    """Offsets are exposures on the log scale; the prior mean of a unit is exp(x'β), and weights follow from it."""
    data = _regression()
    fit = hl.fit(hl.compound("y ~ x", unit="u", sampling=hl.PoissonSampling("E")), data)
    other = hl.fit(
        hl.compound("y ~ x + offset(o)", unit="u", sampling=hl.PoissonSampling("one")), data.assign(one=1.0)
    )

    mu = np.exp(fit.beta[0] + fit.beta[1] * data["x"])
    assert fit.prior_mean == pytest.approx(mu.to_numpy(), rel=1e-12)
    assert fit.gamma == pytest.approx((1 / (1 + 1 / (fit.dispersion * data["E"] * mu))).to_numpy(), rel=1e-12)
    assert other.dispersion == pytest.approx(fit.dispersion, rel=1e-9)
    assert other.beta == pytest.approx(fit.beta, rel=1e-9)
    assert list(fit.hyperparameters["term"]) == ["Intercept", "x", "shape", "tau"]


def test_a_coefficient_that_runs_off_is_named() -> None:
    """A level whose only unit has no count: its mean is 0 for any data, and no estimate exists."""
    data = _regression().assign(y=lambda d: np.where(d["f"] == "b", 0, d["y"]))

    with pytest.raises(FitError, match=r"no estimate for units 29.*runs off without end"):
        hl.fit(hl.compound("y ~ f", unit="u", sampling=hl.PoissonSampling("E")), data)


def test_a_new_draw_of_the_observations_is_refitted_by_the_same_method() -> None:
    """refit(y) is hl.fit on the table with that y."""
    new = LIP.data["observed"].to_numpy()[::-1].copy()
    fit = hl.fit(LIP.spec, LIP.data, "moments").refit(new)

    assert fit.estimate == pytest.approx(hl.fit(LIP.spec, LIP.data.assign(observed=new), "moments").estimate, rel=1e-14)
    limited = hl.fit(BASEBALL.spec, BASEBALL.data, "james_stein").limited_translation(0.5)
    assert limited.refit(limited.design.y).estimate == pytest.approx(limited.estimate, rel=1e-14)


def test_frames_are_labelled_and_consistent() -> None:
    """Units in table order; quantiles, exceedances and the unit's posterior from one law; tidy and glance as others."""
    fit = hl.fit(LIP.spec, LIP.data)
    unit = fit.posterior_of(3)

    assert list(fit.units["unit"]) == list(LIP.data["district"])
    assert unit.mean == pytest.approx(fit.units["estimate"][2], rel=1e-12)
    assert fit.quantile([0.2])["0.2"][2] == pytest.approx(unit.quantile(0.2), rel=1e-12)
    assert fit.exceedance(2.0)["conditional"][2] == pytest.approx(unit.above(2.0), rel=1e-12)
    assert fit.aic == pytest.approx(-2 * fit.loglik + 4)
    assert len(fit.tidy("all")) == 1 + 5 + 2 * 56
    assert fit.glance()["method"][0] == "ml"
    assert max(map(len, str(fit).splitlines())) <= 80
    with pytest.raises(FitError, match="named by its label"):
        fit.posterior_of("nowhere")
    with pytest.raises(FitError, match="between 0 and 1"):
        fit.quantile(95)


def test_row_order_does_not_matter() -> None:
    """Units permuted: estimates permuted."""
    order = np.random.default_rng(0).permutation(56)
    fit, other = hl.fit(LIP.spec, LIP.data), hl.fit(LIP.spec, LIP.data.iloc[order])

    assert other.estimate == pytest.approx(fit.estimate[order], rel=1e-12)
    assert other.variance == pytest.approx(fit.variance[order], rel=1e-9)


def test_equal_observations_have_no_factor_of_james_and_stein() -> None:
    """Residuals that are the rounding of a mean are none; the positive part is the mean itself."""
    data = pd.DataFrame({"u": list("abcde"), "y": [0.1] * 5})
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(1.0))

    with pytest.raises(FitError, match=r"S is 0.*positive_part"):
        hl.fit(spec, data, "james_stein")
    assert hl.fit(spec, data, "positive_part").estimate == pytest.approx([0.1] * 5, rel=1e-15)


@pytest.mark.parametrize("method", ["james_stein", "limited_translation", "morris"])
def test_rules_that_leave_the_prior_mean_at_zero_do_not_say_they_are_there(method: str) -> None:
    """A is 0 and the estimates are not the prior mean: the summary does not call them that."""
    data = pd.DataFrame({"u": list("abcdef"), "y": [0.1, 0.3, 0.2, 0.4, 0.2, 2.6]})
    fit = hl.fit(hl.compound("y ~ 1", unit="u", sampling=hl.NormalSampling(2.0)), data, method)

    assert fit.dispersion == 0
    assert np.abs(fit.estimate - fit.prior_mean).max() > 0.01
    assert "has the prior mean" not in fit.summary()


@pytest.mark.parametrize("asked", ["a", math.nan, None, True, [1.0, 2.0]])
def test_what_is_no_threshold_or_probability_is_refused(asked: object) -> None:
    """By fit and posterior alike, in words."""
    fit = hl.fit(BASEBALL.spec, BASEBALL.data)
    for result in (fit, hl.posterior(BASEBALL.spec, BASEBALL.data, draws=0, seed=1)):
        with pytest.raises(FitError, match="`threshold` is a number"):
            result.exceedance(asked)
        with pytest.raises(FitError, match="Probabilities lie between 0 and 1"):
            result.quantile(asked)
