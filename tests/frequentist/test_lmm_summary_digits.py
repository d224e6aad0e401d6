"""The printed summary against what others print of the same models, digit by digit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome
from hierlmm.frequentist.lmm_summary_residuals import quantiles

NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def fitted(name: str, method: str = "reml"):
    """A model of the catalogue."""
    case = hl.load(name)
    return hl.fit(case.spec, case.data, method)


def after(text: str, start: str) -> list[float]:
    """The numbers behind `start` on its line."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return [float(x) for x in re.findall(NUMBER, line[len(start) :])]


def section(text: str, title: str) -> str:
    """The lines from a title to the next blank one."""
    return text[text.index(title) :].split("\n\n")[0]


def printed(text: str, quantity: str, label: str) -> float:
    """A quantity of the catalogue as a reader finds it in the summary."""
    if quantity == "criterion":
        return after(text, "REML criterion")[0]
    place, _, column = quantity.partition(".")
    if column == "correlation":
        first, second = label.split("/")
        lines = section(text, "Correlation of fixed effects").splitlines()[1:]
        at = lines[0].split().index(first[:7])
        return after("\n".join(lines), second)[at]
    if place == "fixed":
        at = {"estimate": 0, "se": 1, "df": 2, "t": 3, "p": 4}[column]
        return after(section(text, "Fixed effects "), label)[at]
    group, _, term = label.partition("/")
    line = f"{group:<14} {term}" if term else group
    return after(section(text, "Random effects"), line)[{"variance": 0, "sd": 1}[column]]


@pytest.mark.parametrize("model", ["attitude", "gender"])
def test_the_summary_shows_what_the_tutorial_prints(model):
    """Winter (2013, arXiv:1308.5499), both REML models: criterion, variances, sds, coefficients, correlations."""
    case = hl.load(f"politeness/{model}")
    text = hl.fit(case.spec, case.data).summary()
    checked = 0

    for answer in case.reference:
        if "1308.5499" not in answer.source or answer.by != "reml":
            continue
        for label, value in zip(answer.labels or ("",), answer.values, strict=True):
            assert printed(text, answer.quantity, label) == pytest.approx(value, abs=answer.atol * (1 + 1e-9))
            checked += 1

    assert checked >= 14


SATTERTHWAITE = {
    "politeness/attitude": {
        "Intercept": (5.57509202831165, 0.00038924875192031716),
        "attitude[T.pol]": (70.0221307760138, 0.0007475361745138279),
    },
    "politeness/gender": {
        "Intercept": (5.432270192281805, 9.065000493392438e-06),
        "attitude[T.pol]": (70.05437162991215, 0.0007350768394411165),
        "gender[T.M]": (4.007067658797524, 0.0066468240541405835),
    },
    "sleepstudy/slopes": {"Intercept": (17.0, 1.1708877586998937e-17), "Days": (17.0, 3.2637880819878495e-06)},
}


@pytest.mark.parametrize("name", SATTERTHWAITE)
def test_degrees_of_freedom_and_p_are_those_of_lmerTest(name):
    """summary(lmer) of lmerTest 3.1.3 at lme4's optimum refined to stationarity; as many digits as are printed."""
    text = fitted(name).summary()

    for term, (df, p) in SATTERTHWAITE[name].items():
        assert printed(text, "fixed.df", term) == pytest.approx(df, abs=0.0051)
        assert printed(text, "fixed.p", term) == pytest.approx(p, rel=6e-4)


# R 4.2.2, lme4 1.1-31: quantile(residuals(m, "pearson", scaled = TRUE)), what summary(m) prints to four decimals.
RESIDUALS = {
    "politeness/attitude": [-2.2006080313, -0.5817172650, -0.0639402295, 0.5625472151, 3.4385489796],
    "politeness/gender": [-2.25909943601, -0.62356095532, -0.07723537287, 0.53884369148, 3.47950666649],
    "sleepstudy/slopes": [-3.95356374164, -0.46339961658, 0.02311714032, 0.46339902379, 5.17925644553],
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_scaled_residuals_are_those_of_lme4(name):
    """Minimum, quartiles and maximum, to the four decimals printed; lme4's optimum is exact to about 1e-5 of them."""
    lines = section(fitted(name).summary(), "Scaled residuals").splitlines()

    assert [float(x) for x in lines[1].split()] == pytest.approx(RESIDUALS[name], abs=6e-5)


def test_scaled_residuals_of_weighted_rows_are_those_of_lme4():
    """lmer(Reaction ~ Days + (1 | Subject), weights = 1 + Days %% 2), as above."""
    data = hl.load("sleepstudy").data.assign(w=lambda t: 1 + t["Days"] % 2)
    text = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)", weights=hl.Precision("w")), data).summary()
    expected = [-3.550801284920, -0.549761700321, -0.002208283943, 0.488875490595, 3.689659859785]

    line = section(text, "Scaled residuals").splitlines()[1]
    assert [float(x) for x in line.split()] == pytest.approx(expected, abs=6e-5)


def test_a_row_that_stands_for_several_counts_as_often():
    """Quantiles of the rows written out."""
    rng = np.random.default_rng(5)
    values, frequency = rng.standard_normal(37), rng.integers(1, 6, 37).astype(float)

    expected = np.quantile(np.repeat(values, frequency.astype(int)), [0, 0.25, 0.5, 0.75, 1])

    np.testing.assert_allclose(quantiles(values, frequency), expected, rtol=1e-12)


