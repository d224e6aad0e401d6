"""Marginal laws: pairs of structures whose relation is known in closed form, and matrices checked entry by entry."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.design import build
from hierlmm.errors import DesignError
from hierlmm.frequentist.moments.law import Law
from hierlmm.frequentist.moments.representable import representable
from hierlmm.frequentist.moments.same_law import Relation, same_marginal_law


@pytest.fixture(scope="module")
def politeness():
    return hl.load("politeness").data


def compared(first, second, data):
    return same_marginal_law(hl.lmm(f"frequency ~ 1 + {first}"), hl.lmm(f"frequency ~ 1 + {second}"), data)


def test_a_random_intercept_is_compound_symmetry_that_is_not_negative():
    """V = tau² J + sigma² I is CS with covariance tau² and variance tau² + sigma²."""
    result = same_marginal_law(
        hl.lmm("Yield ~ 1 + (1 | Batch)"),
        hl.lmm("Yield ~ 1", residual=hl.CompoundSymmetry("Batch")),
        hl.load("dyestuff").data,
    )

    assert result.relation is Relation.SECOND_CONTAINS_FIRST
    assert result.dimensions == (2, 2, 2)
    assert result.restrictions == ("Cov(Residual | Batch) ≥ 0",)
    assert_allclose(result.map, [[1, 1], [1, 0]], atol=1e-12)
    assert any("would need Var(Batch) = -0.25" in text for text in result.evidence)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("(0 + attitude | subject)", "(attitude | subject)"),
        ("identity(0 + attitude | subject)", "(1 | subject:attitude)"),
        ("(1 | subject) + identity(0 + attitude | subject)", "(1 | subject/attitude)"),
        ("(1 | subject) + (1 | scenario)", "(1 | scenario) + (1 | subject)"),
    ],
)
def test_structures_that_are_one_law_written_twice(politeness, first, second):
    result = compared(first, second, politeness)

    assert result.relation is Relation.SAME
    assert result.restrictions == ()
    assert len(set(result.dimensions)) == 1


@pytest.mark.parametrize(
    ("first", "second", "restrictions"),
    [
        (
            "(0 + attitude | subject)",
            "(1 | subject) + (1 | subject:attitude)",
            (
                "Var(attitude[inf] | subject) - Var(attitude[pol] | subject) = 0",
                "Cov(attitude[inf], attitude[pol] | subject) ≥ 0",
            ),
        ),
        ("cs(0 + attitude | subject)", "(1 | subject) + (1 | subject:attitude)", ("Cov(attitude | subject) ≥ 0",)),
        (
            "diag(0 + attitude | subject)",
            "(1 | subject:attitude)",
            ("Var(attitude[inf] | subject) - Var(attitude[pol] | subject) = 0",),
        ),
        ("(1 | subject) + (1 | scenario)", "(1 | subject)", ("Var(scenario) = 0",)),
        (
            "(attitude | subject)",
            "(attitude || subject)",
            (
                "Var(Intercept | subject) + Cov(Intercept, attitude[T.pol] | subject) ≥ 0",
                "Cov(Intercept, attitude[T.pol] | subject) ≤ 0",
                "Cov(Intercept, attitude[T.pol] | subject) + Var(attitude[T.pol] | subject) ≥ 0",
            ),
        ),
    ],
)
def test_a_structure_within_another_comes_with_its_restriction(politeness, first, second, restrictions):
    """With two levels: H11 = H22 = tau² + omega², H12 = tau²; (x || g) has V = tau² J + diag(a, b)."""
    forwards, backwards = compared(first, second, politeness), compared(second, first, politeness)

    assert forwards.relation is Relation.FIRST_CONTAINS_SECOND
    assert backwards.relation is Relation.SECOND_CONTAINS_FIRST
    assert forwards.restrictions == backwards.restrictions == restrictions


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("(0 + attitude | subject)", "(1 | subject) + (1 | subject:attitude)"),
        ("(attitude | subject)", "(attitude || subject)"),
        ("identity(0 + attitude | subject)", "(1 | subject:attitude)"),
    ],
)
def test_the_map_gives_the_same_matrix_of_every_row_with_every_other(politeness, first, second):
    result = compared(first, second, politeness)
    small, large = (
        Law.of(build(hl.lmm(f"frequency ~ 1 + {text}"), politeness))
        for text in ((second, first) if result.relation is Relation.FIRST_CONTAINS_SECOND else (first, second))
    )
    theta = np.random.default_rng(1).uniform(1, 2, len(small.names))

    one = sum(value * D.toarray() for value, D in zip(theta, small.directions, strict=True))
    two = sum(value * D.toarray() for value, D in zip(theta @ result.map.to_numpy(), large.directions, strict=True))

    assert list(result.map.index) == list(small.names)
    assert_allclose(one, two, atol=1e-10)


def test_different_groups_are_different_laws(politeness):
    result = compared("(1 | subject)", "(1 | scenario)", politeness)

    assert result.relation is Relation.DIFFERENT
    assert result.dimensions == (2, 2, 1)
    assert len(result.evidence) == 2
    assert result.map.loc["Var(subject)"].isna().all()
    assert max(map(len, repr(result).splitlines())) <= 80


def test_slopes_that_are_shifted_are_the_same_only_with_a_covariance():
    """Moving the zero of x: (x | g) keeps its law; (x || g) does not."""
    data = hl.load("sleepstudy").data.assign(late=lambda d: d["Days"] - 7)
    general = [hl.lmm(f"Reaction ~ Days + ({x} | Subject)") for x in ("Days", "late")]
    independent = [hl.lmm(f"Reaction ~ Days + ({x} || Subject)") for x in ("Days", "late")]

    assert same_marginal_law(*general, data).relation is Relation.SAME
    assert same_marginal_law(*independent, data).relation is Relation.DIFFERENT
    assert same_marginal_law(general[1], independent[0], data).relation is Relation.FIRST_CONTAINS_SECOND


def test_unstructured_residuals_hold_slopes_but_not_the_reverse():
    sitka = hl.load("sitka").data.assign(occ=lambda d: d.groupby("tree").cumcount())
    slopes = hl.lmm("size ~ Time + (Time | tree)")
    free = hl.lmm("size ~ Time", residual=hl.Unstructured("tree", "occ"))

    result = same_marginal_law(slopes, free, sitka)

    assert result.relation is Relation.SECOND_CONTAINS_FIRST
    assert result.dimensions == (4, 15, 4)


def test_strata_contain_one_variance():
    data = hl.load("politeness").data
    result = same_marginal_law(
        hl.lmm("frequency ~ 1 + (1 | subject)"),
        hl.lmm("frequency ~ 1 + (1 | subject)", residual=hl.Stratified("gender")),
        data,
    )

    assert result.relation is Relation.SECOND_CONTAINS_FIRST
    assert result.restrictions == ("Var(Residual | F) - Var(Residual | M) = 0",)


def test_other_means_are_other_laws(politeness):
    one, two = hl.lmm("frequency ~ attitude + (1 | subject)"), hl.lmm("frequency ~ 0 + attitude + (1 | subject)")

    assert same_marginal_law(one, two, politeness).relation is Relation.SAME
    result = same_marginal_law(one, hl.lmm("frequency ~ 1 + (1 | subject)"), politeness)
    assert result.relation is Relation.DIFFERENT
    assert "different means" in result.evidence[0]


def test_what_cannot_be_compared_is_refused(politeness):
    one = hl.lmm("frequency ~ 1 + (1 | subject)")
    with pytest.raises(DesignError, match="found ModelSpec without data"):
        same_marginal_law(one, one)
    with pytest.raises(DesignError, match="on the same rows"):
        same_marginal_law(build(one, politeness), build(one, politeness.head(40)))
    sitka = hl.load("sitka").data.assign(occ=lambda d: d.groupby("tree").cumcount())
    ar1 = hl.lmm("size ~ 1", residual=hl.AR1("tree", "occ"))
    with pytest.raises(DesignError, match="linear in its parameters"):
        same_marginal_law(ar1, ar1, sitka)
    counted = hl.lmm("frequency ~ 1 + (1 | subject)", weights=hl.Frequency("w"))
    with pytest.raises(DesignError, match="frequency weights"):
        same_marginal_law(counted, counted, politeness.assign(w=1))


def test_a_negative_correlation_comes_from_no_random_intercept():
    """Dyestuff2: rho = -1.3219 / 13.6240 = -0.0970 under compound symmetry, and by analysis of variance."""
    data = hl.load("dyestuff2").data
    symmetric = hl.fit(hl.lmm("Yield ~ 1", residual=hl.CompoundSymmetry("Batch")), data)
    moments = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), data, "anova")

    for fit in (symmetric, moments):
        result = representable(fit)
        assert not result.possible
        assert_allclose(result.correlation, -1.3219127679999998 / (14.9458896 - 1.3219127679999998), rtol=1e-6)
        assert_allclose(result.G, [[-1.3219127679999998]], rtol=1e-6)
        assert_allclose(result.sigma2, 14.9458896, rtol=1e-6)
        assert result.checks["holds"].tolist() == [True, True, False]
        assert "An effect that the rows share" in " ".join(repr(result).split())
    assert representable(hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), data)).possible
    assert representable(hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data, "anova")).possible


def test_a_random_slope_is_found_in_its_matrix():
    Z = np.column_stack([np.ones(5), np.arange(5)])
    G = np.array([[2.0, -0.7], [-0.7, 0.5]])

    result = representable(Z @ G @ Z.T + 0.3 * np.eye(5), Z)

    assert result.possible
    assert_allclose(result.G, G, rtol=1e-9)
    assert_allclose(result.sigma2, 0.3, rtol=1e-9)
    assert not representable(Z @ G @ Z.T + 0.3 * np.eye(5)).possible
    negative = representable(Z @ np.diag([2.0, -0.01]) @ Z.T + 0.3 * np.eye(5), Z)
    assert negative.reason == "the covariance matrix of the random effects would have a negative eigenvalue."


def test_effects_that_differ_within_the_group_give_any_matrix():
    V = np.array([[1.0, -0.4, -0.4], [-0.4, 1.0, -0.4], [-0.4, -0.4, 1.0]])

    assert not representable(V).possible
    result = representable(V, np.eye(3))
    assert result.possible
    assert_allclose(result.G + result.sigma2 * np.eye(3), V, rtol=1e-9, atol=1e-12)


def test_matrices_that_are_none_are_refused(politeness):
    with pytest.raises(DesignError, match="at least 2 rows"):
        representable([[1.0]])
    with pytest.raises(DesignError, match="must be a covariance matrix"):
        representable(np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(DesignError, match="Z must have 2 rows"):
        representable(np.eye(2), np.ones((3, 1)))
    with pytest.raises(DesignError, match="2 grouping factors"):
        representable(hl.fit(hl.lmm("frequency ~ 1 + (1 | subject) + (1 | scenario)"), politeness))
    assert isinstance(representable(np.eye(2)).checks, pd.DataFrame)


def test_what_is_no_covariance_matrix_of_a_group_is_refused():
    """Area-level fits, text and other objects."""
    case = hl.load("milk")
    with pytest.raises(hl.DesignError, match="found an area-level fit"):
        representable(hl.fit(case.spec, case.data))
    with pytest.raises(hl.DesignError, match=r"or a fit of hl.lmm; found str"):
        representable("a")
    with pytest.raises(hl.DesignError, match="found object"):
        representable(object())
    with pytest.raises(hl.DesignError, match="Z must be a matrix of numbers; found list"):
        representable(np.eye(2), [["a"], ["b"]])
