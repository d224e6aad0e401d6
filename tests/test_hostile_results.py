"""Hostile inputs that the design accepts: what fit, posterior and comparison make of them, case by case.

The numbers in names and ids are those of the project's list of hostile inputs; the inputs that are refused, and the
notes on those that are not, are in design/test_hostile_inputs. Every expected number is a closed form, an invariance
under which the answer may not change, or a brute-force computation with dense matrices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.compare import Agreement
from hierlmm.frequentist.area.results import AreaOutcome
from hierlmm.frequentist.lmm_mse import error_terms
from hierlmm.frequentist.lmm_results import LMMOutcome
from hierlmm.frequentist.lmm_variances import parameter_covariance

INTERCEPTS = hl.lmm("y ~ x + (1 | g)")
SLOPES = hl.lmm("y ~ x + (x | g)")
FAY_HERRIOT = hl.fay_herriot("y ~ x", sampling_variance="D", area="area")


def table(**changes: object) -> pd.DataFrame:
    """72 rows in 12 groups of 6 with intercepts and slopes that vary between groups."""
    rng = np.random.default_rng(72)
    g, x = np.repeat([f"a{i:02d}" for i in range(12)], 6), rng.normal(size=72)
    b = rng.normal(size=(12, 2)).repeat(6, axis=0)
    y = 1 + 0.25 * x + b[:, 0] + b[:, 1] * x + rng.normal(size=72)
    return pd.DataFrame({"g": g, "x": x, "y": y}).assign(**changes)


def areas(**changes: object) -> pd.DataFrame:
    """Ten areas whose direct estimates scatter more than their sampling variances explain."""
    x = np.array([0.5, 1.5, -0.5, 2.0, 0.0, 1.0, -1.0, 2.5, 3.0, -1.5])
    y = 10 + 2 * x + np.array([1.3, -2.2, 1.0, 1.6, -0.9, 3.0, -2.3, 1.2, -1.6, -0.6])
    names = [f"area {i}" for i in range(10)]
    return pd.DataFrame({"area": names, "y": y, "x": x, "D": np.linspace(0.1, 1.0, 10)}).assign(**changes)


def fitted(data: pd.DataFrame, spec: hl.ModelSpec = INTERCEPTS) -> hl.LMMFit:
    return hl.fit(spec, data)


def exact(data: pd.DataFrame, spec: hl.ModelSpec = INTERCEPTS, **options: object) -> hl.LMMPosterior:
    return hl.posterior(spec, data, draws=0, seed=1, **options)


def test_3_constant_response_has_no_variance_at_all():
    """3: every variance is 0 and said to be; default priors, which are scaled by sd(y), are refused."""
    fit = fitted(table(y=3.0))

    assert fit.outcome is LMMOutcome.NO_VARIATION
    assert (fit.beta.tolist(), fit.sigma2, fit.G[0].item()) == ([3.0, 0.0], 0.0, 0.0)
    assert "y is 3 in every row" in fit.summary()
    assert (fit.predict()["estimate"] == 3).all()
    for y in (3.0, 0.1):
        with pytest.raises(hl.PriorError, match=r"response"):
            exact(table(y=y))


def test_4_between_variance_zero_is_exactly_zero():
    """4: equal group means: G = 0, sigma² = SST / (n - 1), and the posterior stays away from zero."""
    y = np.tile([1.0, 2.0, 4.0, -3.0, 0.0, 5.0], 12)
    spec = hl.lmm("y ~ 1 + (1 | g)")
    fit, posterior = fitted(table(y=y), spec), exact(table(y=y), spec)

    assert fit.outcome is LMMOutcome.AT_ZERO
    assert fit.G[0].item() == 0
    assert_allclose(fit.sigma2, y.var(ddof=1), rtol=1e-12)
    assert hl.compare(fit, posterior).boundary["verdict"].tolist() == ["at zero"]


@pytest.mark.parametrize("unit", [1e9, 1e-9, 1e100, 1e-100])
def test_11_units_of_the_response_change_nothing_else(unit):
    """11: estimates, errors and BLUPs are those of y times the unit; variances times its square."""
    one, other = fitted(table()), fitted(table(y=table()["y"] * unit))

    assert other.outcome is one.outcome
    assert_allclose(other.fixed[["estimate", "se"]] / unit, one.fixed[["estimate", "se"]], rtol=1e-9)
    assert_allclose(other.b[0] / unit, one.b[0], rtol=1e-8, atol=1e-10)
    assert_allclose([other.sigma2 / unit / unit, other.G[0].item() / unit / unit], [one.sigma2, one.G[0].item()], 1e-8)


@pytest.mark.parametrize("unit", [1e9, 1e-9])
def test_11_posterior_in_other_units(unit):
    """11: the default priors move with the units, so that the posterior does."""
    one, other = exact(table()), exact(table(y=table()["y"] * unit))

    columns = ["estimate", "se", "lower", "upper"]
    assert_allclose(other.fixed[columns] / unit, one.fixed[columns], rtol=1e-6)
    assert_allclose(other.random_effects[columns] / unit, one.random_effects[columns], rtol=1e-6, atol=1e-8)


def test_12_covariate_far_from_zero():
    """12: x + 1e8; slope, its error, variances and predictions are those of x."""
    one, other = fitted(table()), fitted(table(x=table()["x"] + 1e8))
    post, moved = exact(table()), exact(table(x=table()["x"] + 1e8))

    columns = ["estimate", "se"]
    assert_allclose(other.fixed[columns].to_numpy()[1], one.fixed[columns].to_numpy()[1], rtol=1e-6)
    assert_allclose([other.sigma2, other.G[0].item()], [one.sigma2, one.G[0].item()], rtol=1e-6)
    assert_allclose(other.predict()[["estimate", "se"]], one.predict()[["estimate", "se"]], rtol=1e-5, atol=1e-6)
    assert_allclose(moved.fixed.loc[1, "estimate"], post.fixed.loc[1, "estimate"], rtol=1e-5)
    assert_allclose(moved.fixed.loc[1, "se"], post.fixed.loc[1, "se"], rtol=1e-5)


@pytest.mark.parametrize(("shift", "rtol"), [(1e2, 1e-9), (2e3, 1e-9), (1e6, 1e-6), (1e8, 1e-5)])
def test_12_slopes_over_a_covariate_far_from_zero(shift, rtol):
    """12: of the slopes all is as without the shift, standard errors of the variances and new groups included.

    The intercepts then stand for x = 0: their variance is a - 2 s c + s² b of the unshifted a, c, b.
    """
    one, other = fitted(table(), SLOPES), fitted(table(x=table()["x"] + shift), SLOPES)
    (a, c), (_, b) = one.G[0]
    slope = (one.variance_components["term"] == "x") & one.variance_components["quantity"].isin(["variance", "sd"])
    columns = ["estimate", "se", "lower", "upper"]

    assert_allclose(other.variance_components.loc[slope, columns], one.variance_components.loc[slope, columns], rtol)
    assert_allclose(other.G[0][0, 0], a - 2 * shift * c + shift**2 * b, rtol=rtol)
    assert_allclose(other.icc["g"], one.icc["g"], rtol=rtol)
    new = pd.DataFrame({"g": "new", "x": [-1.0, 0.0, 2.0]})
    moved = other.predict(new.assign(x=new["x"] + shift), new_levels="population")
    still = one.predict(new, new_levels="population")
    assert_allclose(moved[["estimate", "se"]], still[["estimate", "se"]], rtol=10 * rtol)
    mine, theirs = (error_terms(fit).query("term == 'x'")["g3"] for fit in (other, one))
    assert_allclose(mine, theirs, rtol=10 * rtol)
    assert "Centre it" in " ".join(other.notes)
    assert "Centre it" not in " ".join(one.notes)


def test_12_error_of_a_correlation_is_its_derivative():
    """12: near 1, by differences of the correlation in the elements of G at the unshifted optimum.

    The correlation of the shifted intercepts is a function of the unshifted (a, c, b), whose covariance matrix is the
    inverse information there; its errors are published for those, so this is the delta method with another route.
    """
    shift = 100.0
    one, other = fitted(table(), SLOPES), fitted(table(x=table()["x"] + shift), SLOPES)
    found = parameter_covariance(one)
    covariance = found.maps @ found.working @ found.maps.T  # of (a, c, b, sigma²)

    def rest(psi):  # 1 - rho², whose digits survive
        a, c, b = psi[:3]
        return (a * b - c * c) / (b * (a - 2 * shift * c + shift**2 * b))

    psi = np.array([one.G[0][0, 0], one.G[0][1, 0], one.G[0][1, 1], one.sigma2])
    steps = 1e-5 * np.eye(4)
    gradient = np.array([(rest(psi + e) - rest(psi - e)) / 2e-5 for e in steps])
    row = other.variance_components.query("quantity == 'correlation'").iloc[0]

    assert_allclose(row["se"], np.sqrt(gradient @ covariance @ gradient) / (2 * abs(row["estimate"])), rtol=1e-5)
    assert -1 < row["lower"] < row["estimate"] < row["upper"] < 1


@pytest.mark.parametrize("shift", [1e7, 1e8])
def test_12_posterior_of_slopes_far_from_zero_is_refused_in_words(shift):
    """12: where doubles cannot tell the correlation from 1 the exact engine says so."""
    with pytest.raises(hl.HierlmmError, match="Centre"):
        exact(table(x=table()["x"] + shift), SLOPES)


def test_13_no_residual_variance():
    """13: y is a group effect plus x / 4: group means by least squares, sigma² = 0, said to be so."""
    effect = np.arange(12.0) ** 1.5
    fit = fitted(table(y=effect.repeat(6) + 0.25 * table()["x"]))

    assert fit.outcome is LMMOutcome.NO_RESIDUAL
    assert_allclose(fit.beta, [effect.mean(), 0.25], rtol=1e-10)
    assert_allclose(fit.G[0].item(), effect.var(ddof=1), rtol=1e-10)
    assert fit.sigma2 == 0
    with pytest.raises(hl.PriorError, match="fixed and random effects fit exactly"):
        exact(table(y=effect.repeat(6) + 0.25 * table()["x"]))


def test_17_response_far_from_zero():
    """17: y + 1e10; only the intercept moves (its last digits are those of the doubles given)."""
    one, other = fitted(table()), fitted(table(y=table()["y"] + 1e10))

    assert_allclose(other.fixed.loc[1, "estimate"], one.fixed.loc[1, "estimate"], rtol=1e-5)
    assert_allclose([other.sigma2, other.G[0].item()], [one.sigma2, one.G[0].item()], rtol=1e-5)
    assert_allclose(exact(table(y=table()["y"] + 1e10)).fixed["se"], exact(table()).fixed["se"], rtol=1e-5)


def test_18_one_row_that_decides_everything_is_named():
    """18: an outlier of 1e6 is 71/72 of the variation: fitted, su2 = 0, and named in every printed result."""
    data = table()
    data.loc[5, "y"] = 1e6
    fit, posterior = fitted(data), exact(data)

    assert fit.outcome is LMMOutcome.AT_ZERO
    for text in (fit.summary(), posterior.summary(), hl.compare(fit, posterior).summary()):
        assert "Row 5 alone carries 99 % of the variation of y" in " ".join(text.split())
    assert not any("alone carries" in note for note in fitted(table()).notes)


def test_20_one_large_group_and_many_singletons():
    """20: 5,000 rows in one group, 200 groups of one: the criterion is that of dense algebra by groups, and optimal.

    A group of n has log det (n - 1) log s + log(s + n t) and a compound-symmetric inverse.
    """
    rng = np.random.default_rng(20)
    g = np.concatenate([np.zeros(5000, dtype=int), np.arange(1, 201)])
    x, b = rng.normal(size=5200), rng.normal(size=201)
    y = 1 + 0.5 * x + b[g] + rng.normal(size=5200)
    fit = fitted(pd.DataFrame({"g": g, "x": x, "y": y}))
    U = np.column_stack([np.ones(5200), x, y])

    def criterion(s, t):
        log_det, gram = 0.0, np.zeros((3, 3))
        for part in (U[:5000], *U[5000:, None]):
            n, total = len(part), part.sum(axis=0)
            log_det += (n - 1) * np.log(s) + np.log(s + n * t)
            gram += (part.T @ part - t / (s + n * t) * np.outer(total, total)) / s
        rss = gram[2, 2] - gram[2, :2] @ np.linalg.solve(gram[:2, :2], gram[:2, 2])
        return 5198 * np.log(2 * np.pi) + log_det + np.linalg.slogdet(gram[:2, :2])[1] + rss

    s, t = fit.sigma2, fit.G[0].item()
    assert_allclose(fit.objective, criterion(s, t), rtol=1e-10)
    for ds, dt in ((1.001, 1), (0.999, 1), (1, 1.01), (1, 0.99)):
        assert criterion(s * ds, t * dt) > fit.objective
    post = exact(pd.DataFrame({"g": g, "x": x, "y": y}))
    assert abs(post.fixed.loc[1, "estimate"] - fit.beta[1]) < 0.05 * post.fixed.loc[1, "se"]


def test_21_permuted_rows():
    """21: another order of the rows changes nothing beyond rounding, and labels follow their rows."""
    order = np.random.default_rng(21).permutation(72)
    one, other = fitted(table(), SLOPES), fitted(table().iloc[order], SLOPES)

    assert_allclose(other.objective, one.objective, rtol=1e-12)
    assert_allclose(other.b[0], one.b[0], rtol=1e-8, atol=1e-10)
    assert_allclose(other.predict().loc[one.design.index, "estimate"], one.predict()["estimate"], rtol=1e-9, atol=1e-11)
    posterior, permuted = exact(table()), exact(table().iloc[order])
    assert_allclose(permuted.fixed["estimate"], posterior.fixed["estimate"], rtol=1e-9)


def test_24_new_group_is_a_draw_from_the_population():
    """24: the population value with G + Var(beta) as its variance; wider than that of an observed group."""
    new = pd.DataFrame({"g": ["new", "a03"], "x": [0.5, 0.5]})
    fit, posterior = fitted(table()), exact(table())
    at = np.array([1.0, 0.5])
    frame, theirs = (result.predict(new, new_levels="population") for result in (fit, posterior))

    for result in (fit, posterior):
        with pytest.raises(hl.DesignError, match=r'g has new in rows 0.*new_levels="population"'):
            result.predict(new)
    assert_allclose(frame.loc[0, "estimate"], at @ fit.beta, rtol=1e-12)
    assert_allclose(frame.loc[0, "se"] ** 2, fit.G[0].item() + at @ fit.vcov_beta @ at, rtol=1e-12)
    assert frame.loc[0, "new_levels"] == theirs.loc[0, "new_levels"] == "g"
    assert frame.loc[0, "se"] > frame.loc[1, "se"]
    assert theirs.loc[0, "se"] > theirs.loc[1, "se"]
    assert_allclose(theirs.loc[0, "estimate"], at @ posterior.fixed["estimate"], rtol=1e-6)


def test_25_27_areas_without_variance_or_estimate():
    """25, 27: D = 0 keeps the direct estimate with error 0; unsampled areas are x'beta with A + g2, in both halves."""
    spec = hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic", zero_variance="direct")
    data = areas()
    data.loc[2, "y"], data.loc[5, "D"], data.loc[7, "D"] = np.nan, np.nan, 0.0
    fit, posterior = hl.fit(spec, data), hl.posterior(spec, data, draws=0, seed=1)

    for frame in (fit.areas, fit.predict(), posterior.areas, posterior.predict(data)):
        assert frame.loc[7, ["estimate", "se", "lower", "upper"]].tolist() == [15.2 + 1.0, 0, 16.2, 16.2]
        assert_allclose(frame.loc[7, "gamma"], 1)
        assert frame.loc[[2, 5], "gamma"].tolist() == [0, 0]
    x = np.array([1.0, -0.5])
    assert_allclose(fit.areas.loc[2, "estimate"], x @ fit.beta, rtol=1e-12)
    assert_allclose(fit.areas.loc[2, "mse"], fit.A_hat + x @ fit.vcov_beta @ x, rtol=1e-12)
    assert fit.areas["role"].tolist().count("unsampled") == 2


