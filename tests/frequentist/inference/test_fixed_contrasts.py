"""Hypothesis matrices of terms against sums of squares of least squares, where they are differences between fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import FitError
from hierlmm.frequentist.inference.contrasts_terms import terms_of
from hierlmm.frequentist.inference.kenward_roger import KenwardRoger

FORMULAS = [
    "a * b * x", "a / b", "(a + b + x) ** 2", "0 + a + b:x", "1 + b + x + a:b:x", "a + a:b:x", "log(z) * a",
    "poly(x, 3):a + b", "bs(x, df=4) + a * b", "C(k) * a", "C(k, contr.poly) + `p q` * a", "0 + a:b", "a:b + x",
    "scale(x) * C(a, contr.treatment('q'))", "within(x, k) + between(x, k) * b",
    "C(a, contr.sum) * C(b, contr.helmert)",
]  # fmt: skip


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Unbalanced factors of three, two and four levels, two covariates, awkward labels."""
    rng = np.random.default_rng(5)
    n = 150
    frame = pd.DataFrame({
        "a": rng.choice(list("pqr"), n, p=[0.5, 0.3, 0.2]), "b": rng.choice(["u: 1", "v[2]"], n),
        "p q": rng.choice(["x, y", "z"], n), "x": rng.normal(size=n), "z": rng.uniform(1, 3, n),
        "k": rng.integers(1, 5, n),
    })  # fmt: skip
    return frame.assign(y=rng.normal(size=n) + frame["x"] * (frame["a"] == "q"))


def rss(fit: hl.LMMFit, columns: list[int]) -> float:
    """Residual sum of squares on some columns of X."""
    X = fit.design.X[:, columns]
    e = fit.design.y - X @ np.linalg.lstsq(X, fit.design.y, rcond=None)[0]
    return float(e @ e)


@pytest.mark.parametrize("formula", FORMULAS)
def test_types_one_and_two_are_differences_of_residual_sums_of_squares(table, formula):
    """Each term after those before it; each after all that do not contain it."""
    fit = hl.fit(hl.lmm(f"y ~ {formula}"), table)
    terms = terms_of(fit.design)
    places = {name: terms.positions(t) for t, name in enumerate(terms.names)}
    assert sorted(j for own in places.values() for j in own) == list(range(len(fit.beta)))
    found = {kind: fit.anova(type=kind, df="residual").table.set_index("term") for kind in (1, 2)}

    for t, name in enumerate(terms.names):
        if name == "Intercept":
            continue
        own = places[name]
        before = [j for other in terms.names[:t] for j in places[other]]
        above = {j for other in terms.containing(t) for j in terms.positions(other)}
        beside = [j for j in range(len(fit.beta)) if j not in above and j not in own]
        for kind, others in ((1, before), (2, beside)):
            expected = (rss(fit, others) - rss(fit, [*others, *own])) / len(own) / fit.sigma2

            assert found[kind].loc[name, "num_df"] == len(own)
            assert_allclose(found[kind].loc[name, "statistic"], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_type_three_has_the_rank_of_the_term_and_tests_the_highest_terms_alone(table, formula):
    """As many contrasts as coefficients, and for a term that none contains the hypothesis of types II and III agree."""
    fit = hl.fit(hl.lmm(f"y ~ {formula}"), table)
    terms = terms_of(fit.design)
    second, third = (fit.anova(type=kind, df="residual").table.set_index("term") for kind in (2, 3))

    for t, name in enumerate(terms.names):
        if name == "Intercept":
            continue
        assert third.loc[name, "num_df"] == len(terms.positions(t))
        if not terms.containing(t):
            assert_allclose(third.loc[name, "statistic"], second.loc[name, "statistic"], rtol=1e-7)


def test_type_three_is_dropping_the_columns_of_sum_coding(table):
    """Least squares without the term's columns, all factors coded to sum to zero."""
    fit = hl.fit(hl.lmm("y ~ C(a, contr.sum) * C(b, contr.sum) * x"), table)
    plain = hl.fit(hl.lmm("y ~ a * b * x"), table).anova(df="residual").table
    terms = terms_of(fit.design)
    full = list(range(len(fit.beta)))

    for t, F in zip(range(1, len(terms.names)), plain["statistic"], strict=True):
        own = terms.positions(t)
        expected = (rss(fit, [j for j in full if j not in own]) - rss(fit, full)) / len(own) / fit.sigma2
        assert_allclose(F, expected, rtol=1e-7)


def test_rows_of_a_stream_give_the_table_of_the_rows_at_once(table):
    """Types I to III from sums over chunks."""
    spec = hl.lmm("y ~ a * b + x + (1 | k)")
    whole = hl.fit(spec, table)
    stream = hl.fit(spec, iter([table[:70], table[70:]]))
    for kind in (1, 2, 3):
        first, second = (f.anova(type=kind, df="kenward-roger").table for f in (whole, stream))

        assert first["term"].tolist() == second["term"].tolist()
        assert_allclose(first.iloc[:, 1:].astype(float), second.iloc[:, 1:].astype(float), rtol=1e-6)


def test_a_predictor_that_others_determine_has_no_row_and_is_said(table):
    """Numeric columns that are combinations of others leave the table, and the rest stands."""
    fit = hl.fit(hl.lmm("y ~ x + twice + a"), table.assign(twice=2 * table["x"]))
    without = hl.fit(hl.lmm("y ~ x + a"), table)

    found = fit.anova()

    assert found.table["term"].tolist() == ["x", "a"]
    assert_allclose(found.table["statistic"], without.anova().table["statistic"], rtol=1e-9)
    assert "twice" in found.notes[0]


def test_only_an_intercept_leaves_nothing_to_test(table):
    """An empty table with its columns, and the reason."""
    found = hl.fit(hl.lmm("y ~ 1 + (1 | k)"), table).anova()

    assert found.table.empty
    assert "no term to test" in str(found)


def test_kenward_roger_without_a_distribution_is_refused():
    """Information so small that the formulas give no positive degrees of freedom or scale."""
    slopes = np.stack([np.diag([1.0, 2.0, 3.0]), np.eye(3)])
    small = KenwardRoger(np.eye(3), np.eye(3), slopes, 1.3 * np.diag([1.0, 0.3]))

    with pytest.raises(FitError, match="more information on the variances"):
        small.joint(np.eye(3))
