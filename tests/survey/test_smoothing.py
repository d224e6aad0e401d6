"""Generalised variance functions: closed forms, exact recovery, policies for variances that no model can use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from hierlmm.errors import DesignError, SpecError
from hierlmm.survey.direct import direct_estimates
from hierlmm.survey.gvf import DesignEffectGVF, LogLinearGVF
from hierlmm.survey.smoothing import smooth_variances

RNG = np.random.default_rng(7)
N = RNG.integers(5, 200, 40).astype(float)
NOISE = RNG.normal(0, 0.4, 40)
DIRECT = pd.DataFrame(
    {"area": np.arange(40), "estimate": RNG.normal(50, 5, 40), "n": N, "variance": 80 / N * np.exp(NOISE)}
)
X = np.column_stack([np.ones(40), np.log(N)])


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Fitted values and residuals of log variance on log n, by the normal equations."""
    z = np.log(DIRECT["variance"].to_numpy())
    fitted = X @ np.linalg.solve(X.T @ X, X.T @ z)
    return fitted, z - fitted


@pytest.mark.parametrize("correction", ["smearing", "lognormal", "ratio"])
def test_the_way_back_from_the_logarithm(correction: Any) -> None:
    """exp(fitted) times the mean of exp(residual), exp(s²/2), or what makes the sums equal."""
    fitted, residual = by_hand()
    factor = {
        "smearing": np.exp(residual).mean(),
        "lognormal": np.exp(residual @ residual / 38 / 2),
        "ratio": DIRECT["variance"].sum() / np.exp(fitted).sum(),
    }[correction]
    result = smooth_variances(DIRECT, LogLinearGVF(correction=correction))

    np.testing.assert_allclose(result.smoothed, factor * np.exp(fitted), rtol=1e-11)
    assert result.r_squared == pytest.approx(1 - residual.var() / np.log(DIRECT["variance"]).var(ddof=0), rel=1e-11)
    assert result.ratio_of_sums == pytest.approx(DIRECT["variance"].sum() / result.smoothed.sum(), rel=1e-13)
    if correction == "ratio":
        assert result.ratio_of_sums == pytest.approx(1, rel=1e-12)


def test_a_function_without_error_is_recovered() -> None:
    """v = 3 n^-0.8 x^0.5: all smoothed variances are those given, R² is 1 and the correction 1; a covariate is read."""
    exact = DIRECT.assign(x=np.exp(NOISE), variance=3 * N**-0.8 * np.exp(0.5 * NOISE))
    result = smooth_variances(exact, LogLinearGVF("log(variance) ~ log(n) + log(x)"))

    np.testing.assert_allclose(result.variance, exact["variance"], rtol=1e-12)
    np.testing.assert_allclose(result.coefficients["estimate"], [np.log(3), -0.8, 0.5], rtol=1e-11)
    assert result.r_squared == pytest.approx(1, rel=1e-12)
    assert result.diagnostics["correction"] == pytest.approx(1, rel=1e-12)


def test_relvariances_are_multiplied_back() -> None:
    """v/y² = 4/n without error: v comes back."""
    exact = DIRECT.assign(variance=4 / N * DIRECT["estimate"] ** 2)
    result = smooth_variances(exact, LogLinearGVF("log(relvariance) ~ log(n)"))

    np.testing.assert_allclose(result.smoothed, exact["variance"], rtol=1e-12)
    with pytest.raises(DesignError, match=r"is 0 for areas 3\. Model log\(variance\)"):
        smooth_variances(
            exact.assign(estimate=exact["estimate"].where(exact["area"] != 3, 0.0)),
            LogLinearGVF("log(relvariance) ~ log(n)"),
        )


def test_units_and_row_order_do_not_matter() -> None:
    """Variances times 1e-12 are smoothed to 1e-12 times as much; rows permuted, the same by area; polars, the same."""
    first = smooth_variances(DIRECT)
    small = smooth_variances(DIRECT.assign(variance=DIRECT["variance"] * 1e-12, estimate=DIRECT["estimate"] * 1e-6))
    mixed = smooth_variances(DIRECT.sample(frac=1, random_state=1))

    np.testing.assert_allclose(small.variance, first.variance * 1e-12, rtol=1e-9)
    np.testing.assert_allclose(mixed.areas.set_index("area")["variance"].sort_index(), first.variance, rtol=1e-9)
    pd.testing.assert_frame_equal(smooth_variances(pl.from_pandas(DIRECT)).areas, first.areas)


