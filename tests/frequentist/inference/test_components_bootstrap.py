"""Parametric bootstrap of likelihood ratios against pbkrtest and exact laws; what is not nested is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.inference import components_bootstrap

POLITE = "frequency ~ {} + (1 | subject) + (1 | scenario)"
# pbkrtest 0.5.2 (PBmodcomp, 1000 draws): LRT, p by chi², p, its Monte Carlo error, mean of the reference statistics.
PBKRTEST = [
    ("politeness", POLITE.format("gender"), POLITE.format("attitude + gender"), 11.617761378321006, 1,
     0.000999000999000999, 0.000999000999000999, 1.0772615581385676),
    ("politeness", POLITE.format("attitude"), POLITE.format("attitude + gender"), 11.937968913356372, 1,
     0.006993006993006993, 0.002635166948449898, 1.669790822782021),
    ("politeness", POLITE.format("attitude + gender"), POLITE.format("attitude * gender"), 1.996339704510433, 1,
     0.16683316683316685, 0.011789820239409233, 1.0182872689240239),
    ("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)", 16.456228404605184, 2,
     0.001998001998001998, 0.0014120941845422272, 2.1264345235911843),
]  # fmt: skip


def fits(name, *formulas, method="ml"):
    table = hl.load(name).data
    return [hl.fit(hl.lmm(formula), table, method=method) for formula in formulas]


@pytest.mark.parametrize(("name", "null", "alternative", "lrt", "df", "p", "mc_se", "mean"), PBKRTEST)
def test_fixed_effects_agree_with_pbkrtest(name, null, alternative, lrt, df, p, mc_se, mean):
    """p within three standard errors of the two simulations, the mean of the reference within four."""
    found = hl.bootstrap_lrt(*fits(name, null, alternative), 1000, seed=1)

    assert found.statistic == pytest.approx(lrt, rel=1e-7)
    assert (found.df, found.failures) == (df, 0)
    assert found.p_chi2 == pytest.approx(stats.chi2.sf(lrt, df), rel=1e-6)
    assert abs(found.p - p) < 3 * np.hypot(max(mc_se, found.mc_error), found.mc_error)
    assert abs(found.reference.mean() - mean) < 4 * np.sqrt(2) * found.reference.std() / np.sqrt(1000)


def test_a_variance_has_its_exact_law():
    """Dyestuff by REML: replicates are draws of the exact law, mass 0.5610892 at zero and p 0.0043975, four errors."""
    null, alternative = fits("dyestuff", "Yield ~ 1", "Yield ~ 1 + (1 | Batch)", method="reml")

    found = hl.bootstrap_lrt(null, alternative, 4000, seed=2)

    assert abs((found.reference == 0).mean() - 0.5610892301448389) < 4 * np.sqrt(0.25 / 4000)
    assert abs(found.p - 0.0043975) < 4 * np.sqrt(0.0044 / 4000)


def test_draws_depend_on_the_seed_alone(monkeypatch):
    """More draws begin with the same ones, and processes do not matter."""
    null, alternative = fits("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)")
    monkeypatch.setattr(components_bootstrap, "BLOCK", 20)

    few, more, parallel = (
        hl.bootstrap_lrt(null, alternative, draws, seed=5, jobs=jobs) for draws, jobs in ((40, 1), (60, 1), (40, 1))
    )

    np.testing.assert_array_equal(few.reference, more.reference[:40])
    np.testing.assert_array_equal(few.reference, parallel.reference)
    assert "seed 5" in str(few)


def test_failed_replicates_are_counted_and_shown(monkeypatch):
    """Two refits made to fail: missing in the reference, in neither count, and in the text."""
    null, alternative = fits("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)")
    sound = components_bootstrap._sound
    monkeypatch.setattr(components_bootstrap, "_sound", lambda refits: sound(refits) & (np.arange(len(refits)) > 1))

    found = hl.bootstrap_lrt(null, alternative, 50, seed=1)

    assert found.failures == 2
    assert np.isnan(found.reference).sum() == 2
    assert found.p == (1 + (found.reference >= found.statistic).sum()) / 49
    assert "2 of 50 replicates FAILED" in str(found)
    assert max(map(len, str(found).splitlines())) <= 80


def test_what_is_not_nested_is_refused():
    """Exchanged fits, a model against itself, other criteria, other means under REML, other rows."""
    null, alternative = fits("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)")
    short = hl.fit(hl.lmm("size ~ Time + (1 | tree)"), hl.load("sitka").data.iloc[:-5], method="ml")
    restricted = fits("sitka", "size ~ Time + (1 | tree)", "size ~ Time * treat + (1 | tree)", method="reml")
    (slopes,) = fits("sitka", "size ~ Time + (Time | tree)")

    for pair, match in (
        ((alternative, null), "special case"),
        ((slopes, alternative), "random coefficients of tree"),
        ((null, null), "against itself"),
        ((restricted[0], alternative), "one criterion"),
        (restricted, "method='ml'"),
        ((short, alternative), "same rows"),
    ):
        with pytest.raises(DesignError, match=match):
            hl.bootstrap_lrt(*pair, 10, seed=1)
    with pytest.raises(FitError, match="draws=1000"):
        hl.bootstrap_lrt(null, alternative, 0, seed=1)


def test_nesting_counts_structures_offsets_and_weights():
    """Residual structures, correlated coefficients as null of independent ones, an offset or weights of one alone."""
    data = hl.load("sitka").data
    data = data.assign(occ=data.groupby("tree")["Time"].rank().astype(int), w=1.0 + data.index % 3)

    def fit(formula, **options):
        return hl.fit(hl.lmm(formula, **options), data, method="ml")

    slopes = fit("size ~ Time + (Time | tree)")
    for null, alternative, match in (
        (fit("size ~ Time", residual=hl.AR1("tree", "occ")), slopes, "residual structure AR1"),
        (slopes, fit("size ~ Time + (Time || tree)"), "random coefficients of tree"),
        (fit("size ~ Time + offset(occ ** 2) + (1 | tree)"), slopes, "offset"),
        (fit("size ~ Time + (1 | tree)", weights=hl.Precision("w")), slopes, r"weights or known variances \("),
        (fit("size ~ Time + occ"), slopes, r"Time \| tree\): occ\. Exchange"),
    ):
        with pytest.raises(DesignError, match=match):
            hl.bootstrap_lrt(null, alternative, 10, seed=1)


def test_other_codings_are_refused_under_reml_alone():
    """X in other units shifts the restricted criterion by log |X'X|, which is no evidence."""
    formulas = ("size ~ Time + (1 | tree)", "size ~ I(Time / 100) + (Time | tree)")
    with pytest.raises(DesignError, match="coded alike"):
        hl.bootstrap_lrt(*fits("sitka", *formulas, method="reml"), 10, seed=1)

    assert hl.bootstrap_lrt(*fits("sitka", *formulas), 10, seed=1).statistic > 0


