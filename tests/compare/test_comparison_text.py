"""A comparison as text: at most 80 columns, the conclusion first, the numbers of the frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.compare import Agreement


def compared(name: str) -> hl.Comparison:
    case = hl.load(name)
    return hl.compare(hl.fit(case.spec, case.data), hl.posterior(case.spec, case.data, draws=0, seed=1))


@pytest.fixture(scope="module")
def milk() -> hl.Comparison:
    return compared("milk")


@pytest.mark.parametrize("name", ["milk", "eight-schools", "dyestuff2", "politeness/slopes", "sitka/treatment"])
def test_text_fits_eighty_columns(name):
    """Terminals; no line ends in blanks."""
    lines = compared(name).summary().splitlines()

    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_text_of_long_names_fits_eighty_columns():
    """Areas, columns and levels of 100 letters, one with a line break."""
    rng = np.random.default_rng(3)
    names = ["n" * 100 + str(i) for i in range(20)]
    names[3] = "two\nlines"
    table = pd.DataFrame({"a" * 100: names, "y": rng.normal(size=20), "D": 1.0, "x" * 100: rng.normal(size=20)})
    spec = hl.fay_herriot(f"y ~ {'x' * 100}", sampling_variance="D", area="a" * 100)

    text = hl.compare(hl.fit(spec, table), hl.posterior(spec, table, draws=0, seed=1)).summary()

    body = text.partition("Fixed effects")[2]
    assert max(map(len, body.splitlines())) <= 80


def test_conclusion_and_findings_come_first(milk):
    """Also where there is none."""
    failed = replace(milk, agreement=Agreement.NOT_CONVERGED).summary()

    assert " ".join(milk.summary().split()).startswith(milk.agreement.value + " - " + milk.findings[0])
    assert failed.startswith("NO CONCLUSION")


def test_text_has_the_numbers_of_both_sides(milk):
    """Milk: A by REML 0.01855033 (reference/sae) and its posterior mean, the largest difference, every prior."""
    text = milk.summary()

    assert "0.01855" in text
    assert f"{milk.posterior.A['estimate'].iloc[0]:.4g}" in text
    assert "SmallArea 7: 1.058 to 1.062" in text
    for prior in milk.sensitivity["prior"].unique():
        assert prior in text
    assert "sd(SmallArea:Intercept) ~ flat" in text


def test_text_names_verdict_evidence_and_advice():
    """Dyestuff2: the variance is zero, with the statistic of the test and the advice."""
    text = " ".join(compared("dyestuff2").summary().split())

    assert "Intercept by Batch: at zero. LRT 0, p = 1" in text
    assert "report the posterior distribution of the sd" in text
