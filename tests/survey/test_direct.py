"""Direct estimates and their design variances: enumerated samples, closed forms, R's packages survey and sae."""

from __future__ import annotations

import gzip
import json
from itertools import combinations, product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierlmm.errors import SpecError
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.indicators import HeadCount, PovertyGap

DATA = Path(__file__).resolve().parents[1] / "data"
R = json.loads((DATA / "survey_r.json").read_text(encoding="utf-8"))
SAE = json.loads((DATA / "survey_incomedata.json").read_text(encoding="utf-8"))
RECORDS = pd.read_csv(DATA / "survey_records.csv")
Y = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3])


def income() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The synthetic incomes and the sizes of provinces."""
    with gzip.open(DATA / "survey_incomedata.csv.gz") as stream:
        records = pd.read_csv(stream)
    return records, pd.read_csv(DATA / "survey_incomedata_sizes.csv")


def as_areas(samples: list[tuple[int, ...]], y: np.ndarray, weight: np.ndarray | None = None) -> pd.DataFrame:
    """All samples of a design as the areas of one table, each draw a record."""
    units = np.concatenate([np.array(sample, dtype=int) for sample in samples])
    frame = pd.DataFrame({"area": np.repeat(np.arange(len(samples)), [len(s) for s in samples]), "y": y[units]})
    return frame if weight is None else frame.assign(w=weight[units])


# --- all samples of small populations -----------------------------------------------------------------------------


def test_simple_random_sampling_without_replacement_is_unbiased_over_all_samples() -> None:
    """The mean, its variance (1 - n/N) S²/n and the estimate of it, over the 35 samples of 3 of 7."""
    samples = list(combinations(range(7), 3))
    direct = direct_estimates(as_areas(samples, Y), "y", area="area", population=dict.fromkeys(range(35), 7))

    assert direct.estimate.mean() == pytest.approx(Y.mean(), rel=1e-13)
    assert direct.variance.mean() == pytest.approx(np.var(direct.estimate), rel=1e-13)
    assert direct.variance.mean() == pytest.approx((1 - 3 / 7) * Y.var(ddof=1) / 3, rel=1e-13)


def test_simple_random_sampling_with_replacement_is_unbiased_over_all_samples() -> None:
    """Without population sizes the variance is s²/n, unbiased over the 7² ordered samples."""
    direct = direct_estimates(as_areas(list(product(range(7), repeat=2)), Y), "y", area="area")
    alone = direct.role == "zero_variance"  # the same unit twice

    assert alone.sum() == 7
    assert direct.estimate.mean() == pytest.approx(Y.mean(), rel=1e-13)
    assert direct.variance.mean() == pytest.approx(np.var(direct.estimate), rel=1e-13)


def test_hansen_hurwitz_is_unbiased_over_all_samples() -> None:
    """Three draws with unequal probabilities: Σ w y/N and its variance, weighted by the 64 probabilities."""
    p = np.array([0.1, 0.2, 0.3, 0.4])
    samples = list(product(range(4), repeat=3))
    chance = np.array([np.prod(p[list(sample)]) for sample in samples])
    records = as_areas(samples, Y, 1 / (3 * p))
    direct = direct_estimates(
        records, "y", area="area", weights="w", estimator="horvitz_thompson", population=dict.fromkeys(range(64), 4)
    )
    expected = chance @ direct.estimate

    assert expected == pytest.approx(Y[:4].mean(), rel=1e-13)
    assert chance @ direct.variance == pytest.approx(chance @ np.square(direct.estimate - expected), rel=1e-12)


def test_poisson_sampling_is_unbiased_over_all_samples() -> None:
    """The Horvitz-Thompson total and Σ w(w - 1) y² over the 16 subsets, of which the empty one estimates 0."""
    pi = np.array([0.2, 0.9, 0.5, 0.6])
    samples = [s for k in range(1, 5) for s in combinations(range(4), k)]
    chance = np.array([np.prod(np.where(np.isin(range(4), s), pi, 1 - pi)) for s in samples])
    records = as_areas(samples, Y, 1 / pi)
    direct = direct_estimates(records, "y", area="area", weights="w", quantity="total", variance="poisson")
    true = Y[:4].sum()

    assert chance @ direct.estimate == pytest.approx(true, rel=1e-13)
    spread = chance @ np.square(direct.estimate - true) + (1 - chance.sum()) * true**2
    assert chance @ direct.variance == pytest.approx(spread, rel=1e-12)


def test_clusters_drawn_with_replacement_are_unbiased_over_all_samples() -> None:
    """Two draws of whole clusters: the ultimate cluster variance of a total over the 9 ordered samples."""
    clusters, p = [[0, 1, 2], [3, 4], [5, 6]], np.array([0.5, 0.3, 0.2])
    parts, chance = [], []
    for k, sample in enumerate(product(range(3), repeat=2)):
        chance.append(np.prod(p[list(sample)]))
        parts += [(k, draw, Y[i], 1 / (2 * p[c])) for draw, c in enumerate(sample) for i in clusters[c]]
    records = pd.DataFrame(parts, columns=["area", "draw", "y", "w"])
    direct = direct_estimates(records, "y", area="area", weights="w", clusters="draw", quantity="total")

    assert chance @ direct.estimate == pytest.approx(Y.sum(), rel=1e-13)
    assert chance @ direct.variance == pytest.approx(chance @ np.square(direct.estimate - Y.sum()), rel=1e-12)


def test_stratified_sampling_of_fixed_size_is_unbiased_for_areas_across_strata() -> None:
    """Areas that cross two strata, 2 of 4 and 2 of 3 units drawn: totals over the 18 samples, by areas as domains."""
    area = np.array(["a", "a", "b", "b", "a", "b", "b"])
    found = []
    for sample in product(combinations(range(4), 2), combinations(range(4, 7), 2)):
        units = np.array([*sample[0], *sample[1]])
        records = pd.DataFrame({"y": Y[units], "area": area[units], "h": units >= 4, "w": np.repeat([2.0, 1.5], 2)})
        options: dict[str, Any] = {"quantity": "total", "variance": "fixed_size", "weights": "w", "strata": "h"}
        frame = direct_estimates(records, "y", area="area", **options).areas.set_index("area")
        found.append([*frame["estimate"].reindex(["a", "b"]).fillna(0), *frame["variance"].reindex(["a", "b"])])
    estimates, variances = np.hsplit(np.array(found), 2)
    variances = np.nan_to_num(variances)  # an area that was not drawn has an estimate of 0

    np.testing.assert_allclose(estimates.mean(axis=0), [Y[area == "a"].sum(), Y[area == "b"].sum()], rtol=1e-13)
    np.testing.assert_allclose(variances.mean(axis=0), estimates.var(axis=0), rtol=1e-12)


def test_hajeks_variance_of_unequal_probabilities_holds_over_all_samples() -> None:
    """5 of 10 units by rejective sampling (Hájek 1964), the design that the approximation is for: the 252 samples with
    their probabilities. The total is unbiased; its variance is met within 10 %, where the other two are far too
    large."""
    rng = np.random.default_rng(4)
    p = rng.uniform(0.2, 0.8, 10)
    y = rng.normal(10, 3, 10) * p
    samples = list(combinations(range(10), 5))
    chance = np.array([np.prod((p / (1 - p))[list(sample)]) for sample in samples])
    chance = chance / chance.sum()
    pi = np.array([chance[[k in sample for sample in samples]].sum() for k in range(10)])
    records = pd.DataFrame(
        {"area": np.repeat(range(252), 5), "y": y[np.ravel(samples)], "w": (1 / pi)[np.ravel(samples)]}
    )
    kinds: tuple[Any, ...] = ("fixed_size", "with_replacement", "poisson")
    found = [
        direct_estimates(records, "y", area="area", weights="w", quantity="total", variance=kind) for kind in kinds
    ]
    true = chance @ np.square(found[0].estimate - y.sum())

    assert chance @ found[0].estimate == pytest.approx(y.sum(), rel=1e-12)
    assert chance @ found[0].variance == pytest.approx(true, rel=0.1)
    assert chance @ found[1].variance > 1.5 * true
    assert chance @ found[2].variance > 4 * true


# --- other programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("direct_HT_weights_wor", {"weights": "weight", "variance": "poisson", "estimator": "horvitz_thompson"}),
        ("direct_SRS_wor", {}),
        ("direct_HT_weights_wr", {"weights": "weight", "estimator": "horvitz_thompson"}),
        ("direct_SRS_wr", {"population": None}),
        ("direct_poor_HT", {"weights": "weight", "variance": "poisson", "estimator": "horvitz_thompson"}),
    ],
)
def test_the_estimates_of_sae(case: str, options: dict[str, Any]) -> None:
    """sae 1.3, direct(), four variants and the poverty rate. Its variance with replacement and weights is that of one
    draw, n Σ (w y - Ŷ/n)²: it lacks the division by n - 1 of Hansen and Hurwitz, which the enumeration above needs."""
    records, sizes = income()
    variable = HeadCount("income", 6477.484) if case == "direct_poor_HT" else "income"
    options = {"population": sizes[["prov", "Nd"]], **options}
    direct = direct_estimates(records, variable, area="prov", **options)
    se = direct.se * np.sqrt(direct.n - 1) if case == "direct_HT_weights_wr" else direct.se

    assert direct.labels.tolist() == SAE[case]["Domain"]
    assert direct.n.tolist() == SAE[case]["SampSize"]
    np.testing.assert_allclose(direct.estimate, SAE[case]["Direct"], rtol=1e-12)
    np.testing.assert_allclose(se, SAE[case]["SD"], rtol=1e-12)


DESIGNS: dict[str, dict[str, Any]] = {
    "clusters": {"strata": "stratum", "clusters": "cluster"},
    "strata_only": {"strata": "stratum"},
    "elements": {"areas": "domains"},
    "area_strata": {},
    "area_clusters": {"clusters": "own"},
    "poisson": {"variance": "poisson"},
    "fpc": {"strata": "stratum", "variance": "fixed_size"},
}


@pytest.mark.parametrize("case", DESIGNS)
def test_the_estimates_of_survey(case: str) -> None:
    """R's survey 4.1.1: Hájek means, totals, design effects, degrees of freedom, limits of proportions."""
    records = RECORDS.assign(own=RECORDS["stratum"] + RECORDS["cluster"].astype(str))
    if case == "fpc":
        N = records["stratum"].map({"s1": 400, "s2": 300, "s3": 500, "s4": 700, "s5": 350, "s6": 900})
        records["weight"] = N / records.groupby("stratum")["y"].transform("size")
    options = {"area": "area", "weights": "weight", **DESIGNS[case]}
    mean = direct_estimates(records, "y", **options)
    total = direct_estimates(records, "y", quantity="total", **options)

    for result, name in ((mean, "mean"), (total, "total")):
        np.testing.assert_allclose(result.estimate, R[case][name], rtol=1e-12)
        np.testing.assert_allclose(result.se, R[case][f"{name}_se"], rtol=1e-12)
    if "deff" not in R[case]:
        return
    share = direct_estimates(records, "poor", quantity="proportion", **options)
    np.testing.assert_allclose(mean.design_effect, R[case]["deff"], rtol=1e-11)
    assert mean.df.tolist() == R[case]["df"]
    found = {"prop": share.estimate, "prop_se": share.se, "lower": share.lower, "upper": share.upper}
    for name, values in found.items():
        np.testing.assert_allclose(values[:4], R[case][name][:4], rtol=1e-11)
    assert share.role[4] == "zero_variance"
    assert share.interval.tolist() == ["korn_graubard"] * 4 + ["korn_graubard_one_sided"]


