"""tidy, glance and augment: one schema for every fit, and numbers that others print."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import hierlmm as hl
from hierlmm.frequentist import lmm_tidy, lmm_tidy_glance, lmm_tidy_rows
from hierlmm.frequentist.lmm_tidy import KINDS, LABELS, NUMBERS


def fitted(name: str, method: str = "reml"):
    """A model of the catalogue."""
    case = hl.load(name)
    return hl.fit(case.spec, case.data, method)


def sitka():
    """Sitka with occasions numbered."""
    table = hl.load("sitka").data
    return table.assign(occ=table.groupby("tree")["Time"].rank().astype(int))


FITS = {
    "mixed": lambda: fitted("politeness/gender"),
    "singular": lambda: fitted("dyestuff2"),
    "area": lambda: fitted("milk"),
    "linear": lambda: hl.fit(hl.lmm("size ~ Time"), sitka()),
    "marginal": lambda: hl.fit(hl.lmm("size ~ Time", residual=hl.Unstructured("tree", "occ")), sitka()),
    "no fixed effects": lambda: hl.fit(hl.lmm("size ~ 0 + (1 | tree)"), sitka()),
    "no residual": lambda: hl.fit(hl.lmm("size ~ 1 + (1 | tree)"), sitka().assign(size=lambda t: t["tree"] ** 2.0)),
    "frequencies": lambda: hl.fit(hl.lmm("size ~ Time + (1 | tree)", weights=hl.Frequency("occ")), sitka()),
}


@pytest.mark.parametrize("name", FITS)
def test_every_fit_has_the_same_columns(name):
    """Frames of different fits stand one below the other, types included."""
    fit = FITS[name]()

    for frame in (fit.tidy(), fit.tidy("all"), *(fit.tidy(kind) for kind in KINDS)):
        assert tuple(frame.columns) == LABELS + NUMBERS
        assert (frame[list(NUMBERS)].dtypes == np.float64).all()
        assert all(frame[name].dtype.kind == "O" for name in LABELS)
        assert list(frame.index) == list(range(len(frame)))
    row = fit.glance()
    assert tuple(row.columns) == lmm_tidy_glance.COLUMNS
    assert len(row) == 1
    rows = fit.augment()
    assert tuple(rows.columns) == lmm_tidy_rows.COLUMNS
    assert (rows.dtypes == np.float64).all()
    assert_allclose(rows["fitted"] + rows["residual"], rows["response"], rtol=1e-12)
    assert_allclose(rows["marginal_fitted"] + rows["marginal_residual"], rows["response"], rtol=1e-12)


def test_tidy_rows_are_the_frames_of_the_fit():
    """Kinds in the order asked for; estimates and errors of variances and effects are those of their own frames."""
    fit = fitted("sleepstudy")

    frame = fit.tidy(["ran_coefs", "ran_vals", "ran_pars"])

    assert list(frame["effect"].unique()) == ["ran_coefs", "ran_vals", "ran_pars"]
    names = {"ran_coefs": "group_coefficients", "ran_vals": "random_effects", "ran_pars": "variance_components"}
    for kind, name in names.items():
        own, theirs = frame[frame["effect"] == kind], getattr(fit, name)
        for column in ("group", "term", "estimate", "se", "lower", "upper"):
            assert own[column].tolist() == pytest.approx(theirs[column].tolist(), nan_ok=True)
    assert frame.loc[0, "level"] == hl.load("sleepstudy").data["Subject"].iloc[0]


def test_intervals_of_fixed_effects_agree_with_their_tests():
    """lmerTest 3.1.3, politeness: 95 % limits of t with Satterthwaite's df exclude 0 as often as p < 0.05 does."""
    frame = fitted("politeness/gender").tidy("fixed").set_index("term")
    expected = {"Intercept": (256.84626912268396, 16.11562802702831, 5.432270192281805),
                "attitude[T.pol]": (-19.721109673933235, 5.58402839866323, 70.05437162991215),
                "gender[T.M]": (-108.51634776917416, 21.013324111588066, 4.007067658797524)}  # fmt: skip

    for term, (estimate, se, df) in expected.items():
        lower, upper = stats.t.interval(0.95, df, estimate, se)
        assert_allclose(frame.loc[term, ["lower", "upper"]].astype(float), [lower, upper], rtol=1e-5)
        assert frame.loc[term, "p"] == pytest.approx(2 * stats.t.sf(abs(estimate / se), df), rel=1e-5)


def test_where_nothing_is_estimated_but_beta_the_reference_is_normal():
    """Known residual variances: df infinite, normal limits."""
    table = hl.load("sleepstudy").data.assign(v=900.0)
    fit = hl.fit(hl.lmm("Reaction ~ Days", residual=hl.KnownVariances("v")), table)

    frame = fit.tidy("fixed")

    assert np.isinf(frame["df"]).all()
    assert_allclose(frame["upper"] - frame["estimate"], stats.norm.ppf(0.975) * frame["se"], rtol=1e-12)
    assert_allclose(frame["p"], 2 * stats.norm.sf(abs(frame["t"])), rtol=1e-10)
    assert np.isnan(fit.glance()["sigma"].item())


