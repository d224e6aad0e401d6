"""Hostile inputs of linear mixed models: the right answer from an independent witness, or an error that says why.

The numbers in names are those of the project's list of hostile inputs. What a design refuses on its own is tested in
design/test_hostile_inputs.py, test_weights.py and test_residual_rows.py, and is not repeated here.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hierlmm as hl
from hierlmm.errors import DesignError, FitError
from hierlmm.frequentist.lmm_results import LMMOutcome

METHODS = ["reml", "ml"]


def table(**changes: object) -> pd.DataFrame:
    """72 rows in 12 groups of 6 positions; y in multiples of 1/1024, so that whole numbers are added exactly."""
    rng = np.random.default_rng(172)
    g, x = np.repeat([f"a{i:02d}" for i in range(12)], 6), rng.normal(size=72)
    y = 1 + 0.25 * x + rng.normal(size=12).repeat(6) + rng.normal(size=72)
    t = np.tile(np.arange(6), 12)
    return pd.DataFrame({"g": g, "x": x, "t": t, "y": np.round(y * 1024) / 1024}).assign(**changes)


def gls(data: pd.DataFrame, V: np.ndarray, method: str) -> tuple[float, np.ndarray]:
    """-2 log (restricted) likelihood and coefficients of y on 1, x with covariance V, by n x n matrices."""
    X, y = np.column_stack([np.ones(len(data)), data["x"]]), data["y"].to_numpy()
    W = np.linalg.solve(V, np.column_stack([X, y]))
    M = X.T @ W[:, :2]
    beta = np.linalg.solve(M, X.T @ W[:, 2])
    value = np.linalg.slogdet(V)[1] + (y - X @ beta) @ (W[:, 2] - W[:, :2] @ beta)
    value += (len(y) - 2 * (method == "reml")) * np.log(2 * np.pi)
    return value + (np.linalg.slogdet(M)[1] if method == "reml" else 0.0), beta


def assert_optimal(criterion, at: np.ndarray, value: float) -> None:
    """`value` is the criterion at `at`, and no point around it has less."""
    assert_allclose(value, criterion(at), rtol=1e-9)
    for unit in np.eye(len(at)):
        for step in (-1e-3, 1e-3):
            assert criterion(at * (1 + step * unit)) > value - 1e-9 * abs(value)


@pytest.mark.parametrize("method", METHODS)
def test_1_one_series_is_enough_for_autocorrelation(method):
    """One group has no variance between groups, but 72 positions: AR(1) against its innovations, one by one."""
    data = table(g="one", t=np.arange(72))
    fit = hl.fit(hl.lmm("y ~ x", residual=hl.AR1("g", "t")), data, method)
    correlation = fit.variance_components.set_index("quantity").loc["correlation", "estimate"]

    def criterion(at):
        variance, rho = at
        U = data[["x", "y"]].assign(one=1.0)[["one", "x", "y"]].to_numpy()
        innovations = np.vstack([U[:1] * np.sqrt(1 - rho**2), U[1:] - rho * U[:-1]])
        scale = variance * (1 - rho**2)
        gram = innovations.T @ innovations / scale
        beta = np.linalg.solve(gram[:2, :2], gram[:2, 2])
        value = 72 * np.log(scale) - np.log(1 - rho**2) + gram[2, 2] - beta @ gram[:2, 2]
        value += (72 - 2 * (method == "reml")) * np.log(2 * np.pi)
        return value + (np.linalg.slogdet(gram[:2, :2])[1] if method == "reml" else 0.0)

    assert fit.certificate.certified
    assert_optimal(criterion, np.array([fit.sigma2, correlation]), fit.objective)


@pytest.mark.parametrize(
    ("formula", "residual", "data", "message"),
    [
        ("y ~ x + (1 | g)", hl.Independent(), table(g="one"), "2 levels.*g has the single level one"),
        ("y ~ x + (1 | g)", hl.Stratified("t"), table(g="one"), "2 levels.*g has the single level one"),
        (
            "y ~ x + (1 | g)",
            hl.AR1("g", "t"),
            table(g="one", t=np.arange(72)),
            "2 levels.*g has the single level one",
        ),
        ("y ~ x", hl.Unstructured("g", "t"), table()[:6], "at least 6 groups.*g has 1"),
        ("y ~ x", hl.HeterogeneousAR1("g", "t"), table()[:6], "7 parameters, and there are 6 rows"),
        ("y ~ x + (1 | g)", hl.Independent(), table(g=range(72)), "every row is a level of g of its own"),
        ("y ~ x + (1 | g)", hl.Stratified("t"), table(g=range(72)), "every row is a level of g of its own"),
    ],
)
def test_1_2_groups_that_tell_nothing_apart_are_refused(formula, residual, data, message):
    """One group, or a group for each row, also beside residual structures, named before anything is fitted."""
    with pytest.raises(DesignError, match=message):
        hl.fit(hl.lmm(formula, residual=residual), data)


@pytest.mark.parametrize("method", METHODS)
def test_2_each_row_its_own_group_beside_autocorrelation_is_white_noise(method):
    """Rows of their own beside AR(1) over another group: continuous AR(1) has the same as its nugget."""
    rng = np.random.default_rng(21)
    n, m = 20, 15
    e = np.zeros((m, n))
    e[:, 0] = rng.normal(size=m)
    for k in range(1, n):
        e[:, k] = 0.8 * e[:, k - 1] + 0.6 * rng.normal(size=m)
    y = (e + 0.7 * rng.normal(size=(m, n))).ravel()
    data = pd.DataFrame({"y": y, "x": rng.normal(size=m * n), "h": np.repeat(range(m), n), "t": np.tile(range(n), m)})
    rows = hl.fit(hl.lmm("y ~ x + (1 | row)", residual=hl.AR1("h", "t")), data.assign(row=range(m * n)), method)
    nugget = hl.fit(hl.lmm("y ~ x", residual=hl.ContinuousAR1("h", "t", nugget=True)), data, method)

    assert_allclose(rows.objective, nugget.objective, rtol=1e-9)
    assert_allclose(rows.beta, nugget.beta, rtol=1e-6)
    assert_allclose(rows.sigma2 + rows.G[0].item(), nugget.sigma2, rtol=1e-6)


@pytest.mark.parametrize(
    "residual",
    [hl.Stratified("t"), hl.AR1("g", "t"), hl.HeterogeneousAR1("g", "t"), hl.ContinuousAR1("g", "t")],
    ids=lambda residual: type(residual).__name__,
)
@pytest.mark.parametrize("method", METHODS)
def test_13_no_residual_variance_beside_a_structure_is_refused(residual, method):
    """A group effect plus x / 4: the likelihood has no upper bound, and a structure has no limit to report."""
    data = table(y=lambda d: d["g"].str[1:].astype(float) ** 1.5 + 0.25 * d["x"])

    with pytest.raises(FitError, match=r"residual variance must be positive.*reproduce all 72 responses"):
        hl.fit(hl.lmm("y ~ x + (1 | g)", residual=residual), data, method)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_13_little_residual_variance_is_not_none(spread):
    """Residuals of 1e-4 of the spread of groups: the slope and sigma² of fixed group effects, the limit of gamma = 1.

    Sums of squares hold the square of that share to 16 digits less.
    """
    data = table()
    noise = np.random.default_rng(1).normal(size=72)
    level = data["g"].str[1:].astype(float) ** 1.5
    data["y"] = level + 0.25 * data["x"] + spread * level.std() * noise
    fit = hl.fit(hl.lmm("y ~ x + (1 | g)"), data)
    dx, dy = (data[v] - data.groupby("g")[v].transform("mean") for v in ("x", "y"))
    slope = dx @ dy / (dx @ dx)
    s2 = ((dy - slope * dx) ** 2).sum() / (72 - 13)

    assert fit.outcome is LMMOutcome.INTERIOR
    assert_allclose(fit.beta[1], slope, atol=spread**2)
    assert_allclose(fit.sigma2, s2, rtol=10 * spread**2 + 1e-15 / spread**2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("residual", [hl.Independent(), hl.AR1("g", "t")], ids=["independent", "ar1"])
def test_14_slopes_of_a_covariate_that_is_constant_in_groups(residual, method):
    """Seen between groups only, as a variance that grows with x: noted, and the optimum of the dense likelihood."""
    rng = np.random.default_rng(14)
    z = np.linspace(-2, 2, 12)
    data = table(x=z.repeat(6))
    data["y"] += (rng.normal(size=12) * z**2).repeat(6)
    fit = hl.fit(hl.lmm("y ~ x + (x | g)", residual=residual), data, method)
    G = fit.G[0]
    lag = fit.variance_components.query("term == 'lag 1'")["estimate"].sum()
    at = np.array([fit.sigma2, G[0, 0], G[1, 0], G[1, 1], lag])
    distance = np.abs(np.subtract.outer(range(6), range(6)))

    def criterion(at):
        blocks = [at[0] * at[4] ** distance + at[1] + 2 * v * at[2] + v * v * at[3] for v in z]
        V = np.zeros((72, 72))
        for i, block in enumerate(blocks):
            V[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] = block
        return gls(data, V, method)[0]

    assert fit.certificate.certified
    assert any("constant within every level of g" in note for note in fit.notes)
    if fit.singular:
        assert_allclose(fit.objective, criterion(at), rtol=1e-9)
    else:
        assert_optimal(criterion, at, fit.objective)


@pytest.mark.parametrize(
    "residual", [hl.AR1("g", "t"), hl.Stratified("t"), hl.KnownVariances("v")], ids=lambda r: type(r).__name__
)
def test_32_more_coefficients_than_rows_are_refused_whatever_the_residuals(residual):
    """A category in each row, also where the residual variance is known."""
    with pytest.raises(DesignError, match=r"72 rows and 72 effects.*k \(72 levels\)"):
        hl.fit(hl.lmm("y ~ k", residual=residual), table(k=[f"k{i}" for i in range(72)], v=1.0))


@pytest.mark.parametrize("residual", [hl.Independent(), hl.AR1("g", "t"), hl.Stratified("t")], ids=repr)
def test_17_whole_numbers_of_1e10_added_to_the_response_change_the_intercept_alone(residual):
    """y + 1e10 without rounding, and the same with offset(1e10): nothing is lost that the doubles have."""
    data = table()
    one = hl.fit(hl.lmm("y ~ x + (1 | g)", residual=residual), data)
    shifted = hl.fit(one.spec, data.assign(y=data["y"] + 1e10))
    offset = hl.fit(hl.lmm("y ~ x + offset(o) + (1 | g)", residual=residual), data.assign(y=data["y"] + 1e10, o=1e10))

    for other in (shifted, offset):
        assert_allclose(other.objective, one.objective, rtol=1e-9)
        assert_allclose([other.sigma2, other.G[0].item()], [one.sigma2, one.G[0].item()], rtol=1e-9)
        assert_allclose(other.beta[1], one.beta[1], rtol=1e-9)
        assert_allclose(other.b[0], one.b[0], rtol=1e-9, atol=1e-9)
    assert_allclose(offset.beta[0], one.beta[0], rtol=1e-9)
    assert_allclose(shifted.beta[0] - 1e10, one.beta[0], atol=1e-5)


def test_17_an_offset_that_differs_by_row_is_taken_from_the_response():
    """Offsets of 1e10 and more, a whole number for each row."""
    o = 1e10 * (1 + np.arange(72.0) % 5)
    one = hl.fit(hl.lmm("y ~ x + (1 | g)"), table())
    other = hl.fit(hl.lmm("y ~ x + offset(o) + (1 | g)"), table(o=o, y=table()["y"] + o))

    assert_allclose(other.objective, one.objective, rtol=1e-5)  # y itself has lost digits: 2e-6 of the unit
    assert_allclose(other.beta, one.beta, rtol=1e-5)
    assert_allclose(other.marginal_fitted, one.marginal_fitted + o, rtol=1e-14)


@pytest.mark.parametrize("unit", [1e9, 1e-9])
@pytest.mark.parametrize(
    ("formula", "residual"),
    [
        ("y ~ x + (x | g)", hl.Independent()),
        ("y ~ x + cs(0 + f | g)", hl.Independent()),
        ("y ~ x + (1 | g)", hl.Stratified("f")),
    ],
)
def test_11_units_of_the_response_with_every_structure(formula, residual, unit):
    """y in units of 1e9 and 1e-9: everything follows, nothing else changes."""
    data = table(f=np.tile(["u", "v", "w"], 24))
    one = hl.fit(hl.lmm(formula, residual=residual), data)
    other = hl.fit(one.spec, data.assign(y=unit * data["y"]))

    assert_allclose(other.objective, one.objective + 2 * 70 * np.log(unit), rtol=1e-9)
    assert_allclose(other.sigma2 / unit**2, one.sigma2, rtol=1e-8)
    assert_allclose(other.beta / unit, one.beta, rtol=1e-8)
    assert_allclose(other.G[0] / unit**2, one.G[0], rtol=1e-7, atol=1e-8)
    assert other.outcome is one.outcome


RESIDUALS = [hl.AR1("g", "t"), hl.Unstructured("g", "t"), hl.CompoundSymmetry("g"), hl.Stratified("t")]


@pytest.mark.parametrize("residual", RESIDUALS, ids=lambda residual: type(residual).__name__)
def test_22_a_precision_of_zero_beside_a_structure_leaves_a_gap(residual):
    """The row goes, its position does not: the same as the table without it."""
    data = table(w=np.where(np.arange(72) == 8, 0.0, 1.0))
    one = hl.fit(hl.lmm("y ~ x", residual=residual), data.drop(index=8))
    other = hl.fit(hl.lmm("y ~ x", residual=residual, weights=hl.Precision("w")), data)

    assert "1 row was left out because the weight w is 0: 8." in other.notes
    assert_allclose(other.objective, one.objective, rtol=1e-12)
    assert_allclose(other.beta, one.beta, rtol=1e-9)


@pytest.mark.parametrize("residual", RESIDUALS, ids=lambda residual: type(residual).__name__)
def test_23_negative_precisions_beside_a_structure_are_refused(residual):
    """By row."""
    with pytest.raises(DesignError, match="column w is negative in rows 8"):
        hl.fit(
            hl.lmm("y ~ x", residual=residual, weights=hl.Precision("w")),
            table(w=np.where(np.arange(72) == 8, -1.0, 1.0)),
        )


def test_44_names_of_levels_that_collide_when_joined_stay_apart():
    """a = "x:y", b = "z" and a = "x", b = "y:z" are two groups, in factors and in residual structures."""
    first = np.arange(72) % 12 < 6
    clear = table(a=np.where(first, "p", "q"), b=np.where(first, "r", "s"), h=np.repeat(np.arange(6), 12))
    data = clear.assign(a=np.where(first, "x:y", "x"), b=np.where(first, "z", "y:z"))

    for spec in (
        hl.lmm("y ~ x + (1 | a:b:h)"),
        hl.lmm("y ~ x + (1 | h/a)"),
        hl.lmm("y ~ x", residual=hl.CompoundSymmetry("a:b")),
        hl.lmm("y ~ x + (1 | h)", residual=hl.Stratified("a:b")),
    ):
        one, other = hl.fit(spec, clear), hl.fit(spec, data)
        assert_allclose(other.objective, one.objective, rtol=1e-12)
        variances = (
            np.sort(fit.variance_components.query("quantity == 'variance'")["estimate"]) for fit in (one, other)
        )
        assert_allclose(*variances, rtol=1e-6)
        for factor in other.design.factors:
            assert factor.levels.is_unique
    fit = hl.fit(hl.lmm("y ~ x + (1 | a:b:h)"), data)
    assert len(fit.design.factors[0].levels) == 12
    assert fit.random_effects["level"].nunique() == 12


def test_44_levels_named_like_everything_else():
    """Groups called Residual, Intercept, nan as text, an empty string and a sentence: the same fit as plain names."""
    names = ["Residual", "Intercept", "None", "nan", "(1 | g)", "x", "g", "y", "0", "=1+1", "<b>", "a b c"]
    data = table()
    one = hl.fit(hl.lmm("y ~ x + (1 | g)"), data)
    other = hl.fit(one.spec, data.assign(g=np.repeat(names, 6)))

    assert_allclose(other.objective, one.objective, rtol=1e-12)
    effects = other.random_effects.set_index("level")["estimate"]
    assert_allclose(effects.loc[names], one.b[0][:, 0], rtol=1e-9)
    assert "Residual" in other.summary()


def test_34_a_million_groups_are_fitted_in_seconds():
    """10⁶ groups of two rows: the analysis of variance to 1e-10, in one pass over the rows."""
    rng = np.random.default_rng(34)
    m = 1_000_000
    y = 2 + rng.normal(size=m).repeat(2) + rng.normal(size=2 * m)
    data = pd.DataFrame({"g": np.arange(m).repeat(2), "y": y})

    start = time.perf_counter()
    fit = hl.fit(hl.lmm("y ~ 1 + (1 | g)"), data)
    seconds = time.perf_counter() - start

    pairs = y.reshape(m, 2)
    msb, msw = 2 * pairs.mean(axis=1).var(ddof=1), ((pairs[:, 0] - pairs[:, 1]) ** 2).mean() / 2
    assert_allclose(fit.G[0].item(), (msb - msw) / 2, rtol=1e-10)
    assert_allclose(fit.sigma2, msw, rtol=1e-10)
    assert_allclose(fit.vcov_beta.item(), msb / (2 * m), rtol=1e-10)
    assert seconds < 30
