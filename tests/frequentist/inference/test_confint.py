"""Intervals of every parameter against R's profiles, closed forms, and dense criteria minimised by scipy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq, minimize
from scipy.stats import chi2, norm

import hierlmm as hl
from hierlmm.frequentist.inference.confint_results import COLUMNS, Intervals
from hierlmm.frequentist.lmm_results import LMMOutcome

# Profiles by R: see "provenance" in the file.
REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "intervals.json").read_text())
ML = {name: case for name, case in REFERENCE["ml_profiles"].items() if name != "provenance"}
REML = {name: case for name, case in REFERENCE["reml_profiles"].items() if name != "provenance"}
HEIGHT = chi2.ppf(0.95, 1)
WIDE = {"maxiter": 20_000, "xatol": 1e-9, "fatol": 1e-10}


def by_r_name(intervals: Intervals) -> dict[str, np.ndarray]:
    """Limits by the names that lme4 gives the parameters with signames = FALSE."""

    def named(term: str) -> str:
        return term.replace("Intercept", "(Intercept)").replace("[T.", "").replace("]", "")

    out = {}
    for row in intervals.frame.itertuples():
        if row.quantity == "effect":
            key = named(row.term)
        elif row.group == "Residual":
            key = "sigma"
        elif row.quantity == "sd":
            key = f"sd_{named(row.term)}|{row.group}"
        else:
            key = f"cor_{named(row.term)}.{named(row.term2)}|{row.group}"
        out[key] = np.array([row.lower, row.upper])
    return out


def data_of(name: str) -> pd.DataFrame:
    return hl.load(name.removesuffix("_rs")).data


@pytest.mark.parametrize("name", ML)
def test_ml_profiles_are_those_of_lme4(name):
    """confint() of lme4 1.1-31 for ML fits, with steps fine enough for its splines: 1e-5 of the interval's width."""
    case = ML[name]
    found = by_r_name(hl.fit(hl.lmm(case["formula"]), data_of(name), "ml").confint())

    assert set(found) == set(case["rows"])
    for row, limits in zip(case["rows"], case["table"], strict=True):
        assert_allclose(found[row], limits, rtol=0, atol=1e-5 * np.ptp(limits), err_msg=row)


@pytest.mark.parametrize("name", REML)
def test_reml_profiles_are_those_of_the_reml_criterion_in_r(name):
    """lme4's REML criterion minimised in R with one parameter held; 1e-7 of the width. Zero is met exactly."""
    case = REML[name]
    found = by_r_name(hl.fit(hl.lmm(case["formula"]), data_of(name)).confint())

    for row, limits in zip(case["rows"], case["table"], strict=True):
        assert_allclose(found[row], limits, rtol=0, atol=1e-7 * np.ptp(limits), err_msg=row)
        assert (found[row][0] == 0) == (limits[0] == 0)


def test_the_published_sitka_table_mixes_reml_estimates_with_ml_profiles():
    """Printed intervals of the sds, (0.516, 0.710) and (0.179, 0.209), stand beside REML variances 0.370 and 0.038:
    they are the profiles of the ML criterion; those of the REML criterion are (0.5216, 0.7206), (0.1796, 0.2101)."""
    spec, table = hl.lmm("size ~ Time * treat + (1 | tree)"), hl.load("sitka").data
    reml, ml = (hl.fit(spec, table, method).confint() for method in ("reml", "ml"))

    assert_allclose(reml.frame.query("quantity == 'sd'")["estimate"] ** 2, [0.370, 0.038], atol=5e-4)
    assert_allclose(by_r_name(ml)["sd_(Intercept)|tree"], [0.516, 0.710], atol=5e-4)
    assert_allclose(by_r_name(ml)["sigma"], [0.179, 0.209], atol=5e-4)
    assert_allclose(by_r_name(reml)["sd_(Intercept)|tree"], [0.5216, 0.7206], atol=5e-5)
    assert_allclose(by_r_name(reml)["sigma"], [0.1796, 0.2101], atol=5e-5)


def test_rows_say_on_which_criterion_they_rest():
    """The restricted likelihood has no fixed effects: their rows are the ML profile, as of the ML fit, and say so."""
    spec, table = hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data
    reml, ml = (hl.fit(spec, table, method).confint() for method in ("reml", "ml"))

    assert (reml.frame.query("quantity == 'effect'")["by"] == "ML profile").all()
    assert (reml.frame.query("quantity != 'effect'")["by"] == "REML profile").all()
    assert (ml.frame["by"] == "ML profile").all()
    limits = ["lower", "upper"]
    effects = "quantity == 'effect'"
    assert_allclose(reml.frame.query(effects)[limits], ml.frame.query(effects)[limits], rtol=1e-8)
    assert "lme4 profiles the ML criterion for all" in " ".join(reml.summary().split())
    assert max(len(line) for line in reml.summary().splitlines()) <= 80


