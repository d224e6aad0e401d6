"""What a reader sees of a fit: titles, structures in words, and frames of models without random effects."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import FitError


def sitka():
    """Sitka with occasions numbered, a weight and known variances."""
    table = hl.load("sitka").data
    occasion = table.groupby("tree")["Time"].rank().astype(int)
    return table.assign(occ=occasion, w=1 + occasion % 2, v=0.1 + 0.05 * occasion)


RESIDUALS = {
    "independent": hl.Independent(),
    "known": hl.KnownVariances("v"),
    "strata": hl.Stratified("occ"),
    "cs": hl.CompoundSymmetry("tree"),
    "csh": hl.HeterogeneousCompoundSymmetry("tree", "occ"),
    "ar1": hl.AR1("tree", "occ"),
    "arh1": hl.HeterogeneousAR1("tree", "occ"),
    "car1": hl.ContinuousAR1("tree", "Time"),
    "car1 with nugget": hl.ContinuousAR1("tree", "Time", nugget=True),
    "toeplitz": hl.Toeplitz("tree", "occ"),
    "antedependence": hl.Antedependence("tree", "Time"),
    "unstructured": hl.Unstructured("tree", "occ"),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_summaries_fit_the_width_and_name_the_model(name):
    """At most 80 columns; the title says whether rows are correlated."""
    text = hl.fit(hl.lmm("size ~ Time * treat", residual=RESIDUALS[name]), sitka()).summary()

    assert max(map(len, text.split("\n"))) <= 80
    marginal = name not in ("independent", "known", "strata")
    assert text.startswith(f"{'Marginal linear' if marginal else 'Linear'} model fitted by REML\n")
    assert ("groups: tree 79" in text) == marginal
    assert "groups: \n" not in text


def test_the_summary_counts_parameters_and_shows_each_of_them():
    """Parameters of residual structures are printed with the occasions that they belong to."""
    text = hl.fit(hl.lmm("size ~ Time * treat", residual=RESIDUALS["antedependence"]), sitka()).summary()
    assert "R has variances σ²[Time] and a correlation of each Time with the next" in text
    assert "395 rows; groups: tree 79; 4 fixed effects, 9 covariance parameters" in text
    assert "Residual       Time 152" in text
    assert "  correlation, 227 and 258" in text

    text = hl.fit(hl.lmm("size ~ Time + (1 | tree)", weights=hl.Frequency("w")), sitka()).summary()
    assert "n = 632 in 395 rows; groups: tree 79; 2 fixed effects, 2 covariance parameters" in text
    assert "Each row counts w times (frequency weights)" in text

    text = hl.fit(hl.lmm("size ~ Time + (1 | tree)", weights=hl.Precision("w")), sitka()).summary()
    assert "Residual, divided by w" in text

    fit = hl.fit(hl.lmm("size ~ Time + cs(0 + treat | occ) + (1 | tree)", residual=hl.KnownVariances("v")), sitka())
    assert "treat, 2 levels" in fit.summary()
    assert "Residual, mean of known v" in fit.summary()


@pytest.mark.parametrize("name", RESIDUALS)
def test_models_without_random_effects_have_empty_frames_of_them(name):
    """The columns are those of every fit, so that code for mixed models reads these."""
    mixed = hl.fit(hl.lmm("size ~ Time + (1 | tree)"), sitka())
    fit = hl.fit(hl.lmm("size ~ Time", residual=RESIDUALS[name]), sitka())

    for frame in ("random_effects", "group_coefficients"):
        assert list(getattr(fit, frame).columns) == list(getattr(mixed, frame).columns)
        assert (getattr(fit, frame).dtypes.iloc[3:] == np.float64).all()
        assert len(getattr(fit, frame)) == 0
    assert len(fit.icc) == 0
    assert fit.profile() == () or name == "independent"


def test_a_linear_model_is_compared_with_its_posterior():
    """Without random effects there is nothing to match but the fixed effects and the residual sd."""
    spec = hl.lmm("size ~ Time")
    comparison = hl.compare(hl.fit(spec, sitka()), hl.posterior(spec, sitka(), draws=200, seed=1))

    assert set(comparison.table["part"]) == {"fixed", "variance"}
    assert len(comparison.mse) == 0
    assert comparison.summary()


def test_residual_matrices_are_labelled_by_occasion_and_refused_without():
    """AR1 has rho^|s-t| between positions; compound symmetry and independence have no occasions."""
    fit = hl.fit(hl.lmm("size ~ Time", residual=hl.AR1("tree", "occ")), sitka())
    rho = fit.variance_components.query("quantity == 'correlation'")["estimate"].item()
    power = rho ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))

    assert list(fit.residual_correlation.index) == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(fit.residual_correlation, power, rtol=1e-12)
    np.testing.assert_allclose(fit.residual_covariance, fit.sigma2 * power, rtol=1e-12)
    for name in ("independent", "cs", "car1", "strata"):
        with pytest.raises(FitError, match="needs a residual structure over occasions"):
            _ = hl.fit(hl.lmm("size ~ Time", residual=RESIDUALS[name]), sitka()).residual_covariance


@pytest.mark.parametrize("name", set(RESIDUALS) - {"known"})
def test_a_response_without_residual_variation_is_reported_whatever_the_structure(name):
    """Every variance is zero; correlations are undefined and left out."""
    fit = hl.fit(hl.lmm("size ~ Time", residual=RESIDUALS[name]), sitka().assign(size=lambda t: 2 + 3.0 * t["Time"]))

    assert fit.sigma2 == 0.0
    np.testing.assert_allclose(fit.beta, [2, 3], rtol=1e-9)
    assert (fit.variance_components.query("quantity == 'variance'")["estimate"] == 0).all()
    assert "reproduce the response exactly" in fit.summary()


def test_correlations_of_larger_blocks_stand_below_the_table():
    """Five coefficients have ten correlations, which no line holds."""
    table = sitka()
    fit = hl.fit(hl.lmm("size ~ Time + (0 + C(occ) | tree)", residual=hl.KnownVariances("v")), table)

    text = fit.summary()

    assert "Correlation of random effects, tree" in text
    assert max(map(len, text.split("\n"))) <= 80