def test_the_verdict_names_the_component_on_the_boundary():
    """Dyestuff2 has variance zero, with the slope of the criterion there; politeness a correlation of 1 by ML.

    One way, k groups of m: -2 log restricted likelihood rises in the group variance at zero, where sigma² is the
    total variance s² = SST / (km - 1), by m (k - 1) / s² - m SSA / s⁴.
    """
    case = hl.load("dyestuff2")
    y, batch = case.data["Yield"], case.data["Batch"]
    s2, SSA = y.var(), 5 * ((y.groupby(batch).mean() - y.mean()) ** 2).sum()
    slope = 5 * 5 / s2 - 5 * SSA / s2**2

    text = fitted("dyestuff2").summary().replace("\n    ", " ")
    assert f"Batch: Intercept has variance 0, where the criterion rises by {slope:.4g} per unit of it" in text

    text = fitted("politeness/slopes", "ml").summary()
    assert "  subject: Intercept and attitude[T.pol] have correlation 1." in text
    assert "scenario: Intercept" not in section(text, "Boundary")

    assert "Boundary: every variance component is inside its parameter space." in fitted("politeness/gender").summary()
    lost = replace(fitted("dyestuff2"), outcome=LMMOutcome.NOT_CERTIFIED).summary()
    assert "NOT CONVERGED" in lost
    assert "Boundary" not in lost


def test_a_block_of_three_says_its_rank():
    """Three coefficients whose effects are multiples of one another, with their means."""
    rng = np.random.default_rng(2)
    g, x, z = np.repeat(np.arange(20), 12), rng.standard_normal(240), rng.standard_normal(240)
    b = rng.standard_normal(20)[g]
    table = pd.DataFrame({"y": b * (1 + x + 2 * z) + rng.standard_normal(240), "x": x, "z": z, "g": g})

    text = hl.fit(hl.lmm("y ~ x + z + (1 + x + z | g)"), table).summary()

    assert "the covariance matrix of Intercept, x, z has rank " in text.replace("\n    ", " ")


def test_long_names_and_many_effects_fit_the_width():
    """A name longer than its column has its own line; ten effects have no triangle of correlations."""
    rng = np.random.default_rng(3)
    names = [f"a_rather_long_name_of_a_predictor_{i}" for i in range(10)]
    table = pd.DataFrame(rng.standard_normal((80, 10)), columns=names).assign(
        y=rng.standard_normal(80) * 1e7, g=np.repeat(np.arange(10), 8)
    )

    text = hl.fit(hl.lmm(f"y ~ {' + '.join(names)} + (1 | g)"), table).summary()

    assert max(map(len, text.splitlines())) <= 80
    assert all(f"\n{name}\n" in text for name in names)
    assert "Correlation of fixed effects: 11 of them, in fit.fixed_correlation" in text


def test_a_fit_without_a_likelihood_has_no_tests():
    """The residual variance is zero: estimates stay, df and p are dashes, and the reason is said."""
    g = np.repeat(np.arange(5), 3)
    table = pd.DataFrame({"y": g**2 + 0.0, "g": g})

    text = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), table).summary()

    assert "no df and p: the likelihood has no upper bound" in text
    assert "Scaled residuals" not in text


def test_a_large_crossed_design_is_summarised_without_degrees_of_freedom():
    """Products kept in cells: the summary says where df and p are to be had; so do the errors of predictions."""
    ratings = pd.read_csv(Path(__file__).parents[1] / "data" / "InstEval.csv.gz")
    fit = hl.fit(hl.lmm("y ~ service + (1 | s) + (1 | d)"), ratings[ratings["s"] <= 70])
    assert fit.equations.cells is not None

    text = fit.summary()

    assert 'see fit.test(..., df="satterthwaite")' in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    assert fit.tidy("fixed")["p"].isna().all()
    assert "No degrees of freedom were computed" in fit.to_html()
    with pytest.raises(hl.FitError, match="kept in cells"):
        fit.predict(parameters="estimated")


def test_the_full_likelihood_at_a_restricted_optimum_is_that_of_dense_matrices():
    """-2 log likelihood with sigma² and beta at their best for this theta, from an n x n matrix: cells and products."""
    ratings = pd.read_csv(Path(__file__).parents[1] / "data" / "InstEval.csv.gz")
    for students in (5, 70):
        part = ratings[ratings["s"] <= students]
        fit = hl.fit(hl.lmm("y ~ service + (1 | s) + (1 | d)"), part)
        V = np.eye(len(part))
        for factor, theta in zip(fit.design.factors, fit.theta, strict=True):
            V += theta[0, 0] ** 2 * (factor.codes[:, None] == factor.codes)
        X, y, n = fit.design.X, fit.design.y, len(part)
        r = y - X @ fit.beta
        variance = r @ np.linalg.solve(V, r) / n
        expected = -0.5 * (np.linalg.slogdet(V)[1] + n * (1 + np.log(2 * np.pi * variance)))

        assert fit.glance()["marginal_loglik"].item() == pytest.approx(expected, rel=1e-10)


def test_known_variances_have_a_normal_reference():
    """Nothing is estimated but beta: df is infinite, p that of the normal distribution."""
    table = hl.load("sleepstudy").data.assign(v=900.0)
    text = hl.fit(hl.lmm("Reaction ~ Days", residual=hl.KnownVariances("v")), table).summary()

    row = next(line for line in text.splitlines() if line.startswith("Intercept"))

    assert row.split()[3] == "inf"