def test_28_area_variance_zero():
    """28: A = 0 exactly: the formula g2 + 2 g3, g3 = 2 / (D Σ D⁻²), beside an mse that is valid there and above g2."""
    data = areas(y=lambda d: 10 + 2 * d["x"] + 0.1 * np.tile([1, -1], 5))
    fit, posterior = hl.fit(FAY_HERRIOT, data), hl.posterior(FAY_HERRIOT, data, draws=0, seed=1)
    frame = fit.areas

    assert fit.outcome is AreaOutcome.AT_ZERO
    assert fit.A_hat == 0
    assert frame["mse_valid"].all()
    assert_allclose(frame["g3"], 2 / (data["D"] * (data["D"] ** -2.0).sum()), rtol=1e-10)
    assert_allclose(frame["mse_unbiased"], frame["g2"] + 2 * frame["g3"], rtol=1e-12)
    assert (frame["mse"] > frame["g2"]).all()
    assert (posterior.areas["se"] > 0).all()
    assert "does not hold" in " ".join(fit.summary().split())
    compared = hl.compare(fit, posterior)
    assert compared.boundary["verdict"].tolist() == ["at zero"]
    assert {"g2", "mse", "posterior_variance"} <= set(compared.mse.columns)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_31_units_of_areas(unit):
    """31: y in units of 1e-6: A times 1e-12, estimates times 1e-6, nothing else, for fit and posterior."""
    scaled = areas(y=lambda d: d["y"] * unit, D=lambda d: d["D"] * unit**2)
    one, other = hl.fit(FAY_HERRIOT, areas()), hl.fit(FAY_HERRIOT, scaled)
    post, moved = (hl.posterior(FAY_HERRIOT, data, draws=0, seed=1) for data in (areas(), scaled))

    assert one.outcome is AreaOutcome.INTERIOR
    assert_allclose(other.A_hat / unit**2, one.A_hat, rtol=1e-10)
    assert_allclose(other.areas[["estimate", "se"]] / unit, one.areas[["estimate", "se"]], rtol=1e-10)
    assert_allclose(moved.areas[["estimate", "se"]] / unit, post.areas[["estimate", "se"]], rtol=1e-10)


