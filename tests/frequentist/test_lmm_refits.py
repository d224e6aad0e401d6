"""Many refits at once: closed forms, agreement with single fits, exceptional responses, labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.frequentist.lmm_results import LMMOutcome

LEVELS, EACH = 6, 5


def one_way(B=300, seed=1):
    """Balanced one-way responses, the ratio of variances from 0 to 0.6, and their sums of squares."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(LEVELS), EACH)
    ratio = np.linspace(0.0, 0.6, B)
    Y = 1500 + 40 * (rng.normal(size=(len(codes), B)) + np.sqrt(ratio) * rng.normal(size=(LEVELS, B))[codes])
    means = Y.reshape(LEVELS, EACH, B).mean(axis=1)
    within = ((Y - means[codes]) ** 2).sum(axis=0)
    between = EACH * ((means - means.mean(axis=0)) ** 2).sum(axis=0)
    table = pd.DataFrame({"y": Y[:, -1], "g": [f"g{c}" for c in codes]})
    return table, Y, means, within, between


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_balanced_one_way_responses_have_their_closed_form(method):
    """Variances from mean squares, zero where these are negative; beta, errors, BLUPs and the criterion with them."""
    table, Y, means, within, between = one_way()
    n = LEVELS * EACH
    freedom = LEVELS - 1 if method == "reml" else LEVELS
    zero = between / freedom <= within / (n - LEVELS)
    pooled = (within + between) / (n - 1 if method == "reml" else n)
    sigma2 = np.where(zero, pooled, within / (n - LEVELS))
    total = np.where(zero, pooled, between / freedom)
    objective = (
        (n - (method == "reml")) * np.log(2 * np.pi) + (n - LEVELS) * np.log(sigma2) + freedom * np.log(total)
        + within / sigma2 + between / total + (np.log(n) if method == "reml" else 0.0)
    )  # fmt: skip

    refits = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), table, method=method).refits(Y)

    assert 40 < zero.sum() < 200
    assert refits.certified.all()
    np.testing.assert_array_equal(refits.G[0][:, 0, 0] == 0, zero)
    np.testing.assert_array_equal(refits.singular, zero)
    np.testing.assert_allclose(refits.sigma2, sigma2, rtol=1e-8)
    np.testing.assert_allclose(refits.G[0][:, 0, 0], (total - sigma2) / EACH, rtol=1e-7, atol=1e-7 * sigma2.min())
    np.testing.assert_allclose(refits.beta[:, 0], means.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(refits.se[:, 0], np.sqrt(total / n), rtol=1e-8)
    np.testing.assert_allclose(refits.objective, objective, rtol=1e-12)
    shrunk = (1 - sigma2 / total)[:, None] * (means - means.mean(axis=0)).T
    np.testing.assert_allclose(refits.blups()[0][:, :, 0], shrunk, atol=1e-6)


def assert_agrees(spec, table, Y, method="reml"):
    """Every replicate is the fit of a table with that response."""
    refits = hl.fit(spec, table.assign(**{spec.response: Y[:, 0]}), method=method).refits(Y)
    blups = refits.blups()
    for i in range(Y.shape[1]):
        single = hl.fit(spec, table.assign(**{spec.response: Y[:, i]}), method=method)
        assert refits.outcomes[i] is single.outcome
        assert refits.objective[i] <= single.objective + 1e-9 * abs(single.objective)
        np.testing.assert_allclose(refits.objective[i], single.objective, rtol=1e-10)
        se = np.sqrt(np.diagonal(single.vcov_beta))
        np.testing.assert_allclose(refits.beta[i], single.beta, rtol=1e-8, atol=1e-8 * se.max(initial=0.0))
        np.testing.assert_allclose(refits.se[i], se, rtol=1e-8)
        np.testing.assert_allclose(refits.sigma2[i], single.sigma2, rtol=1e-8)
        for f in range(len(single.theta)):
            size = np.abs(single.theta[f]).max(initial=0.0)
            np.testing.assert_allclose(refits.theta[f][i], single.theta[f], rtol=1e-6, atol=1e-6 * max(size, 1e-3))
            np.testing.assert_allclose(blups[f][i], single.b[f], rtol=1e-6, atol=1e-6 * np.abs(single.b[f]).max())
    return refits


def slopes(B, slope_sd, seed=2):
    """Responses on sleepstudy's rows with the given sd of the slopes."""
    table = hl.load("sleepstudy").data.reset_index(drop=True)
    rng = np.random.default_rng(seed)
    codes = pd.factorize(table["Subject"])[0]
    days = table["Days"].to_numpy(dtype=float)
    b = rng.normal(size=(2, 18, B)) * np.array([25.0, slope_sd])[:, None, None]
    mean = (250 + 10 * days)[:, None] + b[0][codes] + days[:, None] * b[1][codes]
    return table, mean + 25 * rng.normal(size=(len(table), B))


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_every_refit_is_the_single_fit_also_on_the_boundary(method):
    """Slopes without variance: more than a third of the replicates are singular, most with a correlation of 1 or -1."""
    table, Y = slopes(40, slope_sd=0.0)

    refits = assert_agrees(hl.lmm("Reaction ~ Days + (Days | Subject)"), table, Y, method)

    assert 13 < refits.singular.sum() < 40
    assert set(refits.outcomes) >= {LMMOutcome.INTERIOR, LMMOutcome.SINGULAR}


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ Days + (Days || Subject)",
        "Reaction ~ Days + (1 | Subject) + (1 | day)",
        "Reaction ~ Days + (Days | Subject) + (1 | day)",
        "Reaction ~ Days + (1 | half / Subject)",
        "Reaction ~ Days + identity(0 + third | Subject)",
        "Reaction ~ Days + cs(0 + third | Subject)",
        "Reaction ~ Days + offset(2 * Days) + (1 | Subject)",
        "Reaction ~ 0 + (Days | Subject)",
        "Reaction ~ Days",
    ],
)
def test_every_structure_of_random_effects(formula):
    """Diagonal, crossed, crossed with slopes, nested, one variance, compound symmetric, with offset, without any."""
    table, Y = slopes(6, slope_sd=4.0)
    day = table["Days"].astype(int)
    table = table.assign(day=day.astype(str), third=(day % 3).astype(str))
    table["half"] = (pd.factorize(table["Subject"])[0] % 4).astype(str)
    keep = np.random.default_rng(3).permutation(len(table))[:150]

    assert_agrees(hl.lmm(formula), table.iloc[keep].reset_index(drop=True), Y[keep])