def test_kinds_that_do_not_exist_are_refused():
    """Named, with those that do."""
    fit = fitted("dyestuff2")
    for effects in ("random", [], ["fixed", "fixed"], ["fixed", "all"], ""):
        for result in (fit, fitted("milk")):
            with pytest.raises(hl.FitError, match="ran_coefs"):
                result.tidy(effects)


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        # lme4 1.1-31 at its refined optimum
        ("politeness/gender", "ml", {"loglik": -397.5507716106063, "aic": 807.1015432212126, "bic": 821.6145868679922}),
        ("politeness/gender", "reml", {"criterion": 775.4547210451108, "sigma": 25.414466345820053}),
        # nlme 3.1-162: BIC of lme with log(n - p)
        ("sitka/slopes", "reml", {"bic_nlme": 160.8098, "bic": 160.8402}),
    ],
)
def test_glance_has_the_numbers_of_lme4_and_nlme(name, method, expected):
    """The convention of each BIC has its own column."""
    row = fitted(name, method).glance().iloc[0]

    for column, value in expected.items():
        assert row[column] == pytest.approx(value, abs=6e-5)
    assert row["df_residual"] == row["n"] - row["n_parameters"]
    assert row["method"] == method
    assert row["certified"]


def test_augment_has_the_fitted_values_of_lme4():
    """R 4.2.2, lme4 1.1-31: fitted() and resid() of the first rows of politeness/gender at the refined optimum."""
    frame = fitted("politeness/gender").augment()

    assert_allclose(frame["residual"].iloc[:4], [3.58900294436097, -24.93210672957227, 55.29960005673544,
                                                 10.178490382802181], rtol=1e-5)  # fmt: skip
    assert_allclose(frame["pearson_residual"].max(), 3.47950666649, rtol=1e-5)
    assert 38 not in frame.index  # the row without a response


def test_new_rows_have_what_can_be_known_of_them():
    """The response where the table has it; diagnostics of the fit are missing."""
    fit = fitted("sleepstudy")
    new = pd.DataFrame({"Days": [1, 20], "Subject": [308, 999], "Reaction": [250.0, np.nan]}, index=["a", "b"])

    frame = fit.augment(new, new_levels="population")

    predicted = fit.predict(new, new_levels="population")
    assert list(frame.index) == ["a", "b"]
    assert_allclose(frame[["fitted", "se"]], predicted[["estimate", "se"]])
    assert frame.loc["a", "residual"] == pytest.approx(250 - predicted.loc["a", "estimate"])
    assert frame.loc["b", ["response", "residual", "marginal_residual"]].isna().all()
    assert frame["leverage"].isna().all()
    assert fit.augment(new.drop(columns="Reaction"), new_levels="population")["response"].isna().all()
    with pytest.raises(hl.DesignError, match="999"):
        fit.augment(new)


def test_rows_that_were_not_kept_are_asked_for_in_vain():
    """A stream has no rows to augment, but new ones may be."""
    table = hl.load("sleepstudy").data
    spec = hl.lmm("Reaction ~ Days + (1 | Subject)")
    fit = hl.fit(spec, iter([table.iloc[:90], table.iloc[90:]]))

    with pytest.raises(hl.DesignError, match="were not kept"):
        fit.augment()
    assert len(fit.augment(table.iloc[:3])) == 3
    assert len(fit.tidy("all")) == len(hl.fit(spec, table).tidy("all"))


def test_area_effects_have_the_error_of_dense_matrices():
    """Var(v̂ - v) for known A by n x n matrices, and 2 g3 beside it; leverage is the derivative of the estimate."""
    fit = fitted("milk")
    X, D, A = fit.design.X, fit.design.D, fit.A_hat
    V_inv = np.diag(1 / (A + D))
    gls = np.linalg.solve(X.T @ V_inv @ X, X.T @ V_inv)
    shrink = A * V_inv @ (np.eye(len(D)) - X @ gls)
    error = np.hstack([shrink - np.eye(len(D)), shrink])  # of (v, e): v̂ - v
    known = np.diag(error @ np.diag(np.concatenate([np.full(len(D), A), D])) @ error.T)

    frame = fit.tidy("ran_vals")

    assert_allclose(frame["estimate"], shrink @ fit.design.y, rtol=1e-9)
    assert_allclose(frame["se"] ** 2 - 2 * fit.g3, known, rtol=1e-9)
    assert_allclose(fit.augment()["leverage"], np.diag(X @ gls + shrink), rtol=1e-9)


def test_areas_outside_the_fit_have_no_effect_and_no_leverage():
    """An area without a direct estimate is in the frame of the areas alone."""
    case = hl.load("milk")
    table = case.data.assign(yi=case.data["yi"].where(case.data["SmallArea"] != 3))
    spec = hl.fay_herriot("yi ~ C(MajorArea)", sampling_variance="vardir", area="SmallArea", unsampled="synthetic")
    fit = hl.fit(spec, table)

    assert len(fit.tidy("ran_vals")) == 42
    assert len(fit.tidy("ran_coefs")) == 43
    assert fit.augment().loc[3, ["response", "residual", "leverage", "studentised_residual"]].isna().all()
    assert fit.augment().loc[3, "fitted"] == fit.augment().loc[3, "marginal_fitted"]
    assert fit.glance()["n"].item() == 42


def test_the_documented_columns_are_those_of_the_frame():
    """The docstrings speak of every kind and column."""
    for kind in KINDS:
        assert kind in (lmm_tidy.tidy.__doc__ or "")
    for column in lmm_tidy_rows.COLUMNS:
        assert column in (lmm_tidy_rows.augment.__doc__ or "") or column in ("lower", "upper")