def test_range_of_sampling_variances():
    """D from 1e-12 to 1e12: the precise area keeps its direct estimate with mse D, the others follow A."""
    fit = hl.fit(FAY_HERRIOT, areas(D=np.logspace(-12, 12, 10)))

    assert_allclose(fit.areas.loc[0, "estimate"], fit.areas.loc[0, "direct"], rtol=1e-9)
    assert_allclose(fit.areas.loc[0, "mse"], 1e-12, rtol=1e-6)
    assert (fit.areas["gamma"].diff().dropna() < 0).all()


IMPROPER = [
    pytest.param(FAY_HERRIOT, areas()[:4], "flat_variance", "at least 5 areas", id="m = p + 2, flat on A"),
    pytest.param(FAY_HERRIOT, areas()[:3], "flat_sd", "at least 4 areas", id="m = p + 1, flat on the sd"),
    pytest.param(FAY_HERRIOT, areas()[:3], None, "at least 4 areas", id="m = p + 1, default"),
    pytest.param(INTERCEPTS, table()[:12], "flat_sd", "2 levels of g", id="two groups, flat on the sd"),
    pytest.param(INTERCEPTS, table()[:18], "flat_variance", "3 levels of g", id="three groups, flat on variances"),
    pytest.param(SLOPES, table()[:24], "flat_variance", "4 levels of g", id="J - k = 3, flat on G"),
]