@pytest.mark.parametrize("weights", [hl.Frequency("w"), hl.Precision("v")])
def test_weights_enter(weights):
    """Frequencies and precisions, against the single fits."""
    table, Y = slopes(5, slope_sd=4.0)
    rng = np.random.default_rng(4)
    table = table.assign(w=rng.integers(1, 4, len(table)), v=rng.uniform(0.3, 3.0, len(table)))

    assert_agrees(hl.lmm("Reaction ~ Days + (Days | Subject)", weights=weights), table, Y)


def test_known_residual_variances_enter():
    """sigma² is 1 and not estimated; the residual has no row in the frame."""
    table, Y = slopes(5, slope_sd=4.0)
    table = table.assign(v=np.random.default_rng(4).uniform(300.0, 900.0, len(table)))

    refits = assert_agrees(hl.lmm("Reaction ~ Days + (1 | Subject)", residual=hl.KnownVariances("v")), table, Y)

    assert (refits.sigma2 == 1).all()
    assert "Residual" not in set(refits.frame["group"])


def test_residual_structures_are_fitted_one_by_one():
    """AR(1) residuals, alone and in two processes: the single fits, and the correlation in the frame."""
    table, Y = slopes(4, slope_sd=0.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days", residual=hl.AR1("Subject", "Days")), table)

    refits, parallel = fit.refits(Y), fit.refits(Y, jobs=2)

    single = fit.refit(Y[:, 2])
    np.testing.assert_allclose(refits.phi[2], single.phi, rtol=1e-9)
    np.testing.assert_allclose(refits.objective[2], single.objective, rtol=1e-12)
    np.testing.assert_array_equal(refits.objective, parallel.objective)
    components = single.variance_components
    rho = components.loc[components["quantity"] == "correlation", "estimate"].item()
    frame = refits.frame
    found = frame.query("replicate == 2 and group == 'Residual' and quantity == 'correlation'")["estimate"].item()
    assert found == pytest.approx(rho, rel=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(1e10, 1.0), (0.0, 1e-9), (-3e4, 1e9)])
def test_units_of_the_response_change_units_only(shift, scale):
    """theta of shift + scale y is that of y; beta follows; the criterion moves by 2 (n - p) log scale."""
    table, Y = slopes(20, slope_sd=0.0)
    Y = np.round(Y * 1024) / 1024  # exact also after 1e10 has been added, to about its last bits
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table)

    plain, moved = fit.refits(Y), fit.refits(shift + scale * Y)

    np.testing.assert_allclose(moved.theta[0], plain.theta[0], atol=1e-6)
    expected = scale * plain.beta + [shift, 0.0]
    np.testing.assert_allclose(moved.beta, expected, rtol=1e-9, atol=1e-6 * scale)
    np.testing.assert_allclose(moved.objective, plain.objective + 2 * 178 * np.log(scale), rtol=1e-9)