@pytest.mark.parametrize(("policy", "name"), [("centre", "lonely_adjust"), ("certainty", "lonely_certainty")])
def test_single_units_of_strata_as_survey_takes_them(policy: str, name: str) -> None:
    """R's survey.lonely.psu = "adjust" and "certainty", for a mean, whose terms have mean 0."""
    records = RECORDS[(RECORDS["stratum"] != "s2") | (RECORDS["cluster"] == 1)]
    direct = direct_estimates(
        records, "y", area="area", weights="weight", strata="stratum", clusters="cluster", single_psu=policy
    )

    np.testing.assert_allclose(direct.se, R[name]["mean_se"], rtol=1e-12)


# --- closed forms and limits --------------------------------------------------------------------------------------


def test_a_proportion_of_zero_has_a_one_sided_limit() -> None:
    """Clopper and Pearson (1934) at 0 of n: 1 - 0.05^(1/n), and its mirror image at n of n."""
    records = pd.DataFrame({"area": ["a"] * 20 + ["b"] * 20, "z": [0] * 20 + [1] * 20})
    frame = direct_estimates(records, "z", area="area", quantity="proportion").areas

    assert frame["lower"][0] == 0.0
    assert frame["upper"][1] == 1.0
    assert frame["upper"][0] == pytest.approx(1 - 0.05 ** (1 / 20), rel=1e-13)
    assert frame["lower"][1] == pytest.approx(0.05 ** (1 / 20), rel=1e-13)
    assert (frame["variance"] == 0).all()
    assert frame["design_effect"].isna().all()