@pytest.mark.parametrize(("spec", "data", "priors", "message"), IMPROPER)
def test_47_improper_posterior_is_refused_before_anything_is_computed(spec, data, priors, message):
    """47: the bounds of Datta & Smith (2003) for areas, Hobert & Casella (1996) for mixed models."""
    with pytest.raises(hl.PriorError, match=message):
        hl.posterior(spec, data, priors=priors, draws=0, seed=1)
    with pytest.raises(hl.PriorError, match=message):
        hl.posterior(spec, data, priors=priors, engine="nuts", seed=1)


@pytest.mark.parametrize("name", ["areas", "effects"])
def test_48_failed_sampler_is_not_agreement(name):
    """48: divergences, R-hat, a stuck chain: whatever the means say, the comparison calls it the sampler."""
    fit, posterior = _pair(name)
    failed = replace(posterior, diagnostics={**posterior.diagnostics, "failures": "The chains disagree."})

    compared = hl.compare(fit, failed)

    assert compared.agreement is Agreement.SAMPLER
    assert "The chains disagree." in compared.summary()
    assert "must not be relied on" in failed.summary()


def test_49_two_areas_off_by_more_than_their_monte_carlo_error():
    """49: two areas 6 Monte Carlo errors from the exact posterior: the sampler failed, the methods do not differ."""
    fit, posterior = _pair("areas")
    theta = posterior.terms.theta
    error = np.full(10, 1e-4)
    shift = np.where(np.isin(np.arange(10), [3, 8]), 6 * error, 0)
    moved = replace(theta, estimate=theta.estimate + shift, mcse=error)
    drifted = replace(posterior, engine="nuts", terms=replace(posterior.terms, theta=moved))
    near = replace(drifted, terms=replace(posterior.terms, theta=replace(moved, estimate=theta.estimate + shift / 6)))

    assert hl.compare(fit, drifted).agreement is Agreement.SAMPLER
    assert hl.compare(fit, near).agreement is not Agreement.SAMPLER