def test_zero_and_missing_variances_follow_their_policies() -> None:
    """Refused by name; predicted from n by the function of the others; kept. Nothing else changes."""
    gaps = DIRECT.assign(variance=DIRECT["variance"].where(~DIRECT["area"].isin([3, 8]), [0.0] * 8 + [np.nan] * 32))
    with pytest.raises(DesignError, match="is 0 for areas 3"):
        smooth_variances(gaps, missing="predict")
    with pytest.raises(DesignError, match="is missing for areas 8"):
        smooth_variances(gaps, zero="predict")
    rest = smooth_variances(DIRECT.drop([3, 8]))
    result = smooth_variances(gaps, zero="predict", missing="predict")
    kept = smooth_variances(gaps, zero="keep", missing="predict")

    np.testing.assert_allclose(np.delete(result.variance, [3, 8]), rest.variance, rtol=1e-12)
    slope = rest.coefficients["estimate"].to_numpy()
    expected = rest.diagnostics["correction"] * np.exp(X[[3, 8]] @ slope)
    np.testing.assert_allclose(result.variance[[3, 8]], expected, rtol=1e-12)
    assert result.role[[3, 8]].tolist() == ["predicted", "predicted"]
    assert np.isnan(result.raw[8])
    assert kept.variance[3] == 0.0
    assert kept.role[3] == "kept"
    assert any("variance of 0, the fitted function gives theirs: 3." in note for note in result.notes)


def test_only_what_cannot_be_used_may_be_replaced() -> None:
    """replace="unusable" keeps every estimated variance and fills the gap; areas without an estimate get none."""
    gaps = DIRECT.copy()
    gaps.loc[5, "variance"] = np.nan
    gaps.loc[6, ["estimate", "variance"]] = np.nan
    result = smooth_variances(gaps, missing="predict", replace="unusable")

    usable = ~gaps["area"].isin([5, 6])
    np.testing.assert_array_equal(result.variance[usable], gaps["variance"][usable])
    assert result.variance[5] == result.smoothed[5] > 0
    assert result.role[6] == "unsampled"
    assert np.isnan(result.variance[6])


def test_variances_that_look_like_standard_deviations_are_named() -> None:
    """Roots of variances fall as n^-1/2: the sentence of the design's own check."""
    exact = DIRECT.assign(variance=np.sqrt(80 / N * np.exp(0.1 * NOISE)))

    assert any("as standard deviations do" in note for note in smooth_variances(exact).notes)
    assert not smooth_variances(DIRECT).notes


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"variance": [-1.0] + [2.0] * 39}, {}, "is for areas 0"),
        ({"variance": [1e30] + [2.0] * 39}, {}, 'areas 0. Use absurd="predict"'),
        ({"variance": [np.inf] + [2.0] * 39}, {"absurd": "accept"}, "infinite for areas 0"),
        ({"area": [1] * 40}, {}, "1 stands more than once"),
        ({"variance": ["x"] * 40}, {}, "Sampling variances must be numeric"),
        ({"variance": [0.0] * 39 + [1.0]}, {"zero": "predict"}, "there are 1"),
        ({"n": [np.nan] + [9.0] * 39}, {}, "n is missing for areas 0"),
    ],
)
def test_variances_that_cannot_be_are_refused(change: dict[str, Any], options: dict[str, Any], match: str) -> None:
    """Negative, absurd, infinite, of doubled areas, of text, too few, without what the formula reads."""
    with pytest.raises(DesignError, match=match):
        smooth_variances(DIRECT.assign(**change), **options)


@pytest.mark.parametrize(
    ("formula", "match"),
    [("variance ~ log(n)", "is of log\\(variance\\)"), ("log(variance) ~ n + (1 | area)", "fixed terms only")],
)
def test_formulas_that_are_no_variance_function_are_refused(formula: str, match: str) -> None:
    """The left side is a log variance or relvariance, the right side has no bar; arguments are words from a list."""
    with pytest.raises(SpecError, match=match):
        smooth_variances(DIRECT, LogLinearGVF(formula))
    with pytest.raises(SpecError, match="`zero` is one of"):
        smooth_variances(DIRECT, zero="drop")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="`correction` is one of"):
        LogLinearGVF(correction="none")  # type: ignore[arg-type]


# --- proportions --------------------------------------------------------------------------------------------------


def proportions(x: list[int], n: int) -> pd.DataFrame:
    """Records of areas with x of n units that are 1."""
    z = [int(k < successes) for successes in x for k in range(n)]
    return pd.DataFrame({"area": np.repeat(np.arange(len(x)), n), "z": z})


def test_simple_random_samples_have_a_design_effect_of_one() -> None:
    """v = p(1 - p)/(n - 1) in every area: deff 1, and with the pooled proportion p₀(1 - p₀)/n."""
    x = [0, 2, 5, 1, 10, 4]
    direct = direct_estimates(proportions(x, 10), "z", area="area", quantity="proportion")
    result = smooth_variances(direct, DesignEffectGVF("pooled"), zero="predict")
    pooled = sum(x) / 60

    assert result.coefficients["estimate"].tolist() == pytest.approx([1, pooled], rel=1e-13)
    np.testing.assert_allclose(result.variance, pooled * (1 - pooled) / 10, rtol=1e-13)
    assert result.role.tolist() == ["predicted", "fitted", "fitted", "fitted", "predicted", "fitted"]
    np.testing.assert_allclose(result.areas["effective_size"], 10, rtol=1e-13)


