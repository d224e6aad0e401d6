"""Intervals of units: which error each contains, and how often it covers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import FitError, SpecError
from hierlmm.frequentist.compound.replicates import prior_means
from hierlmm.likelihood.compound.conjugate import posterior

LIP = hl.load("lip-cancer")
BASEBALL = hl.load("baseball")
HITS = BASEBALL.specs["hits"]
KINDS = ("conditional", "corrected", "laird_louis", "carlin_gelfand")


def length(frame: pd.DataFrame) -> np.ndarray:
    return (frame["upper"] - frame["lower"]).to_numpy()


@pytest.fixture(scope="module")
def rates() -> hl.CompoundFit:
    return hl.fit(LIP.spec, LIP.data)


def test_naive_intervals_are_quantiles_at_the_estimated_prior(rates: hl.CompoundFit) -> None:
    """And those of the frames are wider: their variance contains the error of the prior."""
    naive, default = rates.intervals("conditional", 0.9), rates.intervals("corrected", 0.9)

    assert naive[["lower", "upper"]].to_numpy() == pytest.approx(rates.quantile([0.05, 0.95]).iloc[:, 1:].to_numpy())
    assert (default["se"] > naive["se"]).all()
    frame = rates.unit_table(0.9)[["lower", "upper"]].to_numpy()
    assert default[["lower", "upper"]].to_numpy() == pytest.approx(frame, rel=1e-14)


def test_morris_intervals_are_his_whatever_the_method() -> None:
    """θ̂ ± z s of Morris (1983); for normal observations alone."""
    fit, own = (hl.fit(BASEBALL.spec, BASEBALL.data, method) for method in ("reml", "morris"))
    frame = fit.intervals("morris")

    assert frame["estimate"].to_numpy() == pytest.approx(own.estimate)
    assert length(frame) == pytest.approx(2 * 1.959963984540054 * np.sqrt(own.variance))
    with pytest.raises(SpecError, match="for normal sampling; this is poisson"):
        hl.fit(LIP.spec, LIP.data).intervals("morris")


def test_laird_louis_intervals_are_those_of_the_posterior_averaged_over_the_bootstrap(rates: hl.CompoundFit) -> None:
    """At each end the mean over replicates of the conditional distribution function is the tail probability."""
    for resample in ("prior", "units"):
        drawn = rates.bootstrap(60, seed=5, resample=resample)
        frame = rates.intervals("laird_louis", replicates=60, seed=5, resample=resample)
        law = posterior(
            "poisson", rates.design.y, rates.design.size, prior_means(rates, drawn.beta), drawn.dispersion[:, None]
        )
        assert law.cdf(frame["lower"].to_numpy()).mean(axis=0) == pytest.approx(np.full(56, 0.025), abs=1e-9)
        assert law.cdf(frame["upper"].to_numpy()).mean(axis=0) == pytest.approx(np.full(56, 0.975), abs=1e-9)
        assert frame.attrs == {"replicates": 60, "failed": 0, "interrupted": False}


def test_replicates_depend_on_seed_and_number_alone(rates: hl.CompoundFit) -> None:
    """The first 30 of 300 are those of 30, in other batches; another seed gives others."""
    few, many = rates.bootstrap(30, seed=1), rates.bootstrap(300, seed=1)

    assert (few.y == many.y[:30]).all()
    assert few.dispersion == pytest.approx(many.dispersion[:30], rel=1e-9)
    assert not (rates.bootstrap(30, seed=2).y == few.y).all()
    assert list(few.frame.columns) == ["Intercept", "dispersion"]


def test_a_bootstrap_has_the_spread_that_the_information_predicts(rates: hl.CompoundFit) -> None:
    """400 replicates: sds of log μ̂ and φ̂ within 20 % of the inverse information's; the rule's methods, the same way."""
    drawn = rates.bootstrap(400, seed=3)
    predicted = np.sqrt(np.diagonal(rates.covariance))

    assert [drawn.beta[:, 0].std(), drawn.dispersion.std()] == pytest.approx(predicted, rel=0.2)
    for method in ("reml", "positive_part"):
        fit = hl.fit(BASEBALL.spec, BASEBALL.data, method)
        assert fit.bootstrap(100, seed=1).at_zero > 0.2
        assert len(fit.bootstrap(20, seed=1, resample="units")) == 20


def test_failed_replicates_are_counted() -> None:
    """Data drawn with no count at all have no estimate: counted, left out, said."""
    spec = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"))
    fit = hl.fit(spec, pd.DataFrame({"u": range(5), "y": [2, 0, 0, 0, 0], "E": 1.0}))

    drawn = fit.bootstrap(200, seed=1)

    assert drawn.failed > 10
    assert len(drawn) + drawn.failed == drawn.requested == 200


@pytest.mark.parametrize(
    ("sampling", "kinds"),
    [(hl.PoissonSampling("s"), ("conditional", "corrected", "laird_louis")), (hl.BinomialSampling("s"), KINDS[:2])],
)
def test_corrected_intervals_cover_and_naive_ones_do_not(sampling: object, kinds: tuple[str, ...]) -> None:
    """50 data sets of 14 units from the model: coverage over θ and y together, with a Monte Carlo error of about 0.01.
    Naive 95 % intervals miss more than once in ten; corrected ones come nearer, and are wider."""
    rng = np.random.default_rng(12)
    spec = hl.compound("y ~ 1", unit="u", sampling=sampling)  # type: ignore[arg-type]
    hit, wide, sets, m = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0), 50, 14
    for _ in range(sets):
        if isinstance(sampling, hl.PoissonSampling):
            size = rng.gamma(2, 3, m) + 0.5
            theta = rng.gamma(4, 0.3, m)
            y = rng.poisson(size * theta)
        else:
            size = rng.integers(5, 30, m)
            theta = rng.beta(6, 9, m)
            y = rng.binomial(size, theta)
        fit = hl.fit(spec, pd.DataFrame({"u": range(m), "y": y, "s": size}))
        for kind in hit:
            frame = fit.intervals(kind, seed=1, replicates=60)
            hit[kind] += int(((frame["lower"] <= theta) & (theta <= frame["upper"])).sum())
            wide[kind] += length(frame).mean()
    coverage = {kind: count / (sets * m) for kind, count in hit.items()}

    assert coverage["conditional"] < 0.9
    for kind in kinds[1:]:
        assert coverage[kind] > coverage["conditional"] + 0.03
        assert wide[kind] > wide["conditional"]


def test_calibrated_levels_undo_a_known_error(rates: hl.CompoundFit) -> None:
    """Carlin and Gelfand: the levels asked for are the quantiles of how the bootstrap's intervals were hit."""
    drawn = rates.bootstrap(80, seed=2)
    law = posterior("poisson", drawn.y, rates.design.size, prior_means(rates, drawn.beta), drawn.dispersion[:, None])
    levels = np.quantile(law.cdf(drawn.theta), [0.025, 0.975], axis=0)
    frame = rates.intervals("carlin_gelfand", replicates=80, seed=2)

    assert frame["lower"].to_numpy() == pytest.approx(rates.laws().quantile(levels[0]), rel=1e-9)
    assert frame["upper"].to_numpy() == pytest.approx(rates.laws().quantile(levels[1]), rel=1e-9)


