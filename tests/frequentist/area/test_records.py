"""From survey records to an area-level fit in one call: the steps by hand, and a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hierlmm as hl
from hierlmm.frequentist.area.records import fit_records

AREAS = [f"d{k:02d}" for k in range(16)]


def records() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records of 14 of 16 areas, one of them with a single record, and covariates of all in another order."""
    rng = np.random.default_rng(11)
    x = pd.Series(rng.normal(size=16), index=AREAS)
    parts = []
    for k, area in enumerate(AREAS[:14]):
        n = 1 if k == 3 else int(rng.integers(4, 25))
        y = 20 + 2 * x[area] + rng.normal(0, 1) + rng.normal(0, 3, n)
        parts.append(pd.DataFrame({"district": area, "y": y, "w": rng.uniform(5, 40, n)}))
    covariates = pd.DataFrame({"district": AREAS, "x": x.to_numpy()}).sample(frac=1, random_state=2)
    return pd.concat(parts).sample(frac=1, random_state=3, ignore_index=True), covariates.reset_index(drop=True)


RECORDS, COVARIATES = records()
OPTIONS: dict[str, Any] = {"area": "district", "weights": "w", "covariates": COVARIATES, "formula": "~ x"}


def test_one_call_is_the_four_steps() -> None:
    """Direct estimates, smoothed variances, the join and the fit, called one by one: equal to the last digit."""
    model = hl.LogLinearGVF("log(variance) ~ log(n)", correction="lognormal")
    result = fit_records(RECORDS, "y", smoothing=model, unsampled="synthetic", method="ml", **OPTIONS)
    direct = hl.direct_estimates(RECORDS, "y", area="district", weights="w")
    smoothed = hl.smooth_variances(direct, model, missing="predict")
    joined = hl.join_areas(smoothed, COVARIATES, area="district", unsampled="synthetic")
    spec = hl.fay_herriot("estimate ~ x", sampling_variance="variance", area="district", unsampled="synthetic")
    fit = hl.fit(spec, joined, method="ml")

    assert result.data["district"].tolist() == COVARIATES["district"].tolist()
    np.testing.assert_array_equal(result.data["variance"], joined["variance"])
    np.testing.assert_array_equal(result.data["raw_variance"], joined["raw_variance"])
    np.testing.assert_array_equal(result.fit.eblup, fit.eblup)
    np.testing.assert_array_equal(result.fit.mse, fit.mse)
    assert result.data.attrs["joined"]["without_estimate"] == ("d14", "d15")
    by_area = result.areas.set_index("area")
    assert by_area.loc["d03", "n"] == 1
    assert by_area.loc["d03", "sampling_variance"] > 0
    assert by_area.loc["d14", "role"] == "unsampled"


def test_dyestuff_from_its_records() -> None:
    """Balanced records and one variance for all: D = MSW/n, so Â = (MSB - MSW)/n, the 1764.05 that lme4 prints."""
    case = hl.load("dyestuff")
    pooled = hl.LogLinearGVF("log(variance) ~ 1", correction="ratio")
    result = fit_records(case.data, "Yield", area="Batch", formula="~ 1", smoothing=pooled)
    groups = case.data.groupby("Batch", observed=True)["Yield"]
    within, between = groups.var().mean(), 5 * groups.mean().var()

    np.testing.assert_allclose(result.smoothing.variance, within / 5, rtol=1e-12)
    assert result.fit.A_hat == pytest.approx((between - within) / 5, rel=1e-9)
    assert result.fit.A_hat == pytest.approx(1764.05, abs=5e-3)
    shrunken = groups.mean() - within / between * (groups.mean() - groups.mean().mean())
    np.testing.assert_allclose(result.areas["estimate"], shrunken, rtol=1e-12)


