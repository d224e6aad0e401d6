"""Two ways to write one model, on random tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from identity_cases import EXACT, METHODS, assert_close, assert_same_model, assert_same_variances, checked, tables

import hierlmm as hl

RESIDUALS = {
    "cs": hl.CompoundSymmetry("g"),
    "ar1": hl.AR1("g", "t"),
    "arh1": hl.HeterogeneousAR1("g", "t"),
    "car1": hl.ContinuousAR1("g", "t"),
    "strata": hl.Stratified("f"),
}


def nested(data: pd.DataFrame) -> pd.DataFrame:
    """`a` the district of a group and `b` its number there, used again in every district."""
    number = data["g"].str[1:].astype(int)
    return data.assign(a="d" + (number // 3).astype(str), b="s" + (number % 3).astype(str))


@given(data=tables(), method=METHODS)
@checked(20)
def test_nesting_is_an_interaction_of_groups(data, method):
    """(1 | a/b) = (1 | a) + (1 | a:b), and with unique names for the inner groups (1 | a) + (1 | g)."""
    data = nested(data)
    one = hl.fit(hl.lmm("y ~ x + (1 | a/b)"), data, method)
    two = hl.fit(hl.lmm("y ~ x + (1 | a) + (1 | a:b)"), data, method)
    names = hl.fit(hl.lmm("y ~ x + (1 | a) + (1 | g)"), data, method)

    for other in (two, names):
        assert_same_model(one, other)
        assert_same_variances(one, other)
        for b, c in zip(one.b, other.b, strict=True):
            assert_close(c, b, 1.0)


@given(data=tables(), method=METHODS)
@checked(20)
def test_double_bars_are_terms_of_their_own(data, method):
    """(x || g) = (1 | g) + (0 + x | g) = (1 | g) + diag(0 + x | g)."""
    one = hl.fit(hl.lmm("y ~ x + (x || g)"), data, method)

    for random in ("(1 | g) + (0 + x | g)", "(1 | g) + diag(0 + x | g)", "diag(1 + x | g)"):
        other = hl.fit(hl.lmm(f"y ~ x + {random}"), data, method)
        assert_same_model(one, other)
        assert_same_variances(one, other)


@given(data=tables(balanced=True), method=METHODS)
@checked(12)
def test_indicators_and_contrasts_of_a_factor_are_one_model(data, method):
    """(0 + k | g) = (k | g) for a factor k: G = C G C', C from contrasts to indicators."""
    data = data.assign(k=np.where(data["x"] > np.median(data["x"]), "hi", "lo"))
    indicators = hl.fit(hl.lmm("y ~ x + (0 + k | g)"), data, method)
    contrasts = hl.fit(hl.lmm("y ~ x + (k | g)"), data, method)
    C = np.array([[1.0, 0.0], [1.0, 1.0]])

    assert_same_model(indicators, contrasts)
    assert_close(C @ contrasts.G[0] @ C.T, indicators.G[0], np.diagonal(indicators.G[0]).max() + indicators.sigma2)
    assert_close(contrasts.b[0] @ C.T, indicators.b[0], np.std(data["y"]))


@given(data=tables(), method=METHODS, random=st.sampled_from(["us", "diag"]))
@checked(12)
def test_structures_of_one_coefficient_are_one(data, method, random):
    """A single coefficient has one variance, whatever its covariance is called."""
    plain = hl.fit(hl.lmm("y ~ x + (0 + z | g)"), data, method)
    other = hl.fit(hl.lmm(f"y ~ x + {random}(0 + z | g)"), data, method)

    assert_same_model(plain, other)
    assert_same_variances(plain, other)


@given(data=tables(), method=METHODS)
@checked(15)
def test_between_and_within_are_a_contextual_effect(data, method):
    """b_w within + b_b between = b_w x + (b_b - b_w) between (Mundlak 1978, Econometrica 46:69-85)."""
    one = hl.fit(hl.lmm("y ~ within(x, g) + between(x, g) + (1 | g)"), data, method)
    other = hl.fit(hl.lmm("y ~ x + between(x, g) + (1 | g)"), data, method)

    assert_same_variances(one, other)
    assert_close(one.objective, other.objective, 1.0)
    assert_close(one.beta[1:], [other.beta[1], other.beta[1] + other.beta[2]], 1.0)


@given(data=tables(), method=METHODS)
@checked(20)
def test_compound_symmetry_is_a_random_intercept_or_better(data, method):
    """The same criterion where the correlation is not negative, sigma² the sum of both; a smaller one else."""
    cs = hl.fit(hl.lmm("y ~ x", residual=RESIDUALS["cs"]), data, method)
    random = hl.fit(hl.lmm("y ~ x + (1 | g)"), data, method)

    if random.G[0].item() > 0:
        assert_close(cs.objective, random.objective, 1.0)
        assert_close(cs.beta, random.beta, 1.0)
        assert_close(cs.vcov_beta, random.vcov_beta, np.diagonal(random.vcov_beta).max())
        assert_close(cs.sigma2, random.sigma2 + random.G[0].item())
    else:
        assert cs.objective <= random.objective + EXACT * len(data)


@given(data=tables(), method=METHODS, name=st.sampled_from(sorted(RESIDUALS)), seed=st.integers(0, 2**32 - 1))
@checked(8)
def test_order_of_rows_does_not_matter_to_residual_structures(data, method, name, seed):
    """Rows permuted, positions in a column: the same fit, where the optimum is inside the structure's space."""
    data = data.assign(t=data.groupby("g").cumcount())
    spec = hl.lmm("y ~ x", residual=RESIDUALS[name])
    one = hl.fit(spec, data, method)
    assume(one.certificate.certified)
    other = hl.fit(spec, data.sample(frac=1, random_state=seed), method)

    assert_close(other.objective, one.objective, 1.0)
    assert_close(other.sigma2, one.sigma2)
    assert_close(other.beta, one.beta, 1.0)
    assert_close(other.phi, one.phi, 1.0)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_unstructured_over_two_occasions_is_the_paired_comparison(method):
    """Complete pairs with a mean for each occasion: R is the covariance matrix of the pairs, divisor m - 1 or m.

    And the standard error of the difference of the means is that of the paired t test (REML).
    """
    rng = np.random.default_rng(8)
    pairs = rng.multivariate_normal([1, 3], [[2.0, -1.2], [-1.2, 1.0]], size=15)
    data = pd.DataFrame({"g": np.repeat(np.arange(15), 2), "t": np.tile([0, 1], 15), "y": pairs.ravel()})
    fit = hl.fit(hl.lmm("y ~ C(t)", residual=hl.Unstructured("g", "t")), data, method)
    S = np.cov(pairs.T, ddof=1 if method == "reml" else 0)

    assert_close(fit.marginal_covariance(3), S, S.max())
    assert_close(fit.beta, [pairs[:, 0].mean(), (pairs[:, 1] - pairs[:, 0]).mean()], 1.0)
    difference = pairs[:, 1] - pairs[:, 0]
    assert_close(fit.vcov_beta[1, 1], difference.var(ddof=1 if method == "reml" else 0) / 15)
