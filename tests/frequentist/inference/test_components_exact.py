"""Exact F, optimal F and locally best invariant tests against R's projections, textbook ratios and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hierlmm as hl
from hierlmm.design.crossproducts import with_response
from hierlmm.frequentist.inference.components_space import gram, pieces
from hierlmm.frequentist.inference.exactf import locally_best, ratio_interval, wald_f

CASES = {
    "dyestuff": "Yield ~ 1 + (1 | Batch)",
    "dyestuff2": "Yield ~ 1 + (1 | Batch)",
    "sitka": "size ~ Time * treat + (1 | tree)",
    "sleepstudy": "Reaction ~ Days + (1 | Subject)",
    "penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "politeness": "frequency ~ attitude + gender + (1 | subject) + (1 | scenario)",
}
# F, df1, df2 by QR projections in R 4.2.2 (own dense computations); p by pf.
EXACT_F = [
    ("dyestuff", "Batch", 4.598266190719021, 5, 24, 0.004397531268306173),
    ("dyestuff2", "Batch", 0.5577671174554909, 5, 24, 0.7310992306369248),
    ("sitka", "tree", 50.219878333208364, 77, 314, 3.0682398980044373e-138),
    ("sleepstudy", "Subject", 15.349201605299603, 17, 161, 1.2295030524377191e-25),
    ("penicillin", "plate", 15.223642172524283, 23, 115, 4.628022594251839e-25),
    ("penicillin", "sample", 297.08945686900915, 5, 115, 5.350547374094763e-64),
    ("politeness", "subject", 14.299944637947577, 4, 70, 1.3968103477210097e-08),
    ("politeness", "scenario", 5.020331282937717, 6, 70, 0.00024884259953889204),
]
# Statistic and p of the locally best invariant test; the p of the reference have absolute errors of 1e-10.
LBI = [
    ("dyestuff", 2.44633749321758, 0.004397531271169319),
    ("dyestuff2", 0.5205219872643377, 0.731099230636573),
    ("sitka", 4.624485518101565, 0.0),
    ("sleepstudy", 6.184259296263402, 0.0),
]


def fitted(name):
    return hl.fit(hl.lmm(CASES[name]), hl.load(name).data)


def of(fit, group):
    products = gram(fit.equations)
    at = [f.name for f in fit.design.factors].index(group)
    others = [places.ravel() for f, places in enumerate(products.effects) if f != at]
    return pieces(products, products.effects[at].ravel(), np.concatenate([np.zeros(0, dtype=int), *others]))


@pytest.mark.parametrize(("name", "group", "F", "df1", "df2", "p"), EXACT_F)
def test_f_by_projections_agrees_with_r(name, group, F, df1, df2, p):
    """Balanced, unbalanced and crossed designs; the digits of the reference."""
    test = wald_f(of(fitted(name), group))

    assert (test.df1, test.df2) == (df1, df2)
    assert test.statistic == pytest.approx(F, rel=1e-11)
    assert test.p == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(("name", "statistic", "p"), LBI)
def test_locally_best_invariant_agrees_with_the_reference(name, statistic, p):
    """In these balanced designs it is the F test, too: p to 1e-11 relative of that."""
    found = of(fitted(name), CASES[name].split("| ")[1].rstrip(")"))

    test = locally_best(found)

    assert test.statistic == pytest.approx(statistic, rel=1e-12)
    assert test.p == pytest.approx(p, abs=1e-10)
    assert test.p == pytest.approx(wald_f(found).p, rel=1e-10)


UNBALANCED = pd.DataFrame(
    {
        "g": [1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 8, 8],
        "x": [
            0.277,
            0.001,
            0.511,
            0.014,
            0.065,
            0.955,
            0.086,
            0.29,
            0.881,
            0.123,
            0.175,
            0.441,
            0.907,
            0.851,
            0.734,
            0.574,
            0.482,
            0.331,
            0.158,
            0.48,
            0.204,
            0.68,
            0.364,
            0.35,
            0.062,
            0.483,
            0.399,
            0.016,
            0.125,
            0.398,
            0.505,
            0.328,
        ],
        "y": [
            5.449,
            4.831,
            6.545,
            4.973,
            5.619,
            5.453,
            3.594,
            4.168,
            6.967,
            3.144,
            3.955,
            5.842,
            6.103,
            7.723,
            5.311,
            5.254,
            3.781,
            5.136,
            5.662,
            4.541,
            6.285,
            6.003,
            3.529,
            6.567,
            5.835,
            6.173,
            6.575,
            4.448,
            4.077,
            5.942,
            6.451,
            6.481,
        ],
    }
)


def test_an_unbalanced_design_agrees_with_r():
    """Eight groups of 2 to 7 rows: F and the locally best invariant test differ; own dense projections in R 4.2.2."""
    found = of(hl.fit(hl.lmm("y ~ x + (1 | g)"), UNBALANCED), "g")

    F, best = wald_f(found), locally_best(found)

    assert (F.statistic, F.df1, F.df2) == (pytest.approx(1.7934173407897527, rel=1e-11), 7, 23)
    assert F.p == pytest.approx(0.13709269877805455, rel=1e-10)
    assert best.statistic == pytest.approx(1.4251913615097738, rel=1e-11)
    assert best.p == pytest.approx(0.11699365321031496, abs=1e-11)


def unbalanced(ratio, seed, groups=8):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rng.integers(1, 9, groups))
    x = rng.normal(size=len(g))
    y = 1 + x + rng.normal(size=len(g)) + np.sqrt(ratio) * rng.normal(size=groups)[g]
    return pd.DataFrame({"y": y, "x": x, "g": g})


def test_exact_tests_have_their_size_in_an_unbalanced_design():
    """600 responses: frequencies of p <= 5 % of F at the true ratio 0.7 and of both tests at zero, four errors."""
    table = unbalanced(0.7, 1)
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), table)
    rng = np.random.default_rng(2)
    n, codes = len(table), fit.design.factors[0].codes
    hits = np.zeros(3)

    for _ in range(600):
        e, b = rng.normal(size=n), rng.normal(size=8)[codes]
        at_zero, at_ratio = (_pieces(fit, y) for y in (e, e + np.sqrt(0.7) * b))
        hits += [wald_f(at_zero).p <= 0.05, locally_best(at_zero).p <= 0.05, wald_f(at_ratio, 0.7).p <= 0.05]

    assert np.abs(hits / 600 - 0.05).max() < 4 * np.sqrt(0.05 * 0.95 / 600)


def _pieces(fit, y):
    products = gram(with_response(fit.equations, fit.design, y))
    return pieces(products, products.effects[0].ravel(), np.zeros(0, dtype=int))


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_interval_holds_the_ratios_that_the_test_does_not_reject(seed):
    """Wald's exact interval inverts the two-sided test: p is 5 % at ends that are not zero."""
    found = of(hl.fit(hl.lmm("y ~ x + (1 | g)"), unbalanced(3.0, seed)), "g")

    lower, upper = ratio_interval(found, 0.95)

    for end in (lower, upper):
        if end > 0:
            assert wald_f(found, end).p == pytest.approx(0.05, rel=1e-9)
    assert 0 <= lower < upper


