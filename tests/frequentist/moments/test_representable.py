"""Representable: a fit is judged by the random effects of its own group, a matrix by a random intercept alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl


@pytest.mark.parametrize("method", ["reml", "minque"])
def test_a_fit_with_random_slopes_is_judged_by_its_own_columns(method):
    """Sleepstudy: the decomposition of V has the G and the residual variance of the fit."""
    table = hl.load("sleepstudy").data
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table, method=method)

    result = hl.representable(fit)

    assert result.possible
    assert repr(result).startswith("REPRESENTABLE: random effects")
    assert_allclose(result.Z, np.column_stack([np.ones(10), np.arange(10)]))
    assert_allclose(result.G, fit.G[0], rtol=1e-8)
    assert_allclose(result.sigma2, fit.sigma2, rtol=1e-10)


def test_the_headline_says_where_only_an_intercept_is_considered():
    """The same covariance as a matrix, or with Z = 1, is no random intercept's."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data)
    V = hl.representable(fit).V

    for result in (hl.representable(V), hl.representable(fit, np.ones((10, 1)))):
        assert not result.possible
        assert repr(result).startswith("NOT REPRESENTABLE by a random intercept alone: V is no sum")
    assert repr(hl.representable(np.eye(3))).startswith("REPRESENTABLE by a random intercept alone:")


def test_columns_that_depend_on_one_another_in_a_group_are_taken_as_their_span():
    """A level-two slope is constant within the group: rank one of two columns."""
    table = hl.load("sleepstudy").data
    table = table.assign(w=table["Subject"].astype("category").cat.codes % 3 + 1.0)

    result = hl.representable(hl.fit(hl.lmm("Reaction ~ Days + (w | Subject)"), table))

    assert result.possible
    assert result.Z.shape == (10, 1)
