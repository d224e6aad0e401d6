"""Seeds, counts, processes and paths that are none are refused with their name, wherever they are given."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.frequentist.bootstrap.arguments import check_count, check_jobs, check_seed, generator_of
from hierlmm.frequentist.diagnostics.envelope import effect_envelope

WRONG_SEEDS = ["a", -1, 1.5, None, True, [1]]


@pytest.fixture(scope="module")
def dyestuff() -> hl.LMMFit:
    return hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)


@pytest.fixture(scope="module")
def milk():
    case = hl.load("milk")
    return hl.fit(case.spec, case.data)


@pytest.mark.parametrize("seed", WRONG_SEEDS)
def test_a_seed_is_a_whole_number_everywhere(dyestuff, milk, seed):
    for call in (
        lambda: dyestuff.bootstrap(draws=2, seed=seed),
        lambda: dyestuff.simulate(1, seed=seed),
        lambda: milk.simulate(1, seed=seed),
        lambda: dyestuff.test_component("Batch", seed=seed),
        lambda: effect_envelope(dyestuff, seed=seed),
        lambda: hl.simulate_type1(draws=10, seed=seed),
        lambda: hl.neyman_scott(5, 1.0, seed),
    ):
        with pytest.raises(hl.FitError, match=r"`seed` is a whole number.*found"):
            call()


@pytest.mark.parametrize("draws", ["a", 0, 2.5, None, True])
def test_a_number_of_draws_is_a_whole_number_everywhere(dyestuff, milk, draws):
    for call in (
        lambda: dyestuff.bootstrap(draws=draws, seed=1),
        lambda: dyestuff.simulate(draws, seed=1),
        lambda: milk.simulate(draws, seed=1),
    ):
        with pytest.raises(hl.FitError, match=r"`draws` is a whole number of .*, 1 or more; found"):
            call()


def test_component_tests_refuse_counts_that_are_none(dyestuff):
    with pytest.raises(hl.FitError, match="`draws` is a whole number of draws; found 'a'"):
        dyestuff.test_component("Batch", draws="a")
    with pytest.raises(hl.FitError, match=r"`bootstrap` is a whole number of replicates; found 2.5"):
        dyestuff.test_component("Batch", bootstrap=2.5)


@pytest.mark.parametrize("jobs", [0, "a", 1.5, None])
def test_a_number_of_processes_is_not_zero(dyestuff, jobs):
    with pytest.raises(hl.FitError, match="`jobs` is a whole number of processes"):
        dyestuff.bootstrap(draws=2, seed=1, jobs=jobs)
    with pytest.raises(hl.FitError, match="`jobs` is a whole number of processes"):
        dyestuff.refits(np.ones((30, 2)), jobs=jobs)


def test_the_number_of_an_open_file_is_no_path(dyestuff):
    with pytest.raises(hl.FitError, match=r"`path` is the name of a file.*found 3"):
        dyestuff.bootstrap(draws=2, seed=1, path=3)


@pytest.mark.parametrize("arguments", [{"icc": "a"}, {"group_size": "a"}, {"groups": "a"}, {"draws": "a"},
                                       {"level": "a"}, {"group_size": np.inf}, {"draws": None}])  # fmt: skip
def test_text_is_no_number_of_a_simulation(arguments):
    with pytest.raises(hl.SpecError, match=f"`{next(iter(arguments))}` is .*found"):
        hl.simulate_type1(**arguments, seed=1)


def test_text_is_no_number_of_pairs_and_no_matrix():
    with pytest.raises(hl.DesignError, match=r"number of pairs.*found 'a'"):
        hl.neyman_scott("a", 1.0, 1)
    with pytest.raises(hl.DesignError, match=r"standard deviation.*found 'a'"):
        hl.neyman_scott(5, "a", 1)
    with pytest.raises(hl.DesignError, match="X must be an array of numbers"):
        hl.error_contrasts([["a"], ["b"]])
    with pytest.raises(hl.FitError, match=r"`seed` is a whole number.*found 'a'"):
        hl.error_contrasts(np.ones((5, 1)), seed="a")


def test_what_numpy_counts_with_is_accepted():
    rng = np.random.default_rng(1)

    check_seed(np.int64(0))
    check_count("draws", np.int32(1), "draws")
    check_jobs(-1)

    assert generator_of(rng) is rng
    assert generator_of(4).random() == np.random.default_rng(4).random()


def test_one_replicate_prints_no_standard_error(dyestuff):
    text = str(dyestuff.bootstrap(draws=1, seed=1))

    assert "nan" not in text
    assert "One replicate has no standard error" in text
    assert text.splitlines()[3].split()[-1] == "-"
    assert "no standard error" not in str(dyestuff.bootstrap(draws=2, seed=1))
