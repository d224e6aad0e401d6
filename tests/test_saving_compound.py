"""Compound results in files: every field as it was saved, and working methods after reading."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_saving import assert_equal

import hierlmm as hl
from hierlmm.saving import read, save
from hierlmm.saving.archive import MANIFEST

RATES = hl.compound("y ~ 1", unit="u", sampling=hl.PoissonSampling("E"), unsampled="synthetic")
REGRESSION = hl.compound("y ~ x + offset(o)", unit="u", sampling=hl.PoissonSampling("E"))
SHARES = hl.compound("y ~ 1", unit="u", sampling=hl.BinomialSampling("n"))
MEANS = hl.compound("m ~ x", unit="u", sampling=hl.NormalSampling("D"))
TABLE = pd.DataFrame(
    {
        "u": list("abcdefg"), "y": [3, 0, 9, 1, 4, 12, 2], "E": [2.0, 1.5, 3, 4, 2, 5, 3],
        "n": [9, 8, 12, 14, 14, 14, 7],
        "x": [0.1, -1, 0.5, -0.2, 1, 0.7, -0.4], "o": [0, 0.1, 0, -0.2, 0, 0.3, 0], "m": [0.2, -1, 2, 0.1, 1.4, 0, -2],
        "D": [0.3, 0.2, 0.4, 0.3, 0.5, 0.2, 0.3],
    }
)  # fmt: skip
FITS = {
    "rates": (RATES, "ml"), "rates by moments": (RATES, "moments"), "regression": (REGRESSION, "ml"),
    "shares": (SHARES, "ml"), "shares by moments": (SHARES, "moments"), "means": (MEANS, "reml"),
    "means by James-Stein": (hl.compound("m ~ 1", unit="u", sampling=hl.NormalSampling(0.3)), "james_stein"),
    "means by limited translation": (
        hl.compound("m ~ 1", unit="u", sampling=hl.NormalSampling(0.3)), "limited_translation"
    ),
    "means by Morris": (MEANS, "morris"),
}  # fmt: skip
FRAMES = {
    hl.CompoundFit: ("hyperparameters", "units"),
    hl.CompoundPosterior: ("hyperparameters", "units"),
    hl.CompoundComparison: ("table", "attribution", "variance"),
}


def assert_kept(result: object, path: Path) -> object:
    """Saved and read: equal field by field, equal tables and text. Returns what was read."""
    again = read(save(result, path))  # type: ignore[arg-type]
    assert_equal(result, again)
    for name in FRAMES[type(result)]:  # type: ignore[index]
        pd.testing.assert_frame_equal(getattr(result, name), getattr(again, name), rtol=1e-10)
    assert str(again) == str(result)
    return again


@pytest.mark.parametrize("name", FITS)
def test_fits_of_every_kind_are_read_as_they_were_saved(name: str, tmp_path: Path) -> None:
    """Posteriors, intervals and refits of a read fit are those of the saved one."""
    spec, method = FITS[name]
    fit = hl.fit(spec, TABLE, method)

    again = assert_kept(fit, tmp_path / "r.hlm")

    assert isinstance(again, hl.CompoundFit)
    pd.testing.assert_frame_equal(again.intervals("conditional"), fit.intervals("conditional"), rtol=1e-10)
    assert again.posterior_of("c").quantile(0.3) == pytest.approx(fit.posterior_of("c").quantile(0.3), rel=1e-10)


@pytest.mark.parametrize("spec", [RATES, REGRESSION, SHARES, MEANS])
def test_posteriors_of_every_kind_are_read_as_they_were_saved(spec: hl.CompoundSpec, tmp_path: Path) -> None:
    """By a lattice, by importance sampling, and as an area-level posterior; draws and quantiles included."""
    post = hl.posterior(spec, TABLE, draws=20, seed=3)

    again = assert_kept(post, tmp_path / "r.hlm")

    assert isinstance(again, hl.CompoundPosterior)
    assert post.draws.identical(again.draws)
    pd.testing.assert_frame_equal(again.quantile([0.1, 0.6]), post.quantile([0.1, 0.6]), rtol=1e-10)


@pytest.mark.parametrize("spec", [RATES, MEANS])
def test_comparisons_hold_their_design_once(spec: hl.CompoundSpec, tmp_path: Path) -> None:
    """The manifest says what the file holds without hierlmm; fit and posterior share the design as they did."""
    found = hl.compare(hl.fit(spec, TABLE), hl.posterior(spec, TABLE, draws=5, seed=3))

    again = assert_kept(found, tmp_path / "r.hlm")
    manifest = json.loads(zipfile.ZipFile(tmp_path / "r.hlm").read(MANIFEST))

    assert again.fit.design is again.posterior.design  # type: ignore[attr-defined]
    assert manifest["kind"] == "CompoundComparison"
    assert hl.CompoundSpec.from_toml(manifest["spec"]) == spec
    assert manifest["posterior"]["seed"] == 3


def test_a_refit_and_a_boundary_keep_their_own_numbers(tmp_path: Path) -> None:
    """Counts that are not in the table; a dispersion that is zero."""
    fit = hl.fit(RATES, TABLE)
    refit = fit.refit(np.array([2, 2, 3, 4, 2, 5, 3]))

    again = assert_kept(refit, tmp_path / "r.hlm")

    assert again.outcome is refit.outcome  # type: ignore[attr-defined]
    assert refit.dispersion == 0
