"""Synthetic and composite estimates: those of sae, and their sampling variance by a derived variable."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hierlmm.errors import DesignError, SpecError
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.synthetic import composite_estimates, synthetic_estimates

DATA = Path(__file__).resolve().parents[1] / "data"
SAE = json.loads((DATA / "survey_incomedata.json").read_text(encoding="utf-8"))
RECORDS = pd.read_csv(DATA / "survey_records.csv")
COUNTS = pd.DataFrame({"area": ["Ault", "Brim", "Cole", "Dene"], "s1": [50, 20, 0, 90], "s2": [60, 10, 40, 80]}).assign(
    s3=[90, 75, 80, 95], s4=[55, 66, 77, 88], s5=[99, 88, 77, 66], s6=[70, 71, 72, 73]
)


@pytest.fixture(scope="module")
def income() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records, and sizes of provinces with counts by education, columns named by its codes as text."""
    with gzip.open(DATA / "survey_incomedata.csv.gz") as stream:
        records = pd.read_csv(stream)
    sizes = pd.read_csv(DATA / "survey_incomedata_sizes.csv")
    return records, sizes.rename(columns={f"educ{k}": str(k) for k in range(4)})


@pytest.mark.parametrize("delta", [0.5, 1, 1.5, 2])
def test_the_synthetic_and_composite_estimates_of_sae(income: tuple[pd.DataFrame, pd.DataFrame], delta: float) -> None:
    """sae 1.3, pssynt() by education and ssd() for four deltas."""
    records, sizes = income
    direct = direct_estimates(
        records, "income", area="prov", weights="weight", estimator="horvitz_thompson", population=sizes[["prov", "Nd"]]
    )
    synthetic = synthetic_estimates(
        records,
        "income",
        poststrata="educ",
        counts=sizes.drop(columns="Nd"),
        area="prov",
        weights="weight",
        estimator="horvitz_thompson",
    )
    composite = composite_estimates(direct, synthetic, delta=delta)

    np.testing.assert_allclose(synthetic.estimate, SAE["pssynt_educ"]["PsSynthetic"], rtol=1e-12)
    np.testing.assert_allclose(composite.weight, SAE[f"ssd_delta{delta:g}"]["CompWeight"], rtol=1e-12)
    np.testing.assert_allclose(composite.estimate, SAE[f"ssd_delta{delta:g}"]["ssd"], rtol=1e-12)


@pytest.mark.parametrize("estimator", ["hajek", "horvitz_thompson"])
@pytest.mark.parametrize("design", [{}, {"strata": "half", "clusters": "psu"}])
def test_the_sampling_variance_is_that_of_a_derived_total(estimator: Any, design: dict[str, str]) -> None:
    """θ̂ = Σ_g a_g ȳ_g has the terms w a_g (y - ȳ_g)/Σ_g w, or w a_g y/N_g: the total of a variable made from them."""
    records = RECORDS.assign(psu=RECORDS["stratum"] + RECORDS["cluster"].astype(str), half=RECORDS["cluster"] > 2)
    synthetic = synthetic_estimates(
        records, "y", poststrata="stratum", counts=COUNTS, area="area", weights="weight", estimator=estimator, **design
    )
    N = COUNTS.set_index("area")
    share = N.div(N.sum(axis=1), axis=0)
    group = records["stratum"]
    mean = (records["weight"] * records["y"]).groupby(group).sum() / records["weight"].groupby(group).sum()
    for k, area in enumerate(N.index):
        if estimator == "hajek":
            own = (records["y"] - group.map(mean)) / group.map(records["weight"].groupby(group).sum())
        else:
            own = records["y"] / group.map(N.sum())
        derived = records.assign(one=1, z=own * group.map(share.loc[area]))
        options: dict[str, Any] = {"weights": "weight", "quantity": "total", "areas": "domains", **design}
        total = direct_estimates(derived, "z", area="one", **options)
        assert synthetic.variance[k] == pytest.approx(total.variance[0], rel=1e-10)
        if estimator == "horvitz_thompson":
            assert synthetic.estimate[k] == pytest.approx(total.estimate[0], rel=1e-12)
        else:
            assert synthetic.estimate[k] == pytest.approx(share.loc[area] @ mean, rel=1e-12)


def test_counts_in_other_tables_and_orders_give_the_same() -> None:
    """polars, columns and rows in another order: by name and label."""
    options: dict[str, Any] = {"poststrata": "stratum", "area": "area", "weights": "weight"}
    first = synthetic_estimates(RECORDS, "y", counts=COUNTS, **options)
    other = COUNTS[["s6", "area", "s1", "s2", "s5", "s4", "s3"]].iloc[::-1]
    second = synthetic_estimates(pl.from_pandas(RECORDS), "y", counts=pl.from_pandas(other), **options)

    assert second.labels.tolist() == COUNTS["area"].tolist()[::-1]
    np.testing.assert_allclose(second.estimate[::-1], first.estimate, rtol=1e-14)
    np.testing.assert_allclose(second.variance[::-1], first.variance, rtol=1e-12)
    assert first.poststratum_means["poststratum"].tolist() == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert "bias" in first.summary()


