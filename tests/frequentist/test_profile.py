"""Profiles of the criterion along one standard deviation, against published limits and dense algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm

from hierlmm.design.types import AreaDesign, Dropped, Fingerprint, GroupingFactor, LMMDesign
from hierlmm.frequentist.area.fitting import fit_area_ml, fit_area_reml
from hierlmm.frequentist.lmm import fit_ml, fit_reml
from hierlmm.frequentist.profile import REACH, REACH_LEVEL, ProfileCurve
from hierlmm.spec.model import ModelSpec
from hierlmm.spec.residual import SamplingVariances
from hierlmm.spec.terms import RandomTerm

SLEEPSTUDY = Path(__file__).parents[2] / "models" / "sleepstudy" / "data.csv"
CLOSELY = {"xatol": 1e-8, "fatol": 1e-9, "maxiter": 4000}
NOTHING = Fingerprint("", "", "", "", "")


def grouped(y: np.ndarray, x: np.ndarray, codes: np.ndarray, names: tuple[str, ...]) -> LMMDesign:
    """y ~ x with random intercepts, and slopes where `names` has two entries."""
    X = np.column_stack([np.ones(y.size), x])
    factor = GroupingFactor(
        name="g", levels=pd.RangeIndex(codes.max() + 1), codes=codes.astype(np.intp), coefficients=names,
        Z=X[:, : len(names)], blocks=(tuple(range(len(names))),), structures=("general",),
    )  # fmt: skip
    return LMMDesign(
        spec=ModelSpec(response="y", fixed=("1", "x"), random=(RandomTerm(("1",), ("g",)),)), table=pd.DataFrame(),
        index=pd.RangeIndex(y.size), y=y, offset=np.zeros(y.size), X=X, fixed=("Intercept", "x"), aliased=(),
        factors=(factor,), levels={}, dropped=Dropped(), notes=(), fingerprint=NOTHING,
    )  # fmt: skip


def simulated(sd: float) -> LMMDesign:
    """Twelve uneven groups, x far from zero so that intercepts and slopes are nearly collinear."""
    rng = np.random.default_rng(20261121)
    codes = np.concatenate([np.arange(12), rng.integers(0, 12, 48)])
    x = 40 + 5 * rng.random(60)
    return grouped(3 + 0.2 * x + sd * rng.normal(size=12)[codes] + rng.normal(size=60), x, codes, ("Intercept", "x"))


def area_design() -> AreaDesign:
    rng = np.random.default_rng(7)
    D = rng.uniform(0.5, 2.0, 15)
    return AreaDesign(
        spec=ModelSpec(
            response="y", fixed=("1",), random=(RandomTerm(("1",), ("area",)),), residual=SamplingVariances("D"),
        ),
        table=pd.DataFrame(), areas=pd.RangeIndex(15), y=rng.normal(size=15) * np.sqrt(1 + D), offset=np.zeros(15), D=D,
        X=np.ones((15, 1)), fixed=("Intercept",), aliased=(), role=np.array(["sampled"] * 15), levels={},
        dropped=Dropped(), notes=(), fingerprint=NOTHING,
    )  # fmt: skip


def limits(curve: ProfileCurve) -> list[float]:
    """Where the signed root of the criterion crosses the 2.5 % and 97.5 % points of the normal distribution."""
    root = np.sign(curve.values - curve.estimate) * np.sqrt(np.maximum(curve.criterion, 0))
    return [float(CubicSpline(root, curve.values)(norm.ppf(p))) for p in (0.025, 0.975)]


def dense(design: LMMDesign, G: np.ndarray, sigma: float, restricted: bool) -> float:
    """-2 (restricted) log likelihood with V formed whole and beta profiled out (or integrated out)."""
    (factor,) = design.factors
    same = factor.codes[:, None] == factor.codes[None, :]
    V = np.where(same, factor.Z @ G @ factor.Z.T, 0) + sigma**2 * np.eye(design.y.size)
    A = design.X.T @ np.linalg.solve(V, design.X)
    beta = np.linalg.solve(A, design.X.T @ np.linalg.solve(V, design.y))
    value = -2 * multivariate_normal.logpdf(design.y, design.X @ beta, V)
    p = design.X.shape[1]
    return value + (np.linalg.slogdet(A)[1] - p * np.log(2 * np.pi) if restricted else 0.0)


def test_profile_limits_of_sleepstudy_are_those_published():
    """Bates, Mächler, Bolker & Walker (2015), J. Stat. Software 67(1), section 5.1: confint() of lme4 by profile
    likelihood (ML), printed to three decimals; data of Belenky et al. (2003)."""
    table = pd.read_csv(SLEEPSTUDY)
    y, x = table["Reaction"].to_numpy(float), table["Days"].to_numpy(float)
    design = grouped(y, x, pd.factorize(table["Subject"])[0], ("Intercept", "x"))

    intercept, slope, residual = fit_ml(design).profile()

    assert_allclose(limits(intercept), [14.381, 37.716], atol=6e-4)
    assert_allclose(limits(slope), [3.801, 8.753], atol=6e-4)
    assert_allclose(limits(residual), [22.898, 28.858], atol=6e-4)


@pytest.mark.parametrize("fit", [fit_reml, fit_ml])
@pytest.mark.parametrize("sd", [0.0, 1.5])
def test_profile_is_the_least_criterion_with_one_sd_held(fit, sd):
    """Against V formed whole, minimised by Nelder & Mead over correlation, other sd and residual sd."""
    design = simulated(sd)
    result = fit(design)
    curve = result.profile()[0]

    for at in (len(curve.values) // 3, len(curve.values) - 3):
        held = curve.values[at]

        def criterion(free, held=held):
            rho, other, sigma = np.tanh(free[0]), np.exp(free[1]), np.exp(free[2])
            G = np.array([[held**2, rho * held * other], [rho * held * other, other**2]])
            return dense(design, G, sigma, result.method == "reml")

        start = [-2.0, np.log(max(held, 0.1) / 40), 0.0]
        found = min(
            minimize(criterion, start, method="Nelder-Mead", options=CLOSELY).fun
            for start in (start, [0.5, -4.0, 0.0], [-4.0, -4.0, 0.0])
        )
        # a perfect correlation is a limit of this parametrisation: the dense search stops short of it
        assert curve.criterion[at] <= found - result.objective + 1e-6
        assert_allclose(curve.criterion[at], found - result.objective, atol=2e-4)


def test_profile_ends_at_zero_in_the_criterion_without_the_term():
    """Balanced one-way: at zero variance the residual sum of squares gives the criterion in closed form."""
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(6), 5)
    design = grouped(rng.normal(size=30) + 0.4 * rng.normal(size=6)[codes], np.arange(30.0) % 5, codes, ("Intercept",))
    fit = fit_ml(design)
    residual = design.y - design.X @ np.linalg.lstsq(design.X, design.y)[0]
    without = 30 * (1 + np.log(2 * np.pi * residual @ residual / 30))

    curve = fit.profile()[0]

    assert curve.values[0] == 0
    assert_allclose(curve.criterion[0], without - fit.objective, atol=1e-8)


def test_profile_does_not_depend_on_units():
    """y in thousandths and x in tens: the sds scale, the criterion above its minimum stays."""
    design = simulated(1.5)
    scaled = grouped(1e3 * design.y, design.X[:, 1] / 10, design.factors[0].codes, ("Intercept", "x"))

    ours, theirs = fit_reml(design).profile(), fit_reml(scaled).profile()

    for one, two, factor in zip(ours, theirs, (1e3, 1e4, 1e3), strict=True):
        assert_allclose(limits(two), factor * np.array(limits(one)), rtol=1e-4)


@pytest.mark.parametrize("fit", [fit_area_reml, fit_area_ml])
def test_area_profile_is_the_criterion_written_out(fit):
    """Fay & Herriot (1979): V = diag(A + D), beta profiled out (ML) or integrated out (REML), by dense algebra."""
    design = area_design()
    result = fit(design)

    def criterion(root):
        V = np.diag(root**2 + design.D)
        A = design.X.T @ np.linalg.solve(V, design.X)
        beta = np.linalg.solve(A, design.X.T @ np.linalg.solve(V, design.y))
        value = -2 * multivariate_normal.logpdf(design.y, design.X @ beta, V)
        return value + (np.linalg.slogdet(A)[1] if result.method == "reml" else 0.0)

    (curve,) = result.profile()

    expected = np.array([criterion(root) for root in curve.values]) - criterion(np.sqrt(result.A_hat))
    assert_allclose(curve.criterion, expected, atol=1e-9)
    assert_allclose(curve.criterion[-1], REACH, atol=1e-8)
    assert curve.criterion.min() == 0


def test_reach_is_a_quantile_of_chi_squared():
    """The level whose two-sided normal quantile squared is REACH."""
    assert_allclose(norm.ppf((1 + REACH_LEVEL) / 2) ** 2, REACH, rtol=1e-12)
