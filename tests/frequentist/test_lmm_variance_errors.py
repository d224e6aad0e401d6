"""Standard errors of residual structures against nlme's intervals and information matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from structures import REFERENCE, STRUCTURES, sitka

import hierlmm as hl


def row(fit, quantity):
    """The first row of a quantity of the residuals."""
    return fit.variance_components.query("group == 'Residual' and quantity == @quantity").iloc[0]


def test_intervals_of_ar1_are_those_of_nlme():
    """intervals(gls): from the observed information where ours is the average one; widths to 2 %, on its scales."""
    reference = REFERENCE["runs"]["fits"]["intervals ar1 REML"]
    fit = hl.fit(hl.lmm("size ~ Time * treat", residual=STRUCTURES["ar1"]), sitka())

    for quantity, name, scale in (("correlation", "corr", np.arctanh), ("sd", "sigma", np.log)):
        ours = row(fit, quantity)
        low, middle, high = scale(reference[name])
        assert_allclose(scale(ours["estimate"]), middle, rtol=1e-5)
        assert_allclose(scale(ours["upper"]) - scale(ours["lower"]), high - low, rtol=0.03)


def covariance(name, values, table):
    """V at logs of variances and range, and artanh of the correlation; the variance of trees stands last."""
    occasion, time = table["occ"].to_numpy(), table["Time"].to_numpy(dtype=float)
    together = table["tree"].to_numpy()[:, None] == table["tree"].to_numpy()
    if name == "strata":
        return np.diag(np.exp(values)[occasion - 1])
    lag = np.abs(occasion[:, None] - occasion) if name != "car1" else np.abs(time[:, None] - time)
    if name == "car1":
        return np.exp(values[0]) * together * np.exp(-lag / np.exp(values[1]))
    R = np.exp(values[0]) * together * np.tanh(values[1]) ** lag
    if name == "csh":
        sd = np.exp(values[:5] / 2)[occasion - 1]
        R = together * np.outer(sd, sd) * np.where(lag == 0, 1.0, np.tanh(values[5]))
    return R + (np.exp(values[2]) * together if name == "ar1 and intercepts" else 0.0)


def projected(V, X):
    """P = V⁻¹ - V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹."""
    VX = np.linalg.solve(V, X)
    return np.linalg.inv(V) - VX @ np.linalg.solve(X.T @ VX, VX.T)


def average_errors(of, at, fit, step=1e-4):
    """(k,) standard errors from ½ y'P V_r P V_s P y, with V = of(values) and its derivatives by differences."""
    P = projected(of(at), fit.design.X)
    r = P @ fit.design.y
    E = step * np.eye(len(at))
    turned = np.array([(of(at + e) - of(at - e)) @ r / (2 * step) for e in E])
    return np.sqrt(np.diag(np.linalg.inv(0.5 * turned @ P @ turned.T)))


def observed_errors(of, at, fit, step=1e-3):
    """(k,) standard errors from second differences of the restricted likelihood."""

    def criterion(values):
        V = of(values)
        P = projected(V, fit.design.X)
        log_det = np.linalg.slogdet(fit.design.X.T @ np.linalg.solve(V, fit.design.X))[1]
        return np.linalg.slogdet(V)[1] + log_det + fit.design.y @ P @ fit.design.y

    E = step * np.eye(len(at))
    signs = [(a, b) for a in (1, -1) for b in (1, -1)]
    H = [[sum(a * b * criterion(at + a * e + b * f) for a, b in signs) / (4 * step**2) for f in E] for e in E]
    return np.sqrt(np.diag(np.linalg.inv(np.array(H) / 2)))


def estimates(fit, name):
    """Estimates on the scales of `covariance`, the derivatives of the natural ones there, and their errors."""
    frame = fit.variance_components
    rows = [frame.query("group == 'Residual' and quantity == 'variance'")]
    rows.append(frame.query("group == 'Residual' and quantity in ('correlation', 'range')"))
    if name == "ar1 and intercepts":
        rows.append(frame.query("group == 'tree' and quantity == 'variance'"))
    value, se = (np.concatenate([part[column] for part in rows]) for column in ("estimate", "se"))
    bent = np.concatenate([part["quantity"] == "correlation" for part in rows])
    return np.where(bent, np.arctanh(np.where(bent, value, 0)), np.log(value)), np.where(bent, 1 - value**2, value), se


