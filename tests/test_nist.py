"""NIST's one-way analyses of variance, read as variance components: every digit that doubles can hold.

All eleven sets are balanced, so that REML is (MSB - MSW) / k and MSW. tests/data/nist.json has them in rational
arithmetic, of the data as printed and of the data rounded to doubles.
"""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl

DATA = Path(__file__).parent / "data"
SETS = json.loads((DATA / "nist.json").read_text())["sets"]
MODEL = hl.lmm("y ~ 1 + (1 | group)")

# Correct digits of the group variance and of the residual variance against the data as printed: what is left after
# these are rounded to doubles, 13.5 where that is more.
ATTAINABLE = {
    "SiRstv": (12.3, 13.1),
    "SmLs01": (13.5, 13.5),
    "SmLs02": (13.5, 13.5),
    "SmLs03": (13.5, 13.5),
    "AtmWtAg": (10.2, 10.8),
    "SmLs04": (10.0, 10.2),
    "SmLs05": (9.9, 10.2),
    "SmLs06": (9.9, 10.2),
    "SmLs07": (4.0, 4.2),
    "SmLs08": (3.9, 4.2),
    "SmLs09": (3.9, 4.2),
}
# Against the exact answer of the doubles themselves: two digits short of their own precision.
DOUBLES = 13.5


def digits(value: float, exact: str) -> float:
    """Correct digits: -log10 of the relative error."""
    error = abs(Fraction(float(value)) / Fraction(Decimal(exact)) - 1)
    return np.inf if error == 0 else -float(np.log10(float(error)))


@pytest.fixture(scope="module")
def tables():
    text = pd.read_csv(DATA / "nist.csv.gz", dtype=str)
    return {name: rows.assign(y=[float(y) for y in rows["y"]]) for name, rows in text.groupby("set")}


@pytest.fixture(scope="module")
def fits(tables):
    return {name: hl.fit(MODEL, tables[name], method="reml") for name in SETS}


@pytest.mark.parametrize("name", SETS)
def test_variances_have_the_digits_that_rounding_the_data_leaves(fits, name):
    """NIST StRD: digits against the certified decimals, and 13.5 against the exact answer of the doubles."""
    fit, printed, rounded = fits[name], SETS[name]["exact"], SETS[name]["exact_of_doubles"]
    group, residual = ATTAINABLE[name]

    assert fit.certificate.certified
    assert digits(fit.G[0][0, 0], printed["var_group"]) >= group
    assert digits(fit.sigma2, printed["msw"]) >= residual
    assert digits(fit.G[0][0, 0], rounded["var_group"]) >= DOUBLES
    assert digits(fit.sigma2, rounded["msw"]) >= DOUBLES


@pytest.mark.parametrize("name", SETS)
def test_mean_its_error_and_the_criterion_are_the_exact_ones(fits, name):
    """Grand mean to 15 digits; se = sqrt(MSB / N) and criterion in 40 digits, of the doubles."""
    fit, printed, rounded = fits[name], SETS[name]["exact"], SETS[name]["exact_of_doubles"]

    assert digits(fit.beta[0], printed["grand_mean"]) >= 15
    assert digits(np.sqrt(fit.vcov_beta[0, 0]), rounded["se_mean_reml"]) >= DOUBLES
    # beta is integrated out under a flat prior in both, as in lme4
    assert_allclose(fit.objective, float(rounded["reml_criterion"]), rtol=1e-13)


@pytest.mark.parametrize("name", SETS)
def test_maximum_likelihood_is_the_closed_form(tables, name):
    """ML of a balanced layout: ((1 - 1/a) MSB - MSW) / k and MSW, or 0 and SST / N (SiRstv), of the doubles."""
    fit, rounded = hl.fit(MODEL, tables[name], method="ml"), SETS[name]["exact_of_doubles"]

    if rounded["ml_var_group"] == "0":
        assert fit.G[0].item() == 0.0
    else:
        assert digits(fit.G[0].item(), rounded["ml_var_group"]) >= DOUBLES
    assert digits(fit.sigma2, rounded["ml_resid_var"]) >= DOUBLES
    assert_allclose(fit.objective, float(rounded["ml_deviance"]), rtol=1e-13)


@pytest.mark.parametrize("name", ["SiRstv", "SmLs01", "AtmWtAg", "SmLs04", "SmLs07"])
def test_reference_is_the_analysis_of_variance_in_rational_arithmetic(tables, name):
    """The reference itself: mean squares of the doubles as fractions, and the certified F of the decimals."""
    levels = [[Fraction(y) for y in rows] for _, rows in tables[name].groupby("group")["y"]]
    a, k = len(levels), len(levels[0])
    means = [sum(rows) / k for rows in levels]
    grand = sum(means) / a
    msb = k * sum((mean - grand) ** 2 for mean in means) / (a - 1)
    within = sum((y - mean) ** 2 for rows, mean in zip(levels, means, strict=True) for y in rows)
    msw = within / (a * (k - 1))

    rounded, printed = SETS[name]["exact_of_doubles"], SETS[name]["exact"]
    assert_allclose(float((msb - msw) / k), float(rounded["var_group"]), rtol=1e-15)
    assert_allclose(float(msw), float(rounded["msw"]), rtol=1e-15)
    F = Decimal(printed["msb"]) / Decimal(printed["msw"])
    assert_allclose(float(F), float(SETS[name]["certified"]["F"]), rtol=1e-14)
