"""The matrices of a small fit, formed whole from its definition."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import hierlmm as hl


@cache
def fitted(name: str) -> hl.LMMFit:
    """A catalogue model by REML."""
    case = hl.load(name)
    return hl.fit(case.spec, case.data)


@cache
def fitted_ar1() -> hl.LMMFit:
    """Sitka with AR(1) residuals beside random intercepts, twelve rows missing."""
    table = hl.load("sitka").data.assign(occ=lambda t: t.groupby("tree")["Time"].rank().astype(int))
    table = table[(7 * np.arange(len(table))) % 33 != 3]
    return hl.fit(hl.lmm("size ~ Time + (1 | tree)", residual=hl.AR1("tree", "occ")), table)


@cache
def fitted_weighted() -> hl.LMMFit:
    """Two crossed factors, a random slope, precision weights, and levels of very different sizes."""
    rng = np.random.default_rng(20261121)
    n = 90
    table = pd.DataFrame(
        {"a": rng.integers(0, 9, n), "b": np.minimum(rng.geometric(0.25, n), 6), "x": 3 + rng.normal(size=n)}
    )
    table["w"] = rng.uniform(0.3, 3.0, n)
    effects = rng.normal(size=9)[table["a"]] + rng.normal(size=7)[table["b"]] * table["x"]
    table["y"] = 1 + table["x"] + effects + rng.normal(size=n) / np.sqrt(table["w"])
    return hl.fit(hl.lmm("y ~ x + (1 | a) + (x | b)", weights=hl.Precision("w")), table)


def residual_covariance(fit: hl.LMMFit) -> np.ndarray:
    """R (n, n): sigma² over the weight, or sigma² rho^|i - j| within a group."""
    design, n = fit.design, len(fit.design.y)
    if design.residual is not None:
        rho = fit.variance_components.query("group == 'Residual' and quantity == 'correlation'")["estimate"].iloc[0]
        same = design.residual.codes[:, None] == design.residual.codes
        return fit.sigma2 * same * rho ** np.abs(design.residual.place[:, None] - design.residual.place)
    return fit.sigma2 * np.diag(np.ones(n) if design.scale is None else design.scale)


def matrices(fit: hl.LMMFit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V, R and P, (n, n) each."""
    R = residual_covariance(fit)
    V = R.copy()
    for factor, G in zip(fit.design.factors, fit.G, strict=True):
        V += (factor.Z @ G @ factor.Z.T) * (factor.codes[:, None] == factor.codes)
    X = fit.design.X
    VX = np.linalg.solve(V, X)
    return V, R, np.linalg.inv(V) - VX @ np.linalg.solve(X.T @ VX, VX.T)


FITS = {
    "sleepstudy": lambda: fitted("sleepstudy"),
    "penicillin": lambda: fitted("penicillin"),
    "politeness/slopes": lambda: fitted("politeness/slopes"),
    "dyestuff2": lambda: fitted("dyestuff2"),
    "ar1": fitted_ar1,
    "weighted": fitted_weighted,
}