def test_the_one_sided_limit_takes_the_design_effect_of_the_other_areas() -> None:
    """n* = n over the pooled design effect (here clusters of 5 equal values: 5 Σ-ratio), at the area's own df."""
    z = np.repeat([[0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]], 5)
    records = pd.DataFrame({"area": np.repeat(["a", "b", "c"], 20), "psu": np.repeat(range(12), 5), "z": z})
    direct = direct_estimates(records, "z", area="area", clusters="psu", quantity="proportion", level=0.9)
    from scipy.stats import t

    # v = s²/4 of four equal clusters, v_srs = p(1 - p)/19: the ratio is 19/3 in both areas.
    assert direct.pooled_design_effect == pytest.approx(19 / 3, rel=1e-12)
    size = 20 / (19 / 3) * (t.ppf(0.9, 19) / t.ppf(0.9, 3)) ** 2
    assert direct.upper[2] == pytest.approx(1 - 0.1 ** (1 / size), rel=1e-12)


def test_clusters_of_equal_shares_leave_the_limits_of_all_records() -> None:
    """A variance of 0 between clusters is an infinite effective size, at most n: Clopper and Pearson at 6 of 24."""
    records = pd.DataFrame({"area": "a", "psu": np.repeat(range(6), 4), "z": [1, 0, 0, 0] * 6})
    direct = direct_estimates(records, "z", area="area", clusters="psu", quantity="proportion")
    from scipy.stats import beta

    assert direct.role.tolist() == ["zero_variance"]
    assert direct.lower[0] == pytest.approx(beta.ppf(0.025, 6, 19), rel=1e-12)
    assert direct.upper[0] == pytest.approx(beta.ppf(0.975, 7, 18), rel=1e-12)