def _pair(name: str):
    if name == "areas":
        return hl.fit(FAY_HERRIOT, areas()), hl.posterior(FAY_HERRIOT, areas(), draws=0, seed=1)
    return fitted(table()), exact(table())


def test_models_without_fixed_effects():
    """No X at all: REML and ML are one likelihood, -2 log of which is that of the dense covariance matrix."""
    spec = hl.lmm("y ~ 0 + (1 | g)")
    reml, ml = hl.fit(spec, table()), hl.fit(spec, table(), "ml")
    V = reml.sigma2 * np.eye(72) + reml.G[0].item() * np.kron(np.eye(12), np.ones((6, 6)))
    y = table()["y"].to_numpy()

    dense = 72 * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + y @ np.linalg.solve(V, y)
    assert_allclose([reml.objective, ml.objective], dense, rtol=1e-12)
    assert "Fixed effects" not in reml.summary()
    assert hl.compare(reml, hl.posterior(spec, table(), draws=0, seed=1)).summary()


def test_variance_next_to_zero_has_an_interval_from_zero_to_infinity():
    """An estimate of 1e-6 of its error: the interval on log scale overflows to (0, inf), with no warning."""
    y = np.tile([1.0, 2.0, 4.0, -3.0, 0.0, 5.0], 12)
    between = np.repeat(np.arange(12.0) - 5.5, 6)
    # balanced one-way: G = (MSB - MSW) / 6, MSB = 6 Var(group means); MSW = 8.3: means chosen for G = 1e-6
    within = np.tile([1.0, 2.0, 4.0, -3.0, 0.0, 5.0], 12).var() * 72 / 60
    size = np.sqrt((within / 6 + 1e-6) / between[::6].var(ddof=1))
    fit = fitted(table(y=y + size * between), hl.lmm("y ~ 1 + (1 | g)"))
    row = fit.variance_components.iloc[0]

    assert_allclose(row["estimate"], 1e-6, rtol=1e-3)
    assert (row["lower"], row["upper"]) == (0.0, np.inf)


