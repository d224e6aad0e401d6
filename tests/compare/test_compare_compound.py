"""Comparisons of compound models: steps that add up, each end computed independently, verdicts, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.compare import Agreement, compare
from hierlmm.compare.attribute import STEPS
from hierlmm.errors import ComparisonError

RATES = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"))
TABLE = pd.DataFrame({"u": list("abcdef"), "y": [3, 0, 9, 1, 4, 12], "E": [2.0, 1.5, 3, 4, 2, 5]})


def pair(name: str, method: str | None = None, priors: object = ()) -> hl.CompoundComparison:
    """Fit and exact posterior of a catalogue model, compared."""
    case = hl.load(name)
    fit = hl.fit(case.spec, case.data, method)
    return compare(fit, hl.posterior(case.spec, case.data, priors=priors, draws=0, seed=1))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lip() -> hl.CompoundComparison:
    """Moments against a posterior with proper priors: no step is zero."""
    return pair("lip-cancer", "moments", ["fixed=normal(0, 1)", "sd=halfnormal(0.5)"])


@pytest.fixture(scope="module")
def baseball() -> hl.CompoundComparison:
    """The default of both."""
    return pair("baseball/hits")


@pytest.fixture(scope="module")
def normal() -> hl.CompoundComparison:
    """James and Stein against the area-level posterior."""
    return pair("baseball", "james_stein")


@pytest.mark.parametrize("name", ["lip", "baseball", "normal"])
def test_steps_add_up_to_the_whole_difference(name: str, request: pytest.FixtureRequest) -> None:
    """start + steps = end to rounding; table, fit and posterior say the same."""
    found = request.getfixturevalue(name)
    frame = found.attribution

    assert_allclose(frame["start"] + frame[list(STEPS)].sum(axis=1), frame["end"], rtol=1e-12)
    assert_allclose(frame["start"], found.fit.estimate)
    assert_allclose(frame["end"], found.posterior.units["estimate"])
    assert_allclose(found.table["difference"], frame["end"] - frame["start"], rtol=1e-9)
    assert_allclose(found.table["in_sd"] * found.table["sd"], found.table["difference"], rtol=1e-9)


def test_every_step_ends_where_its_model_does(lip: hl.CompoundComparison) -> None:
    """Maximum likelihood; flat priors of coefficients and tau²; the user's tau; the user's priors."""
    case = hl.load("lip-cancer")
    ends = [hl.fit(case.spec, case.data, "ml").estimate]
    for priors in (["flat_variance", "fixed=flat"], ["fixed=flat", "sd=halfnormal(0.5)"]):
        ends.append(hl.posterior(case.spec, case.data, priors=priors, draws=0, seed=2).units["estimate"].to_numpy())
    frame = lip.attribution
    reached = frame["start"].to_numpy()

    for step, end in zip(STEPS[:3], ends, strict=True):
        reached = reached + frame[step].to_numpy()
        assert_allclose(reached, end, rtol=1e-10)
    assert (frame["monte_carlo"] == 0).all()
    assert (frame[list(STEPS[:4])].abs().max() > 0).all()


def test_a_normal_model_goes_by_way_of_reml(normal: hl.CompoundComparison) -> None:
    """James-Stein -> REML (Fay-Herriot) -> flat A -> flat sd, the default."""
    case = hl.load("baseball")
    frame = normal.attribution

    assert_allclose(frame["start"] + frame["estimator"], hl.fit(case.spec, case.data, "reml").estimate, rtol=1e-10)
    assert (frame["fixed_prior"] == 0).all()
    assert frame["variance_prior"].abs().max() > 0


@pytest.mark.parametrize("name", ["lip", "baseball", "normal"])
def test_variances_are_split_on_both_sides(name: str, request: pytest.FixtureRequest) -> None:
    """E Var + Var E is the posterior variance; the fit's parts are its variance."""
    found = request.getfixturevalue(name)
    parts = found.variance

    assert_allclose(parts["posterior_conditional"] + parts["posterior_added"], found.table["sd"] ** 2, rtol=1e-8)
    assert_allclose(parts["conditional"] + parts["added"], found.table["se"] ** 2, rtol=1e-12)


def test_a_step_without_a_posterior_is_merged_and_said() -> None:
    """Two units with a count: flat on tau² is improper, so averaging and the prior of tau are one step."""
    data = TABLE.head(4).assign(y=[3, 0, 9, 0])
    found = compare(hl.fit(RATES, data), hl.posterior(RATES, data, priors="sd=halfnormal(1)", draws=0, seed=1))
    frame = found.attribution

    assert "'averaging' is merged with the next" in found.merged
    assert "at least 3 units" in found.merged
    assert_allclose(frame["start"] + frame[list(STEPS)].sum(axis=1), frame["end"], rtol=1e-12)
    assert (frame["averaging"] == 0).all()


def test_a_fit_on_the_boundary_is_explained() -> None:
    """Counts like Poisson ones: the fit pools completely, the posterior does not, and the finding says why."""
    data = TABLE.assign(y=[4, 3, 6, 8, 4, 10])
    fit = hl.fit(RATES, data)
    found = compare(fit, hl.posterior(RATES, data, draws=0, seed=1))

    assert found.findings[0] == fit.outcome.value
    assert found.agreement in (Agreement.CLOSE, Agreement.EXPLAINED)
    assert (found.variance["conditional"] == 0).all()
    assert (found.variance["posterior_conditional"] > 0).all()


def test_only_one_spec_and_table_is_compared(baseball: hl.CompoundComparison) -> None:
    """Another table, another spec, another kind of model."""
    fit, other = hl.fit(RATES, TABLE), TABLE.assign(E=TABLE["E"] * 2)
    with pytest.raises(ComparisonError, match="variances, exposures or trials"):
        compare(fit, hl.posterior(RATES, other, draws=0, seed=1))
    with pytest.raises(ComparisonError, match="differ in"):
        compare(fit, baseball.posterior)
    milk = hl.load("milk")
    with pytest.raises(ComparisonError):
        compare(fit, hl.posterior(milk.spec, milk.data, draws=0, seed=1))
    with pytest.raises(ComparisonError):
        compare(hl.fit(milk.spec, milk.data), baseball.posterior)


@pytest.mark.parametrize("name", ["lip", "baseball", "normal"])
def test_a_comparison_is_printed_on_eighty_columns(name: str, request: pytest.FixtureRequest) -> None:
    """Verdict first, then the model, the findings and the largest steps."""
    found = request.getfixturevalue(name)
    text = found.summary()

    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(found.agreement.value[:40])
    assert "From the estimate to the posterior mean" in text
    assert repr(found) == text


def test_draws_that_contradict_the_exact_posterior_are_found(baseball: hl.CompoundComparison) -> None:
    """A sample shifted by a sd: the Monte Carlo step gives it away."""
    post = baseball.posterior
    theta = replace(post.theta, estimate=post.theta.estimate + post.theta.se, mcse=0.01 * post.theta.se)
    found = compare(baseball.fit, replace(post, engine="nuts", theta=theta))

    assert found.agreement is Agreement.SAMPLER
    assert_allclose(found.attribution["monte_carlo"], post.theta.se, rtol=1e-6)
    assert np.isfinite(found.attribution[list(STEPS)]).all(axis=None)