@pytest.mark.parametrize("quantity", ["mean", "proportion"])
def test_an_area_counted_in_full_has_no_sampling_error(quantity: Any) -> None:
    """n = N without replacement: variance 0 and limits at the estimate, of a single unit and of a share of 0, too; the
    design effect for other areas is theirs alone. As if with replacement, the same records are a sample."""
    records = pd.DataFrame(
        {"area": ["a"] * 4 + ["b"] * 3 + ["c"] + ["d"] * 8, "z": [0] * 4 + [1, 0, 1, 1] + [1, 0] * 4}
    )
    sizes = {"a": 4, "b": 3, "c": 1, "d": 80}
    direct = direct_estimates(records, "z", area="area", quantity=quantity, population=sizes)
    again = direct_estimates(
        records, "z", area="area", quantity=quantity, population=sizes, variance="with_replacement"
    )

    assert direct.role.tolist() == ["counted", "counted", "counted", "estimated"]
    assert direct.interval.tolist()[:3] == ["point"] * 3
    assert direct.variance[:3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(direct.lower[:3], direct.estimate[:3])
    np.testing.assert_array_equal(direct.upper[:3], direct.estimate[:3])
    assert direct.pooled_design_effect == pytest.approx(0.9, rel=1e-12)  # 1 - n/N of d
    assert any("without sampling error: areas a, b, c." in note for note in direct.notes)
    assert again.role.tolist() == ["zero_variance", "estimated", "single_unit", "estimated"]


def test_limits_of_proportions_cover() -> None:
    """Exact binomial coverage, n = 30: 95 % less at most the half tail that one-sided limits add, on a grid of p."""
    n = 30
    records = pd.DataFrame({"area": np.repeat(range(n + 1), n), "z": [k < x for x in range(n + 1) for k in range(n)]})
    direct = direct_estimates(records.astype({"z": int}), "z", area="area", quantity="proportion")
    p = np.linspace(0.001, 0.999, 999)
    chance = np.array([comb(n, x) * p**x * (1 - p) ** (n - x) for x in range(n + 1)])
    covered = (direct.lower[:, None] <= p) & (p <= direct.upper[:, None])

    assert (chance * covered).sum(axis=0).min() >= 0.925


def test_a_poverty_gap_is_the_mean_shortfall() -> None:
    """F_1 of Foster, Greer and Thorbecke by hand, and F_0 as a proportion with its limits."""
    records = pd.DataFrame({"area": ["a"] * 4, "x": [50.0, 80.0, 100.0, 300.0]})
    gap = direct_estimates(records, PovertyGap("x", 100), area="area")
    rate = direct_estimates(records, HeadCount("x", 100), area="area")

    assert gap.estimate[0] == pytest.approx((0.5 + 0.2) / 4, rel=1e-14)
    assert rate.estimate[0] == 0.5
    assert rate.plan.quantity == "proportion"
    assert gap.plan.quantity == "mean"


@given(st.integers(0, 10_000), st.sampled_from(["clusters", "strata_only", "area_strata", "fpc"]))
def test_units_of_measurement_and_row_order_do_not_matter(seed: int, case: str) -> None:
    """y -> 1e6 y + 3e6, weights times 1e-3 where only ratios count, rows permuted: 1e-9."""
    rng = np.random.default_rng(seed)
    scale = 1.0 if case == "fpc" else 1e-3
    changed = RECORDS.sample(frac=1, random_state=seed).assign(
        y=lambda d: 1e6 * d["y"] + 3e6, weight=lambda d: scale * d["weight"], noise=rng.normal(size=len(RECORDS))
    )
    first = direct_estimates(RECORDS, "y", area="area", weights="weight", **DESIGNS[case])
    second = direct_estimates(changed, "y", area="area", weights="weight", **DESIGNS[case])

    np.testing.assert_allclose(second.estimate, 1e6 * first.estimate + 3e6, rtol=1e-9)
    np.testing.assert_allclose(second.se, 1e6 * first.se, rtol=1e-9)
    np.testing.assert_allclose(second.design_effect, first.design_effect, rtol=1e-9)


def test_equal_values_have_exactly_no_variance() -> None:
    """Thirds of unequal weight: the variance is 0, not a rounding error, and the area is named."""
    records = pd.DataFrame({"area": [1] * 3 + [2] * 3, "y": [1 / 3] * 3 + [1.0, 2.0, 4.0], "w": [1.7, 2.3, 9.1] * 2})
    direct = direct_estimates(records, "y", area="area", weights="w")

    assert direct.variance[0] == 0.0
    assert direct.role.tolist() == ["zero_variance", "estimated"]
    assert any("variance is 0 in areas 1" in note for note in direct.notes)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"estimator": "horvitz_thompson"}, "needs the scale of the sample"),
        ({"estimator": "horvitz_thompson", "weights": "weight"}, "divides by the known population size"),
        ({"estimator": "hajek", "quantity": "total", "weights": "weight"}, "multiplies the mean by the known"),
        ({"variance": "poisson"}, "needs inclusion probabilities"),
        ({"variance": "fixed_size", "weights": "weight", "clusters": "cluster"}, "drawn together"),
        ({"quantity": "median"}, "`quantity` is one of 'mean', 'total', 'proportion'"),
        ({"single_psu": "certainty"}, "no strata are given"),
        ({"level": 95}, "lies between 0 and 1"),
        ({"weights": RECORDS["weight"]}, "`weights` is the name of a column"),
    ],
)
def test_choices_that_contradict_one_another_are_refused(options: dict[str, Any], match: str) -> None:
    """Before the records are read, with what to give instead."""
    with pytest.raises(SpecError, match=match):
        direct_estimates(RECORDS, "y", area="area", **options)


def test_a_poverty_line_is_a_positive_number() -> None:
    """HeadCount and PovertyGap refuse anything else."""
    with pytest.raises(SpecError, match="positive number"):
        HeadCount("income", 0)
    with pytest.raises(SpecError, match="name of a column, or"):
        direct_estimates(RECORDS, 3, area="area")  # type: ignore[arg-type]