def test_printed_rows_are_whole_and_numbers_do_not_run_together():
    """Long labels on a line of their own, the group in each, what a row rests on in full, 80 columns."""
    names = [
        ("", "a_long_name_of_a_predictor:treat[T.ozone]", "", "effect"), ("tree", "Time", "Intercept", "correlation"),
        ("a_district", "a_predictor", "Intercept", "correlation"), ("Residual", "", "", "sd"),
    ]  # fmt: skip
    numbers = [-0.00213851234, -0.00365172123, -0.000625303123]
    frame = pd.DataFrame([(*name, *numbers, "studentized bootstrap") for name in names], columns=list(COLUMNS))

    lines = Intervals(method="bootstrap", level=0.95, frame=frame, notes=()).summary().splitlines()

    values = ["-0.00213851", "-0.00365172", "-0.000625303", "studentized"]
    assert lines[1].split() == ["estimate", "2.5", "%", "97.5", "%", "by"]
    assert lines[2] == "a_long_name_of_a_predictor:treat[T.ozone]"
    assert lines[4].startswith("cor(Time, Intercept | tree) ")
    assert lines[5] == "cor(a_predictor, Intercept | a_district)"
    assert all(lines[i].split()[-4:] == values for i in (3, 4, 6, 7))
    assert max(map(len, lines)) <= 80


def test_linear_model_in_closed_form():
    """Without random effects: n log(1 + F/(n-p)) is the profile of an effect, and sigma's is in n log s + rss/s."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"x": rng.normal(size=30)})
    table["y"] = 1 + 2 * table["x"] + rng.normal(size=30)
    fit = hl.fit(hl.lmm("y ~ x"), table, "ml")
    X = np.column_stack([np.ones(30), table["x"]])
    beta, (rss,) = np.linalg.lstsq(X, table["y"])[:2]
    reach = np.sqrt(rss * np.expm1(HEIGHT / 30) * np.diag(np.linalg.inv(X.T @ X)))
    ends = [
        brentq(lambda s: 30 * np.log(s) + rss / s - 30 * np.log(rss / 30) - 30 - HEIGHT, a, b)
        for a, b in ((rss / 200, rss / 30), (rss / 30, rss))
    ]

    frame = fit.confint().frame

    assert_allclose(frame.loc[:1, "lower"], beta - reach, rtol=1e-8)
    assert_allclose(frame.loc[:1, "upper"], beta + reach, rtol=1e-8)
    assert_allclose(frame.loc[2, ["lower", "upper"]].to_numpy(float), np.sqrt(ends), rtol=1e-8)


def politeness(method: str):
    """-2 (restricted) log likelihood of politeness with slopes of attitude, by n x n matrices, of two (2, 2) matrices
    and sigma."""
    table = hl.load("politeness").data.dropna()
    y = table["frequency"].to_numpy(float)
    pol = (table["attitude"] == "pol").to_numpy(float)
    X = np.column_stack([np.ones(len(y)), pol, table["gender"] == "M"]).astype(float)
    groups = [pd.factorize(table[name])[0] for name in ("subject", "scenario")]
    same = [codes[:, None] == codes for codes in groups]
    Z = X[:, :2]

    def criterion(G: list[np.ndarray], sigma: float) -> float:
        V = sigma**2 * np.eye(len(y))
        for one, g in zip(same, G, strict=True):
            V = V + one * (Z @ g @ Z.T)
        A = X.T @ np.linalg.solve(V, X)
        r = y - X @ np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
        value = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)
        if method == "ml":
            return float(value + len(y) * np.log(2 * np.pi))
        return float(value + np.linalg.slogdet(A)[1] + (len(y) - 3) * np.log(2 * np.pi))

    return criterion


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_a_singular_fit_has_profiles_at_their_height(end):
    """Politeness with slopes, where a correlation is 1 and lme4's profile fails: at each end of the sd of subjects the
    dense criterion, minimised over all else by scipy, is chi²(1)'s quantile above its minimum."""
    fit = hl.fit(hl.lmm("frequency ~ attitude + gender + (attitude | subject) + (attitude | scenario)"),
                 hl.load("politeness").data)  # fmt: skip
    row = fit.confint().frame.query("group == 'subject' and quantity == 'sd' and term == 'Intercept'").iloc[0]
    criterion, sd = politeness("reml"), float(row[end])

    def held(x):
        L = np.array([[sd, 0.0], [x[0], x[1]]])
        M = np.array([[x[2], 0.0], [x[3], x[4]]])
        return criterion([L @ L.T, M @ M.T], 25 * np.exp(x[5]))

    runs = [
        minimize(held, start, method="BFGS", options={"gtol": 1e-7})
        for start in ([1.0, 0.5, 14.0, 1.0, 8.0, 0.0], [-3.0, 2.0, 14.0, -4.0, 5.0, 0.0])
    ]
    best = min(run.fun for run in runs)

    assert fit.outcome is LMMOutcome.SINGULAR
    assert_allclose(best - fit.objective, HEIGHT, atol=2e-5)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("structure", ["identity", "cs"])