def test_shrunken_proportions_by_hand() -> None:
    """Equal n: ρ = [n Σ(p - p₀)²/(p₀(1 - p₀)) - (M - 1)]/((n - 1)(M - 1)), k = 1/ρ - 1, p̃ = (n p + k p₀)/(n + k)."""
    x, n = np.array([0, 2, 4, 1, 6, 3]), 10
    direct = direct_estimates(proportions(x.tolist(), n), "z", area="area", quantity="proportion")
    result = smooth_variances(direct, zero="predict")
    p, pooled = x / n, x.sum() / 60
    rho = (n * np.square(p - pooled).sum() / (pooled * (1 - pooled)) - 5) / (9 * 5)
    k = 1 / rho - 1
    shrunken = (n * p + k * pooled) / (n + k)

    np.testing.assert_allclose(result.areas["proportion"], shrunken, rtol=1e-12)
    np.testing.assert_allclose(result.variance, shrunken * (1 - shrunken) / n, rtol=1e-12)
    assert (result.variance > 0).all()


def test_areas_counted_in_full_keep_their_variance_of_zero() -> None:
    """Neither in the fit of either function nor changed by it; the design effect is 1 - n/N of the others."""
    records = proportions([3, 2, 5, 1, 0], 10)
    direct = direct_estimates(
        records, "z", area="area", quantity="proportion", population={0: 10, 1: 40, 2: 40, 3: 40, 4: 40}
    )
    by_effect = smooth_variances(direct, DesignEffectGVF(), zero="predict")
    by_size = smooth_variances(direct, LogLinearGVF("log(variance) ~ 1"), zero="keep")

    assert by_effect.coefficients["estimate"][0] == pytest.approx(0.75, rel=1e-12)
    for result in (by_effect, by_size):
        assert result.variance[0] == 0.0
        assert result.role[0] == "kept"
        assert any("counted in full keep their variance of 0: 0." in note for note in result.notes)


def test_pseudo_units_are_those_of_the_beta_distribution() -> None:
    """4,000 areas, p ~ Beta(2, 6): k = 8, to three Monte Carlo standard errors of about 3 %."""
    rng = np.random.default_rng(3)
    n = rng.integers(5, 60, 4000)
    p = rng.binomial(n, rng.beta(2, 6, 4000)) / n
    table = pd.DataFrame({"area": np.arange(4000), "estimate": p, "n": n, "variance": p * (1 - p) / (n - 1)})
    result = smooth_variances(table, DesignEffectGVF(), zero="predict")

    constants = result.coefficients.set_index("term")["estimate"]
    assert constants["design_effect"] == pytest.approx(1, rel=1e-12)
    assert constants["pseudo_units"] == pytest.approx(8, rel=0.1)
    assert constants["pooled_proportion"] == pytest.approx(0.25, rel=0.03)


def test_synthetic_proportions_and_a_known_design_effect() -> None:
    """deff p(1 - p)/n with both given; proportions that do not vary between areas are pooled."""
    table = proportions([3] * 4, 10).groupby("area")["z"].agg(["mean", "size"]).reset_index()
    table.columns = ["area", "p", "m"]
    table["v"], table["expected"] = 0.03, [0.2, 0.3, 0.4, 0.25]
    names: dict[str, Any] = {"estimate": "p", "variance": "v", "size": "m"}
    result = smooth_variances(table, DesignEffectGVF("expected", design_effect=1.7), **names)
    alike = smooth_variances(table, DesignEffectGVF(design_effect=1.7), **names)

    np.testing.assert_allclose(result.variance, 1.7 * table["expected"] * (1 - table["expected"]) / 10, rtol=1e-13)
    np.testing.assert_allclose(alike.variance, 1.7 * 0.3 * 0.7 / 10, rtol=1e-13)
    with pytest.raises(DesignError, match="column expected does not for areas 2"):
        smooth_variances(table.assign(expected=[0.2, 0.3, 1.0, 0.2]), DesignEffectGVF("expected"), **names)
    with pytest.raises(DesignError, match="fractions instead of per cent"):
        smooth_variances(table.assign(p=30.0), DesignEffectGVF(design_effect=1.0), **names)
    with pytest.raises(SpecError, match="positive number"):
        DesignEffectGVF(design_effect=-1)


def test_proportions_that_are_all_zero_say_nothing() -> None:
    """Neither a design effect nor a variance can be had from them."""
    direct = direct_estimates(proportions([0] * 3, 10), "z", area="area", quantity="proportion")

    with pytest.raises(DesignError, match="no area has one"):
        smooth_variances(direct, zero="predict")
    with pytest.raises(DesignError, match="All direct estimates are 0"):
        smooth_variances(direct, DesignEffectGVF(design_effect=1.0), zero="predict")


def test_the_summary_says_what_was_done() -> None:
    """Formula, R², correction by name, sums; for a proportion the design effect."""
    text = smooth_variances(DIRECT).summary()
    assert "log(variance) ~ log(n)" in text
    assert "(smearing)" in text
    assert max(map(len, text.splitlines())) <= 80
    direct = direct_estimates(proportions([0, 2, 5], 10), "z", area="area", quantity="proportion")
    assert "design_effect" in smooth_variances(direct, zero="predict").summary()