def test_dyestuff_s_interval_has_its_closed_form():
    """Balanced one-way: (F / F_quantile - 1) / 5; ICC 0.0838 to 0.8479."""
    tests = fitted("dyestuff").test_component("Batch", bootstrap=0)
    F = 4.598266190719021

    ratio, icc = (tests.intervals.set_index("quantity").loc[name] for name in ("variance ratio", "ICC"))

    expected = [(F / stats.f.ppf(p, 5, 24) - 1) / 5 for p in (0.975, 0.025)]
    assert [ratio["lower"], ratio["upper"]] == pytest.approx(expected, rel=1e-10)
    assert [icc["lower"], icc["upper"]] == pytest.approx([e / (1 + e) for e in expected], rel=1e-10)


def nested(crossed):
    rng = np.random.default_rng(6)
    a, b, _ = (i.ravel() for i in np.meshgrid(range(5), range(4), range(3), indexing="ij"))
    ab = 4 * a + b
    y = rng.normal(size=60) + rng.normal(size=5)[a] + 0.5 * rng.normal(size=20)[ab] + (rng.normal(size=4)[b] * crossed)
    return pd.DataFrame({"y": y, "a": a, "b": b, "ab": ab})


def mean_squares(table):
    """Textbook mean squares of a x b with 3 replicates: a, b, a:b, error."""
    y = table["y"].to_numpy().reshape(5, 4, 3)
    a, b, cell, m = y.mean((1, 2)), y.mean((0, 2)), y.mean(2), y.mean()
    inter = cell - a[:, None] - b[None] + m
    return {
        "a": 12 * ((a - m) ** 2).sum() / 4,
        "b": 15 * ((b - m) ** 2).sum() / 3,
        "ab": 3 * (inter**2).sum() / 12,
        "b in a": 3 * ((cell - a[:, None]) ** 2).sum() / 15,
        "error": ((y - cell[..., None]) ** 2).sum() / 40,
    }