def test_structured_blocks_have_profiles_at_their_height(structure, method):
    """One variance, or one variance and one correlation, of three treatments within groups: dense V, scipy."""
    rng = np.random.default_rng(5)
    g, f = np.repeat(np.arange(14), 6), np.tile(np.repeat(np.arange(3), 2), 14)
    b = rng.multivariate_normal(np.zeros(3), 2 * (0.6 * np.eye(3) + 0.4), 14)
    table = pd.DataFrame({"y": b[g, f] + rng.normal(size=84), "f": np.array(list("abc"))[f], "g": g}).drop([3, 40, 66])
    fit = hl.fit(hl.lmm(f"y ~ f + {structure}(0 + f | g)"), table, method)
    X = np.column_stack([np.ones(81), table["f"] == "b", table["f"] == "c"]).astype(float)
    same_g, same_f = (table[c].to_numpy()[:, None] == table[c].to_numpy() for c in ("g", "f"))
    y = table["y"].to_numpy()

    def criterion(sd, rho, sigma):
        V = sd**2 * same_g * np.where(same_f, 1.0, rho) + sigma**2 * np.eye(81)
        A = X.T @ np.linalg.solve(V, X)
        r = y - X @ np.linalg.solve(A, X.T @ np.linalg.solve(V, y))
        value = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r) + 81 * np.log(2 * np.pi)
        return value + (np.linalg.slogdet(A)[1] - 3 * np.log(2 * np.pi) if method == "reml" else 0.0)

    frame = fit.confint().frame
    sds = frame.query("quantity == 'sd' and group == 'g'")

    assert sds["lower"].nunique() == 1  # one variance, three rows
    for limit in sds.iloc[0][["lower", "upper"]]:
        if structure == "identity":
            best = minimize(lambda x, s=limit: criterion(s, 0.0, np.exp(x[0])), [0.0]).fun
        else:
            best = minimize(lambda x, s=limit: criterion(s, np.tanh(x[0]), np.exp(x[1])), [0.3, 0.0]).fun
        assert_allclose(best - fit.objective, HEIGHT, atol=1e-6)
    if structure == "cs":
        lower, upper = frame.query("quantity == 'correlation'").iloc[0][["lower", "upper"]]
        at_lower, at_one = (
            minimize(lambda x, r=r: criterion(np.exp(x[0]), r, np.exp(x[1])), [0.3, 0.0]).fun for r in (lower, 1.0)
        )
        assert_allclose(at_lower - fit.objective, HEIGHT, atol=1e-6)
        assert at_one - fit.objective < HEIGHT  # the data do not exclude a correlation of 1, where the range ends
        assert upper == 1


def sitka() -> pd.DataFrame:
    table = hl.load("sitka").data
    return table.assign(occ=table.groupby("tree")["Time"].rank().astype(int))


def by_tree(table: pd.DataFrame, correlation, method: str):
    """-2 (restricted) log likelihood of size ~ Time with the same V of the five rows of every tree."""
    y = table.sort_values(["tree", "occ"])["size"].to_numpy().reshape(79, 5)
    X = np.column_stack([np.ones(5), np.sort(table["Time"].unique())])

    def criterion(sd, *values, drop=None, at=0.0):
        V = sd**2 * correlation(*values)
        keep = [j for j in range(2) if j != drop]
        target, columns = y - (at * X[:, drop] if drop is not None else 0.0), X[:, keep]
        VX = np.linalg.solve(V, columns)
        A = 79 * columns.T @ VX
        beta = np.linalg.solve(A, VX.T @ target.sum(axis=0))
        r = target - columns @ beta
        value = 79 * (np.linalg.slogdet(V)[1] + 5 * np.log(2 * np.pi)) + (r * np.linalg.solve(V, r.T).T).sum()
        return value + (np.linalg.slogdet(A)[1] - 2 * np.log(2 * np.pi) if method == "reml" else 0.0)

    return criterion


