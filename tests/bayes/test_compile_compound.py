"""Compound counts in PyMC: the stated density in both forms, exact posteriors by NUTS, draws from priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from compile_cases import differences
from scipy import stats

import hierlmm as hl
from hierlmm.bayes.compounddensity import CompoundTarget
from hierlmm.bayes.compoundpriors import CompoundPriors, resolve_compound
from hierlmm.bayes.priors import priors_from
from hierlmm.bayes.sample import NutsOptions
from hierlmm.design.compound import CompoundDesign, build_compound
from hierlmm.errors import PriorError, SpecError

pytest.importorskip("pymc")

# As in test_compile_density: the constant to single precision, what varies to full precision.
CONSTANT = 1e-7
VARIES = 1e-10
TABLE = pd.DataFrame(
    {
        "u": list("abcdefg"), "y": [3, 0, 9, 1, 4, 8, 0], "E": [2.0, 1.5, 3, 4, 2, 5, 0], "n": [9, 8, 12, 14, 14, 9, 0],
        "x": [-1.0, 0.2, 0.5, -0.4, 1, 0.1, 0.7], "o": [0.1, -0.3, 0.2, 0, 0.3, -0.1, 0],
    }
)  # fmt: skip
SAMPLING = {"poisson": hl.PoissonSampling("E"), "binomial": hl.BinomialSampling("n")}
FORMULAS = ("y ~ 1", "y ~ x + offset(o)", "y ~ 0 + offset(o)")
PRIORS = ("", "flat_variance", "fixed=normal(0.2, 2); sd=halft(3, 1)", "sd=uniform(2)")


def spec_of(formula: str, family: str) -> hl.CompoundSpec:
    """A spec of the table."""
    return hl.compound(formula, unit="u", sampling=SAMPLING[family], unsampled="synthetic")


def texts(priors: str) -> list[str]:
    """The prior texts in a line."""
    return [text.strip() for text in priors.split(";") if text.strip()]


def marginal_density(target: CompoundTarget) -> Callable[[dict[str, Any]], float]:
    """Our own log density of β and tau, without the change to log tau."""

    def own(values: dict[str, Any]) -> float:
        log_tau = np.log(values["tau"]).reshape(1)
        beta = values.get("beta", np.zeros(0)).reshape(1, -1)
        return float((target.log_likelihood(beta, log_tau) + target.priors.log_density(beta, log_tau) - log_tau)[0])

    return own


def hierarchical_density(design: CompoundDesign, priors: CompoundPriors) -> Callable[[dict[str, Any]], float]:
    """The log density of β, tau and θ by scipy's own densities."""
    target, into = CompoundTarget.of(design, priors), design.sampled
    X, offset, y, size = design.X[into], design.offset[into], design.y[into], design.size[into]

    def own(values: dict[str, Any]) -> float:
        beta, tau, theta = values.get("beta", np.zeros(0)), float(values["tau"]), values["theta"]
        eta = X @ beta + offset
        if target.data.family == "poisson":
            mu = np.exp(eta)
            units = stats.gamma.logpdf(theta, tau**-2, scale=mu * tau**2) + stats.poisson.logpmf(y, size * theta)
        else:
            mu = 1 / (1 + np.exp(-eta))
            units = stats.beta.logpdf(theta, mu / tau**2, (1 - mu) / tau**2) + stats.binom.logpmf(y, size, theta)
        return float(units.sum() + priors.log_density(beta[None], np.log([tau]))[0] - np.log(tau))

    return own


@pytest.mark.parametrize("priors", PRIORS)
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("family", SAMPLING)
@pytest.mark.parametrize("form", ["hierarchical", "marginal"])
def test_a_compiled_model_has_our_density(family: str, formula: str, priors: str, form: str) -> None:
    """The marginal form against the marginal likelihood, the other against scipy's densities of every unit."""
    spec = spec_of(formula, family)
    if formula == "y ~ 0 + offset(o)" and "fixed" in priors:
        priors = "sd=halft(3, 1)"
    design = build_compound(spec, TABLE)
    resolved = resolve_compound(priors_from(texts(priors)), design)
    own = (
        marginal_density(CompoundTarget.of(design, resolved)) if form == "marginal"
        else hierarchical_density(design, resolved)
    )  # fmt: skip

    pairs = differences(hl.to_pymc(spec, TABLE, priors=texts(priors), form=form), own, points=20)  # type: ignore[arg-type]

    difference = pairs[:, 0] - pairs[:, 1]
    assert np.isfinite(pairs).all()
    assert np.ptp(difference) < VARIES * max(1.0, np.abs(pairs).max())
    assert abs(difference.mean()) < CONSTANT