def test_the_models_and_the_criterion_are_named():
    """Residual structure and weights stand beside the formulas; a restricted likelihood ratio is an RLRT."""
    data = hl.load("sitka").data
    data = data.assign(occ=data.groupby("tree")["Time"].rank().astype(int), w=1.0 + data.index % 3)
    specs = [
        hl.lmm("size ~ Time + (1 | tree)", weights=hl.Precision("w")),
        hl.lmm("size ~ Time + (1 | tree)", hl.Stratified("occ"), weights=hl.Precision("w")),
    ]
    found = hl.bootstrap_lrt(*(hl.fit(spec, data) for spec in specs), 4, seed=1)

    text = " ".join(str(found).split())
    assert "Null: size ~ 1 + Time + (1 | tree), precision weights w Alternative" in text
    assert "Alternative: size ~ 1 + Time + (1 | tree), residual Stratified, precision weights w RLRT " in text


def test_area_fits_are_refused():
    """Both models must be linear mixed models."""
    null, alternative = fits("sitka", "size ~ Time", "size ~ Time + (1 | tree)")
    milk = hl.load("milk")
    area = hl.fit(next(iter(milk.specs.values())), milk.data)

    for pair in ((area, alternative), (null, area)):
        with pytest.raises(DesignError, match=r"two fits of linear mixed models.*AreaFit"):
            hl.bootstrap_lrt(*pair, 10, seed=1)
