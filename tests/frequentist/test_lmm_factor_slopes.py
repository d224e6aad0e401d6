"""Random slopes of factors: the criterion of lme4, and one model in two codings."""

import pytest
from numpy.testing import assert_allclose

import hierlmm as hl

# lme4 1.1-31, R 4.2, lmer(frequency ~ attitude + ..., optimizer nloptwrap, xtol_abs = ftol_abs = 1e-10):
# REMLcrit or deviance. Its optimum is known to about 1e-8 above the lowest value that it printed.
LME4 = {
    "(attitude | subject)": {"reml": 803.446281438, "ml": 817.236885610},
    "(0 + attitude | subject)": {"reml": 803.446281429, "ml": 817.236885605},
    "(1 | scenario) + (attitude | subject)": {"reml": 791.893750233, "ml": 805.474770839},
    "(1 | subject:attitude) + (1 | subject)": {"reml": 804.702269734, "ml": 818.505368621},
}


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("random", LME4)
def test_criterion_is_lme4s_at_its_optimum_or_below(random, method):
    """Politeness (Winter & Grawunder 2012): all four optima lie on the boundary."""
    fit = hl.fit(hl.lmm(f"frequency ~ attitude + {random}"), hl.load("politeness").data, method=method)

    assert fit.singular
    assert fit.objective <= LME4[random][method] + 1e-9
    assert_allclose(fit.objective, LME4[random][method], rtol=0, atol=3e-8)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_contrasts_and_indicators_are_one_model(method):
    """(f | g) and (0 + f | g): Z of one is Z of the other times T = [[1, 0], [1, 1]], so is G."""
    data = hl.load("politeness").data
    one, other = (
        hl.fit(hl.lmm(f"frequency ~ attitude + ({inside} | subject)"), data, method=method)
        for inside in ("attitude", "0 + attitude")
    )
    T = [[1.0, 0.0], [1.0, 1.0]]

    assert_allclose(one.objective, other.objective, rtol=1e-12)
    assert_allclose(T @ one.G[0] @ [[1, 1], [0, 1]], other.G[0], rtol=1e-6)
    assert_allclose(one.conditional_fitted, other.conditional_fitted, rtol=1e-8)