def test_normal_sampling_compiles_to_the_area_level_model() -> None:
    """The same variables and the same density."""
    case = hl.load("baseball")
    data = case.data.assign(D=case.spec.known)
    area = hl.to_pymc(hl.fay_herriot("average ~ 1", sampling_variance="D", area="player"), data)
    model = hl.to_pymc(case.spec, case.data)

    start = area.initial_point()
    assert list(start) == list(model.initial_point())
    assert float(model.compile_logp()(start)) == float(area.compile_logp()(start))


def test_names_dimensions_and_data_are_those_stated() -> None:
    """Units without observations are left out; data may be replaced; what is not a form is refused."""
    model = hl.to_pymc(spec_of("y ~ x", "poisson"), TABLE)

    assert model.coords["unit"] == tuple("abcdef")
    assert model.coords["term"] == ("Intercept", "x")
    assert {v.name for v in model.free_RVs} == {"beta", "tau", "theta"}
    assert {"X", "offset", "exposure", "y_observed"} == {v.name for v in model.data_vars} - {"y"}
    assert model.parametrisation == {"u": "centred"}
    with pytest.raises(SpecError, match="'hierarchical' or 'marginal'"):
        hl.to_pymc(spec_of("y ~ x", "poisson"), TABLE, form="centred")  # type: ignore[arg-type]


def test_counts_are_drawn_from_proper_priors() -> None:
    """Prior predictive means by the law of total expectation; flat priors have none and say so."""
    spec = spec_of("y ~ 1", "binomial")
    tree = hl.prior_predictive(spec, TABLE, priors="sd=halfnormal(1)", draws=4000, seed=3)

    drawn = tree["prior_predictive"]["y"].values[0]
    share = drawn / TABLE["n"].to_numpy()[:6]
    assert share.mean(axis=0) == pytest.approx(np.full(6, 0.5), abs=4 * 0.5 / np.sqrt(4000))
    mu = 1 / (1 + np.exp(-tree["prior"]["beta"].values[0, :, 0]))
    assert stats.kstest(mu, "uniform").pvalue > 0.001
    for which, missing in ((spec, "sd\\(u\\)"), (spec_of("y ~ 1", "poisson"), "Intercept, sd\\(u\\)")):
        with pytest.raises(PriorError, match=missing):
            hl.prior_predictive(which, TABLE)


@pytest.mark.nuts
@pytest.mark.parametrize("form", ["hierarchical", "marginal"])
@pytest.mark.parametrize("family", SAMPLING)
def test_nuts_agrees_with_the_exact_posterior(family: str, form: Any) -> None:
    """Units far apart, so that tau stays away from zero in either form: means within four Monte Carlo standard errors;
    the units' parameters are drawn afterwards in the marginal form."""
    far = {"poisson": [6, 1, 60, 2, 9, 90, 0], "binomial": [8, 1, 11, 2, 13, 1, 0]}
    spec, data = spec_of("y ~ 1", family), TABLE.assign(y=far[family])
    priors = ["fixed=normal(0, 1)", "sd=halfnormal(1)"]
    exact = hl.posterior(spec, data, priors=priors, draws=0, seed=1)
    options = NutsOptions(draws=500, tune=500, chains=2, cores=1, retries=0, form=form)
    post = hl.posterior(spec, data, priors=priors, engine="nuts", seed=5, nuts=options)

    assert post.engine == "nuts"
    for ours, theirs in ((post.units, exact.units), (post.hyperparameters, exact.hyperparameters)):
        known = theirs["estimate"].notna() & ours["mcse"].notna()
        gap = np.abs(ours["estimate"] - theirs["estimate"])[known] / ours["mcse"][known]
        assert gap.max() < 4
    assert any("integrated out" in note for note in post.notes) == (form == "marginal")
    assert post.draws["posterior"]["theta"].shape == (2, 500, 7)
    unit = post.units.set_index("unit").loc["c"]
    assert post.posterior_of("c").mean == pytest.approx(unit["estimate"], abs=4 * unit["mcse"])