def ar1(rho):
    return rho ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))


def equal(rho):
    return (1 - rho) * np.eye(5) + rho


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(("kind", "correlation"), [(hl.AR1, ar1), (hl.CompoundSymmetry, equal)])
def test_residual_structures_have_profiles_at_their_height(kind, correlation, method):
    """Sitka by gls: sd and correlation of the residuals, and the slope of the ML fit, tree by tree with 5 x 5 V."""
    table = sitka()
    by = ("tree", "occ") if kind is hl.AR1 else ("tree",)
    fit = hl.fit(hl.lmm("size ~ Time", residual=kind(*by)), table, method)
    frame = fit.confint().frame.set_index("quantity")
    criterion = by_tree(table, correlation, method)

    for limit in frame.loc["sd", ["lower", "upper"]]:
        best = minimize(lambda x, s=limit: criterion(s, np.tanh(x[0])), [1.5], method="Nelder-Mead", options=WIDE).fun
        assert_allclose(best - fit.objective, HEIGHT, atol=1e-6)
    for limit in frame.loc["correlation", ["lower", "upper"]]:
        best = minimize(lambda x, r=limit: criterion(np.exp(x[0]), r), [-0.4], method="Nelder-Mead", options=WIDE).fun
        assert_allclose(best - fit.objective, HEIGHT, atol=1e-6)
    if method == "ml":
        for limit in frame.loc["effect"].set_index("term").loc["Time", ["lower", "upper"]]:
            best = minimize(
                lambda x, b=limit: criterion(np.exp(x[0]), np.tanh(x[1]), drop=1, at=b), [-0.4, 1.5],
                method="Nelder-Mead", options=WIDE,
            ).fun  # fmt: skip
            assert_allclose(best - fit.objective, HEIGHT, atol=1e-6)


def test_equal_marginal_models_have_equal_intervals():
    """Compound symmetry of the residuals and a random intercept are one model: effects alike, and at occasions with
    variances of their own sd and correlation rows are all there."""
    table = sitka()
    marginal = hl.fit(hl.lmm("size ~ Time", residual=hl.CompoundSymmetry("tree")), table, "ml").confint().frame
    random = hl.fit(hl.lmm("size ~ Time + (1 | tree)"), table, "ml").confint().frame
    varied = hl.fit(hl.lmm("size ~ Time", residual=hl.HeterogeneousAR1("tree", "occ")), table, "ml").confint().frame

    assert_allclose(marginal.loc[:1, ["lower", "upper"]], random.loc[:1, ["lower", "upper"]], rtol=1e-7)
    assert list(varied["quantity"]) == ["effect"] * 2 + ["sd"] * 5 + ["correlation"]
    assert (varied["lower"] < varied["estimate"]).all()
    assert (varied["estimate"] < varied["upper"]).all()


def test_profiles_do_not_depend_on_units_or_origin():
    """y in thousandths, x in tens and from another origin: limits scale, and the slope's do not see the origin."""
    table = hl.load("sleepstudy").data
    other = table.assign(Reaction=1e3 * table["Reaction"], Days=table["Days"] / 10)
    moved = table.assign(Days=table["Days"] + 50)
    formula = hl.lmm("Reaction ~ Days + (Days | Subject)")
    here, scaled, far = (hl.fit(formula, t).confint().frame for t in (table, other, moved))
    limits = ["lower", "upper"]
    factor = np.array([1e3, 1e4, 1e3, 1e4, 1.0, 1e3])[:, None]

    assert_allclose(scaled[limits], factor * here[limits], rtol=1e-7)
    same = [1, 3, 5]
    assert_allclose(far.loc[same, limits], here.loc[same, limits], rtol=1e-6)


def test_known_variances_leave_no_sigma_to_profile():
    """Area variances known: the profile of A's root by dense algebra."""
    table = hl.load("milk").data
    fit = hl.fit(hl.lmm("yi ~ 1 + (1 | SmallArea)", residual=hl.KnownVariances("vardir")), table, "ml")
    y, D = table["yi"].to_numpy(), table["vardir"].to_numpy()

    def criterion(sd):
        w = 1 / (sd**2 + D)
        return -np.log(w).sum() + (w * (y - w @ y / w.sum()) ** 2).sum() + len(y) * np.log(2 * np.pi)

    frame = fit.confint().frame

    assert list(frame["quantity"]) == ["effect", "sd"]
    for limit in frame.loc[1, ["lower", "upper"]]:
        assert_allclose(criterion(limit) - fit.objective, HEIGHT, atol=1e-8)


