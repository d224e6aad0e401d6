"""What a benchmark refuses: every message names areas or groups, gives both numbers, and says what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from publication_cases import by_area, fitted, posterior, shares

import hierlmm as hl
from hierlmm.errors import DesignError, FitError

TOTALS = {"north": 12.6, "south": 12.3, "west": 11.9}


def regions(totals=None, weights=None, method="ratio", **options):
    """A benchmark of the regions with one thing wrong."""
    return hl.benchmark(
        fitted(), TOTALS if totals is None else totals, shares("region") if weights is None else weights, method,
        groups=by_area("region"), **options,
    )  # fmt: skip


def test_shares_that_do_not_add_up_to_one_are_refused_with_their_sum():
    """HOSTILE 40: shares of the country instead of the region, population sizes, a share that is missing."""
    with pytest.raises(DesignError, match=r"3 of 3 do not: north 0\.\d+, south .*\(over all areas 1\)"):
        regions(weights=shares())
    with pytest.raises(DesignError, match=r"3 of 3 do not: north \d{4}"):
        regions(weights="pop", data=by_area("pop").reset_index())
    short = shares("region")
    short.iloc[0] = 0.0
    with pytest.raises(DesignError, match=r'1 of 3 do not.*of="total"'):
        regions(weights=short)


def test_totals_in_another_unit_are_refused_with_both_numbers():
    """HOSTILE 40: a total a thousand times too large, per cent for proportions, a total of another sign."""
    for method in ("ratio", "difference", "raking", "optimal"):
        with pytest.raises(DesignError, match=r"within a factor of 2; 1 of 3 are not: north 12600 against 1\d\.\d+"):
            regions(TOTALS | {"north": 12600.0}, method=method)
        with pytest.raises(DesignError, match=r"factor of 1\.01"):
            regions(TOTALS, method=method, largest_factor=1.01)
    with pytest.raises(DesignError, match=r"north -12\.6 against"):
        regions(TOTALS | {"north": -12.6})


def test_methods_that_add_take_a_far_total_that_lies_within_the_error():
    """Differences about zero: a sum of 0.01 and a total of -0.05 are the same within their error."""
    data = pd.DataFrame({"area": range(12), "y": np.resize([1.0, -1.0, 0.5, -0.49], 12), "D": 1.0})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)
    w = pd.Series(1 / 12, data["area"])

    for method in ("difference", "optimal"):
        assert hl.benchmark(fit, -0.05, w, method).frame["estimate"].mean() == pytest.approx(-0.05, rel=1e-12)
    with pytest.raises(DesignError, match="factor of 2"):
        hl.benchmark(fit, -0.05, w, "ratio")


def test_labels_of_groups_that_do_not_match_are_refused():
    """Groups without a total, totals without a group, totals without labels, and too many or too few of them."""
    with pytest.raises(DesignError, match=r'1 of 3 have none: west.*unlisted="keep"'):
        regions({k: TOTALS[k] for k in ("north", "south")})
    with pytest.raises(DesignError, match="1 are not in it: east"):
        regions(TOTALS | {"east": 1.0})
    with pytest.raises(DesignError, match="1 are not in it: east"):
        regions(TOTALS | {"east": 1.0}, unlisted="keep")
    with pytest.raises(DesignError, match="one value for 3 groups"):
        regions(12.0)
    with pytest.raises(DesignError, match="3 values without labels for 3 groups"):
        regions([12.6, 12.3, 11.9])
    for nothing in (None, True):
        with pytest.raises(DesignError, match=f"matched by label.*found {nothing}"):
            hl.benchmark(fitted(), nothing, shares())
    with pytest.raises(DesignError, match="missing or infinite for west"):
        regions(TOTALS | {"west": float("nan")})
    with pytest.raises(DesignError, match="of the kind"):
        regions({1: 12.6, 2: 12.3, 3: 11.9})


def test_several_groupings_need_totals_by_name_that_agree():
    """Margins that contradict one another are refused with both numbers; a ratio has one grouping."""
    pop, region, kind = by_area("pop").astype(float), by_area("region"), by_area("type")
    theta = pd.Series(fitted().eblup, pop.index)
    totals = {"region": (pop * theta).groupby(region).sum(), "type": (pop * theta).groupby(kind).sum()}

    def over_both(totals, method="raking", by=(region, kind)):
        return hl.benchmark(fitted(), totals, pop, method, groups=list(by), of="total")

    with pytest.raises(DesignError, match=r"must agree; .* is \d+\.\d+, where the others imply \d+"):
        over_both(totals | {"type": 1.01 * totals["type"]})
    with pytest.raises(DesignError, match="mapping from the name of each"):
        over_both(totals["region"])
    with pytest.raises(DesignError, match="expected region, type, found region"):
        over_both({"region": totals["region"]})
    with pytest.raises(FitError, match="'raking'"):
        over_both(totals, "ratio")
    with pytest.raises(DesignError, match="known exactly or internal"):
        over_both(hl.EstimatedTotals(totals, se=totals))
    with pytest.raises(DesignError, match="name of its own"):
        over_both(totals, by=(region, region))


def test_internal_totals_need_direct_estimates():
    """Areas with a weight and none are named; so are estimates that were moved since."""
    with pytest.raises(DesignError, match="need a direct estimate of each area; none for a"):
        hl.benchmark(fitted(), "internal", shares())
    with pytest.raises(DesignError, match='"internal"'):
        hl.benchmark(fitted(), "direct", shares())
    sampled = by_area("pop").where(by_area("y").notna(), 0.0)
    once = hl.benchmark(fitted(), 12.5, shares())
    with pytest.raises(FitError, match="Benchmark the fit itself"):
        hl.benchmark(once, "internal", sampled / sampled.sum())


def test_errors_of_totals_must_be_errors():
    """One of se and covariance, labelled, no negative variance."""
    wrong = pd.DataFrame(np.full((3, 3), 0.1) - 0.2 * np.eye(3), sorted(TOTALS), sorted(TOTALS))
    for given, message in (
        ({"se": None}, "one of the two; found neither"),
        ({"se": 0.1, "covariance": wrong}, "found both"),
        ({"se": {"north": 0.1, "south": -0.1, "west": 0.1}}, "negative for south"),
        ({"se": {"north": 0.1}}, "2 of 3 have none"),
        ({"covariance": wrong}, r"smallest is -0\.2"),
        ({"covariance": wrong.drop(index="west")}, "1 of 3 have none: west"),
        ({"covariance": wrong.to_numpy()}, "DataFrame labelled"),
    ):
        with pytest.raises(DesignError, match=message):
            regions(hl.EstimatedTotals(TOTALS, **given))


def test_estimates_that_a_factor_cannot_carry_to_the_totals():
    """Estimates of both signs, draws whose sum is negative, structural zeros that no factor fills."""
    data = pd.DataFrame({"area": list("abcd"), "y": [1.0, 3.0, -0.5, 2.0], "D": [0.1, 0.2, 0.1, 0.2]})
    spec = hl.fay_herriot("y ~ 1", sampling_variance="D", area="area")
    fit = hl.fit(spec, data)
    names = data["area"]
    g, h = pd.Series(list("qppq"), names, name="g"), pd.Series(list("rrss"), names, name="h")
    sums = {"g": {"p": 2.5, "q": 3.0}, "h": {"r": 4.0, "s": 1.5}}
    with pytest.raises(FitError, match=r"estimates above 0.*'difference'"):
        hl.benchmark(fit, sums, 1.0, "raking", groups=[g, h], of="total")
    wide = hl.posterior(spec, data.assign(D=4.0), draws=2000, seed=1)
    with pytest.raises(FitError, match=r"a factor above 0.*\d+ of 2000 draws"):
        hl.benchmark(wide, float(wide.areas["estimate"].mean()), pd.Series(0.25, names), "ratio")
    positive = hl.fit(spec, data.assign(y=[1.0, 3.0, 2.0, 2.5]))
    start = pd.Series(positive.eblup, names)
    apart = pd.Series(list("prss"), names, name="k")
    # a is part of q and larger than it
    impossible = {"g": {"p": start.sum() - 2.0, "q": 2.0}, "k": {"p": 3.0, "r": 1.0, "s": start.sum() - 4.0}}
    with pytest.raises(FitError, match="some factors above 0 can meet"):
        hl.benchmark(positive, impossible, 1.0, "raking", groups=[g, apart], of="total", largest_factor=50)


def test_options_that_do_not_exist_are_refused():
    """Methods, losses, errors, factors, seeds; bootstraps of what is no fit."""
    for options, message in (
        ({"method": "rake"}, "`method` is one of"),
        ({"of": "share"}, "`of` is 'mean' or 'total'"),
        ({"unlisted": "drop"}, "`unlisted` is"),
        ({"loss": "mse"}, "method 'optimal'"),
        ({"mse": "jackknife"}, "`mse` is one of"),
        ({"largest_factor": 0.5}, "1 or more"),
        ({"level": 0}, "level"),
        ({"mse": "bootstrap"}, "seed"),
        ({"mse": "bootstrap", "seed": 1, "replicates": 0}, "replicates"),
    ):
        with pytest.raises(FitError, match=message):
            regions(**options)
    with pytest.raises(FitError, match="found AreaPosterior"):
        hl.benchmark(posterior(), 12.5, shares(), mse="bootstrap", seed=1)
    with pytest.raises(FitError, match="seed"):
        hl.benchmark(posterior(), hl.EstimatedTotals(12.5, se=0.1), shares())
    with pytest.raises(DesignError, match="above 0 for each area; not for"):
        regions(method="optimal", loss=0 * shares())
    with pytest.raises(FitError, match="Only a posterior computed with draws"):
        _ = hl.benchmark(fitted(), 12.5, shares()).draws
