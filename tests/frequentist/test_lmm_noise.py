"""The residuals of a fit in predictions, marginal covariances and simulations, against their definitions."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl

TIMES = np.tile(np.arange(5), 20)
RHO = 0.6


def series() -> pd.DataFrame:
    """20 groups of 5 rows, serially correlated, spread growing with t, strata and weights."""
    rng = np.random.default_rng(3)
    L = np.linalg.cholesky(RHO ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))))
    e = (rng.standard_normal((20, 5)) @ L.T) * np.array([1.0, 1.2, 1.5, 2.0, 2.2])
    return pd.DataFrame(
        {
            "y": e.ravel() + 0.3 * TIMES + np.repeat(rng.normal(size=20), 5),
            "t": TIMES,
            "g": np.repeat([f"g{i:02d}" for i in range(20)], 5),
            "h": np.tile(["u", "v", "u", "v", "v"], 20),
            "w": 1.0 + np.arange(100) % 4,
        }
    )


def test_an_unstructured_marginal_model_has_the_covariance_of_its_residuals():
    """Complete data, a mean for each occasion, ML: Σ is the matrix of mean products of deviations (closed form)."""
    data = series().assign(t=lambda d: "t" + d["t"].astype(str))
    fit = hl.fit(hl.lmm("y ~ t", residual=hl.Unstructured("g", "t")), data, method="ml")
    Y = data["y"].to_numpy().reshape(20, 5)
    S = np.cov(Y.T, bias=True)

    assert_allclose(fit.marginal_covariance("g03"), S, rtol=1e-6)
    assert_allclose(fit.marginal_covariance("g03", group="g").index, [15, 16, 17, 18, 19])
    new = data.iloc[[7, 4]]
    gap = fit.predict(new, target="observation")["se"] ** 2 - fit.predict(new)["se"] ** 2
    assert_allclose(gap, np.diag(S)[[2, 4]], rtol=1e-6)


def test_rows_in_any_order_have_the_covariance_of_their_places():
    """The same matrix, permuted; one row of the group is missing."""
    data = series().drop(index=17)
    order = np.random.default_rng(1).permutation(len(data))
    spec = hl.lmm("y ~ t", residual=hl.AR1("g", "t"))

    one, other = hl.fit(spec, data), hl.fit(spec, data.iloc[order])

    mine, theirs = one.marginal_covariance("g03"), other.marginal_covariance("g03")
    assert_allclose(theirs.loc[mine.index, mine.index], mine, rtol=1e-7)
    ratio = mine.to_numpy() / mine.iloc[0, 0]
    places = np.array([0, 1, 3, 4])
    assert_allclose(ratio, ratio[0, 1] ** np.abs(np.subtract.outer(places, places)), rtol=1e-10)


def test_precision_weights_scale_the_variance_of_an_observation():
    """σ²/w, in rows of the fit, in new rows and in the marginal covariance."""
    data = series()
    fit = hl.fit(hl.lmm("y ~ t + (1 | g)", weights=hl.Precision("w")), data)
    new = data.iloc[:4]

    gap = fit.predict(new, target="observation")["se"] ** 2 - fit.predict(new)["se"] ** 2

    assert_allclose(gap, fit.sigma2 / new["w"], rtol=1e-9)
    V = fit.marginal_covariance("g00").to_numpy()
    assert_allclose(np.diag(V), fit.G[0][0, 0] + fit.sigma2 / data["w"][:5], rtol=1e-10)
    with pytest.raises(hl.DesignError, match="column w has no positive number in rows 0"):
        fit.predict(new.drop(columns="w"), target="observation")
    assert len(fit.predict(new.drop(columns="w"))) == 4


def test_strata_have_their_own_variance_in_new_rows_and_unknown_ones_none():
    """Marginal means by stratum, ML: each variance is the mean square within (closed form)."""
    data = series()
    fit = hl.fit(hl.lmm("y ~ h", residual=hl.Stratified("h")), data, method="ml")
    by = data.groupby("h")["y"].var(ddof=0)
    new = pd.DataFrame({"h": ["v", "u"]})

    gap = fit.predict(new, target="observation")["se"] ** 2 - fit.predict(new)["se"] ** 2

    assert_allclose(gap, by[["v", "u"]], rtol=1e-6)
    other = hl.fit(hl.lmm("y ~ t", residual=hl.Stratified("h")), data)
    with pytest.raises(hl.DesignError, match=r"none at the occasion or stratum of rows 1\. It knows u, v"):
        other.predict(pd.DataFrame({"t": [0, 1], "h": ["u", "w"]}), target="observation")
    with pytest.raises(hl.DesignError, match="none at the occasion or stratum of rows 0, 1"):
        other.predict(pd.DataFrame({"t": [0, 1]}), target="observation")


SIMULATED = [
    hl.AR1("g", "t"),
    hl.HeterogeneousAR1("g", "t"),
    hl.Unstructured("g", "t"),
    hl.Stratified("h"),
    hl.ContinuousAR1("g", "t", nugget=True),
]


@pytest.mark.parametrize("residual", SIMULATED, ids=repr)
def test_simulated_responses_have_the_marginal_covariance(residual):
    """20,000 draws: each entry within 5 of its standard errors, sqrt((v_ii v_jj + v_ij²)/draws)."""
    data = series().drop(index=11)
    fit = hl.fit(hl.lmm("y ~ t", residual=residual, weights=hl.Precision("w")), data)
    group = None if hasattr(residual, "group") else "rows"
    rows = [10, 12, 13, 14]

    draws = fit.simulate(20_000, seed=5).loc[rows].to_numpy()

    found = np.cov(draws)
    if group is None:
        V = fit.marginal_covariance("g02").to_numpy()
    else:
        V = np.diag(
            fit.predict(data.loc[rows], target="observation")["se"] ** 2 - fit.predict(data.loc[rows])["se"] ** 2
        )
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / 20_000)
    assert (np.abs(found - V) < 5 * error).all()


def test_rows_that_stand_for_several_are_not_simulated():
    """Their residuals differ, and one number cannot say so."""
    fit = hl.fit(hl.lmm("y ~ t + (1 | g)", weights=hl.Frequency("w")), series())

    with pytest.raises(hl.FitError, match="rows stand for several: frequencies go up to 4"):
        fit.simulate(1, seed=1)


def test_a_model_without_groups_has_no_marginal_covariance_of_a_level():
    """Refused in words, not met as an index out of range."""
    fit = hl.fit(hl.lmm("y ~ t"), series())

    with pytest.raises(hl.DesignError, match=r"`group` must be a grouping factor.*one of none"):
        fit.marginal_covariance("g00")