def test_the_posterior_is_of_the_same_spec_and_data() -> None:
    """`result.spec` and `result.data` give the twin, and the two are compared without more."""
    result = fit_records(RECORDS, "y", smoothing=hl.LogLinearGVF(), unsampled="synthetic", **OPTIONS)
    again = hl.fit(result.spec, result.data)
    posterior = hl.posterior(result.spec, result.data, matrices=result.matrices, draws=0, seed=1)

    assert again.fingerprint == result.fit.fingerprint
    assert posterior.fingerprint == result.fit.fingerprint
    assert hl.compare(result.fit, posterior).table["part"].eq("area").sum() == 16


def test_other_tables_and_orders_give_the_same() -> None:
    """polars records and covariates, rows permuted: the areas' numbers by label."""
    first = fit_records(RECORDS, "y", smoothing=hl.LogLinearGVF(), unsampled="synthetic", **OPTIONS)
    mixed = COVARIATES.sort_values("x")
    second = fit_records(
        pl.from_pandas(RECORDS.sample(frac=1, random_state=8)),
        "y",
        smoothing=hl.LogLinearGVF(),
        unsampled="synthetic",
        **{**OPTIONS, "covariates": pl.from_pandas(mixed)},
    )
    a, b = (result.areas.set_index("area") for result in (first, second))

    assert second.areas["area"].tolist() == mixed["district"].tolist()
    for column in ("direct", "estimate", "se", "lower", "n"):
        np.testing.assert_allclose(b[column].reindex(a.index), a[column], rtol=1e-9)


def test_what_happens_to_areas_is_chosen_and_said() -> None:
    """Unsampled areas refused, dropped or predicted; a single record without smoothing has no variance."""
    with pytest.raises(hl.DesignError, match=r'd14, d15 has none\. Use unsampled="synthetic"'):
        fit_records(RECORDS, "y", smoothing=hl.LogLinearGVF(), **OPTIONS)
    with pytest.raises(hl.DesignError, match="missing for areas d03"):
        fit_records(RECORDS, "y", unsampled="drop", **OPTIONS)
    dropped = fit_records(RECORDS, "y", smoothing=hl.LogLinearGVF(), unsampled="drop", **OPTIONS)
    assert len(dropped.data) == 14
    assert "Areas with covariates and no records, left out: d14, d15." in dropped.summary()
    raw = fit_records(RECORDS, "y", unsampled="synthetic", **OPTIONS)
    assert raw.smoothing is None
    assert raw.areas.set_index("area").loc["d03", "role"] == "unsampled"
    assert "no usable variance, predicted from the covariates: d03." in " ".join(raw.summary().split())
    assert "no usable variance" not in dropped.summary()
    few = COVARIATES[COVARIATES["district"] != "d00"]
    options = {**OPTIONS, "covariates": few}
    with pytest.raises(hl.DesignError, match="d00 is not among them"):
        fit_records(RECORDS, "y", unsampled="synthetic", **options)
    less = fit_records(RECORDS, "y", unsampled="synthetic", uncovered="drop", **options)
    assert "left out: d00" in less.summary()


def test_proportions_of_zero_reach_the_model_with_a_variance() -> None:
    """Areas in which no record is 1: smoothed by a design effect, on the arcsine scale by the effective size."""
    rare = RECORDS.assign(z=(RECORDS["y"] > 25).astype(int))
    options: dict[str, Any] = {**OPTIONS, "quantity": "proportion", "unsampled": "synthetic"}
    with pytest.raises(hl.DesignError, match="variance is 0 for areas"):
        fit_records(rare, "z", **options)
    smoothed = fit_records(rare, "z", smoothing=hl.DesignEffectGVF(), **options)
    arcsine = fit_records(
        rare, "z", smoothing=hl.DesignEffectGVF(), transformation=hl.ArcsineRoot("effective_size"), **options
    )
    zero = smoothed.direct.labels[smoothed.direct.role == "zero_variance"]
    for policy in (None, hl.LogLinearGVF()):
        with pytest.raises(hl.DesignError, match=rf"effective_size is missing for areas {zero[0]}, {zero[1]}"):
            fit_records(rare, "z", smoothing=policy, transformation=hl.ArcsineRoot("effective_size"), **options)
    chosen = fit_records(
        rare, "z", transformation=hl.ArcsineRoot("effective_size"), zero_variance="unsampled", **options
    )

    assert "no usable variance, predicted from the covariates: d" in chosen.summary()
    assert chosen.areas.set_index("area").loc[zero, "role"].eq("unsampled").all()
    assert len(zero) > 2
    assert (smoothed.areas.set_index("area").loc[zero, "sampling_variance"] > 0).all()
    assert (smoothed.areas.set_index("area").loc[zero, "role"] == "sampled").all()
    sizes = arcsine.data.set_index("district")["effective_size"]
    np.testing.assert_allclose(
        arcsine.fit.design.D[arcsine.fit.design.sampled],
        1 / (4 * sizes[arcsine.fit.design.areas[arcsine.fit.design.sampled]]),
        rtol=1e-13,
    )
    assert arcsine.areas["estimate"].between(0, 1).all()