def test_what_cannot_be_drawn_is_refused(rates: hl.CompoundFit) -> None:
    """Kinds, levels, seeds and methods, each with what to do."""
    constant = hl.fit(
        hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E")),
        pd.DataFrame({"u": range(6), "y": 5, "E": 1.0}),
    )
    with pytest.raises(FitError, match="`kind` is one of corrected, conditional"):
        rates.intervals("bayes", seed=1)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="need a seed"):
        rates.intervals("laird_louis")
    with pytest.raises(FitError, match="level of an interval"):
        rates.intervals("conditional", 95)
    with pytest.raises(FitError, match="`resample` is one of prior, units"):
        rates.bootstrap(10, seed=1, resample="rows")  # type: ignore[arg-type]
    with pytest.raises(FitError, match="whole number of replicates"):
        rates.bootstrap(0, seed=1)
    with pytest.raises(FitError, match="estimated as 0"):
        constant.intervals("carlin_gelfand", seed=1)
    with pytest.raises(SpecError, match="a rule for the units' estimates"):
        hl.fit(BASEBALL.spec, BASEBALL.data, "morris").bootstrap(10, seed=1)


def test_trials_are_drawn_as_trials() -> None:
    """Binomial replicates have whole counts within their trials, and the same machinery."""
    fit = hl.fit(HITS, BASEBALL.data)
    drawn = fit.bootstrap(40, seed=1)

    assert ((drawn.y >= 0) & (drawn.y <= 45) & (drawn.y == np.round(drawn.y))).all()
    assert ((drawn.theta > 0) & (drawn.theta < 1)).all()
