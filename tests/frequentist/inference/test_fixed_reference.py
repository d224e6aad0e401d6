"""Degrees of freedom, adjusted covariances and tables of terms against lmerTest and pbkrtest (tests/data)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.frequentist.inference.kenward_roger import kenward_roger
from hierlmm.frequentist.inference.satterthwaite import satterthwaite

REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "fixed_inference.json").read_text())
# lmerTest differentiates numerically: its degrees of freedom have 5 to 9 digits (6e-6 at the singular politeness fit).
NUMERICAL = 1e-5
# pbkrtest is algebra, at estimates refined to about 1e-9; the singular fit's smallest variance has fewer digits.
ALGEBRA = 1e-7


def table_of(name: str) -> pd.DataFrame:
    """The data of a case: of the catalogue, or the unbalanced table of two crossed factors in the reference."""
    if name == "crossed":
        return pd.DataFrame(REFERENCE["crossed"])
    data = hl.load(name).data
    if name == "sitka":
        return data.assign(t100=(data["Time"] - 200) / 100)
    return data.assign(scenario=data["scenario"].astype(str)) if name == "politeness" else data


@pytest.mark.parametrize("case", REFERENCE["coefficients"], ids=lambda c: f"{c['case']}-{c['method']}")
def test_degrees_of_freedom_of_each_coefficient(case):
    """lmerTest's summary, Satterthwaite for REML and ML and Kenward-Roger for REML, with pbkrtest's vcovAdj."""
    fit = hl.fit(hl.lmm(case["formula"]), table_of(case["data"]), case["method"])
    places = [fit.design.fixed.index(name) for name in case["names"]]
    unit = np.eye(len(places))

    found = satterthwaite(fit)

    assert_allclose([found.df(unit[j]) for j in places], case["satterthwaite"], rtol=NUMERICAL)
    p = fit.test(unit[places]).table["p"]
    assert_allclose(p, case["p"], rtol=1e-4)
    if case["method"] == "reml":
        adjusted = kenward_roger(fit)
        assert_allclose([adjusted.joint(unit[[j]])[0] for j in places], case["kenward_roger"], rtol=ALGEBRA)
        expected = np.array(case["vcov_adjusted"]).reshape(len(places), -1)
        assert_allclose(adjusted.adjusted[np.ix_(places, places)], expected, rtol=1e-7, atol=1e-7 * expected.max())


# Coefficients of the joint hypotheses, in the order that both programs have.
JOINT = {
    "crossed_factors": [1, 2, 6], "crossed_covariate": [1, 3, 6, 7], "crossed_plain": [1, 2, 3, 4, 5],
    "politeness_interaction": [1, 2, 3], "politeness_scenario": [4, 5, 6, 7, 8, 9], "sleepstudy": [1, 2],
}  # fmt: skip


def fits(*names):
    """Cases of the reference by each method; all without names."""
    return [
        pytest.param(case, method, id=f"{case['case']}-{method}")
        for case in REFERENCE["tables"]
        for method in ("reml", "ml")
        if not names or case["case"] in names
    ]


@pytest.mark.parametrize(("case", "method"), fits())
def test_tables_of_terms_are_those_of_lmertest(case, method):
    """anova(type = 1, 2, 3) by both kinds of degrees of freedom: numerator, denominator, F."""
    fit = hl.fit(hl.lmm(case["formula"]), table_of(case["data"]), method)
    assert_allclose(fit.objective, case[method]["objective"], rtol=1e-11)

    for key in (key for key in case[method] if key[:-1] in ("satterthwaite", "kenward_roger")):
        found = fit.anova(type=int(key[-1]), df=key[:-1].replace("_", "-")).table.set_index("term")
        for row in case[method][key]:
            mine = found.loc[row["term"]]
            assert mine["num_df"] == row["num_df"]
            assert_allclose([mine["den_df"], mine["statistic"]], [row["den_df"], row["F"]], rtol=2e-6)
            assert_allclose(mine["p"], row["p"], rtol=1e-4)


@pytest.mark.parametrize(("case", "method"), fits(*JOINT))
def test_joint_hypotheses_are_those_of_contest_and_krmodcomp(case, method):
    """Several coefficients at once: Fai and Cornelius, and Kenward and Roger's scale of F with its denominator."""
    truth = case[method]
    fit = hl.fit(hl.lmm(case["formula"]), table_of(case["data"]), method)
    p, places = len(fit.beta), JOINT[case["case"]]

    found = fit.test(np.eye(p)[places])

    num_df, den_df, F, tail = truth["joint_satterthwaite"]
    assert found.num_df == num_df
    assert_allclose([found.den_df, found.statistic], [den_df, F], rtol=2e-6)
    assert_allclose(found.p, tail, rtol=1e-4)
    if method == "reml":
        expected = truth["joint_kenward_roger"]
        scaled = fit.test(np.eye(p)[places], df="kenward-roger")
        assert_allclose(scaled.den_df, expected["ddf"], rtol=1e-6)
        assert_allclose(scaled.scale, expected["F.scaling"], rtol=1e-8)
        assert_allclose(scaled.statistic, expected["Fstat"], rtol=1e-6)
        assert_allclose(kenward_roger(fit).adjusted, truth["vcovAdj"], rtol=1e-5, atol=1e-7)
