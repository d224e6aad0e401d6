"""What must not change a fit with structured residuals: order, origins and units of rows, times and response, names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from structures import STRUCTURES, sitka_with_gaps

import hierlmm as hl

MODELS = {
    **{name: ("size ~ treat", residual) for name, residual in STRUCTURES.items() if name != "ind"},
    "strata": ("size ~ treat", hl.Stratified("occ")),
    "nugget": ("size ~ treat", hl.ContinuousAR1("tree", "Time", nugget=True)),
    "ar1 and intercepts": ("size ~ Time + (1 | tree)", STRUCTURES["ar1"]),
    "car1 and crossed": ("size ~ Time + (1 | tree) + (1 | occ)", STRUCTURES["car1"]),
}


def fitted(name: str, table: pd.DataFrame) -> hl.LMMFit:
    formula, residual = MODELS[name]
    return hl.fit(hl.lmm(formula, residual=residual), table)


@pytest.fixture(scope="module")
def fits():
    """Each model once, for rows in the order of tree and time."""
    return {name: fitted(name, sitka_with_gaps()) for name in MODELS}


def same(one: hl.LMMFit, other: hl.LMMFit, rtol: float = 1e-7) -> None:
    """Criterion to 1e-9, estimates and errors as far as a criterion of that accuracy defines them."""
    assert_allclose(one.objective, other.objective, rtol=0, atol=1e-9)
    assert one.certificate.certified == other.certificate.certified
    assert_allclose(one.beta, other.beta, rtol=rtol)
    assert_allclose(one.vcov_beta, other.vcov_beta, rtol=rtol, atol=rtol * np.abs(other.vcov_beta).max())
    assert_allclose(one.sigma2, other.sigma2, rtol=rtol)
    estimates = one.variance_components["estimate"], other.variance_components["estimate"]
    assert_allclose(*estimates, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_order_of_rows_and_names_of_groups_do_not_matter(fits, name):
    """A seeded permutation of the rows, and trees renamed so that they sort otherwise."""
    table = sitka_with_gaps()
    shuffled = table.iloc[np.random.default_rng(7).permutation(len(table))]
    renamed = shuffled.assign(tree="t" + ((shuffled["tree"] * 37) % 997).astype(str))

    for other in (fitted(name, shuffled), fitted(name, renamed)):
        same(fits[name], other)
    assert_allclose(
        fits[name].conditional_fitted.sort_index(), fitted(name, shuffled).conditional_fitted.sort_index(), rtol=1e-8
    )


@pytest.mark.parametrize("name", MODELS)
def test_origin_and_unit_of_time_do_not_matter(fits, name):
    """Time in years from another origin, occasions 10, 13, 16, ...: log|X'V⁻¹X| follows the unit of a slope."""
    table = sitka_with_gaps()
    other = fitted(name, table.assign(Time=(table["Time"] + 40000) / 365.25, occ=7 + 3 * table["occ"]))
    shift = 2 * np.log(1 / 365.25) if "Time" in other.design.fixed else 0.0

    assert_allclose(other.objective, fits[name].objective + shift, rtol=0, atol=1e-8)
    ours, theirs = (
        fit.variance_components.query("group == 'Residual' and quantity != 'share'") for fit in (fits[name], other)
    )
    unit = np.where(ours["quantity"] == "range", 365.25, 1.0)
    assert_allclose(theirs["estimate"] * unit, ours["estimate"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("factor", [1e9, 1e-9])
@pytest.mark.parametrize("name", MODELS)
def test_unit_of_the_response_scales_variances_alone(fits, name, factor):
    """y -> c y: variances by c², correlations and ranges as they were."""
    other = fitted(name, sitka_with_gaps().assign(size=lambda t: factor * t["size"]))
    n, p = other.equations.n, other.equations.p

    assert_allclose(other.objective - 2 * (n - p) * np.log(factor), fits[name].objective, rtol=0, atol=1e-7)
    assert_allclose(other.beta / factor, fits[name].beta, rtol=1e-7)
    ours, theirs = (fit.variance_components for fit in (fits[name], other))
    power = ours["quantity"].map({"variance": 2, "sd": 1, "covariance": 2}).fillna(0)
    assert_allclose(theirs["estimate"] / factor**power, ours["estimate"], rtol=1e-6, atol=1e-9)
    assert other.certificate.certified == fits[name].certificate.certified


@pytest.mark.parametrize("name", MODELS)
def test_a_multiple_of_the_predictors_added_to_the_response_moves_beta_alone(fits, name):
    """y -> y + Xd."""
    X, fixed = fits[name].design.X, fits[name].beta
    d = np.arange(1.0, len(fixed) + 1)

    other = fitted(name, sitka_with_gaps().assign(size=lambda t: t["size"] + X @ d))

    assert_allclose(other.objective, fits[name].objective, rtol=0, atol=1e-7)
    assert_allclose(other.beta - d, fixed, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_known_variances_of_one_row_an_area_are_the_fay_herriot_model(method):
    """Milk (Arora & Lahiri 1997; You & Chapman 2006): the same model by the other engine, to 1e-9."""
    data = hl.load("milk").data
    area = hl.fit(hl.fay_herriot("yi ~ C(MajorArea)", sampling_variance="vardir", area="SmallArea"), data, method)
    mixed = hl.fit(hl.lmm("yi ~ C(MajorArea) + (1 | SmallArea)", residual=hl.KnownVariances("vardir")), data, method)

    assert_allclose(mixed.G[0][0, 0], area.A_hat, rtol=1e-9)
    assert_allclose(mixed.beta, area.beta, rtol=1e-9)
    assert_allclose(mixed.vcov_beta, area.vcov_beta, rtol=1e-8, atol=1e-14)
    assert mixed.sigma2 == 1.0


@pytest.mark.parametrize("structure", ["cs", "ar1", "toep", "un"])
def test_two_occasions_leave_one_correlation(structure):
    """CS, AR1 and Toeplitz are one model over two occasions; UN adds one variance."""
    table = sitka_with_gaps().query("occ <= 2")
    fit = hl.fit(hl.lmm("size ~ treat", residual=STRUCTURES[structure]), table)
    cs = hl.fit(hl.lmm("size ~ treat", residual=STRUCTURES["csh" if structure == "un" else "cs"]), table)

    assert_allclose(fit.objective, cs.objective, rtol=0, atol=1e-9)
    assert_allclose(fit.beta, cs.beta, rtol=1e-7)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_compound_symmetry_is_a_random_intercept_where_the_correlation_is_positive(method):
    """Two ways to write one V, and the engine takes another path for each."""
    table = sitka_with_gaps()
    cs = hl.fit(hl.lmm("size ~ Time * treat", residual=STRUCTURES["cs"]), table, method)
    random = hl.fit(hl.lmm("size ~ Time * treat + (1 | tree)"), table, method)

    assert_allclose(cs.objective, random.objective, rtol=0, atol=1e-9)
    assert_allclose(cs.beta, random.beta, rtol=1e-9)
    assert_allclose(cs.vcov_beta, random.vcov_beta, rtol=1e-8)
    assert_allclose(cs.sigma2, random.sigma2 + random.G[0][0, 0], rtol=1e-8)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_strata_of_separate_fits(method):
    """With every fixed effect crossed with the strata and no random effect, each stratum is a fit of its own."""
    table = sitka_with_gaps()
    whole = hl.fit(hl.lmm("size ~ 0 + C(treat) + C(treat):Time", residual=hl.Stratified("treat")), table, method)
    parts = [hl.fit(hl.lmm("size ~ Time"), part, method) for _, part in table.groupby("treat", observed=True)]

    assert_allclose(whole.objective, sum(part.objective for part in parts), rtol=1e-11)
    variances = whole.variance_components.query("quantity == 'variance'")["estimate"]
    assert_allclose(variances, [part.sigma2 for part in parts], rtol=1e-8)