def test_responses_without_an_ordinary_answer_are_named_and_spoil_no_other():
    """X alone reproduces one response, X and the groups another: limits where they exist, else missing and said so."""
    table, Y = slopes(3, slope_sd=4.0)
    codes = pd.factorize(table["Subject"])[0]
    days = table["Days"].to_numpy(dtype=float)
    Y = np.column_stack([Y, np.arange(18.0)[codes] ** 2, 3 + 2 * days])

    refits = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table).refits(
        pd.DataFrame(Y, index=table.index, columns=list("abcde"))
    )

    assert [outcome.name for outcome in refits.outcomes[3:]] == ["NOT_CERTIFIED", "NO_VARIATION"]
    assert refits.failures == 2
    assert refits.problems[0][0] == "d"
    assert "residual variance must be positive" in refits.problems[0][1]
    assert np.isnan(refits.objective[3])
    np.testing.assert_allclose(refits.beta[4], [3.0, 2.0], rtol=1e-10)
    assert np.isnan(refits.blups()[0][3]).all()
    assert "2 of 5 FAILED" in refits.summary()
    assert max(map(len, refits.summary().splitlines())) <= 80
    for i in range(3):
        single = hl.fit(refits.origin.spec, table.assign(Reaction=Y[:, i]))
        np.testing.assert_allclose(refits.objective[i], single.objective, rtol=1e-10)


def test_the_frame_is_long_and_carries_the_labels_of_the_responses():
    """Estimates and names of `fixed` and `variance_components` of the single fit."""
    table, Y = slopes(3, slope_sd=4.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table)

    frame = fit.refits(pd.DataFrame(Y, columns=["x", "y", "z"])).frame

    single = fit.refit(Y[:, 1])
    part = frame[frame["replicate"] == "y"]
    assert list(frame.columns) == ["replicate", "group", "term", "term2", "quantity", "estimate"]
    components = single.variance_components.query("quantity != 'share'")
    merged = components.merge(part, on=["group", "term", "term2", "quantity"], suffixes=("", "_refit"))
    assert len(merged) == len(components) == len(part) - 4
    np.testing.assert_allclose(merged["estimate_refit"], merged["estimate"], rtol=1e-6)
    effects = part[part["quantity"] == "effect"].set_index("term")["estimate"]
    np.testing.assert_allclose(effects[list(single.design.fixed)], single.beta, rtol=1e-9)


def test_no_responses_give_no_refits():
    """(n, 0): every array is empty and the frame has its columns."""
    table, Y = slopes(1, slope_sd=4.0)
    refits = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table).refits(Y[:, :0])

    assert len(refits) == refits.failures == 0
    assert refits.beta.shape == (0, 2)
    assert list(refits.frame.columns) == ["replicate", "group", "term", "term2", "quantity", "estimate"]
    assert refits.summary().startswith("0 refits")


def test_a_result_cannot_be_changed():
    """Arrays are read-only, and the responses are a copy."""
    table, Y = slopes(2, slope_sd=4.0)
    refits = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table).refits(Y)

    assert not np.shares_memory(refits.responses, Y)
    for array in (refits.beta, refits.theta[0], refits.responses, refits.objective):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_responses_that_do_not_fit_are_refused():
    """Number of rows, shape, missing values with their rows, text, and labels in another order."""
    table, Y = slopes(3, slope_sd=4.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), table)
    bad = Y.copy()
    bad[7, 1] = np.nan

    with pytest.raises(hl.DesignError, match=r"one row for each.*\(179, 3\) for 180 rows"):
        fit.refits(Y[:-1])
    with pytest.raises(hl.DesignError, match="for one response use refit"):
        fit.refits(Y[:, 0])
    with pytest.raises(hl.DesignError, match="1 values in 1 of 3 columns are not, for 7"):
        fit.refits(bad)
    with pytest.raises(hl.DesignError, match="must be numeric"):
        fit.refits(np.full((180, 2), "a"))
    with pytest.raises(hl.DesignError, match="in another order"):
        fit.refits(pd.DataFrame(Y).iloc[::-1])


def test_rows_that_passed_in_a_stream_cannot_be_fitted_again():
    """Only their sums are known: a refit of other responses is refused."""
    table, Y = slopes(2, slope_sd=4.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), iter([table.iloc[:90], table.iloc[90:]]))

    with pytest.raises(hl.DesignError, match="Fits of other responses need the rows"):
        fit.refits(Y)


def test_responses_that_the_predictors_reproduce_exactly_may_be_all_there_are():
    """Constants, zeros and fitted values: nothing is left for the batch, and each has the answer of its own refit."""
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff").data)

    for Y in (np.ones((30, 2)), np.zeros((30, 2)), fit.marginal_fitted.to_numpy()[:, None]):
        found = fit.refits(Y)
        with_another = fit.refits(np.column_stack([Y, fit.design.y]))
        assert len(found) == Y.shape[1]
        assert found.outcomes == with_another.outcomes[:-1]
        np.testing.assert_allclose(found.beta, with_another.beta[:-1])