def test_what_was_left_out_is_in_every_printed_result():
    """5, 10: rows dropped are counted and listed, aliased columns named, in fits, posteriors and comparisons."""
    rows = "1 row dropped for missing values in x, z: 3"
    columns = "Columns dropped because earlier ones determine them: z"
    for spec, data in (
        (hl.lmm("y ~ x + z + (1 | g)"), table()),
        (hl.fay_herriot("y ~ x + z", sampling_variance="D", area="area", missing_covariates="drop"), areas()),
    ):
        data.loc[3, "x"] = np.nan
        data["z"] = 2 * data["x"]
        fit, posterior = hl.fit(spec, data), hl.posterior(spec, data, draws=0, seed=1)
        for result in (fit, posterior, hl.compare(fit, posterior)):
            text = " ".join(result.summary().split())
            assert rows in text
            assert columns in text


def test_response_labelled_in_another_order_is_refused():
    """A Series goes to the rows by position; one whose labels say otherwise would go to the wrong ones."""
    fit, area_fit = fitted(table()), hl.fit(FAY_HERRIOT, areas())
    y, direct = table()["y"], areas().set_index("area")["y"]

    assert_allclose(fit.refit(y).beta, fit.beta, rtol=1e-9)
    assert_allclose(fit.refit(y.set_axis(range(100, 172))).beta, fit.beta, rtol=1e-9)
    assert_allclose(area_fit.refit(direct).A_hat, area_fit.A_hat, rtol=1e-9)
    with pytest.raises(hl.DesignError, match="another order"):
        fit.refit(y.iloc[::-1])
    with pytest.raises(hl.DesignError, match="another order"):
        area_fit.refit(direct.iloc[::-1])
    with pytest.raises(hl.DesignError, match="must be numeric"):
        fit.refit(["a"] * 72)


