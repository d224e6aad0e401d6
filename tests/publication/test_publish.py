"""Rules of publication: statuses written by hand, proportions, offices' own functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from publication_cases import by_area, fitted, posterior, shares, table

import hierlmm as hl
from hierlmm.errors import DesignError, FitError

PUBLISH, CAUTION, SUPPRESS = "publish", "publish with caution", "suppress"


def measured(**columns) -> pd.DataFrame:
    """A frame as rules are given, with what a test sets and nothing else amiss."""
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame({"area": range(n), "estimate": 0.5, "se": 0.01, "role": "sampled"})
    blank = dict.fromkeys(["cv", "lower", "upper", "width", "relative_width"], 0.0)
    return frame.assign(**blank, effective_size=np.nan, degrees_of_freedom=np.nan).assign(**columns)


@pytest.mark.parametrize(
    ("rules", "columns", "expected"),
    [
        ({}, {"se": [0.0825, 0.0826, 0.1665, 0.1666]}, [PUBLISH, CAUTION, CAUTION, SUPPRESS]),
        ({"cv": (0.1, 0.1)}, {"se": [0.05, 0.051]}, [PUBLISH, SUPPRESS]),
        ({"cv": None, "width": (0.05, 0.3)}, {"width": [0.05, 0.06, 0.31]}, [PUBLISH, CAUTION, SUPPRESS]),
        ({"cv": None, "relative_width": (1.0, 1.3)}, {"relative_width": [1.0, 1.2, 1.4]}, [PUBLISH, CAUTION, SUPPRESS]),
        ({"effective_size": (30, 10)}, {"effective_size": [30.0, 29.9, 9.0]}, [PUBLISH, CAUTION, SUPPRESS]),
        ({"degrees_of_freedom": (8, 0)}, {"degrees_of_freedom": [8.0, 7.0]}, [PUBLISH, CAUTION]),
        ({"effective_size": (30, 10)}, {"effective_size": [np.nan]}, [SUPPRESS]),
        ({"unsampled": SUPPRESS}, {"role": ["sampled", "unsampled", "direct"]}, [PUBLISH, SUPPRESS, PUBLISH]),
        ({}, {"role": ["unsampled"]}, [CAUTION]),
        ({}, {"estimate": [0.0, np.nan, 0.5], "se": [0.1, 0.1, np.nan]}, [SUPPRESS] * 3),
        ({"undefined_cv": CAUTION}, {"estimate": [0.0, -0.5]}, [CAUTION, PUBLISH]),
        ({"cv": None, "relative_width": [1.0, 1.3]}, {"estimate": [0.0], "relative_width": [np.nan]}, [SUPPRESS]),
    ],
)
def test_the_strictest_rule_holds(rules, columns, expected):
    """Thresholds include their limit; a reason stands wherever an area is held back."""
    got = hl.PublicationRules(**rules)(measured(**columns))

    assert list(got["status"]) == expected
    assert [bool(reason) for reason in got["reasons"]] == [status != PUBLISH for status in expected]


def test_every_reason_is_given_with_the_number_and_the_limit():
    """Two rules broken at once."""
    rules = hl.PublicationRules(width=(0.1, 0.2), effective_size=(30, 10))

    got = rules(measured(se=[0.2], width=[0.3], effective_size=[12.0]))

    assert got["reasons"].item() == (
        "cv 0.4 above 0.333; interval width 0.3 above 0.2; effective size 12 below 30"
    )


def test_proportions_near_zero_and_one_are_judged_alike():
    """The cv of the smaller of p and 1 − p does not change when p is turned over, and undefined ones are named."""
    p, se = np.array([0.02, 0.98, 0.5, 0.0, 1.0]), np.full(5, 0.004)

    judged = {
        of: hl.PublicationRules(cv_of=of)(measured(estimate=p, se=se))["status"].tolist()
        for of in ("estimate", "complement", "smaller")
    }

    assert judged["estimate"] == [CAUTION, PUBLISH, PUBLISH, SUPPRESS, PUBLISH]
    assert judged["complement"] == [PUBLISH, CAUTION, PUBLISH, PUBLISH, SUPPRESS]
    assert judged["smaller"] == [CAUTION, CAUTION, PUBLISH, SUPPRESS, SUPPRESS]
    reasons = hl.PublicationRules(cv_of="smaller")(measured(estimate=p, se=se))["reasons"]
    assert reasons[3] == "cv undefined, the share is 0"
    with pytest.raises(DesignError, match=r"between 0 and 1; found 12\.0 for 0\..*100"):
        hl.PublicationRules(cv_of="smaller")(measured(estimate=[12.0, 0.3]))


def test_counts_stand_before_and_after_the_model():
    """Direct estimates are judged by their own cv; the areas without one count as suppressed."""
    fit, data = fitted(), table()
    rules = hl.PublicationRules(cv=(0.05, 0.08))

    got = hl.publish(fit, rules)

    direct_cv = np.sqrt(data["D"]) / data["y"].abs()
    assert list(got.counts["status"]) == [PUBLISH, CAUTION, SUPPRESS]
    known = direct_cv.notna()
    assert list(got.counts["direct"]) == [
        int((direct_cv <= 0.05).sum()), int(((direct_cv > 0.05) & (direct_cv <= 0.08)).sum()),
        int((direct_cv > 0.08).sum() + (~known).sum()),
    ]  # fmt: skip
    assert got.counts[["direct", "model"]].sum().tolist() == [24, 24]
    assert (got.frame.loc[~known, "direct_reasons"].str.startswith("no estimate")).all()
    assert (got.frame.loc[~known, "status"] != PUBLISH).all()
    for column in ("estimate", "lower", "upper"):
        assert_allclose(got.frame[column], fit.areas[column], rtol=1e-13)
    assert list(got.frame["area"]) == list(data["area"])


def test_a_suppressed_estimate_leaves_no_number_in_the_table():
    """The table that goes out keeps areas, order and status."""
    got = hl.publish(posterior(), hl.PublicationRules(cv=(0.04, 0.06)))

    held = got.table["status"] == SUPPRESS
    assert held.any()
    assert got.table.loc[held, ["estimate", "se", "cv", "lower", "upper"]].isna().all(axis=None)
    assert got.table.loc[~held, "estimate"].equals(got.frame.loc[~held, "estimate"])
    assert_allclose(got.frame["lower"], posterior().areas["lower"], rtol=1e-10)


def test_sizes_and_degrees_of_freedom_come_by_label():
    """From a shuffled table; rules that ask for what is not given say so."""
    rules = hl.PublicationRules(cv=None, effective_size=(200, 100), degrees_of_freedom=(30, 8))
    data = table().assign(df=lambda d: d["pop"] // 10).sample(frac=1, random_state=2)

    got = hl.publish(fitted(), rules, effective_size="pop", degrees_of_freedom="df", data=data).frame

    assert list(got["effective_size"]) == list(table()["pop"])
    assert list(got["degrees_of_freedom"]) == list(table()["pop"] // 10)
    with pytest.raises(FitError, match="ask for `effective_size` and none was given"):
        hl.publish(fitted(), rules)
    with pytest.raises(DesignError, match="1 of 24 have none"):
        hl.publish(fitted(), rules, effective_size=by_area("pop").iloc[1:], degrees_of_freedom="df", data=data)


def test_an_office_may_bring_a_function_of_its_own():
    """NCHS (Parker et al. 2017): width 0.30 or more is suppressed, 0.05 or less published, between by 130 per cent."""

    def nchs(frame: pd.DataFrame) -> np.ndarray:
        wide = (frame["width"] >= 0.3) | ((frame["width"] > 0.05) & (frame["relative_width"] > 1.3))
        return np.where(wide | frame["estimate"].isna(), SUPPRESS, PUBLISH)

    se = np.array([0.1, 0.05, 0.02, 0.01])
    data = pd.DataFrame({"area": list("abcd"), "y": [0.5, 0.5, 0.04, 0.01], "D": se**2})
    fit = hl.fit(hl.fay_herriot("y ~ 1", sampling_variance="D", area="area"), data)

    got = hl.publish(fit, nchs)

    # widths 0.39, 0.20, 0.078 (1.96 of the estimate) and 0.039
    assert list(got.frame["direct_status"]) == [SUPPRESS, PUBLISH, SUPPRESS, PUBLISH]
    assert got.frame["direct_reasons"][0] == "by the office's rules"
    assert got.rules is nchs
    with_reasons = hl.publish(fit, lambda f: pd.DataFrame({"status": CAUTION, "reasons": "new"}, f.index[::-1]))
    assert (with_reasons.frame["reasons"] == "new").all()


def test_what_has_no_estimate_is_suppressed_whatever_the_rules_return():
    """Direct estimates of areas without a sample, by a function that compares and so lets nan pass."""
    got = hl.publish(fitted(), lambda frame: np.where(frame["cv"] > 0.5, SUPPRESS, PUBLISH))

    lacking = table()["y"].isna().to_numpy()
    assert set(got.frame.loc[lacking, "direct_status"]) == {SUPPRESS}
    assert set(got.frame.loc[lacking, "direct_reasons"]) == {"no estimate"}
    assert got.counts["direct"].tolist() == [22, 0, 2]


def test_a_variance_estimated_as_zero_is_no_precision():
    """All of 3 and none of 5: the direct shares have an estimated variance of 0, and no cv for that."""
    data = pd.DataFrame({"unit": list("abcdef"), "y": [3, 0, 4, 6, 5, 2], "n": [3, 5, 9, 12, 8, 7]})
    spec = hl.compound("y ~ 1", unit="unit", sampling=hl.BinomialSampling(trials="n"))

    got = hl.publish(hl.posterior(spec, data, draws=1000, seed=1)).frame

    assert list(got["direct_status"][:2]) == [SUPPRESS] * 2
    assert got["direct_reasons"].str.startswith("no standard error").tolist() == [True, True] + [False] * 4
    assert (got["status"] != SUPPRESS).any()


def test_a_larger_area_has_the_role_that_all_its_parts_share():
    """The model alone where no part is sampled, known where each is; else sampled, and no rule on areas without."""
    groups = pd.Series("other", table()["area"])
    groups.iloc[[3, 17]], groups.iloc[[5]], groups.iloc[0] = "none", "known", "one"
    some = groups.replace({"none": "other"})

    roles, mixed = (hl.aggregate(fitted(), by=by, weights=1.0).estimates for by in (groups, some))
    direct = hl.publish(hl.aggregate(fitted(), by=groups, weights=1.0)).frame.set_index("area")["direct_status"]

    assert dict(zip(roles.areas, roles.role, strict=True)) == {
        "known": "direct", "none": "unsampled", "one": "sampled", "other": "sampled"
    }  # fmt: skip
    assert dict(zip(mixed.areas, mixed.role, strict=True))["other"] == "sampled"
    assert direct["known"] == PUBLISH


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (lambda frame: ["ok"] * len(frame), "the rules gave ok for"),
        (lambda frame: [PUBLISH] * 3, "list with 3 values"),
        (lambda frame: None, "NoneType"),
        (lambda frame: pd.Series([PUBLISH] * len(frame), index=frame["area"]), "Series with 24 values"),
        (lambda frame: frame[["area"]], "column `status`"),
        ("strict", "PublicationRules"),
    ],
)
def test_rules_that_return_no_statuses_are_refused(rules, message):
    """An office's function is checked before anything is published by it."""
    with pytest.raises(FitError, match=message):
        hl.publish(fitted(), rules)