def optimal(formula, table, group):
    frame = hl.fit(hl.lmm(formula), table).test_component(group, bootstrap=0).frame.set_index("test")
    return frame.loc["optimal F (balanced)"]


def test_optimal_f_of_a_nested_design_uses_the_inner_mean_square():
    """y ~ 1 + (1 | a) + (1 | a:b): MS(a) / MS(b in a), and MS(b in a) / MS(error); by projections a has no test."""
    table = nested(0)
    formula, ms = "y ~ 1 + (1 | a) + (1 | ab)", mean_squares(table)

    outer, inner = (optimal(formula, table, group) for group in ("a", "ab"))

    assert outer["statistic"] == pytest.approx(ms["a"] / ms["b in a"], rel=1e-10)
    assert outer["p"] == pytest.approx(stats.f.sf(ms["a"] / ms["b in a"], 4, 15), rel=1e-9)
    assert inner["statistic"] == pytest.approx(ms["b in a"] / ms["error"], rel=1e-10)
    tests = hl.fit(hl.lmm(formula), table).test_component("a", bootstrap=0)
    assert tests.answer.test == "optimal F (balanced)"
    assert "no effect of it is left" in dict(tests.inapplicable)["tests by projections"]


@pytest.mark.parametrize(("group", "df1"), [("a", 4), ("b", 3)])
def test_optimal_f_of_a_crossed_design_uses_the_interaction(group, df1):
    """y ~ 1 + (1 | a) + (1 | b) + (1 | a:b): main effects against MS(a:b)."""
    table = nested(1)
    ms = mean_squares(table)

    found = optimal("y ~ 1 + (1 | a) + (1 | b) + (1 | ab)", table, group)

    assert found["statistic"] == pytest.approx(ms[group] / ms["ab"], rel=1e-10)
    assert found["p"] == pytest.approx(stats.f.sf(ms[group] / ms["ab"], df1, 12), rel=1e-9)


def test_unbalanced_data_have_no_optimal_ratio_and_say_so():
    """A method that needs balance is said not to apply; the others are given."""
    tests = fitted("politeness").test_component("scenario", bootstrap=0)

    assert "not balanced" in dict(tests.inapplicable)["optimal F (balanced)"]
    assert "F by projections (Wald)" in set(tests.frame["test"])


def test_known_residual_variances_leave_a_chi_squared_test():
    """Between-group sum of squares over the known variance 2500 is chi²(5) (Dyestuff's layout, closed form)."""
    table = hl.load("dyestuff").data.assign(v=2500.0)
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)", residual=hl.KnownVariances("v")), table)

    row = fit.test_component("Batch", bootstrap=0).frame.set_index("test").loc["chi² by projections"]

    assert row["statistic"] == pytest.approx(56357.5 / 2500, rel=1e-10)
    assert row["p"] == pytest.approx(stats.chi2.sf(56357.5 / 2500, 5), rel=1e-10)