REFUSED = [
    pytest.param(lambda: fitted(table()).predict(target="response"), hl.FitError, "`target`", id="target"),
    pytest.param(lambda: fitted(table()).simulate(seed=1, effects="old"), hl.FitError, "`effects`", id="effects"),
    pytest.param(lambda: hl.fit(FAY_HERRIOT, areas()).A_table(interval="x"), hl.FitError, "`interval`", id="interval"),
    pytest.param(lambda: hl.fit("y ~ x + (1 | g)", table()), hl.SpecError, "found str", id="spec is text"),
    pytest.param(lambda: hl.fit(table(), INTERCEPTS), hl.SpecError, "spec comes first", id="spec and data swapped"),
    pytest.param(lambda: hl.posterior("y ~ x", table()), hl.SpecError, "found str", id="posterior of text"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), draws=1.5), hl.FitError, "`draws`", id="draws"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), draws="many"), hl.FitError, "`draws`", id="draws as text"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), seed=-1), hl.FitError, "`seed`", id="negative seed"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), seed="x"), hl.FitError, "`seed`", id="seed as text"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), priors=3), hl.PriorError, "found int 3", id="priors"),
    pytest.param(lambda: hl.posterior(INTERCEPTS, table(), priors={"sd": 1}), hl.PriorError, "dict", id="prior dict"),
    pytest.param(lambda: fitted(table().set_index("g")), hl.DesignError, "in the index.*reset", id="key in index"),
    pytest.param(
        lambda: hl.fit(hl.fay_herriot("y ~ x", sampling_variance="D", area="area", unsampled="synthetic"),
                       areas(y=np.nan)), hl.DesignError, "none of 10 has", id="no sampled area"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_arguments_that_mean_nothing_are_refused(call, error, message):
    """Not taken for the default, and not met as an error of another library."""
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["chain", "draw", "term", "sigma", "beta"])
def test_44_group_named_like_a_dimension_of_the_draws(name):
    """44: fitted by REML; the posterior, whose draws could not be labelled, is refused with the way out."""
    spec, data = hl.lmm(f"y ~ x + (1 | {name})"), table().rename(columns={"g": name})

    assert_allclose(fitted(data, spec).beta, fitted(table()).beta, rtol=1e-12)
    with pytest.raises(hl.DesignError, match=f"found {name}. Rename the column"):
        exact(data, spec)


def test_44_groups_whose_derived_names_collide():
    """44: `g_coef` is the dimension of the coefficients of g."""
    data = table(g_coef=np.tile(np.arange(6), 12))

    with pytest.raises(hl.DesignError, match="found g_coef"):
        exact(data, hl.lmm("y ~ x + (1 | g) + (1 | g_coef)"))


def test_results_show_themselves_as_their_summary():
    """At a prompt a result shows its summary, not the arrays inside it."""
    fit, posterior = _pair("effects")

    for result in (fit, posterior, hl.compare(fit, posterior), *_pair("areas")):
        assert repr(result) == str(result) == result.summary()