MODELS = {
    "ar1": STRUCTURES["ar1"],
    "car1": STRUCTURES["car1"],
    "csh": STRUCTURES["csh"],
    "strata": hl.Stratified("occ"),
    "ar1 and intercepts": STRUCTURES["ar1"],
}


@pytest.mark.parametrize("name", MODELS)
def test_errors_are_those_of_the_average_information(name):
    """½ y'P V_r P V_s P y written out, with the n x n matrices of the model."""
    table, random = sitka(), " + (1 | tree)" if "intercepts" in name else ""
    fit = hl.fit(hl.lmm(f"size ~ Time * treat{random}", residual=MODELS[name]), table)
    at, slope, se = estimates(fit, name)

    assert_allclose(se, slope * average_errors(lambda values: covariance(name, values, table), at, fit), rtol=1e-5)


@pytest.mark.parametrize("name", ["ar1", "car1"])
def test_average_and_observed_information_are_close_where_the_structure_fits(name):
    """nlme's intervals rest on the observed one."""
    table = sitka()
    fit = hl.fit(hl.lmm("size ~ Time * treat", residual=MODELS[name]), table)
    at, slope, se = estimates(fit, name)

    observed = observed_errors(lambda values: covariance(name, values, table), at, fit)

    assert_allclose(se, slope * observed, rtol=0.03)


def test_what_lies_at_a_bound_has_no_error_and_the_others_are_conditional():
    """A nugget at 0 leaves range and variance with the errors of the model without one."""
    table = sitka()
    at_zero = hl.fit(hl.lmm("size ~ Time", residual=hl.ContinuousAR1("tree", "Time", nugget=True)), table)
    without = hl.fit(hl.lmm("size ~ Time", residual=STRUCTURES["car1"]), table)

    assert np.isnan(row(at_zero, "nugget")["se"])
    for quantity in ("variance", "range"):
        assert_allclose(row(at_zero, quantity)["se"], row(without, quantity)["se"], rtol=1e-5)


def test_a_singular_covariance_is_held():
    """Correlation -1 of intercepts and slopes: no errors there, and those of AR1 given that matrix."""
    fit = hl.fit(hl.lmm("size ~ Time * treat + (1 + Time | tree)", residual=STRUCTURES["ar1"]), sitka())
    parts = fit.variance_components.query("quantity != 'share'")
    table = sitka()
    together = table["tree"].to_numpy()[:, None] == table["tree"].to_numpy()
    random = fit.marginal_covariance(1, "tree").to_numpy() - fit.residual_covariance.to_numpy()
    held = np.tile(random, (79, 79)) * together  # every tree is measured at the same times
    rho = row(fit, "correlation")
    at = np.array([np.log(fit.sigma2), np.arctanh(rho["estimate"])])

    errors = average_errors(lambda values: held + covariance("ar1", values, table), at, fit)

    assert fit.singular
    assert parts.query("group == 'tree'")["se"].isna().all()
    ours = [row(fit, "variance")["se"], rho["se"]]
    assert_allclose(ours, errors * [fit.sigma2, 1 - rho["estimate"] ** 2], rtol=1e-5)


def test_intervals_of_an_intraclass_correlation_stay_in_its_space() -> None:
    """Symmetric on Fisher's scale ½ log((1 + (k - 1)ρ) / (1 - ρ)) of groups of k (Fisher 1925, section 38)."""
    case = hl.load("dyestuff2/compound_symmetry")
    frame = hl.fit(case.spec, case.data).variance_components
    row = frame[frame["quantity"] == "correlation"].iloc[0]
    k = 5

    def scale(rho: float) -> float:
        return 0.5 * np.log((1 + (k - 1) * rho) / (1 - rho))

    slope = 0.5 * ((k - 1) / (1 + (k - 1) * row.estimate) + 1 / (1 - row.estimate))
    assert -1 / (k - 1) < row.lower < row.estimate < row.upper < 1
    assert scale(row.upper) - scale(row.estimate) == pytest.approx(1.959963984540054 * slope * row.se, rel=1e-9)
    assert scale(row.estimate) - scale(row.lower) == pytest.approx(1.959963984540054 * slope * row.se, rel=1e-9)