@pytest.mark.parametrize(
    "wrong",
    [{"cv": (0.3, 0.2)}, {"cv": 0.2}, {"effective_size": (10, 30)}, {"width": (-1, 1)}, {"cv_of": "both"},
     {"unsampled": "hide"}, {"undefined_cv": None}, {"cv": (0.1, float("nan"))}, {"cv": (16.5, 33.3)},
     {"relative_width": (130, 160)}],
)  # fmt: skip
def test_thresholds_that_contradict_themselves_are_refused(wrong):
    """Pairs in the wrong order, no pairs, unknown words."""
    with pytest.raises(FitError, match=next(iter(wrong))):
        hl.PublicationRules(**wrong)


def test_benchmarked_and_aggregated_estimates_are_published_with_their_own_errors():
    """The table repeats estimate, se and limits of the step before."""
    for step in (
        hl.benchmark(fitted(), 12.5, shares()),
        hl.benchmark(posterior(), 12.5, shares(), "difference"),
        hl.aggregate(posterior(), by="region", weights="pop", data=table()),
    ):
        got = hl.publish(step).frame

        for column in ("estimate", "se", "lower", "upper"):
            assert_allclose(got[column], step.frame[column], rtol=1e-12, err_msg=column)


def test_a_publication_says_what_is_held_back_in_80_columns():
    """Counts first, then the areas with a reason; none where all may be published."""
    text = repr(hl.publish(fitted(), hl.PublicationRules(cv=(0.04, 0.06))))
    free = repr(hl.publish(fitted(), hl.PublicationRules(cv=None, unsampled=PUBLISH)))

    assert "suppress" in text
    assert "cv 0.0" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Every area may be published." in free
