"""Propriety of mixed-model posteriors: published rules, and the slopes of the likelihood itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bayes_cases import factor, intercept_design, lmm_design, slopes_design

from hierlmm.bayes import priors as hp
from hierlmm.bayes.density import target
from hierlmm.bayes.proprietylmm import lmm_propriety
from hierlmm.bayes.ranks import joint_rank, one_factor_rank
from hierlmm.errors import PriorError
from hierlmm.likelihood.marginal import restricted_loglik

RNG = np.random.default_rng(20261121)


def one_way(J, n=4):
    return intercept_design(RNG.normal(size=J * n), np.repeat(np.arange(J), n))


def growth(J, n=5, group_level=False, blocks=((0, 1),)):
    g, x = np.repeat(np.arange(J), n), np.tile(np.linspace(-1, 1, n), J)
    y = RNG.normal(size=J * n) + x
    if not group_level:
        return slopes_design(y, x, g, blocks=blocks)
    z = (np.arange(J) % 3)[g].astype(float)
    X = np.column_stack([np.ones(J * n), x, z, x * z])
    Z = X[:, :2]
    return lmm_design(y, X, ("Intercept", "x", "z", "x:z"), [factor("g", g, Z, ("Intercept", "x"), blocks)])


def crossed(a=5, b=4):
    i, j = np.repeat(np.arange(a), b), np.tile(np.arange(b), a)
    one = np.ones((a * b, 1))
    factors = [factor(name, codes, one, ("Intercept",), ((0,),)) for name, codes in (("a", i), ("b", j))]
    return lmm_design(RNG.normal(size=a * b), one, ("Intercept",), factors)


def is_proper(design, priors):
    try:
        lmm_propriety(design, priors.resolve(design))
    except PriorError:
        return False
    return True


FLAT_SD = hp.Priors(preset="flat_sd", residual=hp.HalfNormal(1))
FLAT_VARIANCE = hp.Priors(preset="flat_variance", residual=hp.HalfNormal(1))


@pytest.mark.parametrize(
    ("J", "sd", "variance"), [(2, False, False), (3, True, False), (4, True, True), (9, True, True)]
)
def test_one_mean_needs_three_groups_for_a_flat_sd_and_four_for_a_flat_variance(J, sd, variance):
    """PRIORS 2 (Gelman 2006; Hobert & Casella 1996)."""
    assert is_proper(one_way(J), FLAT_SD) is sd
    assert is_proper(one_way(J), FLAT_VARIANCE) is variance


def test_one_over_the_variance_is_always_improper_for_effects_and_fine_for_the_residual():
    """Hobert & Casella 1996: a_i = 0 is improper whatever the data; a_e = 0 is the usual reference prior."""
    design = one_way(30)

    with pytest.raises(PriorError, match="whatever the data"):
        lmm_propriety(design, hp.Priors(sd=hp.Flat("log")).resolve(design))
    assert is_proper(design, hp.Priors(residual=hp.Flat("log")))


@pytest.mark.parametrize(("group_level", "k"), [(False, 1), (True, 2)])
def test_a_flat_two_by_two_covariance_needs_more_than_four_groups_beyond_its_predictors(group_level, k):
    """THEORY 5: flat on a q x q G needs J - k > 2q, k group-level predictors per coefficient; here q = 2."""
    for J in range(5, 9):
        assert is_proper(growth(J, group_level=group_level), FLAT_VARIANCE) is (J - k > 4)


def test_flat_sds_with_uniform_correlation_and_independent_slopes_follow_their_own_counts():
    """Two flat sds growing along one direction gain 2 and lose 2η = 2 to the correlation: J - 1 > 1 decides."""
    assert not is_proper(growth(2), FLAT_SD)
    assert is_proper(growth(3), FLAT_SD)
    assert not is_proper(growth(2, blocks=((0,), (1,))), FLAT_SD)
    assert is_proper(growth(3, blocks=((0,), (1,))), FLAT_SD)


@pytest.mark.parametrize(
    ("exponent", "proper"), [(-1, False), (0, True), (1, True)], ids=["1/variance", "flat sd", "flat variance"]
)
def test_crossed_factors_satisfy_the_sufficient_conditions_of_sun_tsutakawa_and_he(exponent, proper):
    """Statistica Sinica 11:77 (2001): a_i < 0, q_i + 2 a_i > q - t, n + 2 a_e + 2 Σ a_i > p with t = q - 2 here."""
    design = crossed(6, 5)
    prior = {-1: hp.Flat("log"), 0: hp.Flat("sd"), 1: hp.Flat("variance")}[exponent]
    a = -(exponent + 1) / 2
    q, t = 11, 9
    sufficient = a < 0 and all(size + 2 * a > q - t for size in (6, 5)) and 30 - 1 + 4 * a > 1

    assert sufficient is proper
    assert is_proper(design, hp.Priors(sd=prior, residual=hp.Flat("sd"))) is proper


@pytest.mark.parametrize(
    "design", [one_way(5), growth(6), growth(7, group_level=True)], ids=["one-way", "slopes", "group-level"]
)
def test_contrasts_lost_are_the_slope_of_the_restricted_likelihood(design):
    """ℓ(s) ~ -t log s for s -> infinity along one or both coefficients: the likelihood itself, at s and 2s."""
    of = target(design, hp.Priors().resolve(design))
    f = design.factors[0]
    q = len(f.coefficients)
    directions = [np.eye(q)[k][:, None] for k in range(q)] + [np.eye(q)]

    for direction in directions:
        s = 3e3
        G = np.stack([(r**2) * direction @ direction.T + 0.01 * np.eye(q) for r in (s, 2 * s)])
        low, high = restricted_loglik(of.cp, [G], np.ones(2))
        slope = (high - low) / math.log(2)
        assert one_factor_rank(f, f.Z @ direction, design.X) == pytest.approx(-slope, abs=1e-3)


def test_joint_rank_of_crossed_factors_is_that_of_the_design_matrix():
    """Crossed a x b with one mean: (a - 1) + (b - 1)."""
    design = crossed(5, 4)

    assert joint_rank(design.factors, [f.Z for f in design.factors], design.X) == 7
    assert one_factor_rank(design.factors[0], design.factors[0].Z, design.X) == 4


def test_a_proper_prior_of_a_coefficient_gives_its_contrast_back():
    """A normal prior of the mean: two groups suffice for a flat sd (ν = J instead of J - 1)."""
    assert not is_proper(one_way(2), FLAT_SD)
    assert is_proper(one_way(2), hp.Priors(preset="flat_sd", fixed=hp.Normal(0, 1), residual=hp.HalfNormal(1)))


@pytest.mark.parametrize(("J", "mean", "second"), [(3, False, False), (4, True, False), (5, True, True)])
def test_moments_of_the_sd_exist_below_the_margin(J, mean, second):
    """E[sd^k] exists iff 1 + k < J - 1 under a flat sd; the same for |β|^k."""
    design = one_way(J)
    found = lmm_propriety(design, FLAT_SD.resolve(design))

    assert (found.sd["g:Intercept"] > 1, found.sd["g:Intercept"] > 2) == (mean, second)
    assert (found.fixed["Intercept"] > 1, found.fixed["Intercept"] > 2) == (mean, second)
    assert bool(found.missing()) is (J < 7)


def test_a_flat_residual_needs_enough_rows():
    """n - p contrasts against the flat residual and everything that grows with it: n + 2a_e + 2Σa_i > p."""
    y, g = [0.1, 1.2, -0.3, 0.5, 0.9], list("aabbc")
    design = intercept_design(y, g)

    assert is_proper(design, hp.Priors(preset="flat_sd"))
    assert not is_proper(design, hp.Priors(sd=hp.HalfNormal(1), residual=hp.Flat("covariance", 3)))


def test_default_priors_are_always_proper_and_cost_no_ranks():
    """Half-t with 4 df: every moment below the fourth of every sd exists whatever the design."""
    for design in (one_way(2), growth(2), crossed(2, 2)):
        found = lmm_propriety(design, hp.Priors().resolve(design))
        assert min(found.sd.values()) >= 4


def test_the_message_names_the_growing_sds_and_what_to_do():
    """STYLE 21: rule, what was found, where, what to do."""
    design = one_way(3)

    with pytest.raises(PriorError, match=r"g:Intercept ~ flat\(variance\).*3 levels of g.*Use proper priors"):
        lmm_propriety(design, FLAT_VARIANCE.resolve(design))