def test_an_area_without_records_gets_the_synthetic_mean() -> None:
    """The weight on the direct estimate is 0 of 0 units; areas of the sample without counts are refused."""
    synthetic = synthetic_estimates(
        RECORDS, "y", poststrata="stratum", counts=COUNTS.assign(s3=10_000), area="area", weights="weight"
    )
    some = RECORDS[RECORDS["area"].isin(["Ault", "Cole"])]
    composite = composite_estimates(direct_estimates(some, "y", area="area", weights="weight"), synthetic)

    assert composite.weight[[1, 3]].tolist() == [0.0, 0.0]
    assert composite.estimate[1] == synthetic.estimate[1]
    assert np.isnan(composite.direct[1])
    assert "2 have none" in composite.summary()
    with pytest.raises(DesignError, match="must have a synthetic one; Esk has none"):
        composite_estimates(direct_estimates(RECORDS, "y", area="area", weights="weight"), synthetic)


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        (COUNTS.drop(columns="s4"), "s4 of stratum has none"),
        (COUNTS.assign(s7=5), "s7 has no complete record, and counts in areas Ault, Brim, Cole, Dene"),
        (COUNTS.assign(s4=[1.0, np.nan, 2, -3]), "in columns s4 are, for areas Brim, Dene"),
        (COUNTS[["area"]], "they have area alone"),
        (COUNTS.assign(area="Ault"), "Ault stands more than once"),
        (COUNTS.drop(columns="area"), "of the population counts are in one of its columns; area is missing"),
        (COUNTS.assign(**{f"s{k}": 0 for k in range(1, 7)}), "0 throughout for areas Ault"),
        (COUNTS.assign(s1=["a", "b", "c", "d"]), "Population counts must be numeric; column s1 holds text"),
        (COUNTS.assign(**{"s3 ": 1}), None),
        (COUNTS.assign(**{f"s{k}": 1 for k in range(1, 7)}), "fewer in areas s1"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts: pd.DataFrame, match: str | None) -> None:
    """By post-stratum and area; a column that differs by a blank alone stands for the same post-stratum once."""
    options: dict[str, Any] = {"poststrata": "stratum", "area": "area", "weights": "weight"}
    if match is None:
        match = "s3 and s3  are one name"
    with pytest.raises(DesignError, match=match):
        synthetic_estimates(RECORDS, "y", counts=counts, **options)


def test_a_poststratum_within_one_unit_takes_the_variance_away() -> None:
    """A post-stratum of one record leaves a residual of 0: nan for it and for areas with people in it, and a note."""
    records = RECORDS.assign(stratum=RECORDS["stratum"].where(RECORDS.index != 0, "s9"))
    counts = COUNTS.assign(s9=[5, 0, 0, 7])
    synthetic = synthetic_estimates(records, "y", poststrata="stratum", counts=counts, area="area", weights="weight")

    assert np.isnan(synthetic.variance).tolist() == [True, False, False, True]
    assert any("single primary sampling unit, or in a stratum of one, s9" in note for note in synthetic.notes)


@pytest.mark.parametrize("policy", ["missing", "certainty", "centre"])
@pytest.mark.parametrize("estimator", ["hajek", "horvitz_thompson"])
def test_strata_of_one_unit_count_as_in_direct_estimates(policy: Any, estimator: Any) -> None:
    """Post-strata are domains of the sample: their variances are those of direct estimates. "missing" takes it away
    from the post-strata in the lonely unit alone, and from the areas with people in these."""
    rng = np.random.default_rng(6)
    records = pd.DataFrame({"h": np.repeat([0, 1, 1, 1, 2, 2], 30), "c": np.repeat(range(6), 30)})
    records = records.assign(g=rng.choice(list("ABC"), 180), w=rng.uniform(2, 9, 180), y=rng.normal(5, 1, 180))
    records = records[(records["h"] > 0) | (records["g"] != "C")]
    counts = pd.DataFrame({"area": ["p", "q"], "A": [500, 0], "B": [200, 0], "C": [100, 900]})
    options: dict[str, Any] = {"weights": "w", "strata": "h", "clusters": "c", "single_psu": policy}
    synthetic = synthetic_estimates(
        records, "y", poststrata="g", counts=counts, area="area", estimator=estimator, **options
    )
    sizes = {"A": 500, "B": 200, "C": 1000}
    direct = direct_estimates(records, "y", area="g", estimator=estimator, population=sizes, **options)

    np.testing.assert_allclose(synthetic.group_variance, direct.variance, rtol=1e-12)
    assert synthetic.variance[1] == pytest.approx(direct.variance[2], rel=1e-12)
    assert np.isnan(synthetic.variance[0]) == (policy == "missing")
    assert any("in a stratum of one, A, B:" in note for note in synthetic.notes) == (policy == "missing")


def test_composites_of_different_things_are_refused() -> None:
    """Another variable, totals, no weights, and a δ that is no positive number."""
    synthetic = synthetic_estimates(RECORDS, "y", poststrata="stratum", counts=COUNTS, area="area", weights="weight")
    direct = direct_estimates(RECORDS[RECORDS["area"] == "Ault"], "y", area="area", weights="weight")
    with pytest.raises(SpecError, match="`delta` is a positive number"):
        composite_estimates(direct, synthetic, delta=0)
    with pytest.raises(SpecError, match="in this order; found SyntheticEstimates and DirectEstimates"):
        composite_estimates(synthetic, direct)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="Estimate the same mean twice"):
        composite_estimates(direct_estimates(RECORDS, "poor", area="area", weights="weight"), synthetic)
    with pytest.raises(SpecError, match="made without any"):
        composite_estimates(direct_estimates(RECORDS, "y", area="area"), synthetic)