def test_wald_intervals_are_on_stable_scales():
    """Effects ± z se; log sd ± z se/sd; atanh correlation ± z se/(1 - r²); at 95 % the limits of the frames."""
    fit = hl.fit(hl.lmm("Reaction ~ Days + (Days | Subject)"), hl.load("sleepstudy").data)
    frame = fit.confint("wald", level=0.5).frame
    z = norm.ppf(0.75)
    components = fit.variance_components.query("quantity in ('sd', 'correlation')")
    sd = components.query("quantity == 'sd'")
    rho = components.query("quantity == 'correlation'").iloc[0]

    assert_allclose(frame["lower"][:2], fit.beta - z * np.sqrt(np.diag(fit.vcov_beta)), rtol=1e-12)
    ours = frame.query("quantity == 'sd'")
    assert_allclose(ours["upper"], sd["estimate"] * np.exp(z * sd["se"] / sd["estimate"]), rtol=1e-9)
    assert_allclose(ours["lower"], sd["estimate"] * np.exp(-z * sd["se"] / sd["estimate"]), rtol=1e-9)
    (row,) = frame.query("quantity == 'correlation'").itertuples()
    reach = z * rho["se"] / (1 - rho["estimate"] ** 2)
    assert_allclose([row.lower, row.upper], np.tanh(np.arctanh(rho["estimate"]) + reach * np.array([-1, 1])), rtol=1e-9)
    at_95 = fit.confint("wald").frame.iloc[2:]
    assert_allclose(at_95[["lower", "upper"]], components[["lower", "upper"]], rtol=1e-12)


def test_wald_does_not_exist_at_zero_and_profile_does():
    fit = hl.fit(hl.lmm("Yield ~ 1 + (1 | Batch)"), hl.load("dyestuff2").data)
    wald, profile = fit.confint("wald"), fit.confint()

    assert wald.frame.loc[1, ["lower", "upper"]].isna().all()
    assert "do not exist for parameters on the boundary" in wald.summary()
    assert profile.frame.loc[1, "lower"] == 0
    assert "the data do not exclude the" in profile.summary()


def test_bad_requests_are_refused():
    table = hl.load("sleepstudy").data
    fit = hl.fit(hl.lmm("Reaction ~ Days + (1 | Subject)"), table)
    bad = replace(fit, outcome=LMMOutcome.NOT_CERTIFIED)
    exact = hl.fit(hl.lmm("y ~ x"), pd.DataFrame({"x": np.arange(5.0), "y": 1 + 2 * np.arange(5.0)}))

    with pytest.raises(hl.FitError, match=r"between 0 and 1; found 95"):
        fit.confint(level=95)
    with pytest.raises(hl.FitError, match=r"one of profile, wald, bootstrap; found 'boot'"):
        fit.confint("boot")
    with pytest.raises(hl.FitError, match=r"drawn from a seed.*found none"):
        fit.confint("bootstrap")
    with pytest.raises(hl.FitError, match=r"needs an optimum of the criterion.*NOT CONVERGED"):
        bad.confint()
    with pytest.raises(hl.FitError, match=r"Wald interval.*reproduce the response exactly"):
        exact.confint("wald")


def test_streamed_rows_have_intervals_and_information_but_no_residuals():
    """Two chunks added up: the same limits and matrices as of the table; what needs rows says so."""
    table, spec = hl.load("sleepstudy").data, hl.lmm("Reaction ~ Days + (Days | Subject)")
    streamed = hl.fit(spec, hl.moments(spec, table.iloc[:90]) + hl.moments(spec, table.iloc[90:]))
    whole = hl.fit(spec, table)
    limits = ["lower", "upper"]

    assert_allclose(streamed.confint().frame[limits], whole.confint().frame[limits], rtol=1e-9)
    ours, theirs = (fit.information("observed", of="all").matrix for fit in (streamed, whole))
    assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
    with pytest.raises(hl.DesignError, match=r"Bootstraps need the rows of the fit"):
        streamed.bootstrap(seed=1)
    with pytest.raises(hl.DesignError, match=r"Clusters of residuals need the rows of the fit"):
        streamed.robust()