def test_an_area_counted_in_full_keeps_its_estimate() -> None:
    """Its variance of 0 is never smoothed away; the model reports the estimate as it stands, once told so."""
    sizes = RECORDS.groupby("district").size().add(200).to_dict() | {"d05": int((RECORDS["district"] == "d05").sum())}
    options: dict[str, Any] = {"area": "district", "formula": "~ x", "covariates": COVARIATES, "population": sizes}
    options |= {"smoothing": hl.LogLinearGVF(), "unsampled": "synthetic"}
    with pytest.raises(hl.DesignError, match="variance is 0 for areas d05"):
        fit_records(RECORDS, "y", **options)
    row = fit_records(RECORDS, "y", zero_variance="direct", **options).areas.set_index("area").loc["d05"]

    assert row["estimate"] == pytest.approx(RECORDS.groupby("district")["y"].mean()["d05"], rel=1e-12)
    assert row["role"] == "direct"


def test_spatial_effects_take_their_matrix_by_label() -> None:
    """`area_effects` and `matrices` reach the fit, and stand in the result for its twin."""
    ring = np.roll(np.eye(16), 1, axis=1) / 2 + np.roll(np.eye(16), -1, axis=1) / 2
    W = pd.DataFrame(ring, AREAS, AREAS)
    result = fit_records(
        RECORDS,
        "y",
        smoothing=hl.LogLinearGVF(),
        unsampled="synthetic",
        area_effects=hl.SAR("W"),
        matrices={"W": W},
        **OPTIONS,
    )

    assert result.matrices["W"] is W
    assert result.spec.area_effects == hl.SAR("W")
    assert np.isfinite(result.areas["estimate"]).all()


@pytest.mark.parametrize("formula", ["y ~ x", "x", "log(estimate) ~ x", 3])
def test_the_left_side_is_the_direct_estimate(formula: Any) -> None:
    """Nothing or the word estimate; methods and policies are words of their lists, known before records are read."""
    with pytest.raises(hl.FormulaError, match="its left side is the direct estimate"):
        fit_records(RECORDS, "y", **{**OPTIONS, "formula": formula})
    with pytest.raises(hl.SpecError, match="must be an estimator of the Fay-Herriot model"):
        fit_records(None, "y", method="anova", **OPTIONS)
    with pytest.raises(hl.SpecError, match="`unsampled` is one of"):
        fit_records(None, "y", unsampled="keep", **OPTIONS)  # type: ignore[arg-type]


def test_the_summary_reads_from_survey_to_model() -> None:
    """Direct estimates, variance function, join, fit, in this order, at most 80 columns wide."""
    result = fit_records(RECORDS, "y", smoothing=hl.LogLinearGVF(), unsampled="synthetic", **OPTIONS)
    text = result.summary()
    at = [
        text.index(part)
        for part in (
            "Direct estimates: mean of y by district",
            "Sampling variances smoothed: log(variance) ~ log(n)",
            "predicted from the covariates: d14, d15.",
            "Fay-Herriot area-level model",
        )
    ]

    assert at == sorted(at)
    assert max(map(len, text.splitlines())) <= 80
    assert repr(result) == text
